//! One door as a state machine: `step(door, input, now, policy) -> (door, effects)`.
//!
//! In: decisions of the stages, news of the gallery, ticks and faults, each with the time. Out: effects that the driver
//! carries out in order. The step that answers [`Input::Granted`] with [`Effect::Unlock`] *is* the relay call: the
//! driver takes the time, asks the current gallery snapshot, calls [`step`], and drives the relay before anything else.
//! Invariants: no unlock on evidence older than the policy's budgets or of two different tracks; none for a person
//! outside the current snapshot; a door held open for a removed person relocks in the step that hears of it; none in a
//! lock-down but for whom the policy lets through, and a door that stands open relocks in the step that begins one.
//! Deliberately absent: relays, events as JSON, schedules (they arrive as refusals).

use std::time::Duration;

use uuid::Uuid;

use crate::gallery::PersonId;
use crate::liveness::{Failure, LivenessVerdict, Method};
use crate::quality::QualityReason;
use crate::time::MonoTime;
use crate::track::TrackId;

/// What a door does when the agent can no longer decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailMode {
    /// Stay locked: the usual case; people leave by a handle.
    Secure,
    /// Unlock: an escape route that must never trap anyone.
    Safe,
}

/// How one door behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DoorPolicy {
    /// How long an unlock lasts.
    pub hold: Duration,
    /// How long after relocking the same person, still in view, may open it again.
    pub regrant: Duration,
    /// The freshness budget: the newest contributing frame may be this old at the relay call.
    pub freshness: Duration,
    /// The best shot (the picture that was identified) and the last liveness evidence may be this old at the relay call.
    pub best_shot_age: Duration,
    /// The same denial of the same track is recorded at most this often.
    pub denial_interval: Duration,
    /// What happens on a fault.
    pub fail: FailMode,
}

impl Default for DoorPolicy {
    /// Freshness 800 ms and best shot 3 s are the protocol's; the hold is the usual time to pull a door; one second
    /// before re-granting lets the relay and the lock's bolt settle; a denial every 10 s shows in the events that
    /// somebody keeps trying without filling the outbox.
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(3),
            regrant: Duration::from_secs(1),
            freshness: Duration::from_millis(800),
            best_shot_age: Duration::from_secs(3),
            denial_interval: Duration::from_secs(10),
            fail: FailMode::Secure,
        }
    }
}

/// When and on what the evidence for a grant was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantEvidence {
    /// The live track before the door.
    pub track: TrackId,
    /// Capture time of the newest frame of that track that contributed.
    pub newest_frame_at: MonoTime,
    /// Capture time of the last liveness evidence.
    pub liveness_at: MonoTime,
    /// Capture time of the best shot, the one that was identified.
    pub best_shot_at: MonoTime,
    /// The track that the best shot was taken from.
    pub best_shot_track: TrackId,
}

/// A positive decision on its way to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Names the decision in events and at the relay.
    pub decision: Uuid,
    /// Who may enter.
    pub person: PersonId,
    /// What it rests on.
    pub evidence: GrantEvidence,
    /// Whether the person is in the gallery snapshot that is current *now*, at the relay call; asked by the driver.
    pub in_current_snapshot: bool,
    /// Whether the door's policy lets this person through a lock-down.
    pub passes_lockdown: bool,
}

/// A negative decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Names the decision in events.
    pub decision: Uuid,
    /// The track before the door; `None` when the refusal concerns no face in particular.
    pub track: Option<TrackId>,
    /// Why.
    pub reason: DenyReason,
}

/// An operator's order to open, on its way to the relay. It names no person and needs no evidence: whoever gave it answers
/// for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorOrder {
    /// Names the command in events and at the relay.
    pub command: Uuid,
    /// After this time it must not move the relay any more.
    pub not_after: MonoTime,
    /// How long to hold the door; none for the policy's hold.
    pub hold: Option<Duration>,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderOutcome {
    /// The door is open by it.
    Done,
    /// It came too late.
    Late,
    /// The door is in a fault or was tampered with.
    Fault,
    /// The door is in lock-down, which must be ended first.
    LockedDown,
}

/// Why a door stays shut. Each has one code in the wire contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// Nobody enrolled is similar enough.
    Unknown,
    /// Two enrolled people are too close to call.
    Ambiguous,
    /// At least as near to a picture on record as not being the person as to the person.
    NotThisPerson,
    /// The passive model sees a print or a screen.
    LivenessFailed,
    /// The face is as still as a photograph.
    LivenessStill,
    /// Neither alive nor an attack within the time.
    LivenessUndecided,
    /// A required liveness check could not be made.
    LivenessUnavailable,
    /// Another movement came than the one that was asked for.
    ChallengeFailed,
    /// A movement that was asked for did not come in time.
    ChallengeTimeout,
    /// The picture is not good enough.
    Quality(QualityReason),
    /// The evidence was too old at the relay call, or not of one track.
    Stale,
    /// The person is no longer in the gallery.
    PersonRemoved,
    /// The person's validity has ended.
    PersonExpired,
    /// Known, but not here or not now.
    NotPermitted,
    /// The gallery cannot be read.
    GalleryUnavailable,
    /// A model cannot answer.
    ModelsUnavailable,
    /// The camera gives no frames.
    CameraStalled,
    /// The door itself is in a fault or was tampered with.
    DoorFault,
    /// The door is in lock-down.
    LockedDown,
}

