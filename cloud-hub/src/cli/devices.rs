//! `cloud-hub devices …` and `cloud-hub galleries …`: what stands at the doors, and what the doors search.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::client::Sent;
use super::orders::TwinCommand;
use super::question::{Asked, Then};
use super::table;

#[derive(Debug, Subcommand)]
pub(super) enum DevicesCommand {
    /// List devices: version and root of each gallery, whether it equals the hub's, since when, and how long the last change took
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
    /// How a device should be set up, and how it is
    #[command(subcommand)]
    Twin(TwinCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum GalleriesCommand {
    /// List galleries: how long each log is, from which version on it is whole, and how many snapshots are on offer
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
    /// Take out of the logs, now, what no live device needs any more (the hub does it by itself once an hour; see [galleries])
    Compact {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Only this one
        #[arg(long)]
        gallery: Option<Uuid>,
    },
}

impl DevicesCommand {
    pub(super) fn asked(&self) -> (Asked, Then) {
        match self {
            Self::List { tenant } => {
                let path = format!("/tenants/{tenant}/devices");
                (("GET", path, Sent::Nothing, "devices", table::DEVICES), Then::Show)
            }
            Self::Twin(TwinCommand::Show(of)) => (("GET", of.path(), Sent::Nothing, "", table::TWIN), Then::Show),
            Self::Twin(TwinCommand::Diff(of)) => {
                (("GET", of.path(), Sent::Nothing, "difference", table::DIFFERENCE), Then::Show)
            }
            Self::Twin(TwinCommand::Set { of, settings, file }) => {
                let then = file.clone().map_or_else(|| Then::LayOver(settings.clone()), Then::Replace);
                (("PUT", of.path(), Sent::Nothing, "", table::TWIN), then)
            }
        }
    }
}

impl GalleriesCommand {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Self::List { tenant } => {
                ("GET", format!("/tenants/{tenant}/galleries"), Sent::Nothing, "logs", table::LOGS)
            }
            Self::Compact { tenant, gallery } => {
                let path = format!("/tenants/{tenant}/galleries/compact");
                let which = gallery.map_or_else(|| json!({}), |gallery| json!({ "gallery": gallery }));
                ("POST", path, Sent::Json(which), "logs", table::COMPACTED)
            }
        }
    }
}
