//! Another master key, and another key of a tenant, in the place of the ones before: everything opens at each step and afterwards, and
//! nothing is under the old ones at the end.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloud_hub::domain::ids::{EndpointId, TenantId};
use cloud_hub::domain::permission::Role;
use cloud_hub::domain::tenant::Tier;
use cloud_hub::keys::{Anchored, Custody, Keyring, NotThem, Progress};
use cloud_hub::store::person_seals;
use cloud_hub::store::resealing::PLACES;
use face_core::Space;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::support::{Place, SPACE, TestHub, skipped, template};

/// Found otherwise: see `keys::rotation`.
const FOUND_OTHERWISE: [&str; 2] = ["tenant_secret.sealed", "token_key.sealed"];

async fn sealed_columns(superuser: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND data_type = 'bytea' AND column_name ~ 'sealed' ORDER BY 1, 2",
    )
    .fetch_all(superuser)
    .await
    .unwrap()
}

/// How many seals of all columns are under a key.
async fn under(superuser: &mut PgConnection, key: &[u8]) -> i64 {
    let mut count = 0;
    for (table, column) in sealed_columns(superuser).await {
        let statement = format!("SELECT count(*) FROM {table} WHERE substr({column}, 2, 16) = $1");
        let found: i64 =
            sqlx::query_scalar(AssertSqlSafe(statement)).bind(key).fetch_one(&mut *superuser).await.unwrap();
        count += found;
    }
    count
}

/// The id of the key by which the tenant's blind index key is sealed.
async fn key_of(superuser: &mut PgConnection, tenant: TenantId) -> Vec<u8> {
    let found =
        sqlx::query_scalar("SELECT substr(sealed, 2, 16) FROM tenant_secret WHERE tenant_id = $1 AND kind = 'bi'");
    found.bind(tenant.0).fetch_one(superuser).await.unwrap()
}

async fn older(superuser: &mut PgConnection, seconds: i32) {
    sqlx::query("UPDATE tenant_secret SET created_at = created_at - make_interval(secs => $1) WHERE kind = 'tk'")
        .bind(f64::from(seconds))
        .execute(superuser)
        .await
        .unwrap();
}

struct Filled {
    place: Place,
    people: Vec<cloud_hub::domain::ids::PersonId>,
}

async fn filled(hub: &TestHub) -> Filled {
    let place = hub.place().await;
    let mut people = Vec::new();
    for axis in 0..3 {
        let person = hub.person(place.tenant, &format!("{axis}")).await;
        hub.enrol(place.tenant, person, axis).await;
        people.push(person);
    }
    let not_them = NotThem {
        space_id: SPACE.to_owned(),
        model_version: "1".to_owned(),
        quality: 0.5,
        embedding: template(20).embedding,
        confirmed: true,
    };
    let anchored = hub.custody.add_anchor(place.tenant, people[0], not_them, "test").await.unwrap();
    assert!(matches!(anchored, Anchored::Made { .. }));
    hub.custody.create_user(place.tenant, "ada@example.org", Role::Owner, "test").await.unwrap();
    let endpoint = EndpointId(Uuid::new_v4());
    hub.custody.create_webhook(place.tenant, endpoint, "https://hook.example/", None, "test").await.unwrap();
    Filled { place, people }
}

/// Everything opens, and is what it was.
async fn all_opens(custody: &Custody, filled: &Filled) {
    let tenant = filled.place.tenant;
    assert_eq!(custody.users(tenant).await.unwrap()[0].login, "ada@example.org");
    let link = custody.link(tenant, filled.place.device).await.unwrap();
    assert_eq!(*link.link_key, *filled.place.link.link_key);
    assert_eq!(*link.galleries[0].gdk, *filled.place.link.galleries[0].gdk);
    assert_eq!(*link.galleries[0].ck, *filled.place.link.galleries[0].ck);
    let space = Space::plain(SPACE);
    let unsealed = custody.unsealed(tenant, &space, HashSet::new(), HashSet::new()).await.unwrap();
    assert_eq!((unsealed.templates.new.len(), unsealed.anchors.new.len()), (3, 1));
    for person in &filled.people {
        custody.person_key(tenant, *person).await.unwrap();
    }
    custody.token_keys().await.unwrap();
}

async fn to_the_end(custody: &Custody, tenant: TenantId) -> (u64, Progress) {
    let mut resealed = 0;
    loop {
        match custody.go_on_with_tenant_key(tenant).await.unwrap() {
            Progress::Resealed(count) => resealed += count,
            other => return (resealed, other),
        }
    }
}

