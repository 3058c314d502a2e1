//! The one way in which Lintel encrypts: AES-256-GCM, bound to what the bytes are and where they belong.
//!
//! In: a [`SealKey`], plaintext, and a [`SealContext`] that names purpose, tenant, object and revision (templates add
//! person, space and row; MQTT adds the topic). Out: `0x01 ‖ key id (16) ‖ nonce (12, random) ‖ ciphertext ‖ tag (16)`.
//! A seal that is moved to another row, tenant, revision or topic does not open.
//!
//! Deliberately absent: finding the key for a key id ([`key_id`] tells which one is needed), and compression.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::ids::{GalleryId, TenantId};
use crate::keys::{self, KEY_LEN, KeyBytes, NoRandomness};
use crate::lengths::push_field;

/// The first byte of every seal of this format.
pub const SEAL_VERSION: u8 = 1;
/// How many bytes a seal is longer than its plaintext: version, key id, nonce and tag.
pub const SEAL_OVERHEAD: usize = HEADER_LEN + TAG_LEN;

const AAD_LABEL: &[u8] = b"lintel.seal.v1";
/// What the key for repeatable nonces is derived by.
const REPEATABLE_NONCE: &[u8] = b"lintel.seal.repeatable.v1";
const KEY_ID_LEN: usize = 16;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;

/// Names a key without revealing it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KEY_ID_LEN]);

impl KeyId {
    /// The id of a key is taken from the key itself, so that no table can pair them wrongly:
    /// the first 16 bytes of HMAC-SHA256(key, "lintel.key-id.v1").
    fn of(key: &[u8; KEY_LEN]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"lintel.key-id.v1");
        let (id, _) = tag.as_ref().split_first_chunk().expect("an HMAC-SHA256 tag has 32 bytes, an id 16");
        Self(*id)
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What sealed bytes are for. The word goes into the additional data, so a seal made for one use never opens as another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Purpose(&'static str);

impl Purpose {
    /// A tenant key under the master key.
    pub const TENANT_KEY: Self = Self::new("key.tenant");
    /// A person's key under a tenant key.
    pub const PERSON_KEY: Self = Self::new("key.person");
    /// A gallery's digest key (GDK).
    pub const DIGEST_KEY: Self = Self::new("key.gallery-digest");
    /// A gallery's credential key (CK).
    pub const CREDENTIAL_KEY: Self = Self::new("key.gallery-credential");
    /// A device's link key (LK).
    pub const LINK_KEY: Self = Self::new("key.link");
    /// A tenant's rotation seed for one space (RS).
    pub const ROTATION_SEED: Self = Self::new("key.rotation-seed");
    /// A tenant's blind-index key (BI).
    pub const BLIND_INDEX_KEY: Self = Self::new("key.blind-index");
    /// A webhook endpoint's signing secret.
    pub const WEBHOOK_SECRET: Self = Self::new("webhook.secret");
    /// The body of a person, credential or rule record, at rest at the hub.
    pub const RECORD_BODY: Self = Self::new("record.body");
    /// The body of a template record, at rest at the hub. Always with a [`TemplateRow`].
    pub const TEMPLATE: Self = Self::new("template");
    /// The body of a negative anchor's record, at rest at the hub. Always with a [`TemplateRow`].
    pub const ANCHOR: Self = Self::new("anchor");
    /// A person's name, e-mail or other text about them.
    pub const PERSON_FIELD: Self = Self::new("person.field");
    /// An enrolment picture.
    pub const PICTURE: Self = Self::new("person.picture");
    /// A gallery store key (SK) under the device store key.
    pub const STORE_KEY: Self = Self::new("device.store-key");
    /// Any other key that the device store key wraps.
    pub const DEVICE_KEY: Self = Self::new("device.key");
    /// A record in the edge's gallery store.
    pub const STORED_RECORD: Self = Self::new("store.record");
    /// An event in the edge's outbox.
    pub const OUTBOX_ENTRY: Self = Self::new("store.outbox");
    /// The payload of an MQTT message to a device. Always with a topic.
    pub const MQTT_DOWN: Self = Self::new("mqtt.down");
    /// A snapshot's own key.
    pub const SNAPSHOT_KEY: Self = Self::new("key.snapshot");
    /// A chunk of a gallery snapshot.
    pub const SNAPSHOT: Self = Self::new("snapshot");

    /// A purpose of one's own. Choose a word that no other use has: it must never change afterwards.
    pub const fn new(word: &'static str) -> Self {
        Self(word)
    }

    /// The word as it enters the additional data.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Where a sealed template belongs; part of the additional data of templates only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TemplateRow<'a> {
    /// The person whom the template describes.
    pub person: Uuid,
    /// The embedding space in which the template was made.
    pub space_id: &'a str,
    /// The row that holds it.
    pub row: Uuid,
}

/// Where a chunk of a snapshot belongs; part of the additional data of chunks only. The seal's object is the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotPlace {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version that the snapshot shows.
    pub version: u64,
    /// The chunk's number, from 0.
    pub chunk: u32,
}

/// What a seal is bound to. All of it must be the same when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealContext<'a> {
    /// What the bytes are for.
    pub purpose: Purpose,
    /// Whose they are; [`Uuid::nil`] for what belongs to the installation or to a device itself.
    pub tenant: TenantId,
    /// The object that they are (part of): a person, a record, a device, a key.
    pub object: Uuid,
    /// The object's revision, key version or link epoch.
    pub revision: u64,
    /// For templates: the row that holds them.
    pub template: Option<TemplateRow<'a>>,
    /// For MQTT: the topic that carries them.
    pub topic: Option<&'a str>,
    /// For chunks of snapshots: which.
    pub place: Option<SnapshotPlace>,
}

