//! I2: devices are revoked, or replaced by other hardware, while they are connected; the hub or the broker is killed about it,
//! or the broker starts with a revocation list that has expired. Within five seconds the session is cut, nothing is accepted
//! from the device and nothing delivered to it, the hub refuses its calls, and no connection is granted any more, with or
//! without a TLS session to resume. The devices beside it notice nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fleet_sim::device::{Device, Running, SPACE_ID};
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, SerialNumber};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, now};
use crate::line::holdout::Means;
use crate::line::site::Part;
use crate::line::{Crowd, Holdout, Probe, Site};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row. Its count is that of the devices that lose their identity.
pub(super) static I2: Row = Row {
    id: "I2",
    title: "revocation and replacement of connected devices: out within 5 s, whatever dies meanwhile",
    count: 200,
    small: 10,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: revocations,
};

/// The protocol's bound, from the operator's request on.
const BOUND: Duration = Duration::from_secs(5);
/// How long a device is watched after the bound.
const WATCHED_ON: Duration = Duration::from_secs(2);
/// In a short run a device has been refused by every means for this long before nobody looks any more.
const QUIET_FOR: Duration = Duration::from_secs(1);
/// Devices that go in one round of a long run, and of a short one.
const AT_ONCE: (u64, u64) = (8, 2);
/// Devices beside them, and the events that they record each second together.
const NEIGHBOURS: (usize, f64) = (3, 20.0);
/// Before it goes, a device has shown that each of its means works; the machine may be busy.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// A neighbour comes back after its longest wait.
const BACK_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Revoked,
    Replaced,
    /// The broker is killed just before or just after.
    BrokerKilled,
    /// The hub is killed as soon as it has answered.
    HubKilled,
    /// The broker starts again with an empty revocation list that has expired.
    ListExpired,
}

const ROUNDS: [Round; 5] = [Round::Revoked, Round::Replaced, Round::BrokerKilled, Round::HubKilled, Round::ListExpired];

fn revocations(lab: &mut Lab) -> Result<Verdict> {
    let (count, long) = (lab.count(), lab.is_long());
    let tally = lab.phase("revocations", 1, |_, tally| {
        let mut site = Site::open(NEIGHBOURS.0)?;
        let mut crowd = Crowd::start(&site, NEIGHBOURS.1)?;
        let everybody = NEIGHBOURS.0 as u64;
        let up = crowd.until(SETTLED_WITHIN, |standing| standing.connected == everybody)?;
        ensure!(up.is_some(), "the neighbours never came up");
        let mut random = Random::new(count);
        for kind in ROUNDS.iter().cycle() {
            let devices = if long { AT_ONCE.0 } else { AT_ONCE.1 }.min(count - tally.injected);
            if devices == 0 {
                break;
            }
            let before = crowd.standing()?.connections;
            round(&mut site, *kind, devices, (long, random.chance(50)), tally)?;
            if *kind == Round::ListExpired {
                // Nobody was let in meanwhile; the next change writes a list that is good.
                let name = format!("after list {}", random.next());
                site.block_on(site.claim_device(&site.file("going").join(&name), &name))?;
            }
            let back = crowd.until(BACK_WITHIN, |standing| standing.connected == everybody)?;
            tally.require(back.is_some(), || format!("the neighbours are not back after {kind:?}"));
            let again = crowd.standing()?.connections - before;
            let alone = matches!(kind, Round::Revoked | Round::Replaced);
            tally.require(!alone || again == 0, || format!("{kind:?}: neighbours connected again {again} times"));
        }
        let drained = crowd.until_drained(BACK_WITHIN)?;
        tally.require(drained.is_some(), || "what the neighbours recorded was not all acknowledged".to_owned());
        tally.acked += crowd.end(&site)?.acked;
        let left = reload_alone(&site)?;
        tally.add("left_by_a_reload", left);
        Ok(())
    })?;
    let control = Control::of("left_by_a_reload", tally.count_of("left_by_a_reload"))
        .and("means_that_worked_before", tally.count_of("means_that_worked_before"));
    Ok(Verdict { tally, control })
}

