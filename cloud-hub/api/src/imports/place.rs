//! How many imports there may be at once, and where their files are meanwhile.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use wire_contract::Code;

use crate::problem::ApiError;
use hub_domain::ids::TenantId;

/// A file comes at a least rate, so that nobody keeps others from importing by sending slowly.
const LEAST: Rate = Rate { bytes: 1 << 20, every: Duration::from_secs(30) };
/// When to ask again while others import.
const RETRY_AFTER_SECONDS: u32 = 5;

/// Bounds of imports.
#[derive(Debug, Clone)]
pub struct ImportLimits {
    /// Imports at once.
    pub at_once: usize,
    /// Bytes of a file.
    pub max_bytes: u64,
    /// Where files are while they are imported.
    pub dir: PathBuf,
}

/// So many bytes in each stretch of such a length.
#[derive(Clone, Copy)]
struct Rate {
    bytes: u64,
    every: Duration,
}

/// The imports of a hub.
pub struct Imports {
    limits: ImportLimits,
    running: Arc<Mutex<HashSet<TenantId>>>,
}

/// A place among them; given back when dropped.
pub(super) struct Place {
    running: Arc<Mutex<HashSet<TenantId>>>,
    tenant: TenantId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().remove(&self.tenant);
    }
}

impl Imports {
    /// None yet.
    #[must_use]
    pub fn new(limits: ImportLimits) -> Self {
        Self { limits, running: Arc::default() }
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.limits.max_bytes
    }

    pub(super) fn dir(&self) -> &Path {
        &self.limits.dir
    }

    /// A place for an import of this tenant, which has one at a time: two would work at the same people.
    pub(super) fn enter(&self, tenant: TenantId) -> Result<Place, ApiError> {
        let mut running = self.running.lock();
        let why = if running.contains(&tenant) {
            "an import of this tenant is under way, or ends at its next row: come back when it has ended"
        } else if running.len() >= self.limits.at_once {
            "the hub has as many imports under way as it takes: come back later"
        } else {
            running.insert(tenant);
            return Ok(Place { running: Arc::clone(&self.running), tenant });
        };
        Err(ApiError::because(Code::Unavailable, why).retry_after(RETRY_AFTER_SECONDS))
    }

    /// Takes a file whole. It has no name, so that nothing is left of it when the import ends, however it ends.
    pub(super) async fn take(&self, body: Body) -> Result<File, ApiError> {
        self.take_at(LEAST, body).await
    }

    async fn take_at(&self, least: Rate, body: Body) -> Result<File, ApiError> {
        let failed = |error: io::Error| {
            tracing::error!(event = "import_not_kept", dir = %self.limits.dir.display(), %error, "the file of an import cannot be kept");
            ApiError::because(Code::Unavailable, "the hub cannot keep the file: its log says why")
        };
        let file = tokio::task::spawn_blocking({
            let dir = self.limits.dir.clone();
            move || make_dir(&dir).and_then(|()| tempfile::tempfile_in(&dir))
        });
        let file = file.await.map_err(|error| ApiError::internal(&error))?.map_err(failed)?;
        let mut file = tokio::fs::File::from_std(file);
        let (mut chunks, mut total) = (body.into_data_stream(), 0_u64);
        let (mut until, mut wanted) = (Instant::now() + least.every, least.bytes);
        loop {
            let Ok(next) = tokio::time::timeout_at(until, chunks.next()).await else {
                if total < wanted {
                    let (bytes, seconds) = (least.bytes, least.every.as_secs());
                    let detail =
                        format!("the file came too slowly, less than {bytes} bytes in {seconds} s: send it in parts");
                    return Err(ApiError::because(Code::Timeout, detail));
                }
                (until, wanted) = (Instant::now() + least.every, total + least.bytes);
                continue;
            };
            let Some(chunk) = next else { break };
            let chunk =
                chunk.map_err(|_| ApiError::because(Code::InvalidRequest, "the file broke off before its end"))?;
            total += chunk.len() as u64;
            if total > self.limits.max_bytes {
                let detail = format!("a file has at most {} bytes: send it in parts", self.limits.max_bytes);
                return Err(ApiError::because(Code::PayloadTooLarge, detail));
            }
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        Ok(file.into_std().await)
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures::stream;

    use super::*;

    /// A file that comes in such pieces, with such a rest before each.
    fn body(pieces: usize, bytes: usize, rest: Duration) -> Body {
        let piece = move |number: usize| async move {
            if number == pieces {
                return None;
            }
            tokio::time::sleep(rest).await;
            Some((Ok::<_, io::Error>(Bytes::from(vec![0; bytes])), number + 1))
        };
        Body::from_stream(stream::unfold(0, piece))
    }

    #[tokio::test]
    async fn a_file_comes_at_a_least_rate() {
        let dir = tempfile::tempdir().unwrap();
        let imports = Imports::new(ImportLimits { at_once: 2, max_bytes: 1 << 30, dir: dir.path().join("imports") });
        let least = Rate { bytes: 1 << 20, every: Duration::from_secs(2) };
        // It may take as long as it likes, and rest.
        let file = imports.take_at(least, body(5, 2 << 20, Duration::from_secs(1))).await.unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10 << 20);
        // Something all the time is not enough.
        let slow = imports.take_at(least, body(usize::MAX, 1_000, Duration::from_millis(20))).await.unwrap_err();
        assert_eq!(slow.code(), Code::Timeout);
    }
}
