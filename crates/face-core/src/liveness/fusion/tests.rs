//! Properties of the fusion: monotone, and closed where a check is missing.

use super::super::Check;
use super::*;
use proptest::prelude::*;

const STATES: [CheckState; 4] = [CheckState::Fail, CheckState::Unavailable, CheckState::Undecided, CheckState::Pass];

fn check(state: CheckState) -> Check {
    Check { state, score: Some(0.9) }
}

fn all(state: CheckState) -> Findings {
    let nothing = Findings::over(30);
    Method::ALL.into_iter().fold(nothing, |findings, method| findings.with(method, check(state)))
}

fn demands() -> impl Strategy<Value = Demand> {
    let set = || proptest::collection::vec(0..Method::COUNT, 0..4);
    (set(), set(), 0usize..3, set(), 0usize..20).prop_map(|(required, signs, min_signs, vetoes, min_frontal_frames)| {
        let methods = |of: Vec<usize>| Methods::of(&of.into_iter().map(|index| Method::ALL[index]).collect::<Vec<_>>());
        Demand {
            required: methods(required),
            signs: methods(signs),
            min_signs,
            vetoes: methods(vetoes),
            min_frontal_frames,
        }
    })
}

proptest! {
    #[test]
    fn worse_evidence_never_makes_it_more_live(
        demand in demands(), states in proptest::collection::vec(0usize..4, Method::COUNT),
        drops in proptest::collection::vec(0usize..4, Method::COUNT),
        frames in 0usize..30, fewer in 0usize..30,
    ) {
        let findings = |states: &[usize], frontal_frames: usize| {
            let nothing = Findings::over(frontal_frames);
            Method::ALL.into_iter().zip(states).fold(nothing, |all, (method, state)| all.with(method, check(STATES[*state])))
        };
        let worse: Vec<usize> = states.iter().zip(drops).map(|(state, drop)| state.saturating_sub(drop)).collect();
        let (good, bad) = (findings(&states, frames), findings(&worse, frames.saturating_sub(fewer)));
        if judge(&bad, &demand).is_live() {
            prop_assert!(judge(&good, &demand).is_live(), "{bad:?} is live, {good:?} is not");
        }
    }

    #[test]
    fn a_required_method_that_is_unavailable_fails_closed(demand in demands(), method in 0..Method::COUNT) {
        let method = Method::ALL[method];
        let demand = Demand { required: demand.required.with(method), ..demand };
        let findings = all(CheckState::Pass).with(method, Check::UNAVAILABLE);
        prop_assert!(!judge(&findings, &demand).is_live());
    }

    #[test]
    fn a_failure_of_a_required_or_vetoing_method_is_an_attack(demand in demands(), method in 0..Method::COUNT) {
        let method = Method::ALL[method];
        let findings = all(CheckState::Pass).with(method, check(CheckState::Fail));
        for demand in [
            Demand { required: demand.required.with(method), ..demand },
            Demand { vetoes: demand.vetoes.with(method), ..demand },
        ] {
            let attack = matches!(judge(&findings, &demand), LivenessVerdict::Attack { by, .. } if by == method);
            prop_assert!(attack);
        }
    }
}

#[test]
fn nothing_checked_is_never_live_at_any_level() {
    for demand in [Demand::basic(), Demand::standard(), Demand::strict()] {
        assert!(!judge(&Findings::default(), &demand).is_live());
        let blind = Findings::over(30);
        assert_eq!(judge(&blind, &demand), LivenessVerdict::Unavailable);
    }
}

#[test]
fn each_level_asks_for_all_that_the_one_below_asks_for() {
    let levels = [Demand::basic(), Demand::standard(), Demand::strict()];
    for pair in levels.windows(2) {
        assert!(pair[0].required.iter().all(|method| pair[1].required.has(method)));
        assert!(pair[0].vetoes.iter().all(|method| pair[1].vetoes.has(method)));
        assert!(pair[0].min_signs <= pair[1].min_signs && pair[0].min_frontal_frames <= pair[1].min_frontal_frames);
    }
}

#[test]
fn rigid_motion_alone_is_never_a_sign_of_life() {
    for demand in [Demand::basic(), Demand::standard(), Demand::strict()] {
        assert!(!demand.signs.has(Method::Motion));
    }
}

#[test]
fn more_signs_than_there_are_methods_for_can_never_be_seen() {
    let only = Demand { signs: Methods::of(&[Method::Temporal]), min_signs: 2, ..Demand::standard() };
    assert_eq!(judge(&all(CheckState::Pass), &only), LivenessVerdict::Unavailable);
}

#[test]
fn a_method_that_decides_in_two_ways_decides() {
    let (passive, temporal, head) = (Method::Passive, Method::Temporal, Method::Head);
    let demand = Demand {
        required: Methods::of(&[passive, temporal]),
        signs: Methods::of(&[temporal, head]),
        vetoes: Methods::of(&[passive, head]),
        ..Demand::standard()
    };
    assert_eq!(demand.deciding(), Methods::of(&[passive, temporal, head]));
}

#[test]
fn an_ablated_method_no_longer_counts() {
    let demand = Demand::strict().without(Method::Temporal);
    let findings = all(CheckState::Pass).with(Method::Temporal, check(CheckState::Fail));
    assert_eq!(demand.signs, Methods::of(&[Method::Blink, Method::Head]));
    assert!(judge(&findings, &demand).is_live());
    assert!(!judge(&findings, &Demand::strict()).is_live());
}
