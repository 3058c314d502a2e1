//! The hub's keys as the operator of the machine sees them: how old each is, and another one in the place of the master key, of a
//! tenant's, of its people's, of the pepper, of the one that signs for devices, or of the one for access tokens.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::body::Fields;
use super::hub_authorities;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::{GalleryId, TenantId};
use hub_domain::token_key::Standing;
use hub_keys::{Forgotten, PersonKeysView, Rekeyed, TenantKeyView, TokenKeyView, VersionView};
use hub_store::routes;

/// Files of keys, what each is for, and how it stands when it is there.
const FILES: [(&str, &str, &str); 8] = [
    ("master.key", "wraps tenants' keys", "in use"),
    ("master-next.key", "wraps tenants' keys", "next: copy it to the other hubs"),
    ("master-previous.key", "wraps tenants' keys", "opens"),
    ("pepper.key", "MACs of secrets", "in use"),
    ("pepper-next.key", "MACs of secrets", "next: copy it to the other hubs"),
    (PREVIOUS_PEPPER, "MACs of secrets", "tried"),
    ("signing.p8", SIGNING, "in use"),
    ("signing-next.p8", SIGNING, "next: copy it to the other hubs"),
];

/// The same, in the folder of the certificates.
const AUTHORITY_FILES: [(&str, &str, &str); 5] = [
    ("device-ca.key", DEVICES, "in use"),
    ("device-ca-next.key", DEVICES, "next: copy it, with its .pem, to the other hubs"),
    (PREVIOUS_AUTHORITY, DEVICES, "believed"),
    ("service-ca.key", SERVICES, "in use"),
    ("service-ca-next.key", SERVICES, "next: copy it, with its .pem, to the other hubs"),
];

/// What authorities are for.
const DEVICES: &str = "signs devices' certificates";
const SERVICES: &str = "signs the hub's certificates";

/// The device authority that is to be retired.
const PREVIOUS_AUTHORITY: &str = "device-ca-previous.key";

/// What signing keys are for.
const SIGNING: &str = "signs for devices";

/// The pepper that is to be forgotten.
const PREVIOUS_PEPPER: &str = "pepper-previous.key";

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
    let (dir, pki) = (api.custody.keyring().dir().to_owned(), api.pki.dir().to_owned());
    let files = tokio::task::spawn_blocking(move || {
        let files = FILES.iter().map(|file| (&dir, file)).chain(AUTHORITY_FILES.iter().map(|file| (&pki, file)));
        let there = files.filter(|(dir, (name, ..))| dir.join(name).exists());
        there.map(|(dir, (name, what, state))| of_file(dir, name, what, state, now)).collect::<Vec<_>>()
    });
    let mut keys = files.await.map_err(|error| ApiError::internal(&error))?;
    if let Some(left) = hub_authorities::left(api).await? {
        for key in keys.iter_mut().filter(|key| key["key"] == PREVIOUS_AUTHORITY) {
            key["left"] = json!(left);
        }
    }
    if let Some(before) = api.custody.pepper_standing().await?.before {
        for key in keys.iter_mut().filter(|key| key["key"] == PREVIOUS_PEPPER) {
            key["left"] = json!(before.api_keys);
        }
    }
    keys.extend(api.custody.signing_keys_before().into_iter().map(of_signing));
    keys.extend(api.custody.token_key_views().await?.iter().map(|key| of_tokens(key, now)));
    for tenant in routes::tenants(&api.db).await? {
        let versions = api.custody.tenant_key_views(tenant).await?;
        // One alone is nothing to be told here: there are as many as tenants.
        if versions.len() > 1 {
            keys.extend(versions.iter().map(|key| of_tenant(tenant, key, now)));
        }
        let people = api.custody.person_keys_view(tenant).await?.filter(|people| people.left.is_some());
        keys.extend(people.map(|people| of_people(tenant, people, now)));
        let found =
            [(INDEX_KEY, api.custody.index_key_views(tenant).await?), (SEED, api.custody.seed_views(tenant).await?)];
        for (of, versions) in found {
            let is_changing = |key: &&VersionView| versions.iter().filter(|other| other.name == key.name).count() > 1;
            keys.extend(versions.iter().filter(is_changing).map(|key| of_version(tenant, of, key, now)));
        }
    }
    Ok(json!({ "keys": keys }))
}

/// How a key that hubs share as a file is to be replaced: the master key, the pepper, the signing key, or the authorities.
#[derive(Debug, Deserialize)]
pub(super) struct SharedRotation {
    #[serde(default)]
    pub(super) copied: bool,
}

