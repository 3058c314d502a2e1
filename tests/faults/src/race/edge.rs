//! The edge's end: the agent's own galleries and receiver, and two that break a rule.
//!
//! In: sealed messages of the hub. Out: authenticated reports, and who is known. The product's edge keeps its store on disk,
//! can be started again, and can be given an older copy of its gallery's folder; the others are what the checker must catch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cloud_hub::domain::message::Incoming;
use edge_agent::gallery::Galleries;
use edge_agent::sync::healing::Parts;
use edge_agent::sync::receiver::{self, Outcome};
use edge_agent::sync::snapshots::{self, Addressee, Download, Offered};
use edge_store::{DeviceKeys, GalleryKeys};
use face_core::{Gallery as _, PersonId};
use gallery_log::{DigestKey, GalleryId, Purpose, Root, SealContext, SealKey, TenantId};
use uuid::Uuid;
use wire_contract::claim::HubKey;
use wire_contract::gallery::{GalleryCondition, GalleryRecord, GalleryState, RecordKind, RecordOp};
use wire_contract::snapshot::SnapshotAnswer;
use wire_contract::{DownChannel, GalleryDown, GalleryUp, Hash32, LinkKeys, Topic, UpChannel, V1, envelope};

use super::hub::{Place, SPACE};

/// What kind of edge plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The product's.
    Real,
    /// Applies every record that comes, whatever its version: an upsert after its tombstone, too.
    NoVersionRule,
    /// Goes by versions, and never removes anybody.
    NoTombstones,
}

/// An edge with its keys.
pub struct Edge {
    keys: LinkKeys,
    tenant: Uuid,
    device: Uuid,
    gallery: Uuid,
    hub_keys: Vec<HubKey>,
    inside: Inside,
}

enum Inside {
    Real(Box<Real>),
    Wrong(Wrong),
}

struct Real {
    dir: PathBuf,
    keys: DeviceKeys,
    galleries: Galleries,
    parts: Parts,
    /// Copies of the gallery's folder, oldest first.
    copies: Vec<PathBuf>,
    made: usize,
}

/// A gallery as somebody would write it who had not thought of what a network does.
struct Wrong {
    kind: Kind,
    /// By the version of the record that last wrote each.
    people: BTreeMap<Uuid, u64>,
    version: u64,
    root: Root,
}

impl Edge {
    /// A device that has just been linked, with its stores in `dir`.
    pub fn new(kind: Kind, dir: &Path, place: &Place) -> Result<Self> {
        let held = place.link.galleries.first().context("the device has no gallery")?;
        let (device, gallery) = (place.device.0, held.gallery.0);
        let inside = match kind {
            Kind::Real => {
                let keys = DeviceKeys::open(&dir.join("keys"), None)?;
                let digest = DigestKey::new(*held.gdk);
                let own = GalleryKeys { epoch: held.epoch, digest, credential: held.ck.clone() };
                keys.set_gallery(GalleryId(gallery), &own)?;
                let (galleries, _) =
                    Galleries::open(&dir.join("galleries"), keys.clone(), &face_core::Space::plain(SPACE))?;
                let (copies, parts) = (Vec::new(), Parts::default());
                Inside::Real(Box::new(Real { dir: dir.to_owned(), keys, galleries, parts, copies, made: 0 }))
            }
            Kind::NoVersionRule | Kind::NoTombstones => {
                let root = gallery_log::Digest::new(GalleryId(gallery), held.epoch).root();
                Inside::Wrong(Wrong { kind, people: BTreeMap::new(), version: 0, root })
            }
        };
        let keys = LinkKeys::derive(&place.link.link_key, wire_contract::DeviceId(device), place.link.link_epoch);
        Ok(Self { keys, tenant: place.tenant.0, device, gallery, hub_keys: vec![place.hub_key.clone()], inside })
    }

    /// Opens a message as the link ring does.
    pub fn open(&self, topic: &Topic, sealed: &[u8]) -> Result<GalleryDown> {
        let topic = topic.to_string();
        let epoch = u64::from(self.keys.epoch());
        let context =
            SealContext::new(Purpose::MQTT_DOWN, TenantId(self.tenant), self.device, epoch).with_topic(&topic);
        let plain = SealKey::new(*self.keys.expose_down()).open(&context, sealed)?;
        Ok(serde_json::from_slice(&plain)?)
    }

    /// Where its gallery messages come.
    #[must_use]
    pub fn down_topic(&self) -> Topic {
        let (tenant, device) = (wire_contract::TenantId(self.tenant), wire_contract::DeviceId(self.device));
        Topic::Down { tenant, device, channel: DownChannel::Gallery }
    }

    /// Takes a message in; a snapshot that it wants to fetch because of it.
    pub fn take(&mut self, message: GalleryDown) -> Option<Offered> {
        match &mut self.inside {
            // What the driver would do next is to report, or to fetch; the game does that when it pleases.
            Inside::Real(real) => match receiver::handle(&real.galleries, &real.keys, &mut real.parts, message) {
                Outcome::Offered(offered) => Some(offered),
                _ => None,
            },
            Inside::Wrong(wrong) => {
                wrong.take(message);
                None
            }
        }
    }

