//! C2: certificates over years. Devices that were claimed on one day renew theirs forty times, while requests and answers
//! are lost, devices lose their power between any two steps, and the hub is away for weeks. No device is ever without a
//! certificate that hub and broker accept, and they do not come in a storm when the hub is back.
//!
//! Real: the device's term and its waits (`edge_agent::sync`), the hub's rules, its authority's signatures, its store with
//! Postgres. Played: the years, the network, the device's disk (the swap of the real one is broken in row D2). Renewal over
//! real TLS has its own tests (`cloud-hub/tests/hub/renewals.rs`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context as _, Result, ensure};
use cloud_hub::clock::Clock;
use cloud_hub::domain::certificate::{Held, Shown, Standing, standing};
use cloud_hub::domain::ids::{DeviceId, SiteId, TenantId};
use cloud_hub::domain::tenant::Tier;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::keys::{Claimed, Custody, Keyring, NewSite};
use cloud_hub::pki::{DeviceRequest, Pki};
use cloud_hub::store::devices::{self, DeviceState};
use cloud_hub::store::{Database, migrate, routes};
use edge_agent::sync::Timing;
use edge_agent::sync::backoff::Backoff;
use edge_agent::sync::renewal::Term;
use edge_store::{Broker, HubKey, Identity};
use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row. Its count is that of the renewals.
pub(super) static C2: Row = Row {
    id: "C2",
    title: "certificates over years: forty renewals of each device, no moment without one, no storm",
    count: 40_000,
    small: 160,
    needs: &[Need::Part("postgres")],
    run: renewals,
};

/// Renewals of each device.
const EACH: u64 = 40;
/// Devices that share one played clock; a lane is a task.
const LANES: u64 = 4;
/// What befalls each step, in a hundred: every third renewal or so meets something.
const TROUBLE: u64 = 12;
/// The hub is away: so often, and for so long. Shorter than what half a life leaves (36 days at the least).
const AWAY: (Duration, Duration) = (Duration::days(400), Duration::days(25));
/// Of all devices so many in a hundred at most come in one hour, also when the hub is back from weeks away.
const STORM: u64 = 25;
/// Fewer devices than this say nothing about storms.
const CROWD: u64 = 200;

fn renewals(lab: &mut Lab) -> Result<Verdict> {
    let devices = lab.count().div_ceil(EACH);
    let runtime = tokio::runtime::Runtime::new()?;
    let tally = lab.phase("renewals", 1, |_, tally| {
        runtime.block_on(async {
            let hub = Hub::start().await?;
            let mut lanes = tokio::task::JoinSet::new();
            for lane in 0..LANES {
                let share = devices / LANES + u64::from(lane < devices % LANES);
                lanes.spawn(run_lane(hub.lane()?, lane, share, EACH, false));
            }
            let mut hours = Asked::new();
            while let Some(lane) = lanes.join_next().await {
                let (counted, asked) = lane??;
                tally.merge(counted);
                for (hour, devices) in asked {
                    hours.entry(hour).or_default().extend(devices);
                }
            }
            let most = hours.values().map(BTreeSet::len).max().unwrap_or(0) as u64;
            tally.figure("devices", devices);
            tally.figure("devices_in_one_hour_most", most);
            let storm = devices >= CROWD && most * 100 > devices * STORM;
            tally.require(!storm, || format!("{most} of {devices} devices came in one hour"));
            let (careless, _) = run_lane(hub.lane()?, LANES, 5, 10, true).await?;
            tally.add("control_gaps", careless.breaches);
            hub.stop().await;
            anyhow::Ok(())
        })
    })?;
    let control = Control::of("gaps_of_a_careless_device", tally.count_of("control_gaps"));
    Ok(Verdict { tally, control })
}

/// The hub's rules, authority and store.
struct Hub {
    postgres: EmbeddedPostgres,
    db: Database,
    keyring: Arc<Keyring>,
    pki: Arc<Pki>,
    tenant: TenantId,
    site: SiteId,
    dir: tempfile::TempDir,
}

