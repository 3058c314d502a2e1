//! `cloud-hub negative-anchors …`: pictures of who somebody is not.

use std::path::PathBuf;

use clap::Subcommand;
use uuid::Uuid;

use super::client::Sent;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "A door refuses whoever is at least as near to a negative anchor as to the person (not_this_person).
Example:
  cloud-hub negative-anchors add --tenant 0192f0c1-… --person 7c1b… visitor.jpg"
)]
pub(super) enum AnchorsCommand {
    /// Say that whoever is in a picture is not this person; every door of the person follows
    Add {
        /// Whose tenant
        #[arg(long)]
        tenant: Uuid,
        /// Who it is not
        #[arg(long)]
        person: Uuid,
        /// JPEG or PNG with one face
        picture: PathBuf,
        /// It shows somebody else although it looks as if it were the person
        #[arg(long)]
        confirm: bool,
    },
    /// List a person's negative anchors (never a picture)
    List {
        /// Whose tenant
        #[arg(long)]
        tenant: Uuid,
        /// Whose
        #[arg(long)]
        person: Uuid,
    },
    /// Take one back
    Remove {
        /// Whose tenant
        #[arg(long)]
        tenant: Uuid,
        /// Whose
        #[arg(long)]
        person: Uuid,
        /// Which
        anchor: Uuid,
    },
}

impl AnchorsCommand {
    pub(super) fn asked(&self) -> Asked {
        let base = |tenant: &Uuid, person: &Uuid| format!("/tenants/{tenant}/people/{person}/negative-anchors");
        match self {
            Self::Add { tenant, person, picture, confirm } => {
                let query = if *confirm { "?confirm=true" } else { "" };
                let path = base(tenant, person) + query;
                ("POST", path, Sent::File(picture.clone()), "", table::NEW_ANCHOR)
            }
            Self::List { tenant, person } => {
                ("GET", base(tenant, person), Sent::Nothing, "negative_anchors", table::ANCHORS)
            }
            Self::Remove { tenant, person, anchor } => {
                ("DELETE", format!("{}/{anchor}", base(tenant, person)), Sent::Nothing, "", &[])
            }
        }
    }
}
