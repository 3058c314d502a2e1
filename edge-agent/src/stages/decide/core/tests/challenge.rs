//! A door that asks for a challenge: who is asked, what opens, and what a recording of somebody else's answers does not.

use face_core::HeadPose;
use face_core::liveness::{ChallengeLook, Movement, STEPS};
use face_core::pose::FRONTAL_PITCH_DEG;
use wire_contract::Code;
use wire_contract::guidance::Prompt;

use super::*;
use crate::stages::decide::ChallengeEnd;

fn asking(challenge: ChallengeRule) -> Story {
    let plain = Demand::standard();
    let demand = match challenge {
        ChallengeRule::Always => Demand { required: plain.required.with(Method::Challenge), ..plain },
        _ => plain,
    };
    let mut rules = rules();
    rules.liveness = rules.liveness.map(|liveness| LivenessRules { demand, challenge, ..liveness });
    Story::with(rules)
}

/// A visit: frames ten times a second, a shot each second.
struct Visit {
    story: Story,
    now: u64,
    shot_at: u64,
    who: PersonId,
    findings: Findings,
    vouched: bool,
}

impl Visit {
    fn of(story: Story, who: PersonId, findings: Findings) -> Self {
        Self { story, now: 0, shot_at: 0, who, findings, vouched: true }
    }

    fn show(&mut self, movement: Option<Movement>) -> Vec<Output> {
        let frontal = HeadPose { yaw_deg: 0.0, pitch_deg: FRONTAL_PITCH_DEG, roll_deg: 0.0 };
        let pose = match movement {
            Some(Movement::TurnLeft) => HeadPose { yaw_deg: 25.0, ..frontal },
            Some(Movement::TurnRight) => HeadPose { yaw_deg: -25.0, ..frontal },
            Some(Movement::Nod) => HeadPose { pitch_deg: FRONTAL_PITCH_DEG + 18.0, ..frontal },
            _ => frontal,
        };
        let mut outputs = Vec::new();
        self.now += 100;
        let at = ms(self.now);
        let shots = vec![ms(self.shot_at)];
        let (vouched_shots, doubtful_shots) = if self.vouched { (shots, Vec::new()) } else { (Vec::new(), shots) };
        let report = FaceReport {
            track: TRACK,
            captured_at: at,
            first_seen: ms(100),
            height_px: 120.0,
            liveness: self.findings,
            liveness_at: Some(at),
            vouched_shots,
            doubtful_shots,
            look: Some(ChallengeLook { captured_at: at, pose: Some(pose), blinked: movement == Some(Movement::Blink) }),
            reasons: Vec::new(),
            models_answered: true,
        };
        outputs.extend(self.story.tell(DoorInput::Face(report), self.now + 20));
        if self.now % 1_000 == 100 {
            self.shot_at = self.now;
            outputs.extend(self.shot(true));
        }
        outputs
    }

    fn shot(&mut self, same_face: bool) -> Vec<Output> {
        let scores = if self.who == anna() { [(anna(), 0.8), (ben(), 0.1)] } else { [(anna(), 0.2), (ben(), 0.1)] };
        let found = Identified { same_face, ..self.story.found(self.shot_at, &scores) };
        self.story.tell(DoorInput::Identified(found), self.now + 30)
    }

    fn stand(&mut self, frames: usize) -> Vec<Output> {
        (0..frames).flat_map(|_| self.show(None)).collect()
    }

    /// Stands there until something is asked; what it is, as the camera sees it.
    fn asked(&mut self) -> Movement {
        let outputs = self.stand(20);
        prompt(&outputs).expect("a challenge is asked for")
    }

    fn asked_again(&mut self) -> Movement {
        let outputs = self.stand(35);
        assert!(!opens(&outputs));
        prompt(&outputs).expect("asked again after a rest")
    }

    fn answer(&mut self, movement: Movement) -> Vec<Output> {
        let mut outputs = self.stand(5);
        outputs.extend(self.show(Some(movement)));
        outputs
    }