impl<'a> SealContext<'a> {
    /// A context without template row and topic.
    pub const fn new(purpose: Purpose, tenant: TenantId, object: Uuid, revision: u64) -> Self {
        Self { purpose, tenant, object, revision, template: None, topic: None, place: None }
    }

    /// The same context, bound to a template's row.
    pub const fn with_template(mut self, row: TemplateRow<'a>) -> Self {
        self.template = Some(row);
        self
    }

    /// The same context, bound to an MQTT topic.
    pub const fn with_topic(mut self, topic: &'a str) -> Self {
        self.topic = Some(topic);
        self
    }

    /// The same context, bound to a chunk of a snapshot.
    pub const fn with_place(mut self, place: SnapshotPlace) -> Self {
        self.place = Some(place);
        self
    }

    /// The additional data: each field with its length (u32, big-endian) in front.
    ///
    /// Five fields always; three more for a template; one more for a topic; two more for a chunk of a snapshot, which has
    /// neither. The number of fields alone (5, 6, 7, 8 or 9) tells which, so that no two contexts give the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        push_field(&mut out, AAD_LABEL);
        push_field(&mut out, self.purpose.as_str().as_bytes());
        push_field(&mut out, self.tenant.as_bytes());
        push_field(&mut out, self.object.as_bytes());
        push_field(&mut out, &self.revision.to_be_bytes());
        if let Some(template) = &self.template {
            push_field(&mut out, template.person.as_bytes());
            push_field(&mut out, template.space_id.as_bytes());
            push_field(&mut out, template.row.as_bytes());
        }
        if let Some(topic) = self.topic {
            push_field(&mut out, topic.as_bytes());
        }
        if let Some(place) = &self.place {
            let mut state = [0; 28];
            state[..16].copy_from_slice(place.gallery.as_bytes());
            state[16..20].copy_from_slice(&place.epoch.to_be_bytes());
            state[20..].copy_from_slice(&place.version.to_be_bytes());
            push_field(&mut out, &state);
            push_field(&mut out, &place.chunk.to_be_bytes());
        }
        out
    }
}

