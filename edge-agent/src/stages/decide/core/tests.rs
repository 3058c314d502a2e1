use std::collections::{HashMap, HashSet};

use face_core::liveness::{Check, CheckState, Demand, Findings, Method};
use face_core::quality::QualityReason;
use face_core::{Embedding, Ranked, Similarity, TemplateId, ThresholdLadder, ThresholdStep};

use super::*;

mod challenge;

const TRACK: TrackId = TrackId(7);

/// A face of which enough was seen, with the passive model and the change in these states.
fn found(passive: CheckState, temporal: CheckState) -> Findings {
    Findings::over(12)
        .with(Method::Passive, Check::measured(passive, 0.95))
        .with(Method::Temporal, Check::measured(temporal, 0.02))
}

fn live() -> Findings {
    found(CheckState::Pass, CheckState::Pass)
}

fn collecting(frontal_frames: usize) -> Findings {
    let mut findings = live();
    findings.frontal_frames = frontal_frames;
    findings
}

fn anna() -> PersonId {
    PersonId(Uuid::from_u128(1))
}

fn ben() -> PersonId {
    PersonId(Uuid::from_u128(2))
}

/// A door, the faces before it and the world around it, told as a story.
struct Story {
    decider: Decider,
    world: World,
    arrived: bool,
}

struct World {
    ready: bool,
    generation: u64,
    recording: bool,
    standings: HashMap<PersonId, Standing>,
    decisions: u128,
    nonce: u64,
}

impl Surroundings for World {
    fn gallery_ready(&self) -> bool {
        self.ready
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn standing(&self, person: PersonId) -> Standing {
        self.standings.get(&person).copied().unwrap_or(Standing::Absent)
    }

    fn is_among(&self, person: PersonId, ids: &[Uuid]) -> bool {
        ids.contains(&person.0)
    }

    fn recording(&self) -> bool {
        self.recording
    }

    fn decision(&mut self) -> Uuid {
        self.decisions += 1;
        Uuid::from_u128(self.decisions)
    }

    fn nonce(&mut self) -> u64 {
        self.nonce
    }
}

fn step(up_to: usize, cosine: f32) -> ThresholdStep {
    ThresholdStep { up_to, threshold: Similarity::new(cosine) }
}

fn rules() -> Rules {
    let ladder = ThresholdLadder::new(vec![step(100, 0.442), step(1_000, 0.55)]).unwrap();
    Rules {
        door: DoorPolicy { hold: Duration::from_secs(3), regrant: Duration::from_secs(1), ..DoorPolicy::default() },
        open_set: OpenSetRules { ladder, margin: 0.05 },
        liveness: Some(LivenessRules {
            demand: Demand::standard(),
            pass_above: 0.5,
            horizon: Duration::from_secs(5),
            challenge: ChallengeRule::Never,
        }),
        min_face_px: 80.0,
        deny_unrecorded: true,
        lockdown_lets: vec![ben().0],
    }
}

fn embedding() -> std::sync::Arc<Embedding> {
    let mut raw = [0.0; 512];
    raw[3] = 1.0;
    std::sync::Arc::new(Embedding::from_raw(raw).unwrap())
}

fn ms(at: u64) -> MonoTime {
    MonoTime::from_millis(at)
}

fn rows(scores: &[(PersonId, f32)]) -> Vec<Ranked> {
    let template = TemplateId(Uuid::from_u128(9));
    scores
        .iter()
        .map(|(person, score)| Ranked { person: *person, template, similarity: Similarity::new(*score) })
        .collect()
}

impl Story {
    fn new() -> Self {
        Self::with(rules())
    }

    fn with(rules: Rules) -> Self {
        let standings = HashMap::from([(anna(), Standing::Member), (ben(), Standing::Member)]);
        let world = World { ready: true, generation: 1, recording: true, standings, decisions: 0, nonce: 7 };
        Self { decider: Decider::new(rules), world, arrived: false }
    }

    fn tell(&mut self, input: DoorInput, now: u64) -> Vec<Output> {
        self.decider.handle(input, ms(now), &mut self.world)
    }

