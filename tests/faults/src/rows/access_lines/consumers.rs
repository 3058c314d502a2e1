//! I3 for consumers of the feed: each reads its own tenant's feed and nothing else, writes nowhere, and disturbs nobody,
//! whatever it calls itself.
//!
//! The controls break the broker's own files: an access line too many must be seen by the same eyes, and a listener that takes
//! client ids as they come must cost a device its session.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_store::Identity;
use system_tests::launcher::Tenant;
use wire_contract::topic;

use super::{HUBS, INTRUDERS, OWNERS, SETTLE, batches_that_arrive_beside, downs, feeds, shapes, ups};
use crate::lab::now;
use crate::line::site::Part;
use crate::line::{Consumer, Probe, Site};
use crate::outcome::Tally;

/// Devices' attempts for each round of these.
const SHARE: u64 = 5_000;
/// A broker that was killed is back within this, and a device that is thrown out knows it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything a consumer may and may not, some rounds of it, and the controls.
pub(super) fn attempts(
    site: &Site,
    next_door: &Tenant,
    identities: &[Identity],
    count: u64,
    tally: &mut Tally,
) -> Result<()> {
    let (port, password) = site.broker_as_hub()?;
    let readers = site.block_on(async {
        let readers =
            [site.consumer(site.tenant()).await?, site.consumer(site.tenant()).await?, site.consumer(next_door).await?];
        let hub = Probe::hub(port, &password).await?;
        hub.subscribe(&["lintel/v1/+/+/up/#".to_owned()]).await?;
        for reader in &readers {
            owner_may(&hub, reader, identities, tally).await?;
        }
        for _ in 0..count.div_ceil(SHARE).max(1) {
            for (number, reader) in readers.iter().enumerate() {
                for owner in identities {
                    let leaked = intrude(&hub, reader, owner, identities, tally).await?;
                    tally.add("leaks", leaked);
                }
                let neighbour = &readers[(number + 1) % readers.len()];
                impersonate(reader, neighbour, &identities[0], tally).await?;
            }
        }
        anyhow::Ok(readers)
    })?;
    joined_group(site, &readers[0], tally)?;
    line_too_many(site, &readers[0], identities, tally)?;
    free_client_id(site, &readers[0], &identities[0], tally)
}

/// The same means, with the right to them.
async fn owner_may(hub: &Probe, reader: &Consumer, identities: &[Identity], tally: &mut Tally) -> Result<()> {
    let owner =
        identities.iter().find(|identity| identity.tenant == reader.tenant).context("a device of the tenant")?;
    let line = Probe::consumer(reader, &reader.user, None).await?;
    line.subscribe(&feeds(owner)).await?;
    let topics = feeds(owner);
    ensure!(hub.publish(&topics, HUBS, false).await? == topics.len() as u64, "the hub may not write feeds");
    tally.require(line.hears(HUBS, topics.len() as u64).await, || format!("{} did not hear its feed", reader.user));
    tally.add("consumers_own_reads", line.heard(HUBS, |_| true));
    Ok(())
}

/// One consumer tries everything on a device's topics and other tenants' feeds; returns what got through.
async fn intrude(
    hub: &Probe,
    reader: &Consumer,
    owner: &Identity,
    identities: &[Identity],
    tally: &mut Tally,
) -> Result<u64> {
    let will = ups(owner)[0].clone();
    let line = Probe::consumer(reader, &reader.user, Some((will, INTRUDERS.to_vec()))).await?;
    let victim = Probe::device(owner, &owner.device.to_string(), None).await?;
    victim.subscribe(&downs(owner)).await?;
    let mut asked = shapes(owner);
    asked.extend(topic::hub_filters("lintel"));
    line.subscribe(&asked).await?;
    let all_feeds: Vec<String> = identities.iter().flat_map(feeds).collect();
    let forbidden = [ups(owner), downs(owner), all_feeds.clone(), vec![reader.user.clone(), "x".to_owned()]].concat();
    let mut taken = line.publish(&forbidden, INTRUDERS, false).await?;
    taken += line.publish(&forbidden, INTRUDERS, true).await?;
    hub.publish(&[downs(owner), all_feeds].concat(), HUBS, false).await?;
    victim.publish(&ups(owner), OWNERS, true).await?;
    tally.require(victim.hears(HUBS, downs(owner).len() as u64).await, || {
        "the owner did not hear the hub while a consumer intruded".to_owned()
    });
    // What is retained now is asked for anew.
    line.subscribe(&asked).await?;
    tokio::time::sleep(SETTLE).await;
    let own = format!("lintel/v1/{}/_feed/", reader.tenant);
    let read = line.heard(HUBS, |topic| !topic.starts_with(&own)) + line.heard(OWNERS, |_| true);
    let owed = if owner.tenant == reader.tenant { feeds(owner).len() as u64 } else { 0 };
    tally.require(line.heard(HUBS, |topic| topic.starts_with(&own)) >= owed, || {
        format!("{} did not hear its own feed among the rest", reader.user)
    });
    drop(line);
    tokio::time::sleep(SETTLE).await;
    let heard = hub.heard(INTRUDERS, |_| true) + victim.heard(INTRUDERS, |_| true);
    tally.injected += 2 * (forbidden.len() + asked.len()) as u64 + 1;
    tally.add("consumers_tried", 2 * (forbidden.len() + asked.len()) as u64 + 1);
    let leaks = taken + read + heard;
    tally.require(leaks == 0, || {
        format!("{} on {}: {taken} writes taken, {read} messages read, {heard} heard", reader.user, owner.device)
    });
    Ok(leaks)
}

