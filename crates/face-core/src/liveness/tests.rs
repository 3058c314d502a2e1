//! Stories and properties of the liveness window.

use super::appearance::tests::pattern;
use super::*;
use proptest::prelude::*;

const FRONTAL: HeadPose = HeadPose { yaw_deg: 2.0, pitch_deg: -8.0, roll_deg: 1.0 };

fn verdict(window: &LivenessWindow) -> LivenessVerdict {
    window.verdict(&Demand::standard())
}

fn window() -> LivenessWindow {
    LivenessWindow::new(LivenessPolicy::default())
}

fn both(score: f32) -> PassiveScores {
    PassiveScores { boxed: score, square: score }
}

/// A face at `millis`: moved about by hand, and opening its mouth when it is `alive`.
fn frame(millis: u64, alive: bool, passive: f32) -> LivenessEvidence {
    let t = millis as f32 / 1000.0;
    let mouth = if alive { 0.5 + 0.5 * (t * 2.3).sin() } else { 0.0 };
    let crop = pattern((t * 3.0).sin() * 1.5, (t * 2.0).cos(), 1.0 + 0.02 * (t * 1.7).sin(), mouth);
    LivenessEvidence {
        pose: Some(FRONTAL),
        passive: Some(both(passive)),
        appearance: Appearance::of(&crop),
        shape: FaceShape::of(&shape::tests::face((50.0, 70.0), 1.0)),
        ..LivenessEvidence::at(MonoTime::from_millis(millis))
    }
}

/// Feeds frames `interval` ms apart for `millis` ms and returns the window.
fn watched(millis: u64, interval: u64, mut at: impl FnMut(u64) -> LivenessEvidence) -> LivenessWindow {
    let mut window = window();
    for now in (1_000..=1_000 + millis).step_by(interval as usize) {
        window.push(at(now));
    }
    window
}

#[test]
fn a_moving_face_with_a_good_score_is_live_within_a_second() {
    let window = watched(1_000, 66, |now| frame(now, true, 0.9));
    assert!(verdict(&window).is_live(), "{:?}", window.findings());
}

#[test]
fn a_panned_photograph_is_refused() {
    // The passive model is fooled completely; the picture is moved, zoomed and never changes.
    let early = watched(3_000, 66, |now| frame(now, false, 1.0));
    assert_eq!(verdict(&early), LivenessVerdict::Watch { missing: Method::Temporal, score: 1.0 });
    let late = watched(4_100, 66, |now| frame(now, false, 1.0));
    assert_eq!(verdict(&late), LivenessVerdict::Attack { by: Method::Temporal, score: 1.0 });
}

#[test]
fn a_person_standing_still_is_watched_and_live_once_they_move() {
    let window = watched(3_800, 66, |now| frame(now, now > 3_800, 0.9));
    assert!(verdict(&window).is_live(), "{:?}", window.findings());
}

#[test]
fn a_low_passive_score_is_an_attack_and_a_middling_one_is_watched() {
    let attack = watched(1_500, 66, |now| frame(now, true, 0.03)).verdict(&Demand::standard());
    assert!(matches!(attack, LivenessVerdict::Attack { by: Method::Passive, .. }));
    let middling = watched(1_500, 66, |now| frame(now, true, 0.4)).verdict(&Demand::standard());
    assert!(matches!(middling, LivenessVerdict::Watch { missing: Method::Passive, .. }));
}

#[test]
fn a_picture_that_fools_one_crop_does_not_pass() {
    let fooled = PassiveScores { boxed: 0.05, square: 0.98 };
    let window = watched(1_500, 66, |now| LivenessEvidence { passive: Some(fooled), ..frame(now, true, 0.9) });
    let verdict = verdict(&window);
    assert!(
        matches!(verdict, LivenessVerdict::Watch { missing: Method::Passive, score } if score > 0.5),
        "{verdict:?}"
    );
}

#[test]
fn a_face_that_outshines_its_picture_must_score_higher() {
    let play = |glow: f32, passive: f32| {
        verdict(&watched(1_500, 66, |now| LivenessEvidence { glow: Some(glow), ..frame(now, true, passive) }))
    };
    assert!(play(1.0, 0.6).is_live());
    assert!(matches!(play(1.8, 0.6), LivenessVerdict::Watch { missing: Method::Passive, .. }));
    assert!(play(1.8, 0.9).is_live());
    assert!(matches!(play(1.0, 0.2), LivenessVerdict::Watch { missing: Method::Passive, .. }));
    assert!(matches!(play(1.8, 0.2), LivenessVerdict::Attack { by: Method::Passive, .. }));
}

