//! Errors of the hub's API: RFC 9457 `application/problem+json`, with a code of the register.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::codes::Code;
use crate::texts::{self, Language};

/// The media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One field that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FieldProblem {
    /// Where in the request: a JSON pointer, or the name of a form field or parameter.
    pub pointer: String,
    /// The code.
    pub code: Code,
    /// For the developer who reads it.
    pub message: String,
}

/// One answer that is not a success.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:lintel:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's text in English; the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, without anything internal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The code.
    pub code: Code,
    /// Fields that are not as they should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// Finds the request in the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Members of one kind of problem alone, for example `photographs` of a refused enrolment.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

impl Problem {
    /// The problem with this code: type, title and status from the register (500 for codes without a status, which
    /// should not reach an API).
    pub fn of(code: Code) -> Self {
        Self {
            kind: format!("urn:lintel:problem:{code}"),
            title: texts::code_text(code, Language::English).to_owned(),
            status: code.entry().and_then(|entry| entry.http_status).unwrap_or(500),
            detail: None,
            instance: None,
            code,
            errors: Vec::new(),
            trace_id: None,
            extensions: Map::new(),
        }
    }

    /// The same problem, saying what happened this time.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same problem with one more field.
    pub fn field(mut self, pointer: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        self.errors.push(FieldProblem { pointer: pointer.into(), code, message: message.into() });
        self
    }

    /// The same problem with a member of its own.
    pub fn extension(mut self, name: &str, value: Value) -> Self {
        self.extensions.insert(name.to_owned(), value);
        self
    }
}
