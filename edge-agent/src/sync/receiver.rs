//! Gallery messages of the hub, applied to the stores; and what this device says of them.
//!
//! In: opened [`GalleryDown`] messages. Out: an [`Outcome`] that tells the driver what to do next. Records that do not
//! follow are asked for again. Records that contradict what is there (another root, an id used twice) say that both ends
//! differ: the gallery is set aside, the doors deny, and it is healed ([`healing`]). A store in doubt of itself is destroyed
//! and fetched from version 0, and so is one that could not be healed.
//! Everything here blocks on the disk: call it from a blocking thread.

use edge_store::{ApplyError, DeviceKeys, GalleryError, Replaced};
use gallery_log::{AppendError, GalleryId, Kind, Op, Record, RecordId, Root};
use wire_contract::gallery::{
    GalleryCondition, GalleryRebuild, GalleryRecord, GalleryRecords, GalleryStand, GalleryState, RecordKind, RecordOp,
};
use wire_contract::{Code, GalleryDown, GalleryUp, Hash32, V1};

use super::healing::{self, Parts};
use super::snapshots::{self, Offered};
use crate::gallery::{Galleries, GalleryLine, RosterError};
use crate::logging::chain;

/// What the driver does after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, or known already.
    Done,
    /// Something is missing: report the state, and the hub sends from there.
    Report,
    /// The disk refused: report after a while.
    Retry,
    /// The hub has a snapshot that this device wants: fetch it.
    Offered(Offered),
    /// A gallery was set aside: say its bucket hashes.
    Differs,
    /// It is equal to the hub's again; put it on record.
    Healed {
        /// The gallery.
        gallery: GalleryId,
        /// Its epoch.
        epoch: u32,
        /// Its version since.
        version: u64,
        /// How many buckets were replaced.
        buckets: u32,
        /// What that changed.
        replaced: Replaced,
    },
    /// Something was said for an older epoch, and refused: put it on record.
    OlderEpoch {
        /// The gallery.
        gallery: GalleryId,
        /// The epoch that was named.
        offered: u32,
        /// The gallery's own.
        held: u32,
    },
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
pub fn join(messages: Vec<GalleryDown>) -> Vec<GalleryDown> {
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

/// Applies one message. `parts` are those of answers that are not complete.
pub fn handle(galleries: &Galleries, keys: &DeviceKeys, parts: &mut Parts, message: GalleryDown) -> Outcome {
    match message {
        GalleryDown::Records(records) => apply(galleries, keys, records),
        GalleryDown::Rebuild(order) => rebuild(galleries, keys, &order),
        GalleryDown::Compare(message) => healing::compare(galleries, &message),
        GalleryDown::Buckets(part) => healing::buckets(galleries, keys, parts, part),
        GalleryDown::Snapshot(offer) => snapshots::offered(galleries, &offer),
        GalleryDown::Unknown => {
            tracing::debug!(event = "gallery_message_unknown", "a newer hub's message is ignored");
            Outcome::Done
        }
    }
}

/// What is to be said on `up/gallery`: where each gallery stands, and the hashes of those that differ.
pub fn reports(galleries: &Galleries) -> Vec<GalleryUp> {
    std::iter::once(state_report(galleries)).chain(healing::hashes(galleries)).collect()
}

/// What the searched snapshot holds.
fn state_report(galleries: &Galleries) -> GalleryUp {
    let roster = galleries.roster().load_full();
    let state = |line: &GalleryLine| GalleryState {
        gallery: wire_contract::GalleryId(line.gallery.0),
        epoch: line.epoch,
        version: line.version,
        root: Hash32(line.root.0),
        condition: if line.version > 0 && line.differing.is_none() && !roster.closed() {
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
    if let Some(outcome) = other_epoch(&line, message.epoch) {
        return outcome;
    }
    if line.differing.is_some() {
        // The hub's answer to the hashes brings them as well.
        return Outcome::Done;
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
        ApplyError::Append(_) | ApplyError::Root(_) | ApplyError::Replace(_) => {
            tracing::warn!(event = "gallery_differs", alarm = true, gallery = %gallery, error = chain(error), "doors deny until the difference is healed");
            return healing::differs(galleries, gallery);
        }
        ApplyError::Store(GalleryError::Doubt { .. }) => Code::StoreDoubtful,
        ApplyError::Store(_) => {
            // A full disk does not make the gallery wrong. The hub sends again after the next report.
            tracing::error!(event = "gallery_not_stored", alarm = true, gallery = %gallery, error = chain(error), "records could not be stored; the gallery stays as it was");
            return Outcome::Retry;
        }
    };
    tracing::error!(event = "gallery_doubtful", alarm = true, gallery = %gallery, error = chain(error), "destroyed; doors deny until the hub has filled it again");
    throw_away(galleries, keys, gallery, epoch, code)
}

fn rebuild(galleries: &Galleries, keys: &DeviceKeys, order: &GalleryRebuild) -> Outcome {
    let gallery = GalleryId(order.gallery.0);
    let Some(line) = line_of(galleries, gallery) else { return Outcome::FetchLink };
    if let Some(outcome) = other_epoch(&line, order.epoch) {
        return outcome;
    }
    let stands = GalleryStand { version: line.version, root: Hash32(line.root.0) };
    if order.answers != Some(stands) {
        // Delivered again after it was obeyed, most likely: whoever can do that must not be able to empty a gallery.
        tracing::warn!(event = "gallery_rebuild_out_of_date", gallery = %gallery, reason = %order.reason, "ignored: it answers another report than the last one");
        return Outcome::Report;
    }
    if line.version == 0 && line.differing.is_none() {
        return Outcome::Report;
    }
    tracing::warn!(event = "gallery_rebuild_ordered", gallery = %gallery, reason = %order.reason, "the hub orders this gallery to be fetched anew");
    throw_away(galleries, keys, gallery, order.epoch, order.reason)
}

/// What is done with a message for another epoch than the gallery's; none when it is the same.
pub(super) fn other_epoch(line: &GalleryLine, offered: u32) -> Option<Outcome> {
    let (gallery, held) = (line.gallery, line.epoch);
    match offered.cmp(&held) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(Outcome::FetchLink),
        std::cmp::Ordering::Less => {
            tracing::error!(event = "gallery_epoch_lower", alarm = true, gallery = %gallery, offered, held, "a message for an older epoch is refused");
            Some(Outcome::OlderEpoch { gallery, offered, held })
        }
    }
}

/// Destroys a gallery's key and content; the hub fills it again after the next report.
pub(super) fn throw_away(
    galleries: &Galleries,
    keys: &DeviceKeys,
    gallery: GalleryId,
    epoch: u32,
    code: Code,
) -> Outcome {
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

pub(super) fn line_of(galleries: &Galleries, gallery: GalleryId) -> Option<GalleryLine> {
    galleries.roster().load().lines().iter().find(|line| line.gallery == gallery).cloned()
}

pub(super) fn into_record(gallery: GalleryId, epoch: u32, record: GalleryRecord) -> Record {
    let op = match record.op {
        RecordOp::Put => Op::Put,
        RecordOp::Del => Op::Del,
    };
    let kind = match record.kind {
        RecordKind::Person => Kind::Person,
        RecordKind::Template => Kind::Template,
        RecordKind::Credential => Kind::Credential,
        RecordKind::Rule => Kind::Rule,
        RecordKind::Anchor => Kind::Anchor,
    };
    let id = RecordId(record.id);
    Record { gallery, epoch, version: record.version, op, kind, id, rev: record.rev, body: record.body.0 }
}

#[cfg(test)]
mod tests;
