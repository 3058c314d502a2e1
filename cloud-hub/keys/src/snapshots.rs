//! Snapshots: a gallery at one version in sealed chunks, for one device.
//!
//! In: what was offered (`store::galleries::snapshots`). Out: the manifest, signed by HSK, and the chunks' sealed bytes. A chunk is
//! made of the log's sealed records whenever it is asked for, and sealed so that it comes out the same to the byte; nothing
//! of it is kept anywhere. So an erasure reaches a snapshot too: it cannot be made any more, and is gone.
//!
//! Memory: one run of records and one chunk at a time, whatever the gallery holds; [`AT_ONCE`] of them in the process.
//! Deliberately absent: HTTP (`api`), and who is offered one (`publish`).

use std::sync::Arc;

use gallery_log::keys::random_key;
use gallery_log::snapshot::ChunkBuilder;
use gallery_log::{Digest, DigestKey, Op, Purpose, Record, RecordId, Root, SealContext, SealKey, SnapshotPlace};
use ring::digest::{SHA256, digest};
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;
use wire_contract::snapshot::{SnapshotAnswer, SnapshotChunk, SnapshotManifest};
use wire_contract::{Bytes, Hash32, SecretBytes, V1};

use super::custody::log;
use super::opener::{Opener, stand_in_leaf};
use super::{Custody, KeysError};
use hub_domain::gallery::log_id;
use hub_domain::ids::{DeviceId, SnapshotId, TenantId};
use hub_domain::vault::seal_tenant;
use hub_store::audit::Action;
use hub_store::galleries::snapshots::{Cut, CutChunk, Snapshot, live_between};
use hub_store::galleries::{self, StoredRecord, snapshots};
use hub_store::{StoreError, TenantTx, routes};

/// Records read at once: a megabyte of templates.
const RUN: u32 = 500;
/// Pieces that are made at the same time. Each costs a core for some milliseconds; the others of a fleet that begins anew wait.
const AT_ONCE: usize = 4;

/// A snapshot whose chunks can be had.
#[derive(Clone, Debug)]
pub struct Ready {
    tenant: TenantId,
    snapshot: Snapshot,
    cut: Cut,
}

impl Ready {
    /// The length of the content.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cut.bytes()
    }

    /// Which chunk the byte at `offset` belongs to, and where it begins; `None` behind the end.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<(usize, u64)> {
        let mut begin = 0;
        for (index, chunk) in self.cut.chunks.iter().enumerate() {
            let end = begin + u64::from(chunk.bytes);
            if offset < end {
                return Some((index, begin));
            }
            begin = end;
        }
        None
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.cut.chunks.len()
    }
}

/// Makes snapshots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    custody: Custody,
    working: Arc<Semaphore>,
}

