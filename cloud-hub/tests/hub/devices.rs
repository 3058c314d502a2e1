//! How devices get their identity, and what it is worth afterwards.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use reqwest::{Method, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire_contract::{ClaimAnswer, ClaimToken, LinkAnswer};

use super::process::{Hub, Tenant, data_dir, read, skipped};

/// A device: the key that it made for itself.
pub(crate) struct Device {
    key: KeyPair,
}

/// Makes a device at the hub and returns its id and the token's text.
pub(crate) async fn made(hub: &Hub, tenant: &Tenant, name: &str) -> (String, String) {
    let sites = hub.get(tenant, "/v1/sites").await;
    let site = match sites["data"][0]["id"].as_str() {
        Some(site) => site.to_owned(),
        None => hub.site(tenant).await,
    };
    let body = json!({ "name": name, "site_id": site, "doors": [{ "local_id": "main", "name": "Main" }] });
    let device = hub.made(tenant, "/v1/devices", body).await;
    let text = |pointer: &str| device.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    (text("/id"), text("/claim/token"))
}

impl Device {
    pub(crate) fn new() -> Self {
        Self { key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    pub(crate) fn csr(&self) -> String {
        let mut params = CertificateParams::default();
        // The hub ignores what a request says of itself.
        params.distinguished_name.push(DnType::CommonName, "somebody else");
        params.serialize_request(&self.key).unwrap().pem().unwrap()
    }

    fn request(&self, token: &str) -> Value {
        let token: ClaimToken = token.parse().unwrap();
        let token = serde_json::to_value(&token).unwrap();
        json!({ "v": 1, "claim_id": token["claim_id"], "secret": token["secret"], "serial": "SN-1", "csr": self.csr() })
    }

    pub(crate) async fn claim(&self, hub: &Hub, token: &str) -> (StatusCode, Value) {
        let request = hub.client().post(format!("{}/v1/claims", hub.https())).json(&self.request(token));
        read(request.send().await.unwrap()).await
    }

    /// A client that shows this certificate.
    pub(crate) fn client(&self, hub: &Hub, chain: &str) -> reqwest::Client {
        let pem = format!("{}{chain}", self.key.serialize_pem());
        hub.client_builder().identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()).build().unwrap()
    }

    /// Whether the broker lets this certificate in: it answers a CONNECT, or ends the connection.
    pub(crate) async fn is_let_in(&self, hub: &Hub, chain: &str, id: &str) -> bool {
        self.session(hub, chain, id).await.is_some()
    }

    /// A session at the broker under this certificate, if it lets it in.
    pub(crate) async fn session(&self, hub: &Hub, chain: &str, id: &str) -> Option<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&hub.root()).unwrap()).unwrap();
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::try_from(self.key.serialize_der()).unwrap())
            .unwrap();
        let stream = TcpStream::connect(hub.ready["mqtt"].as_str().unwrap()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        // MQTT 3.1.1, clean session, keep-alive 60 s, the device's id as client id.
        let mut connect = vec![0x10, 12 + u8::try_from(id.len()).unwrap(), 0, 4];
        connect.extend_from_slice(b"MQTT\x04\x02\0\x3c\0");
        connect.push(u8::try_from(id.len()).unwrap());
        connect.extend_from_slice(id.as_bytes());
        let mut answer = [0; 4];
        stream.write_all(&connect).await.ok()?;
        stream.read_exact(&mut answer).await.ok()?;
        (answer == [0x20, 2, 0, 0]).then_some(stream)
    }

    pub(crate) async fn link(&self, hub: &Hub, chain: &str) -> (StatusCode, Value) {
        let request = self.client(hub, chain).get(format!("{}/v1/device/link", hub.https()));
        read(request.send().await.unwrap()).await
    }
}

