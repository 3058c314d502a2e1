//! Another key that signs for devices, in the place of the one that they pinned.
//!
//! In: an order; where several hubs share the key, one for each of them. Out: a hub that signs with the next key, for which the one before
//! has vouched. Devices learn it from whatever answer they get next, however many changes they slept through. Those before are named to devices
//! until the operator says that no hub signs with them any more.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::custody::{blocking, log};
use super::{Custody, KeysError};
use hub_store::audit::Action;
use hub_store::routes;

/// As audit entries name the operator of the machine.
const OPERATOR: &str = "operator";

impl Custody {
    /// The signing keys before that devices are told to believe, the newest first.
    #[must_use]
    pub fn signing_keys_before(&self) -> Vec<Uuid> {
        self.keyring.signing_keys().before().iter().map(|key| key.key_id).collect()
    }

    /// Replaces the signing key. Where several hubs share it, the first call makes the next one, which is to be copied to all of them; with
    /// `copied` it takes the place of the present one. Alone, both happen at once.
    pub async fn rotate_signing_key(&self, copied: bool) -> Result<(), KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let next = blocking(move || {
            let keys = keyring.signing_keys();
            if !copied {
                keys.prepare()?;
            }
            keys.next()?.ok_or(KeysError::NoNextSigningKey)
        });
        let next = next.await?;
        if !copied && self.keyring.persons().is_shared() {
            return Ok(());
        }
        // Told before it is done: if the hub is killed in between, the order is given and told once more.
        let before = self.keyring.signing().id();
        if next != before {
            self.tell_of_signing(&json!({ "key": next, "before": before })).await?;
        }
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        blocking(move || keyring.signing_keys().switch(now)).await?;
        tracing::info!(event = "signing_key_switched", key = %next, %before, "another key signs for devices; the one before has vouched for it and is destroyed");
        Ok(())
    }

    /// Tells devices that no hub signs with the keys before any more. Each goes on leading to its successor, for those that slept.
    pub async fn retire_signing_keys(&self) -> Result<(), KeysError> {
        let before = self.signing_keys_before();
        if before.is_empty() {
            return Err(KeysError::NoSigningKeyBefore);
        }
        self.tell_of_signing(&json!({ "key": self.keyring.signing().id(), "retired": before })).await?;
        let keyring = Arc::clone(&self.keyring);
        let retired = blocking(move || keyring.signing_keys().retire()).await?;
        tracing::info!(event = "signing_keys_retired", keys = ?retired, "devices are told no longer to believe them");
        Ok(())
    }

    async fn tell_of_signing(&self, detail: &Value) -> Result<(), KeysError> {
        for tenant in routes::tenants(&self.db).await? {
            let detail = detail.clone();
            let told = self.db.tenant(tenant, move |tx| {
                Box::pin(async move { log(tx, OPERATOR, Action::HubSigningKey, "tenant", tenant.0, detail).await })
            });
            told.await?;
        }
        Ok(())
    }
}
