//! Other keys in the places of those of a tenant's people: whatever is sealed opens at each step, nothing that stays is under an old one
//! at the end, and no gallery has changed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use cloud_hub::domain::ids::{PersonId, TenantId};
use cloud_hub::keys::{Anchored, Custody, KeysError, NotThem, Progress};
use cloud_hub::store::person_seals::PLACES;
use face_core::Space;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{SPACE, TestHub, skipped, template};

/// More than are done in one transaction.
const PEOPLE: usize = 60;

async fn filled(hub: &TestHub) -> (TenantId, Vec<PersonId>) {
    let (tenant, mut people) = (hub.tenant().await, Vec::new());
    hub.site(tenant, "north").await;
    for axis in 0..PEOPLE {
        let person = hub.person(tenant, &format!("{axis}")).await;
        hub.enrol(tenant, person, axis).await;
        people.push(person);
    }
    let not_them = NotThem {
        space_id: SPACE.to_owned(),
        model_version: "1".to_owned(),
        quality: 0.5,
        embedding: template(100).embedding,
        confirmed: true,
    };
    let anchored = hub.custody.add_anchor(tenant, people[0], not_them, "test").await.unwrap();
    assert!(matches!(anchored, Anchored::Made { .. }));
    (tenant, people)
}

/// The keys under which something of people is sealed.
async fn sealing(superuser: &mut PgConnection) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    for place in PLACES {
        let (table, column) = (place.table, place.column);
        let whose = if table == "gallery_record" { "person_id IS NOT NULL AND" } else { "" };
        let statement = format!("SELECT substr({column}, 2, 16) FROM {table} WHERE {whose} {column} IS NOT NULL");
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(&mut *superuser).await.unwrap();
        assert!(!ids.is_empty(), "nothing to look at in {table}");
        found.extend(ids);
    }
    found
}

async fn roots(superuser: &mut PgConnection) -> Vec<(i64, i64, Vec<u8>)> {
    sqlx::query_as("SELECT epoch, version, root FROM gallery_version ORDER BY 1, 2").fetch_all(superuser).await.unwrap()
}

/// Everybody's name, template and, of the first, anchor, as they were.
async fn all_opens(custody: &Custody, tenant: TenantId, people: usize) {
    let unsealed = custody.unsealed(tenant, &Space::plain(SPACE), HashSet::new(), HashSet::new()).await.unwrap();
    assert_eq!((unsealed.templates.new.len(), unsealed.anchors.new.len()), (people, 1));
    let (found, profile) = custody.person_with(tenant, "7".to_owned()).await.unwrap().unwrap();
    assert_eq!((profile.name.as_str(), found.revision), ("Mx 7", 1));
}

async fn later(superuser: &mut PgConnection, seconds: i32) {
    sqlx::query("UPDATE person_key_change SET renewed_at = renewed_at - make_interval(secs => $1)")
        .bind(f64::from(seconds))
        .execute(superuser)
        .await
        .unwrap();
}

async fn to_the_end(custody: &Custody, tenant: TenantId) -> (u64, Progress) {
    let mut resealed = 0;
    loop {
        match custody.go_on_with_person_keys(tenant).await.unwrap() {
            Progress::Resealed(count) => resealed += count,
            other => return (resealed, other),
        }
    }
}

async fn left(custody: &Custody, tenant: TenantId) -> Option<u64> {
    custody.person_keys_view(tenant).await.unwrap().unwrap().left
}

