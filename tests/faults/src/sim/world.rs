//! What happens in the game: a queue of happenings by time, dice for what befalls them, and the score at the end.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use face_core::MonoTime;
use uuid::Uuid;

use super::Wrong;
use super::ends::{Ack, Batch, Edge, Hub};
use crate::rig::random::Random;

/// Game time during which things go wrong, in milliseconds.
const STORMY_MS: u64 = 60_000;
/// Then all is well for so long; by its end everything must have arrived. The edge's longest wait for an answer is 10 s,
/// and a connection may be lost in the last moment of the storm.
const CALM_MS: u64 = 60_000;
/// How often the edge looks at the time; the driver's own turn.
const TICK_MS: u64 = 500;
/// A group commit of the outbox.
const SYNC_MS: u64 = 20;
/// Between two events at most; the mean is half of it.
const RECORD_MS: u64 = 1_000;
/// Between two things that go wrong at most.
const TROUBLE_MS: u64 = 8_000;
/// A game in which more happens than this goes in circles.
const MOST_HAPPENINGS: u64 = 200_000;

/// What can happen.
enum Happening {
    Record,
    Sync,
    Tick,
    Trouble,
    EdgeConnects,
    HubConnects,
    /// A batch arrives at the broker, on this connection of the edge.
    AtBroker(u64, Batch),
    /// The broker's word for a batch: its last sequence, and whether somebody listened.
    Taken(u64, u64, bool),
    /// A batch arrives at the hub, on this connection of the hub.
    AtHub(u64, Batch),
    /// The hub's answer arrives, on this connection of the edge.
    Answer(u64, Ack),
}

/// How a game ended.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Events that were promised.
    pub promised: u64,
    /// Promised and not at the hub.
    pub lost: u64,
    /// At the hub twice, or with a second effect.
    pub doubled: u64,
    /// At the hub and never promised, or promised and given up before the hub had them.
    pub phantom: u64,
    /// Not in the order of the stream.
    pub disordered: u64,
    /// The hub took the edge for a clone.
    pub conflicts: u64,
    /// Not everything was acknowledged when the calm was over, or the game went in circles.
    pub stuck: bool,
    /// What went wrong, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Score {
    /// Whether every promise held.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.phantom + self.disordered + self.conflicts == 0 && !self.stuck
    }
}

/// A game.
pub struct Game {
    random: Random,
    now_ms: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, Happening>,
    count: u64,
    edge: Edge,
    hub: Hub,
    /// The number of the present connection, if there is one.
    edge_line: Option<u64>,
    hub_line: Option<u64>,
    lines: u64,
    /// How bad the network is in this game, in a hundred.
    loses: u64,
    doubles: u64,
    late_ms: u64,
    faults: BTreeMap<&'static str, u64>,
}

impl Game {
    /// Plays the game of a seed to its end.
    #[must_use]
    pub fn play(seed: u64, wrong: Wrong) -> Score {
        let mut random = Random::new(seed);
        let (loses, doubles) = (random.below(30), random.below(20));
        let late_ms = [5, 50, 500, 3_000][usize::try_from(random.below(4)).unwrap_or(0)];
        let mut game = Self {
            random,
            now_ms: 0,
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            count: 0,
            edge: Edge::new(wrong),
            hub: Hub::new(wrong),
            edge_line: None,
            hub_line: None,
            lines: 0,
            loses,
            doubles,
            late_ms,
            faults: BTreeMap::new(),
        };
        for first in [Happening::Record, Happening::Tick, Happening::Trouble] {
            game.after(0, first);
        }
        game.after(1, Happening::HubConnects);
        game.after(2, Happening::EdgeConnects);
        game.until_the_end()
    }

