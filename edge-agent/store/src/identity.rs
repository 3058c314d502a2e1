//! Who this device is: its key and certificate, whom it trusts, where the hub is. One directory, replaced as a whole.
//!
//! In: what a claim or a renewal answered. Out: an [`Identity`] whose parts are all there, or an error that names the one
//! that is not. A swap is: write `identity.new`, fsync every file and the directory, exchange it with `identity`, fsync
//! the parent; so that a power cut leaves either the old identity or the new one, never a mixture.
//!
//! Deliberately absent: making keys and requests, checking the chain against a clock, the link keys ([`crate::DeviceKeys`]).

use std::fs;
use std::path::{Path, PathBuf};

use ring::digest;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::files::{self, FileError};

const DIRECTORY: &str = "identity";
const NEW: &str = "identity.new";
const OLD: &str = "identity.old";
const SETTINGS: &str = "identity.json";
const KEY: &str = "device.key";
const CHAIN: &str = "chain.pem";
const ROOT: &str = "root.pem";
/// SHA-256 over the others, hex: a flipped bit in an address or a certificate is said here, not guessed from a failing link.
const DIGEST: &str = "identity.sha256";
const SCHEMA_VERSION: u32 = 1;

/// Where the device's broker listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Host name or address, as in the broker's certificate.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// One hub signing key (HSK, Ed25519), pinned at claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubKey {
    /// How signatures name it.
    pub key_id: String,
    /// The public key, 32 bytes, as hex in the file.
    #[serde(with = "hex_key")]
    pub public_key: [u8; 32],
}

/// A device's identity, as one claim or renewal gave it.
#[derive(Clone)]
pub struct Identity {
    /// Whose device it is.
    pub tenant: Uuid,
    /// The certificate's common name.
    pub device: Uuid,
    /// `https://host:port` of the hub.
    pub hub_url: String,
    /// Where events go.
    pub broker: Broker,
    /// The hub's signing keys; at least one.
    pub hub_keys: Vec<HubKey>,
    /// The hub's signed time at the claim (Unix seconds): a floor for the clock.
    pub signed_time: i64,
    /// The device's private key, PEM (PKCS#8).
    pub key_pem: Zeroizing<String>,
    /// Leaf first, then the device CA, PEM.
    pub chain_pem: String,
    /// The root that everything must end in, PEM.
    pub root_pem: String,
}

