//! The hub's end: its own Postgres, keys and rules, and the desk that answers reports. No broker.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context as _, Result};
use cloud_hub::clock::Clock;
use cloud_hub::domain::certificate::DeviceCertificate;
use cloud_hub::domain::compaction::Keep;
use cloud_hub::domain::gallery::Change;
use cloud_hub::domain::ids::{DeviceId, GalleryId, PersonId, SiteId, SnapshotId, TenantId};
use cloud_hub::domain::message::{Incoming, Outgoing};
use cloud_hub::domain::people::Profile;
use cloud_hub::domain::tenant::Tier;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::keys::{
    Claimed, Custody, DeviceLinks, Keyring, KeysError, LinkMaterial, NewSite, NewTemplate, Snapshots,
};
use cloud_hub::publish::{Broker, Desk, HomeSettings, Publisher, SAID_WITHIN};
use cloud_hub::store::galleries::{self, Pending, compaction};
use cloud_hub::store::{Database, StoreError, devices, migrate, people};
use gallery_log::{Kind, RecordId, Root};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire_contract::claim::HubKey;
use wire_contract::snapshot::SnapshotAnswer;

/// The space of every template here.
pub const SPACE: &str = "race-space";
/// Missing versions from which on an edge is offered a snapshot: few, so that small galleries are fetched whole, too.
const SNAPSHOT_FROM: u64 = 12;
/// Connections to the database: the game does one thing at a time.
const CONNECTIONS: u32 = 4;
/// Who did it, for the audit rows.
const ACTOR: &str = "race";
/// More people than any match makes.
const EVERYBODY: u32 = 100_000;

/// A hub. Its time stands still unless the game says otherwise.
pub struct Hub {
    custody: Custody,
    db: Database,
    desk: Desk,
    snapshots: Snapshots,
    seconds: Arc<AtomicI64>,
    // Last, so that nothing speaks to it any more when it ends.
    _postgres: EmbeddedPostgres,
}

/// A tenant with one site and one device.
pub struct Place {
    /// The tenant.
    pub tenant: TenantId,
    /// Its site.
    pub site: SiteId,
    /// The device there.
    pub device: DeviceId,
    /// The site's gallery.
    pub gallery: GalleryId,
    /// The device's keys.
    pub link: LinkMaterial,
    /// What it has pinned.
    pub hub_key: HubKey,
}

/// How the hub took something that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As it must.
    Refused,
    /// It did it.
    Done,
}

