//! Streams of events at both hubs while each of them is killed and started again: every stream hears every event once and in its order, those
//! that were cut off too, since they say what they heard last.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cloud_hub::domain::cursor::Cursor;
use fleet_sim::admin::Admin;
use fleet_sim::device::SPACE_ID;
use fleet_sim::fleet::{Fleet, Plan};
use futures::StreamExt as _;
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::PgConnection;
use system_tests::launcher::Tenant;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{BOTH, Pair, Which, milliseconds, other};
use crate::lab::now;
use crate::outcome::Tally;

/// Streams that all forget what they heard last when they are cut off: the broken variant.
const FORGETFUL: usize = 4;
/// Streams of one connection; a hub allows 64.
const A_CONNECTION: usize = 50;
/// Devices that record, and their events in a second together.
const DEVICES: usize = 3;
const A_SECOND: f64 = 12.0;
/// A hub is away for so long, and there before it and after.
const AWAY: Duration = Duration::from_secs(2);
const BETWEEN: Duration = Duration::from_secs(4);
/// Before a stream that was cut off comes back, and to which hub: every other one to the hub that has not died.
const BACK_AFTER: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(30);
/// For whatever comes twice.
const WAITED_ON: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One reader.
struct Listener {
    clients: [reqwest::Client; 2],
    urls: [String; 2],
    authorization: String,
    at: Which,
    /// Whether it stays with its hub.
    faithful: bool,
    remembers: bool,
}

/// What it has heard so far.
#[derive(Default)]
struct Heard {
    ids: Mutex<Vec<String>>,
    opened: AtomicU64,
}

impl Heard {
    fn ids(&self) -> MutexGuard<'_, Vec<String>> {
        self.ids.lock().expect("no holder of this lock panics")
    }
}

/// So many streams, half of them at each hub, for `events` events. Returns how often the checker sees what a stream missed that forgot where
/// it was.
pub fn measure(pair: &mut Pair, streams: usize, events: u64, tally: &mut Tally) -> Result<u64> {
    let tenant = pair.hub(0)?.create_tenant("streams")?;
    let (fleet_dir, stop) = (pair.file("fleet"), CancellationToken::new());
    let (head, readers) = pair.block_on(async {
        claim(pair, &tenant, &fleet_dir).await?;
        let head = head(&mut pair.database().await?, &tenant).await?;
        let readers = open(pair, &tenant, streams, head, &stop)?;
        all_open(&readers).await?;
        anyhow::Ok((head, readers))
    })?;
    let recording = pair.block_on(record(fleet_dir, events));
    // Each dies once, in the middle.
    for which in [1, 0] {
        std::thread::sleep(BETWEEN);
        pair.kill(which)?;
        std::thread::sleep(AWAY);
        pair.start(which)?;
        tally.add("hubs_killed", 1);
    }
    pair.block_on(async {
        tokio::time::timeout(PATIENCE * 4, recording)
            .await
            .context("the fleet's events were not acknowledged")???;
        let expected = since(&mut pair.database().await?, &tenant, head).await?;
        ensure!(expected.len() as u64 >= events, "{} events of {events} are there", expected.len());
        let caught_up = await_all(&readers, expected.len()).await;
        tokio::time::sleep(WAITED_ON).await;
        stop.cancel();
        let mut forgot = Tally::default();
        for (listener, heard, task) in readers {
            task.abort();
            let heard = (heard.ids().clone(), heard.opened.load(Ordering::SeqCst));
            if listener.remembers {
                judge(&expected, &heard, listener.at, tally);
            } else {
                judge(&expected, &heard, listener.at, &mut forgot);
            }
        }
        tally.figure("streams", streams);
        tally.figure("events_in_streams", expected.len());
        tally.figure("streams_caught_up_in_ms", milliseconds(caught_up));
        let cut_off = tally.count_of("streams_taken_up_again");
        // Each hub died once, with half of them.
        tally.require(cut_off >= streams as u64, || format!("only {cut_off} of {streams} streams were cut off"));
        Ok(forgot.lost)
    })
}

fn judge(expected: &[String], (heard, opened): &(Vec<String>, u64), at: Which, tally: &mut Tally) {
    tally.add("streams_taken_up_again", opened.saturating_sub(1));
    let distinct: BTreeSet<&String> = heard.iter().collect();
    let missing = expected.iter().filter(|id| !distinct.contains(id)).count();
    tally.lost += missing as u64;
    tally.duplicated += (heard.len() - distinct.len()) as u64;
    // Not one of another tenant, and none out of its place.
    tally.require(heard == expected || missing > 0 || heard.len() != distinct.len(), || {
        format!("a stream at hub {at} heard {} events in another order, or others", heard.len())
    });
    tally.acked += heard.len() as u64;
}

async fn claim(pair: &Pair, tenant: &Tenant, dir: &Path) -> Result<()> {
    let site = pair.hub(0)?.create_site(tenant, "Plant").await?;
    let ready = pair.hub(0)?.ready();
    let admin = Admin::new(&ready.https, &ready.root_certificate, &tenant.authorization)?;
    admin.populate(dir, &site, DEVICES, |_| {}).await
}

