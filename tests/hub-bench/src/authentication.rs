//! Who asks? A key that was seen a moment ago, and one that the hub must ask the database about.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::floor::BareRoute;
use crate::load;
use crate::rig::{Asking, Rig, answer};

/// Wanted of the 95th percentile, in milliseconds; the specification is content with 100.
const GOAL_MS: f64 = 10.0;
/// Requests a second: a tenth of what the hub can do, so that the time is its own and not a queue's.
const PER_SECOND: f64 = 100.0;
/// Something small that a key opens.
const PATH: &str = "/v1/tenant/recognition";

pub(crate) async fn measure(rig: &Rig, lasting: Duration) -> Result<Map<String, Value>> {
    let asking = rig.tenant("Authentication")?;
    let keys = Arc::new(keys(&asking, (PER_SECOND * lasting.as_secs_f64()).ceil() as usize).await?);
    let bare = BareRoute::start().await?;
    let route = (bare.client.clone(), bare.url.clone());
    let floor = load::open(PER_SECOND, lasting, move |_| BareRoute::ask(route.0.clone(), route.1.clone())).await?;
    let same = {
        let asking = asking.clone();
        move |_| {
            let request = asking.request(Method::GET, PATH);
            async move { answer(request, StatusCode::OK).await.map(drop) }
        }
    };
    let believed = load::open(PER_SECOND, lasting, same).await?;
    let first_time = move |number: usize| {
        let request = asking.with_key(Method::GET, PATH, &keys[number]);
        async move { answer(request, StatusCode::OK).await.map(drop) }
    };
    let unknown = load::open(PER_SECOND, lasting, first_time).await?;
    let ratio = |load: &load::Load| load.percentile(95) / floor.percentile(95);
    let p95 = believed.percentile(95).max(unknown.percentile(95));
    let told = json!({
        "ok": p95 < GOAL_MS, "p95_ms": p95, "goal_ms": GOAL_MS, "ratio": ratio(&unknown).max(ratio(&believed)),
        "seen_lately": believed.told(), "never_seen": unknown.told(), "bare_route": floor.told(),
    });
    Ok(Map::from_iter([("authentication".to_owned(), told)]))
}

/// So many keys, each for one request.
async fn keys(asking: &Asking, count: usize) -> Result<Vec<String>> {
    let mut made = Vec::with_capacity(count);
    for number in 0..count {
        let request = asking.request(Method::POST, "/v1/api-keys").json(&json!({ "name": format!("key {number}") }));
        let key = answer(request, StatusCode::CREATED).await?;
        let text = |name: &str| key[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in the key"));
        made.push(format!("ApiKey {}:{}", text("id")?, text("secret")?));
    }
    Ok(made)
}
