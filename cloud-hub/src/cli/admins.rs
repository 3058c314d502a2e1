//! `cloud-hub admins …`: keys of platform administrators, who do over the network what `tenants` and `config` do on the machine.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::client::Sent;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub admins create 'billing' --role administrator --expires-in 365
  cloud-hub admins create 'monitoring' --role auditor
  curl … -H 'Authorization: PlatformKey ID:SECRET' https://hub/v1/admin/tenants

Roles: administrator (makes, changes, suspends and ends tenants, and changes the hub's settings), auditor (looks at the same and changes
nothing). Neither sees anything that a tenant has.")]
pub(super) enum AdminsCommand {
    /// Make a key, which is shown once
    Create {
        /// Whose it is, or what it is for
        name: String,
        /// What it may do
        #[arg(long, value_parser = ["administrator", "auditor"])]
        role: String,
        /// In how many days it ends by itself; never unless this says so
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
        expires_in: Option<u32>,
    },
    /// List keys (never their secrets), those that have ended too
    List,
    /// End a key at once, on every hub
    Revoke {
        /// Which
        key: Uuid,
    },
}

impl AdminsCommand {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Self::Create { name, role, expires_in } => {
                let mut body = json!({ "name": name, "role": role });
                if let Some(days) = expires_in {
                    body["expires_in_days"] = json!(days);
                }
                ("POST", String::from("/admins"), Sent::Json(body), "", table::NEW_ADMIN)
            }
            Self::List => ("GET", String::from("/admins"), Sent::Nothing, "admins", table::ADMINS),
            Self::Revoke { key } => ("DELETE", format!("/admins/{key}"), Sent::Nothing, "", &[]),
        }
    }
}
