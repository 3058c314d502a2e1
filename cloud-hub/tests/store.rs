//! The schema and the store against a real Postgres: isolation of tenants, transactions, order of the feed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock to wait for others"
)]

mod support;

use std::time::Duration;

use cloud_hub::domain::cursor::Cursor;
use cloud_hub::domain::event::NewEvent;
use cloud_hub::domain::ids::{DeviceId, EventId, TenantId};
use cloud_hub::keys::NewSite;
use cloud_hub::store::{Clash, Database, StoreError, audit, devices, events, places};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use support::{TestHub, skipped};
use uuid::Uuid;
use wire_contract::EventData;
use wire_contract::event::PersonDeletedData;

/// The only tables whose rows are not a tenant's alone: read before a tenant is known, ids and times only.
const ROUTING: [&str; 3] = ["route", "route_due", "route_unsealed"];

const TENANT_TABLES: &str = "
    SELECT c.oid, c.relname::text AS name, c.relrowsecurity, c.relforcerowsecurity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
    ORDER BY c.relname";

#[tokio::test]
async fn row_level_security_is_forced_with_both_clauses_on_every_tenant_table() {
    if skipped("row_level_security_is_forced_with_both_clauses_on_every_tenant_table") {
        return;
    }
    let hub = TestHub::start().await;
    let mut connection = hub.superuser().await;
    let tables = connection.fetch_all(TENANT_TABLES).await.unwrap();
    assert!(tables.len() >= 25, "found only {}", tables.len());
    for table in tables {
        let name: String = table.get("name");
        if ROUTING.contains(&name.as_str()) {
            continue;
        }
        assert!(table.get::<bool, _>("relrowsecurity"), "{name} has no row-level security");
        assert!(table.get::<bool, _>("relforcerowsecurity"), "{name} does not force it on its owner");
        let policies = sqlx::query(
            "SELECT polpermissive, polcmd::text AS command, pg_get_expr(polqual, polrelid) AS using,
                    pg_get_expr(polwithcheck, polrelid) AS checks, polroles = '{0}' AS everybody
             FROM pg_policy WHERE polrelid = $1",
        )
        .bind(table.get::<sqlx::postgres::types::Oid, _>("oid"))
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(policies.len(), 1, "{name}: one policy, so that none can widen another");
        let expected = "(tenant_id = (NULLIF(current_setting('lintel.tenant'::text, true), ''::text))::uuid)";
        for clause in ["using", "checks"] {
            assert_eq!(policies[0].get::<Option<String>, _>(clause).as_deref(), Some(expected), "{name} {clause}");
        }
        assert_eq!(policies[0].get::<String, _>("command"), "*", "{name}");
        assert!(policies[0].get::<bool, _>("everybody"), "{name}");
    }
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = ANY ($1) ORDER BY 1",
    )
    .bind(&ROUTING[..])
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(columns, ["active", "due_at", "id", "kind", "tenant_id"], "routing tables hold ids and times only");
}

#[tokio::test]
async fn every_key_of_a_tenant_table_is_led_by_the_tenant() {
    if skipped("every_key_of_a_tenant_table_is_led_by_the_tenant") {
        return;
    }
    let hub = TestHub::start().await;
    let mut connection = hub.superuser().await;
    let keys = connection
        .fetch_all(
            "SELECT k.conrelid::regclass::text AS name, k.conname::text AS key,
                    (SELECT attname::text FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = k.conkey[1]) AS first
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'public' AND k.contype IN ('p', 'u', 'f') AND EXISTS (
                 SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)",
        )
        .await
        .unwrap();
    assert!(keys.len() >= 50, "found only {}", keys.len());
    for key in keys {
        let name: String = key.get("name");
        if !ROUTING.contains(&name.as_str()) {
            assert_eq!(key.get::<String, _>("first"), "tenant_id", "{name}.{}", key.get::<String, _>("key"));
        }
    }
}

