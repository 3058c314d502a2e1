//! Every task and channel of the hub on one page, and the order in which things start and stop.
//!
//! ```text
//! start   port · lock · Postgres ∥ models → keys, certificates → migrate → broker → tasks → API → ready line
//! stop    not ready → listener drains, streams end → notifier, jobs → publish, ingest → broker → pool → Postgres
//! ```

mod broker;
mod logging;
mod models;
mod parts;
mod probes;
mod tls;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use face_runtime::PhotoLimits;
use rustls::ServerConfig;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api::enroller::Enroller;
use crate::api::feed::Feed;
use crate::api::health::{Life, Phase};
use crate::api::listener::{ListenerOptions, TlsConfig};
use crate::api::{self, Api, EnrolmentLimits, Settings, control, listener};
use crate::cli::control_socket;
use crate::clock::Clock;
use crate::config::Config;
use crate::embedded::mosquitto::BrokerCertificates;
use crate::embedded::{Layout, lock_dir, ports};
use crate::jobs::Jobs;
use crate::ingest::{self, Ingest};
use crate::keys::{Custody, DeviceLinks, Keyring};
use crate::notify::client::{SystemLookup, WebhookClient};
use crate::notify::worker::{Notifier, NotifierOptions};
use crate::outbound::address::AddressPolicy;
use crate::pki::Pki;
use crate::publish::{self, Publisher, Seams};
use crate::store::{self, Database, Notice};
use broker::Broker;
use parts::{BrokerPart, DatabasePart};

pub use logging::start as start_logging;

/// Batches between the broker's connection and ingest. Full means dropped; devices send again within seconds.
const BATCHES: usize = 256;
/// Acks between ingest and the broker's connection. Full makes ingest wait.
const ACKS: usize = 256;
/// After a broken connection to the database the listener for notices waits this long.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);
/// The listener's certificate is looked at this often; it is renewed at half its life of 90 days.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(6 * 3600);
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
    let running = tokio::select! {
        running = start(&config, &clock) => running?,
        // Postgres and the broker die with the process.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    running.tell()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop(config.server.drain.0).await;
    Ok(())
}

/// A hub that serves.
struct Running {
    _lock: crate::embedded::DirLock,
    api: Arc<Api>,
    /// Ends the listener and the live streams first.
    front: CancellationToken,
    /// Ends everything behind them.
    back: CancellationToken,
    front_tasks: JoinSet<()>,
    back_tasks: JoinSet<()>,
    broker: BrokerPart,
    database: DatabasePart,
    ready_line: serde_json::Value,
}

