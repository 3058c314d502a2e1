//! The hub's certificates: one P-256 root, a device authority and a service authority below it, leaves below those.
//!
//! In: a directory for the keys, names for the servers, a device's request. Out: certificates as PEM, and what
//! identifies them. The root is what a claim token pins; the two authorities cannot sign for each other's use (client
//! against server authentication, path length 0), so that no device can pose as the hub. Others may take the places of
//! the two while everybody goes on ([`authorities`]); the root stays.
//!
//! Deliberately absent: TLS itself, which certificates are revoked (the registry knows), clocks.

mod authorities;
mod authority;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    RevokedCertParams, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use authorities::{Authorities, Held};
use authority::{load_key, write_public};
use hub_domain::certificate::DeviceCertificate;
use hub_domain::ids::DeviceId;
use hub_host::secret_file::SecretFileError;

/// The life of a leaf, by protocol.md.
pub const LEAF_LIFETIME: Duration = Duration::days(90);
/// The life of the root and of the authorities: longer than the hardware at the doors.
const AUTHORITY_LIFETIME: Duration = Duration::days(20 * 365);
/// Certificates begin a little in the past: devices' clocks may be behind, though never by more than they can tell.
const BACKDATE: Duration = Duration::minutes(5);
/// A server's certificate is renewed when it has less than this left; half its life, as for devices.
const RENEW_BELOW: Duration = Duration::days(45);

/// A revocation list begins this long in the past. OpenSSL takes the newest of several lists, to the second, so each
/// begins at least a second after the one before; the room keeps lists that follow one another fast out of the future.
const CRL_BACKDATE: Duration = Duration::days(1);

/// A certificate could not be made, read or accepted.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A certificate file.
    #[error("certificate file {path}: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A stored key or certificate is not one.
    #[error(
        "{path} is not a usable {what}: restore the pki directory from a backup; a new one means claiming every device again"
    )]
    Stored {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// A device's request is malformed or not signed by its own key.
    #[error("certificate request is malformed or not signed by its own key")]
    Request,
    /// A device's request is for a key that is not P-256.
    #[error("certificate request is for a key that is not ECDSA P-256")]
    RequestKey,
    /// A name that cannot stand in a certificate.
    #[error("server name {0} cannot stand in a certificate")]
    ServerName(String),
    /// Signing failed.
    #[error("certificate could not be made: {0}")]
    Make(#[source] rcgen::Error),
    /// No randomness.
    #[error("the operating system's random generator failed; no certificate can be made")]
    Randomness,
    /// Two rotations of the authorities do not mix.
    #[error(
        "the authorities are being replaced: others can take their places when the one before is retired, by `cloud-hub keys retire-authorities`"
    )]
    UnderWay,
    /// The next authorities have not been made, or not been copied to this hub.
    #[error(
        "there are no next authorities on this hub: they have taken their places already (`cloud-hub keys status`), or are to be made on one hub by `cloud-hub keys rotate authorities`, and device-ca-next and service-ca-next, .key and .pem, to be copied into pki/ here"
    )]
    NoNext,
    /// There is none to retire.
    #[error("there is no device authority before the present one")]
    NoneBefore,
}

/// The authorities of one hub.
pub struct Pki {
    dir: PathBuf,
    authorities: Authorities,
    /// One writer of a server's certificate at a time.
    servers: Mutex<()>,
}

/// A certificate for a device.
#[derive(Clone, Debug)]
pub struct IssuedDevice {
    /// The device's certificate and the device authority's, PEM, leaf first.
    pub chain_pem: String,
    /// What identifies it.
    pub certificate: DeviceCertificate,
}

/// A request that has been checked: signed by its own key, which is ECDSA P-256.
pub struct DeviceRequest {
    inner: CertificateSigningRequestParams,
    spki_sha256: [u8; 32],
}

/// A server's certificate and key.
#[derive(Clone)]
pub struct ServerIdentity {
    /// Leaf, service authority and root, PEM. The root is sent along because a claiming device has nothing but its hash.
    pub chain_pem: String,
    /// PKCS#8, PEM.
    pub key_pem: Zeroizing<String>,
    /// Its end; renew before ([`Pki::server`] does when asked after half its life).
    pub expires_at: OffsetDateTime,
}

impl std::fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerIdentity(until {}, ***)", self.expires_at)
    }
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pki({})", self.dir.display())
    }
}

impl DeviceRequest {
    /// Reads a PEM request and checks its signature and key. Its subject and extensions are ignored altogether.
    pub fn parse(csr_pem: &str) -> Result<Self, PkiError> {
        // rcgen refuses requests with extensions that it does not know; ours have none, so a refusal is right.
        let inner = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|_| PkiError::Request)?;
        if PublicKeyData::algorithm(&inner.public_key) != &PKCS_ECDSA_P256_SHA256 {
            return Err(PkiError::RequestKey);
        }
        let spki_sha256 = sha256(&inner.public_key.subject_public_key_info());
        Ok(Self { inner, spki_sha256 })
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what a claim is bound to.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }
}

