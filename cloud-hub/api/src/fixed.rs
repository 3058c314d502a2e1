//! Answers that are the same for as long as the program runs: given with an ETag, so that a client fetches them once.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ring::digest::{SHA256, digest};

/// A client may keep it, and asks each time whether it is still what the hub has: it changes with the program.
const CACHE: HeaderValue = HeaderValue::from_static("public, no-cache");

/// What is given, its media type and its tag.
pub(super) struct Fixed {
    kind: &'static str,
    bytes: Bytes,
    etag: HeaderValue,
}

impl Fixed {
    pub(super) fn new(kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        // Weak: what is compressed on the way is the same to whoever reads it, and not byte by byte.
        let etag = format!("W/\"{}\"", hex::encode(&digest(&SHA256, &bytes).as_ref()[..16]));
        Self { kind, bytes, etag: HeaderValue::try_from(etag).expect("hex digits and quotes are a header's text") }
    }

    /// The whole, or that the client has it.
    pub(super) fn answer(&self, asked: &HeaderMap) -> Response {
        let mut response = if self.is_held(asked) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.kind)], self.bytes.clone()).into_response()
        };
        let fields = response.headers_mut();
        fields.insert(header::ETAG, self.etag.clone());
        fields.insert(header::CACHE_CONTROL, CACHE);
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// RFC 9110, 13.1.2: tags are compared weakly.
    fn is_held(&self, asked: &HeaderMap) -> bool {
        let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let own = self.etag.to_str().map(weak).unwrap_or_default();
        let lines = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|tag| tag.trim() == "*" || weak(tag) == own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let fixed = Fixed::new("text/plain", "text");
        let asked = |tag: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, tag.parse().unwrap());
            fixed.answer(&headers).status()
        };
        let first = fixed.answer(&HeaderMap::new());
        assert_eq!(
            (first.status(), &first.headers()[header::CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static("text/plain"))
        );
        let tag = first.headers()[header::ETAG].to_str().unwrap();
        for held in [tag, tag.trim_start_matches("W/"), &format!("\"other\", {tag}"), "*"] {
            assert_eq!(asked(held), StatusCode::NOT_MODIFIED, "{held}");
        }
        assert_eq!(asked("\"other\""), StatusCode::OK);
    }
}
