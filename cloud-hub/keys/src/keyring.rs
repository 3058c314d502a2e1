//! The hub's own keys, and the tenants' keys as it unwraps them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gallery_log::keys::random_key;
use gallery_log::seal::key_id;
use gallery_log::{Purpose, SealContext, SealKey};
use parking_lot::Mutex;
use ring::hmac;
use tokio::time::Instant;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::masters::Masters;
use super::peppers::{MadeBy, Peppers};
use super::person_files::PersonFiles;
use super::persons::{PersonDb, PersonKeys};
use super::restored::SeenFile;
use super::signing_keys::SigningKeys;
use super::{KeysError, SigningKey};
use hub_domain::ids::{ClaimId, PersonId, PlatformKeyId, SessionId, TenantId, UserId};
use hub_domain::index_key::{IndexKey, IndexKeys};
use hub_domain::person_key::PersonKey;
use hub_domain::rotation::{Rotation, Rotations, Seeded};
use hub_domain::tenant_key::{BELIEVED, Stage};
use hub_domain::vault::{GROUP_KEY, TenantKeys, VaultError, seal_tenant};
use hub_host::secret_file::{self, SecretFileError};
use hub_store::credentials::NewMac;
use hub_store::{Clash, StoreError, TenantTx, secrets};

/// A key of access tokens, for whom it is no tenant's.
const TOKEN_KEY: Purpose = Purpose::new("token.key");
/// Where hubs kept keys of access tokens before they were shared; the second one verified only.
const TOKEN_KEY_FILES: [&str; 2] = ["jwt.p8", "jwt-previous.p8"];

/// Everything that the hub itself holds. One per process; shared by `Arc`.
pub struct Keyring {
    masters: Masters,
    peppers: Peppers,
    signing: SigningKeys,
    dir: PathBuf,
    seen: SeenFile,
    persons: PersonKeys,
    /// Unwrapped tenant keys, and when they were read: another hub may have begun to replace them since.
    tenants: Mutex<HashMap<TenantId, (TenantKeys, Instant)>>,
    /// Expanded seeds, and when they were read.
    rotations: Mutex<HashMap<(TenantId, String), Expanded>>,
}

type Expanded = (Arc<Rotations>, Instant);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring(hub epoch {}, ***)", self.hub_epoch())
    }
}

impl Keyring {
    /// Reads the hub's keys from `dir`, making at the first start whatever is missing. The master key must be kept:
    /// without it everything that is sealed is lost.
    pub fn open(dir: &Path) -> Result<Self, KeysError> {
        Self::open_with(dir, None)
    }

    /// The same; the keys of people are in `shared`, if that is named, which every replica of the hub sees.
    pub fn open_with(dir: &Path, shared: Option<&Path>) -> Result<Self, KeysError> {
        let masters = Masters::open(dir)?;
        Ok(Self {
            masters,
            peppers: Peppers::open(dir)?,
            signing: SigningKeys::open(dir)?,
            dir: dir.to_owned(),
            seen: SeenFile::load_or_make(dir)?,
            persons: match shared {
                Some(folder) => PersonKeys::Shared(PersonFiles::open(folder)?),
                None => PersonKeys::Own(PersonDb::open(&dir.join("persons.redb"))?),
            },
            tenants: Mutex::default(),
            rotations: Mutex::default(),
        })
    }

    /// The hub's signing key, as it is now. What belongs together is signed and told by one: the next call may give another.
    #[must_use]
    pub fn signing(&self) -> Arc<SigningKey> {
        self.signing.present()
    }

    /// The signing keys.
    pub(super) fn signing_keys(&self) -> &SigningKeys {
        &self.signing
    }

    /// Where the hub's own keys are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Seals a key of access tokens, for all hubs.
    pub(super) fn seal_token_key(&self, id: Uuid, pkcs8: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.masters.seal(&token_key_context(id), pkcs8)
    }

    /// Opens a key of access tokens.
    pub(super) fn open_token_key(&self, id: Uuid, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        self.masters.unseal(&token_key_context(id), sealed)
    }

