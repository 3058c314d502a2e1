//! The embedded Postgres and Mosquitto, the real ones: first start, second start, wrong neighbours.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock to wait for others"
)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_hub::embedded::mosquitto::{BrokerCertificates, EmbeddedMosquitto, MosquittoOptions};
use cloud_hub::embedded::parts;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use sqlx::{Connection, Executor, PgConnection};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A data directory that the service user can reach, wherever the temporary directory lies.
fn data_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("hub-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

/// True, with a line on stderr, when Postgres or Mosquitto is not installed here.
#[allow(clippy::print_stderr, reason = "the list of skipped tests is read from stderr")]
fn skipped(test: &str) -> bool {
    let missing = parts::postgres_bin(None).map(drop).and_then(|()| parts::mosquitto(None).map(drop)).err();
    if let Some(why) = &missing {
        eprintln!("SKIPPED {test}: {why}");
    }
    missing.is_some()
}

#[tokio::test]
async fn postgres_starts_twice_and_keeps_its_rows() {
    if skipped("postgres_starts_twice_and_keeps_its_rows") {
        return;
    }
    let dir = data_dir();
    let first = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap();
    let mut owner = PgConnection::connect_with(&first.owner()).await.unwrap();
    owner.execute("CREATE TABLE kept (v vector(3)); INSERT INTO kept VALUES ('[1,2,3]')").await.unwrap();
    owner.execute("GRANT SELECT ON kept TO lintel_app").await.unwrap();
    drop(owner);
    let pid = first.pid();
    first.stop().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the server has ended");

    let second = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap();
    let mut app = PgConnection::connect_with(&second.app()).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut app).await.unwrap();
    assert_eq!(rows, 1);
    let bypass: bool = sqlx::query_scalar("SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = current_user")
        .fetch_one(&mut app)
        .await
        .unwrap();
    assert!(!bypass, "the serving role must be bound by row-level security");
    let listens: String = sqlx::query_scalar("SHOW listen_addresses").fetch_one(&mut app).await.unwrap();
    assert_eq!(listens, "", "no network");
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut app).await.unwrap();
        assert_eq!(value, "on", "{setting}");
    }
    second.stop().await;
}

#[tokio::test]
async fn a_killed_postgres_comes_back_by_itself() {
    if skipped("a_killed_postgres_comes_back_by_itself") {
        return;
    }
    let dir = data_dir();
    let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap();
    let pid = i32::try_from(postgres.pid()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let back = Instant::now();
    loop {
        assert!(back.elapsed() < Duration::from_secs(5), "not back within five seconds");
        if postgres.pid() != u32::try_from(pid).unwrap() && PgConnection::connect_with(&postgres.app()).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    postgres.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    if skipped("a_wrong_password_is_refused") {
        return;
    }
    let dir = data_dir();
    let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap();
    assert!(PgConnection::connect_with(&postgres.app().password("guess")).await.is_err());
    postgres.stop().await;
}

#[tokio::test]
async fn a_start_on_a_full_disk_is_refused_before_anything_is_written() {
    if skipped("a_start_on_a_full_disk_is_refused_before_anything_is_written") {
        return;
    }
    let dir = data_dir();
    let mut options = PostgresOptions::for_data_dir(dir.path()).unwrap();
    options.min_free_bytes = u64::MAX;
    let message = EmbeddedPostgres::start(options).await.unwrap_err().to_string();
    assert!(message.contains("MiB free") && message.contains("--data-dir"), "{message}");
    assert!(!dir.path().join("postgres/data").exists());
}

/// The device's name, in its certificate and in the access lines.
const DEVICE: &str = "d0000000-0000-4000-8000-000000000001";

/// The authorities of a broker and of the devices that it believes.
struct Authorities {
    service: CertifiedIssuer<'static, KeyPair>,
    device: CertifiedIssuer<'static, KeyPair>,
}

impl Authorities {
    fn new() -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()).unwrap()
        };
        Self { service: authority("service"), device: authority("device") }
    }

    fn server(&self) -> BrokerCertificates {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec![String::from("127.0.0.1")]).unwrap();
        let leaf = params.signed_by(&key, &self.service).unwrap();
        BrokerCertificates {
            server_chain_pem: format!("{}{}", leaf.pem(), self.service.pem()),
            server_key_pem: key.serialize_pem(),
            client_ca_pem: self.device.pem(),
            client_crl_pem: None,
        }
    }

    /// Shows a device's certificate.
    fn as_device(&self) -> ClientConfig {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, DEVICE);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.device).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.service.der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap()
    }

    /// Connects as a device and waits for what the broker has to say unasked.
    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = TlsConnector::from(Arc::new(self.as_device())).connect(name, stream).await.unwrap();
        let mut nothing = [0];
        let _ = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut nothing)).await;
        stream
    }
}

fn certificates() -> BrokerCertificates {
    Authorities::new().server()
}

