//! What the tests of sync share: a device with stores in a temporary folder, certificates, a real broker, a small hub.

mod https;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use edge_store::{DeviceKeys, Identity, Outbox, OutboxOptions};
use gallery_log::body::{Body, PersonBody, PersonState, TemplateBody};
use gallery_log::digest::{Bucket, bucket_of, differing};
use gallery_log::snapshot::ChunkBuilder;
use gallery_log::{
    DigestKey, GalleryId, Kind, Log, Op, Purpose, Record, RecordId, Root, SealContext, SealKey, SnapshotPlace,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tempfile::TempDir;
use uuid::Uuid;
use wire_contract::claim::SignedTime;
use wire_contract::gallery::{GalleryRecord, GalleryRecords, RecordKind, RecordOp, records_that_fit};
use wire_contract::healing::{GalleryBuckets, GalleryHashes};
use wire_contract::link::LinkGallery;
use wire_contract::snapshot::{SnapshotAnswer, SnapshotChunk, SnapshotManifest};
use wire_contract::succession::{Succession, hub_key_id};
use wire_contract::{Bytes, Hash32, LinkAnswer, SecretBytes, Timestamp, V1};

pub(super) use self::https::{Answer, Asked, HttpsHub, Pki};
use crate::gallery::Galleries;

pub(super) const TENANT: Uuid = Uuid::from_u128(0x7e);
pub(super) const DEVICE: Uuid = Uuid::from_u128(0xde);
pub(super) const GALLERY: GalleryId = GalleryId(Uuid::from_u128(0x6a));
/// What the time in [`link_answer`] is signed for.
pub(super) const NONCE: Uuid = Uuid::from_u128(0x4e);
pub(super) const SPACE: &str = "test-space";
const HSK_ID: Uuid = Uuid::from_u128(0x45);

pub(super) fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_795_343_851_000)
}

pub(super) fn hsk() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

pub(super) fn hub_key() -> wire_contract::claim::HubKey {
    let public_key = Bytes(hsk().public_key().as_ref().to_vec());
    wire_contract::claim::HubKey { key_id: HSK_ID, public_key }
}

pub(super) fn signed_time(nonce: Uuid) -> SignedTime {
    signed_time_by(0, nonce)
}

/// The hub's signing keys one after the other; the first is the one that devices have pinned.
pub(super) fn signer(number: u8) -> (Ed25519KeyPair, Uuid) {
    if number == 0 {
        return (hsk(), HSK_ID);
    }
    let pair = Ed25519KeyPair::from_seed_unchecked(&[100 + number; 32]).unwrap();
    let id = hub_key_id(pair.public_key().as_ref());
    (pair, id)
}

/// The public half of a signing key.
pub(super) fn hub_key_of(number: u8) -> wire_contract::claim::HubKey {
    let (pair, key_id) = signer(number);
    wire_contract::claim::HubKey { key_id, public_key: Bytes(pair.public_key().as_ref().to_vec()) }
}

/// What leads from the first signing key to this one.
pub(super) fn successions(to: u8) -> Vec<Succession> {
    let step = |number: u8| {
        let (before, id) = signer(number - 1);
        Succession::sign(&before, id, &hub_key_of(number).public_key.0, now())
    };
    (1..=to).map(step).collect()
}

pub(super) fn signed_time_by(number: u8, nonce: Uuid) -> SignedTime {
    let (pair, id) = signer(number);
    SignedTime::sign(&pair, id, nonce, Timestamp::from_unix_ms(now().unix_ms() - 1000))
}

/// GDK and CK of an epoch, as the small hub makes them.
pub(super) fn gallery_secret(epoch: u32) -> [u8; 32] {
    [u8::try_from(epoch).unwrap() + 100; 32]
}

/// LK of a link epoch, as the small hub makes them.
pub(super) fn link_key(epoch: u32) -> [u8; 32] {
    [u8::try_from(epoch).unwrap(); 32]
}

pub(super) fn link_answer(link_epoch: u32, galleries: &[(GalleryId, u32)]) -> LinkAnswer {
    link_answer_for(NONCE, link_epoch, galleries)
}

