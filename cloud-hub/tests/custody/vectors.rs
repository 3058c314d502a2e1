//! Galleries that are too large for the memory: searched in the database, with the answers that the memory would give.

use std::collections::HashSet;

use cloud_hub::domain::ids::{PersonId, TenantId};
use cloud_hub::domain::recognition::{identified, verify};
use cloud_hub::keys::{Anchored, KeysError, NewTemplate, NotThem};
use cloud_hub::recognition::galleries::GalleryError;
use cloud_hub::recognition::{Comparisons, Galleries, SearchPath, Served};
use cloud_hub::store::vectors::{self, Index};
use face_core::identify::identify_with_anchors;
use face_core::{ClarityScale, Embedding, OpenSetPolicy, Ranked, Similarity, Space};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sqlx::Executor as _;
use uuid::Uuid;

use crate::support::{SPACE, TestHub, skipped, template};

const ENOUGH: usize = 256 << 20;
/// Scores are docked by up to 0.09 and given up to 0.038, as with the models in use.
const WEIGHT: f32 = 0.09;

pub(crate) fn space() -> Space {
    Space { id: SPACE.to_owned(), clarity: Some(ClarityScale::new(1.0, 2.0, WEIGHT).unwrap()) }
}

/// Components that say something. Those of faces depend on each other: at FAR 1e-4 strangers reach 0.44, as random vectors of so many
/// components do.
const TELLING: usize = 80;

/// Somebody, as unlike everybody else as strangers are.
pub(crate) fn somebody(rng: &mut StdRng) -> Embedding {
    // The sum of twelve is near enough to a normal distribution.
    let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5_f32)).sum::<f32>();
    Embedding::from_raw(std::array::from_fn(|i| if i < TELLING { normal() } else { 0.0 })).unwrap()
}

/// Another picture of somebody, at about this cosine.
pub(crate) fn like(rng: &mut StdRng, of: &Embedding, cosine: f32) -> Embedding {
    let (of, other) = (of.as_slice(), somebody(rng));
    let rest = (1.0 - cosine * cosine).sqrt();
    Embedding::from_raw(std::array::from_fn(|i| cosine * of[i] + rest * other.as_slice()[i])).unwrap()
}

fn new(embedding: &Embedding, quality: f32) -> NewTemplate {
    NewTemplate { embedding: Box::new(*embedding.as_slice()), quality, ..template(0) }
}

async fn anchor(hub: &TestHub, tenant: TenantId, person: PersonId, embedding: &Embedding, quality: f32) {
    let not_them = NotThem {
        space_id: SPACE.to_owned(),
        model_version: "1".to_owned(),
        quality,
        embedding: Box::new(*embedding.as_slice()),
        confirmed: true,
    };
    let made = hub.custody.add_anchor(tenant, person, not_them, "test").await.unwrap();
    assert!(matches!(made, Anchored::Made { .. }));
}

/// One tenant's gallery as both paths have it.
struct Both {
    memory: Served,
    vectors: Served,
    by: Comparisons,
}

impl Both {
    async fn of(hub: &TestHub, tenant: TenantId) -> Self {
        let [memory, vectors] = [ENOUGH, 0].map(|bytes| Galleries::new(hub.custody.clone(), bytes));
        let (memory, vectors) =
            (memory.of(tenant, &space()).await.unwrap(), vectors.of(tenant, &space()).await.unwrap());
        assert!(matches!(memory, Served::Memory(_)) && matches!(vectors, Served::Vectors(_)));
        assert_eq!(memory.templates(), vectors.templates());
        Self { memory, vectors, by: Comparisons::new(2, 16) }
    }

    /// What both say of a probe: who it is or why nobody, whether it is `person`, and who is nearest, of all and of some.
    async fn agree(&self, probe: &Embedding, person: PersonId, some: &HashSet<Uuid>, policy: &OpenSetPolicy) -> String {
        let mut said = Vec::new();
        for served in [&self.memory, &self.vectors] {
            let found = served.found(&self.by, probe.clone(), 5).await.unwrap();
            let who = identified(identify_with_anchors(&found.ranked, &found.anchors, policy), policy);
            let own = served.own(&self.by, face_core::PersonId(person.0), probe.clone()).await.unwrap();
            let is_them = verify(own.best, own.anchor, policy.threshold);
            let of_some = served.nearest_people(&self.by, probe.clone(), 3, Some(some.clone())).await.unwrap();
            let people = |rows: &[Ranked]| rows.iter().map(|row| (row.person.0, row.template.0)).collect::<Vec<_>>();
            let scores = [who.score, who.margin, is_them.score].into_iter().flatten();
            let nearest = found.nearest.iter().chain(&of_some).map(|row| row.similarity.value());
            let scores: Vec<f32> = scores.chain(nearest).collect();
            let why = who.why_not.map(|why| why.code);
            let words = (who.person, why, is_them.why_not.map(|why| why.code), own.templates);
            said.push((words, people(&found.nearest), people(&of_some), scores));
        }
        let (memory, vectors) = (&said[0], &said[1]);
        assert_eq!((&memory.0, &memory.1, &memory.2), (&vectors.0, &vectors.1, &vectors.2));
        assert_eq!(memory.3.len(), vectors.3.len());
        assert!(memory.3.iter().zip(&vectors.3).all(|(a, b)| (a - b).abs() <= 1e-6), "{memory:?} {vectors:?}");
        memory.0.1.map_or_else(|| "known".to_owned(), |code| code.as_str().to_owned())
    }
}

