//! Tenants' galleries in memory: read when they are first searched, and true at every search.
//!
//! Each search asks the database for one number, the tenant's stamp; as long as it is that of the gallery in memory, nothing has
//! changed. Otherwise what is new is unsealed, what is gone is dropped, and a new index takes the old one's place whole. So
//! nobody who was deleted before a search began is found by it, on whichever hub they were deleted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use face_core::Space;
use face_index::BuildError;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::warm::{Rows, Warm};
use crate::domain::ids::TenantId;
use crate::keys::{Custody, KeysError, Unsealed};

/// However little has changed, a gallery is read anew after this time: the specification's bound on templates in a cache.
const MAX_AGE: Duration = Duration::from_secs(24 * 3_600);

/// A gallery cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// It cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// It cannot be indexed.
    #[error("the gallery cannot be indexed")]
    Index(#[from] BuildError),
    /// The work was thrown away by a panic.
    #[error("the gallery's index was not finished")]
    Crashed,
}

type Key = (TenantId, String);

/// The galleries that were searched lately.
pub struct Galleries {
    custody: Custody,
    /// Bytes in memory, above which those go that were not searched for longest.
    max_bytes: usize,
    held: Mutex<HashMap<Key, Held>>,
}

/// A gallery's place. One at a time brings it up to date; whoever comes meanwhile waits for that and not for a second one.
#[derive(Clone, Default)]
struct Held {
    warm: Arc<tokio::sync::Mutex<Option<Arc<Warm>>>>,
    /// The same without waiting, while it is up to date.
    present: Option<Arc<Warm>>,
    searched: Option<Instant>,
}

/// How a gallery is served, for whoever looks after the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whose.
    pub tenant: TenantId,
    /// Of which space.
    pub space: String,
    /// Templates in it.
    pub templates: usize,
    /// What it takes of the memory.
    pub bytes: usize,
    /// By which engine it is searched.
    pub engine: String,
    /// Since when it was not searched.
    pub idle: Duration,
}

impl Galleries {
    /// No gallery yet; in the end those searched last, in `max_bytes`.
    #[must_use]
    pub fn new(custody: Custody, max_bytes: usize) -> Self {
        Self { custody, max_bytes, held: Mutex::default() }
    }

    /// The tenant's gallery of a space as it is now.
    pub async fn of(&self, tenant: TenantId, space: &Space) -> Result<Arc<Warm>, GalleryError> {
        let stamp = self.custody.template_stamp(tenant).await?;
        self.of_stamp(tenant, space, stamp).await
    }

    /// The same for whoever has asked for the stamp in a transaction of their own: a gallery at least as new.
    pub async fn of_stamp(&self, tenant: TenantId, space: &Space, stamp: i64) -> Result<Arc<Warm>, GalleryError> {
        let key = (tenant, space.id.clone());
        let place = self.place(&key);
        if let Some(warm) = place.present.filter(|warm| is_current(warm, stamp)) {
            return Ok(warm);
        }
        let mut slot = place.warm.lock().await;
        // Somebody else may have brought it up to date while this one waited.
        if let Some(warm) = slot.as_ref().filter(|warm| is_current(warm, stamp)) {
            return Ok(Arc::clone(warm));
        }
        let warm = Arc::new(self.read(tenant, space, slot.as_deref()).await?);
        *slot = Some(Arc::clone(&warm));
        self.keep(key, &warm);
        Ok(warm)
    }

    /// Drops what is in memory of a tenant.
    pub fn forget(&self, tenant: TenantId) {
        self.held.lock().retain(|(of, _), _| *of != tenant);
    }

    /// What is in memory.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let held = self.held.lock();
        let shown = held.iter().filter_map(|((tenant, space), held)| {
            let warm = held.present.as_ref()?;
            Some(Shown {
                tenant: *tenant,
                space: space.clone(),
                templates: warm.templates(),
                bytes: warm.bytes(),
                engine: format!("{:?}", warm.index().engine()),
                idle: held.searched.map(|at| at.elapsed()).unwrap_or_default(),
            })
        });
        shown.collect()
    }

    fn place(&self, key: &Key) -> Held {
        let mut held = self.held.lock();
        let place = held.entry(key.clone()).or_default();
        place.searched = Some(Instant::now());
        place.clone()
    }

    /// Shows a gallery to everybody, and drops others until all of them fit.
    fn keep(&self, key: Key, warm: &Arc<Warm>) {
        let mut held = self.held.lock();
        held.entry(key.clone()).or_default().present = Some(Arc::clone(warm));
        let bytes = |held: &HashMap<Key, Held>| -> usize {
            held.values().filter_map(|held| held.present.as_ref()).map(|warm| warm.bytes()).sum()
        };
        while bytes(&held) > self.max_bytes {
            let others = held.iter().filter(|(other, _)| **other != key);
            let Some(oldest) = others.min_by_key(|(_, held)| held.searched).map(|(key, _)| key.clone()) else { break };
            held.remove(&oldest);
        }
    }

    /// Reads what has changed since `before`, or everything.
    async fn read(&self, tenant: TenantId, space: &Space, before: Option<&Warm>) -> Result<Warm, GalleryError> {
        let before = before.filter(|warm| warm.read.elapsed() < MAX_AGE);
        let (known, read) = before.map_or((Rows::default(), Instant::now()), |warm| (warm.rows.clone(), warm.read));
        let (templates, anchors) = (known.templates.keys().copied().collect(), known.anchors.keys().copied().collect());
        let found = self.custody.unsealed(tenant, space, templates, anchors).await?;
        let built = tokio::task::spawn_blocking(move || {
            let Unsealed { stamp, templates, anchors } = found;
            let rows = Rows {
                templates: merged(known.templates, &templates.present, templates.new),
                anchors: merged(known.anchors, &anchors.present, anchors.new),
            };
            Warm::build(stamp, rows, read)
        });
        Ok(built.await.map_err(|_| GalleryError::Crashed)??)
    }
}

fn is_current(warm: &Warm, stamp: i64) -> bool {
    warm.stamp >= stamp && warm.read.elapsed() < MAX_AGE
}

/// What was known and is still there, and what is new.
fn merged<I: Eq + std::hash::Hash, T>(
    mut known: HashMap<I, T>,
    present: &std::collections::HashSet<I>,
    new: Vec<(I, T)>,
) -> HashMap<I, T> {
    known.retain(|id, _| present.contains(id));
    known.extend(new);
    known
}
