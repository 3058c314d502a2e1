//! Indexes over searchable vectors: made for large galleries, used, replaced when cut off, and gone with whom they are for.

use std::time::{Duration, Instant};

use cloud_hub::domain::ids::{PersonId, TenantId};
use cloud_hub::jobs::VectorIndexes;
use cloud_hub::keys::Way;
use cloud_hub::recognition::{Comparisons, Galleries, SearchPath, Served};
use cloud_hub::store::vector_indexes::Builder;
use cloud_hub::store::vectors::{self, Among, Index, Near, index_name};
use cloud_hub::store::{StoreError, tenants};
use pgvector::Vector;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::support::{SPACE, TestHub, skipped, template};
use crate::vectors::{like, somebody, space};

const PATIENCE: Duration = Duration::from_secs(30);
/// The limit of these tests.
const ABOVE: usize = 40;

fn job(hub: &TestHub) -> VectorIndexes {
    VectorIndexes { db: hub.db.clone(), owner: hub.postgres.owner(), above: ABOVE }
}

/// A tenant with so many templates, ten of each person.
async fn tenant_of(hub: &TestHub, templates: usize) -> (TenantId, Vec<PersonId>) {
    let tenant = hub.place().await.tenant;
    let mut people = Vec::new();
    for axis in 0..templates {
        if axis % 10 == 0 {
            people.push(hub.person(tenant, &format!("p{axis}")).await);
        }
        hub.enrol(tenant, people[axis / 10], axis).await;
    }
    (tenant, people)
}

async fn indexes(superuser: &mut PgConnection) -> Vec<(String, bool)> {
    sqlx::query_as(
        "SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         JOIN pg_am am ON am.oid = c.relam WHERE am.amname = 'hnsw' ORDER BY 1",
    )
    .fetch_all(superuser)
    .await
    .unwrap()
}

