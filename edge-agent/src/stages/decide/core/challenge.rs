//! The challenge at a door: who is asked, one face at a time, and what the answers count for.
//!
//! In: the newest report of a face, whose frame may show an answer. Out: what the display shows, events, and the findings as
//! the door counts them. When to ask and what an answer is are face-core's ([`Interview`]). A pass counts for the face that
//! gave it: another face on the same track has answered nothing, and a face that nobody recognised while it answered neither.

use face_core::identify::Identification;
use face_core::liveness::{ChallengeRule, Check, CheckState, Findings, Method, Movement, STEP_LIMIT, STEPS, Turn};
use face_core::{MonoTime, TrackId};
use wire_contract::guidance::{Prompt, Show};

use super::{Case, Decider, LivenessRules, Output, Rules, Surroundings};
use crate::gallery::Standing;
use crate::stages::decide::{ChallengeEnd, DoorEvent};
use crate::stages::perceive::FaceReport;

impl Decider {
    /// Begins a challenge where one is due, or takes what the newest frame shows for an answer.
    pub(super) fn interview(&mut self, track: TrackId, now: MonoTime, around: &mut impl Surroundings) -> Vec<Output> {
        let somebody_is_asked = self.cases.values().any(|case| case.interview.is_running());
        let Some(case) = self.cases.get_mut(&track) else { return Vec::new() };
        let turn = if case.interview.is_running() {
            let look = case.report.as_ref().and_then(|report| report.look);
            look.and_then(|look| case.interview.observe(&look))
        } else if !somebody_is_asked && case.interview.may_begin(now) && case.is_to_be_asked(&self.rules, around) {
            case.witnessed = false;
            Some(case.interview.begin(around.nonce(), now))
        } else {
            None
        };
        turn.map(|turn| self.told(track, turn, now)).unwrap_or_default()
    }

    fn told(&mut self, track: TrackId, turn: Turn, at: MonoTime) -> Vec<Output> {
        self.guided = Some(track);
        let ended = |show, reason, answered, took| {
            let end = ChallengeEnd { track, reason, answered, took: Some(took), at };
            vec![Output::Guide(show), Output::Event(DoorEvent::ChallengeEnded(end))]
        };
        match turn {
            Turn::Prompt { movement, step } => {
                let prompt = as_the_person_sees_it(movement);
                let show = Show::Prompt {
                    prompt,
                    step: count(step),
                    steps: count(STEPS),
                    within_ms: u64::try_from(STEP_LIMIT.as_millis()).unwrap_or(u64::MAX),
                };
                vec![Output::Guide(show), Output::Event(DoorEvent::Prompted { track, prompt, step: count(step), at })]
            }
            Turn::Passed { took } => ended(Show::Passed, None, STEPS, took),
            Turn::Failed { failure, answered, took } => {
                let code = crate::stages::record::denial_code(failure.into());
                ended(Show::Failed { code }, Some(failure.into()), answered, took)
            }
        }
    }

    /// Another face on this track has answered nothing.
    pub(super) fn other_face(&mut self, track: TrackId, now: MonoTime) -> Vec<Output> {
        let outputs = self.gone(track, now).unwrap_or_default();
        if let Some(case) = self.cases.get_mut(&track) {
            case.interview.forget();
            case.witnessed = false;
        }
        outputs
    }

    /// The display shows nothing of a face any more that is not there; a challenge under way is over. None for a face that
    /// it showed nothing of.
    pub(super) fn gone(&mut self, track: TrackId, at: MonoTime) -> Option<Vec<Output>> {
        self.guided.take_if(|guided| *guided == track)?;
        let mut outputs = vec![Output::Guide(Show::Idle)];
        if self.cases.get(&track).is_some_and(|case| case.interview.is_running()) {
            let reason = Some(face_core::door::DenyReason::LivenessUndecided);
            let end = ChallengeEnd { track, reason, answered: 0, took: None, at };
            outputs.push(Output::Event(DoorEvent::ChallengeEnded(end)));
        }
        Some(outputs)
    }
}

impl Case {
    /// Whether the face is of somebody whom the door would let in, and the challenge is what is missing.
    fn is_to_be_asked(&self, rules: &Rules, around: &impl Surroundings) -> bool {
        let Some((report, search)) = self.report.as_ref().zip(self.search.as_ref()) else { return false };
        let Some(liveness) = rules.liveness else { return false };
        let may_enter = |found: Identification| matches!(found, Identification::Known { person, .. } if around.standing(person) == Standing::Member);
        report.models_answered
            && report.height_px >= rules.min_face_px
            && around.gallery_ready()
            && search.generation == around.generation()
            && liveness.challenge.asks(&report.liveness, &liveness.demand)
            && may_enter(self.who(search, rules).0)
    }

    /// The findings as the door counts them: with the challenge among them.
    pub(super) fn findings(&self, report: &FaceReport, rules: &Rules, liveness: LivenessRules) -> Findings {
        liveness.challenge.counted(&report.liveness, self.answers(report, rules))
    }

    /// What the answers amount to. A pass is evidence of life like any other: the relay must be called before it is older
    /// than the door's budget for that; and somebody must have been recognised while it was given.
    fn answers(&self, report: &FaceReport, rules: &Rules) -> Check {
        let check = self.interview.check(report.captured_at, rules.door.best_shot_age);
        if check.state == CheckState::Pass && !self.witnessed { Check::UNDECIDED } else { check }
    }

    /// Whether the challenge stands in for the passive model.
    fn stands_in(&self, report: &FaceReport, liveness: LivenessRules) -> bool {
        matches!(liveness.challenge, ChallengeRule::WhenUncertain { .. })
            && self.interview.passed_at().is_some()
            && report.liveness.of(Method::Passive).state != CheckState::Pass
    }

    /// Whether a shot looked alive itself; or neither alive nor dead, where a challenge decides that.
    pub(super) fn speaks_for(&self, report: &FaceReport, shot_at: MonoTime, liveness: LivenessRules) -> bool {
        report.vouched_shots.contains(&shot_at)
            || (self.stands_in(report, liveness) && report.doubtful_shots.contains(&shot_at))
    }

    /// Capture time of the oldest thing that a grant to this face rests on: what the freshness budget is held against.
    pub(super) fn newest_proof(&self, report: &FaceReport, liveness: LivenessRules) -> Option<MonoTime> {
        let seen = report.liveness_at?;
        let relies = liveness.challenge == ChallengeRule::Always || self.stands_in(report, liveness);
        if relies { self.interview.passed_at().map(|passed| passed.min(seen)) } else { Some(seen) }
    }

    pub(super) fn is_asked_or_has_answered(&self) -> bool {
        self.interview.is_running() || self.interview.passed_at().is_some()
    }
}

/// Sides change: who turns towards the left edge of a camera's picture turns to their own right.
fn as_the_person_sees_it(movement: Movement) -> Prompt {
    match movement {
        Movement::TurnLeft => Prompt::TurnRight,
        Movement::TurnRight => Prompt::TurnLeft,
        Movement::Nod => Prompt::Nod,
        Movement::Blink => Prompt::Blink,
    }
}

fn count(steps: usize) -> u32 {
    u32::try_from(steps).unwrap_or(u32::MAX)
}
