//! M3: the broker has lost a device's session while as much is on its way as may be, and the acknowledgements never came.
//!
//! Each device has a proxy of its own. It is made deaf: what the device sends arrives, what comes back is lost for good, and
//! the end of the broker's connection is not told. When the device's window is full the broker is killed, with every session
//! (it keeps none on its disk). Half of the devices are told of that by a reset, as a crashed broker's kernel does; the others
//! hear nothing, as behind a firewall, and must find out by themselves. A session is lost when a broker is there again that
//! does not know it; from then on a device may be stuck for twice its keep-alive.
//!
//! The control is the client library alone: one event loop, polled on and on, as its examples have it. It connects again by
//! itself and throws away what was on its way ("rumqtt" #1014, #1056): nobody ever hears of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use edge_agent::clock::SystemClock;
use edge_agent::sync::Timing;
use edge_store::{Broker, Identity, Position, Priority};
use fleet_sim::device::{Device, Running, SPACE_ID};
use fleet_sim::happening;
use fleet_sim::history::{Place, Told};
use fleet_sim::trusting::{capture, mutual_tls};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, now};
use crate::line::site::Part;
use crate::line::{Fault, Proxy, Site, judge};
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row. Its count is that of the lines that are wedged.
pub(super) static M3: Row = Row {
    id: "M3",
    title: "session lost while the window is full: the device leaves the wedge within two keep-alives",
    count: 100,
    small: 4,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto")],
    run: wedges,
};

/// Devices that are wedged at the same time.
const DEVICES: u64 = 10;
/// Wedges of one hub before its tables are judged.
const CAMPAIGN: u64 = 50;
/// More than the four batches that may be on their way.
const EVENTS: u64 = 1_000;
const BATCH: u64 = 100;
/// The window stands when the hub has committed nothing new for so long.
const STANDS_FOR: Duration = Duration::from_millis(500);
/// For whatever is not measured.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a short run looks at the control: the library connects again within this, and sends what it still has.
const SHORT_LOOK: Duration = Duration::from_secs(6);
/// Packets that the control has on their way, and in all.
const CONTROL_WINDOW: u16 = 20;
const CONTROL_PACKETS: u64 = 60;

fn wedges(lab: &mut Lab) -> Result<Verdict> {
    let (count, long) = (lab.count(), lab.is_long());
    let limit = 2 * Timing::default().keep_alive;
    let tally = lab.phase("campaigns", count.div_ceil(CAMPAIGN), |number, tally| {
        let wanted = CAMPAIGN.min(count - number * CAMPAIGN);
        campaign(wanted, limit, long, number == 0, tally)
    })?;
    let control = Control::of("never_acknowledged", tally.count_of("control_never_acknowledged"));
    Ok(Verdict { tally, control })
}

fn campaign(wanted: u64, limit: Duration, long: bool, with_control: bool, tally: &mut Tally) -> Result<()> {
    let devices = wanted.min(DEVICES);
    // One more for the control.
    let site = Site::open(usize::try_from(devices)? + 1)?;
    let mut fleet = site.block_on(Wedged::start(&site, devices))?;
    for _ in 0..wanted.div_ceil(devices) {
        fleet.wave(&site, limit, tally)?;
    }
    let told = site.block_on(fleet.end());
    judge::judge(&site, &told)?.count_in(tally, &told);
    if with_control {
        let dir = site.device_dir(usize::try_from(devices)?);
        let lost = site.block_on(bare_client(&site, &dir, if long { limit } else { SHORT_LOOK }))?;
        tally.add("control_never_acknowledged", lost);
    }
    Ok(())
}

/// One device with a proxy of its own.
struct Wedge {
    device: Device,
    running: Running,
    proxy: Proxy,
    /// Whether it is told when the broker dies.
    told: bool,
}

/// The devices of a campaign.
struct Wedged {
    wedges: Vec<Wedge>,
    stop: CancellationToken,
    history: Told,
}

