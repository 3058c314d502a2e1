//! Messages of gallery records: opened and put together once, sealed for each device that is to have them.
//!
//! In: where the devices stand, or where one of them differs. Out: the next run of records that fits 64 KiB, or the buckets
//! that differ in as many parts as they take, sealed under each device's K_down.
//!
//! **Erased people.** Records of a person who was erased have no body any more, yet versions must stay contiguous and
//! a `del` must find something to delete. A device that comes from before such a record is sent a stand-in: a person
//! who may not pass, a template or anchor in a space that no model has. Its `del` follows further on in the log. A message that
//! ends in between therefore leads to another root than the log had; the root that the device must have there is
//! computed, from the leaves that it really holds.

use std::sync::Arc;

use gallery_log::digest::{BUCKETS, Bucket, differing};
use gallery_log::{Digest, DigestKey, Kind, Leaf, Op, RecordId, Root};
use serde_json::{Value, json};
use wire_contract::gallery::{GalleryRecord, GalleryRecords, RecordKind, RecordOp, records_that_fit};
use wire_contract::healing::{GalleryBuckets, MAX_HEALING_BYTES};
use wire_contract::{Bytes, DownChannel, GalleryDown, Hash32, V1};

use crate::domain::gallery::log_id;
use crate::domain::ids::{DeviceId, GalleryId};
use crate::domain::message::Outgoing;
use crate::domain::vault::TenantKeys;
use crate::keys::{DeviceLinks, KeysError, Opener, stand_in_leaf};
use crate::store::audit::{self, Action, Entry};
use crate::store::galleries::{self, Gallery, StoredRecord};
use crate::store::{StoreError, TenantTx};

/// Records read at once: more than fit a message (about 22 templates) unless they are all small.
const READ_AHEAD: u32 = 64;

/// Where a device stands in a gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The gallery's epoch.
    pub(super) epoch: u32,
    /// The last version that was sent to it (or that it reported).
    pub(super) version: u64,
    /// Up to here it has the records as they were written; after it, stand-ins where a person was erased.
    pub(super) genuine_through: u64,
}

/// The next message, for each of some devices.
pub(super) struct NextMessages {
    /// One for each device, in the order in which they were named.
    pub(super) messages: Vec<Outgoing>,
    /// Where the devices stand after it.
    pub(super) position: Position,
    /// Whether more records follow.
    pub(super) more: bool,
}

/// What a device is to be sent.
pub(super) enum Next {
    /// Nothing: it has everything.
    Nothing,
    /// Records.
    Records(NextMessages),
    /// The order to fetch the keys of this epoch, which is higher than the device's.
    Epoch(u32),
    /// A snapshot: the log does not reach back to it any more, or it lacks so much that one is better.
    Snapshot,
}

/// Puts the next message together for devices that stand at the same place. From `snapshot_from` missing versions on they
/// are to take a snapshot.
///
/// The records are read and opened once: after a change a whole fleet stands at the same place.
pub(super) async fn next(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    devices: &[DeviceId],
    id: GalleryId,
    from: Position,
    snapshot_from: u64,
) -> Result<Next, KeysError> {
    let gallery = galleries::get(tx, id).await?;
    if gallery.epoch > from.epoch {
        return Ok(Next::Epoch(gallery.epoch));
    }
    let behind_log = from.version < gallery.compacted_to;
    if gallery.epoch != from.epoch || (gallery.version <= from.version && !behind_log) {
        return Ok(Next::Nothing);
    }
    if behind_log || gallery.version - from.version >= snapshot_from {
        return Ok(Next::Snapshot);
    }
    let keyring = Arc::clone(links.custody().keyring());
    let keys = keyring.tenant(tx).await?;
    let stored = galleries::records(tx, id, gallery.epoch, from.version, READ_AHEAD).await?;
    let mut opener = Opener::new(&keyring, &keys);
    let mut records = stored.iter().map(|record| wire(&mut opener, record)).collect::<Result<Vec<_>, _>>()?;
    records.truncate(records_that_fit(&records));
    let Some(last) = records.last().map(|record| record.version) else { return Ok(Next::Nothing) };
    let root = root_after(tx, &keys, &gallery, last, from.genuine_through).await?;
    let stand_ins =
        stored.iter().any(|record| record.version <= last && record.op == Op::Put && record.sealed.is_none());
    let genuine_through = if from.genuine_through == from.version && !stand_ins { last } else { from.genuine_through };
    let down = GalleryDown::Records(GalleryRecords {
        v: V1,
        gallery: wire_contract::GalleryId(id.0),
        epoch: gallery.epoch,
        from: from.version + 1,
        records,
        root: Hash32(root.0),
    });
    let json = serde_json::to_vec(&down).expect("records are plain structs");
    let mut messages = Vec::with_capacity(devices.len());
    let accepted = links.accepted_of(tx, devices).await?;
    for device in devices {
        // Revoked meanwhile, or never claimed.
        let accepted = accepted.get(device).ok_or(StoreError::NotFound { what: "link key of device", id: device.0 })?;
        messages.push(links.seal(tx.tenant(), accepted, DownChannel::Gallery, &json)?);
    }
    if stored.iter().any(|record| record.version <= last && is_face(record)) {
        let detail =
            json!({ "epoch": gallery.epoch, "from": from.version + 1, "through": last, "devices": messages.len() });
        note(tx, Action::GallerySend, id, detail).await?;
    }
    let position = Position { version: last, genuine_through, ..from };
    Ok(Next::Records(NextMessages { messages, position, more: last < gallery.version }))
}

