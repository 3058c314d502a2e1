//! Being let in: a name, a password, and a code where there is a second factor, become a log-in.
//!
//! In: what somebody typed. Out: a log-in, or why not, in words that tell a guesser nothing. Each attempt is counted by its name
//! before it is looked at. Deliberately absent: what goes on afterwards (`keys::logins`), and how passwords are hashed.

use std::sync::Arc;

use gallery_log::keys::random_key;
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::custody::log;
use super::logins::{COOKIE_LIFE, Granted, LoggedIn, TOKENS_LIFE, actor};
use super::second_factor::{self, Passed};
use super::{Custody, KeysError};
use hub_domain::ids::{LoginId, TenantId, UserId};
use hub_domain::index_key::{Marks, field};
use hub_domain::user::{self, State};
use hub_domain::vault::TenantKeys;
use hub_store::audit::Action;
use hub_store::logins::{self, Kind, NewLogin};
use hub_store::{tenants, users};

/// What somebody shows to be let in, beside a name. Prints without it.
pub struct Proof {
    /// A password.
    pub password: Zeroizing<String>,
    /// A code of their second factor, or a recovery code.
    pub code: Option<Zeroizing<String>>,
}

impl From<Zeroizing<String>> for Proof {
    fn from(password: Zeroizing<String>) -> Self {
        Self { password, code: None }
    }
}

/// What became of a password that a user typed who has logged in.
pub(super) enum Proved {
    /// It is theirs. The failures that were counted are not forgiven yet.
    Right(Box<users::User>),
    /// It is not.
    Wrong,
    /// Too many were wrong: nothing is looked at until then.
    Locked(OffsetDateTime),
}

/// The marks by which attempts of a user are counted.
pub(super) fn login_marks(keys: &TenantKeys, user: &users::User) -> Result<Marks, KeysError> {
    login_marks_of(keys, user.id, &user.login_sealed)
}

/// The marks of a user's name.
pub(super) fn login_marks_of(keys: &TenantKeys, user: UserId, login_sealed: &[u8]) -> Result<Marks, KeysError> {
    Ok(keys.marks(field::LOGIN, &keys.open_login(user, login_sealed)?))
}

/// What became of a name and a password.
pub enum Entered {
    /// They were right.
    In(Box<Granted>),
    /// They were not; or there is nobody of that name, or they may not log in. Callers must not tell these apart.
    Refused,
    /// They were right, and the user has a second factor: a code of it is missing, or is none (any more).
    CodeNeeded {
        /// Whether there was one.
        shown: bool,
    },
    /// Too many were wrong: nothing is looked at until then.
    Locked(OffsetDateTime),
    /// They were right, and the tenant is not served at present.
    Suspended(TenantId),
}