#[tokio::test]
async fn everything_that_stays_of_people_is_sealed_anew_while_it_is_read() {
    if skipped("everything_that_stays_of_people_is_sealed_anew_while_it_is_read") {
        return;
    }
    let hub = TestHub::start().await;
    let ((tenant, people), mut superuser) = (filled(&hub).await, hub.superuser().await);
    assert_eq!(hub.custody.go_on_with_person_keys(tenant).await.unwrap(), Progress::Idle);
    assert!(hub.custody.person_keys_view(tenant).await.unwrap().is_none());
    let before = sealing(&mut superuser).await;
    assert_eq!(before.len(), PEOPLE);
    for _ in 0..2 {
        hub.custody.rotate_person_keys(tenant, "test").await.unwrap();
    }
    assert_eq!(left(&hub.custody, tenant).await, Some(60));
    assert_eq!(to_the_end(&hub.custody, tenant).await, (60, Progress::Waits), "another key for everybody");
    assert_eq!(sealing(&mut superuser).await, before, "somebody may seal under the one before still");
    all_opens(&hub.custody, tenant, PEOPLE).await;
    hub.enrol(tenant, people[1], 90).await;
    let new: BTreeSet<Vec<u8>> = sealing(&mut superuser).await.difference(&before).cloned().collect();
    assert_eq!(new.len(), 1, "what is made now is under the new one");
    later(&mut superuser, 59).await;
    assert_eq!(to_the_end(&hub.custody, tenant).await, (0, Progress::Waits));
    let unchanged = roots(&mut superuser).await;
    later(&mut superuser, 1).await;
    let Progress::Resealed(first) = hub.custody.go_on_with_person_keys(tenant).await.unwrap() else {
        panic!("nothing")
    };
    // The hub is started anew in the midst.
    let again = Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), hub.clock.clone());
    all_opens(&again, tenant, PEOPLE + 1).await;
    assert_eq!(left(&again, tenant).await, Some(10));
    let (rest, ended) = to_the_end(&again, tenant).await;
    assert_eq!(ended, Progress::Done);
    // Of each the profile, the template, and both in the gallery's log; an anchor and its record.
    assert_eq!(first + rest, PEOPLE as u64 * 4 + 2);
    let after = sealing(&mut superuser).await;
    assert_eq!(after.len(), PEOPLE);
    assert!(after.is_disjoint(&before) && after.is_superset(&new));
    all_opens(&hub.custody, tenant, PEOPLE + 1).await;
    assert_eq!(roots(&mut superuser).await, unchanged);
    assert_eq!((left(&hub.custody, tenant).await, to_the_end(&hub.custody, tenant).await.1), (None, Progress::Idle));
    let told: Vec<String> =
        sqlx::query_scalar("SELECT action FROM audit_entry WHERE action LIKE 'tenant.person_keys%' ORDER BY at, id")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    assert_eq!(told, ["tenant.person_keys_rotate", "tenant.person_keys_done"]);
    // Within the same second.
    hub.custody.rotate_person_keys(tenant, "test").await.unwrap();
    assert_eq!(to_the_end(&hub.custody, tenant).await, (60, Progress::Waits), "another order, other keys");
}

#[tokio::test]
async fn a_change_that_was_cut_off_makes_no_third_key_and_brings_nobody_back() {
    if skipped("a_change_that_was_cut_off_makes_no_third_key_and_brings_nobody_back") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    let (ada, ben) = (hub.person(tenant, "ada").await, hub.person(tenant, "ben").await);
    hub.custody.rotate_person_keys(tenant, "test").await.unwrap();
    assert_eq!(hub.custody.go_on_with_person_keys(tenant).await.unwrap(), Progress::Resealed(2));
    // Killed after the keys were made, before that was noted.
    sqlx::query("UPDATE person_key_change SET renewed_at = NULL").execute(&mut superuser).await.unwrap();
    hub.custody.delete_person(tenant, ben, "test").await.unwrap();
    assert_eq!(hub.custody.go_on_with_person_keys(tenant).await.unwrap(), Progress::Waits);
    assert_eq!(hub.custody.person_key(tenant, ada).await.unwrap().old_ids().len(), 1);
    later(&mut superuser, 60).await;
    assert_eq!(to_the_end(&hub.custody, tenant).await.1, Progress::Done);
    assert!(matches!(hub.custody.person_key(tenant, ben).await, Err(KeysError::NoPersonKey(_))));
}

#[tokio::test]
async fn whom_somebody_is_at_work_on_is_done_later() {
    if skipped("whom_somebody_is_at_work_on_is_done_later") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    let person = hub.person(tenant, "ada").await;
    hub.enrol(tenant, person, 1).await;
    hub.custody.rotate_person_keys(tenant, "test").await.unwrap();
    assert_eq!(to_the_end(&hub.custody, tenant).await, (1, Progress::Waits));
    later(&mut superuser, 60).await;
    for (table, sealed) in [("person", 0), ("template", 1)] {
        let mut holder = hub.superuser().await;
        sqlx::query("BEGIN").execute(&mut holder).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("SELECT 1 FROM {table} FOR UPDATE"))).execute(&mut holder).await.unwrap();
        assert_eq!(to_the_end(&hub.custody, tenant).await, (sealed, Progress::Busy), "{table}");
        assert_eq!(left(&hub.custody, tenant).await, Some(1));
        sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
    }
    assert_eq!(to_the_end(&hub.custody, tenant).await, (1, Progress::Done));
    assert_eq!(left(&hub.custody, tenant).await, None);
}

#[tokio::test]
async fn who_was_made_since_the_order_keeps_nobody_waiting() {
    if skipped("who_was_made_since_the_order_keeps_nobody_waiting") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    for name in ["ada", "ben", "cleo"] {
        hub.person(tenant, name).await;
    }
    hub.custody.rotate_person_keys(tenant, "test").await.unwrap();
    assert_eq!(to_the_end(&hub.custody, tenant).await, (3, Progress::Waits));
    let mut holder = hub.superuser().await;
    sqlx::query("BEGIN").execute(&mut holder).await.unwrap();
    for name in ["dan", "eva", "finn"] {
        let since = hub.person(tenant, name).await;
        sqlx::query("SELECT 1 FROM person WHERE id = $1 FOR UPDATE").bind(since.0).execute(&mut holder).await.unwrap();
    }
    later(&mut superuser, 60).await;
    assert_eq!(to_the_end(&hub.custody, tenant).await, (3, Progress::Done));
}
