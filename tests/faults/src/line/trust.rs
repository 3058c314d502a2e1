//! The control of these rows: a device that counts an event as delivered once the broker has taken it.
//!
//! It shows two things: that the fault really destroys what is on its way, and that the judge sees it.

use anyhow::{Context as _, Result};
use fleet_sim::device::{Device, SPACE_ID};
use fleet_sim::history::{Place, Told};
use fleet_sim::trusting::{Trusting, capture};

use super::{Site, judge};
use crate::line::site::Part;

/// How many batches the broker is given: twice as many as it sends to a subscriber that acknowledges none (`max_inflight_messages`).
/// Those lie where the broker's end does not reach them, and the hub may read them still.
const BATCHES: u64 = 40;
/// Events in each.
const EVENTS: u64 = 5;

/// What is done to the site while the messages are at the broker.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// The broker is killed.
    Broker,
    /// The hub is killed, and its parts with it.
    Hub,
}

/// Gives the broker batches of device 0, of which it acknowledges every one, strikes, and returns how many events that
/// the device believes delivered never arrive. The fleet must not be running.
pub fn lost_by_trusting(site: &mut Site, blow: Blow) -> Result<u64> {
    let device = Device::open(&site.device_dir(0), SPACE_ID, None)?;
    let stats = device.outbox.stats()?;
    let mut identity = device.identity.clone();
    identity.broker.port = site.proxy.port();
    let batches: Vec<_> = (0..BATCHES)
        .map(|batch| capture(&device, stats.stream, stats.acknowledged_through + 1 + batch * EVENTS, EVENTS))
        .collect::<Result<_>>()?;
    let name = identity.device.to_string();
    let mut line = site.block_on(Trusting::connect(&identity, &name))?;
    // A hub that stands still leaves the messages where the broker's word is all that there is.
    site.freeze_hub(true)?;
    let accepted = site.block_on(line.publish(&batches));
    match blow {
        Blow::Broker => {
            site.kill(Part::Broker)?;
            site.freeze_hub(false)?;
        }
        Blow::Hub => {
            site.kill_hub()?;
            site.start_hub()?;
        }
    }
    let accepted = accepted.context("the broker did not take the control's batches")?;
    anyhow::ensure!(accepted as u64 == BATCHES, "the broker took {accepted} of {BATCHES} batches");
    // Long enough for whatever is still on its way, and for a restart.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut told = Told::default();
    for (batch, captured) in (0..).zip(&batches) {
        let first = stats.acknowledged_through + 1 + batch * EVENTS;
        for (sequence, id) in (first..).zip(&captured.ids) {
            let place = Place { device: identity.device, stream: stats.stream.to_string(), sequence };
            told.events.insert(*id, Some(place));
        }
    }
    Ok(judge::judge(site, &told)?.lost)
}
