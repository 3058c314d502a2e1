//! The device's own keys: one store key (DSK), and every other key wrapped under it.
//!
//! In: a directory, and the systemd credential directory where there is one. Out: the keys that the outbox, the gallery
//! stores and the link need, made at first use, kept as sealed files that are replaced whole.
//!
//! The DSK is the systemd credential `device-key` (which systemd can bind to a TPM), else a file of mode 0600 that is
//! made at first start; [`DeviceKeys::source`] says which. A DSK file that others may read is refused, since it would
//! protect nothing.
//!
//! Deliberately absent: the device's certificate key ([`crate::Identity`]) and any key's use.

mod galleries;

use std::fs;
use std::path::{Path, PathBuf};

use gallery_log::keys::{KEY_LEN, KeyBytes, random_key};
use gallery_log::{DigestKey, GalleryId, Purpose, SealContext, SealError, SealKey, TenantId};
use ring::hmac;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::seal::SealingError;

/// The name under which the service unit loads the credential.
const CREDENTIAL: &str = "device-key";
const DSK_FILE: &str = "device-store.key";
const WRAPPED_SUFFIX: &str = "sealed";
const FORMAT: u8 = 1;

const WATERMARK: Purpose = Purpose::new("device.watermark-key");
const OUTBOX: Purpose = Purpose::new("device.outbox-key");
const LINK: Purpose = Purpose::new("device.link-keys");
const GALLERY: Purpose = Purpose::new("device.gallery-keys");

/// Where the device store key comes from; `doctor` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A systemd credential (which may be sealed by the TPM).
    SystemdCredential(PathBuf),
    /// A file of mode 0600.
    File(PathBuf),
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SystemdCredential(path) => write!(out, "systemd credential {}", path.display()),
            Self::File(path) => write!(out, "file {} (not bound to this machine's hardware)", path.display()),
        }
    }
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Group or others may read the DSK.
    #[error("device store key {path}: mode {mode:04o} lets others read it; run `chmod 600 {path}` and consider the key known", path = .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The DSK has a wrong length.
    #[error("device store key {path}: {found} bytes, expected {KEY_LEN}; put the right file back, or remove the whole directory and claim the device again", path = .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: usize,
    },
    /// Wrapped keys exist, the key that wraps them does not.
    #[error("device store key {path}: missing, although keys wrapped under it exist; put it back, or remove the whole directory and claim the device again", path = .path.display())]
    Gone {
        /// Where it should be.
        path: PathBuf,
    },
    /// A wrapped key does not open under this DSK.
    #[error("key file {path}: does not open under this device's store key (damaged, or from another device)", path = .path.display())]
    Unsealable {
        /// The file.
        path: PathBuf,
        /// What was wrong with the seal.
        #[source]
        source: SealError,
    },
    /// A wrapped key opened, but holds something else.
    #[error("key file {path}: its content has an unknown format; update the program", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// Keys of an older epoch were offered.
    #[error("{what} epoch {offered} is not above the present one, {present}; refused")]
    OlderEpoch {
        /// `link` or `gallery`.
        what: &'static str,
        /// The epoch offered.
        offered: u32,
        /// The epoch held.
        present: u32,
    },
    /// The operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// No randomness.
    #[error(transparent)]
    Sealing(#[from] SealingError),
}

/// What an outbox needs: the key of its entries and the key of its watermark.
pub struct OutboxKeys {
    pub(crate) entries: SealKey,
    pub(crate) watermark: hmac::Key,
}

/// The keys of one gallery: the digest key and the credential key, of one epoch.
#[derive(Clone)]
pub struct GalleryKeys {
    /// The gallery's epoch; a new digest or credential key means a new epoch.
    pub epoch: u32,
    /// GDK: keys the leaves of the digest.
    pub digest: DigestKey,
    /// CK: keys the hashes of PINs, cards and codes.
    pub credential: KeyBytes,
}

/// One link key and its epoch. K_up and K_down are derived from it by `wire-contract`.
#[derive(Clone)]
pub struct LinkKey {
    /// Grows with each renewal.
    pub epoch: u32,
    /// LK.
    pub key: KeyBytes,
}

