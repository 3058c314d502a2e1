//! Did both eyes shut and open again, as fast as a blink and no faster than anything alive?
//!
//! In: per frame the eyes' aspect ratio and the eye model's answer. Out: a [`Check`]. A frame is shut when the model calls
//! both eyes closed **and** the aspect ratio is below 0.75 of its own running median: either alone is noisy on dark,
//! bespectacled and small faces (the model alone sees 46 blinks where there is one). No absence of blinks is ever a
//! failure: people stand for ten seconds without one.

use std::collections::VecDeque;
use std::time::Duration;

use super::findings::{Check, CheckState};
use crate::time::MonoTime;

/// The eyes in one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EyeLook {
    /// Mean aspect ratio of both.
    pub aspect_ratio: f32,
    /// The eye model's probability that the more open of both is closed.
    pub closed: f32,
}

/// Of the running median of the aspect ratio: below it an eye is nearly shut (2 to 12 frames at 25 a second).
const SHUT_BELOW: f32 = 0.75;
/// The model calls an eye closed above this.
const CLOSED_ABOVE: f32 = 0.5;
/// A blink lasts at least two and at most twelve frames at 25 a second.
const SHORTEST: Duration = Duration::from_millis(80);
const LONGEST: Duration = Duration::from_millis(480);
/// Frames under the running median: two to three seconds.
const MEDIAN_OF: usize = 31;
/// And at least this many, half a second: earlier it is not known how open these eyes are.
const FIRST_MEDIAN_OF: usize = 7;
/// A blink counts as a sign of life for this long: who raises a picture afterwards must not live on it.
const VALID: Duration = Duration::from_secs(3);

/// Follows the eyes of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct BlinkMeter {
    ratios: VecDeque<f32>,
    /// Last frame with open eyes before the present run of shut ones, and the first and last of that run.
    open_before: Option<MonoTime>,
    shut: Option<(MonoTime, MonoTime)>,
    blinked_at: Option<MonoTime>,
    newest: Option<MonoTime>,
    lowest: f32,
}

impl BlinkMeter {
    pub(super) fn push(&mut self, at: MonoTime, look: Option<EyeLook>) {
        let Some(look) = look.filter(|look| look.aspect_ratio.is_finite() && look.closed.is_finite()) else {
            // Eyes out of sight may have done anything.
            self.open_before = None;
            self.shut = None;
            return;
        };
        let median = self.median();
        let is_low = median.is_some_and(|median| look.aspect_ratio < SHUT_BELOW * median);
        if let Some(median) = median {
            self.lowest = look.aspect_ratio / median.max(f32::EPSILON);
        }
        if is_low && look.closed > CLOSED_ABOVE {
            self.shut = Some(self.shut.map_or((at, at), |(first, _)| (first, at)));
        } else {
            if let (Some((first, last)), Some(before)) = (self.shut.take(), self.open_before)
                && at.since(before) >= SHORTEST
                && last.since(first) <= LONGEST
            {
                self.blinked_at = Some(at);
            }
            self.open_before = Some(at);
        }
        self.ratios.push_back(look.aspect_ratio);
        if self.ratios.len() > MEDIAN_OF {
            self.ratios.pop_front();
        }
        self.newest = Some(at);
    }

    /// When the last blink ended.
    pub(super) fn ended_at(&self) -> Option<MonoTime> {
        self.blinked_at
    }

    pub(super) fn check(&self) -> Check {
        let Some(newest) = self.newest else { return Check::UNAVAILABLE };
        let blinked = self.blinked_at.is_some_and(|at| newest.since(at) <= VALID);
        Check::measured(if blinked { CheckState::Pass } else { CheckState::Undecided }, self.lowest)
    }

    fn median(&self) -> Option<f32> {
        if self.ratios.len() < FIRST_MEDIAN_OF {
            return None;
        }
        let mut sorted: Vec<f32> = self.ratios.iter().copied().collect();
        sorted.sort_by(f32::total_cmp);
        Some(sorted[sorted.len() / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: EyeLook = EyeLook { aspect_ratio: 0.30, closed: 0.1 };
    const SHUT: EyeLook = EyeLook { aspect_ratio: 0.15, closed: 0.9 };

    /// Eyes at 25 frames a second: open for a second, then these, then open again.
    fn watched(middle: &[Option<EyeLook>]) -> CheckState {
        let mut meter = BlinkMeter::default();
        let open = [Some(OPEN); 25];
        for (index, look) in open.iter().chain(middle).chain(&open[..5]).enumerate() {
            meter.push(MonoTime::from_millis(1_000 + 40 * index as u64), *look);
        }
        meter.check().state
    }

    #[test]
    fn two_to_twelve_shut_frames_are_a_blink() {
        for shut in [2, 5, 12] {
            assert_eq!(watched(&vec![Some(SHUT); shut]), CheckState::Pass, "{shut} frames");
        }
        assert_eq!(watched(&[Some(SHUT); 20]), CheckState::Undecided, "eyes kept shut are no blink");
        assert_eq!(watched(&[]), CheckState::Undecided);
    }

    #[test]
    fn both_the_model_and_the_aspect_ratio_must_say_so() {
        let squint = EyeLook { closed: 0.2, ..SHUT };
        let misread = EyeLook { aspect_ratio: 0.29, ..SHUT };
        assert_eq!(watched(&[Some(squint); 4]), CheckState::Undecided);
        assert_eq!(watched(&[Some(misread); 4]), CheckState::Undecided);
    }

    #[test]
    fn eyes_that_were_out_of_sight_did_not_blink() {
        let hidden = [Some(SHUT), None, Some(SHUT)];
        assert_eq!(watched(&hidden), CheckState::Undecided);
        assert_eq!(BlinkMeter::default().check(), Check::UNAVAILABLE);
    }

    #[test]
    fn a_blink_is_forgotten() {
        let mut meter = BlinkMeter::default();
        for index in 0..120u64 {
            let shut = (25..28).contains(&index);
            meter.push(MonoTime::from_millis(40 * index), Some(if shut { SHUT } else { OPEN }));
        }
        assert_eq!(meter.check().state, CheckState::Undecided, "nearly four seconds later");
    }
}
