//! Health: alive, ready, and how each part is.
//!
//! `live` says that the process answers; `ready` that it can serve (503 while starting and draining); `detailed` asks
//! every part. The details name parts and states, never tenants, paths or versions of schemas.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;
use wire_contract::Timestamp;

use super::openapi::{wire, words};
use super::state::Api;

/// Where the program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Parts are still being started.
    Starting = 0,
    /// Serving.
    Ready = 1,
    /// Asked to stop; what is under way ends.
    Draining = 2,
}

/// The phase, set by the wiring and read by the probes.
#[derive(Debug, Default)]
pub struct Life(AtomicU8);

impl Life {
    /// Moves on.
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// Where the program is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

/// How one part is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = HealthOfPart)]
pub struct Component {
    /// `database`, `broker`, `models`, `key_store`, `vector_table`.
    pub name: &'static str,
    /// `pass`, `warn` or `fail`.
    pub status: Status,
    /// What to know or do; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A state of RFC draft `application/health+json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HealthStatus)]
pub enum Status {
    /// All is well.
    Pass,
    /// Something is missing, the rest serves.
    Warn,
    /// The hub cannot serve.
    Fail,
}

/// Asks a part how it is. The wiring brings one for each part that the API does not know itself.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Component> + Send + Sync>;

impl Component {
    /// A part that is well.
    #[must_use]
    pub fn pass(name: &'static str) -> Self {
        Self { name, status: Status::Pass, detail: String::new() }
    }

    /// A part whose lack leaves the rest serving.
    #[must_use]
    pub fn warn(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, detail: detail.into() }
    }

    /// A part without which nothing goes.
    #[must_use]
    pub fn fail(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, detail: detail.into() }
    }
}

/// A state of the hub, as draft `application/health+json` has it.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = words::HubPhase, required = false)]
    phase: Option<&'static str>,
    #[schema(value_type = wire::Timestamp)]
    time: Timestamp,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Component>,
}

fn answer(status: StatusCode, health: &Health) -> Response {
    let mut response = (status, axum::Json(health)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/health+json"));
    response
}

/// `GET /health/live`
#[utoipa::path(
    get, path = "/health/live", operation_id = "get_health_live", tag = "health",
    summary = "Whether the process answers",
    responses(
        (status = 200, description = "It does", body = Health, content_type = "application/health+json"),
    ),
)]
pub(super) async fn live(State(api): State<Arc<Api>>) -> Response {
    let time = api.clock.now().into();
    answer(StatusCode::OK, &Health { status: Status::Pass, phase: None, time, components: Vec::new() })
}

/// `GET /health` and `GET /health/ready`
#[utoipa::path(
    get, path = "/health/ready", operation_id = "get_health_ready", tag = "health",
    summary = "Whether the hub can serve",
    description = "No while it starts and while it ends.",
    responses(
        (status = 200, description = "It can", body = Health, content_type = "application/health+json"),
        (status = 503, description = "It cannot", body = Health, content_type = "application/health+json"),
    ),
)]
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let (phase, name) = match api.life.phase() {
        Phase::Starting => (Phase::Starting, "starting"),
        Phase::Ready => (Phase::Ready, "ready"),
        Phase::Draining => (Phase::Draining, "draining"),
    };
    let serves = phase == Phase::Ready && api.db.ping().await.is_ok();
    let (code, status) =
        if serves { (StatusCode::OK, Status::Pass) } else { (StatusCode::SERVICE_UNAVAILABLE, Status::Fail) };
    let time = api.clock.now().into();
    answer(code, &Health { status, phase: Some(name), time, components: Vec::new() })
}

/// `GET /health/detailed`
#[utoipa::path(
    get, path = "/health/detailed", operation_id = "get_health_detailed", tag = "health",
    summary = "How each part is",
    description = "Parts and their states; never a tenant, a path or a version.",
    responses(
        (status = 200, description = "It serves, perhaps with warnings", body = Health, content_type = "application/health+json"),
        (status = 503, description = "A part failed without which nothing goes", body = Health, content_type = "application/health+json"),
    ),
)]
pub(super) async fn detailed(State(api): State<Arc<Api>>) -> Response {
    let components = api.components().await;
    let status = components.iter().map(|component| component.status).max().unwrap_or(Status::Pass);
    let code = if status == Status::Fail { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    answer(code, &Health { status, phase: None, time: api.clock.now().into(), components })
}