impl Custody {
    /// Looks at a name, a password, and a code if the user has a second factor, and lets them in if they are right.
    pub async fn log_in(
        &self,
        tenant: TenantId,
        typed: &str,
        proof: impl Into<Proof>,
        kind: Kind,
    ) -> Result<Entered, KeysError> {
        let (now, proof) = (self.clock.now(), proof.into());
        // Before anything is counted: what is turned away unseen is no failure.
        let place = self.passwords.place()?;
        let keys = match self.tenant_keys(tenant).await {
            Ok(keys) => keys,
            // No such tenant: nobody can be locked there, and it takes as long to say no.
            Err(KeysError::NoTenantKey(_)) => {
                self.passwords.fits(place, proof.password, None).await?;
                return Ok(Entered::Refused);
            }
            Err(error) => return Err(error),
        };
        let Ok(name) = user::login(typed) else { return Ok(Entered::Refused) };
        let marks = keys.marks(field::LOGIN, &name);
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if let Some(until) = logins::attempt(tx, &marks, now).await? {
                    return Ok(Err(until));
                }
                Ok::<_, KeysError>(Ok(users::by_login(tx, &marks).await?))
            })
        });
        let found = match found.await? {
            Err(until) => return Ok(Entered::Locked(until)),
            Ok(found) => found.filter(|user| user.state == State::Active),
        };
        let fits = self.passwords.fits(place, proof.password, found.as_ref().and_then(|user| user.password)).await?;
        let Some(user) = found.filter(|_| fits) else {
            return Ok(Entered::Refused);
        };
        self.enter(tenant, keys, user, proof.code, kind).await
    }

    /// Looks at the password of somebody who has logged in, counted as at a log-in: a session that somebody left open must not
    /// become a place to try passwords.
    pub(super) async fn prove(&self, who: LoggedIn, password: Zeroizing<String>) -> Result<Proved, KeysError> {
        let (id, now, place) = (who.user, self.clock.now(), self.passwords.place()?);
        let keyring = Arc::clone(&self.keyring);
        let found = self.db.tenant(who.tenant, move |tx| {
            Box::pin(async move {
                let user = users::get(tx, id).await?;
                let marks = login_marks(&keyring.tenant(tx).await?, &user)?;
                if let Some(until) = logins::attempt(tx, &marks, now).await? {
                    return Ok(Err(until));
                }
                Ok::<_, KeysError>(Ok(user))
            })
        });
        let user = match found.await? {
            Err(until) => return Ok(Proved::Locked(until)),
            Ok(user) => user,
        };
        let fits = self.passwords.fits(place, password, user.password).await?;
        Ok(if fits { Proved::Right(Box::new(user)) } else { Proved::Wrong })
    }

    /// Settles an attempt that took the password alone. It does not forgive wrong codes: whoever has the password and not the app
    /// could go on guessing.
    pub(super) async fn password_was_right(&self, tenant: TenantId, user: &users::User) -> Result<(), KeysError> {
        let (marks, totp) = (login_marks(&self.tenant_keys(tenant).await?, user)?, user.totp);
        let settled = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if totp { logins::take_back(tx, &marks).await } else { logins::forgive(tx, &marks).await }
            })
        });
        Ok(settled.await?)
    }

    /// Lets in whoever knew the password, if their second factor, where they have one, is passed too. Failures are forgiven only
    /// then: otherwise the password alone would forgive wrong codes.
    async fn enter(
        &self,
        tenant: TenantId,
        keys: TenantKeys,
        user: users::User,
        code: Option<Zeroizing<String>>,
        kind: Kind,
    ) -> Result<Entered, KeysError> {
        let (now, secret, keyring) = (self.clock.now(), random_key()?, Arc::clone(&self.keyring));
        let life = if kind == Kind::Cookie { COOKIE_LIFE } else { TOKENS_LIFE };
        let id = LoginId(self.clock.new_id());
        let new = NewLogin { id, user: user.id, kind, created_at: now, expires_at: now + life };
        let mac = self.keyring.login_mac(tenant, &secret);
        let marks = login_marks(&keys, &user)?;
        let admitted = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                // Holds the user's row: whoever changes the password meanwhile comes before this, and is seen, or after it, and
                // ends this log-in with the others.
                let held = users::lock(tx, new.user).await?;
                if held.password != user.password {
                    return Ok(Err(Entered::Refused));
                }
                if tenants::get(tx).await?.suspended_at.is_some() {
                    if !held.totp {
                        logins::forgive(tx, &marks).await?;
                    }
                    return Ok(Err(Entered::Suspended(tenant)));
                }
                let passed =
                    second_factor::pass(tx, &keyring, &keys, new.user, code.as_ref().map(|code| code.as_str()), now);
                let passed = match passed.await? {
                    Passed::Missing => return Ok(Err(Entered::CodeNeeded { shown: false })),
                    Passed::Wrong => return Ok(Err(Entered::CodeNeeded { shown: true })),
                    passed => passed,
                };
                logins::create(tx, new, mac).await?;
                let Some(found) = logins::admission(tx, new.id, now).await? else { return Ok(Err(Entered::Refused)) };
                users::logged_in(tx, new.user, now).await?;
                logins::forgive(tx, &marks).await?;
                let detail = json!({
                    "login": new.id.0, "cookie": kind == Kind::Cookie, "totp": passed == Passed::ByCode,
                    "recovery_code": passed == Passed::ByRecovery,
                });
                log(tx, &actor(new.user), Action::UserLogin, "user", new.user.0, detail).await?;
                Ok::<_, KeysError>(Ok((found, held.role.name)))
            })
        });
        match admitted.await? {
            Err(refused) => Ok(refused),
            Ok((found, role)) => {
                Ok(Entered::In(Box::new(self.granted(tenant, id, (found, role), &secret, kind).await?)))
            }
        }
    }
}
