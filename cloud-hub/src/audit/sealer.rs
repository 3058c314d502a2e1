//! The sealer: gives each committed entry its place within a second, and publishes what the chains have come to within a minute.
//!
//! In: notes of what waits, written with the entries. Out: links in the database; lines of heads outside. One hub of several
//! does it, by a lock whose session is also the one that asks, so that a lost lock is noticed before anything is done. May be
//! killed anywhere: a batch is a transaction, and a head is committed before its line is written.
//!
//! Places are given in the order of sealing. An entry whose transaction took long comes after younger ones: its time is when
//! the transaction began, its place when it could first be seen.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::StreamExt as _;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::heads;
use crate::chain::chain;
use crate::clock::Clock;
use crate::domain::audit::Head;
use crate::domain::ids::TenantId;
use crate::keys::Keyring;
use crate::metrics::security;
use crate::store::audit::sealing::{self, BATCH, StoredHead};
use crate::store::leadership::Candidate;
use crate::store::{Database, StoreError, TenantTx, erasure, routes};

/// How often the notes are looked at: one small query. With the batch itself an entry is sealed within a second.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// How often a hub that does not lead asks whether it may.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Tenants whose entries are sealed at the same time.
const AT_ONCE: usize = 4;
/// Tenants whose heads are signed and written before the notes are looked at again: so that many of them keep no entry waiting.
const HEADS_AT_ONCE: usize = 32;
/// A database that takes longer for the notes is as good as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where heads go, and how often.
#[derive(Clone, Debug)]
pub struct HeadSettings {
    /// The folder.
    pub dir: PathBuf,
    /// Between two rounds.
    pub every: Duration,
    /// Whether each head is a line on the log too, for a journal that is kept elsewhere.
    pub log: bool,
}

/// What does not go as it should, for health. Nothing is refused because of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Entries wait for their places for longer than a moment.
    pub sealing: bool,
    /// Heads cannot be written.
    pub heads: bool,
}

/// The sealer and what it needs.
pub struct Sealer {
    /// The database.
    pub db: Database,
    /// The key that signs.
    pub keyring: Arc<Keyring>,
    /// The time.
    pub clock: Clock,
    /// Where heads go.
    pub heads: HeadSettings,
    /// What health is told.
    pub trouble: watch::Sender<Trouble>,
}

#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database does not answer")]
    Silent,
}

/// What a leader remembers between rounds.
#[derive(Default)]
struct Rounds {
    /// Tenants whose chain may be longer than their last head says.
    moved: BTreeSet<TenantId>,
    /// Of these, those whose heads are still to be written in this round.
    unpublished: Vec<TenantId>,
    /// Tenants whose entries could not be sealed: told of once.
    stuck: BTreeSet<TenantId>,
}

