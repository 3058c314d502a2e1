//! When a door asks, what it shows, and that nothing but the right answer counts.

use proptest::prelude::*;

use super::super::challenge::STEPS;
use super::*;
use crate::pose::{FRONTAL_PITCH_DEG, HeadPose};

const VALID: Duration = Duration::from_secs(3);

fn ms(at: u64) -> MonoTime {
    MonoTime::from_millis(at)
}

fn findings(passive: CheckState, score: f32) -> Findings {
    Findings::over(30)
        .with(Method::Passive, Check::measured(passive, score))
        .with(Method::Temporal, Check::measured(CheckState::Pass, 2.0))
}

fn always() -> Demand {
    let demand = Demand::standard();
    Demand { required: demand.required.with(Method::Challenge), ..demand }
}

const UNCERTAIN: ChallengeRule = ChallengeRule::WhenUncertain { from: 0.25 };

/// A person before a door, ten frames a second.
struct Story {
    interview: Interview,
    now: u64,
    wanted: Option<Movement>,
}

impl Story {
    fn begun(nonce: u64) -> Self {
        let mut interview = Interview::default();
        let Turn::Prompt { movement, step: 1 } = interview.begin(nonce, ms(1_000)) else { panic!("a prompt") };
        Self { interview, now: 1_000, wanted: Some(movement) }
    }

    fn show(&mut self, movement: Option<Movement>, frames: u32) -> Option<Turn> {
        let frontal = HeadPose { yaw_deg: 0.0, pitch_deg: FRONTAL_PITCH_DEG, roll_deg: 0.0 };
        let pose = match movement {
            Some(Movement::TurnLeft) => HeadPose { yaw_deg: 25.0, ..frontal },
            Some(Movement::TurnRight) => HeadPose { yaw_deg: -25.0, ..frontal },
            Some(Movement::Nod) => HeadPose { pitch_deg: FRONTAL_PITCH_DEG + 18.0, ..frontal },
            _ => frontal,
        };
        let mut last = None;
        for _ in 0..frames {
            let blinked = movement == Some(Movement::Blink);
            let look = ChallengeLook { captured_at: ms(self.now), pose: Some(pose), blinked };
            last = self.interview.observe(&look).or(last);
            self.now += 100;
        }
        if let Some(Turn::Prompt { movement, .. }) = last {
            self.wanted = Some(movement);
        }
        last
    }

    fn answer(&mut self, movement: Movement) -> Option<Turn> {
        self.show(None, 6);
        self.show(Some(movement), 2)
    }

    /// Does what is asked, to the end; returns what was shown last and the movements.
    fn obey(&mut self) -> (Option<Turn>, Vec<Movement>) {
        let mut movements = Vec::new();
        let mut last = None;
        for _ in 0..STEPS {
            let wanted = self.wanted.expect("something is asked");
            movements.push(wanted);
            last = self.answer(wanted);
        }
        (last, movements)
    }

    fn check(&self) -> CheckState {
        self.interview.check(ms(self.now), VALID).state
    }
}

#[test]
fn who_does_what_is_asked_passes_for_a_few_seconds() {
    let mut story = Story::begun(7);
    assert_eq!(story.check(), CheckState::Undecided);
    let (last, movements) = story.obey();
    assert!(matches!(last, Some(Turn::Passed { took }) if took >= Duration::from_secs(1)), "{last:?}");
    assert_eq!(movements.len(), STEPS);
    assert_eq!(story.check(), CheckState::Pass);
    let passed = story.interview.passed_at().unwrap();
    assert_eq!(story.interview.check(passed + VALID, VALID).state, CheckState::Pass);
    assert_eq!(story.interview.check(passed + VALID + Duration::from_millis(1), VALID).state, CheckState::Undecided);
    assert!(!story.interview.may_begin(passed + Duration::from_secs(14)), "who lingers is not asked again at once");
    assert!(story.interview.may_begin(passed + Duration::from_secs(15)));
}

#[test]
fn a_wrong_answer_and_none_at_all_are_told_apart_and_a_new_attempt_takes_a_new_nonce() {
    let mut story = Story::begun(7);
    let wrong = match story.wanted {
        Some(Movement::TurnLeft) => Movement::TurnRight,
        _ => Movement::TurnLeft,
    };
    let turn = story.answer(wrong);
    assert!(matches!(turn, Some(Turn::Failed { failure: Failure::WrongMovement, answered: 0, .. })), "{turn:?}");
    assert_eq!((story.check(), story.interview.failure()), (CheckState::Fail, Some(Failure::WrongMovement)));
    let failed = ms(story.now);
    assert!(!story.interview.may_begin(failed) && story.interview.may_begin(failed + REST_AFTER_FAILURE));

    story.interview.begin(8, failed + REST_AFTER_FAILURE);
    assert_eq!((story.check(), story.interview.failure()), (CheckState::Undecided, None), "a new chance");
    story.now += 4_000;
    let turn = story.show(None, 60);
    assert!(matches!(turn, Some(Turn::Failed { failure: Failure::TooLate, answered: 0, .. })), "{turn:?}");
    assert_eq!(story.interview.failure(), Some(Failure::TooLate));
}

