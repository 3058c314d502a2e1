//! Roles as they are given: one of the program's, or one that a tenant made of permissions.
//!
//! In: a name, permissions, and what the giver may do. Out: the role, or why it is none. A role that a tenant made is looked up for
//! each caller, so that a change of it holds for everybody who has it. Deliberately absent: what each permission opens (`api::access`).

use std::fmt;

use uuid::Uuid;

use super::ids::RoleId;
use super::permission::{Permissions, Role};

/// Characters of a name.
pub const MAX_NAME: usize = 40;
/// Words that are no names of roles though no role of the program has them: they would be taken for something else.
const RESERVED: [&str; 4] = ["own", "device", "none", "platform"];

/// Which role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleRef {
    /// One of the program's.
    Program(Role),
    /// One that the tenant made.
    Own(RoleId),
}

/// As access tokens name it: a role of the tenant's by its id, since its name may change.
impl fmt::Display for RoleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(role) => fmt::Display::fmt(role, f),
            Self::Own(id) => fmt::Display::fmt(id, f),
        }
    }
}

/// A role with what it allows at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenRole {
    /// Which.
    pub which: RoleRef,
    /// Its name.
    pub name: String,
    /// What it allows.
    pub permissions: Permissions,
}

impl From<Role> for GivenRole {
    fn from(role: Role) -> Self {
        Self { which: RoleRef::Program(role), name: role.as_str().to_owned(), permissions: role.permissions() }
    }
}

/// Why a word is no name of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Its form.
    #[error("must have 1 to {MAX_NAME} lower-case letters, digits, `-` and `_`, and begin with a letter")]
    Form,
    /// The program has a role of this name, or means something else by it.
    #[error("is reserved: take another name")]
    Reserved,
}

/// Whether a tenant's role may be called so. An id is no name: paths take either.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '_');
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    if !begins || name.len() > MAX_NAME || !name.chars().all(plain) || Uuid::parse_str(name).is_ok() {
        return Err(BadName::Form);
    }
    let taken = RESERVED.contains(&name) || Role::ALL.iter().any(|role| role.as_str() == name);
    if taken { Err(BadName::Reserved) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_nobody_elses() {
        for good in ["reception", "night-shift_2", "a", &"x".repeat(MAX_NAME)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let id = "a0b1c2d3-0000-4000-8000-000000000000";
        for bad in ["", "Reception", "1st", "-a", "a b", "a/b", "ä", id, &"x".repeat(MAX_NAME + 1)] {
            assert_eq!(check_name(bad), Err(BadName::Form), "{bad}");
        }
        for taken in ["owner", "auditor", "own", "device"] {
            assert_eq!(check_name(taken), Err(BadName::Reserved), "{taken}");
        }
    }
}