#[tokio::test]
async fn row_level_security_hides_and_refuses_rows_of_other_tenants() {
    if skipped("row_level_security_hides_and_refuses_rows_of_other_tenants") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let person = hub.person(place.tenant, "canary").await;
    hub.enrol(place.tenant, person, 3).await;
    let other = hub.tenant().await;

    let mut superuser = hub.superuser().await;
    let names: Vec<String> =
        superuser.fetch_all(TENANT_TABLES).await.unwrap().iter().map(|row| row.get::<String, _>("name")).collect();
    let names: Vec<String> = names.into_iter().filter(|name| !ROUTING.contains(&name.as_str())).collect();
    let mut app = hub.app().await;
    let mut filled = 0;
    for name in &names {
        let of_tenant = format!("SELECT count(*) FROM {name} WHERE tenant_id = '{}'", place.tenant);
        let rows = |text: String| AssertSqlSafe(text);
        let there: i64 = superuser.fetch_one(rows(of_tenant.clone())).await.unwrap().get(0);
        filled += usize::from(there > 0);
        for (setting, expected) in
            [(None, 0), (Some(String::new()), 0), (Some(other.to_string()), 0), (Some(place.tenant.to_string()), there)]
        {
            let mut tx = app.begin().await.unwrap();
            if let Some(setting) = &setting {
                sqlx::query("SELECT set_config('lintel.tenant', $1, true)")
                    .bind(setting)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
            }
            let seen: i64 = tx.fetch_one(rows(of_tenant.clone())).await.unwrap().get(0);
            assert_eq!(seen, expected, "{name} with setting {setting:?}");
            tx.rollback().await.unwrap();
        }
    }
    assert!(filled >= 15, "the test must have rows to hide; only {filled} tables have some");
    refuses_foreign_writes(&mut app, place.tenant, other).await;
}

/// `lintel_app` can neither write a row of another tenant, nor move one there, nor change one.
async fn refuses_foreign_writes(app: &mut PgConnection, owner: TenantId, intruder: TenantId) {
    let insert = "INSERT INTO site (tenant_id, id, name, time_zone) VALUES ($1, gen_random_uuid(), 'x', 'UTC')";
    let moved = "UPDATE site SET tenant_id = $1";
    for (as_tenant, statement) in [(intruder, insert), (owner, moved)] {
        let target = if as_tenant == owner { intruder } else { owner };
        let mut tx = app.begin().await.unwrap();
        sqlx::query("SELECT set_config('lintel.tenant', $1, true)")
            .bind(as_tenant.to_string())
            .execute(&mut *tx)
            .await
            .unwrap();
        let error = sqlx::query(statement).bind(target.0).execute(&mut *tx).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}: {error}");
        tx.rollback().await.unwrap();
    }
    let mut tx = app.begin().await.unwrap();
    sqlx::query("SELECT set_config('lintel.tenant', $1, true)")
        .bind(intruder.to_string())
        .execute(&mut *tx)
        .await
        .unwrap();
    for statement in
        ["UPDATE person SET revision = 99 WHERE tenant_id = $1", "DELETE FROM gallery_member WHERE tenant_id = $1"]
    {
        assert_eq!(
            sqlx::query(statement).bind(owner.0).execute(&mut *tx).await.unwrap().rows_affected(),
            0,
            "{statement}"
        );
    }
}