    /// The face is there, and nothing is known of it yet. Every shot comes after such a frame.
    fn arrive(&mut self) {
        if !std::mem::replace(&mut self.arrived, true) {
            assert!(!opens(&self.frame(0, collecting(1), &[])));
        }
    }

    /// A shot taken at `at` finds these people.
    fn shot(&mut self, at: u64, scores: &[(PersonId, f32)]) -> Vec<Output> {
        self.shot_of(at, scores, true)
    }

    fn shot_of(&mut self, at: u64, scores: &[(PersonId, f32)], same_face: bool) -> Vec<Output> {
        self.arrive();
        let found = Identified { same_face, ..self.found(at, scores) };
        self.tell(DoorInput::Identified(found), at + 15)
    }

    /// What the present gallery says of a shot taken at `at`.
    fn found(&self, at: u64, scores: &[(PersonId, f32)]) -> Identified {
        Identified {
            track: TRACK,
            shot_at: ms(at),
            quality: 0.8,
            height_px: 120.0,
            generation: self.world.generation,
            n_templates: 2,
            ranked: rows(scores),
            embedding: embedding(),
            anchors: Vec::new(),
            same_face: true,
        }
    }

    /// A frame captured at `at` of a face first seen at 0, with the shots of `vouched`.
    fn frame(&mut self, at: u64, liveness: Findings, vouched: &[u64]) -> Vec<Output> {
        self.frame_late(at, at + 20, liveness, vouched)
    }

    fn frame_late(&mut self, at: u64, now: u64, liveness: Findings, vouched: &[u64]) -> Vec<Output> {
        let report = FaceReport {
            track: TRACK,
            captured_at: ms(at),
            first_seen: ms(0),
            height_px: 120.0,
            liveness,
            liveness_at: Some(ms(at)),
            vouched_shots: vouched.iter().map(|at| ms(*at)).collect(),
            doubtful_shots: Vec::new(),
            look: None,
            reasons: Vec::new(),
            models_answered: true,
        };
        self.tell(DoorInput::Face(report), now)
    }

    fn poor_frame(&mut self, at: u64, reason: QualityReason) -> Vec<Output> {
        let report = FaceReport {
            track: TRACK,
            captured_at: ms(at),
            first_seen: ms(0),
            height_px: 120.0,
            liveness: collecting(1),
            liveness_at: Some(ms(at)),
            vouched_shots: Vec::new(),
            doubtful_shots: Vec::new(),
            look: None,
            reasons: vec![reason],
            models_answered: true,
        };
        self.tell(DoorInput::Face(report), at + 20)
    }

    /// Anna stands there alive and the door has opened for her at 900.
    fn with_the_door_open() -> Self {
        let mut story = Self::new();
        story.shot(700, &[(anna(), 0.8), (ben(), 0.1)]);
        assert!(opens(&story.frame(900, live(), &[700])));
        story
    }
}

fn opens(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Relay { to: RelayState::Unlocked, .. }))
}

fn locks(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Relay { to: RelayState::Locked, .. }))
}

fn denial(outputs: &[Output]) -> Option<(DenyReason, AccessContext)> {
    outputs.iter().find_map(|output| match output {
        Output::Event(DoorEvent::Denied { context, reason }) => Some((*reason, context.clone())),
        _ => None,
    })
}

fn reason(outputs: &[Output]) -> Option<DenyReason> {
    denial(outputs).map(|(reason, _)| reason)
}

#[test]
fn a_known_living_person_opens_and_the_relay_comes_first() {
    let mut story = Story::new();
    assert_eq!(story.shot(700, &[(anna(), 0.8), (ben(), 0.1)]), vec![], "not yet found alive");
    let outputs = story.frame(900, live(), &[700]);
    assert!(matches!(outputs[0], Output::Relay { to: RelayState::Unlocked, decision: Some(_) }), "{outputs:?}");
    let granted = outputs.iter().find_map(|output| match output {
        Output::Event(DoorEvent::Granted(context)) => Some(context),
        _ => None,
    });
    let context = granted.expect("a grant is recorded");
    assert_eq!(context.person, Some(anna()));
    assert_eq!(context.frame_age, Some(Duration::from_millis(20)));
    assert_eq!(context.since_arrival, Some(Duration::from_millis(920)));
    assert_eq!(context.identity.unwrap().score, Some(0.8));
    assert!(outputs.contains(&Output::WakeAt(ms(3_920))));
    assert!(locks(&story.decider.tick(ms(3_920))));
}

