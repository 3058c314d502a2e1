//! Log-ins that go on: tokens are made and refreshed, whoever shows one is recognised, and all of it ends as a whole.
//!
//! Refresh tokens and cookies are 256 random bits, found by their MACs. A refresh token is good once: whoever shows one again has a
//! copy of it, or the one who used it before had, and since nobody can tell which, the log-in ends. Deliberately absent: how they
//! travel (`api::login`), and what it takes to be let in (`keys::entering`).

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
use hub_domain::ids::{LoginId, TenantId, UserId};
use hub_domain::permission::Permissions;
use hub_domain::role::RoleRef;
use hub_domain::tenant::Agreement;
use hub_host::metrics::recognition::Cache;
use hub_store::audit::Action;
use hub_store::logins::{self, Admission, Kind, Spent};
use hub_store::{StoreError, tenants, users};

/// How long tokens can be refreshed without the password.
pub(super) const TOKENS_LIFE: Duration = Duration::days(30);
/// How long a browser stays logged in: a working day.
pub(super) const COOKIE_LIFE: Duration = Duration::hours(12);

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
    /// Their role.
    pub role: RoleRef,
    /// What they may do; nothing, while they must set up a second factor first.
    pub permissions: Permissions,
    /// Whether they must.
    pub must_set_up_totp: bool,
    /// Whether the tenant is not served at present.
    pub suspended: bool,
    /// What was agreed upon with the tenant.
    pub agreement: Agreement,
    /// By what they showed it.
    pub by: Means,
}

/// By what a log-in is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A token that this key has signed.
    Token(Uuid),
    /// A cookie, beside which one of these must come: the first, or one of before.
    Cookie([[u8; 32]; 3]),
}

/// What somebody gets who may come in. Prints without its secrets.
pub struct Granted {
    /// Who.
    pub user: UserId,
    /// The name of their role.
    pub role: String,
    /// Whether they must set up a second factor before they can do anything else.
    pub must_set_up_totp: bool,
    /// When the log-in ends, however often it is refreshed.
    pub expires_at: OffsetDateTime,
    /// The refresh token or the cookie.
    pub secret: Zeroizing<String>,
    /// The access token, unless it is by a cookie.
    pub access_token: Option<String>,
    /// What must come beside the cookie, if it is by a cookie.
    pub csrf_token: Option<String>,
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

/// What became of a refresh token in the database.
enum Spending {
    Done(LoginId, Box<(Admission, String)>),
    Refused,
    /// Its log-in ended, since it was shown twice.
    Ended,
    Suspended,
}

impl Custody {
    /// What whoever is let in gets.
    pub(super) async fn granted(
        &self,
        tenant: TenantId,
        login: LoginId,
        (found, role): (Admission, String),
        secret: &Zeroizing<[u8; 32]>,
        kind: Kind,
    ) -> Result<Granted, KeysError> {
        let access_token = match kind {
            Kind::Tokens => Some(self.access_token(tenant, login, found).await?),
            Kind::Cookie => None,
        };
        let csrf = (kind == Kind::Cookie).then(|| self.keyring.csrf_tokens(tenant, secret)[0]);
        Ok(Granted {
            user: found.user,
            role,
            must_set_up_totp: found.must_set_up_totp,
            expires_at: found.expires_at,
            secret: secret_text(tenant, secret),
            access_token,
            csrf_token: csrf.map(|token| URL_SAFE_NO_PAD.encode(token)),
        })
    }

    async fn access_token(&self, tenant: TenantId, login: LoginId, found: Admission) -> Result<String, KeysError> {
        let keys = self.token_keys().await?;
        let iat = self.clock.now().unix_timestamp();
        Ok(keys.sign(&Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: found.user.0,
            tenant: tenant.0,
            role: found.role.to_string(),
            login: login.0,
            jti: Uuid::new_v4(),
            iat,
            nbf: iat,
            exp: iat + LIFE.whole_seconds(),
        }))
    }

