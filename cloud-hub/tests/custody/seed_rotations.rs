//! Other seeds in the places of those that rotate searchable vectors: every search finds whom it would have found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloud_hub::domain::ids::{PersonId, TenantId};
use cloud_hub::keys::{Custody, Progress};
use face_core::{Embedding, Space};
use sqlx::PgConnection;

use crate::support::{SPACE, TestHub, keys_without_people, skipped, template};

/// More than are rotated in one transaction.
const PEOPLE: usize = 120;

async fn older(superuser: &mut PgConnection, seconds: i32) {
    sqlx::query("UPDATE tenant_secret SET created_at = created_at - make_interval(secs => $1) WHERE kind = 'rs'")
        .bind(f64::from(seconds))
        .execute(superuser)
        .await
        .unwrap();
}

async fn filled(hub: &TestHub) -> (TenantId, Vec<PersonId>) {
    let (tenant, mut people) = (hub.tenant().await, Vec::new());
    for axis in 0..PEOPLE {
        let person = hub.person(tenant, &format!("{axis}")).await;
        hub.enrol(tenant, person, axis).await;
        people.push(person);
    }
    (tenant, people)
}

/// Who is nearest along an axis, and how near, in thousandths.
async fn nearest(at: &Custody, tenant: TenantId, axis: usize) -> Option<(PersonId, i32)> {
    let probe = Embedding::from_raw(*template(axis).embedding).unwrap();
    let found = at.nearest(tenant, &Space::plain(SPACE), probe, 3).await.unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "a cosine in thousandths")]
    let thousandths = |similarity: f32| (similarity * 1000.0).round() as i32;
    found.first().map(|best| (best.person, thousandths(best.similarity)))
}

async fn versions(superuser: &mut PgConnection) -> Vec<(i32, i64)> {
    sqlx::query_as("SELECT seed_version, count(*) FROM template_vector GROUP BY 1 ORDER BY 1")
        .fetch_all(superuser)
        .await
        .unwrap()
}

async fn to_the_end(custody: &Custody, tenant: TenantId) -> (u64, Progress) {
    let mut rotated = 0;
    loop {
        match custody.go_on_with_seeds(tenant).await.unwrap() {
            Progress::Resealed(count) => rotated += count,
            other => return (rotated, other),
        }
    }
}

#[tokio::test]
async fn every_search_finds_whom_it_would_have_found_while_vectors_are_rotated_anew() {
    if skipped("every_search_finds_whom_it_would_have_found_while_vectors_are_rotated_anew") {
        return;
    }
    let hub = TestHub::start().await;
    let ((tenant, people), mut superuser) = (filled(&hub).await, hub.superuser().await);
    assert_eq!(hub.custody.go_on_with_seeds(tenant).await.unwrap(), Progress::Idle);
    let score = nearest(&hub.custody, tenant, 0).await.unwrap().1;
    let (stop, searches) = (Arc::new(AtomicBool::new(false)), hub.custody.clone());
    let ended = Arc::clone(&stop);
    let expected = people.clone();
    let searching = tokio::spawn(async move {
        let mut axis = 0;
        while !ended.load(Ordering::Relaxed) || axis < PEOPLE {
            let found = nearest(&searches, tenant, axis % PEOPLE).await;
            assert_eq!(found, Some((expected[axis % PEOPLE], score)), "search {axis}");
            axis += 1;
        }
        axis
    });

    hub.custody.rotate_seeds(tenant, "test").await.unwrap();
    hub.custody.rotate_seeds(tenant, "test").await.unwrap();
    let states = async || {
        let views = hub.custody.seed_views(tenant).await.unwrap();
        views.into_iter().map(|view| (view.version, view.state, view.left)).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [(2, "in use", None), (1, "looked under", Some(PEOPLE as u64))]);
    assert_eq!(hub.custody.go_on_with_seeds(tenant).await.unwrap(), Progress::Waits);
    // Every hub is to know the new seed before a vector is rotated by it.
    let early = hub.person(tenant, "early").await;
    hub.enrol(tenant, early, 300).await;
    assert_eq!(versions(&mut superuser).await, [(1, 121)]);
    older(&mut superuser, 15).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    assert_eq!(hub.custody.go_on_with_seeds(tenant).await.unwrap(), Progress::Resealed(100));
    let late = hub.person(tenant, "late").await;
    hub.enrol(tenant, late, 301).await;
    assert_eq!(versions(&mut superuser).await, [(1, 21), (2, 101)], "some by each");
    for (axis, person) in people.iter().enumerate() {
        assert_eq!(nearest(&hub.custody, tenant, axis).await, Some((*person, score)), "{axis}");
    }
    // The hub is started anew in the midst; in the midst the database forgets its vectors too.
    sqlx::query("DELETE FROM template_vector WHERE template_id IN (SELECT template_id FROM template_vector LIMIT 7)")
        .execute(&mut superuser)
        .await
        .unwrap();
    hub.custody.rebuild_vectors(tenant).await.unwrap();
    assert_eq!(versions(&mut superuser).await.iter().map(|(_, count)| count).sum::<i64>(), 122);
    let again = Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), hub.clock.clone());
    assert_eq!(to_the_end(&again, tenant).await.1, Progress::Waits);
    assert_eq!(versions(&mut superuser).await, [(2, 122)]);
    older(&mut superuser, 60).await;
    assert_eq!(to_the_end(&again, tenant).await, (0, Progress::Done));
    stop.store(true, Ordering::Relaxed);
    assert!(searching.await.unwrap() >= PEOPLE);
    assert_eq!(states().await, [(2, "in use", None)]);
    let told: Vec<String> =
        sqlx::query_scalar("SELECT action FROM audit_entry WHERE action LIKE 'tenant.seed%' ORDER BY at, id")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    assert_eq!(told, ["tenant.seed_rotate", "tenant.seed_retire"]);
}

#[tokio::test]
async fn a_seed_stays_while_a_vector_is_rotated_by_it_and_one_that_cannot_be_opened_goes() {
    if skipped("a_seed_stays_while_a_vector_is_rotated_by_it_and_one_that_cannot_be_opened_goes") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    let person = hub.person(tenant, "ada").await;
    hub.enrol(tenant, person, 1).await;
    hub.custody.rotate_seeds(tenant, "test").await.unwrap();
    older(&mut superuser, 120).await;
    let mut holder = hub.superuser().await;
    sqlx::query("BEGIN").execute(&mut holder).await.unwrap();
    sqlx::query("SELECT 1 FROM template_vector FOR UPDATE").execute(&mut holder).await.unwrap();
    assert_eq!(to_the_end(&hub.custody, tenant).await, (0, Progress::Waits));
    assert_eq!(hub.custody.seed_views(tenant).await.unwrap()[1].left, Some(1));
    sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
    let without = Custody::new(hub.db.clone(), keys_without_people(&hub), hub.clock.clone());
    assert_eq!(to_the_end(&without, tenant).await, (1, Progress::Done));
    assert!(versions(&mut superuser).await.is_empty());
    // The key is back, and so is the vector, by the new seed.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    assert_eq!(hub.custody.rebuild_vectors(tenant).await.unwrap(), 1);
    assert_eq!(versions(&mut superuser).await, [(2, 1)]);
    assert_eq!(nearest(&hub.custody, tenant, 1).await.unwrap().0, person);
}
