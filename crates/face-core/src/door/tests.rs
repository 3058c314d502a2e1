//! The door's rules, told as stories: `door.granted_at(0).tick(5_000).expect(Lock)`.

use super::*;
use proptest::prelude::*;

const ANNA: u128 = 1;
const BEN: u128 = 2;
/// Whom the policy lets through a lock-down.
const CHIEF: u128 = 0;
const ORDER: Uuid = Uuid::from_u128(77);

fn person(number: u128) -> PersonId {
    PersonId(Uuid::from_u128(number))
}

fn at(millis: u64) -> MonoTime {
    MonoTime::from_millis(millis)
}

/// Everything seen just now, on track 1.
fn fresh(millis: u64) -> GrantEvidence {
    GrantEvidence {
        track: TrackId(1),
        newest_frame_at: at(millis),
        liveness_at: at(millis),
        best_shot_at: at(millis),
        best_shot_track: TrackId(1),
    }
}

/// A door, its policy, and what its last step asked for.
struct Story {
    door: Door,
    policy: DoorPolicy,
    effects: Vec<Effect>,
}

impl Story {
    fn new() -> Self {
        Self::with(DoorPolicy::default())
    }

    fn with(policy: DoorPolicy) -> Self {
        Self { door: Door::locked(), policy, effects: Vec::new() }
    }

    fn told(mut self, millis: u64, input: Input) -> Self {
        let (door, effects) = step(self.door, input, at(millis), &self.policy);
        (self.door, self.effects) = (door, effects);
        self
    }

    fn granted_with(self, millis: u64, who: u128, evidence: GrantEvidence) -> Self {
        let decision = Uuid::from_u128(u128::from(millis));
        let (in_current_snapshot, passes_lockdown) = (true, who == CHIEF);
        let grant = Grant { decision, person: person(who), evidence, in_current_snapshot, passes_lockdown };
        self.told(millis, Input::Granted(grant))
    }

    fn locked_down(self, millis: u64, on: bool) -> Self {
        self.told(millis, Input::Lockdown { on })
    }

    fn granted_to(self, millis: u64, who: u128) -> Self {
        self.granted_with(millis, who, fresh(millis))
    }

    fn refused(self, millis: u64, track: u64, reason: DenyReason) -> Self {
        let refusal = Refusal { decision: Uuid::nil(), track: Some(TrackId(track)), reason };
        self.told(millis, Input::Refused(refusal))
    }

    fn tick(self, millis: u64) -> Self {
        self.told(millis, Input::Tick)
    }

    fn revoked(self, millis: u64, who: u128) -> Self {
        self.told(millis, Input::Revoked { person: person(who) })
    }

    /// An order that must be carried out within a second.
    fn ordered(self, millis: u64, not_after: u64, hold: Option<u64>) -> Self {
        let hold = hold.map(Duration::from_millis);
        self.told(millis, Input::Ordered(DoorOrder { command: ORDER, not_after: at(not_after), hold }))
    }

    #[track_caller]
    fn answers(self, wanted: OrderOutcome) -> Self {
        assert_eq!(self.effects.last(), Some(&Effect::Answer { command: ORDER, outcome: wanted }));
        self
    }

    #[track_caller]
    fn unlocks(self) -> Self {
        assert!(matches!(self.effects.first(), Some(Effect::Unlock(_))), "{:?}", self.effects);
        assert!(self.door.is_unlocked());
        self
    }

    #[track_caller]
    fn locks(self, cause: LockCause) -> Self {
        assert!(self.effects.contains(&Effect::Lock(cause)), "{:?}", self.effects);
        assert!(!self.door.is_unlocked());
        self
    }

    #[track_caller]
    fn denies(self, wanted: DenyReason) -> Self {
        let [Effect::Record(Record::Denied { reason, .. })] = self.effects[..] else { panic!("{:?}", self.effects) };
        assert_eq!(reason, wanted);
        self
    }

    #[track_caller]
    fn does_nothing(self) -> Self {
        assert!(self.effects.is_empty(), "{:?}", self.effects);
        self
    }
}

#[test]
fn a_grant_opens_holds_and_relocks() {
    let story = Story::new().granted_to(1_000, ANNA).unlocks();
    assert_eq!(story.effects[1], Effect::WakeAt(at(4_000)));
    assert!(matches!(story.effects[2], Effect::Record(Record::Granted { frame_age, .. }) if frame_age.is_zero()));
    let story = story.tick(3_999);
    assert_eq!(story.effects, [Effect::WakeAt(at(4_000))]);
    story.tick(4_000).locks(LockCause::HoldElapsed).tick(4_001).does_nothing();
}

