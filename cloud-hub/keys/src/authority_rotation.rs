//! What the registry has to do with other authorities: whose certificates are left, and their end.
//!
//! In: the key of the authority that issues now. Out: numbers, and rows without certificates of others. Deliberately absent: the authorities
//! themselves (`pki`), and the order of it all (`api::hub_authorities`).

use serde_json::json;

use super::custody::log;
use super::{Custody, KeysError};
use hub_domain::ids::DeviceId;
use hub_store::audit::Action;
use hub_store::{certificates, routes};

/// As audit entries name the operator of the machine.
const OPERATOR: &str = "operator";

/// An authority, by its key (SHA-256 of the SubjectPublicKeyInfo).
type Issuer = [u8; 32];

impl Custody {
    /// Whether other hubs have copies of this one's files of keys.
    #[must_use]
    pub fn has_others_beside(&self) -> bool {
        self.keyring.persons().is_shared()
    }

    /// How many devices would have to be claimed anew if this authority alone were believed.
    pub async fn devices_of_other_authorities(&self, issuer: Issuer) -> Result<u64, KeysError> {
        let (now, mut all) = (self.clock.now(), 0);
        for tenant in routes::tenants(&self.db).await? {
            all += self
                .db
                .tenant(tenant, move |tx| Box::pin(async move { certificates::of_others(tx, &issuer, now).await }))
                .await?;
        }
        Ok(all)
    }

    /// Tells each tenant that another authority issues its devices' certificates.
    pub async fn tell_of_authority(&self, issuer: Issuer, before: Issuer) -> Result<(), KeysError> {
        for tenant in routes::tenants(&self.db).await? {
            let detail = json!({ "authority": hex::encode(issuer), "before": hex::encode(before) });
            let told = self.db.tenant(tenant, move |tx| {
                Box::pin(async move { log(tx, OPERATOR, Action::HubAuthorities, "tenant", tenant.0, detail).await })
            });
            told.await?;
        }
        Ok(())
    }

    /// Ends every certificate that another authority than `issuer` issued, for `retired` is to be believed no more. Returns whose they were.
    pub async fn end_other_authorities(&self, issuer: Issuer, retired: Issuer) -> Result<Vec<DeviceId>, KeysError> {
        let mut all = Vec::new();
        for tenant in routes::tenants(&self.db).await? {
            let ended = self.db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    let ended = certificates::end_of_others(tx, &issuer).await?;
                    let (authority, retired) = (hex::encode(issuer), hex::encode(retired));
                    let detail = json!({ "authority": authority, "retired": retired, "devices": ended.len() });
                    log(tx, OPERATOR, Action::HubAuthorities, "tenant", tenant.0, detail).await?;
                    Ok::<_, KeysError>(ended)
                })
            });
            all.extend(ended.await?);
        }
        Ok(all)
    }
}
