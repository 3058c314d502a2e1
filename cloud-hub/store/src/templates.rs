//! Templates: the sealed record, and the searchable vector derived from it.

use pgvector::Vector;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::devices::epoch;
use super::{StoreError, TenantTx};
use hub_domain::ids::{PersonId, TemplateId};
use hub_domain::index_key::Marks;
use hub_domain::rotation::DIM;

/// A template as stored.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// Whose it is.
    pub person_id: PersonId,
    /// The space in which it can be compared.
    pub space_id: String,
    /// The model pack's version that made it.
    pub model_version: String,
    /// How good the photographs were, in [0, 1].
    pub quality: f32,
    /// Its revision.
    pub revision: u32,
    /// Its body, sealed under the person's key.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

#[derive(FromRow)]
pub(super) struct TemplateRow {
    id: Uuid,
    person_id: Uuid,
    space_id: String,
    model_version: String,
    quality: f32,
    revision: i32,
    sealed: Vec<u8>,
    created_at: OffsetDateTime,
}

impl TryFrom<TemplateRow> for Template {
    type Error = StoreError;

    fn try_from(row: TemplateRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: TemplateId(row.id),
            person_id: PersonId(row.person_id),
            space_id: row.space_id,
            model_version: row.model_version,
            quality: row.quality,
            revision: epoch("template.revision", i64::from(row.revision))?,
            sealed: row.sealed,
            created_at: row.created_at,
        })
    }
}

/// A template to be written.
#[derive(Clone, Debug)]
pub struct NewTemplate<'a> {
    /// Its id.
    pub id: TemplateId,
    /// Whose it is.
    pub person_id: PersonId,
    /// The space in which it can be compared.
    pub space_id: &'a str,
    /// The model pack's version that made it.
    pub model_version: &'a str,
    /// How good the photographs were, in [0, 1].
    pub quality: f32,
    /// Its body, sealed under the person's key, of revision 1.
    pub sealed: &'a [u8],
    /// The person's mark of the photographs that it was made of.
    pub mark: Option<&'a [u8; 32]>,
}

/// Writes a template.
pub async fn create(tx: &mut TenantTx, template: &NewTemplate<'_>) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO template (tenant_id, id, person_id, space_id, model_version, quality, sealed, photographs_person_mark)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(tenant)
    .bind(template.id.0)
    .bind(template.person_id.0)
    .bind(template.space_id)
    .bind(template.model_version)
    .bind(template.quality)
    .bind(template.sealed)
    .bind(template.mark.map(<[u8; 32]>::as_slice))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A person's templates, oldest first.
pub async fn of_person(tx: &mut TenantTx, person: PersonId) -> Result<Vec<Template>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<TemplateRow> = sqlx::query_as(
        "SELECT id, person_id, space_id, model_version, quality, revision, sealed, created_at FROM template
         WHERE tenant_id = $1 AND person_id = $2 ORDER BY created_at, id",
    )
    .bind(tenant)
    .bind(person.0)
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Template::try_from).collect()
}

/// The person's template of this space that was made of photographs with this mark of theirs, or before they had marks of their own
/// with one of these of the tenant.
pub async fn made_of(
    tx: &mut TenantTx,
    person: PersonId,
    space_id: &str,
    (mark, before): (&[u8; 32], &Marks),
) -> Result<Option<TemplateId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let id: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM template WHERE tenant_id = $1 AND person_id = $2 AND space_id = $3
             AND (photographs_person_mark = $4 OR photographs_mark = ANY($5))
         ORDER BY created_at LIMIT 1",
    )
    .bind(tenant)
    .bind(person.0)
    .bind(space_id)
    .bind(mark.as_slice())
    .bind(before.values())
    .fetch_optional(tx.conn())
    .await?;
    Ok(id.map(TemplateId))
}

/// Waits for whoever looks among the tenant's templates before they add one, and keeps others waiting until the transaction ends: of two
/// who are one person the second must find the first.
pub async fn take_turn(tx: &mut TenantTx) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('lintel.enrolment ' || $1::text, 0))")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The ids of all templates of a space.
pub async fn ids_of_space(tx: &mut TenantTx, space_id: &str) -> Result<Vec<TemplateId>, StoreError> {
    let tenant = tx.tenant_uuid();
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM template WHERE tenant_id = $1 AND space_id = $2")
        .bind(tenant)
        .bind(space_id)
        .fetch_all(tx.conn())
        .await?;
    Ok(ids.into_iter().map(TemplateId).collect())
}

/// The templates with these ids, as far as there are such.
pub async fn with_ids(tx: &mut TenantTx, ids: &[TemplateId]) -> Result<Vec<Template>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<TemplateRow> = sqlx::query_as(
        "SELECT id, person_id, space_id, model_version, quality, revision, sealed, created_at FROM template
         WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tenant)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Template::try_from).collect()
}

/// Removes a person's templates and, with them, their vectors.
pub(super) async fn delete_of_person(tx: &mut TenantTx, person: PersonId) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("DELETE FROM template WHERE tenant_id = $1 AND person_id = $2")
        .bind(tenant)
        .bind(person.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Writes the searchable vector of a template, rotated by this version of the space's seed.
pub async fn put_vector(
    tx: &mut TenantTx,
    template: TemplateId,
    person: PersonId,
    space_id: &str,
    (seed, rotated): (u32, &[f32; DIM]),
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query(
        "INSERT INTO template_vector (tenant_id, template_id, person_id, space_id, vector, seed_version)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, template_id) DO UPDATE SET
             vector = excluded.vector, space_id = excluded.space_id, seed_version = excluded.seed_version",
    )
    .bind(tenant)
    .bind(template.0)
    .bind(person.0)
    .bind(space_id)
    .bind(Vector::from(rotated.to_vec()))
    .bind(i64::from(seed))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How many templates of a space there are to search, those of `except` left out.
pub async fn searchable(tx: &mut TenantTx, space_id: &str, except: PersonId) -> Result<usize, StoreError> {
    let tenant = tx.tenant_uuid();
    let n: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM template_vector WHERE tenant_id = $1 AND space_id = $2 AND person_id <> $3",
    )
    .bind(tenant)
    .bind(space_id)
    .bind(except.0)
    .fetch_one(tx.conn())
    .await?;
    usize::try_from(n).map_err(|_| StoreError::Unreadable { what: "count of templates", reason: "negative" })
}

/// Templates after `after` without a vector, by id: all of them after a crash of the server, which empties the unlogged
/// table.
pub async fn without_vector(
    tx: &mut TenantTx,
    after: Option<TemplateId>,
    limit: u32,
) -> Result<Vec<Template>, StoreError> {
    let tenant = tx.tenant_uuid();
    let rows: Vec<TemplateRow> = sqlx::query_as(
        "SELECT t.id, t.person_id, t.space_id, t.model_version, t.quality, t.revision, t.sealed, t.created_at
         FROM template t
         WHERE t.tenant_id = $1 AND ($3::uuid IS NULL OR t.id > $3)
           AND NOT EXISTS (SELECT FROM template_vector v WHERE v.tenant_id = t.tenant_id AND v.template_id = t.id)
         ORDER BY t.id LIMIT $2",
    )
    .bind(tenant)
    .bind(i64::from(limit))
    .bind(after.map(|id| id.0))
    .fetch_all(tx.conn())
    .await?;
    rows.into_iter().map(Template::try_from).collect()
}