    fn until_the_end(mut self) -> Score {
        let mut stuck = false;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            let happening = self.waiting.remove(&number).expect("what is queued waits");
            self.now_ms = at;
            let circles = self.count > MOST_HAPPENINGS;
            if at > STORMY_MS + CALM_MS || circles {
                stuck = circles;
                break;
            }
            self.happen(happening);
            self.send();
        }
        self.score(stuck)
    }

    fn score(self, stuck: bool) -> Score {
        let (edge, hub) = (self.edge, self.hub);
        let at_hub: BTreeMap<Uuid, u64> = hub.rows.iter().fold(BTreeMap::new(), |mut counts, (_, id)| {
            *counts.entry(*id).or_default() += 1;
            counts
        });
        let promised: BTreeMap<Uuid, u64> = (1_u64..).zip(&edge.disk).map(|(sequence, id)| (*id, sequence)).collect();
        let more_than_once = |counts: &mut dyn Iterator<Item = u64>| counts.filter(|count| *count > 1).count() as u64;
        Score {
            promised: promised.len() as u64,
            lost: promised.keys().filter(|id| !at_hub.contains_key(*id)).count() as u64,
            doubled: more_than_once(&mut at_hub.values().copied()) + more_than_once(&mut hub.effects.values().copied()),
            phantom: hub.rows.iter().filter(|(sequence, id)| promised.get(id) != Some(sequence)).count() as u64,
            disordered: hub.rows.windows(2).filter(|pair| pair[1].0 != pair[0].0 + 1).count() as u64,
            conflicts: hub.conflicts,
            stuck: stuck || !edge.is_done(),
            faults: self.faults,
        }
    }

    fn now(&self) -> MonoTime {
        MonoTime::from_millis(self.now_ms)
    }

    fn after(&mut self, ms: u64, happening: Happening) {
        self.count += 1;
        self.queue.push(Reverse((self.now_ms + ms, self.count)));
        self.waiting.insert(self.count, happening);
    }

    fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    fn is_stormy(&self) -> bool {
        self.now_ms < STORMY_MS
    }

    /// Sends something over the network: late, perhaps lost, perhaps twice, and so out of order.
    fn over_the_network(&mut self, make: impl Fn() -> Happening) {
        if self.is_stormy() && self.random.chance(self.loses) {
            return self.fault("messages_lost");
        }
        let twice = self.is_stormy() && self.random.chance(self.doubles);
        let most = if self.is_stormy() { self.late_ms } else { 50 };
        for _ in 0..=u64::from(twice) {
            let late = 1 + self.random.below(most);
            self.after(late, make());
        }
        if twice {
            self.fault("messages_doubled");
        }
    }

    fn send(&mut self) {
        while let Some(line) = self.edge_line {
            let most = usize::try_from(1 + self.random.below(20)).unwrap_or(1);
            let now = self.now();
            let Some(batch) = self.edge.next(most, now) else { return };
            self.over_the_network(|| Happening::AtBroker(line, batch.clone()));
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now();
        match happening {
            Happening::Record if self.is_stormy() => {
                let id = Uuid::from_u64_pair(self.random.next(), self.count);
                self.edge.unsynced.push(id);
                let (sync, next) = (1 + self.random.below(SYNC_MS), 1 + self.random.below(RECORD_MS));
                self.after(sync, Happening::Sync);
                self.after(next, Happening::Record);
            }
            Happening::Record => {}
            Happening::Sync => self.edge.sync(),
            Happening::Tick => {
                self.edge.tick(now);
                self.after(TICK_MS, Happening::Tick);
            }
            Happening::Trouble => self.trouble(),
            Happening::EdgeConnects => {
                self.edge_line = Some(self.line());
                self.edge.connected(now);
            }
            Happening::HubConnects => {
                self.hub_line = Some(self.line());
                self.answer(self.hub.announce());
            }
            Happening::AtBroker(line, batch) => self.at_broker(line, &batch),
            Happening::Taken(line, last, heard) if self.edge_line == Some(line) => {
                self.edge.taken_by_the_broker(last, heard, now);
            }
            Happening::Answer(line, ack) if self.edge_line == Some(line) => self.edge.hear(ack, now),
            // Of a connection that is no more.
            Happening::Taken(..) | Happening::Answer(..) => self.fault("messages_of_an_old_connection"),
            Happening::AtHub(line, batch) => self.at_hub(line, &batch),
        }
    }

    fn line(&mut self) -> u64 {
        self.lines += 1;
        self.lines
    }

    /// The broker hands a batch on, if the hub is there, and keeps nothing.
    fn at_broker(&mut self, line: u64, batch: &Batch) {
        let Some(last) = batch.last().map(|event| event.0) else { return };
        let heard = self.hub_line;
        if self.edge_line == Some(line) {
            self.over_the_network(|| Happening::Taken(line, last, heard.is_some()));
        }
        match heard {
            Some(hub) => self.over_the_network(|| Happening::AtHub(hub, batch.clone())),
            None => self.fault("nobody_listened"),
        }
    }

    fn at_hub(&mut self, line: u64, batch: &Batch) {
        if self.hub_line != Some(line) {
            return self.fault("messages_of_an_old_connection");
        }
        let dies = self.is_stormy() && self.random.chance(3);
        let said = self.hub.take(batch, dies);
        if let Some(ack) = said {
            self.answer(ack);
        }
        if dies {
            self.fault("hub_died_at_a_commit");
            self.hub_dies();
        }
    }

    fn answer(&mut self, ack: Ack) {
        if let Some(line) = self.edge_line {
            self.over_the_network(|| Happening::Answer(line, ack));
        }
    }

    fn hub_dies(&mut self) {
        self.hub_line = None;
        let back = 100 + self.random.below(5_000);
        self.after(back, Happening::HubConnects);
    }

    /// Something goes wrong at an end, and later something else.
    fn trouble(&mut self) {
        if !self.is_stormy() {
            return;
        }
        let back = 10 + self.random.below(6_000);
        match self.random.below(3) {
            0 => {
                self.fault("edge_died");
                self.edge.die();
                self.edge_line = None;
                self.after(back, Happening::EdgeConnects);
            }
            1 => {
                self.fault("edge_line_broke");
                self.edge.disconnected();
                self.edge_line = None;
                self.after(back, Happening::EdgeConnects);
            }
            _ => {
                self.fault("hub_died");
                self.hub_dies();
            }
        }
        let next = 1 + self.random.below(TROUBLE_MS);
        self.after(next, Happening::Trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_plays_the_same_game_again() {
        let told = |seed| format!("{:?}", Game::play(seed, Wrong::Nothing));
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
    }
}
