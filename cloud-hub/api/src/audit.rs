//! The audit, for whoever may read it: pages by cursor, and a copy of all of it. Both are audited themselves, once a request.
//!
//! Entries are shown once they have their place in the chain, which is within a second of their commit, in the order of places.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::form_urlencoded::Serializer;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wire_contract::Code;

use super::auth::Caller;
use super::openapi::{texts, words};
use super::page::{Page, check_limit};
use super::problem::ApiError;
use super::state::Api;
use hub_domain::audit::Sealed;
use hub_domain::cursor::Cursor;
use hub_domain::ids::TenantId;
use hub_store::TenantTx;
use hub_store::audit::reading::{self, Filter};
use hub_store::audit::{Action, Entry, write};

/// Entries read at once for a copy: some hundred kilobytes in memory.
const COPIED_AT_ONCE: u32 = 1_000;

/// Which entries. Of a copy `limit` and `cursor` say nothing: it is of all that fit.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Entries on a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Go on after this place.
    #[param(value_type = Option<texts::FeedCursor>)]
    cursor: Option<String>,
    /// Only of this actor, as in `api_key:<id>`.
    actor: Option<String>,
    /// Only this action.
    #[param(value_type = Option<words::AuditAction>)]
    action: Option<String>,
    /// Only of this kind of thing, as in `person`.
    object_kind: Option<String>,
    /// Only of this thing.
    object: Option<Uuid>,
    /// Not before this time.
    #[param(value_type = Option<texts::Moment>)]
    from: Option<String>,
    /// Before this time.
    #[param(value_type = Option<texts::Moment>)]
    until: Option<String>,
}

impl AuditQuery {
    fn filter(&self) -> Result<Filter, ApiError> {
        let known = |action: &&String| Action::ALL.iter().any(|known| known.as_str() == action.as_str());
        if self.action.as_ref().is_some_and(|action| !known(&action)) {
            return Err(ApiError::field("action", Code::InvalidField, "is no action of the audit"));
        }
        Ok(Filter {
            actor: self.actor.clone(),
            action: self.action.clone(),
            object_kind: self.object_kind.clone(),
            object_id: self.object,
            from: time_of("from", self.from.as_deref())?,
            until: time_of("until", self.until.as_deref())?,
        })
    }

    /// The filter in words: for the audit's own entry, and for the link to the next page.
    fn words(&self) -> Vec<(&'static str, String)> {
        let words = [
            ("actor", self.actor.clone()),
            ("action", self.action.clone()),
            ("object_kind", self.object_kind.clone()),
            ("object", self.object.map(|id| id.to_string())),
            ("from", self.from.clone()),
            ("until", self.until.clone()),
        ];
        words.into_iter().filter_map(|(name, word)| word.map(|word| (name, word))).collect()
    }

    fn after(&self) -> Result<Cursor, ApiError> {
        let wrong = |error| ApiError::field("cursor", Code::InvalidField, format!("{error}"));
        self.cursor.as_deref().map_or(Ok(Cursor::default()), |text| Cursor::decode(text).map_err(wrong))
    }
}

fn time_of(name: &'static str, text: Option<&str>) -> Result<Option<OffsetDateTime>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let invalid = |_| ApiError::field(name, Code::InvalidField, "must be a time such as 2026-11-01T00:00:00Z");
    OffsetDateTime::parse(text, &Rfc3339).map(Some).map_err(invalid)
}

/// An entry with its place.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct EntryView {
    /// Its place in the tenant's chain, from 1.
    position: u64,
    id: Uuid,
    #[schema(value_type = texts::Moment)]
    at: String,
    /// `api_key:<id>`, `device:<id>`, `operator` or `hub`.
    actor: String,
    #[schema(value_type = words::AuditAction)]
    action: String,
    object_kind: String,
    #[schema(required)]
    object_id: Option<Uuid>,
    #[schema(value_type = Object)]
    detail: Box<RawValue>,
    /// SHA-256 of the entry before, in hexadecimal digits.
    previous_hash: String,
    /// SHA-256 over this entry and the hash before.
    hash: String,
}

fn view(Sealed { entry, link }: Sealed) -> EntryView {
    EntryView {
        position: link.position,
        id: entry.id,
        at: entry.at.format(&Rfc3339).unwrap_or_default(),
        actor: entry.actor,
        action: entry.action,
        object_kind: entry.object_kind,
        object_id: entry.object_id,
        detail: RawValue::from_string(entry.detail).unwrap_or_else(|_| RawValue::NULL.to_owned()),
        previous_hash: hex::encode(link.previous),
        hash: hex::encode(link.hash),
    }
}

/// A page, and up to where it looked.
pub(super) struct Looked {
    pub(super) page: Page<EntryView>,
    through: Cursor,
    limit: u32,
}

