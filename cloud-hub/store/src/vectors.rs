//! Searchable vectors of a tenant's space: how many templates there are, whether all have their vector, which are nearest.
//!
//! Searched in one of two ways. The scan is exact, and the only one that can be narrowed to some people. An index, where there is
//! one ([`super::vector_indexes`]), looks at a few thousand of hundreds of thousands and may miss somebody.

use pgvector::Vector;
use ring::digest::{Context, SHA256};
use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::{StoreError, TenantTx};
use hub_domain::ids::{PersonId, TemplateId, TenantId};
use hub_domain::rotation::DIM;

/// How many of the index's vectors are looked at (pgvector allows 1,000 at most). Measured with random vectors, which are the hardest,
/// over 100,000 of them: see docs/decisions/0026.
const EF_SEARCH: &str = "800";

/// What a tenant has in one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The space.
    pub space_id: String,
    /// Templates, with those of people whose key is missing.
    pub templates: usize,
    /// Negative anchors.
    pub anchors: usize,
}

/// How the vectors of one space can be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Searchable {
    /// Every template of the tenant has its vector. Otherwise a search would find the nearest of some.
    pub whole: bool,
    /// The index over them.
    pub index: Index,
}

/// An index over the vectors of one space of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// There is none.
    None,
    /// It is being made, or whoever made it was cut off; nothing is searched by it.
    Invalid,
    /// It is there.
    Valid,
}

impl Index {
    /// All there are.
    pub const ALL: &[Self] = &[Self::None, Self::Invalid, Self::Valid];

    /// As documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Invalid => "invalid",
            Self::Valid => "valid",
        }
    }

    pub(super) fn of(valid: Option<bool>) -> Self {
        match valid {
            None => Self::None,
            Some(false) => Self::Invalid,
            Some(true) => Self::Valid,
        }
    }
}

/// A template that is near a probe. It is scored anew from the unsealed template before anything is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Near {
    /// The template.
    pub template: TemplateId,
    /// Whose it is.
    pub person: PersonId,
    /// Cosine of the angle between the rotated vectors, in [-1, 1].
    pub similarity: f32,
}

#[derive(FromRow)]
struct HoldingRow {
    space_id: String,
    templates: i64,
    anchors: i64,
}

impl TryFrom<HoldingRow> for Holding {
    type Error = StoreError;

    fn try_from(row: HoldingRow) -> Result<Self, StoreError> {
        let count = |n: i64| {
            usize::try_from(n).map_err(|_| StoreError::Unreadable { what: "count of templates", reason: "negative" })
        };
        Ok(Self { space_id: row.space_id, templates: count(row.templates)?, anchors: count(row.anchors)? })
    }
}

/// What the tenant has in a space, by the sealed records: the vectors may be missing.
pub async fn holding(tx: &mut TenantTx, space_id: &str) -> Result<Holding, StoreError> {
    let tenant = tx.tenant_uuid();
    let row: HoldingRow = sqlx::query_as(
        "SELECT $2 AS space_id, (SELECT count(*) FROM template WHERE tenant_id = $1 AND space_id = $2) AS templates,
             (SELECT count(*) FROM anchor WHERE tenant_id = $1 AND space_id = $2) AS anchors",
    )
    .bind(tenant)
    .bind(space_id)
    .fetch_one(tx.conn())
    .await?;
    row.try_into()
}

/// The same of every space that the tenant has templates in.
pub async fn holdings(tx: &mut TenantTx) -> Result<Vec<Holding>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<HoldingRow> = sqlx::query_as(
        "SELECT space_id, count(*) AS templates,
             (SELECT count(*) FROM anchor a WHERE a.tenant_id = $1 AND a.space_id = t.space_id) AS anchors
         FROM template t WHERE tenant_id = $1 GROUP BY space_id ORDER BY space_id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Holding::try_from).collect()
}

/// How the vectors of a space can be searched now.
pub async fn searchable(tx: &mut TenantTx, space_id: &str) -> Result<Searchable, StoreError> {
    let (tenant, name) = (tx.tenant(), index_name(tx.tenant(), space_id));
    let (whole, valid): (bool, Option<bool>) = sqlx::query_as(
        "SELECT EXISTS (SELECT FROM template_vector_whole WHERE tenant_id = $1 AND whole),
             (SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
              WHERE i.indrelid = 'template_vector'::regclass AND c.relname = $2)",
    )
    .bind(tenant.0)
    .bind(name)
    .fetch_one(tx.conn())
    .await?;
    Ok(Searchable { whole, index: Index::of(valid) })
}

/// Notes of a new tenant that no vector is missing. Templates bring theirs.
pub(super) async fn begin(tx: &mut TenantTx) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("INSERT INTO template_vector_whole (tenant_id, look, whole) VALUES ($1, gen_random_uuid(), true)")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Somebody begins to look for missing vectors; `look` is theirs alone.
pub async fn begin_look(tx: &mut TenantTx, look: Uuid) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO template_vector_whole AS known (tenant_id, look, whole) VALUES ($1, $2, false)
         ON CONFLICT (tenant_id) DO UPDATE SET look = excluded.look WHERE NOT known.whole",
    )
    .bind(tenant)
    .bind(look)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// They have looked at all templates, and made what was missing. Nothing is noted if the server crashed since they began, or somebody
