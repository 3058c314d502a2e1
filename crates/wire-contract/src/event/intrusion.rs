//! A caller of the hub's API behaves as an intruder would. The hub raises it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What was noticed, of whom.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IntrusionData {
    /// Always true: consumers may look for it whatever the type is.
    pub alarm: bool,
    /// `authentication_burst` (wrong secrets for one key), `impossible_travel` (one key from many networks), `cross_tenant_probing`
    /// (many ids that are not there), `template_scraping` (many people looked at). New words may come.
    pub signal: String,
    /// `api_key`, `user` or `session`.
    pub caller_kind: String,
    /// Its id.
    pub caller: Uuid,
    /// How many secrets, networks, ids or people it were within the signal's window.
    pub count: u64,
}
