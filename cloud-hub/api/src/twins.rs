//! Twins over the API: what is wished for a device, what it says, and the difference.
//!
//! In: an API key, settings, the ETag of what they change. Out: desired, reported, difference, since when. Settings are checked
//! against the device's own schema before they are taken: an unknown key, or a number out of its bounds, is an error.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp, TwinSettings, TwinVersion};

use super::auth::Caller;
use super::body::{Fields, Json};
use super::commands::Giver;
use super::openapi::{wire, words};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::{DeviceId, TenantId};
use hub_domain::twin::{self, Desired, Reported};
use hub_store::devices::DeviceState;
use hub_store::{TenantTx, audit, devices, twins};

/// Settings of one device. Sealed and wrapped they must fit a message of 64 KiB; 64 doors need a quarter of this.
const MAX_SETTINGS_BYTES: usize = 32 * 1024;

/// The twin as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Twin)]
pub(super) struct TwinView {
    device_id: Uuid,
    #[schema(value_type = words::TwinStanding)]
    standing: &'static str,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    since: Option<Timestamp>,
    #[schema(required)]
    desired: Option<DesiredView>,
    #[schema(required)]
    reported: Option<ReportedView>,
    difference: Vec<DifferenceView>,
}

/// Settings that were wished for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DesiredTwin)]
pub(super) struct DesiredView {
    version: u64,
    /// SHA-256 of the settings, in hex.
    hash: String,
    #[schema(value_type = wire::TwinSettings)]
    settings: TwinSettings,
    /// Who wished for them.
    actor: String,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
}

/// What a device says of its settings.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReportedTwin)]
struct ReportedView {
    #[schema(value_type = Option<wire::TwinVersion>, required)]
    seen: Option<TwinVersion>,
    #[schema(value_type = Option<wire::TwinVersion>, required)]
    applied: Option<TwinVersion>,
    #[schema(value_type = words::TwinReportState)]
    state: &'static str,
    /// Those in effect.
    #[schema(value_type = Object)]
    settings: Value,
    /// Paths of settings that wait for its next start.
    restart_needed: Vec<String>,
    #[schema(value_type = Option<wire::Code>, required)]
    code: Option<String>,
    #[schema(required)]
    reason: Option<String>,
    #[schema(value_type = wire::Timestamp)]
    reported_at: Timestamp,
}

/// A setting that is not as it is wished.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TwinDifference)]
struct DifferenceView {
    /// Such as `door.main.hold_ms`.
    path: String,
    desired: Value,
    reported: Value,
}

impl From<Desired> for DesiredView {
    fn from(desired: Desired) -> Self {
        Self {
            version: desired.version,
            hash: desired.settings.hash().to_string(),
            settings: desired.settings,
            actor: desired.actor,
            created_at: desired.created_at.into(),
        }
    }
}

impl From<Reported> for ReportedView {
    fn from(reported: Reported) -> Self {
        Self {
            seen: reported.seen,
            applied: reported.applied,
            state: reported.state.as_str(),
            settings: reported.settings,
            restart_needed: reported.restart_needed,
            code: reported.code,
            reason: reported.reason,
            reported_at: reported.reported_at.into(),
        }
    }
}

impl TwinView {
    async fn read(tx: &mut TenantTx, device: DeviceId, epoch: u32) -> Result<Self, ApiError> {
        devices::get(tx, device).await?;
        let (desired, reported) = (twins::desired(tx, device).await?, twins::reported(tx, device).await?);
        let (standing, since) = twin::standing(epoch, desired.as_ref(), reported.as_ref());
        let settings = reported.as_ref().map(|reported| &reported.settings);
        let differences = desired.as_ref().map(|desired| twin::difference(&desired.settings, settings));
        let view = |twin::Difference { path, desired, reported }| DifferenceView { path, desired, reported };
        Ok(Self {
            device_id: device.0,
            standing: standing.as_str(),
            since: since.map(Timestamp::from),
            difference: differences.unwrap_or_default().into_iter().map(view).collect(),
            desired: desired.map(DesiredView::from),
            reported: reported.map(ReportedView::from),
        })
    }

    fn version(&self) -> u64 {
        self.desired.as_ref().map_or(0, |desired| desired.version)
    }
}

/// The settings as a request brings them: the body is the settings themselves.
#[derive(Debug, Deserialize)]
pub(super) struct Wished(Value);

impl Fields for Wished {
    const KNOWN: &'static [&'static str] = &["log", "perceive", "door", "policy"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// `GET /v1/devices/{id}/twin`
#[utoipa::path(
    get, path = "/v1/devices/{id}/twin", operation_id = "get_twin", tag = "twins",
    summary = "Desired and reported settings",
    description = "And each setting that is not as it is wished.",
    params(("id" = Uuid, Path, description = "The device")),
    responses(
        (status = 200, description = "The twin", body = TwinView, headers(("ETag" = String, description = "The version of the desired settings, for `If-Match`"))),
    ),
)]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device): Path<Uuid>,
) -> Result<Response, ApiError> {
    Ok(tagged(show(&api, caller.tenant, DeviceId(device)).await?))
}