#[test]
fn the_same_person_in_view_opens_again_after_the_interval() {
    let mut story = Story::with_the_door_open();
    assert_eq!(story.frame(1_000, live(), &[700]), vec![], "it is open already");
    assert!(locks(&story.decider.tick(ms(3_920))));
    story.shot(4_000, &[(anna(), 0.8)]);
    assert!(!opens(&story.frame(4_500, live(), &[4_000])), "too soon after the relock");
    assert!(opens(&story.frame(5_000, live(), &[4_000])));
}

#[test]
fn a_stranger_is_refused_after_a_second_shot_with_the_scores() {
    let mut story = Story::new();
    story.frame(600, collecting(5), &[]);
    story.shot(100, &[(anna(), 0.2)]);
    assert_eq!(story.frame(800, live(), &[100]), vec![], "one shot may have been a bad one");
    story.shot(820, &[(anna(), 0.25)]);
    let outputs = story.frame(900, live(), &[820]);
    let (reason, context) = denial(&outputs).expect("now it is said");
    assert_eq!(reason, DenyReason::Unknown);
    let identity = context.identity.unwrap();
    assert_eq!((identity.score, identity.threshold), (Some(0.25), 0.442));
    assert!(context.liveness.unwrap().verdict.is_live());
    assert!(!opens(&outputs));
}

#[test]
fn the_same_refusal_is_recorded_once_in_a_while() {
    let mut story = Story::new();
    let mut recorded = 0;
    for at in (0..3_000).step_by(80) {
        story.shot(at, &[(anna(), 0.2)]);
        recorded += usize::from(denial(&story.frame(at + 20, live(), &[at])).is_some());
    }
    assert_eq!(recorded, 1);
}

#[test]
fn too_close_to_call_is_refused() {
    let mut story = Story::new();
    for at in [100, 300] {
        story.shot(at, &[(anna(), 0.60), (ben(), 0.58)]);
    }
    let outputs = story.frame(900, live(), &[300]);
    assert_eq!(reason(&outputs), Some(DenyReason::Ambiguous));
}

#[test]
fn who_is_nearer_to_a_negative_anchor_than_to_the_person_is_refused_with_both_scores() {
    let mut story = Story::new();
    story.arrive();
    let taken_for_anna = |story: &Story, at, anchor| Identified {
        anchors: rows(&[(anna(), anchor)]),
        ..story.found(at, &[(anna(), 0.61), (ben(), 0.1)])
    };
    for at in [100, 300] {
        let found = taken_for_anna(&story, at, 0.7);
        story.tell(DoorInput::Identified(found), at + 15);
    }
    let outputs = story.frame(900, live(), &[300]);
    let (reason, context) = denial(&outputs).expect("refused");
    assert_eq!(reason, DenyReason::NotThisPerson);
    let identity = context.identity.unwrap();
    assert_eq!((identity.person, identity.score, identity.anchor), (Some(anna()), Some(0.61), Some(0.7)));
    assert!(!opens(&outputs));
    let nearer_to_her = taken_for_anna(&story, 1_100, 0.6);
    story.tell(DoorInput::Identified(nearer_to_her.clone()), 1_115);
    assert!(!opens(&story.frame(1_200, live(), &[1_100])), "no new chance with each picture");
    let mut herself = Story::new();
    herself.arrive();
    herself.tell(DoorInput::Identified(nearer_to_her), 1_115);
    assert!(opens(&herself.frame(1_200, live(), &[1_100])), "an anchor does not keep the person out");
}

