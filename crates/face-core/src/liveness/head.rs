//! Does the head turn, and its nose move against eyes and mouth as only a solid one does?
//!
//! In: per frame the pose and the nose's coordinate ([`FaceShape::nose`]). Out: a [`Check`]. A tilted photograph turns
//! neither: its pose hardly changes, and its nose stays where it is in the frame of eyes and mouth. A replayed turn passes,
//! so that this is a sign of life beside others and never enough where replays must be feared. Standing still is no failure.

use std::collections::VecDeque;
use std::time::Duration;

use super::findings::{Check, CheckState};
use super::shape::FaceShape;
use crate::pose::HeadPose;
use crate::time::MonoTime;

/// A turn must be seen within this time.
const WITHIN: Duration = Duration::from_secs(2);
/// Degrees of yaw between the ends of a turn.
const MIN_YAW_DEG: f32 = 15.0;
/// And of the nose's coordinate. Highest range within a second: 26 panned stills 0.08, 26 stills tilted by 25° 0.18; five
/// clips of turning people 0.4 to 1.3.
const MIN_NOSE: f32 = 0.3;
/// Values averaged, since single landmarks tremble by 0.03.
const SMOOTH: usize = 3;

/// Follows the head of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadMeter {
    raw: VecDeque<(f32, f32)>,
    smooth: VecDeque<(MonoTime, f32, f32)>,
    seen: bool,
}

impl HeadMeter {
    pub(super) fn push(&mut self, at: MonoTime, pose: Option<HeadPose>, shape: Option<&FaceShape>) {
        let Some((pose, shape)) = pose.filter(HeadPose::is_finite).zip(shape.filter(|shape| shape.nose.is_finite()))
        else {
            return;
        };
        self.seen = true;
        self.raw.push_back((pose.yaw_deg, shape.nose));
        if self.raw.len() < SMOOTH {
            return;
        }
        let mean = |of: fn(&(f32, f32)) -> f32| self.raw.iter().map(of).sum::<f32>() / SMOOTH as f32;
        self.smooth.push_back((at, mean(|raw| raw.0), mean(|raw| raw.1)));
        self.raw.pop_front();
        while self.smooth.front().is_some_and(|(seen, ..)| at.since(*seen) > WITHIN) {
            self.smooth.pop_front();
        }
    }

    pub(super) fn check(&self) -> Check {
        if !self.seen {
            return Check::UNAVAILABLE;
        }
        let range = |of: fn(&(MonoTime, f32, f32)) -> f32| {
            let values = || self.smooth.iter().map(of);
            values().fold(f32::MIN, f32::max) - values().fold(f32::MAX, f32::min)
        };
        if self.smooth.len() < 2 {
            return Check::UNDECIDED;
        }
        let (yaw, nose) = (range(|seen| seen.1), range(|seen| seen.2));
        let turned = yaw >= MIN_YAW_DEG && nose >= MIN_NOSE;
        Check::measured(if turned { CheckState::Pass } else { CheckState::Undecided }, nose)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::face;
    use super::*;
    use crate::pose::FRONTAL_PITCH_DEG;

    fn watched(at: impl Fn(f32) -> (f32, f32)) -> CheckState {
        let mut meter = HeadMeter::default();
        for index in 0..20u16 {
            let (yaw_deg, nose_x) = at(f32::from(index) / 19.0);
            let pose = HeadPose { yaw_deg, pitch_deg: FRONTAL_PITCH_DEG, roll_deg: 0.0 };
            let shape = FaceShape::of(&face((nose_x, 70.0), 1.0)).unwrap();
            meter.push(MonoTime::from_millis(80 * u64::from(index)), Some(pose), Some(&shape));
        }
        meter.check().state
    }

    #[test]
    fn a_turned_head_is_a_sign_and_a_tilted_picture_is_none() {
        assert_eq!(watched(|t| (25.0 * t, 50.0 + 10.0 * t)), CheckState::Pass);
        assert_eq!(watched(|t| (25.0 * t, 50.0)), CheckState::Undecided, "the pose alone is fooled");
        assert_eq!(watched(|t| (4.0 * t, 50.0 + 10.0 * t)), CheckState::Undecided, "landmarks alone tremble");
        assert_eq!(watched(|_| (0.0, 50.0)), CheckState::Undecided, "standing still is no failure");
    }

    #[test]
    fn without_a_pose_there_is_nothing_to_say() {
        let mut meter = HeadMeter::default();
        meter.push(MonoTime::from_millis(1), None, None);
        assert_eq!(meter.check(), Check::UNAVAILABLE);
    }
}
