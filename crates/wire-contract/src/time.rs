//! Points in time on the wire: RFC 3339, UTC, milliseconds, for example `2026-11-22T10:37:31.042Z`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::encoding::string_serde;

/// The last millisecond of the year 9999, the last that RFC 3339 can write.
const MAX_UNIX_MS: i64 = 253_402_300_799_999;

/// A point in time, in whole milliseconds since 1970, from 1970 to 9999.
///
/// Reading accepts any RFC 3339 time: other offsets are converted to UTC and finer fractions cut off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

/// The text is not a time.
#[derive(Debug, thiserror::Error)]
#[error("a time must be RFC 3339 between 1970 and 9999, found `{found}`")]
pub struct TimestampError {
    /// What was found.
    pub found: String,
    #[source]
    source: Option<time::error::Parse>,
}

impl Timestamp {
    /// The time this many milliseconds after 1970; what lies outside 1970 to 9999 becomes the nearest end.
    pub fn from_unix_ms(ms: i64) -> Self {
        Self(ms.clamp(0, MAX_UNIX_MS))
    }

    /// The time that a wall clock showed.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(MAX_UNIX_MS))
    }

    /// Milliseconds since 1970.
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn unix_seconds(self) -> i64 {
        self.0 / 1000
    }

    /// The same time as a `time` value in UTC.
    pub fn to_offset_date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).expect("the years 1970 to 9999 fit")
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        let ms = time.unix_timestamp_nanos().div_euclid(1_000_000);
        Self::from_unix_ms(i64::try_from(ms).unwrap_or(MAX_UNIX_MS))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.to_offset_date_time();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        )
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = || text.chars().take(80).collect();
        let time =
            OffsetDateTime::parse(text, &Rfc3339).map_err(|e| TimestampError { found: found(), source: Some(e) })?;
        if time.unix_timestamp() < 0 {
            return Err(TimestampError { found: found(), source: None });
        }
        Ok(Self::from(time))
    }
}

string_serde!(Timestamp, "Timestamp", "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        for (read, written) in [
            ("2026-11-22T10:37:31Z", "2026-11-22T10:37:31.000Z"),
            ("2026-11-22T17:37:31.0429999+07:00", "2026-11-22T10:37:31.042Z"),
            ("1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.001Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            let time: Timestamp = read.parse().unwrap();
            assert_eq!(time.to_string(), written);
            assert_eq!(written.parse::<Timestamp>().unwrap(), time);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "yesterday", "2026-11-22", "2026-11-22 10:37", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"]
        {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn clocks_outside_the_range_are_clamped() {
        assert_eq!(Timestamp::from_unix_ms(-1).unix_ms(), 0);
        assert_eq!(Timestamp::from_unix_ms(i64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Timestamp::from_system(UNIX_EPOCH - Duration::from_secs(1)).unix_ms(), 0);
    }
}
