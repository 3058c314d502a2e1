//! I4: two devices race for one claim token, and a third comes late. One wins; the others are told that it is used.

use anyhow::{Context as _, Result};
use fleet_sim::admin::Admin;
use fleet_sim::device;

use crate::lab::Lab;
use crate::line::Site;
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row.
pub(super) static I4: Row = Row {
    id: "I4",
    title: "races for one claim token: one winner each",
    count: 10_000,
    small: 10,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: campaigns,
};

/// Races at one hub: the broker's access list, which is replaced at each claim, grows with them.
const CAMPAIGN: u64 = 250;

fn campaigns(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        campaign(CAMPAIGN.min(count - number * CAMPAIGN), tally)
    })?;
    let control = Control::of("two_winners", tally.count_of("control_two_winners"));
    Ok(Verdict { tally, control })
}

fn campaign(races: u64, tally: &mut Tally) -> Result<()> {
    let site = Site::open(0)?;
    let ready = site.hub()?.ready();
    let admin = Admin::new(&ready.https, &ready.root_certificate, &site.tenant().authorization)?;
    site.block_on(async {
        for race in 0..races {
            let token = admin.create_device(site.id(), &format!("raced for {race}")).await?;
            let place = |who: &str| site.file("races").join(format!("{race}-{who}"));
            let (one, two) = (place("one"), place("two"));
            let results = tokio::join!(device::claim(&one, &token, "one"), device::claim(&two, &token, "two"));
            let late = device::claim(&place("late"), &token, "late").await;
            let all = [results.0, results.1, late];
            tally.injected += 1;
            let winners = winners(&all);
            tally.acked += winners;
            tally.duplicated += winners.saturating_sub(1);
            tally.lost += u64::from(winners == 0);
            for error in all.iter().filter_map(|claimed| claimed.as_ref().err()) {
                tally.require(device::was_used(error), || format!("a loser was told something else: {error:#}"));
            }
            std::fs::remove_dir_all(site.file("races")).context("the races' folders")?;
        }
        // The control: two tokens have two winners, and the count says so.
        let (one, two) = (
            admin.create_device(site.id(), "control one").await?,
            admin.create_device(site.id(), "control two").await?,
        );
        let folder = site.file("control");
        let all = [
            device::claim(&folder.join("one"), &one, "one").await,
            device::claim(&folder.join("two"), &two, "two").await,
        ];
        tally.add("control_two_winners", u64::from(winners(&all) == 2));
        anyhow::Ok(())
    })
}

fn winners(claims: &[Result<()>]) -> u64 {
    claims.iter().filter(|claimed| claimed.is_ok()).count() as u64
}
