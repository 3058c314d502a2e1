//! Other digest and credential keys in the places of those of a tenant's galleries, while doors go on deciding.
//!
//! In: an order. Out: each gallery in a higher epoch, under a new GDK and CK, with the entries and the version that it had. One
//! transaction a gallery, in which nobody changes it: every live body is unsealed, for leaves are hashes of bodies under GDK. A gallery
//! of which a body cannot be opened stays as it is. Devices are told by the epoch: they fetch the keys and go on with what they have.
//!
//! The epoch is kept outside the database before it is committed, as after a restored backup: whoever puts an older database
//! back gets a higher one than any device has seen. Hubs that did not do it learn of it with their next mark.

use std::collections::BTreeSet;
use std::sync::Arc;

use gallery_log::keys::random_key;
use gallery_log::{DigestKey, Leaf};
use serde_json::json;

use super::custody::log;
use super::opener::Opener;
use super::{Custody, Keyring, KeysError};
use hub_domain::ids::{GalleryId, TenantId};
use hub_domain::vault::TenantKeys;
use hub_store::audit::Action;
use hub_store::galleries::{self, epochs};
use hub_store::{TenantTx, mark};

/// Buckets whose bodies are in memory at once: of 100,000 templates some 3,000, or 7 MB.
const BUCKETS_AT_ONCE: u8 = 8;

/// What became of a gallery whose keys were to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekeyed {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch now.
    pub epoch: u32,
    /// How many of its entries cannot be opened: where there are any, it is as it was.
    pub unopened: u64,
}

impl Custody {
    /// Replaces the digest and the credential key of each gallery of a tenant. Galleries that cannot be are as they were, and named.
    pub async fn rotate_gallery_keys(&self, tenant: TenantId, actor: &str) -> Result<Vec<Rekeyed>, KeysError> {
        let mut told = Vec::new();
        for id in self.db.tenant(tenant, |tx| Box::pin(galleries::of_sites(tx, None))).await? {
            told.push(self.rotate_keys_of(tenant, id, actor).await?);
        }
        Ok(told)
    }

    /// The epochs of a tenant's galleries, each of which has keys of its own.
    pub async fn gallery_epochs(&self, tenant: TenantId) -> Result<Vec<(GalleryId, u32)>, KeysError> {
        let read = self.db.tenant(tenant, |tx| {
            Box::pin(async move {
                let mut told = Vec::new();
                for id in galleries::of_sites(tx, None).await? {
                    told.push((id, galleries::get(tx, id).await?.epoch));
                }
                Ok::<_, KeysError>(told)
            })
        });
        read.await
    }

    async fn rotate_keys_of(&self, tenant: TenantId, id: GalleryId, actor: &str) -> Result<Rekeyed, KeysError> {
        let (custody, keyring, actor) = (self.clone(), Arc::clone(&self.keyring), actor.to_owned());
        let done = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let held = epochs::lock(tx, id).await?;
                let gdk = random_key()?;
                let leaves = leaves_under(tx, &keyring, &keys, (id, held), &DigestKey::new(*gdk)).await?;
                let leaves = match leaves {
                    Ok(leaves) => leaves,
                    Err(unopened) => return Ok(Rekeyed { gallery: id, epoch: held, unopened }),
                };
                epochs::relabel(tx, id, &leaves).await?;
                let to = held + 1;
                let (gdk, ck) = (keys.seal_gdk(id, to, &gdk)?, keys.seal_ck(id, to, &*random_key()?)?);
                epochs::raise(tx, id, to, &gdk, &ck).await?;
                let detail = json!({ "epoch": to, "entries": leaves.len() });
                log(tx, &actor, Action::GalleryKeyRotate, "gallery", id.0, detail).await?;
                // Last, for all hubs' marks wait for this row.
                mark::gallery_epoch_reached(tx, to).await?;
                custody.epoch_seen(to).await?;
                Ok::<_, KeysError>(Rekeyed { gallery: id, epoch: to, unopened: 0 })
            })
        });
        let done = done.await?;
        match done.unopened {
            0 => {
                tracing::info!(event = "gallery_keys_replaced", client_id = %tenant, gallery = %id, epoch = done.epoch, "a gallery has other keys; its devices fetch them");
            }
            unopened => {
                tracing::error!(event = "gallery_keys_not_replaced", client_id = %tenant, gallery = %id, unopened, "entries of a gallery cannot be opened: it keeps its keys");
            }
        }
        Ok(done)
    }
}

/// The leaf of every live entry under another key, or how many entries there are that nobody can open. The caller has the
/// gallery locked.
async fn leaves_under(
    tx: &mut TenantTx,
    keyring: &Keyring,
    keys: &TenantKeys,
    (id, epoch): (GalleryId, u32),
    gdk: &DigestKey,
) -> Result<Result<Vec<epochs::NewLeaf>, u64>, KeysError> {
    let (mut leaves, mut unopened) = (Vec::new(), 0);
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for some in all.chunks(usize::from(BUCKETS_AT_ONCE)) {
        let buckets: BTreeSet<u8> = some.iter().copied().collect();
        // As short-lived as its keys should be.
        let mut opener = Opener::new(keyring, keys);
        for record in galleries::live_in(tx, id, epoch, &buckets).await? {
            // A stand-in would have a leaf that no device has which was given the body.
            let opened = match record.sealed {
                Some(_) => opener.body(&record),
                None => {
                    unopened += 1;
                    continue;
                }
            };
            match opened {
                Ok(body) => {
                    let leaf = Leaf::of(gdk, record.kind, record.id, record.rev, &body);
                    leaves.push(epochs::NewLeaf { id: record.id, version: record.version, leaf });
                }
                Err(KeysError::NoPersonKey(_)) => unopened += 1,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(if unopened == 0 { Ok(leaves) } else { Err(unopened) })
}