/// Why bytes could not be sealed or opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than header and tag.
    #[error("sealed bytes are truncated: {found} bytes, a seal has at least {SEAL_OVERHEAD}")]
    Truncated {
        /// How many bytes there are.
        found: usize,
    },
    /// Made by a newer program, or not a seal at all.
    #[error(
        "seal format {found} is not known (this program knows {SEAL_VERSION}); update it or check the source of the bytes"
    )]
    UnknownVersion {
        /// The first byte.
        found: u8,
    },
    /// The seal names another key.
    #[error("sealed under key {found}, but key {expected} was given; fetch the key that the seal names")]
    OtherKey {
        /// The key given.
        expected: KeyId,
        /// The key the seal names.
        found: KeyId,
    },
    /// Damaged, forged, or moved from where it was sealed.
    #[error(
        "sealed bytes for {purpose} of object {object} revision {revision} are not authentic: damaged, or sealed for another place"
    )]
    NotAuthentic {
        /// The purpose that was expected.
        purpose: &'static str,
        /// The object that was expected.
        object: Uuid,
        /// The revision that was expected.
        revision: u64,
    },
    /// No random nonce could be had.
    #[error("cannot seal")]
    NoRandomness(#[from] NoRandomness),
}

/// A key that seals and opens. Its bytes are wiped when it is dropped.
#[derive(Clone)]
pub struct SealKey {
    id: KeyId,
    bytes: KeyBytes,
}

impl SealKey {
    /// Wraps 32 bytes; the key id follows from them.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self { id: KeyId::of(&bytes), bytes: Zeroizing::new(bytes) }
    }

    /// A new random key.
    pub fn random() -> Result<Self, NoRandomness> {
        keys::random_key().map(|bytes| Self::new(*bytes))
    }

    /// The name of this key, as every seal under it carries it.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The key itself, to be wrapped by another key or sent over mutual TLS. Never log it.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    /// Seals `plaintext` for the place that `context` names, under a fresh random nonce.
    pub fn seal(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| NoRandomness)?;
        Ok(self.seal_with_nonce(context, plaintext, nonce))
    }

    /// Seals so that the same plaintext in the same context gives the same bytes, for what is made anew whenever it is
    /// asked for and must then be the same to the byte: a download that goes on in the middle.
    ///
    /// The nonce is an HMAC over context and plaintext under a key derived from this one, so that no nonce serves two
    /// different plaintexts. What it gives away is that the same was sealed in the same place twice.
    pub fn seal_repeatably(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Vec<u8> {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.bytes.as_ref()), REPEATABLE_NONCE);
        let mut nonces = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()));
        let additional = context.to_bytes();
        nonces.update(&(additional.len() as u64).to_be_bytes());
        nonces.update(&additional);
        nonces.update(plaintext);
        let tag = nonces.sign();
        let (nonce, _) = tag.as_ref().split_first_chunk().expect("an HMAC-SHA256 is longer than a nonce");
        self.seal_with_nonce(context, plaintext, *nonce)
    }

    /// Opens what [`SealKey::seal`] made for the same context. The plaintext is wiped when dropped.
    pub fn open(&self, context: &SealContext<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let found = key_id(sealed)?;
        if found != self.id {
            return Err(SealError::OtherKey { expected: self.id, found });
        }
        let nonce = Nonce::try_assume_unique_for_key(&sealed[1 + KEY_ID_LEN..HEADER_LEN])
            .expect("the header is 12 bytes longer than version and key id");
        let mut bytes = Zeroizing::new(sealed[HEADER_LEN..].to_vec());
        let length = self
            .cipher()
            .open_in_place(nonce, Aad::from(context.to_bytes()), bytes.as_mut_slice())
            .map_err(|_| SealError::NotAuthentic {
                purpose: context.purpose.as_str(),
                object: context.object,
                revision: context.revision,
            })?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }

    fn seal_with_nonce(&self, context: &SealContext<'_>, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let mut out = Vec::with_capacity(plaintext.len() + SEAL_OVERHEAD);
        out.push(SEAL_VERSION);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let aad = Aad::from(context.to_bytes());
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut out[HEADER_LEN..])
            .expect("AES-GCM refuses only plaintexts of 64 GiB and more");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// The expanded key is made anew for each use, since ring does not wipe it; the bytes we keep are wiped.
    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, self.bytes.as_ref()).expect("the key has 32 bytes"))
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKey({}, ***)", self.id)
    }
}

