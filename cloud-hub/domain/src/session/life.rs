//! Whether somebody lives, from the frames of one attempt that came one by one over the network.
//!
//! In: what each frame showed ([`Look`]), and what the movements are drawn from. Out: which movement is wanted now, and a verdict, by
//! face-core's own window, challenge and judge. The state is replayed from the looks each time, so that nothing is kept in memory
//! and any hub can go on. Deliberately absent: pictures, models, clocks.
//!
//! What a door has and this has not: thirty frames a second, on which the change of a living face was measured. So a challenge is
//! asked of everybody, and the passive model has to agree. Pictures that a browser sends could come from anywhere; what is asked for
//! at random, and shown only when the movement before was made, is what a recording cannot know.

use std::time::Duration;

use face_core::liveness::{
    Challenge, ChallengeLook, CheckState, Demand, EyeLook, Failure, LivenessEvidence, LivenessPolicy, LivenessVerdict,
    LivenessWindow, Method, Methods, Movement, judge,
};
use face_core::{HeadPose, MonoTime, PassiveScores};
use wire_contract::Code;

use crate::recognition::{StillLife, WhyNot};

/// What one frame showed of one and the same person.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// When it was taken, in milliseconds since the session was opened.
    pub at_ms: u64,
    /// Where the head pointed.
    pub pose: HeadPose,
    /// The passive model's scores; none when the model could not answer.
    pub passive: Option<PassiveScores>,
    /// How much brighter the face is than the picture.
    pub glow: Option<f32>,
    /// The eyes; none when the model could not answer.
    pub eyes: Option<EyeLook>,
    /// A digest of the face's own pixels.
    pub digest: Option<u64>,
    /// The prompt that was shown when it was taken: the number of movements made before. None: it was not an answer to any.
    pub prompt: Option<u16>,
}

impl Look {
    /// Whether who it is may be told by this frame where life is demanded: it was taken for a movement that was asked for, and looks
    /// alive itself. Otherwise somebody could show photographs for the identity and the own face for the life.
    #[must_use]
    pub fn tells_who(&self) -> bool {
        let lives = self.passive.is_some_and(|scores| scores.mean() > LivenessPolicy::default().pass_above);
        lives && self.prompt.is_some()
    }
}

/// The frames that tell who it is: all of them, or where life is demanded those alone that prove it. Their places, in their order.
#[must_use]
pub fn telling(demanded: bool, looks: &[Option<Look>]) -> Vec<usize> {
    let tells = |look: &Option<Look>| !demanded || look.is_some_and(|look| look.tells_who());
    (0..looks.len()).filter(|place| tells(&looks[*place])).collect()
}

/// What frames say of life where no proof of it is demanded: at least that none is plainly an attack. One of which the model says
/// nothing is not known to be none.
#[must_use]
pub fn no_attack(looks: &[Option<Look>]) -> Judged {
    let scores: Option<Vec<PassiveScores>> = looks.iter().map(|look| look.and_then(|look| look.passive)).collect();
    let lives = scores.unwrap_or_default().into_iter().map(StillLife::of);
    let Some(worst) = lives.min_by(|a, b| a.score.total_cmp(&b.score)) else {
        let unavailable = WhyNot { code: Code::LivenessUnavailable, score: None, threshold: None };
        return Judged { score: None, why_not: Some(unavailable) };
    };
    Judged { score: Some(worst.score), why_not: worst.refusal() }
}

/// When frames were taken that came together: the last one now, the others `interval` milliseconds apart before it, but none
/// before one that came earlier, whatever the client says: what is older than the `newest` frame says nothing of life.
#[must_use]
pub fn taken(now: u64, count: usize, interval: u32, newest: Option<u64>) -> Vec<u64> {
    let (mut times, mut least) = (Vec::with_capacity(count), newest.map_or(0, |newest| newest + 1));
    for after in (0..count as u64).rev() {
        let at = now.saturating_sub(u64::from(interval) * after).max(least);
        times.push(at);
        least = at + 1;
    }
    times
}

/// A gap between frames counts as this at most: a window takes a longer one for another person, and here every frame is held
/// against the first one by its template.
const LONGEST_GAP: Duration = Duration::from_millis(1_000);
/// The window is the whole attempt, which the session's own time bounds.
const HORIZON: Duration = Duration::from_secs(3_600);

