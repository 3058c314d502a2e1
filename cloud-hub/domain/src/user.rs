//! People who log in: their names, their passwords' bounds, and how long a name is locked after failures.
//!
//! In: what somebody typed, and how often they failed. Out: the name as it is looked for, or why it is none; a time to wait.
//! Deliberately absent: hashing (`keys::passwords`), and counting (`store::logins`).

use time::Duration;

/// Characters of a name to log in by.
pub const MAX_LOGIN: usize = 254;
/// Characters of a password at least. Length is all that is asked for: rules about signs make passwords worse.
pub const MIN_PASSWORD: usize = 12;
/// Bytes of a password at most.
pub const MAX_PASSWORD_BYTES: usize = 512;
/// Failures after which a name is locked.
pub const FREE_FAILURES: u32 = 5;
/// After how long without an attempt failures are forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::hours(24);

/// Whether somebody may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// They may.
    Active,
    /// They may not, for now.
    Disabled,
}

impl State {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Active, Self::Disabled];

    /// As documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == word)
    }
}

/// What was typed is no name to log in by, or no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A name.
    #[error("must have 1 to {MAX_LOGIN} characters, without blanks and control characters")]
    Login,
    /// A password that is too short.
    #[error("must have at least {MIN_PASSWORD} characters")]
    Short,
    /// A password that is too long.
    #[error("must have at most {MAX_PASSWORD_BYTES} bytes")]
    Long,
}

/// A name as it is looked for: people do not remember how they wrote their mail address.
pub fn login(typed: &str) -> Result<String, Unusable> {
    let wrong = |letter: char| letter.is_whitespace() || letter.is_control();
    let count = typed.chars().count();
    if count == 0 || count > MAX_LOGIN || typed.chars().any(wrong) {
        return Err(Unusable::Login);
    }
    Ok(typed.to_lowercase())
}

/// Whether a password may be chosen.
pub fn check_password(password: &str) -> Result<(), Unusable> {
    if password.chars().count() < MIN_PASSWORD {
        return Err(Unusable::Short);
    }
    if password.len() > MAX_PASSWORD_BYTES { Err(Unusable::Long) } else { Ok(()) }
}

/// For how long a name is locked after so many failures in a row; none while they are free. Never longer than an hour: whoever
/// fails on purpose in somebody's name must not keep them out for a day.
#[must_use]
pub fn lock(failures: u32) -> Option<Duration> {
    match failures {
        0..FREE_FAILURES => None,
        5 => Some(Duration::minutes(1)),
        6 => Some(Duration::minutes(5)),
        7 => Some(Duration::minutes(15)),
        _ => Some(Duration::hours(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_grows_and_ends() {
        assert_eq!((0..FREE_FAILURES).find_map(lock), None);
        let minutes: Vec<i64> = (5..10).filter_map(lock).map(Duration::whole_minutes).collect();
        assert_eq!(minutes, [1, 5, 15, 60, 60]);
        assert_eq!(lock(u32::MAX), Some(Duration::hours(1)));
    }

    #[test]
    fn a_name_is_found_however_it_was_written() {
        assert_eq!(login("Ada@Example.ORG"), Ok(String::from("ada@example.org")));
        for wrong in ["", " ada", "a da", "a\nb", &"x".repeat(MAX_LOGIN + 1)] {
            assert_eq!(login(wrong), Err(Unusable::Login), "{wrong:?}");
        }
    }

    #[test]
    fn a_password_is_long_enough_and_not_too_long() {
        assert_eq!(check_password("twelve signs"), Ok(()));
        assert_eq!(check_password("eleven sign"), Err(Unusable::Short));
        assert_eq!(check_password(&"x".repeat(MAX_PASSWORD_BYTES + 1)), Err(Unusable::Long));
    }
}
