//! The end of a tenant: nothing of it is left or can be read, whatever is killed, and its neighbour stays as it was.

mod furnished;

use std::path::Path;
use std::time::{Duration, Instant};

use cloud_hub::domain::audit::Signature;
use cloud_hub::domain::ids::TenantId;
use cloud_hub::domain::tenant::Tier;
use cloud_hub::jobs::Deletions;
use cloud_hub::keys::{KeysError, NotDeleted, Step};
use cloud_hub::store::erasure::{self, Standing};
use cloud_hub::store::{StoreError, routes, tenants};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

use self::furnished::{Furnished, STAYS, furnish, tables, told};
use crate::audit::{Running, keys, start, until_headed, until_sealed, verified};
use crate::support::{TestHub, skipped};

const PATIENCE: Duration = Duration::from_secs(60);

async fn suspend(hub: &TestHub, tenant: TenantId) {
    let now = hub.clock.now();
    hub.db.tenant(tenant, move |tx| Box::pin(tenants::suspend(tx, Some(now)))).await.unwrap();
}

async fn standing(hub: &TestHub, tenant: TenantId) -> Option<Standing> {
    hub.db.tenant(tenant, |tx| Box::pin(erasure::standing(tx))).await.unwrap()
}

fn job(hub: &TestHub, batch: u32) -> Deletions {
    Deletions { db: hub.db.clone(), custody: hub.custody.clone(), clock: hub.clock.clone(), batch }
}

/// Two tenants with rows in every table, and a sealer.
async fn two_tenants(hub: &TestHub, superuser: &mut PgConnection, heads: &Path) -> ([Furnished; 2], Running) {
    let sealer = start(hub, &hub.db, heads);
    let both = [furnish(hub, superuser).await, furnish(hub, superuser).await];
    until_sealed(hub).await;
    for one in &both {
        until_headed(hub, one.tenant).await;
    }
    for one in &both {
        let empty: Vec<String> = told(superuser, one.tenant)
            .await
            .into_iter()
            .filter(|(table, (rows, _))| *rows == 0 && table != STAYS && table != "route_unsealed")
            .map(|(table, _)| table)
            .collect();
        assert_eq!(empty, Vec::<String>::new(), "a table of which the test has no row: put one into `furnished`");
    }
    (both, sealer)
}

