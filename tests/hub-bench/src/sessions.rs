//! Sessions: how long it takes to open one, beside a bare commit, and five hundred of them open at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Mutex;

use crate::load;
use crate::rig::{Asking, Rig, answer};

/// Wanted of the 95th percentile, in milliseconds; the specification is content with 200.
const GOAL_MS: f64 = 50.0;
/// Wanted at once.
const OPEN: usize = 500;
const PER_SECOND: f64 = 50.0;

pub(crate) async fn measure(rig: &Rig) -> Result<Map<String, Value>> {
    let asking = rig.tenant("Sessions")?;
    // As long as a tenant may say: the first is still open when the last one is.
    let settings = json!({ "authentication_s": 600, "enrolment_s": 3_600 });
    answer(asking.request(Method::PUT, "/v1/tenant/sessions").json(&settings), StatusCode::OK).await?;
    let lasting = Duration::from_secs_f64(OPEN as f64 / PER_SECOND);
    let floor = bare_commits(rig, lasting).await?;
    let opening = asking.clone();
    let open = move |_| {
        let request =
            opening.request(Method::POST, "/v1/sessions/authentication").json(&json!({ "kind": "identification" }));
        async move { answer(request, StatusCode::CREATED).await.map(drop) }
    };
    let opened = load::open(PER_SECOND, lasting, open).await?;
    let open = still_open(&asking).await?;
    let p95 = opened.percentile(95);
    Ok(Map::from_iter([(
        "open_session".to_owned(),
        json!({
            "ok": p95 < GOAL_MS && open >= OPEN, "p95_ms": p95, "goal_ms": GOAL_MS, "ratio": p95 / floor.percentile(95),
            "open_at_once": open, "goal_open_at_once": OPEN, "load": opened.told(), "bare_commit": floor.told(),
        }),
    )]))
}

/// One row and one commit a request, from one connection.
async fn bare_commits(rig: &Rig, lasting: Duration) -> Result<load::Load> {
    let mut database = PgConnection::connect(&rig.hub().ready().postgres).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS bare_commit (id uuid PRIMARY KEY, made_at timestamptz NOT NULL)")
        .execute(&mut database)
        .await?;
    let database = Arc::new(Mutex::new(database));
    load::open(PER_SECOND, lasting, move |_| {
        let database = Arc::clone(&database);
        async move {
            let insert = sqlx::query("INSERT INTO bare_commit VALUES (gen_random_uuid(), now())");
            insert.execute(&mut *database.lock().await).await?;
            Ok(())
        }
    })
    .await
}

/// Sessions that are open now, as the list has them.
async fn still_open(asking: &Asking) -> Result<usize> {
    let (mut open, mut path) = (0, String::from("/v1/sessions?limit=100"));
    loop {
        let page = answer(asking.request(Method::GET, &path), StatusCode::OK).await?;
        let sessions = page["data"].as_array().context("no sessions in the page")?;
        ensure!(!sessions.is_empty() || open == 0, "an empty page was promised more");
        open += sessions.iter().filter(|session| session["state"] == "initialized").count();
        let Some(next) = page["next_cursor"].as_str() else { return Ok(open) };
        path = format!("/v1/sessions?limit=100&cursor={next}");
    }
}
