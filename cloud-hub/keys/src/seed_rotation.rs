//! Other seeds in the places of those by which a tenant's searchable vectors are rotated, while searches go on.
//!
//! In: an order, once; then steps, each of which may be the last that this process does. Out: vectors that are rotated anew from the
//! sealed templates, and an old seed that is gone. Every vector says by which version of the seed it is rotated, and a search looks
//! among those of each: its answer is the same before, meanwhile and after. No vector is rotated by a seed before every hub looks
//! among its vectors. Several hubs may do it at once.

use std::sync::Arc;

use gallery_log::keys::random_key;
use serde_json::json;

use super::custody::log;
use super::index_rotation::views;
use super::{Custody, Keyring, KeysError, Progress, VersionView, enrolment};
use hub_domain::ids::TenantId;
use hub_domain::rotation::Seeded;
use hub_domain::tenant_key::Stage;
use hub_store::audit::Action;
use hub_store::secrets::Kind;
use hub_store::{TenantTx, rerotating, secrets, templates, tenants};

/// Vectors that are rotated anew in one transaction: a fraction of a second, for each is opened.
const AT_ONCE: u32 = 100;
/// As audit entries name the job.
const JOB: &str = "hub";

impl Custody {
    /// Begins to replace the seeds of all spaces of a tenant; a change that is under way goes on. The job does the rest, within some
    /// minutes.
    pub async fn rotate_seeds(&self, tenant: TenantId, actor: &str) -> Result<(), KeysError> {
        let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
        let begun = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                tenants::lock(tx).await?;
                let (keys, mut spaces) = (keyring.read_tenant(tx).await?, 0);
                for space in secrets::names(tx, Kind::RotationSeed).await? {
                    if let [(version, _)] = secrets::versions(tx, Kind::RotationSeed, &space).await?.as_slice() {
                        let sealed = keys.seal_rotation_seed(&space, version + 1, &*random_key()?)?;
                        secrets::add(tx, Kind::RotationSeed, &space, version + 1, &sealed).await?;
                        spaces += 1;
                    }
                }
                if spaces > 0 {
                    log(tx, &actor, Action::TenantSeedRotate, "tenant", tenant.0, json!({ "spaces": spaces })).await?;
                }
                Ok::<_, KeysError>(())
            })
        });
        begun.await?;
        self.keyring.forget_rotations(tenant);
        Ok(())
    }

    /// The versions of a tenant's seeds, space by space, newest first.
    pub async fn seed_views(&self, tenant: TenantId) -> Result<Vec<VersionView>, KeysError> {
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let mut told = Vec::new();
                for space in secrets::names(tx, Kind::RotationSeed).await? {
                    let stored = secrets::aged(tx, Kind::RotationSeed, &space).await?;
                    let left = match stored.as_slice() {
                        [newest, _, ..] => Some(rerotating::left(tx, &space, newest.version).await?),
                        _ => None,
                    };
                    told.extend(views(&space, stored, left));
                }
                Ok::<_, KeysError>(told)
            })
        });
        read.await
    }

    /// Goes on with a change of a tenant's seeds, one batch further.
    pub async fn go_on_with_seeds(&self, tenant: TenantId) -> Result<Progress, KeysError> {
        let spaces = self.db.tenant(tenant, |tx| Box::pin(secrets::names(tx, Kind::RotationSeed))).await?;
        let mut outcome = Progress::Idle;
        for space in spaces {
            let keyring = Arc::clone(&self.keyring);
            let step = self.db.tenant(tenant, move |tx| Box::pin(async move { one_step(tx, &keyring, &space).await }));
            match (step.await?, outcome) {
                (Progress::Resealed(count), _) => return Ok(Progress::Resealed(count)),
                (Progress::Waits, _) => outcome = Progress::Waits,
                (Progress::Done, Progress::Idle) => outcome = Progress::Done,
                _ => {}
            }
        }
        if outcome == Progress::Done {
            self.keyring.forget_rotations(tenant);
            tracing::info!(event = "seeds_replaced", client_id = %tenant, "all vectors of a tenant are rotated by new seeds");
        }
        Ok(outcome)
    }
}

async fn one_step(tx: &mut TenantTx, keyring: &Keyring, space: &str) -> Result<Progress, KeysError> {
    let stored = secrets::aged(tx, Kind::RotationSeed, space).await?;
    let Some(newest) = stored.first().filter(|_| stored.len() > 1) else { return Ok(Progress::Idle) };
    let stage = Stage::at(newest.age);
    if stage < Stage::Reseals {
        return Ok(Progress::Waits);
    }
    let rotated = rotate_some(tx, keyring, space, newest.version).await?;
    if rotated > 0 {
        return Ok(Progress::Resealed(rotated));
    }
    if stage < Stage::Retires {
        return Ok(Progress::Waits);
    }
    tenants::lock(tx).await?;
    if rerotating::left(tx, space, newest.version).await? > 0 {
        return Ok(Progress::Waits);
    }
    if secrets::remove_before(tx, Kind::RotationSeed, space, newest.version).await? > 0 {
        let (tenant, detail) = (tx.tenant(), json!({ "space": space, "version": newest.version }));
        log(tx, JOB, Action::TenantSeedRetire, "tenant", tenant.0, detail).await?;
    }
    Ok(Progress::Done)
}

/// Rotates up to [`AT_ONCE`] vectors by the newest seed; returns how many there were.
async fn rotate_some(tx: &mut TenantTx, keyring: &Keyring, space: &str, newest: u32) -> Result<u64, KeysError> {
    let rows = rerotating::some(tx, space, newest, AT_ONCE).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let (keys, rotations) = (keyring.tenant(tx).await?, keyring.rotations(tx, space).await?);
    let Seeded { version, rotation } = rotations.writing();
    if *version != newest {
        // This hub believes for two seconds what it read before.
        return Ok(0);
    }
    for row in &rows {
        match enrolment::open(keyring, &keys, row) {
            Ok(embedding) => {
                let rotated = rotation.apply(&embedding);
                templates::put_vector(tx, row.id, row.person_id, space, (*version, &rotated)).await?;
            }
            // Erased meanwhile, or the key is missing: nobody who can be recognised.
            Err(KeysError::NoPersonKey(_)) => rerotating::forget(tx, row.id).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
}