/// Starts a fleet that records so many events; ends when they are acknowledged.
async fn record(dir: std::path::PathBuf, events: u64) -> JoinHandle<Result<()>> {
    tokio::spawn(async move {
        let fleet = Arc::new(Fleet::start(&dir, SPACE_ID, None, None)?);
        let plan = Plan { rate: A_SECOND, events: Some(events), hold: None, history: None, status: None };
        let recording = Arc::clone(&fleet);
        tokio::task::spawn_blocking(move || recording.record(&plan, &CancellationToken::new(), |_| {})).await??;
        Arc::into_inner(fleet).context("the fleet is in use")?.stop().await;
        Ok(())
    })
}

type Reader = (Listener, Arc<Heard>, JoinHandle<()>);

fn open(pair: &Pair, tenant: &Tenant, streams: usize, head: i64, stop: &CancellationToken) -> Result<Vec<Reader>> {
    let mut readers: Vec<Reader> = Vec::new();
    let from = Cursor(u64::try_from(head)?).encode();
    let mut clients = None;
    for number in 0..streams + FORGETFUL {
        if number % A_CONNECTION == 0 {
            clients = Some([pair.hub(0)?.client()?, pair.hub(1)?.client()?]);
        }
        let listener = |clients| Listener {
            clients,
            urls: BOTH.map(|which| pair.url(which)),
            authorization: tenant.authorization.clone(),
            at: number % 2,
            faithful: number % 4 < 2,
            remembers: number < streams,
        };
        let clients = clients.clone().context("clients were made")?;
        let heard = Arc::new(Heard::default());
        let task = listener(clients.clone()).listen(Arc::clone(&heard), from.clone(), stop.clone());
        readers.push((listener(clients), heard, tokio::spawn(task)));
    }
    Ok(readers)
}

async fn all_open(readers: &[Reader]) -> Result<()> {
    let begun = now();
    while readers.iter().any(|(_, heard, _)| heard.opened.load(Ordering::SeqCst) == 0) {
        ensure!(begun.elapsed() < PATIENCE, "a stream did not open");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits until everybody who remembers has heard so many.
async fn await_all(readers: &[Reader], events: usize) -> Duration {
    let begun = now();
    let behind = |(listener, heard, _): &&Reader| listener.remembers && heard.ids().len() < events;
    while readers.iter().any(|reader| behind(&reader)) && begun.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    begun.elapsed()
}

async fn head(database: &mut PgConnection, tenant: &Tenant) -> Result<i64> {
    let query = "SELECT coalesce(max(position), 0) FROM event WHERE tenant_id = $1::uuid";
    Ok(sqlx::query_scalar(query).bind(&tenant.id).fetch_one(database).await?)
}

async fn since(database: &mut PgConnection, tenant: &Tenant, head: i64) -> Result<Vec<String>> {
    let query = "SELECT id::text FROM event WHERE tenant_id = $1::uuid AND position > $2 ORDER BY position";
    Ok(sqlx::query_scalar(query).bind(&tenant.id).bind(head).fetch_all(database).await?)
}

impl Listener {
    /// Hears events until the end, and comes back whenever it is cut off.
    async fn listen(self, heard: Arc<Heard>, from: String, stop: CancellationToken) {
        let (mut at, mut last) = (self.at, Some(from));
        while !stop.is_cancelled() {
            // That it was cut off is what this is about.
            let _cut_off = self.hear(at, &mut last, &heard).await;
            if !self.remembers {
                last = None;
            }
            // One that came back to a hub which is away tries the other; the faithful wait for theirs.
            at = if self.faithful { at } else { other(at) };
            tokio::time::sleep(BACK_AFTER).await;
        }
    }

    async fn hear(&self, at: Which, last: &mut Option<String>, heard: &Heard) -> Result<()> {
        let url = format!("{}/v1/events/stream", self.urls[at]);
        let mut sent = self.clients[at].get(url).header("authorization", &self.authorization);
        if let Some(last) = last {
            sent = sent.header("last-event-id", last.as_str());
        }
        let answer = sent.timeout(Duration::from_secs(600)).send().await?;
        ensure!(answer.status() == StatusCode::OK, "a stream was refused: {}", answer.status());
        heard.opened.fetch_add(1, Ordering::SeqCst);
        let (mut bytes, mut pending) = (answer.bytes_stream(), Vec::new());
        while let Some(chunk) = bytes.next().await {
            pending.extend_from_slice(&chunk?);
            while let Some(end) = pending.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = pending.drain(..end + 2).collect();
                let event = String::from_utf8(event)?;
                let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let (Some(data), Some(id)) = (line("data: "), line("id: ")) else { continue };
                let data: Value = serde_json::from_str(data)?;
                heard.ids().push(data["id"].as_str().context("an event without an id")?.to_owned());
                *last = Some(id.to_owned());
            }
        }
        Ok(())
    }
}
