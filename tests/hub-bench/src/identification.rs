//! Who is it, among ten thousand and among a hundred thousand people? By template, so that no model runs.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use face_core::Embedding;
use face_index::{Engine, Snapshot};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::load;
use crate::people::{self, Somebody};
use crate::processors::Spent;
use crate::rig::{Asking, Rig, answer};

/// Probes that are asked about in turn.
const PROBES: usize = 2_000;
/// Callers at once when the hub is to be full.
const CALLERS: usize = 64;
/// Connections that they share.
const CLIENTS: usize = 4;
/// Wanted of the 95th percentile when the hub has seven tenths of what it can do.
const GOAL_P95_MS: f64 = 50.0;
/// Of the bare kernel's rate, at the larger size.
const GOAL_OF_KERNEL: f64 = 0.5;
/// Probes that the kernel is given together.
const BATCH: usize = 16;
/// How deep a door looks first.
const DEPTH: usize = 16;

pub(crate) async fn measure(rig: &Rig, count: usize, lasting: Duration) -> Result<Map<String, Value>> {
    let asking = rig.tenant(&format!("People {count}"))?;
    let space = people::space(&asking, &std::fs::read(rig.places.demo_file("obama.jpg"))?).await?;
    let somebody = people::drawn(count);
    let began = Instant::now();
    people::enrol(rig, &asking.tenant().id, &space, &somebody, |there| {
        if there % 10_000 == 0 {
            crate::say(&format!("{there} people enrolled after {:.0} s", began.elapsed().as_secs_f64()));
        }
    })
    .await?;
    let enrolled = began.elapsed();
    let kernel = kernel(&somebody, lasting.min(Duration::from_secs(5)))?;
    let probes = Arc::new(Probes::of(&space, &somebody));
    // The first search reads the gallery; how long that takes is told, and is no part of the load.
    let began = Instant::now();
    probes.ask(&asking, 0).await?;
    let warmed = began.elapsed();
    let clients = (0..CLIENTS).map(|_| asking.again(rig.hub())).collect::<Result<Vec<_>>>()?;
    let ask = Arc::new(move |number: usize| {
        let (probes, asking) = (Arc::clone(&probes), clients[number % CLIENTS].clone());
        async move { probes.ask(&asking, number).await }
    });
    let full = Arc::clone(&ask);
    let before = Spent::now(rig)?;
    let full = load::closed(CALLERS, lasting, move |number| full(number)).await?;
    let between = Spent::now(rig)?;
    let easy = load::open(full.rate() * 0.7, lasting, move |number| ask(number)).await?;
    let spent = Spent::now(rig)?.each(between, easy.count());
    let goal = if count <= 10_000 { 1_000.0 } else { 300.0 };
    let of_kernel = full.rate() / kernel;
    let small = count <= 10_000;
    let ok = full.rate() >= goal && (small || of_kernel >= GOAL_OF_KERNEL) && easy.percentile(95) < GOAL_P95_MS;
    let told = json!({
        "ok": ok, "per_second": full.rate(), "goal_per_second": goal, "kernel_per_second": kernel, "ratio": of_kernel,
        "p95_ms": easy.percentile(95), "goal_p95_ms": GOAL_P95_MS, "people": count, "full": full.told(), "seven_tenths": easy.told(),
        "full_spent": between.each(before, full.count()), "seven_tenths_spent": spent,
        "first_search_s": warmed.as_secs_f64(), "enrolled_in_s": enrolled.as_secs_f64(),
    });
    Ok(Map::from_iter([(format!("identify_{count}"), told)]))
}

/// What is asked, and what must be answered.
struct Probes(Vec<(Value, Option<String>)>);

impl Probes {
    /// Every other one is a stranger.
    fn of(space: &str, somebody: &[Somebody]) -> Self {
        let probes = (0..PROBES).map(|number| {
            let (person, known) = &somebody[number * 7_919 % somebody.len()];
            let seed = number as u64;
            let (embedding, whose) = if number % 2 == 0 {
                (people::seen_again(known, seed), Some(person.0.to_string()))
            } else {
                (people::stranger(seed), None)
            };
            (json!({ "template": people::template(space, &embedding) }), whose)
        });
        Self(probes.collect())
    }

    async fn ask(&self, asking: &Asking, number: usize) -> Result<()> {
        let (body, whose) = &self.0[number % PROBES];
        let told = answer(asking.request(Method::POST, "/v1/recognition/identify").json(body), StatusCode::OK).await?;
        ensure!(told["person_id"].as_str() == whose.as_deref(), "{whose:?} was looked for: {told}");
        Ok(())
    }
}

/// Probes a second of the kernel alone, with all processors and full batches.
fn kernel(somebody: &[Somebody], lasting: Duration) -> Result<f64> {
    let index = Snapshot::build(people::rows(somebody), Engine::Auto)?;
    let probes: Vec<Embedding> =
        (0..BATCH as u64).map(|seed| people::seen_again(&somebody[seed as usize * 31].1, seed)).collect();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let (began, mut searched) = (Instant::now(), 0);
    while began.elapsed() < lasting {
        searched += std::hint::black_box(index.search_batch(&probes, DEPTH, threads)).len();
    }
    Ok(searched as f64 / began.elapsed().as_secs_f64())
}
