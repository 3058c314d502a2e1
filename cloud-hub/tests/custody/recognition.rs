//! Galleries in memory: true at every search, on every hub, and the same as the vectors in the database.

use std::sync::Arc;
use std::time::Duration;

use cloud_hub::domain::ids::{AnchorId, PersonId, TenantId};
use cloud_hub::keys::{Anchored, NewTemplate, NotThem};
use cloud_hub::recognition::{Galleries, Served, Warm};
use cloud_hub::store::template_changes;
use face_core::gallery::Gallery as _;
use face_core::{Embedding, Space};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::support::{SPACE, TestHub, skipped, template};

const ENOUGH: usize = 256 << 20;

fn random(rng: &mut StdRng) -> [f32; 512] {
    let raw: [f32; 512] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
    *Embedding::from_raw(raw).unwrap().as_slice()
}

fn probe(axis: usize) -> Embedding {
    Embedding::from_slice(template(axis).embedding.as_slice()).unwrap()
}

async fn of(galleries: &Galleries, tenant: TenantId) -> Arc<Warm> {
    match galleries.of(tenant, &Space::plain(SPACE)).await.unwrap() {
        Served::Memory(warm) => warm,
        Served::Vectors(_) => panic!("there is room in the memory"),
    }
}

fn nearest(warm: &Warm, probe: &Embedding) -> Option<PersonId> {
    warm.index().search(probe, 1).first().map(|row| PersonId(row.person.0))
}

#[tokio::test]
async fn every_search_sees_what_was_committed_before_it_on_every_hub() {
    if skipped("every_search_sees_what_was_committed_before_it_on_every_hub") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    // Two hubs on one database.
    let hubs = [0, 1].map(|_| Galleries::new(hub.custody.clone(), ENOUGH));
    assert_eq!(of(&hubs[0], tenant).await.templates(), 0);
    let mut people = Vec::new();
    for axis in 0..4 {
        let person = hub.person(tenant, &format!("p{axis}")).await;
        hub.enrol(tenant, person, axis).await;
        people.push(person);
        for galleries in &hubs {
            assert_eq!(nearest(&*of(galleries, tenant).await, &probe(axis)), Some(person));
        }
    }
    // What has not changed is not read again.
    let (first, second) = (of(&hubs[0], tenant).await, of(&hubs[0], tenant).await);
    assert!(Arc::ptr_eq(&first, &second));
    // It is at hand, for whoever asks meanwhile whether it is still true, once it has lain there for a while.
    let at_hand = |tenant| hubs[0].at_hand(tenant, &Space::plain(SPACE));
    assert!(at_hand(tenant).is_none(), "it was made a moment ago");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(at_hand(tenant).unwrap().is(&Served::Memory(first)));
    assert!(at_hand(TenantId(uuid::Uuid::nil())).is_none());
    // A picture that is not them counts from the next search on, until it is taken back.
    let not_them = NotThem {
        space_id: SPACE.to_owned(),
        model_version: "1".to_owned(),
        quality: 0.5,
        embedding: template(9).embedding,
        confirmed: true,
    };
    let Anchored::Made { id, .. } = hub.custody.add_anchor(tenant, people[0], not_them, "test").await.unwrap() else {
        panic!("refused")
    };
    let own = |warm: &Warm, axis| warm.own(face_core::PersonId(people[0].0), &probe(axis));
    let warm = of(&hubs[1], tenant).await;
    assert!((own(&warm, 9).anchor.unwrap() - 1.0).abs() < 1e-4 && own(&warm, 9).best.unwrap().abs() < 1e-4);
    assert!((own(&warm, 0).best.unwrap() - 1.0).abs() < 1e-4 && own(&warm, 0).templates == 1);
    hub.custody.remove_anchor(tenant, people[0], AnchorId(id.0), "test").await.unwrap();
    assert_eq!(own(&*of(&hubs[1], tenant).await, 9).anchor, None);
    // Whoever is deleted is found by nobody, and nobody else's gallery knows of it.
    let other = hub.place().await.tenant;
    let stranger = hub.person(other, "stranger").await;
    hub.enrol(other, stranger, 2).await;
    hub.custody.delete_person(tenant, people[2], "test").await.unwrap();
    for galleries in &hubs {
        let warm = of(galleries, tenant).await;
        assert_eq!(warm.templates(), 3);
        assert_ne!(nearest(&warm, &probe(2)), Some(people[2]));
        assert_eq!(nearest(&*of(galleries, other).await, &probe(2)), Some(stranger));
    }
    // Folding the counts changes nothing, whoever does it meanwhile: the job, or others who change something at the same time.
    let before = hub.custody.template_stamp(tenant).await.unwrap();
    let enrol = |part: usize| {
        let hub = &hub;
        async move {
            let person = hub.person(tenant, &format!("of many {part}")).await;
            for axis in 0..75 {
                hub.enrol(tenant, person, 20 + axis).await;
                if part == 0 && axis % 25 == 0 {
                    hub.db.tenant(tenant, |tx| Box::pin(template_changes::fold(tx))).await.unwrap();
                }
            }
        }
    };
    futures::future::join_all((0..8).map(enrol)).await;
    assert_eq!(hub.custody.template_stamp(tenant).await.unwrap(), before + 600);
    // Changes fold those before them: each search reads what is left.
    futures::future::join_all((8..13).map(enrol)).await;
    assert_eq!(hub.custody.template_stamp(tenant).await.unwrap(), before + 975);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM template_change WHERE tenant_id = $1")
        .bind(tenant.0)
        .fetch_one(&mut hub.superuser().await)
        .await
        .unwrap();
    assert!(left < 300, "{left} rows");
    assert_eq!(of(&hubs[0], tenant).await.templates(), 978);
}

