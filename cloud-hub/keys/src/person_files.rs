//! The key store of people for several hubs: a folder that all of them see, with a file for each person.
//!
//! In: tenant, person, wrapped key. Out: the wrapped key, until it is destroyed. What is made here is seen by every hub at
//! its next reading, and what is destroyed is gone for all. Every change is on the disk when the call returns, as far as the
//! folder's file system keeps that promise. A file is overwritten with zeros before it is removed; a file system that
//! writes elsewhere (copy on write, snapshots) keeps what was there, a key wrapped under TK.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::KeysError;
use super::persons::Rewrap;
use hub_domain::ids::{PersonId, TenantId};
use hub_host::secret_file;

/// What tells the folder from the place where it should be mounted.
const MARKER: &str = "person-keys.v1";

/// The open folder.
pub(super) struct PersonFiles {
    root: PathBuf,
}

impl PersonFiles {
    /// Opens the folder, in which a file called `person-keys.v1` must be: an empty folder where one should be mounted must not look
    /// like one without people, for whose key is missing counts as erased. Who sets the folder up makes it, once.
    pub(super) fn open(root: &Path) -> Result<Self, KeysError> {
        let store = Self { root: root.to_owned() };
        match store.is_there() {
            Ok(()) => Ok(store),
            Err(source) => Err(KeysError::PersonFolder { path: root.join(MARKER), source }),
        }
    }

    fn is_there(&self) -> io::Result<()> {
        fs::metadata(self.root.join(MARKER)).map(drop)
    }

    fn path(&self, tenant: TenantId, person: PersonId) -> PathBuf {
        self.root.join(tenant.to_string()).join(format!("{person}.key"))
    }

    /// Stores the wrapped key of somebody new. False, with nothing changed, when there is one.
    pub(super) fn add(&self, tenant: TenantId, person: PersonId, wrapped: &[u8]) -> Result<bool, KeysError> {
        let path = self.path(tenant, person);
        let folder = path.parent().unwrap_or(&self.root);
        let add = || -> io::Result<bool> {
            self.is_there()?;
            if !folder.is_dir() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                File::open(&self.root)?.sync_all()?;
            }
            let temporary = folder.join(format!("{}.new", Uuid::new_v4()));
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(wrapped)?;
            file.sync_all()?;
            // A link, unlike a rename, does not replace what another hub made meanwhile.
            let linked = match fs::hard_link(&temporary, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                linked => linked.map(|()| true),
            };
            fs::remove_file(&temporary)?;
            File::open(folder)?.sync_all()?;
            linked
        };
        add().map_err(|source| KeysError::PersonFolder { path: path.clone(), source })
    }

    /// The wrapped key of a person; `None` once it is destroyed.
    pub(super) fn get(&self, tenant: TenantId, person: PersonId) -> Result<Option<Vec<u8>>, KeysError> {
        let path = self.path(tenant, person);
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&path)?;
            // Not in the middle of being wrapped anew.
            file.lock_shared()?;
            let mut wrapped = Vec::new();
            file.read_to_end(&mut wrapped)?;
            Ok(wrapped)
        };
        match read() {
            Ok(wrapped) => Ok(Some(wrapped)),
            // Nobody's key is missing because the folder is: that would count as erased.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_there().is_ok() => Ok(None),
            Err(source) => Err(KeysError::PersonFolder { path, source }),
        }
    }

    /// Destroys the key of a person. Destroying it again is no error.
    pub(super) fn destroy(&self, tenant: TenantId, person: PersonId) -> Result<(), KeysError> {
        let path = self.path(tenant, person);
        let destroy = || -> io::Result<()> {
            overwrite(&path)?;
            fs::remove_file(&path)?;
            File::open(path.parent().unwrap_or(&self.root))?.sync_all()
        };
        match destroy() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_there().is_ok() => Ok(()),
            done => done.map_err(|source| KeysError::PersonFolder { path: path.clone(), source }),
        }
    }
}

