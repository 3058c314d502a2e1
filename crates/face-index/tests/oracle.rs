//! Every engine and every kernel gives exactly what the plain oracle gives: scores bit for bit, and order. The oracle is
//! asked about the templates at the precision that a snapshot stores.

use std::num::NonZeroUsize;

use face_core::{DIM, Embedding, Gallery, PersonId, Ranked, TemplateId, rank};
use face_index::{BuildError, Engine, EngineUsed, Kernel, Snapshot, at_stored_precision};
use proptest::prelude::*;
use uuid::Uuid;

/// Deterministic noise: one step of an xorshift generator, as a float in [-1, 1).
fn noise(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    ((*state >> 40) as f32) / (1_u64 << 23) as f32 - 1.0
}

fn embedding(seed: u64) -> Embedding {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    Embedding::from_raw(std::array::from_fn(|_| noise(&mut state))).expect("noise has a norm")
}

/// `base` moved a little: neighbours whose scores differ by less than rounding.
fn near(base: &Embedding, seed: u64, distance: f32) -> Embedding {
    let mut state = seed | 1;
    let moved = base.as_slice().map(|value| value + distance * noise(&mut state));
    Embedding::from_raw(moved).expect("still has a norm")
}

fn rows(embeddings: &[Embedding]) -> Vec<(PersonId, TemplateId, Embedding)> {
    let id = |index: usize| Uuid::from_u128(index as u128 + 1);
    let named = embeddings.iter().enumerate();
    named.map(|(index, embedding)| (PersonId(id(index / 3)), TemplateId(id(index)), embedding.clone())).collect()
}

/// Every snapshot that this machine can build over the same rows.
fn snapshots(embeddings: &[Embedding]) -> Vec<Snapshot> {
    let mut all: Vec<Snapshot> =
        Kernel::available().map(|kernel| Snapshot::with_kernel(rows(embeddings), kernel).expect("builds")).collect();
    if cfg!(feature = "faiss") {
        all.push(Snapshot::build(rows(embeddings), Engine::Faiss).expect("builds"));
    }
    all
}

/// The template as the snapshot keeps it, bit for bit: not normalised again.
fn stored(template: &Embedding) -> Embedding {
    let bytes: Vec<u8> = at_stored_precision(template).iter().flat_map(|value| value.to_le_bytes()).collect();
    Embedding::from_le_bytes(&bytes).expect("storing keeps the norm").with_handicap(template.handicap())
}

/// A handicap from one end of the range to the other.
fn docked(face: Embedding, seed: u64) -> Embedding {
    let mut state = seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
    let handicap = 0.1 * noise(&mut state);
    face.with_handicap(handicap)
}

fn expect_oracle(embeddings: &[Embedding], probe: &Embedding, k: usize) {
    let kept: Vec<Embedding> = embeddings.iter().map(stored).collect();
    let expected: Vec<(Uuid, u32)> = rank(probe, &kept, k)
        .into_iter()
        .map(|(index, score)| (Uuid::from_u128(index as u128 + 1), score.to_bits()))
        .collect();
    for snapshot in snapshots(embeddings) {
        assert_eq!(
            bits(&snapshot.search(probe, k)),
            expected,
            "{:?}, n {}, k {k}",
            snapshot.engine(),
            embeddings.len()
        );
    }
}

