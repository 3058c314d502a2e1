//! `cloud-hub people …`: who may be recognised, as the operator of the machine sees and changes them.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use url::form_urlencoded::Serializer;
use uuid::Uuid;

use super::client::Sent;
use super::import::ImportArguments;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub people list --tenant 0192f0c1-… --external-id E-1042
  cloud-hub people add --tenant 0192f0c1-… E-1042 'Ada Lovelace' --group staff --valid-until 2027-01-31T00:00:00Z
  cloud-hub people change --tenant 0192f0c1-… 0192f0c4-… --group staff --group night --no-valid-until
  cloud-hub people import --tenant 0192f0c1-… staff.zip --dry-run
  cloud-hub people delete --tenant 0192f0c1-… 0192f0c4-… --confirm E-1042

Looking at people and changing them is audited, as over the API.")]
pub(super) enum PeopleCommand {
    /// List people, in the order in which they were made, or who has an external id or an address
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Only who has this, letter by letter
        #[arg(long)]
        external_id: Option<String>,
        /// Only who has this, letter by letter
        #[arg(long)]
        email: Option<String>,
        /// How many at most, up to 200
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Where the page before ended: next_cursor of -o json
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show one, with their templates
    Show(Which),
    /// Make a person; photographs are enrolled over the API, at a door (commands send enrol) or by an import
    Add {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Their number in your own system; one person has it
        external_id: String,
        /// Their name
        name: String,
        #[command(flatten)]
        more: More,
        /// Where they are known; at every site without it. May be given several times
        #[arg(long = "site")]
        sites: Vec<Uuid>,
    },
    /// Change what is known of a person; what is not named stays
    Change {
        #[command(flatten)]
        which: Which,
        /// Another number
        #[arg(long)]
        external_id: Option<String>,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        more: More,
        /// Take the address away
        #[arg(long, conflicts_with = "email")]
        no_email: bool,
        /// Take them out of every group
        #[arg(long, conflicts_with = "groups")]
        no_groups: bool,
        /// Doors let them in whatever the time before the end
        #[arg(long, conflicts_with = "valid_from")]
        no_valid_from: bool,
        /// Doors let them in without an end
        #[arg(long, conflicts_with = "valid_until")]
        no_valid_until: bool,
    },
    /// Erase a person: out of every gallery, and the key of what is kept about them destroyed
    Delete {
        #[command(flatten)]
        which: Which,
        /// Their external id, letter by letter: there is no way back
        #[arg(long)]
        confirm: String,
    },
    /// Import people from a table (.csv), lines of JSON (.jsonl), or an archive (.zip) of either with photographs
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Whose
    #[arg(long)]
    tenant: Uuid,
    /// Who
    person: Uuid,
}

impl Which {
    fn path(&self) -> String {
        format!("/tenants/{}/people/{}", self.tenant, self.person)
    }
}

#[derive(Debug, Args)]
pub(super) struct More {
    /// Their mail address
    #[arg(long)]
    email: Option<String>,
    /// A group that they are in; may be given several times, and these are all of them
    #[arg(long = "group")]
    groups: Vec<String>,
    /// Doors let them in from then on, as in 2026-12-01T00:00:00Z
    #[arg(long)]
    valid_from: Option<String>,
    /// Doors do not let them in from then on
    #[arg(long)]
    valid_until: Option<String>,
}

impl More {
    fn write(&self, body: &mut Map<String, Value>) {
        let texts = [("email", &self.email), ("valid_from", &self.valid_from), ("valid_until", &self.valid_until)];
        for (name, text) in texts {
            if let Some(text) = text {
                body.insert(name.to_owned(), json!(text));
            }
        }
        if !self.groups.is_empty() {
            body.insert(String::from("groups"), json!(self.groups));
        }
    }
}

impl PeopleCommand {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Self::List { tenant, external_id, email, limit, cursor } => {
                let mut query = Serializer::new(String::new());
                query.append_pair("limit", &limit.to_string());
                for (name, value) in [("external_id", external_id), ("email", email), ("cursor", cursor)] {
                    if let Some(value) = value {
                        query.append_pair(name, value);
                    }
                }
                let path = format!("/tenants/{tenant}/people?{}", query.finish());
                ("GET", path, Sent::Nothing, "data", table::PEOPLE)
            }
            Self::Show(which) => ("GET", which.path(), Sent::Nothing, "", table::PERSON),
            Self::Add { tenant, external_id, name, more, sites } => {
                let mut body = Map::new();
                body.insert(String::from("external_id"), json!(external_id));
                body.insert(String::from("name"), json!(name));
                more.write(&mut body);
                if !sites.is_empty() {
                    body.insert(String::from("site_ids"), json!(sites));
                }
                let path = format!("/tenants/{tenant}/people");
                ("POST", path, Sent::Json(Value::Object(body)), "", table::PERSON)
            }
            Self::Change { which, external_id, name, more, no_email, no_groups, no_valid_from, no_valid_until } => {
                let mut body = Map::new();
                for (field, text) in [("external_id", external_id), ("name", name)] {
                    if let Some(text) = text {
                        body.insert(field.to_owned(), json!(text));
                    }
                }
                more.write(&mut body);
                let gone = [("email", no_email), ("valid_from", no_valid_from), ("valid_until", no_valid_until)];
                body.extend(gone.iter().filter(|(_, gone)| **gone).map(|(name, _)| ((*name).to_owned(), Value::Null)));
                if *no_groups {
                    body.insert(String::from("groups"), json!([]));
                }
                ("PATCH", which.path(), Sent::Json(Value::Object(body)), "", table::PERSON)
            }
            Self::Delete { which, confirm } => {
                let query = Serializer::new(String::new()).append_pair("confirm", confirm).finish();
                ("DELETE", format!("{}?{query}", which.path()), Sent::Nothing, "", &[])
            }
            Self::Import(_) => unreachable!("an import is a task of its own"),
        }
    }
}
