//! The hub's own Postgres: made by `initdb` on the first start, reached over a Unix socket, never over a network.
//!
//! Three roles: the cluster's superuser `postgres` (by peer rule, for the operating system user of the hub alone),
//! `lintel_owner` (owns the schema, runs migrations) and `lintel_app` (serves; without BYPASSRLS), the last two by
//! SCRAM with random passwords in 0600 files. Deliberately absent: the schema (migrations are the store's).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, test_kill_process};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::error::{EmbeddedError, io_error};
use super::process::ChildSpec;
use super::service_user::{self, ServiceUser};
use super::supervise::{self, Supervised};
use super::{Layout, MIN_FREE_BYTES, files, leftover, parts};
use hub_host::secret_file;

/// The database of the hub.
pub const DATABASE: &str = "lintel";
/// Runs migrations and owns the tables.
pub const OWNER_ROLE: &str = "lintel_owner";
/// Serves requests under row-level security.
pub const APP_ROLE: &str = "lintel_app";

/// Crash recovery after a kill replays at most `max_wal_size` of log, which takes seconds on a slow disk.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A fast shutdown writes a checkpoint; longer than this and it is killed, which recovery mends at the next start.
const STOP_GRACE: Duration = Duration::from_secs(4);

/// Settings of the cluster. Small on purpose: one hub on one machine, next to cameras and models.
/// `synchronous_commit` and `fsync` stay on: an acknowledged event must survive a power cut.
const SETTINGS: &str = "\
listen_addresses = ''
port = 5432
unix_socket_permissions = 0700
max_connections = 160
shared_buffers = 48MB
work_mem = 4MB
maintenance_work_mem = 32MB
max_wal_size = 256MB
min_wal_size = 48MB
wal_level = minimal
max_wal_senders = 0
checkpoint_completion_target = 0.9
fsync = on
full_page_writes = on
synchronous_commit = on
jit = off
max_parallel_workers_per_gather = 0
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
log_line_prefix = ''
password_encryption = 'scram-sha-256'
idle_in_transaction_session_timeout = '60s'
";

/// How to make and run the embedded Postgres.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where things lie.
    pub layout: Layout,
    /// The `bin` directory with `postgres` and `initdb`.
    pub bin: PathBuf,
    /// The user to run as, or `None` to stay oneself.
    pub user: Option<ServiceUser>,
    /// Free bytes below which the start is refused.
    pub min_free_bytes: u64,
}

impl PostgresOptions {
    /// Options for a data directory, with the programs that `scripts/setup` installed. Makes the directories.
    pub fn for_data_dir(root: &Path) -> Result<Self, EmbeddedError> {
        let layout = Layout::new(root);
        let user = layout.prepare()?;
        Ok(Self { layout, bin: parts::postgres_bin(None)?, user, min_free_bytes: MIN_FREE_BYTES })
    }

    fn cluster_dir(&self) -> PathBuf {
        self.layout.postgres_dir().join("data")
    }
}

/// A running Postgres, ready for connections, with database, roles and the vector extension in place.
///
/// ```no_run
/// # async fn example(dir: &std::path::Path) -> Result<(), hub_embedded::EmbeddedError> {
/// use hub_embedded::postgres::{EmbeddedPostgres, PostgresOptions};
/// let postgres = EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir)?).await?;
/// let migrations_run_with = postgres.owner();
/// let the_hub_serves_with = postgres.app();
/// postgres.stop().await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EmbeddedPostgres {
    options: PostgresOptions,
    owner_password: String,
    app_password: String,
    process: Supervised,
}

impl EmbeddedPostgres {
    /// Starts Postgres, making the cluster first if there is none; about 2 s the first time, 0.3 s later.
    ///
    /// Fails with what is missing (programs, pgvector, space, a passable path) or with Postgres' own last words.
    pub async fn start(options: PostgresOptions) -> Result<Self, EmbeddedError> {
        if let Some(user) = &options.user {
            service_user::check_traversable(&options.bin, user)?;
        }
        files::check_space(options.layout.root(), options.min_free_bytes)?;
        stop_leftover(&options.cluster_dir()).await?;
        ensure_cluster(&options).await?;
        write_settings(&options)?;
        let process = supervise::start(&server(&options), Signal::INT, STOP_GRACE)?;
        let owner_password = files::secret(&options.layout.secrets_dir().join("postgres-owner.password"))?;
        let app_password = files::secret(&options.layout.secrets_dir().join("postgres-app.password"))?;
        let postgres = Self { options, owner_password, app_password, process };
        postgres.wait_ready().await?;
        postgres.bootstrap().await?;
        Ok(postgres)
    }