/// What a comparison of two results looks at: who, and the score's bits.
fn bits(found: &[Ranked]) -> Vec<(Uuid, u32)> {
    found.iter().map(|Ranked { template, similarity, .. }| (template.0, similarity.value().to_bits())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_batch_finds_what_each_probe_finds_alone(seed in 1_u64..u64::MAX, n in 0_u64..300, n_probes in 0_u64..40) {
        let embeddings: Vec<Embedding> = (0..n).map(|row| embedding(seed ^ row)).collect();
        let probes: Vec<Embedding> = (0..n_probes).map(|probe| embedding(!seed ^ probe)).collect();
        for snapshot in snapshots(&embeddings) {
            let alone: Vec<_> = probes.iter().map(|probe| bits(&snapshot.search(probe, 5))).collect();
            let together = snapshot.search_batch(&probes, 5, NonZeroUsize::MIN);
            prop_assert_eq!(together.iter().map(|found| bits(found)).collect::<Vec<_>>(), alone);
        }
    }

    #[test]
    fn equals_the_oracle(seed in 1_u64..u64::MAX, n in 0_usize..600, k in 0_usize..40) {
        let embeddings: Vec<Embedding> = (0..n as u64).map(|row| embedding(seed ^ row)).collect();
        expect_oracle(&embeddings, &embedding(!seed), k);
    }

    #[test]
    fn equals_the_oracle_where_faces_have_handicaps(seed in 1_u64..u64::MAX, n in 0_u64..600, k in 0_usize..40, near_by in proptest::bool::ANY) {
        let probe = docked(embedding(!seed), seed);
        let face = |row: u64| if near_by { near(&probe, seed ^ row, 0.05) } else { embedding(seed ^ row) };
        let embeddings: Vec<Embedding> = (0..n).map(|row| docked(face(row), seed ^ row)).collect();
        expect_oracle(&embeddings, &probe, k);
    }

    #[test]
    fn equals_the_oracle_where_scores_tie_or_nearly_tie(seed in 1_u64..u64::MAX, k in 1_usize..30, distance in 0.0_f32..2e-4) {
        let probe = embedding(seed);
        let twin = near(&probe, seed, 0.01);
        let mut embeddings: Vec<Embedding> = (0..300).map(|row| near(&twin, seed ^ row, distance)).collect();
        // Exact doubles, some before and some after the block border of the kernel.
        for row in [3, 7, 255, 256, 257, 299] {
            embeddings[row] = twin.clone();
        }
        expect_oracle(&embeddings, &probe, k);
    }
}

/// Fails when handicaps are docked after the first pass only: the best by far is the last by cosine.
#[test]
fn the_best_after_docking_is_found_among_many_nearer_ones() {
    let probe = embedding(3).with_handicap(0.1);
    let mut embeddings: Vec<Embedding> = (0..3_000).map(|row| near(&probe, row, 0.02).with_handicap(0.1)).collect();
    embeddings[1_234] = near(&probe, 7, 0.03).with_handicap(-0.1);
    for snapshot in snapshots(&embeddings) {
        let found = snapshot.search(&probe, 1);
        assert_eq!(found[0].template.0.as_u128(), 1_235, "{:?}", snapshot.engine());
    }
    expect_oracle(&embeddings, &probe, 5);
}

#[test]
fn identical_templates_keep_gallery_order() {
    let twin = embedding(5);
    let embeddings = vec![twin.clone(); 700];
    for k in [1, 2, 255, 256, 257, 700, 900] {
        expect_oracle(&embeddings, &embedding(6), k);
        expect_oracle(&embeddings, &twin, k);
    }
}

#[test]
fn asking_for_more_than_there_is_gives_all() {
    let embeddings: Vec<Embedding> = (0..5).map(embedding).collect();
    expect_oracle(&embeddings, &embedding(99), 5);
    expect_oracle(&embeddings, &embedding(99), usize::MAX);
}

#[test]
fn nobody_is_found_in_an_empty_gallery() {
    for snapshot in snapshots(&[]).into_iter().chain([Snapshot::empty()]) {
        assert!(snapshot.is_empty());
        assert!(snapshot.search(&embedding(1), 5).is_empty());
        assert!(!snapshot.contains(PersonId(Uuid::from_u128(1))));
    }
}

#[test]
fn a_snapshot_knows_its_people() {
    let embeddings: Vec<Embedding> = (0..7).map(embedding).collect();
    let snapshot = Snapshot::build(rows(&embeddings), Engine::Auto).expect("builds");
    assert_eq!((snapshot.len(), snapshot.n_people()), (7, 3));
    assert!(snapshot.contains(PersonId(Uuid::from_u128(3))));
    assert!(!snapshot.contains(PersonId(Uuid::from_u128(4))));
    assert_eq!(snapshot.engine(), EngineUsed::Exact(Kernel::detect()));
}

#[test]
fn the_rival_is_found_behind_many_templates_of_one_person() {
    let twin = embedding(8);
    let mut all: Vec<_> =
        (0..100).map(|row| (PersonId(Uuid::from_u128(1)), TemplateId(Uuid::from_u128(row)), twin.clone())).collect();
    let rival = PersonId(Uuid::from_u128(2));
    all.push((rival, TemplateId(Uuid::from_u128(100)), embedding(9)));
    for engine in [Engine::Exact, Engine::Faiss] {
        let Ok(snapshot) = Snapshot::build(all.clone(), engine) else { continue };
        assert!(snapshot.candidates(&twin).iter().any(|row| row.person == rival), "{engine:?}");
    }
}

#[test]
fn the_same_template_twice_is_refused() {
    let mut twice = rows(&[embedding(1), embedding(2)]);
    twice[1].1 = twice[0].1;
    let Err(error) = Snapshot::build(twice, Engine::Auto) else { panic!("accepted") };
    assert!(matches!(error, BuildError::DuplicateTemplate { .. }), "{error}");
}

#[test]
fn an_anchor_scores_as_the_same_picture_would_as_a_template_and_is_never_searched() {
    let embeddings: Vec<Embedding> = (0..50).map(embedding).collect();
    let all = rows(&embeddings);
    let anna = all[7].0;
    let anchors = vec![(anna, TemplateId(Uuid::from_u128(500)), embeddings[7].clone())];
    let probe = near(&embeddings[7], 3, 0.2);
    for engine in [Engine::Exact, Engine::Faiss] {
        let Ok(snapshot) = Snapshot::build(all.clone(), engine) else { continue };
        let snapshot = snapshot.with_anchors(anchors.clone());
        let ranked = snapshot.search(&probe, 50);
        assert_eq!((ranked.len(), snapshot.len(), snapshot.n_anchors()), (50, 50, 1));
        assert!(ranked.iter().all(|row| row.template.0.as_u128() != 500), "an anchor was searched");
        let found = snapshot.anchors(&probe, &ranked[..1]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].person, found[0].template.0.as_u128()), (anna, 500));
        assert_eq!(found[0].similarity, ranked[0].similarity, "one picture that is both ties, to the bit");
        let others: Vec<_> = ranked.iter().copied().filter(|row| row.person != anna).collect();
        assert!(snapshot.anchors(&probe, &others).is_empty());
    }
}