impl Sealer {
    /// Leads, or waits until it may, until `stop`; then seals and publishes once more what is there.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let waited = tokio::select! {
                () = stop.cancelled() => return,
                session = self.become_leader() => session,
            };
            let lost = match waited {
                Ok(session) => match self.lead(session, &stop).await {
                    Ok(()) => return,
                    Err(lost) => lost,
                },
                Err(lost) => lost,
            };
            if self.note(|trouble| trouble.sealing = true) {
                tracing::warn!(event = "audit_not_sealed", error = %chain(&lost), "this hub seals no audit entries until the database is back");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TRY_EVERY) => {}
            }
        }
    }

    async fn become_leader(&self) -> Result<Candidate, Lost> {
        let mut session = self.db.candidate().await?;
        while !session.try_to_seal().await? {
            // Another hub does it, and all is well here.
            self.note(|trouble| *trouble = Trouble::default());
            tokio::time::sleep(TRY_EVERY).await;
        }
        Ok(session)
    }

    async fn lead(&self, mut session: Candidate, stop: &CancellationToken) -> Result<(), Lost> {
        tracing::info!(event = "audit_leadership", "this hub seals the audit");
        // Whoever led before may have sealed entries and published no head of them.
        let moved = routes::tenants_with_rows(&self.db).await?.into_iter().collect();
        let mut rounds = Rounds { moved, ..Rounds::default() };
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut publications = tokio::time::interval(self.heads.every);
        publications.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    while self.seal(&mut session, &mut rounds).await? {}
                    rounds.unpublished = rounds.moved.iter().copied().collect();
                    while !rounds.unpublished.is_empty() {
                        self.publish(&mut rounds).await;
                    }
                    return Ok(());
                }
                _ = looks.tick() => {
                    if self.seal(&mut session, &mut rounds).await? {
                        looks.reset_immediately();
                    }
                }
                _ = publications.tick() => rounds.unpublished = rounds.moved.iter().copied().collect(),
                () = std::future::ready(()), if !rounds.unpublished.is_empty() => self.publish(&mut rounds).await,
            }
        }
    }

    /// Seals a batch of each tenant that has entries; whether one of them has more.
    async fn seal(&self, session: &mut Candidate, rounds: &mut Rounds) -> Result<bool, Lost> {
        let waiting =
            tokio::time::timeout(ANSWER_WITHIN, sealing::waiting(session)).await.map_err(|_| Lost::Silent)??;
        let mut sealing = futures::stream::iter(waiting)
            .map(|(tenant, notes)| async move {
                let work = self.db.tenant(tenant, move |tx| Box::pin(async move { sealing::seal(tx, &notes).await }));
                (tenant, work.await)
            })
            .buffer_unordered(AT_ONCE);
        let mut more = false;
        while let Some((tenant, sealed)) = sealing.next().await {
            match sealed {
                Ok(sealed) => {
                    rounds.stuck.remove(&tenant);
                    rounds.moved.insert(tenant);
                    more |= sealed.count == BATCH;
                    if let Some(oldest) = sealed.oldest {
                        let age = std::time::Duration::try_from(self.clock.now() - oldest).unwrap_or_default();
                        security::sealed(sealed.count, age);
                    }
                }
                // One tenant's trouble is no reason to leave the others' entries without a place.
                Err(error) => {
                    if rounds.stuck.insert(tenant) {
                        tracing::warn!(event = "audit_not_sealed", client_id = %tenant, error = %chain(&error), "audit entries of a tenant have no place yet; tried again");
                    }
                }
            }
        }
        let stuck = !rounds.stuck.is_empty();
        self.note(|trouble| trouble.sealing = stuck);
        Ok(more)
    }

    /// Signs how far the next chains have come, writes it outside, and notes that it is there.
    async fn publish(&self, rounds: &mut Rounds) {
        let rest = rounds.unpublished.split_off(HEADS_AT_ONCE.min(rounds.unpublished.len()));
        let mut unwritten = Vec::new();
        for tenant in std::mem::replace(&mut rounds.unpublished, rest) {
            let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
            let next = self.db.tenant(tenant, move |tx| Box::pin(async move { next_head(tx, &keyring, now).await }));
            match next.await {
                Ok(Some(head)) => unwritten.push(head),
                Ok(None) => {
                    rounds.moved.remove(&tenant);
                }
                Err(error) => {
                    tracing::warn!(event = "audit_head_not_signed", client_id = %tenant, error = %chain(&error), "no head of a tenant's audit; tried again");
                }
            }
        }
        if unwritten.is_empty() {
            return;
        }
        let (dir, lines, signing) = (self.heads.dir.clone(), unwritten.clone(), self.keyring.signing());
        let written = tokio::task::spawn_blocking(move || {
            heads::append(&dir, &lines)?;
            heads::publish_successions(&dir, signing.successions())
        });
        let written = written.await;
        if let Err(error) = written.map_err(std::io::Error::other).and_then(|written| written) {
            if self.note(|trouble| trouble.heads = true) {
                tracing::warn!(event = "audit_heads_not_written", dir = %self.heads.dir.display(), error = %chain(&error), "signed heads of the audit cannot be written; everything else goes on, and they are tried again");
            }
            return;
        }
        if self.note(|trouble| trouble.heads = false) {
            tracing::info!(event = "audit_heads_written", "signed heads of the audit can be written again");
        }
        for head in unwritten {
            security::head_written();
            if self.heads.log {
                tracing::info!(event = "audit_head", client_id = %head.tenant, head = %heads::line(&head), "how far a tenant's audit goes, signed");
            }
            let (tenant, number, now) = (head.tenant, head.number, self.clock.now());
            // If it fails, the same line is written again at the next round.
            let noted = self.db.tenant(tenant, move |tx| Box::pin(sealing::head_published(tx, number, now)));
            if let Err(error) = noted.await {
                tracing::warn!(event = "audit_head_not_noted", client_id = %tenant, error = %chain(&error), "a head of an audit will be written once more");
            }
        }
    }

    /// Changes what health is told; whether it was otherwise before.
    fn note(&self, change: impl FnOnce(&mut Trouble)) -> bool {
        self.trouble.send_if_modified(|trouble| {
            let before = *trouble;
            change(trouble);
            *trouble != before
        })
    }
}

/// The head that is to be written: the last one, if its line may not be outside, or a new one, if the chain is longer.
async fn next_head(tx: &mut TenantTx, keyring: &Keyring, now: OffsetDateTime) -> Result<Option<Head>, StoreError> {
    let before = match sealing::head(tx).await? {
        Some(StoredHead { head, published: false }) => return Ok(Some(head)),
        before => before,
    };
    let (number, position) = before.map_or((0, 0), |before| (before.head.number, before.head.position));
    let Some(last) = sealing::last(tx).await?.filter(|(last, _)| *last > position) else { return Ok(None) };
    // The last head of a tenant that is being deleted is noted: what comes after it goes with the rest.
    if !erasure::takes_heads(tx).await? {
        return Ok(None);
    }
    let head = keyring.signing().sign_head(tx.tenant(), number + 1, last, now);
    sealing::put_head(tx, &head).await?;
    Ok(Some(head))
}
