//! Other keys in the place of the master key and of tenants' keys, while everybody goes on working.
//!
//! In: an order, once; then steps, each of which may be the last that this process does. Out: rows and people's keys that are sealed
//! anew, an audit entry at the beginning and at the end, and old keys that are gone. What is left to do is told by the seals
//! themselves, which begin with the id of their key: nothing else is written down, so nothing can be out of step with it. Several
//! hubs may do it at once. Nothing sealed changes its content: no record, version or digest of a gallery.
//!
//! The order is the point of this page. A key lies outside the database before anything is sealed under it, and the key before goes
//! when a whole pass has found nothing under it.

use std::sync::Arc;

use gallery_log::SealKey;
use serde_json::json;
use time::OffsetDateTime;

use super::custody::{blocking, log};
use super::{Custody, Keyring, KeysError};
use hub_domain::ids::TenantId;
use hub_domain::tenant_key::{NOBODY_AFTER, Stage};
use hub_domain::vault::TenantKeys;
use hub_store::audit::Action;
use hub_store::secrets::{Kind, Version};
use hub_store::{TenantTx, resealing, routes, secrets, tenants, token_keys};

/// Rows that are sealed anew in one transaction: some milliseconds.
const AT_ONCE: u32 = 200;
/// As audit entries name the job.
const JOB: &str = "hub";

/// How the master key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MasterStanding {
    /// There is a key that is to take its place, once every hub has it.
    pub has_next: bool,
    /// There is a key before it.
    pub has_previous: bool,
    /// Other hubs have the same keys.
    pub is_shared: bool,
}

/// A version of a tenant's key, without the key.
#[derive(Clone, Debug)]
pub struct TenantKeyView {
    /// Its number.
    pub version: u32,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// `seals`, or `opens` before and after.
    pub state: &'static str,
}

/// What a step of a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing to do.
    Idle,
    /// There will be, when its time has come.
    Waits,
    /// There is, and somebody else is at work on it: soon.
    Busy,
    /// So much was sealed anew; there may be more.
    Resealed(u64),
    /// The old keys are gone.
    Done,
}

impl Custody {
    /// How the master key stands.
    #[must_use]
    pub fn master_standing(&self) -> MasterStanding {
        let (masters, is_shared) = (self.keyring.masters(), self.keyring.persons().is_shared());
        MasterStanding { has_next: masters.has_next(), has_previous: masters.has_previous(), is_shared }
    }

