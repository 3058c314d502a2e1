//! Indexes over the searchable vectors of one space of a tenant: made, looked up and dropped as the schema's owner.
//!
//! A session of its own, as `lintel_owner`: only the owner of a table makes indexes on it, and neither a transaction nor a function can
//! make one without keeping everybody from enrolling meanwhile. Which indexes there are to be is `jobs`' to say.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::StoreError;
use super::vectors::{INDEX_PREFIX, Index, index_name};
use hub_domain::ids::TenantId;
use hub_domain::rotation::DIM;

/// That of whoever makes indexes: one at a time for each database.
const LOCK: i64 = 0x6c69_6e74_656c_0004;

/// Neighbours of a vector on each level. pgvector's own 16 of 64 candidates makes the index in a quarter of the time, and found 985 in a
/// thousand of the two nearest among 100,000 templates as faces have them (docs/decisions/0026).
const M: i32 = 24;
/// Candidates that they are chosen from.
const EF_CONSTRUCTION: i32 = 200;

/// What an index in the making takes for a vector: 1 KiB of it, and its neighbours.
const BYTES_A_VECTOR: usize = 2_048;
/// And at the most, in KiB: beyond it the rest is made on the disk, which takes several times as long.
const MOST_KIB: usize = 1 << 20;
/// At the least, in KiB.
const LEAST_KIB: usize = 64 << 10;

/// A session that makes indexes.
#[derive(Debug)]
pub struct Builder {
    connection: PgConnection,
}

impl Builder {
    /// Connects as the schema's owner. None while another hub is at it.
    pub async fn of(owner: &PgConnectOptions) -> Result<Option<Self>, StoreError> {
        let options = owner.clone().application_name("cloud-hub vector indexes").options([
            // Minutes are normal.
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            // The searches that go on meanwhile need the processors; and what several workers share does not fit into the shared memory
            // of many a container.
            ("max_parallel_maintenance_workers", "0"),
        ]);
        let mut connection = PgConnection::connect_with(&options).await?;
        // The session's, and free when it ends, however that happens. Nobody waits for it: a session that waits holds up every index.
        let ours = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut connection).await?;
        Ok(if ours { Some(Self { connection }) } else { None })
    }

    /// The indexes that there are, by name.
    pub async fn indexes(&mut self) -> Result<Vec<(String, Index)>, StoreError> {
        let rows: Vec<(String, bool)> = sqlx::query_as(
            "SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = 'template_vector'::regclass AND starts_with(c.relname::text, $1)",
        )
        .bind(INDEX_PREFIX)
        .fetch_all(&mut self.connection)
        .await?;
        Ok(rows.into_iter().map(|(name, valid)| (name, Index::of(Some(valid)))).collect())
    }

    /// Makes the index over a space's vectors, of which there are about so many, while everybody goes on. Cut off, it leaves an invalid
    /// one, which nobody searches by.
    pub async fn make(&mut self, tenant: TenantId, space_id: &str, templates: usize) -> Result<(), StoreError> {
        let kib = (templates.saturating_mul(BYTES_A_VECTOR) / 1024).clamp(LEAST_KIB, MOST_KIB);
        // The server quotes: the space may be called anything.
        let statement: String = sqlx::query_scalar(
            "SELECT format('CREATE INDEX CONCURRENTLY %I ON template_vector USING hnsw ((vector::halfvec(%s)) halfvec_ip_ops)
                 WITH (m = %s, ef_construction = %s) WHERE tenant_id = %L AND space_id = %L', $1::text, $2::int, $3::int, $4::int, $5::uuid, $6::text)
             FROM set_config('maintenance_work_mem', $7 || 'kB', false)",
        )
        .bind(index_name(tenant, space_id))
        .bind(i32::try_from(DIM).unwrap_or(i32::MAX))
        .bind(M)
        .bind(EF_CONSTRUCTION)
        .bind(tenant.0)
        .bind(space_id)
        .bind(kib.to_string())
        .fetch_one(&mut self.connection)
        .await?;
        self.alone(statement).await
    }

    /// Drops one, valid or not, while everybody goes on.
    pub async fn drop_index(&mut self, name: &str) -> Result<(), StoreError> {
        let statement =
            sqlx::query_scalar("SELECT format('DROP INDEX CONCURRENTLY IF EXISTS %I', $1::text)").bind(name);
        let statement = statement.fetch_one(&mut self.connection).await?;
        self.alone(statement).await
    }

    /// Runs what must not be inside a transaction: by itself, and by the simple protocol.
    async fn alone(&mut self, statement: String) -> Result<(), StoreError> {
        self.connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
        Ok(())
    }
}