#[test]
fn a_photograph_is_refused_for_liveness_with_its_identity_told() {
    let attacks = [
        (found(CheckState::Fail, CheckState::Pass), DenyReason::LivenessFailed),
        (found(CheckState::Pass, CheckState::Fail), DenyReason::LivenessStill),
    ];
    for (attack, expected) in attacks {
        let mut story = Story::new();
        story.shot(700, &[(anna(), 0.9)]);
        let outputs = story.frame(900, attack, &[700]);
        let (reason, context) = denial(&outputs).unwrap();
        assert_eq!(reason, expected);
        assert_eq!(context.person, Some(anna()));
        assert!(context.identity.unwrap().score > Some(0.442));
        assert!(!opens(&outputs));
    }
}

#[test]
fn nothing_but_a_live_verdict_opens() {
    for verdict in [
        collecting(7),
        found(CheckState::Pass, CheckState::Undecided),
        found(CheckState::Unavailable, CheckState::Pass),
    ] {
        let mut story = Story::new();
        story.shot(700, &[(anna(), 0.9)]);
        assert!(!opens(&story.frame(900, verdict, &[700])), "{verdict:?}");
    }
}

#[test]
fn a_still_person_is_watched_and_told_after_a_while() {
    let mut story = Story::new();
    let still = found(CheckState::Pass, CheckState::Undecided);
    story.shot(5_700, &[(anna(), 0.9)]);
    assert_eq!(story.frame(5_900, still, &[5_700]), vec![]);
    assert_eq!(reason(&story.frame(6_100, still, &[5_700])), Some(DenyReason::LivenessUndecided));
}

#[test]
fn a_known_face_that_leaves_undecided_is_told_of() {
    let mut story = Story::new();
    story.shot(300, &[(anna(), 0.9)]);
    story.frame(400, collecting(3), &[]);
    assert_eq!(reason(&story.tell(DoorInput::Left { track: TRACK }, 1_000)), Some(DenyReason::LivenessUndecided));
    let mut open = Story::with_the_door_open();
    assert_eq!(open.tell(DoorInput::Left { track: TRACK }, 1_000), vec![]);
}

#[test]
fn a_shot_that_liveness_does_not_vouch_for_opens_nothing() {
    let mut story = Story::new();
    story.shot(700, &[(anna(), 0.9)]);
    assert_eq!(story.frame(900, live(), &[]), vec![]);
    assert_eq!(story.frame(980, live(), &[300]), vec![]);
    assert!(opens(&story.frame(1_060, live(), &[300, 700])));
}

#[test]
fn a_face_that_changed_on_its_track_must_be_watched_anew() {
    let mut story = Story::new();
    story.shot(700, &[(ben(), 0.1)]);
    story.shot_of(1_000, &[(anna(), 0.9)], false);
    assert!(!opens(&story.frame(1_100, live(), &[1_000])), "the window still holds the other person");
    story.shot(5_900, &[(anna(), 0.9)]);
    assert!(opens(&story.frame(6_050, live(), &[5_900])));
}

#[test]
fn an_old_frame_opens_nothing() {
    let mut story = Story::new();
    story.shot(700, &[(anna(), 0.9)]);
    let outputs = story.frame_late(900, 900 + 801, live(), &[700]);
    assert!(!opens(&outputs));
    assert_eq!(reason(&outputs), Some(DenyReason::Stale));
}

#[test]
fn a_deleted_person_is_turned_down_at_the_relay_and_an_open_door_shuts_at_once() {
    let mut story = Story::new();
    story.shot(700, &[(anna(), 0.9)]);
    story.world.standings.remove(&anna());
    let outputs = story.frame(900, live(), &[700]);
    assert!(!opens(&outputs));
    assert_eq!(reason(&outputs), Some(DenyReason::PersonRemoved));

    let mut story = Story::with_the_door_open();
    story.world.standings.remove(&anna());
    let outputs = story.tell(DoorInput::GalleryChanged, 1_500);
    assert!(locks(&outputs), "{outputs:?}");
    assert!(!opens(&story.frame(1_600, live(), &[700])));
}

