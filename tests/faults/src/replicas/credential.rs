//! Whatever lets somebody in, made at one hub, shown to either, and taken away at one.

use anyhow::{Context as _, Result, bail, ensure};
use edge_store::Identity;
use fleet_sim::trusting::mutual_tls;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use system_tests::launcher::Tenant;

use super::{Pair, Which, read, text};

const PASSWORD: &str = "correct horse battery";
/// A rotated key's old secret goes on for so long.
const OVERLAP_S: u64 = 2;
/// An address that logs in too often waits for as long as it is told, and no longer than this in all.
const LET_IN_WITHIN: u32 = 120;

/// What it is, and how it is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An API key that is revoked.
    Key,
    /// The old secret of a key that was rotated; it goes on for the overlap.
    Rotated,
    /// A key whose role loses the permission that it is used for.
    Narrowed,
    /// A key that is revoked while it has event streams open.
    Streaming,
    /// An access token whose log-in is logged out.
    LoggedOut,
    /// A cookie whose log-in is logged out.
    Cookie,
    /// An access token of a user who is disabled.
    Disabled,
    /// An access token of a user who is given another role.
    OtherRole,
    /// The token of a session that is cancelled.
    Session,
    /// The certificate of a device that is revoked.
    Device,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Key,
        Self::Rotated,
        Self::Narrowed,
        Self::Streaming,
        Self::LoggedOut,
        Self::Cookie,
        Self::Disabled,
        Self::OtherRole,
        Self::Session,
        Self::Device,
    ];

    /// How long it goes on after it was asked to be taken away.
    #[must_use]
    pub fn goes_on_for(self) -> Duration {
        if self == Self::Rotated { Duration::from_secs(OVERLAP_S) } else { Duration::ZERO }
    }

    fn is_of_a_user(self) -> bool {
        matches!(self, Self::Disabled | Self::OtherRole)
    }
}

/// What came of showing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It lets in.
    Accepted,
    /// It does not.
    Refused,
    /// The hub has too much to do to say so.
    Untold,
}

/// A tenant that has something of everything made for it.
pub struct Maker<'a> {
    /// The hubs.
    pub pair: &'a Pair,
    /// Whose all of it is.
    pub tenant: Tenant,
    site: String,
    /// Somebody who logs in again and again.
    user: String,
}

/// One of them.
pub struct Credential {
    /// What it is.
    pub kind: Kind,
    headers: Vec<(&'static str, String)>,
    path: String,
    /// What is taken away: an id, or the name of a role.
    subject: String,
    /// Of a device: it shows its certificate.
    client: Option<reqwest::Client>,
}

impl<'a> Maker<'a> {
    /// Makes the tenant.
    pub async fn new(pair: &'a Pair) -> Result<Self> {
        let tenant = pair.hub(0)?.create_tenant("revoked")?;
        let site = pair.hub(0)?.create_site(&tenant, "Plant").await?;
        // As long as there are: a session is to end because it is cancelled.
        let long = json!({ "authentication_s": 600, "enrolment_s": 3_600 });
        pair.done(0, &tenant, (Method::PUT, "/v1/tenant/sessions"), Some(&long)).await?;
        let maker = Self { pair, tenant, site, user: String::from("everyday@example.org") };
        maker.user(0, &maker.user).await?;
        Ok(maker)
    }

    /// Makes one, at one of the hubs.
    pub async fn make(&self, kind: Kind, number: u64, at: Which) -> Result<Credential> {
        let post = async |path: &str, body: Value| self.pair.post(at, &self.tenant, path, &body).await;
        let (name, login) = (format!("{kind:?}-{number}").to_lowercase(), format!("{kind:?}.{number}@example.org"));
        let mut made = Credential {
            kind,
            headers: Vec::new(),
            path: String::from("/v1/sites"),
            subject: String::new(),
            client: None,
        };
        match kind {
            Kind::Key | Kind::Rotated | Kind::Streaming | Kind::Narrowed => {
                let mut wanted = json!({ "name": name });
                if kind == Kind::Narrowed {
                    let role = json!({
                        "name": name, "description": "narrowed", "permissions": ["people:read", "events:read"],
                    });
                    post("/v1/roles", role).await?;
                    wanted = json!({ "name": name, "role": name });
                    made.path = String::from("/v1/people");
                }
                let key = post("/v1/api-keys", wanted).await?;
                let (id, secret) = (text(&key, "/id")?, text(&key, "/secret")?);
                made.headers.push(("authorization", format!("ApiKey {id}:{secret}")));
                made.subject = if kind == Kind::Narrowed { name } else { id };
            }
            Kind::LoggedOut | Kind::Disabled | Kind::OtherRole => {
                let mut who = self.user.clone();
                if kind.is_of_a_user() {
                    made.subject = self.user(at, &login).await?;
                    who = login;
                }
                let (_, granted) = self.log_in(at, &who, false).await?;
                made.headers.push(("authorization", format!("Bearer {}", text(&granted, "/access_token")?)));
                made.path = String::from("/v1/me");
            }
            Kind::Cookie => {
                let (cookie, granted) = self.log_in(at, &self.user, true).await?;
                made.headers.push(("cookie", cookie.context("no cookie of a log-in")?));
                made.headers.push(("x-csrf-token", text(&granted, "/csrf_token")?));
                made.path = String::from("/v1/me");
            }
            Kind::Session => {
                let wanted = json!({ "kind": "identification", "require_liveness": false });
                let opened = post("/v1/sessions/authentication", wanted).await?;
                made.headers.push(("x-session-token", text(&opened, "/token")?));
                made.subject = text(&opened, "/session/id")?;
                made.path = format!("/v1/sessions/{}", made.subject);
            }
            Kind::Device => {
                let token = self.pair.hub(at)?.create_device(&self.tenant, &self.site, &name, 1).await?;
                let dir = self.pair.file("devices").join(&name);
                fleet_sim::device::claim(&dir, &token, &name).await?;
                let identity = Identity::load(&dir)?.context("a device that was claimed has no identity")?;
                made.subject = identity.device.to_string();
                let tls = mutual_tls(&identity)?;
                let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
                made.client = Some(client.timeout(Duration::from_secs(30)).build()?);
                made.path = String::from(wire_contract::paths::DEVICE_LINK);
            }
        }
        Ok(made)
    }

