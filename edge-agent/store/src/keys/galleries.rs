//! The keys of galleries: those of the present epoch, and for a while the digest keys of the ones before.

use gallery_log::keys::KEY_LEN;
use gallery_log::{DigestKey, GalleryId};
use zeroize::Zeroizing;

use super::{DeviceKeys, GalleryKeys, KeysError, gallery_context, gallery_name};

/// What the file of a gallery's keys holds: `epoch (u32 BE) ‖ GDK ‖ CK`, then `epoch ‖ GDK` of each epoch before that a store may
/// still be of.
struct HeldKeys {
    keys: GalleryKeys,
    former: Vec<(u32, DigestKey)>,
}

impl HeldKeys {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk::<4>()?;
        let (digest, rest) = rest.split_first_chunk::<KEY_LEN>()?;
        let (credential, rest) = rest.split_first_chunk::<KEY_LEN>()?;
        let keys = GalleryKeys {
            epoch: u32::from_be_bytes(*epoch),
            digest: DigestKey::new(*digest),
            credential: Zeroizing::new(*credential),
        };
        let (former, rest) = rest.as_chunks::<{ 4 + KEY_LEN }>();
        let former = former.iter().map(|one| {
            let (epoch, digest) = one.split_first_chunk::<4>()?;
            Some((u32::from_be_bytes(*epoch), DigestKey::new(digest.try_into().ok()?)))
        });
        rest.is_empty().then_some(Self { keys, former: former.collect::<Option<_>>()? })
    }
}

impl DeviceKeys {
    /// A gallery's keys; `None` when the gallery was never assigned to this device.
    pub fn gallery(&self, gallery: GalleryId) -> Result<Option<GalleryKeys>, KeysError> {
        Ok(self.held_of(gallery)?.map(|held| held.keys))
    }

    /// Keeps a gallery's keys. A lower epoch than the present one is refused: the caller must raise an alarm.
    ///
    /// The digest keys of the epochs before stay beside them, until the gallery's store has followed or begins anew.
    pub fn set_gallery(&self, gallery: GalleryId, keys: &GalleryKeys) -> Result<(), KeysError> {
        let present = match self.held_of(gallery) {
            Err(KeysError::Unsealable { .. } | KeysError::Format { .. }) => None,
            other => other?,
        };
        let mut former = Vec::new();
        if let Some(present) = present {
            let HeldKeys { keys: before, former: older } = present;
            if keys.epoch < before.epoch {
                return Err(KeysError::OlderEpoch { what: "gallery", offered: keys.epoch, present: before.epoch });
            }
            former = older;
            if before.epoch < keys.epoch {
                former.push((before.epoch, before.digest));
            }
        }
        self.hold(gallery, keys, &former)
    }

    /// The digest key of an epoch before the present one, while it is kept.
    pub(crate) fn former_digest(&self, gallery: GalleryId, epoch: u32) -> Result<Option<DigestKey>, KeysError> {
        let held = match self.held_of(gallery) {
            Err(KeysError::Unsealable { .. } | KeysError::Format { .. }) => None,
            other => other?,
        };
        Ok(held.and_then(|held| held.former.into_iter().find(|former| former.0 == epoch)).map(|former| former.1))
    }

    /// Destroys the digest keys of the epochs before the present one.
    pub(crate) fn forget_former(&self, gallery: GalleryId) -> Result<(), KeysError> {
        match self.held_of(gallery)? {
            Some(held) if !held.former.is_empty() => self.hold(gallery, &held.keys, &[]),
            Some(_) | None => Ok(()),
        }
    }

    fn hold(&self, gallery: GalleryId, keys: &GalleryKeys, former: &[(u32, DigestKey)]) -> Result<(), KeysError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 + 2 * KEY_LEN + former.len() * (4 + KEY_LEN)));
        bytes.extend_from_slice(&keys.epoch.to_be_bytes());
        bytes.extend_from_slice(keys.digest.expose());
        bytes.extend_from_slice(keys.credential.as_ref());
        for (epoch, digest) in former {
            bytes.extend_from_slice(&epoch.to_be_bytes());
            bytes.extend_from_slice(digest.expose());
        }
        self.wrap_file(&gallery_name(gallery), &gallery_context(gallery), &bytes)
    }

    fn held_of(&self, gallery: GalleryId) -> Result<Option<HeldKeys>, KeysError> {
        let path = self.wrapped_path(&gallery_name(gallery));
        let Some(bytes) = self.unwrap_file(&path, &gallery_context(gallery))? else { return Ok(None) };
        HeldKeys::decode(&bytes).map(Some).ok_or(KeysError::Format { path })
    }
}
