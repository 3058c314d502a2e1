//! A database that was restored from a backup: noticed at the start, and told to devices by higher epochs.
//!
//! In: the mark in the database, which grows every [`BEAT`] while the hub runs, and what was last seen of it, kept beside the
//! person keys and so in no backup of the database. Out: where the database is older than that, a higher epoch for the hub and
//! for every gallery, so that devices send again what the backup lacks and take a snapshot of what it has. What the last
//! seconds before the backup brought is not told apart: a backup that is younger than the last beat counts as the present.
//!
//! The order makes it safe to be cut off anywhere: the higher epochs are on disk outside before the first gallery is raised, and
//! the mark is set right last, so that the next start finds an older database again. An epoch is then skipped, which
//! costs nothing. Not told apart either: a database and a key folder that were restored together, from one moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gallery_log::keys::random_key;
use parking_lot::Mutex;
use serde_json::json;
use zeroize::Zeroizing;

use super::custody::log;
use super::{Custody, KeysError};
use hub_domain::ids::{GalleryId, TenantId};
use hub_host::secret_file;
use hub_store::audit::Action;
use hub_store::devices::DeviceState;
use hub_store::{devices, galleries, mark, routes};

/// How often the mark grows. A row and a small file each time; what a restored backup may lack unnoticed is what came since.
pub const BEAT: Duration = Duration::from_secs(10);

/// Link epochs that are skipped for each device: more than a device renews between two backups, so that the next is higher than
/// any that it has.
const SKIPPED_LINK_EPOCHS: u32 = 1_000;

/// What is remembered outside the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The highest mark seen in the database.
    mark: u64,
    /// The highest epoch that any gallery was raised to.
    gallery_epoch: u32,
    /// The hub's epoch.
    hub_epoch: u32,
}

/// The file of it.
pub(super) struct SeenFile {
    path: PathBuf,
    seen: Mutex<Seen>,
}

/// What was done about a restored database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// The hub's epoch now.
    pub hub_epoch: u32,
    /// Every gallery's epoch now.
    pub gallery_epoch: u32,
    /// How many galleries were raised.
    pub galleries: u64,
}

impl SeenFile {
    /// Reads the file; at the first start there is none. A hub of before had the hub's epoch alone, in `hub-epoch`.
    pub(super) fn load_or_make(dir: &Path) -> Result<Self, KeysError> {
        let (path, before) = (dir.join("epochs"), dir.join("hub-epoch"));
        let hub_epoch = match before.exists() {
            true => {
                let text = secret_file::load(&before)?;
                let text = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
                text.ok_or(KeysError::Damaged { path: before })?
            }
            false => 1,
        };
        let first = Seen { hub_epoch, ..Seen::default() };
        let bytes = secret_file::load_or_make(&path, || Ok::<_, KeysError>(Zeroizing::new(first.encode())))?;
        let seen = Seen::decode(&bytes).ok_or_else(|| KeysError::Damaged { path: path.clone() })?;
        Ok(Self { path, seen: Mutex::new(seen) })
    }

    pub(super) fn hub_epoch(&self) -> u32 {
        self.seen.lock().hub_epoch
    }

    fn get(&self) -> Seen {
        *self.seen.lock()
    }

    /// Changes it; it is on disk when this returns.
    fn change(&self, change: impl FnOnce(&mut Seen)) -> Result<Seen, KeysError> {
        let mut seen = self.seen.lock();
        let mut next = *seen;
        change(&mut next);
        if next != *seen {
            secret_file::replace(&self.path, &next.encode())?;
            *seen = next;
        }
        Ok(next)
    }
}

impl Seen {
    fn encode(self) -> Vec<u8> {
        let Self { mark, gallery_epoch, hub_epoch } = self;
        format!("v1\nmark {mark}\ngallery_epoch {gallery_epoch}\nhub_epoch {hub_epoch}\n").into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        if lines.next() != Some("v1") {
            return None;
        }
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let mark = value("mark")?.parse().ok()?;
        let gallery_epoch = value("gallery_epoch")?.parse().ok()?;
        let hub_epoch = value("hub_epoch")?.parse().ok()?;
        Some(Self { mark, gallery_epoch, hub_epoch })
    }
}

