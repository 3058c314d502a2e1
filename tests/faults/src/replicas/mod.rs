//! Two hubs on one Postgres, one broker, one store of limits and one folder of people's keys, as docs/guides/replicas.md has it: each a
//! process of its own, which can be killed and started again without the other.
//!
//! - [`store`]: the store in which hubs count limits together.
//! - [`credential`]: whatever lets somebody in, and how it is taken away.
//! - [`revoking`], [`limits`], [`caches`], [`sessions`], [`streams`]: what must hold across both.

pub mod caches;
pub mod credential;
pub mod limits;
pub mod revoking;
pub mod sessions;
pub mod store;
pub mod streams;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cloud_hub::clock::Clock;
use cloud_hub::embedded::mosquitto::{BrokerCertificates, EmbeddedMosquitto, MosquittoOptions};
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::pki::Pki;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::{ConnectOptions as _, PgConnection};
use system_tests::launcher::{Hub, Places, Tenant, free_port, run_dir};
use tokio::runtime::Runtime;

use store::Store;

/// One of the two, by its place.
pub type Which = usize;

/// Both, for whoever does something at each.
pub const BOTH: [Which; 2] = [0, 1];

/// The other one.
#[must_use]
pub fn other(which: Which) -> Which {
    1 - which
}

/// A hub that has too much to do says so; on a machine that is shared that is no fault of what is looked for here.
const COMES_BACK: u32 = 5;
const COMES_BACK_AFTER: Duration = Duration::from_millis(500);

/// The hubs and what they share. Field order is the order of the end.
pub struct Pair {
    hubs: [Option<Hub>; 2],
    clients: [reqwest::Client; 2],
    ports: [u16; 2],
    settings: Vec<(&'static str, String)>,
    /// Where limits are counted.
    pub store: Store,
    broker: Option<EmbeddedMosquitto>,
    postgres: Option<EmbeddedPostgres>,
    places: Places,
    runtime: Runtime,
    dir: tempfile::TempDir,
}

impl Pair {
    /// Starts everything, and two hubs.
    pub fn open() -> Result<Self> {
        // Of this process; another row may have been first.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let runtime = Runtime::new()?;
        let (dir, places) = (run_dir()?, Places::find()?);
        let persons = dir.path().join("persons");
        std::fs::create_dir(&persons)?;
        std::fs::write(persons.join("person-keys.v1"), "")?;
        let store = Store::start(dir.path())?;
        let parts = dir.path().join("parts");
        std::fs::create_dir(&parts)?;
        let (postgres, broker) = runtime.block_on(async {
            let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(&parts)?).await?;
            anyhow::Ok((postgres, start_broker(&parts, &hub_dir(dir.path(), 0)).await?))
        })?;
        let settings = settings(&parts, &persons, &store, &broker)?;
        let ports = [free_port()?, free_port()?];
        let first = runtime.block_on(start(&places, dir.path(), 0, ports[0], &settings))?;
        // As the guide says: without the keys of people, which are in the shared folder.
        let (from, to) = (hub_dir(dir.path(), 0), hub_dir(dir.path(), 1));
        for folder in ["keys", "pki"] {
            copy_files(&from.join(folder), &to.join(folder))?;
        }
        let second = runtime.block_on(start(&places, dir.path(), 1, ports[1], &settings))?;
        let clients = [first.client()?, second.client()?];
        let (broker, postgres) = (Some(broker), Some(postgres));
        let hubs = [Some(first), Some(second)];
        Ok(Self { hubs, clients, ports, settings, store, broker, postgres, places, runtime, dir })
    }

    /// Runs what is asynchronous.
    pub fn block_on<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// One of the hubs.
    pub fn hub(&self, which: Which) -> Result<&Hub> {
        self.hubs[which].as_ref().with_context(|| format!("hub {which} is not running"))
    }

    /// A client of one of the hubs, the same each time.
    #[must_use]
    pub fn client(&self, which: Which) -> &reqwest::Client {
        &self.clients[which]
    }

    /// Kills one of the hubs.
    pub fn kill(&mut self, which: Which) -> Result<()> {
        let mut hub = self.hubs[which].take().with_context(|| format!("hub {which} is not running"))?;
        hub.process().kill()
    }

    /// Starts the one that was killed.
    pub fn start(&mut self, which: Which) -> Result<()> {
        let starting = start(&self.places, self.dir.path(), which, self.ports[which], &self.settings);
        let hub = self.runtime.block_on(starting)?;
        self.clients[which] = hub.client()?;
        self.hubs[which] = Some(hub);
        Ok(())
    }