impl PersonFiles {
    /// Wraps the keys of a tenant's people anew, each in its place: under a lock, so that nobody reads half of it, and not by
    /// another file in its place, which could bring back a key that another hub has just destroyed.
    pub(super) fn rewrap(&self, tenant: TenantId, rewrap: Rewrap<'_>) -> Result<u64, KeysError> {
        let folder = self.root.join(tenant.to_string());
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| KeysError::PersonFolder { path, source }
        };
        let mut done = 0;
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_there().is_ok() => return Ok(0),
            entries => entries.map_err(failed(&folder))?,
        };
        for entry in entries {
            let path = entry.map_err(failed(&folder))?.path();
            let Some(person) = person_of(&path) else { continue };
            let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed(&path))?,
            };
            file.lock().map_err(failed(&path))?;
            let mut wrapped = Vec::new();
            file.read_to_end(&mut wrapped).map_err(failed(&path))?;
            let Some(anew) = rewrap(person, &wrapped)? else { continue };
            let write = |file: &mut File| -> io::Result<()> {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&anew)?;
                file.sync_all()
            };
            write(&mut file).map_err(failed(&path))?;
            done += 1;
        }
        Ok(done)
    }

    /// Where copies of a tenant's keys are: not among people's, which may be very many.
    fn tenant_folder(&self, tenant: TenantId) -> PathBuf {
        self.root.join("tenant-keys").join(tenant.to_string())
    }

    /// Keeps a copy of a version of a tenant's key, in the place of any before.
    pub(super) fn keep_tenant_key(&self, tenant: TenantId, version: u32, wrapped: &[u8]) -> Result<(), KeysError> {
        let folder = self.tenant_folder(tenant);
        let made = self.is_there().and_then(|()| fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder));
        made.map_err(|source| KeysError::PersonFolder { path: folder.clone(), source })?;
        Ok(secret_file::replace(&folder.join(format!("{version}.key")), wrapped)?)
    }

    /// The copies of a tenant's keys, newest first.
    pub(super) fn tenant_keys(&self, tenant: TenantId) -> Result<Vec<(u32, Vec<u8>)>, KeysError> {
        let folder = self.tenant_folder(tenant);
        let read = || -> io::Result<Vec<(u32, Vec<u8>)>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let version = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".key")?.parse().ok());
                if let Some(version) = version {
                    found.push((version, fs::read(&path)?));
                }
            }
            found.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
            Ok(found)
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_there().is_ok() => Ok(Vec::new()),
            read => read.map_err(|source| KeysError::PersonFolder { path: folder.clone(), source }),
        }
    }

    /// Destroys the keys of all people of a tenant, whatever else is in its folder with them, and the folder; returns how many
    /// there were.
    pub(super) fn destroy_all(&self, tenant: TenantId) -> Result<u64, KeysError> {
        self.destroy_folder(&self.tenant_folder(tenant))?;
        self.destroy_folder(&self.root.join(tenant.to_string()))
    }

    fn destroy_folder(&self, folder: &Path) -> Result<u64, KeysError> {
        let destroy = || -> io::Result<u64> {
            let mut destroyed = 0;
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                match overwrite(&path).and_then(|()| fs::remove_file(&path)) {
                    // Another hub was here first.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    removed => removed?,
                }
                destroyed += u64::from(path.extension().is_some_and(|extension| extension == "key"));
            }
            fs::remove_dir(folder)?;
            File::open(folder.parent().unwrap_or(&self.root))?.sync_all()?;
            Ok(destroyed)
        };
        match destroy() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_there().is_ok() => Ok(0),
            done => done.map_err(|source| KeysError::PersonFolder { path: folder.to_owned(), source }),
        }
    }
}

/// Whose key a file is.
fn person_of(path: &Path) -> Option<PersonId> {
    path.file_name()?.to_str()?.strip_suffix(".key")?.parse().ok().map(PersonId)
}