/// The link keys that the device holds.
#[derive(Clone)]
pub struct LinkKeys {
    /// The newest.
    pub current: LinkKey,
    /// The one before, which the hub may still use for a day.
    pub previous: Option<LinkKey>,
}

/// The directory of keys. Clones see the same files; every setter writes through to disk before it returns.
#[derive(Clone)]
pub struct DeviceKeys {
    dir: PathBuf,
    dsk: SealKey,
    source: KeySource,
}

impl DeviceKeys {
    /// Opens the key directory, making the device store key at first start.
    ///
    /// `credentials_dir` is the value of systemd's `CREDENTIALS_DIRECTORY`, if set. When it holds `device-key`
    /// (exactly 32 bytes), that is the DSK; else `dir/device-store.key` is.
    pub fn open(dir: &Path, credentials_dir: Option<&Path>) -> Result<Self, KeysError> {
        files::create_private_dir(dir)?;
        if let Some(path) = credentials_dir.map(|from| from.join(CREDENTIAL)).filter(|path| path.exists()) {
            // systemd gives the service's group read access at times; anybody else must have none.
            let dsk = read_dsk(&path, 0o007)?;
            return Ok(Self { dir: dir.to_path_buf(), dsk, source: KeySource::SystemdCredential(path) });
        }
        let path = dir.join(DSK_FILE);
        if !path.exists() {
            if has_wrapped_keys(dir)? {
                return Err(KeysError::Gone { path });
            }
            let key = random_key().map_err(SealingError::from)?;
            files::write_atomically(&path, key.as_ref())?;
        }
        let dsk = read_dsk(&path, 0o077)?;
        Ok(Self { dir: dir.to_path_buf(), dsk, source: KeySource::File(path) })
    }

    /// Where the DSK comes from.
    #[must_use]
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// The outbox's keys, made at first use.
    ///
    /// A damaged key file is replaced by a fresh key: the outbox then finds that it cannot trust its file, sets it aside,
    /// and begins a new stream with an alarm, which is better than a device that never records again.
    pub fn outbox(&self) -> Result<OutboxKeys, KeysError> {
        let entries = SealKey::new(*self.own_key("outbox", OUTBOX)?);
        Ok(OutboxKeys { entries, watermark: self.watermark()? })
    }

    /// The key of the watermarks, made at first use; a damaged file is replaced as in [`DeviceKeys::outbox`].
    pub(crate) fn watermark(&self) -> Result<hmac::Key, KeysError> {
        self.own_key("watermark", WATERMARK).map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// The link keys; `None` before the first link.
    pub fn link(&self) -> Result<Option<LinkKeys>, KeysError> {
        let path = self.wrapped_path("link");
        let Some(bytes) = self.unwrap_file(&path, &device_context(LINK))? else { return Ok(None) };
        let mut keys = bytes.chunks_exact(4 + KEY_LEN).map(link_key);
        match (keys.next(), keys.next()) {
            (Some(current), previous) => Ok(Some(LinkKeys { current, previous })),
            (None, _) => Err(KeysError::Format { path }),
        }
    }

    /// Keeps a new link key; the present one becomes the previous. The same epoch again changes nothing, a lower one is refused.
    pub fn set_link(&self, epoch: u32, key: &[u8; KEY_LEN]) -> Result<(), KeysError> {
        // An unreadable file is replaced: the hub has just given us what was in it.
        let present = match self.link() {
            Err(KeysError::Unsealable { .. } | KeysError::Format { .. }) => None,
            other => other?,
        };
        if let Some(present) = &present {
            if epoch == present.current.epoch && *present.current.key == *key {
                return Ok(());
            }
            if epoch <= present.current.epoch {
                return Err(KeysError::OlderEpoch { what: "link", offered: epoch, present: present.current.epoch });
            }
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * (4 + KEY_LEN)));
        bytes.extend_from_slice(&epoch.to_be_bytes());
        bytes.extend_from_slice(key);
        if let Some(present) = present {
            bytes.extend_from_slice(&present.current.epoch.to_be_bytes());
            bytes.extend_from_slice(present.current.key.as_ref());
        }
        self.wrap_file("link", &device_context(LINK), &bytes)
    }