/// Where an attempt stands.
#[derive(Clone, Debug)]
pub struct Standing {
    challenge: Challenge,
    window: LivenessWindow,
}

/// Replays an attempt.
#[must_use]
pub fn replay(seed: u64, looks: &[Look]) -> Standing {
    let policy = LivenessPolicy { horizon: HORIZON, ..LivenessPolicy::default() };
    let (mut challenge, mut window) = (Challenge::from_nonce(seed), LivenessWindow::new(policy));
    let (mut clock, mut last) = (MonoTime::from_millis(1), None);
    for look in looks {
        let at = MonoTime::from_millis(look.at_ms);
        if let Some(last) = last {
            clock = clock + at.since(last).min(LONGEST_GAP);
        }
        last = Some(at);
        window.push(LivenessEvidence {
            pose: Some(look.pose),
            passive: look.passive,
            eyes: look.eyes,
            glow: look.glow,
            face_digest: look.digest,
            ..LivenessEvidence::at(clock)
        });
        // What was taken before a movement was asked for is no answer to it.
        if look.prompt.is_some_and(|prompt| usize::from(prompt) == challenge.answered()) {
            let blinked = window.blinked_just_now();
            challenge.observe(&ChallengeLook { captured_at: at, pose: Some(look.pose), blinked });
        }
    }
    Standing { challenge, window }
}

/// What is demanded of a face that is said to live: movements that nobody could know beforehand, and a passive model that agrees.
fn demand() -> Demand {
    let basic = Demand::basic();
    Demand { required: Methods::of(&[Method::Passive, Method::Challenge]), ..basic }
}

impl Standing {
    /// The movement to ask for, and its number from 0; none when the challenge is over.
    #[must_use]
    pub fn wanted(&self) -> Option<(Movement, u16)> {
        let number = u16::try_from(self.challenge.answered()).unwrap_or(u16::MAX);
        self.challenge.wanted().map(|movement| (movement, number))
    }

    /// Why the challenge ended without a pass, if it did: the attempt is over.
    #[must_use]
    pub fn failure(&self) -> Option<Code> {
        self.challenge.failure().map(|failure| match failure {
            Failure::WrongMovement => Code::ChallengeFailed,
            Failure::TooLate => Code::ChallengeTimeout,
        })
    }

    /// Whether all movements were made.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.challenge.check().state == CheckState::Pass
    }

    /// Why nobody is looked for, if somebody lives only as far as `verdict` says; none if they do.
    #[must_use]
    pub fn judged(&self) -> Judged {
        let findings = self.window.findings().with(Method::Challenge, self.challenge.check());
        let verdict = judge(&findings, &demand());
        let passive = findings.of(Method::Passive).score;
        Judged { score: passive, why_not: why_not(verdict, passive, self.failure()) }
    }
}

/// A verdict with what it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The passive model's mean, in [0, 1].
    pub score: Option<f32>,
    /// Nothing if somebody lives.
    pub why_not: Option<WhyNot>,
}

/// Fails closed: everything but `Live` is a reason.
fn why_not(verdict: LivenessVerdict, score: Option<f32>, failure: Option<Code>) -> Option<WhyNot> {
    let policy = LivenessPolicy::default();
    let why = |code, threshold| Some(WhyNot { code, score, threshold });
    match verdict {
        LivenessVerdict::Live { .. } => None,
        LivenessVerdict::Attack { by: Method::Challenge, .. } => why(failure.unwrap_or(Code::ChallengeFailed), None),
        LivenessVerdict::Attack { .. } => why(Code::LivenessFailed, policy.attack_below(None)),
        LivenessVerdict::Collecting { .. } | LivenessVerdict::Watch { .. } => {
            why(Code::LivenessUndecided, Some(policy.pass_above))
        }
        LivenessVerdict::Unavailable => why(Code::LivenessUnavailable, None),
    }
}

