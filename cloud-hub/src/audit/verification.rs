//! Verifies the audit of tenants against the heads outside: reads what there is and lets the rules judge.
//!
//! In: the database, folders of heads, keys. Out: a report for each tenant. Works while the hub runs, and without it. The order
//! of reading is the point: what the database says of published heads is read before the files and after them, and the
//! entries last, so that what the hub does meanwhile is no finding.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use time::{Duration, OffsetDateTime};

use super::heads::Found;
use crate::domain::audit::finding::Finding;
use crate::domain::audit::verifier::{Published, Report, Verifier};
use crate::domain::audit::{Head, HubKeys};
use crate::domain::ids::TenantId;
use crate::store::audit::{reading, sealing};
use crate::store::erasure::Standing;
use crate::store::{Database, StoreError, erasure, routes, tenants};

/// Entries read in one transaction.
const RUN: u32 = 5_000;
/// An entry gets its place within a second; this long without one is a fault.
const PLACED_WITHIN: Duration = Duration::seconds(10);
/// A head is there within a minute; this long without any is a fault.
const HEAD_WITHIN: Duration = Duration::minutes(5);

/// What is to be verified, and against what.
#[derive(Clone, Debug)]
pub struct Request {
    /// One tenant; `None`: all that the database or the heads know.
    pub tenant: Option<TenantId>,
    /// Folders of heads: one of each hub, if they do not share one.
    pub dirs: Vec<PathBuf>,
    /// The keys that heads may be signed with.
    pub keys: HubKeys,
    /// The first heads were put away and are not expected.
    pub archived: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Verified {
    /// One for each tenant.
    pub reports: Vec<Report>,
    /// Lines of the folders that are no heads.
    pub bad_lines: Vec<Finding>,
}

impl Verified {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.bad_lines.is_empty() && self.reports.iter().all(Report::is_well)
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The tenant under way, from 1.
    pub tenant: usize,
    /// How many there are.
    pub tenants: usize,
    /// Entries so far, of all tenants.
    pub entries: u64,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder of heads.
    #[error("heads in {}: {source}", dir.display())]
    Heads {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Verifies, and tells how far it is after each run of entries.
pub async fn verify(
    db: &Database,
    request: Request,
    now: OffsetDateTime,
    mut tell: impl FnMut(Progress),
) -> Result<Verified, VerifyError> {
    let mut all: BTreeSet<TenantId> = match request.tenant {
        Some(tenant) => BTreeSet::from([tenant]),
        None => routes::tenants_with_rows(db).await?.into_iter().collect(),
    };
    let mut before = BTreeMap::new();
    for tenant in &all {
        before.insert(*tenant, last_head(db, *tenant).await?.1);
    }
    let found = read_heads(request.dirs.clone(), request.tenant).await?;
    all.extend(found.heads.keys());
    let (mut reports, mut entries, count) = (Vec::new(), 0, all.len());
    for (index, tenant) in all.into_iter().enumerate() {
        let heads = found.heads.get(&tenant).map_or(&[][..], Vec::as_slice);
        let standing = db.tenant(tenant, |tx| Box::pin(erasure::standing(tx))).await?;
        if let Some(standing) = standing.filter(|standing| standing.closed) {
            reports.push(of_erased(tenant, heads, &standing, &request));
            continue;
        }
        let (after, _) = last_head(db, tenant).await?;
        let published = Published { before: before.get(&tenant).copied().unwrap_or(0), after };
        let verifier = Verifier::new(tenant, heads, published, &request.keys, request.archived);
        let progress = |done: u64| tell(Progress { tenant: index + 1, tenants: count, entries: entries + done });
        let report = chain(db, tenant, verifier, now, progress).await?;
        entries += report.entries;
        reports.push(report);
    }
    let bad_lines = found.bad_lines.into_iter().map(|place| Finding::BadLine { place }).collect();
    Ok(Verified { reports, bad_lines })
}

/// A tenant whose entries are gone, or going: its heads outside must end as what is left of it says.
fn of_erased(tenant: TenantId, heads: &[Head], standing: &Standing, request: &Request) -> Report {
    let last = standing.head.map_or(0, |head| head.number);
    let published = Published { before: last, after: last };
    let mut verifier = Verifier::new(tenant, heads, published, &request.keys, request.archived);
    verifier.erased(standing.head, standing.receipt.as_ref(), &request.keys);
    verifier.finish(None, false)
}

/// The numbers of the last head that was signed, and of the last that is outside.
async fn last_head(db: &Database, tenant: TenantId) -> Result<(u64, u64), StoreError> {
    let head = db.tenant(tenant, |tx| Box::pin(sealing::head(tx))).await?;
    Ok(head.map_or((0, 0), |stored| {
        let number = stored.head.number;
        (number, if stored.published { number } else { number.saturating_sub(1) })
    }))
}

async fn read_heads(dirs: Vec<PathBuf>, tenant: Option<TenantId>) -> Result<Found, VerifyError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut found = Found::default();
        for dir in dirs {
            found.read(&dir, tenant).map_err(|source| VerifyError::Heads { dir, source })?;
        }
        Ok(found)
    });
    read.await.map_err(|_| StoreError::Aborted)?
}

async fn chain(
    db: &Database,
    tenant: TenantId,
    mut verifier: Verifier,
    now: OffsetDateTime,
    mut tell: impl FnMut(u64),
) -> Result<Report, StoreError> {
    let (mut place, mut done, mut settled) = (reading::BEGINNING, 0, false);
    loop {
        let (run, next) = db.tenant(tenant, move |tx| Box::pin(reading::sealed(tx, place, RUN))).await?;
        if run.is_empty() {
            break;
        }
        place = next;
        done += run.len() as u64;
        for sealed in run {
            settled |= sealed.entry.at < now - HEAD_WITHIN;
            verifier.entry(sealed);
        }
        tell(done);
    }
    let waiting = db.tenant(tenant, move |tx| Box::pin(reading::unplaced(tx, now - PLACED_WITHIN))).await?;
    let waiting = waiting.map(|(count, first)| (count, (now - first).whole_seconds().unsigned_abs()));
    match db.tenant(tenant, |tx| Box::pin(tenants::get(tx))).await {
        Err(StoreError::NotFound { .. }) => verifier.no_tenant(),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    Ok(verifier.finish(waiting, settled))
}
