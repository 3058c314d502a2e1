//! The connection pool, the tenant transaction and the checks at start.
//!
//! Three guards keep one tenant's setting from reaching another's query:
//! the setting is local to a transaction (`SET LOCAL`); a transaction runs in a task of its own, so that
//! a client who goes away cannot leave it half-way (sqlx #4385, #4393); and a connection that comes back to the
//! pool still inside a transaction, or with a tenant set, is closed instead of reused.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::Executor as _;
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row as _, Transaction};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use super::idempotency::{self, Attempt};
use super::{SCHEMA_VERSION, StoreError};
use hub_domain::ids::{CommandId, DeviceId, GalleryId, TenantId};
use hub_host::metrics::database::{self as measured, Ended};
use hub_host::traces::{Part, part};

/// How long a caller waits for a free connection before it is told that the hub is busy. Longer than any healthy
/// transaction (milliseconds), shorter than a client's patience.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A statement that runs longer than this is cancelled by the server; the slowest legitimate one (a page of events)
/// takes milliseconds. It bounds how long a lock on a stream or a feed counter can be held by a sick query.
const STATEMENT_TIMEOUT: &str = "15s";

/// A transaction that sits idle this long has lost its task; the server ends it and frees its locks.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "15s";

/// What runs inside a tenant's transaction: `|tx| Box::pin(async move { … })`.
pub trait Work<T, E>: for<'t> FnOnce(&'t mut TenantTx) -> BoxFuture<'t, Result<T, E>> + Send + 'static {}
impl<F, T, E> Work<T, E> for F where F: for<'t> FnOnce(&'t mut TenantTx) -> BoxFuture<'t, Result<T, E>> + Send + 'static {}

/// [`Work`] that keeps its answer to itself and says only whether to commit.
type Untyped = Box<dyn for<'t> FnOnce(&'t mut TenantTx) -> BoxFuture<'t, bool> + Send>;

/// The application's connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
}

/// An open transaction that sees and writes one tenant's rows only.
pub struct TenantTx {
    tenant: TenantId,
    inner: Transaction<'static, Postgres>,
}

impl TenantTx {
    /// Whose transaction this is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The tenant's UUID, for binding.
    pub(super) fn tenant_uuid(&self) -> Uuid {
        self.tenant.0
    }

    /// The connection. Only the store's own modules can reach it.
    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}

impl Database {
    /// Opens a pool as the application role. Connects lazily; [`Database::check`] is the first to connect.
    #[must_use]
    pub fn new(options: PgConnectOptions, max_connections: u32) -> Self {
        let options = options.application_name("cloud-hub").options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_release(|connection, _| Box::pin(is_clean(connection)))
            .connect_lazy_with(options);
        Self { pool }
    }

