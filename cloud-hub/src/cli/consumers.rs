//! `cloud-hub consumers …`: programs that read a tenant's events at the broker.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::client::Sent;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub serve --embedded --data-dir ./hub --consumer-listen 127.0.0.1:8884
  cloud-hub --data-dir ./hub consumers create --tenant 0192f0c1-… --name 'time sheet'

One credential has one session at the broker: a second program needs a second one.")]
pub(super) enum ConsumersCommand {
    /// Make a consumer and its password, which is shown once, with a command line that reads the feed
    Create {
        /// Whose feed
        #[arg(long)]
        tenant: Uuid,
        /// What it is for
        #[arg(long, default_value = "consumer")]
        name: String,
        /// It is a Home Assistant: it reads what is said for those too (see home_assistant.tenants)
        #[arg(long)]
        home_assistant: bool,
    },
    /// List consumers (never their passwords)
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
    /// Give a consumer another password, which is shown once; it is disconnected until it uses it
    Rotate {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        consumer: Uuid,
    },
    /// Remove a consumer for good and end its session
    Delete {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        consumer: Uuid,
    },
}

impl ConsumersCommand {
    pub(super) fn asked(&self) -> Asked {
        let consumers = |tenant: &Uuid| format!("/tenants/{tenant}/consumers");
        match self {
            Self::Create { tenant, name, home_assistant } => {
                let body = json!({ "name": name, "home_assistant": home_assistant });
                ("POST", consumers(tenant), Sent::Json(body), "", table::NEW_CONSUMER)
            }
            Self::List { tenant } => ("GET", consumers(tenant), Sent::Nothing, "consumers", table::CONSUMERS),
            Self::Rotate { tenant, consumer } => {
                let path = format!("{}/{consumer}/password", consumers(tenant));
                ("POST", path, Sent::Nothing, "", table::NEW_CONSUMER)
            }
            Self::Delete { tenant, consumer } => {
                ("DELETE", format!("{}/{consumer}", consumers(tenant)), Sent::Nothing, "", &[])
            }
        }
    }
}
