//! One authority: a private key and the certificate that goes with it, in two files.
//!
//! In: a folder and a name. Out: what signs. Deliberately absent: which authority signs when ([`super::authorities`]).

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::{AUTHORITY_LIFETIME, BACKDATE, PkiError, named, random_serial, sha256};
use hub_host::secret_file;

/// The two files of an authority.
pub(super) struct Pair {
    pub(super) key: PathBuf,
    pub(super) pem: PathBuf,
}

/// What is said in the certificate of an authority.
pub(super) struct Wanted<'a> {
    pub(super) common_name: String,
    /// Who signs it; itself if nobody.
    pub(super) parent: Option<&'a Authority>,
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
}

/// A key that signs certificates, with its own.
pub(super) struct Authority {
    pub(super) pem: String,
    pub(super) der: Vec<u8>,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) spki_sha256: [u8; 32],
}

impl Pair {
    pub(super) fn of(dir: &Path, name: &str) -> Self {
        Self { key: dir.join(format!("{name}.key")), pem: dir.join(format!("{name}.pem")) }
    }

    /// Whether both files are there.
    pub(super) fn is_whole(&self) -> bool {
        self.key.exists() && self.pem.exists()
    }
}

impl Authority {
    /// Reads an authority, making what is not there.
    pub(super) fn load_or_make<'a>(
        pair: &Pair,
        wanted: impl FnOnce(&[u8; 32]) -> Wanted<'a>,
        now: OffsetDateTime,
    ) -> Result<Self, PkiError> {
        let key = load_key(&pair.key)?;
        if !pair.pem.exists() {
            let wanted = wanted(&sha256(&key.subject_public_key_info()));
            write_public(&pair.pem, &make(&key, wanted, now)?.pem())?;
        }
        Self::read(pair)
    }

    /// Reads an authority that must be there.
    pub(super) fn read(pair: &Pair) -> Result<Self, PkiError> {
        let key = read_key(&pair.key)?;
        let pem = read_public(&pair.pem)?;
        let stored = |what| PkiError::Stored { path: pair.pem.clone(), what };
        let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| stored("certificate"))?;
        let spki = key.subject_public_key_info();
        if parsed.parse_x509().map_err(|_| stored("certificate"))?.public_key().raw != spki {
            return Err(stored("certificate of the key beside it"));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|_| stored("authority"))?;
        Ok(Self { der: parsed.contents, spki_sha256: sha256(&spki), issuer, pem })
    }

    /// Whether this one's certificate is signed by the other one.
    pub(super) fn is_below(&self, parent: &Self) -> bool {
        let parsed = |der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate);
        let (own, parent) = (parsed(&self.der), parsed(&parent.der));
        own.zip(parent).is_some_and(|(own, parent)| own.verify_signature(Some(parent.public_key())).is_ok())
    }
}

/// Whether a private key goes with a certificate; false as well if either is not there or cannot be read.
pub(super) fn fit(key: &Path, pem: &Path) -> bool {
    let fit = || {
        let key = read_key(key).ok()?;
        let (_, parsed) = x509_parser::pem::parse_x509_pem(&std::fs::read(pem).ok()?).ok()?;
        Some(parsed.parse_x509().ok()?.public_key().raw == key.subject_public_key_info())
    };
    fit().unwrap_or(false)
}

fn make(key: &KeyPair, wanted: Wanted<'_>, now: OffsetDateTime) -> Result<Certificate, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&wanted.common_name);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.not_before = now - BACKDATE;
    params.not_after = now + AUTHORITY_LIFETIME;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = wanted.usages;
    params.use_authority_key_identifier_extension = true;
    match wanted.parent {
        None => {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
            params.self_signed(key)
        }
        Some(parent) => {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.signed_by(key, &parent.issuer)
        }
    }
    .map_err(PkiError::Make)
}

/// Reads a private key, making it if it is not there.
pub(super) fn load_key(path: &Path) -> Result<KeyPair, PkiError> {
    let pem = secret_file::load_or_make(path, || {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::Make)?;
        Ok::<_, PkiError>(Zeroizing::new(key.serialize_pem().into_bytes()))
    })?;
    key_of(&pem, path)
}

fn read_key(path: &Path) -> Result<KeyPair, PkiError> {
    key_of(&secret_file::load(path)?, path)
}

fn key_of(pem: &[u8], path: &Path) -> Result<KeyPair, PkiError> {
    let stored = || PkiError::Stored { path: path.to_owned(), what: "private key" };
    KeyPair::from_pem(std::str::from_utf8(pem).map_err(|_| stored())?).map_err(|_| stored())
}

/// Reads a file that is no secret.
pub(super) fn read_public(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::Certificate { path: path.to_owned(), source })
}

/// Writes a file that is no secret: readers see it old or new, and it is on the disk when this returns.
pub(super) fn write_public(path: &Path, pem: &str) -> Result<(), PkiError> {
    let write = || {
        let temporary = path.with_extension("pem.new");
        std::fs::write(&temporary, pem)?;
        std::fs::File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| PkiError::Certificate { path: path.to_owned(), source })
}

/// Removes a file that is no secret. None there is no error.
pub(super) fn remove_public(path: &Path) -> Result<(), PkiError> {
    let remove = || match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
    };
    remove().map_err(|source| PkiError::Certificate { path: path.to_owned(), source })
}
