//! `cloud-hub keys …`: the hub's own keys.

use clap::Subcommand;
use serde_json::json;

use super::Asked;
use super::client::Sent;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub keys status
  cloud-hub keys rotate-jwt                 nobody notices: the key before verifies until its last token is over
  cloud-hub keys rotate-jwt --revoke-old    somebody has got at it: no token of it is good any more, within five seconds

Refresh tokens and cookies are not touched by either; users log out by themselves, or are disabled.")]
pub(super) enum KeysCommand {
    /// List keys with their ages (never their secrets)
    Status,
    /// Sign access tokens by another key, on all hubs
    RotateJwt {
        /// Let no token of another key be good any more: their users refresh
        #[arg(long)]
        revoke_old: bool,
    },
}

impl KeysCommand {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Self::Status => ("GET", String::from("/keys"), Sent::Nothing, "keys", table::KEYS),
            Self::RotateJwt { revoke_old } => {
                let body = json!({ "revoke_old": revoke_old });
                ("POST", String::from("/keys/jwt"), Sent::Json(body), "keys", table::KEYS)
            }
        }
    }
}
