//! A hub's audit with a Postgres of its own: filled and sealed by the product, tampered with by a superuser, verified by the
//! product again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use cloud_hub::audit::{HeadSettings, Request, Sealer, Trouble, heads, verify};
use cloud_hub::clock::Clock;
use cloud_hub::domain::audit::verifier::{Published, Report, Verifier};
use cloud_hub::domain::audit::{Head, HubKeys};
use cloud_hub::domain::ids::TenantId;
use cloud_hub::domain::tenant::Tier;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::keys::{Custody, Keyring};
use cloud_hub::store::audit::{self, Action, Entry, reading, sealing};
use cloud_hub::store::{Database, StoreError, migrate};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::tampering::Evidence;
use crate::lab::now;

/// Heads, and entries between two of them.
const HEADS: usize = 8;
const BETWEEN: usize = 25;
const HEADS_EVERY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

/// The bench.
pub struct Bench {
    /// The audit as the product left it.
    pub evidence: Evidence,
    keyring: Arc<Keyring>,
    keys: HubKeys,
    db: Database,
    superuser: PgConnection,
    dir: TempDir,
    _postgres: EmbeddedPostgres,
}

impl Bench {
    /// Starts Postgres, writes entries, and lets the sealer seal and sign them.
    pub async fn open() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("chain-").tempdir_in("/tmp")?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path())?).await?;
        migrate(&postgres.owner()).await?;
        let db = Database::new(postgres.app(), 4);
        db.check().await?;
        let keyring = Arc::new(Keyring::open(&dir.path().join("keys"))?);
        let custody = Custody::new(db.clone(), Arc::clone(&keyring), Clock::system());
        let tenant = custody.create_tenant("chain", Tier::Enterprise, "lab").await?;
        let public = keyring.signing().public();
        let key: [u8; 32] = public.public_key.0.as_slice().try_into()?;
        let keys = HubKeys::from([(public.key_id, key)]);
        fill(&db, &keyring, tenant, &dir.path().join("heads")).await?;
        let mut superuser = PgConnection::connect_with(&postgres.superuser()).await?;
        // Whoever owns the database takes its own checks away first.
        for statement in [
            "SET session_replication_role = replica",
            "ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_chain_unique",
            "ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_place_whole",
        ] {
            superuser.execute(statement).await?;
        }
        let evidence = read(&db, tenant, &dir.path().join("heads")).await?;
        Ok(Self { evidence, keyring, keys, db, superuser, dir, _postgres: postgres })
    }

    /// A head as the hub signs it.
    #[must_use]
    pub fn sign(&self, tenant: TenantId, number: u64, last: (u64, [u8; 32])) -> Head {
        self.keyring.signing().sign_head(tenant, number, last, Clock::system().now())
    }

    /// What the rules say of a state, in memory.
    #[must_use]
    pub fn judge(&self, state: &Evidence) -> Report {
        let heads = Verifier::new(state.tenant, &state.heads, state.published, &self.keys, false);
        walk(heads, state)
    }

    /// What they would say without the heads outside: the control.
    #[must_use]
    pub fn judge_without_heads(&self, state: &Evidence) -> Report {
        walk(Verifier::new(state.tenant, &[], Published::default(), &self.keys, false), state)
    }

    /// Puts a state into the database and the folder, and verifies as `cloud-hub audit verify` does.
    pub async fn verify_through_database(&mut self, state: &Evidence) -> Result<Report> {
        self.replace(state).await?;
        let folder = self.dir.path().join("tampered");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        heads::append(&folder, &state.heads)?;
        let request =
            Request { tenant: Some(state.tenant), dirs: vec![folder], keys: self.keys.clone(), archived: false };
        let verified = verify(&self.db, request, Clock::system().now(), |_| {}).await?;
        ensure!(verified.bad_lines.is_empty() && verified.reports.len() == 1, "the lab's own lines are whole");
        Ok(verified.reports.into_iter().next().expect("there is one"))
    }

    async fn replace(&mut self, state: &Evidence) -> Result<()> {
        self.superuser.execute("TRUNCATE audit_entry").await?;
        let rows = &state.rows;
        let positions = rows.iter().map(|row| i64::try_from(row.link.position)).collect::<Result<Vec<_>, _>>()?;
        sqlx::query(
            "INSERT INTO audit_entry (tenant_id, id, at, actor, action, object_kind, object_id, detail,
                                      chain_position, previous_hash, entry_hash)
             SELECT $1, r.id, r.at, r.actor, r.action, r.kind, r.object, r.detail::jsonb, r.position, r.previous, r.hash
             FROM unnest($2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[],
                         $9::bigint[], $10::bytea[], $11::bytea[])
                  AS r (id, at, actor, action, kind, object, detail, position, previous, hash)",
        )
        .bind(state.tenant.0)
        .bind(rows.iter().map(|row| row.entry.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.entry.at).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.entry.actor.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.entry.action.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.entry.object_kind.clone()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.entry.object_id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.entry.detail.clone()).collect::<Vec<_>>())
        .bind(positions)
        .bind(rows.iter().map(|row| row.link.previous.to_vec()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.link.hash.to_vec()).collect::<Vec<_>>())
        .execute(&mut self.superuser)
        .await?;
        sqlx::query("DELETE FROM audit_head").execute(&mut self.superuser).await?;
        sqlx::query(
            "INSERT INTO audit_head (tenant_id, number, position, entry_hash, signed_at, key_id, signature, published_at)
             SELECT $1, $2, 1, sha256('x'), now(), $1, sha256('x') || sha256('x'), now() WHERE $2 > 0",
        )
        .bind(state.tenant.0)
        .bind(i64::try_from(state.published.after)?)
        .execute(&mut self.superuser)
        .await?;
        Ok(())
    }
}

