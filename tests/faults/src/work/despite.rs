//! A worker that goes on although a store refuses, and tells of each promise that comes after a refusal.
//!
//! After a failed fsync the kernel has dropped what it could not write and calls it written. So an outbox that has refused
//! may promise nothing more in this process, and a gallery only after it has moved to a new generation of files.

use std::path::Path;

use anyhow::Result;
use edge_store::{GalleryStore, Outbox, Position, Priority};

use super::gallery::{self, Hub};
use super::outbox;
use super::{GALLERY_LANE, GALLERY_REFUSED_LANE, OUTBOX_REFUSED_LANE, at};
use crate::rig::ledger::Ledger;

/// As many operations as there are fsyncs worth failing: the same few ways again and again.
const OPERATIONS: u64 = 120;

/// What becomes of an outbox that has refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlet {
    /// It is asked again.
    Kept,
    /// It is opened anew in the same process: the broken variant.
    Reopened,
}

pub(super) fn run(dir: &Path, ledger: &Ledger, outlet: Outlet) -> Result<()> {
    let mut events = Events { dir, ledger, outlet, outbox: Some(outbox::open(dir, 0)?.0), recorded: 0, refused: false };
    let mut people =
        People { dir, ledger, store: gallery::open(dir)?.0, hub: Hub::new(), waiting: None, refused: None };
    for operation in 0..OPERATIONS {
        if operation % 3 == 2 {
            people.follow();
        } else {
            events.record();
        }
        if operation % 20 == 10 {
            // A refusal here is one of the writes that come after it.
            let _ = people.store.rewrite();
        }
    }
    Ok(())
}

struct Events<'a> {
    dir: &'a Path,
    ledger: &'a Ledger,
    outlet: Outlet,
    outbox: Option<Outbox>,
    recorded: u64,
    refused: bool,
}

impl Events<'_> {
    fn record(&mut self) {
        let n = self.recorded + 1;
        self.ledger.begin(0, 1);
        let Some(outbox) = &self.outbox else { return };
        match outbox.append(at(0), Priority::MustKeep, |_: Position| outbox::event(0, 0, n)) {
            Ok(_) => {
                self.recorded = n;
                self.ledger.promise(0, n);
                if self.refused {
                    let told = self.ledger.copy().acked[OUTBOX_REFUSED_LANE];
                    self.ledger.promise(OUTBOX_REFUSED_LANE, told + 1);
                }
            }
            Err(_) => {
                self.refused = true;
                self.ledger.begin(OUTBOX_REFUSED_LANE, 1);
                if self.outlet == Outlet::Reopened {
                    self.outbox = None;
                    self.outbox = outbox::open(self.dir, 0).ok().map(|(outbox, _)| outbox);
                    // What it says is there counts: it was read back.
                    let last =
                        self.outbox.as_ref().and_then(|outbox| outbox.stats().ok()).map(|stats| stats.last_sequence);
                    self.recorded = last.unwrap_or(self.recorded);
                }
            }
        }
    }
}

struct People<'a> {
    dir: &'a Path,
    ledger: &'a Ledger,
    store: GalleryStore,
    hub: Hub,
    waiting: Option<(gallery_log::Record, gallery_log::Root)>,
    /// The generations that were there when the store refused.
    refused: Option<Vec<String>>,
}

impl People<'_> {
    /// Applies the next record, or again the one that was refused.
    fn follow(&mut self) {
        let (record, root) = self.waiting.take().unwrap_or_else(|| self.hub.publish());
        self.ledger.begin(GALLERY_LANE, 1);
        let version = record.version;
        let result = match self.store.reopen() {
            // What a refused write had left may count after all.
            Ok(()) if self.store.version() >= version => Ok(()),
            Ok(()) => self.store.apply(std::slice::from_ref(&record), root).map(drop).map_err(drop),
            Err(_) => Err(()),
        };
        if result.is_err() {
            self.ledger.begin(GALLERY_REFUSED_LANE, 1);
            self.refused = Some(self.generations());
            self.waiting = Some((record, root));
            return;
        }
        self.ledger.promise(GALLERY_LANE, version);
        if self.refused.take().is_some_and(|then| then == self.generations()) {
            let told = self.ledger.copy().acked[GALLERY_REFUSED_LANE];
            self.ledger.promise(GALLERY_REFUSED_LANE, told + 1);
        }
    }

    fn generations(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("gallery")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with("generation-"));
        names.sort();
        names
    }
}
