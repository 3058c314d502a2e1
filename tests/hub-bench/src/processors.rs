//! What the processors were busy with: the hub, those who ask it, and the database.

use anyhow::Result;
use serde_json::{Value, json};
use system_tests::launcher::cpu_time;

use crate::rig::Rig;

/// Processor time of each since it began, in milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    hub: f64,
    asking: f64,
    database: f64,
}

impl Spent {
    pub(crate) fn now(rig: &Rig) -> Result<Self> {
        let of = |process| Ok::<_, anyhow::Error>(cpu_time(process)?.as_secs_f64() * 1e3);
        Ok(Self {
            hub: of(rig.hub_process())?,
            asking: of(std::process::id())?,
            // One that ends meanwhile is not there any more.
            database: below(rig.hub_process()).into_iter().filter_map(|process| of(process).ok()).sum(),
        })
    }

    /// What was spent since then on each of so many requests.
    pub(crate) fn each(self, since: Self, requests: usize) -> Value {
        let each = |now: f64, then: f64| (now - then) / requests as f64;
        json!({
            "hub_ms": each(self.hub, since.hub), "asking_ms": each(self.asking, since.asking),
            "database_ms": each(self.database, since.database),
        })
    }
}

/// The processes of the hub's Postgres, which are its grandchildren.
fn below(hub: u32) -> Vec<u32> {
    let all: Vec<(u32, u32, String)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let process: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
            Some((process, parent, name.to_owned()))
        })
        .collect();
    let children = |parents: &[u32]| -> Vec<u32> {
        let ours = all.iter().filter(|(_, parent, name)| parents.contains(parent) && name == "postgres");
        ours.map(|(process, ..)| *process).collect()
    };
    let first = children(&[hub]);
    let second = children(&first);
    first.into_iter().chain(second).collect()
}