#[test]
fn after_three_failures_the_face_must_leave() {
    let mut story = Story::begun(1);
    for attempt in 1..=MAX_FAILURES {
        assert!(matches!(story.show(None, 60), Some(Turn::Failed { .. })), "nothing was answered");
        story.now += 60_000;
        assert_eq!(story.interview.may_begin(ms(story.now)), attempt < MAX_FAILURES, "attempt {attempt}");
        if attempt < MAX_FAILURES {
            story.interview.begin(u64::from(attempt) + 1, ms(story.now));
        }
    }
}

#[test]
fn another_face_begins_with_nothing() {
    let mut story = Story::begun(7);
    story.answer(story.wanted.unwrap());
    assert!(story.interview.forget(), "one was under way");
    assert_eq!(story.check(), CheckState::Undecided);
    let mut story = Story::begun(7);
    story.obey();
    assert!(!story.interview.forget());
    assert_eq!((story.check(), story.interview.passed_at()), (CheckState::Undecided, None));
}

#[test]
fn a_door_that_always_asks_asks_everybody_who_may_still_be_alive() {
    let rule = ChallengeRule::Always;
    let alive = findings(CheckState::Pass, 0.9);
    assert!(rule.asks(&alive, &always()));
    assert!(rule.asks(&findings(CheckState::Undecided, 0.4), &always()));
    assert!(!rule.asks(&findings(CheckState::Fail, 0.0), &always()), "an attack stays one");
    let mut early = alive;
    early.frontal_frames = 3;
    assert!(!rule.asks(&early, &always()), "it is too early");
    assert!(!judge(&rule.counted(&alive, Check::UNDECIDED), &always()).is_live());
    assert!(judge(&rule.counted(&alive, Check::measured(CheckState::Pass, 1.0)), &always()).is_live());
    let doubtful = findings(CheckState::Undecided, 0.4);
    assert!(!judge(&rule.counted(&doubtful, Check::measured(CheckState::Pass, 1.0)), &always()).is_live());
}

#[test]
fn a_door_that_asks_the_uncertain_asks_nobody_else_and_takes_the_answer_for_the_models() {
    let demand = Demand::standard();
    let doubtful = findings(CheckState::Undecided, 0.4);
    assert!(UNCERTAIN.asks(&doubtful, &demand));
    assert!(!UNCERTAIN.asks(&findings(CheckState::Pass, 0.9), &demand));
    assert!(!UNCERTAIN.asks(&findings(CheckState::Undecided, 0.2), &demand), "as good as a rejection");
    assert!(!UNCERTAIN.asks(&doubtful.with(Method::Temporal, Check::measured(CheckState::Fail, 0.1)), &demand));
    assert!(!ChallengeRule::Never.asks(&doubtful, &demand));
    let pass = Check::measured(CheckState::Pass, 1.0);
    assert!(judge(&UNCERTAIN.counted(&doubtful, pass), &demand).is_live());
    for (rule, findings, challenge) in [
        (UNCERTAIN, doubtful, Check::UNDECIDED),
        (UNCERTAIN, findings(CheckState::Fail, 0.0), pass),
        (UNCERTAIN, findings(CheckState::Unavailable, 0.4), pass),
        (UNCERTAIN, findings(CheckState::Undecided, 0.2), pass),
        (ChallengeRule::Never, doubtful, pass),
    ] {
        assert!(!judge(&rule.counted(&findings, challenge), &demand).is_live(), "{rule:?} {findings:?}");
    }
}

proptest! {
    /// The control of the whole: what answered one nonce does not answer another that asks for something else.
    #[test]
    fn a_recording_of_one_pass_passes_no_other_sequence(recorded in any::<u64>(), fresh in any::<u64>()) {
        let (_, movements) = Story::begun(recorded).obey();
        let mut story = Story::begun(fresh);
        let mut wanted = vec![story.wanted.unwrap()];
        for movement in &movements {
            story.answer(*movement);
            wanted.extend(story.wanted.filter(|next| wanted.last() != Some(next)));
        }
        let same = wanted == movements;
        prop_assert_eq!(story.interview.passed_at().is_some(), same, "{:?} to {:?}", movements, wanted);
    }
}

#[test]
fn what_was_seen_before_the_question_is_no_answer_and_no_witness() {
    let mut story = Story::begun(7);
    assert!(!story.interview.covers(ms(999)) && story.interview.covers(ms(1_000)));
    story.now = 100;
    story.answer(story.wanted.unwrap());
    assert_eq!(story.check(), CheckState::Undecided);
    story.now = 1_000;
    story.obey();
    let passed = story.interview.passed_at().unwrap();
    assert!(story.interview.covers(passed) && !story.interview.covers(passed + Duration::from_millis(1)));
}
#[test]
fn whoever_did_it_before_the_question_is_asked_all_the_same() {
    let mut story = Story::begun(7);
    story.now = 100;
    assert_eq!(story.answer(story.wanted.unwrap()), None);
    story.now = 1_000;
    assert!(matches!(story.obey().0, Some(Turn::Passed { .. })));
}

#[test]
fn a_door_that_never_asks_asks_nobody() {
    let undecided = findings(CheckState::Undecided, 0.9);
    assert!(
        UNCERTAIN.asks(&undecided, &Demand::standard()) && !ChallengeRule::Never.asks(&undecided, &Demand::standard())
    );
    assert!(!ChallengeRule::Never.asks(&undecided, &always()));
}