#[test]
fn a_backlit_face_is_not_called_an_attack_and_not_alive() {
    let play =
        |glow: f32| verdict(&watched(1_500, 66, |now| LivenessEvidence { glow: Some(glow), ..frame(now, true, 0.03) }));
    assert!(matches!(play(0.6), LivenessVerdict::Watch { missing: Method::Passive, .. }));
    assert!(matches!(play(1.0), LivenessVerdict::Attack { by: Method::Passive, .. }));
}

#[test]
fn a_flat_picture_that_is_moved_about_is_an_attack_sooner_than_one_that_is_held_still() {
    let moved = |now: u64| {
        let shift = (now as f32 / 1_000.0 * 3.0).sin() * 60.0;
        let points = shape::tests::face((50.0, 70.0), 1.0).points().map(|p| crate::Point::new(p.x + shift, p.y));
        let shape = FaceShape::of(&crate::Landmarks68::new(points).unwrap());
        LivenessEvidence { shape, ..frame(now, false, 0.95) }
    };
    let attack = verdict(&watched(2_600, 66, moved));
    assert!(matches!(attack, LivenessVerdict::Attack { by: Method::Motion, .. }), "{attack:?}");
    let held = verdict(&watched(2_600, 66, |now| frame(now, false, 0.95)));
    assert!(matches!(held, LivenessVerdict::Watch { missing: Method::Temporal, .. }), "{held:?}");
}

#[test]
fn a_blink_is_a_sign_of_life_at_once_where_a_door_takes_it_for_one() {
    let window = watched(1_800, 66, |now| {
        let shut = (2_200..2_400).contains(&now);
        let eyes = if shut {
            EyeLook { aspect_ratio: 0.14, closed: 0.95 }
        } else {
            EyeLook { aspect_ratio: 0.3, closed: 0.05 }
        };
        LivenessEvidence { eyes: Some(eyes), ..frame(now, false, 0.9) }
    });
    let blinks = Demand { signs: Methods::of(&[Method::Blink]), ..Demand::standard() };
    assert!(window.verdict(&blinks).is_live(), "{:?}", window.findings());
    assert!(!verdict(&window).is_live(), "a door by default asks for a change");
    assert!(!window.verdict(&Demand::strict()).is_live(), "a strict door asks for two signs");
}

#[test]
fn pixels_that_come_again_are_an_attack() {
    let window = watched(2_000, 66, |now| LivenessEvidence { face_digest: Some(now / 400), ..frame(now, true, 0.95) });
    assert!(matches!(verdict(&window), LivenessVerdict::Attack { by: Method::Injection, .. }));
}

#[test]
fn planes_count_where_they_are_required_and_fail_closed_where_they_are_missing() {
    let demand = |method| Demand { required: Demand::standard().required.with(method), ..Demand::standard() };
    let plain = watched(1_500, 66, |now| frame(now, true, 0.9));
    assert_eq!(plain.verdict(&demand(Method::Depth)), LivenessVerdict::Unavailable);
    assert_eq!(plain.verdict(&demand(Method::Infrared)), LivenessVerdict::Unavailable);
    let supplied = |relief: f32, reflection: f32| {
        watched(1_500, 66, |now| LivenessEvidence {
            relief_mm: Some(relief),
            reflection: Some((reflection, 0.3)),
            ..frame(now, true, 0.9)
        })
    };
    assert!(supplied(8.0, 0.4).verdict(&demand(Method::Depth)).is_live());
    assert!(supplied(8.0, 0.4).verdict(&demand(Method::Infrared)).is_live());
    let flat = supplied(1.0, 0.4).verdict(&demand(Method::Depth));
    assert!(matches!(flat, LivenessVerdict::Attack { by: Method::Depth, .. }));
    let screen = supplied(8.0, 0.01).verdict(&demand(Method::Infrared));
    assert!(matches!(screen, LivenessVerdict::Attack { by: Method::Infrared, .. }));
}

#[test]
fn without_scores_or_appearance_life_is_unavailable() {
    let unscored = watched(2_000, 66, |now| LivenessEvidence { passive: None, ..frame(now, true, 0.9) });
    assert_eq!(verdict(&unscored), LivenessVerdict::Unavailable);
    let broken = watched(2_000, 66, |now| frame(now, true, f32::NAN));
    assert_eq!(verdict(&broken), LivenessVerdict::Unavailable);
    let blind = watched(2_000, 66, |now| LivenessEvidence { appearance: None, ..frame(now, true, 0.9) });
    assert_eq!(verdict(&blind), LivenessVerdict::Unavailable);
}

#[test]
fn turned_faces_do_not_count() {
    let pose = Some(HeadPose { yaw_deg: 40.0, ..FRONTAL });
    let turned = watched(2_000, 66, |now| LivenessEvidence { pose, ..frame(now, true, 0.9) });
    assert_eq!(verdict(&turned), LivenessVerdict::Collecting { frontal_frames: 0 });
    let unknown = watched(2_000, 66, |now| LivenessEvidence { pose: None, ..frame(now, true, 0.9) });
    assert_eq!(verdict(&unknown), LivenessVerdict::Collecting { frontal_frames: 0 });
}

