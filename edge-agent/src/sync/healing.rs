//! A gallery that differs from the hub's, seen from the line: when it is one, what is said of it, and how the answer is
//! put together.
//!
//! In: the hub's word that a report of this device is not what it has, or records that contradict what is here; then the
//! parts of its answer. Out: a gallery that is set aside, its bucket hashes to be sent, and the replacement. What cannot
//! be healed is thrown away and fetched anew. Every message must name the place where the gallery stands: one that was
//! delivered before, or is about something past, does nothing.
//! Everything here but [`Parts`] blocks on the disk.

use std::collections::{BTreeMap, HashMap};

use edge_store::{ApplyError, DeviceKeys, GalleryError};
use gallery_log::{GalleryId, Record, Root};
use wire_contract::gallery::GalleryRecord;
use wire_contract::healing::{GalleryBuckets, GalleryCompare, GalleryHashes, MAX_HEALING_BYTES};
use wire_contract::{Code, GalleryUp};

use super::receiver::{Outcome, into_record, line_of, other_epoch, throw_away};
use crate::gallery::{Galleries, GalleryLine, RosterError};
use crate::logging::chain;

/// Parts of answers that are not complete yet, by gallery.
#[derive(Debug, Default)]
pub struct Parts {
    waiting: HashMap<GalleryId, Answer>,
}

#[derive(Debug)]
struct Answer {
    /// What every part of it says; without records.
    about: GalleryBuckets,
    parts: BTreeMap<u16, Vec<GalleryRecord>>,
    bytes: usize,
}

impl Parts {
    /// Takes a part; with the last one the whole answer comes back. Parts of another answer than the one before take its
    /// place. What a hub would never send, because it is too much to keep in memory, is forgotten.
    fn take(&mut self, part: GalleryBuckets) -> Option<GalleryBuckets> {
        let gallery = GalleryId(part.gallery.0);
        let (number, parts) = (part.part, usize::from(part.parts));
        let about = GalleryBuckets { part: 0, records: Vec::new(), ..part };
        let answer = match self.waiting.remove(&gallery) {
            Some(answer) if answer.about == about => answer,
            _ => Answer { about, parts: BTreeMap::new(), bytes: 0 },
        };
        let answer = answer.with(number, part.records);
        if answer.bytes > MAX_HEALING_BYTES {
            tracing::warn!(event = "gallery_answer_too_long", gallery = %gallery, bytes = answer.bytes, "forgotten");
            return None;
        }
        if answer.parts.len() < parts {
            self.waiting.insert(gallery, answer);
            return None;
        }
        Some(GalleryBuckets { records: answer.parts.into_values().flatten().collect(), ..answer.about })
    }
}

impl Answer {
    fn with(mut self, number: u16, records: Vec<GalleryRecord>) -> Self {
        let length = |records: &[GalleryRecord]| records.iter().map(|record| record.body.0.len()).sum::<usize>();
        self.bytes += length(&records);
        if let Some(before) = self.parts.insert(number, records) {
            self.bytes -= length(&before);
        }
        self
    }
}

/// The bucket hashes of each gallery that is known to differ, for `up/gallery`.
pub(super) fn hashes(galleries: &Galleries) -> Vec<GalleryUp> {
    let roster = galleries.roster().load_full();
    roster.lines().iter().filter_map(hashes_of).map(GalleryUp::Hashes).collect()
}

fn hashes_of(line: &GalleryLine) -> Option<GalleryHashes> {
    let hashes = line.differing.as_ref()?.map(|bucket| bucket.0);
    Some(GalleryHashes::of(wire_contract::GalleryId(line.gallery.0), line.epoch, line.version, &hashes))
}

