//! A hub without its outer shell that has at least two rows of every sealed column, in two tenants.
//!
//! In: a Postgres of its own. Out: where seals lie, by the catalogue; they can be exchanged, as whoever has the database could.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use cloud_hub::clock::Clock;
use cloud_hub::domain::certificate::DeviceCertificate;
use cloud_hub::domain::idempotency::Key;
use cloud_hub::domain::ids::{DeviceId, EndpointId, GalleryId, PersonId, SessionId, SiteId, SnapshotId, TenantId};
use cloud_hub::domain::people::Profile;
use cloud_hub::domain::permission::Role;
use cloud_hub::domain::session::{Kind as SessionKind, Seen};
use cloud_hub::domain::tenant::Tier;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::keys::{
    Beginning, Claim, Claimed, Custody, Entered, Keyring, LoggedIn, NewSite, NewTemplate, NotThem, Snapshots,
    WantedSession,
};
use cloud_hub::store::logins::Kind;
use cloud_hub::store::{Database, devices, migrate};
use face_core::Embedding;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use time::OffsetDateTime;
use uuid::Uuid;

/// The space of every template here.
pub const SPACE: &str = "lab-space";
const PASSWORD: &str = "correct horse battery";

/// A tenant, and two of each of its things.
pub struct Owner {
    /// Who.
    pub tenant: TenantId,
    pub(super) people: Vec<PersonId>,
    pub(super) devices: Vec<DeviceId>,
    pub(super) galleries: Vec<GalleryId>,
    pub(super) sessions: Vec<SessionId>,
    pub(super) snapshots: Vec<(DeviceId, SnapshotId)>,
    pub(super) users: Vec<LoggedIn>,
    /// By which its answers that are kept are asked for.
    pub(super) name: &'static str,
}

/// A seal in the database.
#[derive(Clone, Debug)]
pub struct Place {
    /// `table.column`.
    pub column: String,
    /// Whose; nobody's in the case of keys of access tokens.
    pub tenant: Option<TenantId>,
    /// The other columns of the row, for the statement that changes it.
    row: String,
    seal: Vec<u8>,
}

/// Where the same record may be twice: in its table, and in the log of each gallery.
const COPIED: [&str; 4] = ["anchor.sealed", "gallery_record.sealed", "person.profile_sealed", "template.sealed"];

impl Place {
    /// Whether it is the same.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (&self.column, &self.row) == (&other.column, &other.row)
    }

    /// Whether both may be seals of one record.
    #[must_use]
    pub fn may_be_a_copy_of(&self, other: &Self) -> bool {
        let copied = |place: &Self| COPIED.contains(&place.column.as_str());
        self.tenant == other.tenant && copied(self) && copied(other)
    }
}

/// The hub.
pub struct Sealed {
    pub(super) custody: Custody,
    pub(super) db: Database,
    pub(super) dir: TempDir,
    /// The tenants.
    pub owners: Vec<Owner>,
    superuser: PgConnection,
    _postgres: EmbeddedPostgres,
}