#[test]
fn nothing_is_decided_on_few_frames() {
    let window = watched(400, 66, |now| frame(now, true, 1.0));
    assert!(matches!(verdict(&window), LivenessVerdict::Collecting { frontal_frames: 7 }));
    assert!(matches!(
        super::LivenessWindow::new(LivenessPolicy::default()).verdict(&Demand::standard()),
        LivenessVerdict::Collecting { .. }
    ));
}

#[test]
fn any_camera_rate_comes_to_the_same_verdict() {
    for interval in [10, 16, 33, 40, 66, 83, 100, 200] {
        let live = watched(2_500, interval, |now| frame(now, true, 0.9));
        assert!(verdict(&live).is_live(), "{interval} ms apart: {:?}", live.findings());
        let still = watched(4_500, interval, |now| frame(now, false, 0.9)).verdict(&Demand::standard());
        assert!(matches!(still, LivenessVerdict::Attack { .. }), "{interval} ms apart: {still:?}");
    }
}

#[test]
fn repeated_frames_count_once_and_a_gap_starts_anew() {
    let mut window = watched(1_500, 66, |now| frame(now, true, 0.9));
    let before = window.findings();
    let newest = window.newest_at().unwrap().as_millis();
    window.push(frame(newest, true, 0.0));
    window.push(frame(newest - 200, true, 0.0));
    assert_eq!(window.findings(), before);
    window.push(frame(newest + 1_501, true, 0.9));
    assert_eq!(verdict(&window), LivenessVerdict::Collecting { frontal_frames: 1 });
}

#[test]
fn a_photograph_shown_before_the_own_face_is_not_vouched_for() {
    let window = watched(4_000, 66, |now| frame(now, true, if now < 2_000 { 0.1 } else { 0.95 }));
    assert!(verdict(&window).is_live());
    assert!(!window.vouches_for(MonoTime::from_millis(1_400)));
    assert!(window.vouches_for(MonoTime::from_millis(3_800)));
    assert!(!window.vouches_for(MonoTime::from_millis(60_000)));
}

#[test]
fn a_photograph_raised_before_the_own_face_is_not_vouched_for() {
    let window = watched(4_000, 66, |now| frame(now, true, if now < 3_500 { 0.95 } else { 0.1 }));
    assert!(verdict(&window).is_live(), "the mean still passes: {:?}", window.findings());
    assert!(window.vouches_for(MonoTime::from_millis(3_200)));
    for shot_at in 3_500..4_000 {
        assert!(!window.vouches_for(MonoTime::from_millis(shot_at)), "{shot_at} ms shows the photograph");
    }
}

#[test]
fn a_face_that_freezes_is_not_live_on_what_it_did_before() {
    let window = watched(4_500, 66, |now| frame(now, now < 3_000, 0.95));
    let verdict = verdict(&window);
    assert!(matches!(verdict, LivenessVerdict::Watch { missing: Method::Temporal, .. }), "{verdict:?}");
}

#[test]
fn the_window_is_bounded_at_any_rate() {
    let mut window = window();
    for micros in 0..20_000u64 {
        let evidence = LivenessEvidence {
            pose: Some(FRONTAL),
            passive: Some(both(0.9)),
            ..LivenessEvidence::at(MonoTime::from_nanos(micros * 50_000))
        };
        window.push(evidence);
    }
    assert!(window.findings().frontal_frames <= 300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_lower_or_missing_score_in_any_frame_never_makes_a_window_live(
        scores in proptest::collection::vec((0.3f32..1.0, proptest::option::weighted(0.8, 0.0f32..0.5)), 31),
    ) {
        let play = |worse: bool| {
            watched(2_000, 66, |now| {
                let (good, drop) = scores[((now - 1_000) / 66) as usize % 31];
                let passive = if worse { drop.map(|drop| both((good - drop).max(0.0))) } else { Some(both(good)) };
                LivenessEvidence { passive, ..frame(now, true, good) }
            })
        };
        if play(true).verdict(&Demand::standard()).is_live() {
            prop_assert!(play(false).verdict(&Demand::standard()).is_live());
        }
    }

    #[test]
    fn a_picture_that_never_changes_is_never_live(
        scores in proptest::collection::vec(0.0f32..1.0, 1..80), interval in 20u64..200,
    ) {
        let mut window = window();
        for (index, score) in scores.iter().enumerate() {
            let now = 1_000 + index as u64 * interval;
            window.push(LivenessEvidence { passive: Some(both(*score)), ..frame(now, false, 1.0) });
            prop_assert!(!verdict(&window).is_live());
        }
    }
}
