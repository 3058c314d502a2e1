//! A random sequence of movements, asked for one by one: what a replay cannot know beforehand.
//!
//! In: a nonce, and per frame the time, the pose and whether a blink has just been seen. Out: what to ask for next, and a
//! [`Check`]. A pure state machine: whoever runs it shows [`Challenge::wanted`] to the person. One clip of the test data
//! turns its head by ±33° of its own accord, so that a fixed sequence can be replayed; here each step begins from a frontal
//! face, allows nothing before a person can have reacted, and fails on the movement that was not asked for.
//! Deliberately absent: where the nonce comes from (it must be fresh and unpredictable), and any display.

use std::time::Duration;

use super::findings::{Check, CheckState};
use crate::pose::{FRONTAL_PITCH_DEG, HeadPose};
use crate::time::MonoTime;

/// A movement that can be asked for. Sides are as seen in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Movement {
    /// Turn the nose towards the left edge of the picture.
    TurnLeft,
    /// Towards the right edge.
    TurnRight,
    /// Nod, down or up.
    Nod,
    /// Shut both eyes and open them.
    Blink,
}

impl Movement {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TurnLeft, Self::TurnRight, Self::Nod, Self::Blink];
}

/// Steps of a challenge: 4 × 3 × 3 sequences, as no movement is asked for twice in a row.
pub const STEPS: usize = 3;
/// Degrees of yaw that are a turn, and of pitch that are a nod.
const TURNED_DEG: f32 = 18.0;
const NODDED_DEG: f32 = 12.0;
/// Degrees from frontal within which a step begins.
const NEUTRAL_DEG: f32 = 10.0;
/// Nobody reacts sooner than this; a movement that comes sooner was not an answer.
const REACTION: Duration = Duration::from_millis(250);
/// Time for one step, from a frontal face on.
pub const STEP_LIMIT: Duration = Duration::from_secs(4);
/// Time for all of it.
const WHOLE_LIMIT: Duration = Duration::from_secs(15);

/// What one frame shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChallengeLook {
    /// When it was captured.
    pub captured_at: MonoTime,
    /// The head's pose; without one nothing can be answered.
    pub pose: Option<HeadPose>,
    /// Whether a blink ended with this frame.
    pub blinked: bool,
}

/// Why a challenge was not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Another movement than the one that was asked for.
    WrongMovement,
    /// Too late, with one step or with all of them.
    TooLate,
}

/// One challenge of one person. Make a new one, with a new nonce, for each attempt.
#[derive(Clone, Debug)]
pub struct Challenge {
    steps: [Movement; STEPS],
    done: usize,
    begun: Option<MonoTime>,
    /// When the face was first seen frontal in the present step.
    asked: Option<MonoTime>,
    newest: Option<MonoTime>,
    failure: Option<Failure>,
}

impl Challenge {
    /// The challenge of a nonce. Every sequence is about equally likely.
    #[must_use]
    pub fn from_nonce(nonce: u64) -> Self {
        let mut state = nonce;
        let mut steps = [Movement::Blink; STEPS];
        for index in 0..STEPS {
            let left: Vec<Movement> =
                Movement::ALL.into_iter().filter(|movement| index == 0 || *movement != steps[index - 1]).collect();
            steps[index] = left[(splitmix(&mut state) % left.len() as u64) as usize];
        }
        Self { steps, done: 0, begun: None, asked: None, newest: None, failure: None }
    }

    /// What to ask the person for now; `None` when it is over.
    #[must_use]
    pub fn wanted(&self) -> Option<Movement> {
        if self.failure.is_some() { None } else { self.steps.get(self.done).copied() }
    }

    /// How many steps were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.done
    }

    /// Why it was not passed; `None` while it runs, and once it was.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Takes a frame in.
    pub fn observe(&mut self, look: &ChallengeLook) {
        let Some(wanted) = self.wanted() else { return };
        let at = look.captured_at;
        if self.newest.is_some_and(|newest| at <= newest) {
            return;
        }
        self.newest = Some(at);
        let begun = *self.begun.get_or_insert(at);
        if at.since(begun) > WHOLE_LIMIT {
            self.failure = Some(Failure::TooLate);
            return;
        }
        let Some(pose) = look.pose.filter(HeadPose::is_finite) else { return };
        let Some(asked) = self.asked else {
            if pose.frontal_deviation_deg() <= NEUTRAL_DEG {
                self.asked = Some(at);
            }
            return;
        };
        if at.since(asked) > STEP_LIMIT {
            self.failure = Some(Failure::TooLate);
            return;
        }
        let Some(movement) = movement_of(pose, look.blinked) else { return };
        if at.since(asked) < REACTION {
            // It was under way before it was asked for: begin this step anew from a frontal face. Blinks happen.
            self.asked = if movement == Movement::Blink { Some(asked) } else { None };
        } else if movement == wanted {
            self.done += 1;
            self.asked = None;
        } else if movement != Movement::Blink {
            self.failure = Some(Failure::WrongMovement);
        }
    }

    /// What it amounts to so far.
    #[must_use]
    pub fn check(&self) -> Check {
        let state = match (self.failure.is_some(), self.done) {
            (true, _) => CheckState::Fail,
            (false, STEPS) => CheckState::Pass,
            _ => CheckState::Undecided,
        };
        Check::measured(state, self.done as f32 / STEPS as f32)
    }
}

