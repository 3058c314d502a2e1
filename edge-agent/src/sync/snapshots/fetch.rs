//! Fetching a snapshot over HTTPS until it is there, is refused, or is gone.
//!
//! In: an offer that this device takes up. Out: [`Fetched`]. One task a gallery; it may be aborted at any moment, and the next one
//! goes on where it was. A line that breaks is tried again without end, ever more slowly: the driver ends it when the hub
//! offers another snapshot.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_store::{DeviceKeys, Replaced};
use tokio::sync::mpsc;
use wire_contract::{Code, Succession};

use super::{Addressee, Download, Offered, SnapshotError};
use crate::gallery::Galleries;
use crate::logging::chain;
use crate::sync::Timing;
use crate::sync::backoff::Backoff;
use crate::sync::driver::blocking;
use crate::sync::https::{HttpsError, Hub};

/// Bytes that are gathered before they are written: a chunk, so that the disk is not asked for each packet.
const GATHERED: usize = 256 * 1024;
/// A chunk that comes wrong so often in a row is no fault of the line.
const WRONG_IN_A_ROW: u32 = 3;

/// How far it is, for people. Written by the task, read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    held: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// Bytes here, and bytes in all; 0 in all before the manifest is here.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.held.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    fn set(&self, download: &Download) {
        self.bytes.store(download.bytes(), Ordering::Relaxed);
        self.held.store(download.held(), Ordering::Relaxed);
    }
}

/// What became of an offer.
#[derive(Debug)]
pub enum Fetched {
    /// The gallery is the snapshot's.
    Applied(Replaced),
    /// The hub does not have it (any more): the next report brings another offer.
    Gone,
    /// It is not what the hub signed. The gallery is as it was.
    Refused(Code),
    /// The disk refused: asked for again after a while.
    NotKept,
}

/// What the task works with.
pub struct Task {
    /// The hub's HTTPS, under this device's certificate.
    pub(in crate::sync) hub: Hub,
    /// Where it is kept meanwhile.
    pub dir: PathBuf,
    /// Where its key is kept.
    pub keys: DeviceKeys,
    /// What it goes into.
    pub galleries: Arc<Galleries>,
    /// Whose it must be.
    pub to: Addressee,
    /// What was offered.
    pub offered: Offered,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Who hears what the answer says of the hub's keys.
    pub learned: mpsc::Sender<Vec<Succession>>,
    /// How long to wait for what.
    pub timing: Timing,
}

impl Task {
    /// Fetches and applies.
    pub async fn run(self) -> Fetched {
        let mut backoff = Backoff::new(self.timing.backoff_first, self.timing.backoff_longest);
        let mut download = loop {
            match self.begin().await {
                Ok(download) => break download,
                Err(Trouble::Line(error)) => self.wait(&mut backoff, &error).await,
                Err(Trouble::Over(fetched)) => return fetched,
            }
        };
        let mut wrong = 0;
        while !download.is_complete() {
            let before = download.held();
            let (back, outcome) = self.go_on(download).await;
            download = back;
            self.progress.set(&download);
            if download.held() > before {
                backoff.reset();
                wrong = 0;
            }
            match outcome {
                Ok(()) => {}
                Err(Trouble::Line(error)) => self.wait(&mut backoff, &error).await,
                Err(Trouble::Over(Fetched::Refused(code))) => {
                    wrong += 1;
                    if wrong >= WRONG_IN_A_ROW {
                        blocking(move || download.destroy()).await;
                        return Fetched::Refused(code);
                    }
                }
                Err(Trouble::Over(Fetched::Gone)) => {
                    blocking(move || download.destroy()).await;
                    return Fetched::Gone;
                }
                Err(Trouble::Over(fetched)) => return fetched,
            }
        }
        let galleries = Arc::clone(&self.galleries);
        match blocking(move || download.apply(&galleries)).await {
            Ok(replaced) => Fetched::Applied(replaced),
            Err(error) => self.over(&error),
        }
    }