    /// The galleries whose keys are held, in no particular order.
    pub fn galleries(&self) -> Result<Vec<GalleryId>, KeysError> {
        let prefix = "gallery-";
        let names = names_in(&self.dir)?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.strip_suffix(&format!(".{WRAPPED_SUFFIX}")))
            .filter_map(|id| Uuid::parse_str(id).ok())
            .map(GalleryId)
            .collect())
    }

    /// Destroys a gallery's keys, e.g. when it is no longer assigned.
    pub fn destroy_gallery(&self, gallery: GalleryId) -> Result<(), KeysError> {
        self.destroy_snapshot(gallery)?;
        Ok(files::destroy_file(&self.wrapped_path(&gallery_name(gallery)))?)
    }

    /// Destroys the link keys and every gallery's keys: a re-claim gives new ones.
    pub fn forget_link_and_galleries(&self) -> Result<(), KeysError> {
        files::destroy_file(&self.wrapped_path("link"))?;
        for gallery in self.galleries()? {
            self.destroy_gallery(gallery)?;
        }
        Ok(())
    }

    /// The snapshot of a gallery that is being fetched, and the key of its chunks; `None` when none is.
    pub(crate) fn snapshot(&self, gallery: GalleryId) -> Result<Option<(Uuid, SealKey)>, KeysError> {
        let path = self.wrapped_path(&snapshot_name(gallery));
        let Some(bytes) = self.unwrap_file(&path, &snapshot_context(gallery))? else { return Ok(None) };
        crate::snapshot::decode_key(&bytes).map(Some).ok_or(KeysError::Format { path })
    }

    pub(crate) fn set_snapshot(&self, gallery: GalleryId, id: Uuid, key: &[u8; KEY_LEN]) -> Result<(), KeysError> {
        let bytes = crate::snapshot::encode_key(id, key);
        self.wrap_file(&snapshot_name(gallery), &snapshot_context(gallery), &bytes)
    }

    pub(crate) fn destroy_snapshot(&self, gallery: GalleryId) -> Result<(), KeysError> {
        Ok(files::destroy_file(&self.wrapped_path(&snapshot_name(gallery)))?)
    }

    /// The store key of one generation of a gallery store; `None` when it was destroyed.
    pub(crate) fn store_key(&self, gallery: GalleryId, generation: u64) -> Result<Option<SealKey>, KeysError> {
        let path = self.wrapped_path(&store_name(gallery, generation));
        let Some(bytes) = self.unwrap_file(&path, &store_context(gallery, generation))? else { return Ok(None) };
        let key: [u8; KEY_LEN] = bytes.as_slice().try_into().map_err(|_| KeysError::Format { path })?;
        Ok(Some(SealKey::new(key)))
    }

    pub(crate) fn make_store_key(&self, gallery: GalleryId, generation: u64) -> Result<SealKey, KeysError> {
        let key = SealKey::random().map_err(SealingError::from)?;
        self.wrap_file(&store_name(gallery, generation), &store_context(gallery, generation), key.expose())?;
        Ok(key)
    }

    pub(crate) fn destroy_store_key(&self, gallery: GalleryId, generation: u64) -> Result<(), KeysError> {
        Ok(files::destroy_file(&self.wrapped_path(&store_name(gallery, generation)))?)
    }

    /// The generations of a gallery store for which a key exists.
    pub(crate) fn store_generations(&self, gallery: GalleryId) -> Result<Vec<u64>, KeysError> {
        let prefix = format!("store-{gallery}-");
        let names = names_in(&self.dir)?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix)?.strip_suffix(&format!(".{WRAPPED_SUFFIX}"))?.parse().ok())
            .collect())
    }

    /// A key that this device makes for itself, at first use.
    fn own_key(&self, name: &str, purpose: Purpose) -> Result<KeyBytes, KeysError> {
        let path = self.wrapped_path(name);
        match self.unwrap_file(&path, &device_context(purpose)) {
            Ok(Some(bytes)) => match <[u8; KEY_LEN]>::try_from(bytes.as_slice()) {
                Ok(key) => return Ok(Zeroizing::new(key)),
                Err(_) => tracing::error!(path = %path.display(), "key file has a wrong length; a new key is made"),
            },
            Ok(None) => {}
            Err(KeysError::Unsealable { source, .. }) => {
                tracing::error!(path = %path.display(), error = %source, "key file cannot be opened; a new key is made");
            }
            Err(error) => return Err(error),
        }
        let key = random_key().map_err(SealingError::from)?;
        self.wrap_file(name, &device_context(purpose), key.as_ref())?;
        Ok(key)
    }

    fn wrapped_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{WRAPPED_SUFFIX}"))
    }

    fn wrap_file(&self, name: &str, context: &SealContext<'_>, secret: &[u8]) -> Result<(), KeysError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(1 + secret.len()));
        plain.push(FORMAT);
        plain.extend_from_slice(secret);
        let sealed = self.dsk.seal(context, &plain).map_err(SealingError::from)?;
        Ok(files::write_atomically(&self.wrapped_path(name), &sealed)?)
    }

    fn unwrap_file(&self, path: &Path, context: &SealContext<'_>) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
        let Some(sealed) = files::read_optional(path)? else { return Ok(None) };
        let plain = self
            .dsk
            .open(context, &sealed)
            .map_err(|source| KeysError::Unsealable { path: path.to_path_buf(), source })?;
        match plain.split_first() {
            Some((&FORMAT, secret)) => Ok(Some(Zeroizing::new(secret.to_vec()))),
            _ => Err(KeysError::Format { path: path.to_path_buf() }),
        }
    }
}

