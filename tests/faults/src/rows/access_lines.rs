//! I3: what one device may write and read, no other may, of its own tenant or another's, nor any consumer of the feed: publishes,
//! retained ones, wills and subscriptions of every shape. Each topic is first shown to work for its owner.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_store::Identity;
use fleet_sim::device::{Device, SPACE_ID};
use fleet_sim::trusting::{Trusting, capture};
use ring::hmac;
use serde_json::json;
use system_tests::launcher::Tenant;
use uuid::Uuid;
use wire_contract::topic::{self, EventClass};
use wire_contract::{DeviceId, DownChannel, TenantId, Topic, UpChannel};

use crate::lab::{Lab, now};
use crate::line::{Probe, Site};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row. Its count is that of the attempts.
pub(super) static I3: Row = Row {
    id: "I3",
    title: "every device and consumer against every foreign topic: no write, no read, no will",
    count: 100_000,
    small: 400,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: attempts,
};

/// What the hub's words carry, what an owner's do, and what an intruder's do.
const HUBS: &[u8] = b"for the owner alone";
const OWNERS: &[u8] = b"from the owner";
const INTRUDERS: &[u8] = b"from somebody else";
/// Batches that are sent while somebody has joined the hub's group.
const BATCHES: u64 = 20;
/// The broker may need a second telling of a new consumer, two seconds later.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
/// Time for what is on its way to be heard where it must not be.
const SETTLE: Duration = Duration::from_millis(300);

fn attempts(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("attempts", 1, |_, tally| {
        let site = Site::open_with(2, &["--consumer-listen", "127.0.0.1:0"])?;
        let mut devices = vec![site.device_dir(0), site.device_dir(1)];
        let (neighbour, theirs) = site.neighbour(1)?;
        devices.extend(theirs);
        let identities: Vec<Identity> =
            devices.iter().map(|dir| Ok(Device::open(dir, SPACE_ID, None)?.identity)).collect::<Result<_>>()?;
        let (port, password) = site.broker_as_hub()?;
        site.block_on(async {
            let hub = Probe::hub(port, &password).await?;
            hub.subscribe(&["lintel/v1/+/+/up/#".to_owned()]).await?;
            for owner in &identities {
                owner_may(&hub, owner, tally).await?;
            }
            let consumers = [Consumer::make(&site, site.tenant()).await?, Consumer::make(&site, &neighbour).await?];
            for consumer in &consumers {
                consumer_may(&hub, consumer, tally).await?;
            }
            let mut random = Random::new(count);
            while tally.injected < count {
                let intruder = index(&mut random, identities.len());
                let owner = (intruder + 1 + index(&mut random, identities.len() - 1)) % identities.len();
                let retain = random.chance(50);
                intrude(&hub, &identities[intruder], &identities[owner], retain, tally).await?;
                let consumer = &consumers[index(&mut random, consumers.len())];
                consumer_intrudes(&hub, consumer, &identities[owner], retain, tally).await?;
            }
            anyhow::Ok(())
        })?;
        let guessed = ["hub", "lintel", "own"].map(topic::hub_filters).concat();
        let arrived = batches_that_arrive(&site, &devices, guessed)?;
        tally.figure("beside_a_joined_group", arrived);
        tally.require(arrived == BATCHES, || {
            format!("{arrived} of {BATCHES} batches arrived beside one who joined the hub's group")
        });
        // The control: with the group's true name, which only the hub's password gives, messages are taken away.
        let key = hmac::Key::new(hmac::HMAC_SHA256, password.as_bytes());
        let share = format!("hub-{}", hex::encode(&hmac::sign(&key, b"lintel.share.v1").as_ref()[..16]));
        let left = batches_that_arrive(&site, &devices, topic::hub_filters(&share))?;
        tally.add("taken_from_the_group", BATCHES.saturating_sub(left));
        Ok(())
    })?;
    let control = Control::of("taken_from_the_group", tally.count_of("taken_from_the_group"))
        .and("own_writes", tally.count_of("own_writes"))
        .and("own_reads", tally.count_of("own_reads"))
        .and("own_wills", tally.count_of("own_wills"))
        .and("own_feeds", tally.count_of("own_feeds"));
    Ok(Verdict { tally, control })
}

/// Another device joins shared subscriptions, and a device sends batches once: how many of them reach the hub. A broker
/// gives each message of a group to one member, and drops it when that one may not read it.
fn batches_that_arrive(site: &Site, devices: &[PathBuf], filters: Vec<String>) -> Result<u64> {
    let owner = Device::open(&devices[0], SPACE_ID, None)?;
    let intruder = Device::open(&devices[1], SPACE_ID, None)?.identity;
    // A stream of its own each time: the batches before it say nothing of these.
    owner.outbox.begin_new_stream(std::time::SystemTime::UNIX_EPOCH)?;
    let stream = owner.outbox.stats()?.stream;
    site.block_on(async {
        let joined = Probe::device(&intruder, &intruder.device.to_string(), None).await?;
        joined.subscribe(&filters).await?;
        let mut line = Trusting::connect(&owner.identity, &owner.identity.device.to_string()).await?;
        for sequence in 1..=BATCHES {
            line.publish(&[capture(&owner, stream, sequence, 1)?]).await?;
        }
        tokio::time::sleep(SETTLE * 10).await;
        let query = "SELECT coalesce(max(committed), 0) FROM stream WHERE stream = $1";
        let committed: i64 =
            sqlx::query_scalar(query).bind(stream.to_string()).fetch_one(&mut site.database().await?).await?;
        Ok(u64::try_from(committed)?)
    })
}