impl Wedged {
    async fn start(site: &Site, devices: u64) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut wedges = Vec::new();
        for index in 0..usize::try_from(devices)? {
            let dir = site.device_dir(index);
            let broker = Identity::load(&dir)?.context("a device that was claimed has an identity")?.broker;
            let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], broker.port))).await?;
            let through = Broker { port: proxy.port(), ..broker };
            let device = Device::open(&dir, SPACE_ID, Some(&through))?;
            let running = device.start(stop.clone());
            wedges.push(Wedge { device, running, proxy, told: index % 2 == 0 });
        }
        Ok(Self { wedges, stop, history: Told::default() })
    }

    /// Wedges every device once and waits until each has left its wedge.
    fn wave(&mut self, site: &Site, limit: Duration, tally: &mut Tally) -> Result<()> {
        site.block_on(self.all("connected", |wedge| Ok(wedge.running.status.borrow().connected)))?;
        let lines: Vec<u64> = self.wedges.iter().map(Wedge::lines).collect();
        for wedge in &self.wedges {
            wedge.proxy.inject(Fault::Deaf);
        }
        let (deaf_since, mut before) = (now(), Vec::new());
        for wedge in &self.wedges {
            before.push(wedge.device.outbox.stats()?.acknowledged_through);
            wedge.record(&mut self.history)?;
        }
        site.block_on(self.windows_are_full(site, &before))?;
        let full: u64 = self.wedges.iter().zip(&lines).filter(|(wedge, line)| wedge.is_wedged(**line)).count() as u64;
        for wedge in &self.wedges {
            if wedge.told {
                wedge.proxy.inject(Fault::Refused);
            }
        }
        let killed = site.kill(Part::Broker)?;
        site.back(Part::Broker, killed)?;
        let lost_at = now();
        tally.require(!site.broker_keeps_messages(), || "the broker kept a session on its disk".to_owned());
        for wedge in &self.wedges {
            wedge.proxy.heal();
        }
        tally.injected += full;
        let mut waiting: Vec<usize> = (0..self.wedges.len()).collect();
        while !waiting.is_empty() && lost_at.elapsed() < limit + PATIENCE {
            let mut stuck = Vec::new();
            for index in waiting {
                if self.wedges[index].device.outbox.stats()?.acknowledged_through > before[index] {
                    self.wedges[index].count(lost_at, deaf_since, limit, tally);
                } else {
                    stuck.push(index);
                }
            }
            waiting = stuck;
            std::thread::sleep(LOOK_EVERY);
        }
        tally.require(waiting.is_empty(), || format!("{} devices never left the wedge", waiting.len()));
        site.block_on(self.all("drained", |wedge| Ok(wedge.device.outbox.stats()?.pending == 0)))
    }

    /// Waits until the hub has what a window holds and gets no more, although there is more.
    async fn windows_are_full(&self, site: &Site, before: &[u64]) -> Result<()> {
        let (mut tables, begun) = (site.database().await?, now());
        let mut last = Vec::new();
        let mut since = now();
        while begun.elapsed() < PATIENCE {
            let mut committed = Vec::new();
            for wedge in &self.wedges {
                committed.push(wedge.committed(&mut tables).await?);
            }
            if committed != last {
                (last, since) = (committed.clone(), now());
            }
            let all_began = committed.iter().zip(before).all(|(committed, before)| committed > before);
            if all_began && since.elapsed() >= STANDS_FOR {
                for (wedge, committed) in self.wedges.iter().zip(committed) {
                    let recorded = wedge.device.outbox.stats()?.last_sequence;
                    ensure!(committed < recorded, "all that was recorded went through: no window is full");
                }
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::bail!("the hub got nothing for {PATIENCE:?}")
    }

    async fn all(&self, what: &str, so: impl Fn(&Wedge) -> Result<bool>) -> Result<()> {
        let begun = now();
        for wedge in &self.wedges {
            while !so(wedge)? {
                ensure!(begun.elapsed() < PATIENCE, "not every device is {what} after {PATIENCE:?}");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn end(self) -> Told {
        self.stop.cancel();
        for wedge in self.wedges {
            // A panic of sync was logged by its own hook.
            let _ended = wedge.running.task.await;
        }
        self.history
    }
}

impl Wedge {
    fn lines(&self) -> u64 {
        self.running.status.borrow().connection_epoch
    }

    /// Still on the line that was made deaf, where something was lost on its way down.
    fn is_wedged(&self, line: u64) -> bool {
        self.proxy.met() > 0 && self.lines() == line && self.running.status.borrow().connected
    }

    fn record(&self, history: &mut Told) -> Result<()> {
        let stream = self.device.outbox.stats()?.stream.to_string();
        for _ in 0..EVENTS / BATCH {
            let ids: Vec<_> = (0..BATCH).map(|_| happening::fresh_id()).collect();
            let encoders = ids.iter().map(|id| {
                |position: Position| happening::encode(&self.device.identity, self.device.run_id(), *id, position)
            });
            let wall = SystemTime::from(SystemClock::utc());
            let range = self.device.outbox.append_batch(wall, Priority::MustKeep, encoders)?;
            let device = self.device.identity.device;
            for (id, sequence) in ids.into_iter().zip(range.clone()) {
                history.events.insert(id, Some(Place { device, stream: stream.clone(), sequence }));
            }
            history.acked += BATCH;
            self.device.recorded(*range.end());
        }
        Ok(())
    }

    async fn committed(&self, tables: &mut PgConnection) -> Result<u64> {
        let highest: Option<i64> = sqlx::query_scalar("SELECT max(sequence) FROM event WHERE device_id = $1")
            .bind(self.device.identity.device)
            .fetch_one(tables)
            .await?;
        Ok(u64::try_from(highest.unwrap_or(0))?)
    }

    fn count(&self, lost_at: Instant, deaf_since: Instant, limit: Duration, tally: &mut Tally) {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let stuck = lost_at.elapsed();
        let kind = if self.told { "told" } else { "untold" };
        tally.raise(&format!("stuck_ms_longest_{kind}"), millis(stuck));
        tally.raise(&format!("since_last_ack_ms_longest_{kind}"), millis(deaf_since.elapsed()));
        tally.add(&format!("wedges_{kind}"), 1);
        tally.require(stuck <= limit, || format!("a device was stuck for {stuck:?} ({kind} of the broker's end)"));
    }
}

/// The client library without anything around it: how many of its publishes nobody acknowledges.
async fn bare_client(site: &Site, dir: &Path, limit: Duration) -> Result<u64> {
    let device = Device::open(dir, SPACE_ID, None)?;
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], device.identity.broker.port))).await?;
    let mut options = MqttOptions::new(device.identity.device.to_string(), "127.0.0.1", proxy.port());
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(3600);
    options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(mutual_tls(&device.identity)?))))
        .set_keep_alive(Timing::default().keep_alive)
        .set_clean_start(false)
        .set_connect_properties(properties)
        .set_outgoing_inflight_upper_limit(CONTROL_WINDOW);
    let (client, mut socket) = AsyncClient::new(options, usize::try_from(CONTROL_PACKETS)?);
    let greeted = async {
        while !matches!(socket.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, greeted).await.context("no greeting from the broker")??;
    proxy.inject(Fault::Deaf);
    let stats = device.outbox.stats()?;
    for number in 0..CONTROL_PACKETS {
        let captured = capture(&device, stats.stream, stats.last_sequence + 1 + number, 1)?;
        client.publish(captured.topic, QoS::AtLeastOnce, false, captured.payload).await?;
    }
    // Until the window is full: it sends no more by itself then.
    let filling = async { while socket.poll().await.is_ok() {} };
    let _full = tokio::time::timeout(Duration::from_secs(2), filling).await;
    proxy.inject(Fault::Refused);
    let killed = site.kill(Part::Broker)?;
    site.back(Part::Broker, killed)?;
    proxy.heal();
    let (mut acknowledged, mut connected) = (0, None);
    let polling = async {
        // As the library's examples do: an error is followed by the next poll, which connects again.
        loop {
            match socket.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => connected = Some(now()),
                Ok(Event::Incoming(Packet::PubAck(_))) => acknowledged += 1,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    let _over = tokio::time::timeout(limit, polling).await;
    ensure!(connected.is_some(), "the bare client never came back: that shows nothing");
    Ok(CONTROL_PACKETS - acknowledged)
}
