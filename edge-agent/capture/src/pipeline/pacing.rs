//! Leaves out pictures above the asked-for rate, before they are converted.

use std::sync::atomic::{AtomicU64, Ordering};

use gstreamer as gst;
use gstreamer::prelude::*;

/// Lets at most `fps` pictures a second through a pad.
///
/// By the pictures' own time stamps, so that a burst after a hold-up is thinned like any other stretch; pictures without a
/// stamp pass.
pub(super) fn limit(pad: &gst::Pad, fps: u32) {
    let pacer = Pacer::new(fps);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let stamp = info.buffer().and_then(|buffer| buffer.pts()).map(gst::ClockTime::nseconds);
        match stamp {
            // Not `Drop`: the bindings have taken the buffer by then, and GStreamer would complain about the missing one.
            Some(stamp) if !pacer.lets_through(stamp) => gst::PadProbeReturn::Handled,
            _ => gst::PadProbeReturn::Ok,
        }
    });
}

/// One streaming thread uses it at a time, so that relaxed ordering suffices.
struct Pacer {
    interval_ns: u64,
    /// The earliest stamp that passes next; 0 lets any through.
    due_ns: AtomicU64,
}

impl Pacer {
    fn new(fps: u32) -> Self {
        Self { interval_ns: 1_000_000_000 / u64::from(fps.max(1)), due_ns: AtomicU64::new(0) }
    }

    fn lets_through(&self, stamp_ns: u64) -> bool {
        let due = self.due_ns.load(Ordering::Relaxed);
        // A third of an interval early is on time (stamps jitter; half would let a camera of twice the rate through whole);
        // a jump back is a new stream.
        let jumped_back = stamp_ns + 2 * self.interval_ns < due;
        if stamp_ns + self.interval_ns / 3 < due && !jumped_back {
            return false;
        }
        // From the due time on, so that the mean rate is kept; from the stamp when the stream had a hole.
        let base = if jumped_back || stamp_ns > due + self.interval_ns { stamp_ns } else { due };
        self.due_ns.store(base + self.interval_ns, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a second's pictures pass.
    fn passing(camera_fps: u64, fps: u32) -> usize {
        let pacer = Pacer::new(fps);
        (0..camera_fps).filter(|n| pacer.lets_through(n * 1_000_000_000 / camera_fps)).count()
    }

    #[test]
    fn a_faster_camera_is_thinned_to_the_rate() {
        assert_eq!(passing(30, 15), 15);
        assert!((14..=16).contains(&passing(25, 15)));
        assert!((15..=16).contains(&passing(60, 15)));
    }

    #[test]
    fn a_slower_camera_passes_whole() {
        assert_eq!(passing(10, 15), 10);
        assert_eq!(passing(15, 15), 15);
    }

    #[test]
    fn a_jump_either_way_does_not_stop_the_flow() {
        let pacer = Pacer::new(15);
        assert!(pacer.lets_through(3_600_000_000_000));
        assert!(pacer.lets_through(0));
        assert!(pacer.lets_through(7_200_000_000_000));
        assert!(!pacer.lets_through(7_200_010_000_000));
    }
}