#[test]
fn an_order_opens_for_its_own_time_and_for_nobody_in_particular() {
    let story = Story::new().ordered(1_000, 2_000, None).unlocks().answers(OrderOutcome::Done);
    assert_eq!(story.door.held_for().count(), 0);
    // Whoever is granted entry meanwhile goes on record; nobody's removal shuts the door on the others.
    let story = story.granted_to(2_000, ANNA).revoked(2_100, ANNA);
    assert!(story.door.is_unlocked());
    story.tick(4_000).locks(LockCause::HoldElapsed);
    let story = Story::new().ordered(1_000, 2_000, Some(9_000)).ordered(2_000, 3_000, None).answers(OrderOutcome::Done);
    story.tick(9_999).tick(10_000).locks(LockCause::HoldElapsed);
}

#[test]
fn an_order_that_is_late_or_meets_a_fault_moves_nothing() {
    let late = Story::new().ordered(2_001, 2_000, None).answers(OrderOutcome::Late);
    assert!(!late.door.is_unlocked() && late.effects.len() == 1);
    for fault in [Fault::Controller, Fault::Tamper] {
        let story =
            Story::new().told(500, Input::Fault(fault)).ordered(1_000, 2_000, None).answers(OrderOutcome::Fault);
        assert!(!story.door.is_unlocked());
        Story::new().ordered(1_000, 2_000, None).told(1_500, Input::Fault(fault));
    }
    let shut = Story::new().ordered(1_000, 2_000, None).told(1_500, Input::Fault(Fault::Tamper));
    shut.locks(LockCause::Tamper).tick(1_600).does_nothing();
}

#[test]
fn a_stale_frame_never_opens() {
    let stale = GrantEvidence { newest_frame_at: at(10_000), ..fresh(10_000) };
    Story::new().granted_with(10_801, ANNA, stale).denies(DenyReason::Stale);
    Story::new().granted_with(10_800, ANNA, stale).unlocks();
}

#[test]
fn a_frame_from_before_the_last_liveness_evidence_never_opens() {
    let evidence = GrantEvidence { newest_frame_at: at(9_900), ..fresh(10_000) };
    Story::new().granted_with(10_000, ANNA, evidence).denies(DenyReason::Stale);
}

#[test]
fn an_old_best_shot_or_old_liveness_never_opens() {
    let old_shot = GrantEvidence { best_shot_at: at(6_999), ..fresh(10_000) };
    Story::new().granted_with(10_000, ANNA, old_shot).denies(DenyReason::Stale);
    let old_liveness = GrantEvidence { liveness_at: at(6_999), ..fresh(10_000) };
    Story::new().granted_with(10_000, ANNA, old_liveness).denies(DenyReason::Stale);
}

#[test]
fn a_best_shot_of_another_track_never_opens() {
    let evidence = GrantEvidence { best_shot_track: TrackId(2), ..fresh(10_000) };
    Story::new().granted_with(10_000, ANNA, evidence).denies(DenyReason::Stale);
}

#[test]
fn evidence_from_the_future_never_opens() {
    Story::new().granted_with(10_000, ANNA, fresh(10_001)).denies(DenyReason::Stale);
}

#[test]
fn a_person_outside_the_current_snapshot_never_opens() {
    let grant = Grant {
        decision: Uuid::nil(),
        person: person(ANNA),
        evidence: fresh(5),
        in_current_snapshot: false,
        passes_lockdown: true,
    };
    let story = Story::new().told(5, Input::Granted(grant)).denies(DenyReason::PersonRemoved);
    assert!(matches!(story.effects[0], Effect::Record(Record::Denied { person: Some(_), .. })));
}

#[test]
fn a_door_held_open_for_a_deleted_person_relocks_at_once() {
    Story::new().granted_to(0, ANNA).unlocks().revoked(500, ANNA).locks(LockCause::PersonRevoked);
    Story::new().granted_to(0, ANNA).unlocks().revoked(500, BEN).does_nothing();
}

#[test]
fn two_who_enter_together_keep_it_open_until_the_last_hold_ends() {
    let story = Story::new().granted_to(0, ANNA).unlocks().granted_to(1_000, BEN);
    assert!(matches!(story.effects[..], [Effect::WakeAt(_), Effect::Record(Record::Granted { .. })]));
    let story = story.revoked(1_500, BEN);
    assert_eq!(story.effects, [Effect::WakeAt(at(3_000))]);
    story.tick(3_000).locks(LockCause::HoldElapsed);
    let story = Story::new().granted_to(0, ANNA).granted_to(1_000, BEN).tick(3_000);
    assert!(story.door.is_unlocked());
    story.tick(4_000).locks(LockCause::HoldElapsed);
}