/// The buckets in which a device differs, for one device.
pub(super) struct Healed {
    /// The answer, in as many messages as it takes.
    pub(super) messages: Vec<Outgoing>,
    /// Where the device stands with it.
    pub(super) position: Position,
    /// How many buckets it replaces.
    pub(super) buckets: usize,
    /// How many records it brings.
    pub(super) records: usize,
}

/// The present state of every bucket in which the device's hashes are others than the hub's.
///
/// `None` where that is no way to heal: the device is ahead of the hub, somebody's records cannot be opened (a bucket would
/// have another hash with a stand-in than without), or it is too much to be kept in memory at a door.
pub(super) async fn buckets(
    tx: &mut TenantTx,
    links: &DeviceLinks,
    device: DeviceId,
    id: GalleryId,
    reported: u64,
    theirs: &[Bucket; BUCKETS],
) -> Result<Option<Healed>, KeysError> {
    let head = galleries::hold(tx, id).await?;
    if reported > head.version {
        return Ok(None);
    }
    let differing = differing(&head.buckets, theirs);
    let stored = galleries::live_in(tx, id, head.epoch, &differing).await?;
    let bytes: usize = stored.iter().filter_map(|record| record.sealed.as_ref()).map(Vec::len).sum();
    if bytes > MAX_HEALING_BYTES || stored.iter().any(|record| record.sealed.is_none()) {
        return Ok(None);
    }
    let keyring = Arc::clone(links.custody().keyring());
    let keys = keyring.tenant(tx).await?;
    let mut opener = Opener::new(&keyring, &keys);
    let records = stored.iter().map(|record| wire(&mut opener, record)).collect::<Result<Vec<_>, _>>()?;
    let whole = GalleryBuckets {
        v: V1,
        gallery: wire_contract::GalleryId(id.0),
        epoch: head.epoch,
        version: head.version,
        root: Hash32(head.root.0),
        buckets: differing.into_iter().collect(),
        part: 0,
        parts: 1,
        records,
    };
    let position = Position { epoch: head.epoch, version: head.version, genuine_through: head.version };
    let (buckets, records) = (whole.buckets.len(), whole.records.len());
    let accepted = links.accepted(tx, device).await?;
    let seal = |part| {
        let json = serde_json::to_vec(&GalleryDown::Buckets(part)).expect("records are plain structs");
        links.seal(tx.tenant(), &accepted, DownChannel::Gallery, &json)
    };
    let messages = whole.split().into_iter().map(seal).collect::<Result<Vec<_>, _>>()?;
    if stored.iter().any(is_face) {
        let detail = json!({ "device": device.0, "epoch": head.epoch, "version": head.version, "buckets": buckets, "records": records });
        note(tx, Action::GalleryHeal, id, detail).await?;
    }
    Ok(Some(Healed { messages, position, buckets, records }))
}

/// Whether a record brings a face, and not only a name or a rule.
fn is_face(record: &StoredRecord) -> bool {
    matches!(record.kind, Kind::Template | Kind::Anchor) && record.op == Op::Put && record.sealed.is_some()
}

/// Templates leave the hub: the audit says so, once for a message, whoever of the fleet it goes to.
async fn note(tx: &mut TenantTx, action: Action, gallery: GalleryId, detail: Value) -> Result<(), StoreError> {
    let entry = Entry { actor: "hub", action, object_kind: "gallery", object_id: Some(gallery.0), detail };
    audit::write(tx, entry).await
}

fn wire(opener: &mut Opener<'_>, record: &StoredRecord) -> Result<GalleryRecord, KeysError> {
    Ok(GalleryRecord {
        version: record.version,
        op: match record.op {
            Op::Put => RecordOp::Put,
            Op::Del => RecordOp::Del,
        },
        kind: match record.kind {
            Kind::Person => RecordKind::Person,
            Kind::Template => RecordKind::Template,
            Kind::Credential => RecordKind::Credential,
            Kind::Rule => RecordKind::Rule,
            Kind::Anchor => RecordKind::Anchor,
        },
        id: record.id.0,
        rev: record.rev,
        body: Bytes(opener.body(record)?),
    })
}

/// The root that a device has after `version` if it took everything up to `genuine_through` as it was written.
async fn root_after(
    tx: &mut TenantTx,
    keys: &TenantKeys,
    gallery: &Gallery,
    version: u64,
    genuine_through: u64,
) -> Result<Root, KeysError> {
    if galleries::is_whole_at(tx, gallery.id, gallery.epoch, version).await?
        && let Some(root) = galleries::root_at(tx, gallery.id, gallery.epoch, version).await?
    {
        return Ok(root);
    }
    let gdk = DigestKey::new(*keys.open_gdk(gallery.id, gallery.epoch, &gallery.gdk_sealed)?);
    let mut digest = Digest::new(log_id(gallery.id), gallery.epoch);
    for record in galleries::live_at(tx, gallery.id, gallery.epoch, version).await? {
        if let Some((id, leaf)) = leaf_at_device(&gdk, &record, genuine_through)? {
            digest.put(id, leaf);
        }
    }
    Ok(digest.root())
}

fn leaf_at_device(
    gdk: &DigestKey,
    record: &StoredRecord,
    genuine_through: u64,
) -> Result<Option<(RecordId, Leaf)>, KeysError> {
    if record.sealed.is_some() || record.version <= genuine_through {
        return Ok(record.leaf.map(|leaf| (record.id, leaf)));
    }
    Ok(Some((record.id, stand_in_leaf(gdk, record)?)))
}
