//! The key store of people: wrapped PKs in a redb file beside Postgres, never in it.
//!
//! In: tenant, person, wrapped key. Out: the wrapped key, until it is destroyed. Every change is on the disk when the
//! call returns (redb's immediate durability; it passed the power-cut tests that sled failed). Calls block for a
//! disk write at most; writers call it from a blocking task.
//!
//! A destroyed key's page is freed and overwritten at once with zeros of the same length before it is removed, but a
//! copy-on-write file keeps old pages until they are reused. [`PersonDb::open`] rewrites the file
//! at each start; what an attacker could still find until then is a key wrapped under TK, which is wrapped under MK.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use uuid::Uuid;

use super::KeysError;
use super::person_files::PersonFiles;
use hub_domain::ids::{PersonId, TenantId};

/// Keys that are destroyed in one transaction when a tenant ends.
const AT_ONCE: usize = 5_000;

/// Keys that are wrapped anew in one transaction: some milliseconds in which nobody else writes.
const REWRAPPED_AT_ONCE: usize = 500;

const WRAPPED: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("person_key.v1");
/// Copies of tenants' keys, by tenant and version (4, big-endian).
const TENANT_KEYS: TableDefinition<'_, [u8; 20], &[u8]> = TableDefinition::new("tenant_key.v1");

/// Wraps one key anew; `None` leaves it as it is.
pub(super) type Rewrap<'a> = &'a dyn Fn(PersonId, &[u8]) -> Result<Option<Vec<u8>>, KeysError>;

/// Where the wrapped keys of people are: in a file of this hub's own, or in a folder that several hubs see.
pub(super) enum PersonKeys {
    /// The rule.
    Own(PersonDb),
    /// For replicas.
    Shared(PersonFiles),
}

impl PersonKeys {
    /// See [`PersonDb::add`] and [`PersonFiles::add`].
    pub(super) fn add(&self, tenant: TenantId, person: PersonId, wrapped: &[u8]) -> Result<bool, KeysError> {
        match self {
            Self::Own(db) => db.add(tenant, person, wrapped),
            Self::Shared(files) => files.add(tenant, person, wrapped),
        }
    }

    /// The wrapped key of a person; `None` once it is destroyed.
    pub(super) fn get(&self, tenant: TenantId, person: PersonId) -> Result<Option<Vec<u8>>, KeysError> {
        match self {
            Self::Own(db) => db.get(tenant, person),
            Self::Shared(files) => files.get(tenant, person),
        }
    }

    /// Destroys the key of a person. Destroying it again is no error.
    pub(super) fn destroy(&self, tenant: TenantId, person: PersonId) -> Result<(), KeysError> {
        match self {
            Self::Own(db) => db.destroy(tenant, person),
            Self::Shared(files) => files.destroy(tenant, person),
        }
    }

    /// Destroys the keys of all people of a tenant; returns how many there were.
    pub(super) fn destroy_all(&self, tenant: TenantId) -> Result<u64, KeysError> {
        match self {
            Self::Own(db) => db.destroy_all(tenant),
            Self::Shared(files) => files.destroy_all(tenant),
        }
    }

    /// Wraps the keys of a tenant's people anew; returns how many. One that is destroyed meanwhile stays destroyed.
    pub(super) fn rewrap(&self, tenant: TenantId, rewrap: Rewrap<'_>) -> Result<u64, KeysError> {
        match self {
            Self::Own(db) => db.rewrap(tenant, rewrap),
            Self::Shared(files) => files.rewrap(tenant, rewrap),
        }
    }

    /// Keeps a copy of a version of a tenant's key, wrapped, in the place of any before: a backup of the database from before a
    /// rotation knows nothing of the key by which people's keys are wrapped here.
    pub(super) fn keep_tenant_key(&self, tenant: TenantId, version: u32, wrapped: &[u8]) -> Result<(), KeysError> {
        match self {
            Self::Own(db) => db.keep_tenant_key(tenant, version, wrapped),
            Self::Shared(files) => files.keep_tenant_key(tenant, version, wrapped),
        }
    }

