//! The galleries that a device holds: what the hub has, what the device last said that it searches, since when, and how long
//! the last change took to get there.
//!
//! In: judged reports. Out: [`DeviceGallery`]s for the publisher and for people. A time here is the hub's: of the transaction
//! that made a change, and of the report that told of it.

use std::collections::HashMap;

use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::epoch;
use crate::galleries::version;
use crate::{StoreError, TenantTx};
use hub_domain::ids::{DeviceId, GalleryId};

/// A gallery of a device: what the hub has and what the device last reported.
#[derive(Clone, Debug)]
pub struct DeviceGallery {
    /// Which gallery.
    pub gallery: GalleryId,
    /// The hub's epoch, version and root.
    pub epoch: u32,
    /// The hub's version.
    pub version: u64,
    /// The hub's root.
    pub root: Vec<u8>,
    /// Up to here the hub's log is compacted.
    pub compacted_to: u64,
    /// How far the device is with a snapshot; `None` when none is on offer.
    pub snapshot: Option<SnapshotProgress>,
    /// What the device reported last; `None` before its first report.
    pub reported: Option<Reported>,
    /// Since when it stands as it does.
    since: Option<OffsetDateTime>,
    /// When the first change was made that it has not reported.
    outdated_at: Option<OffsetDateTime>,
    /// How long the last change took until the device had reported it.
    pub propagation: Option<Duration>,
}

/// A snapshot that a device is offered, or fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// The version that it brings.
    pub version: u64,
    /// What the device has read of it.
    pub fetched: u64,
    /// Its length; `None` before the device asked for it.
    pub bytes: Option<u64>,
}

impl SnapshotProgress {
    /// How much of it was read, in percent, rounded down; `None` before the device asked for it.
    #[must_use]
    pub fn percent(&self) -> Option<u64> {
        self.bytes.map(|bytes| (self.fetched * 100).checked_div(bytes).unwrap_or(100))
    }
}

/// A device's report on a gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Its epoch.
    pub epoch: u32,
    /// The last version in the snapshot that it searches.
    pub version: u64,
    /// That snapshot's root.
    pub root: Vec<u8>,
    /// When it said so.
    pub at: OffsetDateTime,
    /// Whether it is anything else than the hub had at that version.
    pub differs: bool,
}

/// How far a device's gallery agrees with the hub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The device has not said anything.
    Unreported,
    /// It searches exactly what the hub has.
    Equal,
    /// It searches what the hub had; changes are on their way.
    Behind,
    /// It has what the hub never had: it is being healed or rebuilt, and its doors deny.
    Differs,
}

impl DeviceGallery {
    /// Whether the device searches exactly what the hub has.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.reported.as_ref().is_some_and(|reported| {
            (reported.epoch, reported.version, &reported.root) == (self.epoch, self.version, &self.root)
        })
    }

    /// How far it agrees with the hub's.
    #[must_use]
    pub fn agreement(&self) -> Agreement {
        match &self.reported {
            None => Agreement::Unreported,
            Some(_) if self.equal() => Agreement::Equal,
            Some(reported) if reported.differs => Agreement::Differs,
            Some(_) => Agreement::Behind,
        }
    }

    /// Since when it stands so: what was equal is behind from the first change on that it has not reported.
    #[must_use]
    pub fn since(&self) -> Option<OffsetDateTime> {
        match self.agreement() {
            Agreement::Unreported => None,
            Agreement::Behind => self.outdated_at.or(self.since),
            Agreement::Equal | Agreement::Differs => self.since,
        }
    }
}

#[derive(FromRow)]
struct DeviceGalleryRow {
    device_id: Uuid,
    id: Uuid,
    epoch: i64,
    version: i64,
    root: Vec<u8>,
    compacted_to: i64,
    snapshot_version: Option<i64>,
    snapshot_fetched: Option<i64>,
    snapshot_bytes: Option<i64>,
    reported_epoch: Option<i64>,
    reported_version: Option<i64>,
    reported_root: Option<Vec<u8>>,
    reported_at: Option<OffsetDateTime>,
    differs: Option<bool>,
    since: Option<OffsetDateTime>,
    outdated_at: Option<OffsetDateTime>,
    propagation_ms: Option<i64>,
}

impl TryFrom<DeviceGalleryRow> for DeviceGallery {
    type Error = StoreError;

    fn try_from(row: DeviceGalleryRow) -> Result<Self, StoreError> {
        let reported = match (row.reported_epoch, row.reported_version, row.reported_root, row.reported_at) {
            (Some(number), Some(last), Some(root), Some(at)) => Some(Reported {
                epoch: epoch("device_gallery.epoch", number)?,
                version: version("device_gallery.version", last)?,
                root,
                at,
                differs: row.differs.unwrap_or(false),
            }),
            _ => None,
        };
        let snapshot = match (row.snapshot_version, row.snapshot_fetched) {
            (Some(at), Some(fetched)) => Some(SnapshotProgress {
                version: version("gallery_snapshot.version", at)?,
                fetched: version("gallery_snapshot.fetched", fetched)?,
                bytes: row.snapshot_bytes.map(|bytes| version("gallery_snapshot.bytes", bytes)).transpose()?,
            }),
            _ => None,
        };
        Ok(Self {
            gallery: GalleryId(row.id),
            epoch: epoch("gallery.epoch", row.epoch)?,
            version: version("gallery.version", row.version)?,
            root: row.root,
            compacted_to: version("gallery.compacted_to", row.compacted_to)?,
            snapshot,
            reported,
            since: row.since,
            outdated_at: row.outdated_at,
            propagation: row.propagation_ms.map(Duration::milliseconds),
        })
    }
}

