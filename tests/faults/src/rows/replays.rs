//! M4: publishes that were captured are sent again: once or ten times, at once or later, out of order, by the device
//! itself, under another client id, by another device, and with the hub's own password. None has an effect: what reaches
//! the hub is known there already, and the rest the broker refuses.
//!
//! Orders and wishes on their way *to* a device are the second half, on a clock of its own ([`crate::replay`]): delivered again
//! after a second, an hour, a month, to another device, after a restart, none has an effect beyond its first, no door opens
//! late, and no older wish takes the place of a newer one.
//!
//! Deliberately absent: replays of events after days (identity is a position in a stream, which no time limits).

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::device::{Device, SPACE_ID};
use fleet_sim::trusting::{Captured, Trusting, capture};

use crate::lab::{Lab, now};
use crate::line::Site;
use crate::outcome::{Control, Tally, Verdict};
use crate::replay::{self, Wrong};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row.
pub(super) static M4: Row = Row {
    id: "M4",
    title: "captured publishes sent again, in any order and by anybody: no effect",
    count: 100_000,
    small: 300,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: campaigns,
};

/// Replays of one game of orders, and games that each control is given.
const GAME: u64 = 1_000;
const CONTROLS: u64 = 3;
/// Replays against one hub.
const CAMPAIGN: u64 = 10_000;
/// Batches that are captured, and events in each.
const BATCHES: u64 = 40;
const EVENTS: u64 = 3;
/// Publishes between two waits for the broker: far below its queue for the hub (1,000), so that every one reaches it.
const AT_ONCE: usize = 100;
/// The hub's answer to a batch takes milliseconds.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Itself,
    OtherClientId,
    OtherDevice,
    /// Who holds the password of the hub's own listener: it may read what devices say, and not speak for them.
    Broker,
}

/// What a replay must not change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Effects {
    events: i64,
    deliveries: i64,
    commits: i64,
    quarantined: i64,
    committed: i64,
}

fn campaigns(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        campaign(&mut Random::new(number), CAMPAIGN.min(count - number * CAMPAIGN), tally)
    })?;
    let orders = lab.phase("orders", count.div_ceil(GAME), |seed, tally| {
        let score = replay::play(seed, GAME.min(count - seed * GAME), Wrong::Nothing)?;
        tally.injected += score.replays;
        tally.acked += score.first_effects;
        tally.duplicated += score.effects;
        tally.add("orders_replayed", score.replays);
        tally.add("orders_to_another_device", score.turned_down);
        tally.add("late_openings", score.late);
        tally.add("older_wishes_won", score.turned_back);
        tally.add("agent_restarts", score.restarts);
        tally.require(score.is_clean(), || format!("orders, seed {seed}: {score:?}"));
        Ok(())
    })?;
    let mut tally = tally;
    tally.merge(orders);
    let control = Control::of("effects_of_fresh_ones", tally.count_of("control_effects"))
        .and("commands_forgotten", replay::caught(Wrong::CommandsForgotten, CONTROLS)?)
        .and("twin_forgotten", replay::caught(Wrong::TwinForgotten, CONTROLS)?);
    Ok(Verdict { tally, control })
}

