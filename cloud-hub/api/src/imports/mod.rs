//! Many people at once, from a file: a table, lines of JSON, or an archive of either with photographs.
//!
//! In: the file as the body. Out: lines of JSON as the work goes on: how many rows there are, what came of each, and at the end how
//! many of what. The file is taken whole before the first row is worked at, into a file without a name that is gone with the
//! import. Each row is a request of its own in all but the asking: the same checks, quotas, transactions and audit entries; what is
//! wrong with one is no matter of the others. An import that breaks off ends at a row's end, and the same file once more goes on where
//! it ended, since what is so already is left as it is. Deliberately absent: imports as things with ids to be asked about later.

mod person;
mod photographs;
mod place;
mod report;
mod run;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};
use wire_contract::Code;

use super::auth::Caller;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::TenantId;
use hub_domain::permission::Permission;
use hub_roster::{Bounds, Format, RosterError};
pub use place::{ImportLimits, Imports};

/// Files in an archive: 50,000 people with two photographs each.
const MAX_ENTRIES: usize = 100_001;
/// A list of 100,000 people has some 15 MiB.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// Photographs shrink by nothing when they are packed: what unpacks to several times its size is no archive of them.
const UNPACKED_TIMES: u64 = 2;
/// Lines that a slow reader may be behind.
const LINES: usize = 64;

/// What to do about somebody who is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnExisting {
    /// They become as the row says; what it does not name stays.
    #[default]
    Update,
    /// They stay as they are.
    Skip,
    /// The row is refused.
    Refuse,
}

impl OnExisting {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Skip => "skip",
            Self::Refuse => "refuse",
        }
    }
}

/// How to import.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    /// Only say what would come of each row. Photographs are looked at, and looked for among those who are there.
    #[serde(default)]
    dry_run: bool,
    /// What to do about rows whose `external_id` somebody has.
    #[serde(default)]
    #[param(inline)]
    on_existing: OnExisting,
    /// Enrol although another person looks the same (twins; a second record on purpose).
    #[serde(default)]
    allow_duplicate: bool,
}

/// For whom an import is.
pub(super) struct Importer {
    pub(super) tenant: TenantId,
    pub(super) actor: String,
    /// Whose end ends the import too.
    pub(super) caller: Option<Caller>,
    /// Whether photographs may be enrolled.
    pub(super) may_enrol: bool,
}

/// `POST /v1/people/imports`
#[utoipa::path(
    post, path = "/v1/people/imports", operation_id = "import_people", tag = "people",
    summary = "Import people from a file",
    description = "A table (`text/csv`, with the columns `external_id`, `name`, `email`, `groups`, `site_ids`, `valid_from`, `valid_until`, `photos` in any order; several groups, sites or photographs in one cell are separated by semicolons), lines of JSON with the same fields (`application/x-ndjson`), or a ZIP (`application/zip`) with one of them as `people.csv` or `people.jsonl` and the files that `photos` names beside it. Answered line by line: `begin` with the number of rows, a `row` for each as it is done, `summary` at the end. Whoever has the `external_id` already is changed to what the row says (see `on_existing`); what a table has no column for, or an object no member, stays, and an empty cell or `null` takes away. Photographs that somebody's template was made of already are not enrolled again, so that the same file once more changes nothing. An answer without its `summary` broke off; so does the import when its reader goes away: send the file once more. A request of one, whatever the number of rows; quotas count each. Photographs need the permission `people:enrol` too.",
    params(ImportQuery),
    request_body(
        content(
            (String = "text/csv", example = "external_id,name,groups\nE-1042,Ada,visitors;night\n"),
            (String = "application/x-ndjson", example = "{\"external_id\": \"E-1042\", \"name\": \"Ada\"}\n"),
            (Vec<u8> = "application/zip"),
        ),
    ),
    responses(
        (status = 200, description = "What comes of it, as it comes", body = String, content_type = "application/x-ndjson"),
        (status = 415, description = "`unsupported_media_type`: it is sent as none of the three."),
        (status = 413, description = "`payload_too_large`: the file, its list, what it unpacks to, or the number of its files is above a bound."),
        (status = 422, description = "`invalid_field`, `unknown_field`, `missing_field`: this is no such file, or its heading is not one."),
        (status = 503, description = "`unavailable`: the tenant has an import under way, or the hub has as many as it takes. `models_unavailable`: there are photographs, and no model pack in use."),
    ),
)]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<ImportQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let may_enrol = caller.permissions.allow(Permission::PeopleEnrol);
    let importer = Importer { tenant: caller.tenant, actor: caller.actor(), caller: Some(caller), may_enrol };
    begin(&api, importer, query, &headers, body).await
}

/// Takes the file, and answers with what comes of its rows.
pub(super) async fn begin(
    api: &Arc<Api>,
    importer: Importer,
    query: ImportQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let format = format_of(headers)?;
    let place = api.imports.enter(importer.tenant)?;
    let file = api.imports.take(body).await?;
    let bounds = Bounds {
        entries: MAX_ENTRIES,
        list_bytes: MAX_LIST_BYTES,
        photograph_bytes: api.settings.enrolment.max_photo_bytes as u64,
        unpacked_bytes: api.imports.max_bytes().saturating_mul(UNPACKED_TIMES),
    };
    let dir = api.imports.dir().to_path_buf();
    let opened =
        tokio::task::spawn_blocking(move || hub_roster::open(file, format, bounds, || tempfile::tempfile_in(dir)));
    let (list, photographs) =
        opened.await.map_err(|error| ApiError::internal(&error))?.map_err(|error| unfit(&error))?;
    if photographs.as_ref().is_some_and(|photographs| photographs.count() > 0) {
        if !importer.may_enrol {
            let detail = "photographs need the permission people:enrol: without it send the list alone";
            return Err(ApiError::because(Code::Forbidden, detail));
        }
        if !api.enroller.has_models() {
            let detail = "the hub has no model pack in use and cannot enrol photographs: send the list alone, or see the hub's log";
            return Err(ApiError::because(Code::ModelsUnavailable, detail));
        }
    }
    let import = run::Import::begin(api, importer, query, format, list.count()).await?;
    let (lines, answer) = mpsc::channel(LINES);
    tokio::spawn(import.run(list, photographs, lines, place));
    let mut response = Body::from_stream(ReceiverStream::new(answer)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

fn format_of(headers: &HeaderMap) -> Result<Format, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/csv" => Ok(Format::Csv),
        "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => Ok(Format::Jsonl),
        "application/zip" | "application/x-zip-compressed" => Ok(Format::Zip),
        _ => {
            let detail = "send text/csv, application/x-ndjson or application/zip";
            Err(ApiError::because(Code::UnsupportedMediaType, detail))
        }
    }
}

fn unfit(error: &RosterError) -> ApiError {
    let (pointer, code) = match error {
        RosterError::Io(cause) => return ApiError::internal(cause),
        RosterError::TooLarge { .. } => return ApiError::because(Code::PayloadTooLarge, error.to_string()),
        RosterError::UnknownColumn { .. } | RosterError::OneColumn { .. } => ("/heading", Code::UnknownField),
        RosterError::NoExternalId | RosterError::NoHeading => ("/heading", Code::MissingField),
        RosterError::ColumnTwice { .. } => ("/heading", Code::InvalidField),
        RosterError::Endless { .. } | RosterError::Utf16 | RosterError::Archive(_) => ("/file", Code::InvalidField),
    };
    ApiError::field(pointer, code, error.to_string())
}
