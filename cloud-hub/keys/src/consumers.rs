//! Consumers of the feed: made, given another password, removed, each with its audit entry. The passwords are in the answers
//! and nowhere else; what is kept is the broker's hash of them.

use gallery_log::keys::{NoRandomness, random_key};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use zeroize::Zeroizing;

use super::custody::log;
use super::{Custody, KeysError};
use hub_domain::broker_password::{self, SALT_BYTES};
use hub_domain::ids::{ConsumerId, TenantId};
use hub_store::audit::Action;
use hub_store::consumers::{self, NewConsumer};

/// A consumer's password, as it is shown once.
pub type Password = Zeroizing<String>;

fn new_password() -> Result<(Password, String), NoRandomness> {
    let password = broker_password::text(&*random_key()?);
    let mut salt = [0_u8; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| NoRandomness)?;
    let hash = broker_password::hash(&password, &salt);
    Ok((password, hash))
}

impl Custody {
    /// Makes a consumer. The broker knows it once its files were written.
    pub async fn create_consumer(
        &self,
        tenant: TenantId,
        name: &str,
        home_assistant: bool,
        actor: &str,
    ) -> Result<(ConsumerId, Password), KeysError> {
        let (password, password_hash) = new_password()?;
        let id = ConsumerId(self.clock.new_id());
        let new = NewConsumer { id, name: name.to_owned(), password_hash, home_assistant };
        let actor = actor.to_owned();
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    consumers::create(tx, &new).await?;
                    let detail = json!({ "home_assistant": new.home_assistant });
                    log(tx, &actor, Action::ConsumerCreate, "consumer", id.0, detail).await
                })
            })
            .await?;
        Ok((id, password))
    }

    /// Gives a consumer another password; the one before ends when the broker has read its files.
    pub async fn rotate_consumer(&self, tenant: TenantId, id: ConsumerId, actor: &str) -> Result<Password, KeysError> {
        let (password, hash) = new_password()?;
        let (actor, now) = (actor.to_owned(), self.clock.now());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    consumers::rotate(tx, id, &hash, now).await?;
                    log(tx, &actor, Action::ConsumerRotate, "consumer", id.0, json!({})).await
                })
            })
            .await?;
        Ok(password)
    }

    /// Removes a consumer for good.
    pub async fn remove_consumer(&self, tenant: TenantId, id: ConsumerId, actor: &str) -> Result<(), KeysError> {
        let (actor, now) = (actor.to_owned(), self.clock.now());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    consumers::remove(tx, id, now).await?;
                    log(tx, &actor, Action::ConsumerDelete, "consumer", id.0, json!({})).await
                })
            })
            .await
    }
}
