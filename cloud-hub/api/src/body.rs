//! JSON bodies of requests that write: known fields only, each mistake told with its place.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;
use serde_json::Value;
use wire_contract::{Code, Problem};

use super::problem::ApiError;

/// What a request may and must hold.
pub(super) trait Fields: DeserializeOwned {
    /// Every field that is known.
    const KNOWN: &'static [&'static str];
    /// Those that must be there.
    const REQUIRED: &'static [&'static str];
}

/// A JSON body that was checked against [`Fields`].
pub(super) struct Json<T>(pub(super) T);

impl<S: Send + Sync, T: Fields> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::because(Code::UnsupportedMediaType, "send application/json"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let code = if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                Code::PayloadTooLarge
            } else {
                Code::InvalidRequest
            };
            ApiError::of(code)
        })?;
        let mut value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::because(Code::InvalidRequest, format!("the body is not JSON: {error}")))?;
        write_whole_numbers(&mut value);
        parse(value).map(Self)
    }
}

/// `60.0` is the number 60, in JSON Schema's eyes too; some languages write it so.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // Beyond 2^53 not every whole number has a float of its own.
            let float = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15);
            if let Some(float) = float {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and fits")]
                let whole = float as i64;
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Object(members) => members.values_mut().for_each(write_whole_numbers),
        _ => {}
    }
}

/// Checks the fields of a value, all at once, and reads it.
pub(super) fn parse<T: Fields>(value: Value) -> Result<T, ApiError> {
    let Value::Object(object) = &value else {
        return Err(ApiError::because(Code::InvalidRequest, "the body must be a JSON object"));
    };
    let unknown =
        object.keys().filter(|key| !T::KNOWN.contains(&key.as_str())).map(|key| (key.clone(), Code::UnknownField));
    let missing =
        T::REQUIRED.iter().filter(|key| !object.contains_key(**key)).map(|key| ((*key).to_owned(), Code::MissingField));
    let wrong: Vec<(String, Code)> = unknown.chain(missing).collect();
    if let Some((_, first)) = wrong.first() {
        let problem = wrong.iter().fold(Problem::of(*first), |problem, (key, code)| {
            let message = if *code == Code::UnknownField { "this field is not known" } else { "this field is needed" };
            problem.field(pointer(key), *code, message)
        });
        return Err(problem.into());
    }
    serde_json::from_value(value).map_err(|error| ApiError::because(Code::InvalidField, error.to_string()))
}

/// RFC 6901: `~` and `/` inside a key are escaped.
fn pointer(key: &str) -> String {
    let mut key: String = key.chars().take(100).collect();
    key = key.replace('~', "~0").replace('/', "~1");
    format!("/{key}")
}

/// Collects mistakes of several fields before anything is answered.
#[derive(Default)]
pub(super) struct Checks(Vec<(String, String)>);

impl Checks {
    /// A text of 1 to `max` characters without control characters or blank ends.
    pub(super) fn text(&mut self, pointer: &str, value: &str, max: usize) -> &mut Self {
        let length = value.chars().count();
        if length == 0 || length > max {
            self.0.push((pointer.to_owned(), format!("must have 1 to {max} characters, has {length}")));
        } else if value.chars().any(char::is_control) {
            self.0.push((pointer.to_owned(), String::from("must not hold control characters")));
        } else if value.trim() != value {
            self.0.push((pointer.to_owned(), String::from("must not begin or end with blanks")));
        }
        self
    }

    /// Whatever the caller has checked itself.
    pub(super) fn that(&mut self, holds: bool, pointer: &str, message: &str) -> &mut Self {
        if !holds {
            self.0.push((pointer.to_owned(), message.to_owned()));
        }
        self
    }

    /// All mistakes as one error.
    pub(super) fn done(&mut self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let problem = Problem::of(Code::InvalidField);
        Err(std::mem::take(&mut self.0)
            .into_iter()
            .fold(problem, |problem, (pointer, message)| problem.field(pointer, Code::InvalidField, message))
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Wanted {
        name: String,
    }

    impl Fields for Wanted {
        const KNOWN: &'static [&'static str] = &["name", "note"];
        const REQUIRED: &'static [&'static str] = &["name"];
    }

    fn code(value: Value) -> Code {
        parse::<Wanted>(value).unwrap_err().code()
    }

    #[test]
    fn unknown_missing_and_wrong_fields_are_told_apart() {
        assert_eq!(parse::<Wanted>(serde_json::json!({"name": "x", "note": 1})).unwrap().name, "x");
        assert_eq!(code(serde_json::json!({"name": "x", "nmae": "y"})), Code::UnknownField);
        assert_eq!(code(serde_json::json!({})), Code::MissingField);
        assert_eq!(code(serde_json::json!({"name": 7})), Code::InvalidField);
        assert_eq!(code(serde_json::json!([])), Code::InvalidRequest);
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point() {
        let mut value = serde_json::json!({ "a": [60.0, -1.0e3, 0.5], "b": 1e300, "c": "1.0", "d": 7 });
        write_whole_numbers(&mut value);
        assert_eq!(value.to_string(), r#"{"a":[60,-1000,0.5],"b":1e+300,"c":"1.0","d":7}"#);
    }

    #[test]
    fn texts_are_checked_for_length_and_blanks() {
        let fails = |value: &str| Checks::default().text("/name", value, 5).done().is_err();
        assert!(!fails("Ünïç"));
        for wrong in ["", "123456", " a", "a ", "a\nb"] {
            assert!(fails(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn keys_are_escaped_in_pointers() {
        assert_eq!(pointer("a/b~c"), "/a~1b~0c");
    }
}
