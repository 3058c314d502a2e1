//! A whole state directory as an agent keeps it, small enough to be copied ten thousand times: keys, identity, an outbox with
//! events and a gallery with people, some of whom were deleted.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use edge_agent::gallery::{Galleries, Roster};
use edge_store::{Broker, DeviceKeys, HubKey, Identity, Outbox, OutboxOpened, Priority};
use face_core::{Embedding, PersonId};
use gallery_log::{Body, Kind, Log, Op, PersonBody, PersonState, Record, RecordId, Root, TemplateBody};
use uuid::Uuid;

use super::{at, gallery, outbox};
use crate::rig::random::Random;

/// The space of the templates.
pub const SPACE: &str = "fault-lab-1";
/// People in the small state; each fifth was deleted.
pub const PEOPLE: u64 = 30;
/// Events in the small state.
pub const EVENTS: u64 = 60;
const DIM: usize = 512;

/// The hub's log of people with one template each.
pub struct People {
    log: Log,
}

impl People {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self { log: Log::new(gallery::id(), gallery::keys().epoch) }
    }

    /// Person `number` and their template.
    pub fn enrol(&mut self, number: u64) -> Result<Vec<Record>> {
        self.enrol_within(number, None, None)
    }

    /// The same, for somebody who may be let in from and until a time, in Unix seconds.
    pub fn enrol_within(&mut self, number: u64, from: Option<i64>, until: Option<i64>) -> Result<Vec<Record>> {
        let person = Body::Person(PersonBody::new(PersonState::Active, from, until, Vec::new()));
        let template = Body::Template(TemplateBody {
            person: person_id(number).0,
            space_id: SPACE.to_owned(),
            quality: 0.9,
            embedding: Box::new(face(number)),
        });
        let person = self.put(Kind::Person, person_id(number).0, Op::Put, person.encode()?)?;
        Ok(vec![person, self.put(Kind::Template, template_id(number), Op::Put, template.encode()?)?])
    }

    /// The deletion of person `number`.
    pub fn delete(&mut self, number: u64) -> Result<Vec<Record>> {
        let template = self.put(Kind::Template, template_id(number), Op::Del, Vec::new())?;
        Ok(vec![template, self.put(Kind::Person, person_id(number).0, Op::Del, Vec::new())?])
    }

    /// The root after what was published.
    pub fn root(&mut self) -> Root {
        self.log.root()
    }

    fn put(&mut self, kind: Kind, id: Uuid, op: Op, body: Vec<u8>) -> Result<Record> {
        let rev = if op == Op::Put { 1 } else { 2 };
        let (id, version) = (RecordId(id), self.log.version() + 1);
        let record = Record { gallery: gallery::id(), epoch: gallery::keys().epoch, version, op, kind, id, rev, body };
        self.log.apply(&record, &gallery::keys().digest)?;
        Ok(record)
    }
}

impl Default for People {
    fn default() -> Self {
        Self::new()
    }
}

/// Who person `number` is.
#[must_use]
pub fn person_id(number: u64) -> PersonId {
    PersonId(Uuid::from_u128(u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) | 1))
}

fn template_id(number: u64) -> Uuid {
    Uuid::from_u128(person_id(number).0.as_u128() ^ 2)
}

/// The face of person `number`: a random direction, which is as far from every other as strangers' faces are.
#[must_use]
pub fn face(number: u64) -> [f32; DIM] {
    let mut random = Random::new(number);
    let raw: Vec<f32> = (0..DIM).map(|_| random.below(2000) as f32 / 1000.0 - 1.0).collect();
    let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    std::array::from_fn(|at| raw[at] / norm)
}

/// Makes a state in `dir`; when half of it is there, copies it to `older`.
pub fn make(dir: &Path, older: &Path) -> Result<()> {
    let keys = DeviceKeys::open(&dir.join("keys"), None)?;
    keys.set_link(1, &[8; 32])?;
    identity().store(dir)?;
    let (outbox, _) = outbox::open(dir, 0)?;
    let (galleries, _) = open_galleries(dir, &keys)?;
    keys.set_gallery(gallery::id(), &gallery::keys())?;
    galleries.assign(gallery::id(), &gallery::keys())?;
    let mut people = People::new();
    for number in 1..=PEOPLE {
        let mut records = people.enrol(number)?;
        if number.is_multiple_of(5) {
            records.extend(people.delete(number)?);
        }
        let root = people.root();
        galleries.apply(gallery::id(), &records, root)?;
        for n in 2 * number - 1..=2 * number {
            outbox.append(at(0), Priority::MustKeep, |_| outbox::event(0, 0, n))?;
        }
        if number == PEOPLE / 2 {
            crate::rig::damage::copy_dir(dir, older)?;
        }
    }
    Ok(())
}