/// Tells which key opens `sealed`, after checking version and length. Nothing of it is authentic yet.
pub fn key_id(sealed: &[u8]) -> Result<KeyId, SealError> {
    match sealed.first() {
        Some(&version) if version != SEAL_VERSION => return Err(SealError::UnknownVersion { found: version }),
        _ if sealed.len() < SEAL_OVERHEAD => return Err(SealError::Truncated { found: sealed.len() }),
        _ => {}
    }
    let (id, _) = sealed[1..].split_first_chunk().expect("the length was checked above");
    Ok(KeyId(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: TemplateRow<'static> = TemplateRow {
        person: Uuid::from_u128(0x3031_3233_3435_3637_3839_3a3b_3c3d_3e3f),
        space_id: "fp-r1",
        row: Uuid::from_u128(0x4041_4243_4445_4647_4849_4a4b_4c4d_4e4f),
    };
    const TOPIC: &str = "lintel/v1/t/d/down/gallery";

    #[test]
    fn what_is_exposed_is_the_key_and_no_two_random_ones_are_the_same() {
        assert_eq!(SealKey::new([7; KEY_LEN]).expose(), &[7; KEY_LEN]);
        let random = || *SealKey::random().unwrap().expose();
        assert_ne!(random(), random());
    }

    fn context() -> SealContext<'static> {
        let tenant = TenantId(Uuid::from_u128(0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f));
        let object = Uuid::from_u128(0x2021_2223_2425_2627_2829_2a2b_2c2d_2e2f);
        SealContext::new(Purpose::TEMPLATE, tenant, object, 7)
    }

    fn key() -> SealKey {
        SealKey::new(std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    // The constants below come from Python's hashlib and cryptography, not from this code.

    #[test]
    fn additional_data_are_as_specified() {
        assert_eq!(
            hex::encode(context().to_bytes()),
            "0000000e6c696e74656c2e7365616c2e76310000000874656d706c61746500000010101112131415161718191a1b1c1d1e1f\
             00000010202122232425262728292a2b2c2d2e2f000000080000000000000007"
        );
        assert_eq!(
            hex::encode(context().with_template(ROW).with_topic(TOPIC).to_bytes()),
            "0000000e6c696e74656c2e7365616c2e76310000000874656d706c61746500000010101112131415161718191a1b1c1d1e1f\
             00000010202122232425262728292a2b2c2d2e2f00000008000000000000000700000010303132333435363738393a3b3c3d3e3f\
             0000000566702d723100000010404142434445464748494a4b4c4d4e4f0000001a6c696e74656c2f76312f742f642f646f776e2f\
             67616c6c657279"
        );
    }

    #[test]
    fn a_seal_has_the_specified_bytes() {
        assert_eq!(key().id().to_string(), "79ce40693395191c0ffdba435fd80a49");
        let nonce = std::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(
            hex::encode(key().seal_with_nonce(&context(), b"a door opens", nonce)),
            "0179ce40693395191c0ffdba435fd80a49000102030405060708090a0b2622b274aa97e274fd24f9f85708139673d762f0261c99\
             72b9cd6121"
        );
    }

    #[test]
    fn what_was_sealed_opens() {
        for plaintext in [&b""[..], b"x", &[7; 5000]] {
            let sealed = key().seal(&context(), plaintext).unwrap();
            assert_eq!(sealed.len(), plaintext.len() + SEAL_OVERHEAD);
            assert_eq!(key_id(&sealed), Ok(key().id()));
            assert_eq!(key().open(&context(), &sealed).unwrap().as_slice(), plaintext);
        }
    }

    #[test]
    fn a_seal_moved_to_another_row_does_not_open() {
        let home = context().with_template(ROW).with_topic(TOPIC);
        let sealed = key().seal(&home, b"embedding").unwrap();
        assert!(key().open(&home, &sealed).is_ok());
        let elsewhere = [
            SealContext { purpose: Purpose::PICTURE, ..home },
            SealContext { tenant: TenantId(Uuid::nil()), ..home },
            SealContext { object: Uuid::nil(), ..home },
            SealContext { revision: 8, ..home },
            SealContext { template: None, ..home },
            SealContext { topic: None, ..home },
            SealContext { topic: Some("lintel/v1/t/d/down/cmd"), ..home },
            home.with_template(TemplateRow { row: Uuid::nil(), ..ROW }),
            home.with_template(TemplateRow { person: Uuid::nil(), ..ROW }),
            home.with_template(TemplateRow { space_id: "fp-r2", ..ROW }),
        ];
        for place in elsewhere {
            let refused = key().open(&place, &sealed);
            assert!(matches!(refused, Err(SealError::NotAuthentic { .. })), "{place:?}");
        }
    }

    #[test]
    fn a_repeatable_seal_is_the_same_again_and_opens_at_its_own_place_alone() {
        let gallery = GalleryId(Uuid::from_u128(0x6a));
        let place = SnapshotPlace { gallery, epoch: 2, version: 9, chunk: 3 };
        let tenant = TenantId(Uuid::from_u128(1));
        let context = SealContext::new(Purpose::SNAPSHOT, tenant, Uuid::from_u128(2), 7).with_place(place);
        let sealed = key().seal_repeatably(&context, b"people");
        assert_eq!(key().seal_repeatably(&context, b"people"), sealed);
        assert_eq!(key().open(&context, &sealed).unwrap().as_slice(), b"people");
        let nonce = |sealed: &[u8]| sealed[1 + KEY_ID_LEN..HEADER_LEN].to_vec();
        assert_ne!(
            nonce(&key().seal_repeatably(&context, b"peoplf")),
            nonce(&sealed),
            "another plaintext, another nonce"
        );
        for moved in [
            SnapshotPlace { gallery: GalleryId(Uuid::nil()), ..place },
            SnapshotPlace { epoch: 3, ..place },
            SnapshotPlace { version: 8, ..place },
            SnapshotPlace { chunk: 2, ..place },
        ] {
            let elsewhere = SealContext { place: Some(moved), ..context };
            assert!(key().open(&elsewhere, &sealed).is_err(), "{moved:?}");
            assert_ne!(nonce(&key().seal_repeatably(&elsewhere, b"people")), nonce(&sealed));
        }
        let another = SealContext { object: Uuid::from_u128(3), ..context };
        assert!(key().open(&another, &sealed).is_err(), "a chunk of another snapshot");
        assert!(key().open(&SealContext { place: None, ..context }, &sealed).is_err());
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let sealed = key().seal(&context(), b"abc").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key().open(&context(), &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(key().open(&context(), &sealed[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let sealed = key().seal(&context(), b"abc").unwrap();
        let other = SealKey::new([9; 32]);
        assert_eq!(
            other.open(&context(), &sealed).unwrap_err(),
            SealError::OtherKey { expected: other.id(), found: key().id() }
        );
        assert_eq!(key_id(&[2; 100]), Err(SealError::UnknownVersion { found: 2 }));
        assert_eq!(key_id(&sealed[..20]), Err(SealError::Truncated { found: 20 }));
        assert_eq!(key_id(&[]), Err(SealError::Truncated { found: 0 }));
    }

    #[test]
    fn nonces_differ_and_keys_do_not_print() {
        let (a, b) = (key().seal(&context(), b"abc").unwrap(), key().seal(&context(), b"abc").unwrap());
        assert_ne!(a, b);
        assert_eq!(format!("{:?}", key()), "SealKey(79ce40693395191c0ffdba435fd80a49, ***)");
    }
}
