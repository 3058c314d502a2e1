//! What the control socket answers, read from the running parts.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edge_store::{Outbox, OutboxError};
use face_core::{Gallery as _, MonoTime};
use face_runtime::{ModelPack, Task};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;
use wire_contract::guidance::{DoorGuidance, Show};
use wire_contract::texts::{Language, hint_text};

use crate::clock::{SharedClock, rfc3339_ms};
use crate::control::{Answer, Ask};
use crate::door::Displays;
use crate::gallery::{GalleryLine, Roster};
use crate::lockdown::Lockdowns;
use crate::logging::chain;
use crate::stages::record::{Origin, RecordHealth};
use crate::sync::SyncStatus;

/// Everything that may be asked about.
pub(super) struct Board {
    pub(super) started_at: MonoTime,
    pub(super) clock: SharedClock,
    pub(super) outbox: Arc<Outbox>,
    pub(super) roster: Arc<ArcSwap<Roster>>,
    pub(super) link: watch::Receiver<SyncStatus>,
    pub(super) health: Arc<RecordHealth>,
    pub(super) origin: Origin,
    pub(super) models: String,
    pub(super) identity: Option<(Uuid, Uuid)>,
    pub(super) pack: Arc<ModelPack>,
    pub(super) cameras: Vec<super::cameras::Running>,
    pub(super) doors: Vec<String>,
    pub(super) lockdowns: Arc<Lockdowns>,
    pub(super) displays: Displays,
}

/// How long one question for guidance waits for a change: half of what the asking side does.
const GUIDANCE_WAIT: Duration = Duration::from_millis(2_500);
/// Entries of one page of `outbox list`: some 200 bytes each, so a page is small and the next question comes soon.
const PAGE: usize = 500;

impl Answer for Board {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Value, (&'static str, String)>> {
        Box::pin(async move {
            match ask {
                Ask::Status => Ok(self.status()),
                Ask::GalleryStatus => Ok(self.galleries()),
                Ask::OutboxStatus => self.outbox_status().await,
                Ask::OutboxList { after } => self.outbox_list(after).await,
                Ask::Guidance { after } => Ok(self.guidance(after).await),
            }
        })
    }
}

impl Board {
    fn status(&self) -> Value {
        let wall = self.clock.wall();
        let clock = serde_json::to_value(wall.quality).unwrap_or_default();
        json!({
            "version": self.origin.agent_version,
            "claimed": self.identity.is_some(),
            "tenant": self.identity.map(|(tenant, _)| tenant),
            "device": self.identity.map(|(_, device)| device),
            "connected": self.link.borrow().connected,
            "last_error": self.link.borrow().last_error,
            "connected_since": self.link.borrow().connected_since.map(|at| at.to_string()),
            "certificate_expires_at": self.link.borrow().certificate_expires_at.map(|at| at.to_string()),
            "certificate_renewal_at": self.link.borrow().certificate_renewal_at.map(|at| at.to_string()),
            "ready": self.roster.load().ready(),
            "lease_until": self.link.borrow().lease_until.map(|at| at.to_string()),
            "lease_over": self.link.borrow().lease_over,
            "recording": self.health.recording(),
            "recorded": self.health.recorded(),
            "shed": self.health.shed(),
            "pack": self.origin.pack,
            "space_id": self.origin.space_id,
            "models": self.models,
            "uptime_s": self.clock.now().since(self.started_at).as_secs(),
            "time": rfc3339_ms(wall.utc),
            "clock": clock,
            "doors": self.doors.join(", "),
            "locked_down": self.lockdowns.active().join(", "),
            "twin": self.link.borrow().twin.map(|twin| format!("version {} of epoch {}", twin.version, twin.epoch)),
            "twin_state": self.link.borrow().twin_state,
            "commands": self.link.borrow().commands,
            "cameras": self.cameras.iter().map(super::cameras::Running::told).collect::<Vec<_>>(),
            "model_runs": Task::ALL.map(|task| self.model_runs(task)),
        })
    }

    /// How often one model ran, how long that took and how long its callers stood in line, since the start.
    fn model_runs(&self, task: Task) -> Value {
        let usage = self.pack.usage(task);
        let ms = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
        json!({
            "task": task.as_str(),
            "runs": usage.runs,
            "running_ms": ms(usage.running),
            "waited_ms": ms(usage.waited),
            "longest_wait_ms": ms(usage.longest_wait),
        })
    }

