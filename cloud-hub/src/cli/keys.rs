//! `cloud-hub keys …`: the hub's own keys.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::Asked;
use super::client::Sent;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub keys status                     the hub's keys, and those of tenants that are being replaced
  cloud-hub keys rotate master              everything goes on; the key before is gone after some minutes
  cloud-hub keys rotate tenant 0192f0c1-…   the same for what is under one tenant's key
  cloud-hub keys rotate blind-index         another key by which people are found, for every tenant
  cloud-hub keys rotate seeds --tenant 0192f0c1-…   that tenant's searchable vectors are rotated anew
  cloud-hub keys rotate people              other keys for everybody; what is sealed of them follows within minutes
  cloud-hub keys rotate galleries --tenant 0192f0c1-…   other digest keys; doors fetch them and go on deciding
  cloud-hub keys rotate pepper              each API key goes over at its next use; status says how many have not
  cloud-hub keys retire-pepper --dry-run    how many API keys stop to work without the pepper before
  cloud-hub keys rotate signing             the key before vouches for it: devices believe it at their next answer
  cloud-hub keys rotate authorities         devices get certificates of another authority as they renew theirs
  cloud-hub keys retire-authorities --dry-run   how many devices have none of it yet
  cloud-hub keys rotate-jwt                 nobody notices: the key before verifies until its last token is over
  cloud-hub keys rotate-jwt --revoke-old    somebody has got at it: no token of it is good any more, within five seconds

Refresh tokens and cookies are not touched by any of it; users log out by themselves, or are disabled.
Where several hubs share their keys, `rotate master`, `pepper`, `signing` and `authorities` make the next one first: see docs/guides/keys.md.")]
pub(super) enum KeysCommand {
    /// List keys with their ages (never their secrets)
    Status {
        /// The versions of this tenant's keys instead
        tenant: Option<Uuid>,
    },
    /// Put another key in the place of one, while everybody goes on working
    #[command(subcommand)]
    Rotate(RotateCommand),
    /// Destroy the master key before, once every hub that shares it has the present one
    RetireMaster,
    /// Forget the pepper before: API keys that were not used since it was replaced stop to work
    RetirePepper {
        /// How many API keys stop to work, as `--dry-run` says: there is no way back
        #[arg(long, required_unless_present = "dry_run")]
        confirm: Option<u64>,
        /// Only say how many
        #[arg(long, conflicts_with = "confirm")]
        dry_run: bool,
    },
    /// Tell devices no longer to believe the signing keys before, once every hub has the present one
    RetireSigning,
    /// Believe the device authority before no more, once devices have certificates of the present one
    RetireAuthorities {
        /// How many devices are to be claimed again, as `--dry-run` says: there is no way back
        #[arg(long, required_unless_present = "dry_run")]
        confirm: Option<u64>,
        /// Only say how many
        #[arg(long, conflicts_with = "confirm")]
        dry_run: bool,
    },
    /// Sign access tokens by another key, on all hubs
    RotateJwt {
        /// Let no token of another key be good any more: their users refresh
        #[arg(long)]
        revoke_old: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RotateCommand {
    /// The master key, which wraps tenants' keys and those of access tokens
    Master {
        /// The next key lies in the keys folder of every hub that shares them
        #[arg(long)]
        copied: bool,
    },
    /// A tenant's key, which wraps people's keys and everything else of the tenant that is sealed
    Tenant {
        /// Whose
        tenant: Uuid,
    },
    /// The pepper, by which API keys and other secrets are known; each API key goes over at its next use
    Pepper {
        /// The next pepper lies in the keys folder of every hub that shares it
        #[arg(long)]
        copied: bool,
    },
    /// The key that signs for devices, which learn the next one by themselves
    Signing {
        /// The next key lies in the keys folder of every hub that shares it
        #[arg(long)]
        copied: bool,
    },
    /// The authorities that sign certificates of devices and hub; devices get others as they renew theirs
    Authorities {
        /// The next authorities lie in the pki folder of every hub that shares them
        #[arg(long)]
        copied: bool,
    },
    /// The key under which names, addresses and external ids are found
    BlindIndex {
        /// Whose; without it every tenant's
        #[arg(long)]
        tenant: Option<Uuid>,
    },
    /// The keys of galleries: of their digests, and of the hashes of credentials; devices fetch them
    Galleries {
        /// Whose; without it every tenant's
        #[arg(long)]
        tenant: Option<Uuid>,
    },
    /// The keys of people, under which their names and templates are sealed
    People {
        /// Whose; without it every tenant's
        #[arg(long)]
        tenant: Option<Uuid>,
    },
    /// The seeds by which searchable vectors are rotated
    Seeds {
        /// Whose; without it every tenant's
        #[arg(long)]
        tenant: Option<Uuid>,
    },
}

impl KeysCommand {
    pub(super) fn asked(&self) -> Asked {
        match self {
            Self::Status { tenant: Some(tenant) } => {
                ("GET", format!("/tenants/{tenant}/keys"), Sent::Nothing, "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::Tenant { tenant }) => {
                ("POST", format!("/tenants/{tenant}/keys"), Sent::Nothing, "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::BlindIndex { tenant }) => {
                let body = json!({ "tenant": tenant });
                ("POST", String::from("/keys/blind-index"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::Galleries { tenant }) => {
                let body = json!({ "tenant": tenant });
                ("POST", String::from("/keys/galleries"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::People { tenant }) => {
                let body = json!({ "tenant": tenant });
                ("POST", String::from("/keys/people"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::Seeds { tenant }) => {
                let body = json!({ "tenant": tenant });
                ("POST", String::from("/keys/seeds"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::Master { copied }) => {
                let body = json!({ "copied": copied });
                ("POST", String::from("/keys/master"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::Pepper { copied }) => {
                let body = json!({ "copied": copied });
                ("POST", String::from("/keys/pepper"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::Signing { copied }) => {
                let body = json!({ "copied": copied });
                ("POST", String::from("/keys/signing"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::Rotate(RotateCommand::Authorities { copied }) => {
                let body = json!({ "copied": copied });
                ("POST", String::from("/keys/authorities"), Sent::Json(body), "keys", table::KEYS)
            }
            Self::RetireAuthorities { confirm, .. } => {
                let body = json!({ "confirm": confirm });
                ("POST", String::from("/keys/authorities/retire"), Sent::Json(body), "", table::AUTHORITIES)
            }
            Self::RetireSigning => ("POST", String::from("/keys/signing/retire"), Sent::Nothing, "keys", table::KEYS),
            Self::RetirePepper { confirm, .. } => {
                let body = json!({ "confirm": confirm });
                ("POST", String::from("/keys/pepper/retire"), Sent::Json(body), "", table::PEPPER)
            }
            Self::RetireMaster => ("POST", String::from("/keys/master/retire"), Sent::Nothing, "keys", table::KEYS),
            Self::Status { tenant: None } => ("GET", String::from("/keys"), Sent::Nothing, "keys", table::KEYS),
            Self::RotateJwt { revoke_old } => {
                let body = json!({ "revoke_old": revoke_old });
                ("POST", String::from("/keys/jwt"), Sent::Json(body), "keys", table::KEYS)
            }
        }
    }
}
