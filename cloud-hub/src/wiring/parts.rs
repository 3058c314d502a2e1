//! Postgres and the broker, embedded or external, as the rest of the wiring sees them.

use std::path::Path;
use std::str::FromStr as _;

use anyhow::{Context as _, Result, bail};
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::config::{Config, MaybePath, Secret};
use crate::embedded::mosquitto::{
    AccessFile, BrokerCertificates, CONSUMERS_AT, ConsumerListener, ConsumerPaths, EmbeddedMosquitto, HUB_USER,
    MosquittoOptions,
};
use crate::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use crate::embedded::{Layout, MIN_FREE_BYTES, check_loopback, parts, ports};
use crate::limit::Shared;
use crate::publish::{self, BrokerTls, ConsumerFiles};

/// The database's side.
pub(super) struct DatabasePart {
    embedded: Option<EmbeddedPostgres>,
    /// As `lintel_owner`.
    pub(super) owner: PgConnectOptions,
    /// As `lintel_app`.
    pub(super) app: PgConnectOptions,
}

/// The broker's side.
pub(super) struct BrokerPart {
    embedded: Option<EmbeddedMosquitto>,
    /// How the hub connects.
    pub(super) hub: publish::Broker,
    /// Host and port for devices.
    pub(super) device_host: String,
    /// Host and port for devices.
    pub(super) device_port: u16,
    /// The access list, if the hub writes it.
    pub(super) access: Option<AccessFile>,
    /// Host and port for consumers, if the hub keeps their listener's files.
    pub(super) consumers: Option<(String, u16)>,
}

/// What the broker reads about who may do what, as the registry has it.
pub(super) struct Registered {
    /// The devices' access list.
    pub(super) devices: String,
    /// The consumers' files.
    pub(super) consumers: ConsumerFiles,
}

/// Refuses what the embedded mode must not do, before anything starts.
pub(super) fn check_embedded(config: &Config) -> Result<()> {
    if config.embedded.enabled {
        check_loopback(config.server.listen, "--listen")?;
        check_loopback(config.embedded.mqtt_listen, "--mqtt-listen")?;
        if let Some(consumers) = config.embedded.consumer_listen.0 {
            check_loopback(consumers, CONSUMERS_AT)?;
        }
        // Asked before Postgres is started: the answer should not take two seconds. A broker of a previous life
        // that still holds a port is stopped later, so only other owners count.
        check_broker_ports(config)?;
    }
    Ok(())
}

fn check_broker_ports(config: &Config) -> Result<()> {
    let layout = Layout::new(&config.data.dir);
    if crate::embedded::mosquitto::leftover_runs(&layout) {
        return Ok(());
    }
    let (devices, consumers) = (config.embedded.mqtt_listen, config.embedded.consumer_listen.0);
    for (address, setting) in [(Some(devices), "--mqtt-listen"), (consumers, CONSUMERS_AT)] {
        if let Some(address) = address.filter(|address| address.port() != 0) {
            ports::check_free(address, setting)?;
        }
    }
    Ok(())
}

impl DatabasePart {
    /// Starts the embedded Postgres, or reads how to reach the external one.
    pub(super) async fn start(config: &Config) -> Result<Self> {
        if !config.embedded.enabled {
            let app = url(&config.database.url, &config.database.url_file, "database.url")?;
            let owner = url(&config.database.owner_url, &config.database.owner_url_file, "database.owner_url")?;
            return Ok(Self { embedded: None, owner, app });
        }
        let layout = Layout::new(&config.data.dir);
        let user = layout.prepare()?;
        let bin = parts::postgres_bin(config.embedded.postgres_bin.get())?;
        let options = PostgresOptions { layout, bin, user, min_free_bytes: MIN_FREE_BYTES };
        let postgres = EmbeddedPostgres::start(options).await?;
        Ok(Self { owner: postgres.owner(), app: postgres.app(), embedded: Some(postgres) })
    }

    /// A URL for `psql`: of the embedded server alone, since an external one's holds secrets.
    pub(super) fn shown_url(&self) -> Option<String> {
        self.embedded.as_ref().map(EmbeddedPostgres::superuser_url)
    }

    /// Stops what is the hub's own.
    pub(super) async fn stop(self) {
        if let Some(postgres) = self.embedded {
            postgres.stop().await;
        }
    }
}

/// Unique among replicas and lives, so that no old session of the hub's is taken for the new one.
fn client_id() -> String {
    format!("cloud-hub-{}", Uuid::new_v4())
}

