//! The API's one error type: a stable code and a public text outward, the cause to the log.
//!
//! A handler returns [`ApiError`]; its response carries the [`Problem`] as an extension, and the outermost layer
//! ([`super::observe`]) writes it out with the path and the request's id.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wire_contract::{Code, Problem};

use hub_domain::permission::{Permission, Permissions};
use hub_domain::session::SessionError;
use hub_domain::vault::VaultError;
use hub_host::chain::chain;
use hub_keys::KeysError;
use hub_pki::PkiError;
use hub_store::{Clash, StoreError};

/// Vectors are looked at once a minute, and made anew at a few hundred a second.
const VECTORS_AGAIN_SECONDS: u32 = 30;

/// What a failed request is answered with.
#[derive(Debug)]
pub(super) struct ApiError {
    problem: Box<Problem>,
    retry_after_seconds: Option<u32>,
}

/// The problem of a response that is not written out yet.
#[derive(Debug, Clone)]
pub(super) struct Unwritten(pub(super) Box<Problem>);

impl ApiError {
    /// An error with this code and its default status.
    #[must_use]
    pub(super) fn of(code: Code) -> Self {
        Problem::of(code).into()
    }

    /// An error that says what happened this time. The text goes to the client: nothing internal.
    #[must_use]
    pub(super) fn because(code: Code, detail: impl Into<String>) -> Self {
        Problem::of(code).detail(detail).into()
    }

    /// A field that is not as it should be, by JSON pointer or parameter name.
    #[must_use]
    pub(super) fn field(pointer: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Problem::of(code).field(pointer, code, message).into()
    }

    /// The same error, asking the client to come back.
    #[must_use]
    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// A fault of the hub: the cause goes to the log, once, and not to the client.
    #[must_use]
    pub(super) fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(event = "request_failed", cause = %chain(cause), "a request failed");
        Self::of(Code::Internal)
    }

    /// The problem as one part of a longer answer.
    #[must_use]
    pub(super) fn told(&self) -> serde_json::Value {
        let problem = serde_json::to_value(&self.problem).expect("a problem is JSON");
        let serde_json::Value::Object(mut members) = problem else { return problem };
        // What goes with an answer of its own.
        for member in ["type", "status"] {
            members.remove(member);
        }
        members.into()
    }

    /// What happened this time, if it was said.
    #[must_use]
    pub(super) fn detail(&self) -> Option<&str> {
        self.problem.detail.as_deref()
    }

    /// The code.
    #[must_use]
    pub(super) fn code(&self) -> Code {
        self.problem.code
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), retry_after_seconds: None }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what, .. } => Self::because(Code::NotFound, format!("there is no such {what}")),
            StoreError::OtherRevision { what, present } => {
                Self::because(Code::PreconditionFailed, format!("the {what} is at revision {present}: read it again"))
            }
            StoreError::Deleted { .. } => Self::because(Code::Conflict, "this was deleted; its id is never used again"),
            StoreError::QuotaReached { what, quota } => {
                Self::because(Code::QuotaReached, format!("this tenant has all {quota} {what} that it may have"))
            }
            StoreError::Clash(Clash::Other) => Self::of(Code::Conflict),
            StoreError::Clash(clash) => Self::because(Code::Conflict, format!("this {clash} is already taken")),
            StoreError::Database(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_)) => {
                tracing::warn!(event = "database_unavailable", cause = %chain(&error), "the database does not answer");
                Self::of(Code::Unavailable).retry_after(2)
            }
            error => Self::internal(&error),
        }
    }
}

impl From<KeysError> for ApiError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Store(error) => error.into(),
            // A deleted person whose rows are still being read.
            KeysError::NoPersonKey(_) => Self::because(Code::NotFound, "there is no such person"),
            KeysError::Beyond(beyond) => beyond_rights(beyond),
            KeysError::MasterUnderWay
            | KeysError::MasterNeeded
            | KeysError::NoNextMaster
            | KeysError::PepperUnderWay
            | KeysError::NoNextPepper
            | KeysError::NoPepperBefore
            | KeysError::NoNextSigningKey
            | KeysError::NoSigningKeyBefore => Self::because(Code::Conflict, error.to_string()),
            KeysError::Session(error) => error.into(),
            KeysError::VectorsMissing => {
                Self::because(Code::Unavailable, error.to_string()).retry_after(VECTORS_AGAIN_SECONDS)
            }
            KeysError::TooManyPasswords => Self::of(Code::Unavailable).retry_after(2),
            error => Self::internal(&error),
        }
    }
}

/// The refusal of whoever would give away, or decide over, more than they have.
pub(super) fn beyond_rights(beyond: Permissions) -> ApiError {
    let beyond: Vec<&str> = beyond.iter().map(Permission::as_str).collect();
    let detail = format!("nobody gives away what they do not have: {}", beyond.join(", "));
    ApiError::because(Code::Forbidden, detail)
}

impl From<PkiError> for ApiError {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::UnderWay | PkiError::NoNext | PkiError::NoneBefore => {
                Self::because(Code::Conflict, error.to_string())
            }
            error => Self::internal(&error),
        }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        Self::because(Code::Conflict, error.to_string())
    }
}

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey, Bearer"));
        }
        response.extensions_mut().insert(Unwritten(self.problem));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_vectors_are_missing_callers_are_told_when_to_come_back() {
        let error = ApiError::from(KeysError::VectorsMissing);
        // An import says it to its reader.
        assert!(error.detail().is_some_and(|detail| detail.contains("crash of the database")));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], VECTORS_AGAIN_SECONDS.to_string());
    }
}