    /// Takes it away at one of the hubs.
    pub async fn take_away(&self, credential: &Credential, at: Which) -> Result<()> {
        let subject = &credential.subject;
        let (method, path, body) = match credential.kind {
            Kind::Key | Kind::Streaming => (Method::DELETE, format!("/v1/api-keys/{subject}"), None),
            Kind::Rotated => {
                let overlap = json!({ "overlap_s": OVERLAP_S });
                (Method::POST, format!("/v1/api-keys/{subject}/rotate"), Some(overlap))
            }
            Kind::Narrowed => {
                (Method::PATCH, format!("/v1/roles/{subject}"), Some(json!({ "permissions": ["events:read"] })))
            }
            Kind::Disabled => (Method::PATCH, format!("/v1/users/{subject}"), Some(json!({ "state": "disabled" }))),
            Kind::OtherRole => (Method::PATCH, format!("/v1/users/{subject}"), Some(json!({ "role": "auditor" }))),
            Kind::Session => (Method::DELETE, format!("/v1/sessions/{subject}"), None),
            Kind::Device => (Method::DELETE, format!("/v1/devices/{subject}"), None),
            // By whoever holds it.
            Kind::LoggedOut | Kind::Cookie => {
                let request = credential.request(self.pair, at, Method::POST, "/v1/logout");
                let (status, answer) = read(request).await?;
                ensure!(status.is_success(), "a log-out: {status} {answer}");
                return Ok(());
            }
        };
        self.pair.done(at, &self.tenant, (method, &path), body.as_ref()).await.map(drop)
    }

    /// Makes a user who has chosen a password; their id.
    async fn user(&self, at: Which, login: &str) -> Result<String> {
        let wanted = json!({ "login": login, "role": "administrator" });
        let made = self.pair.post(at, &self.tenant, "/v1/users", &wanted).await?;
        let body = json!({ "invitation": text(&made, "/invitation")?, "password": PASSWORD });
        self.enter(at, "/v1/login/invitation", &body).await?;
        text(&made, "/id")
    }

    async fn log_in(&self, at: Which, login: &str, cookie: bool) -> Result<(Option<String>, Value)> {
        let mut body = json!({ "tenant": self.tenant.id, "login": login, "password": PASSWORD });
        if cookie {
            body["cookie"] = json!(true);
        }
        self.enter(at, "/v1/login", &body).await
    }

    /// Asks as somebody who is nobody yet; waits when told to, since all of them come from one address here.
    async fn enter(&self, at: Which, path: &str, body: &Value) -> Result<(Option<String>, Value)> {
        for _ in 0..LET_IN_WITHIN {
            let sent = self.pair.client(at).post(format!("{}{path}", self.pair.url(at))).json(body);
            let answer = sent.send().await?;
            let status = answer.status();
            if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            let cookie = answer.headers().get("set-cookie").and_then(|line| line.to_str().ok());
            let cookie = cookie.and_then(|line| line.split(';').next()).map(str::to_owned);
            let answer = answer.text().await?;
            ensure!(status.is_success(), "{path}: {status} {answer}");
            return Ok((cookie, if answer.is_empty() { Value::Null } else { serde_json::from_str(&answer)? }));
        }
        bail!("{path}: nobody was let in for {LET_IN_WITHIN} s")
    }
}

impl Credential {
    /// Shows it to one of the hubs.
    pub async fn show(&self, pair: &Pair, to: Which) -> Result<Shown> {
        let (status, answer) = read(self.request(pair, to, Method::GET, &self.path)).await?;
        match status {
            StatusCode::OK => Ok(Shown::Accepted),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(Shown::Refused),
            StatusCode::SERVICE_UNAVAILABLE => Ok(Shown::Untold),
            other => bail!("{:?} at hub {to}: {other} {answer}", self.kind),
        }
    }

    /// A request with it.
    pub fn request(&self, pair: &Pair, to: Which, method: Method, path: &str) -> reqwest::RequestBuilder {
        let client = self.client.as_ref().unwrap_or_else(|| pair.client(to));
        let mut sent = client.request(method, format!("{}{path}", pair.url(to)));
        for (name, value) in &self.headers {
            sent = sent.header(*name, value);
        }
        sent
    }

    /// What is taken away: an id, or the name of a role.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}