impl Snapshots {
    /// Snapshots under this custody's keys.
    #[must_use]
    pub fn new(custody: Custody) -> Self {
        Self { custody, working: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The manifest of a snapshot and the key of its chunks; cuts the gallery at the first call. `None` when the device has no
    /// such snapshot (any more).
    pub async fn manifest(
        &self,
        tenant: TenantId,
        device: DeviceId,
        id: SnapshotId,
    ) -> Result<Option<SnapshotAnswer>, KeysError> {
        let Some(snapshot) = self.find(tenant, device, id).await? else { return Ok(None) };
        if snapshot.cut.is_none() {
            let _permit = self.permit().await;
            let cut = self.cut(tenant, &snapshot).await?;
            // Whoever was first: both cut the same, under keys of their own, and one of them is kept.
            self.custody
                .db
                .tenant(tenant, move |tx| Box::pin(async move { snapshots::cut(tx, id, &cut).await }))
                .await?;
        }
        let Some(Ready { snapshot, cut, .. }) = self.ready(tenant, device, id, Action::SnapshotRead).await? else {
            return Ok(None);
        };
        let keys = self.custody.tenant_keys(tenant).await?;
        let key = SecretBytes::new(*keys.open_snapshot_key(id, &cut.key_sealed)?);
        let chunk = |chunk: &CutChunk| SnapshotChunk { bytes: chunk.bytes, sha256: Hash32(chunk.sha256) };
        let manifest = SnapshotManifest {
            v: V1,
            snapshot: id.0,
            tenant: wire_contract::TenantId(tenant.0),
            device: wire_contract::DeviceId(device.0),
            gallery: wire_contract::GalleryId(snapshot.gallery.0),
            epoch: snapshot.epoch,
            version: snapshot.version,
            root: Hash32(cut.root.0),
            records: cut.records,
            chunks: cut.chunks.iter().map(chunk).collect(),
            created_at: snapshot.created_at.into(),
            expires_at: snapshot.expires_at.into(),
            key_id: Uuid::nil(),
            signature: Bytes(Vec::new()),
        };
        let signing = self.custody.keyring.signing();
        let successions = signing.successions().to_vec();
        Ok(Some(SnapshotAnswer { manifest: signing.sign_manifest(manifest), key, successions }))
    }

    /// A snapshot whose manifest was made, for a device that asks for the content; `None` when it has no such one (any more).
    pub async fn content(
        &self,
        tenant: TenantId,
        device: DeviceId,
        id: SnapshotId,
    ) -> Result<Option<Ready>, KeysError> {
        self.ready(tenant, device, id, Action::SnapshotFetch).await
    }

    /// Finds it, and says in the audit what the device is given of it.
    async fn ready(
        &self,
        tenant: TenantId,
        device: DeviceId,
        id: SnapshotId,
        action: Action,
    ) -> Result<Option<Ready>, KeysError> {
        let now = self.custody.clock.now();
        let found = self.custody.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let Some(mut snapshot) = snapshots::of_device(tx, device, id, now).await? else { return Ok(None) };
                let Some(cut) = snapshot.cut.take() else { return Ok(None) };
                let detail = json!({ "snapshot": id.0, "version": snapshot.version, "records": cut.records });
                log(tx, &format!("device:{device}"), action, "gallery", snapshot.gallery.0, detail).await?;
                Ok::<_, KeysError>(Some((snapshot, cut)))
            })
        });
        Ok(found.await?.map(|(snapshot, cut)| Ready { tenant, snapshot, cut }))
    }

    /// The sealed bytes of a chunk; `None`, and the snapshot is gone, when they cannot be made any more as they were.
    pub async fn chunk(&self, ready: &Ready, index: usize) -> Result<Option<Vec<u8>>, KeysError> {
        let Some(expected) = ready.cut.chunks.get(index).copied() else { return Ok(None) };
        // Asked for each chunk, so that a revocation ends a download under way.
        if routes::tenant_of_device(&self.custody.db, ready.snapshot.device).await? != Some(ready.tenant) {
            return Ok(None);
        }
        let _permit = self.permit().await;
        let after = index.checked_sub(1).and_then(|before| ready.cut.chunks.get(before)).map(|chunk| chunk.last);
        let (tenant, snapshot) = (ready.tenant, ready.snapshot.clone());
        let key_sealed = ready.cut.key_sealed.clone();
        let keyring = Arc::clone(&self.custody.keyring);
        let made = self.custody.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let key = SealKey::new(*keys.open_snapshot_key(snapshot.id, &key_sealed)?);
                let records = live_between(tx, &snapshot, after, Some(expected.last), u32::MAX >> 1).await?;
                let (mut opener, mut chunk) = (Opener::new(&keyring, &keys), ChunkBuilder::default());
                for record in &records {
                    if !chunk.push(&plain(&snapshot, record, opener.body(record)?)).map_err(|_| UNREADABLE)? {
                        return Ok(None);
                    }
                }
                Ok::<_, KeysError>(Some(seal(&key, tenant, &snapshot, index, &chunk.finish())))
            })
        });
        match made.await {
            Ok(Some(bytes)) if hash(&bytes) == expected.sha256 => Ok(Some(bytes)),
            Ok(_) | Err(KeysError::NoPersonKey(_)) => {
                tracing::info!(event = "snapshot_gone", device = %ready.snapshot.device, gallery = %ready.snapshot.gallery, snapshot = %ready.snapshot.id, "somebody in a snapshot was erased since it was offered; the device is offered another one");
                self.withdraw(ready).await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes how far a device has read.
    pub async fn fetched(&self, ready: &Ready, bytes: u64) -> Result<(), StoreError> {
        let (id, now) = (ready.snapshot.id, self.custody.clock.now());
        let note = self.custody.db.tenant(ready.tenant, move |tx| Box::pin(snapshots::fetched(tx, id, bytes, now)));
        note.await
    }

    async fn withdraw(&self, ready: &Ready) -> Result<(), StoreError> {
        let id = ready.snapshot.id;
        self.custody.db.tenant(ready.tenant, move |tx| Box::pin(snapshots::withdraw(tx, id))).await
    }

    async fn find(&self, tenant: TenantId, device: DeviceId, id: SnapshotId) -> Result<Option<Snapshot>, StoreError> {
        let now = self.custody.clock.now();
        self.custody.db.tenant(tenant, move |tx| Box::pin(snapshots::of_device(tx, device, id, now))).await
    }

    async fn permit(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.working.acquire().await.expect("the semaphore is never closed")
    }

    /// Cuts the gallery: every live entry of the version in the order of ids, each run in a transaction of its own.
    async fn cut(&self, tenant: TenantId, snapshot: &Snapshot) -> Result<Cut, KeysError> {
        let keys = self.custody.tenant_keys(tenant).await?;
        let bytes = random_key()?;
        let gallery = snapshot.gallery;
        let gdk = self.custody.db.tenant(tenant, move |tx| Box::pin(galleries::get(tx, gallery))).await?.gdk_sealed;
        let gdk = keys.open_gdk(gallery, snapshot.epoch, &gdk)?;
        let mut cutter = Cutter {
            tenant,
            snapshot: snapshot.clone(),
            key: SealKey::new(*bytes),
            gdk: DigestKey::new(*gdk),
            digest: Digest::new(log_id(gallery), snapshot.epoch),
            chunk: ChunkBuilder::default(),
            last: None,
            chunks: Vec::new(),
            records: 0,
        };
        loop {
            let keyring = Arc::clone(&self.custody.keyring);
            let run = self.custody.db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    let keys = keyring.tenant(tx).await?;
                    let mut opener = Opener::new(&keyring, &keys);
                    let more = cutter.run(tx, &mut opener).await?;
                    Ok::<_, KeysError>((cutter, more))
                })
            });
            let more;
            (cutter, more) = match run.await {
                // Noted as missing, the person counts as erased at the next attempt.
                Err(KeysError::NoPersonKey(person)) => {
                    self.custody.key_missing(tenant, person).await?;
                    return Err(KeysError::NoPersonKey(person));
                }
                run => run?,
            };
            if !more {
                break;
            }
        }
        let (root, chunks, records) = cutter.finish();
        tracing::info!(event = "snapshot_cut", client_id = %tenant, device = %snapshot.device, gallery = %gallery, snapshot = %snapshot.id, version = snapshot.version, records, chunks = chunks.len(), "a snapshot of a gallery is ready to be fetched");
        Ok(Cut { key_sealed: keys.seal_snapshot_key(snapshot.id, &bytes)?, root, records, chunks })
    }
}

