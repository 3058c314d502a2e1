//! The final types that configuration text is parsed into, so that no later code has to check it again.
//!
//! In: strings and numbers of a TOML file. Out: [`Duration`]s, shares, ids. No defaults live here.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// Why a text is not a value of the wanted type. The message is a full clause that can follow the key's name.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// Not a number followed by a unit.
    #[error(
        "{text:?} is not a duration; write a number and a unit, such as \"800ms\", \"3s\", \"5m\", \"24h\" or \"30d\""
    )]
    Duration {
        /// What was written.
        text: String,
    },
    /// Not between 0 and 1.
    #[error("{number} is not between 0 and 1")]
    Share {
        /// What was written.
        number: f32,
    },
    /// Not usable as an id.
    #[error("{text:?} is not an id; use 1 to 32 of the characters a-z, 0-9 and -")]
    Id {
        /// What was written.
        text: String,
    },
}

/// Reads `"800ms"`, `"3s"`, `"1.5s"`, `"5m"`, `"24h"`, `"30d"`.
///
/// # Errors
/// [`ValueError::Duration`] for a missing unit, a negative or infinite number, or anything above a thousand days.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let wrong = || ValueError::Duration { text: text.to_owned() };
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let seconds = number
        * match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
    // A thousand days: beyond that it is a typing mistake, and Duration arithmetic stays far from overflow.
    if !(0.0..=86_400_000.0).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// `deserialize_with` for a [`Duration`] written as text.
///
/// # Errors
/// The deserialiser's own error, carrying [`ValueError::Duration`]'s message.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(D::Error::custom)
}

/// `deserialize_with` for a number between 0 and 1.
///
/// # Errors
/// The deserialiser's own error, carrying [`ValueError::Share`]'s message.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    let number = f32::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(D::Error::custom(ValueError::Share { number })) }
}

/// Checks a camera's, door's or policy's id: it becomes part of a socket's name and of event data.
///
/// # Errors
/// [`ValueError::Id`] unless it is 1 to 32 of `a-z`, `0-9`, `-`.
pub fn check_id(text: &str) -> Result<(), ValueError> {
    let good = (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good { Ok(()) } else { Err(ValueError::Id { text: text.to_owned() }) }
}

/// `deserialize_with` for an id that [`check_id`] accepts.
///
/// # Errors
/// The deserialiser's own error, carrying [`ValueError::Id`]'s message.
pub fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    check_id(&text).map_err(D::Error::custom)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_sane_number() {
        assert_eq!(parse_duration("800ms"), Ok(Duration::from_millis(800)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in ["3", "", "s", "-1s", "3 parsecs", "infs", "nans", "1e9d", "3S"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn ids_are_safe_as_file_names() {
        assert!(check_id("north-gate-2").is_ok());
        for bad in ["", "../etc", "Main", "a b", "x/y", &"a".repeat(33)] {
            assert!(check_id(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