/// Makes a state in `dir` with an identity and `people` in its gallery, and nothing else.
pub fn make_crowd(dir: &Path, people: u64) -> Result<()> {
    let keys = DeviceKeys::open(&dir.join("keys"), None)?;
    identity().store(dir)?;
    keys.set_gallery(gallery::id(), &gallery::keys())?;
    let (galleries, _) = open_galleries(dir, &keys)?;
    let mut log = People::new();
    for first in (1..=people).step_by(500) {
        let mut records = Vec::new();
        for number in first..people.min(first + 499) + 1 {
            records.extend(log.enrol(number)?);
        }
        galleries.apply(gallery::id(), &records, log.root())?;
    }
    let (outbox, _) = outbox::open(dir, 0)?;
    outbox.append(at(0), Priority::MustKeep, |_| outbox::event(0, 0, 1))?;
    Ok(())
}

/// The galleries below `dir`, as the agent opens them at its start.
pub fn open_galleries(dir: &Path, keys: &DeviceKeys) -> Result<(Galleries, bool)> {
    let (galleries, rebuilt) = Galleries::open(&dir.join("galleries"), keys.clone(), &face_core::Space::plain(SPACE))?;
    Ok((galleries, !rebuilt.is_empty()))
}

/// What is wrong with what a roster knows, or nothing: everybody is found as themselves, and who was deleted by nobody.
#[must_use]
pub fn wrong_match(roster: &Arc<Roster>) -> Option<String> {
    let one = NonZeroUsize::MIN;
    for number in 1..=PEOPLE {
        let Ok(probe) = Embedding::from_slice(&face(number)) else { return Some("a face has no embedding".to_owned()) };
        let best = roster.snapshot().search_batch(&[probe], 1, one).into_iter().flatten().next();
        let found = best.as_ref().is_some_and(|best| best.similarity.value() > 0.9);
        let right = best.as_ref().is_some_and(|best| best.person == person_id(number));
        let deleted = number.is_multiple_of(5);
        match (found, deleted) {
            (true, true) => return Some(format!("person {number} was deleted and is found")),
            (true, false) if !right => return Some(format!("person {number} is taken for somebody else")),
            (false, false) => return Some(format!("person {number} is not found")),
            _ => {}
        }
    }
    None
}

/// What is wrong with the outbox's events, or nothing; a refusal to read is no wrong answer.
pub fn wrong_events(outbox: &Outbox) -> Result<Option<String>> {
    let entries = outbox.pending(0, 1000, 16 << 20)?;
    if entries.len() as u64 != EVENTS {
        return Ok(Some(format!("{} events are there, {EVENTS} were recorded", entries.len())));
    }
    let wrong = (1..).zip(&entries).find(|(n, entry)| entry.sequence != *n || entry.event != outbox::event(0, 0, *n));
    Ok(wrong.map(|(n, _)| format!("event {n} is not what was recorded")))
}

/// True when the stream goes on as if nothing had been.
#[must_use]
pub fn went_on(opened: &OutboxOpened) -> bool {
    matches!(opened, OutboxOpened::Intact)
}

/// An identity whose parts parse; nobody ever connects with it.
#[must_use]
pub fn identity() -> Identity {
    let pem = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    Identity {
        tenant: Uuid::from_u128(1),
        device: Uuid::from_u128(2),
        hub_url: "https://hub.example:8443".to_owned(),
        broker: Broker { host: "hub.example".to_owned(), port: 8883 },
        hub_keys: vec![HubKey { key_id: "hsk-1".to_owned(), public_key: [5; 32] }],
        signed_time: 1_790_000_000,
        key_pem: pem("PRIVATE KEY").into(),
        chain_pem: pem("CERTIFICATE").repeat(2),
        root_pem: pem("CERTIFICATE"),
    }
}

/// Whether two identities say the same.
#[must_use]
pub fn same_identity(one: &Identity, other: &Identity) -> bool {
    (one.tenant, one.device, &one.hub_url, &one.broker, &one.hub_keys, one.signed_time)
        == (other.tenant, other.device, &other.hub_url, &other.broker, &other.hub_keys, other.signed_time)
        && *one.key_pem == *other.key_pem
        && (&one.chain_pem, &one.root_pem) == (&other.chain_pem, &other.root_pem)
}

/// The store keys that are there, by file name.
pub fn store_keys(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir.join("keys")).context("the key directory")?;
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with("store-"));
    names.sort();
    Ok(names)
}
