//! Stories and properties of the liveness window.

use super::appearance::tests::pattern;
use super::*;
use proptest::prelude::*;

const FRONTAL: HeadPose = HeadPose { yaw_deg: 2.0, pitch_deg: -8.0, roll_deg: 1.0 };

fn window() -> LivenessWindow {
    LivenessWindow::new(LivenessPolicy::default())
}

/// A face at `millis`: moved about by hand, and opening its mouth when it is `alive`.
fn frame(millis: u64, alive: bool, passive: f32) -> LivenessEvidence {
    let t = millis as f32 / 1000.0;
    let mouth = if alive { 0.5 + 0.5 * (t * 2.3).sin() } else { 0.0 };
    let crop = pattern((t * 3.0).sin() * 1.5, (t * 2.0).cos(), 1.0 + 0.02 * (t * 1.7).sin(), mouth);
    LivenessEvidence {
        captured_at: MonoTime::from_millis(millis),
        pose: Some(FRONTAL),
        passive: Some(passive),
        appearance: Appearance::of(&crop),
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
    assert!(window.verdict().is_live(), "{:?}", window.figures());
}

#[test]
fn a_panned_photograph_is_refused() {
    // The passive model is fooled completely; the picture is moved, zoomed and never changes.
    let early = watched(3_000, 66, |now| frame(now, false, 1.0));
    assert_eq!(early.verdict(), LivenessVerdict::Watch { reason: WatchReason::TooStill, score: 1.0 });
    let late = watched(4_100, 66, |now| frame(now, false, 1.0));
    assert_eq!(late.verdict(), LivenessVerdict::Attack { reason: AttackReason::StillPicture, score: 1.0 });
}

#[test]
fn a_person_standing_still_is_watched_and_live_once_they_move() {
    let window = watched(3_800, 66, |now| frame(now, now > 3_800, 0.9));
    assert!(window.verdict().is_live(), "{:?}", window.figures());
}

#[test]
fn a_low_passive_score_is_an_attack_and_a_middling_one_is_watched() {
    let attack = watched(1_500, 66, |now| frame(now, true, 0.2)).verdict();
    assert!(matches!(attack, LivenessVerdict::Attack { reason: AttackReason::PassiveScore, .. }));
    let middling = watched(1_500, 66, |now| frame(now, true, 0.4)).verdict();
    assert!(matches!(middling, LivenessVerdict::Watch { reason: WatchReason::ScoreUndecided, .. }));
}

#[test]
fn without_scores_or_appearance_life_is_unavailable() {
    let unscored = watched(2_000, 66, |now| LivenessEvidence { passive: None, ..frame(now, true, 0.9) });
    assert_eq!(unscored.verdict(), LivenessVerdict::Unavailable);
    let broken = watched(2_000, 66, |now| frame(now, true, f32::NAN));
    assert_eq!(broken.verdict(), LivenessVerdict::Unavailable);
    let blind = watched(2_000, 66, |now| LivenessEvidence { appearance: None, ..frame(now, true, 0.9) });
    assert_eq!(blind.verdict(), LivenessVerdict::Unavailable);
}

#[test]
fn turned_faces_do_not_count() {
    let pose = Some(HeadPose { yaw_deg: 40.0, ..FRONTAL });
    let turned = watched(2_000, 66, |now| LivenessEvidence { pose, ..frame(now, true, 0.9) });
    assert_eq!(turned.verdict(), LivenessVerdict::Collecting { frontal_frames: 0 });
    let unknown = watched(2_000, 66, |now| LivenessEvidence { pose: None, ..frame(now, true, 0.9) });
    assert_eq!(unknown.verdict(), LivenessVerdict::Collecting { frontal_frames: 0 });
}

#[test]
fn nothing_is_decided_on_few_frames() {
    let window = watched(500, 66, |now| frame(now, true, 1.0));
    assert!(matches!(window.verdict(), LivenessVerdict::Collecting { frontal_frames: 8 }));
    assert!(matches!(
        super::LivenessWindow::new(LivenessPolicy::default()).verdict(),
        LivenessVerdict::Collecting { .. }
    ));
}

#[test]
fn any_camera_rate_comes_to_the_same_verdict() {
    for interval in [10, 16, 33, 40, 66, 83, 100, 200] {
        let live = watched(2_500, interval, |now| frame(now, true, 0.9));
        assert!(live.verdict().is_live(), "{interval} ms apart: {:?}", live.figures());
        let still = watched(4_500, interval, |now| frame(now, false, 0.9)).verdict();
        assert!(matches!(still, LivenessVerdict::Attack { .. }), "{interval} ms apart: {still:?}");
    }
}

#[test]
fn repeated_frames_count_once_and_a_gap_starts_anew() {
    let mut window = watched(1_500, 66, |now| frame(now, true, 0.9));
    let before = window.figures();
    let newest = window.newest_at().unwrap().as_millis();
    window.push(frame(newest, true, 0.0));
    window.push(frame(newest - 200, true, 0.0));
    assert_eq!(window.figures(), before);
    window.push(frame(newest + 1_501, true, 0.9));
    assert_eq!(window.verdict(), LivenessVerdict::Collecting { frontal_frames: 1 });
}

#[test]
fn a_photograph_shown_before_the_own_face_is_not_vouched_for() {
    let window = watched(4_000, 66, |now| frame(now, true, if now < 2_000 { 0.1 } else { 0.95 }));
    assert!(window.verdict().is_live());
    assert!(!window.vouches_for(MonoTime::from_millis(1_400)));
    assert!(window.vouches_for(MonoTime::from_millis(3_800)));
    assert!(!window.vouches_for(MonoTime::from_millis(60_000)));
}

#[test]
fn a_photograph_raised_before_the_own_face_is_not_vouched_for() {
    let window = watched(4_000, 66, |now| frame(now, true, if now < 3_500 { 0.95 } else { 0.1 }));
    assert!(window.verdict().is_live(), "the mean still passes: {:?}", window.figures());
    assert!(window.vouches_for(MonoTime::from_millis(3_200)));
    for shot_at in 3_500..4_000 {
        assert!(!window.vouches_for(MonoTime::from_millis(shot_at)), "{shot_at} ms shows the photograph");
    }
}

#[test]
fn a_face_that_freezes_is_not_live_on_what_it_did_before() {
    let window = watched(4_500, 66, |now| frame(now, now < 3_000, 0.95));
    let verdict = window.verdict();
    assert!(matches!(verdict, LivenessVerdict::Watch { reason: WatchReason::TooStill, .. }), "{verdict:?}");
}

#[test]
fn the_window_is_bounded_at_any_rate() {
    let mut window = window();
    for micros in 0..20_000u64 {
        let evidence = LivenessEvidence {
            captured_at: MonoTime::from_nanos(micros * 50_000),
            pose: Some(FRONTAL),
            passive: Some(0.9),
            appearance: None,
        };
        window.push(evidence);
    }
    assert!(window.figures().frontal_frames <= 300);
}

fn figures() -> impl Strategy<Value = LivenessFigures> {
    let change = proptest::option::weighted(0.9, 0.0f32..0.05);
    let newest = proptest::option::weighted(0.9, 0.0f32..0.05);
    (5usize..40, 0usize..40, 0.0f32..1.0, change, newest, proptest::bool::weighted(0.1), 0u64..6_000).prop_map(
        |(frontal_frames, unscored, passive, change, newest_change, blind, watched)| LivenessFigures {
            frontal_frames,
            unscored_frames: unscored.min(frontal_frames),
            passive,
            change,
            newest_change,
            blind,
            watched: Duration::from_millis(watched),
        },
    )
}

proptest! {
    #[test]
    fn worse_figures_never_make_the_verdict_live(
        good in figures(), fewer in 0usize..20, unscored in 0usize..20, lower in 0.0f32..0.5, stiller in 0.0f32..0.03,
        longer in 0u64..3_000, loses_change in proptest::bool::weighted(0.1), goes_blind in proptest::bool::weighted(0.1),
    ) {
        let policy = LivenessPolicy::default();
        let frontal_frames = good.frontal_frames.saturating_sub(fewer);
        let worse = LivenessFigures {
            frontal_frames,
            unscored_frames: (good.unscored_frames + unscored).min(frontal_frames),
            passive: good.passive - lower,
            change: good.change.filter(|_| !loses_change).map(|change| change - stiller),
            newest_change: good.newest_change.filter(|_| !loses_change).map(|change| change - stiller),
            blind: good.blind || goes_blind,
            watched: good.watched + Duration::from_millis(longer),
        };
        // A frame fewer may be an unscored frame fewer, which is no worse evidence.
        prop_assume!(worse.unscored_frames * good.frontal_frames >= good.unscored_frames * worse.frontal_frames);
        if judge(&worse, &policy).is_live() {
            prop_assert!(judge(&good, &policy).is_live(), "{worse:?} is live, {good:?} is not");
        }
    }
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
                let passive = if worse { drop.map(|drop| (good - drop).max(0.0)) } else { Some(good) };
                LivenessEvidence { passive, ..frame(now, true, good) }
            })
        };
        if play(true).verdict().is_live() {
            prop_assert!(play(false).verdict().is_live());
        }
    }

    #[test]
    fn a_picture_that_never_changes_is_never_live(
        scores in proptest::collection::vec(0.0f32..1.0, 1..80), interval in 20u64..200,
    ) {
        let mut window = window();
        for (index, score) in scores.iter().enumerate() {
            let now = 1_000 + index as u64 * interval;
            window.push(LivenessEvidence { passive: Some(*score), ..frame(now, false, 1.0) });
            prop_assert!(!window.verdict().is_live());
        }
    }
}
