//! The embedded Postgres and Mosquitto, the real ones: first start, second start, wrong neighbours.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use cloud_hub::embedded::mosquitto::{BrokerCertificates, EmbeddedMosquitto, MosquittoOptions};
use cloud_hub::embedded::parts;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};
use sqlx::{Connection, Executor, PgConnection};

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

    let again = Instant::now();
    let second = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap();
    assert!(again.elapsed() < Duration::from_secs(3), "second start took {:?}", again.elapsed());
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

fn certificates() -> BrokerCertificates {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()).unwrap()
    };
    let service = authority("service");
    let device = authority("device");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let params = CertificateParams::new(vec![String::from("127.0.0.1")]).unwrap();
    let leaf = params.signed_by(&key, &service).unwrap();
    BrokerCertificates {
        server_chain_pem: format!("{}{}", leaf.pem(), service.pem()),
        server_key_pem: key.serialize_pem(),
        client_ca_pem: device.pem(),
        client_crl_pem: None,
    }
}

fn broker_options(dir: &std::path::Path, listen: SocketAddr) -> MosquittoOptions {
    MosquittoOptions::for_data_dir(dir, listen, certificates(), String::new()).unwrap()
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