impl Fields for SharedRotation {
    const KNOWN: &'static [&'static str] = &["copied"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// Begins to replace the master key.
pub(super) async fn rotate_master(api: &Api, rotation: &SharedRotation) -> Result<Value, ApiError> {
    api.custody.rotate_master(rotation.copied).await?;
    api.rotations.notify_one();
    show(api).await
}

/// Destroys the master key before, once nothing is under it.
pub(super) async fn retire_master(api: &Api) -> Result<Value, ApiError> {
    api.custody.retire_master().await?;
    show(api).await
}

/// Whose keys are to be replaced.
#[derive(Debug, Deserialize)]
pub(super) struct Whose {
    #[serde(default)]
    pub(super) tenant: Option<Uuid>,
}

impl Fields for Whose {
    const KNOWN: &'static [&'static str] = &["tenant"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// Begins to replace the index keys of these tenants.
pub(super) async fn rotate_index_keys(api: &Api, tenants: &[TenantId], actor: &str) -> Result<Value, ApiError> {
    for tenant in tenants {
        api.custody.rotate_index_key(*tenant, actor).await?;
    }
    api.rotations.notify_one();
    show(api).await
}

/// Begins to replace the seeds of these tenants.
pub(super) async fn rotate_seeds(api: &Api, tenants: &[TenantId], actor: &str) -> Result<Value, ApiError> {
    for tenant in tenants {
        api.custody.rotate_seeds(*tenant, actor).await?;
    }
    api.rotations.notify_one();
    show(api).await
}

/// Begins to replace the keys of these tenants' people.
pub(super) async fn rotate_people(api: &Api, tenants: &[TenantId], actor: &str) -> Result<Value, ApiError> {
    for tenant in tenants {
        api.custody.rotate_person_keys(*tenant, actor).await?;
    }
    api.rotations.notify_one();
    show(api).await
}

/// Replaces the digest and credential keys of all galleries of these tenants. Where some cannot be, the others are, and it is said.
pub(super) async fn rotate_galleries(api: &Api, tenants: &[TenantId], actor: &str) -> Result<Value, ApiError> {
    let (mut keys, mut kept) = (Vec::new(), Vec::new());
    for tenant in tenants {
        for Rekeyed { gallery, epoch, unopened } in api.custody.rotate_gallery_keys(*tenant, actor).await? {
            match unopened {
                0 => keys.push(of_gallery(*tenant, gallery, epoch)),
                n => kept.push(format!("gallery {gallery} of tenant {tenant} ({n} entries)")),
            }
        }
    }
    if kept.is_empty() {
        return Ok(json!({ "keys": keys }));
    }
    let detail = format!(
        "{} galleries have other keys. These have not, for the key store has no key of people in them, so that their entries cannot be opened: {}. Restore the key store, or delete those people, and ask again",
        keys.len(),
        kept.join(", ")
    );
    Err(ApiError::because(Code::Conflict, detail))
}

/// Begins to replace the pepper.
pub(super) async fn rotate_pepper(api: &Api, rotation: &SharedRotation) -> Result<Value, ApiError> {
    api.custody.rotate_pepper(rotation.copied).await?;
    show(api).await
}

/// Begins to replace the signing key.
pub(super) async fn rotate_signing(api: &Api, rotation: &SharedRotation) -> Result<Value, ApiError> {
    api.custody.rotate_signing_key(rotation.copied).await?;
    show(api).await
}

/// Tells devices no longer to believe the signing keys before.
pub(super) async fn retire_signing(api: &Api) -> Result<Value, ApiError> {
    api.custody.retire_signing_keys().await?;
    show(api).await
}

/// What is said about the end of the pepper before.
#[derive(Debug, Deserialize)]
pub(super) struct PepperEnd {
    /// How many API keys end with it; without it that is only told.
    #[serde(default)]
    confirm: Option<u64>,
}

impl Fields for PepperEnd {
    const KNOWN: &'static [&'static str] = &["confirm"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// Forgets the pepper before, or only tells what would end with it.
pub(super) async fn retire_pepper(api: &Api, end: &PepperEnd) -> Result<Value, ApiError> {
    let (under, is_done) = match api.custody.forget_pepper(end.confirm).await? {
        Forgotten::Done(under) => (under, true),
        Forgotten::NotConfirmed(under) => (under, false),
    };
    if !is_done && end.confirm.is_some() {
        let n = under.api_keys;
        let detail = format!("{n} API keys would stop to work; with --confirm {n} they do");
        return Err(ApiError::because(Code::Conflict, detail));
    }
    Ok(json!({ "api_keys": under.api_keys, "recovery_codes": under.recovery_codes, "forgotten": is_done }))
}

/// Begins to replace a tenant's key.
pub(super) async fn rotate_tenant(api: &Api, tenant: TenantId, actor: &str) -> Result<Value, ApiError> {
    api.custody.rotate_tenant_key(tenant, actor).await?;
    api.rotations.notify_one();
    show_tenant(api, tenant).await
}

/// The versions of a tenant's keys.
pub(super) async fn show_tenant(api: &Api, tenant: TenantId) -> Result<Value, ApiError> {
    let (versions, now) = (api.custody.tenant_key_views(tenant).await?, api.clock.now());
    let mut keys: Vec<Value> = versions.iter().map(|key| of_tenant(tenant, key, now)).collect();
    let found =
        [(INDEX_KEY, api.custody.index_key_views(tenant).await?), (SEED, api.custody.seed_views(tenant).await?)];
    for (of, versions) in found {
        keys.extend(versions.iter().map(|key| of_version(tenant, of, key, now)));
    }
    keys.extend(api.custody.person_keys_view(tenant).await?.map(|people| of_people(tenant, people, now)));
    let epochs = api.custody.gallery_epochs(tenant).await?;
    keys.extend(epochs.into_iter().map(|(gallery, epoch)| of_gallery(tenant, gallery, epoch)));
    Ok(json!({ "keys": keys }))
}

/// As an index key and a seed are named, and what each is for.
const INDEX_KEY: (&str, &str) = ("blind-index", "finds the tenant's people and users");
const SEED: (&str, &str) = ("seed", "rotates searchable vectors");

fn of_version(tenant: TenantId, (name, what): (&str, &str), key: &VersionView, now: OffsetDateTime) -> Value {
    let of = [tenant.to_string(), name.to_owned(), key.name.clone(), key.version.to_string()];
    json!({
        "key": of.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" "),
        "what": what, "state": key.state, "made_at": Timestamp::from(key.created_at),
        "age_days": (now - key.created_at).whole_days().max(0), "left": key.left, "signs_from": null, "verifies_until": null,
    })
}

/// People's keys are told together, by the latest order to replace them; of a tenant where there was none they are as old as the people.
fn of_people(tenant: TenantId, people: PersonKeysView, now: OffsetDateTime) -> Value {
    json!({
        "key": format!("{tenant} people"), "what": "profiles and templates of the tenant's people",
        "state": if people.left.is_some() { "taking over" } else { "in use" }, "made_at": Timestamp::from(people.ordered_at),
        "age_days": (now - people.ordered_at).whole_days().max(0), "left": people.left, "signs_from": null, "verifies_until": null,
    })
}

/// A gallery's keys are told by its epoch; when they were made is in the audit.
fn of_gallery(tenant: TenantId, gallery: GalleryId, epoch: u32) -> Value {
    json!({
        "key": format!("{tenant} gallery {gallery} epoch {epoch}"), "what": "the gallery's digest and credential hashes",
        "state": "in use", "made_at": null, "age_days": null, "signs_from": null, "verifies_until": null,
    })
}

fn of_tenant(tenant: TenantId, key: &TenantKeyView, now: OffsetDateTime) -> Value {
    json!({
        "key": format!("{tenant} version {}", key.version), "what": "wraps the tenant's keys", "state": key.state,
        "made_at": Timestamp::from(key.created_at), "age_days": (now - key.created_at).whole_days().max(0),
        "signs_from": null, "verifies_until": null,
    })
}

/// A signing key before: nothing is left of it but what devices verify with.
fn of_signing(id: Uuid) -> Value {
    json!({
        "key": format!("signing {id}"), "what": SIGNING, "state": "verifies", "made_at": null, "age_days": null,
        "signs_from": null, "verifies_until": null,
    })
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
fn of_file(dir: &Path, name: &str, what: &str, state: &str, now: OffsetDateTime) -> Value {
    let made_at = std::fs::metadata(dir.join(name)).and_then(|file| file.modified()).ok();
    let made_at = made_at.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let made_at =
        made_at.and_then(|since| Duration::try_from(since).ok()).map(|since| OffsetDateTime::UNIX_EPOCH + since);
    json!({
        "key": name, "what": what, "state": state, "made_at": made_at.map(Timestamp::from),
        "age_days": made_at.map(|made_at| (now - made_at).whole_days().max(0)), "signs_from": null, "verifies_until": null,
    })
}
