//! What happens in an interleaving: a partition, enrolments and deletions behind it, messages that are lost, doubled, held
//! and reordered, an edge that restarts; then calm, until both ends must be one.
//!
//! The judge keeps its own account of who is alive and at which version everybody else was deleted. It asks after every
//! message whether the edge finds somebody whose deletion it has been told of, and at the end whether it finds exactly the
//! living.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use cloud_hub::domain::ids::PersonId;
use cloud_hub::domain::message::{Incoming, Outgoing};
use edge_agent::sync::snapshots::Offered;
use uuid::Uuid;
use wire_contract::GalleryDown;
use wire_contract::gallery::{RecordKind, RecordOp};

use super::edge::{Edge, Kind};
use super::hub::{Hub, Place, Refusal};
use crate::rig::random::Random;

/// Messages that a broker has kept and may deliver again, in a match.
const REMEMBERED: usize = 64;
/// Reports until both ends must be equal, once it is calm: one may differ, be compared, answered, thrown away, filled.
const CALM_ROUNDS: u32 = 8;
/// The first of them, in which downloads are still cut: most snapshots are offered then.
const ROUGH_ROUNDS: u32 = 3;

/// How interleavings ended.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Somebody was deleted while the edge could not hear of it.
    pub raced: u64,
    /// Enrolments and deletions that the hub committed.
    pub committed: u64,
    /// Messages with a put of somebody whose deletion was committed, that reached the edge afterwards.
    pub late_upserts: u64,
    /// Attempts at the hub to bring somebody back.
    pub tried: u64,
    /// Older copies of the gallery's folder that were put in place.
    pub older_copies: u64,
    /// Snapshots that the edge was offered and wanted.
    pub offers: u64,
    /// Those that were applied.
    pub applied: u64,
    /// Downloads that were cut at some byte.
    pub cut: u64,
    /// Those that went on where they had been cut.
    pub resumed: u64,
    /// Snapshots that were gone when they were asked for, because somebody in them was erased.
    pub gone: u64,
    /// Records that went out of the log.
    pub compacted: u64,
    /// Messages lost, doubled and held.
    pub lost: u64,
    /// See [`Score::lost`].
    pub doubled: u64,
    /// See [`Score::lost`].
    pub held: u64,
    /// Living people whom the edge did not find in the end.
    pub missing: u64,
    /// Deleted people whom the edge found after it had been told, or in the end.
    pub risen: u64,
    /// Both ends did not become equal.
    pub apart: u64,
    /// The hub did what it must refuse, or its people are not those of the account.
    pub hub_wrong: u64,
}

/// One edge and one gallery through many interleavings, each of which begins where the one before ended: equal.
pub struct Match<'a> {
    hub: &'a mut Hub,
    place: Place,
    edge: Option<Edge>,
    random: Random,
    alive: BTreeSet<Uuid>,
    /// At which version of the gallery each was deleted.
    deleted: BTreeMap<Uuid, u64>,
    /// On its way to the edge, while it cannot get there.
    held: Vec<Outgoing>,
    /// What was ever sent to the edge.
    remembered: Vec<Outgoing>,
    partition: bool,
    /// Downloads are cut although there is no partition.
    rough: bool,
    templates: usize,
    score: Score,
}

impl<'a> Match<'a> {
    /// A tenant, a gallery and an edge of their own.
    pub async fn begin(hub: &'a mut Hub, kind: Kind, dir: &Path) -> Result<Self> {
        let place = hub.place().await?;
        let edge = Some(Edge::new(kind, dir, &place)?);
        Ok(Self {
            hub,
            place,
            edge,
            random: Random::new(0),
            alive: BTreeSet::new(),
            deleted: BTreeMap::new(),
            held: Vec::new(),
            remembered: Vec::new(),
            partition: false,
            rough: false,
            templates: 0,
            score: Score::default(),
        })
    }

    /// Ends the edge's life at the hub, and tells how it went.
    pub async fn end(self) -> Result<Score> {
        self.hub.retire(&self.place).await?;
        Ok(self.score)
    }

    /// Plays the interleaving of a seed.
    pub async fn play(&mut self, seed: u64) -> Result<()> {
        self.random = Random::new(seed);
        self.enrol().await?;
        self.report().await?;
        self.partition = true;
        // Whom the edge knows, whom it cannot know yet, or both: the deletion behind the partition that is the point.
        if self.random.chance(50) {
            self.enrol().await?;
        }
        for _ in 0..self.random.below(4) {
            self.happen().await?;
        }
        if self.alive.is_empty() {
            self.enrol().await?;
        }
        if self.delete().await? {
            self.score.raced += 1;
        }
        for _ in 0..1 + self.random.below(5) {
            self.happen().await?;
        }
        self.heal_the_line().await?;
        self.calm().await
    }

