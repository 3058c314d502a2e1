//! Gallery messages of the hub, applied to the stores; and what this device says of them.
//!
//! In: opened [`GalleryDown`] messages. Out: an [`Outcome`] that tells the driver what to do next. Records that do not
//! follow are asked for again; records that contradict what is there (another root, an id used twice) are a doubt: the
//! store key is destroyed, the doors deny, and the gallery is fetched from version 0.
//! Everything here blocks on the disk: call it from a blocking thread.

use edge_store::{ApplyError, DeviceKeys, GalleryError};
use gallery_log::{AppendError, GalleryId, Kind, Op, Record, RecordId, Root};
use wire_contract::gallery::{
    GalleryCondition, GalleryRebuild, GalleryRecord, GalleryRecords, GalleryState, RecordKind, RecordOp,
};
use wire_contract::{Code, GalleryDown, GalleryUp, Hash32, V1};

use crate::gallery::{Galleries, GalleryLine, RosterError};
use crate::logging::chain;

/// What the driver does after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Applied, or known already.
    Done,
    /// Something is missing: report the state, and the hub sends from there.
    Report,
    /// A gallery or epoch that this device has no keys for: fetch the link.
    FetchLink,
    /// A gallery was thrown away; report, and put it on record.
    ThrownAway {
        /// The gallery.
        gallery: GalleryId,
        /// Its epoch.
        epoch: u32,
        /// Why.
        code: Code,
    },
}

/// Joins messages of records that continue one another, so that a first fill rebuilds the index once, not once a message.
///
/// The root is then checked after the last record of the run; what it proves is the same.
pub(super) fn join(messages: Vec<GalleryDown>) -> Vec<GalleryDown> {
    let mut joined: Vec<GalleryDown> = Vec::new();
    for message in messages {
        let GalleryDown::Records(next) = message else {
            joined.push(message);
            continue;
        };
        match joined.last_mut() {
            Some(GalleryDown::Records(last)) if continues(last, &next) => {
                last.records.extend(next.records);
                last.root = next.root;
            }
            _ => joined.push(GalleryDown::Records(next)),
        }
    }
    joined
}

fn continues(last: &GalleryRecords, next: &GalleryRecords) -> bool {
    let follows = last.records.last().is_some_and(|record| record.version.checked_add(1) == Some(next.from));
    last.gallery == next.gallery && last.epoch == next.epoch && follows && last.check().is_ok() && next.check().is_ok()
}

/// Applies one message.
pub(super) fn handle(galleries: &Galleries, keys: &DeviceKeys, message: GalleryDown) -> Outcome {
    match message {
        GalleryDown::Records(records) => apply(galleries, keys, records),
        GalleryDown::Rebuild(order) => rebuild(galleries, keys, &order),
        GalleryDown::Unknown => {
            tracing::debug!(event = "gallery_message_unknown", "a newer hub's message is ignored");
            Outcome::Done
        }
    }
}

/// What the searched snapshot holds, for `up/gallery`.
pub(super) fn state_report(galleries: &Galleries) -> GalleryUp {
    let roster = galleries.roster().load_full();
    let state = |line: &GalleryLine| GalleryState {
        gallery: wire_contract::GalleryId(line.gallery.0),
        epoch: line.epoch,
        version: line.version,
        root: Hash32(line.root.0),
        condition: if line.version > 0 && !roster.closed() {
            GalleryCondition::Ready
        } else {
            GalleryCondition::Rebuilding
        },
    };
    GalleryUp::State { v: V1, galleries: roster.lines().iter().map(state).collect() }
}

fn apply(galleries: &Galleries, keys: &DeviceKeys, message: GalleryRecords) -> Outcome {
    let gallery = GalleryId(message.gallery.0);
    if let Err(error) = message.check() {
        tracing::error!(event = "gallery_message_malformed", alarm = true, error = %error, "ignored; asking again");
        return Outcome::Report;
    }
    let Some(line) = line_of(galleries, gallery) else { return Outcome::FetchLink };
    match message.epoch.cmp(&line.epoch) {
        std::cmp::Ordering::Greater => return Outcome::FetchLink,
        std::cmp::Ordering::Less => {
            tracing::error!(event = "gallery_epoch_lower", alarm = true, gallery = %gallery, found = message.epoch, expected = line.epoch, "records of an older epoch are refused");
            return Outcome::Done;
        }
        std::cmp::Ordering::Equal => {}
    }
    let (epoch, root) = (message.epoch, Root(message.root.0));
    let to_record = |record| into_record(gallery, epoch, record);
    let new: Vec<Record> =
        message.records.into_iter().filter(|record| record.version > line.version).map(to_record).collect();
    match new.first() {
        None => return Outcome::Done,
        Some(first) if first.version != line.version + 1 => return Outcome::Report,
        Some(_) => {}
    }
    match galleries.apply(gallery, &new, root) {
        Ok(()) => Outcome::Done,
        Err(error) => refused(galleries, keys, gallery, epoch, &error),
    }
}