/// Some devices lose their identity at once.
fn round(site: &mut Site, kind: Round, devices: u64, (long, first): (bool, bool), tally: &mut Tally) -> Result<()> {
    let dirs: Vec<PathBuf> =
        (0..devices).map(|index| site.file(&format!("going/{}", tally.injected + index))).collect();
    let (port, password) = site.broker_as_hub()?;
    let holdouts = site.block_on(hold_on(site, &dirs))?;
    let speaking = site.block_on(Speaking::start(port, password, &holdouts))?;
    for holdout in &holdouts {
        tally.add("means_that_worked_before", every_means_works(holdout)?);
    }
    let mut killed = None;
    if kind == Round::BrokerKilled && first {
        killed = Some(site.kill(Part::Broker)?);
    }
    let (asked, successors) = site.block_on(take_away(site, kind, &holdouts, &dirs, tally))?;
    let last = asked.iter().copied().max().context("nobody went")?;
    match kind {
        Round::BrokerKilled if !first => killed = Some(site.kill(Part::Broker)?),
        Round::HubKilled => {
            site.kill_hub()?;
            site.start_hub()?;
        }
        Round::ListExpired => {
            std::fs::write(site.hub_file("broker/clients.crl"), expired_list(site)?)?;
            killed = Some(site.kill(Part::Broker)?);
        }
        _ => {}
    }
    if let Some(killed) = killed {
        site.back(Part::Broker, killed)?;
    }
    let committed = after_the_bound(site, &holdouts, last, long)?;
    drop(speaking);
    for ((holdout, committed), begun) in holdouts.iter().zip(committed).zip(asked) {
        judge(holdout, begun, kind, tally);
        let since = site.block_on(committed_of(site, holdout))? - committed;
        tally.require(since == 0, || format!("{kind:?}: {since} events of a device that is out were stored"));
        let (at_broker, at_hub) = holdout.tickets();
        tally.require(at_broker == 0, || format!("the broker gave {at_broker} TLS sessions to resume"));
        tally.add("tls_sessions_of_the_hub_resumed", holdout.shown_to_hub().min(at_hub));
        tally.injected += 1;
        tally.add(&format!("{kind:?}"), 1);
    }
    for successor in successors {
        let line = successor.status.borrow().clone();
        tally.require(line.connected && line.connection_epoch == 1, || {
            format!("a successor is connected: {}, at its connection {}", line.connected, line.connection_epoch)
        });
    }
    Ok(())
}

async fn hold_on(site: &Site, dirs: &[PathBuf]) -> Result<Vec<Holdout>> {
    let mut holdouts = Vec::new();
    for dir in dirs {
        site.claim_device(dir, &dir.display().to_string()).await?;
        holdouts.push(Holdout::start(dir)?);
    }
    Ok(holdouts)
}

