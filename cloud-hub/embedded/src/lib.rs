//! The embedded mode: the hub's own Postgres and Mosquitto in one data directory, on loopback, for one machine.
//!
//! In: a data directory and the programs that `scripts/setup` installed. Out: connection settings, and a promise that
//! the parts die with the hub, even when it is killed. Deliberately absent: networks (both parts listen on Unix
//! sockets and loopback only) and any secret that a person would have to choose.

mod error;
mod files;
mod leftover;
pub mod mosquitto;
pub mod parts;
pub mod ports;
pub mod postgres;
mod process;
mod reload;
mod service_user;
mod supervise;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use error::EmbeddedError;
pub use files::{DirLock, lock_dir, secret};
pub use service_user::{SERVICE_USER, ServiceUser};

/// Free bytes that a start needs: an empty cluster takes about 40 MB and one more segment of write-ahead log 16 MB,
/// and a hub that starts on a full disk would only fail later, in the middle of something.
pub const MIN_FREE_BYTES: u64 = 128 * 1024 * 1024;

/// Where things lie below `--data-dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A layout below `root`, which should be absolute.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Secrets of the hub: 0700, files 0600.
    #[must_use]
    pub fn secrets_dir(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// The certificate authority and the pinned root, `root.pem`.
    #[must_use]
    pub fn pki_dir(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The person keys, outside Postgres.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The signed heads of the audit, unless they are elsewhere.
    #[must_use]
    pub fn audit_heads_dir(&self) -> PathBuf {
        self.root.join("audit-heads")
    }

    /// Postgres' own directory; the cluster is `data` inside it.
    #[must_use]
    pub fn postgres_dir(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// The folder of Postgres' Unix socket.
    #[must_use]
    pub fn postgres_socket_dir(&self) -> PathBuf {
        self.root.join("run/pg")
    }

    /// The broker's configuration, access lists and certificates.
    #[must_use]
    pub fn broker_dir(&self) -> PathBuf {
        self.root.join("broker")
    }

    /// The control socket of the command line.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("run/control.sock")
    }

    /// Makes the hub's own directories: all that an external database and broker need.
    pub fn prepare_private(&self) -> Result<(), EmbeddedError> {
        files::check_socket_path(&self.control_socket())?;
        if !self.root.is_dir() {
            files::ensure_dir(&self.root, 0o711, None)?;
        }
        for passable in [self.root.join("run"), self.pki_dir()] {
            files::ensure_dir(&passable, 0o711, None)?;
        }
        for private in [self.secrets_dir(), self.keys_dir()] {
            files::ensure_dir(&private, 0o700, None)?;
        }
        Ok(())
    }

    /// Makes the directories with their modes; the root stays passable (0711) so that the service user reaches its parts.
    ///
    /// Returns the user the parts run as (`None`: as oneself).
    pub fn prepare(&self) -> Result<Option<ServiceUser>, EmbeddedError> {
        let user = service_user::for_parts()?;
        files::check_socket_path(&self.postgres_socket_dir().join(".s.PGSQL.5432"))?;
        self.prepare_private()?;
        for theirs in [self.postgres_dir(), self.postgres_socket_dir(), self.broker_dir()] {
            files::ensure_dir(&theirs, 0o700, user.as_ref())?;
        }
        if let Some(user) = &user {
            service_user::check_traversable(&self.postgres_dir(), user)?;
        }
        Ok(user)
    }
}

/// Refuses an address beyond loopback.
pub fn check_loopback(address: SocketAddr, setting: &'static str) -> Result<(), EmbeddedError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(EmbeddedError::NotLoopback { address, setting }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_mode_stays_on_loopback() {
        assert!(check_loopback("127.0.0.1:8443".parse().unwrap(), "--listen").is_ok());
        assert!(check_loopback("[::1]:8443".parse().unwrap(), "--listen").is_ok());
        for beyond in ["0.0.0.0:8443", "192.168.1.2:8443", "[::]:8443"] {
            assert!(check_loopback(beyond.parse().unwrap(), "--listen").is_err(), "{beyond}");
        }
    }
}