    /// Another refresh token and access token in the place of a refresh token, which is good once.
    pub async fn refresh(&self, text: &str) -> Result<Refreshed, KeysError> {
        let Some((tenant, secret)) = read_secret(text) else { return Ok(Refreshed::Refused) };
        let (now, next) = (self.clock.now(), random_key()?);
        let (macs, next_mac) = (self.keyring.login_macs(tenant, &secret), self.keyring.login_mac(tenant, &next));
        let done = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                // First: a token that a suspended tenant's user shows is not used up, or they would have none when it is served again.
                let suspended = match tenants::get(tx).await {
                    Err(StoreError::NotFound { .. }) => return Ok(Spending::Refused),
                    found => found?.suspended_at.is_some(),
                };
                if suspended && logins::is_known(tx, &macs).await? {
                    return Ok(Spending::Suspended);
                }
                match logins::spend(tx, &macs, now).await? {
                    Spent::Unknown => Ok(Spending::Refused),
                    Spent::Before(login) => {
                        if let Some(user) = logins::revoke(tx, login, now).await? {
                            let detail = json!({ "login": login.0 });
                            log(tx, "hub", Action::UserTokenReused, "user", user.0, detail).await?;
                            tracing::warn!(event = "refresh_token_reused", client_id = %tenant, %user, "a refresh token was shown twice; its log-in has ended");
                        }
                        Ok(Spending::Ended)
                    }
                    Spent::Now(login) => {
                        let Some(found) = logins::admission(tx, login, now).await? else { return Ok(Spending::Refused) };
                        logins::add_secret(tx, login, next_mac).await?;
                        let role = users::get(tx, found.user).await?.role.name;
                        Ok::<_, KeysError>(Spending::Done(login, Box::new((found, role))))
                    }
                }
            })
        });
        Ok(match done.await? {
            Spending::Refused => Refreshed::Refused,
            Spending::Ended => {
                self.logins.forget(tenant);
                Refreshed::Refused
            }
            Spending::Suspended => Refreshed::Suspended(tenant),
            Spending::Done(login, found) => {
                Refreshed::In(Box::new(self.granted(tenant, login, *found, &next, Kind::Tokens).await?))
            }
        })
    }

    /// Who an access token is of; `None` if it is not good, or its log-in has ended, or the user is somebody else by now.
    pub async fn recognise_token(&self, text: &str) -> Result<Option<LoggedIn>, KeysError> {
        let now = self.clock.now();
        let (claims, key) = match self.verified_claims(text, now).await? {
            Ok(verified) => verified,
            Err(why) => {
                tracing::debug!(event = "token_refused", %why, "an access token was refused");
                return Ok(None);
            }
        };
        let (tenant, login) = (TenantId(claims.tenant), LoginId(claims.login));
        let found = self.known_login(tenant, Shown::Token(login), Vec::new(), now).await?;
        // A token says what its user could do when it was made: after a change it takes another one.
        let same = |found: &KnownLogin| {
            found.admission.user.0 == claims.sub && found.admission.role.to_string() == claims.role
        };
        Ok(found.filter(same).map(|found| logged_in(found, Means::Token(key))))
    }

    /// Who a cookie is of; `None` if it is none, or its log-in has ended.
    pub async fn recognise_cookie(&self, text: &str) -> Result<Option<LoggedIn>, KeysError> {
        let Some((tenant, secret)) = read_secret(text) else { return Ok(None) };
        let macs = self.keyring.login_macs(tenant, &secret);
        let found = self.known_login(tenant, Shown::Cookie(macs[0]), macs, self.clock.now()).await?;
        Ok(found.map(|found| logged_in(found, Means::Cookie(self.keyring.csrf_tokens(tenant, &secret)))))
    }

    async fn known_login(
        &self,
        tenant: TenantId,
        shown: Shown,
        macs: Vec<[u8; 32]>,
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
                    Shown::Cookie(_) => logins::of_cookie(tx, &macs).await?,
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
        match self.by {
            Means::Cookie([token, ..]) => Some(URL_SAFE_NO_PAD.encode(token)),
            Means::Token(_) => None,
        }
    }

    /// Whether what came beside the cookie is what must; always, if it is not by a cookie.
    #[must_use]
    pub fn is_from_its_page(&self, sent: Option<&str>) -> bool {
        let Means::Cookie(wanted) = self.by else { return true };
        let Some(sent) = sent else { return false };
        // All of them, whichever it is.
        wanted.iter().fold(false, |is, token| is | same(sent.as_bytes(), URL_SAFE_NO_PAD.encode(token).as_bytes()))
    }
}

fn logged_in(known: KnownLogin, by: Means) -> LoggedIn {
    let Admission { user, role, permissions, must_set_up_totp, suspended, agreement, .. } = known.admission;
    let (tenant, login) = (known.tenant, known.login);
    LoggedIn { tenant, user, login, role, permissions, must_set_up_totp, suspended, agreement, by }
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
