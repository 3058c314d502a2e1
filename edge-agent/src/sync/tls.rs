//! TLS as devices use it: version 1.3 only, ring, one root and nothing else trusted.
//!
//! In: the identity, or at the claim the hash of the root's key. Out: rustls client configurations.
//! Times: a certificate is judged by the agent's clock, which carries on what was proven when the kernel's jumps, and never
//! before a floor that is known to be past (the signed time of the claim, or the token's), so that a clock that fell back
//! to 1970 does not cut a device off. For the one question what time it is there is [`undated`].
//! Deliberately absent: TLS 1.2, system roots, session resumption (a revoked certificate must not live on in a ticket).

use std::sync::{Arc, OnceLock};

use edge_store::{Identity, IdentityError};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use time::OffsetDateTime;
use wire_contract::{Hash32, Timestamp};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::SharedClock;

/// Why no TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The identity's key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The root or the chain is not accepted by the TLS library.
    #[error("the identity's certificates are not usable; claim the device again")]
    Certificates(#[source] rustls::Error),
    /// The root makes no verifier.
    #[error("the identity's root certificate is not usable; claim the device again")]
    Root(#[source] rustls::client::VerifierBuilderError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What time it is when a certificate is judged.
#[derive(Clone)]
pub(super) enum Now {
    /// The agent's clock, at each handshake.
    Of(SharedClock),
    /// One time.
    At(OffsetDateTime),
}

impl std::fmt::Debug for Now {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Of(_) => out.write_str("Now::Of(clock)"),
            Self::At(time) => write!(out, "Now::At({time})"),
        }
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let time = match self {
            Self::Of(clock) => clock.wall().utc,
            Self::At(time) => *time,
        };
        Some(floor(time.unix_timestamp()))
    }
}

/// For everything after the claim: the identity's root alone is trusted, the device shows its certificate.
pub(super) fn mutual(identity: &Identity, now: Now) -> Result<ClientConfig, TlsError> {
    let verifier = Floored { inner: under_root(identity)?, floor: floor(identity.signed_time) };
    let mut config = builder(Arc::new(verifier), now)
        .with_client_auth_cert(identity.chain(), identity.key()?)
        .map_err(TlsError::Certificates)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn under_root(identity: &Identity) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in identity.root() {
        roots.add(root).map_err(TlsError::Certificates)?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(TlsError::Root)
}

/// For the question what time it is, and for nothing else: as [`mutual`], but without a certificate of ours, and the dates
/// of the hub's are not held against a clock. What they are held against: see [`Dates`].
pub(super) fn undated(identity: &Identity, known_past: OffsetDateTime) -> Result<(ClientConfig, Arc<Dates>), TlsError> {
    let floor = floor(known_past.unix_timestamp().max(identity.signed_time));
    let dates = Arc::new(Dates { inner: under_root(identity)?, floor, window: OnceLock::new() });
    let verifier: Arc<dyn ServerCertVerifier> = Arc::<Dates>::clone(&dates);
    // The verifier does not look at this time.
    let mut config = builder(verifier, Now::At(known_past)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok((config, dates))
}

/// For the claim: no certificate of ours yet; the hub's chain must include a root whose key has this hash.
pub(super) fn pinned(root_spki_sha256: Hash32, floor_seconds: i64, now: Now) -> (ClientConfig, Arc<PinnedRoot>) {
    let verifier = Arc::new(PinnedRoot {
        expected: root_spki_sha256,
        floor: floor(floor_seconds),
        provider: provider(),
        problem: OnceLock::new(),
    });
    let dynamic: Arc<dyn ServerCertVerifier> = Arc::<PinnedRoot>::clone(&verifier);
    let mut config = builder(dynamic, now).with_no_client_auth();
    config.resumption = Resumption::disabled();
    (config, verifier)
}

fn builder(
    verifier: Arc<dyn ServerCertVerifier>,
    now: Now,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_details(provider(), Arc::new(now))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
}

fn floor(unix_seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0)))
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo; `None` when it is not a certificate.
pub(super) fn spki_sha256(certificate: &[u8]) -> Option<Hash32> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let hash = digest(&SHA256, parsed.public_key().raw);
    hash.as_ref().try_into().ok().map(Hash32)
}