    /// Begins a download, or goes on with one; `None` if the manifest is refused.
    pub fn download(&self, offered: Offered, answer: &SnapshotAnswer) -> Result<Option<Download>> {
        let Inside::Real(real) = &self.inside else { return Ok(None) };
        let dir = snapshots::dir_of(&real.dir, offered.gallery);
        let to = Addressee { tenant: self.tenant, device: self.device, hub_keys: self.hub_keys.clone() };
        if let Some(resumed) = Download::resume(&dir, &real.keys, &to, offered)? {
            return Ok(Some(resumed));
        }
        match Download::begin(&dir, &real.keys, &to, offered, answer) {
            Ok(begun) => Ok(Some(begun)),
            Err(error) if error.code().is_some() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the gallery by what was downloaded.
    pub fn apply(&self, download: Download) -> Result<()> {
        let Inside::Real(real) = &self.inside else { return Ok(()) };
        Ok(download.apply(&real.galleries).map(drop)?)
    }

    /// What it says on `up/gallery` now.
    #[must_use]
    pub fn reports(&self) -> Vec<Incoming> {
        let said = match &self.inside {
            Inside::Real(real) => receiver::reports(&real.galleries),
            Inside::Wrong(wrong) => vec![wrong.report(self.gallery)],
        };
        let channel = UpChannel::Gallery;
        let (tenant, device) = (wire_contract::TenantId(self.tenant), wire_contract::DeviceId(self.device));
        let topic = Topic::Up { tenant, device, channel }.to_string();
        let wrap = |said| {
            let json = serde_json::to_vec(&said).expect("a report is a plain struct");
            Incoming::on(&topic, envelope::wrap_up(self.keys.up(), &topic, &json)).expect("a device writes this topic")
        };
        said.into_iter().map(wrap).collect()
    }

    /// Version and root of what it searches.
    #[must_use]
    pub fn stands(&self) -> (u64, Root) {
        match &self.inside {
            Inside::Real(real) => {
                let roster = real.galleries.roster().load_full();
                roster.lines().first().map_or((0, Root([0; 32])), |line| (line.version, line.root))
            }
            Inside::Wrong(wrong) => (wrong.version, wrong.root),
        }
    }

    /// Which of these people a search can find.
    #[must_use]
    pub fn knows<'a>(&self, people: impl Iterator<Item = &'a Uuid>) -> BTreeSet<Uuid> {
        match &self.inside {
            Inside::Real(real) => {
                let roster = real.galleries.roster().load_full();
                people.copied().filter(|person| roster.snapshot().contains(PersonId(*person))).collect()
            }
            Inside::Wrong(wrong) => people.copied().filter(|person| wrong.people.contains_key(person)).collect(),
        }
    }

    /// Ends the agent and starts it again; `older` with a copy of its gallery's folder from before, if one was kept. True if an
    /// older copy was really put in place.
    pub fn restart(self, older: bool) -> Result<(Self, bool)> {
        let Inside::Real(real) = self.inside else { return Ok((self, false)) };
        let (real, replaced) = real.restart(GalleryId(self.gallery), older)?;
        Ok((Self { inside: Inside::Real(Box::new(real)), ..self }, replaced))
    }
}

impl Real {
    fn restart(self, gallery: GalleryId, older: bool) -> Result<(Self, bool)> {
        let Self { dir, keys, galleries, mut copies, made, .. } = self;
        // The pause after which the agent makes unreadable what was deleted. Closed before its folder is copied.
        anyhow::ensure!(galleries.tidy(), "a store could not be written anew");
        drop(galleries);
        let folder = dir.join("galleries").join(gallery.to_string());
        let copy = dir.join(format!("copy-{made}"));
        copy_dir(&folder, &copy)?;
        let older = if older { copies.pop() } else { None };
        if let Some(older) = &older {
            std::fs::remove_dir_all(&folder)?;
            copy_dir(older, &folder)?;
        }
        copies.push(copy);
        let (galleries, _rebuilt) =
            Galleries::open(&dir.join("galleries"), keys.clone(), &face_core::Space::plain(SPACE))?;
        Ok((Self { dir, keys, galleries, parts: Parts::default(), copies, made: made + 1 }, older.is_some()))
    }
}

impl Wrong {
    fn take(&mut self, message: GalleryDown) {
        let GalleryDown::Records(records) = message else { return };
        for record in &records.records {
            self.apply(record);
        }
        if let Some(last) = records.records.last().filter(|last| last.version >= self.version) {
            (self.version, self.root) = (last.version, Root(records.root.0));
        }
    }

    fn apply(&mut self, record: &GalleryRecord) {
        let heeds_versions = self.kind == Kind::NoTombstones;
        if record.kind != RecordKind::Person || (heeds_versions && record.version <= self.version) {
            return;
        }
        match record.op {
            RecordOp::Put => drop(self.people.insert(record.id, record.version)),
            RecordOp::Del if self.kind != Kind::NoTombstones => drop(self.people.remove(&record.id)),
            RecordOp::Del => {}
        }
    }

    fn report(&self, gallery: Uuid) -> GalleryUp {
        let state = GalleryState {
            gallery: wire_contract::GalleryId(gallery),
            epoch: 1,
            version: self.version,
            root: Hash32(self.root.0),
            condition: GalleryCondition::Ready,
        };
        GalleryUp::State { v: V1, galleries: vec![state] }
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a file has a name")?);
        if path.is_dir() {
            copy_dir(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