/// What is wrong with the door or the agent behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The agent can no longer decide or drive the relay. Follows the [`FailMode`].
    Controller,
    /// Somebody opened the case or cut a line. Always locks: opening on tamper would reward it.
    Tamper,
}

/// What a door can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody may enter, if the evidence still holds now.
    Granted(Grant),
    /// Somebody may not enter.
    Refused(Refusal),
    /// An operator opens the door.
    Ordered(DoorOrder),
    /// A lock-down begins or ends. While it lasts the door opens for nobody but those whom its policy lets through, and by no
    /// order; only a fault in a fail-safe door still unlocks it: an escape route must never trap anyone.
    Lockdown {
        /// Whether it lasts from now on.
        on: bool,
    },
    /// The person left the gallery (deleted, expired, suspended). On each new snapshot the driver asks it about
    /// [`Door::held_for`] and sends this for those it no longer contains.
    Revoked {
        /// Who.
        person: PersonId,
    },
    /// Time has passed; due at the latest [`Effect::WakeAt`].
    Tick,
    /// Something is wrong.
    Fault(Fault),
    /// It is right again.
    FaultCleared(Fault),
}

/// Why a door was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockCause {
    /// The hold time is over.
    HoldElapsed,
    /// The person it was held open for left the gallery.
    PersonRevoked,
    /// A fault, in a door that fails secure.
    Fault,
    /// Tampering.
    Tamper,
    /// A fault that had unlocked a fail-safe door is over.
    FaultCleared,
    /// A lock-down began.
    Lockdown,
}

/// Why a door was unlocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnlockCause {
    /// A person was granted entry.
    Granted {
        /// The decision.
        decision: Uuid,
        /// Who.
        person: PersonId,
    },
    /// An operator ordered it.
    Ordered {
        /// The command.
        command: Uuid,
    },
    /// A fault, in a door that fails safe.
    FailSafe,
}

/// What goes on record. The driver turns each into one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Entry granted (the door opened, or was already open for somebody else).
    Granted {
        /// The decision that was carried out.
        grant: Grant,
        /// Age of the newest contributing frame at the relay call.
        frame_age: Duration,
    },
    /// Entry denied, after throttling.
    Denied {
        /// The decision.
        decision: Uuid,
        /// The track, when there was one.
        track: Option<TrackId>,
        /// Why.
        reason: DenyReason,
        /// Who it would have been, when a grant was turned down at the relay.
        person: Option<PersonId>,
    },
}

/// What the driver must do, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Energise the relay. Comes first: the freshness that was just checked must not wait for a disk.
    Unlock(UnlockCause),
    /// Release the relay.
    Lock(LockCause),
    /// Send [`Input::Tick`] at this time, or as soon after it as can be.
    WakeAt(MonoTime),
    /// Write an event.
    Record(Record),
    /// Tell the operator.
    Answer {
        /// The command.
        command: Uuid,
        /// What became of it.
        outcome: OrderOutcome,
    },
}