/// The usual verification, at a time not before the floor.
#[derive(Debug)]
struct Floored {
    inner: Arc<WebPkiServerVerifier>,
    floor: UnixTime,
}

impl ServerCertVerifier for Floored {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp, now.max(self.floor))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Why the dates of the hub's certificate do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DatesError {
    /// No certificate was seen: the answer came over no connection of this configuration.
    #[error("the hub showed no certificate")]
    NotSeen,
    /// The hub's certificate is not good at the time that the hub told.
    #[error("the hub tells the time {told}, at which its own certificate (good from {from} to {until}) is not good")]
    NotThen {
        /// What the hub told.
        told: Timestamp,
        /// The certificate's beginning.
        from: Timestamp,
        /// Its end.
        until: Timestamp,
    },
}

/// When all certificates of a chain are good at once, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: i64,
    until: i64,
}

impl Window {
    fn of(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Option<Self> {
        let mut window = Self { from: 0, until: i64::MAX };
        for der in [end_entity].into_iter().chain(intermediates) {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            window.from = window.from.max(certificate.validity().not_before.timestamp());
            window.until = window.until.min(certificate.validity().not_after.timestamp());
        }
        Some(window)
    }
}

/// The usual verification without a clock to hold the dates against: the whole chain must be good at one moment that is
/// not known to be past, and everything else is judged at that moment, as ever. The time that the answer brings must then
/// be one at which the chain is good ([`Dates::hold_at`]): the dates are judged late, not left out.
#[derive(Debug)]
pub(super) struct Dates {
    inner: Arc<WebPkiServerVerifier>,
    floor: UnixTime,
    window: OnceLock<Window>,
}

impl Dates {
    /// Whether the chain that was shown is good at `told`.
    pub(super) fn hold_at(&self, told: Timestamp) -> Result<(), DatesError> {
        let Window { from, until } = *self.window.get().ok_or(DatesError::NotSeen)?;
        if (from..=until).contains(&told.unix_seconds()) {
            return Ok(());
        }
        let at = |seconds: i64| Timestamp::from_unix_ms(seconds.saturating_mul(1000));
        Err(DatesError::NotThen { told, from: at(from), until: at(until) })
    }
}

impl ServerCertVerifier for Dates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let bad = |problem| Err(rustls::Error::InvalidCertificate(problem));
        let Some(window) = Window::of(end_entity, intermediates) else { return bad(CertificateError::BadEncoding) };
        let moment = floor(window.from).max(self.floor);
        if moment > floor(window.until) {
            return bad(CertificateError::Expired);
        }
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp, moment)?;
        // One configuration makes one call; a second connection of it would show the same hub.
        let _ = self.window.set(window);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What is wrong with the hub that answered at the claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The chain has no root in it that could be compared.
    #[error("the hub's certificate chain does not include its root")]
    NoRoot,
    /// Another hub, or somebody in between.
    #[error(
        "the hub's root key has the hash {found}, the token names {expected}: this is not the hub that made the token"
    )]
    OtherRoot {
        /// From the token.
        expected: Hash32,
        /// From the handshake.
        found: Hash32,
    },
}

/// Verifies that the chain ends in the root that the token names, then everything as usual under that root.
#[derive(Debug)]
pub(super) struct PinnedRoot {
    expected: Hash32,
    floor: UnixTime,
    provider: Arc<CryptoProvider>,
    problem: OnceLock<PinError>,
}

impl PinnedRoot {
    /// What was wrong, when the handshake failed for the pin's sake.
    pub(super) fn problem(&self) -> Option<PinError> {
        self.problem.get().cloned()
    }

    fn verifier(&self, intermediates: &[CertificateDer<'_>]) -> Result<Arc<WebPkiServerVerifier>, PinError> {
        let root = intermediates.last().ok_or(PinError::NoRoot)?;
        let found = spki_sha256(root).ok_or(PinError::NoRoot)?;
        if found != self.expected {
            return Err(PinError::OtherRoot { expected: self.expected, found });
        }
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).map_err(|_| PinError::NoRoot)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|_| PinError::NoRoot)
    }
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let inner = self.verifier(intermediates).map_err(|problem| {
            let _ = self.problem.set(problem.clone());
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem))))
        })?;
        inner.verify_server_cert(end_entity, intermediates, server_name, ocsp, now.max(self.floor))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