#[test]
fn what_was_found_in_an_older_gallery_opens_nothing() {
    let mut story = Story::new();
    story.arrive();
    let late = story.found(700, &[(anna(), 0.9)]);
    story.world.generation += 1;
    story.tell(DoorInput::GalleryChanged, 710);
    story.tell(DoorInput::Identified(late), 715);
    assert!(!opens(&story.frame(900, live(), &[700])), "it came after the change");

    story.shot(1_000, &[(anna(), 0.9)]);
    story.world.generation += 1;
    assert!(!opens(&story.frame(1_100, live(), &[1_000])), "the door has not been told of the change yet");

    story.shot(1_200, &[(anna(), 0.9)]);
    assert!(opens(&story.frame(1_300, live(), &[1_200])));
}

#[test]
fn a_door_asks_for_its_own_size_whatever_its_camera_takes() {
    let mut story = Story::with(Rules { min_face_px: 150.0, ..rules() });
    story.shot(700, &[(anna(), 0.9)]);
    assert!(!opens(&story.frame(900, live(), &[700])), "120 px are too few for this door");
    story.shot(1_700, &[(anna(), 0.9)]);
    let outputs = story.frame(1_900, live(), &[1_700]);
    assert_eq!(reason(&outputs), Some(DenyReason::Quality(QualityReason::TooSmall)));

    story.decider.rules.min_face_px = 120.0;
    story.shot(2_000, &[(anna(), 0.9)]);
    story.decider.rules.min_face_px = 121.0;
    assert!(!opens(&story.frame(2_100, live(), &[2_000])), "too far away by now");
    story.decider.rules.min_face_px = 120.0;
    assert!(opens(&story.frame(2_200, live(), &[2_000])));
}

#[test]
fn a_gallery_change_that_keeps_the_person_keeps_the_door_open() {
    let mut story = Story::with_the_door_open();
    story.world.standings.remove(&ben());
    assert!(!locks(&story.tell(DoorInput::GalleryChanged, 1_500)));
}

#[test]
fn suspended_and_expired_people_are_told_so() {
    for (standing, expected) in
        [(Standing::Suspended, DenyReason::NotPermitted), (Standing::OutsideValidity, DenyReason::PersonExpired)]
    {
        let mut story = Story::new();
        story.world.standings.insert(anna(), standing);
        story.shot(700, &[(anna(), 0.9)]);
        let outputs = story.frame(900, live(), &[700]);
        assert_eq!(reason(&outputs), Some(expected));
        assert!(!opens(&outputs));
    }
}

#[test]
fn without_a_gallery_everybody_is_refused() {
    let mut story = Story::new();
    story.world.ready = false;
    assert_eq!(reason(&story.frame(100, live(), &[])), Some(DenyReason::GalleryUnavailable));
    story.shot(700, &[(anna(), 0.9)]);
    assert!(!opens(&story.frame(900, live(), &[700])));
}

#[test]
fn while_events_cannot_be_recorded_the_policy_decides() {
    let mut story = Story::new();
    story.world.recording = false;
    story.shot(700, &[(anna(), 0.9)]);
    let outputs = story.frame(900, live(), &[700]);
    assert!(!opens(&outputs));
    assert_eq!(reason(&outputs), Some(DenyReason::DoorFault));

    let mut lenient = Story::with(Rules { deny_unrecorded: false, ..rules() });
    lenient.world.recording = false;
    lenient.shot(700, &[(anna(), 0.9)]);
    assert!(opens(&lenient.frame(900, live(), &[700])));
}

#[test]
fn a_model_that_does_not_answer_refuses() {
    let mut story = Story::new();
    story.shot(700, &[(anna(), 0.9)]);
    let mut report = FaceReport {
        track: TRACK,
        captured_at: ms(900),
        first_seen: ms(0),
        height_px: 120.0,
        liveness: live(),
        liveness_at: Some(ms(900)),
        vouched_shots: vec![ms(700)],
        doubtful_shots: Vec::new(),
        look: None,
        reasons: Vec::new(),
        models_answered: false,
    };
    let outputs = story.tell(DoorInput::Face(report.clone()), 920);
    assert_eq!(reason(&outputs), Some(DenyReason::ModelsUnavailable));
    report.models_answered = true;
    story.tell(DoorInput::EmbedderFailed { track: TRACK }, 940);
    assert!(!opens(&story.tell(DoorInput::Face(report), 950)));
}