/// Everything but key and certificates, as `identity.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    schema_version: u32,
    tenant: Uuid,
    device: Uuid,
    hub_url: String,
    broker: Broker,
    hub_keys: Vec<HubKey>,
    signed_time: i64,
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file lets others read it.
    #[error("device key {path}: mode {mode:04o} lets others read it; run `chmod 600 {path}` and claim the device again if it was exposed", path = .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file of the directory is not there.
    #[error("identity file {path}: missing; claim the device again", path = .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// `identity.json` cannot be read.
    #[error("identity file {path}: not what a claim writes; claim the device again", path = .path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a newer program.
    #[error("identity file {path}: schema version {found}, this program knows {SCHEMA_VERSION}; update the program", path = .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// A PEM file does not hold what it should.
    #[error("identity file {path}: no {expected} in it; claim the device again", path = .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// A field is empty.
    #[error("identity: {field} is empty; claim the device again")]
    Empty {
        /// Which.
        field: &'static str,
    },
    /// The files are not those that were written together.
    #[error("identity {dir}: its files do not match {DIGEST}; claim the device again", dir = .dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Identity {
    /// Loads the identity below `state_dir`; `None` when the device was never claimed.
    ///
    /// A swap that a crash interrupted is finished or undone first. Whether the certificates are valid *now* is for the
    /// caller, who has a clock.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let dir = state_dir.join(DIRECTORY);
        recover(state_dir, &dir)?;
        if !dir.exists() {
            return Ok(None);
        }
        let path = dir.join(KEY);
        let key_pem = Zeroizing::new(read_text(&path)?);
        let mode = files::mode_of(&path)?;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Readable { path, mode });
        }
        let path = dir.join(SETTINGS);
        let settings: Settings = parse_settings(&path, &read_text(&path)?)?;
        let identity = Self {
            tenant: settings.tenant,
            device: settings.device,
            hub_url: settings.hub_url,
            broker: settings.broker,
            hub_keys: settings.hub_keys,
            signed_time: settings.signed_time,
            key_pem,
            chain_pem: read_text(&dir.join(CHAIN))?,
            root_pem: read_text(&dir.join(ROOT))?,
        };
        identity.check(&dir)?;
        // An identity from before there was a digest has none.
        if let Some(written) = files::read_optional(&dir.join(DIGEST))?
            && written != digest_of(&dir)?.as_bytes()
        {
            return Err(IdentityError::Damaged { dir });
        }
        Ok(Some(identity))
    }

    /// Replaces the identity below `state_dir` by this one, durably and at once.
    ///
    /// Checks it first, so that an answer that lacks something never replaces an identity that works.
    pub fn store(&self, state_dir: &Path) -> Result<(), IdentityError> {
        files::create_private_dir(state_dir)?;
        let dir = state_dir.join(DIRECTORY);
        self.check(&dir)?;
        recover(state_dir, &dir)?;
        let new = state_dir.join(NEW);
        files::remove_dir(&new)?;
        files::create_private_dir(&new)?;
        let settings = Settings {
            schema_version: SCHEMA_VERSION,
            tenant: self.tenant,
            device: self.device,
            hub_url: self.hub_url.clone(),
            broker: self.broker.clone(),
            hub_keys: self.hub_keys.clone(),
            signed_time: self.signed_time,
        };
        let settings = serde_json::to_vec_pretty(&settings).expect("plain fields always serialise");
        files::write_new(&new.join(KEY), self.key_pem.as_bytes())?;
        files::write_new(&new.join(CHAIN), self.chain_pem.as_bytes())?;
        files::write_new(&new.join(ROOT), self.root_pem.as_bytes())?;
        files::write_new(&new.join(SETTINGS), &settings)?;
        files::write_new(&new.join(DIGEST), digest_of(&new)?.as_bytes())?;
        files::sync_dir(&new)?;
        swap(state_dir, &new, &dir)?;
        Ok(())
    }

    /// The certificate chain, leaf first.
    ///
    /// # Panics
    /// Never for an identity that was loaded or stored: both check it.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.chain_pem)
    }

    /// The root certificate.
    #[must_use]
    pub fn root(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.root_pem)
    }

    /// The private key.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|_| IdentityError::Pem { path: PathBuf::from(KEY), expected: "private key" })
    }

    fn check(&self, dir: &Path) -> Result<(), IdentityError> {
        if self.key().is_err() {
            return Err(IdentityError::Pem { path: dir.join(KEY), expected: "private key" });
        }
        for (name, pem) in [(CHAIN, &self.chain_pem), (ROOT, &self.root_pem)] {
            if certificates(pem).is_empty() {
                return Err(IdentityError::Pem { path: dir.join(name), expected: "certificate" });
            }
        }
        let fields = [
            ("hub address", self.hub_url.is_empty()),
            ("broker address", self.broker.host.is_empty() || self.broker.port == 0),
            ("list of hub signing keys", self.hub_keys.is_empty()),
            ("tenant id", self.tenant.is_nil()),
            ("device id", self.device.is_nil()),
        ];
        match fields.into_iter().find(|(_, empty)| *empty) {
            Some((field, _)) => Err(IdentityError::Empty { field }),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Identity(device {}, tenant {}, hub {}, ***)", self.device, self.tenant, self.hub_url)
    }
}

/// Puts `new` in the place of `dir`: by one exchange where the file system can, else by way of `identity.old`.
fn swap(state_dir: &Path, new: &Path, dir: &Path) -> Result<(), FileError> {
    if !dir.exists() {
        fs::rename(new, dir).map_err(FileError::at("rename into place", dir))?;
        return files::sync_dir(state_dir);
    }
    if renameat_with(CWD, new, CWD, dir, RenameFlags::EXCHANGE).is_err() {
        // Some file systems cannot exchange. Between these two renames there is no `identity`, which `recover` mends.
        let old = state_dir.join(OLD);
        files::remove_dir(&old)?;
        fs::rename(dir, &old).map_err(FileError::at("rename aside", dir))?;
        fs::rename(new, dir).map_err(FileError::at("rename into place", dir))?;
    }
    files::sync_dir(state_dir)?;
    for leftover in [NEW, OLD] {
        files::remove_dir(&state_dir.join(leftover))?;
    }
    Ok(())
}

/// Mends what a crash inside the two-step swap left: the old identity comes back.
fn recover(state_dir: &Path, dir: &Path) -> Result<(), FileError> {
    let old = state_dir.join(OLD);
    if !dir.exists() && old.exists() {
        fs::rename(&old, dir).map_err(FileError::at("rename back", &old))?;
        files::sync_dir(state_dir)?;
    }
    Ok(())
}

/// The digest of the files of an identity, each with its name and length before it.
fn digest_of(dir: &Path) -> Result<String, IdentityError> {
    let mut context = digest::Context::new(&digest::SHA256);
    for name in [KEY, CHAIN, ROOT, SETTINGS] {
        let text = Zeroizing::new(read_text(&dir.join(name))?);
        context.update(name.as_bytes());
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    Ok(hex::encode(context.finish()))
}

fn read_text(path: &Path) -> Result<String, IdentityError> {
    let bytes = files::read_optional(path)?.ok_or_else(|| IdentityError::Missing { path: path.to_path_buf() })?;
    String::from_utf8(bytes).map_err(|_| IdentityError::Pem { path: path.to_path_buf(), expected: "text" })
}

fn parse_settings(path: &Path, text: &str) -> Result<Settings, IdentityError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u32,
    }
    let bad = |source| IdentityError::Settings { path: path.to_path_buf(), source };
    let Versioned { schema_version } = serde_json::from_str(text).map_err(bad)?;
    if schema_version != SCHEMA_VERSION {
        return Err(IdentityError::Version { path: path.to_path_buf(), found: schema_version });
    }
    serde_json::from_str(text).map_err(bad)
}