async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it takes too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How the server would carry out the search by the index.
async fn plan(hub: &TestHub, tenant: TenantId) -> String {
    let mut app = hub.app().await;
    let probe = Vector::from(template(0).embedding.to_vec());
    app.execute(AssertSqlSafe(format!("BEGIN; SET LOCAL lintel.tenant = '{tenant}'; SET LOCAL enable_sort = off")))
        .await
        .unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN {}", vectors::by_index(tenant, SPACE)));
    let rows = sqlx::query(explain).bind(probe).bind(10_i64).persistent(false).fetch_all(&mut app).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn an_index_is_made_above_the_limit_and_used_and_goes_with_its_tenant() {
    if skipped("an_index_is_made_above_the_limit_and_used_and_goes_with_its_tenant") {
        return;
    }
    let hub = TestHub::start().await;
    let mut superuser = hub.superuser().await;
    let ((large, people), (small, _)) = (tenant_of(&hub, ABOVE + 10).await, tenant_of(&hub, ABOVE).await);
    let (other, _) = tenant_of(&hub, ABOVE + 1).await;
    // A space may be called anything.
    let odd = r"it's; \ 'DROP TABLE person' --";
    for axis in 0..=ABOVE {
        let new = cloud_hub::keys::NewTemplate { space_id: odd.to_owned(), ..template(axis) };
        hub.custody.enrol(other, hub_person(&hub, other).await, None, new, "test").await.unwrap();
    }
    job(&hub).round().await.unwrap();
    let mut expected =
        [index_name(large, SPACE), index_name(other, SPACE), index_name(other, odd)].map(|name| (name, true));
    expected.sort();
    assert_eq!(indexes(&mut superuser).await, expected);
    let used = plan(&hub, large).await;
    assert!(used.contains(&format!("Index Scan using {}", index_name(large, SPACE))), "{used}");
    assert!(!plan(&hub, small).await.contains("template_vector_near_"), "nobody's index serves another");

    // It serves the searches, and finds whom a scan finds.
    let galleries = Galleries::new(hub.custody.clone(), 0);
    let path = |tenant| {
        let galleries = &galleries;
        async move {
            let all = galleries.paths(&[tenant]).await.unwrap();
            let serving = all.into_iter().find(|one| one.space_id == SPACE).unwrap();
            (serving.path, serving.index)
        }
    };
    assert_eq!(path(large).await, (SearchPath::Index, Index::Valid));
    assert_eq!(path(small).await, (SearchPath::Scan, Index::None));
    let by = Comparisons::new(1, 1);
    for axis in [0, 17, 45] {
        let served = galleries.of(large, &space()).await.unwrap();
        assert!(matches!(served, Served::Vectors(_)));
        let probe = face_core::Embedding::from_slice(template(axis).embedding.as_slice()).unwrap();
        let found = served.found(&by, probe, 1).await.unwrap();
        assert_eq!(found.nearest[0].person.0, people[axis / 10].0);
    }
    let odd_rotated = *template(7).embedding;
    let near = hub
        .db
        .tenant(other, move |tx| Box::pin(async move { vectors::nearest_by_index(tx, odd, &odd_rotated, 5).await }));
    assert_eq!(near.await.unwrap().len(), 5);

    // While one seed takes another's place the index has vectors that cannot be compared: all are looked at.
    hub.custody.rotate_seeds(large, "test").await.unwrap();
    let probe = face_core::Embedding::from_slice(template(45).embedding.as_slice()).unwrap();
    let near = hub.custody.near(large, &space(), &probe, (None, true), 5).await.unwrap();
    assert_eq!((near.0, near.1[0].person), (Way::Scan, people[4]));
    assert_eq!(path(large).await, (SearchPath::Scan, Index::Valid));

    // It stays while a few leave, and goes when many have, or all.
    job(&hub).round().await.unwrap();
    assert_eq!(indexes(&mut superuser).await.len(), 3);
    hub.custody.delete_person(large, people[0], "test").await.unwrap();
    job(&hub).round().await.unwrap();
    assert_eq!(path(large).await.1, Index::Valid);
    hub.custody.delete_person(large, people[1], "test").await.unwrap();
    job(&hub).round().await.unwrap();
    assert_eq!(path(large).await, (SearchPath::Scan, Index::None));
    let now = hub.clock.now();
    hub.db.tenant(other, move |tx| Box::pin(tenants::suspend(tx, Some(now)))).await.unwrap();
    hub.custody.delete_tenant(other, "tenant", "test").await.unwrap();
    job(&hub).round().await.unwrap();
    assert_eq!(indexes(&mut superuser).await, []);
}

async fn hub_person(hub: &TestHub, tenant: TenantId) -> PersonId {
    hub.person(tenant, &Uuid::new_v4().to_string()).await
}

#[tokio::test]
async fn an_index_that_was_cut_off_serves_nobody_and_is_made_anew() {
    if skipped("an_index_that_was_cut_off_serves_nobody_and_is_made_anew") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, people) = tenant_of(&hub, ABOVE + 5).await;
    let mut superuser = hub.superuser().await;
    // Somebody writes, whom an index in the making waits for.
    let mut writer = hub.superuser().await;
    writer.execute("BEGIN; LOCK TABLE template_vector IN ROW EXCLUSIVE MODE").await.unwrap();
    let making = tokio::spawn({
        let job = job(&hub);
        async move { job.round().await }
    });
    until(async || (!indexes(&mut superuser).await.is_empty()).then_some(())).await;
    assert_eq!(indexes(&mut superuser).await, [(index_name(tenant, SPACE), false)]);
    // Meanwhile nobody else makes one, everybody enrols, and searches look at all vectors.
    assert!(Builder::of(&hub.postgres.owner()).await.unwrap().is_none());
    hub.enrol(tenant, people[0], 100).await;
    let galleries = Galleries::new(hub.custody.clone(), 0);
    let serving = galleries.paths(&[tenant]).await.unwrap().remove(0);
    assert_eq!((serving.path, serving.index), (SearchPath::Scan, Index::Invalid));
    let probe = face_core::Embedding::from_slice(template(100).embedding.as_slice()).unwrap();
    let found = galleries.of(tenant, &space()).await.unwrap().found(&Comparisons::new(1, 1), probe, 1).await.unwrap();
    assert_eq!(found.nearest[0].person.0, people[0].0);

    superuser
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cloud-hub vector indexes'")
        .await
        .unwrap();
    let _ = making.await.unwrap();
    writer.execute("ROLLBACK").await.unwrap();
    assert_eq!(indexes(&mut superuser).await, [(index_name(tenant, SPACE), false)]);
    // The lock goes with the session, which ends a moment later.
    until(async || {
        job(&hub).round().await.unwrap();
        (indexes(&mut superuser).await == [(index_name(tenant, SPACE), true)]).then_some(())
    })
    .await;
    assert!(plan(&hub, tenant).await.contains("Index Scan using"));
}