/// The movement that a frame shows, a turn before a nod before a blink; people blink while they turn.
fn movement_of(pose: HeadPose, blinked: bool) -> Option<Movement> {
    match (pose.yaw_deg, pose.pitch_deg - FRONTAL_PITCH_DEG) {
        (yaw, _) if yaw >= TURNED_DEG => Some(Movement::TurnLeft),
        (yaw, _) if yaw <= -TURNED_DEG => Some(Movement::TurnRight),
        (_, pitch) if pitch.abs() >= NODDED_DEG => Some(Movement::Nod),
        _ => blinked.then_some(Movement::Blink),
    }
}

/// The next number of Steele's SplitMix64: spreads any nonce over all sequences.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// A person before a challenge, ten frames a second.
    struct Story {
        challenge: Challenge,
        now: u64,
    }

    impl Story {
        fn of(steps: [Movement; STEPS]) -> Self {
            let nonce = (0..10_000).find(|nonce| Challenge::from_nonce(*nonce).steps == steps).unwrap();
            Self { challenge: Challenge::from_nonce(nonce), now: 1_000 }
        }

        fn show(&mut self, movement: Option<Movement>, frames: u32) -> CheckState {
            let frontal = HeadPose { yaw_deg: 0.0, pitch_deg: FRONTAL_PITCH_DEG, roll_deg: 0.0 };
            for _ in 0..frames {
                let pose = match movement {
                    Some(Movement::TurnLeft) => HeadPose { yaw_deg: 25.0, ..frontal },
                    Some(Movement::TurnRight) => HeadPose { yaw_deg: -25.0, ..frontal },
                    Some(Movement::Nod) => HeadPose { pitch_deg: FRONTAL_PITCH_DEG + 18.0, ..frontal },
                    _ => frontal,
                };
                let blinked = movement == Some(Movement::Blink);
                let captured_at = MonoTime::from_millis(self.now);
                self.challenge.observe(&ChallengeLook { captured_at, pose: Some(pose), blinked });
                self.now += 100;
            }
            self.challenge.check().state
        }

        fn answer(&mut self, movement: Movement) -> CheckState {
            self.show(None, 6);
            self.show(Some(movement), 1)
        }
    }

    const SEQUENCE: [Movement; STEPS] = [Movement::TurnLeft, Movement::Blink, Movement::Nod];

    #[test]
    fn the_right_movements_in_order_pass() {
        let mut story = Story::of(SEQUENCE);
        for (index, movement) in SEQUENCE.into_iter().enumerate() {
            assert_eq!(story.challenge.wanted(), Some(movement));
            let state = story.answer(movement);
            assert_eq!(state, if index == 2 { CheckState::Pass } else { CheckState::Undecided });
        }
        assert_eq!(story.challenge.wanted(), None);
    }

    #[test]
    fn a_wrong_movement_fails_for_good() {
        let mut story = Story::of(SEQUENCE);
        assert_eq!(story.answer(Movement::TurnRight), CheckState::Fail);
        assert_eq!(story.answer(Movement::TurnLeft), CheckState::Fail);
        assert_eq!(story.challenge.wanted(), None);
    }

    #[test]
    fn a_blink_that_nobody_asked_for_is_forgiven() {
        let mut story = Story::of(SEQUENCE);
        assert_eq!(story.answer(Movement::Blink), CheckState::Undecided);
        assert_eq!(story.challenge.wanted(), Some(Movement::TurnLeft));
    }

    #[test]
    fn each_step_and_the_whole_have_their_time() {
        let mut story = Story::of(SEQUENCE);
        assert_eq!(story.show(None, 50), CheckState::Fail, "five seconds without an answer");
        let mut story = Story::of(SEQUENCE);
        assert_eq!(story.show(Some(Movement::Nod), 200), CheckState::Fail, "never frontal, for twenty seconds");
    }

    #[test]
    fn a_movement_that_was_under_way_is_no_answer() {
        let mut story = Story::of(SEQUENCE);
        story.show(None, 1);
        story.show(Some(Movement::TurnLeft), 1);
        assert_eq!(story.challenge.wanted(), Some(Movement::TurnLeft), "100 ms: no reaction is so quick");
    }

    #[test]
    fn a_face_that_starts_turned_has_answered_nothing() {
        let mut story = Story::of(SEQUENCE);
        assert_eq!(story.show(Some(Movement::TurnLeft), 20), CheckState::Undecided);
        assert_eq!(story.challenge.wanted(), Some(Movement::TurnLeft));
    }

    #[test]
    fn every_sequence_is_about_equally_likely_and_none_repeats_a_movement() {
        let mut seen: HashMap<[Movement; STEPS], u32> = HashMap::new();
        for nonce in 0..36_000 {
            *seen.entry(Challenge::from_nonce(nonce).steps).or_default() += 1;
        }
        assert_eq!(seen.len(), 36);
        assert!(seen.values().all(|count| (850..=1_150).contains(count)), "{seen:?}");
        assert!(seen.keys().all(|steps| steps[0] != steps[1] && steps[1] != steps[2]));
    }

    proptest! {
        /// A recording of one sequence passes only the challenges that ask for that very sequence.
        #[test]
        fn a_replay_passes_only_its_own_sequence(nonce in any::<u64>(), recorded in any::<u64>()) {
            let movements = Challenge::from_nonce(recorded).steps;
            let mut story = Story { challenge: Challenge::from_nonce(nonce), now: 1_000 };
            let wanted = story.challenge.steps;
            for movement in movements {
                story.answer(movement);
            }
            let passed = story.challenge.check().state == CheckState::Pass;
            prop_assert_eq!(passed, wanted == movements);
        }
    }
}
