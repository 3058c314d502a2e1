//! A change of what is known of a person: sealed anew under their key, and told to doors if it is theirs to know.

use std::sync::Arc;

use serde_json::json;

use super::custody::log;
use super::{Custody, KeysError};
use hub_domain::ids::{PersonId, TenantId};
use hub_domain::people::Profile;
use hub_store::audit::Action;
use hub_store::{StoreError, people};

impl Custody {
    /// Changes a person's profile, if they are at revision `matching` (whatever they are at, if `None`). A change that changes
    /// nothing is none. Returns the person with their profile.
    pub async fn change_person(
        &self,
        tenant: TenantId,
        id: PersonId,
        matching: Option<u32>,
        change: impl FnOnce(Profile) -> Profile + Send + 'static,
        actor: &str,
    ) -> Result<(people::Person, Profile), KeysError> {
        let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
        let changed = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                people::lock(tx, id).await?;
                let keys = keyring.tenant(tx).await?;
                let person = people::get(tx, id).await?;
                if matching.is_some_and(|matching| matching != person.revision) {
                    return Err(StoreError::OtherRevision { what: "person", present: person.revision }.into());
                }
                let key = keyring.person(&keys, id)?;
                let before = key.open_profile(person.revision, &person.profile_sealed)?;
                let profile = change(before.clone());
                if profile == before {
                    return Ok((person, before));
                }
                people::update(tx, &keys, &key, (person.revision, &before), &profile).await?;
                let detail = json!({ "doors": profile.access != before.access });
                log(tx, &actor, Action::PersonUpdate, "person", id.0, detail).await?;
                Ok::<_, KeysError>((people::get(tx, id).await?, profile))
            })
        });
        changed.await
    }

    /// The people who have this external id and this address, with their profiles; what is not said, anybody has.
    pub async fn find_people(
        &self,
        tenant: TenantId,
        external_id: Option<String>,
        email: Option<String>,
        actor: &str,
    ) -> Result<Vec<people::Person>, KeysError> {
        let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let found = people::find(tx, &keys, external_id.as_deref(), email.as_deref()).await?;
                let detail = json!({ "count": found.len() });
                let (action, object_kind) = (Action::PersonList, "person");
                let entry = hub_store::audit::Entry { actor: &actor, action, object_kind, object_id: None, detail };
                hub_store::audit::write(tx, entry).await?;
                Ok::<_, KeysError>(found)
            })
        });
        found.await
    }
}
