//! `GET /v1/device/snapshots/{id}/manifest` and `GET /v1/device/snapshots/{id}`: a gallery whole, for the device it was offered to.
//!
//! In: the device's certificate, a snapshot's id, and where to begin (`Range: bytes=N-`). Out: the signed manifest with the key
//! of the chunks; the content, a chunk in memory at a time. Any range is answered, so that a download goes on after a cut at
//! any byte. A snapshot that is another device's, ended, or cannot be made any more is `snapshot_gone`.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use uuid::Uuid;
use wire_contract::Code;
use wire_contract::snapshot::SnapshotAnswer;

use super::auth::CallingDevice;
use super::openapi::wire;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::SnapshotId;
use hub_keys::{KeysError, Ready, Snapshots};

/// `GET …/manifest`: cuts the gallery at the first call, which takes about a second for 10,000 people.
#[utoipa::path(
    get, path = "/v1/device/snapshots/{id}/manifest", operation_id = "get_snapshot_manifest", tag = "for devices",
    summary = "The signed manifest of a gallery's snapshot",
    description = "With the key of its chunks. The first call makes the snapshot, which takes about a second for 10,000 people.",
    params(("id" = Uuid, Path, description = "The snapshot, from its offer")),
    responses(
        (status = 200, description = "The manifest", body = wire::SnapshotAnswer),
        (status = 410, description = "`snapshot_gone`: it is another device's, ended, or cannot be made any more."),
    ),
)]
pub(super) async fn manifest(
    State(api): State<Arc<Api>>,
    caller: CallingDevice,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<SnapshotAnswer>, ApiError> {
    let answer = api.snapshots.manifest(caller.tenant, caller.device, SnapshotId(id)).await;
    match answer {
        Ok(Some(answer)) => Ok(axum::Json(answer)),
        // Erased, or found without a key, while it was cut: the next one is without them.
        Ok(None) | Err(KeysError::NoPersonKey(_)) => Err(ApiError::of(Code::SnapshotGone)),
        Err(error) => Err(error.into()),
    }
}

/// `GET …`: the content from the asked byte on.
#[utoipa::path(
    get, path = "/v1/device/snapshots/{id}", operation_id = "get_snapshot", tag = "for devices",
    summary = "The content of a gallery's snapshot",
    description = "Sealed chunks, one after the other. From any byte on, so that a download goes on after a cut.",
    params(
        ("id" = Uuid, Path, description = "The snapshot, from its offer"),
        ("Range" = Option<String>, Header, description = "`bytes=N-`, and no other form"),
    ),
    responses(
        (status = 200, description = "All of it", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "From the asked byte on", body = Vec<u8>, content_type = "application/octet-stream", headers(("Content-Range" = String, description = "`bytes N-M/total`"))),
        (status = 410, description = "`snapshot_gone`: it is another device's, ended, or cannot be made any more."),
        (status = 416, description = "`invalid_request`: the range is of another form or begins behind the end.", headers(("Content-Range" = String, description = "`bytes */total`"))),
    ),
)]
pub(super) async fn content(
    State(api): State<Arc<Api>>,
    caller: CallingDevice,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ready = api.snapshots.content(caller.tenant, caller.device, SnapshotId(id)).await?;
    let ready = ready.ok_or_else(|| ApiError::of(Code::SnapshotGone))?;
    let total = ready.bytes();
    let Some(from) = asked_from(headers.get(RANGE), total) else {
        let mut refusal = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        refusal.headers_mut().insert(CONTENT_RANGE, header(format!("bytes */{total}")));
        return Ok(refusal);
    };
    let reader = Reader { snapshots: api.snapshots.clone(), ready, at: from };
    let body = Body::from_stream(futures::stream::try_unfold(reader, Reader::next));
    let status = if headers.contains_key(RANGE) { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(total - from));
    if status == StatusCode::PARTIAL_CONTENT {
        fields.insert(CONTENT_RANGE, header(format!("bytes {from}-{}/{total}", total.saturating_sub(1))));
    }
    Ok(response)
}

fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits, a hyphen and a slash are a header's text")
}

/// Where to begin: `bytes=N-`, which is the only range that a device asks for. Another one is not answered with all, which
/// would be read as something else.
fn asked_from(range: Option<&HeaderValue>, total: u64) -> Option<u64> {
    let Some(range) = range else { return Some(0) };
    let from = range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
    (from < total).then_some(from)
}

/// Reads chunk by chunk.
struct Reader {
    snapshots: Snapshots,
    ready: Ready,
    at: u64,
}

/// A content that ends early: the connection is cut, which the device sees.
#[derive(Debug, thiserror::Error)]
enum CutShort {
    #[error("the snapshot is gone")]
    Gone,
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Reader {
    async fn next(self) -> Result<Option<(Bytes, Self)>, CutShort> {
        let Self { snapshots, ready, at } = self;
        let Some((index, begin)) = ready.locate(at) else { return Ok(None) };
        let made = snapshots.chunk(&ready, index).await.inspect_err(|error| {
            tracing::error!(event = "snapshot_not_made", %error, "a chunk of a snapshot cannot be made; the device asks again");
        })?;
        let bytes = Bytes::from(made.ok_or(CutShort::Gone)?);
        let skipped = usize::try_from(at - begin).expect("a chunk has 256 KiB at most");
        let part = bytes.slice(skipped..);
        let at = at + part.len() as u64;
        // For people to look at; it costs no device its download.
        if let Err(error) = snapshots.fetched(&ready, at).await {
            tracing::warn!(%error, "how far a device is with a snapshot could not be noted");
        }
        Ok(Some((part, Self { snapshots, ready, at })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_ranges_within_the_content_are_answered() {
        let from = |text: &'static str| asked_from(Some(&HeaderValue::from_static(text)), 100);
        assert_eq!(asked_from(None, 100), Some(0));
        assert_eq!((from("bytes=0-"), from("bytes=99-")), (Some(0), Some(99)));
        for other in ["bytes=100-", "bytes=5-9", "bytes=-5", "bytes=1-,5-", "items=1-", "bytes=x-", "bytes=-"] {
            assert_eq!(from(other), None, "{other}");
        }
    }
}
