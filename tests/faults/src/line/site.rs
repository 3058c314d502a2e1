//! A hub in a folder of its own, with its Postgres and broker, a tenant and a site; and how each part of it is killed.
//!
//! Everything is started by the system tests' launcher, as a user starts it. Processes are ended by the id that their own
//! pid files name below this hub's folder, and by nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_store::Identity;
use fleet_sim::admin::{Admin, folder_name};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use system_tests::launcher::{Hub, Places, Tenant, free_port, run_dir};
use system_tests::watch::Rows;
use tokio::runtime::Runtime;
use uuid::Uuid;
use wire_contract::{DeviceId, DownChannel, TenantId, Topic};

use super::{Probe, Proxy, cost};
use crate::lab::now;

/// How long a part that was killed may take to be there again.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// A file system that has no disk.
const MEMORY: &str = "/dev/shm";
/// Said to a device until it hears.
const ARE_YOU_THERE: &[u8] = b"are you there";

/// A hub and what belongs to it. Field order is the order of the end.
pub struct Site {
    /// Between devices and broker.
    pub proxy: Proxy,
    hub: Option<Hub>,
    tenant: Tenant,
    site: String,
    ports: (u16, u16),
    /// Further options of the hub.
    options: &'static [&'static str],
    places: Places,
    runtime: Runtime,
    dir: tempfile::TempDir,
    /// Where the devices' folders really are, when they are in memory.
    memory: Option<tempfile::TempDir>,
}

/// A part of the hub that runs as a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Mosquitto.
    Broker,
    /// Postgres' first process.
    Postgres,
}

impl Site {
    /// Starts a hub with a tenant, a site, a webhook that nobody answers, and `devices` claimed devices.
    pub fn open(devices: usize) -> Result<Self> {
        Self::open_with(devices, &[])
    }