fn campaign(random: &mut Random, replays: u64, tally: &mut Tally) -> Result<()> {
    let site = Site::open(2)?;
    let device = Device::open(&site.device_dir(0), SPACE_ID, None)?;
    let other = Device::open(&site.device_dir(1), SPACE_ID, None)?;
    let stream = device.outbox.stats()?.stream;
    let captured: Vec<Captured> =
        (0..BATCHES).map(|batch| capture(&device, stream, 1 + batch * EVENTS, EVENTS)).collect::<Result<_>>()?;
    let mut lines = Lines::open(&site, &device, &other)?;
    let taken = site.block_on(lines.line(Sender::Itself).publish(&captured))?;
    ensure!(taken == captured.len(), "the broker took {taken} of the captured batches");
    let whole = i64::try_from(BATCHES * EVENTS)?;
    ensure!(until_committed(&site, whole)?, "the captured batches were never committed");
    tally.acked += BATCHES * EVENTS;
    let before = site.block_on(effects(&site))?;
    let mut sent = 0;
    while sent < replays {
        let sender = [Sender::Itself, Sender::OtherClientId, Sender::OtherDevice, Sender::Broker][index(random, 4)];
        // Another client id takes the device's session over: the broker goes by the certificate.
        if sender == Sender::OtherClientId || sender == Sender::Itself {
            lines.reconnect(&site, &device, sender)?;
        }
        let mut batch = Vec::new();
        while batch.len() < AT_ONCE && sent < replays {
            let one = &captured[index(random, captured.len())];
            for _ in 0..(1 + random.below(10)).min(replays - sent) {
                batch.push(one.clone());
                sent += 1;
            }
        }
        let accepted = site.block_on(lines.line(sender).publish(&batch)).with_context(|| format!("{sender:?}"))?;
        tally.injected += batch.len() as u64;
        tally.add(&format!("accepted_{sender:?}").to_lowercase(), accepted as u64);
        tally.require(!matches!(sender, Sender::OtherDevice | Sender::Broker) || accepted == 0, || {
            format!("the broker took publishes on this device's topic from {sender:?}")
        });
    }
    // A batch that is new comes last: once it is committed, the hub is through with everything before it, however busy it was.
    let fresh = [capture(&device, stream, 1 + BATCHES * EVENTS, EVENTS)?];
    lines.reconnect(&site, &device, Sender::Itself)?;
    let taken = site.block_on(lines.line(Sender::Itself).publish(&fresh))?;
    ensure!(taken == 1, "the broker did not take the batch that is new");
    let new = i64::try_from(EVENTS)?;
    tally.add("control_effects", if until_committed(&site, whole + new)? { EVENTS } else { 0 });
    let mut after = site.block_on(effects(&site))?;
    tally
        .require(after.commits <= before.commits + 1, || format!("more than one was committed: {before:?}, {after:?}"));
    after.commits = before.commits;
    let deliveries = before.deliveries + new * before.deliveries / whole;
    let expected = Effects { events: before.events + new, deliveries, committed: whole + new, ..before.clone() };
    tally.duplicated +=
        u64::try_from((after.events - expected.events).max(0) + (after.deliveries - expected.deliveries).max(0))?;
    tally.require(after == expected, || format!("replays had effects: {before:?} became {after:?}, not {expected:?}"));
    Ok(())
}

/// Waits until that many events of the device are committed; whether they were in time.
fn until_committed(site: &Site, events: i64) -> Result<bool> {
    let begun = now();
    while site.block_on(effects(site))?.committed < events {
        if begun.elapsed() >= SETTLED_WITHIN {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

fn index(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).expect("it is below a usize")
}

/// One connection for each who sends.
struct Lines {
    itself: Trusting,
    other: Trusting,
    broker: Trusting,
}

impl Lines {
    fn open(site: &Site, device: &Device, other: &Device) -> Result<Self> {
        let (port, password) = site.broker_as_hub()?;
        site.block_on(async {
            Ok(Self {
                itself: Trusting::connect(&device.identity, &device.identity.device.to_string()).await?,
                other: Trusting::connect(&other.identity, &other.identity.device.to_string()).await?,
                broker: Trusting::connect_as_hub(port, &password).await?,
            })
        })
    }

    fn reconnect(&mut self, site: &Site, device: &Device, sender: Sender) -> Result<()> {
        let own = device.identity.device.to_string();
        let name = if sender == Sender::Itself { own } else { format!("somebody-{own}") };
        self.itself = site.block_on(Trusting::connect(&device.identity, &name))?;
        Ok(())
    }

    fn line(&mut self, sender: Sender) -> &mut Trusting {
        match sender {
            Sender::Itself | Sender::OtherClientId => &mut self.itself,
            Sender::OtherDevice => &mut self.other,
            Sender::Broker => &mut self.broker,
        }
    }
}

async fn effects(site: &Site) -> Result<Effects> {
    let mut connection = site.database().await?;
    let query = "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM webhook_delivery),
                        (SELECT count(*) FROM audit_entry WHERE action = 'events.commit'),
                        (SELECT count(*) FROM event_quarantine), (SELECT coalesce(sum(committed), 0)::bigint FROM stream)";
    let (events, deliveries, commits, quarantined, committed) =
        sqlx::query_as(query).fetch_one(&mut connection).await?;
    Ok(Effects { events, deliveries, commits, quarantined, committed })
}
