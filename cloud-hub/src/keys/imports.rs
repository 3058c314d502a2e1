//! What an import asks: who has an external id, and which photographs a template was made of.

use std::sync::Arc;

use bytes::Bytes;
use ring::digest;

use super::custody::blocking;
use super::{Custody, KeysError};
use crate::domain::ids::{PersonId, TemplateId, TenantId};
use crate::domain::people::Profile;
use crate::store::{people, templates};

/// The name of the index of photographs. It is part of what is indexed and never changes.
const PHOTOGRAPHS: &str = "template.photographs";

impl Custody {
    /// The person who has this external id, with their profile. The import that asks is audited, and what it does.
    pub async fn person_with(
        &self,
        tenant: TenantId,
        external_id: String,
    ) -> Result<Option<(people::Person, Profile)>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let Some(person) = people::find(tx, &keys, Some(&external_id), None).await?.into_iter().next() else {
                    return Ok(None);
                };
                let profile =
                    keyring.person(&keys, person.id)?.open_profile(person.revision, &person.profile_sealed)?;
                Ok::<_, KeysError>(Some((person, profile)))
            })
        });
        found.await
    }

    /// The mark of these photographs, in whatever order: keyed like an external id, so that nobody without the tenant's keys can
    /// try whether a picture that they have is somebody's here.
    pub async fn mark_of(&self, tenant: TenantId, photographs: Vec<Bytes>) -> Result<[u8; 32], KeysError> {
        let keys = self.tenant_keys(tenant).await?;
        blocking(move || {
            let digest_of = |bytes: &Bytes| hex::encode(digest::digest(&digest::SHA256, bytes));
            let mut digests: Vec<String> = photographs.iter().map(digest_of).collect();
            digests.sort_unstable();
            Ok(keys.blind_index(PHOTOGRAPHS, &digests.concat()))
        })
        .await
    }

    /// The template of a person in this space that was made of photographs with this mark.
    pub async fn template_made_of(
        &self,
        tenant: TenantId,
        person: PersonId,
        space_id: String,
        mark: [u8; 32],
    ) -> Result<Option<TemplateId>, KeysError> {
        let found = self
            .db
            .tenant(tenant, move |tx| Box::pin(async move { templates::made_of(tx, person, &space_id, &mark).await }));
        Ok(found.await?)
    }
}
