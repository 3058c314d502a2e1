//! The end of a tenant. In one call: its keys and everybody's of it, API keys, devices, consumers; from then on nothing of it can be
//! read, wherever a copy of the database lies. Then its rows, step by step, and a signed receipt.
//!
//! The order is the point of this page. The mark is committed before the keys of people go: a crash between the two leaves a tenant
//! that is on the job's list, and the job begins with the keys. The audit goes last, after its last head lies outside.

use std::sync::Arc;

use serde_json::json;
use time::OffsetDateTime;

use super::custody::{blocking, log};
use super::{Custody, KeysError};
use hub_domain::erasure::{LastHead, Receipt};
use hub_domain::ids::TenantId;
use hub_store::audit::{Action, reading, sealing};
use hub_store::erasure::{self, Ended};
use hub_store::{StoreError, TenantTx, tenants};

/// Why a tenant is not deleted.
#[derive(Debug, thiserror::Error)]
pub enum NotDeleted {
    /// It is still served.
    #[error("the tenant is not suspended")]
    NotSuspended,
    /// Another name was given than it has.
    #[error("this is not the tenant's name")]
    OtherName,
    /// It could not be done, or not all of it: the job goes on where it was marked.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<StoreError> for NotDeleted {
    fn from(error: StoreError) -> Self {
        Self::Keys(error.into())
    }
}

/// One step of the work that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Rows were removed; the next ones are in the table of this number, or behind it.
    Removed(usize),
    /// Everything but the audit is gone, which waits for its last entries to be sealed and for their head to lie outside.
    Waits,
    /// Nothing is left but this.
    Done(Box<Receipt>),
    /// Nothing was left already: another hub was first.
    Gone,
}

impl Custody {
    /// Marks a suspended tenant of this name for its end and destroys every key of it. Returns who outside the database must be told.
    /// Once more for a tenant that is marked, it destroys what there still is.
    pub async fn delete_tenant(&self, tenant: TenantId, name: &str, actor: &str) -> Result<Ended, NotDeleted> {
        let (name, actor, now) = (name.to_owned(), actor.to_owned(), self.clock.now());
        let begun = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let found = tenants::lock(tx).await?;
                if found.name != name {
                    return Err(NotDeleted::OtherName);
                }
                if found.suspended_at.is_none() {
                    return Err(NotDeleted::NotSuspended);
                }
                if erasure::deleting_since(tx).await?.is_none() {
                    log(tx, &actor, Action::TenantDelete, "tenant", tenant.0, json!({})).await?;
                }
                Ok(erasure::begin(tx, now).await?)
            })
        });
        let ended = begun.await?;
        self.forget_keys(tenant);
        self.destroy_people(tenant).await?;
        Ok(ended)
    }

    /// Destroys the keys of all people of a tenant, and notes how many there were.
    async fn destroy_people(&self, tenant: TenantId) -> Result<(), KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let destroyed = blocking(move || keyring.destroy_people(tenant)).await?;
        if destroyed > 0 {
            self.db.tenant(tenant, move |tx| Box::pin(erasure::keys_destroyed(tx, destroyed))).await?;
        }
        Ok(())
    }

    /// Goes on with a tenant that is marked: removes up to `at_most` rows, from table number `from` on, or the last of it. Each step
    /// may be the last that this process does. The first step of a run is `from` 0, and begins with the keys.
    pub async fn empty_tenant(&self, tenant: TenantId, from: usize, at_most: u32) -> Result<Step, KeysError> {
        if from == 0 {
            self.destroy_people(tenant).await?;
        }
        let removed =
            self.db.tenant(tenant, move |tx| Box::pin(async move { some_of_marked(tx, from, at_most).await })).await?;
        match removed {
            None => return Ok(Step::Gone),
            Some(Some(number)) => return Ok(Step::Removed(number)),
            // Rows may have been added to the tables before: around once more.
            Some(None) if from > 0 => return Ok(Step::Removed(0)),
            Some(None) => {}
        }
        let now = whole_micros(self.clock.now());
        if !self.db.tenant(tenant, move |tx| Box::pin(async move { close_audit(tx, now).await })).await? {
            return Ok(Step::Waits);
        }
        self.finish(tenant, now).await
    }

    /// The last transaction. Closing the audit made its rows removable, so it fails, or finds rows, until they are gone.
    async fn finish(&self, tenant: TenantId, now: OffsetDateTime) -> Result<Step, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let done = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if !erasure::is_empty(tx).await? {
                    return Ok(Some(Step::Removed(0)));
                }
                let Some(erased) = erasure::remove_tenant(tx, now).await? else { return Ok(None) };
                let receipt = keyring.signing().sign_receipt(erased);
                erasure::keep(tx, &receipt).await?;
                Ok::<_, KeysError>(Some(Step::Done(Box::new(receipt))))
            })
        });
        Ok(done.await?.unwrap_or(Step::Gone))
    }
}

/// `None`: the tenant is gone.
async fn some_of_marked(tx: &mut TenantTx, from: usize, at_most: u32) -> Result<Option<Option<usize>>, StoreError> {
    if erasure::deleting_since(tx).await?.is_none() {
        return Ok(None);
    }
    Ok(Some(erasure::remove_some(tx, from, at_most).await?.map(|(number, _)| number)))
}

/// Notes the last head of the audit, if that covers everything and lies outside; whether it is noted.
async fn close_audit(tx: &mut TenantTx, now: OffsetDateTime) -> Result<bool, StoreError> {
    erasure::lock(tx).await?;
    let Some(standing) = erasure::standing(tx).await? else { return Ok(false) };
    if standing.closed {
        return Ok(true);
    }
    if reading::unplaced(tx, now + time::Duration::days(1)).await?.is_some() {
        return Ok(false);
    }
    let (last, head) = (sealing::last(tx).await?, sealing::head(tx).await?);
    let covers = head
        .as_ref()
        .is_some_and(|stored| stored.published && last.is_some_and(|(position, _)| position == stored.head.position));
    if last.is_some() && !covers {
        return Ok(false);
    }
    erasure::close_audit(tx, head.map(|stored| LastHead::from(&stored.head)), now).await?;
    Ok(true)
}

/// The database keeps times to the microsecond, and what it keeps must be what was signed.
fn whole_micros(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}