    /// Runs `work` in one transaction of `tenant`: commits if it returns `Ok`, rolls back if not.
    ///
    /// The transaction runs in a task of its own and therefore ends one way or the other even if this future is
    /// dropped; what it returned is then lost, what it committed is not.
    pub async fn tenant<T, E>(&self, tenant: TenantId, work: impl Work<T, E>) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let said = Arc::new(Mutex::new(None));
        let saying = Arc::clone(&said);
        let work: Untyped = Box::new(move |tx| {
            Box::pin(async move {
                let outcome = work(tx).await;
                let commit = outcome.is_ok();
                *saying.lock() = Some(outcome);
                commit
            })
        });
        self.transaction(tenant, work).await?;
        let outcome = said.lock().take();
        outcome.ok_or(StoreError::Aborted)?
    }

    /// One function for all of the hub's transactions: with the types of each one's answer in it, the task around it would be
    /// compiled a quarter of a thousand times (docs/decisions/0001).
    async fn transaction(&self, tenant: TenantId, work: Untyped) -> Result<(), StoreError> {
        let (pool, attempt) = (self.pool.clone(), idempotency::attempt_of(tenant));
        // In the caller's span: what is logged in there is about the caller's request.
        let transaction = async move { run(&pool, tenant, attempt, work).await }.in_current_span();
        part(Part::Database, tokio::spawn(transaction)).await.map_err(|_| StoreError::Aborted)?
    }

    /// Reads one row of a tenant's in a transaction that takes one round trip, where another takes three: for what each of a
    /// thousand requests a second waits for. The statement has no parameters; the tenant is `current_setting('lintel.tenant')`.
    pub(super) async fn read_row(&self, tenant: TenantId, statement: &'static str) -> Result<PgRow, StoreError> {
        let whole = format!("BEGIN READ ONLY; SET LOCAL lintel.tenant = '{}'; {statement}; COMMIT", tenant.0);
        let read = self.alone(|mut connection| async move {
            sqlx::raw_sql(AssertSqlSafe(whole)).fetch_all(&mut *connection).await
        });
        Ok(read.await?.pop().ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Runs one statement of a tenant's that is a transaction by itself: its first parameter is the tenant, and it calls
    /// `set_config('lintel.tenant', $1::text, true)` before it touches a row.
    pub(super) async fn run_alone(&self, statement: Query<'static, Postgres, PgArguments>) -> Result<(), StoreError> {
        self.alone(|mut connection| async move { statement.execute(&mut *connection).await }).await?;
        Ok(())
    }

    /// Gives a connection to what ends its transaction itself, in a task of its own.
    async fn alone<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(PoolConnection<Postgres>) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, sqlx::Error>> + Send,
    {
        let pool = self.pool.clone();
        let transaction = async move {
            let asked = Instant::now();
            let connection = pool.acquire().await?;
            measured::begun(asked.elapsed());
            let begun = Instant::now();
            let outcome = work(connection).await;
            measured::ended(if outcome.is_ok() { Ended::Committed } else { Ended::Failed }, begun.elapsed());
            outcome
        };
        let transaction = tokio::spawn(transaction.in_current_span());
        Ok(part(Part::Database, transaction).await.map_err(|_| StoreError::Aborted)??)
    }

    /// A connection outside any tenant, for the routing tables.
    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Tells how many connections there are, and how many of them are free.
    pub fn measure(&self) {
        measured::pool(self.pool.size(), self.pool.num_idle(), self.pool.options().get_max_connections());
    }

    /// Checks what the design relies on: the role cannot see across tenants, a commit is on the disk when it
    /// returns, and the schema is this program's.
    pub async fn check(&self) -> Result<(), StoreError> {
        let row = sqlx::query(
            "SELECT rolsuper, rolbypassrls, current_setting('fsync') AS fsync,
                    current_setting('synchronous_commit') AS synchronous_commit,
                    current_setting('full_page_writes') AS full_page_writes
             FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&self.pool)
        .await?;
        if row.try_get("rolsuper")? {
            return Err(StoreError::Unfit(
                "the application role is a superuser, which row-level security does not bind: use lintel_app",
            ));
        }
        if row.try_get("rolbypassrls")? {
            return Err(StoreError::Unfit("the application role has BYPASSRLS: ALTER ROLE lintel_app NOBYPASSRLS"));
        }
        let setting = |name| row.try_get::<String, _>(name);
        if setting("fsync")? != "on" || setting("full_page_writes")? != "on" {
            return Err(StoreError::Unfit(
                "fsync or full_page_writes is off: an acknowledged event could be lost by a power cut",
            ));
        }
        if !matches!(setting("synchronous_commit")?.as_str(), "on" | "remote_apply" | "remote_write" | "local") {
            return Err(StoreError::Unfit("synchronous_commit is off: an acknowledged event could be lost by a crash"));
        }
        let found = sqlx::query_scalar("SELECT version FROM schema_version").fetch_one(&self.pool).await?;
        if found != SCHEMA_VERSION {
            return Err(StoreError::Schema { found, needed: SCHEMA_VERSION });
        }
        Ok(())
    }

    /// Whether the database answers now; for health checks.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.pool.execute("SELECT 1").await?;
        Ok(())
    }

    /// Listens to what transactions announce. The listener reconnects by itself and tells so
    /// ([`Notice::Reconnected`]), since notices may have been missed meanwhile.
    pub async fn listen(&self) -> Result<Listener, StoreError> {
        let mut inner = PgListener::connect_with(&self.pool).await?;
        inner.listen_all([GALLERY_CHANNEL, EVENT_CHANNEL, COMMAND_CHANNEL, TWIN_CHANNEL]).await?;
        Ok(Listener { inner })
    }

    /// Closes the pool and waits until its connections are closed.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// An error is the database's own; what `work` said of itself it keeps.
async fn run(pool: &PgPool, tenant: TenantId, attempt: Option<Attempt>, work: Untyped) -> Result<(), StoreError> {
    let asked = Instant::now();
    // One round trip for both. A tenant's id is hex digits and hyphens: there is nothing to escape.
    let begin = format!("BEGIN; SET LOCAL lintel.tenant = '{}'", tenant.0);
    let mut tx = TenantTx { tenant, inner: pool.begin_with(AssertSqlSafe(begin)).await? };
    measured::begun(asked.elapsed());
    let begun = Instant::now();
    let mut outcome = Ok(());
    let mut commit = work(&mut tx).await;
    if let (Some(attempt), true) = (attempt, commit) {
        outcome = idempotency::note_change(&mut tx, attempt).await;
        commit = outcome.is_ok();
    }
    let how = if !commit {
        // The first error is the one to tell; if the rollback fails too, the connection is closed on its return.
        let _ = tx.inner.rollback().await;
        Ended::RolledBack
    } else if let Err(error) = tx.inner.commit().await {
        outcome = Err(error.into());
        Ended::Failed
    } else {
        Ended::Committed
    };
    measured::ended(how, begun.elapsed());
    outcome
}

/// Whether a returned connection is outside any transaction and has no tenant set.
///
/// Sent by the simple protocol, a lone statement is its own transaction and both clocks read the same instant;
/// inside an older transaction they differ.
async fn is_clean(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT transaction_timestamp() = statement_timestamp()
            AND coalesce(current_setting('lintel.tenant', true), '') = '' AS clean",
    )
    .fetch_one(connection)
    .await?;
    row.try_get("clean")
}