    /// Begins to replace the master key. Where several hubs share it, the first call makes the next one, which is to be copied to all
    /// of them; with `copied` it takes the place of the present one. Alone, both happen at once. The job does the rest.
    pub async fn rotate_master(&self, copied: bool) -> Result<MasterStanding, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        blocking(move || {
            let masters = keyring.masters();
            if !copied {
                if masters.has_previous() && !masters.has_next() {
                    return Err(KeysError::MasterUnderWay);
                }
                masters.prepare()?;
            } else if !masters.has_next() && !masters.has_previous() {
                return Err(KeysError::NoNextMaster);
            }
            if copied || !keyring.persons().is_shared() {
                masters.switch()?;
                tracing::info!(
                    event = "master_key_switched",
                    "another master key seals; what is sealed under the one before follows"
                );
            }
            Ok(())
        })
        .await?;
        Ok(self.master_standing())
    }

    /// Destroys the master key before, which other hubs may have needed: they must all have put the present one in its place.
    pub async fn retire_master(&self) -> Result<MasterStanding, KeysError> {
        if self.reseal_under_master().await? > 0 || !self.is_old_master_idle() || !self.is_all_under_master().await? {
            return Err(KeysError::MasterNeeded);
        }
        let keyring = Arc::clone(&self.keyring);
        blocking(move || keyring.masters().retire()).await?;
        tracing::info!(event = "master_key_retired", "nothing is sealed under the master key before; it was destroyed");
        Ok(self.master_standing())
    }

    /// Goes on with a change of the master key.
    pub async fn go_on_with_master(&self) -> Result<Progress, KeysError> {
        let standing = self.master_standing();
        if !standing.has_previous {
            return Ok(Progress::Idle);
        }
        match self.reseal_under_master().await? {
            0 if standing.is_shared => Ok(Progress::Idle),
            0 if !self.is_old_master_idle() => Ok(Progress::Waits),
            0 => self.retire_master().await.map(|_| Progress::Done),
            count => Ok(Progress::Resealed(count)),
        }
    }

    /// Whether everybody has ended who may have sealed under the master key before: a tenant that is just being made is in no row yet.
    fn is_old_master_idle(&self) -> bool {
        self.keyring.masters().switched_at().is_none_or(|at| self.clock.now() - at >= NOBODY_AFTER)
    }

    /// Seals every tenant's key and every key of access tokens under the present master key; returns how many were not. Of tenants
    /// that are being deleted nothing is kept.
    async fn reseal_under_master(&self) -> Result<u64, KeysError> {
        let mut count = 0;
        for row in token_keys::all(&self.db).await? {
            if let Some(sealed) = self.keyring.reseal_token_key(row.id, &row.sealed)? {
                token_keys::replace(&self.db, row.id, &row.sealed, &sealed).await?;
                count += 1;
            }
        }
        for tenant in routes::tenants(&self.db).await? {
            count += self.reseal_tenants_key(tenant).await?;
        }
        Ok(count)
    }

    async fn reseal_tenants_key(&self, tenant: TenantId) -> Result<u64, KeysError> {
        let rows = self.db.tenant(tenant, |tx| Box::pin(secrets::tenant_keys(tx))).await?;
        let keyring = Arc::clone(&self.keyring);
        // The copies first: they serve where a row is of a backup.
        let (resealed, copies) = blocking(move || reseal_copies(&keyring, tenant, &rows)).await?;
        let keyring = Arc::clone(&self.keyring);
        let replaced = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let mut replaced = 0;
                for (version, before, sealed) in &resealed {
                    replaced += u64::from(secrets::replace(tx, Kind::TenantKey, "", *version, before, sealed).await?);
                }
                if replaced > 0 {
                    let detail = json!({ "key": keyring.masters().current().to_string(), "versions": replaced });
                    log(tx, JOB, Action::HubMasterKey, "tenant", tenant.0, detail).await?;
                }
                Ok::<_, KeysError>(replaced)
            })
        });
        Ok(replaced.await? + copies)
    }

    async fn is_all_under_master(&self) -> Result<bool, KeysError> {
        let current = self.keyring.masters().current();
        let is_current = |sealed: &[u8]| gallery_log::seal::key_id(sealed) == Ok(current);
        if !token_keys::all(&self.db).await?.iter().all(|row| is_current(&row.sealed)) {
            return Ok(false);
        }
        for tenant in routes::tenants(&self.db).await? {
            let rows = self.db.tenant(tenant, |tx| Box::pin(secrets::tenant_keys(tx))).await?;
            if !rows.iter().all(|row| is_current(&row.sealed)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Begins to replace a tenant's key; a change that is under way goes on. The job does the rest, within some minutes.
    pub async fn rotate_tenant_key(&self, tenant: TenantId, actor: &str) -> Result<Vec<TenantKeyView>, KeysError> {
        let rows = self.db.tenant(tenant, |tx| Box::pin(secrets::tenant_keys(tx))).await?;
        if rows.len() < 2 {
            let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
            let (version, sealed) = blocking(move || make_version(&keyring, tenant, &rows)).await?;
            let begun = self.db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    tenants::lock(tx).await?;
                    // Another hub may have been first: then its key is the one, and ours was never sealed with.
                    if secrets::tenant_keys(tx).await?.len() < 2 {
                        secrets::add(tx, Kind::TenantKey, "", version, &sealed).await?;
                        log(tx, &actor, Action::TenantKeyRotate, "tenant", tenant.0, json!({ "version": version }))
                            .await?;
                    }
                    Ok::<_, KeysError>(())
                })
            });
            begun.await?;
            self.keyring.forget_key(tenant);
        }
        self.tenant_key_views(tenant).await
    }

    /// The versions of a tenant's key, newest first.
    pub async fn tenant_key_views(&self, tenant: TenantId) -> Result<Vec<TenantKeyView>, KeysError> {
        let rows = self.db.tenant(tenant, |tx| Box::pin(secrets::tenant_keys(tx))).await?;
        let sealing = rows.first().map_or(0, |newest| Stage::at(newest.age).sealing(rows.len()));
        let view = |(place, row): (usize, Version)| TenantKeyView {
            version: row.version,
            created_at: row.created_at,
            state: if place == sealing { "seals" } else { "opens" },
        };
        Ok(rows.into_iter().enumerate().map(view).collect())
    }

    /// Goes on with a change of a tenant's key, one batch further.
    pub async fn go_on_with_tenant_key(&self, tenant: TenantId) -> Result<Progress, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let step = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let rows = secrets::tenant_keys(tx).await?;
                let Some(newest) = rows.first().filter(|_| rows.len() > 1) else { return Ok(Err(Progress::Idle)) };
                let stage = Stage::at(newest.age);
                if stage < Stage::Reseals {
                    return Ok(Err(Progress::Waits));
                }
                let keys = keyring.read_tenant(tx).await?;
                match reseal_some(tx, &keys).await? {
                    0 => Ok(Ok((stage, newest.version, keys))),
                    count => Ok::<_, KeysError>(Err(Progress::Resealed(count))),
                }
            })
        });
        let (stage, version, keys) = match step.await? {
            Ok(rows_are_done) => rows_are_done,
            Err(progress) => return Ok(progress),
        };
        let (keyring, known) = (Arc::clone(&self.keyring), keys.clone());
        let people = blocking(move || {
            keyring.persons().rewrap(tenant, &|person, wrapped| Ok(known.rewrap_person(person, wrapped)?))
        });
        match people.await? {
            0 if stage < Stage::Retires => Ok(Progress::Waits),
            0 => self.retire_tenant_keys(tenant, version, keys).await,
            count => Ok(Progress::Resealed(count)),
        }
    }

    /// The keys before the newest go, if nothing at all is under them. Their copies outside the database stay as long as the tenant:
    /// they open what a backup has.
    async fn retire_tenant_keys(
        &self,
        tenant: TenantId,
        version: u32,
        keys: TenantKeys,
    ) -> Result<Progress, KeysError> {
        let retired = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                tenants::lock(tx).await?;
                if resealing::any(tx, &keys.old_ids()).await? {
                    return Ok(false);
                }
                if secrets::remove_before(tx, Kind::TenantKey, "", version).await? > 0 {
                    log(tx, JOB, Action::TenantKeyRetire, "tenant", tenant.0, json!({ "version": version })).await?;
                }
                Ok::<_, KeysError>(true)
            })
        });
        if !retired.await? {
            return Ok(Progress::Waits);
        }
        self.keyring.forget_key(tenant);
        tracing::info!(event = "tenant_key_replaced", client_id = %tenant, version, "everything of a tenant is under its new key");
        Ok(Progress::Done)
    }
}

