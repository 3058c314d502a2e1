//! API keys: made, rotated, and recognised by the MAC of their secrets. A secret is in the answer that made it and nowhere else.

use gallery_log::keys::random_key;
use serde_json::json;
use time::OffsetDateTime;

use super::custody::log;
use super::peppers::MadeBy;
use super::recognised::Known;
use super::users::within;
use super::{Custody, KeysError};
use hub_domain::api_key::ApiKey;
use hub_domain::ids::{ApiKeyId, TenantId};
use hub_domain::permission::{Grant, Permissions};
use hub_domain::tenant::Agreement;
use hub_store::audit::Action;
use hub_store::credentials::{self, Admission, NewApiKey, NewMac};
use hub_store::{StoreError, routes};

/// A key that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Whose it is.
    pub tenant: TenantId,
    /// What it may do.
    pub permissions: Permissions,
    /// How many requests an hour it may ask, if not as many as its tenant.
    pub requests_per_hour: Option<u32>,
    /// Whether its tenant is not served at present.
    pub suspended: bool,
    /// What was agreed upon with its tenant.
    pub agreement: Agreement,
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct WantedApiKey {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub grant: Grant,
    /// When it ends by itself, if it does.
    pub expires_at: Option<OffsetDateTime>,
    /// How many requests an hour it may ask, if not as many as its tenant.
    pub requests_per_hour: Option<u32>,
}

impl WantedApiKey {
    /// A key with this name and grant that does not end by itself.
    #[must_use]
    pub fn of(name: &str, grant: Grant) -> Self {
        Self { name: name.to_owned(), grant, expires_at: None, requests_per_hour: None }
    }
}

/// A key in place of another one.
pub struct Rotated {
    /// The new one.
    pub key: ApiKey,
    /// When the old one ends.
    pub old_ends_at: OffsetDateTime,
}

