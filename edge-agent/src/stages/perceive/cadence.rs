//! Which frames are looked at: seldom while nobody is there, at the liveness check's rate while somebody is, and at half
//! of it once there is nothing left to find out about them.
//!
//! In: capture times, what the tracked faces ask for, how long a look takes. Out: yes or no. No clock.

use std::time::Duration;

use face_core::MonoTime;

use super::{Attention, PerceiveConfig};

/// Decides whether a frame is looked at.
#[derive(Debug)]
pub struct Cadence {
    config: PerceiveConfig,
    last_frame: Option<MonoTime>,
    last_look: Option<MonoTime>,
    frame_gap: Duration,
    look_cost: Duration,
}

impl Cadence {
    /// A cadence that looks at the first frame.
    #[must_use]
    pub fn new(config: PerceiveConfig) -> Self {
        Self { config, last_frame: None, last_look: None, frame_gap: Duration::ZERO, look_cost: Duration::ZERO }
    }

    /// Goes by other intervals from the next frame on.
    pub fn set(&mut self, config: PerceiveConfig) {
        self.config = config;
    }

    /// Whether the frame captured at `captured_at` is due. Call it for every frame.
    ///
    /// A frame is due when waiting for the next one would miss the wanted interval by more than taking this one does;
    /// so the interval becomes the nearest whole number of frames, whatever the camera's rate.
    pub fn due(&mut self, captured_at: MonoTime, attention: Attention) -> bool {
        if let Some(last) = self.last_frame {
            let gap = captured_at.since(last);
            // A running mean over about eight frames; a pause of the source must not count as its rate.
            if gap < Duration::from_secs(1) {
                self.frame_gap = if self.frame_gap.is_zero() { gap } else { (self.frame_gap * 7 + gap) / 8 };
            }
        }
        self.last_frame = Some(captured_at);
        let Some(last_look) = self.last_look else { return true };
        let wanted = match attention {
            Attention::Nobody => self.config.idle_interval,
            Attention::Undecided => self.config.track_interval,
            Attention::Settled => self.config.settled_interval,
        };
        // On a machine that is too slow, at least a third of the time stays free for the other stages.
        let interval = wanted.max(self.look_cost * 3 / 2);
        captured_at.since(last_look) + self.frame_gap / 2 >= interval
    }

    /// Notes that the frame captured at `captured_at` was looked at, and how long that took.
    pub fn looked(&mut self, captured_at: MonoTime, cost: Duration) {
        self.last_look = Some(captured_at);
        self.look_cost = if self.look_cost.is_zero() { cost } else { (self.look_cost * 3 + cost) / 4 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Attention::{Nobody, Settled, Undecided};

    fn looks(fps: u64, attention: Attention, cost_ms: u64) -> Vec<u64> {
        let config = PerceiveConfig {
            idle_interval: Duration::from_millis(200),
            track_interval: Duration::from_millis(80),
            settled_interval: Duration::from_millis(160),
        };
        let mut cadence = Cadence::new(config);
        (0..fps * 4)
            .filter(|n| {
                let at = MonoTime::from_nanos(n * 1_000_000_000 / fps);
                let due = cadence.due(at, attention);
                if due {
                    cadence.looked(at, Duration::from_millis(cost_ms));
                }
                due
            })
            .collect()
    }

    /// Frames between looks once the rate is known.
    fn every_nth(fps: u64, attention: Attention, cost_ms: u64) -> u64 {
        let looks = looks(fps, attention, cost_ms);
        looks[looks.len() - 1] - looks[looks.len() - 2]
    }

    #[test]
    fn nobody_there_means_a_look_every_200_ms() {
        assert_eq!(every_nth(15, Nobody, 5), 3);
        assert_eq!(every_nth(25, Nobody, 5), 5);
        assert_eq!(every_nth(30, Nobody, 5), 6);
    }

    #[test]
    fn somebody_there_means_the_nearest_whole_frame_to_80_ms() {
        assert_eq!(every_nth(15, Undecided, 20), 1);
        assert_eq!(every_nth(25, Undecided, 20), 2);
        assert_eq!(every_nth(30, Undecided, 20), 2);
    }

    #[test]
    fn a_face_that_is_settled_is_looked_at_half_as_often() {
        assert_eq!(every_nth(15, Settled, 20), 2);
        assert_eq!(every_nth(25, Settled, 20), 4);
    }

    #[test]
    fn a_slow_machine_looks_less_often() {
        assert!(every_nth(25, Undecided, 200) >= 7);
    }
}
