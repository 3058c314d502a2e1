//! The listener: TLS 1.3 only, devices' certificates only, bounded patience, health.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use reqwest::StatusCode;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::process::{Hub, data_dir, read, serve, skipped};

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

async fn connect(
    hub: &Hub,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<Identity>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(hub, versions, identity, &[]).await
}

async fn connect_as(
    hub: &Hub,
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<Identity>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&hub.root()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(hub.address()).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
}

/// Asks for `/health/live` and returns what comes back; with TLS 1.3 a refused certificate shows here.
async fn probe(mut stream: TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A client certificate of an authority that is not the hub's, with a device's name.
fn foreign_identity() -> Identity {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Lintel device authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(Vec::new()).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, uuid::Uuid::nil().to_string());
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = leaf.signed_by(&key, &authority).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

#[tokio::test]
async fn tls_1_2_and_foreign_certificates_are_refused() {
    if skipped("tls_1_2_and_foreign_certificates_are_refused") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    assert!(connect(&hub, &[&rustls::version::TLS12], None).await.is_err(), "TLS 1.2 is refused");
    let fine = probe(connect(&hub, &[&rustls::version::TLS13], None).await.unwrap()).await.unwrap();
    assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
    let foreign = match connect(&hub, &[&rustls::version::TLS13], Some(foreign_identity())).await {
        Ok(stream) => probe(stream).await,
        Err(error) => Err(error),
    };
    assert!(foreign.is_err(), "a foreign certificate is refused: {foreign:?}");
}

#[tokio::test]
async fn whoever_is_refused_while_sending_much_is_told_so() {
    if skipped("whoever_is_refused_while_sending_much_is_told_so") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let mut stream = connect(&hub, &[&rustls::version::TLS13], None).await.unwrap();
    // More than the buffers between both hold.
    let body = vec![b'x'; 20 << 20];
    let head = format!(
        "POST /v1/recognition/detect HTTP/1.1\r\nhost: hub\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // As most clients do: everything is sent before the answer is looked at.
    stream.write_all(&body).await.expect("what is sent is taken");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("the refusal comes through");
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn slow_and_many_connections_are_bounded() {
    if skipped("slow_and_many_connections_are_bounded") {
        return;
    }
    let dir = data_dir();
    let mut command = serve(dir.path());
    command
        .env("LINTEL__SERVER__HANDSHAKE_TIMEOUT", "500ms")
        .env("LINTEL__SERVER__HEADER_TIMEOUT", "700ms")
        .env("LINTEL__SERVER__MAX_CONNECTIONS_PER_ADDRESS", "4");
    let hub = Hub::from_command(command, dir.path());
    let closed_after = |mut stream: TlsStream<TcpStream>| async move {
        let begun = Instant::now();
        let mut byte = [0];
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte)).await;
        assert!(ended.is_ok(), "the connection is still open after 5 s");
        begun.elapsed()
    };
    // A handshake that is never begun.
    let mut silent = TcpStream::connect(hub.address()).await.unwrap();
    let mut byte = [0];
    let begun = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(5), silent.read(&mut byte)).await;
    assert!(ended.is_ok() && begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // A connection that says nothing, and one that never ends its head.
    let quiet = connect(&hub, &[&rustls::version::TLS13], None).await.unwrap();
    assert!(closed_after(quiet).await < Duration::from_secs(3));
    let mut slow = connect(&hub, &[&rustls::version::TLS13], None).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
    assert!(closed_after(slow).await < Duration::from_secs(3));
    // HTTP/2: a preface that never ends, and one after which nothing is asked.
    for said in [&b"PRI * HTTP/2"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut half = connect_as(&hub, &[&rustls::version::TLS13], None, &[b"h2"]).await.unwrap();
        assert_eq!(half.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        half.write_all(said).await.unwrap();
        let to_the_end = async { while half.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {} };
        assert!(tokio::time::timeout(Duration::from_secs(5), to_the_end).await.is_ok(), "still open: {said:?}");
    }
    // The fifth connection from one address is closed at once; when one goes, there is room again.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(TcpStream::connect(hub.address()).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut fifth = TcpStream::connect(hub.address()).await.unwrap();
    let begun = Instant::now();
    assert!(matches!(fifth.read(&mut byte).await, Ok(0) | Err(_)));
    assert!(begun.elapsed() < Duration::from_millis(300), "closed at once: {:?}", begun.elapsed());
    drop(open);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let fine = probe(connect(&hub, &[&rustls::version::TLS13], None).await.unwrap()).await.unwrap();
    assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
}

#[tokio::test]
async fn health_is_told_with_and_without_a_slash() {
    if skipped("health_is_told_with_and_without_a_slash") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    for path in [
        "/health",
        "/health/",
        "/health/ready",
        "/health/ready/",
        "/health/live/",
        "/health/detailed/",
        "/livez",
        "/readyz",
    ] {
        let answer = hub.client().get(format!("{}{path}", hub.https())).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/health+json", "{path}");
        assert!(answer.headers().contains_key("x-request-id"));
        assert_eq!(read(answer).await.0, StatusCode::OK, "{path}");
    }
    let answer = hub.client().get(format!("{}/health/detailed", hub.https())).send().await.unwrap();
    let (_, health) = read(answer).await;
    let names: Vec<&str> =
        health["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["database", "models", "broker", "key_store", "vector_table", "audit"]);
    // A request id of the client's own is kept, a strange one replaced.
    let ask = |id: &'static str| hub.client().get(format!("{}/health", hub.https())).header("x-request-id", id).send();
    assert_eq!(ask("abc-1").await.unwrap().headers()["x-request-id"], "abc-1");
    assert_ne!(ask("a b").await.unwrap().headers()["x-request-id"], "a b");
}

#[tokio::test]
async fn a_dead_database_is_told_and_comes_back() {
    if skipped("a_dead_database_is_told_and_comes_back") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let pid_file = dir.path().join("postgres/data/postmaster.pid");
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().lines().next().unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let killed = Instant::now();
    loop {
        let (status, _) = hub.call(&tenant, reqwest::Method::GET, "/v1/sites", None).await;
        if status == StatusCode::OK && killed.elapsed() > Duration::from_millis(500) {
            break;
        }
        assert!(status == StatusCode::OK || status.is_server_error(), "{status}");
        assert!(killed.elapsed() < Duration::from_secs(10), "not back after 10 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_time_is_told_signed_to_whoever_asks_and_not_without_end() {
    if skipped("the_time_is_told_signed_to_whoever_asks_and_not_without_end") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (_, token) = super::devices::made(&hub, &tenant, "entrance").await;
    let (_, claimed) = super::devices::Device::new().claim(&hub, &token).await;
    let pinned: wire_contract::ClaimAnswer = serde_json::from_value(claimed).unwrap();
    let client = hub.client();
    let ask = async |body: serde_json::Value| {
        read(client.post(format!("{}/v1/time", hub.https())).json(&body).send().await.unwrap()).await
    };
    let nonce = wire_contract::Nonce([9; 32]);
    let (status, answer) = ask(serde_json::json!({ "v": 1, "nonce": nonce })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let answer: wire_contract::HubTime = serde_json::from_value(answer).unwrap();
    let told = answer.verify(&pinned.hub_keys, &nonce).unwrap().to_offset_date_time();
    let now = cloud_hub::clock::Clock::system().now();
    assert!((now - told).unsigned_abs() < Duration::from_secs(30), "{told} is not now");

    for bad in [serde_json::json!({ "v": 1 }), serde_json::json!({ "v": 1, "nonce": "00" })] {
        assert_eq!(ask(bad).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let mut refused = None;
    for _ in 0..2_000 {
        let asked = client.post(format!("{}/v1/time", hub.https()));
        let answer = asked.json(&serde_json::json!({ "v": 1, "nonce": nonce })).send().await.unwrap();
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("one address asks as often as it likes");
    assert!(refused.headers().contains_key("retry-after"));
    let (status, problem) = read(refused).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (429, Some("rate_limited")));
}
