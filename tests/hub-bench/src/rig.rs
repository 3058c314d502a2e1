//! The hub under measurement, who asks it, and the hub's own way into its store, by which people are made that nobody has
//! photographs of.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cloud_hub::clock::Clock;
use cloud_hub::embedded::{Layout, postgres};
use cloud_hub::keys::{Custody, Keyring};
use cloud_hub::store::Database;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use system_tests::launcher::{Hub, Places, Tenant, cpu_time, free_port};
use tempfile::TempDir;

/// The pool of the hub.
pub(crate) const CONNECTIONS: u32 = 100;

/// What differs from the configuration as it is installed: the bounds that keep one address from doing what a thousand do.
const SETTINGS: [(&str, &str); 4] = [
    ("LINTEL__DATABASE__MAX_CONNECTIONS", "100"),
    ("LINTEL__SERVER__MAX_CONNECTIONS_PER_ADDRESS", "2000"),
    ("LINTEL__RECOGNITION__GALLERIES_MIB", "1024"),
    ("LINTEL__RECOGNITION__QUEUE", "256"),
];

pub(crate) struct Rig {
    hub: Hub,
    process: u32,
    pub(crate) places: Places,
    pub(crate) custody: Custody,
    _folder: TempDir,
}

impl Rig {
    pub(crate) async fn start() -> Result<Self> {
        let places = Places::find()?;
        let folder = tempfile::Builder::new().prefix("hub-bench-").tempdir_in("/tmp")?;
        // The database may run as another user.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let data = folder.path().join("hub");
        // A second program makes people: their keys lie as they do for several hubs.
        let persons = folder.path().join("persons");
        std::fs::create_dir(&persons)?;
        std::fs::write(persons.join("person-keys.v1"), "")?;
        let shared = persons.to_str().context("a path of UTF-8")?;
        let settings: Vec<_> = SETTINGS.into_iter().chain([("LINTEL__DATA__PERSON_KEYS_DIR", shared)]).collect();
        let mut hub = Hub::start_configured(&places, &data, (free_port()?, free_port()?), &[], &settings).await?;
        let process = hub.process().id();
        let layout = Layout::new(&data);
        let db = Database::new(postgres::app_of(&layout)?, 8);
        let keyring = Arc::new(Keyring::open_with(&layout.keys_dir(), Some(&persons))?);
        let custody = Custody::new(db, keyring, Clock::system());
        Ok(Self { hub, process, places, custody, _folder: folder })
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn hub_process(&self) -> u32 {
        self.process
    }

    /// Processor time of the hub so far.
    pub(crate) fn hub_cpu(&self) -> Result<Duration> {
        cpu_time(self.process)
    }

    /// A tenant whose size and speed nobody limits, and somebody who asks for it.
    pub(crate) fn tenant(&self, name: &str) -> Result<Asking> {
        let tenant = self.hub.create_tenant(name)?;
        Asking::new(&self.hub, tenant)
    }
}

/// A program of a tenant's with one HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Asking {
    client: reqwest::Client,
    url: String,
    tenant: Tenant,
}

impl Asking {
    pub(crate) fn new(hub: &Hub, tenant: Tenant) -> Result<Self> {
        Ok(Self { client: hub.client()?, url: hub.ready().https.clone(), tenant })
    }

    /// The same tenant over a connection of its own.
    pub(crate) fn again(&self, hub: &Hub) -> Result<Self> {
        Self::new(hub, self.tenant.clone())
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.with_key(method, path, &self.tenant.authorization)
    }

    pub(crate) fn with_key(&self, method: Method, path: &str, authorization: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).header("authorization", authorization)
    }
}

/// The body of an answer that must have this status.
pub(crate) async fn answer(request: reqwest::RequestBuilder, wanted: StatusCode) -> Result<Value> {
    let answer = request.send().await?;
    let (status, bytes) = (answer.status(), answer.bytes().await?);
    ensure!(status == wanted, "{status} instead of {wanted}: {}", String::from_utf8_lossy(&bytes));
    Ok(if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? })
}
