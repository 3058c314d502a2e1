//! The second factor of a log-in: codes of an authenticator app, and recovery codes for whoever lost it.
//!
//! In: what somebody typed. Out: whether it passes, each code once. A secret and recovery codes are shown when they are made and
//! never again: the one is sealed under the tenant's key, of the others there are MACs. Deliberately absent: the arithmetic
//! (`domain::totp`).

use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::custody::log;
use super::entering::{Proved, login_marks};
use super::logins::actor;
use super::users::within;
use super::{Custody, Keyring, KeysError, LoggedIn};
use hub_domain::ids::{TenantId, UserId};
use hub_domain::permission::Permissions;
use hub_domain::totp::{self, RECOVERY, RECOVERY_CODES, SECRET, Typed, step_of};
use hub_domain::vault::TenantKeys;
use hub_store::audit::Action;
use hub_store::credentials::NewMac;
use hub_store::{TenantTx, logins, second_factors, users};

/// A secret on its way into an app.
pub struct Begun {
    /// To be typed in.
    pub secret: Zeroizing<String>,
    /// To be read from a picture.
    pub uri: Zeroizing<String>,
}

/// What became of the wish for a second factor.
pub enum Beginning {
    /// It is begun, and counts once a code of it was shown.
    Begun(Begun),
    /// There is one that counts.
    There,
    /// The password is another one.
    WrongPassword,
    /// Too many were wrong: nothing is looked at until then.
    Locked(OffsetDateTime),
}

/// What became of a code that was to let a second factor count.
pub enum Confirmed {
    /// It counts; these are its recovery codes.
    Yes(Vec<Zeroizing<String>>),
    /// It is no code of it.
    Wrong,
    /// Nothing was begun, or it counts already.
    NotBegun,
}

/// What became of the wish to be without a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Yes,
    /// There is none.
    NotThere,
    /// The password is another one.
    WrongPassword,
    /// The code is none, or was used.
    WrongCode,
    /// Too many were wrong: nothing is looked at until then.
    Locked(OffsetDateTime),
}

/// How a user gets past their second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// They have none.
    WithoutOne,
    /// By a code of the app.
    ByCode,
    /// By a recovery code.
    ByRecovery,
    /// They showed nothing.
    Missing,
    /// It was no code, or one that was used.
    Wrong,
}

/// Looks at what was typed and uses it up. The second factor's row is locked until the end of the transaction.
pub(super) async fn pass(
    tx: &mut TenantTx,
    keyring: &Keyring,
    keys: &TenantKeys,
    user: UserId,
    typed: Option<&str>,
    now: OffsetDateTime,
) -> Result<Passed, KeysError> {
    let Some(held) = second_factors::lock(tx, user).await?.filter(|held| held.confirmed_at.is_some()) else {
        return Ok(Passed::WithoutOne);
    };
    let Some(typed) = typed else { return Ok(Passed::Missing) };
    Ok(match Typed::read(typed) {
        None => Passed::Wrong,
        Some(Typed::Code(code)) => {
            let secret = keys.open_totp(user, &held.secret_sealed)?;
            let Some(step) = step_of(code, secret.as_slice(), held.last_step, now) else { return Ok(Passed::Wrong) };
            second_factors::take_step(tx, user, step).await?;
            Passed::ByCode
        }
        Some(Typed::Recovery(code)) => {
            let macs = keyring.recovery_macs(user, code.as_slice());
            if second_factors::take_recovery(tx, user, &macs, now).await? { Passed::ByRecovery } else { Passed::Wrong }
        }
    })
}