/// The next version of a tenant's key, with its copy outside the database and those of the versions that there are.
fn make_version(keyring: &Keyring, tenant: TenantId, rows: &[Version]) -> Result<(u32, Vec<u8>), KeysError> {
    reseal_copies(keyring, tenant, rows)?;
    let copies = keyring.persons().tenant_keys(tenant)?;
    let highest = rows.iter().map(|row| row.version).chain(copies.iter().map(|(version, _)| *version)).max();
    let version = highest.ok_or(KeysError::NoTenantKey(tenant))? + 1;
    let sealed = keyring.seal_tenant_key(tenant, version, &SealKey::random()?)?;
    keyring.persons().keep_tenant_key(tenant, version, &sealed)?;
    Ok((version, sealed))
}

/// A version of a tenant's key as it was sealed, and as it is to be.
type Resealed = Vec<(u32, Vec<u8>, Vec<u8>)>;

/// Puts copies of these rows outside the database, and seals all copies under the present master key. Returns the rows that are not
/// under it, with what is to be in their place, and how many copies changed.
fn reseal_copies(keyring: &Keyring, tenant: TenantId, rows: &[Version]) -> Result<(Resealed, u64), KeysError> {
    let mut resealed = Vec::new();
    let (persons, mut changed) = (keyring.persons(), 0);
    for (version, sealed) in persons.tenant_keys(tenant)? {
        if let Some(anew) = keyring.reseal_tenant_key(tenant, version, &sealed)? {
            persons.keep_tenant_key(tenant, version, &anew)?;
            changed += 1;
        }
    }
    let known: Vec<u32> = persons.tenant_keys(tenant)?.into_iter().map(|(version, _)| version).collect();
    for row in rows {
        let anew = keyring.reseal_tenant_key(tenant, row.version, &row.sealed)?;
        if !known.contains(&row.version) {
            persons.keep_tenant_key(tenant, row.version, anew.as_ref().unwrap_or(&row.sealed))?;
        }
        resealed.extend(anew.map(|anew| (row.version, row.sealed.clone(), anew)));
    }
    Ok((resealed, changed))
}

/// Seals up to [`AT_ONCE`] rows of each place anew; returns how many there were.
async fn reseal_some(tx: &mut TenantTx, keys: &TenantKeys) -> Result<u64, KeysError> {
    let (old, mut count) = (keys.old_ids(), 0);
    for secret in secrets::under(tx, &old).await? {
        let sealed = match secret.kind {
            Kind::RotationSeed => {
                let seed = keys.open_rotation_seed(&secret.name, secret.version, &secret.sealed)?;
                keys.seal_rotation_seed(&secret.name, secret.version, &seed)?
            }
            Kind::GroupKey => keys.reseal_group_key(&secret.sealed)?,
            Kind::IndexKey | Kind::TenantKey => keys.reseal_index_key(secret.version, &secret.sealed)?,
        };
        secrets::replace(tx, secret.kind, &secret.name, secret.version, &secret.sealed, &sealed).await?;
        count += 1;
    }
    for place in resealing::PLACES {
        let mut anew = Vec::new();
        for row in resealing::some(tx, place, &old, AT_ONCE).await? {
            let revision = u64::try_from(row.revision).unwrap_or_default();
            let sealed = keys.reseal(place.what, row.object, revision, &row.sealed)?;
            anew.push((row, sealed));
        }
        resealing::put(tx, place, &anew).await?;
        count += anew.len() as u64;
    }
    Ok(count)
}