/// `GET /v1/audit`: entries after a cursor, oldest first.
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "list_audit_entries", tag = "audit",
    summary = "The audit, by page",
    description = "Entries that have their place in the chain, the oldest first. `x-last-cursor` is where to go on later. The look is an entry too.",
    params(AuditQuery),
    responses(
        (status = 200, description = "A page", body = Page<EntryView>, headers(("Link" = String, description = "The next page, `rel=\"next\"`; absent at the end"), ("x-last-cursor" = String, description = "Up to where this page looked"))),
        (status = 422, description = "`invalid_field`: a parameter is not one."),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<(HeaderMap, axum::Json<Page<EntryView>>), ApiError> {
    let Looked { page, through, limit } = look(&api, caller.tenant, &query, caller.actor()).await?;
    let mut headers = HeaderMap::new();
    if let Some(cursor) = &page.next_cursor {
        let words = Serializer::new(format!("limit={limit}")).extend_pairs(query.words()).finish();
        if let Ok(value) = HeaderValue::from_str(&format!("</v1/audit?{words}&cursor={cursor}>; rel=\"next\"")) {
            headers.insert(header::LINK, value);
        }
    }
    if let Ok(value) = through.encode().parse() {
        headers.insert("x-last-cursor", value);
    }
    Ok((headers, axum::Json(page)))
}

/// A page for whoever looks.
pub(super) async fn look(api: &Api, tenant: TenantId, query: &AuditQuery, actor: String) -> Result<Looked, ApiError> {
    let (limit, after, filter) = (check_limit(query.limit)?, query.after()?, query.filter()?);
    let words = query.words();
    let page = api.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            let page = reading::page(tx, after, limit, &filter).await?;
            let detail = json!({ "filter": object(words), "count": page.entries.len() });
            note(tx, &actor, Action::AuditRead, detail).await?;
            Ok::<_, ApiError>(page)
        })
    });
    let page = page.await?;
    let through = page.through;
    let next_cursor = page.more.then(|| through.encode());
    Ok(Looked { page: Page { data: page.entries.into_iter().map(view).collect(), next_cursor }, through, limit })
}

/// `GET /v1/audit/export`: every entry that fits, a line of JSON each.
#[utoipa::path(
    get, path = "/v1/audit/export", operation_id = "export_audit", tag = "audit",
    summary = "A copy of the audit",
    description = "Every entry that fits, a line of JSON each, as it is read. A copy that breaks off ends without its last line's end. It ends when the key does.",
    params(
        ("actor" = Option<String>, Query, description = "Only of this actor"),
        ("action" = Option<words::AuditAction>, Query, description = "Only this action"),
        ("object_kind" = Option<String>, Query, description = "Only of this kind of thing"),
        ("object" = Option<Uuid>, Query, description = "Only of this thing"),
        ("from" = Option<texts::Moment>, Query, description = "Not before this time"),
        ("until" = Option<texts::Moment>, Query, description = "Before this time"),
    ),
    responses(
        (status = 200, description = "The entries", body = String, content_type = "application/x-ndjson"),
        (status = 422, description = "`invalid_field`: a parameter is not one, or there is a `limit` or a `cursor`."),
    ),
)]
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Response, ApiError> {
    copy(api, caller.tenant, &query, caller.actor(), Some(caller)).await
}

/// A copy for whoever asks; `caller`: whose end ends the copy too.
pub(super) async fn copy(
    api: Arc<Api>,
    tenant: TenantId,
    query: &AuditQuery,
    actor: String,
    caller: Option<Caller>,
) -> Result<Response, ApiError> {
    if query.limit.is_some() || query.cursor.is_some() {
        return Err(ApiError::field("limit", Code::InvalidField, "a copy has neither limit nor cursor: it is of all"));
    }
    let (filter, words) = (query.filter()?, query.words());
    // Before the first byte leaves: a copy that breaks off was one too.
    let noted = api.db.tenant(tenant, move |tx| {
        Box::pin(async move { note(tx, &actor, Action::AuditExport, json!({ "filter": object(words) })).await })
    });
    noted.await?;
    let reader = Reader { api, tenant, caller, filter: Arc::new(filter), after: Some(Cursor::default()) };
    let lines = futures::stream::try_unfold(reader, Reader::next);
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

fn object(words: Vec<(&'static str, String)>) -> Map<String, Value> {
    words.into_iter().map(|(name, word)| (name.to_owned(), Value::String(word))).collect()
}

async fn note(tx: &mut TenantTx, actor: &str, action: Action, detail: Value) -> Result<(), ApiError> {
    let tenant = tx.tenant().0;
    Ok(write(tx, Entry { actor, action, object_kind: "tenant", object_id: Some(tenant), detail }).await?)
}

struct Reader {
    api: Arc<Api>,
    tenant: TenantId,
    caller: Option<Caller>,
    filter: Arc<Filter>,
    /// Where to go on; `None` at the end.
    after: Option<Cursor>,
}

impl Reader {
    /// The next lines. An error cuts the connection, so that nobody takes a part for the whole.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let Some(after) = self.after else { return Ok(None) };
        if self.api.stop.is_cancelled() {
            return Err(io::Error::other("the hub stops"));
        }
        let (filter, caller, now) = (Arc::clone(&self.filter), self.caller, self.api.clock.now());
        let page = self.api.db.tenant(self.tenant, move |tx| {
            Box::pin(async move {
                if let Some(caller) = caller
                    && !caller.goes_on(tx, now).await?
                {
                    return Ok(None);
                }
                reading::page(tx, after, COPIED_AT_ONCE, &filter).await.map(Some)
            })
        });
        let page = page.await.map_err(|error: hub_store::StoreError| {
            tracing::warn!(event = "audit_copy_broke_off", client_id = %self.tenant, %error, "a copy of the audit broke off");
            io::Error::other("the database does not answer")
        })?;
        let page = page.ok_or_else(|| io::Error::other("the key or the log-in has ended"))?;
        let mut lines = Vec::new();
        for entry in page.entries {
            serde_json::to_writer(&mut lines, &view(entry))?;
            lines.push(b'\n');
        }
        self.after = page.more.then_some(page.through);
        Ok(Some((Bytes::from(lines), self)))
    }
}
