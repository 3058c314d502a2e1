//! Uses of recognition, written into the audit together: as many as came while the ones before were being written.
//!
//! Each caller waits until its own entry is committed, and without it gets no answer. A commit is a wait for a disk, and a thousand of
//! them a second are more than a disk has; one for all who wait is not.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::pace::Pace;
use hub_domain::ids::TenantId;
use hub_store::{Database, audit};

/// Entries that wait to be written; a caller that finds no room waits for it.
const WAITING: usize = 1_024;
/// Entries written together.
const TOGETHER: usize = 256;
/// Writes at once: the second is on its way to the disk while the first waits for it.
const AT_ONCE: usize = 2;
/// From the beginning of a write of several to that of the next: a disk that is quick would otherwise be written to nearly once for
/// each. Whoever notes one after the other does not wait.
const APART: Duration = Duration::from_millis(12);

/// A use of recognition.
#[derive(Debug)]
pub struct Use {
    /// Whose people were asked about.
    pub tenant: TenantId,
    /// Who asked.
    pub actor: String,
    /// What it was used for.
    pub action: audit::Action,
    /// Who was recognised.
    pub person: Option<Uuid>,
    /// The decision. Never a vector, a picture or a name.
    pub detail: Value,
}

/// It is not in the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the use could not be written into the audit")]
pub struct NotNoted;

struct Waiting {
    noted: Use,
    done: oneshot::Sender<()>,
}

/// Where uses are noted.
#[derive(Clone)]
pub struct Uses(mpsc::Sender<Waiting>);

/// Writes what was noted.
pub struct Writer {
    db: Database,
    inbox: mpsc::Receiver<Waiting>,
}

/// A place to note uses in, and what writes them.
#[must_use]
pub fn uses(db: Database) -> (Uses, Writer) {
    let (sender, inbox) = mpsc::channel(WAITING);
    (Uses(sender), Writer { db, inbox })
}

impl Uses {
    /// Returns once the use is committed.
    pub async fn note(&self, noted: Use) -> Result<(), NotNoted> {
        let (done, written) = oneshot::channel();
        self.0.send(Waiting { noted, done }).await.map_err(|_| NotNoted)?;
        written.await.map_err(|_| NotNoted)
    }
}

impl Writer {
    /// Writes until `stop`; who waits then has no answer.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut under_way, mut pace) = (FuturesUnordered::new(), Pace::new(APART));
        loop {
            let mut together = Vec::new();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                more = next(&mut self.inbox, &mut together, pace), if under_way.len() < AT_ONCE => {
                    if more == 0 {
                        return;
                    }
                    if more > 1 {
                        pace.begin(Instant::now());
                    }
                    let mut of_tenants: HashMap<TenantId, Vec<Waiting>> = HashMap::new();
                    for waiting in together {
                        of_tenants.entry(waiting.noted.tenant).or_default().push(waiting);
                    }
                    let db = &self.db;
                    let written = of_tenants.into_iter().map(|(tenant, waiting)| write(db, tenant, waiting));
                    under_way.push(futures::future::join_all(written).map(drop));
                }
            }
        }
    }
}

/// Those that wait once the next write may begin; none when there will be no more.
async fn next(inbox: &mut mpsc::Receiver<Waiting>, together: &mut Vec<Waiting>, pace: Pace) -> usize {
    if let Some(free) = pace.free_at() {
        tokio::time::sleep_until(free).await;
    }
    inbox.recv_many(together, TOGETHER).await
}

/// Writes a tenant's entries, and tells those who wait. Whoever is not told has no entry.
async fn write(db: &Database, tenant: TenantId, waiting: Vec<Waiting>) {
    let (noted, done): (Vec<Use>, Vec<_>) = waiting.into_iter().map(|waiting| (waiting.noted, waiting.done)).unzip();
    let entries: Vec<audit::Entry<'_>> = noted
        .iter()
        .map(|noted| audit::Entry {
            actor: &noted.actor,
            action: noted.action,
            object_kind: if noted.person.is_some() { "person" } else { "tenant" },
            object_id: noted.person,
            detail: noted.detail.clone(),
        })
        .collect();
    match audit::write_alone(db, tenant, &entries).await {
        Ok(()) => {
            for done in done {
                // Who no longer waits has left; the entry stays.
                let _ = done.send(());
            }
        }
        Err(error) => {
            tracing::warn!(event = "uses_not_noted", client_id = %tenant, %error, "uses of recognition could not be written into the audit; they are not answered");
        }
    }
}