impl Sealed {
    /// Starts Postgres and makes everything.
    pub async fn open() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sealed-").tempdir_in("/tmp")?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path())?).await?;
        migrate(&postgres.owner()).await?;
        let db = Database::new(postgres.app(), 4);
        let keyring = Arc::new(Keyring::open(&dir.path().join("keys"))?);
        let custody = Custody::new(db.clone(), keyring, Clock::system());
        let mut superuser = PgConnection::connect_with(&postgres.superuser()).await?;
        let mut owners = Vec::new();
        for name in ["one", "other"] {
            owners.push(furnish(&db, &custody, &mut superuser, name).await?);
        }
        custody.rotate_token_keys(false, "lab").await?;
        // As whoever has the database does first.
        sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await?;
        Ok(Self { custody, db, dir, owners, superuser, _postgres: postgres })
    }

    /// Every sealed column that there is, by the catalogue.
    pub async fn columns(&mut self) -> Result<Vec<String>> {
        let found = sqlx::query_scalar(
            "SELECT table_name || '.' || column_name FROM information_schema.columns
             WHERE table_schema = 'public' AND data_type = 'bytea' AND column_name ~ 'sealed' ORDER BY 1",
        );
        Ok(found.fetch_all(&mut self.superuser).await?)
    }

    /// Every seal of a column.
    pub async fn places(&mut self, column: &str) -> Result<Vec<Place>> {
        let (table, name) = column.split_once('.').with_context(|| column.to_owned())?;
        let of_tenants = table != "token_key";
        let tenant = if of_tenants { "tenant_id" } else { "NULL::uuid" };
        let keys: Vec<String> = sqlx::query_scalar(
            "SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
             WHERE i.indrelid = $1::regclass AND i.indisprimary",
        )
        .bind(table)
        .fetch_all(&mut self.superuser)
        .await?;
        let row: Vec<String> = keys.iter().map(|key| format!("'{key} = ' || quote_literal({key})")).collect();
        let statement = format!(
            "SELECT {tenant}, {}, {name} FROM {table} WHERE {name} IS NOT NULL ORDER BY 2",
            row.join(" || ' AND ' || ")
        );
        let rows: Vec<(Option<Uuid>, String, Vec<u8>)> =
            sqlx::query_as(AssertSqlSafe(statement)).fetch_all(&mut self.superuser).await?;
        let place = |(tenant, row, seal): (Option<Uuid>, String, Vec<u8>)| Place {
            column: column.to_owned(),
            tenant: tenant.map(TenantId),
            row,
            seal,
        };
        Ok(rows.into_iter().map(place).collect())
    }

    /// Puts each seal in the other's place.
    pub async fn exchange(&mut self, one: &Place, other: &Place) -> Result<()> {
        self.put(one, &other.seal).await?;
        self.put(other, &one.seal).await
    }

    /// Puts both back.
    pub async fn put_back(&mut self, one: &Place, other: &Place) -> Result<()> {
        self.put(one, &one.seal).await?;
        self.put(other, &other.seal).await
    }

    async fn put(&mut self, place: &Place, seal: &[u8]) -> Result<()> {
        let (table, name) = place.column.split_once('.').with_context(|| place.column.clone())?;
        let statement = format!("UPDATE {table} SET {name} = $1 WHERE {}", place.row);
        let done = sqlx::query(AssertSqlSafe(statement)).bind(seal).execute(&mut self.superuser).await?;
        ensure!(done.rows_affected() == 1, "{} {}: {} rows", place.column, place.row, done.rows_affected());
        Ok(())
    }

    /// The control: seals that are opened as what they say they are, and not as what their place says, are taken in the wrong place.
    pub async fn wrong_without_place(&mut self) -> Result<u64> {
        let mut wrong = 0;
        for tenant in self.owners.iter().map(|owner| owner.tenant).collect::<Vec<_>>() {
            let keys = self.custody.tenant_keys(tenant).await?;
            let webhooks = self.webhooks(tenant).await?;
            for (place, (of, sealed)) in webhooks.iter().zip(webhooks.iter().rev()) {
                wrong += u64::from(place.0 != *of && keys.open_webhook_secret(*of, sealed).is_ok());
            }
        }
        Ok(wrong)
    }

    /// The ids and secrets of webhooks, as the notifier reads them.
    pub(super) async fn webhooks(&mut self, tenant: TenantId) -> Result<Vec<(EndpointId, Vec<u8>)>> {
        let found: Vec<(Uuid, Vec<u8>)> =
            sqlx::query_as("SELECT id, secret_sealed FROM webhook_endpoint WHERE tenant_id = $1 ORDER BY id")
                .bind(tenant.0)
                .fetch_all(&mut self.superuser)
                .await?;
        Ok(found.into_iter().map(|(id, sealed)| (EndpointId(id), sealed)).collect())
    }
}

