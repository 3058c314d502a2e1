//! Something of everything that a tenant can have, with a text in each that nobody else may see.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_sim::admin::Admin;
use serde_json::{Value, json};
use system_tests::launcher::{Hub, Tenant};

use crate::line::Site;

/// Longer than anything that would be found by chance.
const MARK: &str = "canary-7f3a9c51d20e48b6";

/// A text of the tenant that is asked about.
#[must_use]
pub fn canary(what: &str) -> String {
    format!("{MARK} {what}")
}

/// Ids of the live things of a tenant. Each `spare_` one is there to be ended by its owner, at the end.
pub struct Holdings {
    pub(super) site: String,
    pub(super) door: String,
    pub(super) device: String,
    pub(super) spare_device: String,
    pub(super) person: String,
    pub(super) spare_person: String,
    pub(super) spare_anchor: String,
    pub(super) key: String,
    pub(super) spare_key: String,
    pub(super) consumer: String,
    pub(super) spare_consumer: String,
    pub(super) spare_webhook: String,
    pub(super) command: String,
    pub(super) user: String,
    pub(super) spare_user: String,
    /// A user who has a second factor.
    pub(super) totp_user: String,
    pub(super) role: String,
    pub(super) spare_role: String,
    pub(super) session: String,
    /// One with a frame, to be completed.
    pub(super) ready_session: String,
    pub(super) spare_session: String,
    /// A template of the person's face.
    pub(super) template: Value,
    pub(super) photograph: Vec<u8>,
    pub(super) other_photograph: Vec<u8>,
    canaries: Vec<String>,
}

