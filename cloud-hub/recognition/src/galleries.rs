//! Tenants' galleries in memory: read when they are first searched, and true at every search. One that would not fit is not read;
//! it is searched in the database ([`super::vectors`]).
//!
//! Each search asks the database for one number, the tenant's stamp; as long as it is that of the gallery in memory, nothing has
//! changed. Otherwise what is new is unsealed, what is gone is dropped, and a new index takes the old one's place whole. So
//! nobody who was deleted before a search began is found by it, on whichever hub they were deleted.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use face_core::Space;
use face_index::BuildError;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::comparisons::NotCompared;
use super::paths::{InMemory, SearchPath, Served, Serving};
use super::vectors::{Turns, Vectors};
use super::warm::{Rows, Warm};
use hub_domain::ids::TenantId;
use hub_host::metrics::recognition::{self as measured, Cache, looked_up};
use hub_keys::{Custody, KeysError, Unsealed};
use hub_store::vectors::Holding;

/// However little has changed, a gallery is read anew after this time: the specification's bound on templates in a cache.
const MAX_AGE: Duration = Duration::from_secs(24 * 3_600);

/// A gallery that did not change for so long is not likely to change just now.
const SETTLED: Duration = Duration::from_secs(1);

/// A gallery cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum GalleryError {
    /// It cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// It was not searched.
    #[error(transparent)]
    NotCompared(#[from] NotCompared),
    /// It cannot be indexed.
    #[error("the gallery cannot be indexed")]
    Index(#[from] BuildError),
    /// The work was thrown away by a panic.
    #[error("the gallery's index was not finished")]
    Crashed,
}

/// How often galleries in memory are held against the database although nobody searches.
const TEND_EVERY: Duration = Duration::from_secs(10);

pub(super) type Key = (TenantId, String);

/// The galleries that were searched lately.
pub struct Galleries {
    custody: Custody,
    /// Bytes in memory, above which those go that were not searched for longest.
    max_bytes: usize,
    held: Mutex<HashMap<Key, Held>>,
    /// Searches of those that are too large.
    turns: Arc<Turns>,
}

/// A gallery's place. One at a time brings it up to date; whoever comes meanwhile waits for that and not for a second one.
#[derive(Clone, Default)]
struct Held {
    warm: Option<Arc<Warm>>,
    /// It was too large for the memory, when it was last counted.
    too_large: Option<Counted>,
    updating: Arc<tokio::sync::Mutex<()>>,
    pub(super) searched: Option<Instant>,
}

/// Templates at a stamp.
#[derive(Clone, Copy)]
struct Counted {
    stamp: i64,
    templates: usize,
}

impl Held {
    /// What can be searched without a look at the database, if nothing has changed since this stamp.
    fn current(&self, stamp: i64) -> Option<Current> {
        let warm = self.warm.as_ref().filter(|warm| is_current(warm, stamp)).cloned().map(Current::Warm);
        warm.or_else(|| self.too_large.filter(|counted| counted.stamp >= stamp).map(Current::TooLarge))
    }
}

/// What is known of a gallery.
enum Current {
    Warm(Arc<Warm>),
    TooLarge(Counted),
}

impl Galleries {
    /// No gallery yet; in the end those searched last, in `max_bytes`. One that has no room there all alone is never read.
    #[must_use]
    pub fn new(custody: Custody, max_bytes: usize) -> Self {
        Self { custody, max_bytes, held: Mutex::default(), turns: Arc::default() }
    }

    /// The tenant's gallery of a space as it is now.
    pub async fn of(&self, tenant: TenantId, space: &Space) -> Result<Served, GalleryError> {
        let stamp = self.custody.template_stamp(tenant).await?;
        self.of_stamp(tenant, space, stamp).await
    }

    /// The same for whoever has asked for the stamp in a transaction of their own: a gallery at least as new.
    pub async fn of_stamp(&self, tenant: TenantId, space: &Space, stamp: i64) -> Result<Served, GalleryError> {
        let key = (tenant, space.id.clone());
        let place = self.place(&key);
        let current = place.current(stamp);
        if !matches!(current, Some(Current::TooLarge(_))) {
            looked_up(Cache::Galleries, current.is_some());
        }
        if let Some(current) = current {
            return Ok(self.served(tenant, space, current));
        }
        let _updating = place.updating.lock().await;
        // Somebody else may have brought it up to date while this one waited.
        let place = self.place(&key);
        if let Some(current) = place.current(stamp) {
            return Ok(self.served(tenant, space, current));
        }
        // Counted before anything is read: a gallery that does not fit is not to take all memory to find that out.
        let (stamp, holding) = self.custody.holding(tenant, &space.id).await?;
        if !self.fits(&holding) {
            let counted = Counted { stamp, templates: holding.templates };
            self.too_large(key, counted);
            return Ok(self.served(tenant, space, Current::TooLarge(counted)));
        }
        let warm = Arc::new(self.read(tenant, space, place.warm.as_deref()).await?);
        self.keep(key, &warm);
        Ok(Served::Memory(warm))
    }

    /// How every space of these tenants would be searched now.
    pub async fn paths(&self, tenants: &[TenantId]) -> Result<Vec<Serving>, KeysError> {
        let mut all = Vec::new();
        for tenant in tenants.iter().copied() {
            for (holding, searchable, way) in self.custody.holdings(tenant).await? {
                let path = if self.fits(&holding) { SearchPath::Memory } else { SearchPath::from(way) };
                let Holding { space_id, templates, .. } = holding;
                let held = self.in_memory(&(tenant, space_id.clone()));
                let (index, vectors_whole) = (searchable.index, searchable.whole);
                all.push(Serving { tenant, space_id, path, templates, index, held, vectors_whole });
            }
        }
        Ok(all)
    }

    fn in_memory(&self, key: &Key) -> Option<InMemory> {
        let held = self.held.lock();
        let held = held.get(key)?;
        let (warm, searched) = (held.warm.as_ref()?, held.searched?);
        Some(InMemory { bytes: warm.bytes(), searched_ago: searched.elapsed(), stamp: warm.stamp })
    }

    /// Whether a gallery has room in memory, if all others go.
    fn fits(&self, holding: &Holding) -> bool {
        Warm::bytes_of(holding.templates, holding.anchors) <= self.max_bytes
    }

    fn served(&self, tenant: TenantId, space: &Space, current: Current) -> Served {
        match current {
            Current::Warm(warm) => Served::Memory(warm),
            Current::TooLarge(Counted { templates, .. }) => Served::Vectors(Vectors {
                custody: self.custody.clone(),
                turns: Arc::clone(&self.turns),
                tenant,
                space: space.clone(),
                templates,
            }),
        }
    }

    /// The tenant's gallery as it lies in memory, which may be out of date: for whoever asks for the stamp meanwhile and holds it
    /// against [`Galleries::of_stamp`]. None that was made a moment ago, since the next change is likely to be on its way, and the
    /// work would be for nothing.
    #[must_use]
    pub fn at_hand(&self, tenant: TenantId, space: &Space) -> Option<Served> {
        let held = self.held.lock();
        let warm = held.get(&(tenant, space.id.clone()))?.warm.as_ref()?;
        (warm.made.elapsed() >= SETTLED).then(|| Served::Memory(Arc::clone(warm)))
    }

    /// Whose galleries are in memory.
    #[must_use]
    pub fn held(&self) -> Vec<TenantId> {
        let held = self.held.lock();
        held.iter().filter(|(_, held)| held.warm.is_some()).map(|((tenant, _), _)| *tenant).collect()
    }

    /// Drops a tenant's galleries at once: somebody was erased, whose template is not to stay in memory until the next search.
    pub fn forget(&self, tenant: TenantId) {
        self.held.lock().retain(|(whose, _), _| *whose != tenant);
    }

    /// Drops galleries that have changed, by whichever hub, until `stop`: what was erased on another one is not to stay in memory
    /// here until somebody searches.
    pub async fn tend(&self, stop: CancellationToken) {
        let mut rounds = tokio::time::interval(TEND_EVERY);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rounds.tick() => self.drop_changed().await,
            }
        }
    }

    /// One round of [`Galleries::tend`].
    pub async fn drop_changed(&self) {
        for tenant in self.held() {
            let stamp = self.custody.template_stamp(tenant).await;
            // Of a tenant that is gone there have been no changes. While the database is away nothing is known, and nothing erased.
            let Ok(stamp) = stamp else { continue };
            let stays = |warm: &Warm| warm.stamp == stamp && warm.read.elapsed() < MAX_AGE;
            self.held.lock().retain(|(whose, _), held| *whose != tenant || held.warm.as_deref().is_none_or(stays));
        }
    }

    /// Tells how many there are, and how much memory they take.
    pub fn measure(&self) {
        let (count, bytes) = {
            let held = self.held.lock();
            let warm = held.values().filter_map(|held| held.warm.as_ref());
            warm.fold((0, 0), |(count, bytes), warm| (count + 1, bytes + warm.bytes()))
        };
        measured::galleries(count, bytes, self.max_bytes);
    }

    fn place(&self, key: &Key) -> Held {
        let mut held = self.held.lock();
        let place = held.entry(key.clone()).or_default();
        place.searched = Some(Instant::now());
        place.clone()
    }

    /// Remembers that a gallery does not fit; what of it is in memory goes.
    fn too_large(&self, key: Key, counted: Counted) {
        let mut held = self.held.lock();
        let place = held.entry(key).or_default();
        (place.warm, place.too_large) = (None, Some(counted));
    }

    /// Shows a gallery to everybody, and drops others until all of them fit.
    fn keep(&self, key: Key, warm: &Arc<Warm>) {
        let mut held = self.held.lock();
        let place = held.entry(key.clone()).or_default();
        (place.warm, place.too_large) = (Some(Arc::clone(warm)), None);
        let bytes = |held: &HashMap<Key, Held>| -> usize {
            held.values().filter_map(|held| held.warm.as_ref()).map(|warm| warm.bytes()).sum()
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
fn merged<I: Eq + Hash, T>(
    mut known: HashMap<I, Arc<T>>,
    present: &HashSet<I>,
    new: Vec<(I, T)>,
) -> HashMap<I, Arc<T>> {
    known.retain(|id, _| present.contains(id));
    known.extend(new.into_iter().map(|(id, row)| (id, Arc::new(row))));
    known
}
