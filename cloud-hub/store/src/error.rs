//! What can go wrong with the database, told apart by what the caller can do about it.

use uuid::Uuid;

use hub_host::metrics::database::{self as measured, Fault};

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// Something with this unique property exists already.
    #[error("{0} is already taken")]
    Clash(Clash),
    /// The tenant has no such row (or another tenant has it, which must look the same).
    #[error("{what} {id} does not exist")]
    NotFound {
        /// The kind of thing: `person`, `device`, ...
        what: &'static str,
        /// Its id.
        id: Uuid,
    },
    /// The tenant has as many of something as it may have.
    #[error("the tenant has all {quota} {what} that it may have")]
    QuotaReached {
        /// Of what, in the plural.
        what: &'static str,
        /// How many.
        quota: u64,
    },
    /// A change is of another revision than the present one.
    #[error("{what} is at revision {present}")]
    OtherRevision {
        /// The kind of thing.
        what: &'static str,
        /// What it is at.
        present: u32,
    },
    /// A change is about something that was deleted.
    #[error("entry {id} was deleted; ids are never used again")]
    Deleted {
        /// The entry.
        id: Uuid,
    },
    /// A stored value breaks a rule that every version of this program keeps.
    #[error("stored {what} is unreadable: {reason}; restore it from a backup")]
    Unreadable {
        /// The table and column.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server or the role is not set up as the hub demands.
    #[error("database is not fit for use: {0}")]
    Unfit(&'static str),
    /// The schema is older or newer than this program.
    #[error(
        "database schema is version {found}, this program needs {needed}: run `cloud-hub migrate` or the matching program"
    )]
    Schema {
        /// In the database.
        found: i32,
        /// In the program.
        needed: i32,
    },
    /// The migrations failed.
    #[error("migration: {0}")]
    Migration(#[source] Box<sqlx::migrate::MigrateError>),
    /// The transaction's task ended without an answer: it panicked, or the process is shutting down.
    #[error("transaction ended early; nothing was committed unless its answer was lost after the commit")]
    Aborted,
    /// Another attempt of the same request with an idempotency key is there: this one changes nothing any more.
    #[error("the request was taken up again by another attempt; this one changed nothing")]
    Superseded,
    /// Sealing or opening failed.
    #[error(transparent)]
    Vault(#[from] hub_domain::vault::VaultError),
}

/// A unique property, by the name of its constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clash {
    /// Two sites of one name.
    SiteName,
    /// Two devices of one name.
    DeviceName,
    /// Two doors of one device with one local id.
    DoorLocalId,
    /// Two people with one external id.
    ExternalId,
    /// Two users of one name.
    Login,
    /// Two roles of one name.
    RoleName,
    /// A primary key or another constraint: a bug, or a repeated request.
    Other,
}

impl Clash {
    fn of(constraint: Option<&str>) -> Self {
        match constraint {
            Some("site_name_unique") => Self::SiteName,
            Some("device_name_unique") => Self::DeviceName,
            Some("door_local_id_unique") => Self::DoorLocalId,
            Some("person_external_id_unique" | "person_external_id_even_unique") => Self::ExternalId,
            Some("app_user_login_unique" | "app_user_login_even_unique") => Self::Login,
            Some("tenant_role_name_unique") => Self::RoleName,
            _ => Self::Other,
        }
    }
}

impl std::fmt::Display for Clash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SiteName => "site name",
            Self::DeviceName => "device name",
            Self::DoorLocalId => "door id of this device",
            Self::ExternalId => "external id",
            Self::Login => "login",
            Self::RoleName => "role name",
            Self::Other => "identifier",
        })
    }
}

impl StoreError {
    /// Whether the database took the statement and refused what it was about, so that the same transaction without the one
    /// bad row may well succeed; not so when it could not be reached, was too busy, or gave up.
    #[must_use]
    pub fn is_about_rows(&self) -> bool {
        match self {
            Self::Clash(_) => true,
            Self::Database(error) => {
                let code = error.as_database_error().and_then(|cause| cause.code());
                // Data exceptions, violated constraints, and what a function of ours raises.
                code.is_some_and(|code| ["22", "23", "P0"].iter().any(|class| code.starts_with(class)))
            }
            _ => false,
        }
    }

    /// Whether work for several failed for what may be the matter with one of them, so that each alone is worth a try; not so when
    /// the database is away or too busy, which it would be for each of them too.
    #[must_use]
    pub fn may_be_one_alone(&self) -> bool {
        // A transaction that panicked over one thing would do so each time that the thing comes.
        matches!(self, Self::Aborted) || self.is_about_rows()
    }
}

impl From<sqlx::Error> for StoreError {
    /// The only way in for errors of the database, so that each is counted here, once.
    fn from(error: sqlx::Error) -> Self {
        measured::failed(fault(&error));
        match error.as_database_error() {
            Some(cause) if cause.is_unique_violation() => Self::Clash(Clash::of(cause.constraint())),
            _ => Self::Database(error),
        }
    }
}

/// As metrics tell errors apart.
fn fault(error: &sqlx::Error) -> Fault {
    let code = match error {
        sqlx::Error::PoolTimedOut => return Fault::Busy,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            return Fault::Connection;
        }
        error => error.as_database_error().and_then(|cause| cause.code()),
    };
    // Classes and codes of Postgres (its manual, appendix A).
    match code.as_deref().unwrap_or_default() {
        "23505" => Fault::Clash,
        "57014" => Fault::Cancelled,
        code if code.starts_with("23") => Fault::Constraint,
        code if code.starts_with("40") => Fault::Conflict,
        code if code.starts_with("08") || code.starts_with("57P") => Fault::Connection,
        code if code.starts_with("53") => Fault::Busy,
        _ => Fault::Other,
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(Box::new(error))
    }
}