    /// Does these movements, whatever is asked; with `None` what is asked. What was asked in the end and all outputs.
    fn go_through(&mut self, recorded: Option<&[Movement]>) -> (Vec<Movement>, Vec<Output>) {
        let mut wanted = vec![self.asked()];
        let mut all = Vec::new();
        for step in 0..STEPS {
            let movement = recorded.map_or(wanted[wanted.len() - 1], |recorded| recorded[step]);
            let outputs = self.answer(movement);
            wanted.extend(prompt(&outputs));
            all.extend(outputs);
        }
        all.extend(self.stand(12));
        (wanted, all)
    }
}

fn shown(outputs: &[Output]) -> Vec<&Show> {
    outputs.iter().filter_map(|output| if let Output::Guide(show) = output { Some(show) } else { None }).collect()
}

/// The last movement that was asked for, as the camera sees it.
fn prompt(outputs: &[Output]) -> Option<Movement> {
    shown(outputs).into_iter().rev().find_map(|show| match show {
        Show::Prompt { prompt: Prompt::TurnRight, .. } => Some(Movement::TurnLeft),
        Show::Prompt { prompt: Prompt::TurnLeft, .. } => Some(Movement::TurnRight),
        Show::Prompt { prompt: Prompt::Nod, .. } => Some(Movement::Nod),
        Show::Prompt { prompt: Prompt::Blink, .. } => Some(Movement::Blink),
        _ => None,
    })
}

fn ended(outputs: &[Output]) -> Option<ChallengeEnd> {
    outputs.iter().find_map(|output| match output {
        Output::Event(DoorEvent::ChallengeEnded(end)) => Some(*end),
        _ => None,
    })
}

#[test]
fn the_door_opens_for_whoever_does_what_it_asks_and_not_before() {
    let mut visit = Visit::of(asking(ChallengeRule::Always), anna(), live());
    let before = visit.stand(15);
    assert!(!opens(&before), "found alive by all else, and not asked enough");
    assert!(prompt(&before).is_some());
    let (_, outputs) = Visit::of(asking(ChallengeRule::Always), anna(), live()).go_through(None);
    assert!(opens(&outputs));
    let end = ended(&outputs).unwrap();
    assert_eq!((end.reason, end.answered), (None, STEPS));
    assert!(shown(&outputs).contains(&&Show::Passed));
    let prompts = outputs.iter().filter(|output| matches!(output, Output::Event(DoorEvent::Prompted { .. }))).count();
    assert_eq!(prompts, STEPS - 1, "each is told when it is asked, none before");
}

#[test]
fn a_recording_of_answers_to_one_nonce_does_not_open_with_a_fresh_one() {
    let (recorded, outputs) = Visit::of(asking(ChallengeRule::Always), anna(), live()).go_through(None);
    assert!(opens(&outputs));
    let (mut passed, mut refused) = (0, 0);
    for nonce in 0..72 {
        let mut visit = Visit::of(asking(ChallengeRule::Always), anna(), live());
        visit.story.world.nonce = nonce;
        let (wanted, outputs) = visit.go_through(Some(&recorded));
        let same = wanted == recorded;
        assert_eq!(opens(&outputs), same, "nonce {nonce} asked {wanted:?}, {recorded:?} was played");
        passed += usize::from(same);
        refused += usize::from(reason(&outputs) == Some(DenyReason::ChallengeFailed));
    }
    assert!(passed <= 8 && refused > 40, "{passed} passed, {refused} refused for a wrong movement");
}

#[test]
fn who_does_not_answer_is_refused_for_that_and_may_try_again_with_another_sequence() {
    let mut visit = Visit::of(asking(ChallengeRule::Always), anna(), live());
    let first = visit.asked();
    let outputs = visit.stand(50);
    assert_eq!(reason(&outputs), Some(DenyReason::ChallengeTimeout));
    assert_eq!(ended(&outputs).unwrap().reason, Some(DenyReason::ChallengeTimeout));
    assert!(shown(&outputs).contains(&&Show::Failed { code: Code::ChallengeTimeout }));
    visit.story.world.nonce =
        (0..).find(|nonce| face_core::liveness::Challenge::from_nonce(*nonce).wanted() != Some(first)).unwrap();
    let second = visit.asked_again();
    assert_ne!(first, second);
    visit.answer(second);
}

