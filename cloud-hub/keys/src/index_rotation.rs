//! Another index key in the place of a tenant's, while everybody is found and nobody is there twice.
//!
//! In: an order, once; then steps, each of which may be the last that this process does. Out: rows that are marked under the new key,
//! and an old key that is gone. Several hubs may do it at once. While both are in use everything is marked under both (see
//! `domain::index_key`); a person whom a hub makes that has not heard of the new key has a mark under the old one, by which all others
//! know that they are there, and is marked under the new one by the next step.
//!
//! The order is the point of this page. The old key is used by all hubs until everything can be found under the new one; then it has
//! ended, and when nobody can be at work who used it, its marks go, and at last the key.

use std::sync::Arc;

use gallery_log::keys::random_key;
use serde_json::json;
use time::OffsetDateTime;

use super::custody::log;
use super::entering::login_marks_of;
use super::{Custody, Keyring, KeysError, Progress};
use hub_domain::ids::TenantId;
use hub_domain::tenant_key::{NOBODY_AFTER, Stage};
use hub_domain::vault::TenantKeys;
use hub_store::audit::Action;
use hub_store::secrets::{Kind, Version};
use hub_store::{TenantTx, people, reindexing, secrets, tenants};

/// Rows that are marked in one transaction. Each takes a look into the key store: some milliseconds in all.
const AT_ONCE: u32 = 200;
/// As audit entries name the job.
const JOB: &str = "hub";

/// A version of an index key or of a seed, without it.
#[derive(Clone, Debug)]
pub struct VersionView {
    /// What it is of: of a seed its space, otherwise empty.
    pub name: String,
    /// Its number.
    pub version: u32,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// `in use`, or of one that is to go `looked under`, then `ended`.
    pub state: &'static str,
    /// Of one that is to go, how much is not under the next one yet.
    pub left: Option<u64>,
}

impl Custody {
    /// Begins to replace a tenant's index key; a change that is under way goes on. The job does the rest: within some minutes, or in a
    /// day where requests with an `Idempotency-Key` or failed log-ins of the last day are kept under the one before.
    pub async fn rotate_index_key(&self, tenant: TenantId, actor: &str) -> Result<(), KeysError> {
        let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
        let begun = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                tenants::lock(tx).await?;
                let stored = secrets::versions(tx, Kind::IndexKey, "").await?;
                let [(version, _)] = stored.as_slice() else { return Ok(()) };
                let (keys, next) = (keyring.read_tenant(tx).await?, version + 1);
                // Where groups had none of their own, they go on with the one that there is.
                secrets::add(tx, Kind::GroupKey, "", 1, &keys.seal_group_key(keys.index().groups())?).await?;
                secrets::add(tx, Kind::IndexKey, "", next, &keys.seal_index_key(next, &*random_key()?)?).await?;
                log(tx, &actor, Action::TenantIndexKeyRotate, "tenant", tenant.0, json!({ "version": next })).await
            })
        });
        begun.await?;
        self.keyring.forget_key(tenant);
        Ok(())
    }

    /// The versions of a tenant's index key, newest first.
    pub async fn index_key_views(&self, tenant: TenantId) -> Result<Vec<VersionView>, KeysError> {
        let now = self.clock.now();
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let stored = secrets::aged(tx, Kind::IndexKey, "").await?;
                let [newest, before @ ..] = stored.as_slice() else { return Ok((stored, None)) };
                let left = match before {
                    [] => None,
                    _ => Some(reindexing::left(tx, newest.version, (known_by(newest), now)).await?.all()),
                };
                Ok::<_, KeysError>((stored, left))
            })
        });
        let (stored, left) = read.await?;
        Ok(views("", stored, left))
    }

    /// Goes on with a change of a tenant's index key, one batch further.
    pub async fn go_on_with_index_key(&self, tenant: TenantId) -> Result<Progress, KeysError> {
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        let step = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let stored = secrets::aged(tx, Kind::IndexKey, "").await?;
                let [newest, before @ ..] = stored.as_slice() else { return Ok(Progress::Idle) };
                let Some(oldest) = before.last() else { return Ok(Progress::Idle) };
                if Stage::at(newest.age) < Stage::Reseals {
                    return Ok(Progress::Waits);
                }
                let marked = mark_some(tx, &keyring, newest.version).await?;
                if marked > 0 {
                    return Ok(Progress::Resealed(marked));
                }
                match oldest.ended {
                    None => end(tx, newest, now).await,
                    Some(ended) if ended < NOBODY_AFTER => Ok(Progress::Waits),
                    Some(_) => clear(tx, tenant, newest.version).await,
                }
            })
        });
        let progress = step.await?;
        if progress == Progress::Done {
            self.keyring.forget_key(tenant);
            tracing::info!(event = "index_key_replaced", client_id = %tenant, "everything of a tenant is found under its new index key");
        }
        Ok(progress)
    }
}