#[tokio::test]
async fn the_broker_takes_a_new_certificate_while_it_runs_and_gives_no_session_tickets() {
    if skipped("the_broker_takes_a_new_certificate_while_it_runs_and_gives_no_session_tickets") {
        return;
    }
    let (dir, authorities) = (data_dir(), Authorities::new());
    let options =
        MosquittoOptions::for_data_dir(dir.path(), "127.0.0.1:0".parse().unwrap(), authorities.server(), String::new());
    let broker = EmbeddedMosquitto::start(options.unwrap()).await.unwrap();
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let first = authorities.connect(broker.device_address()).await;
    // A resumed session would skip the revocation of a device.
    assert_eq!(first.get_ref().1.tls13_tickets_received(), 0);
    let renewed = authorities.server();
    broker.access().replace_certificate(&renewed.server_chain_pem, &renewed.server_key_pem).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while shown(&authorities.connect(broker.device_address()).await) == shown(&first) {
        assert!(Instant::now() < until, "the old certificate is still shown");
    }
    broker.stop().await;
}

/// Publishes as the device until the broker says `wanted` of its right to do so. Returns how long that took.
async fn until_told(client: &AsyncClient, events: &mut EventLoop, wanted: PubAckReason) -> Duration {
    let begun = Instant::now();
    loop {
        client.publish("devices/say", QoS::AtLeastOnce, false, "?").await.unwrap();
        let told = loop {
            if let Event::Incoming(Packet::PubAck(ack)) = events.poll().await.unwrap() {
                break ack.reason;
            }
        };
        if told == wanted {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the broker still answers {told:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Mosquitto forgets a SIGHUP that comes while it reads its files. The second change of each pair comes at another moment of
/// the first one's reading; a hub that tells once leaves the device without its right for good.
#[tokio::test]
async fn a_change_of_the_access_lines_while_the_broker_reads_them_is_not_missed() {
    if skipped("a_change_of_the_access_lines_while_the_broker_reads_them_is_not_missed") {
        return;
    }
    let others: String = (0..5000).map(|other| format!("user other-{other}\ntopic write devices/say\n")).collect();
    let allowed = format!("{others}user {DEVICE}\ntopic write devices/say\n");
    let (dir, authorities) = (data_dir(), Authorities::new());
    let options = MosquittoOptions::for_data_dir(
        dir.path(),
        "127.0.0.1:0".parse().unwrap(),
        authorities.server(),
        others.clone(),
    );
    let broker = EmbeddedMosquitto::start(options.unwrap()).await.unwrap();
    let (access, address) = (broker.access(), broker.device_address());
    let mut options = MqttOptions::new(DEVICE, address.ip().to_string(), address.port());
    let tls = TlsConfiguration::Rustls(Arc::new(authorities.as_device()));
    options.set_transport(Transport::tls_with_config(tls)).set_clean_start(true);
    let (client, mut events) = AsyncClient::new(options, 8);
    // Reading so many lines takes a tenth of a second here, and the end of that is where a signal is forgotten.
    for round in 0..16 {
        until_told(&client, &mut events, PubAckReason::NotAuthorized).await;
        access.replace(&others).unwrap();
        tokio::time::sleep(Duration::from_millis(40 + 5 * round)).await;
        access.replace(&allowed).unwrap();
        until_told(&client, &mut events, PubAckReason::NoMatchingSubscribers).await;
        access.replace(&others).unwrap();
    }
    broker.stop().await;
}

fn broker_options(dir: &std::path::Path, listen: SocketAddr) -> MosquittoOptions {
    MosquittoOptions::for_data_dir(dir, listen, certificates(), String::new()).unwrap()
}

/// The TCP ports on which a process listens, from proc(5).
fn listening(pid: u32) -> BTreeSet<u16> {
    let sockets: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| Some(std::fs::read_link(fd.ok()?.path()).ok()?.to_str()?.to_owned()))
        .collect();
    ["tcp", "tcp6"]
        .iter()
        .flat_map(|table| {
            std::fs::read_to_string(format!("/proc/{pid}/net/{table}"))
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, *fields.get(3)?, fields.get(9)?);
            let mine = state == "0A" && sockets.contains(&format!("socket:[{inode}]"));
            mine.then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
        })
        .collect()
}

#[tokio::test]
async fn mosquitto_starts_with_both_listeners_and_stops() {
    if skipped("mosquitto_starts_with_both_listeners_and_stops") {
        return;
    }
    let dir = data_dir();
    let broker = EmbeddedMosquitto::start(broker_options(dir.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
    assert!(std::net::TcpStream::connect(broker.device_address()).is_ok());
    assert!(std::net::TcpStream::connect(broker.hub().address).is_ok());
    assert_eq!(
        listening(broker.pid()),
        BTreeSet::from([broker.device_address().port(), broker.hub().address.port()]),
        "no third listener: Mosquitto opens port 1883 to everybody when a listener's setting stands above the listeners"
    );
    broker.access().replace("user a\ntopic read x\n").unwrap();
    let pid = broker.pid();
    broker.stop().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_busy_mqtt_port_names_the_port_and_its_owner() {
    if skipped("a_busy_mqtt_port_names_the_port_and_its_owner") {
        return;
    }
    let dir = data_dir();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let message = EmbeddedMosquitto::start(broker_options(dir.path(), address)).await.unwrap_err().to_string();
    assert!(message.contains(&address.to_string()) && message.contains("--mqtt-listen"), "{message}");
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
}
