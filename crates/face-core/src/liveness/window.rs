//! The sliding window behind the verdict: thins frames by time, compares faces a second apart, averages scores.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Appearance, LivenessEvidence, LivenessFigures, LivenessPolicy, LivenessVerdict, judge};
use crate::time::MonoTime;

/// Appearances closer together than this are not compared: 12 a second is what the thresholds were measured at. A
/// little less than a twelfth of a second, so that a camera of exactly that rate with jitter loses none.
const APPEARANCE_INTERVAL: Duration = Duration::from_millis(70);
/// A face is compared with the oldest one at most this much earlier: a second of a living face.
const COMPARE_WITHIN: Duration = Duration::from_millis(1_050);
/// And at least this much earlier: sooner, even a living face has hardly moved.
const COMPARE_BEYOND: Duration = Duration::from_millis(450);
/// Comparisons under one median. A landmark that jumps spoils two or three, not half of eight.
const MEDIAN_OF: usize = 8;
/// The first medians are taken over at least this many comparisons.
const FIRST_MEDIAN_OF: usize = 4;
/// A track unseen for longer may have become somebody else: the window starts anew.
const LONGEST_GAP: Duration = Duration::from_millis(1_500);
/// Frames kept at most, whatever the camera's rate: five seconds at 60 a second.
const MAX_FRAMES: usize = 300;
/// Frontal frames at most this much later than a shot speak for it.
const VOUCH_WITHIN: Duration = Duration::from_millis(500);
/// This many of them do, the first ones from the shot itself on: a quarter of a second at 12 a second.
const VOUCH_FRAMES: usize = 3;

/// The recent evidence of one track. Make a new one for each track.
#[derive(Clone, Debug)]
pub struct LivenessWindow {
    policy: LivenessPolicy,
    frames: VecDeque<Seen>,
    looks: VecDeque<Look>,
    started_at: Option<MonoTime>,
}

/// A frame, reduced to what the mean needs.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: MonoTime,
    frontal: bool,
    passive: Option<f32>,
    has_appearance: bool,
}

/// An appearance that is compared, with its change against an earlier one and the median up to here.
#[derive(Clone, Debug)]
struct Look {
    at: MonoTime,
    appearance: Appearance,
    change: Option<f32>,
    median: Option<f32>,
}

impl LivenessWindow {
    /// An empty window.
    #[must_use]
    pub fn new(policy: LivenessPolicy) -> Self {
        Self { policy, frames: VecDeque::new(), looks: VecDeque::new(), started_at: None }
    }

    /// Adds a frame's evidence, any camera rate; frames faster than 12 a second are thinned by time for the change
    /// check. A frame not newer than the last one (a repeated or replayed picture) is ignored.
    pub fn push(&mut self, evidence: LivenessEvidence) {
        let at = evidence.captured_at;
        match self.newest_at() {
            Some(newest) if at <= newest => return,
            Some(newest) if at.since(newest) > LONGEST_GAP => self.restart(),
            _ => {}
        }
        self.started_at.get_or_insert(at);
        let frontal = evidence.pose.is_some_and(|pose| {
            // Not `<=` the other way round: a pose that is not finite is not frontal.
            pose.frontal_deviation_deg() <= self.policy.max_frontal_deviation_deg
        });
        let passive = evidence.passive.filter(|score| score.is_finite()).map(|score| score.clamp(0.0, 1.0));
        self.frames.push_back(Seen { at, frontal, passive, has_appearance: evidence.appearance.is_some() });
        if let Some(appearance) = evidence.appearance {
            self.compare(at, appearance);
        }
        self.forget(at);
    }

    /// The verdict over the window as it stands.
    #[must_use]
    pub fn verdict(&self) -> LivenessVerdict {
        judge(&self.figures(), &self.policy)
    }

