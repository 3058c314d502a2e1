//! M7: packets that are no messages: empty, huge, cut, bad text, deep JSON, events that are none, wrong authentication,
//! lengths that lie. Most are given to the parsers in a process of their own; some are published, by a device's own
//! certificate to the hub, and with the broker's own password to a device at work. Nobody panics, no session ends but that
//! of a connection that breaks MQTT itself, nobody connects again and again, and what is healthy goes on beside it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_sim::device::{Device, SPACE_ID};
use fuzz_targets::TARGETS;
use fuzz_targets::mutation::{Dice, mutated};
use rcgen::KeyPair;
use serde_json::Value;
use wire_contract::{Batch, DeviceId, DownChannel, TenantId, Topic, UpChannel, envelope};

use crate::lab::{Lab, now};
use crate::line::forgery::TLS13;
use crate::line::holdout::Means;
use crate::line::knock::{Shown, knock};
use crate::line::{Crowd, Holdout, Probe, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row. Its count is that of all packets.
pub(super) static M7: Row = Row {
    id: "M7",
    title: "a million packets that are no messages: no panic, no session lost, no loop",
    count: 1_000_000,
    small: 30_000,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: packets,
};

/// One of so many packets is really published: each costs a round trip or more, a parser's microseconds.
const PUBLISHED_OF: u64 = 50;
/// Packets that one worker is given.
const AT_ONCE: u64 = 100_000;
/// Publishes between two waits for the broker.
const BURST: u64 = 50;
/// What a packet that the broker just takes has beside its payload, at most: header, topic, packet id.
const AROUND: usize = 256;
/// Longer than the broker takes: this ends the sender's connection and nobody else's.
const TOO_LONG: [usize; 4] = [100 * 1024, 150 * 1024, 1024 * 1024, 16 * 1024 * 1024];
/// Deeper than any parser should go.
const DEEP: usize = 30_000;
const DEVICES: usize = 3;
const RATE: f64 = 20.0;
const UP_WITHIN: Duration = Duration::from_secs(30);
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

fn packets(lab: &mut Lab) -> Result<Verdict> {
    let published = lab.count() / PUBLISHED_OF;
    let parsed = lab.count() - published;
    let worker = lab.program("parse-worker");
    let mut tally = lab.phase("parsed", parsed.div_ceil(AT_ONCE), |round, tally| {
        let count = AT_ONCE.min(parsed - round * AT_ONCE);
        let told = parse(&worker, &["--count", &count.to_string(), "--seed", &(round * 2 + 1).to_string()])?;
        let counted = |name: &str| told[name].as_u64().with_context(|| format!("no {name} in {told}"));
        tally.injected += counted("tried")?;
        tally.add("parsed", counted("tried")?);
        tally.add("parsed_and_changed", counted("changed")?);
        let findings = counted("findings")?;
        tally.require(findings == 0, || format!("{findings} findings: {}", told["told"]));
        Ok(())
    })?;
    let sent = lab.phase("published", 1, |_, tally| publish_all(published, tally))?;
    let broken = parse(&worker, &["--count", "7000", "--broken"])?;
    tally.merge(sent);
    let control = Control::of("panics_found", broken["findings"].as_u64().unwrap_or(0))
        .and("loop_found", tally.count_of("control_loop"));
    Ok(Verdict { tally, control })
}

fn parse(worker: &std::path::Path, arguments: &[&str]) -> Result<Value> {
    let output = Command::new(worker).args(arguments).output().context("parse-worker cannot be started")?;
    ensure!(output.status.success(), "parse-worker ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn publish_all(count: u64, tally: &mut Tally) -> Result<()> {
    let mut site = Site::open(DEVICES)?;
    let mut crowd = Crowd::start(&site, RATE)?;
    let up = crowd.until(UP_WITHIN, |standing| standing.connected == DEVICES as u64 && standing.acknowledged > 0)?;
    ensure!(up.is_some(), "the devices never came up");
    let (connections, hub) = (crowd.standing()?.connections, site.hub_id()?);
    let sessions = hub_sessions(&site)?;
    let (bad_dir, victim) =
        (site.file("bad device"), edge_store::Identity::load(&site.device_dir(0))?.context("a device")?);
    site.block_on(site.claim_device(&bad_dir, "bad device"))?;
    let bad = Device::open(&bad_dir, SPACE_ID, None)?;
    // As long as the broker takes: whoever it is for must take it too, or it stays under way for ever.
    let longest = longest_packet(&site)? - AROUND;
    tally.figure("longest_payload", longest);
    site.block_on(to_the_hub(&bad, count / 2, longest, tally))?;
    site.block_on(to_a_device(&site, &victim, count - count / 2, longest, tally))?;
    lies(&site, &bad, tally)?;
    let drained = crowd.until_drained(DRAIN_WITHIN)?;
    tally.require(drained.is_some(), || "what healthy devices recorded was not all acknowledged".to_owned());
    let again = crowd.standing()?.connections - connections;
    tally.require(again == 0, || format!("healthy devices connected again {again} times"));
    let again = hub_sessions(&site)? - sessions;
    tally.require(again == 0, || format!("the hub connected to the broker again {again} times"));
    tally.require(site.hub_id()? == hub, || "the hub is another process".to_owned());
    let panics = std::fs::read_to_string(site.file("hub.log"))?.matches("panicked").count()
        + std::fs::read_to_string(site.file("fleet.log"))?.matches("panicked").count();
    tally.require(panics == 0, || format!("{panics} panics in the logs"));
    let told = crowd.end(&site)?;
    // The bad device's streams are told as conflicts, as they should be.
    let judged = judge::Judged { conflicts: 0, ..judge::judge(&site, &told)? };
    judged.count_in(tally, &told);
    tally.add("control_loop", looping(&site)?);
    Ok(())
}

/// The longest packet that the broker takes.
fn longest_packet(site: &Site) -> Result<usize> {
    let settings = std::fs::read_to_string(site.hub_file("broker/mosquitto.conf"))?;
    let limit = settings.lines().find_map(|line| line.strip_prefix("max_packet_size "));
    Ok(limit.context("the broker has no limit")?.parse()?)
}

/// How often the hub has connected to its broker.
fn hub_sessions(site: &Site) -> Result<usize> {
    Ok(std::fs::read_to_string(site.file("hub.log"))?.matches("connected to the broker").count())
}

/// A device's own certificate and keys, and nothing good to say.
async fn to_the_hub(bad: &Device, count: u64, longest: usize, tally: &mut Tally) -> Result<()> {
    let (tenant, device) = (TenantId(bad.identity.tenant), DeviceId(bad.identity.device));
    let (keys, mut dice) = (bad.link()?, Dice::new(count));
    let seeds = seeds(&["event-batch", "up-envelope", "down-message", "claim"]);
    let line = Probe::device(&bad.identity, &bad.identity.device.to_string(), None).await?;
    let mut sent = 0;
    while sent < count {
        for _ in 0..BURST.min(count - sent) {
            let channel = UpChannel::ALL[dice.roll(UpChannel::ALL.len())];
            let topic = Topic::Up { tenant, device, channel }.to_string();
            let mut payload = packet(&seeds, longest, &mut dice);
            // A good batch, rightly authenticated, would be stored, and is no fault.
            if dice.roll(2) == 0 && Batch::decode(&payload).is_err() {
                payload = envelope::wrap_up(keys.up(), &topic, &payload);
                tally.add("rightly_authenticated", 1);
            }
            tally.add("taken_by_the_broker", line.publish(&[topic], &payload, false).await?);
            sent += 1;
        }
        tally.require(line.alive(), || "the bad device's session ended".to_owned());
    }
    tally.injected += sent;
    tally.add("published_to_the_hub", sent);
    Ok(())
}

/// The hub's own right at the broker, and nothing good to say.
async fn to_a_device(
    site: &Site,
    victim: &edge_store::Identity,
    count: u64,
    longest: usize,
    tally: &mut Tally,
) -> Result<()> {
    let (tenant, device) = (TenantId(victim.tenant), DeviceId(victim.device));
    let (port, password) = site.broker_as_hub()?;
    let (seeds, mut dice) = (seeds(&["down-message", "gallery-record", "event-batch"]), Dice::new(count + 1));
    let hub = Probe::hub(port, &password).await?;
    for _ in 0..count {
        let channel = DownChannel::ALL[dice.roll(DownChannel::ALL.len())];
        let topic = Topic::Down { tenant, device, channel }.to_string();
        let taken = hub.publish(&[topic], &packet(&seeds, longest, &mut dice), false).await?;
        tally.add("taken_by_the_broker", taken);
    }
    tally.injected += count;
    tally.add("published_to_a_device", count);
    Ok(())
}

fn seeds(names: &[&str]) -> Vec<Vec<u8>> {
    let chosen = TARGETS.iter().filter(|target| names.contains(&target.name));
    chosen.flat_map(|target| (target.seeds)()).collect()
}

/// A packet that is no message: mostly a mutation of a good one.
fn packet(seeds: &[Vec<u8>], longest: usize, dice: &mut Dice) -> Vec<u8> {
    match dice.roll(20) {
        0 => vec![b'['; DEEP],
        1 => [b"{\"a\":".repeat(DEEP / 5), b"1".to_vec()].concat(),
        2 => vec![0xff; 64],
        3 => {
            let length = [0, longest / 2, longest][dice.roll(3)];
            (0..length).map(|_| dice.roll(256) as u8).collect()
        }
        _ => mutated(&seeds[dice.roll(seeds.len())], seeds, dice),
    }
}

/// Packets that break MQTT itself, each on a connection of its own, which may end; no other may.
fn lies(site: &Site, bad: &Device, tally: &mut Tally) -> Result<()> {
    let ready = site.hub()?.ready();
    let root = std::fs::read(&ready.root_certificate)?;
    let root = rustls::pki_types::pem::PemObject::from_pem_slice(&root).map_err(|error| anyhow::anyhow!("{error}"))?;
    let key = KeyPair::from_pem(&bad.identity.key_pem)?.serialize_der();
    let shown = Shown { chain: bad.identity.chain(), key, versions: TLS13 };
    let name = bad.identity.device.to_string();
    let hello = [&[0x10, 13 + 36, 0, 4][..], b"MQTT", &[5, 2, 0, 30, 0, 0, 36], name.as_bytes()];
    let mut broken: Vec<Vec<u8>> = [
        // A length of five bytes, one that is longer than what follows, kinds that are none, a topic that lies.
        &[0x32, 0xff, 0xff, 0xff, 0xff, 0x7f][..],
        &[0x32, 0x05, 0xff, 0xff, 0, 0, 0],
        &[0x00, 0x00],
        &[0xf0, 0x05, 1, 2, 3, 4, 5],
        &[0x10, 0x02, 0, 4],
        &[0x36, 0x03, 0, 1, b'a'],
        &[0x82, 0x00],
    ]
    .iter()
    .map(|bytes| bytes.to_vec())
    .collect();
    for length in TOO_LONG {
        // A publish on a topic of one letter, whole.
        let body = 4 + length;
        let length_bytes = [body & 127 | 128, body >> 7 & 127 | 128, body >> 14 & 127 | 128, body >> 21 & 127];
        let head: Vec<u8> = length_bytes.iter().map(|byte| *byte as u8).collect();
        broken.push([&[0x30][..], &head, &[0, 1, b'a', 0], &vec![7; length]].concat());
    }
    for bytes in &broken {
        let said = [hello.concat(), bytes.clone()].concat();
        let heard = knock(ready.mqtt.parse()?, &root, &shown, &said, |_| false)?;
        tally.require(!heard.plain.is_empty() || heard.error.is_some(), || "the broker took no notice".to_owned());
        tally.injected += 1;
        tally.add("broken_mqtt", 1);
    }
    Ok(())
}

/// The control: a client with the library's own limit of 10 KiB and a session that is kept is sent one longer message. It
/// cannot take it, and it cannot get past it.
fn looping(site: &Site) -> Result<u64> {
    let dir = site.file("looping");
    site.block_on(site.claim_device(&dir, "looping"))?;
    site.block_on(async {
        let holdout = Holdout::start(&dir)?;
        let (begun, patience) = (now(), UP_WITHIN);
        while holdout.mark(Means::Publishing).worked == 0 {
            ensure!(begun.elapsed() < patience, "the control never connected");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let before = holdout.mark(Means::Connecting).worked;
        let (port, password) = site.broker_as_hub()?;
        Probe::hub(port, &password).await?.publish(&[holdout.down()], &vec![7; 64 * 1024], false).await?;
        let begun = now();
        while holdout.mark(Means::Connecting).worked < before + 3 && begun.elapsed() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(holdout.mark(Means::Connecting).worked - before)
    })
}
