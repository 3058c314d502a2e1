//! `Idempotency-Key` before a handler: whoever asks again is answered again, and nothing is done twice.
//!
//! In: a request whose caller is known and admitted. Out: the handler's answer, or that of the first time with
//! `Idempotency-Replayed: true`. The request goes on in a task of its own: a client that goes away is the very one who asks again, and
//! what came of it must be kept for them. Deliberately absent: what follows from what is kept (`domain::idempotency`), and operations
//! that change nothing or are the same done twice.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::BytesMut;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;
use wire_contract::{Code, Problem};
use zeroize::Zeroizing;

use super::auth::Caller;
use super::problem::{ApiError, Unwritten};
use super::state::Api;
use super::{MAX_FORM_BYTES, MAX_JSON_BYTES};
use hub_domain::idempotency::{self, ATTEMPT, Key, MAX_ANSWER, RETRY_AFTER_S, is_outcome};
use hub_domain::ids::TenantId;
use hub_domain::limit::Class;
use hub_host::chain::chain;
use hub_host::traces::carried;
use hub_keys::{Claim, KeysError};
use hub_store::StoreError;
use hub_store::idempotency::{Attempt, bound};

/// The request's header.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The answer's, when it is one that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What else of an answer's head is given again; the rest is of the present answer.
const HEADERS: [HeaderName; 4] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION, header::RETRY_AFTER];
/// Bodies of forms take a while to hash.
const AWAY_FROM: usize = 256 * 1024;
/// Bytes of forms with a key in memory at a time: eight of the largest.
const ROOM: usize = 8 * MAX_FORM_BYTES;
/// How much of it one tenant may have.
const SHARE: usize = 2 * MAX_FORM_BYTES;
/// When to come again while there is no room.
const ROOM_RETRY_AFTER_S: u32 = 1;

/// The memory that forms with a key share. A handler reads a form when it has a place for it; here it is read before.
#[derive(Debug)]
pub struct Bodies {
    all: Arc<Semaphore>,
    share: usize,
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::of(ROOM, SHARE)
    }
}

/// The room that a form takes, until it is dropped.
struct Room {
    tenant: Arc<Semaphore>,
    all: Arc<Semaphore>,
    taken: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Bodies {
    fn of(room: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(room)), share, tenants: Mutex::default() }
    }

    /// Room for a form of this tenant, of which nothing has come yet.
    fn room(&self, tenant: TenantId) -> Room {
        let mut tenants = self.tenants.lock();
        // Those that send nothing are forgotten.
        tenants.retain(|_, share| share.strong_count() > 0);
        let kept = tenants.get(&tenant).and_then(Weak::upgrade);
        let share = kept.unwrap_or_else(|| Arc::new(Semaphore::new(self.share)));
        tenants.insert(tenant, Arc::downgrade(&share));
        Room { tenant: share, all: Arc::clone(&self.all), taken: None }
    }
}

impl Room {
    /// Takes so many bytes more.
    fn take(&mut self, bytes: usize) -> Result<(), ApiError> {
        let bytes = u32::try_from(bytes).map_err(|_| ApiError::of(Code::PayloadTooLarge))?;
        let wait = |code, detail: &str| ApiError::because(code, detail).retry_after(ROOM_RETRY_AFTER_S);
        let of_tenant = Arc::clone(&self.tenant).try_acquire_many_owned(bytes).map_err(|_| {
            wait(Code::RateLimited, "this tenant has too many forms with an Idempotency-Key under way at once")
        })?;
        let of_all = Arc::clone(&self.all)
            .try_acquire_many_owned(bytes)
            .map_err(|_| wait(Code::Unavailable, "too many forms with an Idempotency-Key are being read at once"))?;
        match &mut self.taken {
            Some((tenant, all)) => {
                tenant.merge(of_tenant);
                all.merge(of_all);
            }
            None => self.taken = Some((of_tenant, of_all)),
        }
        Ok(())
    }
}

