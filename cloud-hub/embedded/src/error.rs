//! What can go wrong when the embedded parts start; each message names the thing and what to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A failure to start or run an embedded part.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The user id of the hub is not in the user database.
    #[error("user id {uid} has no name in the user database: Postgres needs one (add a passwd entry for it)")]
    NamelessUser {
        /// The id.
        uid: u32,
    },
    /// The hub is root and the unprivileged user is missing.
    #[error(
        "the hub runs as root, Postgres refuses to: the system user `lintel` is needed and missing \
         (run scripts/setup, or: useradd --system --no-create-home lintel)"
    )]
    NoServiceUser,
    /// The service user cannot reach the data directory.
    #[error(
        "data directory {}: user `{user}` may not pass through {} (chmod o+x it, or choose another --data-dir)",
        dir.display(), closed.display()
    )]
    NotTraversable {
        /// The directory to be used.
        dir: PathBuf,
        /// The first folder on the way that is closed.
        closed: PathBuf,
        /// Who cannot pass.
        user: String,
    },
    /// A program is not where it should be.
    #[error("{part} not found at {}: {hint}", path.display())]
    PartMissing {
        /// Its name.
        part: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// Postgres runs but has no vector extension.
    #[error("the Postgres at {} has no pgvector extension: run scripts/setup, or install pgvector for it", bin.display())]
    NoPgvector {
        /// Its `bin` directory.
        bin: PathBuf,
    },
    /// Someone listens there already.
    #[error("{address} is in use by {owner}: stop it, or choose another address with {setting}")]
    PortBusy {
        /// The address.
        address: SocketAddr,
        /// The process, as far as it can be found out.
        owner: String,
        /// The option or setting that chooses the address.
        setting: &'static str,
    },
    /// The address cannot be listened at for another reason.
    #[error("cannot listen at {address} ({setting}): {source}")]
    CannotListen {
        /// The address.
        address: SocketAddr,
        /// The option or setting that chooses the address.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The embedded mode stays on loopback, since it makes its own secrets without anyone's care.
    #[error(
        "{address} ({setting}) is not a loopback address: the embedded mode listens on loopback only; use external Postgres and broker for a network"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
        /// The option or setting that chooses the address.
        setting: &'static str,
    },
    /// Too little room to start safely.
    #[error("{}: {free_mib} MiB free, at least {needed_mib} MiB are needed to start: make room, or choose another --data-dir", dir.display())]
    NoSpace {
        /// The data directory.
        dir: PathBuf,
        /// Free now.
        free_mib: u64,
        /// Needed.
        needed_mib: u64,
    },
    /// Another hub works there.
    #[error("data directory {} is in use by another cloud-hub (process {pid})", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process id its lock file tells.
        pid: String,
    },
    /// Unix socket addresses hold 107 bytes.
    #[error("{} is too long for a Unix socket (107 bytes): choose a shorter --data-dir", path.display())]
    PathTooLong {
        /// The socket's path.
        path: PathBuf,
    },
    /// A part of a previous life does not stop.
    #[error("{part} of a previous run (process {pid}) does not stop: stop it by hand and start again")]
    LeftoverStuck {
        /// Which part.
        part: &'static str,
        /// Its process.
        pid: i32,
    },
    /// A part could not be started.
    #[error("cannot start {part} ({}): {source}", program.display())]
    Spawn {
        /// Which part.
        part: &'static str,
        /// The executable.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part ended, or never answered, while it was being started.
    #[error("{part} did not become ready ({why}): {log}")]
    NotReady {
        /// Which part.
        part: &'static str,
        /// "it ended with …" or "no answer within …".
        why: String,
        /// Its last log lines.
        log: String,
    },
    /// A secret's file.
    #[error(transparent)]
    Secret(#[from] hub_host::secret_file::SecretFileError),
    /// A file or directory operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb phrase, such as "create".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A statement of the cluster's bootstrap failed.
    #[error("embedded postgres: cannot {action}: {source}")]
    Database {
        /// A verb phrase.
        action: &'static str,
        /// Why.
        source: sqlx::Error,
    },
}

/// Shorthand to wrap an I/O error with what was done to which path.
pub(super) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EmbeddedError + 'a {
    move |source| EmbeddedError::Io { action, path: path.to_path_buf(), source }
}