    /// The copies of a tenant's keys, newest first.
    pub(super) fn tenant_keys(&self, tenant: TenantId) -> Result<Vec<(u32, Vec<u8>)>, KeysError> {
        match self {
            Self::Own(db) => db.tenant_keys(tenant),
            Self::Shared(files) => files.tenant_keys(tenant),
        }
    }

    /// Whether other hubs have the same keys.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }
}

/// The open key store of one hub.
pub(super) struct PersonDb {
    path: PathBuf,
    db: Database,
}

impl PersonDb {
    /// Opens the store, making it (mode 0600) if there is none, and compacts it.
    pub(super) fn open(path: &Path) -> Result<Self, KeysError> {
        let failed = |source| KeysError::Persons { path: path.to_owned(), source: Box::new(source) };
        let file = private_file(path).map_err(|error| failed(redb::Error::Io(error)))?;
        let mut db = redb::backends::FileBackend::new(file)
            .and_then(|backend| redb::Builder::new().create_with_backend(backend))
            .map_err(|error| failed(error.into()))?;
        db.compact().map_err(|error| failed(error.into()))?;
        let store = Self { path: path.to_owned(), db };
        // Makes the tables, so that reading never finds them missing.
        store.write(|_| Ok(()))?;
        store.write_tenant_keys(|_| Ok(()))?;
        Ok(store)
    }

    /// Stores the wrapped key of somebody new. False, with nothing changed, when there is one: another key in its place would
    /// make everything unreadable that is sealed under the first.
    pub(super) fn add(&self, tenant: TenantId, person: PersonId, wrapped: &[u8]) -> Result<bool, KeysError> {
        let mut added = false;
        self.write(|table| {
            added = table.get(row(tenant, person))?.is_none();
            if added {
                table.insert(row(tenant, person), wrapped)?;
            }
            Ok(())
        })?;
        Ok(added)
    }

