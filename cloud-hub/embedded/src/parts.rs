//! Where the programs that the embedded mode starts are found.
//!
//! `scripts/setup` puts Postgres with pgvector below the parts directory; Mosquitto comes from the system's packages.

use std::path::{Path, PathBuf};

use super::EmbeddedError;

/// The directory that `scripts/setup` fills: `LINTEL_PARTS`, else the default of `scripts/lib.sh`.
#[must_use]
pub fn parts_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("LINTEL_PARTS").filter(|dir| !dir.is_empty()) {
        return PathBuf::from(dir);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/lintel/parts");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(|| PathBuf::from(".cache"));
    cache.join("lintel/parts")
}

/// Finds the Postgres `bin` directory: the configured one, else `parts/postgres/bin`.
pub fn postgres_bin(configured: Option<&Path>) -> Result<PathBuf, EmbeddedError> {
    let bin = configured.map_or_else(|| parts_dir().join("postgres/bin"), Path::to_path_buf);
    for program in ["postgres", "initdb"] {
        if !bin.join(program).is_file() {
            return Err(EmbeddedError::PartMissing {
                part: "Postgres",
                path: bin.join(program),
                hint: "run scripts/setup, or set embedded.postgres_bin to a Postgres 16 or newer with pgvector",
            });
        }
    }
    Ok(bin)
}

/// Finds `mosquitto`: the configured path, else the search path and the folders where distributions put it.
pub fn mosquitto(configured: Option<&Path>) -> Result<PathBuf, EmbeddedError> {
    if let Some(path) = configured {
        return if path.is_file() { Ok(path.to_path_buf()) } else { Err(mosquitto_missing(path)) };
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join("mosquitto"))
        .find(|path| path.is_file())
        .ok_or_else(|| mosquitto_missing(Path::new("mosquitto")))
}

fn mosquitto_missing(path: &Path) -> EmbeddedError {
    EmbeddedError::PartMissing {
        part: "Mosquitto",
        path: path.to_path_buf(),
        hint: "run scripts/setup (or apt-get install mosquitto), or set embedded.mosquitto",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_named_with_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let postgres = postgres_bin(Some(empty.path())).unwrap_err().to_string();
        assert!(postgres.contains("Postgres") && postgres.contains("scripts/setup"), "{postgres}");
        let broker = mosquitto(Some(&empty.path().join("mosquitto"))).unwrap_err().to_string();
        assert!(broker.contains("Mosquitto") && broker.contains("scripts/setup"), "{broker}");
    }
}
