//! Second factors of users: the sealed secret, the last code that was taken, and recovery codes by their MACs.

use sqlx::FromRow;
use time::OffsetDateTime;

use super::credentials::NewMac;
use super::{StoreError, TenantTx};
use hub_domain::ids::UserId;

/// A second factor.
#[derive(Clone, Debug, FromRow)]
pub struct SecondFactor {
    /// The secret, sealed.
    pub secret_sealed: Vec<u8>,
    /// Since when it counts; not yet, if it was only begun.
    pub confirmed_at: Option<OffsetDateTime>,
    /// The step of the last code that was taken.
    pub last_step: i64,
}

/// A user's, held until the end of the transaction: of two who show one code at once, one is first.
pub async fn lock(tx: &mut TenantTx, user: UserId) -> Result<Option<SecondFactor>, StoreError> {
    let tenant = tx.tenant_uuid();
    let found = sqlx::query_as(
        "SELECT secret_sealed, confirmed_at, last_step FROM user_totp WHERE tenant_id = $1 AND user_id = $2 FOR UPDATE",
    );
    Ok(found.bind(tenant).bind(user.0).fetch_optional(tx.conn()).await?)
}

/// Whether a user has one that counts, and how many recovery codes are left.
pub async fn standing(tx: &mut TenantTx, user: UserId) -> Result<Option<u64>, StoreError> {
    let tenant = tx.tenant_uuid();
    let left: Option<i64> = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM recovery_code c WHERE c.tenant_id = t.tenant_id AND c.user_id = t.user_id AND c.used_at IS NULL)
         FROM user_totp t WHERE t.tenant_id = $1 AND t.user_id = $2 AND t.confirmed_at IS NOT NULL",
    )
    .bind(tenant)
    .bind(user.0)
    .fetch_optional(tx.conn())
    .await?;
    Ok(left.map(|left| u64::try_from(left).unwrap_or(0)))
}

/// Stores a secret that does not count yet, in the place of another such; whether there is none that counts.
pub async fn begin(tx: &mut TenantTx, user: UserId, sealed: &[u8], now: OffsetDateTime) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "INSERT INTO user_totp (tenant_id, user_id, secret_sealed, begun_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, user_id) DO UPDATE SET secret_sealed = excluded.secret_sealed, begun_at = excluded.begun_at
         WHERE user_totp.confirmed_at IS NULL",
    )
    .bind(tenant)
    .bind(user.0)
    .bind(sealed)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets a secret count from now on, with its recovery codes. The caller has it locked.
pub async fn confirm(
    tx: &mut TenantTx,
    user: UserId,
    step: i64,
    codes: &[NewMac],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE user_totp SET confirmed_at = $3, last_step = $4 WHERE tenant_id = $1 AND user_id = $2")
        .bind(tenant)
        .bind(user.0)
        .bind(now)
        .bind(step)
        .execute(tx.conn())
        .await?;
    let of = |bytes: fn(&NewMac) -> Vec<u8>| codes.iter().map(bytes).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO recovery_code (tenant_id, user_id, mac, pepper) SELECT $1, $2, mac, pepper
         FROM unnest($3::bytea[], $4::bytea[]) AS of_code (mac, pepper)",
    )
    .bind(tenant)
    .bind(user.0)
    .bind(of(|code| code.mac.to_vec()))
    .bind(of(|code| code.pepper.to_vec()))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes the code of a step: it and those before it are good no more. The caller has the row locked.
pub async fn take_step(tx: &mut TenantTx, user: UserId, step: i64) -> Result<(), StoreError> {
    let tenant = tx.tenant_uuid();
    sqlx::query("UPDATE user_totp SET last_step = $3 WHERE tenant_id = $1 AND user_id = $2")
        .bind(tenant)
        .bind(user.0)
        .bind(step)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes a recovery code; whether there was one that nobody had used.
pub async fn take_recovery(
    tx: &mut TenantTx,
    user: UserId,
    macs: &[[u8; 32]],
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query(
        "UPDATE recovery_code SET used_at = $4 WHERE tenant_id = $1 AND user_id = $2 AND mac = ANY($3) AND used_at IS NULL",
    )
    .bind(tenant)
    .bind(user.0)
    .bind(macs.iter().map(|mac| mac.to_vec()).collect::<Vec<_>>())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes a second factor off a user, with its recovery codes; whether there was one.
pub async fn remove(tx: &mut TenantTx, user: UserId) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let done = sqlx::query("DELETE FROM user_totp WHERE tenant_id = $1 AND user_id = $2")
        .bind(tenant)
        .bind(user.0)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the tenant wants a second factor of all its users.
pub async fn is_required(tx: &mut TenantTx) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = "SELECT require_totp FROM tenant WHERE tenant_id = $1";
    Ok(sqlx::query_scalar(statement).bind(tenant).fetch_one(tx.conn()).await?)
}

/// Says whether it does; whether that is a change.
pub async fn require(tx: &mut TenantTx, required: bool) -> Result<bool, StoreError> {
    let tenant = tx.tenant_uuid();
    let statement = "UPDATE tenant SET require_totp = $2 WHERE tenant_id = $1 AND require_totp <> $2";
    let done = sqlx::query(statement).bind(tenant).bind(required).execute(tx.conn()).await?;
    Ok(done.rows_affected() == 1)
}