/// The operations that take a key, all of them `POST`, and how long their bodies may be.
pub(super) const TAKES: &[(&str, usize)] = &[
    ("/v1/api-keys", MAX_JSON_BYTES),
    ("/v1/api-keys/{id}/rotate", MAX_JSON_BYTES),
    ("/v1/users", MAX_JSON_BYTES),
    ("/v1/users/{id}/password", MAX_JSON_BYTES),
    ("/v1/roles", MAX_JSON_BYTES),
    ("/v1/sites", MAX_JSON_BYTES),
    ("/v1/doors", MAX_JSON_BYTES),
    ("/v1/devices", MAX_JSON_BYTES),
    ("/v1/devices/{id}/claim-tokens", MAX_JSON_BYTES),
    ("/v1/devices/{id}/commands", MAX_JSON_BYTES),
    ("/v1/doors/{id}/commands", MAX_JSON_BYTES),
    ("/v1/doors/{id}/unlock", MAX_JSON_BYTES),
    ("/v1/people", MAX_JSON_BYTES),
    ("/v1/people/{id}/enrolments", MAX_FORM_BYTES),
    ("/v1/people/{id}/negative-anchors", MAX_FORM_BYTES),
    ("/v1/sessions/enrolment", MAX_JSON_BYTES),
    ("/v1/sessions/authentication", MAX_JSON_BYTES),
    ("/v1/sessions/{id}/frames", MAX_FORM_BYTES),
    ("/v1/sessions/{id}/complete", MAX_JSON_BYTES),
    ("/v1/consumers", MAX_JSON_BYTES),
    ("/v1/consumers/{id}/password", MAX_JSON_BYTES),
    ("/v1/webhooks", MAX_JSON_BYTES),
];

/// How long the body of an operation may be, if it takes a key.
pub(super) fn takes(method: &Method, pattern: &str) -> Option<usize> {
    let found = TAKES.iter().find(|(path, _)| *path == pattern).filter(|_| method == Method::POST);
    found.map(|(_, max_bytes)| *max_bytes)
}

/// What is kept of an answer.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    status: u16,
    headers: Vec<(String, String)>,
    /// A problem that is to be written out with the path and id of the request that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<Box<Problem>>,
    body: String,
}

/// Runs the handler of a request, once for each key.
pub(super) async fn run(
    api: &Arc<Api>,
    caller: &Caller,
    class: Class,
    pattern: &str,
    request: Request,
    next: Next,
) -> Response {
    let Some(max_bytes) = takes(request.method(), pattern).filter(|_| request.headers().contains_key(KEY)) else {
        return next.run(request).await;
    };
    // What is no form is short, and read whole by its handler too: no door waits for somebody's photographs.
    let room = (max_bytes > MAX_JSON_BYTES).then(|| api.bodies.room(caller.tenant));
    let (key, digest, request, room) = match read(room, request, max_bytes).await {
        Ok(read) => read,
        Err(refused) => return refused.into_response(),
    };
    let (api, caller) = (Arc::clone(api), *caller);
    let once = async move {
        let answer = once(&api, &caller, class, &key, &digest, request, next).await;
        drop(room);
        answer
    };
    match tokio::spawn(carried(once).in_current_span()).await {
        Ok(response) => response,
        // The layer that catches panics tells of it, as if it had happened here.
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(cancelled) => ApiError::internal(&cancelled).into_response(),
        },
    }
}

/// The key, the digest of the request, the request with its body in memory, and the room that this takes.
async fn read(
    room: Option<Room>,
    request: Request,
    max_bytes: usize,
) -> Result<(Key, String, Request, Option<Room>), ApiError> {
    let key = Key::parse(request.headers().get_all(KEY).iter().map(HeaderValue::as_bytes))
        .map_err(|error| ApiError::because(Code::InvalidRequest, error.to_string()))?;
    let (parts, body) = request.into_parts();
    let (body, room) = gather(room, body, max_bytes).await?;
    let target = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (method, kind, whole) = (parts.method.clone(), kind.to_owned(), body.clone());
    let digest = move || {
        let (method, content_type) = (method.as_str(), kind.as_str());
        idempotency::Request { method, target: &target, content_type, body: &whole }.digest()
    };
    let digest = match body.len() {
        0..AWAY_FROM => digest(),
        _ => tokio::task::spawn_blocking(digest).await.map_err(|error| ApiError::internal(&error))?,
    };
    Ok((key, digest, Request::from_parts(parts, Body::from(body)), room))
}

/// The body, for which room is taken as it comes: whoever only says that much will come takes none.
async fn gather(mut room: Option<Room>, body: Body, max_bytes: usize) -> Result<(Bytes, Option<Room>), ApiError> {
    let (mut chunks, mut whole) = (body.into_data_stream(), BytesMut::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let too_long =
                std::error::Error::source(&error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
            ApiError::of(if too_long { Code::PayloadTooLarge } else { Code::InvalidRequest })
        })?;
        if whole.len() + chunk.len() > max_bytes {
            return Err(ApiError::of(Code::PayloadTooLarge));
        }
        if let Some(room) = &mut room {
            room.take(chunk.len())?;
        }
        whole.extend_from_slice(&chunk);
    }
    Ok((whole.freeze(), room))
}

