//! Devices: made by the operator, given a claim token, seen with the state of their galleries, revoked.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::encoding::{Hash32, SecretBytes};
use wire_contract::{ClaimToken, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire, words};
use super::page::Page;
use super::problem::ApiError;
use super::sites::MAX_NAME;
use super::state::Api;
use hub_domain::ids::{DeviceId, DoorId, SiteId, TenantId};
use hub_domain::tenant::Resource;
use hub_store::devices::{Agreement, Device, DeviceGallery, DeviceState, SnapshotProgress};
use hub_store::{TenantTx, audit, devices, places, tenants};

/// Doors of one device: more than any door controller drives.
pub(super) const MAX_DOORS: usize = 64;

/// A device to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDevice {
    #[schema(value_type = texts::Name)]
    name: String,
    site_id: Uuid,
    /// The doors that it drives.
    #[serde(default)]
    #[schema(max_items = 64)]
    doors: Vec<NewDeviceDoor>,
}

/// A door to be made with its device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDeviceDoor {
    /// Its id in the device's configuration.
    #[schema(value_type = texts::Name)]
    local_id: String,
    #[schema(value_type = texts::Name)]
    name: String,
}

impl Fields for NewDevice {
    const KNOWN: &'static [&'static str] = &["name", "site_id", "doors"];
    const REQUIRED: &'static [&'static str] = &["name", "site_id"];
}

/// A claim token as its operator gets to see it, once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClaimToken)]
pub(super) struct ClaimView {
    token: String,
    #[schema(value_type = wire::Timestamp)]
    expires_at: Timestamp,
}

/// A device with what it last reported.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
pub(super) struct DeviceView {
    id: Uuid,
    name: String,
    site_id: Uuid,
    #[schema(value_type = words::DeviceState)]
    state: &'static str,
    /// Whether it is connected to the broker.
    online: bool,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    last_seen_at: Option<Timestamp>,
    /// Until when it may use its galleries without contact, if its own `gallery_lease` is this hub's `device_lease`.
    #[schema(value_type = Option<wire::Timestamp>, required)]
    lease_until: Option<Timestamp>,
    /// What runs on it, as it says.
    #[schema(value_type = Option<Object>, required)]
    versions: Option<Value>,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    certificate_expires_at: Option<Timestamp>,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    doors: Vec<DeviceDoorView>,
    galleries: Vec<DeviceGalleryView>,
    /// Of a device that was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    claim: Option<ClaimView>,
}

/// A door of a device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceDoor)]
struct DeviceDoorView {
    id: Uuid,
    #[schema(required)]
    local_id: Option<String>,
    name: String,
}

/// `equal` says that the device searches exactly what the hub has; `standing` and `since`, how it stands and since when;
/// `propagation_ms`, how long the last change took from its commit to the report that the device searches it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceGallery)]
struct DeviceGalleryView {
    gallery: Uuid,
    #[schema(required)]
    epoch: Option<u32>,
    #[schema(required)]
    version: Option<u64>,
    #[schema(required)]
    root: Option<String>,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    reported_at: Option<Timestamp>,
    hub_epoch: u32,
    hub_version: u64,
    hub_root: String,
    equal: bool,
    #[schema(value_type = words::GalleryStanding)]
    standing: &'static str,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    since: Option<Timestamp>,
    #[schema(required)]
    propagation_ms: Option<i64>,
    #[schema(required)]
    snapshot: Option<SnapshotView>,
}

/// A snapshot that the device is offered, or fetches; `text` says the same to a person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SnapshotProgress)]
struct SnapshotView {
    version: u64,
    fetched: u64,
    #[schema(required)]
    bytes: Option<u64>,
    #[schema(required)]
    percent: Option<u64>,
    text: String,
}

impl From<SnapshotProgress> for SnapshotView {
    fn from(progress: SnapshotProgress) -> Self {
        let SnapshotProgress { version, fetched, bytes } = progress;
        let percent = progress.percent();
        let text = match (percent, bytes) {
            (Some(percent), Some(bytes)) => format!("{percent} % of {bytes} bytes"),
            _ => String::from("offered"),
        };
        Self { version, fetched, bytes, percent, text }
    }
}