#[test]
fn strangers_and_attacks_are_asked_for_nothing() {
    let mut stranger = Visit::of(asking(ChallengeRule::Always), ben(), live());
    let outputs = stranger.stand(30);
    assert!(prompt(&outputs).is_none());
    assert_eq!(reason(&outputs), Some(DenyReason::Unknown));
    let mut attack = Visit::of(asking(ChallengeRule::Always), anna(), found(CheckState::Fail, CheckState::Pass));
    let outputs = attack.stand(30);
    assert!(prompt(&outputs).is_none());
    assert_eq!(reason(&outputs), Some(DenyReason::LivenessFailed));
    let mut suspended = Visit::of(asking(ChallengeRule::Always), anna(), live());
    suspended.story.world.standings.insert(anna(), Standing::Suspended);
    let outputs = suspended.stand(30);
    assert!(prompt(&outputs).is_none());
    assert_eq!(reason(&outputs), Some(DenyReason::NotPermitted));
}

#[test]
fn answers_are_the_faces_own() {
    // Another face takes the place in the middle: what was answered counts for nobody.
    let mut visit = Visit::of(asking(ChallengeRule::Always), anna(), live());
    let first = visit.asked();
    visit.answer(first);
    let outputs = visit.shot(false);
    assert_eq!(ended(&outputs).unwrap().reason, Some(DenyReason::LivenessUndecided));
    assert!(shown(&outputs).contains(&&Show::Idle));
    assert!(!opens(&visit.stand(3)));
    // Nobody was recognised while the answers were given: they may be anybody's.
    let mut unwitnessed = Visit::of(asking(ChallengeRule::Always), anna(), live());
    let mut wanted = unwitnessed.asked();
    unwitnessed.now += 1; // from here on no shot is due
    for _ in 0..STEPS {
        unwitnessed.story.decider.cases.get_mut(&TRACK).unwrap().witnessed = false;
        let outputs = unwitnessed.answer(wanted);
        assert!(!opens(&outputs));
        wanted = prompt(&outputs).unwrap_or(wanted);
    }
    assert!(!opens(&unwitnessed.stand(12)));
}

#[test]
fn a_pass_is_as_fresh_as_all_evidence_must_be() {
    let mut visit = Visit::of(asking(ChallengeRule::Always), anna(), live());
    let mut wanted = visit.asked();
    visit.vouched = false; // until later no shot looked alive itself
    for _ in 0..STEPS {
        let outputs = visit.answer(wanted);
        wanted = prompt(&outputs).unwrap_or(wanted);
    }
    assert!(!opens(&visit.stand(25)), "no shot speaks for the face");
    visit.stand(10);
    visit.vouched = true;
    let outputs = visit.stand(20);
    assert!(!opens(&outputs), "the answers are more than three seconds old");
    assert_eq!(denial(&outputs), None, "who has answered is not refused for standing there");
}

#[test]
fn where_the_model_is_uncertain_the_answers_stand_in_for_it() {
    let from = ChallengeRule::WhenUncertain { from: 0.25 };
    let uncertain = live().with(Method::Passive, Check::measured(CheckState::Undecided, 0.4));
    let mut sure = Visit::of(asking(from), anna(), live());
    let outputs = sure.stand(15);
    assert!(opens(&outputs) && prompt(&outputs).is_none(), "nobody else is asked");
    let mut visit = Visit::of(asking(from), anna(), uncertain);
    visit.vouched = false;
    let (_, outputs) = visit.go_through(None);
    assert!(opens(&outputs));
    let mut without = Visit::of(asking(ChallengeRule::Never), anna(), uncertain);
    without.vouched = false;
    let outputs = without.stand(80);
    assert!(!opens(&outputs) && prompt(&outputs).is_none());
    assert_eq!(reason(&outputs), Some(DenyReason::LivenessUndecided));
}

#[test]
fn a_face_that_leaves_or_a_camera_that_stalls_clears_the_display() {
    for gone in [DoorInput::Left { track: TRACK }, DoorInput::CameraStalled] {
        let mut visit = Visit::of(asking(ChallengeRule::Always), anna(), live());
        visit.asked();
        let outputs = visit.story.tell(gone, visit.now + 500);
        assert_eq!(shown(&outputs), [&Show::Idle]);
        assert_eq!(ended(&outputs).unwrap().took, None);
    }
}