/// Whether a refusal is only that too little was seen so far: the attempt goes on.
#[must_use]
pub fn may_still_pass(why_not: &WhyNot) -> bool {
    why_not.code == Code::LivenessUndecided
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRONTAL: HeadPose = HeadPose { yaw_deg: 0.0, pitch_deg: -8.5, roll_deg: 0.0 };
    const OPEN: EyeLook = EyeLook { aspect_ratio: 0.30, closed: 0.1 };
    const SHUT: EyeLook = EyeLook { aspect_ratio: 0.12, closed: 0.9 };

    /// Somebody before a kiosk that sends five frames a second.
    struct Story {
        seed: u64,
        looks: Vec<Look>,
        now: u64,
        passive: Option<f32>,
        repeats: bool,
    }

    impl Story {
        fn of(seed: u64, passive: f32) -> Self {
            Self { seed, looks: Vec::new(), now: 500, passive: Some(passive), repeats: false }
        }

        fn show(&mut self, pose: HeadPose, eyes: EyeLook, prompt: Option<u16>) {
            let frontal = pose == FRONTAL;
            self.looks.push(Look {
                at_ms: self.now,
                pose,
                passive: self.passive.filter(|_| frontal).map(|score| PassiveScores { boxed: score, square: score }),
                glow: Some(1.0),
                eyes: Some(eyes),
                digest: Some(if self.repeats { 7 } else { self.now }),
                prompt,
            });
            self.now += 200;
        }

        fn make(&mut self, movement: Movement, prompt: Option<u16>) {
            for _ in 0..4 {
                self.show(FRONTAL, OPEN, prompt);
            }
            let (pose, eyes) = match movement {
                Movement::TurnLeft => (HeadPose { yaw_deg: 25.0, ..FRONTAL }, OPEN),
                Movement::TurnRight => (HeadPose { yaw_deg: -25.0, ..FRONTAL }, OPEN),
                Movement::Nod => (HeadPose { pitch_deg: 8.0, ..FRONTAL }, OPEN),
                Movement::Blink => (FRONTAL, SHUT),
            };
            self.show(pose, eyes, prompt);
            if movement == Movement::Blink {
                self.show(FRONTAL, OPEN, prompt);
            }
        }

        /// Does what is asked, and says which prompt it saw.
        fn obey(mut self) -> Self {
            // Eyes are known to be open before the first blink can be told.
            for _ in 0..8 {
                self.show(FRONTAL, OPEN, Some(0));
            }
            while let Some((movement, number)) = self.standing().wanted() {
                self.make(movement, Some(number));
                assert!(self.looks.len() < 60, "{movement:?} was made and not seen");
            }
            self
        }

        fn standing(&self) -> Standing {
            replay(self.seed, &self.looks)
        }

        fn code(&self) -> Option<Code> {
            self.standing().judged().why_not.map(|why| why.code)
        }
    }

    #[test]
    fn who_does_what_is_asked_and_looks_alive_lives() {
        for seed in 0..40 {
            let story = Story::of(seed, 0.9).obey();
            assert!(story.standing().passed() && story.standing().failure().is_none(), "{seed}");
            assert_eq!(story.code(), None, "{seed}");
        }
    }

    #[test]
    fn who_it_is_is_told_only_by_frames_that_prove_life() {
        let mut story = Story::of(3, 0.9);
        story.show(FRONTAL, OPEN, Some(0));
        let answer = story.looks[0];
        assert!(answer.tells_who());
        assert!(!Look { prompt: None, ..answer }.tells_who(), "a photograph that was sent before");
        let dim = PassiveScores { boxed: 0.3, square: 0.3 };
        assert!(!Look { passive: Some(dim), ..answer }.tells_who(), "a print between two frames");
        assert!(!Look { passive: None, ..answer }.tells_who());
        let sent = [Some(Look { prompt: None, ..answer }), Some(answer), None, Some(answer)];
        assert_eq!((telling(true, &sent), telling(false, &sent)), (vec![1, 3], vec![0, 1, 2, 3]));
    }

    #[test]
    fn without_a_proof_of_life_every_frame_is_looked_at_for_an_attack() {
        let mut story = Story::of(3, 0.9);
        story.show(FRONTAL, OPEN, None);
        let good = story.looks[0];
        let of = |passive: Option<f32>| {
            Some(Look { passive: passive.map(|score| PassiveScores { boxed: score, square: score }), ..good })
        };
        let code = |looks: &[Option<Look>]| no_attack(looks).why_not.map(|why| why.code);
        assert_eq!(code(&[of(Some(0.9)), of(Some(0.8))]), None);
        assert_eq!(code(&[of(Some(0.9)), of(Some(0.0))]), Some(Code::LivenessFailed));
        for blind in [[of(Some(0.9)), of(None)].as_slice(), &[of(Some(0.9)), None], &[]] {
            assert_eq!(code(blind), Some(Code::LivenessUnavailable), "{blind:?}");
        }
    }

    #[test]
    fn a_screen_that_obeys_is_an_attack_and_one_in_doubt_lives_not() {
        assert_eq!(Story::of(3, 0.01).obey().code(), Some(Code::LivenessFailed));
        assert_eq!(Story::of(3, 0.3).obey().code(), Some(Code::LivenessUndecided));
    }

    #[test]
    fn without_a_verdict_nobody_lives() {
        let mut story = Story::of(3, 0.9);
        assert_eq!(story.code(), Some(Code::LivenessUndecided), "nothing was seen");
        story.passive = None;
        assert_eq!(story.obey().code(), Some(Code::LivenessUnavailable), "the model gave no answer");
    }

    #[test]
    fn one_picture_sent_again_and_again_is_an_attack() {
        let mut story = Story::of(3, 0.9);
        story.repeats = true;
        assert_eq!(story.obey().code(), Some(Code::LivenessFailed));
    }

    #[test]
    fn a_movement_that_was_not_asked_for_ends_the_attempt() {
        let mut story = Story::of(3, 0.9);
        let (wanted, number) = story.standing().wanted().unwrap();
        let other = Movement::ALL.into_iter().find(|other| *other != wanted && *other != Movement::Blink).unwrap();
        story.make(other, Some(number));
        assert_eq!(story.standing().failure(), Some(Code::ChallengeFailed));
        assert_eq!((story.code(), story.standing().wanted()), (Some(Code::ChallengeFailed), None));
    }

    #[test]
    fn who_takes_too_long_is_told_so() {
        let mut story = Story::of(3, 0.9);
        story.show(FRONTAL, OPEN, Some(0));
        story.now += 16_000;
        story.show(FRONTAL, OPEN, Some(0));
        assert_eq!(story.code(), Some(Code::ChallengeTimeout));
    }

    proptest! {
        #[test]
        fn no_frame_is_taken_before_another_that_came_earlier(
            now in 0_u64..1_000_000, count in 0_usize..30, interval in 20_u32..2_000, newest in prop::option::of(0_u64..1_000_000),
        ) {
            let times = taken(now, count, interval, newest);
            prop_assert_eq!(times.len(), count);
            prop_assert!(times.windows(2).all(|two| two[0] < two[1]));
            prop_assert!(times.first().is_none_or(|first| newest.is_none_or(|newest| *first > newest)));
            // What is told of times after that is believed.
            if count > 0 && newest.is_none_or(|newest| newest + 60_000 < now) && now > 60_000 {
                prop_assert_eq!((times[0], times[count - 1]), (now - u64::from(interval) * (count as u64 - 1), now));
            }
        }

        /// A recording of all movements answers nothing unless it was made to the prompt that was shown.
        #[test]
        fn frames_that_saw_no_prompt_answer_none(seed: u64, movements in prop::collection::vec(0..4_usize, 0..12)) {
            let mut story = Story::of(seed, 0.9);
            for movement in movements {
                // All of them say that they are answers to a prompt that is not shown yet, or to none.
                let prompt = if movement % 2 == 0 { None } else { Some(1) };
                story.make(Movement::ALL[movement], prompt);
            }
            prop_assert_eq!(story.standing().wanted().map(|(_, number)| number), Some(0));
            prop_assert!(story.code().is_some());
        }

        /// Whatever one nonce made of the movements, another one asks for them anew.
        #[test]
        fn no_number_of_frames_makes_a_dead_face_live(seed: u64, passive in 0.0_f32..0.5) {
            prop_assert!(Story::of(seed, passive).obey().code().is_some());
        }
    }
}
