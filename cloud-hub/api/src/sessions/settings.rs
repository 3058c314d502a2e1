//! How long a tenant's sessions stay open.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::{self, Checks, Fields};
use crate::problem::ApiError;
use crate::state::Api;
use hub_domain::session::Lifetimes;
use hub_store::{audit, tenants};

/// How long sessions stay open, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionSettings)]
pub(crate) struct Settings {
    /// A verification or identification.
    #[schema(minimum = 30, maximum = 600, example = 120)]
    authentication_s: u32,
    /// An enrolment.
    #[schema(minimum = 60, maximum = 3_600, example = 900)]
    enrolment_s: u32,
}

impl Fields for Settings {
    const KNOWN: &'static [&'static str] = &["authentication_s", "enrolment_s"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

impl From<Lifetimes> for Settings {
    fn from(Lifetimes { authentication_s, enrolment_s }: Lifetimes) -> Self {
        Self { authentication_s, enrolment_s }
    }
}

/// `GET /v1/tenant/sessions`
#[utoipa::path(
    get, path = "/v1/tenant/sessions", operation_id = "get_session_settings", tag = "tenant",
    summary = "How long sessions stay open",
    description = "Two minutes for a verification or identification and fifteen for an enrolment, unless somebody said otherwise.",
    responses((status = 200, description = "The settings", body = Settings)),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<Settings>, ApiError> {
    let lifetimes = api.db.tenant(caller.tenant, |tx| Box::pin(tenants::session_lifetimes(tx))).await?;
    Ok(Json(lifetimes.into()))
}

/// `PUT /v1/tenant/sessions`
#[utoipa::path(
    put, path = "/v1/tenant/sessions", operation_id = "put_session_settings", tag = "tenant",
    summary = "Say how long sessions stay open",
    description = "It holds for sessions that are opened from now on.",
    request_body = Settings,
    responses((status = 200, description = "The settings as they are now", body = Settings)),
)]
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body::Json(wanted): body::Json<Settings>,
) -> Result<Json<Settings>, ApiError> {
    let (short, long) = (Lifetimes::AUTHENTICATION, Lifetimes::ENROLMENT);
    let says = |range: &std::ops::RangeInclusive<u32>| format!("must be from {} to {}", range.start(), range.end());
    Checks::default()
        .that(short.contains(&wanted.authentication_s), "/authentication_s", &says(&short))
        .that(long.contains(&wanted.enrolment_s), "/enrolment_s", &says(&long))
        .done()?;
    let lifetimes = Lifetimes { authentication_s: wanted.authentication_s, enrolment_s: wanted.enrolment_s };
    let actor = caller.actor();
    api.db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                let was = tenants::session_lifetimes(tx).await?;
                tenants::set_session_lifetimes(tx, lifetimes).await?;
                let entry = audit::Entry {
                    actor: &actor,
                    action: audit::Action::TenantSessions,
                    object_kind: "tenant",
                    object_id: Some(tx.tenant().0),
                    detail: json!({ "now": wanted, "was": Settings::from(was) }),
                };
                Ok::<_, ApiError>(audit::write(tx, entry).await?)
            })
        })
        .await?;
    Ok(Json(wanted))
}