async fn start(config: &Config, clock: &Clock) -> Result<Running> {
    parts::check_embedded(config)?;
    // First of all, since it is the likeliest to fail: the port.
    let socket = ports::bind_free(config.server.listen, "--listen")?;
    socket.set_nonblocking(true)?;
    let listen = socket.local_addr()?;
    let layout = Layout::new(&config.data.dir);
    layout.prepare_private()?;
    let lock = lock_dir(layout.root())?;
    let loading = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || models::load(&config))
    };
    let database = DatabasePart::start(config).await?;
    store::migrate(&database.owner).await?;
    let db = Database::new(database.app.clone(), config.database.max_connections);
    db.check().await?;
    let keyring = {
        let dir = layout.keys_dir();
        Arc::new(tokio::task::spawn_blocking(move || Keyring::open(&dir)).await??)
    };
    let custody = Custody::new(db.clone(), keyring, clock.clone());
    let pki = Arc::new(Pki::load_or_make(&layout.pki_dir(), clock.now())?);
    let public_url = public_url(config, listen)?;
    let names = server_names(config, &public_url, listen);
    let broker_identity = pki.server("broker", &names, clock.now())?;
    let certificates = BrokerCertificates {
        server_chain_pem: broker_identity.chain_pem,
        server_key_pem: broker_identity.key_pem.to_string(),
        client_ca_pem: pki.client_ca_pem(),
        client_crl_pem: None,
    };
    let broker = BrokerPart::start(config, certificates, publish::access_lines(&db).await?).await?;

    let (front, back) = (CancellationToken::new(), CancellationToken::new());
    let (mut front_tasks, mut back_tasks) = (JoinSet::new(), JoinSet::new());
    let (connected, _) = watch::channel(false);
    let policy = AddressPolicy::new(config.webhooks.allow_networks.clone());
    let api = Arc::new(Api {
        db: db.clone(),
        custody: custody.clone(),
        pki: Arc::clone(&pki),
        clock: clock.clone(),
        feed: Feed::default(),
        enroller: Enroller::new(config.enrolment.workers, config.enrolment.queue, photo_limits(config)),
        broker: Arc::new(Broker {
            db: db.clone(),
            connection: broker.hub.clone(),
            access: broker.access.clone(),
            writing: tokio::sync::Mutex::default(),
        }),
        life: Life::default(),
        probes: probes::all(&db, &custody, connected.subscribe()),
        stop: front.clone(),
        settings: Settings {
            public_url: public_url.clone(),
            broker_host: broker.device_host.clone(),
            broker_port: broker.device_port,
            enrolment: EnrolmentLimits {
                max_photos: config.enrolment.max_photos,
                max_photo_bytes: config.enrolment.max_photo_bytes,
            },
            webhook_policy: policy.clone(),
        },
    });

    // Behind the front: batches in, acks and galleries out, webhooks, jobs, wake-ups.
    let links = DeviceLinks::new(custody.clone());
    let (batches, batch_inbox) = mpsc::channel(BATCHES);
    let (acks, ack_outbox) = mpsc::channel(ACKS);
    back_tasks.spawn(ingest::run(Ingest::new(db.clone(), links.clone(), clock.clone()), batch_inbox, acks));
    let publisher = Publisher { db: db.clone(), links, clock: clock.clone(), broker: broker.hub.clone() };
    back_tasks.spawn(publisher.run(Seams { batches, acks: ack_outbox, connected }, back.clone()));
    let wake = Arc::new(Notify::new());
    let notifier = Notifier {
        db: db.clone(),
        custody: custody.clone(),
        client: WebhookClient::new(policy, Arc::new(SystemLookup), config.webhooks.timeout.0)?,
        clock: clock.clone(),
        options: NotifierOptions {
            workers: config.webhooks.workers,
            per_endpoint: u32::try_from(config.webhooks.per_endpoint).unwrap_or(u32::MAX),
            timeout: config.webhooks.timeout.0,
        },
        wake: Arc::clone(&wake),
    };
    back_tasks.spawn(notifier.run(back.clone()));
    let jobs = Jobs {
        db: db.clone(),
        custody: custody.clone(),
        clock: clock.clone(),
        delivery_retention: config.webhooks.retention.0,
    };
    back_tasks.spawn(jobs.run(back.clone()));
    back_tasks.spawn(listen_for_notices(db.clone(), api.feed.clone(), wake, back.clone()));

    // The front: the API, the control socket, the certificate's renewal.
    let tls: TlsConfig = Arc::new(ArcSwap::from(server_tls(&pki, &names, clock)?));
    front_tasks.spawn(renew_certificate(Arc::clone(&tls), pki, names, clock.clone(), front.clone()));
    let routes = api::routes(Arc::clone(&api), config.server.request_timeout.0);
    let listener = TcpListener::from_std(socket)?;
    front_tasks.spawn(listener::serve(listener, tls, routes, listener_options(config), front.clone()));
    let control_path = control_socket(config);
    let control = control::bind(&layout.secrets_dir(), &control_path)
        .with_context(|| format!("control socket {}", control_path.display()))?;
    front_tasks.spawn(control::serve(control, Arc::clone(&api), front.clone()));

    match loading.await? {
        Ok(models) => api.enroller.set_models(models),
        Err(error) => tracing::error!(event = "models_unavailable", error = %format!("{error:#}"), "enrolment is refused until [models] is right and the hub is started again"),
    }
    api.life.enter(Phase::Ready);
    let ready_line = ready_line(&public_url, &broker, &database, api.pki.root_path(), &control_path);
    Ok(Running { _lock: lock, api, front, back, front_tasks, back_tasks, broker, database, ready_line })
}

impl Running {
    /// The one line on stdout: the hub serves, and where.
    fn tell(&self) -> Result<()> {
        tracing::info!(event = "hub_ready", url = %self.api.settings.public_url, "the hub serves");
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", self.ready_line)?;
        Ok(stdout.flush()?)
    }

