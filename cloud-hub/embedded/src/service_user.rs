//! Who the embedded parts run as, and whether that user can reach the data directory.
//!
//! Postgres refuses to run as root, so a hub that is root hands its parts to the unprivileged system user `lintel`
//! (made by `scripts/setup`); any other hub runs them as itself.

use std::ffi::{CStr, CString};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::EmbeddedError;

/// The system user that `scripts/setup` makes.
pub const SERVICE_USER: &str = "lintel";

/// A user by numbers, as `setuid` wants them, and by name, as Postgres' peer rule wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    /// Name in the user database.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// The user this process runs as.
///
/// Fails when the user id has no name (a container without a passwd entry): Postgres' `initdb` would refuse too.
pub(super) fn current() -> Result<ServiceUser, EmbeddedError> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let mut buffer = vec![0; 16 * 1024];
    // SAFETY: an all-zero passwd is a valid value of this plain C struct; it is only read after success.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is valid for the call and `buffer` outlives the borrowed strings read below.
    let code = unsafe { libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    if code != 0 || found.is_null() {
        return Err(EmbeddedError::NamelessUser { uid });
    }
    // SAFETY: on success `pw_name` points to a NUL-terminated string inside `buffer`.
    let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_string_lossy().into_owned();
    Ok(ServiceUser { name, uid, gid })
}

/// The user the parts run as: `None` to stay oneself, `lintel` when the hub is root.
pub(super) fn for_parts() -> Result<Option<ServiceUser>, EmbeddedError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    by_name(SERVICE_USER)?.map(Some).ok_or(EmbeddedError::NoServiceUser)
}

fn by_name(name: &str) -> Result<Option<ServiceUser>, EmbeddedError> {
    let c_name = CString::new(name).expect("the service user's name holds no NUL");
    let mut buffer = vec![0; 16 * 1024];
    // SAFETY: an all-zero passwd is a valid value of this plain C struct; it is only read after success.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is valid for the call and `buffer` outlives it; only numbers are read afterwards.
    let code = unsafe { libc::getpwnam_r(c_name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    if code != 0 || found.is_null() {
        return Ok(None);
    }
    Ok(Some(ServiceUser { name: name.to_owned(), uid: entry.pw_uid, gid: entry.pw_gid }))
}

/// Checks that `user` may pass through every folder above `dir` and `dir` itself.
///
/// Postgres would only say "could not change directory"; this names the first folder that is closed.
pub(super) fn check_traversable(dir: &Path, user: &ServiceUser) -> Result<(), EmbeddedError> {
    match first_closed(dir, user) {
        None => Ok(()),
        Some(closed) => Err(EmbeddedError::NotTraversable { dir: dir.to_path_buf(), closed, user: user.name.clone() }),
    }
}

fn first_closed(dir: &Path, user: &ServiceUser) -> Option<PathBuf> {
    let mut above: Vec<&Path> = dir.ancestors().collect();
    above.reverse();
    above
        .into_iter()
        .find(|folder| std::fs::metadata(folder).is_ok_and(|meta| !may_enter(&meta, user)))
        .map(Path::to_path_buf)
}

/// The kernel's rule for the search bit: owner, else group, else others; the first class that matches decides.
fn may_enter(meta: &Metadata, user: &ServiceUser) -> bool {
    let mode = meta.mode();
    if user.uid == 0 {
        return true;
    }
    if meta.uid() == user.uid {
        return mode & 0o100 != 0;
    }
    if meta.gid() == user.gid {
        return mode & 0o010 != 0;
    }
    mode & 0o001 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_closed_folder_above_the_data_directory_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let closed = root.path().join("closed");
        let dir = closed.join("data");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        // Neither owner nor group of anything here.
        let stranger = ServiceUser { name: String::from("stranger"), uid: 4_000_000, gid: 4_000_000 };
        assert_eq!(first_closed(&dir, &stranger), Some(closed.clone()));
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o711)).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(first_closed(&dir, &stranger), None);
    }

    #[test]
    fn the_current_user_has_a_name() {
        assert!(!current().unwrap().name.is_empty());
    }
}