#[tokio::test]
async fn history_cannot_be_rewritten_by_the_application() {
    if skipped("history_cannot_be_rewritten_by_the_application") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let mut app = hub.app().await;
    for statement in [
        "UPDATE audit_entry SET actor = 'nobody'",
        "DELETE FROM audit_entry",
        "UPDATE event SET body = '{}'",
        "DELETE FROM event",
        // Rows of it go when a log is compacted; what they say never changes.
        "UPDATE gallery_version SET version = version + 1",
        "UPDATE schema_version SET version = 9",
    ] {
        let mut tx = app.begin().await.unwrap();
        sqlx::query("SELECT set_config('lintel.tenant', $1, true)")
            .bind(tenant.to_string())
            .execute(&mut *tx)
            .await
            .unwrap();
        let error = tx.execute(statement).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn migrations_run_twice_and_the_start_checks_what_the_design_relies_on() {
    if skipped("migrations_run_twice_and_the_start_checks_what_the_design_relies_on") {
        return;
    }
    let hub = TestHub::start().await;
    cloud_hub::store::migrate(&hub.postgres.owner()).await.unwrap();
    let superuser = Database::new(hub.postgres.superuser(), 1);
    assert!(matches!(superuser.check().await, Err(StoreError::Unfit(why)) if why.contains("superuser")));

    let mut connection = hub.superuser().await;
    for (change, back, expected) in [
        ("ALTER ROLE lintel_app BYPASSRLS", "ALTER ROLE lintel_app NOBYPASSRLS", "BYPASSRLS"),
        (
            "ALTER ROLE lintel_app SET synchronous_commit = off",
            "ALTER ROLE lintel_app RESET synchronous_commit",
            "synchronous_commit",
        ),
        (
            "UPDATE schema_version SET version = version + 1",
            "UPDATE schema_version SET version = version - 1",
            &format!("version {}", cloud_hub::store::SCHEMA_VERSION + 1),
        ),
    ] {
        connection.execute(change).await.unwrap();
        let error = Database::new(hub.postgres.app(), 1).check().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{change}: {error}");
        connection.execute(back).await.unwrap();
    }
    Database::new(hub.postgres.app(), 1).check().await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_open_transaction_behind() {
    if skipped("a_caller_that_goes_away_leaves_no_open_transaction_behind") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let db = Database::new(hub.postgres.app(), 2);
    for wait_us in (0..3_000).step_by(50) {
        let request = db.tenant(tenant, |tx| {
            Box::pin(async move {
                places::sites(tx).await?;
                events::head(tx).await
            })
        });
        // The client goes away after this long; the transaction runs on by itself.
        let _ = tokio::time::timeout(Duration::from_micros(wait_us), request).await;
    }
    db.tenant(tenant, |tx| Box::pin(places::sites(tx))).await.unwrap();
    let mut connection = hub.superuser().await;
    let open: i64 = connection
        .fetch_one(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND usename = 'lintel_app'",
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(open, 0);
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_nothing_and_its_connection_stays_usable() {
    if skipped("a_transaction_that_fails_leaves_nothing_and_its_connection_stays_usable") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let db = Database::new(hub.postgres.app(), 1);
    let failed: Result<(), StoreError> = db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                let entry = audit::Entry {
                    actor: "x",
                    action: audit::Action::PersonRead,
                    object_kind: "x",
                    object_id: None,
                    detail: serde_json::json!({}),
                };
                audit::write(tx, entry).await?;
                Err(StoreError::NotFound { what: "x", id: Uuid::nil() })
            })
        })
        .await;
    assert!(failed.is_err());
    let mut connection = hub.superuser().await;
    let written: i64 = connection.fetch_one("SELECT count(*) FROM audit_entry WHERE actor = 'x'").await.unwrap().get(0);
    assert_eq!(written, 0);
    // A panic in the work must not poison the only connection of the pool either.
    let panicked: Result<(), StoreError> = db.tenant(tenant, |_| Box::pin(async { panic!("on purpose") })).await;
    assert!(matches!(panicked, Err(StoreError::Aborted)));
    db.tenant(tenant, |tx| Box::pin(places::sites(tx))).await.unwrap();
}

#[tokio::test]
async fn what_was_not_committed_is_no_answer() {
    if skipped("what_was_not_committed_is_no_answer") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, db) = (hub.tenant().await, Database::new(hub.postgres.app(), 1));
    let mut superuser = hub.superuser().await;
    let outcome: Result<&str, StoreError> = db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                places::sites(tx).await?;
                // The database loses the connection between the last statement and the commit.
                let ended = superuser
                    .fetch_all("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state = 'idle in transaction'")
                    .await?;
                assert_eq!(ended.len(), 1);
                Ok("done")
            })
        })
        .await;
    assert!(outcome.is_err(), "told as done although nothing was committed");
}