#[tokio::test]
async fn both_paths_say_the_same_of_everybody() {
    if skipped("both_paths_say_the_same_of_everybody") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, other) = (hub.place().await.tenant, hub.place().await.tenant);
    let mut rng = StdRng::seed_from_u64(7);
    let (mut people, mut faces) = (Vec::new(), Vec::new());
    for number in 0..150 {
        let person = hub.person(tenant, &format!("p{number}")).await;
        // Every tenth is the near twin of the one before.
        let face = match faces.last() {
            Some(before) if number % 10 == 9 => like(&mut rng, before, 0.95),
            _ => somebody(&mut rng),
        };
        for _ in 0..rng.random_range(1..=3) {
            let picture = like(&mut rng, &face, 0.9);
            let template = new(&picture, rng.random_range(0.0..1.0));
            hub.custody.enrol(tenant, person, None, template, "test").await.unwrap();
        }
        // Of every seventh somebody said that a certain other picture is not them, and it looks like them.
        if number % 7 == 0 {
            anchor(&hub, tenant, person, &like(&mut rng, &face, 0.9), rng.random_range(0.0..1.0)).await;
        }
        people.push(person);
        faces.push(face);
    }
    // Of another tenant, and of another space: found by nobody.
    let stranger = hub.person(other, "of another").await;
    hub.custody.enrol(other, stranger, None, new(&faces[0], 0.5), "test").await.unwrap();
    let elsewhere = NewTemplate { space_id: "another-space".to_owned(), ..new(&faces[1], 0.5) };
    hub.custody.enrol(tenant, people[0], None, elsewhere, "test").await.unwrap();

    let both = Both::of(&hub, tenant).await;
    let policy = OpenSetPolicy { threshold: Similarity::new(0.45), margin: 0.05 };
    let mut told: HashSet<String> = HashSet::new();
    for number in 0..400 {
        let at = rng.random_range(0..people.len());
        let picture = match number % 4 {
            0 => somebody(&mut rng),
            _ => {
                let cosine = rng.random_range(0.4..0.95);
                like(&mut rng, &faces[at], cosine)
            }
        };
        let probe = picture.with_handicap(rng.random_range(-WEIGHT..WEIGHT) / 2.0);
        let some = (0..4).map(|_| people[rng.random_range(0..people.len())].0).collect();
        told.insert(both.agree(&probe, people[at], &some, &policy).await);
    }
    let mut told: Vec<String> = told.into_iter().collect();
    told.sort();
    assert_eq!(told, ["ambiguous", "known", "not_this_person", "unknown"], "every answer was given");

    // Whoever is deleted is found by no search that begins afterwards, not even by one who has looked at the gallery before.
    let gone = people[3];
    hub.custody.delete_person(tenant, gone, "test").await.unwrap();
    let found = both.vectors.found(&both.by, faces[3].clone(), 10).await.unwrap();
    assert!(found.nearest.iter().all(|row| row.person.0 != gone.0) && found.nearest.len() == 10);
    let own = both.vectors.own(&both.by, face_core::PersonId(gone.0), faces[3].clone()).await.unwrap();
    assert_eq!((own.best, own.templates), (None, 0));
    let both = Both::of(&hub, tenant).await;
    for at in 0..10 {
        let probe = like(&mut rng, &faces[at], 0.9);
        both.agree(&probe, people[at], &HashSet::from([gone.0, people[4].0]), &policy).await;
    }
}

#[tokio::test]
async fn whoever_is_best_after_docking_is_found_behind_a_thousand_nearer_ones() {
    if skipped("whoever_is_best_after_docking_is_found_behind_a_thousand_nearer_ones") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    let mut rng = StdRng::seed_from_u64(8);
    let face = somebody(&mut rng);
    // A crowd of clear pictures, and one that is dim and a little further away.
    let mut crowd = Vec::new();
    for number in 0..12 {
        let person = hub.person(tenant, &format!("p{number}")).await;
        crowd.extend((0..100).map(|_| (person, new(&like(&mut rng, &face, 0.9), 1.0))));
    }
    let dim = hub.person(tenant, "dim").await;
    crowd.push((dim, new(&like(&mut rng, &face, 0.86), 0.0)));
    let enrol = |(person, template)| hub.custody.enrol(tenant, person, None, template, "test");
    for batch in crowd.chunks(8) {
        futures::future::try_join_all(batch.iter().cloned().map(enrol)).await.unwrap();
    }
    let both = Both::of(&hub, tenant).await;
    let policy = OpenSetPolicy { threshold: Similarity::new(0.5), margin: 0.0 };
    let probe = face.with_handicap(WEIGHT / 2.0);
    both.agree(&probe, dim, &HashSet::from([dim.0]), &policy).await;
    let found = both.vectors.found(&both.by, probe, 1).await.unwrap();
    assert_eq!(found.nearest[0].person.0, dim.0, "{:?}", found.nearest);
}

