//! Other keys in the places of those of a tenant's people, while everybody goes on.
//!
//! In: an order, once; then steps, each of which may be the last that this process does. Out: everybody with another key that seals,
//! and what stays of them sealed under it. Whoever had read a person's keys before may seal under the one before for a while: so rows
//! are sealed anew when nobody is at work who had. The keys before are kept with the new one and go with the person: a backup of the
//! database from before opens, and photographs are known again by the first of them. Several hubs may do it at once.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use time::OffsetDateTime;

use super::custody::{blocking, log};
use super::{Custody, Keyring, KeysError, Progress};
use hub_domain::ids::{PersonId, TenantId};
use hub_domain::person_key::PersonKey;
use hub_domain::tenant_key::NOBODY_AFTER;
use hub_domain::vault::TenantKeys;
use hub_store::audit::Action;
use hub_store::person_seals::{self, Change, PLACES};
use hub_store::{TenantTx, tenants};

/// People of whom everything is sealed anew in one transaction.
const PEOPLE_AT_ONCE: u32 = 50;
/// Rows of a place that are sealed anew in one transaction: some milliseconds.
const ROWS_AT_ONCE: u32 = 200;
/// As audit entries name the job.
const JOB: &str = "hub";

/// How a change of the keys of a tenant's people stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersonKeysView {
    /// When it was ordered.
    pub ordered_at: OffsetDateTime,
    /// How many people's rows are not sealed anew yet; `None` when it has ended.
    pub left: Option<u64>,
}

impl Custody {
    /// Begins to replace the keys of all people of a tenant; a change that is under way goes on. The job does the rest, within some
    /// minutes.
    pub async fn rotate_person_keys(&self, tenant: TenantId, actor: &str) -> Result<(), KeysError> {
        let actor = actor.to_owned();
        // Higher than that of any key in the key store, also where the database is older than it.
        let generation = self.clock.now().unix_timestamp().unsigned_abs();
        let begun = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                tenants::lock(tx).await?;
                if person_seals::order(tx, generation).await? {
                    log(tx, &actor, Action::TenantPersonKeysRotate, "tenant", tenant.0, json!({})).await?;
                }
                Ok::<_, KeysError>(())
            })
        });
        begun.await
    }

    /// How the latest change of the keys of a tenant's people stands, if there was one.
    pub async fn person_keys_view(&self, tenant: TenantId) -> Result<Option<PersonKeysView>, KeysError> {
        let read = self.db.tenant(tenant, |tx| {
            Box::pin(async move {
                let Some(change) = person_seals::change(tx).await? else { return Ok(None) };
                let left = if change.has_ended { None } else { Some(person_seals::left(tx, &change).await?) };
                Ok::<_, KeysError>(Some(PersonKeysView { ordered_at: change.ordered_at, left }))
            })
        });
        read.await
    }

    /// Goes on with a change of the keys of a tenant's people, one batch further.
    pub async fn go_on_with_person_keys(&self, tenant: TenantId) -> Result<Progress, KeysError> {
        let change = self.db.tenant(tenant, |tx| Box::pin(person_seals::change(tx))).await?;
        let Some(change) = change.filter(|change| !change.has_ended) else { return Ok(Progress::Idle) };
        let Some(renewed) = change.renewed() else { return self.renew_people(tenant, change).await };
        if renewed < NOBODY_AFTER {
            return Ok(Progress::Waits);
        }
        let keyring = Arc::clone(&self.keyring);
        let step = self.db.tenant(tenant, move |tx| Box::pin(async move { one_step(tx, &keyring, &change).await }));
        let done = step.await?;
        if done == Progress::Done {
            tracing::info!(event = "person_keys_replaced", client_id = %tenant, "what stays of a tenant's people is under their new keys");
        }
        Ok(done)
    }

    /// Makes another key for everybody. Whoever has one of this order already keeps it.
    async fn renew_people(&self, tenant: TenantId, change: Change) -> Result<Progress, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let keys = self.db.tenant(tenant, move |tx| Box::pin(async move { keyring.tenant(tx).await })).await?;
        let (keyring, generation) = (Arc::clone(&self.keyring), change.generation());
        let count = blocking(move || {
            keyring
                .persons()
                .rewrap(tenant, &|person, wrapped| keyring.renew_person(&keys, person, wrapped, generation))
        });
        let count = count.await?;
        self.db.tenant(tenant, move |tx| Box::pin(async move { person_seals::renewed(tx, &change).await })).await?;
        Ok(if count > 0 { Progress::Resealed(count) } else { Progress::Waits })
    }
}

/// Seals what there is of the next people anew. Only when nothing of them is left are they done.
async fn one_step(tx: &mut TenantTx, keyring: &Keyring, change: &Change) -> Result<Progress, KeysError> {
    let next = person_seals::next(tx, change, PEOPLE_AT_ONCE).await?;
    if next.is_empty() {
        if person_seals::end(tx, change).await? {
            let tenant = tx.tenant();
            log(tx, JOB, Action::TenantPersonKeysDone, "tenant", tenant.0, json!({})).await?;
        }
        return Ok(Progress::Done);
    }
    let keys = keyring.tenant(tx).await?;
    let of = keys_of(keyring, &keys, &next)?;
    let old: Vec<_> = of.values().flat_map(PersonKey::old_ids).collect();
    // Who was made since the order has one key, and nothing under another.
    let has_old = |person: &PersonId| of.get(person).is_some_and(|key| !key.old_ids().is_empty());
    let wanted: Vec<PersonId> = next.iter().copied().filter(has_old).collect();
    let people = person_seals::lock(tx, wanted.clone()).await?;
    let done = wanted.get(people.len()).map_or(next.as_slice(), |busy| {
        let before = next.iter().take_while(|person| *person != busy).count();
        &next[..before]
    });
    let Some(last) = done.last().copied() else { return Ok(Progress::Busy) };
    let mut count = 0;
    for place in PLACES {
        let mut anew = Vec::new();
        for row in person_seals::some(tx, place, &people, &old, ROWS_AT_ONCE).await? {
            // It is under one of their keys, so they have one.
            let Some(key) = of.get(&PersonId(row.person)) else { continue };
            let revision = u32::try_from(row.revision).unwrap_or_default();
            let sealed = key.reseal(place.what, row.object, revision, &row.space, &row.sealed)?;
            anew.push((row, sealed));
        }
        person_seals::put(tx, place, &anew).await?;
        count += anew.len() as u64;
    }
    // Somebody else is at work on what was left out, or it was too much for once.
    if person_seals::any(tx, &people, &old).await? {
        return Ok(if count > 0 { Progress::Resealed(count) } else { Progress::Busy });
    }
    person_seals::done_through(tx, change, last).await?;
    Ok(Progress::Resealed(count))
}

/// The keys of these people. Who has none has nothing that could be sealed anew.
fn keys_of(
    keyring: &Keyring,
    keys: &TenantKeys,
    people: &[PersonId],
) -> Result<HashMap<PersonId, PersonKey>, KeysError> {
    let mut found = HashMap::with_capacity(people.len());
    for person in people {
        match keyring.person(keys, *person) {
            Ok(key) => _ = found.insert(*person, key),
            Err(KeysError::NoPersonKey(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
