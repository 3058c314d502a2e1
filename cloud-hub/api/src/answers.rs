//! What devices send because a command asked for it: the lines of a log, a face for an enrolment.
//!
//! In: a device's certificate, the command's id, what it asked for. Out: a row, or the reason why not. An enrolment from a
//! door is a request: the person may be deleted meanwhile, look like somebody else, or the template be of another space.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use face_core::{Embedding, Space, ThresholdLadder};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::command::MAX_LOG_BYTES;
use wire_contract::{Code, EnrolAnswer, EnrolRequest, V1};

use super::auth::CallingDevice;
use super::body::{Fields, Json};
use super::openapi::wire;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::command::{Command, Kind, Progress};
use hub_domain::ids::{CommandId, PersonId};
use hub_keys::{Enrolment, NewTemplate, Origin, Sameness};
use hub_store::{TenantTx, audit, commands};

/// What a device may send in answer to one command.
pub(super) const MAX_ANSWER_BYTES: usize = MAX_LOG_BYTES as usize;
/// How far the length of a unit vector may be from 1 after its way through 32-bit numbers.
const NORM_TOLERANCE: f32 = 1e-3;
/// A name of a pack is shorter.
const MAX_PACK: usize = 100;

/// `PUT /v1/device/logs/{command}`
#[utoipa::path(
    put, path = "/v1/device/logs/{command}", operation_id = "put_device_logs", tag = "for devices",
    summary = "What `collect_logs` asked for",
    description = "Sent twice, the first counts. At most 512 KiB.",
    params(("command" = Uuid, Path, description = "The command that asked")),
    request_body(content = String, content_type = "application/x-ndjson", description = "Lines of JSON"),
    responses(
        (status = 204, description = "The hub has it"),
        (status = 409, description = "`conflict`: the command is over."),
        (status = 413, description = "`payload_too_large`: more than 512 KiB."),
    ),
)]
pub(super) async fn put_logs(
    State(api): State<Arc<Api>>,
    caller: CallingDevice,
    Path(command): Path<Uuid>,
    lines: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let lines = lines.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::of(Code::PayloadTooLarge),
        _ => ApiError::of(Code::InvalidRequest),
    })?;
    let now = api.clock.now();
    api.db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move {
                let command = open_command(tx, caller, CommandId(command), now).await?;
                if !matches!(command.kind, Kind::CollectLogs { .. }) {
                    return Err(ApiError::of(Code::NotFound));
                }
                // Sent twice, it is the first that counts: its answer may have been lost.
                if commands::keep_log(tx, &command, &lines, now).await? {
                    let entry = audit::Entry {
                        actor: &format!("device:{}", caller.device),
                        action: audit::Action::CommandLog,
                        object_kind: "command",
                        object_id: Some(command.id.0),
                        detail: json!({ "bytes": lines.len() }),
                    };
                    audit::write(tx, entry).await?;
                }
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Fields for EnrolRequest {
    const KNOWN: &'static [&'static str] = &["v", "command", "person", "space_id", "pack", "quality", "template"];
    const REQUIRED: &'static [&'static str] = Self::KNOWN;
}

/// `POST /v1/device/enrolments`
#[utoipa::path(
    post, path = "/v1/device/enrolments", operation_id = "create_device_enrolment", tag = "for devices",
    summary = "A face that an `enrol` command asked for",
    request_body = wire::EnrolRequest,
    responses(
        (status = 200, description = "It is a template now", body = wire::EnrolAnswer),
        (status = 404, description = "`not_found`: no such command was given to this device, or the person is gone."),
        (status = 409, description = "`conflict`: the command is over. `duplicate_person`: another person looks the same."),
        (status = 503, description = "`models_unavailable`: the hub has no model pack in use. `unavailable`: after a crash of the database nobody is enrolled until those who look the same can be found."),
        (status = 403, description = "`quota_reached`: the tenant has all templates that it may have."),
    ),
)]
pub(super) async fn enrol(
    State(api): State<Arc<Api>>,
    caller: CallingDevice,
    Json(request): Json<EnrolRequest>,
) -> Result<axum::Json<EnrolAnswer>, ApiError> {
    let (id, person) = (CommandId(request.command.0), PersonId(request.person.0));
    let now = api.clock.now();
    let command = api.db.tenant(caller.tenant, move |tx| Box::pin(open_command(tx, caller, id, now))).await?;
    // The device does not choose whom it enrols.
    if !matches!(command.kind, Kind::Enrol { person: ordered, .. } if ordered == person) {
        return Err(ApiError::of(Code::NotFound));
    }
    let (new, space, ladder) = template_of(&api, request)?;
    let probe = Embedding::from_slice(new.embedding.as_slice()).map_err(|error| ApiError::internal(&error))?;
    let probe = probe.with_handicap(space.handicap(new.quality));
    // The operator decides about duplicates at the hub, not a device at a door.
    let actor = format!("device:{}", caller.device);
    let sameness = Sameness { space, probe, ladder, allowed: false };
    let enrolled = api.custody.enrol_unless_known(caller.tenant, person, Origin::Command(id), (new, sameness), &actor);
    let Enrolment::Made(template, _) = enrolled.await? else {
        return Err(ApiError::because(Code::DuplicatePerson, "another person of this tenant looks the same"));
    };
    tracing::info!(event = "enrolled_at_door", client_id = %caller.tenant, device = %caller.device, command = %id, "a face taken at a door became a template");
    Ok(axum::Json(EnrolAnswer { v: V1, template: template.0 }))
}

/// The command, if it is this device's and waits for an answer.
async fn open_command(
    tx: &mut TenantTx,
    caller: CallingDevice,
    id: CommandId,
    now: OffsetDateTime,
) -> Result<Command, ApiError> {
    let command = commands::get(tx, id).await?;
    if command.device != caller.device {
        return Err(ApiError::of(Code::NotFound));
    }
    let over = matches!(command.progress, Progress::Said(state) if state.is_last());
    if over || now >= command.expires_at + command.kind.grace() {
        return Err(ApiError::because(Code::Conflict, "the command is over"));
    }
    Ok(command)
}

fn template_of(api: &Api, request: EnrolRequest) -> Result<(NewTemplate, Space, ThresholdLadder), ApiError> {
    let Some((space, ladder)) = api.enroller.space() else {
        return Err(ApiError::because(Code::ModelsUnavailable, "without models the hub cannot look for duplicates"));
    };
    if request.space_id != space.id {
        let detail = format!("the hub works in the space {}; give device and hub the same model pack", space.id);
        return Err(ApiError::field("/space_id", Code::InvalidField, detail));
    }
    let invalid = |field: &str, message: &str| ApiError::field(field, Code::InvalidField, message);
    let embedding =
        request.template.embedding().ok_or_else(|| invalid("/template", "must be 512 finite 32-bit numbers"))?;
    let norm = embedding.iter().map(|component| component * component).sum::<f32>().sqrt();
    if (norm - 1.0).abs() > NORM_TOLERANCE {
        return Err(invalid("/template", "must be of unit length"));
    }
    let quality = request.quality.get();
    if !(0.0..=1.0).contains(&quality) || request.pack.len() > MAX_PACK {
        return Err(invalid("/quality", "must be in [0, 1], and the name of a pack short"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a share of four decimals")]
    let quality = quality as f32;
    let space_id = space.id.clone();
    let new = NewTemplate { space_id, model_version: request.pack, quality, photographs: 1, embedding, mark: None };
    Ok((new, space, ladder))
}
