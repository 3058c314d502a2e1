//! Audit entries for those who look at them: pages with filters, the whole chain for the verifier.
//!
//! What is read may have been tampered with, by somebody who took the database's own checks away first: a column that no
//! entry of ours can have becomes one that no hash fits, never an error that would keep the rest from being read.

use sqlx::{AssertSqlSafe, FromRow};
use time::OffsetDateTime;
use uuid::Uuid;

use super::sealing;
use crate::{StoreError, TenantTx};
use hub_domain::audit::{Entry, Hash, Link, Sealed};
use hub_domain::cursor::Cursor;
use hub_domain::ids::TenantId;

/// Entries that one statement looks through for those that are wanted.
const WINDOW: i64 = 10_000;
/// Windows that one page looks through: a fraction of a second. A page that ends here has a cursor to go on from.
const WINDOWS: u32 = 20;

/// Times are taken into what a program can hold: nobody wrote an entry outside of it.
pub(super) const COLUMNS: &str = "id, least(greatest(at, '0001-01-01 00:00:00+00'), '9999-01-01 00:00:00+00') AS at,
    actor, action, object_kind, object_id, detail::text AS detail, chain_position, previous_hash, entry_hash";

#[derive(FromRow)]
pub(super) struct Columns {
    id: Uuid,
    at: OffsetDateTime,
    actor: String,
    action: String,
    object_kind: String,
    object_id: Option<Uuid>,
    detail: String,
    chain_position: Option<i64>,
    previous_hash: Option<Vec<u8>>,
    entry_hash: Option<Vec<u8>>,
}

/// A hash as the column has it; of another length none that fits.
pub(super) fn hash_of(bytes: &[u8]) -> Hash {
    bytes.try_into().unwrap_or([0; 32])
}

impl Columns {
    pub(super) fn into_entry(self, tenant: TenantId) -> Entry {
        self.into_sealed(tenant).entry
    }

    fn into_sealed(self, tenant: TenantId) -> Sealed {
        let hash = |bytes: Option<Vec<u8>>| hash_of(&bytes.unwrap_or_default());
        Sealed {
            link: Link {
                position: self.chain_position.and_then(|position| u64::try_from(position).ok()).unwrap_or(0),
                previous: hash(self.previous_hash),
                hash: hash(self.entry_hash),
            },
            entry: Entry {
                tenant,
                id: self.id,
                at: self.at,
                actor: self.actor,
                action: self.action,
                object_kind: self.object_kind,
                object_id: self.object_id,
                detail: self.detail,
            },
        }
    }
}

/// Where the verifier is: behind this entry.
pub type Place = (i64, Uuid);

/// Before the first entry.
pub const BEGINNING: Place = (i64::MIN, Uuid::nil());

/// The next sealed entries by position, and of one position by id: there should be one. With where to go on from.
pub async fn sealed(tx: &mut TenantTx, after: Place, limit: u32) -> Result<(Vec<Sealed>, Place), StoreError> {
    let tenant = tx.tenant();
    let statement = format!(
        "SELECT {COLUMNS} FROM audit_entry WHERE tenant_id = $1 AND (chain_position, id) > ($2, $3)
         ORDER BY chain_position, id LIMIT $4"
    );
    let rows: Vec<Columns> = sqlx::query_as(AssertSqlSafe(statement))
        .bind(tenant.0)
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(limit))
        .fetch_all(tx.conn())
        .await?;
    let last = rows.last().and_then(|row| row.chain_position.map(|position| (position, row.id)));
    Ok((rows.into_iter().map(|row| row.into_sealed(tenant)).collect(), last.unwrap_or(after)))
}

/// How many entries were written before `before` and have no place, and when the first of them was.
pub async fn unplaced(tx: &mut TenantTx, before: OffsetDateTime) -> Result<Option<(u64, OffsetDateTime)>, StoreError> {
    let tenant = tx.tenant_uuid();
    let (count, first): (i64, Option<OffsetDateTime>) = sqlx::query_as(
        "SELECT count(*), greatest(min(at), '0001-01-01 00:00:00+00') FROM audit_entry
         WHERE tenant_id = $1 AND chain_position IS NULL AND at < $2",
    )
    .bind(tenant)
    .bind(before)
    .fetch_one(tx.conn())
    .await?;
    let count = u64::try_from(count).unwrap_or(0);
    Ok(first.filter(|_| count > 0).map(|first| (count, first)))
}

/// Which entries are wanted; each that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who, in full: `api_key:…`, `operator`.
    pub actor: Option<String>,
    /// What was done: `person.read`.
    pub action: Option<String>,
    /// The kind of thing.
    pub object_kind: Option<String>,
    /// Which.
    pub object_id: Option<Uuid>,
    /// Written then or later.
    pub from: Option<OffsetDateTime>,
    /// Written before then.
    pub until: Option<OffsetDateTime>,
}

/// Entries of the audit and where the next ones begin.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of their places.
    pub entries: Vec<Sealed>,
    /// Everything up to here was looked at.
    pub through: Cursor,
    /// Whether there is more behind it.
    pub more: bool,
}

/// Up to `limit` sealed entries after `after` that are wanted. A page may be short, or empty, and not be the last: a rare entry
/// in a long audit is looked for in several goes.
pub async fn page(tx: &mut TenantTx, after: Cursor, limit: u32, filter: &Filter) -> Result<Page, StoreError> {
    let last = sealing::last(tx).await?.map_or(0, |(position, _)| position);
    let mut page = Page { entries: Vec::new(), through: after, more: false };
    for _ in 0..WINDOWS {
        if page.through.0 >= last {
            return Ok(page);
        }
        let wanted = limit - u32::try_from(page.entries.len()).unwrap_or(limit);
        let found = window(tx, page.through, wanted, filter).await?;
        let full = u32::try_from(found.len()).is_ok_and(|count| count == wanted);
        let end = page.through.0.saturating_add(WINDOW.unsigned_abs()).min(last);
        page.through = Cursor(found.last().filter(|_| full).map_or(end, |entry| entry.link.position));
        page.entries.extend(found);
        if full {
            break;
        }
    }
    page.more = page.through.0 < last;
    Ok(page)
}

async fn window(tx: &mut TenantTx, after: Cursor, wanted: u32, filter: &Filter) -> Result<Vec<Sealed>, StoreError> {
    let tenant = tx.tenant();
    let statement = format!(
        "SELECT {COLUMNS} FROM audit_entry
         WHERE tenant_id = $1 AND chain_position > $2 AND chain_position <= $2 + $3
           AND ($5::text IS NULL OR actor = $5) AND ($6::text IS NULL OR action = $6)
           AND ($7::text IS NULL OR object_kind = $7) AND ($8::uuid IS NULL OR object_id = $8)
           AND ($9::timestamptz IS NULL OR at >= $9) AND ($10::timestamptz IS NULL OR at < $10)
         ORDER BY chain_position LIMIT $4"
    );
    let rows: Vec<Columns> = sqlx::query_as(AssertSqlSafe(statement))
        .bind(tenant.0)
        .bind(i64::try_from(after.0).unwrap_or(i64::MAX - WINDOW))
        .bind(WINDOW)
        .bind(i64::from(wanted))
        .bind(&filter.actor)
        .bind(&filter.action)
        .bind(&filter.object_kind)
        .bind(filter.object_id)
        .bind(filter.from)
        .bind(filter.until)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows.into_iter().map(|row| row.into_sealed(tenant)).collect())
}