fn index(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).expect("it is below a usize")
}

fn ups(identity: &Identity) -> Vec<String> {
    let (tenant, device) = (TenantId(identity.tenant), DeviceId(identity.device));
    UpChannel::ALL.iter().map(|channel| Topic::Up { tenant, device, channel: *channel }.to_string()).collect()
}

fn downs(identity: &Identity) -> Vec<String> {
    let (tenant, device) = (TenantId(identity.tenant), DeviceId(identity.device));
    DownChannel::ALL.iter().map(|channel| Topic::Down { tenant, device, channel: *channel }.to_string()).collect()
}

fn feeds(tenant: Uuid) -> Vec<String> {
    let tenant = TenantId(tenant);
    EventClass::ALL.iter().map(|class| Topic::Feed { tenant, class: *class }.to_string()).collect()
}

/// The same means, with the right to them: the control of every attempt.
async fn owner_may(hub: &Probe, owner: &Identity, tally: &mut Tally) -> Result<()> {
    let (will, name) = (ups(owner)[0].clone(), owner.device.to_string());
    let line = Probe::device(owner, &name, Some((will, OWNERS.to_vec()))).await?;
    line.subscribe(&downs(owner)).await?;
    let (up, down) = (ups(owner), downs(owner));
    let before = hub.heard(OWNERS, |_| true);
    tally.add("own_writes", line.publish(&up, OWNERS, false).await?);
    let expected = before + up.len() as u64;
    tally.require(hub.hears(OWNERS, expected).await, || format!("the hub did not hear {name} on all its topics"));
    ensure!(hub.publish(&down, HUBS, false).await? == down.len() as u64, "the hub may not write down topics");
    tally.require(line.hears(HUBS, down.len() as u64).await, || format!("{name} did not hear the hub"));
    tally.add("own_reads", line.heard(HUBS, |_| true));
    drop(line);
    tally.require(hub.hears(OWNERS, expected + 1).await, || format!("the will of {name} was not spoken"));
    tally.add("own_wills", hub.heard(OWNERS, |_| true) - expected);
    Ok(())
}

/// One device tries everything on another's topics.
async fn intrude(hub: &Probe, intruder: &Identity, owner: &Identity, retain: bool, tally: &mut Tally) -> Result<()> {
    let up = ups(owner);
    let will = up[usize::from(retain)].clone();
    let line = Probe::device(intruder, &intruder.device.to_string(), Some((will, INTRUDERS.to_vec()))).await?;
    let victim = Probe::device(owner, &owner.device.to_string(), None).await?;
    victim.subscribe(&downs(owner)).await?;
    let asked = shapes(owner);
    line.subscribe(&asked).await?;
    // Its own down topics, too, are the hub's to write.
    let forbidden: Vec<String> =
        [up, downs(owner), feeds(owner.tenant), feeds(intruder.tenant), downs(intruder)].concat();
    let taken = line.publish(&forbidden, INTRUDERS, retain).await?;
    hub.publish(&downs(owner), HUBS, false).await?;
    victim.publish(&ups(owner), OWNERS, retain).await?;
    let down = downs(owner).len() as u64;
    tally.require(victim.hears(HUBS, down).await, || {
        "the owner did not hear the hub while somebody intruded".to_owned()
    });
    tokio::time::sleep(SETTLE).await;
    let leaked = line.heard(HUBS, |_| true) + line.heard(OWNERS, |_| true);
    drop(line);
    tokio::time::sleep(SETTLE).await;
    let heard = hub.heard(INTRUDERS, |_| true) + victim.heard(INTRUDERS, |_| true);
    let tried = Tried { writes: forbidden.len(), subscriptions: asked.len() };
    tried.count_in(tally, &intruder.device.to_string(), owner, [taken, leaked, heard]);
    Ok(())
}

/// What somebody tried at once, beside one will.
struct Tried {
    writes: usize,
    subscriptions: usize,
}

impl Tried {
    /// Counts the attempts, and what came of them: writes taken, messages read, and messages that others heard.
    fn count_in(&self, tally: &mut Tally, who: &str, owner: &Identity, [taken, leaked, heard]: [u64; 3]) {
        tally.injected += (self.writes + self.subscriptions + 1) as u64;
        tally.add("wills_tried", 1);
        tally.add("subscriptions_tried", self.subscriptions as u64);
        tally.add("leaks", taken + leaked + heard);
        tally.require(taken + leaked + heard == 0, || {
            let device = owner.device;
            format!("{who} on {device}'s topics: {taken} writes taken, {leaked} messages read, {heard} heard")
        });
    }
}

