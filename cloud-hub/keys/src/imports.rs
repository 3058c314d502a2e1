//! What an import asks: who has an external id, and which photographs a template was made of.

use std::sync::Arc;

use bytes::Bytes;
use ring::digest;

use super::custody::blocking;
use super::{Custody, KeysError};
use hub_domain::ids::{PersonId, TemplateId, TenantId};
use hub_domain::index_key::field;
use hub_domain::people::Profile;
use hub_domain::person_key::PersonKey;
use hub_store::{people, templates};

/// The name of a person's mark of photographs. It is part of what is marked and never changes.
const PHOTOGRAPHS: &str = "photographs";

/// Which photographs, in whatever order. Prints without them.
#[derive(Clone)]
pub struct Photographs(String);

impl std::fmt::Debug for Photographs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Photographs(***)")
    }
}

impl Photographs {
    /// These.
    pub async fn of(photographs: Vec<Bytes>) -> Result<Self, KeysError> {
        blocking(move || {
            let digest_of = |bytes: &Bytes| hex::encode(digest::digest(&digest::SHA256, bytes));
            let mut digests: Vec<String> = photographs.iter().map(digest_of).collect();
            digests.sort_unstable();
            Ok(Self(digests.concat()))
        })
        .await
    }

    /// Their mark under a person's key: nobody without it can try whether a picture that they have is this person's here.
    pub(super) fn mark(&self, key: &PersonKey) -> [u8; 32] {
        key.mark(PHOTOGRAPHS, &self.0)
    }
}

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

    /// The template of a person in this space that was made of these photographs.
    pub async fn template_made_of(
        &self,
        tenant: TenantId,
        person: PersonId,
        space_id: String,
        photographs: Photographs,
    ) -> Result<Option<TemplateId>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let key = match keyring.person(&keys, person) {
                    Ok(key) => key,
                    // Deleted, or as good as: they have no template.
                    Err(KeysError::NoPersonKey(_)) => return Ok(None),
                    Err(error) => return Err(error),
                };
                let (mark, before) = (photographs.mark(&key), keys.marks(field::PHOTOGRAPHS, &photographs.0));
                Ok::<_, KeysError>(templates::made_of(tx, person, &space_id, (&mark, &before)).await?)
            })
        });
        found.await
    }
}