    /// The same, and the hub has further options.
    pub fn open_with(devices: usize, options: &'static [&'static str]) -> Result<Self> {
        let site = Self::without_devices(None, options)?;
        site.populate(devices)?;
        Ok(site)
    }

    /// As [`Site::open`], with the devices' folders in memory: a thousand devices have a thousand disks, and this machine
    /// has one, which the hub's tables need for themselves.
    pub fn open_with_devices_in_memory(devices: usize) -> Result<Self> {
        let memory = tempfile::Builder::new().prefix("lintel-fleet-").tempdir_in(MEMORY)?;
        let site = Self::without_devices(Some(memory), &[])?;
        site.populate(devices)?;
        Ok(site)
    }

    fn without_devices(memory: Option<tempfile::TempDir>, options: &'static [&'static str]) -> Result<Self> {
        // Of this process; another row may have been first.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let runtime = Runtime::new()?;
        let (dir, places) = (run_dir()?, Places::find()?);
        let ports = (free_port()?, free_port()?);
        let opened = runtime.block_on(async {
            let hub = Hub::start_with(&places, &dir.path().join("hub"), ports.0, ports.1, options).await?;
            let tenant = hub.create_tenant("fleet")?;
            let site = hub.create_site(&tenant, "Plant").await?;
            // Nobody listens: what counts is the row in the queue, which stays there while it is tried again.
            let nobody = format!("http://127.0.0.1:{}/", free_port()?);
            hub.post(&tenant, "/v1/webhooks", json!({ "url": nobody })).await?;
            let proxy = Proxy::start(([127, 0, 0, 1], ports.1).into()).await?;
            anyhow::Ok((hub, tenant, site, proxy))
        });
        let (hub, tenant, site, proxy) = opened?;
        let made = Self { proxy, hub: Some(hub), tenant, site, ports, options, places, runtime, dir, memory };
        if let Some(memory) = &made.memory {
            std::os::unix::fs::symlink(memory.path(), made.fleet_dir())?;
        }
        Ok(made)
    }

    fn populate(&self, devices: usize) -> Result<()> {
        let ready = self.hub()?.ready();
        let admin = Admin::new(&ready.https, &ready.root_certificate, &self.tenant.authorization)?;
        self.block_on(async {
            admin.populate(&self.fleet_dir(), &self.site, devices, |_| {}).await?;
            self.until_heard(&self.fleet_dir(), devices).await
        })
    }

    /// Waits until the broker lets the devices of a folder hear: it reads the lines of one that is claimed after the claim is
    /// answered, and drops what comes for it before. All of them: they are claimed side by side, and any may be the last.
    async fn until_heard(&self, fleet: &Path, devices: usize) -> Result<()> {
        let (port, password) = self.broker_as_hub()?;
        let hub = Probe::hub(port, &password).await?;
        for index in 0..devices {
            let dir = fleet.join(folder_name(index));
            let identity = Identity::load(&dir)?.with_context(|| format!("{} is not claimed", dir.display()))?;
            let (tenant, device) = (TenantId(identity.tenant), DeviceId(identity.device));
            let down = [Topic::Down { tenant, device, channel: DownChannel::Evtack }.to_string()];
            let line = Probe::device(&identity, &device.to_string(), None).await?;
            line.subscribe(&down).await?;
            let begun = now();
            while line.heard(ARE_YOU_THERE, |_| true) == 0 {
                ensure!(begun.elapsed() < BACK_WITHIN, "the broker does not let the device {device} hear");
                hub.publish(&down, ARE_YOU_THERE, false).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// A connection to the hub's tables, as soon as the database takes one: it may be recovering from a kill.
    pub async fn database(&self) -> Result<PgConnection> {
        let (url, begun) = (&self.hub()?.ready().postgres, now());
        loop {
            match PgConnection::connect(url).await {
                Ok(connection) => return Ok(connection),
                Err(error) if begun.elapsed() >= BACK_WITHIN => return Err(error).context("the hub's Postgres"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// A second tenant with claimed devices of its own; returns it and their folders.
    pub fn neighbour(&self, devices: usize) -> Result<(Tenant, Vec<PathBuf>)> {
        let (hub, dir) = (self.hub()?, self.dir.path().join("neighbour"));
        let tenant = hub.create_tenant("neighbour")?;
        let ready = hub.ready();
        let admin = Admin::new(&ready.https, &ready.root_certificate, &tenant.authorization)?;
        self.block_on(async {
            let site = hub.create_site(&tenant, "Next door").await?;
            admin.populate(&dir, &site, devices, |_| {}).await?;
            self.until_heard(&dir, devices).await
        })?;
        Ok((tenant, (0..devices).map(|index| dir.join(folder_name(index))).collect()))
    }

    /// Makes and claims one more device of the tenant, in a folder of its own.
    pub async fn claim_device(&self, dir: &Path, name: &str) -> Result<()> {
        let token = self.hub()?.create_device(&self.tenant, &self.site, name, 1).await?;
        fleet_sim::device::claim(dir, &token, name).await
    }

    /// Claims a device again, for other hardware with a folder of its own; the certificate before serves for nothing then.
    pub async fn claim_again(&self, device: Uuid, dir: &Path) -> Result<()> {
        let made = self.hub()?.post(&self.tenant, &format!("/v1/devices/{device}/claim-tokens"), json!({})).await?;
        let token = made["token"].as_str().with_context(|| format!("no token in {made}"))?.to_owned();
        fleet_sim::device::claim(dir, &token, "other hardware").await
    }

    /// Revokes a device.
    pub async fn revoke(&self, device: Uuid) -> Result<()> {
        let path = format!("/v1/devices/{device}");
        self.hub()?.call(&self.tenant, reqwest::Method::DELETE, &path, None).await.map(drop)
    }

    /// A file of the hub's own below its data directory.
    #[must_use]
    pub fn hub_file(&self, name: &str) -> PathBuf {
        self.dir.path().join("hub").join(name)
    }

    /// Makes the broker read its lists again, as the hub does.
    pub fn reload_broker(&self) -> Result<()> {
        signal(self.id_of(Part::Broker).context("the broker has no process")?, libc::SIGHUP)
    }

    /// The hub's resident memory.
    pub fn hub_resident_mib(&mut self) -> Result<u64> {
        Ok(self.hub.as_mut().context("the hub is not running")?.process().resident_bytes()? >> 20)
    }

    /// Processor time so far of the hub's own process.
    pub fn hub_cpu_time(&mut self) -> Result<Duration> {
        self.hub.as_mut().context("the hub is not running")?.process().cpu_time()
    }

    /// Processor time so far of a part and of what it has started.
    pub fn part_cpu_time(&self, part: Part) -> Result<Duration> {
        cost::cpu_time(self.id_of(part).with_context(|| format!("{part:?} has no process"))?)
    }

    /// Runs something on this site's runtime.
    pub fn block_on<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// The running hub.
    pub fn hub(&self) -> Result<&Hub> {
        self.hub.as_ref().context("the hub is not running")
    }

    /// Access to the hub's API as the tenant.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The id of the site.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.site
    }

    /// The folder of the devices.
    #[must_use]
    pub fn fleet_dir(&self) -> PathBuf {
        self.dir.path().join("fleet")
    }

    /// The folder of one device.
    #[must_use]
    pub fn device_dir(&self, index: usize) -> PathBuf {
        self.fleet_dir().join(folder_name(index))
    }

    /// A place for a file of this run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lab's programs and parts.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// A connection to the hub's tables.
    pub fn rows(&self) -> Result<Rows> {
        self.block_on(Rows::connect(&self.hub()?.ready().postgres))
    }

    /// Kills the hub; its parts die with it.
    pub fn kill_hub(&mut self) -> Result<()> {
        self.hub.as_mut().context("the hub is not running")?.process().kill()?;
        self.hub = None;
        Ok(())
    }

    /// Starts the hub that was killed; returns how long it took to be ready.
    pub fn start_hub(&mut self) -> Result<Duration> {
        let begun = now();
        let data_dir = self.dir.path().join("hub");
        let started = Hub::start_with(&self.places, &data_dir, self.ports.0, self.ports.1, self.options);
        self.hub = Some(self.runtime.block_on(started)?);
        Ok(begun.elapsed())
    }

    /// Stops the hub's process where it stands, or lets it go on.
    pub fn freeze_hub(&mut self, frozen: bool) -> Result<()> {
        let id = self.hub.as_mut().context("the hub is not running")?.process().id();
        signal(id, if frozen { libc::SIGSTOP } else { libc::SIGCONT })
    }

    /// The hub's process id.
    pub fn hub_id(&mut self) -> Result<u32> {
        Ok(self.hub.as_mut().context("the hub is not running")?.process().id())
    }

    /// Stops a part where it stands, or lets it go on, with every process that it has started.
    pub fn freeze(&self, part: Part, frozen: bool) -> Result<()> {
        let id = self.id_of(part).with_context(|| format!("{part:?} has no process"))?;
        for id in std::iter::once(id).chain(children(id)) {
            // A child may end in between; its parent does not while it is stopped.
            let _ended = signal(id, if frozen { libc::SIGSTOP } else { libc::SIGCONT });
        }
        Ok(())
    }

    /// Kills a part with SIGKILL and waits until the process is gone; returns its id, for [`Site::back`].
    pub fn kill(&self, part: Part) -> Result<u32> {
        let id = self.id_of(part).with_context(|| format!("{part:?} has no process"))?;
        signal(id, libc::SIGKILL)?;
        let begun = now();
        while alive(id) {
            ensure!(begun.elapsed() < BACK_WITHIN, "{part:?} {id} did not die");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(id)
    }

    /// Waits until the hub has started a part again that was killed.
    pub fn back(&self, part: Part, killed: u32) -> Result<Duration> {
        let begun = now();
        while self.id_of(part).is_none_or(|id| id == killed || !alive(id)) {
            ensure!(begun.elapsed() < BACK_WITHIN, "{part:?} was not started again");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(begun.elapsed())
    }

    /// The process id of a part, from its own pid file.
    #[must_use]
    pub fn id_of(&self, part: Part) -> Option<u32> {
        let file = match part {
            Part::Broker => "hub/broker/mosquitto.pid",
            Part::Postgres => "hub/postgres/data/postmaster.pid",
        };
        std::fs::read_to_string(self.dir.path().join(file)).ok()?.lines().next()?.trim().parse().ok()
    }

    /// Port and password of the hub's own listener at the broker: what somebody knows who holds the broker.
    pub fn broker_as_hub(&self) -> Result<(u16, String)> {
        let conf = std::fs::read_to_string(self.dir.path().join("hub/broker/mosquitto.conf"))?;
        let listeners = conf.lines().filter_map(|line| line.strip_prefix("listener ")?.split(' ').next()?.parse().ok());
        let consumers = self.consumers_at().ok().map(|(_, port)| port);
        let mut listeners = listeners.filter(|port: &u16| *port != self.ports.1 && Some(*port) != consumers);
        let port = listeners.next().context("no listener for the hub")?;
        let password = std::fs::read_to_string(self.dir.path().join("hub/secrets/mqtt-hub.password"))?;
        Ok((port, password.trim().to_owned()))
    }

    /// Where consumers connect.
    pub fn consumers_at(&self) -> Result<(String, u16)> {
        let address = self.hub()?.ready().mqtt_consumers.as_ref().context("the hub has no listener for consumers")?;
        let (host, port) = address.rsplit_once(':').with_context(|| format!("no port in {address}"))?;
        Ok((host.to_owned(), port.parse()?))
    }

    /// Whether the broker has anything on its disk that a message could survive in.
    #[must_use]
    pub fn broker_keeps_messages(&self) -> bool {
        self.dir.path().join("hub/broker/mosquitto.db").exists()
    }
}

/// Whether a process runs; one that has ended and was not waited for does not.
fn alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The processes that this one has started.
fn children(id: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

fn signal(id: u32, signal: i32) -> Result<()> {
    // SAFETY: plain kill(2) with the id of a process of this site.
    let sent = unsafe { libc::kill(id.cast_signed(), signal) };
    ensure!(sent == 0, "signal {signal} to {id}: {}", std::io::Error::last_os_error());
    Ok(())
}