pub(super) fn link_answer_for(nonce: Uuid, link_epoch: u32, galleries: &[(GalleryId, u32)]) -> LinkAnswer {
    let gallery = |(gallery, epoch): &(GalleryId, u32)| LinkGallery {
        gallery: wire_contract::GalleryId(gallery.0),
        epoch: *epoch,
        gdk: SecretBytes::new(gallery_secret(*epoch)),
        ck: SecretBytes::new(gallery_secret(*epoch)),
    };
    LinkAnswer {
        v: V1,
        link_epoch,
        link_key: SecretBytes::new(link_key(link_epoch)),
        hub_epoch: 1,
        galleries: galleries.iter().map(gallery).collect(),
        server_time: signed_time(nonce),
        successions: Vec::new(),
    }
}

/// A device's stores, in a folder that goes with it.
pub(super) struct Device {
    pub(super) dir: TempDir,
    pub(super) keys: DeviceKeys,
    pub(super) galleries: Arc<Galleries>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) identity: Identity,
}

impl Device {
    pub(super) fn new() -> Self {
        Self::of(&Pki::new(), "https://127.0.0.1:1/", 1)
    }

    pub(super) fn of(pki: &Pki, hub_url: &str, broker_port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let (galleries, _) =
            Galleries::open(&dir.path().join("galleries"), keys.clone(), &face_core::Space::plain(SPACE)).unwrap();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_343_851_000);
        let outbox = Outbox::open(&dir.path().join("outbox"), &keys.outbox().unwrap(), OutboxOptions::default(), wall);
        let identity = pki.identity(hub_url, broker_port);
        Self { dir, keys, galleries: Arc::new(galleries), outbox: Arc::new(outbox.unwrap().0), identity }
    }

    /// With link keys of epoch 1 and the gallery of epoch 1, as after a first link.
    pub(super) fn linked(self) -> Self {
        let answer = link_answer(1, &[(GALLERY, 1)]);
        super::link::take_in(&answer, NONCE, &self.identity, &self.keys, &self.galleries).unwrap();
        self
    }

    /// Appends events and returns the last sequence.
    pub(super) fn append(&self, n: usize) -> u64 {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_343_851_000);
        let range = self
            .outbox
            .append_batch(wall, edge_store::Priority::MustKeep, (0..n).map(|_| super::tests::event_json))
            .unwrap();
        *range.end()
    }
}

/// The hub's side of one gallery: a log, and its records as messages.
#[derive(Clone)]
pub(super) struct HubGallery {
    log: Log,
    pub(super) epoch: u32,
    records: Vec<(Record, Root)>,
}

impl HubGallery {
    pub(super) fn new(epoch: u32) -> Self {
        Self { log: Log::new(GALLERY, epoch), epoch, records: Vec::new() }
    }

    pub(super) fn version(&self) -> u64 {
        self.log.version()
    }

    pub(super) fn root(&mut self) -> Root {
        self.log.root()
    }

    fn append(&mut self, op: Op, kind: Kind, id: Uuid, rev: u32, body: Vec<u8>) {
        let version = self.log.version() + 1;
        let record = Record { gallery: GALLERY, epoch: self.epoch, version, op, kind, id: RecordId(id), rev, body };
        self.log.apply(&record, &DigestKey::new(gallery_secret(self.epoch))).unwrap();
        let root = self.log.root();
        self.records.push((record, root));
    }

    /// A person with one template: two records.
    pub(super) fn enrol(&mut self, person: u128) {
        let body = Body::Person(PersonBody::new(PersonState::Active, None, None, Vec::new()));
        self.append(Op::Put, Kind::Person, Uuid::from_u128(person), 1, body.encode().unwrap());
        let mut embedding = Box::new([0.0; 512]);
        embedding[usize::try_from(person % 512).unwrap()] = 1.0;
        let template =
            TemplateBody { person: Uuid::from_u128(person), space_id: SPACE.to_owned(), quality: 0.9, embedding };
        let body = Body::Template(template).encode().unwrap();
        self.append(Op::Put, Kind::Template, Uuid::from_u128(person + 1_000_000), 1, body);
    }

    pub(super) fn delete(&mut self, person: u128) {
        self.append(Op::Del, Kind::Template, Uuid::from_u128(person + 1_000_000), 2, Vec::new());
        self.append(Op::Del, Kind::Person, Uuid::from_u128(person), 2, Vec::new());
    }

