//! Unix sockets of the agent: bound once, never stolen from a living process, never blocked by a dead one's file.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("{}: another running process answers on this socket; stop it or give this agent its own agent.runtime_dir", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("{}: a file that is not a socket lies here; remove it or change agent.runtime_dir", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The kernel allows 107 bytes.
    #[error("{}: this path is longer than the 107 bytes of a socket's address; use a shorter agent.runtime_dir", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{}: the socket cannot be opened", path.display())]
    Open {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// `<runtime_dir>/<name>.sock`.
#[must_use]
pub fn socket_path(runtime_dir: &Path, name: &str) -> PathBuf {
    runtime_dir.join(format!("{name}.sock"))
}

/// Binds a listening socket with the given mode. The file of a process that is gone is replaced.
///
/// # Errors
/// [`SocketError`]: busy, not a socket, path too long, or what the kernel said.
pub fn bind_unix(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::FileTypeExt;
    let open = |source| SocketError::Open { path: path.to_owned(), source };
    if path.as_os_str().as_bytes().len() > 107 {
        return Err(SocketError::TooLong { path: path.to_owned() });
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::Busy { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(open)?;
            }
            Err(error) => return Err(open(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(open(error)),
    }
    let listener = UnixListener::bind(path).map_err(open)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(open)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_processs_file_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path(), "control");
        let first = bind_unix(&path, 0o600).unwrap();
        assert!(matches!(bind_unix(&path, 0o600), Err(SocketError::Busy { .. })));
        drop(first);
        assert!(path.exists(), "dropping a listener leaves its file, as a killed process does");
        bind_unix(&path, 0o600).unwrap();
    }

    #[tokio::test]
    async fn a_plain_file_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.sock");
        std::fs::write(&path, "keep me").unwrap();
        assert!(matches!(bind_unix(&path, 0o600), Err(SocketError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "keep me");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_says_so() {
        let path = PathBuf::from(format!("/tmp/{}.sock", "x".repeat(120)));
        assert!(matches!(bind_unix(&path, 0o600), Err(SocketError::TooLong { .. })));
    }
}