/// Decides what a failed application means: a doubt destroys the store, anything else leaves it as it was.
fn refused(galleries: &Galleries, keys: &DeviceKeys, gallery: GalleryId, epoch: u32, error: &RosterError) -> Outcome {
    let RosterError::Apply { source, .. } = error else {
        tracing::error!(event = "gallery_not_applied", alarm = true, gallery = %gallery, error = chain(error), "not searched; tried again by itself");
        return Outcome::Report;
    };
    let code = match source {
        ApplyError::Append(AppendError::OutOfOrder { .. }) => return Outcome::Report,
        ApplyError::Append(AppendError::OtherEpoch { .. } | AppendError::OtherGallery { .. }) => {
            return Outcome::FetchLink;
        }
        ApplyError::Append(_) | ApplyError::Root(_) => Code::RootMismatch,
        ApplyError::Store(GalleryError::Doubt { .. }) => Code::StoreDoubtful,
        ApplyError::Store(_) => {
            // A full disk does not make the gallery wrong. The hub sends again after the next report.
            tracing::error!(event = "gallery_not_stored", alarm = true, gallery = %gallery, error = chain(error), "records could not be stored; the gallery stays as it was");
            return Outcome::Done;
        }
    };
    tracing::error!(event = "gallery_doubtful", alarm = true, gallery = %gallery, error = chain(error), "destroyed; doors deny until the hub has filled it again");
    throw_away(galleries, keys, gallery, epoch, code)
}

fn rebuild(galleries: &Galleries, keys: &DeviceKeys, order: &GalleryRebuild) -> Outcome {
    let gallery = GalleryId(order.gallery.0);
    let Some(line) = line_of(galleries, gallery) else { return Outcome::FetchLink };
    if order.epoch > line.epoch {
        return Outcome::FetchLink;
    }
    if order.epoch < line.epoch {
        tracing::error!(event = "gallery_epoch_lower", alarm = true, gallery = %gallery, found = order.epoch, expected = line.epoch, "an order for an older epoch is refused");
        return Outcome::Done;
    }
    tracing::warn!(event = "gallery_rebuild_ordered", gallery = %gallery, reason = %order.reason, "the hub orders this gallery to be fetched anew");
    throw_away(galleries, keys, gallery, order.epoch, order.reason)
}

fn throw_away(galleries: &Galleries, keys: &DeviceKeys, gallery: GalleryId, epoch: u32, code: Code) -> Outcome {
    let held = match keys.gallery(gallery) {
        Ok(Some(held)) => held,
        Ok(None) => return Outcome::FetchLink,
        Err(error) => {
            tracing::error!(event = "gallery_keys_unreadable", alarm = true, gallery = %gallery, error = chain(&error), "fetching them again");
            return Outcome::FetchLink;
        }
    };
    if let Err(error) = galleries.restart(gallery, &held) {
        tracing::error!(event = "gallery_not_restarted", alarm = true, gallery = %gallery, error = chain(&error), "its people are out of the snapshot");
    }
    Outcome::ThrownAway { gallery, epoch, code }
}

fn line_of(galleries: &Galleries, gallery: GalleryId) -> Option<GalleryLine> {
    galleries.roster().load().lines().iter().find(|line| line.gallery == gallery).cloned()
}

fn into_record(gallery: GalleryId, epoch: u32, record: GalleryRecord) -> Record {
    let op = match record.op {
        RecordOp::Put => Op::Put,
        RecordOp::Del => Op::Del,
    };
    let kind = match record.kind {
        RecordKind::Person => Kind::Person,
        RecordKind::Template => Kind::Template,
        RecordKind::Credential => Kind::Credential,
        RecordKind::Rule => Kind::Rule,
    };
    let id = RecordId(record.id);
    Record { gallery, epoch, version: record.version, op, kind, id, rev: record.rev, body: record.body.0 }
}

#[cfg(test)]
mod tests;
