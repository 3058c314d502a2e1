//! Roles of a tenant's own: made, changed and deleted, each with its audit entry. Nobody makes or changes one that allows more than
//! they may do themselves, before the change or after it.

use serde_json::json;

use super::custody::log;
use super::users::within;
use super::{Custody, KeysError};
use hub_domain::ids::{RoleId, TenantId};
use hub_domain::permission::{Permission, Permissions};
use hub_store::audit::Action;
use hub_store::roles::{self, OwnRole};
use hub_store::{StoreError, TenantTx};

/// A role to be made, or what is to be otherwise about one.
#[derive(Clone, Debug, Default)]
pub struct WantedRole {
    /// Its name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What it allows.
    pub permissions: Option<Permissions>,
}

/// What became of the wish to delete a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleDeleted {
    /// It is gone.
    Yes,
    /// So many users and living keys have it.
    InUse(u64, u64),
}

impl Custody {
    /// Makes a role.
    pub async fn create_role(
        &self,
        tenant: TenantId,
        wanted: WantedRole,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<OwnRole, KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        let role = OwnRole {
            id: RoleId(self.clock.new_id()),
            name: wanted.name.unwrap_or_default(),
            description: wanted.description.unwrap_or_default(),
            permissions: wanted.permissions.unwrap_or_default(),
            created_at: now,
            changed_at: now,
        };
        let made = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                within(role.permissions, giver)?;
                roles::create(tx, &role).await?;
                log(tx, &actor, Action::RoleCreate, "role", role.id.0, told(&role)).await?;
                Ok::<_, KeysError>(role)
            })
        });
        made.await
    }

    /// Changes a role, for everybody who has it: here at once, on other hubs within two seconds.
    pub async fn change_role(
        &self,
        tenant: TenantId,
        named: &str,
        wanted: WantedRole,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<OwnRole, KeysError> {
        let (now, named, actor) = (self.clock.now(), named.to_owned(), actor.to_owned());
        let changed = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let before = held(tx, &named).await?;
                within(before.permissions, giver)?;
                let role = OwnRole {
                    name: wanted.name.unwrap_or_else(|| before.name.clone()),
                    description: wanted.description.unwrap_or_else(|| before.description.clone()),
                    permissions: wanted.permissions.unwrap_or(before.permissions),
                    changed_at: now,
                    ..before
                };
                within(role.permissions, giver)?;
                roles::change(tx, &role).await?;
                log(tx, &actor, Action::RoleChange, "role", role.id.0, told(&role)).await?;
                Ok::<_, KeysError>(role)
            })
        });
        let changed = changed.await?;
        self.forget_keys(tenant);
        Ok(changed)
    }

    /// Deletes a role that nobody has.
    pub async fn delete_role(
        &self,
        tenant: TenantId,
        named: &str,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<RoleDeleted, KeysError> {
        let (now, named, actor) = (self.clock.now(), named.to_owned(), actor.to_owned());
        let deleted = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let role = held(tx, &named).await?;
                within(role.permissions, giver)?;
                let (users, keys) = roles::in_use(tx, role.id, now).await?;
                if users + keys > 0 {
                    return Ok(RoleDeleted::InUse(users, keys));
                }
                roles::delete(tx, role.id, now).await?;
                log(tx, &actor, Action::RoleDelete, "role", role.id.0, json!({ "name": role.name })).await?;
                Ok::<_, KeysError>(RoleDeleted::Yes)
            })
        });
        deleted.await
    }
}

async fn held(tx: &mut TenantTx, named: &str) -> Result<OwnRole, KeysError> {
    let found = roles::lock(tx, named).await?;
    Ok(found.ok_or(StoreError::NotFound { what: "role", id: named.parse().unwrap_or_default() })?)
}

fn told(role: &OwnRole) -> serde_json::Value {
    let permissions: Vec<&str> = role.permissions.iter().map(Permission::as_str).collect();
    json!({ "name": role.name, "permissions": permissions })
}