/// A back end that may read its tenant's feed.
struct Consumer {
    tenant: Uuid,
    user: String,
    password: String,
    at: (String, u16),
    root_pem: Vec<u8>,
}

impl Consumer {
    async fn make(site: &Site, tenant: &Tenant) -> Result<Self> {
        let made = site.hub()?.post(tenant, "/v1/consumers", json!({ "name": "time sheet" })).await?;
        let text = |name: &str| made[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {made}"));
        Ok(Self {
            tenant: tenant.id.parse()?,
            user: text("username")?,
            password: text("password")?,
            at: site.consumers_at()?,
            root_pem: std::fs::read(&site.hub()?.ready().root_certificate)?,
        })
    }

    /// Logs in; the broker may not have read its files yet.
    async fn connect(&self, will: Option<&str>) -> Result<Probe> {
        let begun = now();
        loop {
            let will = will.map(|topic| (topic.to_owned(), INTRUDERS.to_vec()));
            let credentials = (self.user.as_str(), self.password.as_str());
            match Probe::consumer(self.at.clone(), &self.root_pem, credentials, will).await {
                Err(_) if begun.elapsed() < KNOWN_WITHIN => tokio::time::sleep(SETTLE).await,
                answer => return answer,
            }
        }
    }
}

/// The control of a consumer's attempts: it hears its own tenant's feed.
async fn consumer_may(hub: &Probe, consumer: &Consumer, tally: &mut Tally) -> Result<()> {
    let (line, own) = (consumer.connect(None).await?, feeds(consumer.tenant));
    line.subscribe(&own).await?;
    hub.publish(&own, HUBS, false).await?;
    let heard = line.hears(HUBS, own.len() as u64).await;
    tally.require(heard, || format!("{} did not hear its own feed", consumer.user));
    tally.add("own_feeds", line.heard(HUBS, |_| true));
    Ok(())
}

/// A consumer tries everything on a device's topics and on all feeds; its own tenant's it may hear, and no more.
async fn consumer_intrudes(
    hub: &Probe,
    consumer: &Consumer,
    owner: &Identity,
    retain: bool,
    tally: &mut Tally,
) -> Result<()> {
    let (up, down) = (ups(owner), downs(owner));
    let line = consumer.connect(Some(&up[usize::from(retain)])).await?;
    let victim = Probe::device(owner, &owner.device.to_string(), None).await?;
    victim.subscribe(&down).await?;
    let asked = shapes(owner);
    line.subscribe(&asked).await?;
    let forbidden = [up.clone(), down.clone(), feeds(owner.tenant), feeds(consumer.tenant)].concat();
    let taken = line.publish(&forbidden, INTRUDERS, retain).await?;
    hub.publish(&[down.clone(), feeds(owner.tenant)].concat(), HUBS, false).await?;
    victim.publish(&up, OWNERS, retain).await?;
    let reached = victim.hears(HUBS, down.len() as u64).await;
    tally.require(reached, || "the owner did not hear the hub while a consumer intruded".to_owned());
    tokio::time::sleep(SETTLE).await;
    let own = feeds(consumer.tenant);
    let foreign = |topic: &str| !own.iter().any(|own| own == topic);
    let leaked = line.heard(HUBS, foreign) + line.heard(OWNERS, |_| true);
    drop(line);
    tokio::time::sleep(SETTLE).await;
    let heard = hub.heard(INTRUDERS, |_| true) + victim.heard(INTRUDERS, |_| true);
    let tried = Tried { writes: forbidden.len(), subscriptions: asked.len() };
    tally.add("consumers_attempts", (tried.writes + tried.subscriptions + 1) as u64);
    tried.count_in(tally, &consumer.user, owner, [taken, leaked, heard]);
    Ok(())
}

/// Subscriptions that would reach the owner's topics, or those of all.
fn shapes(owner: &Identity) -> Vec<String> {
    let (tenant, device) = (owner.tenant, owner.device);
    let mut shapes = [ups(owner), downs(owner), feeds(owner.tenant)].concat();
    shapes.extend(
        [
            "#",
            "+/#",
            "lintel/#",
            "lintel/v1/+/+/up/#",
            "lintel/v1/+/+/down/#",
            "lintel/v1/+/_feed/#",
            "$SYS/#",
            "$share/own/#",
        ]
        .map(str::to_owned),
    );
    shapes.extend([
        format!("lintel/v1/{tenant}/#"),
        format!("lintel/v1/{tenant}/{device}/#"),
        format!("lintel/v1/{tenant}/+/down/evtack"),
        format!("lintel/v1/+/{device}/down/+"),
        format!("$share/own/lintel/v1/{tenant}/{device}/down/#"),
    ]);
    shapes
}