    /// The log of one of them.
    pub fn log(&self, which: Which) -> Result<String> {
        let path = hub_dir(self.dir.path(), which).with_extension("log");
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// A connection that sees every row.
    pub async fn database(&self) -> Result<PgConnection> {
        let postgres = self.postgres.as_ref().context("Postgres has stopped")?;
        Ok(postgres.superuser().disable_statement_logging().connect().await?)
    }

    /// A file that the broker reads.
    pub fn broker_file(&self, name: &str) -> Result<String> {
        let path = self.dir.path().join("parts/broker").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// A place for a file of this run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A demonstration picture.
    pub fn picture(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.places.demo_file(name);
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    /// What one of the hubs answers to a tenant's key.
    pub async fn ask(
        &self,
        which: Which,
        tenant: &Tenant,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let url = format!("{}{path}", self.url(which));
        let mut sent = self.client(which).request(method, url).header("authorization", &tenant.authorization);
        if let Some(body) = body {
            sent = sent.json(body);
        }
        read(sent).await.with_context(|| format!("{path} at hub {which}"))
    }

    /// The same, and it must succeed. Whoever is told to come back does.
    pub async fn done(
        &self,
        which: Which,
        tenant: &Tenant,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Result<Value> {
        for _ in 0..COMES_BACK {
            let (status, answer) = self.ask(which, tenant, (method.clone(), path), body).await?;
            if status == StatusCode::SERVICE_UNAVAILABLE {
                tokio::time::sleep(COMES_BACK_AFTER).await;
                continue;
            }
            ensure!(status.is_success(), "{path} at hub {which}: {status} {answer}");
            return Ok(answer);
        }
        bail!("{path} at hub {which}: told to come back {COMES_BACK} times; the hub says {:?}", self.busy(which)?)
    }

    /// What a hub's log says of a database that did not answer.
    pub fn busy(&self, which: Which) -> Result<Vec<String>> {
        let log = self.log(which)?;
        Ok(log.lines().filter(|line| line.contains("database_unavailable")).map(str::to_owned).collect())
    }

    /// `POST` that must succeed.
    pub async fn post(&self, which: Which, tenant: &Tenant, path: &str, body: &Value) -> Result<Value> {
        self.done(which, tenant, (Method::POST, path), Some(body)).await
    }

    /// `GET` that must succeed.
    pub async fn get(&self, which: Which, tenant: &Tenant, path: &str) -> Result<Value> {
        self.done(which, tenant, (Method::GET, path), None).await
    }

    /// Where the API of one of them is, whether it runs or not.
    #[must_use]
    pub fn url(&self, which: Which) -> String {
        format!("https://127.0.0.1:{}", self.ports[which])
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.hubs = [None, None];
        let (broker, postgres) = (self.broker.take(), self.postgres.take());
        self.runtime.block_on(async {
            if let Some(broker) = broker {
                broker.stop().await;
            }
            if let Some(postgres) = postgres {
                postgres.stop().await;
            }
        });
    }
}

/// Status and JSON, `null` for an empty body.
pub async fn read(sent: reqwest::RequestBuilder) -> Result<(StatusCode, Value)> {
    let answer = sent.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).context(text)? };
    Ok((status, value))
}

/// A text of an answer.
pub fn text(value: &Value, pointer: &str) -> Result<String> {
    let text = value.pointer(pointer).and_then(Value::as_str);
    Ok(text.with_context(|| format!("no {pointer} in {value}"))?.to_owned())
}

/// Milliseconds, for figures.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn hub_dir(dir: &Path, which: Which) -> PathBuf {
    dir.join(format!("hub-{which}"))
}

async fn start(
    places: &Places,
    dir: &Path,
    which: Which,
    port: u16,
    settings: &[(&'static str, String)],
) -> Result<Hub> {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Hub::start_beside(places, &hub_dir(dir, which), port, &settings).await
}

/// A broker with the certificates of the first hub's authority, as whoever runs it would set it up.
async fn start_broker(parts: &Path, first: &Path) -> Result<EmbeddedMosquitto> {
    let now = Clock::system().now();
    std::fs::create_dir_all(first)?;
    let pki = Pki::load_or_make(&first.join("pki"), now)?;
    let identity = pki.server("broker", &[String::from("127.0.0.1"), String::from("localhost")], now)?;
    let certificates = BrokerCertificates {
        server_chain_pem: identity.chain_pem,
        server_key_pem: identity.key_pem.to_string(),
        client_ca_pem: pki.client_ca_pem(),
        client_crl_pem: Some(pki.client_crl([], None, now)?),
    };
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = MosquittoOptions::for_data_dir(parts, anywhere, certificates, String::new())?;
    Ok(EmbeddedMosquitto::start(options).await?)
}

/// What both hubs are told.
fn settings(
    parts: &Path,
    persons: &Path,
    store: &Store,
    broker: &EmbeddedMosquitto,
) -> Result<Vec<(&'static str, String)>> {
    let shown = |path: PathBuf| path.display().to_string();
    let database = |role: &str, secret: &str| -> Result<String> {
        let password = std::fs::read_to_string(parts.join("secrets").join(secret))?;
        let socket = shown(parts.join("run/pg"));
        Ok(format!("postgres:///lintel?host={socket}&user=lintel_{role}&password={}", password.trim()))
    };
    let broker_file = |name: &str| shown(parts.join("broker").join(name));
    Ok(vec![
        ("LINTEL__DATABASE__URL", database("app", "postgres-app.password")?),
        ("LINTEL__DATABASE__OWNER_URL", database("owner", "postgres-owner.password")?),
        ("LINTEL__DATABASE__MAX_CONNECTIONS", String::from("32")),
        ("LINTEL__DATA__PERSON_KEYS_DIR", shown(persons.to_path_buf())),
        ("LINTEL__BROKER__ADDRESS", broker.hub().address.to_string()),
        ("LINTEL__BROKER__PASSWORD_FILE", shown(parts.join("secrets/mqtt-hub.password"))),
        ("LINTEL__BROKER__DEVICE_ADDRESS", broker.device_address().to_string()),
        ("LINTEL__BROKER__ACCESS_FILE", broker_file("devices.acl")),
        ("LINTEL__BROKER__CRL_FILE", broker_file("clients.crl")),
        ("LINTEL__BROKER__PID_FILE", broker_file("mosquitto.pid")),
        ("LINTEL__LIMITS__SHARED_URL", store.url()),
        // One address asks here what many do elsewhere, with keys that are refused on purpose.
        ("LINTEL__LIMITS__REFUSED_KEYS_PER_MINUTE", String::from("1000000")),
        ("LINTEL__SERVER__MAX_CONNECTIONS_PER_ADDRESS", String::from("2000")),
        ("LINTEL__AUDIT__HEADS", shown(parts.join("heads"))),
    ])
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