    /// What an earlier attempt left, or the manifest.
    async fn begin(&self) -> Result<Download, Trouble> {
        let (dir, keys, to, offered) = (self.dir.clone(), self.keys.clone(), self.to.clone(), self.offered);
        let left = blocking(move || Download::resume(&dir, &keys, &to, offered)).await;
        let download = match left.map_err(|error| Trouble::Over(self.over(&error)))? {
            Some(download) => download,
            None => {
                let answer = self.hub.snapshot_manifest(self.offered.id).await.map_err(Trouble::of)?;
                // Kept with the identity, so that this download is gone on with after a restart. If nobody hears it, the next answer says it.
                let _ = self.learned.try_send(answer.successions.clone());
                let (dir, keys, to) = (self.dir.clone(), self.keys.clone(), self.to.clone());
                let begun = blocking(move || Download::begin(&dir, &keys, &to, offered, &answer)).await;
                begun.map_err(|error| Trouble::Over(self.over(&error)))?
            }
        };
        self.progress.set(&download);
        Ok(download)
    }

    /// One request, from what is here on to the end, or as far as the line carries.
    async fn go_on(&self, mut download: Download) -> (Download, Result<(), Trouble>) {
        let idle = self.timing.connect_timeout;
        let mut response = match self.hub.snapshot_content(self.offered.id, download.held()).await {
            Ok(response) => response,
            Err(error) => return (download, Err(Trouble::of(error))),
        };
        loop {
            let mut gathered = Vec::with_capacity(GATHERED);
            let ended = loop {
                match tokio::time::timeout(idle, response.next()).await {
                    Ok(Ok(Some(bytes))) => gathered.extend_from_slice(&bytes),
                    Ok(Ok(None)) => break Some(Ok(())),
                    Ok(Err(error)) => break Some(Err(Trouble::of(error))),
                    Err(_) => break Some(Err(Trouble::Line(Silence(idle).into()))),
                }
                if gathered.len() >= GATHERED {
                    break None;
                }
            };
            let appended;
            (download, appended) = blocking(move || {
                let appended = download.append(&gathered);
                (download, appended)
            })
            .await;
            self.progress.set(&download);
            if let Err(error) = appended {
                return (download, Err(Trouble::Over(self.over(&error))));
            }
            if let Some(ended) = ended {
                return (download, ended);
            }
        }
    }

    async fn wait(&self, backoff: &mut Backoff, error: &BoxError) {
        tracing::warn!(event = "snapshot_interrupted", gallery = %self.offered.gallery, error = chain(error.as_ref()), "the snapshot is fetched on from where it was");
        tokio::time::sleep(backoff.next(rand::random())).await;
    }

    /// What an error of the snapshot itself, or of the disk, leads to.
    fn over(&self, error: &SnapshotError) -> Fetched {
        let Offered { gallery, epoch, version, .. } = self.offered;
        match error.code() {
            Some(code) => {
                tracing::error!(event = "snapshot_refused", alarm = true, gallery = %gallery, epoch, version, reason = %code, error = chain(error), "nothing of it is applied; doors go on with what they have");
                Fetched::Refused(code)
            }
            None => {
                tracing::error!(event = "snapshot_not_kept", alarm = true, gallery = %gallery, error = chain(error), "tried again by itself");
                Fetched::NotKept
            }
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

enum Trouble {
    /// Nobody answered, or the line broke.
    Line(BoxError),
    /// No use in asking for this again.
    Over(Fetched),
}

impl Trouble {
    fn of(error: HttpsError) -> Self {
        if error.is_unreachable() {
            return Self::Line(error.into());
        }
        tracing::info!(event = "snapshot_not_given", error = chain(&error), "asking the hub for another one");
        Self::Over(Fetched::Gone)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the hub sent nothing for {0:?}")]
struct Silence(Duration);
