//! Signs that the pictures do not come from a sensor: a loop, impossible times, frozen noise.
//!
//! In: per frame its time and a digest of the face's own pixels. Out: a [`Check`]. A sensor is noisy, so that the same
//! pixels never come twice; a video that is fed in repeats itself as soon as it loops, and a picture that is fed in never
//! changes. A whole frame that repeats the one before is left out earlier and is not seen here. What is fed in with fresh
//! noise and true times passes: this check only ever accuses.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::findings::{Check, CheckState};
use crate::time::MonoTime;

/// Digests remembered: half a minute at 15 a second, the length of a looped clip.
const MEMORY: usize = 450;
/// Times closer together than this come from no camera (500 a second).
const SHORTEST_INTERVAL: Duration = Duration::from_millis(2);
/// Signs that make an attack. One may be a decoder's hiccup.
const SIGNS: u32 = 3;
/// Frames without a sign until the check passes.
const ENOUGH: u32 = 10;

/// Follows the pixels of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct InjectionMeter {
    order: VecDeque<u64>,
    known: HashSet<u64>,
    newest: Option<MonoTime>,
    n_frames: u32,
    n_signs: u32,
}

impl InjectionMeter {
    pub(super) fn push(&mut self, at: MonoTime, digest: Option<u64>) {
        let hasty = self.newest.replace(at).is_some_and(|newest| at.since(newest) < SHORTEST_INTERVAL);
        let Some(digest) = digest else { return };
        self.n_frames += 1;
        let repeated = !self.known.insert(digest);
        if repeated || hasty {
            self.n_signs += 1;
        }
        if !repeated {
            self.order.push_back(digest);
        }
        if self.order.len() > MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn check(&self) -> Check {
        let state = match (self.n_signs, self.n_frames) {
            (_, 0) => return Check::UNAVAILABLE,
            (SIGNS.., _) => CheckState::Fail,
            (0, ENOUGH..) => CheckState::Pass,
            _ => CheckState::Undecided,
        };
        Check::measured(state, self.n_signs as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(frames: impl IntoIterator<Item = (u64, u64)>) -> CheckState {
        let mut meter = InjectionMeter::default();
        for (millis, digest) in frames {
            meter.push(MonoTime::from_millis(millis), Some(digest));
        }
        meter.check().state
    }

    #[test]
    fn a_sensor_never_repeats_itself() {
        assert_eq!(watched((0..2_000).map(|n| (n * 66, n))), CheckState::Pass);
        assert_eq!(watched((0..5).map(|n| (n * 66, n))), CheckState::Undecided);
        assert_eq!(InjectionMeter::default().check(), Check::UNAVAILABLE);
    }

    #[test]
    fn a_loop_a_frozen_face_and_impossible_times_are_attacks() {
        assert_eq!(watched((0..120).map(|n| (n * 66, n % 100))), CheckState::Fail, "a clip of 100 pictures");
        assert_eq!(watched((0..10).map(|n| (n * 66, 7))), CheckState::Fail, "a picture");
        let burst = (0..40u64).map(|n| if n < 30 { (n * 66, n) } else { (1_914 + (n - 29), n) });
        assert_eq!(watched(burst), CheckState::Fail, "ten frames in ten milliseconds");
    }

    #[test]
    fn one_repetition_is_a_hiccup() {
        assert_eq!(watched((0..60).map(|n| (n * 66, if n == 30 { 29 } else { n }))), CheckState::Undecided);
    }
}