    fn edge(&mut self) -> &mut Edge {
        self.edge.as_mut().expect("there is an edge but for the moment of its restart")
    }

    async fn happen(&mut self) -> Result<()> {
        match self.random.below(11) {
            0 | 1 => self.enrol().await,
            2 => self.another_template().await,
            3 | 4 => self.delete().await.map(drop),
            5 => self.bring_back().await,
            6 => self.report().await,
            7 => self.restart(),
            8 => self.again().await,
            9 => self.compact().await,
            _ => self.trickle().await,
        }
    }

    // ---- what people do at the hub

    async fn enrol(&mut self) -> Result<()> {
        self.templates += 1;
        let person = self.hub.enrol(&self.place, self.templates).await?;
        self.alive.insert(person.0);
        self.score.committed += 1;
        self.announce().await
    }

    async fn another_template(&mut self) -> Result<()> {
        let Some(person) = self.somebody() else { return Ok(()) };
        self.templates += 1;
        self.hub.add_template(&self.place, PersonId(person), self.templates).await?;
        self.score.committed += 1;
        self.announce().await
    }

    async fn delete(&mut self) -> Result<bool> {
        let Some(person) = self.somebody() else { return Ok(false) };
        let version = self.hub.delete(&self.place, PersonId(person)).await?;
        self.alive.remove(&person);
        self.deleted.insert(person, version);
        self.score.committed += 1;
        self.announce().await?;
        Ok(self.partition)
    }

    async fn bring_back(&mut self) -> Result<()> {
        let Some(person) = pick(&mut self.random, self.deleted.keys()) else { return Ok(()) };
        self.score.tried += 1;
        if self.hub.try_to_bring_back(&self.place, PersonId(person)).await? == Refusal::Done {
            self.score.hub_wrong += 1;
        }
        Ok(())
    }

    fn somebody(&mut self) -> Option<Uuid> {
        pick(&mut self.random, self.alive.iter())
    }

    async fn announce(&mut self) -> Result<()> {
        let out = self.hub.announce(&self.place).await;
        self.send(out).await
    }

    // ---- what the network does

    /// The hub's messages on their way: there at once, or held, or lost.
    async fn send(&mut self, messages: Vec<Outgoing>) -> Result<()> {
        let own = self.edge().down_topic();
        // The hub's session is that of all its devices; the others have ended.
        for message in messages.into_iter().filter(|message| message.topic == own) {
            if self.remembered.len() == REMEMBERED {
                let one = usize::try_from(self.random.below(REMEMBERED as u64))?;
                self.remembered.swap_remove(one);
            }
            self.remembered.push(message.clone());
            if !self.partition {
                self.deliver(&message).await?;
            } else if self.random.chance(30) {
                self.score.lost += 1;
            } else {
                self.score.held += 1;
                self.held.push(message);
            }
        }
        Ok(())
    }

    /// One of those that are held gets through before its time.
    async fn trickle(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let one = usize::try_from(self.random.below(self.held.len() as u64))?;
        let message = self.held.swap_remove(one);
        self.deliver(&message).await
    }

    /// One that was sent before, delivered or not, comes once more.
    async fn again(&mut self) -> Result<()> {
        if self.remembered.is_empty() {
            return Ok(());
        }
        let one = usize::try_from(self.random.below(self.remembered.len() as u64))?;
        self.score.doubled += 1;
        let message = self.remembered[one].clone();
        self.deliver(&message).await
    }