const UNREADABLE: StoreError = StoreError::Unreadable { what: "gallery_record", reason: "its body is too long" };

/// A gallery on its way into chunks.
struct Cutter {
    tenant: TenantId,
    snapshot: Snapshot,
    key: SealKey,
    gdk: DigestKey,
    /// Of what the device will hold: leaves as they were written, and of stand-ins where somebody was erased.
    digest: Digest,
    chunk: ChunkBuilder,
    /// The last id in the chunk.
    last: Option<RecordId>,
    chunks: Vec<CutChunk>,
    records: u64,
}

impl Cutter {
    /// Takes the next run of records in; whether there may be more.
    async fn run(&mut self, tx: &mut TenantTx, opener: &mut Opener<'_>) -> Result<bool, KeysError> {
        let records = live_between(tx, &self.snapshot, self.last, None, RUN).await?;
        for record in &records {
            let leaf = match record.sealed {
                Some(_) => record.leaf.ok_or(StoreError::Unreadable { what: "gallery_record", reason: "no leaf" })?,
                None => stand_in_leaf(&self.gdk, record)?,
            };
            self.digest.put(record.id, leaf);
            let plain = plain(&self.snapshot, record, opener.body(record)?);
            if !self.chunk.push(&plain).map_err(|_| UNREADABLE)? {
                self.close();
                self.chunk.push(&plain).map_err(|_| UNREADABLE)?;
            }
            self.last = Some(record.id);
            self.records += 1;
        }
        Ok(records.len() == RUN as usize)
    }

    fn close(&mut self) {
        let Some(last) = self.last else { return };
        if self.chunk.records() == 0 {
            return;
        }
        let plain = std::mem::take(&mut self.chunk).finish();
        let sealed = seal(&self.key, self.tenant, &self.snapshot, self.chunks.len(), &plain);
        let bytes = u32::try_from(sealed.len()).expect("a chunk has 256 KiB at most");
        self.chunks.push(CutChunk { last, bytes, sha256: hash(&sealed) });
    }

    fn finish(mut self) -> (Root, Vec<CutChunk>, u64) {
        self.close();
        (self.digest.root(), self.chunks, self.records)
    }
}

fn plain(snapshot: &Snapshot, record: &StoredRecord, body: Vec<u8>) -> Record {
    Record {
        gallery: log_id(snapshot.gallery),
        epoch: snapshot.epoch,
        version: record.version,
        op: Op::Put,
        kind: record.kind,
        id: record.id,
        rev: record.rev,
        body,
    }
}

fn seal(key: &SealKey, tenant: TenantId, snapshot: &Snapshot, index: usize, plain: &[u8]) -> Vec<u8> {
    let chunk = u32::try_from(index).expect("a manifest has 4096 chunks at most");
    let Snapshot { gallery, epoch, version, .. } = snapshot;
    let place = SnapshotPlace { gallery: log_id(*gallery), epoch: *epoch, version: *version, chunk };
    let context = SealContext::new(Purpose::SNAPSHOT, seal_tenant(tenant), snapshot.id.0, 1).with_place(place);
    key.seal_repeatably(&context, plain)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
