//! Every task and channel of the hub on one page, and the order in which things start and stop.
//!
//! ```text
//! start   port · lock · Postgres ∥ models → keys, certificates → migrate → broker → tasks → API → ready line
//! stop    not ready → listener drains, streams end → notifier, jobs → publish, ingest → broker → pool → Postgres
//! ```

mod auditing;
mod broker;
mod certificates;
mod logging;
mod metrics;
mod models;
mod notices;
mod parts;
mod probes;
mod settings;
mod tasks;
mod tls;
mod traces;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use face_runtime::PhotoLimits;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api::feed::Feed;
use crate::api::health::{Life, Phase, Probe};
use crate::api::listener::{ListenerOptions, TlsConfig};
use crate::api::{self, Api, Bodies, EnrolmentLimits, ImportLimits, Imports, Settings, control, listener};
use crate::audit::{Sealer, Trouble};
use crate::cli::control_socket;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::compaction::KeepRule;
use crate::domain::ids::TenantId;
use crate::embedded::mosquitto::BrokerCertificates;
use crate::embedded::{Layout, lock_dir, ports};
use crate::ingest::{self, Ingest};
use crate::jobs::{Deletions, Jobs, Rotations, VectorIndexes};
use crate::keys::{Custody, DeviceLinks, Keyring, Snapshots};
use crate::limit::{InForce, Limiter, Watch};
use crate::notify::client::{Lookup, SystemLookup, WebhookClient};
use crate::notify::worker::{Notifier, NotifierOptions};
use crate::outbound::address::AddressPolicy;
use crate::pki::Pki;
use crate::publish::{self, HomeSettings, Publisher, Seams};
use crate::recognition::enroller::Enroller;
use crate::recognition::{Comparisons, Galleries, Standings, Uses, uses};
use crate::store::{self, Database};
use crate::traces::Traces;
use broker::Broker;
use certificates::{Certificates, Renewal, public_url, server_names, server_tls};
use parts::{BrokerPart, DatabasePart, Registered};
use tasks::Tasks;

pub use auditing::verify_audit;
pub use logging::start as start_logging;

/// Batches between the broker's connection and ingest: what waits there are 4 MiB at the most. While it is full, more wait at the
/// broker.
const BATCHES: usize = 64;
/// Acks between ingest and the broker's connection. Full makes ingest wait.
const ACKS: usize = 256;
/// Tasks that were told to stop get this long; they hold nothing that a restart would miss.
const TASK_GRACE: Duration = Duration::from_millis(1_000);

/// Brings an external database's schema up to date.
pub async fn migrate(config: &Config) -> Result<()> {
    let owner = parts::url(&config.database.owner_url, &config.database.owner_url_file, "database.owner_url")?;
    Ok(store::migrate(&owner).await?)
}

/// Runs the hub until SIGTERM or SIGINT.
pub async fn serve(config: Config, clock: Clock) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = tokio::select! {
        running = start(&config, &clock) => running?,
        // Postgres and the broker die with the process.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    running.tell()?;
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        // Half a hub is worse than none: whoever started it starts it again.
        error = running.ended_early() => Err(error),
    };
    running.stop(config.server.drain.0).await;
    outcome
}

/// A hub that serves.
struct Running {
    _lock: crate::embedded::DirLock,
    api: Arc<Api>,
    /// Ends the listener and the live streams first.
    front: CancellationToken,
    /// Ends everything behind them.
    back: CancellationToken,
    front_tasks: Tasks,
    back_tasks: Tasks,
    broker: BrokerPart,
    database: DatabasePart,
    ready_line: serde_json::Value,
}

/// What everything stands on: database, keys, certificates, broker.
struct Foundation {
    database: DatabasePart,
    db: Database,
    custody: Custody,
    pki: Arc<Pki>,
    public_url: Url,
    /// Names and addresses in the certificates.
    names: Vec<String>,
    broker: BrokerPart,
}

