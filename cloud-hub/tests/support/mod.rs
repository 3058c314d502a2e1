//! A hub without its outer shell: a real Postgres of its own, keys in a temporary directory, and people to put in.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

mod cluster;

use std::sync::Arc;

use cloud_hub::clock::Clock;
use cloud_hub::domain::certificate::DeviceCertificate;
use cloud_hub::domain::ids::{DeviceId, PersonId, SiteId, TemplateId, TenantId};
use cloud_hub::domain::people::Profile;
use cloud_hub::domain::tenant::Tier;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::keys::{Claimed, Custody, DeviceLinks, Keyring, LinkMaterial, NewSite, NewTemplate};
use cloud_hub::store::{Database, devices, migrate};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::LinkKeys;

use self::cluster::data_dir;
pub(crate) use self::cluster::skipped;

/// The space of every template here.
pub const SPACE: &str = "test-space";

/// A database with schema, and keys.
pub struct TestHub {
    pub dir: tempfile::TempDir,
    pub postgres: EmbeddedPostgres,
    pub db: Database,
    pub custody: Custody,
    pub links: DeviceLinks,
    pub clock: Clock,
}

/// A tenant with one site and a claimed device.
pub struct Place {
    pub tenant: TenantId,
    pub site: SiteId,
    pub device: DeviceId,
    pub link: LinkMaterial,
    pub keys: LinkKeys,
}

impl TestHub {
    pub async fn start() -> Self {
        let dir = data_dir();
        let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap();
        migrate(&postgres.owner()).await.unwrap();
        let db = Database::new(postgres.app(), 8);
        db.check().await.unwrap();
        let clock = Clock::system();
        let keyring = Arc::new(Keyring::open(&dir.path().join("keys")).unwrap());
        let custody = Custody::new(db.clone(), keyring, clock.clone());
        let links = DeviceLinks::new(custody.clone());
        Self { dir, postgres, db, custody, links, clock }
    }

    pub async fn superuser(&self) -> PgConnection {
        PgConnection::connect_with(&self.postgres.superuser()).await.unwrap()
    }

    pub async fn app(&self) -> PgConnection {
        PgConnection::connect_with(&self.postgres.app()).await.unwrap()
    }

    pub async fn tenant(&self) -> TenantId {
        self.custody.create_tenant("tenant", Tier::Enterprise, "test").await.unwrap()
    }

    pub async fn site(&self, tenant: TenantId, name: &str) -> SiteId {
        let site = NewSite { id: SiteId(Uuid::new_v4()), name: name.to_owned(), time_zone: "Asia/Jakarta".to_owned() };
        self.custody.create_site(tenant, site, "test").await.unwrap().id
    }

    pub async fn device(&self, tenant: TenantId, site: SiteId) -> DeviceId {
        let device = DeviceId(Uuid::new_v4());
        let name = device.to_string();
        self.db
            .tenant(tenant, move |tx| Box::pin(async move { devices::create(tx, device, site, &name).await }))
            .await
            .unwrap();
        let claimed = Claimed {
            hardware_serial: "serial".to_owned(),
            certificate: DeviceCertificate {
                spki_sha256: [1; 32],
                serial: "00".to_owned(),
                expires_at: OffsetDateTime::UNIX_EPOCH,
                issuer: [0; 32],
            },
        };
        self.custody.device_claimed(tenant, device, claimed).await.unwrap();
        device
    }

    /// A tenant, a site, a device.
    pub async fn place(&self) -> Place {
        let tenant = self.tenant().await;
        let site = self.site(tenant, "site").await;
        let device = self.device(tenant, site).await;
        let link = self.custody.link(tenant, device).await.unwrap();
        let keys = LinkKeys::derive(&link.link_key, wire_contract::DeviceId(device.0), link.link_epoch);
        Place { tenant, site, device, link, keys }
    }

    pub async fn person(&self, tenant: TenantId, name: &str) -> PersonId {
        let profile = Profile {
            external_id: Some(name.to_owned()),
            name: format!("Mx {name}"),
            email: None,
            access: Default::default(),
        };
        self.custody.create_person(tenant, PersonId(Uuid::new_v4()), profile, None, "test").await.unwrap().id
    }

    pub async fn enrol(&self, tenant: TenantId, person: PersonId, axis: usize) -> TemplateId {
        self.custody.enrol(tenant, person, None, template(axis), "test").await.unwrap()
    }
}

/// The hub's keys as in a backup from before its people: the same secrets, an empty key store.
pub fn keys_without_people(hub: &TestHub) -> Arc<Keyring> {
    let (from, to) = (hub.dir.path().join("keys"), hub.dir.path().join("keys-of-a-backup"));
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "redb") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    Arc::new(Keyring::open(&to).unwrap())
}

/// A template along one axis of the space.
pub fn template(axis: usize) -> NewTemplate {
    let mut embedding = Box::new([0.0; 512]);
    embedding[axis] = 1.0;
    NewTemplate {
        space_id: SPACE.to_owned(),
        model_version: "1".to_owned(),
        quality: 0.5,
        photographs: 1,
        embedding,
        mark: None,
    }
}