#[tokio::test]
async fn every_sealed_column_is_known_to_the_rotation() {
    if skipped("every_sealed_column_is_known_to_the_rotation") {
        return;
    }
    let hub = TestHub::start().await;
    let found = sealed_columns(&mut hub.superuser().await).await;
    let mut known: BTreeSet<String> = PLACES.iter().map(|place| format!("{}.{}", place.table, place.column)).collect();
    known.extend(person_seals::PLACES.iter().map(|place| format!("{}.{}", place.table, place.column)));
    known.extend(FOUND_OTHERWISE.map(str::to_owned));
    assert_eq!(found.iter().map(|(table, column)| format!("{table}.{column}")).collect::<BTreeSet<_>>(), known);
}

#[tokio::test]
async fn a_tenants_key_is_replaced_step_by_step_and_nothing_is_left_under_the_old_one() {
    if skipped("a_tenants_key_is_replaced_step_by_step_and_nothing_is_left_under_the_old_one") {
        return;
    }
    let hub = TestHub::start().await;
    let (filled, other) = (filled(&hub).await, hub.tenant().await);
    let (tenant, mut superuser) = (filled.place.tenant, hub.superuser().await);
    let (old, others) = (key_of(&mut superuser, tenant).await, key_of(&mut superuser, other).await);
    let before = under(&mut superuser, &old).await;
    assert!(before >= 6, "{before}");
    assert_eq!(hub.custody.go_on_with_tenant_key(tenant).await.unwrap(), Progress::Idle);

    let begun = hub.custody.rotate_tenant_key(tenant, "test").await.unwrap();
    assert_eq!(begun.iter().map(|key| (key.version, key.state)).collect::<Vec<_>>(), [(2, "opens"), (1, "seals")]);
    assert_eq!(hub.custody.rotate_tenant_key(tenant, "test").await.unwrap().len(), 2, "it is under way");
    assert_eq!(hub.custody.go_on_with_tenant_key(tenant).await.unwrap(), Progress::Waits);
    all_opens(&hub.custody, &filled).await;
    // Who has not heard of it yet seals under the old one still.
    let late = hub.person(tenant, "late").await;
    older(&mut superuser, 15).await;
    let (resealed, then) = to_the_end(&hub.custody, tenant).await;
    assert!(resealed >= u64::try_from(before).unwrap() + 4 && then == Progress::Waits, "{resealed} {then:?}");
    assert_eq!(under(&mut superuser, &old).await, 0);
    all_opens(&hub.custody, &filled).await;
    hub.custody.person_key(tenant, late).await.unwrap();

    older(&mut superuser, 60).await;
    assert_eq!(to_the_end(&hub.custody, tenant).await, (0, Progress::Done));
    let views = hub.custody.tenant_key_views(tenant).await.unwrap();
    assert_eq!(views.iter().map(|key| (key.version, key.state)).collect::<Vec<_>>(), [(2, "seals")]);
    all_opens(&hub.custody, &filled).await;
    let new = key_of(&mut superuser, tenant).await;
    assert!(under(&mut superuser, &new).await >= before, "all of it is under the new one");
    assert_eq!(key_of(&mut superuser, other).await, others, "another tenant's stays");
    let told: Vec<String> = sqlx::query_scalar(
        "SELECT action FROM audit_entry WHERE tenant_id = $1 AND action LIKE 'tenant.key%' ORDER BY at, id",
    )
    .bind(tenant.0)
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(told, ["tenant.key_rotate", "tenant.key_retire"]);
}

#[tokio::test]
async fn a_key_that_is_needed_still_does_not_go() {
    if skipped("a_key_that_is_needed_still_does_not_go") {
        return;
    }
    let hub = TestHub::start().await;
    let filled = filled(&hub).await;
    let (tenant, mut superuser) = (filled.place.tenant, hub.superuser().await);
    hub.custody.rotate_tenant_key(tenant, "test").await.unwrap();
    older(&mut superuser, 120).await;
    // Somebody holds a row: it is left out, and the key stays for it.
    let mut holder = hub.superuser().await;
    sqlx::query("BEGIN").execute(&mut holder).await.unwrap();
    sqlx::query("SELECT 1 FROM webhook_endpoint FOR UPDATE").execute(&mut holder).await.unwrap();
    let (_, then) = to_the_end(&hub.custody, tenant).await;
    assert_eq!(then, Progress::Waits);
    assert_eq!(hub.custody.tenant_key_views(tenant).await.unwrap().len(), 2);
    sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
    assert_eq!(to_the_end(&hub.custody, tenant).await, (1, Progress::Done));
    all_opens(&hub.custody, &filled).await;
}

