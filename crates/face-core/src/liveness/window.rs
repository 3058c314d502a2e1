//! The sliding window behind the findings: thins frames by time, compares faces up to a second apart, averages scores.

use std::collections::VecDeque;
use std::time::Duration;

use super::blink::BlinkMeter;
use super::head::HeadMeter;
use super::injection::InjectionMeter;
use super::{
    Appearance, Check, CheckState, Demand, FaceShape, Findings, LivenessEvidence, LivenessPolicy, LivenessVerdict,
    Method, judge, planes, texture,
};
use crate::models::PassiveScores;
use crate::time::MonoTime;

/// Appearances closer together than this are not compared: 12 a second is what the thresholds were measured at, and so is
/// 15. A little less than a fifteenth of a second, so that a camera of exactly that rate with jitter loses none.
const APPEARANCE_INTERVAL: Duration = Duration::from_millis(60);
/// A face is compared with the oldest one at most this much earlier: a second of a living face.
const COMPARE_WITHIN: Duration = Duration::from_millis(1_050);
/// And at least this much earlier: sooner, even a living face has hardly moved.
const COMPARE_BEYOND: Duration = Duration::from_millis(320);
/// A face that moved further between two comparisons is another picture: its light and its size have changed.
const FARTHEST: f32 = 2.5;
/// Of the comparisons of a second the third highest counts: a landmark that jumps spoils one or two.
const RANK: usize = 3;
/// And not before there are this many.
const FIRST_RANKED_OF: usize = 5;
/// A change counts as a sign of life for this long.
const CHANGE_VALID: Duration = Duration::from_secs(2);
/// A comparison in which the face moved by this many eye distances says something of a flat picture that is moved.
const DISPLACED: f32 = 0.3;
/// So many of them, a second and a half, do.
const ENOUGH_DISPLACED: usize = 20;
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
    blink: BlinkMeter,
    head: HeadMeter,
    injection: InjectionMeter,
    planes: Planes,
}

/// The newest frame's planes.
#[derive(Clone, Copy, Debug, Default)]
struct Planes {
    relief_mm: Option<f32>,
    reflection: Option<(f32, f32)>,
}

/// A frame, reduced to what means need.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: MonoTime,
    frontal: bool,
    passive: Option<PassiveScores>,
    glow: Option<f32>,
    texture: Option<f32>,
    has_appearance: bool,
}

/// An appearance that is compared, with its change against an earlier one and the ranked change up to here.
#[derive(Clone, Debug)]
struct Look {
    at: MonoTime,
    appearance: Appearance,
    shape: FaceShape,
    /// Excess of the change, and how far the face moved meanwhile.
    change: Option<(f32, f32)>,
    ranked: Option<f32>,
}

impl LivenessWindow {
    /// An empty window.
    #[must_use]
    pub fn new(policy: LivenessPolicy) -> Self {
        Self {
            policy,
            frames: VecDeque::new(),
            looks: VecDeque::new(),
            started_at: None,
            blink: BlinkMeter::default(),
            head: HeadMeter::default(),
            injection: InjectionMeter::default(),
            planes: Planes::default(),
        }
    }

    /// Adds a frame's evidence, any camera rate; frames faster than 15 a second are thinned by time for the change
    /// check. A frame not newer than the last one (a repeated or replayed picture) is ignored.
    pub fn push(&mut self, evidence: LivenessEvidence) {
        let at = evidence.captured_at;
        match self.newest_at() {
            Some(newest) if at <= newest => return,
            Some(newest) if at.since(newest) > LONGEST_GAP => *self = Self::new(self.policy),
            _ => {}
        }
        self.started_at.get_or_insert(at);
        self.frames.push_back(Seen {
            at,
            // Not `>` the other way round: a pose that is not finite is not frontal.
            frontal: evidence
                .pose
                .is_some_and(|pose| pose.frontal_deviation_deg() <= self.policy.max_frontal_deviation_deg),
            passive: evidence.passive.and_then(PassiveScores::checked),
            glow: evidence.glow.filter(|glow| glow.is_finite()),
            texture: evidence.texture.filter(|share| share.is_finite()),
            has_appearance: evidence.appearance.is_some() && evidence.shape.is_some(),
        });
        self.blink.push(at, evidence.eyes);
        self.head.push(at, evidence.pose, evidence.shape.as_ref());
        self.injection.push(at, evidence.face_digest);
        self.planes = Planes { relief_mm: evidence.relief_mm, reflection: evidence.reflection };
        if let Some((appearance, shape)) = evidence.appearance.zip(evidence.shape) {
            self.compare(at, appearance, shape);
        }
        self.forget(at);
    }

