//! Users: made, changed, invited to choose a password, deleted, each with its audit entry. Nobody but a user knows their password:
//! what others get is an invitation to choose one, once.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gallery_log::keys::random_key;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::custody::log;
use super::entering::Proved;
use super::logins::actor as of_user;
use super::{Custody, KeysError, LoggedIn};
use hub_domain::ids::{TenantId, UserId};
use hub_domain::index_key::field;
use hub_domain::permission::Permissions;
use hub_domain::role::GivenRole;
use hub_domain::user::State;
use hub_domain::vault::TenantKeys;
use hub_store::audit::Action;
use hub_store::users::{Invitation, NewUser, User};
use hub_store::{StoreError, logins, users};

/// How long an invitation is good.
const INVITED_FOR: Duration = Duration::days(3);

/// An invitation, as it is shown once.
pub struct Invited {
    /// Whose.
    pub user: UserId,
    /// The token, `tenant.user.secret`.
    pub token: Zeroizing<String>,
    /// Its end.
    pub until: OffsetDateTime,
}

/// A user as others see them.
#[derive(Clone, Debug)]
pub struct UserView {
    /// Their id.
    pub id: UserId,
    /// The name by which they log in.
    pub login: String,
    /// What they may do.
    pub role: GivenRole,
    /// Whether they may log in.
    pub state: State,
    /// Whether they have a second factor that counts.
    pub totp: bool,
    /// Whether they have a password.
    pub has_password: bool,
    /// Until when they may choose one, if they are invited to.
    pub invited_until: Option<OffsetDateTime>,
    /// When they were made.
    pub created_at: OffsetDateTime,
    /// When they logged in last.
    pub last_login_at: Option<OffsetDateTime>,
}

fn view(keys: &TenantKeys, user: User) -> Result<UserView, KeysError> {
    Ok(UserView {
        id: user.id,
        login: keys.open_login(user.id, &user.login_sealed)?.to_string(),
        role: user.role,
        state: user.state,
        totp: user.totp,
        has_password: user.password.is_some(),
        invited_until: user.invitation.map(|invitation| invitation.until),
        created_at: user.created_at,
        last_login_at: user.last_login_at,
    })
}

/// Whether a giver (`None`: the operator of the machine) may decide over what may do this.
pub(super) fn within(may: Permissions, giver: Option<Permissions>) -> Result<(), KeysError> {
    let beyond = giver.map(|giver| may.beyond(giver)).unwrap_or_default();
    if beyond == Permissions::default() { Ok(()) } else { Err(KeysError::Beyond(beyond)) }
}

