//! `cloud-hub tenants …` and `cloud-hub api-keys …`: who is served, what was agreed upon, and the keys that open it.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::client::Sent;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub tenants create Acme --tier professional
  cloud-hub tenants set 0192f0c1-… --quota people=800 --quota devices=none
  cloud-hub tenants set 0192f0c1-… --requests-per-hour 20000 --feature recognition=on
  cloud-hub tenants suspend 0192f0c1-…
  cloud-hub tenants delete 0192f0c1-… --dry-run

Quotas by tier: basic 500 people, 2,500 templates, 10 devices; professional 10,000, 50,000 and 200; enterprise none.
Requests by tier: basic 10,000 an hour and 100,000 a day; professional ten times as many; enterprise as many as it likes.
A suspended tenant's keys are refused; its doors go on as they were.")]
pub(super) enum TenantsCommand {
    /// Make a tenant and its first API key, which is shown once
    Create {
        /// Its name
        name: String,
        /// What is agreed upon: basic, professional or enterprise
        #[arg(long, default_value = "enterprise")]
        tier: String,
    },
    /// List tenants, with what they have of what they may have
    List,
    /// Show one
    Show {
        /// Which
        tenant: Uuid,
    },
    /// Change what was agreed upon; what is there already stays, whatever the quotas
    Set {
        /// Which
        tenant: Uuid,
        /// Another tier
        #[arg(long)]
        tier: Option<String>,
        /// Another quota than its tier's: people=800, devices=none, templates=tier (people, templates, devices, sessions, storage in bytes)
        #[arg(long = "quota", value_parser = quota)]
        quotas: Vec<(String, Value)>,
        /// Requests an hour, or tier
        #[arg(long, value_parser = count_or_tier)]
        requests_per_hour: Option<Value>,
        /// Requests a day, or tier
        #[arg(long, value_parser = count_or_tier)]
        requests_per_day: Option<Value>,
        /// A feature: recognition=on, webhooks=off, consumers=tier (webhooks, consumers, recognition)
        #[arg(long = "feature", value_parser = feature)]
        features: Vec<(String, Value)>,
    },
    /// Refuse the tenant's keys until it is resumed
    Suspend {
        /// Which
        tenant: Uuid,
    },
    /// Let its keys in again
    Resume {
        /// Which
        tenant: Uuid,
    },
    /// Delete a suspended tenant for good: its keys and everybody's at once, then everything that it has
    #[command(after_help = DELETE_HELP)]
    Delete {
        /// Which
        tenant: Uuid,
        /// Its name, letter by letter: there is no way back
        #[arg(long, required_unless_present = "dry_run")]
        confirm: Option<String>,
        /// Only say what would go
        #[arg(long, conflicts_with = "confirm")]
        dry_run: bool,
    },
}

const DELETE_HELP: &str = "Examples:
  cloud-hub tenants suspend 0192f0c1-…
  cloud-hub tenants delete 0192f0c1-… --dry-run
  cloud-hub tenants delete 0192f0c1-… --confirm 'Acme'
  cloud-hub tenants show 0192f0c1-… -o json            how far it is; in the end the signed receipt

When the command returns nothing of the tenant can be read any more, not even in a backup of the database: the keys of its people are
destroyed. Its doors are revoked with it and decide on what they have; set them up anew or take them down. Rows go in the background.";

fn quota(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as people=800")?;
    let value = match value {
        "none" => Value::Null,
        "tier" => json!("tier"),
        count => json!(count.parse::<u64>().map_err(|_| format!("`{count}` is neither a count, nor none, nor tier"))?),
    };
    Ok((name.to_owned(), value))
}

fn count_or_tier(text: &str) -> Result<Value, String> {
    match text {
        "tier" => Ok(json!("tier")),
        count => Ok(json!(count.parse::<u32>().map_err(|_| format!("`{count}` is neither a count nor tier"))?)),
    }
}

fn feature(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as recognition=on")?;
    let value = match value {
        "on" => json!(true),
        "off" => json!(false),
        "tier" => json!("tier"),
        other => return Err(format!("`{other}` is neither on, nor off, nor tier")),
    };
    Ok((name.to_owned(), value))
}