/// `PUT /v1/devices/{id}/twin`, with the ETag of the twin that it changes as `If-Match`.
#[utoipa::path(
    put, path = "/v1/devices/{id}/twin", operation_id = "put_twin", tag = "twins",
    summary = "Wish for settings",
    description = "They replace the desired ones whole; the same ones again change nothing. At most 32 KiB. They are checked as the device would check them.",
    params(
        ("id" = Uuid, Path, description = "The device"),
        ("If-Match" = String, Header, description = "The `ETag` of the twin that this is a change of; `*` for whatever it is"),
    ),
    request_body(content = wire::TwinSettings, content_type = "application/json"),
    responses(
        (status = 200, description = "The twin as it is now", body = TwinView, headers(("ETag" = String, description = "The version of the desired settings, for `If-Match`"))),
        (status = 403, description = "`device_revoked`: the device was revoked."),
        (status = 412, description = "`precondition_failed`: the twin is at another version."),
        (status = 428, description = "`precondition_required`: `If-Match` is missing."),
    ),
)]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device): Path<Uuid>,
    headers: HeaderMap,
    Json(Wished(settings)): Json<Wished>,
) -> Result<Response, ApiError> {
    let matching = match headers.get(header::IF_MATCH).map(HeaderValue::to_str) {
        None => return Err(ApiError::because(Code::PreconditionRequired, "send If-Match with the ETag of the twin")),
        Some(Ok("*")) => None,
        Some(tag) => {
            let version = tag.ok().and_then(|tag| tag.trim().trim_matches('"').parse().ok());
            Some(version.ok_or_else(|| ApiError::because(Code::PreconditionFailed, "If-Match is no ETag of a twin"))?)
        }
    };
    Ok(tagged(wish(&api, caller.into(), DeviceId(device), matching, &settings).await?))
}

/// `GET /v1/devices/{id}/twin/versions`: the last fifty, the newest first.
#[utoipa::path(
    get, path = "/v1/devices/{id}/twin/versions", operation_id = "list_twin_versions", tag = "twins",
    summary = "The last fifty desired settings",
    description = "The newest first.",
    params(("id" = Uuid, Path, description = "The device")),
    responses(
        (status = 200, description = "They, in one page", body = Page<DesiredView>),
    ),
)]
pub(super) async fn versions(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(device): Path<Uuid>,
) -> Result<axum::Json<Page<DesiredView>>, ApiError> {
    let found = api.db.tenant(caller.tenant, move |tx| {
        Box::pin(async move {
            devices::get(tx, DeviceId(device)).await?;
            Ok::<_, ApiError>(twins::versions(tx, DeviceId(device)).await?)
        })
    });
    Ok(axum::Json(Page::whole(found.await?.into_iter().map(DesiredView::from).collect())))
}

fn tagged(view: TwinView) -> Response {
    ([(header::ETAG, format!("\"{}\"", view.version()))], axum::Json(view)).into_response()
}

pub(super) async fn show(api: &Arc<Api>, tenant: TenantId, device: DeviceId) -> Result<TwinView, ApiError> {
    let epoch = api.custody.keyring().hub_epoch();
    api.db.tenant(tenant, move |tx| Box::pin(TwinView::read(tx, device, epoch))).await
}

/// Takes settings as the next desired state; the same ones again change nothing. `matching` is the version that they are a
/// change of, if the caller insists.
pub(super) async fn wish(
    api: &Arc<Api>,
    Giver { tenant, actor }: Giver,
    device: DeviceId,
    matching: Option<u64>,
    settings: &Value,
) -> Result<TwinView, ApiError> {
    if settings.to_string().len() > MAX_SETTINGS_BYTES {
        return Err(ApiError::because(
            Code::PayloadTooLarge,
            format!("at most {MAX_SETTINGS_BYTES} bytes of settings"),
        ));
    }
    let settings =
        TwinSettings::parse(settings).map_err(|error| ApiError::because(Code::InvalidField, error.to_string()))?;
    let (now, epoch) = (api.clock.now(), api.custody.keyring().hub_epoch());
    api.db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                if devices::get(tx, device).await?.state == DeviceState::Revoked {
                    return Err(ApiError::of(Code::DeviceRevoked));
                }
                let present = twins::desired(tx, device).await?;
                let version = present.as_ref().map_or(0, |present| present.version);
                if matching.is_some_and(|matching| matching != version) {
                    let detail = format!("the twin is at version {version}");
                    return Err(ApiError::because(Code::PreconditionFailed, detail));
                }
                if present.is_none_or(|present| present.settings != settings) {
                    let desired = Desired { version: version + 1, settings, actor, created_at: now };
                    twins::wish(tx, device, &desired).await?;
                    let entry = audit::Entry {
                        actor: &desired.actor,
                        action: audit::Action::TwinSet,
                        object_kind: "device",
                        object_id: Some(device.0),
                        detail: json!({ "version": desired.version, "hash": desired.settings.hash().to_string() }),
                    };
                    audit::write(tx, entry).await?;
                }
                TwinView::read(tx, device, epoch).await
            })
        })
        .await
}