impl Custody {
    /// Makes an API key; its secret is in the answer and nowhere else.
    pub async fn create_api_key(
        &self,
        tenant: TenantId,
        wanted: WantedApiKey,
        actor: &str,
    ) -> Result<ApiKey, KeysError> {
        let (key, row) = self.new_key(wanted)?;
        let actor = actor.to_owned();
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    credentials::create(tx, &row).await?;
                    let detail = json!({ "role": row.grant.role.name });
                    log(tx, &actor, Action::ApiKeyCreate, "api_key", row.id.0, detail).await
                })
            })
            .await?;
        Ok(key)
    }

    /// Makes a key with the same name and rights; the old one works until `old_ends_at`, so that whoever uses it can change over.
    /// [`StoreError::NotFound`] for a key that has ended or was replaced already: a chain has one living end.
    pub async fn rotate_api_key(
        &self,
        tenant: TenantId,
        old: ApiKeyId,
        old_ends_at: OffsetDateTime,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<Rotated, KeysError> {
        let now = self.clock.now();
        let found = self.db.tenant(tenant, move |tx| Box::pin(credentials::get(tx, old))).await?;
        let (key, row) = self.new_key(WantedApiKey {
            name: found.name,
            grant: found.grant,
            expires_at: found.expires_at,
            requests_per_hour: found.requests_per_hour,
        })?;
        let old_ends_at = found.expires_at.map_or(old_ends_at, |end| end.min(old_ends_at));
        let (new, actor) = (key.id, actor.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    within(credentials::get(tx, old).await?.grant.permissions(), giver)?;
                    credentials::create(tx, &row).await?;
                    if !credentials::replace(tx, old, new, old_ends_at, now).await? {
                        return Err(StoreError::NotFound { what: "api key", id: old.0 }.into());
                    }
                    log(tx, &actor, Action::ApiKeyRotate, "api_key", old.0, json!({ "replaced_by": new.0 })).await
                })
            })
            .await?;
        self.forget_keys(tenant);
        Ok(Rotated { key, old_ends_at })
    }

    /// Ends a key at once, if it allows no more than the giver may.
    pub async fn revoke_api_key(
        &self,
        tenant: TenantId,
        key: ApiKeyId,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<(), KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    within(credentials::get(tx, key).await?.grant.permissions(), giver)?;
                    credentials::revoke(tx, key, now).await?;
                    log(tx, &actor, Action::ApiKeyRevoke, "api_key", key.0, json!({})).await
                })
            })
            .await?;
        self.forget_keys(tenant);
        Ok(())
    }

    /// Whose key this is; `None` if it is unknown, wrong, revoked or expired, which callers must not tell apart. A key that was
    /// recognised in the last two seconds is believed without asking.
    pub async fn recognise(&self, key: &ApiKey) -> Result<Option<Recognised>, KeysError> {
        let (id, now) = (key.id, self.clock.now());
        if let Some(known) = self.known.get(id, now) {
            return Ok(self.keyring.is_api_key(&key.secret, &known.mac).then_some(known.recognised));
        }
        let ticket = self.known.ticket();
        let Some(tenant) = routes::tenant_of_api_key(&self.db, id).await? else { return Ok(None) };
        let found = self.db.tenant(tenant, move |tx| Box::pin(credentials::admission(tx, id, now))).await?;
        let Some(found) = found else { return Ok(None) };
        let Some(made_by) = self.keyring.api_key_made_by(&key.secret, &found.mac) else { return Ok(None) };
        let mac = self.renewed(tenant, key, &found, made_by).await?;
        if found.last_used_at.is_none_or(|last| now - last >= credentials::LAST_USED_WITHIN) {
            self.db.tenant(tenant, move |tx| Box::pin(credentials::used(tx, id, now))).await?;
        }
        let recognised = Recognised {
            tenant,
            permissions: found.grant.permissions(),
            requests_per_hour: found.requests_per_hour,
            suspended: found.suspended,
            agreement: found.agreement,
        };
        self.known.remember(id, Known { mac, recognised, expires_at: found.expires_at }, ticket);
        Ok(Some(recognised))
    }

    /// The MAC of a key that was shown just now.
    async fn renewed(
        &self,
        tenant: TenantId,
        key: &ApiKey,
        found: &Admission,
        made_by: MadeBy,
    ) -> Result<[u8; 32], KeysError> {
        let (id, before) = (key.id, found.mac);
        let anew = || self.keyring.api_key_mac(&key.secret);
        let Some(anew) = renewed(before, found.pepper, made_by, anew) else { return Ok(before) };
        self.db
            .tenant(tenant, move |tx| Box::pin(async move { credentials::renew(tx, id, &before, anew).await }))
            .await?;
        Ok(anew.mac)
    }

    /// To be called when something was changed that decides what a tenant's callers may do: it holds for the next request.
    pub fn forget_keys(&self, tenant: TenantId) {
        self.known.forget(tenant);
        self.logins.forget(tenant);
    }

    fn new_key(&self, wanted: WantedApiKey) -> Result<(ApiKey, NewApiKey), KeysError> {
        let key = ApiKey { id: ApiKeyId(self.clock.new_id()), secret: random_key()? };
        let mac = self.keyring.api_key_mac(&key.secret);
        let WantedApiKey { name, grant, expires_at, requests_per_hour } = wanted;
        let row = NewApiKey { id: key.id, name, mac, grant, expires_at, requests_per_hour };
        Ok((key, row))
    }
}

/// What a row of a key that was shown just now is to say: another MAC, if its own was made by the pepper that is to be forgotten, and by which
/// pepper, if it did not say so. One that another hub has made by the pepper that comes next here stays as it is.
pub(super) fn renewed(
    mac: [u8; 32],
    noted: Option<[u8; 16]>,
    made_by: MadeBy,
    anew: impl FnOnce() -> NewMac,
) -> Option<NewMac> {
    match made_by.is_previous {
        true => Some(anew()),
        false if noted == Some(made_by.pepper.0) => None,
        false => Some(NewMac { mac, pepper: made_by.pepper.0 }),
    }
}