impl TenantsCommand {
    pub(super) fn asked(&self) -> Asked {
        let one = |tenant: &Uuid| format!("/tenants/{tenant}");
        match self {
            Self::Create { name, tier } => {
                let body = json!({ "name": name, "tier": tier });
                ("POST", String::from("/tenants"), Sent::Json(body), "", table::NEW_TENANT)
            }
            Self::List => ("GET", String::from("/tenants"), Sent::Nothing, "tenants", table::TENANTS),
            Self::Show { tenant } => ("GET", one(tenant), Sent::Nothing, "", table::TENANTS),
            Self::Set { tenant, tier, quotas, requests_per_hour, requests_per_day, features } => {
                let mut body = Map::new();
                if let Some(tier) = tier {
                    body.insert(String::from("tier"), json!(tier));
                }
                let requests = [("per_hour", requests_per_hour), ("per_day", requests_per_day)];
                let requests = requests.into_iter().filter_map(|(name, count)| Some((name.to_owned(), count.clone()?)));
                for (part, changes) in [
                    ("quotas", quotas.iter().cloned().collect()),
                    ("requests", requests.collect()),
                    ("features", features.iter().cloned().collect::<Map<String, Value>>()),
                ] {
                    if !changes.is_empty() {
                        body.insert(part.to_owned(), Value::Object(changes));
                    }
                }
                ("PATCH", one(tenant), Sent::Json(Value::Object(body)), "", table::TENANTS)
            }
            Self::Suspend { tenant } => ("POST", one(tenant) + "/suspend", Sent::Nothing, "", table::TENANTS),
            Self::Delete { tenant, confirm: Some(name), .. } => {
                let path = one(tenant) + "/deletion";
                ("POST", path, Sent::Json(json!({ "confirm": name })), "rows", table::DELETION)
            }
            Self::Delete { tenant, confirm: None, .. } => {
                ("GET", one(tenant) + "/deletion", Sent::Nothing, "rows", table::DELETION)
            }
            Self::Resume { tenant } => ("POST", one(tenant) + "/resume", Sent::Nothing, "", table::TENANTS),
        }
    }
}

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub api-keys create --tenant 0192f0c1-… --name 'time sheet' --role integrator --scope events:read
  cloud-hub api-keys rotate --tenant 0192f0c1-… 0192f0c3-… --overlap-s 3600

Roles: owner (everything), administrator (everything but API keys), operator (people, enrolment, commands), auditor (reads),
integrator (people, events, webhooks, consumers). Scopes narrow a role, as in people:read.")]
pub(super) enum ApiKeysCommand {
    /// Make a key, which is shown once
    Create {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// What it is for
        #[arg(long, default_value = "api key")]
        name: String,
        /// What it may do
        #[arg(long, default_value = "owner")]
        role: String,
        /// Only this of what the role allows; may be given several times
        #[arg(long = "scope")]
        scopes: Vec<String>,
        /// When it ends by itself, as in 2027-01-31T00:00:00Z
        #[arg(long)]
        expires_at: Option<String>,
        /// How many requests an hour it may ask; as many as its tenant unless this says otherwise
        #[arg(long)]
        requests_per_hour: Option<u32>,
    },
    /// List keys (never their secrets), those that have ended too
    List(Whose),
    /// Make another key in the place of one, which goes on working for a while
    Rotate {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        key: Uuid,
        /// How long the old one goes on working, in seconds; a day unless this says otherwise
        #[arg(long)]
        overlap_s: Option<u32>,
    },
    /// End a key at once
    Revoke {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        key: Uuid,
    },
}

#[derive(Debug, Args)]
pub(super) struct Whose {
    /// Whose
    #[arg(long)]
    tenant: Uuid,
}

impl ApiKeysCommand {
    pub(super) fn asked(&self) -> Asked {
        let keys = |tenant: &Uuid| format!("/tenants/{tenant}/api-keys");
        match self {
            Self::Create { tenant, name, role, scopes, expires_at, requests_per_hour } => {
                let mut body = json!({ "name": name, "role": role });
                if !scopes.is_empty() {
                    body["scopes"] = json!(scopes);
                }
                if let Some(end) = expires_at {
                    body["expires_at"] = json!(end);
                }
                if let Some(count) = requests_per_hour {
                    body["requests_per_hour"] = json!(count);
                }
                ("POST", keys(tenant), Sent::Json(body), "", table::NEW_API_KEY)
            }
            Self::List(Whose { tenant }) => ("GET", keys(tenant), Sent::Nothing, "api_keys", table::API_KEYS),
            Self::Rotate { tenant, key, overlap_s } => {
                let body = overlap_s.map_or_else(|| json!({}), |seconds| json!({ "overlap_s": seconds }));
                let path = format!("{}/{key}/rotate", keys(tenant));
                ("POST", path, Sent::Json(body), "", table::ROTATED_API_KEY)
            }
            Self::Revoke { tenant, key } => ("DELETE", format!("{}/{key}", keys(tenant)), Sent::Nothing, "", &[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_counts_none_or_the_tiers() {
        assert_eq!(quota("people=800"), Ok((String::from("people"), json!(800))));
        assert_eq!(quota("devices=none"), Ok((String::from("devices"), Value::Null)));
        assert_eq!(quota("devices=tier"), Ok((String::from("devices"), json!("tier"))));
        for wrong in ["people", "people=", "people=-1", "people=many"] {
            assert!(quota(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn requests_are_counts_or_the_tiers_and_features_are_on_or_off() {
        assert_eq!(count_or_tier("800"), Ok(json!(800)));
        assert_eq!(count_or_tier("tier"), Ok(json!("tier")));
        assert!(count_or_tier("none").is_err() && count_or_tier("-1").is_err());
        assert_eq!(feature("recognition=on"), Ok((String::from("recognition"), json!(true))));
        assert_eq!(feature("webhooks=off"), Ok((String::from("webhooks"), json!(false))));
        assert!(feature("webhooks").is_err() && feature("webhooks=yes").is_err());
    }
}