    /// Seals a key of access tokens under the present master key, if another one sealed it.
    pub(super) fn reseal_token_key(&self, id: Uuid, sealed: &[u8]) -> Result<Option<Vec<u8>>, KeysError> {
        self.masters.reseal(&token_key_context(id), sealed)
    }

    /// The master keys.
    pub(super) fn masters(&self) -> &Masters {
        &self.masters
    }

    /// The key store of people.
    pub(super) fn persons(&self) -> &PersonKeys {
        &self.persons
    }

    /// The key of access tokens of a hub from before they were shared.
    pub(super) fn token_key_file(&self) -> Result<Option<Zeroizing<Vec<u8>>>, KeysError> {
        match secret_file::load(&self.dir.join(TOKEN_KEY_FILES[0])) {
            Ok(pkcs8) => Ok(Some(pkcs8)),
            Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes it: what is shared is in the database now.
    pub(super) fn forget_token_key_file(&self) -> Result<(), KeysError> {
        for name in TOKEN_KEY_FILES {
            let path = self.dir.join(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(SecretFileError::Io { path, source }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Which life of the database this is: raised when it was restored from a backup ([`super::restored`]), so that devices send
    /// again what the backup does not have.
    #[must_use]
    pub fn hub_epoch(&self) -> u32 {
        self.seen.hub_epoch()
    }

    /// What was seen of the database.
    pub(super) fn seen(&self) -> &SeenFile {
        &self.seen
    }

    /// The MAC under which an API key's secret is stored.
    #[must_use]
    pub fn api_key_mac(&self, secret: &[u8; 32]) -> NewMac {
        self.peppers.make(&peppered(b"api-key", b"", secret))
    }

    /// Whether `secret` is the one that `mac` was made of, in constant time.
    #[must_use]
    pub fn is_api_key(&self, secret: &[u8; 32], mac: &[u8; 32]) -> bool {
        self.api_key_made_by(secret, mac).is_some()
    }

    /// By which pepper `mac` was made of `secret`, in constant time.
    pub(super) fn api_key_made_by(&self, secret: &[u8; 32], mac: &[u8; 32]) -> Option<MadeBy> {
        self.peppers.made_by(&peppered(b"api-key", b"", secret), mac)
    }

    /// The peppers.
    pub(super) fn peppers(&self) -> &Peppers {
        &self.peppers
    }

    /// The MAC under which the secret of a platform key is stored.
    #[must_use]
    pub fn platform_key_mac(&self, key: PlatformKeyId, secret: &[u8; 32]) -> NewMac {
        self.peppers.make(&peppered(b"platform-key", key.0.as_bytes(), secret))
    }

    /// By which pepper `mac` was made of the secret of a platform key, in constant time.
    pub(super) fn platform_key_made_by(&self, key: PlatformKeyId, secret: &[u8; 32], mac: &[u8; 32]) -> Option<MadeBy> {
        self.peppers.made_by(&peppered(b"platform-key", key.0.as_bytes(), secret), mac)
    }

    /// The MAC under which a claim's secret is stored.
    #[must_use]
    pub fn claim_mac(&self, claim: ClaimId, secret: &[u8; 32]) -> [u8; 32] {
        self.peppers.tag(&peppered(b"claim", claim.0.as_bytes(), secret))
    }

    /// Whether `secret` is the one that `mac` was made of, in constant time.
    #[must_use]
    pub fn is_claim(&self, claim: ClaimId, secret: &[u8; 32], mac: &[u8; 32]) -> bool {
        self.peppers.made_by(&peppered(b"claim", claim.0.as_bytes(), secret), mac).is_some()
    }

    /// The MAC by which a refresh token or a cookie of a tenant is found.
    #[must_use]
    pub(super) fn login_mac(&self, tenant: TenantId, secret: &[u8; 32]) -> [u8; 32] {
        self.peppers.tag(&peppered(b"login", tenant.0.as_bytes(), secret))
    }

    /// The MACs by which it may be found, the present one first.
    #[must_use]
    pub(super) fn login_macs(&self, tenant: TenantId, secret: &[u8; 32]) -> Vec<[u8; 32]> {
        self.peppers.tags(&peppered(b"login", tenant.0.as_bytes(), secret))
    }

    /// What a browser must send beside its cookie: only who has read an answer to the cookie can know it. The present one first; one that
    /// was read before the pepper was replaced is good too.
    #[must_use]
    pub(super) fn csrf_tokens(&self, tenant: TenantId, secret: &[u8; 32]) -> [[u8; 32]; 3] {
        let tokens = self.peppers.tags(&peppered(b"csrf", tenant.0.as_bytes(), secret));
        std::array::from_fn(|place| *tokens.get(place).unwrap_or(&tokens[0]))
    }

    /// The MAC under which the secret of a user's invitation is stored.
    #[must_use]
    pub(super) fn invitation_mac(&self, user: UserId, secret: &[u8; 32]) -> [u8; 32] {
        self.peppers.tag(&peppered(b"invitation", user.0.as_bytes(), secret))
    }

    /// Whether `secret` is the one that `mac` was made of, in constant time.
    #[must_use]
    pub(super) fn is_invitation(&self, user: UserId, secret: &[u8; 32], mac: &[u8; 32]) -> bool {
        self.peppers.made_by(&peppered(b"invitation", user.0.as_bytes(), secret), mac).is_some()
    }

    /// The MAC under which a recovery code of a user is stored.
    #[must_use]
    pub(super) fn recovery_mac(&self, user: UserId, code: &[u8]) -> NewMac {
        self.peppers.make(&peppered(b"recovery", user.0.as_bytes(), code))
    }

    /// The MACs under which it may be stored.
    #[must_use]
    pub(super) fn recovery_macs(&self, user: UserId, code: &[u8]) -> Vec<[u8; 32]> {
        self.peppers.tags(&peppered(b"recovery", user.0.as_bytes(), code))
    }

    /// The MAC under which a session's token is stored.
    #[must_use]
    pub(super) fn session_mac(&self, tenant: TenantId, session: SessionId, secret: &[u8; 32]) -> [u8; 32] {
        self.peppers.tag(&peppered(b"session", &of_session(tenant, session), secret))
    }

    /// Whether `secret` is the one that `mac` was made of, in constant time.
    #[must_use]
    pub(super) fn is_session(&self, tenant: TenantId, session: SessionId, secret: &[u8; 32], mac: &[u8]) -> bool {
        self.peppers.made_by(&peppered(b"session", &of_session(tenant, session), secret), mac).is_some()
    }

    /// Makes the first keys of the transaction's tenant and stores them wrapped.
    pub async fn make_tenant(&self, tx: &mut TenantTx) -> Result<(), KeysError> {
        let tenant = tx.tenant();
        let tk = SealKey::random()?;
        let wrapped = self.masters.seal(&tenant_key_context(tenant, 1), tk.expose())?;
        secrets::add(tx, secrets::Kind::TenantKey, "", 1, &wrapped).await?;
        let (index, groups) = (random_key()?, random_key()?);
        let keys = TenantKeys::new(tenant, vec![tk], IndexKeys::only(index.clone()));
        secrets::add(tx, secrets::Kind::IndexKey, "", 1, &keys.seal_index_key(1, &index)?).await?;
        secrets::add(tx, secrets::Kind::GroupKey, "", 1, &keys.seal_group_key(&groups)?).await?;
        Ok(())
    }

    /// The keys of the transaction's tenant, from memory or unwrapped.
    pub async fn tenant(&self, tx: &mut TenantTx) -> Result<TenantKeys, KeysError> {
        let tenant = tx.tenant();
        let known = self
            .tenants
            .lock()
            .get(&tenant)
            .filter(|(_, read)| read.elapsed() < BELIEVED)
            .map(|(keys, _)| keys.clone());
        if let Some(keys) = known {
            return Ok(keys);
        }
        let begun = Instant::now();
        let keys = self.read_tenant(tx).await?;
        self.tenants.lock().insert(tenant, (keys.clone(), begun));
        Ok(keys)
    }

    /// The same as they are now.
    pub(super) async fn read_tenant(&self, tx: &mut TenantTx) -> Result<TenantKeys, KeysError> {
        let tenant = tx.tenant();
        let rows = secrets::tenant_keys(tx).await?;
        let stored = secrets::aged(tx, secrets::Kind::IndexKey, "").await?;
        let groups = secrets::versions(tx, secrets::Kind::GroupKey, "").await?;
        let (Some(newest_index), Some(newest)) = (stored.first(), rows.first()) else {
            return Err(KeysError::NoTenantKey(tenant));
        };
        let sealing = Stage::at(newest.age).sealing(rows.len());
        let mut versions = rows
            .iter()
            .map(|row| self.open_tenant_key(tenant, row.version, &row.sealed))
            .collect::<Result<Vec<_>, _>>()?;
        versions.swap(0, sealing);
        let open = |purpose, version, sealed: &[u8]| {
            let wanted = key_id(sealed).map_err(VaultError::from)?;
            let tk = versions.iter().find(|key| key.id() == wanted).ok_or(KeysError::NoTenantKey(tenant))?;
            Ok::<_, KeysError>(exact(&tk.open(&context(purpose, tenant, version), sealed).map_err(VaultError::from)?)?)
        };
        // Oldest first. Those that have ended are marked under no more.
        let (used, is_known_only) =
            (stored.iter().rev().filter(|row| row.ended.is_none()), Stage::at(newest_index.age));
        let known = used
            .map(|row| {
                let key = open(Purpose::BLIND_INDEX_KEY, row.version, &row.sealed)?;
                Ok(IndexKey { version: row.version, key })
            })
            .collect::<Result<Vec<_>, KeysError>>()?;
        let alone =
            known.len().checked_sub(1 + is_known_only.sealing(known.len())).ok_or(KeysError::NoTenantKey(tenant))?;
        let groups = groups.first().map(|(version, sealed)| open(GROUP_KEY, *version, sealed)).transpose()?;
        Ok(TenantKeys::new(tenant, versions, IndexKeys::new(known, alone, groups)))
    }

    /// Opens a version of a tenant's key. A backup of the database from before a rotation has it under a master key that is gone:
    /// then the copy in the key store serves.
    fn open_tenant_key(&self, tenant: TenantId, version: u32, sealed: &[u8]) -> Result<SealKey, KeysError> {
        let context = tenant_key_context(tenant, version);
        let opened = match self.masters.unseal(&context, sealed) {
            Err(KeysError::OtherMaster(id)) => {
                let copies = self.persons.tenant_keys(tenant)?;
                let copy = copies.iter().find(|(of, _)| *of == version).ok_or(KeysError::OtherMaster(id))?;
                self.masters.unseal(&context, &copy.1)?
            }
            opened => opened?,
        };
        Ok(SealKey::new(*exact(&opened)?))
    }

    /// A version of a tenant's key, sealed under the present master key.
    pub(super) fn seal_tenant_key(&self, tenant: TenantId, version: u32, key: &SealKey) -> Result<Vec<u8>, VaultError> {
        self.masters.seal(&tenant_key_context(tenant, version), key.expose())
    }

    /// The same of one that is sealed already; `None` if it is so under the present master key.
    pub(super) fn reseal_tenant_key(
        &self,
        tenant: TenantId,
        version: u32,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, KeysError> {
        if key_id(sealed) == Ok(self.masters.current()) {
            return Ok(None);
        }
        let key = self.open_tenant_key(tenant, version, sealed)?;
        Ok(Some(self.seal_tenant_key(tenant, version, &key)?))
    }

    /// The rotations of the searchable vectors of one space, the first seed made at first use.
    pub async fn rotations(&self, tx: &mut TenantTx, space_id: &str) -> Result<Arc<Rotations>, KeysError> {
        let known = (tx.tenant(), space_id.to_owned());
        if let Some((rotations, _)) = self.rotations.lock().get(&known).filter(|(_, read)| read.elapsed() < BELIEVED) {
            return Ok(Arc::clone(rotations));
        }
        let (begun, keys) = (Instant::now(), self.tenant(tx).await?);
        let mut stored = secrets::aged(tx, secrets::Kind::RotationSeed, space_id).await?;
        let is_new = stored.is_empty();
        if is_new {
            let sealed = keys.seal_rotation_seed(space_id, 1, &*random_key()?)?;
            secrets::add(tx, secrets::Kind::RotationSeed, space_id, 1, &sealed).await?;
            // Read back: another transaction may have been first.
            stored = secrets::aged(tx, secrets::Kind::RotationSeed, space_id).await?;
        }
        let newest = stored.first().ok_or(KeysError::NoTenantKey(known.0))?;
        let writing = stored.len() - 1 - Stage::at(newest.age).sealing(stored.len());
        let seeded = stored.iter().rev().map(|row| {
            let seed = keys.open_rotation_seed(space_id, row.version, &row.sealed)?;
            Ok(Seeded { version: row.version, rotation: Rotation::from_seed(&seed) })
        });
        let rotations = Arc::new(Rotations::new(seeded.collect::<Result<Vec<_>, KeysError>>()?, writing));
        // A seed that this transaction has made is not remembered: it may still roll back.
        if !is_new {
            self.rotations.lock().insert(known, (Arc::clone(&rotations), begun));
        }
        Ok(rotations)
    }

    /// Forgets the rotations of a tenant: there are others.
    pub(super) fn forget_rotations(&self, tenant: TenantId) {
        self.rotations.lock().retain(|(of, _), _| *of != tenant);
    }

    /// The key of a person; an error once it is destroyed. Reads the key store each time, so that no cache outlives an erasure.
    pub fn person(&self, keys: &TenantKeys, person: PersonId) -> Result<PersonKey, KeysError> {
        let wrapped = self.persons.get(keys.tenant(), person)?.ok_or(KeysError::NoPersonKey(person))?;
        self.unwrap_person(keys, person, &wrapped)
    }

    fn unwrap_person(&self, keys: &TenantKeys, person: PersonId, wrapped: &[u8]) -> Result<PersonKey, KeysError> {
        if keys.knows(wrapped) {
            return Ok(keys.unwrap_person(person, wrapped)?);
        }
        self.person_by_copy(keys.tenant(), person, wrapped)
    }

    /// The keys of a person with another one that seals, of this generation; `None` if they have one, or if this is no key: one that is
    /// being destroyed is zeros.
    pub(super) fn renew_person(
        &self,
        keys: &TenantKeys,
        person: PersonId,
        wrapped: &[u8],
        generation: u64,
    ) -> Result<Option<Vec<u8>>, KeysError> {
        if key_id(wrapped).is_err() {
            return Ok(None);
        }
        let renewed = self.unwrap_person(keys, person, wrapped)?.renewed(generation)?;
        Ok(renewed.map(|key| keys.wrap_person(&key)).transpose()?)
    }

    /// The key of a person that is wrapped by a key of the tenant that the database does not have: it is a backup from before.
    fn person_by_copy(&self, tenant: TenantId, person: PersonId, wrapped: &[u8]) -> Result<PersonKey, KeysError> {
        let wanted = key_id(wrapped).map_err(VaultError::from)?;
        for (version, sealed) in self.persons.tenant_keys(tenant)? {
            let key = self.open_tenant_key(tenant, version, &sealed)?;
            if key.id() == wanted {
                let keys = TenantKeys::new(tenant, vec![key], IndexKeys::only(Zeroizing::new([0; 32])));
                return Ok(keys.unwrap_person(person, wrapped)?);
            }
        }
        Err(KeysError::NoTenantKey(tenant))
    }

    /// Makes and stores the key of a new person. It is on the disk before any row refers to it.
    pub(super) fn make_person(&self, keys: &TenantKeys, person: PersonId) -> Result<PersonKey, KeysError> {
        let key = PersonKey::random(keys.tenant(), person)?;
        if !self.persons.add(keys.tenant(), person, &keys.wrap_person(&key)?)? {
            return Err(StoreError::Clash(Clash::Other).into());
        }
        Ok(key)
    }

    /// Destroys the key of a person: nothing that was sealed under it can be read any more, wherever a copy lies.
    pub(super) fn destroy_person(&self, tenant: TenantId, person: PersonId) -> Result<(), KeysError> {
        self.persons.destroy(tenant, person)
    }

    /// Destroys the keys of all people of a tenant, and forgets its own; returns how many people had one.
    pub(super) fn destroy_people(&self, tenant: TenantId) -> Result<u64, KeysError> {
        self.forget(tenant);
        self.persons.destroy_all(tenant)
    }

    /// Forgets the unwrapped key of a tenant: there is another one.
    pub(super) fn forget_key(&self, tenant: TenantId) {
        self.tenants.lock().remove(&tenant);
    }

    /// Forgets the unwrapped keys of a tenant that is being deleted.
    pub(super) fn forget(&self, tenant: TenantId) {
        self.tenants.lock().remove(&tenant);
        self.forget_rotations(tenant);
    }
}

fn tenant_key_context(tenant: TenantId, version: u32) -> SealContext<'static> {
    context(Purpose::TENANT_KEY, tenant, version)
}

fn context(purpose: Purpose, tenant: TenantId, version: u32) -> SealContext<'static> {
    SealContext::new(purpose, seal_tenant(tenant), tenant.0, u64::from(version))
}

/// No tenant's: in the tenant's place is nobody.
fn token_key_context(id: Uuid) -> SealContext<'static> {
    SealContext::new(TOKEN_KEY, seal_tenant(TenantId(Uuid::nil())), id, 1)
}

pub(super) fn exact(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
    bytes.try_into().map(Zeroizing::new).map_err(|_| VaultError::Length("key"))
}

pub(super) fn key_file(path: PathBuf) -> Result<Zeroizing<[u8; 32]>, KeysError> {
    let bytes = secret_file::load_or_make(&path, || Ok::<_, KeysError>(Zeroizing::new(random_key()?.to_vec())))?;
    exact(&bytes).map_err(|_| KeysError::Damaged { path })
}

fn peppered(what: &[u8], object: &[u8], secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(64));
    for part in [what, object, secret] {
        message.extend_from_slice(&u32::try_from(part.len()).expect("at most 32 bytes").to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

fn of_session(tenant: TenantId, session: SessionId) -> Vec<u8> {
    [tenant.0.as_bytes().as_slice(), session.0.as_bytes()].concat()
}

pub(super) fn tag(key: &hmac::Key, message: &[u8]) -> [u8; 32] {
    hmac::sign(key, message).as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_keys_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keyring::open(dir.path()).unwrap();
        let mac = first.api_key_mac(&[7; 32]).mac;
        let signer = first.signing().public();
        drop(first);
        let again = Keyring::open(dir.path()).unwrap();
        assert!(again.is_api_key(&[7; 32], &mac));
        assert!(!again.is_api_key(&[8; 32], &mac));
        assert_eq!(again.signing().public(), signer);
        assert_eq!(again.hub_epoch(), 1);
    }

    #[test]
    fn a_claims_mac_belongs_to_that_claim_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open(dir.path()).unwrap();
        let (one, other) = (ClaimId(Uuid::from_u128(1)), ClaimId(Uuid::from_u128(2)));
        let mac = keys.claim_mac(one, &[7; 32]);
        assert!(keys.is_claim(one, &[7; 32], &mac));
        assert!(!keys.is_claim(other, &[7; 32], &mac));
        assert!(!keys.is_api_key(&[7; 32], &mac));
    }

    #[test]
    fn a_damaged_key_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        drop(Keyring::open(dir.path()).unwrap());
        std::fs::write(dir.path().join("master.key"), b"short").unwrap();
        assert!(Keyring::open(dir.path()).unwrap_err().to_string().contains("master.key"));
    }

    #[test]
    fn signed_time_verifies_with_the_pinned_key_for_its_asker_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open(dir.path()).unwrap();
        let (pinned, nonce) = ([keys.signing().public()], Uuid::from_u128(3));
        let signed = keys.signing().sign_time(nonce, time::macros::datetime!(2026-11-22 10:00 UTC));
        assert!(signed.verify(&pinned, nonce).is_ok());
        assert!(signed.verify(&pinned, Uuid::from_u128(4)).is_err());
    }
}
