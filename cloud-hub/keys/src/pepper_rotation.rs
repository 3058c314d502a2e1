//! Another pepper in the place of the one by which secrets are known: API keys go over to it as they are used.
//!
//! In: an order; later, when the operator says so, the end of the one before. Out: MACs that are made anew, one at a time, at the first
//! use of each API key. Log-ins go over when they are refreshed or entered anew; claims, invitations and sessions end by themselves.
//! What has not been shown by the end fits no more, which is said before it is done.

use std::sync::Arc;

use serde_json::json;

use super::custody::{blocking, log};
use super::{Custody, KeysError};
use hub_store::audit::Action;
use hub_store::credentials::{self, UnderOther};
use hub_store::{platform_keys, routes};

/// As audit entries name the operator of the machine.
const OPERATOR: &str = "operator";

/// How the pepper stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PepperStanding {
    /// There is one that is to take its place, once every hub has it.
    pub has_next: bool,
    /// What only the one before fits, if there is one.
    pub before: Option<UnderOther>,
}

/// What came of the wish to forget the pepper before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It is gone.
    Done(UnderOther),
    /// So much would end with it, which is not what was confirmed: nothing was changed.
    NotConfirmed(UnderOther),
}

impl Custody {
    /// How the pepper stands.
    pub async fn pepper_standing(&self) -> Result<PepperStanding, KeysError> {
        let peppers = self.keyring.peppers();
        let before = if peppers.has_previous() { Some(self.under_other_peppers().await?) } else { None };
        Ok(PepperStanding { has_next: peppers.has_next(), before })
    }

    /// Begins to replace the pepper. Where several hubs share it, the first call makes the next one, which is to be copied to all of
    /// them; with `copied` it takes the place of the present one. Alone, both happen at once.
    pub async fn rotate_pepper(&self, copied: bool) -> Result<(), KeysError> {
        let keyring = Arc::clone(&self.keyring);
        blocking(move || {
            let peppers = keyring.peppers();
            if !copied {
                if peppers.has_previous() && !peppers.has_next() {
                    return Err(KeysError::PepperUnderWay);
                }
                peppers.prepare()?;
            } else if !peppers.has_next() && !peppers.has_previous() {
                return Err(KeysError::NoNextPepper);
            }
            if copied || !keyring.persons().is_shared() {
                peppers.switch()?;
                tracing::info!(
                    event = "pepper_switched",
                    "another pepper makes the MACs of secrets; API keys follow at their next use"
                );
            }
            Ok(())
        })
        .await
    }

    /// Forgets the pepper before, if as many API keys as were `confirmed` end with it.
    pub async fn forget_pepper(&self, confirmed: Option<u64>) -> Result<Forgotten, KeysError> {
        if !self.keyring.peppers().has_previous() {
            return Err(KeysError::NoPepperBefore);
        }
        let under = self.under_other_peppers().await?;
        if confirmed != Some(under.api_keys) {
            return Ok(Forgotten::NotConfirmed(under));
        }
        let (current, now) = (self.keyring.peppers().current().0, self.clock.now());
        for tenant in routes::tenants(&self.db).await? {
            let told = self.db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    let ends = credentials::under_other(tx, &current, now).await?;
                    let detail = json!({ "api_keys": ends.api_keys, "recovery_codes": ends.recovery_codes });
                    log(tx, OPERATOR, Action::HubPepper, "tenant", tenant.0, detail).await
                })
            });
            told.await?;
        }
        let keyring = Arc::clone(&self.keyring);
        blocking(move || keyring.peppers().forget()).await?;
        for tenant in routes::tenants(&self.db).await? {
            self.forget_keys(tenant);
        }
        tracing::info!(event = "pepper_forgotten", api_keys = under.api_keys, "the pepper before was destroyed");
        Ok(Forgotten::Done(under))
    }

    async fn under_other_peppers(&self) -> Result<UnderOther, KeysError> {
        let (current, now, mut all) = (self.keyring.peppers().current().0, self.clock.now(), UnderOther::default());
        for tenant in routes::tenants(&self.db).await? {
            let of = self
                .db
                .tenant(tenant, move |tx| Box::pin(async move { credentials::under_other(tx, &current, now).await }));
            let of = of.await?;
            all.api_keys += of.api_keys;
            all.recovery_codes += of.recovery_codes;
        }
        all.api_keys += platform_keys::under_other(&self.db, &current, now).await?;
        Ok(all)
    }
}
