//! What the hub and its parts cost: processor time of a process and of all that it has started.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Processor time so far, in user and kernel mode, of a process, its living descendants, and those that it has waited for.
pub fn cpu_time(root: u32) -> Result<Duration> {
    let stats = all()?;
    anyhow::ensure!(stats.contains_key(&root), "process {root} is gone");
    let within = |id: u32| {
        let mut at = id;
        // A chain of parents ends at process 1, whose parent is 0; ids are reused, but not within one look.
        while at != root {
            match stats.get(&at) {
                Some(stat) if stat.parent > 1 => at = stat.parent,
                _ => return false,
            }
        }
        true
    };
    let ticks: u64 = stats.iter().filter(|(id, _)| within(**id)).map(|(_, stat)| stat.ticks).sum();
    // SAFETY: sysconf has no preconditions.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).context("no clock tick")?;
    Ok(Duration::from_micros(ticks * 1_000_000 / per_second))
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn all() -> Result<HashMap<u32, Stat>> {
    let entries = fs::read_dir("/proc").context("/proc")?;
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // One that ends between the listing and the reading is left out.
    Ok(ids.filter_map(|id| Some((id, parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?))).collect())
}

/// Fields 4 (parent) and 14 to 17 (user, system, and both of children waited for) of proc(5).
fn parse(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_shifts_no_field() {
        let stat = parse("7 (a) b (c) S 3 7 7 0 -1 4 1 1 1 1 10 20 30 40 20 0").unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 100));
    }

    #[test]
    fn this_process_and_its_child_are_counted() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut busy = std::process::Command::new("sh");
        busy.args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]);
        assert!(busy.status().unwrap().success());
        assert!(cpu_time(std::process::id()).unwrap() > before);
    }
}
