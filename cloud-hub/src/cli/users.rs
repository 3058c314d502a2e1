//! `cloud-hub users …`: people who log in. A password is read from stdin, never from the command line, where others could see it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Subcommand;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Sent;
use super::question::Asked;
use super::table;

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub users create --tenant 0192f0c1-… ada@example.org --role administrator
  cloud-hub users reset --tenant 0192f0c1-… 0192f0c3-…                             another invitation
  cloud-hub users reset --tenant 0192f0c1-… 0192f0c3-… --password-stdin < secret   a password of yours

An invitation is good for three days, once: POST /v1/login/invitation with it and a password.")]
pub(super) enum UsersCommand {
    /// Make a user and an invitation to choose a password, which is shown once
    Create {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// The name to log in by, as a mail address
        login: String,
        /// What they may do: owner, administrator, operator, auditor, integrator, or a role of the tenant's own
        #[arg(long)]
        role: String,
    },
    /// List users
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
    /// End a user's password and log-ins, and invite them to choose another one
    Reset {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        user: Uuid,
        /// Set this password instead: the first line of stdin
        #[arg(long)]
        password_stdin: bool,
    },
    /// Take the second factor off a user who lost it; their log-ins end
    TakeTotp {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        user: Uuid,
    },
    /// Delete a user; their log-ins end at once
    Delete {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        user: Uuid,
    },
}

impl UsersCommand {
    pub(super) fn asked(&self) -> Asked {
        let users = |tenant: &Uuid| format!("/tenants/{tenant}/users");
        match self {
            Self::Create { tenant, login, role } => {
                let body = json!({ "login": login, "role": role });
                ("POST", users(tenant), Sent::Json(body), "", table::NEW_USER)
            }
            Self::List { tenant } => ("GET", users(tenant), Sent::Nothing, "users", table::USERS),
            Self::Reset { tenant, user, .. } => {
                ("POST", format!("{}/{user}/password", users(tenant)), Sent::Json(json!({})), "", table::NEW_USER)
            }
            Self::TakeTotp { tenant, user } => {
                ("DELETE", format!("{}/{user}/totp", users(tenant)), Sent::Nothing, "", &[])
            }
            Self::Delete { tenant, user } => ("DELETE", format!("{}/{user}", users(tenant)), Sent::Nothing, "", &[]),
        }
    }

    pub(super) fn reads_password(&self) -> bool {
        matches!(self, Self::Reset { password_stdin: true, .. })
    }
}

/// What is sent with the password that stands on the first line of stdin.
pub(super) fn with_password() -> Result<Value, String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let _ = write!(std::io::stderr(), "Password (it will be seen; better: --password-stdin < file): ");
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|error| format!("stdin: {error}"))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        Err(String::from("stdin has no password on its first line"))
    } else {
        Ok(json!({ "password": password }))
    }
}