impl Holdings {
    pub(super) fn make(site: &Site, tenant: &Tenant) -> Result<Self> {
        let (hub, ready) = (site.hub()?, site.hub()?.ready());
        let picture = |name: &str| {
            let path = site.places().parts.join("demo").join(name);
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let (photograph, other_photograph) = (picture("obama.jpg")?, picture("biden.jpg")?);
        let admin = Admin::new(&ready.https, &ready.root_certificate, &tenant.authorization)?;
        let devices = site.file("other");
        site.block_on(async {
            let of = Maker { hub, tenant };
            let place = of.id("/v1/sites", json!({ "name": canary("site"), "time_zone": "UTC" })).await?;
            admin.populate(&devices, &place, 1, |_| {}).await?;
            let claimed = hub.get(tenant, "/v1/devices").await?;
            let device = text(&claimed, "/data/0/id")?;
            // Only a device that is there is given commands; no message of it is needed for what is asked here.
            let mut database = site.database().await?;
            sqlx::query("UPDATE device SET online = true, last_seen_at = now() + interval '1 day' WHERE id = $1::uuid")
                .bind(&device)
                .execute(&mut database)
                .await?;
            let spare = json!({ "name": canary("device"), "site_id": place, "doors": [] });
            let door = json!({ "name": canary("door"), "site_id": place, "device_id": device, "local_id": "side" });
            let name = |what: &str| json!({ "name": canary(what) });
            let person = hub.enrol(tenant, &canary("external id"), &canary("name"), vec![photograph.clone()]).await?;
            let spare_person = json!({
                "external_id": canary("spare"), "name": canary("name"), "email": "canary-7f3a9c51d20e48b6@example.org",
            });
            let template = json!({ "image": STANDARD.encode(&photograph) });
            let template = hub.post(tenant, "/v1/recognition/embed", template).await?;
            let made = hub.post(tenant, "/v1/api-keys", name("key")).await?;
            let (key, secret) = (text(&made, "/id")?, text(&made, "/secret")?);
            let user =
                |name: &str| json!({ "login": format!("{name}@canary-7f3a9c51d20e48b6.example"), "role": "auditor" });
            let totp_user = of.id("/v1/users", user("totp")).await?;
            // Setting one up takes an app and a log-in; that it can be taken off, and not by others, takes a row.
            sqlx::query(
                "INSERT INTO user_totp (tenant_id, user_id, secret_sealed, begun_at, confirmed_at)
                 SELECT tenant_id, id, '\\x00', now(), now() FROM app_user WHERE id = $1::uuid",
            )
            .bind(&totp_user)
            .execute(&mut database)
            .await?;
            let role =
                |name: &str| json!({ "name": name, "description": canary("role"), "permissions": ["events:read"] });
            let webhook = json!({ "url": "http://127.0.0.1:9/canary-7f3a9c51d20e48b6" });
            let command = json!({ "kind": "refresh" });
            // As long as there are: whoever asks about them takes their time.
            let long = json!({ "authentication_s": 600, "enrolment_s": 3_600 });
            let url = format!("{}/v1/tenant/sessions", ready.https);
            let sent = hub.client()?.put(url).header("authorization", &tenant.authorization).json(&long).send().await?;
            sent.error_for_status().context("how long sessions stay open")?;
            let ready_session = of.session(&person).await?;
            let frames = json!({ "images": [STANDARD.encode(&photograph)] });
            hub.post(tenant, &format!("/v1/sessions/{ready_session}/frames"), frames).await?;
            let canaries = vec![MARK.to_owned(), secret, text(&template, "/vector")?];
            Ok(Self {
                door: of.id("/v1/doors", door).await?,
                spare_device: of.id("/v1/devices", spare).await?,
                spare_person: of.id("/v1/people", spare_person).await?,
                spare_anchor: anchor(hub, tenant, &person, &other_photograph).await?,
                spare_key: of.id("/v1/api-keys", name("spare key")).await?,
                consumer: of.id("/v1/consumers", name("consumer")).await?,
                spare_consumer: of.id("/v1/consumers", name("spare consumer")).await?,
                user: of.id("/v1/users", user("one")).await?,
                spare_user: of.id("/v1/users", user("spare")).await?,
                totp_user,
                role: of.id("/v1/roles", role("canary")).await?,
                spare_role: of.id("/v1/roles", role("spare-canary")).await?,
                session: of.session(&person).await?,
                ready_session,
                spare_session: of.session(&person).await?,
                spare_webhook: of.id("/v1/webhooks", webhook).await?,
                command: of.id(&format!("/v1/devices/{device}/commands"), command).await?,
                template: json!({ "space_id": template["space_id"], "vector": template["vector"] }),
                site: place,
                device,
                person,
                key,
                photograph,
                other_photograph,
                canaries,
            })
        })
    }

    /// A photograph of the person.
    #[must_use]
    pub fn photograph(&self) -> &[u8] {
        &self.photograph
    }

    /// A template of their face, as requests name one.
    #[must_use]
    pub fn template(&self) -> &Value {
        &self.template
    }

    /// What nobody else may see.
    pub fn canaries(&self) -> impl Iterator<Item = &str> {
        self.canaries.iter().map(String::as_str)
    }

    /// The ids of all things.
    #[must_use]
    pub fn ids(&self) -> [&str; 21] {
        [
            &self.site,
            &self.door,
            &self.device,
            &self.spare_device,
            &self.person,
            &self.spare_person,
            &self.spare_anchor,
            &self.key,
            &self.spare_key,
            &self.consumer,
            &self.spare_consumer,
            &self.spare_webhook,
            &self.command,
            &self.user,
            &self.spare_user,
            &self.totp_user,
            &self.role,
            &self.spare_role,
            &self.session,
            &self.ready_session,
            &self.spare_session,
        ]
    }
}

struct Maker<'a> {
    hub: &'a Hub,
    tenant: &'a Tenant,
}

impl Maker<'_> {
    async fn id(&self, path: &str, body: Value) -> Result<String> {
        text(&self.hub.post(self.tenant, path, body).await?, "/id")
    }
}

impl Maker<'_> {
    /// An enrolment of a person, open.
    async fn session(&self, person: &str) -> Result<String> {
        let opened = self.hub.post(self.tenant, "/v1/sessions/enrolment", json!({ "person_id": person })).await?;
        text(&opened, "/session/id")
    }
}

async fn anchor(hub: &Hub, tenant: &Tenant, person: &str, photograph: &[u8]) -> Result<String> {
    let part = reqwest::multipart::Part::bytes(photograph.to_vec()).file_name("photograph");
    let url = format!("{}/v1/people/{person}/negative-anchors", hub.ready().https);
    let sent = hub.client()?.post(url).header("authorization", &tenant.authorization);
    let answer = sent.multipart(reqwest::multipart::Form::new().part("photo", part)).send().await?;
    text(&answer.json().await?, "/id")
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let text = value.pointer(pointer).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {pointer} in {value}"))?.to_owned())
}