impl std::fmt::Debug for DeviceKeys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "DeviceKeys({}, ***)", self.source)
    }
}

fn read_dsk(path: &Path, forbidden: u32) -> Result<SealKey, KeysError> {
    let mode = files::mode_of(path)?;
    if mode & forbidden != 0 {
        return Err(KeysError::Readable { path: path.to_path_buf(), mode });
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(FileError::at("read", path))?);
    let key: [u8; KEY_LEN] =
        bytes.as_slice().try_into().map_err(|_| KeysError::Length { path: path.to_path_buf(), found: bytes.len() })?;
    Ok(SealKey::new(key))
}

fn link_key(bytes: &[u8]) -> LinkKey {
    let (epoch, key) = bytes.split_first_chunk::<4>().expect("the caller cuts chunks of 36 bytes");
    let key: [u8; KEY_LEN] = key.try_into().expect("the caller cuts chunks of 36 bytes");
    LinkKey { epoch: u32::from_be_bytes(*epoch), key: Zeroizing::new(key) }
}

fn device_context(purpose: Purpose) -> SealContext<'static> {
    SealContext::new(purpose, TenantId(Uuid::nil()), Uuid::nil(), 0)
}

fn gallery_context(gallery: GalleryId) -> SealContext<'static> {
    SealContext::new(GALLERY, TenantId(Uuid::nil()), gallery.0, 0)
}

fn snapshot_context(gallery: GalleryId) -> SealContext<'static> {
    SealContext::new(Purpose::SNAPSHOT_KEY, TenantId(Uuid::nil()), gallery.0, 0)
}

fn snapshot_name(gallery: GalleryId) -> String {
    format!("snapshot-{gallery}")
}

fn store_context(gallery: GalleryId, generation: u64) -> SealContext<'static> {
    SealContext::new(Purpose::STORE_KEY, TenantId(Uuid::nil()), gallery.0, generation)
}

fn gallery_name(gallery: GalleryId) -> String {
    format!("gallery-{gallery}")
}

fn store_name(gallery: GalleryId, generation: u64) -> String {
    format!("store-{gallery}-{generation}")
}

fn has_wrapped_keys(dir: &Path) -> Result<bool, FileError> {
    Ok(names_in(dir)?.iter().any(|name| name.ends_with(&format!(".{WRAPPED_SUFFIX}"))))
}