/// A consumer calls itself a device, and another consumer: neither of them notices.
async fn impersonate(reader: &Consumer, other: &Consumer, owner: &Identity, tally: &mut Tally) -> Result<()> {
    let device = Probe::device(owner, &owner.device.to_string(), None).await?;
    let neighbour = Probe::consumer(other, &other.user, None).await?;
    let _as_device = Probe::consumer(reader, &owner.device.to_string(), None).await?;
    let _as_neighbour = Probe::consumer(reader, &other.user, None).await?;
    tokio::time::sleep(SETTLE).await;
    tally.add("client_ids_tried", 2);
    tally.require(device.alive() && neighbour.alive(), || {
        format!("{} threw somebody out by calling itself so", reader.user)
    });
    Ok(())
}

/// A consumer joins the groups that it can guess; batches go on arriving.
fn joined_group(site: &Site, reader: &Consumer, tally: &mut Tally) -> Result<()> {
    let guessed = ["hub", "lintel", "own"].map(topic::hub_filters).concat();
    let joined = site.block_on(Probe::consumer(reader, &reader.user, None))?;
    let (arrived, sent) = batches_that_arrive_beside(site, &joined, guessed)?;
    tally.require(arrived == sent, || format!("{arrived} of {sent} batches arrived beside a consumer"));
    Ok(())
}

/// The control: what the access list holds back, these eyes see.
fn line_too_many(site: &Site, reader: &Consumer, identities: &[Identity], tally: &mut Tally) -> Result<()> {
    let (port, password) = site.broker_as_hub()?;
    let path = site.hub_file("broker/consumers.acl");
    let right = std::fs::read_to_string(&path)?;
    let user = format!("user {}\n", reader.user);
    std::fs::write(&path, right.replacen(&user, &format!("{user}topic readwrite #\n"), 1))?;
    site.reload_broker()?;
    let mut apart = Tally::default();
    let seen = site.block_on(async {
        tokio::time::sleep(SETTLE * 4).await;
        let hub = Probe::hub(port, &password).await?;
        hub.subscribe(&["lintel/v1/+/+/up/#".to_owned()]).await?;
        intrude(&hub, reader, &identities[0], identities, &mut apart).await
    })?;
    tally.add("read_with_a_line_too_many", seen);
    std::fs::write(&path, right)?;
    site.reload_broker()
}

/// The control: without `use_username_as_clientid` on the consumers' listener a device is thrown out.
fn free_client_id(site: &Site, reader: &Consumer, owner: &Identity, tally: &mut Tally) -> Result<()> {
    const FIXED: &str = "use_username_as_clientid true\n";
    let path = site.hub_file("broker/mosquitto.conf");
    let right = std::fs::read_to_string(&path)?;
    // The devices' listener has the same line; the consumers' comes last.
    let at = right.rfind(FIXED).context("the consumers' listener fixes no client ids")?;
    std::fs::write(&path, format!("{}{}", &right[..at], &right[at + FIXED.len()..]))?;
    let killed = site.kill(Part::Broker)?;
    site.back(Part::Broker, killed)?;
    site.block_on(async {
        let begun = now();
        let device = loop {
            match Probe::device(owner, &owner.device.to_string(), None).await {
                Err(error) => ensure!(begun.elapsed() < PATIENCE, "the broker is not back: {error}"),
                Ok(device) => break device,
            }
        };
        let _intruder = Probe::consumer(reader, &owner.device.to_string(), None).await?;
        tokio::time::sleep(SETTLE).await;
        tally.add("thrown_out_by_a_free_client_id", u64::from(!device.alive()));
        anyhow::Ok(())
    })?;
    std::fs::write(&path, right)?;
    let killed = site.kill(Part::Broker)?;
    site.back(Part::Broker, killed)?;
    Ok(())
}