#[test]
fn the_same_person_in_view_does_not_prolong_the_hold_but_is_granted_again() {
    let story = Story::new().granted_to(0, ANNA).unlocks().granted_to(2_900, ANNA).does_nothing();
    let story = story.granted_to(3_100, ANNA).locks(LockCause::HoldElapsed);
    story.granted_to(4_000, ANNA).does_nothing().granted_to(4_100, ANNA).unlocks();
}

#[test]
fn another_person_does_not_wait_for_the_re_grant_interval() {
    Story::new().granted_to(0, ANNA).tick(3_000).locks(LockCause::HoldElapsed).granted_to(3_001, BEN).unlocks();
}

#[test]
fn a_denial_is_recorded_once_per_track_and_reason_and_interval() {
    let story = Story::new().refused(0, 1, DenyReason::Unknown).denies(DenyReason::Unknown);
    let story = story.refused(100, 1, DenyReason::Unknown).does_nothing();
    let story = story.refused(200, 2, DenyReason::Unknown).denies(DenyReason::Unknown);
    let story = story.refused(300, 1, DenyReason::LivenessStill).denies(DenyReason::LivenessStill);
    story
        .refused(9_999, 1, DenyReason::Unknown)
        .does_nothing()
        .refused(10_000, 1, DenyReason::Unknown)
        .denies(DenyReason::Unknown);
}

#[test]
fn the_memory_of_denials_is_bounded() {
    let mut story = Story::new();
    for track in 0..1_000 {
        story = story.refused(track, track, DenyReason::Unknown).denies(DenyReason::Unknown);
    }
    assert!(story.door.denials.len() <= MAX_DENIALS);
}

#[test]
fn a_fault_locks_a_secure_door_and_denies_until_it_is_cleared() {
    let story = Story::new().granted_to(0, ANNA).unlocks();
    let story = story.told(100, Input::Fault(Fault::Controller)).locks(LockCause::Fault);
    let story = story.granted_to(5_000, ANNA).denies(DenyReason::DoorFault);
    story.told(6_000, Input::FaultCleared(Fault::Controller)).does_nothing().granted_to(6_001, ANNA).unlocks();
}

#[test]
fn a_fault_opens_a_safe_door_until_it_is_cleared() {
    let safe = DoorPolicy { fail: FailMode::Safe, ..DoorPolicy::default() };
    let story = Story::with(safe).told(0, Input::Fault(Fault::Controller)).unlocks();
    let story = story.told(1, Input::Fault(Fault::Controller)).does_nothing().tick(60_000).does_nothing();
    story.told(60_001, Input::FaultCleared(Fault::Controller)).locks(LockCause::FaultCleared);
}

#[test]
fn tampering_locks_even_a_safe_door() {
    let safe = DoorPolicy { fail: FailMode::Safe, ..DoorPolicy::default() };
    let story = Story::with(safe).granted_to(0, ANNA).unlocks();
    let story = story.told(1, Input::Fault(Fault::Tamper)).locks(LockCause::Tamper);
    story.granted_to(5_000, ANNA).denies(DenyReason::DoorFault);
}

#[test]
fn a_lock_down_shuts_the_door_to_all_but_those_who_pass_until_it_is_ended() {
    let story = Story::new().granted_to(0, ANNA).unlocks().locked_down(500, true).locks(LockCause::Lockdown);
    let story = story.granted_to(600, ANNA).denies(DenyReason::LockedDown);
    let story = story.ordered(700, 1_000, None).answers(OrderOutcome::LockedDown).locked_down(750, true).does_nothing();
    assert!(!story.door.is_unlocked() && story.door.is_locked_down());
    let story = story.granted_to(800, CHIEF).unlocks().tick(3_800).locks(LockCause::HoldElapsed);
    let story = story.locked_down(5_000, false).does_nothing().granted_to(5_001, ANNA).unlocks();
    // An order that stands open ends too.
    story.ordered(5_100, 5_200, Some(60_000)).locked_down(5_300, true).locks(LockCause::Lockdown);
}

#[test]
fn a_lock_down_traps_nobody_behind_a_fail_safe_door() {
    let safe = DoorPolicy { fail: FailMode::Safe, ..DoorPolicy::default() };
    let story = Story::with(safe).locked_down(0, true).told(1, Input::Fault(Fault::Controller)).unlocks();
    let story = story.locked_down(2, true).does_nothing();
    let story = story.told(3, Input::FaultCleared(Fault::Controller)).locks(LockCause::FaultCleared);
    story.granted_to(4, ANNA).denies(DenyReason::LockedDown);
}

