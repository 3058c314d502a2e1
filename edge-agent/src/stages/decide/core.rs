//! The decider: what is known of each face before one door, judged again whenever something new is known.
//!
//! In: an input, the time, and the [`Surroundings`] as they are at this moment. Out: [`Output`]s to be carried out in
//! order. Time, decision ids and nonces are arguments; the gallery is asked through a trait at the moment of the relay call.

mod challenge;
mod who;

use std::collections::HashMap;
use std::time::Duration;

use face_core::door::{
    self, DenyReason, Door, DoorPolicy, Effect, Fault, Grant, GrantEvidence, Input, Record, Refusal, UnlockCause,
};
use face_core::identify::{Identification, OpenSetRules};
use face_core::liveness::{ChallengeRule, Demand, Interview, LivenessVerdict, Method, judge};
use face_core::quality::QualityReason;
use face_core::{MonoTime, PersonId, TrackId};
use uuid::Uuid;
use wire_contract::guidance::Show;

use self::who::who;
use super::context::{AccessContext, LivenessSeen};
use super::{DoorEvent, DoorInput, EnrolOrder, OrderTold, Told};
use crate::door::RelayState;
use crate::gallery::Standing;
use crate::stages::identify::Identified;
use crate::stages::perceive::FaceReport;

/// How long a face may be too poor to recognise before the person is told why.
const QUALITY_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long liveness may stay undecided before the person is told. A living person standing still is watched on.
const LIVENESS_PATIENCE: Duration = Duration::from_secs(6);
/// Shots that must agree before a face is called unknown or ambiguous: the first one is often taken while walking.
const SHOTS_BEFORE_REFUSAL: u32 = 2;

/// What a door goes by; from the configuration and the model pack.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Of the door's state machine.
    pub door: DoorPolicy,
    /// Of the search.
    pub open_set: OpenSetRules,
    /// The liveness policy; none where liveness is not required.
    pub liveness: Option<LivenessRules>,
    /// The least height of a face in the frame, in pixels. The camera's own gate is that of its least demanding door.
    pub min_face_px: f32,
    /// Whether nobody gets in while events cannot be recorded.
    pub deny_unrecorded: bool,
    /// Who is let through a lock-down: people or groups.
    pub lockdown_lets: Vec<Uuid>,
}

/// What a door needs to know of the liveness policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LivenessRules {
    /// What must be found before a face counts as alive.
    pub demand: Demand,
    /// The mean passive score that passes, for events.
    pub pass_above: f32,
    /// How much of the past a verdict rests on.
    pub horizon: Duration,
    /// Whether the door asks for a challenge.
    pub challenge: ChallengeRule,
}

/// What is true at the moment of the call.
pub trait Surroundings {
    /// Whether there is a gallery to decide by.
    fn gallery_ready(&self) -> bool;
    /// Which roster is current now.
    fn generation(&self) -> u64;
    /// How a person stands in the gallery that is current now.
    fn standing(&self, person: PersonId) -> Standing;
    /// Whether a person is one of these, or in a group that is.
    fn is_among(&self, person: PersonId, ids: &[Uuid]) -> bool;
    /// Whether the last event could be recorded.
    fn recording(&self) -> bool;
    /// A fresh name for a decision.
    fn decision(&mut self) -> Uuid;
    /// A number that nobody can know beforehand: what a challenge is drawn from.
    fn nonce(&mut self) -> u64;
}

/// What the driver must do, in the order given.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Move the relay, at once.
    Relay {
        /// To where.
        to: RelayState,
        /// By which decision.
        decision: Option<Uuid>,
    },
    /// Call [`Decider::tick`] at this time.
    WakeAt(MonoTime),
    /// Put on record.
    Event(DoorEvent),
    /// Tell the operator what became of an order.
    Answer(OrderTold),
    /// Show this to whoever stands there.
    Guide(Show),
}

