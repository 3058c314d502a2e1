//! A tenant's templates and anchors in the clear, for the index in memory. They are in no answer and on no disk.

use std::collections::HashSet;
use std::sync::Arc;

use face_core::gallery::{PersonId as Person, TemplateId as Template};
use face_core::{Embedding, Space};
use gallery_log::{Body, Kind};

use super::enrolment::open;
use super::{Custody, Keyring, KeysError};
use hub_domain::ids::{TemplateId, TenantId};
use hub_domain::rotation::DIM;
use hub_domain::vault::TenantKeys;
use hub_store::anchors::Anchor;
use hub_store::{anchors, template_changes, templates};

/// Templates and anchors of one space.
pub struct Unsealed {
    /// The changes that are in it, at least.
    pub stamp: i64,
    /// Templates.
    pub templates: Found<Template, (Person, Embedding)>,
    /// Negative anchors.
    pub anchors: Found<Template, (Person, Embedding)>,
}

/// What there is, and what was not known before.
pub struct Found<I, T> {
    /// Every id.
    pub present: HashSet<I>,
    /// The rows that were not known.
    pub new: Vec<(I, T)>,
}

/// A template or an anchor, ready to be compared.
pub type Row = (Template, (Person, Embedding));

/// A row in the clear: its id, whose it is, its quality, its vector.
type Opened = (Template, uuid::Uuid, f32, Box<[f32; DIM]>);

impl Custody {
    /// How often the tenant's templates and anchors have changed.
    pub async fn template_stamp(&self, tenant: TenantId) -> Result<i64, KeysError> {
        Ok(self.db.tenant(tenant, |tx| Box::pin(template_changes::stamp(tx))).await?)
    }

    /// The templates and anchors of a space: the ids of all, and the vectors of those that are not among the known ones. People
    /// whose key is gone are not among them.
    pub async fn unsealed(
        &self,
        tenant: TenantId,
        space: &Space,
        known_templates: HashSet<Template>,
        known_anchors: HashSet<Template>,
    ) -> Result<Unsealed, KeysError> {
        let (keyring, id) = (Arc::clone(&self.keyring), space.id.clone());
        let read = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                // First: what is committed while the rows are read is looked at once more by the next search.
                let stamp = template_changes::stamp(tx).await?;
                let keys = keyring.tenant(tx).await?;
                let there: HashSet<Template> =
                    templates::ids_of_space(tx, &id).await?.into_iter().map(|id| Template(id.0)).collect();
                let wanted: Vec<_> = there.difference(&known_templates).map(|id| TemplateId(id.0)).collect();
                let rows = templates::with_ids(tx, &wanted).await?;
                let anchors = anchors::of_space(tx, &id).await?;
                Ok::<_, KeysError>((stamp, keys, there, rows, anchors))
            })
        });
        let (stamp, keys, there, rows, anchors) = read.await?;
        let anchored: HashSet<Template> = anchors.iter().map(|anchor| Template(anchor.id.0)).collect();
        let new_anchors =
            anchors.into_iter().filter(|anchor| !known_anchors.contains(&Template(anchor.id.0))).collect();
        let templates = self.open_all(&keys, space, rows, open_row);
        let templates = Found { present: there, new: templates.await? };
        let anchors = self.open_all(&keys, space, new_anchors, open_anchor_row);
        let anchors = Found { present: anchored, new: anchors.await? };
        Ok(Unsealed { stamp, templates, anchors })
    }

    /// Opens rows off the async workers.
    pub(super) async fn open_all<R: Send + 'static>(
        &self,
        keys: &TenantKeys,
        space: &Space,
        rows: Vec<R>,
        open: fn(&Keyring, &TenantKeys, &R) -> Result<Opened, KeysError>,
    ) -> Result<Vec<Row>, KeysError> {
        let (keyring, keys, space) = (Arc::clone(&self.keyring), keys.clone(), space.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let mut opened = Vec::with_capacity(rows.len());
            for row in &rows {
                let (id, person, quality, vector) = match open(&keyring, &keys, row) {
                    // Erased meanwhile, or the key is gone for good: nobody who can be recognised.
                    Err(KeysError::NoPersonKey(_)) => continue,
                    opened => opened?,
                };
                let Ok(embedding) = Embedding::from_raw(*vector) else { continue };
                opened.push((id, (Person(person), embedding.with_handicap(space.handicap(quality)))));
            }
            Ok(opened)
        });
        opened.await.map_err(|_| KeysError::Crashed)?
    }
}

pub(super) fn open_row(keyring: &Keyring, keys: &TenantKeys, row: &templates::Template) -> Result<Opened, KeysError> {
    Ok((Template(row.id.0), row.person_id.0, row.quality, open(keyring, keys, row)?))
}

pub(super) fn open_anchor_row(keyring: &Keyring, keys: &TenantKeys, row: &Anchor) -> Result<Opened, KeysError> {
    Ok((Template(row.id.0), row.person_id.0, row.quality, open_anchor(keyring, keys, row)?))
}

fn open_anchor(keyring: &Keyring, keys: &TenantKeys, row: &Anchor) -> Result<Box<[f32; DIM]>, KeysError> {
    let key = keyring.person(keys, row.person_id)?;
    let body = key.open_anchor(row.id, row.revision, &row.space_id, &row.sealed)?;
    match Body::decode(Kind::Anchor, &body)? {
        Body::Anchor(anchor) => Ok(anchor.embedding),
        _ => unreachable!("a body decoded as an anchor is one"),
    }
}