#[tokio::test]
async fn unique_clashes_and_foreign_rows_are_told_by_name() {
    if skipped("unique_clashes_and_foreign_rows_are_told_by_name") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, other) = (hub.tenant().await, hub.tenant().await);
    let site = hub.site(tenant, "lobby").await;
    let again =
        NewSite { id: cloud_hub::domain::ids::SiteId(Uuid::new_v4()), name: "lobby".into(), time_zone: "UTC".into() };
    let error = hub.custody.create_site(tenant, again, "test").await.unwrap_err();
    assert_eq!(error.to_string(), "site name is already taken");
    // The same name in another tenant is nobody's business.
    hub.site(other, "lobby").await;
    let device = DeviceId(Uuid::new_v4());
    let foreign = hub.db.tenant(other, move |tx| Box::pin(devices::create(tx, device, site, "x"))).await;
    assert!(foreign.is_err(), "a device cannot stand at another tenant's site");
    hub.person(tenant, "ada").await;
    let profile = cloud_hub::domain::people::Profile {
        external_id: Some("ada".into()),
        name: "A".into(),
        email: None,
        access: Default::default(),
    };
    let id = cloud_hub::domain::ids::PersonId(Uuid::new_v4());
    let error = hub.custody.create_person(tenant, id, profile, None, "test").await.unwrap_err();
    assert!(matches!(error, cloud_hub::keys::KeysError::Store(StoreError::Clash(Clash::ExternalId))), "{error}");
    assert!(hub.custody.person_key(tenant, id).await.is_err(), "the key of nobody was not kept");
}

#[tokio::test]
async fn positions_of_the_feed_follow_the_order_of_commit() {
    if skipped("positions_of_the_feed_follow_the_order_of_commit") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let (db, now) = (hub.db.clone(), hub.clock.now());
    let append = |delay: Duration| {
        let db = db.clone();
        async move {
            db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    let person = wire_contract::PersonId(Uuid::nil());
                    let data = EventData::PersonDeleted(PersonDeletedData { person });
                    let event = NewEvent::from_hub(EventId(Uuid::new_v4()), None, now, &data);
                    let at = events::append(tx, &[event], now).await?;
                    // Held open on purpose: a later transaction must not get a position and commit before this one.
                    tokio::time::sleep(delay).await;
                    Ok::<_, StoreError>(at)
                })
            })
            .await
            .unwrap()
        }
    };
    let reader = async {
        let mut seen = Cursor::default();
        while seen.0 < 20 {
            let page = db.tenant(tenant, move |tx| Box::pin(events::page(tx, seen, 100, None))).await.unwrap();
            for event in page {
                assert_eq!(event.position, seen.0 + 1, "a reader must never find a gap that is filled afterwards");
                seen = Cursor(event.position);
            }
        }
    };
    let writers =
        futures::future::join_all((0..20).map(|n| append(Duration::from_millis(if n % 3 == 0 { 20 } else { 0 }))));
    let (mut positions, ()) = futures::join!(writers, reader);
    positions.sort();
    assert_eq!(positions, (1..=20).map(Cursor).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_two_hubs_one_at_a_time_writes_the_brokers_lists() {
    if skipped("of_two_hubs_one_at_a_time_writes_the_brokers_lists") {
        return;
    }
    let hub = TestHub::start().await;
    let turn = hub.db.lists_turn().await.unwrap();
    let (other, soon) = (hub.db.clone(), Duration::from_millis(300));
    let mut waiting = tokio::spawn(async move { other.lists_turn().await.map(drop) });
    assert!(tokio::time::timeout(soon, &mut waiting).await.is_err(), "both write at once");
    drop(turn);
    waiting.await.unwrap().unwrap();
    // One that stands still in the middle of it keeps nobody from it for long.
    let _stands_still = hub.db.lists_turn().await.unwrap();
    let begun = std::time::Instant::now();
    let _next = hub.db.lists_turn().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}