    /// The wrapped key of a person; `None` once it is destroyed.
    pub(super) fn get(&self, tenant: TenantId, person: PersonId) -> Result<Option<Vec<u8>>, KeysError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.db.begin_read()?.open_table(WRAPPED)?;
            Ok(table.get(row(tenant, person))?.map(|wrapped| wrapped.value().to_vec()))
        };
        read().map_err(|source| self.failed(source))
    }

    /// Destroys the key of a person. Destroying it again is no error.
    pub(super) fn destroy(&self, tenant: TenantId, person: PersonId) -> Result<(), KeysError> {
        let Some(length) = self.get(tenant, person)?.map(|wrapped| wrapped.len()) else { return Ok(()) };
        self.write(|table| table.insert(row(tenant, person), vec![0; length].as_slice()).map(|_| ()))?;
        self.write(|table| table.remove(row(tenant, person)).map(|_| ()))
    }

    /// Destroys the keys of all people of a tenant, some thousands at a time; returns how many there were.
    pub(super) fn destroy_all(&self, tenant: TenantId) -> Result<u64, KeysError> {
        let mut destroyed = 0;
        loop {
            let some = self.some(tenant)?;
            if some.is_empty() {
                self.destroy_tenant_keys(tenant)?;
                return Ok(destroyed);
            }
            self.write(|table| {
                some.iter().try_for_each(|(row, length)| table.insert(*row, vec![0; *length].as_slice()).map(drop))
            })?;
            self.write(|table| some.iter().try_for_each(|(row, _)| table.remove(*row).map(drop)))?;
            destroyed += some.len() as u64;
        }
    }

    fn rewrap(&self, tenant: TenantId, rewrap: Rewrap<'_>) -> Result<u64, KeysError> {
        let wanted = self.to_be_rewrapped(tenant, rewrap)?;
        for some in wanted.chunks(REWRAPPED_AT_ONCE) {
            let mut failed = None;
            // Read and written in one transaction: nobody destroys a key in between.
            self.write(|table| {
                for row in some {
                    let anew = match table.get(*row)? {
                        Some(wrapped) => rewrap(person_of(row), wrapped.value()),
                        None => Ok(None),
                    };
                    match anew {
                        Ok(Some(anew)) => _ = table.insert(*row, anew.as_slice())?,
                        Ok(None) => {}
                        Err(error) => failed = Some(error),
                    }
                }
                Ok(())
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(wanted.len() as u64)
    }

    /// The rows of a tenant that are not yet as they should be: looking keeps nobody from writing.
    fn to_be_rewrapped(&self, tenant: TenantId, rewrap: Rewrap<'_>) -> Result<Vec<[u8; 32]>, KeysError> {
        let (first, last) = (row(tenant, PersonId(Uuid::nil())), row(tenant, PersonId(Uuid::max())));
        let mut failed = None;
        let mut read = || -> Result<_, redb::Error> {
            let table = self.db.begin_read()?.open_table(WRAPPED)?;
            let mut wanted = Vec::new();
            for entry in table.range(first..=last)? {
                let (row, wrapped) = entry?;
                match rewrap(person_of(&row.value()), wrapped.value()) {
                    Ok(Some(_)) => wanted.push(row.value()),
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            }
            Ok(wanted)
        };
        let wanted = read().map_err(|source| self.failed(source))?;
        failed.map_or(Ok(wanted), Err)
    }

    fn keep_tenant_key(&self, tenant: TenantId, version: u32, wrapped: &[u8]) -> Result<(), KeysError> {
        self.write_tenant_keys(|table| table.insert(version_row(tenant, version), wrapped).map(drop))
    }

    fn tenant_keys(&self, tenant: TenantId) -> Result<Vec<(u32, Vec<u8>)>, KeysError> {
        let read = || -> Result<_, redb::Error> {
            let table = self.db.begin_read()?.open_table(TENANT_KEYS)?;
            let mut found = Vec::new();
            for entry in table.range(version_row(tenant, 0)..=version_row(tenant, u32::MAX))?.rev() {
                let (key, wrapped) = entry?;
                let [.., a, b, c, d] = key.value();
                found.push((u32::from_be_bytes([a, b, c, d]), wrapped.value().to_vec()));
            }
            Ok(found)
        };
        read().map_err(|source| self.failed(source))
    }

    fn destroy_tenant_keys(&self, tenant: TenantId) -> Result<(), KeysError> {
        let found = self.tenant_keys(tenant)?;
        if found.is_empty() {
            return Ok(());
        }
        for (version, wrapped) in &found {
            self.keep_tenant_key(tenant, *version, &vec![0; wrapped.len()])?;
        }
        self.write_tenant_keys(|table| {
            found.iter().try_for_each(|(version, _)| table.remove(version_row(tenant, *version)).map(drop))
        })
    }

    fn write_tenant_keys(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, [u8; 20], &[u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), KeysError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            change(&mut transaction.open_table(TENANT_KEYS)?)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|source| self.failed(source))
    }

    /// Some of a tenant's rows, with the lengths of their keys.
    fn some(&self, tenant: TenantId) -> Result<Vec<([u8; 32], usize)>, KeysError> {
        let (first, last) = (row(tenant, PersonId(Uuid::nil())), row(tenant, PersonId(Uuid::max())));
        let read = || -> Result<_, redb::Error> {
            let table = self.db.begin_read()?.open_table(WRAPPED)?;
            let mut some = Vec::new();
            for entry in table.range(first..=last)?.take(AT_ONCE) {
                let (row, wrapped) = entry?;
                some.push((row.value(), wrapped.value().len()));
            }
            Ok(some)
        };
        read().map_err(|source| self.failed(source))
    }

    fn write(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, [u8; 32], &[u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), KeysError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            change(&mut transaction.open_table(WRAPPED)?)?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: redb::Error) -> KeysError {
        KeysError::Persons { path: self.path.clone(), source: Box::new(source) }
    }
}

fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn row(tenant: TenantId, person: PersonId) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(tenant.0.as_bytes());
    key[16..].copy_from_slice(person.0.as_bytes());
    key
}

fn person_of(row: &[u8; 32]) -> PersonId {
    let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, person @ ..] = *row;
    PersonId(Uuid::from_bytes(person))
}