async fn once(
    api: &Api,
    caller: &Caller,
    class: Class,
    key: &Key,
    digest: &str,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let claim = match api.custody.claim_key(caller.tenant, &caller.actor(), key, digest).await {
        Ok(claim) => claim,
        // A door is not to stay shut over a quota. What is ordered twice then is ordered twice, unless it has an id of its own.
        Err(KeysError::Store(StoreError::QuotaReached { .. })) if class == Class::Command => {
            tracing::warn!(
                event = "idempotency_keys_full",
                "a command is carried out without its key: its tenant has as many as are kept"
            );
            return next.run(request).await;
        }
        Err(error) => return refused(error).into_response(),
    };
    match claim {
        Claim::CarryOut(attempt) => carry_out(api, attempt, &path, request, next).await,
        Claim::Replay(kept) => replay(&kept),
        Claim::OtherRequest => {
            let detail = "this Idempotency-Key was sent with another request: use a new key for each";
            ApiError::because(Code::IdempotencyKeyReused, detail).into_response()
        }
        Claim::UnderWay => {
            let detail = "the request with this Idempotency-Key is being carried out; come again for its answer";
            ApiError::because(Code::IdempotencyInProgress, detail).retry_after(RETRY_AFTER_S).into_response()
        }
        Claim::AnswerGone(status) => {
            let detail = format!(
                "the request with this Idempotency-Key was carried out and answered with {status}; that answer is not kept: it was too long, or what it was about is erased"
            );
            ApiError::because(Code::IdempotencyNoAnswer, detail).into_response()
        }
        Claim::OutcomeUnknown => {
            let detail = "the request with this Idempotency-Key was cut off after it had changed something: look what is there; it is not carried out again under this key";
            ApiError::because(Code::IdempotencyNoAnswer, detail).into_response()
        }
    }
}

fn refused(error: KeysError) -> ApiError {
    match error {
        KeysError::Store(StoreError::QuotaReached { quota, .. }) => {
            let detail = format!(
                "this tenant has sent {quota} idempotency keys within a day, which is as many as are kept; send the request without one, or later"
            );
            ApiError::because(Code::RateLimited, detail).retry_after(600)
        }
        error => error.into(),
    }
}

async fn carry_out(api: &Api, attempt: Attempt, path: &str, request: Request, next: Next) -> Response {
    let handled = tokio::time::timeout(ATTEMPT, bound(attempt, next.run(request))).await;
    let response = handled.unwrap_or_else(|_| ApiError::of(Code::Timeout).into_response());
    let status = response.status().as_u16();
    if !is_outcome(status) {
        match api.custody.release_key(attempt).await {
            Ok(true) => tracing::warn!(
                event = "idempotency_outcome_unknown",
                status,
                "a request with a key failed after it had changed something"
            ),
            Ok(false) => {}
            // It is let go of by itself when nothing was heard of the attempt for a while.
            Err(error) => {
                tracing::warn!(event = "idempotency_not_released", cause = %chain(&error), "a key is still held");
            }
        }
        return response;
    }
    let (head, body) = response.into_parts();
    // The answers of these operations are in memory as they are.
    let Ok(body) = to_bytes(body, usize::MAX).await else { return ApiError::of(Code::Internal).into_response() };
    let problem = head.extensions.get::<Unwritten>().map(|Unwritten(problem)| problem.clone());
    let of_problem = problem.as_ref().and_then(|problem| serde_json::to_vec(problem).ok());
    let about = idempotency::about(path, of_problem.as_deref().unwrap_or(&body));
    let kept = kept(status, &head.headers, problem, &body);
    if let Err(error) = api.custody.keep_answer(attempt, status, kept, about).await {
        tracing::error!(event = "idempotency_not_kept", cause = %chain(&error), "the answer of a request with a key is lost; whoever asks again is told so");
    }
    Response::from_parts(head, Body::from(body))
}

