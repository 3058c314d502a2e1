//! Sites and doors.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use super::auth::Caller;
use super::body::{Checks, Fields, Json};
use super::openapi::{texts, wire};
use super::page::Page;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::{DeviceId, DoorId, SiteId};
use hub_keys::NewSite as NewSiteRow;
use hub_store::{audit, places};

/// Names of sites, doors, devices and people: what fits on a badge or a sign.
pub(super) const MAX_NAME: usize = 200;
/// IANA time zone names are shorter than this.
pub(super) const MAX_TIME_ZONE: usize = 64;

/// A site to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSite {
    #[schema(value_type = texts::Name)]
    name: String,
    #[schema(value_type = texts::TimeZone)]
    time_zone: String,
}

impl Fields for NewSite {
    const KNOWN: &'static [&'static str] = &["name", "time_zone"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// A site.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Site)]
pub(super) struct SiteView {
    id: Uuid,
    name: String,
    time_zone: String,
    gallery_id: Uuid,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
}

impl From<places::Site> for SiteView {
    fn from(site: places::Site) -> Self {
        Self {
            id: site.id.0,
            name: site.name,
            time_zone: site.time_zone,
            gallery_id: site.gallery_id.0,
            created_at: site.created_at.into(),
        }
    }
}

/// Whether a text has the form of an IANA name, such as `Asia/Jakarta` or `UTC`.
fn is_time_zone(text: &str) -> bool {
    let fine = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
    };
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.split('/').all(fine)
        && (text.contains('/') || matches!(text, "UTC" | "GMT"))
}

/// `POST /v1/sites`
#[utoipa::path(
    post, path = "/v1/sites", operation_id = "create_site", tag = "sites and doors",
    summary = "Make a site",
    description = "With it comes its gallery: who is to be recognised at its doors.",
    request_body = NewSite,
    responses(
        (status = 201, description = "The site", body = SiteView),
        (status = 409, description = "`conflict`: another site has this name."),
    ),
)]
pub(super) async fn create_site(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewSite>,
) -> Result<(StatusCode, axum::Json<SiteView>), ApiError> {
    Checks::default()
        .text("/name", &new.name, MAX_NAME)
        .text("/time_zone", &new.time_zone, MAX_TIME_ZONE)
        .that(is_time_zone(&new.time_zone), "/time_zone", "must be an IANA name such as Asia/Jakarta")
        .done()?;
    let site = NewSiteRow { id: SiteId(api.clock.new_id()), name: new.name, time_zone: new.time_zone };
    let site = api.custody.create_site(caller.tenant, site, &caller.actor()).await?;
    Ok((StatusCode::CREATED, axum::Json(site.into())))
}

/// `GET /v1/sites`
#[utoipa::path(
    get, path = "/v1/sites", operation_id = "list_sites", tag = "sites and doors",
    summary = "All sites",
    responses(
        (status = 200, description = "All of them, in one page", body = Page<SiteView>),
    ),
)]
pub(super) async fn list_sites(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<axum::Json<Page<SiteView>>, ApiError> {
    let sites = api.db.tenant(caller.tenant, |tx| Box::pin(places::sites(tx))).await?;
    Ok(axum::Json(Page::whole(sites.into_iter().map(SiteView::from).collect())))
}

/// `GET /v1/sites/{id}`
#[utoipa::path(
    get, path = "/v1/sites/{id}", operation_id = "get_site", tag = "sites and doors",
    summary = "One site",
    params(("id" = Uuid, Path, description = "The site")),
    responses(
        (status = 200, description = "The site", body = SiteView),
    ),
)]
pub(super) async fn get_site(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<SiteView>, ApiError> {
    let site = api.db.tenant(caller.tenant, move |tx| Box::pin(places::site(tx, SiteId(id)))).await?;
    Ok(axum::Json(site.into()))
}

/// A door to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDoor {
    site_id: Uuid,
    #[schema(value_type = texts::Name)]
    name: String,
    /// The device that drives it; with `local_id`, or neither.
    #[serde(default)]
    device_id: Option<Uuid>,
    /// Its id in the device's configuration; with `device_id`, or neither.
    #[serde(default)]
    #[schema(value_type = Option<texts::Name>)]
    local_id: Option<String>,
}