async fn furnish(db: &Database, custody: &Custody, superuser: &mut PgConnection, name: &'static str) -> Result<Owner> {
    let tenant = custody.create_tenant(name, Tier::Enterprise, "lab").await?;
    let mut owner = Owner {
        tenant,
        people: Vec::new(),
        devices: Vec::new(),
        galleries: Vec::new(),
        sessions: Vec::new(),
        snapshots: Vec::new(),
        users: Vec::new(),
        name,
    };
    for number in 0..2_usize {
        let site = NewSite { id: SiteId(Uuid::new_v4()), name: format!("site {number}"), time_zone: "UTC".to_owned() };
        let site = custody.create_site(tenant, site, "lab").await?.id;
        owner.devices.push(device(db, custody, tenant, site).await?);
        let url = format!("https://{name}-{number}.example/");
        custody.create_webhook(tenant, EndpointId(Uuid::new_v4()), &url, None, "lab").await?;
        owner.users.push(user(custody, tenant, &format!("{name}-{number}")).await?);
        answer(custody, tenant, &format!("{name}-{number}")).await?;
    }
    for number in 0..2_usize {
        let profile = Profile {
            external_id: Some(format!("{name}-{number}")),
            name: format!("Mx {name} {number}"),
            email: None,
            access: Default::default(),
        };
        let person = custody.create_person(tenant, PersonId(Uuid::new_v4()), profile, None, "lab").await?.id;
        custody.enrol(tenant, person, None, template(number), "lab").await?;
        let not_them = NotThem {
            space_id: SPACE.to_owned(),
            model_version: "1".to_owned(),
            quality: 0.5,
            embedding: template(20 + number).embedding,
            confirmed: true,
        };
        custody.add_anchor(tenant, person, not_them, "lab").await?;
        owner.people.push(person);
        for whose in [None, Some(person)] {
            owner.sessions.push(session(custody, tenant, whose, number).await?);
        }
    }
    for device in owner.devices.clone() {
        let gallery =
            custody.link(tenant, device).await?.galleries.first().context("a device without a gallery")?.gallery;
        owner.galleries.push(gallery);
        let id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO gallery_snapshot (tenant_id, id, device_id, gallery_id, epoch, version, created_at, expires_at)
             SELECT tenant_id, $3, $4, id, epoch, version, now(), now() + interval '1 day' FROM gallery WHERE tenant_id = $1 AND id = $2",
        )
        .bind(tenant.0)
        .bind(gallery.0)
        .bind(id)
        .bind(device.0)
        .execute(&mut *superuser)
        .await?;
        let answer = Snapshots::new(custody.clone()).manifest(tenant, device, SnapshotId(id)).await?;
        ensure!(answer.is_some(), "a snapshot was not cut");
        owner.snapshots.push((device, SnapshotId(id)));
    }
    // The seed of the rotation, at its first use.
    custody.rebuild_vectors(tenant).await?;
    Ok(owner)
}

async fn device(db: &Database, custody: &Custody, tenant: TenantId, site: SiteId) -> Result<DeviceId> {
    let device = DeviceId(Uuid::new_v4());
    let name = device.to_string();
    db.tenant(tenant, move |tx| Box::pin(async move { devices::create(tx, device, site, &name).await })).await?;
    let certificate = DeviceCertificate {
        spki_sha256: [1; 32],
        serial: "00".to_owned(),
        expires_at: OffsetDateTime::UNIX_EPOCH,
        issuer: [0; 32],
    };
    let claimed = Claimed { hardware_serial: "serial".to_owned(), certificate };
    custody.device_claimed(tenant, device, claimed).await?;
    Ok(device)
}

async fn user(custody: &Custody, tenant: TenantId, login: &str) -> Result<LoggedIn> {
    let password = || PASSWORD.to_owned().into();
    let invited = custody.create_user(tenant, login, Role::Owner, "lab").await?;
    ensure!(custody.accept_invitation(&invited.token, password()).await?, "an invitation is refused");
    let Entered::In(granted) = custody.log_in(tenant, login, password(), Kind::Tokens).await? else {
        bail!("{login} cannot log in")
    };
    let token = granted.access_token.context("no access token")?;
    let user = custody.recognise_token(&token).await?.context("an access token is refused")?;
    let again = custody.recognise_token(&token).await?.context("an access token is refused")?;
    let begun = custody.begin_totp(user, password()).await?;
    ensure!(matches!(begun, Beginning::Begun(_)), "a second factor cannot be begun");
    Ok(again)
}

/// An answer that is kept to be given again.
async fn answer(custody: &Custody, tenant: TenantId, text: &str) -> Result<()> {
    let key = Key::parse([text.as_bytes()].into_iter())?;
    let Claim::CarryOut(attempt) = custody.claim_key(tenant, "lab", &key, text).await? else {
        bail!("{text} was asked before")
    };
    Ok(custody.keep_answer(attempt, 201, text.as_bytes().to_vec().into(), Some(Vec::new())).await?)
}

async fn session(custody: &Custody, tenant: TenantId, person: Option<PersonId>, number: usize) -> Result<SessionId> {
    let kind = if person.is_some() { SessionKind::Enrolment } else { SessionKind::Identification };
    let wanted = WantedSession { kind, person, allow_duplicate: true, require_liveness: false, max_attempts: 3 };
    let id = custody.open_session(tenant, wanted, "lab").await?.session.id;
    let revision = custody.session(tenant, id).await?.session.revision;
    let seen = Seen {
        accepted: true,
        quality: Some(0.5),
        reasons: Vec::new(),
        look: None,
        embedding: Some(Embedding::from_raw(*template(number).embedding)?),
    };
    custody.add_frames(tenant, id, (revision, SPACE), vec![seen], "lab").await?;
    Ok(id)
}

/// A template along one axis of the space.
fn template(axis: usize) -> NewTemplate {
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