/// When nobody was at work any more who had not heard of this key.
fn known_by(newest: &Version) -> OffsetDateTime {
    newest.created_at + NOBODY_AFTER
}

/// Versions as they are shown, newest first; of those before it is told how much is `left`.
pub(super) fn views(name: &str, stored: Vec<Version>, left: Option<u64>) -> Vec<VersionView> {
    let view = |(place, row): (usize, Version)| VersionView {
        name: name.to_owned(),
        version: row.version,
        created_at: row.created_at,
        state: match (place, row.ended) {
            (0, _) => "in use",
            (_, None) => "looked under",
            (_, Some(_)) => "ended",
        },
        left: left.filter(|_| place > 0),
    };
    stored.into_iter().enumerate().map(view).collect()
}

/// Marks up to [`AT_ONCE`] people and users under the newest key; returns how many there were.
async fn mark_some(tx: &mut TenantTx, keyring: &Keyring, newest: u32) -> Result<u64, KeysError> {
    let (keys, mut count) = (keyring.read_tenant(tx).await?, 0);
    for person in reindexing::people(tx, newest, AT_ONCE).await? {
        count += 1;
        match keyring.person(&keys, person.id) {
            Ok(key) => {
                let profile = key.open_profile(person.revision, &person.profile_sealed)?;
                reindexing::mark_person(tx, &keys, person.id, &profile).await?;
            }
            // Noted, so that they are not looked at again until it is back. Until then, or until they are deleted, the old key stays.
            Err(KeysError::NoPersonKey(_)) => _ = people::key_missing(tx, person.id).await?,
            Err(error) => return Err(error),
        }
    }
    for user in reindexing::users(tx, newest, AT_ONCE).await? {
        reindexing::mark_user(tx, user.id(), &login_marks_of(&keys, user.id(), &user.login_sealed)?).await?;
        count += 1;
    }
    Ok(count + bind_seeds(tx, &keys).await?)
}

/// Seeds that are bound to a mark of their space's name are bound to the space itself.
async fn bind_seeds(tx: &mut TenantTx, keys: &TenantKeys) -> Result<u64, KeysError> {
    let mut count = 0;
    for space in secrets::names(tx, Kind::RotationSeed).await? {
        for (version, sealed) in secrets::versions(tx, Kind::RotationSeed, &space).await? {
            if keys.is_seed_of_before(&space, version, &sealed) {
                let seed = keys.open_rotation_seed(&space, version, &sealed)?;
                let anew = keys.seal_rotation_seed(&space, version, &seed)?;
                count += u64::from(secrets::replace(tx, Kind::RotationSeed, &space, version, &sealed, &anew).await?);
            }
        }
    }
    Ok(count)
}

/// Nobody is to use the keys before the newest, if everything can be found without them and every hub knows the newest.
async fn end(tx: &mut TenantTx, newest: &Version, now: OffsetDateTime) -> Result<Progress, KeysError> {
    if Stage::at(newest.age) == Stage::Retires {
        tenants::lock(tx).await?;
        if reindexing::left(tx, newest.version, (known_by(newest), now)).await?.all() == 0 {
            secrets::end_before(tx, Kind::IndexKey, "", newest.version).await?;
        }
    }
    Ok(Progress::Waits)
}

/// Takes marks away that nobody looks for any more, and at last the keys.
async fn clear(tx: &mut TenantTx, tenant: TenantId, newest: u32) -> Result<Progress, KeysError> {
    let cleared = reindexing::clear(tx, newest, AT_ONCE).await?;
    if cleared > 0 {
        return Ok(Progress::Resealed(cleared));
    }
    tenants::lock(tx).await?;
    if reindexing::any_before(tx, newest).await? {
        return Ok(Progress::Waits);
    }
    if secrets::remove_before(tx, Kind::IndexKey, "", newest).await? > 0 {
        log(tx, JOB, Action::TenantIndexKeyRetire, "tenant", tenant.0, json!({ "version": newest })).await?;
    }
    Ok(Progress::Done)
}
