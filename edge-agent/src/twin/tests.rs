//! Desired states as a story: what is taken, what is kept, and what becomes of one that does not work.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

const DEVICE: Uuid = Uuid::from_u128(7);

/// A device with one door, whose liveness needs a start.
#[derive(Default, Clone)]
struct Machine(Arc<Mutex<Vec<u64>>>);

impl Configure for Machine {
    fn check(&self, desired: &Desired) -> Result<(), Refusal> {
        match desired.settings.door.keys().find(|id| *id != "main") {
            Some(id) => Err(Refusal { code: Code::TwinInvalid, reason: format!("door.{id}: there is no such door") }),
            None => Ok(()),
        }
    }

    fn apply(&mut self, desired: &Desired) -> Vec<String> {
        self.0.lock().push(desired.version.version);
        desired.settings.leaves().into_keys().filter(|path| path.ends_with("liveness")).collect()
    }

    fn in_effect(&self) -> TwinSettings {
        TwinSettings::default()
    }
}

fn message(version: u64, settings: Value) -> TwinDown {
    let hash = TwinSettings::parse(&settings).map_or(wire_contract::Hash32([0; 32]), |read| read.hash());
    TwinDown { v: V1, desired: TwinVersion { epoch: 1, version }, hash, settings }
}

fn hold(ms: u32) -> Value {
    json!({ "door": { "main": { "hold_ms": ms } } })
}

fn strict() -> Value {
    json!({ "policy": { "default": { "liveness": "strict" } } })
}

struct Site {
    dir: tempfile::TempDir,
    machine: Machine,
}

impl Site {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), machine: Machine::default() }
    }

    /// A start of the agent; whether it comes up is the caller's to say.
    fn starts(&self) -> (TwinStore, Option<Desired>) {
        let mut store = TwinStore::open(self.dir.path(), DEVICE);
        let desired = store.start();
        (store, desired)
    }

    fn desk(&self) -> TwinDesk {
        let (mut store, applied) = self.starts();
        store.came_up();
        TwinDesk::new(store, Box::new(self.machine.clone()), applied)
    }

    fn applied(&self) -> Vec<u64> {
        self.machine.0.lock().clone()
    }
}

fn stands(desk: &TwinDesk) -> (TwinState, Option<u64>, Option<Code>) {
    let report = desk.report(Uuid::nil());
    (report.state, report.applied.map(|applied| applied.version), report.code)
}

#[test]
fn what_works_at_once_is_kept_and_an_older_state_never_wins() {
    let site = Site::new();
    let mut desk = site.desk();
    assert_eq!(stands(&desk), (TwinState::None, None, None));
    desk.take(&message(2, hold(900)));
    assert_eq!(stands(&desk), (TwinState::Applied, Some(2), None));
    for replayed in [1, 2] {
        desk.take(&message(replayed, hold(100)));
    }
    assert_eq!((site.applied(), stands(&desk)), (vec![2], (TwinState::Applied, Some(2), None)));
    // Nor after a restart, offline.
    let mut desk = site.desk();
    assert_eq!(stands(&desk), (TwinState::Applied, Some(2), None));
    desk.take(&message(1, hold(100)));
    assert_eq!(site.applied(), [2]);
    // A hub restored from a backup counts on from an old version, in a new epoch.
    desk.take(&TwinDown { desired: TwinVersion { epoch: 2, version: 1 }, ..message(1, hold(100)) });
    assert_eq!(stands(&desk).1, Some(1));
}

#[test]
fn what_does_not_fit_is_refused_whole_and_said() {
    let site = Site::new();
    let mut desk = site.desk();
    desk.take(&message(1, hold(900)));
    desk.take(&message(2, json!({ "door": { "main": { "hold_ms": 500 }, "cellar": { "hold_ms": 500 } } })));
    assert_eq!(stands(&desk), (TwinState::Refused, Some(1), Some(Code::TwinInvalid)));
    assert!(desk.report(Uuid::nil()).reason.unwrap().contains("cellar"));
    desk.take(&message(3, json!({ "door": { "main": { "hodl_ms": 500 } } })));
    assert!(desk.report(Uuid::nil()).reason.unwrap().contains("hodl_ms"));
    desk.take(&TwinDown { hash: wire_contract::Hash32([1; 32]), ..message(4, hold(500)) });
    assert_eq!(stands(&desk), (TwinState::Refused, Some(1), Some(Code::TwinInvalid)));
    assert_eq!(site.applied(), [1]);
    desk.take(&message(5, hold(500)));
    assert_eq!(stands(&desk), (TwinState::Applied, Some(5), None));
}

#[test]
fn what_needs_a_start_says_so_and_is_on_trial_until_one_came_up() {
    let site = Site::new();
    site.desk().take(&message(1, hold(900)));
    let mut desk = site.desk();
    desk.take(&message(2, strict()));
    assert_eq!(stands(&desk), (TwinState::RestartNeeded, Some(2), None));
    assert_eq!(desk.report(Uuid::nil()).restart_needed, ["policy.default.liveness"]);
    assert_eq!(stands(&site.desk()), (TwinState::Applied, Some(2), None));
    assert_eq!(site.starts().1.unwrap().version.version, 2);
}

#[test]
fn a_state_with_which_the_agent_does_not_come_up_gives_way_to_the_last_good_one() {
    let site = Site::new();
    site.desk().take(&message(1, hold(900)));
    site.desk().take(&message(2, strict()));
    for start in 0..TRIALS {
        assert_eq!(site.starts().1.unwrap().version.version, 2, "start {start}");
    }
    let desk = site.desk();
    assert_eq!(stands(&desk), (TwinState::Refused, Some(1), Some(Code::TwinFailed)));
    // The same state comes again, retained at the broker: it has had its trial.
    let mut desk = site.desk();
    desk.take(&message(2, strict()));
    assert_eq!(stands(&desk), (TwinState::Refused, Some(1), Some(Code::TwinFailed)));
    desk.take(&message(3, hold(700)));
    assert_eq!(stands(&desk), (TwinState::Applied, Some(3), None));
}

#[test]
fn a_state_that_makes_no_configuration_any_more_is_given_up_at_once() {
    let site = Site::new();
    site.desk().take(&message(1, hold(900)));
    let (mut store, desired) = site.starts();
    assert!(desired.is_some());
    store.give_up(Refusal { code: Code::TwinInvalid, reason: "the door was taken out of the file".into() });
    assert!(store.start().is_none());
    let mut desk = site.desk();
    assert_eq!(stands(&desk), (TwinState::Refused, None, Some(Code::TwinInvalid)));
    desk.take(&message(1, hold(900)));
    assert_eq!(stands(&desk), (TwinState::Applied, Some(1), None), "the file has the door again");
}

#[test]
fn a_damaged_file_is_told_and_healed_by_the_hub_and_another_device_starts_afresh() {
    let site = Site::new();
    site.desk().take(&message(4, hold(900)));
    let path = site.dir.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let mut desk = site.desk();
    assert_eq!(stands(&desk), (TwinState::Refused, None, Some(Code::TwinUnreadable)));
    desk.take(&message(4, hold(900)));
    assert_eq!(stands(&desk), (TwinState::Applied, Some(4), None));
    let other = TwinStore::open(site.dir.path(), Uuid::from_u128(8));
    assert!(other.in_use().is_none());
}
