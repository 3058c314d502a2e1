//! Pages of lists: `?limit=50&cursor=…` in, `{data, next_cursor}` and a `Link` header out.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use wire_contract::Code;

use super::openapi::texts;
use super::problem::ApiError;

/// Entries in a page when the client does not say.
pub(super) const DEFAULT_LIMIT: u32 = 50;
/// Entries in a page at most.
pub(super) const MAX_LIMIT: u32 = 200;

/// What a client asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Entries in a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// Where the page begins: `next_cursor` of the one before.
    #[param(value_type = Option<texts::IdCursor>)]
    pub(super) cursor: Option<String>,
}

/// One page.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The entries.
    pub(super) data: Vec<T>,
    /// Where the next page begins; `null` at the end.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
}

impl PageQuery {
    /// What a list with parameters of its own was asked for.
    pub(super) fn of(limit: Option<u32>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// The number of entries, from 1 to [`MAX_LIMIT`].
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        check_limit(self.limit)
    }

    /// The id after which the page begins.
    pub(super) fn after_id(&self) -> Result<Option<Uuid>, ApiError> {
        self.cursor.as_deref().map(decode_id).transpose()
    }
}

/// The number of entries, from 1 to [`MAX_LIMIT`].
pub(super) fn check_limit(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Some(_) => Err(ApiError::field("limit", Code::InvalidField, format!("must be from 1 to {MAX_LIMIT}"))),
    }
}

/// Version byte of a cursor that holds an id; positions of the feed have version 1.
const ID_VERSION: u8 = 2;

/// An id as an opaque cursor.
pub(super) fn encode_id(id: Uuid) -> String {
    let mut bytes = [ID_VERSION; 17];
    bytes[1..].copy_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_id(text: &str) -> Result<Uuid, ApiError> {
    let wrong = || ApiError::field("cursor", Code::InvalidField, "is not one that this hub gave out");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    match <[u8; 17]>::try_from(bytes) {
        Ok([ID_VERSION, id @ ..]) => Ok(Uuid::from_bytes(id)),
        _ => Err(wrong()),
    }
}

impl<T> Page<T> {
    /// The page that holds everything.
    pub(super) fn whole(data: Vec<T>) -> Self {
        Self { data, next_cursor: None }
    }

    /// `Link: <…>; rel="next"` if there is a next page. `filter` is the parameter that chose the entries, of a value
    /// that needs no escaping in a URL: without it the next page would be of another list.
    pub(super) fn link(&self, path: &str, limit: u32, filter: Option<(&str, &str)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let filter = filter.map_or_else(String::new, |(name, value)| format!("&{name}={value}"));
        if let Some(cursor) = &self.next_cursor
            && let Ok(value) =
                HeaderValue::from_str(&format!("<{path}?limit={limit}{filter}&cursor={cursor}>; rel=\"next\""))
        {
            headers.insert(header::LINK, value);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_cursors_round_trip_and_others_are_refused() {
        let id = Uuid::from_u128(7);
        assert_eq!(decode_id(&encode_id(id)).unwrap(), id);
        for wrong in ["", "AQ", "!!", &hub_domain::cursor::Cursor(1).encode()] {
            assert!(decode_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_link_to_the_next_page_keeps_the_filter() {
        let page = Page::<Uuid> { data: Vec::new(), next_cursor: Some("AQ".to_owned()) };
        let link = |filter| page.link("/v1/events", 5, filter)[header::LINK].to_str().unwrap().to_owned();
        assert_eq!(link(None), "</v1/events?limit=5&cursor=AQ>; rel=\"next\"");
        let filtered = link(Some(("class", "access,door")));
        assert_eq!(filtered, "</v1/events?limit=5&class=access,door&cursor=AQ>; rel=\"next\"");
        assert!(Page::whole(vec![1]).link("/v1/events", 5, None).is_empty());
    }

    #[test]
    fn limits_have_bounds() {
        assert_eq!(check_limit(None).unwrap(), DEFAULT_LIMIT);
        assert!(check_limit(Some(0)).is_err() && check_limit(Some(MAX_LIMIT + 1)).is_err());
    }
}