#[tokio::test]
async fn a_tenant_goes_whole_whatever_is_killed_and_its_neighbour_stays_as_it_was() {
    if skipped("a_tenant_goes_whole_whatever_is_killed_and_its_neighbour_stays_as_it_was") {
        return;
    }
    let hub = TestHub::start().await;
    let heads = tempfile::tempdir().unwrap();
    let mut superuser = hub.superuser().await;
    let ([gone, stays], sealer) = two_tenants(&hub, &mut superuser, heads.path()).await;
    let (before, counted) = (told(&mut superuser, stays.tenant).await, told(&mut superuser, gone.tenant).await);
    // What somebody has who took a copy of the database and of the tenant's keys in time.
    let kept_keys = hub.custody.tenant_keys(gone.tenant).await.unwrap();

    let delete = |name: &'static str| hub.custody.delete_tenant(gone.tenant, name, "test");
    assert!(matches!(delete("tenant").await, Err(NotDeleted::NotSuspended)));
    suspend(&hub, gone.tenant).await;
    assert!(matches!(delete("Tenant").await, Err(NotDeleted::OtherName)));
    assert!(hub.custody.person_key(gone.tenant, gone.people[0]).await.is_ok(), "a refusal ends nothing");
    let ended = delete("tenant").await.unwrap();
    assert_eq!((ended.devices, ended.consumers.len()), (vec![gone.device], 1));

    // At once: whatever lies in a copy, the keys of its people are nowhere.
    for person in &gone.people {
        let found = hub.custody.keyring().person(&kept_keys, *person);
        assert!(matches!(found, Err(KeysError::NoPersonKey(_))), "{person} can be read in a copy of the database");
    }
    assert!(matches!(hub.custody.tenant_keys(gone.tenant).await, Err(KeysError::NoTenantKey(_))));
    assert_eq!(hub.custody.recognise(&gone.key).await.unwrap(), None);
    assert_eq!(routes::tenant_of_device(&hub.db, gone.device).await.unwrap(), None);
    assert_eq!(routes::tenants(&hub.db).await.unwrap(), [stays.tenant]);
    assert_eq!(routes::tenants_with_consumers(&hub.db).await.unwrap(), [stays.tenant]);

    // Killed in the middle, between batches and in them; in the end two hubs at once.
    for round in 0..12 {
        let working = tokio::spawn({
            let job = job(&hub, 3);
            async move { job.round().await }
        });
        tokio::time::sleep(Duration::from_millis(20 + round * 9)).await;
        working.abort();
        let _ = working.await;
    }
    assert!(standing(&hub, gone.tenant).await.unwrap().receipt.is_none(), "the test must be quicker than the job");
    let begun = Instant::now();
    while standing(&hub, gone.tenant).await.unwrap().receipt.is_none() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", erased_rows(&mut superuser, gone.tenant).await);
        let (one, other) = (job(&hub, 50), job(&hub, 50));
        futures::join!(one.round(), other.round());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sealer.stop().await;

    assert_eq!(erased_rows(&mut superuser, gone.tenant).await, [(STAYS.to_owned(), 1)]);
    assert_eq!(told(&mut superuser, stays.tenant).await, before, "the neighbour");
    for person in &stays.people {
        hub.custody.person_key(stays.tenant, *person).await.unwrap();
    }
    for table in tables(&mut superuser).await {
        let statement = format!("SELECT count(*) FROM \"{table}\" t WHERE tenant_id = $1 AND t::text LIKE '%canary%'");
        let found = sqlx::query_scalar(AssertSqlSafe(statement)).bind(gone.tenant.0).fetch_one(&mut superuser);
        let found: i64 = found.await.unwrap();
        assert_eq!(found, 0, "{table} tells something of it");
    }
    hub.custody.recognise(&stays.key).await.unwrap().unwrap();

    // It can be proved, and the heads that lie outside are no sign of tampering.
    let receipt = standing(&hub, gone.tenant).await.unwrap().receipt.unwrap();
    assert_eq!(receipt.signature(&keys(&hub)), Signature::Good);
    assert_eq!((receipt.erased.person_keys, receipt.erased.removed["person"]), (5, 5));
    for table in ["event", "webhook_delivery", "template", "gallery_record", "command", "consumer", "site", "tenant"] {
        assert_eq!(receipt.erased.removed[table], counted[table].0.unsigned_abs(), "{table}");
    }
    let report = verified(&hub, heads.path()).await;
    assert!(report.is_well(), "{report:?}");
    let of_gone = report.reports.iter().find(|report| report.tenant == gone.tenant).unwrap();
    assert_eq!(of_gone.erased_at, Some(receipt.erased.finished_at));
    assert_eq!(of_gone.covered, receipt.erased.head.unwrap().position);

    // Its id is nobody's again.
    let again = hub.db.tenant(gone.tenant, |tx| Box::pin(tenants::create(tx, "again", Tier::Basic))).await;
    assert!(matches!(again, Err(StoreError::Clash(_))), "{again:?}");
    assert_eq!(hub.custody.empty_tenant(gone.tenant, 0, 10).await.unwrap(), Step::Gone);
    tampered_receipts_are_found(&hub, &mut superuser, gone.tenant, heads.path()).await;
}

async fn erased_rows(superuser: &mut PgConnection, tenant: TenantId) -> Vec<(String, i64)> {
    let told = told(superuser, tenant).await;
    told.into_iter().map(|(table, (rows, _))| (table, rows)).filter(|(_, rows)| *rows > 0).collect()
}