/// The steps from an empty database to the schema of this program.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Brings the schema up to date. `owner` connects as `lintel_owner`, which owns the schema.
pub async fn migrate(owner: &PgConnectOptions) -> Result<(), StoreError> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect_with(owner).await?;
    MIGRATIONS.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

pub(super) const GALLERY_CHANNEL: &str = "lintel_gallery";
pub(super) const EVENT_CHANNEL: &str = "lintel_event";
pub(super) const COMMAND_CHANNEL: &str = "lintel_command";
pub(super) const TWIN_CHANNEL: &str = "lintel_twin";

/// Receives [`Notice`]s.
pub struct Listener {
    inner: PgListener,
}

/// What a committed transaction announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A gallery has new records.
    Gallery(TenantId, GalleryId),
    /// A command was given.
    Command(TenantId, CommandId),
    /// A device's configuration is wished otherwise.
    Twin(TenantId, DeviceId),
    /// A tenant has new events (and perhaps webhook deliveries).
    Event(TenantId),
    /// The connection was lost and is back: look at everything once.
    Reconnected,
}

impl Listener {
    /// Waits for the next notice. An error means that the database is away; call again after a pause.
    pub async fn next(&mut self) -> Result<Notice, StoreError> {
        loop {
            let Some(notification) = self.inner.try_recv().await? else { return Ok(Notice::Reconnected) };
            if let Some(notice) = parse(notification.channel(), notification.payload()) {
                return Ok(notice);
            }
        }
    }
}

fn parse(channel: &str, payload: &str) -> Option<Notice> {
    match channel {
        EVENT_CHANNEL => payload.parse().ok().map(Notice::Event),
        GALLERY_CHANNEL => {
            let (tenant, gallery) = payload.split_once('/')?;
            Some(Notice::Gallery(tenant.parse().ok()?, gallery.parse().ok()?))
        }
        COMMAND_CHANNEL => {
            let (tenant, command) = payload.split_once('/')?;
            Some(Notice::Command(tenant.parse().ok()?, command.parse().ok()?))
        }
        TWIN_CHANNEL => {
            let (tenant, device) = payload.split_once('/')?;
            Some(Notice::Twin(tenant.parse().ok()?, device.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_embedded::parts;
    use hub_embedded::postgres::{EmbeddedPostgres, PostgresOptions};

    #[tokio::test]
    #[allow(clippy::print_stderr, reason = "the list of skipped tests is read from stderr")]
    async fn a_connection_left_in_a_transaction_or_with_a_tenant_is_not_reused() {
        if let Err(why) = parts::postgres_bin(None) {
            eprintln!("SKIPPED a_connection_left_in_a_transaction_or_with_a_tenant_is_not_reused: {why}");
            return;
        }
        let dir = tempfile::Builder::new().prefix("hub-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap();
        let pool = Database::new(postgres.app(), 1).pool;
        let pid = async |spoil: Option<&'static str>| -> i32 {
            let mut connection = pool.acquire().await.unwrap();
            let pid = connection.fetch_one("SELECT pg_backend_pid()").await.unwrap().get(0);
            if let Some(spoil) = spoil {
                connection.execute(sqlx::raw_sql(spoil)).await.unwrap();
            }
            pid
        };
        let clean = pid(None).await;
        assert_eq!(pid(None).await, clean, "a clean connection is reused");
        let mut last = clean;
        for spoil in ["BEGIN", "SELECT set_config('lintel.tenant', 'x', false)"] {
            assert_eq!(pid(Some(spoil)).await, last);
            let next = pid(None).await;
            assert_ne!(next, last, "reused after {spoil}");
            last = next;
        }
        postgres.stop().await;
    }
}
