//! Negative anchors: made under the person's key, told to the doors in the transaction that makes them.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::enrolment::open;
use super::{Custody, KeysError};
use hub_domain::anchor::{self, Objection};
use hub_domain::ids::{AnchorId, PersonId, TenantId};
use hub_domain::rotation::DIM;
use hub_store::anchors::NewAnchor;
use hub_store::audit::Entry;
use hub_store::{anchors, audit, people, templates};

/// What a picture of somebody else gave.
#[derive(Clone)]
pub struct NotThem {
    /// The space in which it can be compared.
    pub space_id: String,
    /// The model pack's version that made it.
    pub model_version: String,
    /// How good the picture was, in [0, 1].
    pub quality: f32,
    /// The embedding, of unit norm.
    pub embedding: Box<[f32; DIM]>,
    /// The operator's word that it shows somebody else, however much it resembles the person.
    pub confirmed: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Anchored {
    /// It is an anchor now, on its way to every door of the person.
    Made {
        /// Its id.
        id: AnchorId,
        /// Its similarity to the nearest of the person's own templates; none without a template in that space.
        score: Option<f32>,
    },
    /// It is not.
    Refused(Objection),
}

impl Custody {
    /// Notes that a picture does not show a person, in one transaction that tells the doors at its commit.
    pub async fn add_anchor(
        &self,
        tenant: TenantId,
        person: PersonId,
        new: NotThem,
        actor: &str,
    ) -> Result<Anchored, KeysError> {
        let (keyring, actor, id) = (Arc::clone(&self.keyring), actor.to_owned(), AnchorId(Uuid::new_v4()));
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    people::lock(tx, person).await?;
                    let keys = keyring.tenant(tx).await?;
                    let key = keyring.person(&keys, person)?;
                    let mut score: Option<f32> = None;
                    for row in templates::of_person(tx, person).await? {
                        if row.space_id == new.space_id {
                            let own = open(&keyring, &keys, &row)?;
                            let similarity = own.iter().zip(new.embedding.iter()).map(|(a, b)| a * b).sum();
                            score = Some(score.map_or(similarity, |best| best.max(similarity)));
                        }
                    }
                    let there = u32::try_from(anchors::of_person(tx, person).await?.len()).unwrap_or(u32::MAX);
                    if let Err(objection) = anchor::judge(there, score, new.confirmed) {
                        return Ok(Anchored::Refused(objection));
                    }
                    let confirmed = new.confirmed;
                    let row = NewAnchor {
                        id,
                        space_id: new.space_id,
                        model_version: new.model_version,
                        quality: new.quality,
                        embedding: new.embedding,
                    };
                    anchors::add(tx, &keys, &key, &row).await?;
                    let entry = Entry {
                        actor: &actor,
                        action: audit::Action::AnchorCreate,
                        object_kind: "person",
                        object_id: Some(person.0),
                        detail: json!({ "anchor": id.0, "score": score, "confirmed": confirmed }),
                    };
                    audit::write(tx, entry).await?;
                    Ok::<_, KeysError>(Anchored::Made { id, score })
                })
            })
            .await
    }

    /// Takes an anchor back, in one transaction that tells the doors at its commit.
    pub async fn remove_anchor(
        &self,
        tenant: TenantId,
        person: PersonId,
        anchor: AnchorId,
        actor: &str,
    ) -> Result<(), KeysError> {
        let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let keys = keyring.tenant(tx).await?;
                    anchors::remove(tx, &keys, person, anchor).await?;
                    let entry = Entry {
                        actor: &actor,
                        action: audit::Action::AnchorDelete,
                        object_kind: "person",
                        object_id: Some(person.0),
                        detail: json!({ "anchor": anchor.0 }),
                    };
                    Ok::<_, KeysError>(audit::write(tx, entry).await?)
                })
            })
            .await
    }
}
