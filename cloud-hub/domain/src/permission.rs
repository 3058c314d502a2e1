//! What a caller may do: permissions, the roles that bundle them, and the scopes that narrow a role.
//!
//! In: a role's name and a list of permissions. Out: yes or no. Every route of the API names one permission; a key has a
//! role and may have scopes, and may do what both allow. Deliberately absent: which route needs what (`api::access`), and
//! whose data it is, which the database decides by the tenant of the transaction.

use std::fmt;
use std::str::FromStr;

use super::role::GivenRole;

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident, $word:literal;)+) => {
        /// One thing that may be allowed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Permission {
            $($(#[$doc])* $variant,)+
        }

        impl Permission {
            /// All there are, in the order of the documents.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// `resource:verb`, as keys and documents name it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

permissions! {
    /// See the tenant, its limits and what it uses of them.
    TenantRead, "tenant:read";
    /// Say how sure recognition must be.
    TenantWrite, "tenant:write";
    /// See API keys, never their secrets.
    ApiKeysRead, "api_keys:read";
    /// Make, rotate and revoke API keys, with no more rights than one's own.
    ApiKeysWrite, "api_keys:write";
    /// See users, their roles, and when they logged in last.
    UsersRead, "users:read";
    /// Make, change, reset and delete users who have no more rights than oneself.
    UsersWrite, "users:write";
    /// See the roles that there are, and what each allows.
    RolesRead, "roles:read";
    /// Make, change and delete roles that allow no more than one may do oneself.
    RolesWrite, "roles:write";
    /// See sites and doors.
    SitesRead, "sites:read";
    /// Make sites and doors.
    SitesWrite, "sites:write";
    /// See devices, how they are set up, and what became of their commands.
    DevicesRead, "devices:read";
    /// Make, claim, set up and revoke devices.
    DevicesWrite, "devices:write";
    /// Open, lock down and command doors and devices.
    DoorsCommand, "doors:command";
    /// Read logs that a device sent.
    LogsRead, "logs:read";
    /// See people: names, addresses, and which templates they have.
    PeopleRead, "people:read";
    /// Make and delete people.
    PeopleWrite, "people:write";
    /// Send photographs: enrol people, and say who they are not.
    PeopleEnrol, "people:enrol";
    /// Have photographs and templates compared: who it is, whether it is them.
    RecognitionUse, "recognition:use";
    /// Have photographs turned into templates and given out: whoever has one can compare it anywhere.
    RecognitionEmbed, "recognition:embed";
    /// See sessions and how far they are.
    SessionsRead, "sessions:read";
    /// Add frames to sessions that are open, complete and cancel them. Opening one takes `people:enrol` or `recognition:use`.
    SessionsWrite, "sessions:write";
    /// Read events, once or as they come.
    EventsRead, "events:read";
    /// Read the audit, and take copies of it.
    AuditRead, "audit:read";
    /// See webhooks.
    WebhooksRead, "webhooks:read";
    /// Make and delete webhooks.
    WebhooksWrite, "webhooks:write";
    /// See the programs that read events at the broker.
    ConsumersRead, "consumers:read";
    /// Make and delete such programs, and renew their passwords.
    ConsumersWrite, "consumers:write";
}

/// A word that names no permission or no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is none of: {known}")]
pub struct UnknownWord {
    found: String,
    known: String,
}

impl UnknownWord {
    pub(crate) fn new<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self { found: found.chars().take(80).collect(), known: known.collect::<Vec<_>>().join(", ") }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.iter().copied().find(|permission| permission.as_str() == word);
        found.ok_or_else(|| UnknownWord::new(word, Self::ALL.iter().map(|permission| permission.as_str())))
    }
}

/// A bundle of permissions by what somebody is there for. Devices are not among them: a certificate opens the routes of
/// devices and no others, and no key opens those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Whoever the tenant belongs to: everything.
    Owner,
    /// Runs it from day to day: everything but API keys.
    Administrator,
    /// Stands at the door: people, enrolment, commands; nothing of how the fleet is set up.
    Operator,
    /// Looks and changes nothing.
    Auditor,
    /// A program of the customer's: keeps people in step and reads events.
    Integrator,
}

impl Role {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Owner, Self::Administrator, Self::Operator, Self::Auditor, Self::Integrator];

    /// As keys and documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Integrator => "integrator",
        }
    }

    /// What it allows.
    #[must_use]
    pub fn permissions(self) -> Permissions {
        use Permission as P;
        let all = || P::ALL.iter().copied();
        match self {
            Self::Owner => all().collect(),
            Self::Administrator => {
                all().filter(|permission| !matches!(permission, P::ApiKeysWrite | P::RecognitionEmbed)).collect()
            }
            Self::Operator => [
                P::SitesRead,
                P::DevicesRead,
                P::DoorsCommand,
                P::PeopleRead,
                P::PeopleWrite,
                P::PeopleEnrol,
                P::RecognitionUse,
                P::SessionsRead,
                P::SessionsWrite,
                P::EventsRead,
            ]
            .into_iter()
            .collect(),
            Self::Auditor => all().filter(|permission| permission.as_str().ends_with(":read")).collect(),
            Self::Integrator => [
                P::SitesRead,
                P::DevicesRead,
                P::PeopleRead,
                P::PeopleWrite,
                P::PeopleEnrol,
                P::RecognitionUse,
                P::SessionsRead,
                P::SessionsWrite,
                P::EventsRead,
                P::WebhooksRead,
                P::WebhooksWrite,
                P::ConsumersRead,
                P::ConsumersWrite,
            ]
            .into_iter()
            .collect(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.iter().copied().find(|role| role.as_str() == word);
        found.ok_or_else(|| UnknownWord::new(word, Self::ALL.iter().map(|role| role.as_str())))
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u32);

const _: () = assert!(Permission::ALL.len() <= u32::BITS as usize);

impl Permissions {
    /// Whether this one is in it.
    #[must_use]
    pub fn allow(self, permission: Permission) -> bool {
        self.0 & bit(permission) != 0
    }

    /// Those of it that `more` does not have; empty when everything here is allowed there too.
    #[must_use]
    pub fn beyond(self, more: Self) -> Self {
        Self(self.0 & !more.0)
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its members, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.allow(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |all, permission| all | bit(permission)))
    }
}

fn bit(permission: Permission) -> u32 {
    1 << permission as u32
}

/// What a key was given: a role, and scopes if it may do only some of what the role allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: GivenRole,
    /// Narrows the role; never widens it.
    pub scopes: Option<Permissions>,
}