async fn start(config: &Config, clock: &Clock) -> Result<Running> {
    parts::check_embedded(config)?;
    // First of all, since it is the likeliest to fail: the port.
    let socket = ports::bind_free(config.server.listen, "--listen")?;
    socket.set_nonblocking(true)?;
    let metrics = metrics::Endpoint::open(config)?;
    let layout = Layout::new(&config.data.dir);
    layout.prepare_private()?;
    let lock = lock_dir(layout.root())?;
    let for_models = config.clone();
    let loading = tokio::task::spawn_blocking(move || models::load(&for_models));
    let base = lay_foundation(config, clock, &layout, socket.local_addr()?).await?;

    let (front, back) = (CancellationToken::new(), CancellationToken::new());
    let (mut front_tasks, mut back_tasks) = (Tasks::default(), Tasks::default());
    let (connected, _) = watch::channel(false);
    let (audit_trouble, _) = watch::channel(Trouble::default());
    let in_force = Arc::new(InForce::new(config.live()));
    // Before anybody is served.
    settings::take_newest(&base.db, &in_force).await?;
    let limiter = Arc::new(Limiter::new(parts::shared_limits(config)?));
    let (uses, writer) = uses::uses(base.db.clone());
    back_tasks.spawn("uses of recognition", writer.run(back.clone()));
    let (traces, sending) = traces::open(config, &base.public_url)?;
    if let Some(sending) = sending {
        back_tasks.spawn("traces", sending.run(back.clone()));
    }
    let (is_connected, troubles) = (connected.subscribe(), audit_trouble.subscribe());
    let probes = probes::all(&base.db, &base.custody, connected.subscribe(), audit_trouble.subscribe(), &limiter);
    let begun = Begun { limiter: Arc::clone(&limiter), in_force: Arc::clone(&in_force), uses, traces, probes };
    let tls: TlsConfig = Arc::new(ArcSwap::from(server_tls(&base.pki, &base.names, clock)?));
    let certificates = Arc::new(Certificates {
        tls: Arc::clone(&tls),
        pki: Arc::clone(&base.pki),
        names: base.names.clone(),
        broker: base.broker.access.clone(),
        clock: clock.clone(),
        making: Mutex::default(),
    });
    let api = Arc::new(make_api(config, clock, &base, begun, Arc::clone(&certificates), &front));
    back_tasks.spawn("settings", settings::follow(base.db.clone(), in_force, back.clone()));
    let (tended, end) = (Arc::clone(&api), back.clone());
    back_tasks.spawn("galleries in memory", async move { tended.galleries.tend(end).await });
    let metrics_url = metrics.as_ref().map(metrics::Endpoint::url);
    if let Some(endpoint) = metrics {
        let sources = metrics::Sources { api: Arc::clone(&api), connected: is_connected, audit: troubles };
        back_tasks.spawn("metrics", endpoint.serve(sources, back.clone())?);
    }
    let end = back.clone();
    back_tasks.spawn("limits", async move { limiter.breathe(end).await });
    let sealer = Sealer {
        db: base.db.clone(),
        keyring: Arc::clone(base.custody.keyring()),
        clock: clock.clone(),
        heads: auditing::head_settings(config),
        trouble: audit_trouble,
    };
    back_tasks.spawn("audit", sealer.run(back.clone()));
    start_back(config, clock, &base, &api, connected, &back, &mut back_tasks)?;

    let renewal = Renewal { certificates, broker: Arc::clone(&api.broker) };
    front_tasks.spawn("certificate renewal", renewal.run(front.clone()));
    let routes = api::routes(Arc::clone(&api), config.server.request_timeout.0);
    let listener = TcpListener::from_std(socket)?;
    front_tasks.spawn("listener", listener::serve(listener, tls, routes, listener_options(config), front.clone()));
    let control_path = control_socket(config);
    let control = control::bind(&layout.secrets_dir(), &control_path)
        .with_context(|| format!("control socket {}", control_path.display()))?;
    front_tasks.spawn("control socket", control::serve(control, Arc::clone(&api), front.clone()));

    match loading.await? {
        Ok(models) => api.enroller.set_models(models),
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(event = "models_unavailable", %error, "enrolment is refused: set [models] and start again");
        }
    }
    api.life.enter(Phase::Ready);
    let ready_line = ready_line(&base, &control_path, metrics_url.as_deref());
    let Foundation { broker, database, .. } = base;
    Ok(Running { _lock: lock, api, front, back, front_tasks, back_tasks, broker, database, ready_line })
}