fn names_in(dir: &Path) -> Result<Vec<String>, FileError> {
    let entries = fs::read_dir(dir).map_err(FileError::at("list", dir))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn gallery() -> GalleryId {
        GalleryId(Uuid::from_u128(7))
    }

    fn gallery_keys(epoch: u32) -> GalleryKeys {
        GalleryKeys { epoch, digest: DigestKey::new([1; 32]), credential: Zeroizing::new([2; 32]) }
    }

    #[test]
    fn keys_made_once_come_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = DeviceKeys::open(dir.path(), None).unwrap().outbox().unwrap().entries.id();
        let second = DeviceKeys::open(dir.path(), None).unwrap().outbox().unwrap().entries.id();
        assert_eq!(first, second);
    }

    #[test]
    fn a_store_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        DeviceKeys::open(dir.path(), None).unwrap();
        let path = dir.path().join(DSK_FILE);
        assert_eq!(files::mode_of(&path).unwrap(), 0o600);
        for mode in [0o640, 0o604, 0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = DeviceKeys::open(dir.path(), None).unwrap_err();
            assert!(matches!(error, KeysError::Readable { .. }), "{error}");
            assert!(error.to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn the_systemd_credential_comes_first_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = tempfile::tempdir().unwrap();
        fs::write(credentials.path().join(CREDENTIAL), [9; 32]).unwrap();
        fs::set_permissions(credentials.path().join(CREDENTIAL), fs::Permissions::from_mode(0o440)).unwrap();
        let keys = DeviceKeys::open(dir.path(), Some(credentials.path())).unwrap();
        assert!(matches!(keys.source(), KeySource::SystemdCredential(_)));
        assert!(!dir.path().join(DSK_FILE).exists());
    }

    #[test]
    fn a_credential_of_a_wrong_length_is_refused() {
        let credentials = tempfile::tempdir().unwrap();
        fs::write(credentials.path().join(CREDENTIAL), [9; 31]).unwrap();
        fs::set_permissions(credentials.path().join(CREDENTIAL), fs::Permissions::from_mode(0o400)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = DeviceKeys::open(dir.path(), Some(credentials.path())).unwrap_err();
        assert!(matches!(error, KeysError::Length { found: 31, .. }));
    }

    #[test]
    fn a_lost_store_key_is_not_silently_replaced() {
        let dir = tempfile::tempdir().unwrap();
        DeviceKeys::open(dir.path(), None).unwrap().outbox().unwrap();
        fs::remove_file(dir.path().join(DSK_FILE)).unwrap();
        assert!(matches!(DeviceKeys::open(dir.path(), None), Err(KeysError::Gone { .. })));
    }

    #[test]
    fn link_keys_keep_one_predecessor_and_never_go_back() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(dir.path(), None).unwrap();
        assert!(keys.link().unwrap().is_none());
        for epoch in 1..=3 {
            keys.set_link(epoch, &[u8::try_from(epoch).unwrap(); 32]).unwrap();
        }
        let link = keys.link().unwrap().unwrap();
        assert_eq!((link.current.epoch, link.previous.unwrap().epoch), (3, 2));
        keys.set_link(3, &[3; 32]).unwrap();
        assert!(matches!(keys.set_link(2, &[2; 32]), Err(KeysError::OlderEpoch { .. })));
        assert!(matches!(keys.set_link(3, &[4; 32]), Err(KeysError::OlderEpoch { .. })));
    }

    #[test]
    fn gallery_keys_never_go_back_an_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(dir.path(), None).unwrap();
        keys.set_gallery(gallery(), &gallery_keys(5)).unwrap();
        assert_eq!(keys.gallery(gallery()).unwrap().unwrap().epoch, 5);
        assert!(matches!(keys.set_gallery(gallery(), &gallery_keys(4)), Err(KeysError::OlderEpoch { .. })));
        assert_eq!(keys.galleries().unwrap(), [gallery()]);
        keys.forget_link_and_galleries().unwrap();
        assert!(keys.gallery(gallery()).unwrap().is_none());
    }

    #[test]
    fn a_key_file_under_another_name_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(dir.path(), None).unwrap();
        keys.make_store_key(gallery(), 1).unwrap();
        fs::copy(keys.wrapped_path(&store_name(gallery(), 1)), keys.wrapped_path(&store_name(gallery(), 2))).unwrap();
        assert!(keys.store_key(gallery(), 1).unwrap().is_some());
        assert!(matches!(keys.store_key(gallery(), 2), Err(KeysError::Unsealable { .. })));
    }

    #[test]
    fn no_key_file_shows_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(dir.path(), None).unwrap();
        keys.set_link(1, &[0xab; 32]).unwrap();
        let bytes = fs::read(keys.wrapped_path("link")).unwrap();
        assert!(!bytes.windows(8).any(|window| window == [0xab; 8]));
        assert_eq!(files::mode_of(&keys.wrapped_path("link")).unwrap(), 0o600);
    }
}