fn host_and_port(address: &str, setting: &'static str) -> Result<(String, u16)> {
    let (host, port) = address.rsplit_once(':').with_context(|| format!("{setting} must be host:port"))?;
    let port = port.parse().with_context(|| format!("{setting} must end in a port"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

/// Reads a database URL from its setting or its file.
pub(super) fn url(direct: &Secret, file: &MaybePath, setting: &'static str) -> Result<PgConnectOptions> {
    let text = match file.get() {
        Some(path) => read_trimmed(path)?,
        None => direct.reveal().to_owned(),
    };
    if text.is_empty() {
        bail!("{setting} is not set: name an external Postgres, or run `cloud-hub serve --embedded`");
    }
    // The driver's own error may quote the URL, which holds a password.
    PgConnectOptions::from_str(&text).map_err(|_| anyhow::anyhow!("{setting} is not a Postgres URL"))
}

/// Where replicas count together, if they do.
pub(super) fn shared_limits(config: &Config) -> Result<Option<Shared>> {
    let limits = &config.limits;
    let (setting, url) = match limits.shared_url_file.get() {
        Some(path) => ("limits.shared_url_file", read_trimmed(path)?),
        None => ("limits.shared_url", limits.shared_url.reveal().to_owned()),
    };
    if url.is_empty() {
        return Ok(None);
    }
    Shared::new(&url).map(Some).context(setting)
}

fn read_trimmed(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

impl BrokerPart {
    /// Starts the embedded broker with these certificates and access lines, or reads how to reach the external one.
    pub(super) async fn start(
        config: &Config,
        certificates: BrokerCertificates,
        registered: Registered,
    ) -> Result<Self> {
        if !config.embedded.enabled {
            return Self::external(config, &registered, certificates.client_crl_pem.as_deref().unwrap_or_default());
        }
        let layout = Layout::new(&config.data.dir);
        let user = layout.prepare()?;
        let options = MosquittoOptions {
            layout,
            program: parts::mosquitto(config.embedded.mosquitto.get())?,
            user,
            device_listen: config.embedded.mqtt_listen,
            certificates,
            device_access: registered.devices,
            consumers: config.embedded.consumer_listen.0.map(|listen| ConsumerListener {
                listen,
                passwords: registered.consumers.passwords,
                access: registered.consumers.access,
            }),
        };
        let broker = EmbeddedMosquitto::start(options).await?;
        Ok(Self {
            hub: publish::Broker {
                host: broker.hub().address.ip().to_string(),
                port: broker.hub().address.port(),
                client_id: client_id(),
                credentials: Some((broker.hub().username.clone(), broker.hub().password.clone())),
                tls: None,
            },
            device_host: broker.device_address().ip().to_string(),
            device_port: broker.device_address().port(),
            consumers: broker.consumer_address().map(|address| (address.ip().to_string(), address.port())),
            access: Some(broker.access()),
            embedded: Some(broker),
        })
    }

    fn external(config: &Config, registered: &Registered, revoked: &str) -> Result<Self> {
        let settings = &config.broker;
        if settings.address.is_empty() || settings.device_address.is_empty() {
            bail!("broker.address and broker.device_address are not set: name an external broker, or use --embedded");
        }
        let (hub_host, hub_port) = host_and_port(&settings.address, "broker.address")?;
        let (device_host, device_port) = host_and_port(&settings.device_address, "broker.device_address")?;
        let password = settings.password_file.get().map(read_trimmed).transpose()?;
        let username = if settings.username.is_empty() { HUB_USER.to_owned() } else { settings.username.clone() };
        let paths = settings.consumer_password_file.get().zip(settings.consumer_access_file.get());
        let paths = paths.map(|(passwords, access)| ConsumerPaths {
            passwords: passwords.to_path_buf(),
            access: access.to_path_buf(),
        });
        if paths.is_some() && settings.access_file.get().is_none() {
            bail!("broker.consumer_access_file is set and broker.access_file is not: the hub writes both or neither");
        }
        let consumers = paths
            .is_some()
            .then(|| host_and_port(&settings.consumer_address, "broker.consumer_address"))
            .transpose()?;
        let file = settings.access_file.get().map(|path| {
            AccessFile::external(path, settings.crl_file.get(), settings.pid_file.get()).with_consumers(paths)
        });
        if let Some(file) = &file {
            file.replace_with_revocations(&registered.devices, revoked)?;
            file.replace_consumers(&registered.consumers.passwords, &registered.consumers.access)?;
        }
        Ok(Self {
            embedded: None,
            hub: publish::Broker {
                host: hub_host,
                port: hub_port,
                client_id: client_id(),
                credentials: password.map(|password| (username, password)),
                tls: super::tls::broker_config(settings)?.map(BrokerTls),
            },
            device_host,
            device_port,
            consumers,
            access: file,
        })
    }

    /// Stops what is the hub's own.
    pub(super) async fn stop(self) {
        if let Some(broker) = self.embedded {
            broker.stop().await;
        }
    }
}