/// The hub at a time of its own.
struct Lane {
    db: Database,
    custody: Custody,
    pki: Arc<Pki>,
    tenant: TenantId,
    site: SiteId,
    clock: Arc<AtomicI64>,
    begun: i64,
}

impl Hub {
    async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lintel-").tempdir_in("/tmp")?;
        // The service user of Postgres passes through it.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
        let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path())?).await?;
        migrate(&postgres.owner()).await?;
        let db = Database::new(postgres.app(), 8);
        let keyring = Arc::new(Keyring::open(&dir.path().join("keys"))?);
        let custody = Custody::new(db.clone(), Arc::clone(&keyring), Clock::system());
        let pki_dir = dir.path().join("pki");
        std::fs::create_dir_all(&pki_dir)?;
        let pki = Arc::new(Pki::load_or_make(&pki_dir, Clock::system().now())?);
        let tenant = custody.create_tenant("years", Tier::Enterprise, "lab").await?;
        let site =
            NewSite { id: SiteId(Uuid::new_v4()), name: "site".to_owned(), time_zone: "Asia/Jakarta".to_owned() };
        let site = custody.create_site(tenant, site, "lab").await?.id;
        Ok(Self { postgres, db, keyring, pki, tenant, site, dir })
    }

    fn lane(&self) -> Result<Lane> {
        let begun = Clock::system().now().unix_timestamp();
        let clock = Arc::new(AtomicI64::new(begun));
        let told = Arc::clone(&clock);
        let tell = Clock::of(move || at(told.load(Ordering::SeqCst)));
        let custody = Custody::new(self.db.clone(), Arc::clone(&self.keyring), tell);
        ensure!(self.dir.path().exists(), "the hub's folder is gone");
        Ok(Lane {
            db: self.db.clone(),
            custody,
            pki: Arc::clone(&self.pki),
            tenant: self.tenant,
            site: self.site,
            clock,
            begun,
        })
    }

    async fn stop(self) {
        self.db.close().await;
        self.postgres.stop().await;
    }
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A device: what its disk holds, and when it looks again.
struct Device {
    id: DeviceId,
    /// None is what must never be.
    identity: Option<Identity>,
    /// The certificate was shown to the hub, which ends the one before.
    shown: bool,
    backoff: Backoff,
    renewed: u64,
}

/// What befalls a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    RequestLost,
    AnswerLost,
    /// No power after the answer came, before it is on the disk.
    PowerCutBeforeWrite,
    /// No power when it is.
    PowerCutAfterWrite,
}

/// Which devices came to the hub in each hour: one that asks twice is one.
type Asked = BTreeMap<i64, BTreeSet<Uuid>>;

async fn run_lane(lane: Lane, number: u64, devices: u64, each: u64, careless: bool) -> Result<(Tally, Asked)> {
    let (mut random, mut tally, mut asked) = (Random::new(number), Tally::default(), Asked::new());
    let (mut fleet, mut queue, mut last) = (Vec::new(), BinaryHeap::new(), lane.begun);
    for index in 0..usize::try_from(devices)? {
        fleet.push(lane.claim().await?);
        queue.push(Reverse((lane.begun + i64::try_from(random.below(3600))?, index)));
    }
    while let Some(Reverse((now, index))) = queue.pop() {
        lane.clock.store(now, Ordering::SeqCst);
        let device = &mut fleet[index];
        lane.check(device, &mut tally).await?;
        let next = lane.step(device, careless, &mut random, &mut tally, &mut asked).await?;
        lane.check(device, &mut tally).await?;
        if device.identity.is_none() {
            // Only a new claim helps; the control goes on with one.
            *device = lane.claim().await?;
        }
        if device.renewed < each {
            queue.push(Reverse((next.max(now + 1), index)));
        }
        last = now;
    }
    // Tallies of lanes are added, so each says how many device-years it played.
    let days = u64::try_from((last - lane.begun) / 86_400).unwrap_or(0);
    tally.add("device_years", days * devices / 365);
    tally.injected = fleet.iter().map(|device| device.renewed).sum();
    Ok((tally, asked))
}