/// Starts or reaches Postgres, brings its schema up to date, opens keys and certificates, starts the broker.
async fn lay_foundation(config: &Config, clock: &Clock, layout: &Layout, listen: SocketAddr) -> Result<Foundation> {
    let database = DatabasePart::start(config).await?;
    store::migrate(&database.owner).await?;
    let db = Database::new(database.app.clone(), config.database.max_connections);
    db.check().await?;
    let keys_dir = layout.keys_dir();
    let shared = config.data.person_keys_dir.clone();
    let keyring = tokio::task::spawn_blocking(move || Keyring::open_with(&keys_dir, shared.get())).await??;
    let keyring = Arc::new(keyring);
    let custody = Custody::new(db.clone(), keyring, clock.clone());
    // Before anybody is served: a device must not hear of an epoch that is over.
    if let Some(raised) = custody.notice_restore().await? {
        tracing::warn!(
            event = "epochs_raised",
            hub_epoch = raised.hub_epoch,
            gallery_epoch = raised.gallery_epoch,
            galleries = raised.galleries,
            "devices send again what the backup lacks, and fetch their galleries anew"
        );
    }
    let pki = Arc::new(Pki::load_or_make(&layout.pki_dir(), clock.now())?);
    let public_url = public_url(config, listen)?;
    let names = server_names(config, &public_url, listen);
    let identity = pki.server("broker", &names, clock.now())?;
    // Another hub may be writing the lists of a broker that is theirs together.
    let turn = if config.embedded.enabled { None } else { Some(db.lists_turn().await?) };
    // A broker of others may hold the list that lies there; the hub's own starts without one.
    let previous = config.broker.crl_file.get().and_then(|path| std::fs::read_to_string(path).ok());
    let certificates = BrokerCertificates {
        server_chain_pem: identity.chain_pem,
        server_key_pem: identity.key_pem.to_string(),
        client_ca_pem: pki.client_ca_pem(),
        client_crl_pem: Some(publish::revocation_list(&db, &pki, previous.as_deref(), clock.now()).await?),
    };
    let registered = Registered {
        devices: publish::access_lines(&db).await?,
        consumers: publish::consumer_files(&db, &home_settings(config)).await?,
    };
    let broker = BrokerPart::start(config, certificates, registered).await?;
    drop(turn);
    Ok(Foundation { database, db, custody, pki, public_url, names, broker })
}

/// Parts of the API that tasks work at too.
struct Begun {
    limiter: Arc<Limiter>,
    in_force: Arc<InForce>,
    uses: Uses,
    traces: Traces,
    probes: Vec<Probe>,
}