    async fn stop(mut self, drain: Duration) {
        tracing::info!(event = "hub_stopping", "the hub stops");
        self.api.life.enter(Phase::Draining);
        self.front.cancel();
        join(&mut self.front_tasks, drain + TASK_GRACE).await;
        self.back.cancel();
        join(&mut self.back_tasks, TASK_GRACE).await;
        self.broker.stop().await;
        // A connection that hangs must not keep Postgres from its shutdown.
        let _ = tokio::time::timeout(TASK_GRACE, self.api.db.close()).await;
        self.database.stop().await;
        tracing::info!(event = "hub_stopped", "the hub has stopped");
    }
}

/// Waits for tasks that were told to stop; what takes too long is cut off.
async fn join(tasks: &mut JoinSet<()>, grace: Duration) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(event = "task_failed", %error, "a task ended badly");
            }
        }
    };
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!(event = "task_cut_off", "a task did not stop in time");
        tasks.shutdown().await;
    }
}

/// Turns what transactions announce into wake-ups: readers of the feed and the notifier.
async fn listen_for_notices(db: Database, feed: Feed, wake: Arc<Notify>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = forward_notices(&db, &feed, &wake) => outcome,
        };
        if let Err(error) = outcome {
            tracing::warn!(event = "notices_interrupted", %error, "the database's notices are interrupted");
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

async fn forward_notices(db: &Database, feed: &Feed, wake: &Notify) -> Result<(), store::StoreError> {
    let mut notices = db.listen().await?;
    // Whatever happened before this line was not heard.
    feed.wake(None);
    wake.notify_one();
    loop {
        match notices.next().await? {
            Notice::Event(tenant) => feed.wake(Some(tenant)),
            Notice::Reconnected => feed.wake(None),
            Notice::Gallery(..) => continue,
        }
        wake.notify_one();
    }
}

async fn renew_certificate(tls: TlsConfig, pki: Arc<Pki>, names: Vec<String>, clock: Clock, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_CHECK) => {}
        }
        match server_tls(&pki, &names, &clock) {
            Ok(config) => tls.store(config),
            Err(error) => tracing::error!(event = "certificate_not_renewed", error = %format!("{error:#}"), "the server's certificate cannot be renewed"),
        }
    }
}

fn server_tls(pki: &Pki, names: &[String], clock: &Clock) -> Result<Arc<ServerConfig>> {
    tls::server_config(&pki.server("https", names, clock.now())?, pki)
}

/// What clients and devices are told; with port 0 the port that was given.
fn public_url(config: &Config, listen: SocketAddr) -> Result<Url> {
    if config.server.public_url.is_empty() {
        return Ok(Url::parse(&format!("https://{listen}"))?);
    }
    Ok(config.public_url()?)
}

/// Names and addresses in the certificates: what devices and clients may call the hub.
fn server_names(config: &Config, public_url: &Url, listen: SocketAddr) -> Vec<String> {
    let mut names = Vec::new();
    let unspecified = |ip: IpAddr| ip.is_unspecified();
    let addresses = [listen.ip(), config.embedded.mqtt_listen.ip()].into_iter().filter(|ip| !unspecified(*ip));
    let public = public_url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned());
    let broker = config.broker.device_address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
    for name in public.into_iter().chain(broker).chain(addresses.map(|ip| ip.to_string())).chain(config.server.names.clone()) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn photo_limits(config: &Config) -> PhotoLimits {
    PhotoLimits { max_bytes: config.enrolment.max_photo_bytes, ..PhotoLimits::default() }
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

fn ready_line(
    public_url: &Url,
    broker: &BrokerPart,
    database: &DatabasePart,
    root_certificate: PathBuf,
    control_socket: &std::path::Path,
) -> serde_json::Value {
    let host = &broker.device_host;
    let mqtt = if host.contains(':') { format!("[{host}]:{}", broker.device_port) } else { format!("{host}:{}", broker.device_port) };
    json!({
        "ready": true,
        "https": public_url.as_str().trim_end_matches('/'),
        "mqtt": mqtt,
        "postgres": database.shown_url(),
        "root_certificate": root_certificate,
        "control_socket": control_socket,
    })
}