    /// The verdict over the window as it stands, at a door with this demand.
    #[must_use]
    pub fn verdict(&self, demand: &Demand) -> LivenessVerdict {
        judge(&self.findings(), demand)
    }

    /// What each method finds in the window as it stands. The challenge is run by whoever asks for it.
    #[must_use]
    pub fn findings(&self) -> Findings {
        let shares = self.frames.iter().filter_map(|frame| frame.texture);
        let checks = [
            (Method::Injection, self.injection.check()),
            (Method::Passive, self.passive()),
            (Method::Temporal, self.temporal()),
            (Method::Motion, self.motion()),
            (Method::Blink, self.blink.check()),
            (Method::Head, self.head.check()),
            (Method::Texture, texture::check(shares, self.policy.min_frontal_frames)),
            (Method::Depth, planes::judge_relief(self.planes.relief_mm)),
            (Method::Infrared, planes::judge_reflection(self.planes.reflection)),
        ];
        let frontal_frames = self.frames.iter().filter(|frame| frame.frontal).count();
        let nothing = Findings::over(frontal_frames);
        checks.into_iter().fold(nothing, |findings, (method, check)| findings.with(method, check))
    }

    /// The means of the frontal frames' scores; a frame without a score counts as 0. Both crops must have a good opinion:
    /// a replay in the test data fools one for a second (0.62 and 0.21), tablets and cut-outs the square one.
    fn passive(&self) -> Check {
        let frontal = || self.frames.iter().filter(|frame| frame.frontal);
        let (n, n_scored) = (frontal().count(), frontal().filter(|frame| frame.passive.is_some()).count());
        if n < self.policy.min_frontal_frames {
            return Check::UNDECIDED;
        }
        if n_scored * 2 < n {
            return Check::UNAVAILABLE;
        }
        let mean_of =
            |of: fn(PassiveScores) -> f32| frontal().filter_map(|frame| frame.passive).map(of).sum::<f32>() / n as f32;
        let (boxed, square) = (mean_of(|scores| scores.boxed), mean_of(|scores| scores.square));
        let mean = f32::midpoint(boxed, square);
        let glows: Vec<f32> = frontal().filter_map(|frame| frame.glow).collect();
        let glow = if glows.is_empty() { None } else { Some(glows.iter().sum::<f32>() / glows.len() as f32) };
        let state = if self.policy.attack_below(glow).is_some_and(|below| mean < below) {
            CheckState::Fail
        } else if mean > self.policy.pass_above(glow) && boxed.min(square) > self.policy.both_above {
            CheckState::Pass
        } else {
            CheckState::Undecided
        };
        Check::measured(state, mean)
    }

    /// The ranked change of the last two seconds. Having moved is not enough: a picture that froze, or took the face's
    /// place, must not live on what was seen before.
    fn temporal(&self) -> Check {
        let blind = self.frames.iter().filter(|frame| !frame.has_appearance).count() * 2 > self.frames.len();
        let Some((newest_at, started_at)) = self.newest_at().zip(self.started_at).filter(|_| !blind) else {
            return Check::UNAVAILABLE;
        };
        let highest_since = |from: MonoTime| {
            let looks = self.looks.iter().filter(|look| look.at >= from);
            looks.filter_map(|look| look.ranked).reduce(f32::max)
        };
        let Some(change) = highest_since(newest_at.before(CHANGE_VALID)) else { return Check::UNDECIDED };
        let newest = self.looks.back().and_then(|look| look.ranked);
        let moves_now = newest.is_some_and(|newest| newest >= self.policy.still_change);
        let watched = newest_at.since(started_at) >= self.policy.still_patience;
        let ever = highest_since(newest_at.before(self.policy.horizon)).unwrap_or(0.0);
        let state = if watched && ever < self.policy.still_change {
            CheckState::Fail
        } else if change >= self.policy.moving_change && moves_now {
            CheckState::Pass
        } else {
            CheckState::Undecided
        };
        Check::measured(state, change)
    }

