//! Log-ins: a name and a password become tokens or a cookie; tokens are refreshed; all of it ends as a whole.
//!
//! Refresh tokens and cookies are 256 random bits, found by their MACs. A refresh token is good once: whoever shows one again has a
//! copy of it, or the one who used it before had, and since nobody can tell which, the log-in ends. Deliberately absent: how they
//! travel (`api::login`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gallery_log::keys::random_key;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::access_token::{AUDIENCE, Claims, ISSUER, LIFE};
use super::custody::log;
use super::passwords::same;
use super::recognised::{Belief, Believed};
use super::{Custody, KeysError};
use crate::domain::ids::{LoginId, TenantId, UserId};
use crate::domain::permission::Role;
use crate::domain::tenant::Agreement;
use crate::domain::user::{self, State};
use crate::metrics::recognition::Cache;
use crate::store::audit::Action;
use crate::store::logins::{self, Admission, Kind, NewLogin, Spent};
use crate::store::{StoreError, users};

/// How long tokens can be refreshed without the password.
const TOKENS_LIFE: Duration = Duration::days(30);
/// How long a browser stays logged in: a working day.
const COOKIE_LIFE: Duration = Duration::hours(12);

/// Where a log-in is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shown {
    Token(LoginId),
    Cookie([u8; 32]),
}

/// A log-in as the database had it.
#[derive(Clone, Copy)]
pub(super) struct KnownLogin {
    tenant: TenantId,
    login: LoginId,
    admission: Admission,
}

impl Belief for KnownLogin {
    const CACHE: Cache = Cache::Logins;

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn ends_at(&self) -> Option<OffsetDateTime> {
        Some(self.admission.expires_at)
    }
}

/// The log-ins of all tenants.
pub(super) type KnownLogins = Believed<Shown, KnownLogin>;

/// A user who was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// Whose they are.
    pub tenant: TenantId,
    /// Who.
    pub user: UserId,
    /// By which log-in.
    pub login: LoginId,
    /// What they may do.
    pub role: Role,
    /// Whether the tenant is not served at present.
    pub suspended: bool,
    /// What was agreed upon with the tenant.
    pub agreement: Agreement,
    /// What must come beside the cookie, if it is by a cookie.
    pub csrf: Option<[u8; 32]>,
}

/// What somebody gets who may come in. Prints without its secrets.
pub struct Granted {
    /// Who.
    pub user: UserId,
    /// What they may do.
    pub role: Role,
    /// When the log-in ends, however often it is refreshed.
    pub expires_at: OffsetDateTime,
    /// The refresh token or the cookie.
    pub secret: Zeroizing<String>,
    /// The access token, unless it is by a cookie.
    pub access_token: Option<String>,
    /// What must come beside the cookie, if it is by a cookie.
    pub csrf_token: Option<String>,
}

/// What became of a name and a password.
pub enum Entered {
    /// They were right.
    In(Box<Granted>),
    /// They were not; or there is nobody of that name, or they may not log in. Callers must not tell these apart.
    Refused,
    /// Too many were wrong: nothing is looked at until then.
    Locked(OffsetDateTime),
    /// They were right, and the tenant is not served at present.
    Suspended(TenantId),
}

/// What became of a refresh token.
pub enum Refreshed {
    /// Another one in its place.
    In(Box<Granted>),
    /// It is none, or has ended, or was used before, by which its log-in ends.
    Refused,
    /// The tenant is not served at present.
    Suspended(TenantId),
}

