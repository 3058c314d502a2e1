//! Certificates that nobody should believe: made with the hub's own authorities where somebody with a right key did wrong,
//! and with authorities of nobody's where somebody pretends.
//!
//! In: the folder of the hub's authorities. Out: chains and keys, by what is wrong with them. What rcgen refuses to make
//! (SHA-1, weak keys, version 1) is made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::knock::Shown;
use crate::rig::process;

/// TLS as Lintel speaks it.
pub const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// TLS as Lintel does not speak it.
pub const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// An authority whose key is at hand.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl Authority {
    /// One of the hub's, by the name of its files.
    pub fn of_hub(pki: &Path, name: &str) -> Result<Self> {
        let read = |suffix: &str| std::fs::read_to_string(pki.join(format!("{name}.{suffix}")));
        let (pem, key) = (read("pem")?, KeyPair::from_pem(&read("key")?)?);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)?, der })
    }

    /// One that signs itself and calls itself as it likes.
    pub fn of_nobody(name: &str) -> Result<Self> {
        let (mut params, key) = (named(name), KeyPair::generate()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let der = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), der })
    }

    /// One below another.
    pub fn below(parent: &Self, name: &str) -> Result<Self> {
        let (mut params, key) = (named(name), KeyPair::generate()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let der = params.signed_by(&key, &parent.issuer)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), der })
    }

    /// Its certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Signs what it is asked to, with a fresh key; the chain is the leaf and this authority.
    pub fn sign(&self, params: &CertificateParams) -> Result<Shown> {
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Shown { chain: vec![leaf, self.der.clone()], key: key.serialize_der(), versions: TLS13 })
    }
}