    /// The ranked change of those comparisons between which the face was moved about. Without displacement there is
    /// nothing to say, and a face that changes while it moves proves nothing by that.
    fn motion(&self) -> Check {
        if self.looks.is_empty() {
            return Check::UNAVAILABLE;
        }
        let displaced = self.looks.iter().filter_map(|look| look.change).filter(|(_, moved)| *moved >= DISPLACED);
        let mut changes: Vec<f32> = displaced.map(|(excess, _)| excess).collect();
        if changes.len() < ENOUGH_DISPLACED {
            return Check::UNDECIDED;
        }
        changes.sort_by(f32::total_cmp);
        let ranked = changes[changes.len() - RANK];
        let flat = ranked < self.policy.still_change;
        Check::measured(if flat { CheckState::Fail } else { CheckState::Undecided }, ranked)
    }

    /// Whether a blink ended with the newest frame: what a challenge asks.
    #[must_use]
    pub fn blinked_just_now(&self) -> bool {
        self.blink.ended_at().is_some() && self.blink.ended_at() == self.newest_at()
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
        self.score_of(shot_at).is_some_and(|mean| mean > self.policy.pass_above)
    }

    /// As [`LivenessWindow::vouches_for`], for a shot that looked neither alive nor dead: enough only where a challenge was
    /// answered.
    #[must_use]
    pub fn doubts(&self, shot_at: MonoTime) -> bool {
        self.score_of(shot_at).is_some_and(|mean| (self.policy.uncertain_from..=self.policy.pass_above).contains(&mean))
    }

    /// The mean passive score of the first frontal frames from a shot on.
    fn score_of(&self, shot_at: MonoTime) -> Option<f32> {
        let follows = |frame: &&Seen| frame.at >= shot_at && frame.at.since(shot_at) <= VOUCH_WITHIN;
        let scores: Vec<f32> = self
            .frames
            .iter()
            .filter(|frame| frame.frontal)
            .filter(follows)
            .take(VOUCH_FRAMES)
            .map(|frame| frame.passive.map_or(0.0, PassiveScores::mean))
            .collect();
        (scores.len() == VOUCH_FRAMES).then(|| scores.iter().sum::<f32>() / VOUCH_FRAMES as f32)
    }

    fn compare(&mut self, at: MonoTime, appearance: Appearance, shape: FaceShape) {
        if self.looks.back().is_some_and(|last| at.since(last.at) < APPEARANCE_INTERVAL) {
            return;
        }
        let earlier = self.looks.iter().find(|look| {
            let apart = at.since(look.at);
            apart >= COMPARE_BEYOND && apart <= COMPARE_WITHIN
        });
        let change = earlier.and_then(|look| {
            let moved = shape.moved_since(&look.shape);
            let change = (moved <= FARTHEST).then(|| look.appearance.change_to(&appearance)).flatten()?;
            Some((change.excess(moved), moved))
        });
        self.looks.push_back(Look { at, appearance, shape, change, ranked: None });
        let ranked = self.ranked();
        if let Some(look) = self.looks.back_mut() {
            look.ranked = ranked;
        }
    }

    /// The third highest of the last second's comparisons.
    fn ranked(&self) -> Option<f32> {
        let newest = self.looks.back()?.at;
        let recent = self.looks.iter().rev().take_while(|look| newest.since(look.at) <= COMPARE_WITHIN);
        let mut changes: Vec<f32> = recent.filter_map(|look| look.change).map(|(excess, _)| excess).collect();
        if changes.len() < FIRST_RANKED_OF {
            return None;
        }
        changes.sort_by(f32::total_cmp);
        Some(changes[changes.len() - RANK])
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