impl From<&DeviceGallery> for DeviceGalleryView {
    fn from(gallery: &DeviceGallery) -> Self {
        let reported = gallery.reported.as_ref();
        Self {
            gallery: gallery.gallery.0,
            epoch: reported.map(|reported| reported.epoch),
            version: reported.map(|reported| reported.version),
            root: reported.map(|reported| hex::encode(&reported.root)),
            reported_at: reported.map(|reported| reported.at.into()),
            hub_epoch: gallery.epoch,
            hub_version: gallery.version,
            hub_root: hex::encode(&gallery.root),
            equal: gallery.equal(),
            standing: match gallery.agreement() {
                Agreement::Unreported => "unreported",
                Agreement::Equal => "equal",
                Agreement::Behind => "behind",
                Agreement::Differs => "differs",
            },
            since: gallery.since().map(Timestamp::from),
            propagation_ms: gallery.propagation.and_then(|took| i64::try_from(took.whole_milliseconds()).ok()),
            snapshot: gallery.snapshot.map(SnapshotView::from),
        }
    }
}

/// How long a device may use its galleries without contact, as this hub has it; none: for ever.
type Lease = Option<time::Duration>;

impl Api {
    fn lease(&self) -> Lease {
        let lease = self.settings.keep.device_lease;
        time::Duration::try_from(lease).ok().filter(|lease| lease.is_positive())
    }
}

fn view(device: Device, doors: Vec<places::Door>, galleries: &[DeviceGallery], lease: Lease) -> DeviceView {
    let state = match device.state {
        DeviceState::Created => "created",
        DeviceState::Claimed => "claimed",
        DeviceState::Revoked => "revoked",
    };
    let door = |door: places::Door| DeviceDoorView { id: door.id.0, local_id: door.local_id, name: door.name };
    DeviceView {
        id: device.id.0,
        name: device.name,
        site_id: device.site_id.0,
        state,
        online: device.online,
        last_seen_at: device.last_seen_at.map(Timestamp::from),
        lease_until: device.last_seen_at.zip(lease).map(|(seen, lease)| Timestamp::from(seen + lease)),
        versions: device.versions,
        certificate_expires_at: device.certificate_expires_at.map(Timestamp::from),
        created_at: device.created_at.into(),
        doors: doors.into_iter().map(door).collect(),
        galleries: galleries.iter().map(DeviceGalleryView::from).collect(),
        claim: None,
    }
}

async fn full_view(tx: &mut TenantTx, device: Device, lease: Lease) -> Result<DeviceView, ApiError> {
    let id = device.id;
    let doors = places::doors(tx, Some(id)).await?;
    let galleries = devices::galleries(tx, id).await?;
    Ok(view(device, doors, &galleries, lease))
}

/// `POST /v1/devices`
#[utoipa::path(
    post, path = "/v1/devices", operation_id = "create_device", tag = "devices",
    summary = "Make a device",
    description = "With its doors. The answer has a claim token for the door-side computer, valid for 15 minutes and shown this once.",
    request_body = NewDevice,
    responses(
        (status = 201, description = "The device, with `claim`", body = DeviceView),
        (status = 403, description = "`quota_reached`: the tenant has all devices that it may have."),
        (status = 404, description = "`not_found`: there is no such site."),
        (status = 409, description = "`conflict`: a device or a door has this name already."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewDevice>,
) -> Result<(StatusCode, axum::Json<DeviceView>), ApiError> {
    let mut checks = Checks::default();
    checks.text("/name", &new.name, MAX_NAME).that(new.doors.len() <= MAX_DOORS, "/doors", "holds too many doors");
    for (index, door) in new.doors.iter().enumerate() {
        checks.text(&format!("/doors/{index}/local_id"), &door.local_id, MAX_NAME);
        checks.text(&format!("/doors/{index}/name"), &door.name, MAX_NAME);
    }
    checks.done()?;
    let id = DeviceId(api.clock.new_id());
    let site_id = SiteId(new.site_id);
    let doors: Vec<places::NewDoor> = new
        .doors
        .into_iter()
        .map(|door| places::NewDoor {
            id: DoorId(api.clock.new_id()),
            site_id,
            device_id: Some(id),
            local_id: Some(door.local_id),
            name: door.name,
        })
        .collect();
    let (name, actor, lease) = (new.name, caller.actor(), api.lease());
    let mut view = api
        .db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                tenants::admit(tx, Resource::Devices).await?;
                places::site(tx, site_id).await?;
                devices::create(tx, id, site_id, &name).await?;
                for door in &doors {
                    places::create_door(tx, door).await?;
                }
                let entry = audit::Entry {
                    actor: &actor,
                    action: audit::Action::DeviceCreate,
                    object_kind: "device",
                    object_id: Some(id.0),
                    detail: json!({ "doors": doors.len() }),
                };
                audit::write(tx, entry).await?;
                let device = devices::get(tx, id).await?;
                full_view(tx, device, lease).await
            })
        })
        .await?;
    view.claim = Some(issue_claim(&api, &caller, id).await?);
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// `POST /v1/devices/{id}/claim-tokens`: a new token, for a first claim or a claim by other hardware.
#[utoipa::path(
    post, path = "/v1/devices/{id}/claim-tokens", operation_id = "create_claim_token", tag = "devices",
    summary = "Another claim token",
    description = "For a first claim that was too late, or a claim by other hardware. Earlier tokens of the device end.",
    params(("id" = Uuid, Path, description = "The device")),
    responses(
        (status = 201, description = "The token, shown this once", body = ClaimView),
        (status = 409, description = "`conflict`: the device cannot be claimed."),
        (status = 403, description = "`device_revoked`: the device was revoked."),
    ),
)]
pub(super) async fn create_claim_token(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, axum::Json<ClaimView>), ApiError> {
    Ok((StatusCode::CREATED, axum::Json(issue_claim(&api, &caller, DeviceId(id)).await?)))
}