impl Custody {
    /// Looks at a name and a password, and lets their user in if they are right.
    pub async fn log_in(
        &self,
        tenant: TenantId,
        typed: &str,
        password: Zeroizing<String>,
        kind: Kind,
    ) -> Result<Entered, KeysError> {
        let now = self.clock.now();
        let keys = match self.tenant_keys(tenant).await {
            Ok(keys) => keys,
            // No such tenant: nobody can be locked there, and it takes as long to say no.
            Err(KeysError::NoTenantKey(_)) => {
                self.passwords.fits(password, None).await?;
                return Ok(Entered::Refused);
            }
            Err(error) => return Err(error),
        };
        let Ok(name) = user::login(typed) else { return Ok(Entered::Refused) };
        let index = keys.blind_index("user.login", &name);
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if let Some(until) = logins::attempt(tx, &index, now).await? {
                    return Ok(Err(until));
                }
                Ok::<_, KeysError>(Ok(users::by_login(tx, &index).await?))
            })
        });
        let found = match found.await? {
            Err(until) => return Ok(Entered::Locked(until)),
            Ok(found) => found.filter(|user| user.state == State::Active),
        };
        let fits = self.passwords.fits(password, found.as_ref().and_then(|user| user.password)).await?;
        let Some(user) = found.filter(|_| fits) else {
            return Ok(Entered::Refused);
        };
        self.enter(tenant, user, kind).await
    }

    async fn enter(&self, tenant: TenantId, user: users::User, kind: Kind) -> Result<Entered, KeysError> {
        let (now, secret) = (self.clock.now(), random_key()?);
        let life = if kind == Kind::Cookie { COOKIE_LIFE } else { TOKENS_LIFE };
        let id = LoginId(self.clock.new_id());
        let new = NewLogin { id, user: user.id, kind, created_at: now, expires_at: now + life };
        let mac = self.keyring.login_mac(tenant, &secret);
        let admitted = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                // Holds the user's row: whoever changes the password meanwhile comes before this, and is seen, or after it, and
                // ends this log-in with the others.
                users::logged_in(tx, new.user, now).await?;
                if users::get(tx, new.user).await?.password != user.password {
                    return Ok(None);
                }
                logins::create(tx, new, mac).await?;
                let Some(found) = logins::admission(tx, new.id, now).await? else { return Ok(None) };
                logins::forgive(tx, &user.login_index).await?;
                if found.suspended {
                    logins::revoke(tx, new.id, now).await?;
                } else {
                    let detail = json!({ "login": new.id.0, "cookie": kind == Kind::Cookie });
                    log(tx, &actor(new.user), Action::UserLogin, "user", new.user.0, detail).await?;
                }
                Ok::<_, KeysError>(Some(found))
            })
        });
        Ok(match admitted.await? {
            None => Entered::Refused,
            Some(found) if found.suspended => Entered::Suspended(tenant),
            Some(found) => Entered::In(Box::new(self.granted(tenant, id, found, &secret, kind))),
        })
    }

    fn granted(
        &self,
        tenant: TenantId,
        login: LoginId,
        found: Admission,
        secret: &Zeroizing<[u8; 32]>,
        kind: Kind,
    ) -> Granted {
        let access_token = (kind == Kind::Tokens).then(|| self.access_token(tenant, login, found));
        let csrf = (kind == Kind::Cookie).then(|| self.keyring.csrf_token(tenant, secret));
        Granted {
            user: found.user,
            role: found.role,
            expires_at: found.expires_at,
            secret: secret_text(tenant, secret),
            access_token,
            csrf_token: csrf.map(|token| URL_SAFE_NO_PAD.encode(token)),
        }
    }

    fn access_token(&self, tenant: TenantId, login: LoginId, found: Admission) -> String {
        let iat = self.clock.now().unix_timestamp();
        self.keyring.tokens().sign(&Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: found.user.0,
            tenant: tenant.0,
            role: found.role.as_str().to_owned(),
            login: login.0,
            jti: Uuid::new_v4(),
            iat,
            nbf: iat,
            exp: iat + LIFE.whole_seconds(),
        })
    }

    /// Another refresh token and access token in the place of a refresh token, which is good once.
    pub async fn refresh(&self, text: &str) -> Result<Refreshed, KeysError> {
        let Some((tenant, secret)) = read_secret(text) else { return Ok(Refreshed::Refused) };
        let (now, next) = (self.clock.now(), random_key()?);
        let (mac, next_mac) = (self.keyring.login_mac(tenant, &secret), self.keyring.login_mac(tenant, &next));
        let done = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                match logins::spend(tx, &mac, now).await? {
                    Spent::Unknown => Ok(None),
                    Spent::Before(login) => {
                        if let Some(user) = logins::revoke(tx, login, now).await? {
                            let detail = json!({ "login": login.0 });
                            log(tx, "hub", Action::UserTokenReused, "user", user.0, detail).await?;
                            tracing::warn!(event = "refresh_token_reused", client_id = %tenant, %user, "a refresh token was shown twice; its log-in has ended");
                        }
                        Ok(None)
                    }
                    Spent::Now(login) => {
                        let Some(found) = logins::admission(tx, login, now).await? else { return Ok(None) };
                        logins::add_secret(tx, login, next_mac).await?;
                        Ok::<_, KeysError>(Some((login, found)))
                    }
                }
            })
        });
        Ok(match done.await? {
            None => {
                self.logins.forget(tenant);
                Refreshed::Refused
            }
            Some((_, found)) if found.suspended => Refreshed::Suspended(tenant),
            Some((login, found)) => Refreshed::In(Box::new(self.granted(tenant, login, found, &next, Kind::Tokens))),
        })
    }

    /// Who an access token is of; `None` if it is not good, or its log-in has ended, or the user is somebody else by now.
    pub async fn recognise_token(&self, text: &str) -> Result<Option<LoggedIn>, KeysError> {
        let now = self.clock.now();
        let claims = match self.keyring.tokens().verify(text, now) {
            Ok(claims) => claims,
            Err(why) => {
                tracing::debug!(event = "token_refused", %why, "an access token was refused");
                return Ok(None);
            }
        };
        let (tenant, login) = (TenantId(claims.tenant), LoginId(claims.login));
        let found = self.known_login(tenant, Shown::Token(login), now).await?;
        // A token says what its user could do when it was made: after a change it takes another one.
        let same =
            |found: &KnownLogin| found.admission.user.0 == claims.sub && found.admission.role.as_str() == claims.role;
        Ok(found.filter(same).map(|found| logged_in(found, None)))
    }

    /// Who a cookie is of; `None` if it is none, or its log-in has ended.
    pub async fn recognise_cookie(&self, text: &str) -> Result<Option<LoggedIn>, KeysError> {
        let Some((tenant, secret)) = read_secret(text) else { return Ok(None) };
        let mac = self.keyring.login_mac(tenant, &secret);
        let found = self.known_login(tenant, Shown::Cookie(mac), self.clock.now()).await?;
        Ok(found.map(|found| logged_in(found, Some(self.keyring.csrf_token(tenant, &secret)))))
    }

    async fn known_login(
        &self,
        tenant: TenantId,
        shown: Shown,
        now: OffsetDateTime,
    ) -> Result<Option<KnownLogin>, KeysError> {
        if let Some(known) = self.logins.get(shown, now) {
            // The log-in may be another tenant's: a token names both.
            return Ok((known.tenant == tenant).then_some(known));
        }
        let ticket = self.logins.ticket();
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let login = match shown {
                    Shown::Token(login) => Some(login),
                    Shown::Cookie(mac) => logins::of_cookie(tx, &mac).await?,
                };
                let Some(login) = login else { return Ok(None) };
                let admission = logins::admission(tx, login, now).await?;
                Ok::<_, StoreError>(admission.map(|admission| KnownLogin { tenant, login, admission }))
            })
        });
        let found = found.await?;
        if let Some(known) = found {
            self.logins.remember(shown, known, ticket);
        }
        Ok(found)
    }

    /// Ends a log-in at once.
    pub async fn log_out(&self, tenant: TenantId, login: LoginId) -> Result<(), KeysError> {
        let now = self.clock.now();
        let ended = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if let Some(user) = logins::revoke(tx, login, now).await? {
                    let detail = json!({ "login": login.0 });
                    log(tx, &actor(user), Action::UserLogout, "user", user.0, detail).await?;
                }
                Ok::<_, KeysError>(())
            })
        });
        ended.await?;
        self.logins.forget(tenant);
        Ok(())
    }
}

