//! Recognition over photographs and templates: what is on a picture ([`pictures`]), whether two are one person ([`pair`]), who of
//! the tenant's people it is ([`people`]).
//!
//! Work on pictures has the models' bounded queue, comparisons a bounded one of their own; neither is done on an async worker, and
//! a full queue is answered at once. Each use is in the audit, with the decision and without pictures, vectors or names.

pub(super) mod answers;
pub(super) mod input;
pub(super) mod pair;
pub(super) mod people;
pub(super) mod pictures;
pub(super) mod policy;
mod probe;

use serde_json::Value;
use uuid::Uuid;
use wire_contract::Code;

use super::auth::Caller;
use super::enrolments::RETRY_AFTER_SECONDS;
use super::problem::ApiError;
use super::state::Api;
use crate::recognition::uses::Use;
use crate::store::audit::Action;

const IMAGE: &str = "image";

macro_rules! fields {
    ($name:ident: $($known:literal),* ; $($required:literal),*) => {
        impl crate::api::body::Fields for $name {
            const KNOWN: &'static [&'static str] = &[$($known),*];
            const REQUIRED: &'static [&'static str] = &[$($required),*];
        }
    };
}
use fields;

/// Writes a use of recognition into the audit. Without it there is no answer.
async fn note(api: &Api, caller: &Caller, action: Action, person: Option<Uuid>, detail: Value) -> Result<(), ApiError> {
    let noted = Use { tenant: caller.tenant, actor: caller.actor(), action, person, detail };
    api.uses.note(noted).await.map_err(|_| {
        ApiError::because(Code::Unavailable, "the audit cannot be written at present").retry_after(RETRY_AFTER_SECONDS)
    })
}