/// The certificates of a PEM text; none when any of it is malformed.
fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap_or_default()
}

mod hex_key {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(key: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(key))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut key = [0; 32];
        hex::decode_to_slice(&text, &mut key).map_err(|_| D::Error::custom("expected 64 hex digits"))?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn pem(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    }

    fn identity(device: u128) -> Identity {
        Identity {
            tenant: Uuid::from_u128(1),
            device: Uuid::from_u128(device),
            hub_url: "https://hub.example:8443".into(),
            broker: Broker { host: "hub.example".into(), port: 8883 },
            hub_keys: vec![HubKey { key_id: "hsk-1".into(), public_key: [5; 32] }],
            signed_time: 1_790_000_000,
            key_pem: Zeroizing::new(pem("PRIVATE KEY")),
            chain_pem: pem("CERTIFICATE").repeat(2),
            root_pem: pem("CERTIFICATE"),
        }
    }

    #[test]
    fn an_identity_comes_back_as_it_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_none());
        identity(2).store(dir.path()).unwrap();
        let loaded = Identity::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.device, Uuid::from_u128(2));
        assert_eq!(loaded.hub_keys, identity(2).hub_keys);
        assert_eq!((loaded.chain().len(), loaded.root().len()), (2, 1));
        assert_eq!(files::mode_of(&dir.path().join("identity/device.key")).unwrap(), 0o600);
    }

    #[test]
    fn a_second_identity_replaces_the_first_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        identity(2).store(dir.path()).unwrap();
        identity(3).store(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().unwrap().device, Uuid::from_u128(3));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_interrupted_two_step_swap_gives_the_old_identity_back() {
        let dir = tempfile::tempdir().unwrap();
        identity(2).store(dir.path()).unwrap();
        fs::rename(dir.path().join(DIRECTORY), dir.path().join(OLD)).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().unwrap().device, Uuid::from_u128(2));
    }

    #[test]
    fn a_half_written_new_directory_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        identity(2).store(dir.path()).unwrap();
        fs::create_dir(dir.path().join(NEW)).unwrap();
        fs::write(dir.path().join(NEW).join(KEY), "half").unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().unwrap().device, Uuid::from_u128(2));
        identity(4).store(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().unwrap().device, Uuid::from_u128(4));
    }

    #[test]
    fn every_missing_or_broken_file_is_named() {
        for name in [KEY, CHAIN, ROOT, SETTINGS] {
            let dir = tempfile::tempdir().unwrap();
            identity(2).store(dir.path()).unwrap();
            let path = dir.path().join(DIRECTORY).join(name);
            fs::write(&path, "rubbish").unwrap();
            assert!(Identity::load(dir.path()).unwrap_err().to_string().contains(name));
            fs::remove_file(&path).unwrap();
            assert!(Identity::load(dir.path()).unwrap_err().to_string().contains(name));
        }
    }

    #[test]
    fn a_change_that_still_reads_well_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        identity(2).store(dir.path()).unwrap();
        let path = dir.path().join("identity/identity.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("8883", "8884")).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Damaged { .. })));
        fs::write(&path, text).unwrap();
        fs::remove_file(dir.path().join("identity").join(DIGEST)).unwrap();
        assert!(Identity::load(dir.path()).unwrap().is_some(), "one from before there was a digest");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        identity(2).store(dir.path()).unwrap();
        let path = dir.path().join("identity/device.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Readable { .. })));
    }

    #[test]
    fn an_incomplete_identity_does_not_replace_a_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        identity(2).store(dir.path()).unwrap();
        let mut incomplete = identity(3);
        incomplete.hub_keys.clear();
        assert!(matches!(incomplete.store(dir.path()), Err(IdentityError::Empty { .. })));
        assert_eq!(Identity::load(dir.path()).unwrap().unwrap().device, Uuid::from_u128(2));
    }

    #[test]
    fn a_newer_schema_is_refused_by_its_number() {
        let dir = tempfile::tempdir().unwrap();
        identity(2).store(dir.path()).unwrap();
        let path = dir.path().join("identity/identity.json");
        let text = fs::read_to_string(&path).unwrap().replace("\"schema_version\": 1", "\"schema_version\": 2");
        fs::write(&path, text).unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Version { found: 2, .. })));
    }

    #[test]
    fn debug_output_shows_no_key() {
        assert!(!format!("{:?}", identity(2)).contains("PRIVATE"));
    }
}