#[test]
fn a_debug_line_names_nobody() {
    let snapshot = Snapshot::build(rows(&[embedding(1)]), Engine::Auto).expect("builds");
    let line = format!("{snapshot:?}");
    assert!(!line.contains(&Uuid::from_u128(1).to_string()), "{line}");
}

/// Large enough for several threads; rows 0, 15,000 and the last are equal, so that a tie spans their borders.
#[test]
fn several_threads_find_what_one_finds() {
    let mut embeddings: Vec<Embedding> = (0..30_001).map(embedding).collect();
    for row in [15_000, 30_000] {
        embeddings[row] = embeddings[0].clone();
    }
    let probes: Vec<Embedding> = [near(&embeddings[0], 3, 0.01), embedding(u64::MAX)].into();
    for kernel in Kernel::available() {
        let snapshot = Snapshot::with_kernel(rows(&embeddings), kernel).expect("builds");
        let alone: Vec<_> = probes.iter().map(|probe| bits(&snapshot.search(probe, 5))).collect();
        assert_eq!(alone[0][..3].iter().map(|row| row.0.as_u128()).collect::<Vec<_>>(), [1, 15_001, 30_001]);
        for n_threads in [2, 3, 64] {
            let found = snapshot.search_batch(&probes, 5, NonZeroUsize::new(n_threads).expect("not zero"));
            assert_eq!(found.iter().map(|found| bits(found)).collect::<Vec<_>>(), alone, "{kernel:?}, {n_threads}");
        }
    }
}

/// What 18 bits cost: against the templates as they were given, in f64, not one of 500 ranks changes here.
#[test]
fn the_five_best_are_those_of_the_templates_as_given() {
    let embeddings: Vec<Embedding> = (0..20_000).map(embedding).collect();
    let snapshot = Snapshot::build(rows(&embeddings), Engine::Auto).expect("builds");
    for seed in 1_000_000..1_000_100 {
        let probe = embedding(seed);
        let score = |row: &Embedding| {
            (0..DIM).map(|at| f64::from(row.as_slice()[at]) * f64::from(probe.as_slice()[at])).sum::<f64>()
        };
        let mut expected: Vec<(u128, f64)> = (1..).zip(embeddings.iter().map(score)).collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        let found = snapshot.search(&probe, 5);
        for (found, (row, score)) in found.iter().zip(expected) {
            assert_eq!(found.template.0.as_u128(), row);
            assert!((f64::from(found.similarity.value()) - score).abs() < 3e-6);
        }
    }
}