/// Whoever owns the database cannot remove a tenant and say that the hub did.
async fn tampered_receipts_are_found(hub: &TestHub, superuser: &mut PgConnection, tenant: TenantId, heads: &Path) {
    superuser.execute("SET session_replication_role = replica").await.unwrap();
    superuser.execute("CREATE TABLE kept_receipt AS SELECT * FROM erased_tenant").await.unwrap();
    for (change, expected) in [
        ("UPDATE erased_tenant SET removed = '{}'", "forged_receipt"),
        ("UPDATE erased_tenant SET head_position = head_position - 1", "receipt_differs"),
        ("UPDATE erased_tenant SET head_number = head_number - 1, head_position = 1", "database_older"),
        ("UPDATE erased_tenant SET finished_at = NULL, key_id = NULL, signature = NULL", "deleting"),
        ("DELETE FROM erased_tenant", "no_tenant"),
    ] {
        superuser.execute(change).await.unwrap();
        let verified = verified(hub, heads).await;
        let found =
            verified.reports.iter().filter(|report| report.tenant == tenant).flat_map(|report| &report.findings);
        let found: Vec<&str> = found.map(|finding| finding.kind()).collect();
        assert!(found.contains(&expected), "{change}: {found:?}");
        superuser.execute("TRUNCATE erased_tenant").await.unwrap();
        superuser.execute("INSERT INTO erased_tenant SELECT * FROM kept_receipt").await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_removed_of_a_tenant_that_is_not_marked_and_a_mark_is_not_taken_back() {
    if skipped("nothing_is_removed_of_a_tenant_that_is_not_marked_and_a_mark_is_not_taken_back") {
        return;
    }
    let hub = TestHub::start().await;
    let (served, marked) = (hub.place().await.tenant, hub.place().await.tenant);
    suspend(&hub, marked).await;
    hub.custody.delete_tenant(marked, "tenant", "test").await.unwrap();
    let mut app = hub.app().await;
    let mut ask = async |tenant: TenantId, statement: &str| {
        let mut tx = app.begin().await.unwrap();
        sqlx::query("SELECT set_config('lintel.tenant', $1, true)")
            .bind(tenant.to_string())
            .execute(&mut *tx)
            .await
            .unwrap();
        let answer = tx.fetch_one(AssertSqlSafe(statement.to_owned())).await;
        tx.rollback().await.unwrap();
        answer
            .map(|row| row.get::<i64, _>(0))
            .map_err(|error| error.as_database_error().unwrap().code().unwrap().to_string())
    };
    let remove = |table: &str| format!("SELECT remove_rows_of_deleted_tenant('{table}', 10)");
    let refused = Err(String::from("42501"));
    for table in ["site", "audit_entry", "tenant", "person"] {
        assert_eq!(ask(served, &remove(table)).await, refused, "{table} of a tenant that is served");
    }
    for table in
        ["audit_entry", "audit_head", "tenant", "route", "erased_tenant", "pg_class", "schema_version", "no_such"]
    {
        assert_eq!(ask(marked, &remove(table)).await, refused, "{table} of a tenant whose audit is open");
    }
    // The control: what may go goes, of this tenant alone.
    assert_eq!(ask(marked, &remove("device_link")).await, Ok(1));
    assert_eq!(ask(marked, "SELECT count(*) FROM site").await, Ok(1));
    let mut change = async |statement: &'static str, expected: &str| {
        let mut tx = app.begin().await.unwrap();
        sqlx::query("SELECT set_config('lintel.tenant', $1, true)")
            .bind(marked.to_string())
            .execute(&mut *tx)
            .await
            .unwrap();
        let error = tx.execute(statement).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some(expected), "{statement}");
        tx.rollback().await.unwrap();
    };
    change("UPDATE tenant SET deleting_since = NULL", "42501").await;
    change("UPDATE tenant SET suspended_at = NULL", "23514").await;
    change("UPDATE erased_tenant SET began_at = now() + interval '1 day'", "42501").await;
    change("DELETE FROM erased_tenant", "42501").await;

    // Without a sealer its audit waits, and all else goes.
    job(&hub, 1_000).round().await;
    let mut superuser = hub.superuser().await;
    let left: Vec<String> = erased_rows(&mut superuser, marked).await.into_iter().map(|(table, _)| table).collect();
    assert_eq!(left, ["audit_entry", STAYS, "route", "route_due", "route_unsealed", "tenant"]);
    assert_eq!(hub.custody.empty_tenant(marked, 0, 10).await.unwrap(), Step::Waits);
}