impl Lane {
    fn now(&self) -> OffsetDateTime {
        at(self.clock.load(Ordering::SeqCst))
    }

    /// The first certificate, as a claim gives it.
    async fn claim(&self) -> Result<Device> {
        let id = DeviceId(Uuid::new_v4());
        let (site, name) = (self.site, id.to_string());
        self.db
            .tenant(self.tenant, move |tx| Box::pin(async move { devices::create(tx, id, site, &name).await }))
            .await?;
        let key = KeyPair::generate()?;
        let issued = self.pki.issue_device(request(&key)?, id, self.now())?;
        let claimed = Claimed { hardware_serial: "played".to_owned(), certificate: issued.certificate };
        self.custody.device_claimed(self.tenant, id, claimed).await?;
        let identity = Some(self.identity(id, &key, issued.chain_pem));
        Ok(Device { id, identity, shown: true, backoff: waits(), renewed: 0 })
    }

    fn identity(&self, id: DeviceId, key: &KeyPair, chain_pem: String) -> Identity {
        Identity {
            tenant: self.tenant.0,
            device: id.0,
            hub_url: "https://hub.example".to_owned(),
            broker: Broker { host: "hub.example".to_owned(), port: 8883 },
            hub_keys: vec![HubKey { key_id: Uuid::nil().to_string(), public_key: [0; 32] }],
            signed_time: self.now().unix_timestamp(),
            key_pem: key.serialize_pem().into(),
            chain_pem,
            root_pem: self.pki.root_pem().to_owned(),
        }
    }

    /// Whether the hub is away now.
    fn is_away(&self) -> bool {
        let since = self.now().unix_timestamp() - self.begun;
        let (every, whole) = (AWAY.0.whole_seconds(), AWAY.1.whole_seconds());
        since > every && since % every < whole
    }

    /// What a device does when its time has come: shows a new certificate, or asks for one. Returns when it looks again.
    async fn step(
        &self,
        device: &mut Device,
        careless: bool,
        random: &mut Random,
        tally: &mut Tally,
        asked: &mut Asked,
    ) -> Result<i64> {
        let now = self.now();
        let identity = device.identity.clone().context("a device has an identity")?;
        let due = Term::of(&identity).context("a stored certificate can be read")?.due();
        if device.shown && now < due {
            return Ok(due.unix_timestamp());
        }
        let trouble = if self.is_away() { Trouble::RequestLost } else { befalls(random) };
        if !self.is_away() {
            asked.entry((now.unix_timestamp() - self.begun) / 3600).or_default().insert(device.id.0);
        }
        if trouble != Trouble::None {
            tally.add(&format!("{trouble:?}"), 1);
        }
        let worked = if device.shown {
            self.renew(device, careless, trouble).await?
        } else {
            self.show(device, &identity, trouble).await?
        };
        if worked {
            device.backoff = waits();
            return Ok(now.unix_timestamp() + 1);
        }
        if matches!(trouble, Trouble::PowerCutBeforeWrite | Trouble::PowerCutAfterWrite) {
            // It starts anew, with nothing but its disk.
            device.backoff = waits();
        }
        let chance = random.below(1000) as f64 / 1000.0;
        Ok((now + device.backoff.next(chance)).unix_timestamp())
    }

