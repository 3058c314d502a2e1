//! A gallery filled anew by a snapshot, measured for D7: manifest and chunks as the hub makes them, taken in, checked and applied
//! by the agent's own download; once through, and with the line cut and the agent started again at random bytes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_agent::sync::snapshots::{Addressee, Download, Offered, dir_of};
use edge_store::DeviceKeys;
use gallery_log::snapshot::ChunkBuilder;
use gallery_log::{Purpose, Record, Root, SealContext, SealKey, SnapshotPlace, TenantId};
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use uuid::Uuid;
use wire_contract::claim::HubKey;
use wire_contract::snapshot::{SnapshotAnswer, SnapshotChunk, SnapshotManifest};
use wire_contract::{Bytes, DeviceId, Hash32, SecretBytes, Timestamp, V1};

use crate::lab::now;
use crate::rig::random::Random;
use crate::work::{gallery, state};

const TENANT: Uuid = Uuid::from_u128(1);
const DEVICE: Uuid = Uuid::from_u128(2);
const SNAPSHOT: Uuid = Uuid::from_u128(3);
const KEY_ID: Uuid = Uuid::from_u128(4);
/// What comes in one packet's worth of reading from a fast line.
const PIECE: usize = 64 * 1024;
/// Cuts of the line while it is fetched, each with a start of the agent's download from what is on disk.
pub(super) const CUTS: u64 = 40;

/// A snapshot as the hub has it.
pub(super) struct Made {
    answer: SnapshotAnswer,
    content: Vec<u8>,
    offered: Offered,
    hub_key: HubKey,
}

/// How a filling went.
pub(super) struct Filled {
    /// From the first byte to an index that finds everybody.
    pub(super) took: Duration,
    /// How many people it finds.
    pub(super) people: u64,
    /// Bytes that were sent, those again that were fetched twice.
    pub(super) sent: usize,
}

impl Made {
    /// Cuts, seals and signs these live records.
    pub(super) fn of(records: &[Record], version: u64, root: Root) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map_err(|_| anyhow::anyhow!("no signing key"))?;
        let hub_key = HubKey { key_id: KEY_ID, public_key: Bytes(pair.public_key().as_ref().to_vec()) };
        let epoch = gallery::keys().epoch;
        let key = SealKey::new([5; 32]);
        let (mut chunks, mut content, mut chunk) = (Vec::new(), Vec::new(), ChunkBuilder::default());
        let mut close = |plain: Vec<u8>| -> Result<()> {
            let place = SnapshotPlace { gallery: gallery::id(), epoch, version, chunk: u32::try_from(chunks.len())? };
            let context = SealContext::new(Purpose::SNAPSHOT, TenantId(TENANT), SNAPSHOT, 1).with_place(place);
            let sealed = key.seal_repeatably(&context, &plain);
            let sha256 = Hash32(digest(&SHA256, &sealed).as_ref().try_into()?);
            chunks.push(SnapshotChunk { bytes: u32::try_from(sealed.len())?, sha256 });
            content.extend(sealed);
            Ok(())
        };
        for record in records {
            if !chunk.push(record)? {
                close(std::mem::take(&mut chunk).finish())?;
                chunk.push(record)?;
            }
        }
        close(chunk.finish())?;
        let manifest = SnapshotManifest {
            v: V1,
            snapshot: SNAPSHOT,
            tenant: wire_contract::TenantId(TENANT),
            device: DeviceId(DEVICE),
            gallery: wire_contract::GalleryId(gallery::id().0),
            epoch,
            version,
            root: Hash32(root.0),
            records: records.len() as u64,
            chunks,
            created_at: Timestamp::from_unix_ms(0),
            expires_at: Timestamp::from_unix_ms(1),
            key_id: KEY_ID,
            signature: Bytes(Vec::new()),
        };
        let answer = SnapshotAnswer {
            manifest: manifest.signed(&pair, KEY_ID),
            key: SecretBytes::new([5; 32]),
            successions: Vec::new(),
        };
        let offered = Offered { id: SNAPSHOT, gallery: gallery::id(), epoch, version };
        Ok(Self { answer, content, offered, hub_key })
    }

    /// Fills an empty gallery in a folder of its own; the line is cut so often at a random byte.
    pub(super) fn fill(&self, folder: &Path, cuts: u64, random: &mut Random) -> Result<Filled> {
        let keys = DeviceKeys::open(&folder.join("keys"), None)?;
        let (galleries, _) = state::open_galleries(folder, &keys)?;
        galleries.assign(gallery::id(), &gallery::keys())?;
        let to = Addressee { tenant: TENANT, device: DEVICE, hub_keys: vec![self.hub_key.clone()] };
        let dir = dir_of(folder, gallery::id());
        let begun = now();
        let mut download = Download::begin(&dir, &keys, &to, self.offered, &self.answer)?;
        let mut sent = 0;
        for _ in 0..cuts {
            let held = usize::try_from(download.held())?;
            let rest = &self.content[held..];
            // Short of the end, so that there is something to go on with.
            let arrived = usize::try_from(random.below((rest.len() as u64 / 8).max(1)))?;
            sent += arrived;
            for piece in rest[..arrived].chunks(PIECE) {
                download.append(piece)?;
            }
            drop(download);
            download = Download::resume(&dir, &keys, &to, self.offered)?.context("it is there after a restart")?;
        }
        let held = usize::try_from(download.held())?;
        sent += self.content.len() - held;
        for piece in self.content[held..].chunks(PIECE) {
            download.append(piece)?;
        }
        anyhow::ensure!(download.is_complete(), "all bytes are here and it is not complete");
        download.apply(&galleries)?;
        let took = begun.elapsed();
        Ok(Filled { took, people: galleries.roster().load().snapshot().n_people() as u64, sent })
    }

    /// The length of the content.
    pub(super) fn bytes(&self) -> usize {
        self.content.len()
    }
}
