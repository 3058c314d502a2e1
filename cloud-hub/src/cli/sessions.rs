//! `cloud-hub sessions …`: who stands before a camera. They are opened over the API, by whoever holds the camera.

use clap::{Args, Subcommand};
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::client::Sent;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub sessions list --tenant 0192f0c1-…
  cloud-hub sessions show --tenant 0192f0c1-… 0192f0c5-…
  cloud-hub sessions end --tenant 0192f0c1-… 0192f0c5-…     its token opens nothing any more

Sessions that ended are kept for a week. Ending one is audited, as over the API.")]
pub(super) enum SessionsCommand {
    /// List sessions, the oldest first
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// How many at most, up to 200
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Where the page before ended: next_cursor of -o json
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show one: how far it is, what is asked of the person, what came of it
    Show(Which),
    /// End one that is open; whatever its frames gave is removed at once
    End(Which),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Whose
    #[arg(long)]
    tenant: Uuid,
    /// Which
    session: Uuid,
}

impl Which {
    fn path(&self) -> String {
        format!("/tenants/{}/sessions/{}", self.tenant, self.session)
    }
}

impl SessionsCommand {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Self::List { tenant, limit, cursor } => {
                let mut query = Serializer::new(String::new());
                query.append_pair("limit", &limit.to_string());
                if let Some(cursor) = cursor {
                    query.append_pair("cursor", cursor);
                }
                let path = format!("/tenants/{tenant}/sessions?{}", query.finish());
                ("GET", path, Sent::Nothing, "data", table::SESSIONS)
            }
            Self::Show(which) => ("GET", which.path(), Sent::Nothing, "", table::SESSION),
            Self::End(which) => ("DELETE", which.path(), Sent::Nothing, "", table::SESSION),
        }
    }
}