fn make_api(
    config: &Config,
    clock: &Clock,
    base: &Foundation,
    begun: Begun,
    certificates: Arc<Certificates>,
    front: &CancellationToken,
) -> Api {
    let Begun { limiter, in_force, uses, traces, probes } = begun;
    let broker = Broker {
        db: base.db.clone(),
        pki: Arc::clone(&base.pki),
        clock: clock.clone(),
        connection: base.broker.hub.clone(),
        access: base.broker.access.clone(),
        certificates,
        home: home_settings(config),
        writing: tokio::sync::Mutex::default(),
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limits = &config.enrolment;
    let photographs = PhotoLimits { max_bytes: limits.max_photo_bytes, ..PhotoLimits::default() };
    Api {
        db: base.db.clone(),
        custody: base.custody.clone(),
        snapshots: Snapshots::new(base.custody.clone()),
        pki: Arc::clone(&base.pki),
        clock: clock.clone(),
        limiter,
        watch: Watch::new(Arc::clone(&in_force)),
        bodies: Bodies::default(),
        in_force,
        feed: Feed::default(),
        enroller: Enroller::new(limits.workers, limits.queue, photographs),
        imports: Imports::new(ImportLimits {
            at_once: config.imports.at_once,
            max_bytes: config.imports.max_bytes,
            dir: config.data.dir.join("imports"),
        }),
        galleries: Galleries::new(base.custody.clone(), config.recognition.galleries_mib.saturating_mul(1 << 20)),
        uses,
        standings: Standings::new(base.db.clone()),
        comparisons: Comparisons::new(processors, config.recognition.queue),
        traces,
        rotations: Arc::default(),
        broker: Arc::new(broker),
        life: Life::default(),
        probes,
        stop: front.clone(),
        settings: Settings {
            public_url: base.public_url.clone(),
            broker_host: base.broker.device_host.clone(),
            broker_port: base.broker.device_port,
            consumers: base.broker.consumers.clone(),
            home_assistant: home_settings(config).tenants,
            enrolment: EnrolmentLimits { max_photos: limits.max_photos, max_photo_bytes: limits.max_photo_bytes },
            webhook_policy: AddressPolicy::new(config.webhooks.allow_networks.clone()),
            keep: keep_rule(config),
        },
    }
}

/// Everything behind the front: batches in, acks and galleries out, webhooks, jobs, wake-ups.
fn start_back(
    config: &Config,
    clock: &Clock,
    base: &Foundation,
    api: &Arc<Api>,
    connected: watch::Sender<bool>,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<()> {
    let Foundation { db, custody, .. } = base;
    let links = DeviceLinks::new(custody.clone());
    let (batches, batch_inbox) = mpsc::channel(BATCHES);
    let (acks, ack_outbox) = mpsc::channel(ACKS);
    tasks.spawn("ingest", ingest::run(Ingest::new(db.clone(), links.clone(), clock.clone()), batch_inbox, acks));
    let publisher = Publisher {
        db: db.clone(),
        links,
        clock: clock.clone(),
        broker: base.broker.hub.clone(),
        snapshot_from: config.galleries.snapshot_from,
        said_within: publish::SAID_WITHIN,
        home: home_settings(config),
    };
    tasks.spawn("publisher", publisher.run(Seams { batches, acks: ack_outbox, connected }, stop.clone()));

    let wake = Arc::new(Notify::new());
    let lookup: Arc<dyn Lookup> = Arc::new(SystemLookup);
    let settings = &config.webhooks;
    let options = NotifierOptions {
        workers: settings.workers,
        per_endpoint: u32::try_from(settings.per_endpoint).unwrap_or(u32::MAX),
        timeout: settings.timeout.0,
    };
    let notifier = Notifier {
        db: db.clone(),
        custody: custody.clone(),
        client: WebhookClient::new(api.settings.webhook_policy.clone(), &lookup, settings.timeout.0)?,
        clock: clock.clone(),
        options,
        wake: Arc::clone(&wake),
    };
    tasks.spawn("notifier", notifier.run(stop.clone()));
    let deletions =
        Deletions { db: db.clone(), custody: custody.clone(), clock: clock.clone(), batch: Deletions::BATCH };
    tasks.spawn("deletions", deletions.run(stop.clone()));
    let rotations = Rotations { db: db.clone(), custody: custody.clone(), begun: Arc::clone(&api.rotations) };
    tasks.spawn("rotations", rotations.run(stop.clone()));
    let (owner, above) = (base.database.owner.clone(), VectorIndexes::ABOVE);
    tasks.spawn("vector indexes", VectorIndexes { db: db.clone(), owner, above }.run(stop.clone()));
    let jobs = Jobs {
        db: db.clone(),
        custody: custody.clone(),
        clock: clock.clone(),
        delivery_retention: settings.retention.0,
        keep: keep_rule(config),
    };
    tasks.spawn("jobs", jobs.run(stop.clone()));
    tasks.spawn("database notices", notices::listen(db.clone(), api.feed.clone(), wake, stop.clone()));
    Ok(())
}

impl Running {
    /// The one line on stdout: the hub serves, and where.
    fn tell(&self) -> Result<()> {
        tracing::info!(event = "hub_ready", url = %self.api.settings.public_url, "the hub serves");
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", self.ready_line)?;
        Ok(stdout.flush()?)
    }

    /// Resolves when a task ends that nobody told to, with an error that names it.
    async fn ended_early(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            ended = self.front_tasks.ended() => ended,
            ended = self.back_tasks.ended() => ended,
        };
        tracing::error!(event = "task_ended", task = ended.name, "a task ended that nobody told to; the hub stops");
        ended.into()
    }

    async fn stop(mut self, drain: Duration) {
        tracing::info!(event = "hub_stopping", "the hub stops");
        self.api.life.enter(Phase::Draining);
        self.front.cancel();
        self.front_tasks.join(drain + TASK_GRACE).await;
        self.back.cancel();
        self.back_tasks.join(TASK_GRACE).await;
        self.broker.stop().await;
        // A connection that hangs must not keep Postgres from its shutdown.
        let _ = tokio::time::timeout(TASK_GRACE, self.api.db.close()).await;
        self.database.stop().await;
        tracing::info!(event = "hub_stopped", "the hub has stopped");
    }
}

/// What stays in the logs of galleries.
fn keep_rule(config: &Config) -> KeepRule {
    KeepRule { log: config.galleries.keep_log.0, device_lease: config.galleries.device_lease.0 }
}

/// Whose devices Home Assistants hear of.
fn home_settings(config: &Config) -> HomeSettings {
    let set = |ids: &[uuid::Uuid]| ids.iter().map(|id| TenantId(*id)).collect();
    HomeSettings { tenants: set(&config.home_assistant.tenants), unlock: set(&config.home_assistant.unlock) }
}

fn listener_options(config: &Config) -> ListenerOptions {
    ListenerOptions {
        handshake_timeout: config.server.handshake_timeout.0,
        header_timeout: config.server.header_timeout.0,
        max_connections: config.server.max_connections,
        max_per_address: config.server.max_connections_per_address,
        drain: config.server.drain.0,
    }
}

fn ready_line(base: &Foundation, control_socket: &Path, metrics: Option<&str>) -> serde_json::Value {
    let shown = |host: &str, port: u16| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let consumers = base.broker.consumers.as_ref().map(|(host, port)| shown(host, *port));
    json!({
        "ready": true,
        "https": base.public_url.as_str().trim_end_matches('/'),
        "mqtt": shown(&base.broker.device_host, base.broker.device_port),
        "mqtt_consumers": consumers,
        "postgres": base.database.shown_url(),
        "root_certificate": base.pki.root_path(),
        "control_socket": control_socket,
        "metrics": metrics,
    })
}