#[test]
fn every_verdict_but_live_has_a_reason_to_deny() {
    use crate::liveness::Method;
    assert_eq!(DenyReason::of_liveness(&LivenessVerdict::Live { score: 0.9 }), None);
    for verdict in [
        LivenessVerdict::Collecting { frontal_frames: 3 },
        LivenessVerdict::Watch { missing: Method::Temporal, score: 0.9 },
        LivenessVerdict::Attack { by: Method::Temporal, score: 0.9 },
        LivenessVerdict::Attack { by: Method::Passive, score: 0.1 },
        LivenessVerdict::Unavailable,
    ] {
        assert!(DenyReason::of_liveness(&verdict).is_some());
    }
}

fn inputs() -> impl Strategy<Value = Vec<(u64, Input)>> {
    let ages = (0u64..2_000, 0u64..5_000, 0u64..5_000, 0u64..3, 0u64..3);
    let granted = (0u128..3, ages, proptest::bool::weighted(0.9));
    let one = prop_oneof![
        6 => granted.prop_map(|(who, (frame, liveness, shot, track, shot_track), in_current_snapshot)| {
            // Ages are turned into times when the sequence is played.
            Input::Granted(Grant {
                decision: Uuid::from_u128(9),
                person: person(who),
                evidence: GrantEvidence {
                    track: TrackId(track),
                    newest_frame_at: at(frame),
                    liveness_at: at(liveness),
                    best_shot_at: at(shot),
                    best_shot_track: TrackId(shot_track),
                },
                in_current_snapshot,
                passes_lockdown: who == CHIEF,
            })
        }),
        2 => (0u128..3).prop_map(|who| Input::Revoked { person: person(who) }),
        2 => Just(Input::Tick),
        // The age of an order becomes its last moment when the sequence is played.
        1 => (0u64..2_000).prop_map(|age| {
            Input::Ordered(DoorOrder { command: ORDER, not_after: at(age), hold: None })
        }),
        1 => proptest::bool::ANY.prop_map(|on| Input::Lockdown { on }),
        1 => Just(Input::Fault(Fault::Controller)),
        1 => Just(Input::Fault(Fault::Tamper)),
        1 => Just(Input::FaultCleared(Fault::Controller)),
        1 => Just(Input::FaultCleared(Fault::Tamper)),
    ];
    proptest::collection::vec((0u64..2_500, one), 1..60)
}

proptest! {
    #[test]
    fn whatever_happens_only_fresh_evidence_of_a_present_person_unlocks(
        inputs in inputs(), safe in proptest::bool::ANY,
    ) {
        let fail = if safe { FailMode::Safe } else { FailMode::Secure };
        let policy = DoorPolicy { fail, ..DoorPolicy::default() };
        let (mut door, mut now, mut energised) = (Door::locked(), 10_000u64, false);
        for (gap, mut input) in inputs {
            now += gap;
            if let Input::Granted(grant) = &mut input {
                let before = |age: MonoTime| at(now - age.as_millis());
                let e = grant.evidence;
                grant.evidence = GrantEvidence {
                    newest_frame_at: before(e.newest_frame_at),
                    liveness_at: before(e.liveness_at),
                    best_shot_at: before(e.best_shot_at),
                    ..e
                };
            }
            if let Input::Ordered(order) = &mut input {
                // Half of them are late.
                order.not_after = at(now + 1_000 - order.not_after.as_millis());
            }
            let shut = door.is_locked_down();
            let (next, effects) = step(door, input, at(now), &policy);
            for effect in &effects {
                match effect {
                    Effect::Unlock(cause) => {
                        prop_assert!(!energised, "unlocked twice");
                        energised = true;
                        if let UnlockCause::Granted { .. } = cause {
                            let Input::Granted(grant) = input else { panic!("unlocked by {input:?}") };
                            let e = grant.evidence;
                            prop_assert!(grant.in_current_snapshot && (!shut || grant.passes_lockdown));
                            prop_assert!(now - e.newest_frame_at.as_millis() <= 800);
                            prop_assert!(now - e.best_shot_at.as_millis() <= 3_000);
                            prop_assert!(e.newest_frame_at >= e.liveness_at);
                            prop_assert_eq!(e.track, e.best_shot_track);
                        } else if let UnlockCause::Ordered { .. } = cause {
                            let Input::Ordered(order) = input else { panic!("unlocked by {input:?}") };
                            prop_assert!(at(now) <= order.not_after && !shut);
                        } else {
                            prop_assert!(safe);
                        }
                    }
                    Effect::Lock(_) => {
                        prop_assert!(energised, "locked twice");
                        energised = false;
                    }
                    Effect::WakeAt(_) | Effect::Record(_) | Effect::Answer { .. } => {}
                }
            }
            prop_assert_eq!(next.is_unlocked(), energised);
            if let Input::Revoked { person } = input {
                prop_assert!(next.held_for().all(|holder| holder != person));
            }
            if !next.escape {
                let overdue = next.holders.iter().all(|holder| holder.until > at(now));
                prop_assert!(overdue);
            }
            door = next;
        }
    }
}
