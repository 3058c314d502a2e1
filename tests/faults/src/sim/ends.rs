//! The edge and the hub of the game, each with what its disk holds.

use std::collections::HashMap;
use std::time::Duration;

use cloud_hub::domain::verdict::{self, Ruling};
use edge_agent::sync::sender::Sender;
use face_core::MonoTime;
use uuid::Uuid;

use super::Wrong;

/// As the real device has it (`Timing::evtack_timeout`).
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Events of one batch; the wire's own limit.
const MOST_OF_A_BATCH: usize = wire_contract::batch::MAX_BATCH_EVENTS;

/// A batch on its way: events of the one stream, in order.
pub(super) type Batch = Vec<(u64, Uuid)>;

/// The hub's answer to a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) through: u64,
    pub(super) rewind: bool,
}

/// A device.
pub(super) struct Edge {
    /// Synced: each was promised to whoever recorded it.
    pub(super) disk: Vec<Uuid>,
    /// Recorded and not synced yet: promised to nobody.
    pub(super) unsynced: Vec<Uuid>,
    /// What the disk says the hub has.
    acknowledged_on_disk: u64,
    /// The same, as the running program knows it; written and not synced.
    acknowledged: u64,
    sender: Sender,
    wrong: Wrong,
}

impl Edge {
    pub(super) fn new(wrong: Wrong) -> Self {
        let sender = Sender::new(0, ANSWER_WITHIN);
        Self { disk: Vec::new(), unsynced: Vec::new(), acknowledged_on_disk: 0, acknowledged: 0, sender, wrong }
    }

    /// What waits in memory is on the disk now.
    pub(super) fn sync(&mut self) {
        self.disk.append(&mut self.unsynced);
        self.acknowledged_on_disk = self.acknowledged;
    }

    /// The program dies and starts: what was not synced is gone, and what the hub had said of late may be too.
    pub(super) fn die(&mut self) {
        self.unsynced.clear();
        self.acknowledged = self.acknowledged_on_disk;
        self.sender = Sender::new(self.acknowledged, ANSWER_WITHIN);
    }

    pub(super) fn connected(&mut self, now: MonoTime) {
        self.sender.connected(now);
    }

    pub(super) fn disconnected(&mut self) {
        self.sender.disconnected();
    }

    pub(super) fn tick(&mut self, now: MonoTime) {
        let _resend = self.sender.tick(now);
    }

    /// The next batch, of at most `most` events, if one may go out now.
    pub(super) fn next(&mut self, most: usize, now: MonoTime) -> Option<Batch> {
        let mut all = self.disk.clone();
        if self.wrong == Wrong::SentBeforeSync {
            all.extend(&self.unsynced);
        }
        let after = usize::try_from(self.sender.next(all.len() as u64)?).ok()?;
        let most = most.clamp(1, MOST_OF_A_BATCH);
        let batch: Batch = (1_u64..).zip(all).skip(after).take(most).collect();
        self.sender.sent(batch.last()?.0, now);
        Some(batch)
    }

    /// The broker has taken a batch; whether anybody listened there.
    pub(super) fn taken_by_the_broker(&mut self, last: u64, heard: bool, now: MonoTime) {
        if !heard {
            self.sender.unheard();
        }
        if self.wrong == Wrong::BrokerBelieved {
            self.acknowledged = self.acknowledged.max(last);
            let _resend = self.sender.acknowledged(last, now);
        }
    }

    pub(super) fn hear(&mut self, ack: Ack, now: MonoTime) {
        self.acknowledged = self.acknowledged.max(ack.through);
        let _resend =
            if ack.rewind { self.sender.rewind(ack.through, now) } else { self.sender.acknowledged(ack.through, now) };
    }

    /// Whether everything that was promised was acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.acknowledged == self.disk.len() as u64 && self.unsynced.is_empty()
    }
}

/// The hub with its database.
pub(super) struct Hub {
    /// Committed, in the order of the commits.
    pub(super) rows: Vec<(u64, Uuid)>,
    committed: u64,
    /// The effect of each event, such as its webhook.
    pub(super) effects: HashMap<Uuid, u64>,
    /// The stream came with two ids in one place.
    pub(super) conflicts: u64,
    wrong: Wrong,
}

impl Hub {
    pub(super) fn new(wrong: Wrong) -> Self {
        Self { rows: Vec::new(), committed: 0, effects: HashMap::new(), conflicts: 0, wrong }
    }

    /// Takes a batch in, unless it `dies` at its commit. Returns what it says.
    pub(super) fn take(&mut self, batch: &Batch, dies: bool) -> Option<Ack> {
        if self.wrong == Wrong::NoVerdict {
            self.store(batch);
            return Some(self.announce());
        }
        let first = batch.first()?.0;
        let stored = self.rows.iter().filter(|(sequence, _)| *sequence >= first).copied().collect();
        match verdict::rule(self.committed, &stored, batch) {
            Ok(Ruling::Store { first_new, through }) => {
                if dies && self.wrong == Wrong::AckBeforeCommit {
                    return Some(Ack { through, rewind: false });
                }
                self.store(&batch[first_new..]);
                (!dies).then(|| self.announce())
            }
            Ok(Ruling::Rewind) => (!dies).then_some(Ack { through: self.committed, rewind: true }),
            Ok(Ruling::Conflict { .. }) | Err(_) => {
                self.conflicts += 1;
                None
            }
        }
    }

    /// One transaction: rows, effects, where the stream stands.
    fn store(&mut self, new: &[(u64, Uuid)]) {
        for (sequence, id) in new {
            self.rows.push((*sequence, *id));
            *self.effects.entry(*id).or_default() += 1;
            self.committed = self.committed.max(*sequence);
        }
    }

    /// What it says of the stream at each of its own connections.
    pub(super) fn announce(&self) -> Ack {
        Ack { through: self.committed, rewind: false }
    }
}