fn version_row(tenant: TenantId, version: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(tenant.0.as_bytes());
    key[16..].copy_from_slice(&version.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    fn person(n: u128) -> PersonId {
        PersonId(Uuid::from_u128(n))
    }

    #[test]
    fn keys_survive_a_restart_until_they_are_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("persons.redb");
        let store = PersonDb::open(&path).unwrap();
        assert!(store.add(TENANT, person(1), b"one").unwrap());
        assert!(store.add(TENANT, person(2), b"two").unwrap());
        assert!(!store.add(TENANT, person(2), b"another").unwrap(), "a key is never replaced");
        store.destroy(TENANT, person(1)).unwrap();
        store.destroy(TENANT, person(1)).unwrap();
        drop(store);
        let store = PersonDb::open(&path).unwrap();
        assert_eq!(store.get(TENANT, person(1)).unwrap(), None);
        assert_eq!(store.get(TENANT, person(2)).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(store.get(TenantId(Uuid::from_u128(2)), person(2)).unwrap(), None);
    }

    #[test]
    fn the_end_of_a_tenant_destroys_its_keys_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let store = PersonDb::open(&dir.path().join("persons.redb")).unwrap();
        let neighbours = [TenantId(Uuid::from_u128(0)), TenantId(Uuid::from_u128(2))];
        for tenant in [TENANT, neighbours[0], neighbours[1]] {
            for person in [PersonId(Uuid::nil()), person(7), PersonId(Uuid::max())] {
                store.add(tenant, person, b"key").unwrap();
            }
        }
        assert_eq!(store.destroy_all(TENANT).unwrap(), 3);
        assert_eq!(store.destroy_all(TENANT).unwrap(), 0);
        for person in [PersonId(Uuid::nil()), person(7), PersonId(Uuid::max())] {
            assert_eq!(store.get(TENANT, person).unwrap(), None);
            for tenant in neighbours {
                assert!(store.get(tenant, person).unwrap().is_some());
            }
        }
    }

    #[test]
    fn all_keys_of_a_tenant_are_wrapped_anew_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let store = PersonDb::open(&dir.path().join("persons.redb")).unwrap();
        let people = REWRAPPED_AT_ONCE as u128 * 2 + 1;
        store
            .write(|table| (1..=people).try_for_each(|n| table.insert(row(TENANT, person(n)), &b"old"[..]).map(drop)))
            .unwrap();
        let other = TenantId(Uuid::from_u128(2));
        store.add(other, person(1), b"old").unwrap();
        let anew = |_, wrapped: &[u8]| Ok((wrapped == b"old").then(|| b"new".to_vec()));
        assert_eq!(u128::from(store.rewrap(TENANT, &anew).unwrap()), people);
        assert_eq!(store.rewrap(TENANT, &anew).unwrap(), 0);
        assert_eq!(store.get(TENANT, person(people)).unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(store.get(other, person(1)).unwrap().as_deref(), Some(&b"old"[..]));
    }

    #[test]
    fn copies_of_tenants_keys_are_kept_until_the_tenant_ends() {
        let dir = tempfile::tempdir().unwrap();
        let store = PersonDb::open(&dir.path().join("persons.redb")).unwrap();
        let other = TenantId(Uuid::from_u128(2));
        for (tenant, version) in [(TENANT, 1), (TENANT, 256), (other, 1)] {
            store.keep_tenant_key(tenant, version, b"key").unwrap();
        }
        assert_eq!(store.tenant_keys(TENANT).unwrap(), [(256, b"key".to_vec()), (1, b"key".to_vec())]);
        assert_eq!(store.destroy_all(TENANT).unwrap(), 0, "of nobody");
        assert!(store.tenant_keys(TENANT).unwrap().is_empty());
        assert_eq!(store.tenant_keys(other).unwrap().len(), 1);
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("persons.redb");
        drop(PersonDb::open(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