#[test]
fn a_face_too_poor_for_long_is_told_why() {
    let mut story = Story::new();
    assert_eq!(story.poor_frame(1_000, QualityReason::TooSmall), vec![]);
    let outputs = story.poor_frame(1_600, QualityReason::TooSmall);
    assert_eq!(reason(&outputs), Some(DenyReason::Quality(QualityReason::TooSmall)));
}

#[test]
fn a_shot_of_a_face_that_has_left_is_forgotten() {
    let mut story = Story::new();
    story.arrive();
    story.tell(DoorInput::Left { track: TRACK }, 600);
    assert_eq!(story.shot(500, &[(anna(), 0.9)]), vec![]);
    assert!(story.decider.cases.is_empty(), "a track is never used again, so its case would stay for ever");
}

#[test]
fn nothing_seen_before_a_stall_opens_after_it() {
    let mut story = Story::new();
    story.shot(700, &[(anna(), 0.9)]);
    let told = story.tell(DoorInput::CameraStalled, 1_000);
    assert_eq!(reason(&told), Some(DenyReason::CameraStalled), "a known person who stands there hears why");
    assert!(!opens(&story.frame(1_100, live(), &[700])));
    assert_eq!(story.tell(DoorInput::CameraStalled, 1_200), vec![], "nobody known");
}

#[test]
fn where_liveness_is_off_freshness_still_counts() {
    let mut story = Story::with(Rules { liveness: None, ..rules() });
    assert!(!opens(&story.shot(900, &[(anna(), 0.9)])), "the only frame is 915 ms old");
    let photograph = found(CheckState::Fail, CheckState::Fail);
    assert!(!opens(&story.frame_late(900, 2_000, photograph, &[])));
    assert!(opens(&story.frame(2_050, photograph, &[])));
}

#[test]
fn every_decision_has_its_own_name() {
    let mut story = Story::new();
    let mut names = HashSet::new();
    for at in (0..20_000).step_by(100) {
        story.shot(at, &[(anna(), 0.2)]);
        if let Some((_, context)) = denial(&story.frame(at + 20, live(), &[at])) {
            assert!(names.insert(context.decision));
        }
    }
    assert!(names.len() > 1);
}

#[test]
fn the_same_score_opens_before_a_small_gallery_and_not_before_a_large_one() {
    for (n_templates, threshold, opened) in [(100, 0.442, true), (101, 0.55, false), (1_001, 2.0, false)] {
        let mut story = Story::new();
        story.arrive();
        // Two shots, so that an unknown face is refused and the event says by what.
        for at in [100, 300] {
            let found = Identified { n_templates, ..story.found(at, &[(anna(), 0.5), (ben(), 0.1)]) };
            story.tell(DoorInput::Identified(found), at + 15);
        }
        let outputs = story.frame(400, live(), &[100, 300]);
        assert_eq!(opens(&outputs), opened, "{n_templates}: {outputs:?}");
        let told = outputs.iter().find_map(|output| match output {
            Output::Event(DoorEvent::Granted(context) | DoorEvent::Denied { context, .. }) => context.identity,
            _ => None,
        });
        assert_eq!(told.map(|identity| identity.threshold), Some(threshold), "{n_templates}");
    }
}

#[test]
fn a_lock_down_is_passed_by_those_whom_the_policy_names_and_by_nobody_else() {
    let mut story = Story::new();
    story.tell(DoorInput::Lockdown { on: true }, 0);
    story.shot(700, &[(anna(), 0.8)]);
    assert_eq!(reason(&story.frame(900, live(), &[700])), Some(DenyReason::LockedDown));
    let mut story = Story::new();
    story.tell(DoorInput::Lockdown { on: true }, 0);
    story.shot(700, &[(ben(), 0.8)]);
    assert!(opens(&story.frame(900, live(), &[700])));
}
