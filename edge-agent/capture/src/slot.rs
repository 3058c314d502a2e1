//! The hand-over between a camera's thread and whoever looks at its frames: one slot, the newest frame wins.
//!
//! In: frames and states from the supervisor. Out: the newest unread frame, or why there is none. A frame that nobody
//! took before the next one came is dropped and counted; that is what a full slot means.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use face_core::{Frame, FrameUnavailable, MonoTime};

use crate::event::CameraState;

/// Figures since the camera was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameraStats {
    /// Frames that reached the slot.
    pub frames: u64,
    /// Frames that were replaced unread.
    pub dropped: u64,
    /// How often the source was made anew after a stall or an error.
    pub restarts: u64,
    /// When the newest frame was captured.
    pub newest_at: Option<MonoTime>,
}

pub(crate) struct Slot {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    frame: Option<Frame>,
    state: CameraState,
    stats: CameraStats,
}

impl Slot {
    pub(crate) fn new() -> Self {
        let inner = Inner { frame: None, state: CameraState::Starting, stats: CameraStats::default() };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// Puts a frame in; one that is still there is dropped.
    pub(crate) fn put(&self, frame: Frame) {
        let mut inner = self.lock();
        inner.stats.frames += 1;
        inner.stats.newest_at = Some(frame.captured_at);
        if inner.frame.replace(frame).is_some() {
            inner.stats.dropped += 1;
        }
        self.changed.notify_all();
    }

    pub(crate) fn set_state(&self, state: CameraState) {
        self.lock().state = state;
        self.changed.notify_all();
    }

    pub(crate) fn count_restart(&self) {
        self.lock().stats.restarts += 1;
    }

    pub(crate) fn state(&self) -> CameraState {
        self.lock().state.clone()
    }

    pub(crate) fn stats(&self) -> CameraStats {
        self.lock().stats
    }

    /// Takes the frame, waiting up to `wait` for one.
    ///
    /// A source that has ended or stalled is told of only when the waiting is over, so that a caller in a loop does not
    /// spin; a frame that was put before the end is still given.
    pub(crate) fn take(&self, wait: Duration) -> Result<Frame, FrameUnavailable> {
        let inner = self.lock();
        let (mut inner, _) = self
            .changed
            .wait_timeout_while(inner, wait, |inner| inner.frame.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = inner.frame.take() {
            return Ok(frame);
        }
        Err(match &inner.state {
            CameraState::Starting | CameraState::Playing => FrameUnavailable::NotYet,
            CameraState::Stalled { since } | CameraState::Failed { since, .. } | CameraState::Faulty { since, .. } => {
                FrameUnavailable::Stalled { since: *since }
            }
            CameraState::Ended => FrameUnavailable::Ended,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use face_core::RgbImage;

    use super::*;

    fn frame(sequence: u64) -> Frame {
        let image = RgbImage::from_vec(1, 1, vec![0; 3]).unwrap();
        Frame { image, captured_at: MonoTime::from_millis(sequence), sequence }
    }

    #[test]
    fn the_newest_frame_wins_and_the_others_are_counted() {
        let slot = Slot::new();
        for sequence in 1..=5 {
            slot.put(frame(sequence));
        }
        assert_eq!(slot.take(Duration::ZERO).unwrap().sequence, 5);
        assert_eq!(slot.take(Duration::ZERO).unwrap_err(), FrameUnavailable::NotYet);
        assert_eq!((slot.stats().frames, slot.stats().dropped), (5, 4));
    }

    #[test]
    fn a_frame_wakes_whoever_waits() {
        let slot = Arc::new(Slot::new());
        let waiting = std::thread::spawn({
            let slot = Arc::clone(&slot);
            move || slot.take(Duration::from_secs(60))
        });
        slot.put(frame(1));
        assert_eq!(waiting.join().unwrap().unwrap().sequence, 1);
    }

    #[test]
    fn the_reason_of_having_nothing_is_the_state() {
        let slot = Slot::new();
        let since = MonoTime::from_millis(7);
        slot.set_state(CameraState::Stalled { since });
        assert_eq!(slot.take(Duration::ZERO).unwrap_err(), FrameUnavailable::Stalled { since });
        slot.put(frame(1));
        slot.set_state(CameraState::Ended);
        assert!(slot.take(Duration::ZERO).is_ok());
        assert_eq!(slot.take(Duration::ZERO).unwrap_err(), FrameUnavailable::Ended);
    }
}