    /// Asks for the next certificate under the present one.
    async fn renew(&self, device: &mut Device, careless: bool, trouble: Trouble) -> Result<bool> {
        let present = device.identity.clone().context("a device has an identity")?;
        if careless {
            device.identity = None;
        }
        if trouble == Trouble::RequestLost {
            return Ok(false);
        }
        let key = KeyPair::generate()?;
        ensure!(
            self.standing(&present).await? != Standing::Nothing || careless,
            "a present certificate is worth nothing"
        );
        let issued = self.pki.issue_device(request(&key)?, device.id, self.now())?;
        let chain = issued.chain_pem;
        let offered = self.custody.certificate_offered(self.tenant, device.id, issued.certificate).await?;
        ensure!(offered, "a renewal with a new key was refused");
        if matches!(trouble, Trouble::AnswerLost | Trouble::PowerCutBeforeWrite) {
            return Ok(false);
        }
        device.identity = Some(self.identity(device.id, &key, chain));
        device.shown = false;
        Ok(trouble != Trouble::PowerCutAfterWrite)
    }

    /// Shows the new certificate, as the fetch of the link does.
    async fn show(&self, device: &mut Device, identity: &Identity, trouble: Trouble) -> Result<bool> {
        if trouble == Trouble::RequestLost {
            return Ok(false);
        }
        if self.standing(identity).await? == Standing::Next {
            self.custody.certificate_taken_up(self.tenant, device.id, serial_of(identity)?.0).await?;
        }
        if trouble != Trouble::None {
            return Ok(false);
        }
        device.shown = true;
        device.renewed += 1;
        Ok(true)
    }

    async fn standing(&self, identity: &Identity) -> Result<Standing> {
        let id = DeviceId(identity.device);
        let known = self.db.tenant(self.tenant, move |tx| Box::pin(devices::get(tx, id))).await?;
        let held = Held {
            claimed: known.state == DeviceState::Claimed,
            present: known.certificate_serial.as_deref(),
            next: known.next_certificate_serial.as_deref(),
        };
        let (serial, expires_at) = serial_of(identity)?;
        Ok(standing(held, Shown { serial: &serial, expires_at }, self.now()))
    }

    /// Hub and broker accept what is on the device's disk: it is the present or the offered one, and it is not on the list of
    /// revoked ones.
    async fn check(&self, device: &Device, tally: &mut Tally) -> Result<()> {
        tally.add("moments_checked", 1);
        let Some(identity) = &device.identity else {
            tally.breach("a device has no certificate");
            return Ok(());
        };
        let worth = self.standing(identity).await?;
        let accepted = matches!(worth, Standing::Present | Standing::Next);
        tally.require(accepted, || format!("a device's certificate is {worth:?} on {}", self.now().date()));
        // The whole list is long, and what is on it is neither present nor next; now and then it is read.
        if tally.count_of("moments_checked").is_multiple_of(1_000) {
            let (serial, _) = serial_of(identity)?;
            let revoked = routes::revoked_certificates(&self.db, self.now()).await?;
            let listed = revoked.iter().any(|certificate| certificate.serial == serial);
            tally.require(!listed, || "a device's certificate is on the broker's list of revoked ones".to_owned());
            tally.add("lists_read", 1);
        }
        Ok(())
    }
}

fn befalls(random: &mut Random) -> Trouble {
    if !random.chance(TROUBLE) {
        return Trouble::None;
    }
    match random.below(4) {
        0 => Trouble::RequestLost,
        1 => Trouble::AnswerLost,
        2 => Trouble::PowerCutBeforeWrite,
        _ => Trouble::PowerCutAfterWrite,
    }
}

fn waits() -> Backoff {
    let timing = Timing::default();
    Backoff::new(timing.renewal_first, timing.renewal_longest)
}

fn request(key: &KeyPair) -> Result<DeviceRequest> {
    Ok(DeviceRequest::parse(&CertificateParams::default().serialize_request(key)?.pem()?)?)
}

/// Serial number and end of an identity's certificate, as the hub spells them.
fn serial_of(identity: &Identity) -> Result<(String, OffsetDateTime)> {
    Term::serial_and_end(identity).context("a stored certificate can be read")
}