/// Templates of the measurement.
const MANY: usize = 4_000;

#[tokio::test]
#[allow(clippy::print_stderr, reason = "what was measured is told")]
async fn the_index_finds_nearly_everybody_whom_a_scan_finds() {
    if skipped("the_index_finds_nearly_everybody_whom_a_scan_finds") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    let mut rng = StdRng::seed_from_u64(9);
    let faces: Vec<_> = (0..MANY).map(|_| somebody(&mut rng)).collect();
    let mut superuser = hub.superuser().await;
    // Vectors alone: what they belong to is not looked at.
    superuser.execute("SET session_replication_role = replica").await.unwrap();
    for batch in faces.chunks(500) {
        let ids: Vec<Uuid> = batch.iter().map(|_| Uuid::new_v4()).collect();
        sqlx::query(
            "INSERT INTO template_vector (tenant_id, template_id, person_id, space_id, vector)
             SELECT $1, id, id, $2, vector FROM unnest($3::uuid[], $4::vector[]) AS new (id, vector)",
        )
        .bind(tenant.0)
        .bind(SPACE)
        .bind(ids)
        .bind(batch.iter().map(|face| Vector::from(face.as_slice().to_vec())).collect::<Vec<_>>())
        .execute(&mut superuser)
        .await
        .unwrap();
    }
    let began = Instant::now();
    Builder::of(&hub.postgres.owner()).await.unwrap().unwrap().make(tenant, SPACE, MANY).await.unwrap();
    let made = began.elapsed();
    assert!(plan(&hub, tenant).await.contains("Index Scan using"));

    let (mut of_two, mut of_ten, mut first, mut took) = (0, 0, 0, [Duration::ZERO; 2]);
    const PROBES: usize = 200;
    for number in 0..PROBES {
        // Strangers, and people as they look to a door at the worst.
        let probe = if number % 2 == 0 { somebody(&mut rng) } else { like(&mut rng, &faces[number * 7], 0.5) };
        let rotated = *probe.as_slice();
        let mut found: [Vec<Near>; 2] = Default::default();
        for (way, found) in found.iter_mut().enumerate() {
            let began = Instant::now();
            let near = hub.db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    Ok::<_, StoreError>(match way {
                        0 => vectors::nearest(tx, SPACE, (1, &rotated), Among::default(), 10).await?,
                        _ => vectors::nearest_by_index(tx, SPACE, &rotated, 1_000).await?,
                    })
                })
            });
            *found = near.await.unwrap();
            took[way] += began.elapsed();
        }
        let [exact, index] = found;
        let in_index =
            |of: &[Near]| of.iter().filter(|near| index.iter().any(|one| one.template == near.template)).count();
        first += usize::from(exact[0].template == index[0].template);
        of_two += in_index(&exact[..2]);
        of_ten += in_index(&exact);
    }
    let share = |found: usize, of: usize| found as f64 / (of * PROBES) as f64;
    let (first, of_two, of_ten) = (share(first, 1), share(of_two, 2), share(of_ten, 10));
    eprintln!(
        "{MANY} vectors, index in {made:?}: the nearest {first}, of two {of_two}, of ten {of_ten}; scan, index {took:?}"
    );
    assert!(first >= 0.99 && of_two >= 0.99 && of_ten >= 0.99, "{first} {of_two} {of_ten}");
}