impl Custody {
    /// Makes a user, who is invited to choose a password. `login` is as [`hub_domain::user::login`] gave it.
    pub async fn create_user(
        &self,
        tenant: TenantId,
        login: &str,
        role: impl Into<GivenRole>,
        actor: &str,
    ) -> Result<Invited, KeysError> {
        let role = role.into();
        let (id, actor) = (UserId(self.clock.new_id()), actor.to_owned());
        let keys = self.tenant_keys(tenant).await?;
        let marks = keys.marks(field::LOGIN, login);
        let new = NewUser { id, login_sealed: keys.seal_login(id, login)?, marks, role: role.which };
        let (invited, invitation) = self.new_invitation(tenant, id)?;
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    users::create(tx, &new).await?;
                    users::invite(tx, id, invitation).await?;
                    log(tx, &actor, Action::UserCreate, "user", id.0, json!({ "role": role.name })).await
                })
            })
            .await?;
        Ok(invited)
    }

    fn new_invitation(&self, tenant: TenantId, user: UserId) -> Result<(Invited, Invitation), KeysError> {
        let (secret, until) = (random_key()?, self.clock.now() + INVITED_FOR);
        let mac = self.keyring.invitation_mac(user, &secret);
        let token = Zeroizing::new(format!("{tenant}.{user}.{}", URL_SAFE_NO_PAD.encode(secret.as_slice())));
        Ok((Invited { user, token, until }, Invitation { mac, until }))
    }

    /// Invites a user to choose another password. The one before ends at once, and so do all their log-ins.
    pub async fn invite_user(
        &self,
        tenant: TenantId,
        user: UserId,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<Invited, KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        let (invited, invitation) = self.new_invitation(tenant, user)?;
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    within(users::lock(tx, user).await?.role.permissions, giver)?;
                    users::invite(tx, user, invitation).await?;
                    logins::revoke_all(tx, user, None, now).await?;
                    log(tx, &actor, Action::UserInvite, "user", user.0, json!({})).await
                })
            })
            .await?;
        self.forget_keys(tenant);
        Ok(invited)
    }

    /// Stores the first password of whoever shows an invitation; whether it was one that is good.
    pub async fn accept_invitation(&self, token: &str, password: Zeroizing<String>) -> Result<bool, KeysError> {
        let Some((tenant, user, secret)) = read_invitation(token) else { return Ok(false) };
        let now = self.clock.now();
        let found = match self.db.tenant(tenant, move |tx| Box::pin(users::get(tx, user))).await {
            Err(StoreError::NotFound { .. }) => return Ok(false),
            found => found?,
        };
        let Some(invitation) = found.invitation else { return Ok(false) };
        if invitation.until <= now || !self.keyring.is_invitation(user, &secret, &invitation.mac) {
            return Ok(false);
        }
        self.store_password(tenant, user, Some((None, Some(invitation.mac))), password, None, of_user(user)).await
    }

    /// Stores another password for a user who knows the present one; whether they did. All their other log-ins end.
    pub async fn change_password(
        &self,
        who: LoggedIn,
        old: Zeroizing<String>,
        new: Zeroizing<String>,
    ) -> Result<PasswordChange, KeysError> {
        let (tenant, id) = (who.tenant, who.user);
        let user = match self.prove(who, old).await? {
            Proved::Right(user) => user,
            Proved::Wrong => return Ok(PasswordChange::Wrong),
            Proved::Locked(until) => return Ok(PasswordChange::Locked(until)),
        };
        self.password_was_right(tenant, &user).await?;
        let was = (user.password, user.invitation.map(|invitation| invitation.mac));
        let done = self.store_password(tenant, id, Some(was), new, Some(who), of_user(id)).await?;
        Ok(if done { PasswordChange::Done } else { PasswordChange::Wrong })
    }

    /// Stores a password that the operator of the machine typed in.
    pub async fn set_password(
        &self,
        tenant: TenantId,
        user: UserId,
        password: Zeroizing<String>,
        actor: &str,
    ) -> Result<(), KeysError> {
        // Whatever is there: the operator must not be told that it is set when it is not.
        if self.store_password(tenant, user, None, password, None, actor.to_owned()).await? {
            return Ok(());
        }
        Err(StoreError::NotFound { what: "user", id: user.0 }.into())
    }

    async fn store_password(
        &self,
        tenant: TenantId,
        user: UserId,
        was: Option<users::Credentials>,
        password: Zeroizing<String>,
        by: Option<LoggedIn>,
        actor: String,
    ) -> Result<bool, KeysError> {
        let (stored, now) = (self.passwords.hash(password).await?, self.clock.now());
        let done = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                if !users::set_password(tx, user, was, stored).await? {
                    return Ok(false);
                }
                logins::revoke_all(tx, user, by.map(|who| who.login), now).await?;
                log(tx, &actor, Action::UserPassword, "user", user.0, json!({})).await?;
                Ok::<_, KeysError>(true)
            })
        });
        let done = done.await?;
        self.forget_keys(tenant);
        Ok(done)
    }

    /// Gives a user another role or state. Of a disabled user all log-ins end.
    pub async fn change_user(
        &self,
        tenant: TenantId,
        user: UserId,
        (role, state): (Option<GivenRole>, Option<State>),
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<(), KeysError> {
        let (now, actor) = (self.clock.now(), actor.to_owned());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    // Locked: of two changes at once the second must not undo the first with what it read before.
                    let found = users::lock(tx, user).await?;
                    within(found.role.permissions, giver)?;
                    let (role, state) = (role.unwrap_or(found.role), state.unwrap_or(found.state));
                    within(role.permissions, giver)?;
                    users::change(tx, user, role.which, state).await?;
                    if state == State::Disabled {
                        logins::revoke_all(tx, user, None, now).await?;
                    }
                    let detail = json!({ "role": role.name, "state": state.as_str() });
                    log(tx, &actor, Action::UserChange, "user", user.0, detail).await
                })
            })
            .await?;
        self.forget_keys(tenant);
        Ok(())
    }

    /// Deletes a user; all their log-ins end at once.
    pub async fn delete_user(
        &self,
        tenant: TenantId,
        user: UserId,
        giver: Option<Permissions>,
        actor: &str,
    ) -> Result<(), KeysError> {
        let actor = actor.to_owned();
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    within(users::lock(tx, user).await?.role.permissions, giver)?;
                    users::delete(tx, user).await?;
                    log(tx, &actor, Action::UserDelete, "user", user.0, json!({})).await
                })
            })
            .await?;
        self.forget_keys(tenant);
        Ok(())
    }

    /// One user.
    pub async fn user(&self, tenant: TenantId, user: UserId) -> Result<UserView, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move { view(&keyring.tenant(tx).await?, users::get(tx, user).await?) })
        });
        found.await
    }

    /// All users, oldest first.
    pub async fn users(&self, tenant: TenantId) -> Result<Vec<UserView>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let found = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                users::list(tx).await?.into_iter().map(|user| view(&keys, user)).collect()
            })
        });
        found.await
    }
}

/// What became of the wish to have another password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordChange {
    /// It is another one.
    Done,
    /// The present one was not the one that was given.
    Wrong,
    /// Too many were wrong: nothing is looked at until then.
    Locked(OffsetDateTime),
}

fn read_invitation(token: &str) -> Option<(TenantId, UserId, Zeroizing<[u8; 32]>)> {
    let mut parts = token.splitn(3, '.');
    let tenant: Uuid = parts.next()?.parse().ok()?;
    let user: Uuid = parts.next()?.parse().ok()?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?);
    let secret = <[u8; 32]>::try_from(secret.as_slice()).ok()?;
    Some((TenantId(tenant), UserId(user), Zeroizing::new(secret)))
}