/// The state of one door. Changed by [`step`] alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Door {
    /// For whom it is open, and until when. More than one when people enter together.
    holders: Vec<Holder>,
    /// Held open by an operator's order until this time.
    ordered_until: Option<MonoTime>,
    /// Whose hold ended when: they wait for the re-grant interval.
    recent: Vec<(PersonId, MonoTime)>,
    /// What was denied last, for throttling.
    denials: Vec<Denial>,
    controller_fault: bool,
    tamper: bool,
    /// Unlocked because of a fault in a fail-safe door.
    escape: bool,
    /// Shut to all but those who pass.
    lockdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Holder {
    person: PersonId,
    until: MonoTime,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Denial {
    track: Option<TrackId>,
    reason: DenyReason,
    recorded_at: MonoTime,
}

/// Denials remembered for throttling. A crowd of tracks forgets the oldest, which can only record a denial once more.
const MAX_DENIALS: usize = 64;

impl Door {
    /// A locked door without faults.
    #[must_use]
    pub fn locked() -> Self {
        Self::default()
    }

    /// Whether a lock-down lasts.
    #[must_use]
    pub fn is_locked_down(&self) -> bool {
        self.lockdown
    }

    /// Whether the relay should be energised.
    #[must_use]
    pub fn is_unlocked(&self) -> bool {
        self.escape || self.ordered_until.is_some() || !self.holders.is_empty()
    }

    /// For whom it is held open; empty when it is locked.
    pub fn held_for(&self) -> impl Iterator<Item = PersonId> + '_ {
        self.holders.iter().map(|holder| holder.person)
    }

    fn relock_at(&self) -> Option<MonoTime> {
        self.holders.iter().map(|holder| holder.until).chain(self.ordered_until).max()
    }

    /// Ends the holds whose time is over; locks when the last one ended.
    fn end_holds(&mut self, now: MonoTime, policy: &DoorPolicy, effects: &mut Vec<Effect>) {
        let was_unlocked = self.is_unlocked();
        let over = self.holders.iter().filter(|holder| holder.until <= now);
        self.recent.extend(over.map(|holder| (holder.person, now)));
        self.holders.retain(|holder| holder.until > now);
        self.ordered_until = self.ordered_until.filter(|until| *until > now);
        self.recent.retain(|(_, ended_at)| now.since(*ended_at) < policy.regrant);
        self.denials.retain(|denial| now.since(denial.recorded_at) < policy.denial_interval);
        if was_unlocked && !self.is_unlocked() {
            effects.push(Effect::Lock(LockCause::HoldElapsed));
        }
    }

    fn grant(&mut self, grant: Grant, now: MonoTime, policy: &DoorPolicy, effects: &mut Vec<Effect>) {
        let waits = self.recent.iter().any(|(person, _)| *person == grant.person);
        if waits || self.held_for().any(|person| person == grant.person) {
            return;
        }
        if let Some(reason) = self.objection(&grant, now, policy) {
            let track = Some(grant.evidence.track);
            self.deny(grant.decision, track, reason, Some(grant.person), now, effects);
            return;
        }
        let until = now + policy.hold;
        let was_unlocked = self.is_unlocked();
        self.holders.push(Holder { person: grant.person, until });
        if !was_unlocked {
            effects.push(Effect::Unlock(UnlockCause::Granted { decision: grant.decision, person: grant.person }));
        }
        effects.push(Effect::WakeAt(self.relock_at().unwrap_or(until)));
        effects.push(Effect::Record(Record::Granted { grant, frame_age: now.since(grant.evidence.newest_frame_at) }));
    }

    /// Opens by an order. A second one prolongs the first, and never shortens it.
    fn order(&mut self, order: DoorOrder, now: MonoTime, policy: &DoorPolicy, effects: &mut Vec<Effect>) {
        let outcome = if now > order.not_after {
            OrderOutcome::Late
        } else if self.controller_fault || self.tamper {
            OrderOutcome::Fault
        } else if self.lockdown {
            OrderOutcome::LockedDown
        } else {
            let until = (now + order.hold.unwrap_or(policy.hold)).max(self.ordered_until.unwrap_or(now));
            let was_unlocked = self.is_unlocked();
            self.ordered_until = Some(until);
            if !was_unlocked {
                effects.push(Effect::Unlock(UnlockCause::Ordered { command: order.command }));
            }
            effects.push(Effect::WakeAt(self.relock_at().unwrap_or(until)));
            OrderOutcome::Done
        };
        effects.push(Effect::Answer { command: order.command, outcome });
    }

    /// What speaks against a grant at this very moment.
    fn objection(&self, grant: &Grant, now: MonoTime, policy: &DoorPolicy) -> Option<DenyReason> {
        if self.controller_fault || self.tamper {
            Some(DenyReason::DoorFault)
        } else if self.lockdown && !grant.passes_lockdown {
            Some(DenyReason::LockedDown)
        } else if !grant.in_current_snapshot {
            Some(DenyReason::PersonRemoved)
        } else if !is_fresh(&grant.evidence, now, policy) {
            Some(DenyReason::Stale)
        } else {
            None
        }
    }

    fn deny(
        &mut self,
        decision: Uuid,
        track: Option<TrackId>,
        reason: DenyReason,
        person: Option<PersonId>,
        now: MonoTime,
        effects: &mut Vec<Effect>,
    ) {
        // Those older than the interval are already gone.
        if self.denials.iter().any(|denial| denial.track == track && denial.reason == reason) {
            return;
        }
        if self.denials.len() >= MAX_DENIALS {
            self.denials.remove(0);
        }
        self.denials.push(Denial { track, reason, recorded_at: now });
        effects.push(Effect::Record(Record::Denied { decision, track, reason, person }));
    }

    fn revoke(&mut self, person: PersonId, effects: &mut Vec<Effect>) {
        let was_unlocked = self.is_unlocked();
        let held = self.holders.len();
        self.holders.retain(|holder| holder.person != person);
        if self.holders.len() == held {
            return;
        }
        if was_unlocked && !self.is_unlocked() {
            effects.push(Effect::Lock(LockCause::PersonRevoked));
        } else if let Some(relock_at) = self.relock_at() {
            effects.push(Effect::WakeAt(relock_at));
        }
    }

    fn fail(&mut self, fault: Fault, policy: &DoorPolicy, effects: &mut Vec<Effect>) {
        let was_unlocked = self.is_unlocked();
        self.holders.clear();
        self.ordered_until = None;
        let cause = match fault {
            Fault::Controller => {
                self.controller_fault = true;
                self.escape = policy.fail == FailMode::Safe;
                LockCause::Fault
            }
            Fault::Tamper => {
                self.tamper = true;
                LockCause::Tamper
            }
        };
        match (was_unlocked, self.is_unlocked()) {
            (false, true) => effects.push(Effect::Unlock(UnlockCause::FailSafe)),
            (true, false) => effects.push(Effect::Lock(cause)),
            _ => {}
        }
    }

    /// Who passes is granted entry anew: whether they may is asked at the relay call, not remembered.
    fn lock_down(&mut self, on: bool, effects: &mut Vec<Effect>) {
        self.lockdown = on;
        if !on {
            return;
        }
        let was_unlocked = self.is_unlocked();
        self.holders.clear();
        self.ordered_until = None;
        if was_unlocked && !self.is_unlocked() {
            effects.push(Effect::Lock(LockCause::Lockdown));
        }
    }

    fn clear(&mut self, fault: Fault, effects: &mut Vec<Effect>) {
        match fault {
            Fault::Controller => {
                self.controller_fault = false;
                if std::mem::take(&mut self.escape) {
                    effects.push(Effect::Lock(LockCause::FaultCleared));
                }
            }
            Fault::Tamper => self.tamper = false,
        }
    }
}

