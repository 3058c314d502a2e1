//! The feed of events: pages by cursor, and a live stream that can be taken up again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;
use wire_contract::{Code, EventClass};

use super::auth::Caller;
use super::feed::FeedWaiter;
use super::openapi::{texts, wire};
use super::page::{Page, check_limit};
use super::problem::ApiError;
use super::state::Api;
use hub_domain::cursor::Cursor;
use hub_domain::event::FeedEvent;
use hub_store::events;

/// A silent stream gets a comment this often, so that proxies and clients know that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A silent stream looks for itself this often: a wake-up may be lost, and a revoked key must end it within 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// Events read at once for a stream; bounds what one slow client keeps in memory.
const STREAM_PAGE: u32 = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Events in a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: `next_cursor` or `x-last-cursor` of another.
    #[param(value_type = Option<texts::FeedCursor>)]
    cursor: Option<String>,
    /// Classes, separated by commas.
    #[param(value_type = Option<texts::ClassList>)]
    class: Option<String>,
}

fn cursor(text: &str) -> Result<Cursor, ApiError> {
    Cursor::decode(text).map_err(|error| ApiError::field("cursor", Code::InvalidField, error.to_string()))
}

/// The wanted classes; a misspelt one is an error and not an empty list.
pub(super) fn classes(text: Option<&str>) -> Result<Option<Vec<String>>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let check = |word: &str| {
        EventClass::from_word(word)
            .map(|_| word.to_owned())
            .ok_or_else(|| ApiError::field("class", Code::InvalidField, "is no class of events"))
    };
    text.split(',').map(str::trim).map(check).collect::<Result<Vec<_>, _>>().map(Some)
}

/// `GET /v1/events`: the events after a cursor, oldest first.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "list_events", tag = "events",
    summary = "Events, by page",
    description = "Those after a cursor, the oldest first. `x-last-cursor` is where to go on later, at the end too.",
    params(EventsQuery),
    responses(
        (status = 200, description = "A page", body = Page<wire::CloudEvent>, headers(("Link" = String, description = "The next page, `rel=\"next\"`; absent at the end"), ("x-last-cursor" = String, description = "The place of the last event here, or of the given cursor"))),
        (status = 422, description = "`invalid_field`: `limit`, `cursor` or `class` is not one."),
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
) -> Result<impl IntoResponse, ApiError> {
    let limit = check_limit(query.limit)?;
    let after = query.cursor.as_deref().map(cursor).transpose()?.unwrap_or_default();
    let classes = classes(query.class.as_deref())?;
    let wanted = classes.as_ref().map(|classes| classes.join(","));
    let events = api
        .db
        .tenant(caller.tenant, move |tx| {
            Box::pin(async move { events::page(tx, after, limit, classes.as_deref()).await })
        })
        .await?;
    // A full page may have a next one. The cursor is given at the end too, so that a client can go on later.
    let next = events.last().map(|event| Cursor(event.position));
    let full = u32::try_from(events.len()).is_ok_and(|n| n == limit);
    let page: Page<Box<RawValue>> = Page {
        data: events.into_iter().map(|event| event.body).collect(),
        next_cursor: next.filter(|_| full).map(Cursor::encode),
    };
    let mut headers = page.link("/v1/events", limit, wanted.as_deref().map(|classes| ("class", classes)));
    if let Ok(value) = next.unwrap_or(after).encode().parse() {
        headers.insert("x-last-cursor", value);
    }
    Ok((headers, axum::Json(page)))
}

/// `GET /v1/events/stream`: committed events as they come, each once and in order, from `Last-Event-ID` or `cursor` on,
/// else from now on.
#[utoipa::path(
    get, path = "/v1/events/stream", operation_id = "stream_events", tag = "events",
    summary = "Events, as they happen",
    description = "Server-sent events, each once and in order: `id` is its cursor, `data` a CloudEvent. From a cursor on, else from now on; a comment every ten seconds says that the stream lives. It ends when the key does.",
    params(
        ("Last-Event-ID" = Option<texts::FeedCursor>, Header, description = "Go on after this event; wins over `cursor`"),
        ("cursor" = Option<texts::FeedCursor>, Query, description = "Go on after this place"),
        ("class" = Option<texts::ClassList>, Query, description = "Only these classes; all without it"),
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 422, description = "`invalid_field`: `cursor` or `class` is not one, or there is a `limit`."),
    ),
)]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    if query.limit.is_some() {
        return Err(ApiError::field("limit", Code::InvalidField, "a stream has no limit"));
    }
    let last_seen = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let from = last_seen.or(query.cursor.as_deref()).map(cursor).transpose()?;
    let classes = classes(query.class.as_deref())?;
    let waiter = api.feed.wait_for(caller.tenant);
    let after = match from {
        Some(cursor) => cursor,
        None => api.db.tenant(caller.tenant, |tx| Box::pin(events::head(tx))).await?,
    };
    let stop = api.stop.clone();
    let reader = Reader { api, caller, waiter, after, classes, buffer: VecDeque::new() };
    let events = reader.into_stream().take_until(stop.cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat")))
}

struct Reader {
    api: Arc<Api>,
    caller: Caller,
    waiter: FeedWaiter,
    after: Cursor,
    classes: Option<Vec<String>>,
    buffer: VecDeque<FeedEvent>,
}

impl Reader {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        futures::stream::unfold(self, |mut reader| async move {
            let event = reader.next().await?;
            // No event name: a browser's `onmessage` hears unnamed events only. The class is in the type.
            let line = Event::default().id(Cursor(event.position).encode()).data(event.body.get());
            Some((Ok(line), reader))
        })
    }

    /// The next event; `None` ends the stream (the key was revoked).
    async fn next(&mut self) -> Option<FeedEvent> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                self.after = Cursor(event.position);
                return Some(event);
            }
            match self.read().await {
                Ok(None) => return None,
                Ok(Some(events)) if !events.is_empty() => self.buffer.extend(events),
                // A database that is away for a moment ends no stream: positions make sure that nothing is missed.
                _ => drop(tokio::time::timeout(LOOK_EVERY, self.waiter.changed()).await),
            }
        }
    }

    /// The next page; `None` once the caller's key or log-in has ended. Asked for each page: a stream that has much to catch up
    /// with must end as soon as a silent one.
    async fn read(&self) -> Result<Option<Vec<FeedEvent>>, ApiError> {
        let (after, classes, caller, now) = (self.after, self.classes.clone(), self.caller, self.api.clock.now());
        let page = self.api.db.tenant(self.caller.tenant, move |tx| {
            Box::pin(async move {
                if !caller.goes_on(tx, now).await? {
                    return Ok(None);
                }
                events::page(tx, after, STREAM_PAGE, classes.as_deref()).await.map(Some)
            })
        });
        Ok(page.await?)
    }
}
