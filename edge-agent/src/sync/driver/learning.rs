//! The driver's part of the hub's signing keys: believing those that the pinned ones lead to, and keeping them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;
use wire_contract::Succession;

use super::{Driver, blocking};
use crate::sync::hub_keys;
use crate::sync::transport::Connect;

/// Answers of tasks whose statements wait to be looked at. When it is full one is dropped: the next answer brings the same.
const WAITING: usize = 8;
/// Before another try to write what was learned.
const DISK_RETRY: Duration = Duration::from_secs(10);

/// What is to be learned and kept of the hub's keys.
pub(super) struct Learning {
    /// For tasks that get answers by themselves.
    pub(super) heard: mpsc::Sender<Vec<Succession>>,
    waiting: mpsc::Receiver<Vec<Succession>>,
    /// When the identity is to be written; none when the disk has what is known.
    keep_at: Option<face_core::MonoTime>,
    /// The last key that could not be believed: told of once.
    refused: Option<Uuid>,
}

impl Learning {
    pub(super) fn new() -> Self {
        let (heard, waiting) = mpsc::channel(WAITING);
        Self { heard, waiting, keep_at: None, refused: None }
    }

    /// The statements of an answer that a task has got.
    pub(super) async fn next(&mut self) -> Vec<Succession> {
        // This struct has a sender, so that it does not end.
        self.waiting.recv().await.unwrap_or_default()
    }

    /// The identity was written by somebody else, with whatever keys belong to it.
    pub(super) fn kept(&mut self) {
        self.keep_at = None;
    }
}

impl<C: Connect> Driver<C> {
    /// Believes the keys of the hub that the pinned ones lead to, from now on, and keeps them. A power cut in between costs nothing: the
    /// next answer says it again.
    pub(super) async fn learn(&mut self, successions: &[Succession]) {
        let Some(identity) = hub_keys::learned(&self.identity, successions) else { return };
        let keys: Vec<&str> = identity.hub_keys.iter().map(|key| key.key_id.as_str()).collect();
        tracing::info!(
            event = "hub_key_learned",
            keys = keys.join(" "),
            "the hub has another signing key, for which the one before vouches"
        );
        self.identity = Arc::new(identity);
        self.learning.keep_at = Some(self.now());
        self.keep_keys_when_due().await;
    }

    /// Writes what was learned. Not while a renewal is under way, which writes an identity with its next certificate: this one would take
    /// its place.
    pub(super) async fn keep_keys_when_due(&mut self) {
        let now = self.now();
        if self.learning.keep_at.is_none_or(|at| at > now) || self.renewing.is_under_way() {
            return;
        }
        let (identity, state_dir) = (Arc::clone(&self.identity), self.sync.state_dir.clone());
        match blocking(move || identity.store(&state_dir)).await {
            Ok(()) => self.learning.keep_at = None,
            Err(error) => {
                self.learning.keep_at = Some(now + DISK_RETRY);
                self.trouble("hub_key_not_kept", &error);
            }
        }
    }

    /// The hub signs with a key that no pinned one leads to: it is not believed, and somebody should look.
    pub(super) fn unknown_key(&mut self, found: Uuid) {
        if self.learning.refused.replace(found) != Some(found) {
            tracing::error!(
                event = "hub_key_not_believed",
                alarm = true,
                key = %found,
                "the hub signs with a key for which none that this device pinned vouches; if its signing-successions.json was lost, restore it or claim the device again"
            );
        }
    }
}