    /// What was held arrives in any order, some of it twice, some of it never.
    async fn heal_the_line(&mut self) -> Result<()> {
        while !self.held.is_empty() {
            if self.random.chance(20) {
                self.held.pop();
                self.score.lost += 1;
            } else {
                self.trickle().await?;
            }
            if self.random.chance(30) {
                self.again().await?;
            }
        }
        self.partition = false;
        // Rarely: the hub then looks at every tenant that the run has made.
        if self.random.chance(4) {
            let out = self.hub.session_lost().await;
            self.send(out).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, message: &Outgoing) -> Result<()> {
        let opened = self.edge().open(&message.topic, &message.payload)?;
        if puts(&opened).any(|person| self.deleted.contains_key(&person)) {
            self.score.late_upserts += 1;
        }
        let offered = self.edge().take(opened);
        self.look();
        if let Some(offered) = offered {
            self.fetch(offered).await?;
        }
        Ok(())
    }

    /// The edge fetches what it was offered, over a line that is cut at any byte while there is a partition. Meanwhile somebody may
    /// be deleted at the hub.
    async fn fetch(&mut self, offered: Offered) -> Result<()> {
        self.score.offers += 1;
        let rough = self.partition || self.rough;
        if rough && self.random.chance(30) {
            return Ok(());
        }
        let Some(answer) = self.hub.manifest(&self.place, offered.id).await? else {
            self.score.gone += 1;
            return Ok(());
        };
        let Some(mut download) = self.edge().download(offered, &answer)? else {
            self.score.hub_wrong += 1;
            return Ok(());
        };
        if download.held() > 0 {
            self.score.resumed += 1;
        }
        while !download.is_complete() {
            if self.partition && self.random.chance(30) && self.delete_behind_its_back().await? {
                self.score.raced += 1;
            }
            let Some(bytes) = self.hub.content(&self.place, offered.id, download.held()).await? else {
                self.score.gone += 1;
                download.destroy();
                return Ok(());
            };
            let cut = rough && self.random.chance(40);
            let arrived = if cut { usize::try_from(self.random.below(bytes.len() as u64 + 1))? } else { bytes.len() };
            if download.append(&bytes[..arrived]).is_err() {
                self.score.hub_wrong += 1;
                return Ok(());
            }
            if cut {
                self.score.cut += 1;
                return Ok(());
            }
        }
        if self.edge().apply(download).is_err() {
            self.score.hub_wrong += 1;
        }
        self.score.applied += 1;
        self.look();
        Ok(())
    }

    /// Deletes somebody of whom nothing is announced: the next report finds it out.
    async fn delete_behind_its_back(&mut self) -> Result<bool> {
        let Some(person) = self.somebody() else { return Ok(false) };
        let version = self.hub.delete(&self.place, PersonId(person)).await?;
        self.alive.remove(&person);
        self.deleted.insert(person, version);
        self.score.committed += 1;
        Ok(true)
    }

    /// The hub takes out of the log what the edge has passed.
    async fn compact(&mut self) -> Result<()> {
        self.score.compacted += self.hub.compact(&self.place).await?;
        Ok(())
    }

    // ---- what the edge does

    /// The edge says where it stands. The partition lets some of it through: it may be closed in one direction only.
    async fn report(&mut self) -> Result<()> {
        let reports = self.edge().reports();
        for report in reports {
            if self.partition && self.random.chance(50) {
                self.score.lost += 1;
                continue;
            }
            self.hear(report).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, report: Incoming) -> Result<()> {
        let mut out = self.hub.hear(report).await;
        out.extend(self.hub.work().await);
        self.send(out).await
    }

    fn restart(&mut self) -> Result<()> {
        let older = self.random.chance(50);
        let edge = self.edge.take().context("there is an edge")?;
        let (edge, replaced) = edge.restart(older)?;
        self.edge = Some(edge);
        self.score.older_copies += u64::from(replaced);
        self.look();
        Ok(())
    }

    // ---- the judge

    /// Nobody is found whose deletion the edge has been told of.
    fn look(&mut self) {
        let Some(edge) = &self.edge else { return };
        let told = edge.stands().0;
        let buried = self.deleted.iter().filter(|(_, version)| **version <= told).map(|(person, _)| person);
        self.score.risen += edge.knows(buried).len() as u64;
    }

    /// Reports and answers without loss, until both ends are equal; then everybody is counted.
    async fn calm(&mut self) -> Result<()> {
        let mut equal = false;
        for round in 0..CALM_ROUNDS {
            self.rough = round < ROUGH_ROUNDS;
            let reports = self.edge().reports();
            for report in reports {
                self.hear(report).await?;
            }
            let head = self.hub.head(&self.place).await?;
            equal = self.edge().stands() == head;
            if equal {
                break;
            }
            // Longer than the hub waits for an answer that was lost.
            self.hub.pass(60);
        }
        self.rough = false;
        self.score.apart += u64::from(!equal);
        let hubs: BTreeSet<Uuid> = self.hub.people(&self.place).await?.into_iter().map(|person| person.0).collect();
        self.score.hub_wrong += u64::from(hubs != self.alive);
        let (alive, deleted) = (self.alive.clone(), self.deleted.clone());
        let edge = self.edge();
        let (missing, risen) = (alive.len() - edge.knows(alive.iter()).len(), edge.knows(deleted.keys()).len());
        self.score.missing += missing as u64;
        self.score.risen += risen as u64;
        Ok(())
    }
}

/// Whom a message puts: people, and whom templates belong to only by their own ids, which no judge knows.
fn puts(message: &GalleryDown) -> impl Iterator<Item = Uuid> {
    let records = match message {
        GalleryDown::Records(message) => &message.records[..],
        GalleryDown::Buckets(message) => &message.records[..],
        _ => &[],
    };
    let people = records.iter().filter(|record| record.op == RecordOp::Put && record.kind == RecordKind::Person);
    people.map(|record| record.id)
}

fn pick<'a>(random: &mut Random, people: impl ExactSizeIterator<Item = &'a Uuid>) -> Option<Uuid> {
    let mut people = people;
    let many = u64::try_from(people.len()).unwrap_or(0);
    if many == 0 {
        return None;
    }
    people.nth(usize::try_from(random.below(many)).unwrap_or(0)).copied()
}