    fn galleries(&self) -> Value {
        let (roster, link) = (self.roster.load(), self.link.borrow().clone());
        let fetching = |line: &GalleryLine| link.snapshots.iter().find(|one| one.gallery == line.gallery.to_string());
        let lines: Vec<Value> = roster
            .lines()
            .iter()
            .map(|line| {
                json!({
                    "gallery": line.gallery.0,
                    "epoch": line.epoch,
                    "version": line.version,
                    "root": hex::encode(line.root.0),
                    "people": line.people,
                    "templates": line.templates,
                    "anchors": line.anchors,
                    "state": state_of(line),
                    "snapshot_percent": fetching(line).map(|one| one.percent),
                    "snapshot_held": fetching(line).map(|one| one.held),
                    "snapshot_bytes": fetching(line).and_then(|one| one.bytes),
                    "space_id": self.origin.space_id,
                })
            })
            .collect();
        json!({
            "ready": roster.ready(),
            "people": roster.snapshot().n_people(),
            "templates": roster.snapshot().len(),
            "lease_until": link.lease_until.map(|at| at.to_string()),
            "lease_over": link.lease_over,
            "anchors": roster.snapshot().n_anchors(),
            "galleries": lines,
        })
    }

    /// Waits for a change after the one named, well within what the asking side waits for an answer.
    async fn guidance(&self, after: u64) -> Value {
        let (change, doors) = self.displays.after(after, GUIDANCE_WAIT).await;
        let told = |door: &DoorGuidance| {
            let mut value = serde_json::to_value(door).unwrap_or_default();
            value["text"] = match &door.show {
                Show::Prompt { prompt, .. } => texts(|language| prompt.text(language)),
                Show::Failed { code } => texts(|language| hint_text(*code, language).unwrap_or_default()),
                Show::Idle | Show::Passed => Value::Null,
            };
            value
        };
        json!({ "change": change, "doors": doors.iter().map(told).collect::<Vec<_>>() })
    }

    async fn on_outbox<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Outbox) -> Result<T, OutboxError> + Send + 'static,
    ) -> Result<T, (&'static str, String)> {
        let outbox = Arc::clone(&self.outbox);
        tokio::task::spawn_blocking(move || ask(&outbox))
            .await
            .map_err(|_| ("internal", "the outbox could not be asked".to_owned()))?
            .map_err(|error| ("unavailable", chain(&error)))
    }

    /// Ids, types and times only; what an event says is for the hub.
    async fn outbox_list(&self, after: u64) -> Result<Value, (&'static str, String)> {
        let stats = self.on_outbox(Outbox::stats).await?;
        let entries = self.on_outbox(move |outbox| outbox.kept(after, PAGE, usize::MAX)).await?;
        let rows: Vec<Value> = entries
            .iter()
            .map(|entry| {
                // Unreadable as JSON is not expected; the row still shows that the entry is there.
                let event: Value = serde_json::from_slice(&entry.event).unwrap_or_default();
                json!({
                    "sequence": entry.sequence,
                    "id": event["id"],
                    "type": event["type"],
                    "time": event["time"],
                    "acknowledged": entry.sequence <= stats.acknowledged_through,
                })
            })
            .collect();
        let next = entries.last().map(|entry| entry.sequence).filter(|last| *last < stats.last_sequence);
        Ok(json!({"stream": stats.stream.to_string(), "entries": rows, "next": next}))
    }

    async fn outbox_status(&self) -> Result<Value, (&'static str, String)> {
        let stats = self.on_outbox(Outbox::stats).await?;
        Ok(json!({
            "stream": stats.stream.to_string(),
            "last_sequence": stats.last_sequence,
            "acknowledged_through": stats.acknowledged_through,
            "pending": stats.pending,
            "oldest_pending_at": stats.oldest_pending_at.map(|at| rfc3339_ms(OffsetDateTime::from(at))),
            "bytes": stats.bytes,
            "quota_bytes": stats.quota_bytes,
            "shed": stats.shed,
            "recording": self.health.recording(),
            "connected": self.link.borrow().connected,
        }))
    }
}

/// A text in every language, by its tag.
fn texts(of: impl Fn(Language) -> &'static str) -> Value {
    Language::ALL
        .iter()
        .map(|language| (language.tag().to_owned(), Value::from(of(*language))))
        .collect::<Map<_, _>>()
        .into()
}

/// `differs`: not what the hub has, and not searched until it is.
fn state_of(line: &GalleryLine) -> &'static str {
    match (&line.differing, line.version) {
        (Some(_), _) => "differs",
        (None, 0) => "empty",
        (None, _) => "ready",
    }
}