pub(crate) fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_token_is_good_for_one_key_and_one_quarter_of_an_hour() {
    if skipped("a_token_is_good_for_one_key_and_one_quarter_of_an_hour") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (id, token) = made(&hub, &tenant, "entrance").await;
    let (first, second) = (Device::new(), Device::new());

    let mut guessed = first.request(&token);
    guessed["secret"] = json!(wire_contract::SecretBytes::new([7; 32]));
    let guess = hub.client().post(format!("{}/v1/claims", hub.https())).json(&guessed).send().await.unwrap();
    assert_eq!(code(&read(guess).await), (404, "claim_unknown"));
    let mut misspelt = first.request(&token);
    misspelt["sereal"] = json!("x");
    let misspelt = hub.client().post(format!("{}/v1/claims", hub.https())).json(&misspelt).send().await.unwrap();
    assert_eq!(code(&read(misspelt).await), (422, "unknown_field"));
    let mut rubbish = first.request(&token);
    rubbish["csr"] = json!("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    let rubbish = hub.client().post(format!("{}/v1/claims", hub.https())).json(&rubbish).send().await.unwrap();
    assert_eq!(code(&read(rubbish).await), (422, "csr_invalid"));

    let claimed = first.claim(&hub, &token).await;
    assert_eq!(claimed.0, StatusCode::OK, "{}", claimed.1);
    let answer: ClaimAnswer = serde_json::from_value(claimed.1).unwrap();
    assert_eq!(answer.device.to_string(), id);
    assert_eq!(first.claim(&hub, &token).await.0, StatusCode::OK, "the same key may ask again");
    assert_eq!(code(&second.claim(&hub, &token).await), (409, "claim_used"));

    let path = format!("/v1/devices/{id}/claim-tokens");
    let late = hub.made(&tenant, &path, json!({})).await["token"].as_str().unwrap().to_owned();
    let mut rows = hub.superuser().await;
    rows.execute("UPDATE claim SET expires_at = now() WHERE bound_spki IS NULL").await.unwrap();
    assert_eq!(code(&second.claim(&hub, &late).await), (410, "claim_expired"));
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entry WHERE action = 'claim.reused'")
        .fetch_one(&mut rows)
        .await
        .unwrap();
    assert_eq!(seen, 1, "the second key is a security event");
}

#[tokio::test]
async fn only_the_present_certificate_of_a_device_gets_link_keys() {
    if skipped("only_the_present_certificate_of_a_device_gets_link_keys") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (id, token) = made(&hub, &tenant, "entrance").await;
    let device = Device::new();
    let answer: ClaimAnswer = serde_json::from_value(device.claim(&hub, &token).await.1).unwrap();

    let without = hub.client().get(format!("{}/v1/device/link", hub.https())).send().await.unwrap();
    assert_eq!(read(without).await.0, StatusCode::UNAUTHORIZED);
    let (status, link) = device.link(&hub, &answer.certificate_chain).await;
    assert_eq!(status, StatusCode::OK, "{link}");
    let link: LinkAnswer = serde_json::from_value(link).unwrap();
    assert_eq!(link.galleries.len(), 1);
    assert!(link.server_time.verify(&answer.hub_keys, device_uuid(&id)).is_ok());

    assert!(device.is_let_in(&hub, &answer.certificate_chain, &id).await);

    // Other hardware takes the device's place: the old certificate ends at once.
    let path = format!("/v1/devices/{id}/claim-tokens");
    let token = hub.made(&tenant, &path, json!({})).await["token"].as_str().unwrap().to_owned();
    let successor = Device::new();
    let second: ClaimAnswer = serde_json::from_value(successor.claim(&hub, &token).await.1).unwrap();
    assert_eq!(code(&device.link(&hub, &answer.certificate_chain).await), (403, "device_revoked"));
    assert_eq!(successor.link(&hub, &second.certificate_chain).await.0, StatusCode::OK);
    // At the broker too, where both certificates have one name.
    assert!(!device.is_let_in(&hub, &answer.certificate_chain, &id).await, "the old certificate is let in");
    assert!(successor.is_let_in(&hub, &second.certificate_chain, &id).await);

    // Once more, and within the second: of the lists that the broker has read the newest counts.
    let token = hub.made(&tenant, &path, json!({})).await["token"].as_str().unwrap().to_owned();
    let third = Device::new();
    let answer_of_third: ClaimAnswer = serde_json::from_value(third.claim(&hub, &token).await.1).unwrap();
    assert!(!successor.is_let_in(&hub, &second.certificate_chain, &id).await, "the second certificate is let in");
    assert!(third.is_let_in(&hub, &answer_of_third.certificate_chain, &id).await);
    let (successor, second) = (third, answer_of_third);

    // The access list names exactly the claimed device; a revoked one is gone from it and refused.
    let list = std::fs::read_to_string(dir.path().join("broker/devices.acl")).unwrap();
    assert!(list.contains(&id), "{list}");
    let (status, _) = hub.call(&tenant, Method::DELETE, &format!("/v1/devices/{id}"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let list = std::fs::read_to_string(dir.path().join("broker/devices.acl")).unwrap();
    assert!(!list.contains(&id), "{list}");
    assert_eq!(code(&successor.link(&hub, &second.certificate_chain).await), (403, "device_revoked"));

    // A hub that starts again writes the list before the broker reads it.
    assert!(hub.stop().success());
    let hub = Hub::start(dir.path());
    assert!(!device.is_let_in(&hub, &answer.certificate_chain, &id).await);
}

fn device_uuid(id: &str) -> uuid::Uuid {
    id.parse().unwrap()
}

#[tokio::test]
async fn the_command_line_lists_devices_as_the_api_does() {
    if skipped("the_command_line_lists_devices_as_the_api_does") {
        return;
    }
    let dir = data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let (id, _) = made(&hub, &tenant, "entrance").await;
    let listed = hub.cli(&["devices", "list", "--tenant", &tenant.id]);
    let served = hub.get(&tenant, "/v1/devices").await;
    assert_eq!(listed["devices"], served["data"]);
    let device = &listed["devices"][0];
    assert_eq!((&device["id"], &device["state"]), (&json!(id), &json!("created")));
    let gallery = &device["galleries"][0];
    assert_eq!((&gallery["equal"], &gallery["hub_version"]), (&json!(false), &json!(0)), "{device}");
    assert_eq!((&gallery["standing"], &gallery["since"]), (&json!("unreported"), &json!(null)), "{device}");
    let mut table = super::process::command(dir.path());
    table.args(["devices", "list", "--tenant", &tenant.id]);
    let table = String::from_utf8(super::process::output(table).stdout).unwrap();
    assert!(table.starts_with("DEVICE") && table.contains("entrance"), "{table}");
    let mut unknown = super::process::command(dir.path());
    unknown.args(["devices", "list", "--tenant", &uuid::Uuid::nil().to_string()]);
    assert_eq!(super::process::output(unknown).status.code(), Some(1));
}
