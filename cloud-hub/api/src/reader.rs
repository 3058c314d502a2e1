//! A page for people that shows the API's own document (`/v1/openapi.json`): operations by subject, what they take and
//! answer, the permission they need, a call to copy.
//!
//! Three files, compiled in: no build of their own, and nothing that a browser would have to fetch from elsewhere.
//! Deliberately absent: calls made from the page. A key does not belong into a browser's form.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use super::fixed::Fixed;

/// Only these files and the document, from this hub; no script or style in the page itself; in nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

static PAGE: LazyLock<Fixed> =
    LazyLock::new(|| Fixed::new("text/html; charset=utf-8", &include_bytes!("reader/index.html")[..]));
static SCRIPT: LazyLock<Fixed> =
    LazyLock::new(|| Fixed::new("text/javascript; charset=utf-8", &include_bytes!("reader/reader.js")[..]));
static STYLE: LazyLock<Fixed> =
    LazyLock::new(|| Fixed::new("text/css; charset=utf-8", &include_bytes!("reader/reader.css")[..]));

/// `GET /docs`
#[utoipa::path(
    get, path = "/docs", operation_id = "get_docs", tag = "reference",
    summary = "A page that shows this document",
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 304, description = "It is what the client has"),
    ),
)]
pub(super) async fn page(headers: HeaderMap) -> Response {
    let mut response = PAGE.answer(&headers);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// `GET /docs/reader.js`
#[utoipa::path(
    get, path = "/docs/reader.js", operation_id = "get_docs_script", tag = "reference",
    summary = "The page's script",
    responses(
        (status = 200, description = "The script", body = String, content_type = "text/javascript"),
        (status = 304, description = "It is what the client has"),
    ),
)]
pub(super) async fn script(headers: HeaderMap) -> Response {
    SCRIPT.answer(&headers)
}

/// `GET /docs/reader.css`
#[utoipa::path(
    get, path = "/docs/reader.css", operation_id = "get_docs_style", tag = "reference",
    summary = "The page's style",
    responses(
        (status = 200, description = "The style", body = String, content_type = "text/css"),
        (status = 304, description = "It is what the client has"),
    ),
)]
pub(super) async fn style(headers: HeaderMap) -> Response {
    STYLE.answer(&headers)
}
