//! Other authorities take the places of those that issue certificates, from the command line of a running hub: devices go on meanwhile, at the
//! listener and at the broker, and what was revoked stays refused.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_hub::clock::Clock;
use cloud_hub::domain::ids::DeviceId;
use cloud_hub::pki::{DeviceRequest, Pki};
use reqwest::{Method, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wire_contract::ClaimAnswer;

use super::devices::{Device, code, made};
use super::process::{Hub, Tenant, command, data_dir, output, serve, skipped};
use super::renewals::{ends_at_the_broker, renew};

/// A device with its certificate.
struct Claimed {
    id: String,
    device: Device,
    chain: String,
}

async fn claimed(hub: &Hub, tenant: &Tenant, name: &str) -> Claimed {
    let (id, token) = made(hub, tenant, name).await;
    Claimed::by_token(hub, id, &token).await
}

fn chain_of((status, answer): (StatusCode, Value)) -> String {
    assert_eq!(status, StatusCode::OK, "{answer}");
    serde_json::from_value::<ClaimAnswer>(answer).unwrap().certificate_chain
}

impl Claimed {
    async fn by_token(hub: &Hub, id: String, token: &str) -> Self {
        let device = Device::new();
        let chain = chain_of(device.claim(hub, token).await);
        Self { id, device, chain }
    }

    /// Other hardware in its place.
    async fn again(&self, hub: &Hub, tenant: &Tenant) -> Self {
        let path = format!("/v1/devices/{}/claim-tokens", self.id);
        let token = hub.made(tenant, &path, json!({})).await["token"].as_str().unwrap().to_owned();
        Self::by_token(hub, self.id.clone(), &token).await
    }

    async fn renewed(&self, hub: &Hub) -> Self {
        let device = Device::new();
        let chain = chain_of(renew(hub, &self.device, &self.chain, &device).await);
        Self { id: self.id.clone(), device, chain }
    }

    /// Listener and broker both take it.
    async fn goes_on(&self, hub: &Hub) -> bool {
        let (status, _) = self.device.link(hub, &self.chain).await;
        status == StatusCode::OK && self.device.is_let_in(hub, &self.chain, &self.id).await
    }

    /// The registry knows it as revoked, and the broker lets it in no more.
    async fn is_revoked(&self, hub: &Hub) -> bool {
        code(&self.device.link(hub, &self.chain).await) == (403, "device_revoked")
            && !self.device.is_let_in(hub, &self.chain, &self.id).await
    }

    /// Neither believes who issued it.
    async fn ends(&self, hub: &Hub) {
        let asked = self.device.client(hub, &self.chain).get(format!("{}/v1/device/link", hub.https()));
        assert!(asked.send().await.is_err(), "the handshake itself refuses it");
        ends_at_the_broker(hub, &self.device, &self.chain, &self.id).await;
    }
}

/// What a server shows to whoever believes the root alone.
async fn shown(hub: &Hub, address: &str) -> Vec<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&hub.root()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (stream, name) = (TcpStream::connect(address).await.unwrap(), ServerName::try_from("127.0.0.1").unwrap());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap().to_vec()
}

/// Whether both servers show certificates of this authority.
async fn shows(hub: &Hub, authority: &CertificateDer<'_>) -> bool {
    let broker = hub.ready["mqtt"].as_str().unwrap();
    shown(hub, hub.address()).await[1] == *authority && shown(hub, broker).await[1] == *authority
}

fn authority(dir: &Path, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(dir.join("pki").join(name)).unwrap()
}

/// Whether a certificate is of this authority.
fn is_of(chain: &str, authority: &CertificateDer<'_>) -> bool {
    CertificateDer::pem_slice_iter(chain.as_bytes()).nth(1).unwrap().unwrap() == *authority
}

/// What the status says of the authorities: key, state and how many are left.
fn told(status: &Value) -> Vec<(&str, &str, Option<u64>)> {
    let keys = status["keys"].as_array().unwrap().iter();
    let of = keys.filter(|key| {
        let name = key["key"].as_str().unwrap();
        // From its beginning: there may be a `-ca` within the id of a signing key.
        name.starts_with("device-ca") || name.starts_with("service-ca")
    });
    of.map(|key| (key["key"].as_str().unwrap(), key["state"].as_str().unwrap(), key["left"].as_u64())).collect()
}

fn copy(from: &Path, to: &Path, which: &str) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.file_name().to_str().unwrap().contains(which) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A certificate that the registry has never heard of.
fn unknown(pki: &Pki, of: &Claimed) -> Claimed {
    let (device, id) = (Device::new(), DeviceId(of.id.parse().unwrap()));
    let request = DeviceRequest::parse(&device.csr()).unwrap();
    let chain = pki.issue_device(request, id, Clock::system().now()).unwrap().chain_pem;
    Claimed { id: of.id.clone(), device, chain }
}