async fn issue_claim(api: &Api, caller: &Caller, device: DeviceId) -> Result<ClaimView, ApiError> {
    let claim = api.custody.issue_claim(caller.tenant, device, &caller.actor()).await?;
    let token = ClaimToken {
        hub_url: api.settings.public_url.clone(),
        root_spki_sha256: Hash32(api.pki.root_spki_sha256()),
        claim_id: wire_contract::ClaimId(claim.id.0),
        secret: SecretBytes::new(*claim.secret),
        iat: claim.issued_at.unix_timestamp(),
        exp: claim.expires_at.unix_timestamp(),
    };
    Ok(ClaimView { token: token.encode().to_string(), expires_at: claim.expires_at.into() })
}

/// Every device of a tenant; the command line's list is the same.
pub(super) async fn all(api: &Api, tenant: TenantId) -> Result<Vec<DeviceView>, ApiError> {
    let lease = api.lease();
    api.db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                let mut views = Vec::new();
                for device in devices::list(tx).await? {
                    views.push(full_view(tx, device, lease).await?);
                }
                Ok::<_, ApiError>(views)
            })
        })
        .await
}

/// `GET /v1/devices`
#[utoipa::path(
    get, path = "/v1/devices", operation_id = "list_devices", tag = "devices",
    summary = "All devices",
    description = "With the state of their galleries, revoked ones too.",
    responses(
        (status = 200, description = "All of them, in one page", body = Page<DeviceView>),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<axum::Json<Page<DeviceView>>, ApiError> {
    Ok(axum::Json(Page::whole(all(&api, caller.tenant).await?)))
}

/// `GET /v1/devices/{id}`
#[utoipa::path(
    get, path = "/v1/devices/{id}", operation_id = "get_device", tag = "devices",
    summary = "One device",
    params(("id" = Uuid, Path, description = "The device")),
    responses(
        (status = 200, description = "The device", body = DeviceView),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<DeviceView>, ApiError> {
    let lease = api.lease();
    let view = api.db.tenant(caller.tenant, move |tx| {
        Box::pin(async move {
            let device = devices::get(tx, DeviceId(id)).await?;
            full_view(tx, device, lease).await
        })
    });
    Ok(axum::Json(view.await?))
}

/// `DELETE /v1/devices/{id}`: revokes it. Its access lines go, its live session at the broker is ended.
#[utoipa::path(
    delete, path = "/v1/devices/{id}", operation_id = "revoke_device", tag = "devices",
    summary = "Revoke a device",
    description = "Its live session at the broker ends, and its certificate opens nothing any more. The door it drives goes on with what it has until its lease ends.",
    params(("id" = Uuid, Path, description = "The device")),
    responses(
        (status = 204, description = "It is revoked"),
    ),
)]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    // A task of its own: a client that goes away must not leave a revoked device with its access lines.
    let revoked = tokio::spawn(async move { revoke_whole(&api, &caller, DeviceId(id)).await }).await;
    revoked.map_err(|error| ApiError::internal(&error))??;
    Ok(StatusCode::NO_CONTENT)
}

async fn revoke_whole(api: &Api, caller: &Caller, id: DeviceId) -> Result<(), ApiError> {
    let actor = caller.actor();
    api.db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                devices::revoke(tx, id).await?;
                let entry = audit::Entry {
                    actor: &actor,
                    action: audit::Action::DeviceRevoke,
                    object_kind: "device",
                    object_id: Some(id.0),
                    detail: json!({}),
                };
                Ok::<_, ApiError>(audit::write(tx, entry).await?)
            })
        })
        .await?;
    api.broker.refresh().await.map_err(|error| ApiError::internal(&error))?;
    api.broker.end_session(id).await;
    Ok(())
}