impl Pki {
    /// Loads the authorities from `dir`, making them first if there are none. Keys are 0600 files.
    pub fn load_or_make(dir: &Path, now: OffsetDateTime) -> Result<Self, PkiError> {
        Ok(Self { dir: dir.to_owned(), authorities: Authorities::open(dir, now)?, servers: Mutex::default() })
    }

    /// Where the files lie.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.authorities.root.pem
    }

    /// The root certificate, DER.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.authorities.root.der
    }

    /// SHA-256 of the root's SubjectPublicKeyInfo: what claim tokens carry.
    #[must_use]
    pub fn root_spki_sha256(&self) -> [u8; 32] {
        self.authorities.root.spki_sha256
    }

    /// Where the root certificate lies as a file.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.dir.join("root.pem")
    }

    /// The device authority that issues, by its key (SHA-256 of the SubjectPublicKeyInfo).
    #[must_use]
    pub fn device_issuer(&self) -> [u8; 32] {
        self.authorities.held().devices.spki_sha256
    }

    /// The device authority that is to take its place, if there is one. It is believed already.
    #[must_use]
    pub fn next_device_issuer(&self) -> Option<[u8; 32]> {
        self.authorities.next()
    }

    /// The device authority before, while it is believed.
    #[must_use]
    pub fn device_issuer_before(&self) -> Option<[u8; 32]> {
        self.authorities.before()
    }

    /// Makes the next authorities, unless they are there, and believes devices of the next one from here on.
    pub fn prepare_next(&self, now: OffsetDateTime) -> Result<(), PkiError> {
        self.authorities.prepare(now)
    }

    /// Looks whether somebody has copied next authorities here, or taken them away. True if others are believed now.
    pub fn look_again(&self) -> Result<bool, PkiError> {
        self.authorities.look_again()
    }

    /// Puts the next authorities in the places of the present ones. The device authority before is believed still; the key of the service
    /// authority before is destroyed. Nothing changes if there are no next ones.
    pub fn switch(&self) -> Result<(), PkiError> {
        self.authorities.switch()
    }

    /// Believes devices of the authority before no more, and destroys its key.
    pub fn retire_before(&self) -> Result<(), PkiError> {
        self.authorities.retire()
    }

    /// The device authorities that are believed, DER, the one that issues first: what a TLS server trusts for client certificates. The
    /// service authority and the root are deliberately not trust anchors there, so that nothing but a device's leaf is accepted.
    #[must_use]
    pub fn device_authorities_der(&self) -> Vec<Vec<u8>> {
        self.authorities.held().believed().map(|authority| authority.der.clone()).collect()
    }

    /// The device authorities that are believed and the root above them, PEM: for brokers, whose TLS library wants whole chains.
    #[must_use]
    pub fn client_ca_pem(&self) -> String {
        let held = self.authorities.held();
        held.believed().map(|authority| authority.pem.as_str()).chain([self.root_pem()]).collect()
    }

    /// Issues a device's certificate: common name = device UUID, client authentication only.
    pub fn issue_device(
        &self,
        request: DeviceRequest,
        device: DeviceId,
        now: OffsetDateTime,
    ) -> Result<IssuedDevice, PkiError> {
        let DeviceRequest { mut inner, spki_sha256 } = request;
        let serial = random_serial()?;
        let expires_at = now + LEAF_LIFETIME - BACKDATE;
        inner.params = leaf(&device.to_string(), ExtendedKeyUsagePurpose::ClientAuth, &serial, now, expires_at);
        let held = self.authorities.held();
        let signed = inner.signed_by(&held.devices.issuer).map_err(PkiError::Make)?;
        let (serial, issuer) = (hex::encode(serial), held.devices.spki_sha256);
        Ok(IssuedDevice {
            chain_pem: format!("{}{}", signed.pem(), held.devices.pem),
            certificate: DeviceCertificate { spki_sha256, serial, expires_at, issuer },
        })
    }

    /// A revocation list of each device authority that is believed, with these serial numbers (lower-case hex) and times, PEM.
    ///
    /// OpenSSL refuses every certificate whose issuer has no list. Each list has all serial numbers, whoever issued them: those of
    /// others do no harm. The lists begin after those in `previous`, which the broker may hold in memory. They are good for as long
    /// as an authority: an expired list would lock every device out, and the hub replaces them whenever something changes.
    pub fn client_crl<'a>(
        &self,
        revoked_list: impl IntoIterator<Item = (&'a str, OffsetDateTime)>,
        previous: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<String, PkiError> {
        let (mut this_update, mut number) = (now - CRL_BACKDATE, 1);
        for (began, numbered) in previous.into_iter().flat_map(crl_positions) {
            this_update = this_update.max(began + Duration::seconds(1));
            number = number.max(numbered + 1);
        }
        let revoked = |(serial, at): &(&str, OffsetDateTime)| {
            // The column's check makes it hex; what is not hex is no certificate of ours.
            let serial_number = SerialNumber::from(hex::decode(serial).ok()?);
            Some(RevokedCertParams { serial_number, revocation_time: *at, reason_code: None, invalidity_date: None })
        };
        let (held, revoked_list) = (self.authorities.held(), revoked_list.into_iter().collect::<Vec<_>>());
        let list = |issuer: &authority::Authority| {
            let list = CertificateRevocationListParams {
                this_update,
                next_update: now + AUTHORITY_LIFETIME,
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: None,
                revoked_certs: revoked_list.iter().filter_map(revoked).collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            list.signed_by(&issuer.issuer).and_then(|list| list.pem()).map_err(PkiError::Make)
        };
        held.believed().map(list).collect()
    }

    /// A certificate for the hub's HTTPS and for the broker, valid for these names and addresses. Kept as a file
    /// (`<name>.pem`, `<name>.key`) and made anew when it covers other names or has passed half its life.
    pub fn server(
        &self,
        name: &str,
        subject_names: &[String],
        now: OffsetDateTime,
    ) -> Result<ServerIdentity, PkiError> {
        let (key_path, chain_path) = (self.dir.join(format!("{name}.key")), self.dir.join(format!("{name}.pem")));
        let (_alone, held) = (self.servers.lock(), self.authorities.held());
        let key = load_key(&key_path)?;
        let names = subject_names.iter().map(|name| san(name)).collect::<Result<Vec<_>, _>>()?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        if let Some((chain_pem, expires_at)) = self.stored_server(&held, &chain_path, &key, subject_names, now) {
            return Ok(ServerIdentity { chain_pem, key_pem, expires_at });
        }
        let expires_at = now + LEAF_LIFETIME - BACKDATE;
        let mut params = leaf("Lintel hub", ExtendedKeyUsagePurpose::ServerAuth, &random_serial()?, now, expires_at);
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &held.services.issuer).map_err(PkiError::Make)?;
        let chain_pem = format!("{}{}{}", certificate.pem(), held.services.pem, self.root_pem());
        write_public(&chain_path, &chain_pem)?;
        Ok(ServerIdentity { chain_pem, key_pem, expires_at })
    }

    fn stored_server(
        &self,
        held: &Held,
        path: &Path,
        key: &KeyPair,
        names: &[String],
        now: OffsetDateTime,
    ) -> Option<(String, OffsetDateTime)> {
        let chain_pem = std::fs::read_to_string(path).ok()?;
        let (_, first) = x509_parser::pem::parse_x509_pem(chain_pem.as_bytes()).ok()?;
        let certificate = first.parse_x509().ok()?;
        let expires_at = certificate.validity().not_after.to_datetime();
        let covered: Vec<String> =
            certificate.subject_alternative_name().ok()??.value.general_names.iter().filter_map(name_of).collect();
        let own_key = certificate.public_key().raw == key.subject_public_key_info();
        let own_chain = chain_pem.ends_with(&format!("{}{}", held.services.pem, self.root_pem()));
        (own_key && own_chain && covered == names && expires_at - now > RENEW_BELOW).then_some((chain_pem, expires_at))
    }
}