/// The freshness budget: a young enough newest frame, captured no earlier than the last liveness evidence, and a best
/// shot and liveness evidence that are young enough and of the same track. What claims to be from the future is not fresh.
fn is_fresh(evidence: &GrantEvidence, now: MonoTime, policy: &DoorPolicy) -> bool {
    let within = |at: MonoTime, budget: Duration| at <= now && now.since(at) <= budget;
    within(evidence.newest_frame_at, policy.freshness)
        && within(evidence.best_shot_at, policy.best_shot_age)
        && within(evidence.liveness_at, policy.best_shot_age)
        && evidence.newest_frame_at >= evidence.liveness_at
        && evidence.best_shot_track == evidence.track
}

/// Advances the door by one input. The caller supplies the time and carries out the effects in order.
///
/// Holds that have run out by `now` end first, whatever the input is.
#[must_use]
pub fn step(mut door: Door, input: Input, now: MonoTime, policy: &DoorPolicy) -> (Door, Vec<Effect>) {
    let mut effects = Vec::new();
    door.end_holds(now, policy, &mut effects);
    match input {
        Input::Granted(grant) => door.grant(grant, now, policy, &mut effects),
        Input::Refused(refusal) => {
            door.deny(refusal.decision, refusal.track, refusal.reason, None, now, &mut effects);
        }
        Input::Ordered(order) => door.order(order, now, policy, &mut effects),
        Input::Lockdown { on } => door.lock_down(on, &mut effects),
        Input::Revoked { person } => door.revoke(person, &mut effects),
        // A tick that came early is sent back for the time that counts.
        Input::Tick => effects.extend(door.relock_at().map(Effect::WakeAt)),
        Input::Fault(fault) => door.fail(fault, policy, &mut effects),
        Input::FaultCleared(fault) => door.clear(fault, &mut effects),
    }
    (door, effects)
}

impl From<Failure> for DenyReason {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::WrongMovement => Self::ChallengeFailed,
            Failure::TooLate => Self::ChallengeTimeout,
        }
    }
}

impl From<QualityReason> for DenyReason {
    fn from(reason: QualityReason) -> Self {
        Self::Quality(reason)
    }
}

impl DenyReason {
    /// The reason to give when a track ends or is turned down with this verdict; `None` for a live one.
    #[must_use]
    pub fn of_liveness(verdict: &LivenessVerdict) -> Option<Self> {
        match verdict {
            LivenessVerdict::Live { .. } => None,
            LivenessVerdict::Attack { by: Method::Temporal | Method::Motion, .. } => Some(Self::LivenessStill),
            LivenessVerdict::Attack { by: Method::Challenge, .. } => Some(Self::ChallengeFailed),
            LivenessVerdict::Attack { .. } => Some(Self::LivenessFailed),
            LivenessVerdict::Collecting { .. } | LivenessVerdict::Watch { .. } => Some(Self::LivenessUndecided),
            LivenessVerdict::Unavailable => Some(Self::LivenessUnavailable),
        }
    }
}

#[cfg(test)]
mod tests;