/// What is known of one face.
#[derive(Debug, Default)]
struct Case {
    report: Option<FaceReport>,
    search: Option<Identified>,
    shots: u32,
    /// Whom a shot of this face was nearer to not being, with that shot's scores.
    disowned: Option<Identification>,
    /// Capture time of the first shot that showed another person than the one before.
    changed_at: Option<MonoTime>,
    embedder_failed: bool,
    /// The challenge of this face.
    interview: Interview,
    /// Whether a shot was identified that was taken while the person answered.
    witnessed: bool,
    /// Whether the door was asked about this face at all.
    answered: bool,
}

enum Judgement {
    Wait,
    Refuse(DenyReason),
    Grant(PersonId),
}

/// One door and the faces before it.
pub struct Decider {
    rules: Rules,
    door: Door,
    cases: HashMap<TrackId, Case>,
    enrolling: Option<EnrolOrder>,
    /// Whose challenge the display shows.
    guided: Option<TrackId>,
}

impl Decider {
    /// A locked door with nobody before it.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, door: Door::locked(), cases: HashMap::new(), enrolling: None, guided: None }
    }

    /// Takes one input in.
    pub fn handle(&mut self, input: DoorInput, now: MonoTime, around: &mut impl Surroundings) -> Vec<Output> {
        match input {
            DoorInput::Face(report) => {
                let track = report.track;
                self.cases.entry(track).or_default().report = Some(report);
                let mut outputs = self.interview(track, now, around);
                outputs.extend(self.take_face(track, now));
                outputs.extend(self.judge(track, now, around));
                outputs
            }
            DoorInput::Identified(found) => {
                let track = found.track;
                let mut outputs = if found.same_face { Vec::new() } else { self.other_face(track, now) };
                // A face is reported before its shots: without a case it has left, or was seen before a stall.
                if let Some(case) = self.cases.get_mut(&track) {
                    case.take(found, &self.rules, around.generation());
                }
                outputs.extend(self.take_face(track, now));
                outputs.extend(self.judge(track, now, around));
                outputs
            }
            DoorInput::EmbedderFailed { track } => {
                if let Some(case) = self.cases.get_mut(&track) {
                    case.embedder_failed = true;
                }
                self.judge(track, now, around)
            }
            DoorInput::Left { track } => self.left(track, now, around),
            DoorInput::DetectorFailed { .. } => self.refuse(None, DenyReason::ModelsUnavailable, now, around),
            DoorInput::Ordered(order) => self.step(Input::Ordered(order), now),
            DoorInput::Lockdown { on } => self.step(Input::Lockdown { on }, now),
            DoorInput::Enrol(order) => self.enrol(order),
            DoorInput::Ruled(rules) => {
                self.rules = Rules::clone(&rules);
                Vec::new()
            }
            DoorInput::GalleryChanged => self.gallery_changed(now, around),
            DoorInput::CameraStalled => {
                let mut waiting: Vec<TrackId> = self.cases.keys().copied().collect();
                waiting.retain(|track| self.cases[track].known_but_undecided(&self.rules));
                waiting.sort();
                let told = waiting.into_iter();
                let mut outputs: Vec<Output> =
                    told.flat_map(|track| self.refuse(Some(track), DenyReason::CameraStalled, now, around)).collect();
                outputs.extend(self.guided.and_then(|track| self.gone(track, now)).into_iter().flatten());
                // Nothing that was seen before the stall may open the door after it.
                self.cases.clear();
                outputs.into_iter().chain(self.nobody_came(true, now)).collect()
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: MonoTime) -> Vec<Output> {
        let late = self.nobody_came(false, now);
        self.step(Input::Tick, now).into_iter().chain(late).collect()
    }

    /// The relay does not do what it was told.
    pub fn relay_failed(&mut self, now: MonoTime, around: &mut impl Surroundings) -> Vec<Output> {
        let mut outputs = self.step(Input::Fault(Fault::Controller), now);
        outputs.extend(self.refuse(None, DenyReason::DoorFault, now, around));
        outputs
    }

    /// It does again.
    pub fn relay_recovered(&mut self, now: MonoTime) -> Vec<Output> {
        self.step(Input::FaultCleared(Fault::Controller), now)
    }

    /// Whether the relay should be open.
    #[must_use]
    pub fn is_unlocked(&self) -> bool {
        self.door.is_unlocked()
    }

    /// A known face that goes before liveness was decided was refused too: it did not get in.
    fn left(&mut self, track: TrackId, now: MonoTime, around: &mut impl Surroundings) -> Vec<Output> {
        let undecided = self.cases.get(&track).is_some_and(|case| case.known_but_undecided(&self.rules));
        let mut outputs =
            if undecided { self.refuse(Some(track), DenyReason::LivenessUndecided, now, around) } else { Vec::new() };
        outputs.extend(self.gone(track, now).into_iter().flatten());
        self.cases.remove(&track);
        outputs
    }

    fn gallery_changed(&mut self, now: MonoTime, around: &mut impl Surroundings) -> Vec<Output> {
        let gone: Vec<PersonId> =
            self.door.held_for().filter(|person| around.standing(*person) != Standing::Member).collect();
        let mut outputs = Vec::new();
        for person in gone {
            outputs.extend(self.step(Input::Revoked { person }, now));
        }
        // The rows found before may name a person or a template that is gone: the next shots, at most a second away, are
        // searched in the new gallery.
        for case in self.cases.values_mut() {
            case.search = None;
            case.disowned = None;
            case.shots = 0;
        }
        outputs
    }

    fn judge(&mut self, track: TrackId, now: MonoTime, around: &mut impl Surroundings) -> Vec<Output> {
        let Some(case) = self.cases.get(&track) else { return Vec::new() };
        match case.judgement(&self.rules, around) {
            Judgement::Wait => Vec::new(),
            Judgement::Refuse(reason) => self.refuse(Some(track), reason, now, around),
            Judgement::Grant(person) => self.grant(track, person, now, around),
        }
    }

    fn refuse(
        &mut self,
        track: Option<TrackId>,
        reason: DenyReason,
        now: MonoTime,
        around: &mut impl Surroundings,
    ) -> Vec<Output> {
        let decision = around.decision();
        self.step(Input::Refused(Refusal { decision, track, reason }), now)
    }

    fn grant(
        &mut self,
        track: TrackId,
        person: PersonId,
        now: MonoTime,
        around: &mut impl Surroundings,
    ) -> Vec<Output> {
        let Some(evidence) = self.cases.get(&track).and_then(|case| case.evidence(track, &self.rules)) else {
            return Vec::new();
        };
        let decision = around.decision();
        let in_current_snapshot = around.standing(person) == Standing::Member;
        let passes_lockdown = around.is_among(person, &self.rules.lockdown_lets);
        self.step(Input::Granted(Grant { decision, person, evidence, in_current_snapshot, passes_lockdown }), now)
    }

    fn step(&mut self, input: Input, now: MonoTime) -> Vec<Output> {
        let track = match input {
            Input::Granted(grant) => Some(grant.evidence.track),
            Input::Refused(refusal) => refusal.track,
            _ => None,
        };
        if let Some(case) = track.and_then(|track| self.cases.get_mut(&track)) {
            case.answered = true;
        }
        let (door, effects) = door::step(std::mem::take(&mut self.door), input, now, &self.rules.door);
        self.door = door;
        effects.into_iter().flat_map(|effect| self.outputs(effect, now)).collect()
    }

    fn outputs(&self, effect: Effect, now: MonoTime) -> Vec<Output> {
        match effect {
            Effect::Unlock(cause) => {
                let (decision, person, command) = match cause {
                    UnlockCause::Granted { decision, person } => (Some(decision), Some(person), None),
                    UnlockCause::Ordered { command } => (None, None, Some(command)),
                    UnlockCause::FailSafe => (None, None, None),
                };
                vec![
                    Output::Relay { to: RelayState::Unlocked, decision: decision.or(command) },
                    Output::Event(DoorEvent::Unlocked { decision, person, command }),
                ]
            }
            Effect::Lock(cause) => vec![
                Output::Relay { to: RelayState::Locked, decision: None },
                Output::Event(DoorEvent::Locked { cause }),
            ],
            Effect::WakeAt(at) => vec![Output::WakeAt(at)],
            Effect::Record(record) => vec![Output::Event(self.event(record, now))],
            Effect::Answer { command, outcome } => {
                vec![Output::Answer(OrderTold { command, outcome: Told::Opened(outcome) })]
            }
        }
    }

    fn event(&self, record: Record, now: MonoTime) -> DoorEvent {
        match record {
            Record::Granted { grant, frame_age } => {
                let mut context = self.context(grant.decision, Some(grant.evidence.track), now);
                context.person = Some(grant.person);
                context.frame_age = Some(frame_age);
                DoorEvent::Granted(context)
            }
            Record::Denied { decision, track, reason, person } => {
                let mut context = self.context(decision, track, now);
                context.person = person.or(context.person);
                DoorEvent::Denied { context, reason }
            }
        }
    }

    fn context(&self, decision: Uuid, track: Option<TrackId>, now: MonoTime) -> AccessContext {
        let case = track.and_then(|track| self.cases.get(&track));
        let report = case.and_then(|case| case.report.as_ref());
        let identity = case.and_then(|case| case.identity(&self.rules));
        let liveness = case.zip(report).zip(self.rules.liveness).map(|((case, report), liveness)| LivenessSeen {
            verdict: judge(&case.findings(report, &self.rules, liveness), &liveness.demand),
            threshold: liveness.pass_above,
        });
        AccessContext {
            decision,
            track,
            at: now,
            person: identity.and_then(|identity| identity.person),
            identity,
            liveness,
            frame_age: report.map(|report| now.since(report.captured_at)),
            since_arrival: report.map(|report| now.since(report.first_seen)),
        }
    }
}

impl Case {
    fn take(&mut self, found: Identified, rules: &Rules, generation: u64) {
        self.embedder_failed = false;
        if !found.same_face {
            self.changed_at = Some(found.shot_at);
            self.shots = 0;
            self.search = None;
            self.disowned = None;
        }
        if found.height_px < rules.min_face_px || found.generation != generation {
            // Too small for this door, or found in a gallery that is no more: the next shot will tell.
            return;
        }
        self.witnessed |= self.interview.covers(found.shot_at);
        self.shots += 1;
        if let (disowned @ Identification::NotThem { .. }, _) = who(&found, rules) {
            self.disowned = Some(disowned);
        }
        self.search = Some(found);
    }

    fn known_but_undecided(&self, rules: &Rules) -> bool {
        let known = self
            .search
            .as_ref()
            .is_some_and(|search| matches!(self.who(search, rules).0, Identification::Known { .. }));
        known && rules.liveness.is_some() && !self.answered
    }

    fn evidence(&self, track: TrackId, rules: &Rules) -> Option<GrantEvidence> {
        let (report, search) = (self.report.as_ref()?, self.search.as_ref()?);
        let liveness_at = match rules.liveness {
            Some(liveness) => self.newest_proof(report, liveness)?,
            // Nothing to prove: the frame itself stands in, so that the freshness rules still hold.
            None => report.captured_at,
        };
        Some(GrantEvidence {
            track,
            newest_frame_at: report.captured_at,
            liveness_at,
            best_shot_at: search.shot_at,
            best_shot_track: search.track,
        })
    }

    fn judgement(&self, rules: &Rules, around: &impl Surroundings) -> Judgement {
        let Some(report) = &self.report else { return Judgement::Wait };
        if !report.models_answered || self.embedder_failed {
            return Judgement::Refuse(DenyReason::ModelsUnavailable);
        }
        if !around.gallery_ready() {
            return Judgement::Refuse(DenyReason::GalleryUnavailable);
        }
        let too_small = (report.height_px < rules.min_face_px).then_some(QualityReason::TooSmall);
        // The gallery may have changed between the search and now, before this door was told.
        let Some(search) = self.search.as_ref().filter(|search| search.generation == around.generation()) else {
            let waited = report.captured_at.since(report.first_seen);
            return match report.reasons.first().copied().or(too_small) {
                Some(reason) if waited >= QUALITY_PATIENCE => Judgement::Refuse(reason.into()),
                _ => Judgement::Wait,
            };
        };
        if too_small.is_some() {
            return Judgement::Wait;
        }
        let found = self.who(search, rules).0;
        if let Some(liveness) = rules.liveness
            && let Some(judgement) = self.liveness_judgement(report, search.shot_at, rules, liveness)
        {
            // Whom the door lets in by no movement is told so instead of being asked for one.
            return match (liveness.challenge, judgement) {
                (ChallengeRule::Always, Judgement::Wait) => self.not_let_in(&found, around).unwrap_or(Judgement::Wait),
                (_, judgement) => judgement,
            };
        }
        match (self.not_let_in(&found, around), found) {
            (Some(judgement), _) => judgement,
            (None, Identification::Known { .. }) if rules.deny_unrecorded && !around.recording() => {
                Judgement::Refuse(DenyReason::DoorFault)
            }
            // An absent person is turned down by the door's own step, at the relay call.
            (None, Identification::Known { person, .. }) => Judgement::Grant(person),
            (None, _) => Judgement::Wait,
        }
    }

    /// What keeps out whoever was found, however alive they are.
    fn not_let_in(&self, found: &Identification, around: &impl Surroundings) -> Option<Judgement> {
        let reason = match found {
            Identification::Known { person, .. } => match around.standing(*person) {
                Standing::Member | Standing::Absent => return None,
                Standing::Suspended => DenyReason::NotPermitted,
                Standing::OutsideValidity => DenyReason::PersonExpired,
            },
            _ if self.shots < SHOTS_BEFORE_REFUSAL => return Some(Judgement::Wait),
            Identification::Unknown { .. } => DenyReason::Unknown,
            Identification::Ambiguous { .. } => DenyReason::Ambiguous,
            Identification::NotThem { .. } => DenyReason::NotThisPerson,
        };
        Some(Judgement::Refuse(reason))
    }

    /// None when the face is alive.
    fn liveness_judgement(
        &self,
        report: &FaceReport,
        shot_at: MonoTime,
        rules: &Rules,
        liveness: LivenessRules,
    ) -> Option<Judgement> {
        // The window may still hold frames of the person who stood there before.
        let mixed = self.changed_at.is_some_and(|at| report.captured_at.since(at) < liveness.horizon);
        let verdict = judge(&self.findings(report, rules, liveness), &liveness.demand);
        let attack = matches!(verdict, LivenessVerdict::Attack { by, .. } if by != Method::Challenge);
        if let Some(failure) = self.interview.failure().filter(|_| !attack) {
            return Some(Judgement::Refuse(failure.into()));
        }
        match verdict {
            LivenessVerdict::Live { .. } if !mixed && self.speaks_for(report, shot_at, liveness) => None,
            // Alive, but perhaps not the face that was identified: the next shot will tell, within a second.
            LivenessVerdict::Live { .. } => Some(Judgement::Wait),
            LivenessVerdict::Watch { .. } if self.is_asked_or_has_answered() => Some(Judgement::Wait),
            LivenessVerdict::Collecting { .. } | LivenessVerdict::Watch { .. } => {
                let waited = report.captured_at.since(report.first_seen);
                Some(if waited >= LIVENESS_PATIENCE {
                    Judgement::Refuse(DenyReason::LivenessUndecided)
                } else {
                    Judgement::Wait
                })
            }
            LivenessVerdict::Attack { .. } | LivenessVerdict::Unavailable => {
                let reason = DenyReason::of_liveness(&verdict).unwrap_or(DenyReason::LivenessUnavailable);
                Some(Judgement::Refuse(reason))
            }
        }
    }
}

mod enrolling;
#[cfg(test)]
mod tests;
