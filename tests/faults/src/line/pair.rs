//! Two hubs on one Postgres and one Mosquitto that belong to neither, with a fleet; either can be killed and started again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cloud_hub::clock::Clock;
use cloud_hub::embedded::mosquitto::{BrokerCertificates, EmbeddedMosquitto, MosquittoOptions};
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::keys::Keyring;
use cloud_hub::pki::Pki;
use system_tests::launcher::{Hub, Places, free_port, run_dir};
use tokio::runtime::Runtime;

use super::Site;
use crate::lab::now;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that the rows' tools talk to.
    First,
    /// The other.
    Second,
}

/// Both hubs and what they share.
pub struct Pair {
    /// The fleet's place, with the first hub in it.
    pub site: Site,
    second: Option<Hub>,
    shared: Shared,
    parts: Option<(EmbeddedMosquitto, EmbeddedPostgres)>,
}

impl Drop for Pair {
    /// Hubs before their parts, and the parts before the folder that they are in.
    fn drop(&mut self) {
        let _not_running = self.site.kill_hub();
        drop(self.second.take());
        if let Some((broker, postgres)) = self.parts.take() {
            self.site.block_on(async {
                broker.stop().await;
                postgres.stop().await;
            });
        }
    }
}

/// What a hub is started with.
struct Shared {
    places: Places,
    dir: PathBuf,
    ports: [u16; 2],
    settings: String,
    postgres: String,
}

impl Shared {
    async fn start(&self, which: Which) -> Result<Hub> {
        let (name, port) = match which {
            Which::First => ("hub", self.ports[0]),
            Which::Second => ("second", self.ports[1]),
        };
        Hub::start_beside(&self.places, &self.dir.join(name), port, &self.settings, &self.postgres).await
    }
}

impl Pair {
    /// Starts Postgres, Mosquitto and both hubs, and claims so many devices.
    pub fn open(devices: usize) -> Result<Self> {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let runtime = Runtime::new()?;
        let (dir, places) = (run_dir()?, Places::find()?);
        let parts = dir.path().join("parts");
        let opened = runtime.block_on(async {
            let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(&parts)?).await?;
            let broker = start_broker(&parts, &dir.path().join("hub")).await?;
            anyhow::Ok((postgres, broker))
        });
        let (postgres, broker) = opened?;
        for name in ["hub", "second"] {
            let keys = dir.path().join(name).join("keys");
            std::fs::create_dir_all(&keys)?;
            if name == "hub" {
                drop(Keyring::open(&keys)?);
            } else {
                copy(&dir.path().join("hub/keys"), &keys, &["persons.redb"])?;
                copy(&dir.path().join("hub/pki"), &dir.path().join(name).join("pki"), &[])?;
            }
        }
        let people = dir.path().join("people");
        std::fs::create_dir(&people)?;
        std::fs::write(people.join("person-keys.v1"), "")?;
        let shared = Shared {
            places: places.clone(),
            dir: dir.path().to_path_buf(),
            ports: [free_port()?, free_port()?],
            settings: settings(&parts, &people, &postgres, &broker)?,
            postgres: postgres.superuser_url(),
        };
        // One after the other: the first brings the schema up to date.
        let started = runtime
            .block_on(async { anyhow::Ok((shared.start(Which::First).await?, shared.start(Which::Second).await?)) });
        let (first, second) = started?;
        let port = broker.device_address().port();
        let site = Site::around(runtime, dir, places, first, port)?;
        site.populate(devices)?;
        Ok(Self { site, second: Some(second), shared, parts: Some((broker, postgres)) })
    }

    /// Kills one where it stands.
    pub fn kill(&mut self, which: Which) -> Result<()> {
        match which {
            Which::First => self.site.kill_hub(),
            Which::Second => self.second.take().context("the second hub is not running")?.process().kill(),
        }
    }

    /// Starts one that was killed; returns how long it took.
    pub fn start(&mut self, which: Which) -> Result<Duration> {
        let begun = now();
        let hub = self.site.block_on(self.shared.start(which))?;
        match which {
            Which::First => self.site.replace_hub(hub),
            Which::Second => self.second = Some(hub),
        }
        Ok(begun.elapsed())
    }

    /// How often each of them has come to lead, by their logs.
    pub fn leaderships(&self) -> Result<[u64; 2]> {
        let count = |name: &str| -> Result<u64> {
            let log = std::fs::read_to_string(self.site.file(name))?;
            Ok(log.matches("this hub sends records, commands and the feed").count() as u64)
        };
        Ok([count("hub.log")?, count("second.log")?])
    }
}

async fn start_broker(parts: &Path, first: &Path) -> Result<EmbeddedMosquitto> {
    let now = Clock::system().now();
    std::fs::create_dir_all(first)?;
    let pki = Pki::load_or_make(&first.join("pki"), now)?;
    let server = pki.server("broker", &["127.0.0.1".to_owned(), "localhost".to_owned()], now)?;
    let certificates = BrokerCertificates {
        server_chain_pem: server.chain_pem,
        server_key_pem: server.key_pem.to_string(),
        client_ca_pem: pki.client_ca_pem(),
        client_crl_pem: Some(pki.client_crl(std::iter::empty(), None, now)?),
    };
    let options = MosquittoOptions::for_data_dir(parts, "127.0.0.1:0".parse()?, certificates, String::new())?;
    Ok(EmbeddedMosquitto::start(options).await?)
}

/// The settings of both hubs: where the parts are, and which of the broker's files they write.
fn settings(parts: &Path, people: &Path, postgres: &EmbeddedPostgres, broker: &EmbeddedMosquitto) -> Result<String> {
    let url = |role: &str| -> Result<String> {
        let password = std::fs::read_to_string(parts.join(format!("secrets/postgres-{role}.password")))?;
        let user = format!("user=lintel_{role}&password={}", password.trim());
        Ok(postgres.superuser_url().replace("user=postgres", &user))
    };
    let parts = parts.display();
    Ok(format!(
        r#"
[data]
person_keys_dir = "{people}"

[database]
url = "{app}"
owner_url = "{owner}"

[broker]
address = "{hub}"
password_file = "{parts}/secrets/mqtt-hub.password"
device_address = "{devices}"
access_file = "{parts}/broker/devices.acl"
crl_file = "{parts}/broker/clients.crl"
pid_file = "{parts}/broker/mosquitto.pid"
"#,
        people = people.display(),
        app = url("app")?,
        owner = url("owner")?,
        hub = broker.hub().address,
        devices = broker.device_address(),
    ))
}

fn copy(from: &Path, to: &Path, without: &[&str]) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && !without.contains(&&*entry.file_name().to_string_lossy()) {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