#[tokio::test]
async fn devices_go_on_while_other_authorities_take_their_places_and_the_one_before_ends() {
    if skipped("devices_go_on_while_other_authorities_take_their_places_and_the_one_before_ends") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (early, steady) = (claimed(&hub, &tenant, "entrance").await, claimed(&hub, &tenant, "back door").await);
    let replaced = claimed(&hub, &tenant, "gate").await;
    let gate = replaced.again(&hub, &tenant).await;
    let (devices, services) = (authority(dir.path(), "device-ca.pem"), authority(dir.path(), "service-ca.pem"));
    assert!(replaced.is_revoked(&hub).await && shows(&hub, &services).await);
    // Somebody has got at a copy of the key.
    let stolen = tempfile::tempdir().unwrap();
    copy(&dir.path().join("pki"), stolen.path(), "");
    let forged = unknown(&Pki::load_or_make(stolen.path(), Clock::system().now()).unwrap(), &steady);
    let connected = early.device.client(&hub, &early.chain);
    let mut session = gate.device.session(&hub, &gate.chain, &gate.id).await.unwrap();
    let mut early_order = command(dir.path());
    early_order.args(["keys", "retire-authorities", "--dry-run"]);
    assert!(!output(early_order).status.success(), "none is before");

    let mut order = command(dir.path());
    order.args(["keys", "rotate", "authorities"]).stdout(Stdio::null());
    let mut order = order.spawn().unwrap();
    while order.try_wait().unwrap().is_none() {
        assert!(steady.goes_on(&hub).await, "refused in between");
        let link = connected.get(format!("{}/v1/device/link", hub.https())).send().await.unwrap();
        assert_eq!(link.status(), StatusCode::OK);
    }
    assert!(order.wait().unwrap().success());
    let status = hub.cli(&["keys", "status"]);
    let standing = [
        ("device-ca.key", "in use", None),
        ("device-ca-previous.key", "believed", Some(3)),
        ("service-ca.key", "in use", None),
    ];
    assert_eq!(told(&status), standing);
    assert!(steady.goes_on(&hub).await && early.goes_on(&hub).await);
    assert!(replaced.is_revoked(&hub).await, "each authority has a list");
    // Whoever was connected still is.
    session.write_all(&[0xc0, 0]).await.unwrap();
    let mut answer = [0; 2];
    session.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0xd0, 0]);

    let (next_devices, next_services) =
        (authority(dir.path(), "device-ca.pem"), authority(dir.path(), "service-ca.pem"));
    assert!(next_devices != devices && next_services != services);
    let begun = Instant::now();
    while !shows(&hub, &next_services).await {
        assert!(begun.elapsed() < Duration::from_secs(5), "the broker still shows the certificate before");
    }
    let renewed = early.renewed(&hub).await;
    assert!(is_of(&early.chain, &devices) && is_of(&renewed.chain, &next_devices));
    assert!(renewed.goes_on(&hub).await);
    ends_at_the_broker(&hub, &early.device, &early.chain, &early.id).await;
    let new = claimed(&hub, &tenant, "garage").await;
    assert!(is_of(&new.chain, &next_devices) && new.goes_on(&hub).await);
    assert_eq!(told(&hub.cli(&["keys", "status"]))[1].2, Some(2), "the gate, and the back door");

    let ends = hub.cli(&["keys", "retire-authorities", "--dry-run"]);
    assert_eq!(ends, json!({ "devices": 2, "retired": false }));
    let mut wrong = command(dir.path());
    wrong.args(["keys", "retire-authorities", "--confirm", "1"]);
    let refused = output(wrong);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--confirm 2"),
        "{refused:?}"
    );
    assert!(steady.goes_on(&hub).await && forged.device.is_let_in(&hub, &forged.chain, &forged.id).await);
    let ends = hub.cli(&["keys", "retire-authorities", "--confirm", "2"]);
    assert_eq!(ends, json!({ "devices": 2, "retired": true }));
    for ended in [&steady, &gate, &replaced, &forged] {
        ended.ends(&hub).await;
    }
    assert!(renewed.goes_on(&hub).await && new.goes_on(&hub).await);
    let told = tokio::time::timeout(Duration::from_secs(5), session.read(&mut answer)).await;
    assert!(matches!(told, Ok(Ok(0) | Err(_))), "it is connected still: {told:?}");
    let names: Vec<String> = std::fs::read_dir(dir.path().join("pki"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.contains("previous") || name.contains("next"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    let back = steady.again(&hub, &tenant).await;
    assert!(is_of(&back.chain, &next_devices) && back.goes_on(&hub).await);

    let audited: Vec<(Value,)> =
        sqlx::query_as("SELECT detail FROM audit_entry WHERE action = 'hub.authorities' ORDER BY at, id")
            .fetch_all(&mut hub.superuser().await)
            .await
            .unwrap();
    assert_eq!(audited.len(), 2);
    assert_eq!(audited[0].0["authority"], audited[1].0["authority"]);
    assert_eq!((&audited[0].0["before"], &audited[1].0["devices"]), (&audited[1].0["retired"], &json!(2)));

    // The broker is started with what holds now.
    assert!(hub.stop().success());
    let hub = Hub::start(dir.path());
    assert!(renewed.goes_on(&hub).await && back.goes_on(&hub).await);
    steady.ends(&hub).await;
}

#[tokio::test]
async fn a_hub_that_is_killed_while_authorities_change_goes_on_and_ends_the_change_when_it_is_ordered_again() {
    if skipped("a_hub_that_is_killed_while_authorities_change_goes_on_and_ends_the_change_when_it_is_ordered_again") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let early = claimed(&hub, &tenant, "entrance").await;
    let revoked = claimed(&hub, &tenant, "gate").await;
    let gone = hub.call(&tenant, Method::DELETE, &format!("/v1/devices/{}", revoked.id), None).await;
    assert_eq!(gone.0, StatusCode::NO_CONTENT);
    let devices = authority(dir.path(), "device-ca.pem");
    let mut order = command(dir.path());
    order.args(["keys", "rotate", "authorities"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut order = order.spawn().unwrap();
    while !dir.path().join("pki/service-ca-next.pem").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(hub);
    assert!(!order.wait().unwrap().success());

    let hub = Hub::start(dir.path());
    assert_eq!(authority(dir.path(), "device-ca.pem"), devices);
    assert!(early.goes_on(&hub).await && revoked.is_revoked(&hub).await);
    let status = hub.cli(&["keys", "rotate", "authorities"]);
    assert_eq!(told(&status)[1], ("device-ca-previous.key", "believed", Some(1)));
    drop(hub);

    let hub = Hub::start(dir.path());
    assert_ne!(authority(dir.path(), "device-ca.pem"), devices);
    assert!(early.goes_on(&hub).await && revoked.is_revoked(&hub).await);
    let renewed = early.renewed(&hub).await;
    assert!(renewed.goes_on(&hub).await);
    assert_eq!(hub.cli(&["keys", "retire-authorities", "--confirm", "0"])["retired"], json!(true));
    revoked.ends(&hub).await;
    assert!(renewed.goes_on(&hub).await);
}

#[tokio::test]
async fn hubs_that_share_authorities_believe_the_next_one_before_it_issues() {
    if skipped("hubs_that_share_authorities_believe_the_next_one_before_it_issues") {
        return;
    }
    let dir = data_dir();
    let persons = dir.path().join("shared-persons");
    std::fs::create_dir(&persons).unwrap();
    std::fs::write(persons.join("person-keys.v1"), "").unwrap();
    let mut start = serve(dir.path());
    start.env("LINTEL__DATA__PERSON_KEYS_DIR", &persons);
    let hub = Hub::from_command(start, dir.path());
    let tenant = hub.tenant("Acme");
    let early = claimed(&hub, &tenant, "entrance").await;
    // Another hub with copies of this one's authorities makes the next ones.
    let (pki, other_dir) = (dir.path().join("pki"), tempfile::tempdir().unwrap());
    copy(&pki, other_dir.path(), "");
    let now = Clock::system().now();
    let other = Pki::load_or_make(other_dir.path(), now).unwrap();
    let mut none = command(dir.path());
    none.args(["keys", "rotate", "authorities", "--copied"]);
    assert!(String::from_utf8_lossy(&output(none).stderr).contains("no next authorities"));
    other.prepare_next(now).unwrap();
    copy(other_dir.path(), &pki, "-next");
    other.switch().unwrap();
    let of_other = unknown(&other, &early);
    let begun = Instant::now();
    while !of_other.device.is_let_in(&hub, &of_other.chain, &of_other.id).await {
        assert!(begun.elapsed() < Duration::from_secs(10), "its devices are not believed here");
    }
    assert_eq!(
        of_other.device.link(&hub, &of_other.chain).await.0,
        StatusCode::FORBIDDEN,
        "nor is the handshake refused"
    );
    assert_eq!(told(&hub.cli(&["keys", "rotate", "authorities"])).len(), 4, "the first half changes nothing");
    let before = authority(dir.path(), "device-ca.pem");
    assert!(is_of(&early.renewed(&hub).await.chain, &before));
    hub.cli(&["keys", "rotate", "authorities", "--copied"]);
    assert_eq!(authority(dir.path(), "device-ca.pem").as_ref(), other.device_authorities_der()[0]);
    let renewed = early.renewed(&hub).await;
    assert!(!is_of(&renewed.chain, &before) && renewed.goes_on(&hub).await);
}