/// When each of these lists begins, and its number.
fn crl_positions(pem: &str) -> Vec<(OffsetDateTime, u64)> {
    let position = |pem: x509_parser::pem::Pem| {
        let (_, list) = x509_parser::parse_x509_crl(&pem.contents).ok()?;
        let number = list.crl_number().and_then(|number| number.to_string().parse().ok()).unwrap_or(0);
        Some((list.last_update().to_datetime(), number))
    };
    x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).map_while(Result::ok).filter_map(position).collect()
}

fn leaf(
    common_name: &str,
    usage: ExtendedKeyUsagePurpose,
    serial: &[u8],
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.not_before = now - BACKDATE;
    params.not_after = expires_at;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn san(name: &str) -> Result<SanType, PkiError> {
    match name.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => name.try_into().map(SanType::DnsName).map_err(|_| PkiError::ServerName(name.to_owned())),
    }
}

fn name_of(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
            (Ok(v4), _) => Some(IpAddr::from(v4).to_string()),
            (_, Ok(v6)) => Some(IpAddr::from(v6).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// 20 random bytes, the most that RFC 5280 allows; the first keeps the number positive and of full length.
fn random_serial() -> Result<[u8; 20], PkiError> {
    let mut serial = [0; 20];
    SystemRandom::new().fill(&mut serial).map_err(|_| PkiError::Randomness)?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(serial)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests;
