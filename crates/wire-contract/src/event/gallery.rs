//! What happens to galleries: thrown away, healed, found to differ, offered of an older epoch.
//!
//! In and out: the `data` of the events of these names. Ids, versions and hashes only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reason;
use crate::encoding::Hash32;
use crate::ids::{DeviceId, GalleryId};

/// A gallery was thrown away and fetched anew.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryRebuiltData {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// Why.
    pub reason: Reason,
}

/// A gallery differed from the hub's; the buckets that did were replaced. The device raises it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryHealedData {
    /// The gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// The version that it has since.
    pub version: u64,
    /// How many buckets were replaced, of 256.
    pub buckets: u32,
    /// Entries that came with them.
    pub received: u64,
    /// Entries that the device had and the hub has not: they are gone.
    pub removed: u64,
}

/// Records, buckets or an order came for an older epoch than the device has: replayed by somebody, or by a hub that was
/// restored without raising the epoch. They were refused. The device raises it, once for each epoch in a run of the agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryOlderEpochData {
    /// Always true.
    pub alarm: bool,
    /// The gallery.
    pub gallery: GalleryId,
    /// The epoch that was offered.
    pub offered: u32,
    /// The epoch that the device has.
    pub held: u32,
}

/// A snapshot of a gallery was not what the hub signed, and nothing of it was applied. The device raises it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotRefusedData {
    /// Always true.
    pub alarm: bool,
    /// The gallery.
    pub gallery: GalleryId,
    /// The epoch that was offered.
    pub epoch: u32,
    /// The version that was offered.
    pub version: u64,
    /// Why: `snapshot_forged`, `snapshot_damaged` or `root_mismatch`.
    pub reason: Reason,
}

/// Where a gallery stands: epoch, version and root hash.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryPoint {
    /// Its epoch.
    pub epoch: u32,
    /// Its version.
    pub version: u64,
    /// The root of that version; `null` where only the position counts.
    pub root: Option<Hash32>,
}

/// A device's gallery is not what was sent to it. The hub raises it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GalleryDivergedData {
    /// Always true.
    pub alarm: bool,
    /// The device.
    pub device: DeviceId,
    /// The gallery.
    pub gallery: GalleryId,
    /// What the device reported.
    pub reported: GalleryPoint,
    /// Where the hub is.
    pub expected: GalleryPoint,
}