impl Hub {
    /// Starts Postgres in `dir` and makes the schema.
    pub async fn start(dir: &Path) -> Result<Self> {
        let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir)?).await?;
        migrate(&postgres.owner()).await?;
        let db = Database::new(postgres.app(), CONNECTIONS);
        db.check().await?;
        let seconds = Arc::new(AtomicI64::new(1_795_000_000));
        let shown = Arc::clone(&seconds);
        let clock = Clock::of(move || OffsetDateTime::UNIX_EPOCH + Duration::seconds(shown.load(Ordering::Relaxed)));
        let custody = Custody::new(db.clone(), Arc::new(Keyring::open(&dir.join("keys"))?), clock.clone());
        let links = DeviceLinks::new(custody.clone());
        // Nobody speaks to it: the game carries the messages.
        let broker = Broker { host: String::new(), port: 0, client_id: String::new(), credentials: None, tls: None };
        let (snapshot_from, said_within, home) = (SNAPSHOT_FROM, SAID_WITHIN, HomeSettings::default());
        let desk = Desk::new(Publisher { db: db.clone(), links, clock, broker, snapshot_from, said_within, home });
        let snapshots = Snapshots::new(custody.clone());
        Ok(Self { custody, db, desk, snapshots, seconds, _postgres: postgres })
    }

    /// Lets time go by.
    pub fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A tenant of its own with a site and a claimed device.
    pub async fn place(&self) -> Result<Place> {
        let tenant = self.custody.create_tenant("race", Tier::Enterprise, ACTOR).await?;
        let new = NewSite { id: SiteId(Uuid::new_v4()), name: "Plant".to_owned(), time_zone: "UTC".to_owned() };
        let site = self.custody.create_site(tenant, new, ACTOR).await?.id;
        let device = DeviceId(Uuid::new_v4());
        let made =
            self.db.tenant(tenant, move |tx| Box::pin(async move { devices::create(tx, device, site, "door").await }));
        made.await?;
        let expires_at = OffsetDateTime::UNIX_EPOCH;
        let certificate =
            DeviceCertificate { spki_sha256: [1; 32], serial: "00".to_owned(), expires_at, issuer: [0; 32] };
        let claimed = Claimed { hardware_serial: "race".to_owned(), certificate };
        self.custody.device_claimed(tenant, device, claimed).await?;
        let link = self.custody.link(tenant, device).await?;
        let gallery = link.galleries.first().context("the device has no gallery")?.gallery;
        let hub_key = self.custody.keyring().signing().public();
        Ok(Place { tenant, site, device, gallery, link, hub_key })
    }

    /// Revokes the device of a place, so that nothing more is sent to it.
    pub async fn retire(&self, place: &Place) -> Result<()> {
        let device = place.device;
        Ok(self.db.tenant(place.tenant, move |tx| Box::pin(devices::revoke(tx, device))).await?)
    }

    /// Makes somebody with one template. `axis` tells templates apart.
    pub async fn enrol(&self, place: &Place, axis: usize) -> Result<PersonId> {
        let id = PersonId(Uuid::new_v4());
        self.make(place, id).await?;
        self.add_template(place, id, axis).await?;
        Ok(id)
    }

    /// Adds a template to somebody.
    pub async fn add_template(&self, place: &Place, id: PersonId, axis: usize) -> Result<(), KeysError> {
        let mut embedding = Box::new([0.0; 512]);
        embedding[axis % 512] = 1.0;
        let (space_id, model_version) = (SPACE.to_owned(), "1".to_owned());
        let template = NewTemplate { space_id, model_version, quality: 0.5, photographs: 1, embedding, mark: None };
        self.custody.enrol(place.tenant, id, None, template, ACTOR).await.map(drop)
    }

    async fn make(&self, place: &Place, id: PersonId) -> Result<(), KeysError> {
        let profile = Profile { external_id: None, name: "racer".to_owned(), email: None, access: Default::default() };
        self.custody.create_person(place.tenant, id, profile, Some(vec![place.site]), ACTOR).await.map(drop)
    }

    /// Deletes somebody; the version that the gallery has then.
    pub async fn delete(&self, place: &Place, id: PersonId) -> Result<u64> {
        let changed = self.custody.delete_person(place.tenant, id, ACTOR).await?;
        changed.iter().find(|(gallery, _)| *gallery == place.gallery).map(|(_, at)| *at).context("not in the gallery")
    }

    /// Tries what must not work with somebody who was deleted: to make them again under their id, to give them a template, to
    /// delete them again, and to put their record straight into the log.
    pub async fn try_to_bring_back(&self, place: &Place, id: PersonId) -> Result<Refusal> {
        let again = self.make(place, id).await.is_ok();
        let template = self.add_template(place, id, 1).await.is_ok();
        let deleted = self.custody.delete_person(place.tenant, id, ACTOR).await.is_ok();
        let keys = self.custody.tenant_keys(place.tenant).await?;
        let change = Change::Put { kind: Kind::Person, id: RecordId(id.0), rev: 99, body: vec![1] };
        let pending = Pending { change, sealed: Some(vec![1]), person: None, space_id: None };
        let gallery = place.gallery;
        let put = self.db.tenant(place.tenant, move |tx| {
            Box::pin(async move { galleries::append(tx, &keys, &[gallery], &[pending]).await })
        });
        let put = match put.await {
            Err(StoreError::Deleted { .. }) => false,
            Ok(()) => true,
            Err(error) => return Err(error.into()),
        };
        Ok(if again || template || deleted || put { Refusal::Done } else { Refusal::Refused })
    }

    /// Everybody whom the hub has.
    pub async fn people(&self, place: &Place) -> Result<Vec<PersonId>> {
        let page = self.db.tenant(place.tenant, |tx| Box::pin(people::page(tx, None, EVERYBODY)));
        Ok(page.await?.into_iter().map(|person| person.id).collect())
    }

    /// Where the gallery stands.
    pub async fn head(&self, place: &Place) -> Result<(u64, Root)> {
        let gallery = place.gallery;
        let head = self.db.tenant(place.tenant, move |tx| Box::pin(galleries::get(tx, gallery))).await?;
        Ok((head.version, head.root))
    }

    /// The manifest of a snapshot, as `GET …/manifest` answers; `None` when it is gone.
    pub async fn manifest(&self, place: &Place, id: Uuid) -> Result<Option<SnapshotAnswer>> {
        match self.snapshots.manifest(place.tenant, place.device, SnapshotId(id)).await {
            Err(KeysError::NoPersonKey(_)) => Ok(None),
            answer => Ok(answer?),
        }
    }

    /// The content of a snapshot from a byte on, a chunk at most; `None` when it is gone.
    pub async fn content(&self, place: &Place, id: Uuid, from: u64) -> Result<Option<Vec<u8>>> {
        let ready = self.snapshots.content(place.tenant, place.device, SnapshotId(id)).await?;
        let Some(ready) = ready else { return Ok(None) };
        let (index, begin) = ready.locate(from).context("nothing is asked for behind the end")?;
        let chunk = self.snapshots.chunk(&ready, index).await?;
        let skipped = usize::try_from(from - begin)?;
        Ok(chunk.map(|bytes| bytes[skipped..].to_vec()))
    }

    /// Takes out of the log what every device has passed, however young it is; how many records that were.
    pub async fn compact(&self, place: &Place) -> Result<u64> {
        let (gallery, now) = (place.gallery, self.custody_now());
        // The database stamps records with the real time, which the game's does not follow.
        let keep = Keep { live_since: None, written_since: now + Duration::days(36_500), now };
        let done = self.db.tenant(place.tenant, move |tx| Box::pin(compaction::compact(tx, gallery, keep)));
        Ok(done.await?.records)
    }

    fn custody_now(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(self.seconds.load(Ordering::Relaxed))
    }

    /// A message of a device; what the hub answers at once.
    pub async fn hear(&mut self, message: Incoming) -> Vec<Outgoing> {
        self.desk.hear(vec![message]).await
    }

    /// Sends what is new in a gallery, as at the announcement of a commit.
    pub async fn announce(&mut self, place: &Place) -> Vec<Outgoing> {
        self.desk.changed(place.tenant, place.gallery).await;
        self.work().await
    }

    /// Forgets what it has sent, as when its session at the broker begins anew.
    pub async fn session_lost(&mut self) -> Vec<Outgoing> {
        self.desk.start_over().await;
        self.work().await
    }

    /// Every turn that is due.
    pub async fn work(&mut self) -> Vec<Outgoing> {
        let mut out = Vec::new();
        while self.desk.is_busy() {
            out.extend(self.desk.turn().await);
        }
        out
    }
}
