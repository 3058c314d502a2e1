//! Certificates as the hub makes them, and an HTTPS server that answers as a test says.

use std::sync::Arc;

use edge_store::{Broker as BrokerAddress, HubKey, Identity};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use ring::signature::KeyPair as _;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;
use wire_contract::{Hash32, HubTime, HubTimeRequest, Succession, Timestamp};
use zeroize::Zeroizing;

use super::{DEVICE, HSK_ID, TENANT, hsk, now, signer};

/// Root, service CA and device CA, as the hub has them.
pub(in crate::sync) struct Pki {
    pub(in crate::sync) root: Certificate,
    pub(in crate::sync) service: (Certificate, Issuer<'static, KeyPair>),
    device: (Certificate, Issuer<'static, KeyPair>),
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn ca(name: &str, depth: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params
}

impl Pki {
    pub(in crate::sync) fn new() -> Self {
        let root_key = key();
        let params = ca("test root", 1);
        let root = params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(params, root_key);
        let make = |name: &str| {
            let (key, params) = (key(), ca(name, 0));
            let certificate = params.signed_by(&key, &root_issuer).unwrap();
            (certificate, Issuer::new(params, key))
        };
        let (service, device) = (make("test service CA"), make("test device CA"));
        Self { root, service, device }
    }

    pub(in crate::sync) fn root_hash(&self) -> Hash32 {
        crate::sync::tls::spki_sha256(self.root.der()).unwrap()
    }

    /// Leaf and device CA for a request, as PEM.
    pub(in crate::sync) fn certify(&self, csr_pem: &str, name: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params = leaf(name, ExtendedKeyUsagePurpose::ClientAuth);
        request.signed_by(&self.device.1).unwrap().pem() + &self.device.0.pem()
    }

    pub(in crate::sync) fn identity(&self, hub_url: &str, broker_port: u16) -> Identity {
        let key = key();
        let certificate =
            leaf(&DEVICE.to_string(), ExtendedKeyUsagePurpose::ClientAuth).signed_by(&key, &self.device.1).unwrap();
        Identity {
            tenant: TENANT,
            device: DEVICE,
            hub_url: hub_url.to_owned(),
            broker: BrokerAddress { host: "127.0.0.1".to_owned(), port: broker_port },
            hub_keys: vec![HubKey {
                key_id: HSK_ID.to_string(),
                public_key: hsk().public_key().as_ref().try_into().unwrap(),
            }],
            signed_time: now().unix_seconds() - 1000,
            key_pem: Zeroizing::new(key.serialize_pem()),
            chain_pem: certificate.pem() + &self.device.0.pem(),
            root_pem: self.root.pem(),
        }
    }

    /// Server key and leaf for 127.0.0.1.
    pub(in crate::sync) fn server(&self) -> (KeyPair, Certificate) {
        let key = key();
        let certificate = leaf("hub", ExtendedKeyUsagePurpose::ServerAuth).signed_by(&key, &self.service.1).unwrap();
        (key, certificate)
    }

    /// A server's key and chain, where `change` makes the leaf another one.
    pub(in crate::sync) fn served(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (KeyPair, Vec<CertificateDer<'static>>) {
        let (key, mut params) = (key(), leaf("hub", ExtendedKeyUsagePurpose::ServerAuth));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.service.1).unwrap();
        (key, [&certificate, &self.service.0, &self.root].map(|one| one.der().clone()).to_vec())
    }

    fn https(&self, with_root: bool) -> ServerConfig {
        let (key, mut chain) = self.served(|_| {});
        if !with_root {
            chain.truncate(2);
        }
        self.https_of(&key, chain)
    }

    fn https_of(&self, key: &KeyPair, chain: Vec<CertificateDer<'static>>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap()
    }
}

/// One request as the small hub sees it.
pub(in crate::sync) struct Asked {
    pub(in crate::sync) line: String,
    pub(in crate::sync) body: Vec<u8>,
    pub(in crate::sync) with_certificate: bool,
    /// Of `Range: bytes=N-`.
    pub(in crate::sync) from: Option<usize>,
}

/// What the small hub answers.
pub(in crate::sync) enum Answer {
    /// Status and JSON.
    Json(u16, serde_json::Value),
    /// All of this is announced from byte `from` of `total` on, and only so much of it is sent before the line breaks.
    Content { from: usize, total: usize, sent: Vec<u8> },
}

impl From<(u16, serde_json::Value)> for Answer {
    fn from((status, json): (u16, serde_json::Value)) -> Self {
        Self::Json(status, json)
    }
}

impl Asked {
    /// The nonce in the query of a link's request.
    pub(in crate::sync) fn nonce(&self) -> Uuid {
        let (_, rest) = self.line.split_once("nonce=").expect("a device asks for the time with a nonce");
        rest.split(' ').next().unwrap().parse().unwrap()
    }

    /// The answer to a question for the time.
    pub(in crate::sync) fn hub_time(&self, at: Timestamp) -> serde_json::Value {
        self.hub_time_by(0, at, Vec::new())
    }

    /// The answer under a later key of the hub, with what leads to it.
    pub(in crate::sync) fn hub_time_by(
        &self,
        number: u8,
        at: Timestamp,
        successions: Vec<Succession>,
    ) -> serde_json::Value {
        let question: HubTimeRequest = serde_json::from_slice(&self.body).unwrap();
        let (pair, id) = signer(number);
        let time = HubTime { successions, ..HubTime::sign(&pair, id, question.nonce, at) };
        serde_json::to_value(time).unwrap()
    }
}

/// An HTTPS server of the test's own answers: status and JSON.
pub(in crate::sync) struct HttpsHub {
    pub(in crate::sync) url: String,
    task: tokio::task::JoinHandle<()>,
}

impl HttpsHub {
    pub(in crate::sync) async fn start<A: Into<Answer>>(
        pki: &Pki,
        with_root: bool,
        answer: impl Fn(Asked) -> A + Send + Sync + 'static,
    ) -> Self {
        Self::serve(pki.https(with_root), answer).await
    }

    /// A hub that shows this chain.
    pub(in crate::sync) async fn showing<A: Into<Answer>>(
        pki: &Pki,
        (key, chain): (KeyPair, Vec<CertificateDer<'static>>),
        answer: impl Fn(Asked) -> A + Send + Sync + 'static,
    ) -> Self {
        Self::serve(pki.https_of(&key, chain), answer).await
    }

    async fn serve<A: Into<Answer>>(config: ServerConfig, answer: impl Fn(Asked) -> A + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // A client that does not trust this server ends the handshake; that is for its own test to see.
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                serve_one(tls, &|asked| answer(asked).into()).await;
            }
        });
        Self { url, task }
    }
}

impl Drop for HttpsHub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve_one(
    mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    answer: &(dyn Fn(Asked) -> Answer + Sync),
) {
    let with_certificate = tls.get_ref().1.peer_certificates().is_some();
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if tls.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse::<usize>().unwrap());
            break (head.to_owned(), length);
        }
    };
    while bytes.len() < head.len() + 4 + length {
        tls.read_buf(&mut bytes).await.unwrap();
    }
    let line = head.lines().next().unwrap().to_owned();
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
    };
    let from = field("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let response = match answer(Asked { line, body: bytes[head.len() + 4..].to_vec(), with_certificate, from }) {
        Answer::Json(status, value) => {
            let json = value.to_string();
            let length = json.len();
            format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{json}"
            )
            .into_bytes()
        }
        Answer::Content { from, total, sent } => {
            let head = format!(
                "HTTP/1.1 206 X\r\nContent-Range: bytes {from}-{}/{total}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                total - 1,
                total - from
            );
            [head.into_bytes(), sent].concat()
        }
    };
    // The client may have seen enough and be gone.
    let _ = tls.write_all(&response).await;
    let _ = tls.shutdown().await;
}