    /// The numbers behind the verdict.
    #[must_use]
    pub fn figures(&self) -> LivenessFigures {
        let frontal = || self.frames.iter().filter(|frame| frame.frontal);
        let frontal_frames = frontal().count();
        let sum: f32 = frontal().filter_map(|frame| frame.passive).sum();
        let watched = match (self.started_at, self.newest_at()) {
            (Some(start), Some(newest)) => newest.since(start).min(self.policy.horizon),
            _ => Duration::ZERO,
        };
        LivenessFigures {
            frontal_frames,
            unscored_frames: frontal().filter(|frame| frame.passive.is_none()).count(),
            passive: if frontal_frames == 0 { 0.0 } else { sum / frontal_frames as f32 },
            change: self.looks.iter().filter_map(|look| look.median).reduce(f32::max),
            newest_change: self.looks.back().and_then(|look| look.median),
            blind: self.frames.iter().filter(|frame| !frame.has_appearance).count() * 2 > self.frames.len(),
            watched,
        }
    }

    /// Capture time of the newest evidence: what the freshness budget compares with. `None` for an empty window.
    #[must_use]
    pub fn newest_at(&self) -> Option<MonoTime> {
        self.frames.back().map(|frame| frame.at)
    }

    /// Whether the face of a shot captured at `shot_at` looked alive itself: the mean passive score of the first three
    /// frontal frames from the shot on passes, and they came within half a second.
    ///
    /// A shot must not be identified without this: somebody could show a photograph for the identity and the own face
    /// for the life, within one track. Frames before the shot say nothing of it: they may show another face.
    #[must_use]
    pub fn vouches_for(&self, shot_at: MonoTime) -> bool {
        let follows = |frame: &&Seen| frame.at >= shot_at && frame.at.since(shot_at) <= VOUCH_WITHIN;
        let scores: Vec<f32> = self
            .frames
            .iter()
            .filter(|frame| frame.frontal)
            .filter(follows)
            .take(VOUCH_FRAMES)
            .map(|frame| frame.passive.unwrap_or(0.0))
            .collect();
        let mean = scores.iter().sum::<f32>() / scores.len() as f32;
        scores.len() == VOUCH_FRAMES && mean > self.policy.pass_above
    }

    fn restart(&mut self) {
        self.frames.clear();
        self.looks.clear();
        self.started_at = None;
    }

    fn compare(&mut self, at: MonoTime, appearance: Appearance) {
        if self.looks.back().is_some_and(|last| at.since(last.at) < APPEARANCE_INTERVAL) {
            return;
        }
        let earlier = self.looks.iter().find(|look| {
            let apart = at.since(look.at);
            apart >= COMPARE_BEYOND && apart <= COMPARE_WITHIN
        });
        let change = earlier.map(|look| look.appearance.change_to(&appearance));
        self.looks.push_back(Look { at, appearance, change, median: None });
        let median = self.newest_median();
        if let Some(look) = self.looks.back_mut() {
            look.median = median;
        }
    }

    /// Median of the newest comparisons, which must come from about one second of watching.
    fn newest_median(&self) -> Option<f32> {
        let newest = self.looks.back()?;
        newest.change?;
        let recent = self.looks.iter().rev().take_while(|look| newest.at.since(look.at) <= COMPARE_WITHIN);
        let mut changes: Vec<f32> = recent.filter_map(|look| look.change).take(MEDIAN_OF).collect();
        if changes.len() < FIRST_MEDIAN_OF {
            return None;
        }
        changes.sort_by(f32::total_cmp);
        // The lower of the two middle ones: in doubt, less change.
        Some(changes[(changes.len() - 1) / 2])
    }

    fn forget(&mut self, now: MonoTime) {
        let oldest = now.before(self.policy.horizon);
        while self.frames.len() > MAX_FRAMES || self.frames.front().is_some_and(|frame| frame.at < oldest) {
            self.frames.pop_front();
        }
        while self.looks.front().is_some_and(|look| look.at < oldest) {
            self.looks.pop_front();
        }
    }
}
