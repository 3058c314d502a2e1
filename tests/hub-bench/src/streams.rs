//! A thousand event streams of two tenants: each hears every event of its own tenant once, and nothing of the other's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use system_tests::bench::percentile;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::people;
use crate::rig::{Asking, Rig};

/// Streams in all, half of them each tenant's.
const STREAMS: usize = 1_000;
/// Streams of one connection; the hub allows 64.
const A_CONNECTION: usize = 50;
/// Events of each tenant.
const EVENTS: usize = 50;
/// Between two events of one tenant.
const EVERY: Duration = Duration::from_millis(400);
/// After the last event, for it and for anything that comes twice.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn measure(rig: &Rig) -> Result<Map<String, Value>> {
    let tenants = [rig.tenant("Streams one")?, rig.tenant("Streams two")?];
    let space = people::space(&tenants[0], &std::fs::read(rig.places.demo_file("obama.jpg"))?).await?;
    let (heard, mut hearing) = mpsc::channel(STREAMS * EVENTS);
    let mut streams = JoinSet::new();
    let opened = Instant::now();
    for stream in 0..STREAMS / A_CONNECTION {
        let tenant = stream % 2;
        let asking = tenants[tenant].again(rig.hub())?;
        for _ in 0..A_CONNECTION {
            streams.spawn(listen(asking.clone(), tenant, heard.clone()));
        }
    }
    let mut listening = 0;
    while listening < STREAMS {
        let message = tokio::time::timeout(PATIENCE, hearing.recv()).await.context("a stream did not open")?;
        ensure!(matches!(message, Some(Heard::Listening)), "an event came before there was one");
        listening += 1;
    }
    let opened = opened.elapsed();
    let told = Arc::new(Mutex::new(HashMap::new()));
    let mut writers = JoinSet::new();
    for (number, asking) in tenants.iter().enumerate() {
        let people: Vec<_> = people::drawn(2 * EVENTS).into_iter().skip(number * EVENTS).take(EVENTS).collect();
        let (custody, tenant, space) = (rig.custody.clone(), asking.tenant().id.clone(), space.clone());
        let told = Arc::clone(&told);
        writers.spawn(async move {
            for somebody in people {
                let subject = somebody.0.to_string();
                people::enrol_one(&custody, &tenant, &space, somebody).await?;
                told.lock().insert(subject, (number, Instant::now()));
                tokio::time::sleep(EVERY).await;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let wanted = STREAMS * EVENTS;
    let (mut counts, mut late) = (HashMap::new(), Vec::with_capacity(wanted));
    let until = Instant::now() + PATIENCE;
    let (mut strange, mut got) = (0_usize, 0_usize);
    while let Ok(Some(message)) = tokio::time::timeout_at(until, hearing.recv()).await {
        let Heard::Event { stream, tenant, subject, at } = message else { continue };
        match told.lock().get(&subject) {
            // The time is noted after the commit, which an event may overtake by a little: that counts as none.
            Some((whose, since)) if *whose == tenant => {
                late.push(at.saturating_duration_since(*since).as_secs_f64() * 1e3);
            }
            _ => strange += 1,
        }
        *counts.entry((stream, subject)).or_insert(0_usize) += 1;
        got += 1;
        // A little longer than the last, so that one that comes twice is seen.
        if got == wanted {
            tokio::time::sleep(Duration::from_secs(2)).await;
            while let Ok(message) = hearing.try_recv() {
                if let Heard::Event { stream, subject, .. } = message {
                    *counts.entry((stream, subject)).or_insert(0) += 1;
                }
            }
            break;
        }
    }
    streams.abort_all();
    let twice = counts.values().filter(|count| **count > 1).count();
    let missing = wanted - counts.len().min(wanted);
    Ok(Map::from_iter([(
        "event_streams".to_owned(),
        json!({
            "ok": missing == 0 && twice == 0 && strange == 0, "streams": STREAMS, "events": wanted, "missing": missing, "twice": twice,
            "of_another_tenant": strange, "p50_ms": percentile(&late, 50), "p95_ms": percentile(&late, 95), "max_ms": percentile(&late, 100),
            "opened_in_s": opened.as_secs_f64(),
        }),
    )]))
}

enum Heard {
    Listening,
    Event { stream: tokio::task::Id, tenant: usize, subject: String, at: Instant },
}

async fn listen(asking: Asking, tenant: usize, heard: mpsc::Sender<Heard>) -> Result<()> {
    let answer = asking.request(Method::GET, "/v1/events/stream").timeout(Duration::from_secs(600)).send().await?;
    ensure!(answer.status() == StatusCode::OK, "a stream was refused: {}", answer.status());
    heard.send(Heard::Listening).await?;
    let (mut bytes, mut pending) = (answer.bytes_stream(), Vec::new());
    while let Some(chunk) = bytes.next().await {
        pending.extend_from_slice(&chunk?);
        let at = Instant::now();
        while let Some(end) = pending.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = pending.drain(..end + 2).collect();
            let text = String::from_utf8(event)?;
            let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
            let event: Value = serde_json::from_str(data)?;
            let subject = event["subject"].as_str().context("an event without a subject")?.to_owned();
            heard.send(Heard::Event { stream: tokio::task::id(), tenant, subject, at }).await?;
        }
    }
    Ok(())
}