#[tokio::test]
async fn the_vectors_in_the_database_and_the_gallery_in_memory_give_the_same_answers() {
    if skipped("the_vectors_in_the_database_and_the_gallery_in_memory_give_the_same_answers") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    let mut rng = StdRng::seed_from_u64(5);
    let mut vectors = Vec::new();
    for number in 0..120 {
        let person = hub.person(tenant, &format!("p{number}")).await;
        for _ in 0..2 {
            let vector = random(&mut rng);
            vectors.push(vector);
            let new = NewTemplate { embedding: Box::new(vector), ..template(0) };
            hub.custody.enrol(tenant, person, None, new, "test").await.unwrap();
        }
    }
    let galleries = Galleries::new(hub.custody.clone(), ENOUGH);
    let warm = of(&galleries, tenant).await;
    assert_eq!(warm.templates(), 240);
    for round in 0..40 {
        // Strangers, and people with some noise.
        let noise = random(&mut rng);
        let near = vectors[rng.random_range(0..vectors.len())];
        let share = if round % 2 == 0 { 0.0 } else { 0.8 };
        let probe = Embedding::from_raw(std::array::from_fn(|i| share * near[i] + (1.0 - share) * noise[i])).unwrap();
        let in_database = hub.custody.nearest(tenant, &Space::plain(SPACE), probe.clone(), 20).await.unwrap();
        let in_memory = warm.index().search(&probe, 10);
        for (memory, database) in in_memory.iter().zip(&in_database) {
            assert_eq!(memory.template.0, database.template.0);
            assert_eq!(memory.person.0, database.person.0);
            // The index keeps 18 bits of a component.
            assert!((memory.similarity.value() - database.similarity).abs() < 1e-4);
        }
    }
}

#[tokio::test]
async fn galleries_that_were_not_searched_for_longest_go_when_there_is_no_room() {
    if skipped("galleries_that_were_not_searched_for_longest_go_when_there_is_no_room") {
        return;
    }
    let hub = TestHub::start().await;
    let mut tenants = Vec::new();
    for _ in 0..3 {
        let tenant = hub.place().await.tenant;
        let person = hub.person(tenant, "p").await;
        for axis in 0..20 {
            hub.enrol(tenant, person, axis).await;
        }
        tenants.push(tenant);
    }
    let one = of(&Galleries::new(hub.custody.clone(), ENOUGH), tenants[0]).await.bytes();
    let galleries = Galleries::new(hub.custody.clone(), one * 5 / 2);
    for tenant in [0, 1, 0, 2] {
        assert_eq!(of(&galleries, tenants[tenant]).await.templates(), 20);
    }
    let held = galleries.held();
    assert!(held.len() == 2 && held.contains(&tenants[0]) && held.contains(&tenants[2]), "{held:?}");
    // Whoever is too large for all of it is served all the same, and not read.
    let galleries = Galleries::new(hub.custody.clone(), one * 3 / 4);
    let served = galleries.of(tenants[1], &Space::plain(SPACE)).await.unwrap();
    assert!(matches!(served, Served::Vectors(_)) && served.templates() == 20);
    assert_eq!(galleries.held(), []);
}

#[tokio::test]
async fn nobody_who_was_erased_stays_in_memory_on_any_hub() {
    if skipped("nobody_who_was_erased_stays_in_memory_on_any_hub") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, quiet) = (hub.place().await.tenant, hub.place().await.tenant);
    let galleries = Galleries::new(hub.custody.clone(), ENOUGH);
    let person = hub.person(tenant, "p").await;
    hub.enrol(tenant, person, 1).await;
    for tenant in [tenant, quiet] {
        of(&galleries, tenant).await;
    }
    galleries.drop_changed().await;
    assert_eq!(galleries.held().len(), 2, "nothing has changed");
    // Another hub deletes somebody, and nobody searches here.
    hub.custody.delete_person(tenant, person, "test").await.unwrap();
    galleries.drop_changed().await;
    assert_eq!(galleries.held(), [quiet]);
    galleries.forget(quiet);
    assert_eq!(galleries.held(), []);
}