#[tokio::test]
async fn a_gallery_is_read_if_it_fits_and_searched_in_the_database_if_not() {
    if skipped("a_gallery_is_read_if_it_fits_and_searched_in_the_database_if_not") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, other) = (hub.place().await.tenant, hub.place().await.tenant);
    let person = hub.person(tenant, "p").await;
    for axis in 0..10 {
        hub.enrol(tenant, person, axis).await;
    }
    let gallery = Galleries::new(hub.custody.clone(), ENOUGH).of(tenant, &space()).await.unwrap();
    let Served::Memory(warm) = gallery else { panic!("it fits") };
    // Room for a few more.
    let galleries = Galleries::new(hub.custody.clone(), warm.bytes() * 3 / 2);
    let path = async || match galleries.of(tenant, &space()).await.unwrap() {
        Served::Memory(_) => SearchPath::Memory,
        Served::Vectors(_) => SearchPath::Scan,
    };
    let told = async || {
        let all = galleries.paths(&[tenant]).await.unwrap();
        all.first().map(|serving| (serving.path, serving.templates))
    };
    assert_eq!((path().await, told().await), (SearchPath::Memory, Some((SearchPath::Memory, 10))));
    for axis in 10..30 {
        hub.enrol(tenant, person, axis).await;
    }
    assert_eq!((path().await, told().await), (SearchPath::Scan, Some((SearchPath::Scan, 30))));
    assert_eq!(galleries.held(), [], "what no longer fits is out of the memory");
    let another = hub.person(tenant, "another").await;
    hub.enrol(tenant, another, 40).await;
    hub.custody.delete_person(tenant, person, "test").await.unwrap();
    assert_eq!((path().await, told().await), (SearchPath::Memory, Some((SearchPath::Memory, 1))));
    // Whoever has nobody has no space.
    assert_eq!(galleries.paths(&[other]).await.unwrap(), []);
}

#[tokio::test]
async fn nothing_is_searched_by_vectors_of_which_some_are_missing() {
    if skipped("nothing_is_searched_by_vectors_of_which_some_are_missing") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    let mut people = Vec::new();
    for axis in 0..3 {
        people.push(hub.person(tenant, &format!("p{axis}")).await);
        hub.enrol(tenant, people[axis], axis).await;
    }
    let galleries = Galleries::new(hub.custody.clone(), 0);
    let (by, probe) = (Comparisons::new(1, 1), Embedding::from_slice(template(1).embedding.as_slice()).unwrap());
    let ask = async || galleries.of(tenant, &space()).await.unwrap().found(&by, probe.clone(), 1).await;
    let whole = async || galleries.paths(&[tenant]).await.unwrap()[0].vectors_whole;
    assert_eq!(ask().await.unwrap().nearest[0].person.0, people[1].0);

    // What a crash of the server leaves of tables that are not in its log.
    let mut superuser = hub.superuser().await;
    let unlogged: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r' ORDER BY relname",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(unlogged, ["template_vector", "template_vector_whole"]);
    superuser.execute("TRUNCATE template_vector, template_vector_whole").await.unwrap();
    // Somebody is enrolled meanwhile, and is not the nearest of all for that.
    hub.enrol(tenant, people[2], 9).await;
    assert!(matches!(ask().await, Err(GalleryError::Keys(KeysError::VectorsMissing))));
    assert!(!whole().await);
    // One's own templates are there.
    let served = galleries.of(tenant, &space()).await.unwrap();
    let own = served.own(&by, face_core::PersonId(people[1].0), probe.clone()).await.unwrap();
    assert!(own.best.is_some_and(|best| best > 0.99));

    // A look that a crash falls into has not seen all that is missing.
    let look = Uuid::new_v4();
    hub.db.tenant(tenant, move |tx| Box::pin(vectors::begin_look(tx, look))).await.unwrap();
    superuser.execute("TRUNCATE template_vector, template_vector_whole").await.unwrap();
    hub.db.tenant(tenant, move |tx| Box::pin(vectors::end_look(tx, look))).await.unwrap();
    assert!(!whole().await);

    assert_eq!(hub.custody.rebuild_vectors(tenant).await.unwrap(), 4);
    assert!(whole().await);
    assert_eq!(ask().await.unwrap().nearest[0].person.0, people[1].0);
    assert_eq!(galleries.paths(&[tenant]).await.unwrap()[0].index, Index::None);
}