    /// The records from `from` on in one message, with the true root.
    pub(super) fn message(&self, from: u64) -> GalleryRecords {
        self.run(from, usize::MAX)
    }

    /// The records from `from` on in messages that fit a packet, each with the true root after its last record.
    pub(super) fn messages(&self, mut from: u64) -> Vec<GalleryRecords> {
        let mut messages = Vec::new();
        while from <= self.version() {
            let fitting = records_that_fit(&self.run(from, usize::MAX).records);
            messages.push(self.run(from, fitting));
            from += u64::try_from(fitting).unwrap();
        }
        messages
    }

    /// What the hub answers to bucket hashes: the buckets that differ, in parts.
    pub(super) fn answer(&mut self, said: &GalleryHashes) -> Vec<GalleryBuckets> {
        let theirs = said.hashes().unwrap().map(Bucket);
        let buckets = differing(&self.log.buckets(), &theirs);
        let is_live = |record: &Record| {
            self.log.entry(record.id).is_some_and(|entry| entry.leaf.is_some() && entry.rev == record.rev)
        };
        let wanted = |(record, _): &&(Record, Root)| buckets.contains(&bucket_of(record.id)) && is_live(record);
        let records = self.records.iter().filter(wanted).map(|(record, _)| wire_record(record)).collect();
        let whole = GalleryBuckets {
            v: V1,
            gallery: wire_contract::GalleryId(GALLERY.0),
            epoch: self.epoch,
            version: self.log.version(),
            root: Hash32(self.log.clone().root().0),
            buckets: buckets.into_iter().collect(),
            part: 0,
            parts: 1,
            records,
        };
        whole.split()
    }

    /// The gallery whole, as the hub cuts and signs it.
    pub(super) fn snapshot(&mut self, id: Uuid) -> SnapshotParts {
        let is_live = |record: &Record| {
            self.log.entry(record.id).is_some_and(|entry| entry.leaf.is_some() && entry.rev == record.rev)
        };
        let live: Vec<&Record> = self.records.iter().map(|(record, _)| record).filter(|one| is_live(one)).collect();
        let (mut plains, mut chunk) = (Vec::new(), ChunkBuilder::default());
        for record in &live {
            if !chunk.push(record).unwrap() {
                plains.push(std::mem::take(&mut chunk).finish());
                chunk.push(record).unwrap();
            }
        }
        if chunk.records() > 0 {
            plains.push(chunk.finish());
        }
        let records = live.len() as u64;
        let manifest = SnapshotManifest {
            v: V1,
            snapshot: id,
            tenant: wire_contract::TenantId(TENANT),
            device: wire_contract::DeviceId(DEVICE),
            gallery: wire_contract::GalleryId(GALLERY.0),
            epoch: self.epoch,
            version: self.version(),
            root: Hash32(self.root().0),
            records,
            chunks: Vec::new(),
            created_at: now(),
            expires_at: now(),
            key_id: Uuid::nil(),
            signature: Bytes(Vec::new()),
        };
        let answer = SnapshotAnswer { manifest, key: SecretBytes::new([0x5e; 32]), successions: Vec::new() };
        let mut parts = SnapshotParts { answer, content: Vec::new() };
        for (number, plain) in plains.iter().enumerate() {
            parts.push(u32::try_from(number).unwrap(), plain);
        }
        parts.sign();
        parts
    }

    fn run(&self, from: u64, at_most: usize) -> GalleryRecords {
        let start = usize::try_from(from).unwrap() - 1;
        let run: Vec<_> = self.records[start..].iter().take(at_most).collect();
        let records: Vec<GalleryRecord> = run.iter().map(|(record, _)| wire_record(record)).collect();
        let root = Hash32(run.last().unwrap().1.0);
        let gallery = wire_contract::GalleryId(GALLERY.0);
        GalleryRecords { v: V1, gallery, epoch: self.epoch, from, records, root }
    }
}

/// A snapshot as a device gets it.
#[derive(Clone)]
pub(super) struct SnapshotParts {
    pub(super) answer: SnapshotAnswer,
    pub(super) content: Vec<u8>,
}