/// The hub has another root for what was reported.
pub(super) fn compare(galleries: &Galleries, message: &GalleryCompare) -> Outcome {
    let gallery = GalleryId(message.gallery.0);
    let Some(line) = line_of(galleries, gallery) else { return Outcome::FetchLink };
    if let Some(outcome) = other_epoch(&line, message.epoch) {
        return outcome;
    }
    if (message.version, message.root.0) != (line.version, line.root.0) {
        tracing::debug!(event = "gallery_compare_out_of_date", gallery = %gallery, version = message.version, "ignored: the gallery stands elsewhere by now");
        return Outcome::Done;
    }
    tracing::warn!(event = "gallery_differs", alarm = true, gallery = %gallery, version = line.version, root = %line.root, "the hub has another root; doors deny until the difference is healed");
    differs(galleries, gallery)
}

/// Sets a gallery aside.
pub(super) fn differs(galleries: &Galleries, gallery: GalleryId) -> Outcome {
    if let Err(error) = galleries.set_aside(gallery) {
        tracing::error!(event = "gallery_not_set_aside", alarm = true, gallery = %gallery, error = chain(&error), "nobody of it is searched");
    }
    Outcome::Differs
}

/// A part of the hub's answer to the hashes.
pub(super) fn buckets(galleries: &Galleries, keys: &DeviceKeys, parts: &mut Parts, part: GalleryBuckets) -> Outcome {
    let gallery = GalleryId(part.gallery.0);
    if let Err(error) = part.check() {
        tracing::error!(event = "gallery_message_malformed", alarm = true, error = %error, "ignored; asking again");
        return Outcome::Report;
    }
    let Some(line) = line_of(galleries, gallery) else { return Outcome::FetchLink };
    if let Some(outcome) = other_epoch(&line, part.epoch) {
        return outcome;
    }
    if line.differing.is_none() || part.version < line.version {
        tracing::debug!(event = "gallery_buckets_not_asked_for", gallery = %gallery, version = part.version, "ignored");
        return Outcome::Done;
    }
    match parts.take(part) {
        Some(whole) => replace(galleries, keys, gallery, whole),
        None => Outcome::Done,
    }
}

fn replace(galleries: &Galleries, keys: &DeviceKeys, gallery: GalleryId, whole: GalleryBuckets) -> Outcome {
    let (epoch, version, root) = (whole.epoch, whole.version, Root(whole.root.0));
    let buckets = whole.buckets.iter().copied().collect();
    let live: Vec<Record> = whole.records.into_iter().map(|record| into_record(gallery, epoch, record)).collect();
    match galleries.replace(gallery, version, &buckets, live, root) {
        Ok(replaced) => {
            let replaced_buckets = u32::try_from(buckets.len()).unwrap_or(u32::MAX);
            tracing::warn!(event = "gallery_healed", gallery = %gallery, version, buckets = replaced_buckets, received = replaced.received, removed = replaced.removed, "equal to the hub's again; it is searched");
            Outcome::Healed { gallery, epoch, version, buckets: replaced_buckets, replaced }
        }
        Err(error) => not_healed(galleries, keys, gallery, epoch, &error),
    }
}

/// The answer did not make both ends equal: that was the second failure. What the disk refused is tried again.
fn not_healed(
    galleries: &Galleries,
    keys: &DeviceKeys,
    gallery: GalleryId,
    epoch: u32,
    error: &RosterError,
) -> Outcome {
    let code = match error {
        RosterError::Apply { source: ApplyError::Store(GalleryError::Doubt { .. }), .. } => Code::StoreDoubtful,
        RosterError::Apply { source: ApplyError::Store(_), .. } => {
            tracing::error!(event = "gallery_not_stored", alarm = true, gallery = %gallery, error = chain(error), "the hub's buckets could not be stored; doors deny meanwhile");
            return Outcome::Retry;
        }
        RosterError::Apply { .. } => Code::RootMismatch,
        _ => {
            tracing::error!(event = "gallery_not_applied", alarm = true, gallery = %gallery, error = chain(error), "not searched; tried again by itself");
            return Outcome::Report;
        }
    };
    tracing::error!(event = "gallery_not_healed", alarm = true, gallery = %gallery, error = chain(error), "destroyed; doors deny until the hub has filled it again");
    throw_away(galleries, keys, gallery, epoch, code)
}

#[cfg(test)]
mod tests;