    /// Connects as the cluster's superuser to the hub's database: for bootstrap and tests, never for serving.
    #[must_use]
    pub fn superuser(&self) -> PgConnectOptions {
        self.role("postgres")
    }

    /// Connects as the schema's owner.
    #[must_use]
    pub fn owner(&self) -> PgConnectOptions {
        self.role(OWNER_ROLE).password(&self.owner_password)
    }

    /// Connects as the serving role, which row-level security binds.
    #[must_use]
    pub fn app(&self) -> PgConnectOptions {
        self.role(APP_ROLE).password(&self.app_password)
    }

    /// A URL for `psql` and drivers: superuser by peer rule, so it holds no secret and works for the hub's user only.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        let socket_dir = self.options.layout.postgres_socket_dir();
        let host: String = url::form_urlencoded::byte_serialize(socket_dir.to_string_lossy().as_bytes()).collect();
        format!("postgresql:///{DATABASE}?host={host}&user=postgres")
    }

    /// The server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child().pid()
    }

    /// Stops with a fast shutdown and returns when the server has ended.
    pub async fn stop(self) {
        self.process.stop().await;
    }

    fn role(&self, role: &str) -> PgConnectOptions {
        role_at(&self.options.layout, role)
    }

    async fn wait_ready(&self) -> Result<(), EmbeddedError> {
        let child = self.process.child();
        let probe = self.superuser().database("postgres");
        let attempts = async {
            loop {
                match PgConnection::connect_with(&probe).await {
                    Ok(connection) => {
                        drop(connection.close().await);
                        return;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let why = tokio::select! {
            () = attempts => return Ok(()),
            status = child.wait() => format!("it ended with {status}"),
            () = tokio::time::sleep(READY_WITHIN) => format!("no answer within {} s", READY_WITHIN.as_secs()),
        };
        Err(EmbeddedError::NotReady { part: "postgres", why, log: child.recent_log() })
    }

    /// Roles, database and extension; every statement may run again, so that a start after a crash completes it.
    async fn bootstrap(&self) -> Result<(), EmbeddedError> {
        let mut cluster = connect(&self.superuser().database("postgres")).await?;
        for (role, password) in [(OWNER_ROLE, &self.owner_password), (APP_ROLE, &self.app_password)] {
            // Role names are constants and passwords hex digits: there is nothing to escape.
            let statement = format!(
                "DO $$ BEGIN
                   IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role}; END IF;
                 END $$;
                 ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD '{password}'"
            );
            execute(&mut cluster, "make the roles", statement).await?;
        }
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(DATABASE)
            .fetch_one(&mut cluster)
            .await
            .map_err(|source| EmbeddedError::Database { action: "look for the database", source })?;
        if !exists {
            execute(&mut cluster, "make the database", format!("CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}"))
                .await?;
        }
        drop(cluster.close().await);
        self.ensure_vector().await
    }

    async fn ensure_vector(&self) -> Result<(), EmbeddedError> {
        let mut database = connect(&self.superuser()).await?;
        let available: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')")
                .fetch_one(&mut database)
                .await
                .map_err(|source| EmbeddedError::Database { action: "look for pgvector", source })?;
        if !available {
            return Err(EmbeddedError::NoPgvector { bin: self.options.bin.clone() });
        }
        let statement = String::from("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS vector");
        execute(&mut database, "add the vector extension", statement).await?;
        drop(database.close().await);
        Ok(())
    }
}

/// Connects as the serving role to a server that another process runs in this data directory.
pub fn app_of(layout: &Layout) -> Result<PgConnectOptions, EmbeddedError> {
    let path = layout.secrets_dir().join("postgres-app.password");
    let password = secret_file::load(&path)?;
    Ok(role_at(layout, APP_ROLE).password(String::from_utf8_lossy(&password).trim()))
}

fn role_at(layout: &Layout, role: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(layout.postgres_socket_dir())
        .port(5432)
        .username(role)
        .database(DATABASE)
        .disable_statement_logging()
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, EmbeddedError> {
    PgConnection::connect_with(options)
        .await
        .map_err(|source| EmbeddedError::Database { action: "connect as superuser", source })
}

async fn execute(connection: &mut PgConnection, action: &'static str, sql: String) -> Result<(), EmbeddedError> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
        .await
        .map(drop)
        .map_err(|source| EmbeddedError::Database { action, source })
}

/// The environment of every Postgres program: nothing of the hub's own.
fn environment() -> Vec<(OsString, OsString)> {
    [("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("TZ", "UTC")]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .to_vec()
}

fn server(options: &PostgresOptions) -> ChildSpec {
    ChildSpec {
        name: "postgres",
        program: options.bin.join("postgres"),
        args: vec![OsString::from("-D"), options.cluster_dir().into()],
        env: environment(),
        user: options.user.clone(),
        // SIGINT is a fast shutdown: sessions are cut, a checkpoint is written.
        death_signal: Signal::INT,
    }
}

/// Makes the cluster beside its final place and renames it, so that a killed `initdb` leaves nothing half made.
async fn ensure_cluster(options: &PostgresOptions) -> Result<(), EmbeddedError> {
    let cluster = options.cluster_dir();
    if cluster.join("PG_VERSION").is_file() {
        return Ok(());
    }
    let fresh = options.layout.postgres_dir().join("data.new");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(io_error("remove the unfinished", &fresh))?;
    }
    let password_file = options.layout.postgres_dir().join("superuser.password");
    let password = files::secret(&options.layout.secrets_dir().join("postgres-superuser.password"))?;
    files::write_file(&password_file, password.as_bytes(), 0o600, options.user.as_ref())?;
    let outcome = initdb(options, &fresh, &password_file).await;
    std::fs::remove_file(&password_file).map_err(io_error("remove", &password_file))?;
    outcome?;
    std::fs::rename(&fresh, &cluster).map_err(io_error("rename the new cluster to", &cluster))
}

async fn initdb(options: &PostgresOptions, fresh: &Path, password_file: &Path) -> Result<(), EmbeddedError> {
    let program = options.bin.join("initdb");
    let mut args: Vec<OsString> = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        .iter()
        .chain(&["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"])
        .map(OsString::from)
        .collect();
    args.push(joined("--pwfile=", password_file));
    args.push(joined("--pgdata=", fresh));
    let spec = ChildSpec {
        name: "initdb",
        program: program.clone(),
        args,
        env: environment(),
        user: options.user.clone(),
        death_signal: Signal::KILL,
    };
    let (status, log) =
        super::process::run(&spec).await.map_err(|source| EmbeddedError::Spawn { part: "initdb", program, source })?;
    if status.success() {
        return Ok(());
    }
    Err(EmbeddedError::NotReady { part: "initdb", why: format!("it ended with {status}"), log })
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}

/// Writes the three configuration files anew at each start: they are the hub's, not the operator's.
fn write_settings(options: &PostgresOptions) -> Result<(), EmbeddedError> {
    let cluster = options.cluster_dir();
    let owner = options.user.as_ref();
    let socket_dir = options.layout.postgres_socket_dir();
    let socket_dir = socket_dir.to_string_lossy().replace('\'', "''");
    let settings = format!("{SETTINGS}unix_socket_directories = '{socket_dir}'\n");
    files::write_file(&cluster.join("postgresql.conf"), settings.as_bytes(), 0o600, owner)?;
    let rules = format!(
        "local all postgres peer map=hub\nlocal all {OWNER_ROLE} scram-sha-256\nlocal all {APP_ROLE} scram-sha-256\n"
    );
    files::write_file(&cluster.join("pg_hba.conf"), rules.as_bytes(), 0o600, owner)?;
    let hub_user = service_user::current()?.name;
    files::write_file(&cluster.join("pg_ident.conf"), format!("hub \"{hub_user}\" postgres\n").as_bytes(), 0o600, owner)
}

/// Stops a postmaster of a previous life on this cluster, and removes a pid file whose number is someone else's now.
async fn stop_leftover(cluster: &Path) -> Result<(), EmbeddedError> {
    let pid_file = cluster.join("postmaster.pid");
    let Some(pid) = leftover::pid_in(&pid_file) else { return Ok(()) };
    if runs_on(pid, cluster) {
        return leftover::stop("postgres", pid, &[Signal::INT, Signal::QUIT]).await;
    }
    if test_kill_process(pid).is_ok() {
        // The number was reused after a reboot or crash. Postgres would refuse to start because of it; the lock on
        // the data directory, which the hub holds, proves that no other hub runs this cluster.
        std::fs::remove_file(&pid_file).map_err(io_error("remove the stale", &pid_file))?;
    }
    Ok(())
}

fn runs_on(pid: Pid, cluster: &Path) -> bool {
    test_kill_process(pid).is_ok() && leftover::works_in(pid, cluster)
}