/// Zeros in the place of a key, on the disk when this returns.
fn overwrite(path: &Path) -> io::Result<()> {
    let length = fs::metadata(path)?.len();
    let mut file = OpenOptions::new().write(true).open(path)?;
    // Nobody wraps it anew meanwhile.
    file.lock()?;
    file.write_all(&vec![0; usize::try_from(length).unwrap_or(0)])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    fn person(n: u128) -> PersonId {
        PersonId(Uuid::from_u128(n))
    }

    #[test]
    fn what_one_hub_makes_or_destroys_the_other_sees() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), "").unwrap();
        let (one, other) = (PersonFiles::open(dir.path()).unwrap(), PersonFiles::open(dir.path()).unwrap());
        assert!(one.add(TENANT, person(1), b"one").unwrap());
        assert!(!other.add(TENANT, person(1), b"another").unwrap(), "a key is never replaced");
        assert_eq!(other.get(TENANT, person(1)).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(other.get(TenantId(Uuid::from_u128(2)), person(1)).unwrap(), None);
        other.destroy(TENANT, person(1)).unwrap();
        one.destroy(TENANT, person(1)).unwrap();
        assert_eq!(one.get(TENANT, person(1)).unwrap(), None);
        let left = fs::read_dir(dir.path().join(TENANT.to_string())).unwrap().count();
        assert_eq!(left, 0, "no temporary file is left");
    }

    #[test]
    fn the_end_of_a_tenant_destroys_its_keys_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), "").unwrap();
        let (store, other) = (PersonFiles::open(dir.path()).unwrap(), TenantId(Uuid::from_u128(2)));
        for number in 1..4 {
            store.add(TENANT, person(number), b"key").unwrap();
            store.add(other, person(number), b"key").unwrap();
        }
        // What a crash left of a key that was being made is a key too.
        fs::write(dir.path().join(TENANT.to_string()).join("x.new"), b"key").unwrap();
        assert_eq!(store.destroy_all(TENANT).unwrap(), 3);
        assert_eq!(store.destroy_all(TENANT).unwrap(), 0);
        assert!(!dir.path().join(TENANT.to_string()).exists());
        assert!(store.get(other, person(3)).unwrap().is_some());
    }

    #[test]
    fn keys_are_wrapped_anew_in_their_places_and_a_destroyed_one_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), "").unwrap();
        let store = PersonFiles::open(dir.path()).unwrap();
        for number in 1..4 {
            store.add(TENANT, person(number), b"old").unwrap();
        }
        let anew = |whose: PersonId, wrapped: &[u8]| {
            if whose == person(2) {
                // Another hub is faster, between the reading and the writing.
                fs::remove_file(store.path(TENANT, whose)).unwrap();
            }
            Ok((wrapped == b"old").then(|| b"new".to_vec()))
        };
        store.rewrap(TENANT, &anew).unwrap();
        store.rewrap(TENANT, &|whose, _| Ok((whose == person(1)).then(|| b"newer and longer".to_vec()))).unwrap();
        assert_eq!(store.get(TENANT, person(1)).unwrap().as_deref(), Some(&b"newer and longer"[..]));
        assert_eq!(store.get(TENANT, person(2)).unwrap(), None);
        assert_eq!(store.get(TENANT, person(3)).unwrap().as_deref(), Some(&b"new"[..]));
        store.keep_tenant_key(TENANT, 1, b"one").unwrap();
        store.keep_tenant_key(TENANT, 12, b"two").unwrap();
        assert_eq!(store.tenant_keys(TENANT).unwrap(), [(12, b"two".to_vec()), (1, b"one".to_vec())]);
        assert_eq!(store.destroy_all(TENANT).unwrap(), 2);
        assert!(store.tenant_keys(TENANT).unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_and_nobodys_erasure() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("shared");
        assert!(PersonFiles::open(&root).is_err());
        fs::create_dir(&root).unwrap();
        assert!(PersonFiles::open(&root).is_err(), "the place where it should be mounted");
        fs::write(root.join(MARKER), "").unwrap();
        let store = PersonFiles::open(&root).unwrap();
        store.add(TENANT, person(1), b"one").unwrap();
        fs::rename(&root, dir.path().join("unmounted")).unwrap();
        fs::create_dir(&root).unwrap();
        assert!(store.get(TENANT, person(1)).is_err());
        assert!(store.destroy(TENANT, person(1)).is_err());
        assert!(store.add(TENANT, person(2), b"two").is_err());
    }
}