fn walk(mut verifier: Verifier, state: &Evidence) -> Report {
    for row in &state.rows {
        verifier.entry(row.clone());
    }
    // As if all of it were of this minute: that there is no head at all is not what is to be found here.
    verifier.finish(None, false)
}

async fn fill(db: &Database, keyring: &Arc<Keyring>, tenant: TenantId, dir: &Path) -> Result<()> {
    let sealer = Sealer {
        db: db.clone(),
        keyring: Arc::clone(keyring),
        clock: Clock::system(),
        heads: HeadSettings { dir: dir.to_owned(), every: HEADS_EVERY, log: false },
        trouble: watch::channel(Trouble::default()).0,
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(sealer.run(stop.clone()));
    for _ in 0..HEADS {
        db.tenant(tenant, |tx| Box::pin(async move { write(tx).await })).await?;
        headed(db, tenant).await?;
    }
    stop.cancel();
    Ok(task.await?)
}

async fn write(tx: &mut cloud_hub::store::TenantTx) -> Result<(), StoreError> {
    for number in 0..BETWEEN {
        let detail = serde_json::json!({ "number": number, "score": 0.1, "names": ["b", "a"] });
        let object_id = (number % 3 > 0).then(Uuid::new_v4);
        let (actor, action, object_kind) = ("operator", Action::PersonRead, "person");
        audit::write(tx, Entry { actor, action, object_kind, object_id, detail }).await?;
    }
    Ok(())
}

/// Waits until a published head covers every entry.
async fn headed(db: &Database, tenant: TenantId) -> Result<()> {
    let begun = now();
    loop {
        let look = db.tenant(tenant, |tx| {
            Box::pin(async move {
                let waiting = reading::unplaced(tx, Clock::system().now() + time::Duration::DAY).await?;
                let last = sealing::last(tx).await?;
                let head = sealing::head(tx).await?.filter(|head| head.published);
                Ok::<_, StoreError>(waiting.is_none() && last == head.map(|head| (head.head.position, head.head.hash)))
            })
        });
        if look.await? {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "no head within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn read(db: &Database, tenant: TenantId, dir: &Path) -> Result<Evidence> {
    let (rows, _) = db.tenant(tenant, |tx| Box::pin(reading::sealed(tx, reading::BEGINNING, 1_000_000))).await?;
    let mut found = heads::Found::default();
    found.read(dir, Some(tenant))?;
    let heads = found.heads.remove(&tenant).unwrap_or_default();
    let number = heads.last().map_or(0, |head| head.number);
    ensure!(heads.len() >= HEADS && rows.len() > HEADS * BETWEEN, "{} heads of {} entries", heads.len(), rows.len());
    ensure!(heads.last().map(|head| head.position) == rows.last().map(|row| row.link.position), "not all is signed");
    Ok(Evidence { tenant, rows, heads, published: Published { before: number, after: number } })
}