impl LoggedIn {
    /// What must come beside the cookie, as text.
    #[must_use]
    pub fn csrf_text(&self) -> Option<String> {
        self.csrf.map(|token| URL_SAFE_NO_PAD.encode(token))
    }

    /// Whether what came beside the cookie is what must; always, if it is not by a cookie.
    #[must_use]
    pub fn is_from_its_page(&self, sent: Option<&str>) -> bool {
        let Some(wanted) = self.csrf_text() else { return true };
        sent.is_some_and(|sent| same(sent.as_bytes(), wanted.as_bytes()))
    }
}

fn logged_in(known: KnownLogin, csrf: Option<[u8; 32]>) -> LoggedIn {
    let Admission { user, role, suspended, agreement, .. } = known.admission;
    LoggedIn { tenant: known.tenant, user, login: known.login, role, suspended, agreement, csrf }
}

/// As audit entries name a user.
pub(super) fn actor(user: UserId) -> String {
    format!("user:{user}")
}

/// The tenant says where to look; the rest is the secret.
fn secret_text(tenant: TenantId, secret: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(format!("{tenant}.{}", URL_SAFE_NO_PAD.encode(secret)))
}

fn read_secret(text: &str) -> Option<(TenantId, Zeroizing<[u8; 32]>)> {
    let (tenant, secret) = text.split_once('.')?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).ok()?);
    let secret = <[u8; 32]>::try_from(secret.as_slice()).ok()?;
    Some((tenant.parse().ok()?, Zeroizing::new(secret)))
}
