//! A hundred connections to the database, all at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::load;
use crate::rig::{CONNECTIONS, Rig, answer};

/// Callers at once, over as many connections to the hub as HTTP/2's streams need.
const CALLERS: usize = 200;
const CLIENTS: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn measure(rig: &Rig, lasting: Duration) -> Result<Map<String, Value>> {
    let asking = rig.tenant("Connections")?;
    let mut database = PgConnection::connect(&rig.hub().ready().postgres).await?;
    let most = Arc::new(AtomicI64::new(0));
    let seen = Arc::clone(&most);
    let watch = tokio::spawn(async move {
        loop {
            let found: i64 =
                sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cloud-hub'")
                    .fetch_one(&mut database)
                    .await
                    .unwrap_or(0);
            seen.fetch_max(found, Ordering::Relaxed);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let clients = (0..CLIENTS).map(|_| asking.again(rig.hub())).collect::<Result<Vec<_>>>()?;
    let load = load::closed(CALLERS, lasting, move |number| {
        let request = clients[number % CLIENTS].request(Method::GET, "/v1/sites?limit=1");
        async move { answer(request, StatusCode::OK).await.map(drop) }
    })
    .await?;
    watch.abort();
    let most = most.load(Ordering::Relaxed);
    let told = json!({ "ok": most >= i64::from(CONNECTIONS), "most": most, "goal": CONNECTIONS, "load": load.told() });
    Ok(Map::from_iter([("database_connections".to_owned(), told)]))
}