impl SnapshotParts {
    fn push(&mut self, number: u32, plain: &[u8]) {
        let SnapshotManifest { snapshot, epoch, version, .. } = self.answer.manifest;
        let place = SnapshotPlace { gallery: GALLERY, epoch, version, chunk: number };
        let context = SealContext::new(Purpose::SNAPSHOT, gallery_log::TenantId(TENANT), snapshot, 1).with_place(place);
        let sealed = SealKey::new(*self.answer.key.expose()).seal_repeatably(&context, plain);
        let hash = ring::digest::digest(&ring::digest::SHA256, &sealed);
        let sha256 = Hash32(hash.as_ref().try_into().unwrap());
        self.answer.manifest.chunks.push(SnapshotChunk { bytes: u32::try_from(sealed.len()).unwrap(), sha256 });
        self.content.extend(sealed);
    }

    pub(super) fn sign(&mut self) {
        self.answer.manifest = self.answer.manifest.clone().signed(&hsk(), HSK_ID);
    }

    /// Signs with a later key of the hub, and says what leads to it.
    pub(super) fn sign_as(&mut self, number: u8, successions: Vec<Succession>) {
        let (pair, id) = signer(number);
        self.answer.manifest = self.answer.manifest.clone().signed(&pair, id);
        self.answer.successions = successions;
    }

    /// Signs as somebody else who says to be the hub.
    pub(super) fn sign_with(&mut self, seed: [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        self.answer.manifest = self.answer.manifest.clone().signed(&pair, HSK_ID);
    }

    /// The second chunk in the place of the first and the other way round, each with its hash, signed.
    pub(super) fn swap_chunks(&mut self) {
        let first = self.answer.manifest.chunks[0].bytes as usize;
        let second = first + self.answer.manifest.chunks[1].bytes as usize;
        let swapped = [&self.content[first..second], &self.content[..first], &self.content[second..]].concat();
        self.content = swapped;
        self.answer.manifest.chunks.swap(0, 1);
        self.sign();
    }
}

fn wire_record(record: &Record) -> GalleryRecord {
    GalleryRecord {
        version: record.version,
        op: if record.op == Op::Put { RecordOp::Put } else { RecordOp::Del },
        kind: if record.kind == Kind::Person { RecordKind::Person } else { RecordKind::Template },
        id: record.id.0,
        rev: record.rev,
        body: Bytes(record.body.clone()),
    }
}

/// A private Mosquitto with two listeners: one for devices (mutual TLS 1.3, access lines), one for the test's hub.
pub(super) struct Broker {
    dir: TempDir,
    child: Child,
    pub(super) device_port: u16,
    pub(super) hub_port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether the broker is installed; says so when it is not, as every skipped test does.
pub(super) fn mosquitto_or_skip(test: &str) -> bool {
    let found = Path::new(MOSQUITTO).exists();
    if !found {
        eprintln!("SKIPPED {test}: {MOSQUITTO} is not installed; scripts/setup installs it");
    }
    found
}

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

impl Broker {
    pub(super) fn start(pki: &Pki, access_lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (key, certificate) = pki.server();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("root.pem", &pki.root.pem());
        write("chain.pem", &(certificate.pem() + &pki.service.0.pem()));
        write("key.pem", &key.serialize_pem());
        write("acl", access_lines);
        let (device_port, hub_port) = (free_port(), free_port());
        let path = dir.path().display();
        // `user root` keeps it able to read this folder when the tests run as root; otherwise it has no effect.
        write(
            "mosquitto.conf",
            &format!(
                "user root\nper_listener_settings true\npersistence false\nlog_dest file {path}/log\n\
                 listener {device_port} 127.0.0.1\ncafile {path}/root.pem\ncertfile {path}/chain.pem\n\
                 keyfile {path}/key.pem\ntls_version tlsv1.3\nrequire_certificate true\n\
                 use_identity_as_username true\nuse_username_as_clientid true\nacl_file {path}/acl\n\
                 listener {hub_port} 127.0.0.1\nallow_anonymous true\n"
            ),
        );
        let child = spawn(dir.path());
        Self { dir, child, device_port, hub_port }
    }

    /// Ends the broker without warning.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same ports, without memory.
    pub(super) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.dir.path());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(MOSQUITTO)
        .arg("-c")
        .arg(dir.join("mosquitto.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