impl Custody {
    /// Compares the database with what was seen of it before, and raises the epochs if it is older. Call it at the start, before
    /// anybody is served; `None` when all is as it was.
    pub async fn notice_restore(&self) -> Result<Option<Raised>, KeysError> {
        let (found, seen) = (mark::read(&self.db).await?, self.keyring.seen().get());
        if found >= seen.mark {
            self.beat().await?;
            return Ok(None);
        }
        tracing::error!(
            event = "database_restored",
            alarm = true,
            found,
            seen = seen.mark,
            "the database is older than what was seen of it: it was restored from a backup; epochs are raised"
        );
        let mut all = Vec::new();
        let mut highest = seen.gallery_epoch;
        for tenant in routes::tenants(&self.db).await? {
            for id in self.db.tenant(tenant, |tx| Box::pin(galleries::of_sites(tx, None))).await? {
                let held = self.db.tenant(tenant, move |tx| Box::pin(galleries::get(tx, id))).await?;
                highest = highest.max(held.epoch);
                all.push((tenant, id));
            }
        }
        let raised = self.seen(move |seen| {
            seen.gallery_epoch = highest + 1;
            seen.hub_epoch += 1;
        });
        let raised = raised.await?;
        let mut count = 0;
        for (tenant, id) in all {
            count += u64::from(self.raise_gallery(tenant, id, raised.gallery_epoch).await?);
        }
        for tenant in routes::tenants(&self.db).await? {
            self.tell_of_restore(tenant, raised).await?;
        }
        let now = mark::advance(&self.db, seen.mark + 1, raised.gallery_epoch).await?;
        self.seen(move |seen| seen.mark = now.mark).await?;
        let Seen { gallery_epoch, hub_epoch, .. } = raised;
        Ok(Some(Raised { hub_epoch, gallery_epoch, galleries: count }))
    }

    /// Lets the mark grow, in the database first: outside there is never a higher one than it had. Takes in what epochs other hubs
    /// have raised galleries to.
    pub async fn beat(&self) -> Result<(), KeysError> {
        let now = mark::advance(&self.db, 0, 0).await?;
        let took_in = self.seen(move |seen| {
            seen.mark = seen.mark.max(now.mark);
            seen.gallery_epoch = seen.gallery_epoch.max(now.gallery_epoch);
        });
        took_in.await.map(drop)
    }

    /// Keeps outside the database that a gallery is about to have an epoch.
    pub(super) async fn epoch_seen(&self, epoch: u32) -> Result<(), KeysError> {
        self.seen(move |seen| seen.gallery_epoch = seen.gallery_epoch.max(epoch)).await.map(drop)
    }

    async fn seen(&self, change: impl FnOnce(&mut Seen) + Send + 'static) -> Result<Seen, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        super::custody::blocking(move || keyring.seen().change(change)).await
    }

    async fn raise_gallery(&self, tenant: TenantId, id: GalleryId, to: u32) -> Result<bool, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let keys = keyring.tenant(tx).await?;
                    let held = galleries::get(tx, id).await?;
                    let gdk = keys.open_gdk(id, held.epoch, &held.gdk_sealed)?;
                    let ck = keys.open_ck(id, held.epoch, &held.ck_sealed)?;
                    let (gdk, ck) = (keys.seal_gdk(id, to, &gdk)?, keys.seal_ck(id, to, &ck)?);
                    Ok::<_, KeysError>(galleries::epochs::raise(tx, id, to, &gdk, &ck).await?)
                })
            })
            .await
    }

    async fn tell_of_restore(&self, tenant: TenantId, raised: Seen) -> Result<(), KeysError> {
        let detail = json!({ "hub_epoch": raised.hub_epoch, "gallery_epoch": raised.gallery_epoch });
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    // A device that renewed its certificate after the backup has a link key that is lost here. It gets a
                    // new one, under a number that it has not had, when it fetches its link.
                    devices::skip_link_epochs(tx, SKIPPED_LINK_EPOCHS).await?;
                    let keys = keyring.tenant(tx).await?;
                    for device in devices::list(tx).await?.into_iter().filter(|one| one.state == DeviceState::Claimed) {
                        let number = devices::next_link_epoch(tx, device.id).await?;
                        let sealed = keys.seal_link(device.id, number, &*random_key()?)?;
                        devices::renew_link(tx, device.id, number, &sealed, now).await?;
                    }
                    log(tx, "hub", Action::HubRestored, "tenant", tenant.0, detail).await
                })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_there_after_a_restart_and_an_older_file_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let seen = SeenFile::load_or_make(dir.path()).unwrap();
        assert_eq!((seen.get(), seen.hub_epoch()), (Seen { hub_epoch: 1, ..Seen::default() }, 1));
        seen.change(|seen| (seen.mark, seen.gallery_epoch, seen.hub_epoch) = (70, 3, 2)).unwrap();
        let again = SeenFile::load_or_make(dir.path()).unwrap();
        assert_eq!(again.get(), Seen { mark: 70, gallery_epoch: 3, hub_epoch: 2 });

        let dir = tempfile::tempdir().unwrap();
        secret_file::load_or_make(&dir.path().join("hub-epoch"), || {
            Ok::<_, KeysError>(Zeroizing::new(b"4\n".to_vec()))
        })
        .unwrap();
        assert_eq!(SeenFile::load_or_make(dir.path()).unwrap().hub_epoch(), 4);
        std::fs::write(dir.path().join("epochs"), b"v1\nmark x\n").unwrap();
        assert!(matches!(SeenFile::load_or_make(dir.path()), Err(KeysError::Damaged { .. })));
    }
}
