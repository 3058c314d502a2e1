//! The hub's keys as the operator of the machine sees them: how old each is, and another one for access tokens.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use wire_contract::Timestamp;

use super::body::Fields;
use super::problem::ApiError;
use super::state::Api;
use crate::domain::token_key::Standing;
use crate::keys::TokenKeyView;

/// Files of keys that are made once, and what each is for.
const FILES: [(&str, &str); 3] =
    [("master.key", "wraps tenants' keys"), ("pepper.key", "MACs of secrets"), ("signing.p8", "signs for devices")];

/// How the key of access tokens is to be replaced.
#[derive(Debug, Deserialize)]
pub(super) struct Rotation {
    #[serde(default)]
    revoke_old: bool,
}

impl Fields for Rotation {
    const KNOWN: &'static [&'static str] = &["revoke_old"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// Puts another key in the place of the one that signs access tokens.
pub(super) async fn rotate(api: &Api, rotation: &Rotation, actor: &str) -> Result<Value, ApiError> {
    let keys = api.custody.rotate_token_keys(rotation.revoke_old, actor).await?;
    Ok(json!({ "keys": keys.iter().map(|key| of_tokens(key, api.clock.now())).collect::<Vec<_>>() }))
}

/// All keys, without what is secret of them.
pub(super) async fn show(api: &Api) -> Result<Value, ApiError> {
    let now = api.clock.now();
    let dir = api.custody.keyring().dir().to_owned();
    let files = tokio::task::spawn_blocking(move || FILES.map(|(name, what)| of_file(&dir, name, what, now)));
    let mut keys = files.await.map_err(|error| ApiError::internal(&error))?.to_vec();
    keys.extend(api.custody.token_key_views().await?.iter().map(|key| of_tokens(key, now)));
    Ok(json!({ "keys": keys }))
}

fn of_tokens(key: &TokenKeyView, now: OffsetDateTime) -> Value {
    let until = match key.standing {
        Standing::Verifies(until) => Some(Timestamp::from(until)),
        _ => None,
    };
    json!({
        "key": key.id, "what": "signs access tokens", "state": key.standing.as_str(), "made_at": Timestamp::from(key.created_at),
        "age_days": (now - key.created_at).whole_days().max(0), "signs_from": Timestamp::from(key.signs_from), "verifies_until": until,
    })
}

/// A file's key is as old as the file: it is written once.
fn of_file(dir: &Path, name: &str, what: &str, now: OffsetDateTime) -> Value {
    let made_at = std::fs::metadata(dir.join(name)).and_then(|file| file.modified()).ok();
    let made_at = made_at.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let made_at =
        made_at.and_then(|since| Duration::try_from(since).ok()).map(|since| OffsetDateTime::UNIX_EPOCH + since);
    json!({
        "key": name, "what": what, "state": "in use", "made_at": made_at.map(Timestamp::from),
        "age_days": made_at.map(|made_at| (now - made_at).whole_days().max(0)), "signs_from": null, "verifies_until": null,
    })
}