/// The galleries that a device is to hold (its site's), with what it reported of them.
pub async fn galleries(tx: &mut TenantTx, id: DeviceId) -> Result<Vec<DeviceGallery>, StoreError> {
    Ok(galleries_of(tx, &[id]).await?.remove(&id).unwrap_or_default())
}

/// The same for several devices.
pub async fn galleries_of(
    tx: &mut TenantTx,
    ids: &[DeviceId],
) -> Result<HashMap<DeviceId, Vec<DeviceGallery>>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<DeviceGalleryRow> = sqlx::query_as(
        "SELECT d.id AS device_id, g.id, g.epoch, g.version, g.root, g.compacted_to, s.version AS snapshot_version,
                s.fetched AS snapshot_fetched, s.bytes AS snapshot_bytes, r.epoch AS reported_epoch, r.version AS reported_version,
                r.root AS reported_root, r.reported_at, r.differs, r.since, r.propagation_ms, n.at AS outdated_at
         FROM device d
         JOIN gallery g ON g.tenant_id = d.tenant_id AND g.site_id = d.site_id
         LEFT JOIN device_gallery r ON r.tenant_id = d.tenant_id AND r.device_id = d.id AND r.gallery_id = g.id
         LEFT JOIN gallery_snapshot s ON s.tenant_id = d.tenant_id AND s.device_id = d.id AND s.gallery_id = g.id
              AND s.epoch = g.epoch
         LEFT JOIN gallery_record n ON n.tenant_id = g.tenant_id AND n.gallery_id = g.id AND n.epoch = g.epoch
              AND r.epoch = g.epoch AND n.version = r.version + 1
         WHERE d.tenant_id = $1 AND d.id = ANY ($2) ORDER BY d.id, g.id",
    )
    .bind(tenant)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    let mut held: HashMap<DeviceId, Vec<DeviceGallery>> = HashMap::new();
    for row in rows {
        held.entry(DeviceId(row.device_id)).or_default().push(row.try_into()?);
    }
    Ok(held)
}

/// Stores a device's report. `equal` says whether it matches the hub's present head.
///
/// The time since which it stands so begins anew when equality or difference begins or ends. How long a change took is
/// noted with the first report that is equal at its version.
pub async fn report_gallery(
    tx: &mut TenantTx,
    id: DeviceId,
    gallery: GalleryId,
    reported: &Reported,
    equal: bool,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO device_gallery AS r
             (tenant_id, device_id, gallery_id, epoch, version, root, equal, reported_at, differs, since, propagation_ms)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $8,
                CASE WHEN $7 THEN (
                    SELECT greatest(0, round(extract(epoch FROM $8 - c.at) * 1000))::bigint FROM gallery_record c
                    WHERE c.tenant_id = $1 AND c.gallery_id = $3 AND c.epoch = $4 AND c.version = $5) END
         ON CONFLICT (tenant_id, device_id, gallery_id) DO UPDATE
         SET epoch = excluded.epoch, version = excluded.version, root = excluded.root, equal = excluded.equal,
             reported_at = excluded.reported_at, differs = excluded.differs,
             since = CASE WHEN (r.equal, r.differs) = (excluded.equal, excluded.differs) THEN coalesce(r.since, excluded.since)
                          ELSE excluded.since END,
             propagation_ms = CASE WHEN NOT excluded.equal OR (r.equal AND (r.epoch, r.version) = (excluded.epoch, excluded.version))
                                   THEN r.propagation_ms ELSE excluded.propagation_ms END",
    )
    .bind(tenant)
    .bind(id.0)
    .bind(gallery.0)
    .bind(i64::from(reported.epoch))
    .bind(i64::try_from(reported.version).unwrap_or(i64::MAX))
    .bind(&reported.root)
    .bind(equal)
    .bind(reported.at)
    .bind(reported.differs)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Where a device stands in a gallery by its last stored report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The device.
    pub device: DeviceId,
    /// The epoch that it reported.
    pub epoch: u32,
    /// The version that it reported.
    pub version: u64,
    /// Whether its root was that of the log at this version.
    pub genuine: bool,
}

/// The claimed devices that are to hold a gallery and have reported on its present epoch, or on one before, whose keys they have still.
pub async fn standings(tx: &mut TenantTx, gallery: GalleryId) -> Result<Vec<Standing>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, i64, i64, bool)> = sqlx::query_as(
        "SELECT d.id, r.epoch, r.version, v.root IS NOT DISTINCT FROM r.root
         FROM gallery g
         JOIN device d ON d.tenant_id = g.tenant_id AND d.site_id = g.site_id AND d.state = 'claimed'
         JOIN device_gallery r ON r.tenant_id = g.tenant_id AND r.device_id = d.id AND r.gallery_id = g.id
                              AND r.epoch <= g.epoch
         LEFT JOIN gallery_version v ON v.tenant_id = g.tenant_id AND v.gallery_id = g.id AND v.epoch = r.epoch
                                    AND v.version = r.version
         WHERE g.tenant_id = $1 AND g.id = $2 ORDER BY d.id",
    )
    .bind(tenant)
    .bind(gallery.0)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter()
        .map(|(device, number, last, genuine)| {
            Ok(Standing {
                device: DeviceId(device),
                epoch: epoch("device_gallery.epoch", number)?,
                version: version("device_gallery.version", last)?,
                genuine,
            })
        })
        .collect()
}