impl Fields for NewDoor {
    const KNOWN: &'static [&'static str] = &["site_id", "name", "device_id", "local_id"];
    const REQUIRED: &'static [&'static str] = &["site_id", "name"];
}

/// A door.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Door)]
pub(super) struct DoorView {
    id: Uuid,
    site_id: Uuid,
    #[schema(required)]
    device_id: Option<Uuid>,
    /// Its id in the device's configuration.
    #[schema(required)]
    local_id: Option<String>,
    name: String,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
}

impl From<places::Door> for DoorView {
    fn from(door: places::Door) -> Self {
        Self {
            id: door.id.0,
            site_id: door.site_id.0,
            device_id: door.device_id.map(|id| id.0),
            local_id: door.local_id,
            name: door.name,
            created_at: door.created_at.into(),
        }
    }
}

/// `POST /v1/doors`
#[utoipa::path(
    post, path = "/v1/doors", operation_id = "create_door", tag = "sites and doors",
    summary = "Make a door",
    description = "With the device that drives it, or without one. Doors of a new device can be made with it (`POST /v1/devices`).",
    request_body = NewDoor,
    responses(
        (status = 201, description = "The door", body = DoorView),
        (status = 404, description = "`not_found`: there is no such site or device."),
        (status = 409, description = "`conflict`: another door of the site has this name, or the device has one with this `local_id`."),
    ),
)]
pub(super) async fn create_door(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Json(new): Json<NewDoor>,
) -> Result<(StatusCode, axum::Json<DoorView>), ApiError> {
    let mut checks = Checks::default();
    checks.text("/name", &new.name, MAX_NAME);
    if let Some(local_id) = &new.local_id {
        checks.text("/local_id", local_id, MAX_NAME);
    }
    checks
        .that(new.device_id.is_some() == new.local_id.is_some(), "/local_id", "is needed with device_id, and only then")
        .done()?;
    let id = DoorId(api.clock.new_id());
    let door = places::NewDoor {
        id,
        site_id: SiteId(new.site_id),
        device_id: new.device_id.map(DeviceId),
        local_id: new.local_id,
        name: new.name,
    };
    let actor = caller.actor();
    let door = api
        .db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                // Asked for by id first: a foreign key would only say that something is wrong.
                places::site(tx, door.site_id).await?;
                if let Some(device) = door.device_id {
                    hub_store::devices::get(tx, device).await?;
                }
                places::create_door(tx, &door).await?;
                let entry = audit::Entry {
                    actor: &actor,
                    action: audit::Action::DoorCreate,
                    object_kind: "door",
                    object_id: Some(id.0),
                    detail: json!({}),
                };
                audit::write(tx, entry).await?;
                let doors = places::doors(tx, None).await?;
                Ok::<_, ApiError>(doors.into_iter().find(|door| door.id == id))
            })
        })
        .await?
        .ok_or_else(|| ApiError::of(Code::Internal))?;
    Ok((StatusCode::CREATED, axum::Json(door.into())))
}

/// `GET /v1/doors`
#[utoipa::path(
    get, path = "/v1/doors", operation_id = "list_doors", tag = "sites and doors",
    summary = "All doors",
    responses(
        (status = 200, description = "All of them, in one page", body = Page<DoorView>),
    ),
)]
pub(super) async fn list_doors(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<axum::Json<Page<DoorView>>, ApiError> {
    let doors = api.db.tenant(caller.tenant, |tx| Box::pin(places::doors(tx, None))).await?;
    Ok(axum::Json(Page::whole(doors.into_iter().map(DoorView::from).collect())))
}

#[cfg(test)]
mod tests {
    use super::is_time_zone;

    #[test]
    fn time_zones_have_a_form() {
        for fine in ["Asia/Jakarta", "America/Argentina/Buenos_Aires", "Etc/GMT+7", "UTC"] {
            assert!(is_time_zone(fine), "{fine}");
        }
        for wrong in ["", "Jakarta", "+07:00", "Asia/", "/Asia", "../../etc/passwd", "Asia/Jakarta;"] {
            assert!(!is_time_zone(wrong), "{wrong}");
        }
    }
}