/// else began anew.
pub async fn end_look(tx: &mut TenantTx, look: Uuid) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE template_vector_whole SET whole = true WHERE tenant_id = $1 AND look = $2 AND NOT whole")
        .bind(tenant)
        .bind(look)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Whom a search may find.
#[derive(Clone, Copy, Debug, Default)]
pub struct Among<'a> {
    /// Not them.
    pub except: Option<PersonId>,
    /// Nobody else.
    pub only: Option<&'a [Uuid]>,
}

/// The `k` templates of a space that are nearest to a probe, of those that are rotated by this version of its seed, the probe rotated
/// alike; best first. Exact: a scan of the tenant's vectors.
pub async fn nearest(
    tx: &mut TenantTx,
    space_id: &str,
    (seed, rotated): (u32, &[f32; DIM]),
    among: Among<'_>,
    k: u32,
) -> Result<Vec<Near>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<(Uuid, Uuid, f64)> = sqlx::query_as(
        "SELECT template_id, person_id, distance FROM (
             SELECT template_id, person_id, vector <#> $3 AS distance FROM template_vector
             WHERE tenant_id = $1 AND space_id = $2 AND seed_version = $7 AND ($5::uuid IS NULL OR person_id <> $5)
                 AND ($6::uuid[] IS NULL OR person_id = ANY ($6))) near
         ORDER BY distance, template_id LIMIT $4",
    )
    .bind(tenant)
    .bind(space_id)
    .bind(Vector::from(rotated.to_vec()))
    .bind(i64::from(k))
    .bind(among.except.map(|person| person.0))
    .bind(among.only)
    .bind(i64::from(seed))
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(near).collect())
}

/// The same by the index where there is one seed, which may miss some of them, best first. Fewer than `k` when the index leads to no more.
pub async fn nearest_by_index(
    tx: &mut TenantTx,
    space_id: &str,
    rotated: &[f32; DIM],
    k: u32,
) -> Result<Vec<Near>, StoreError> {
    // Row-level security asks for the tenant once more, by a setting whose value the planner does not know: it takes the rows for
    // far fewer than there are, and would rather sort them all than follow an index that has them in order.
    sqlx::query(
        "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', $1, true),
             set_config('enable_sort', 'off', true)",
    )
    .bind(EF_SEARCH)
    .execute(tx.conn())
    .await?;
    // Planned each time: a plan that is kept holds for as many rows as it was made for.
    let rows: Vec<(Uuid, Uuid, f64)> = sqlx::query_as(AssertSqlSafe(by_index(tx.tenant(), space_id)))
        .bind(Vector::from(rotated.to_vec()))
        .bind(i64::from(k))
        .persistent(false)
        .fetch_all(tx.conn())
        .await?;
    let mut found: Vec<Near> = rows.into_iter().map(near).collect();
    // The index has them in the order of half the precision, and not strictly.
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.template.cmp(&b.template)));
    Ok(found)
}

#[expect(clippy::cast_possible_truncation, reason = "a cosine loses nothing that matters between f64 and f32")]
fn near((template, person, distance): (Uuid, Uuid, f64)) -> Near {
    Near { template: TemplateId(template), person: PersonId(person), similarity: -distance as f32 }
}

/// The statement of [`nearest_by_index`]; `$1` is the rotated probe, `$2` how many. Tenant and space are literals, since the planner
/// must see that the index's condition holds.
#[must_use]
pub fn by_index(tenant: TenantId, space_id: &str) -> String {
    format!(
        "SELECT template_id, person_id, vector <#> $1::vector AS distance FROM template_vector
         WHERE tenant_id = '{}' AND space_id = {} ORDER BY vector::halfvec({DIM}) <#> $1::vector::halfvec({DIM}) LIMIT $2",
        tenant.0,
        literal(space_id),
    )
}

/// The name of the index over a space's vectors, if there is one: the space may be called anything, and names are short.
#[must_use]
pub fn index_name(tenant: TenantId, space_id: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(tenant.0.as_bytes());
    context.update(space_id.as_bytes());
    format!("{INDEX_PREFIX}{}", hex::encode(&context.finish().as_ref()[..16]))
}

/// What the names of all such indexes begin with.
pub(super) const INDEX_PREFIX: &str = "template_vector_near_";

/// A text as SQL writes it, whatever is in it and whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', r"\\")),
        false => format!("'{quoted}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_ends_where_its_text_ends() {
        for (text, written) in [
            ("views2d", "'views2d'"),
            ("o'clock", "'o''clock'"),
            ("'; DROP TABLE person; --", "'''; DROP TABLE person; --'"),
            (r"\'", r"E'\\'''"),
            ("", "''"),
        ] {
            assert_eq!(literal(text), written);
        }
    }

    #[test]
    fn every_space_of_every_tenant_has_a_name_of_its_own_that_fits() {
        let [one, other] = [1, 2].map(|number| TenantId(Uuid::from_u128(number)));
        let names = [(one, "a"), (one, "b"), (other, "a")].map(|(tenant, space)| index_name(tenant, space));
        assert!(names.iter().all(|name| name.len() < 64 && name.starts_with(INDEX_PREFIX)));
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
    }
}
