//! M6: what a device recorded while it was cut off arrives, in order and at once: 100,000 events within 60 s. And whoever falls silent
//! is shown as gone after one and a half of its keep-alives, as there again when the line is whole.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::{Lab, now};
use crate::line::trust::{Blow, lost_by_trusting};
use crate::line::{Crowd, Fault, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row. Its count is that of the events.
pub(super) static M6: Row = Row {
    id: "M6",
    title: "events buffered while cut off: 100,000 uploaded in 60 s, in order",
    count: 100_000,
    small: 3_000,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: partition,
};

/// As fast as the device's disk takes them.
const RATE: f64 = 50_000.0;
/// The figure, for the row's whole count.
const UPLOADED_WITHIN: Duration = Duration::from_secs(60);
/// The matrix's figure, one and a half of the agent's keep-alives.
const GONE_WITHIN: Duration = Duration::from_secs(15);
/// What a small run is held to, which may share its machine.
const GONE_WITHIN_WHEN_BUSY: Duration = Duration::from_secs(20);
/// The matrix's figure for a fleet after a restart of the broker.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// How long recording may take: it is not what is measured.
const RECORDED_WITHIN: Duration = Duration::from_secs(600);

fn partition(lab: &mut Lab) -> Result<Verdict> {
    let (count, long) = (lab.count(), lab.is_long());
    let tally = lab.phase("partition", 1, |_, tally| {
        let mut site = Site::open(1)?;
        site.proxy.inject(Fault::Refused);
        let mut crowd = Crowd::start(&site, RATE)?;
        crowd.until(RECORDED_WITHIN, |standing| standing.recorded >= count)?.context("recording takes for ever")?;
        crowd.hold()?;
        // One more look, so that what was being recorded when the word came is counted too.
        std::thread::sleep(Duration::from_secs(1));
        let buffered = crowd.standing()?;
        tally.require(buffered.acknowledged == 0, || format!("the device was not cut off: {buffered:?}"));
        let refused = site.proxy.heal();
        tally.add("connections_refused", refused);
        tally.injected += if refused > 0 { buffered.recorded } else { 0 };
        let took = crowd.until_drained(UPLOADED_WITHIN * 3)?;
        let millis = took.map_or(u64::MAX, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        tally.figure("uploaded_in_ms", millis);
        tally.figure("events_per_second", buffered.recorded * 1000 / millis.max(1));
        tally.require(took.is_some_and(|took| took <= UPLOADED_WITHIN), || {
            format!("{} events were not uploaded within {UPLOADED_WITHIN:?} but {took:?}", buffered.recorded)
        });
        presence(&site, if long { GONE_WITHIN } else { GONE_WITHIN_WHEN_BUSY }, tally)?;
        let told = crowd.end(&site)?;
        judge::judge(&site, &told)?.count_in(tally, &told);
        let doctored = judge::doctored(&site, &told)?;
        tally.add("control_disordered", doctored.disordered);
        tally.add("control_lost", lost_by_trusting(&mut site, Blow::Broker)?);
        Ok(())
    })?;
    let control =
        Control::of("lost", tally.count_of("control_lost")).and("disordered", tally.count_of("control_disordered"));
    Ok(Verdict { tally, control })
}

/// Cuts the line without a word, and waits for what a person sees.
fn presence(site: &Site, gone_within: Duration, tally: &mut Tally) -> Result<()> {
    site.proxy.inject(Fault::Silent);
    let gone = until_online(site, false, gone_within * 2)?;
    site.proxy.heal();
    let back = until_online(site, true, BACK_WITHIN * 2)?;
    for (what, took, within) in [("gone", gone, gone_within), ("back", back, BACK_WITHIN)] {
        let millis = took.map_or(u64::MAX, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        tally.figure(&format!("{what}_after_ms"), millis);
        tally.require(took.is_some_and(|took| took <= within), || {
            format!("the device was not shown as {what} within {within:?} but {took:?}")
        });
    }
    Ok(())
}

/// How long it takes until the table says so of the only device.
fn until_online(site: &Site, online: bool, patience: Duration) -> Result<Option<Duration>> {
    site.block_on(async {
        let (mut database, begun) = (site.database().await?, now());
        while sqlx::query_scalar::<_, bool>("SELECT online FROM device").fetch_one(&mut database).await? != online {
            if begun.elapsed() >= patience {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Some(begun.elapsed()))
    })
}