impl Grant {
    /// Everything that a role allows.
    #[must_use]
    pub fn all_of(role: impl Into<GivenRole>) -> Self {
        Self { role: role.into(), scopes: None }
    }

    /// What it comes to.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        let role = self.role.permissions;
        self.scopes.map_or(role, |scopes| role.and(scopes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_others_are_named() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
        }
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        let error = "people:read ".parse::<Permission>().unwrap_err().to_string();
        assert!(error.contains("`people:read `") && error.contains("people:enrol"), "{error}");
        assert!("root".parse::<Role>().unwrap_err().to_string().contains("owner, administrator"));
    }

    #[test]
    fn scopes_narrow_a_role_and_never_widen_it() {
        let scopes: Permissions = [Permission::EventsRead, Permission::ApiKeysWrite].into_iter().collect();
        for role in Role::ALL {
            let grant = Grant { role: GivenRole::from(*role), scopes: Some(scopes) }.permissions();
            assert_eq!(grant.beyond(role.permissions()), Permissions::default(), "{role}");
            assert_eq!(grant.beyond(scopes), Permissions::default(), "{role}");
            assert!(grant.allow(Permission::EventsRead), "{role} reads events");
        }
        let operator = Grant { role: GivenRole::from(Role::Operator), scopes: Some(scopes) }.permissions();
        assert!(!operator.allow(Permission::ApiKeysWrite));
    }

    #[test]
    fn only_an_owner_makes_keys_and_gets_templates_and_an_auditor_changes_nothing() {
        for role in Role::ALL {
            for permission in [Permission::ApiKeysWrite, Permission::RecognitionEmbed] {
                assert_eq!(role.permissions().allow(permission), *role == Role::Owner, "{role}: {permission}");
            }
        }
        assert!(Role::Auditor.permissions().iter().all(|permission| permission.as_str().ends_with(":read")));
        assert_eq!(Role::Owner.permissions().iter().count(), Permission::ALL.len());
    }

    #[test]
    fn what_one_set_has_beyond_another_is_told() {
        let owner = Role::Owner.permissions();
        assert_eq!(owner.beyond(owner), Permissions::default());
        let beyond: Vec<Permission> = owner.beyond(Role::Administrator.permissions()).iter().collect();
        assert_eq!(beyond, [Permission::ApiKeysWrite, Permission::RecognitionEmbed]);
    }
}
