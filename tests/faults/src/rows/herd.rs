//! M8: the broker restarts with many devices on it, each with mutual TLS. All are back within 30 s, and the hub's memory
//! stays bounded.

use std::time::Duration;

use anyhow::Result;

use crate::lab::Lab;
use crate::line::site::Part;
use crate::line::trust::{Blow, lost_by_trusting};
use crate::line::{Crowd, Site, judge};
use crate::outcome::{Control, Verdict};
use crate::row::{Need, Row};

/// The row. Its count is that of the devices, each of which loses its line.
pub(super) static M8: Row = Row {
    id: "M8",
    title: "broker restart with a thousand devices: all back in 30 s",
    count: 1000,
    small: 12,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: restart,
};

/// The figures.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const HUB_MAY_HOLD_MIB: u64 = 1024;
/// A little traffic, so that what was on its way is judged too.
const RATE: f64 = 20.0;
/// For the first connection of all: each opens its stores.
const UP_WITHIN: Duration = Duration::from_secs(180);

fn restart(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("restart", 1, |_, tally| {
        let mut site = Site::open(usize::try_from(count)?)?;
        let mut crowd = Crowd::start(&site, RATE)?;
        let up = crowd.until(UP_WITHIN, |standing| standing.connected == count)?;
        tally.require(up.is_some(), || "not every device came up".to_owned());
        let connections = crowd.standing()?.connections;
        let killed = site.kill(Part::Broker)?;
        site.back(Part::Broker, killed)?;
        let back = crowd.until(BACK_WITHIN * 2, |standing| {
            standing.connected == count && standing.connections >= connections + count
        })?;
        tally.injected += (crowd.standing()?.connections - connections).min(count);
        tally.figure("all_back_ms", back.map_or(u64::MAX, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
        tally.require(back.is_some_and(|took| took <= BACK_WITHIN), || format!("all were back after {back:?}"));
        let resident = site.hub_resident_mib()?;
        tally.figure("hub_resident_mib", resident);
        tally.require(resident <= HUB_MAY_HOLD_MIB, || format!("the hub holds {resident} MiB"));
        crowd.hold()?;
        let drained = crowd.until_drained(BACK_WITHIN)?;
        tally.require(drained.is_some(), || "not everything was acknowledged at the end".to_owned());
        let told = crowd.end(&site)?;
        judge::judge(&site, &told)?.count_in(tally, &told);
        tally.add("control_lost", lost_by_trusting(&mut site, Blow::Broker)?);
        Ok(())
    })?;
    let control = Control::of("lost", tally.count_of("control_lost"));
    Ok(Verdict { tally, control })
}