/// A device's certificate as the hub would ask for it; the tests spoil one thing each.
#[must_use]
pub fn device(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![Usage::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A server's, for loopback.
pub fn server() -> Result<CertificateParams> {
    let mut params = device("Lintel hub");
    params.extended_key_usages = vec![Usage::ServerAuth];
    params.subject_alt_names = vec![rcgen::SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
    Ok(params)
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(name.to_owned()));
    (params.not_before, params.not_after) = (utc() - Duration::hours(1), utc() + Duration::days(30));
    params
}

fn utc() -> OffsetDateTime {
    edge_agent::clock::SystemClock::utc()
}

/// What a forger works with.
pub struct Forger {
    /// The hub's folder of keys.
    pub pki: PathBuf,
    /// A folder for what `openssl` makes.
    pub dir: PathBuf,
    /// The device whose name is borrowed.
    pub device: Uuid,
    /// That device's own chain and key.
    pub own: Shown,
}

impl Forger {
    fn hub(&self, name: &str) -> Result<Authority> {
        Authority::of_hub(&self.pki, name)
    }

    fn name(&self) -> String {
        self.device.to_string()
    }

    fn spoilt(&self, spoil: impl FnOnce(&mut CertificateParams)) -> Result<Shown> {
        let mut params = device(&self.name());
        spoil(&mut params);
        self.hub("device-ca")?.sign(&params)
    }

    /// From an authority that is not the one for devices, by what it is.
    pub fn of_others(&self) -> Result<Vec<(&'static str, Shown)>> {
        let (name, root) = (self.name(), self.hub("root")?);
        let foreign = Authority::of_nobody("Lintel device authority")?;
        let foreign_root = Authority::of_nobody("Lintel root")?;
        let below_foreign = Authority::below(&foreign_root, "Lintel device authority")?;
        let mut with_root = below_foreign.sign(&device(&name))?;
        with_root.chain.push(foreign_root.der().clone());
        let mut beside = foreign.sign(&device(&name))?;
        beside.chain[1] = self.hub("device-ca")?.der().clone();
        let own_key = KeyPair::try_from(self.own.key.as_slice())?;
        let self_signed = Shown { chain: vec![device(&name).self_signed(&own_key)?.der().clone()], ..self.own.clone() };
        // A device that plays authority with the key of its own certificate.
        let as_authority = Issuer::new(device(&name), KeyPair::try_from(self.own.key.as_slice())?);
        let key = KeyPair::generate()?;
        let below_device = device(&name).signed_by(&key, &as_authority)?.der().clone();
        let chain = [vec![below_device], self.own.chain.clone()].concat();
        let server = Shown {
            chain: CertificateDer::pem_file_iter(self.pki.join("https.pem"))
                .and_then(Iterator::collect)
                .map_err(|error| anyhow::anyhow!("https.pem: {error}"))?,
            key: KeyPair::from_pem(&std::fs::read_to_string(self.pki.join("https.key"))?)?.serialize_der(),
            versions: TLS13,
        };
        Ok(vec![
            ("foreign authority of the same name", foreign.sign(&device(&name))?),
            ("foreign authority and its root, of the same names", with_root),
            ("foreign authority, the right one shown beside it", beside),
            ("signed by itself", self_signed),
            ("signed by a device", Shown { chain, key: key.serialize_der(), versions: TLS13 }),
            ("signed by the root", root.sign(&device(&name))?),
            ("signed by the authority for servers", self.hub("service-ca")?.sign(&device(&name))?),
            ("the hub's own, of its server", server),
        ])
    }

    /// Signed by the right authority, with one thing wrong.
    pub fn spoilt_ones(&self) -> Result<Vec<(&'static str, Shown)>> {
        let day = Duration::days(1);
        let usage = |usage: Usage| self.spoilt(|params| params.extended_key_usages = vec![usage]);
        let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        unknown.set_criticality(true);
        Ok(vec![
            (
                "expired 40 days ago",
                self.spoilt(|params| {
                    (params.not_before, params.not_after) = (utc() - day * 90, utc() - day * 40);
                })?,
            ),
            (
                "expired 31 days ago",
                self.spoilt(|params| {
                    (params.not_before, params.not_after) = (utc() - day * 60, utc() - day * 31);
                })?,
            ),
            ("begins tomorrow", self.spoilt(|params| params.not_before = utc() + day)?),
            (
                "begins in ten years",
                self.spoilt(|params| {
                    (params.not_before, params.not_after) = (utc() + day * 3650, utc() + day * 3680);
                })?,
            ),
            ("ends before it begins", self.spoilt(|params| params.not_after = utc() - day)?),
            ("for servers alone", usage(Usage::ServerAuth)?),
            ("for code signing alone", usage(Usage::CodeSigning)?),
            ("for e-mail alone", usage(Usage::EmailProtection)?),
            ("for time stamping alone", usage(Usage::TimeStamping)?),
            ("for OCSP alone", usage(Usage::OcspSigning)?),
            ("an unknown critical extension", self.spoilt(|params| params.custom_extensions = vec![unknown])?),
            (
                "an authority's",
                self.spoilt(|params| {
                    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
                })?,
            ),
            ("an authority below the device authority, and its leaf", self.deeper(1)?),
            ("a chain of twenty", self.deeper(18)?),
        ])
    }

    /// A chain of authorities below the device authority.
    fn deeper(&self, authorities: usize) -> Result<Shown> {
        let mut chain = vec![self.hub("device-ca")?];
        for depth in 0..authorities {
            let last = chain.last().context("a chain begins with an authority")?;
            chain.push(Authority::below(last, &format!("authority {depth}"))?);
        }
        let mut shown = chain.last().context("a chain has an end")?.sign(&device(&self.name()))?;
        shown.chain.extend(chain.iter().rev().skip(1).map(|authority| authority.der().clone()));
        Ok(shown)
    }

    /// Right ones, changed or shown wrongly.
    pub fn mishandled(&self) -> Result<Vec<(&'static str, Shown)>> {
        let own = &self.own;
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut bytes = own.chain[0].to_vec();
            change(&mut bytes);
            Shown { chain: vec![CertificateDer::from(bytes), own.chain[1].clone()], ..own.clone() }
        };
        let others_key = KeyPair::generate()?.serialize_der();
        Ok(vec![
            ("with another's key", Shown { key: others_key, ..own.clone() }),
            ("a bit of its signature flipped", changed(|bytes| flip_last(bytes, 3))),
            ("a bit of its name flipped", changed(|bytes| flip_name(bytes))),
            ("cut off in the middle", changed(|bytes| bytes.truncate(bytes.len() / 2))),
            ("bytes behind its end", changed(|bytes| bytes.extend_from_slice(&[0; 8]))),
            ("not a certificate at all", changed(|bytes| *bytes = b"lintel".to_vec())),
            (
                "the authority before the leaf",
                Shown { chain: own.chain.iter().rev().cloned().collect(), ..own.clone() },
            ),
            ("TLS 1.2", Shown { versions: TLS12, ..own.clone() }),
        ])
    }

    /// Weak or old ones that only `openssl` makes, signed by the right authority.
    pub fn weak_ones(&self) -> Result<Vec<(&'static str, Shown)>> {
        Ok(vec![
            (
                "signed with SHA-1",
                self.by_openssl("sha1", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "-sha1", true)?,
            ),
            ("RSA of 1024 bits", self.by_openssl("rsa", &["rsa:1024"], "-sha256", true)?),
        ])
    }

    fn by_openssl(&self, file: &str, kind: &[&str], hash: &str, extended: bool) -> Result<Shown> {
        std::fs::create_dir_all(&self.dir)?;
        let path = |suffix: &str| self.dir.join(format!("{file}.{suffix}"));
        let (key, csr, pem, settings) = (path("key"), path("csr"), path("pem"), path("ext"));
        std::fs::write(
            &settings,
            "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n",
        )?;
        let mut request = Command::new("openssl");
        request.args(["req", "-new", "-nodes", "-newkey"]).args(kind).arg("-subj").arg(format!("/CN={}", self.device));
        process::run(request.arg("-keyout").arg(&key).arg("-out").arg(&csr))?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", hash, "-days", "30", "-in"]).arg(&csr).arg("-out").arg(&pem);
        sign.arg("-CA").arg(self.pki.join("device-ca.pem")).arg("-CAkey").arg(self.pki.join("device-ca.key"));
        if extended {
            sign.arg("-extfile").arg(&settings);
        }
        process::run(&mut sign)?;
        let leaf = CertificateDer::from_pem_file(&pem).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
        ensure!(!leaf.is_empty(), "openssl made no certificate");
        // The chain is judged before the signature: a key that the TLS library cannot use is replaced by any.
        let own = KeyPair::from_pem(&std::fs::read_to_string(&key)?).ok().filter(|_| kind[0] == "ec");
        let key = own.map_or_else(KeyPair::generate, Ok)?.serialize_der();
        Ok(Shown { chain: vec![leaf, self.hub("device-ca")?.der().clone()], key, versions: TLS13 })
    }

    /// Names that are no device's, or look like more than one, signed by the right authority.
    pub fn names(&self) -> Result<Vec<(&'static str, Shown)>> {
        let name = self.name();
        let named = |common_name: &str| self.hub("device-ca")?.sign(&device(common_name));
        Ok(vec![
            ("named *", named("*")?),
            ("named #", named("#")?),
            ("named +", named("+")?),
            ("named as a topic", named(&format!("{name}/up/evt"))?),
            ("named as the hub", named("hub")?),
            ("named with a NUL inside", named(&format!("{name}\0.evil"))?),
            ("named in capitals", named(&name.to_uppercase())?),
            ("named with a space behind", named(&format!("{name} "))?),
            ("named with a line break", named(&format!("{name}\nuser hub"))?),
            ("without a name", self.spoilt(|params| params.distinguished_name = DistinguishedName::new())?),
            (
                "named by a DNS name alone",
                self.spoilt(|params| {
                    params.distinguished_name = DistinguishedName::new();
                    params.subject_alt_names =
                        name.clone().try_into().map(rcgen::SanType::DnsName).into_iter().collect();
                })?,
            ),
            ("an unknown device", named(&Uuid::from_u128(4711).to_string())?),
        ])
    }
}

fn flip_last(bytes: &mut [u8], from_end: usize) {
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
}

/// The last hexadecimal digit of the common name, which stands behind its 36 bytes' length.
fn flip_name(bytes: &mut [u8]) {
    let at = bytes.windows(2).rposition(|pair| pair == [0x0c, 36]);
    if let Some(at) = at {
        bytes[at + 37] ^= 1;
    }
}