/// What is sealed: JSON, or something too long to be kept.
fn kept(status: u16, headers: &HeaderMap, problem: Option<Box<Problem>>, body: &Bytes) -> Zeroizing<Vec<u8>> {
    let of = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let headers = HEADERS.iter().filter_map(|name| Some((name.as_str().to_owned(), of(name)?))).collect();
    let Ok(body) = String::from_utf8(body.to_vec()) else { return Zeroizing::new(vec![0; MAX_ANSWER + 1]) };
    let kept = KeptAnswer { status, headers, problem, body };
    Zeroizing::new(serde_json::to_vec(&kept).unwrap_or_else(|_| vec![0; MAX_ANSWER + 1]))
}

fn replay(kept: &[u8]) -> Response {
    let kept: KeptAnswer = match serde_json::from_slice(kept) {
        Ok(kept) => kept,
        Err(error) => return ApiError::internal(&error).into_response(),
    };
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(problem) = kept.problem {
        response.extensions_mut().insert(Unwritten(problem));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Audience, ROUTES};

    /// Those that make nothing, or the same when done twice.
    const TAKE_NONE: [&str; 9] = [
        // Questions.
        "/v1/recognition/detect",
        "/v1/recognition/quality",
        "/v1/recognition/liveness",
        "/v1/recognition/compare",
        "/v1/recognition/verify",
        "/v1/recognition/identify",
        "/v1/recognition/search",
        "/v1/recognition/embed",
        // Row by row: who is there already is left as they are.
        "/v1/people/imports",
    ];

    #[test]
    fn every_operation_of_a_key_that_posts_takes_a_key_or_says_why_not() {
        let mut known = 0;
        for (method, path, audience) in ROUTES {
            let posts = *method == "POST" && matches!(audience, Audience::Key(_) | Audience::Session(_));
            if posts {
                assert_ne!(TAKE_NONE.contains(path), takes(&Method::POST, path).is_some(), "{method} {path}");
                known += 1;
            }
        }
        assert_eq!(known, TAKES.len() + TAKE_NONE.len(), "of operations that are there");
        assert_eq!(takes(&Method::GET, "/v1/people"), None);
    }

    #[test]
    fn an_answer_is_given_again_as_it_was_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, HeaderValue::from_static("\"1\""));
        headers.insert(header::SET_COOKIE, HeaderValue::from_static("never=again"));
        let again = replay(&kept(201, &headers, None, &Bytes::from_static(b"{\"id\":1}")));
        assert_eq!(again.status(), StatusCode::CREATED);
        assert_eq!(
            (&again.headers()["etag"], &again.headers()["idempotency-replayed"]),
            (&HeaderValue::from_static("\"1\""), &HeaderValue::from_static("true"))
        );
        assert!(!again.headers().contains_key("set-cookie"));
        let problem = Some(Box::new(Problem::of(Code::Conflict).detail("x")));
        let again = replay(&kept(409, &HeaderMap::new(), problem.clone(), &Bytes::new()));
        assert_eq!(again.extensions().get::<Unwritten>().map(|Unwritten(problem)| problem), problem.as_ref());
    }

    #[tokio::test]
    async fn forms_take_room_as_they_come_and_give_it_back() {
        let bodies = Bodies::of(10, 8);
        let (one, other) = (TenantId(uuid::Uuid::from_u128(1)), TenantId(uuid::Uuid::from_u128(2)));
        let left = || bodies.all.available_permits();
        let read = async |tenant, body: &'static str| gather(Some(bodies.room(tenant)), Body::from(body), 100).await;
        let (first, held) = read(one, "1234567").await.unwrap();
        assert_eq!((first.as_ref(), left()), (&b"1234567"[..], 3));
        assert!(read(one, "12").await.is_err(), "its share has room for one");
        assert!(read(other, "1234").await.is_err(), "there is room for three");
        assert_eq!(left(), 3, "what was not read takes none");
        assert!(read(other, "123").await.is_ok());
        assert!(gather(None, Body::from("12345678901"), 100).await.is_ok(), "what is no form takes none");
        assert!(gather(None, Body::from("12"), 1).await.is_err(), "longer than it may be");
        drop(held);
        assert_eq!((left(), read(one, "12345678").await.is_ok()), (10, true));
        assert!(bodies.tenants.lock().len() <= 2);
    }

    #[test]
    fn what_is_no_text_is_too_long_to_be_kept() {
        assert!(kept(200, &HeaderMap::new(), None, &Bytes::from_static(b"\xff")).len() > MAX_ANSWER);
    }
}
