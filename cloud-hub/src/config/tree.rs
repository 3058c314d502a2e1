//! The sections of the configuration as final types.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::values::{HumanDuration, MaybeAddress, MaybePath, MaybeUrl, Secret};
use super::{ConfigError, SCHEMA_VERSION};
use crate::domain::intrusion::Thresholds;
use crate::domain::settings::Live;
use crate::outbound::collector;
use crate::outbound::network::Network;

/// Heads of the audit: as often as is any use, and as seldom as was promised.
const MIN_HEADS_EVERY: Duration = Duration::from_secs(1);
const MAX_HEADS_EVERY: Duration = Duration::from_secs(60);
/// A receiver of spans: longer than a round trip anywhere, and short enough that the queue behind it is worth something.
const MIN_TRACES_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TRACES_TIMEOUT: Duration = Duration::from_secs(60);
/// Where receivers of OTLP over HTTP take spans, by its specification.
const TRACES_PATH: &str = "/v1/traces";

/// The whole configuration. Field meanings and defaults stand in `defaults.toml`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of the shape.
    pub schema_version: u32,
    /// Logging.
    pub log: LogConfig,
    /// The data directory.
    pub data: DataConfig,
    /// The REST listener.
    pub server: ServerConfig,
    /// External Postgres.
    pub database: DatabaseConfig,
    /// External broker.
    pub broker: BrokerConfig,
    /// Embedded Postgres and broker.
    pub embedded: EmbeddedConfig,
    /// How much callers may ask.
    pub limits: LimitsConfig,
    /// What is noticed of callers.
    pub intrusion: IntrusionConfig,
    /// The model pack.
    pub models: ModelsConfig,
    /// Enrolment by photograph.
    pub enrolment: EnrolmentConfig,
    /// Files of people.
    pub imports: ImportsConfig,
    /// Recognition over the API.
    pub recognition: RecognitionConfig,
    /// Webhook delivery.
    pub webhooks: WebhooksConfig,
    /// Galleries and their logs.
    pub galleries: GalleriesConfig,
    /// Heads of the audit.
    pub audit: AuditConfig,
    /// Metrics for Prometheus.
    pub metrics: MetricsConfig,
    /// Spans for OpenTelemetry.
    pub traces: TracesConfig,
    /// Announcements for Home Assistant.
    pub home_assistant: HomeAssistantConfig,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident, $partial:ident { $($(#[$field:meta])* $key:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$field])* pub $key: $kind,)* }

        #[derive(Deserialize, Default)]
        #[serde(default, deny_unknown_fields)]
        #[allow(dead_code, reason = "read for its errors only; the values come from the merged table")]
        struct $partial { $($key: Option<$kind>,)* }
    };
}

section! {
    /// `[log]`
    LogConfig, PartialLog {
        /// A level, or a filter of `tracing-subscriber`'s syntax.
        level: String,
    }
}

section! {
    /// `[data]`
    DataConfig, PartialData {
        /// Secrets, certificates, person keys, embedded parts.
        dir: PathBuf,
        /// The folder of person keys that all replicas see; nothing for a file of this hub's own.
        person_keys_dir: MaybePath,
    }
}

section! {
    /// `[server]`
    ServerConfig, PartialServer {
        /// Address of the TLS listener.
        listen: SocketAddr,
        /// What devices and clients are told; empty for the listen address.
        public_url: String,
        /// Further names in the server's certificate.
        names: Vec<String>,
        /// The control socket, or `None` for its place in the data directory.
        control_socket: MaybePath,
        /// Open connections in total.
        max_connections: usize,
        /// Open connections from one address.
        max_connections_per_address: usize,
        /// For a TLS handshake.
        handshake_timeout: HumanDuration,
        /// For the head of a request.
        header_timeout: HumanDuration,
        /// For the answer.
        request_timeout: HumanDuration,
        /// For running requests at a stop.
        drain: HumanDuration,
    }
}

section! {
    /// `[database]`
    DatabaseConfig, PartialDatabase {
        /// As `lintel_app`.
        url: Secret,
        /// A file with the URL above.
        url_file: MaybePath,
        /// As `lintel_owner`, for migrations and the indexes of large galleries.
        owner_url: Secret,
        /// A file with the URL above.
        owner_url_file: MaybePath,
        /// Size of the pool.
        max_connections: u32,
    }
}

section! {
    /// `[broker]`
    BrokerConfig, PartialBroker {
        /// The hub's own listener, `host:port`.
        address: String,
        /// The hub's user there.
        username: String,
        /// The hub's password there.
        password_file: MaybePath,
        /// Whose certificates the broker shows; without it the connection is plain, for loopback only.
        ca_file: MaybePath,
        /// The hub's client certificate.
        certificate_file: MaybePath,
        /// Its key.
        key_file: MaybePath,
        /// The devices' listener, `host:port`.
        device_address: String,
        /// The access list that the hub writes.
        access_file: MaybePath,
        /// The revocation list of device certificates that the hub writes; the broker's `crlfile`.
        crl_file: MaybePath,
        /// Whom to send SIGHUP afterwards.
        pid_file: MaybePath,
        /// The consumers' listener, `host:port`; empty if they have none that the hub keeps.
        consumer_address: String,
        /// The password file of that listener, which the hub writes.
        consumer_password_file: MaybePath,
        /// The access list of that listener, which the hub writes.
        consumer_access_file: MaybePath,
    }
}

section! {
    /// `[embedded]`
    EmbeddedConfig, PartialEmbedded {
        /// Whether the parts are the hub's own.
        enabled: bool,
        /// The devices' listener; loopback.
        mqtt_listen: SocketAddr,
        /// The consumers' listener, or nothing for none; loopback.
        consumer_listen: MaybeAddress,
        /// Postgres' programs, or `None` for the installed parts.
        postgres_bin: MaybePath,
        /// The broker, or `None` for the search path.
        mosquitto: MaybePath,
    }
}

section! {
    /// `[limits]`
    LimitsConfig, PartialLimits {
        /// Where replicas count together.
        shared_url: Secret,
        /// A file with the URL above.
        shared_url_file: MaybePath,
        /// Keys of one address that may be refused in a minute.
        refused_keys_per_minute: u32,
    }
}

section! {
    /// `[intrusion]`
    IntrusionConfig, PartialIntrusion {
        /// Wrong secrets for one key in a minute.
        refused: u32,
        /// Networks of one key that are still plausible.
        networks: u32,
        /// Within which time.
        travel_window: HumanDuration,
        /// Ids that are not there, in ten minutes.
        probes: u32,
        /// People looked at in an hour that are never too many.
        people: u32,
        /// The share of all people that may be looked at in it.
        people_share: f64,
    }
}

section! {
    /// `[models]`
    ModelsConfig, PartialModels {
        /// The pack's manifest.
        manifest: PathBuf,
        /// The folder with the pack's files.
        weights: PathBuf,
        /// ONNX Runtime's shared library.
        onnxruntime: PathBuf,
        /// Parallel sessions per model.
        sessions: usize,
        /// Threads within one session.
        intra_threads: usize,
    }
}

section! {
    /// `[enrolment]`
    EnrolmentConfig, PartialEnrolment {
        /// Photographs in one request.
        max_photos: usize,
        /// Bytes of one photograph.
        max_photo_bytes: usize,
        /// Requests worked on at once.
        workers: usize,
        /// Requests that may wait.
        queue: usize,
        /// The FAR whose threshold makes a duplicate.
        duplicate_far: String,
    }
}

section! {
    /// `[imports]`
    ImportsConfig, PartialImports {
        /// Imports at once.
        at_once: usize,
        /// Bytes of a file.
        max_bytes: u64,
    }
}

section! {
    /// `[recognition]`
    RecognitionConfig, PartialRecognition {
        /// Memory for tenants' galleries.
        galleries_mib: usize,
        /// Comparisons that may wait.
        queue: usize,
    }
}

section! {
    /// `[webhooks]`
    WebhooksConfig, PartialWebhooks {
        /// Networks that are allowed although not public.
        allow_networks: Vec<Network>,
        /// For a receiver's answer.
        timeout: HumanDuration,
        /// Deliveries under way at once.
        workers: usize,
        /// Of these, to one endpoint.
        per_endpoint: usize,
        /// How long finished deliveries are kept.
        retention: HumanDuration,
    }
}

section! {
    /// `[galleries]`
    GalleriesConfig, PartialGalleries {
        /// From how many missing versions on a device takes a snapshot.
        snapshot_from: u64,
        /// How long a record stays in the log in any case.
        keep_log: HumanDuration,
        /// A device not seen for so long is not waited for.
        device_lease: HumanDuration,
    }
}

section! {
    /// `[audit]`
    AuditConfig, PartialAudit {
        /// The folder of signed heads, or `None` for its place in the data directory.
        heads: MaybePath,
        /// Between two rounds.
        heads_every: HumanDuration,
        /// Whether they are on the log too.
        log_heads: bool,
    }
}

section! {
    /// `[metrics]`
    MetricsConfig, PartialMetrics {
        /// Where they are told, if anywhere.
        listen: MaybeAddress,
    }
}

section! {
    /// `[traces]`
    TracesConfig, PartialTraces {
        /// The receiver of spans, if there is one.
        endpoint: MaybeUrl,
        /// The share of traces that begin here and are sent, in [0, 1].
        sample: f64,
        /// For the receiver's answer.
        timeout: HumanDuration,
    }
}

section! {
    /// `[home_assistant]`
    HomeAssistantConfig, PartialHomeAssistant {
        /// Tenants whose devices are announced.
        tenants: Vec<Uuid>,
        /// Of these, those whose doors may be opened from there.
        unlock: Vec<Uuid>,
    }
}

impl TracesConfig {
    /// Where spans go, if anywhere: a URL without a path gets that of OTLP.
    #[must_use]
    pub fn receiver(&self) -> Option<Url> {
        let mut receiver = self.endpoint.0.clone()?;
        if receiver.path() == "/" {
            receiver.set_path(TRACES_PATH);
        }
        Some(receiver)
    }
}

/// The same shape with everything optional: what a file may say. Read for its errors, which have lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read for its errors only; the values come from the merged table")]
pub(super) struct PartialConfig {
    schema_version: Option<u32>,
    #[serde(default)]
    log: PartialLog,
    #[serde(default)]
    data: PartialData,
    #[serde(default)]
    server: PartialServer,
    #[serde(default)]
    database: PartialDatabase,
    #[serde(default)]
    broker: PartialBroker,
    #[serde(default)]
    embedded: PartialEmbedded,
    #[serde(default)]
    limits: PartialLimits,
    #[serde(default)]
    intrusion: PartialIntrusion,
    #[serde(default)]
    models: PartialModels,
    #[serde(default)]
    enrolment: PartialEnrolment,
    #[serde(default)]
    imports: PartialImports,
    #[serde(default)]
    recognition: PartialRecognition,
    #[serde(default)]
    webhooks: PartialWebhooks,
    #[serde(default)]
    galleries: PartialGalleries,
    #[serde(default)]
    audit: PartialAudit,
    #[serde(default)]
    metrics: PartialMetrics,
    #[serde(default)]
    traces: PartialTraces,
    #[serde(default)]
    home_assistant: PartialHomeAssistant,
}

impl Config {
    /// Lays the flags of `serve` over the settings.
    pub fn apply(
        &mut self,
        embedded: bool,
        listen: Option<SocketAddr>,
        mqtt_listen: Option<SocketAddr>,
        consumer_listen: Option<SocketAddr>,
    ) {
        self.embedded.enabled |= embedded;
        self.server.listen = listen.unwrap_or(self.server.listen);
        self.embedded.mqtt_listen = mqtt_listen.unwrap_or(self.embedded.mqtt_listen);
        self.embedded.consumer_listen = MaybeAddress(consumer_listen.or(self.embedded.consumer_listen.0));
    }

    /// What the file says of settings that may be changed while the hub runs.
    #[must_use]
    pub fn live(&self) -> Live {
        let intrusion = Thresholds {
            refused: self.intrusion.refused,
            networks: self.intrusion.networks,
            travel_window: self.intrusion.travel_window.0,
            probes: self.intrusion.probes,
            people: self.intrusion.people,
            people_share: self.intrusion.people_share,
        };
        Live { refused_keys_per_minute: self.limits.refused_keys_per_minute, intrusion }
    }

    /// Checks what no single value can show.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.schema_version != SCHEMA_VERSION {
            return Err(ConfigError::Version { found: self.schema_version });
        }
        let unfit = |setting, problem: &str| Err(ConfigError::Unfit { setting, problem: problem.to_owned() });
        if self.public_url().is_err() {
            return unfit("server.public_url", "must be a URL such as https://hub.example:8443");
        }
        for (setting, value) in [
            ("server.max_connections", self.server.max_connections),
            ("server.max_connections_per_address", self.server.max_connections_per_address),
            ("database.max_connections", usize::try_from(self.database.max_connections).unwrap_or(0)),
            ("models.sessions", self.models.sessions),
            ("models.intra_threads", self.models.intra_threads),
            ("enrolment.max_photos", self.enrolment.max_photos),
            ("enrolment.max_photo_bytes", self.enrolment.max_photo_bytes),
            ("enrolment.workers", self.enrolment.workers),
            ("imports.at_once", self.imports.at_once),
            ("imports.max_bytes", usize::try_from(self.imports.max_bytes).unwrap_or(usize::MAX)),
            ("webhooks.workers", self.webhooks.workers),
            ("webhooks.per_endpoint", self.webhooks.per_endpoint),
        ] {
            if value == 0 {
                return unfit(setting, "must be at least 1");
            }
        }
        if let Err((setting, problem)) = self.live().check() {
            // The file has a duration where a number of seconds can be set.
            return unfit(setting.strip_suffix("_s").unwrap_or(setting), &problem);
        }
        if self.galleries.snapshot_from == 0 {
            return unfit("galleries.snapshot_from", "must be at least 1");
        }
        if !(MIN_HEADS_EVERY..=MAX_HEADS_EVERY).contains(&self.audit.heads_every.0) {
            return unfit("audit.heads_every", "must be from 1s to 60s: what comes after the last head has no witness");
        }
        if let Some(Err(error)) = self.traces.endpoint.0.as_ref().map(collector::check_url) {
            return unfit("traces.endpoint", &error.to_string());
        }
        if !(0.0..=1.0).contains(&self.traces.sample) {
            return unfit("traces.sample", "must be from 0 to 1: a share of the traces that begin here");
        }
        if !(MIN_TRACES_TIMEOUT..=MAX_TRACES_TIMEOUT).contains(&self.traces.timeout.0) {
            return unfit("traces.timeout", "must be from 100ms to 60s");
        }
        let broker = &self.broker;
        let files = [&broker.consumer_password_file, &broker.consumer_access_file].map(|file| file.get().is_some());
        if files.contains(&broker.consumer_address.is_empty()) {
            return unfit(
                "broker.consumer_address",
                "goes with broker.consumer_password_file and broker.consumer_access_file: set all three, or none",
            );
        }
        if let Some(stranger) = self.home_assistant.unlock.iter().find(|id| !self.home_assistant.tenants.contains(id)) {
            return unfit(
                "home_assistant.unlock",
                &format!("tenant {stranger} is not among home_assistant.tenants: name it there too"),
            );
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log.level).is_err() {
            return unfit("log.level", "must be error, warn, info, debug, trace or a filter of these");
        }
        Ok(())
    }

    /// What clients and devices are told: `server.public_url`, or the listen address by https.
    pub fn public_url(&self) -> Result<Url, url::ParseError> {
        if self.server.public_url.is_empty() {
            return Url::parse(&format!("https://{}", self.server.listen));
        }
        Url::parse(&self.server.public_url)
    }

    /// The configuration in use as TOML, with secrets as `***`.
    #[must_use]
    pub fn redacted(&self) -> String {
        toml::to_string(self).expect("every section is a plain table of plain values")
    }
}
