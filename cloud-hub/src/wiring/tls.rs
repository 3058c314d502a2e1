//! TLS configurations: the server's from the hub's own certificates, and the client's for an external broker.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::BrokerConfig;
use crate::domain::certificate::RENEWABLE_AFTER_END;
use crate::pki::{Pki, ServerIdentity};

/// TLS 1.3 only, HTTP/2 and HTTP/1.1; a client may show a device's certificate, and no other.
pub(super) fn server_config(identity: &ServerIdentity, pki: &Pki) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in pki.device_authorities_der() {
        roots.add(CertificateDer::from(authority)).context("a device authority cannot be a trust anchor")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .context("client certificates cannot be verified")?;
    let verifier = Arc::new(EndedLately(verifier));
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("the server's certificate chain is unreadable")?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).context("the server's key is unreadable")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .context("the server's certificate and key do not fit")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS 1.3 to an external broker when `broker.ca_file` is set, with the hub's client certificate if there is one.
pub(super) fn broker_config(settings: &BrokerConfig) -> Result<Option<Arc<ClientConfig>>> {
    let Some(ca_file) = settings.ca_file.get() else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    let authorities = CertificateDer::pem_file_iter(ca_file).context("broker.ca_file cannot be read")?;
    for authority in authorities {
        roots.add(authority.context("broker.ca_file holds no certificate")?).context("broker.ca_file")?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?
        .with_root_certificates(roots);
    let config = match (settings.certificate_file.get(), settings.key_file.get()) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .context("broker.certificate_file cannot be read")?;
            let key = PrivateKeyDer::from_pem_file(key).context("broker.key_file cannot be read")?;
            builder.with_client_auth_cert(chain, key).context("broker.certificate_file and key_file do not fit")?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(config)))
}

/// Lets device certificates in that ended within [`RENEWABLE_AFTER_END`], so that a device which was off for a month
/// can renew its own; the routes refuse it everything else.
#[derive(Debug)]
struct EndedLately(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for EndedLately {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        let Err(rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) =
            verified
        else {
            return verified;
        };
        match end_of(end_entity) {
            // Everything else is judged as it was at its last second.
            Some(end) if now.as_secs() < end.as_secs() + RENEWABLE_AFTER_END.whole_seconds().unsigned_abs() => {
                self.0.verify_client_cert(end_entity, intermediates, end)
            }
            _ => verified,
        }
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The last second of a certificate.
fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}