/// A successor at work, until it is dropped.
struct Successor {
    status: tokio::sync::watch::Receiver<edge_agent::sync::SyncStatus>,
    stop: CancellationToken,
    _device: Device,
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Revokes the devices, or gives their place to other hardware, which begins its work at once. Returns when each was asked
/// for: the bound counts from there.
async fn take_away(
    site: &Site,
    kind: Round,
    holdouts: &[Holdout],
    dirs: &[PathBuf],
    tally: &mut Tally,
) -> Result<(Vec<Instant>, Vec<Successor>)> {
    let (mut asked, mut successors) = (Vec::new(), Vec::new());
    for (holdout, dir) in holdouts.iter().zip(dirs) {
        let device = holdout.identity().device;
        let begun = now();
        asked.push(begun);
        if kind != Round::Replaced {
            site.revoke(device).await?;
            tally.raise("revocation_answered_ms_longest", milliseconds(begun.elapsed()));
            continue;
        }
        let dir = dir.with_extension("successor");
        site.claim_again(device, &dir).await?;
        let (device, stop) = (Device::open(&dir, SPACE_ID, None)?, CancellationToken::new());
        let Running { status, .. } = device.start(stop.clone());
        successors.push(Successor { status, stop, _device: device });
    }
    Ok((asked, successors))
}

/// Each of its means works; returns how many that were.
fn every_means_works(holdout: &Holdout) -> Result<u64> {
    let begun = now();
    loop {
        let silent = Means::ALL.into_iter().find(|means| holdout.mark(*means).worked == 0);
        let Some(silent) = silent else { return Ok(Means::ALL.len() as u64) };
        ensure!(begun.elapsed() < SETTLED_WITHIN, "{silent:?} never worked before the device was revoked");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until the bound is over, and on; a short run, until every means was refused or silent for a while. Returns what
/// was stored of each device at the bound, or in a short run when its means had failed.
fn after_the_bound(site: &Site, holdouts: &[Holdout], begun: Instant, long: bool) -> Result<Vec<i64>> {
    let is_out = |holdout: &Holdout, for_how_long: Duration| {
        let silent = |means| holdout.mark(means).last.is_none_or(|last| last.elapsed() > for_how_long);
        let refused = |means| holdout.mark(means).refused_since > 1;
        Means::ALL.into_iter().all(silent) && refused(Means::Connecting) && refused(Means::Calling)
    };
    let over = |limit| begun.elapsed() >= limit;
    let early = |quiet| !long && holdouts.iter().all(|holdout| is_out(holdout, quiet));
    while !over(BOUND) && !early(QUIET_FOR / 2) {
        std::thread::sleep(LOOK_EVERY);
    }
    let committed = holdouts.iter().map(|holdout| site.block_on(committed_of(site, holdout))).collect::<Result<_>>()?;
    while !over(BOUND + WATCHED_ON) && !early(QUIET_FOR) {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(committed)
}

async fn committed_of(site: &Site, holdout: &Holdout) -> Result<i64> {
    let query = "SELECT coalesce(max(committed), 0) FROM stream WHERE stream = $1";
    Ok(sqlx::query_scalar(query).bind(holdout.stream()).fetch_one(&mut site.database().await?).await?)
}

/// What still worked after the bound.
fn overdue(holdout: &Holdout, begun: Instant) -> Vec<Means> {
    let late = |means: &Means| holdout.mark(*means).last.is_some_and(|last| last > begun + BOUND);
    Means::ALL.into_iter().filter(late).collect()
}

fn judge(holdout: &Holdout, begun: Instant, kind: Round, tally: &mut Tally) {
    let late = overdue(holdout, begun);
    tally.require(late.is_empty(), || format!("{kind:?}: worked after {BOUND:?}: {late:?}"));
    for means in Means::ALL {
        let mark = holdout.mark(means);
        if let Some(last) = mark.last {
            let name = format!("{means:?}_ms_longest").to_lowercase();
            tally.raise(&name, milliseconds(last.saturating_duration_since(begun)));
        }
    }
    for means in [Means::Connecting, Means::Calling] {
        let refused = holdout.mark(means).refused_since;
        tally.add(&format!("{means:?}_refused").to_lowercase(), refused);
        tally.require(refused > 0, || format!("{kind:?}: {means:?} was not tried after it last worked"));
    }
}

/// The control: the device's access lines are taken away and the broker reads them, and nobody ends its session. What the
/// checker finds that still works after the bound.
fn reload_alone(site: &Site) -> Result<u64> {
    let holdouts = site.block_on(hold_on(site, &[site.file("going/control")]))?;
    let holdout = holdouts.first().context("there is no control")?;
    every_means_works(holdout)?;
    let (path, name) = (site.hub_file("broker/devices.acl"), holdout.identity().device.to_string());
    let lines = std::fs::read_to_string(&path)?;
    ensure!(lines.contains(&name), "the access list does not name the device");
    // Lines of a device stand together, with an empty line between devices.
    let others: Vec<&str> = lines.split("\n\n").filter(|lines| !lines.contains(&name)).collect();
    std::fs::write(&path, others.join("\n\n"))?;
    let begun = now();
    site.reload_broker()?;
    std::thread::sleep(BOUND + LOOK_EVERY * 25);
    ensure!(holdout.mark(Means::Publishing).refused_since > 0, "the broker did not read its access list again");
    Ok(u64::from(overdue(holdout, begun).contains(&Means::Session)))
}

/// A list of the device authority that revokes nothing and was good until yesterday.
fn expired_list(site: &Site) -> Result<String> {
    let key = KeyPair::from_pem(&std::fs::read_to_string(site.hub_file("pki/device-ca.key"))?)?;
    let authority = std::fs::read_to_string(site.hub_file("pki/device-ca.pem"))?;
    let day = time::Duration::days(1);
    let list = CertificateRevocationListParams {
        this_update: utc() - day * 2,
        next_update: utc() - day,
        crl_number: SerialNumber::from(u64::from(u32::MAX)),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(&Issuer::from_ca_cert_pem(&authority, key)?)?.pem()?)
}

fn utc() -> OffsetDateTime {
    edge_agent::clock::SystemClock::utc()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Somebody who says something to each device over and over, on the hub's own listener.
struct Speaking(tokio::task::JoinHandle<()>);

impl Speaking {
    async fn start(port: u16, password: String, holdouts: &[Holdout]) -> Result<Self> {
        let down: Vec<String> = holdouts.iter().map(Holdout::down).collect();
        let mut probe = Probe::hub(port, &password).await?;
        Ok(Self(tokio::spawn(async move {
            loop {
                // The broker may have been killed, and its ports may be others then.
                if probe.publish(&down, b"for nobody but the device", false).await.is_err()
                    && let Ok(again) = Probe::hub(port, &password).await
                {
                    probe = again;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })))
    }
}

impl Drop for Speaking {
    fn drop(&mut self) {
        self.0.abort();
    }
}
