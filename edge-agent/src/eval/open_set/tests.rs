use super::*;
use face_core::DIM;
use proptest::prelude::*;

/// Person `person` in a picture that is `cosine` like their ideal one; `noise` picks the direction of the rest.
fn face(person: usize, cosine: f32, noise: usize) -> Embedding {
    let mut raw = [0.0; DIM];
    raw[person] = cosine;
    raw[256 + noise % 256] = (1.0 - cosine * cosine).sqrt();
    Embedding::from_raw(raw).unwrap()
}

/// `n` people with `each` pictures; the pictures of one person are alike by the square of `cosine`.
struct World {
    templates: Vec<Option<Embedding>>,
    people: Vec<Vec<usize>>,
}

impl World {
    fn new(n: usize, each: usize, cosine: f32) -> Self {
        let templates = (0..n * each).map(|picture| Some(face(picture / each, cosine, picture * 37))).collect();
        Self { templates, people: by_person(&(0..n * each).map(|picture| picture / each).collect::<Vec<_>>()) }
    }

    fn with<T>(&self, seed: u64, ask: impl FnOnce(&Album<'_>) -> T) -> T {
        let average = |pictures: &[usize]| {
            let all: Option<Vec<Embedding>> = pictures.iter().map(|picture| self.templates[*picture].clone()).collect();
            Embedding::mean(&all?).ok()
        };
        ask(&Album { templates: &self.templates, people: &self.people, average: &average, margin: 0.05, seed })
    }
}

#[test]
fn faces_that_cannot_be_confused_are_never_missed() {
    let world = World::new(120, 5, 0.9);
    let found = world.with(1, |album| album.measure(20, 1, 2));
    assert_eq!((found.n_mated_people, found.n_mated, found.n_strangers, found.n_unenrolled), (20, 40, 500, 0));
    let point = found.points[0].found.as_ref().unwrap();
    assert_eq!((point.misses, point.misses_interval), (0.0, Some((0.0, 0.0))));
    assert!(found.points[1].found.is_none(), "500 strangers cannot speak of 3e-3");
}

#[test]
fn three_pictures_are_better_than_one_and_meet_the_same_probes() {
    // Genuine pairs at 0.36, below the margin of what the noise directions share by chance.
    let world = World::new(150, 5, 0.6);
    let (one, three) = world.with(1, |album| (album.measure(30, 1, 2), album.measure(30, 3, 2)));
    assert_eq!((one.n_mated, one.n_strangers), (three.n_mated, three.n_strangers));
    let misses = |found: &OpenSet| found.points[0].found.as_ref().unwrap().misses;
    assert!(misses(&three) <= misses(&one), "{} {}", misses(&three), misses(&one));
}

#[test]
fn a_lost_probe_is_a_miss_and_a_lost_stranger_does_not_count() {
    let mut world = World::new(120, 4, 0.9);
    // One picture of each person gives no template: another is enrolled, and it is always the one that comes.
    for pictures in &world.people {
        world.templates[pictures[0]] = None;
    }
    let found = world.with(1, |album| album.measure(10, 3, 1));
    assert_eq!(found.points[0].found.as_ref().unwrap().misses, 1.0);
    assert_eq!(found.n_strangers, 330);
}

#[test]
fn people_whose_pictures_never_agree_are_counted_and_missed() {
    let world = World::new(120, 5, 0.9);
    let average = |pictures: &[usize]| if pictures.len() == 1 { world.templates[pictures[0]].clone() } else { None };
    let album = Album { templates: &world.templates, people: &world.people, average: &average, margin: 0.05, seed: 1 };
    let found = album.measure(10, 3, 1);
    assert_eq!(found.n_unenrolled, 10 * DRAWS);
    assert_eq!(found.points[0].found.as_ref().unwrap().misses, 1.0);
    assert_eq!(album.measure(10, 1, 1).n_unenrolled, 0);
}

#[test]
fn a_larger_gallery_is_filled_with_people_who_do_not_come() {
    let mut people: Vec<usize> = (0..20).flat_map(|person| [person; 5]).collect();
    people.extend(20..500);
    let templates =
        people.iter().enumerate().map(|(picture, person)| Some(face(*person % 256, 0.9, picture))).collect();
    let world = World { templates, people: by_person(&people) };
    let found = world.with(1, |album| album.measure(100, 3, 1));
    assert_eq!((found.n_mated_people, found.n_mated, found.n_strangers), (20, 40, 400));
    assert_eq!(world.with(1, |album| album.sizes()), [10, 30, 100]);
}

#[test]
fn the_sizes_leave_somebody_outside() {
    assert_eq!(World::new(3, 2, 0.9).with(1, |album| album.sizes()), [1]);
    assert_eq!(World::new(60, 2, 0.9).with(1, |album| album.sizes()), [10, 30]);
    assert_eq!(World::new(3, 2, 0.9).with(1, |album| album.reserve()), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn misses_grow_as_fewer_false_positives_are_allowed(
        mated in proptest::collection::vec((-1.0f32..1.0, 0u32..9), 1..60),
        strangers in proptest::collection::vec((-1.0f32..1.0, 0u32..9), 1..400),
    ) {
        let mut draw = Drawn { mated, strangers, ..Drawn::default() };
        draw.mated.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        draw.strangers.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let found: Vec<(f32, f64)> = FALSE_POSITIVE_RATES.into_iter().filter_map(|rate| misses(&draw, rate, |_| 1)).collect();
        prop_assert!(found.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
    }

    #[test]
    fn the_same_seed_draws_the_same_people(seed in proptest::num::u64::ANY) {
        let world = World::new(40, 4, 0.7);
        let draw = || world.with(seed, |album| {
            let plan = album.plan(10, &mut Random::stream(seed, 0));
            plan.members.into_iter().map(|member| (member.person, member.enrol, member.probes)).collect::<Vec<_>>()
        });
        prop_assert_eq!(draw(), draw());
    }
}
