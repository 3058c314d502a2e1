//! Starting the real programs: where they and their parts are, free ports, a run directory that goes away.

mod agent;
mod hub;
mod process;
mod receiver;

pub use agent::{Agent, AgentSetup, camera_name, door_name};
pub use hub::{Hub, Tenant};
pub use process::{Process, cpu_time};
pub use receiver::Receiver;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the built programs and the installed parts are.
#[derive(Clone, Debug)]
pub struct Places {
    /// Folder with `edge-agent` and `cloud-hub`.
    pub programs: PathBuf,
    /// What `scripts/setup` installed: `onnxruntime`, `models`, `postgres`, `demo`.
    pub parts: PathBuf,
    /// The repository, for the model manifest.
    pub repository: PathBuf,
}

impl Places {
    /// Finds the programs beside the running one, and the parts by `LINTEL_PARTS` or the cache rule of `scripts/lib.sh`.
    ///
    /// Fails with what is missing and the command that provides it.
    pub fn find() -> Result<Self> {
        let here = std::env::current_exe().context("the path of this program")?;
        let programs = here
            .ancestors()
            .skip(1)
            .find(|dir| dir.join("edge-agent").is_file() && dir.join("cloud-hub").is_file())
            .with_context(|| {
                format!("no edge-agent and cloud-hub near {}: run `cargo build --release`", here.display())
            })?
            .to_path_buf();
        let parts = parts_dir();
        for needed in ["onnxruntime/libonnxruntime.so", "models/faceplugin", "postgres/bin", "demo"] {
            let path = parts.join(needed);
            if !path.exists() {
                bail!("{} is missing: run scripts/setup", path.display());
            }
        }
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the tests folder stands in the repository")?
            .to_path_buf();
        Ok(Self { programs, parts, repository })
    }

    /// A demonstration picture or clip by file name.
    pub fn demo_file(&self, name: &str) -> PathBuf {
        self.parts.join("demo").join(name)
    }
}

/// The folder of installed parts: `LINTEL_PARTS`, else the cache folder that `scripts/lib.sh` also uses.
pub fn parts_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("LINTEL_PARTS") {
        return PathBuf::from(dir);
    }
    let cache = if let Some(dir) = std::env::var_os("LINTEL_CACHE") {
        PathBuf::from(dir)
    } else if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache/lintel")
    } else if let Some(dir) = std::env::var_os("XDG_CACHE_HOME") {
        PathBuf::from(dir).join("lintel")
    } else {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/lintel")
    };
    cache.join("parts")
}

/// A port that was free on loopback a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?.port())
}

/// A fresh directory under `/tmp` that the hub's service user can reach; it goes away when dropped.
///
/// Short on purpose: a Unix socket's path may have 107 bytes.
pub fn run_dir() -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix("lintel-")
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir_in("/tmp")
        .context("no run directory could be made under /tmp")
}