impl Custody {
    /// Begins a second factor for a user who has none and knows their password: whoever came by a log-in and not by the password
    /// must not shut its owner out.
    pub async fn begin_totp(&self, who: LoggedIn, password: Zeroizing<String>) -> Result<Beginning, KeysError> {
        match self.prove(who, password).await? {
            Proved::Right(user) => self.password_was_right(who.tenant, &user).await?,
            Proved::Wrong => return Ok(Beginning::WrongPassword),
            Proved::Locked(until) => return Ok(Beginning::Locked(until)),
        }
        let (keyring, id, now) = (Arc::clone(&self.keyring), who.user, self.clock.now());
        let secret = random::<SECRET>()?;
        let kept = secret.clone();
        let begun = self.db.tenant(who.tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let user = users::lock(tx, id).await?;
                if !second_factors::begin(tx, id, &keys.seal_totp(id, kept.as_slice())?, now).await? {
                    return Ok(None);
                }
                Ok::<_, KeysError>(Some(keys.open_login(id, &user.login_sealed)?))
            })
        });
        Ok(begun.await?.map_or(Beginning::There, |login| {
            Beginning::Begun(Begun {
                secret: Zeroizing::new(totp::secret_text(&secret)),
                uri: Zeroizing::new(totp::uri(&login, &secret)),
            })
        }))
    }

    /// Lets a second factor count once a code of it was shown. The user's other log-ins end: they were made without one.
    pub async fn confirm_totp(&self, who: LoggedIn, code: &str) -> Result<Confirmed, KeysError> {
        let Some(Typed::Code(code)) = Typed::read(code) else { return Ok(Confirmed::Wrong) };
        let (keyring, id, now) = (Arc::clone(&self.keyring), who.user, self.clock.now());
        let mut codes = Vec::with_capacity(RECOVERY_CODES);
        for _ in 0..RECOVERY_CODES {
            codes.push(random::<RECOVERY>()?);
        }
        let macs: Vec<NewMac> = codes.iter().map(|code| self.keyring.recovery_mac(id, code.as_slice())).collect();
        let confirmed = self.db.tenant(who.tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let Some(held) = second_factors::lock(tx, id).await?.filter(|held| held.confirmed_at.is_none()) else {
                    return Ok(None);
                };
                let secret = keys.open_totp(id, &held.secret_sealed)?;
                let Some(step) = step_of(code, secret.as_slice(), held.last_step, now) else { return Ok(Some(false)) };
                second_factors::confirm(tx, id, step, &macs, now).await?;
                logins::revoke_all(tx, id, Some(who.login), now).await?;
                log(tx, &actor(id), Action::UserTotpOn, "user", id.0, json!({})).await?;
                Ok::<_, KeysError>(Some(true))
            })
        });
        let confirmed = confirmed.await?;
        self.forget_keys(who.tenant);
        Ok(match confirmed {
            None => Confirmed::NotBegun,
            Some(false) => Confirmed::Wrong,
            Some(true) => Confirmed::Yes(codes.iter().map(|code| Zeroizing::new(totp::recovery_text(code))).collect()),
        })
    }

    /// Takes a user's second factor off, by their password and a code. Failures count as at the log-in.
    pub async fn remove_totp(
        &self,
        who: LoggedIn,
        password: Zeroizing<String>,
        code: Zeroizing<String>,
    ) -> Result<Removed, KeysError> {
        let user = match self.prove(who, password).await? {
            Proved::Right(user) => user,
            Proved::Wrong => return Ok(Removed::WrongPassword),
            Proved::Locked(until) => return Ok(Removed::Locked(until)),
        };
        let (keyring, id, now) = (Arc::clone(&self.keyring), who.user, self.clock.now());
        let removed = self.db.tenant(who.tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let passed = pass(tx, &keyring, &keys, id, Some(&code), now).await?;
                if !matches!(passed, Passed::Wrong | Passed::Missing) {
                    logins::forgive(tx, &login_marks(&keys, &user)?).await?;
                }
                if matches!(passed, Passed::ByCode | Passed::ByRecovery) {
                    second_factors::remove(tx, id).await?;
                    log(tx, &actor(id), Action::UserTotpOff, "user", id.0, json!({ "by": "user" })).await?;
                }
                Ok::<_, KeysError>(passed)
            })
        });
        let passed = removed.await?;
        self.forget_keys(who.tenant);
        Ok(match passed {
            Passed::ByCode | Passed::ByRecovery => Removed::Yes,
            Passed::WithoutOne => Removed::NotThere,
            Passed::Missing | Passed::Wrong => Removed::WrongCode,
        })
    }

    /// Takes the second factor off a user who lost it; their log-ins end, since whoever found it may have one. Whether there was one.
    pub async fn take_totp(
        &self,
        tenant: TenantId,
        user: UserId,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<bool, KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        let taken = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                within(users::lock(tx, user).await?.role.permissions, giver)?;
                if !second_factors::remove(tx, user).await? {
                    return Ok(false);
                }
                logins::revoke_all(tx, user, None, now).await?;
                log(tx, &actor, Action::UserTotpOff, "user", user.0, json!({ "by": "others" })).await?;
                Ok::<_, KeysError>(true)
            })
        });
        let taken = taken.await?;
        self.forget_keys(tenant);
        Ok(taken)
    }

    /// How many recovery codes a user has left; `None` if they have no second factor that counts.
    pub async fn totp(&self, tenant: TenantId, user: UserId) -> Result<Option<u64>, KeysError> {
        Ok(self.db.tenant(tenant, move |tx| Box::pin(second_factors::standing(tx, user))).await?)
    }

    /// Says whether the tenant wants a second factor of all its users. Those without one can do nothing but set one up.
    pub async fn require_totp(&self, tenant: TenantId, required: bool, actor: &str) -> Result<(), KeysError> {
        let actor = actor.to_owned();
        let done = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if second_factors::require(tx, required).await? {
                    let detail = json!({ "require_totp": required });
                    log(tx, &actor, Action::TenantLogin, "tenant", tenant.0, detail).await?;
                }
                Ok::<_, KeysError>(())
            })
        });
        done.await?;
        self.forget_keys(tenant);
        Ok(())
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, KeysError> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| gallery_log::keys::NoRandomness)?;
    Ok(bytes)
}