#[tokio::test]
async fn the_master_key_is_replaced_and_the_old_one_is_gone() {
    if skipped("the_master_key_is_replaced_and_the_old_one_is_gone") {
        return;
    }
    let hub = TestHub::start().await;
    let filled = filled(&hub).await;
    let (tenant, mut superuser) = (filled.place.tenant, hub.superuser().await);
    hub.custody.token_keys().await.unwrap();
    let keys_dir = hub.dir.path().join("keys");
    let master = std::fs::read(keys_dir.join("master.key")).unwrap();
    let old: Vec<u8> =
        sqlx::query_scalar("SELECT substr(sealed, 2, 16) FROM token_key").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(under(&mut superuser, &old).await, 2);
    assert_eq!(hub.custody.go_on_with_master().await.unwrap(), Progress::Idle);

    let standing = hub.custody.rotate_master(false).await.unwrap();
    assert!(standing.has_previous && !standing.has_next && !standing.is_shared);
    all_opens(&hub.custody, &filled).await;
    let made = hub.custody.create_tenant("meanwhile", Tier::Basic, "test").await.unwrap();
    // Two rows, and two copies of tenants' keys outside the database, which are made under the new one.
    assert_eq!(hub.custody.go_on_with_master().await.unwrap(), Progress::Resealed(2));
    assert_eq!(under(&mut superuser, &old).await, 0);
    assert_eq!(hub.custody.go_on_with_master().await.unwrap(), Progress::Waits, "somebody may be at work under it");
    assert!(hub.custody.retire_master().await.is_err());
    let previous = keys_dir.join("master-previous.key");
    assert_eq!(std::fs::read(&previous).unwrap(), master);
    let then = SystemTime::now() - Duration::from_secs(61);
    std::fs::File::options().write(true).open(&previous).unwrap().set_modified(then).unwrap();
    assert_eq!(hub.custody.go_on_with_master().await.unwrap(), Progress::Done);
    assert!(!previous.exists() && std::fs::read(keys_dir.join("master.key")).unwrap() != master);
    all_opens(&hub.custody, &filled).await;
    hub.custody.tenant_keys(made).await.unwrap();
    let told: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit_entry WHERE tenant_id = $1 AND action = 'hub.master_key'")
            .bind(tenant.0)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn a_backup_of_the_database_from_before_a_rotation_opens() {
    if skipped("a_backup_of_the_database_from_before_a_rotation_opens") {
        return;
    }
    let hub = TestHub::start().await;
    let filled = filled(&hub).await;
    let (tenant, mut superuser) = (filled.place.tenant, hub.superuser().await);
    let tables: Vec<String> = sealed_columns(&mut superuser).await.into_iter().map(|(table, _)| table).collect();
    for table in tables.iter().collect::<HashSet<_>>() {
        let statement = format!("CREATE TABLE backup_{table} AS TABLE {table}");
        sqlx::query(AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
    }
    hub.custody.rotate_tenant_key(tenant, "test").await.unwrap();
    older(&mut superuser, 120).await;
    assert_eq!(to_the_end(&hub.custody, tenant).await.1, Progress::Done);
    hub.custody.rotate_master(false).await.unwrap();
    assert!(matches!(hub.custody.go_on_with_master().await.unwrap(), Progress::Resealed(_)));
    let previous = hub.dir.path().join("keys/master-previous.key");
    let then = SystemTime::now() - Duration::from_secs(61);
    std::fs::File::options().write(true).open(&previous).unwrap().set_modified(then).unwrap();
    assert_eq!(hub.custody.go_on_with_master().await.unwrap(), Progress::Done);

    // The database is as it was; the keys outside it go on.
    sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
    for table in tables.iter().collect::<HashSet<_>>() {
        for statement in [format!("DELETE FROM {table}"), format!("INSERT INTO {table} SELECT * FROM backup_{table}")] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut superuser).await.unwrap();
        }
    }
    let TestHub { dir, postgres, db, custody, links, clock } = hub;
    drop((custody, links));
    let keyring = Arc::new(Keyring::open(&dir.path().join("keys")).unwrap());
    let restored = Custody::new(db, keyring, clock);
    restored.rotate_token_keys(true, "test").await.unwrap();
    all_opens(&restored, &filled).await;
    // And the next rotation takes a number that no copy has.
    assert_eq!(restored.rotate_tenant_key(tenant, "test").await.unwrap()[0].version, 3);
    postgres.stop().await;
}
