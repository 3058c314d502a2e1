//! The hub's one clock. Rules take the time as an argument; this is where the argument comes from.

use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

/// Tells the time in UTC. Cheap to clone; a test may give it any time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// The system's wall clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the hub's clock module")]
    pub fn system() -> Self {
        Self(Arc::new(OffsetDateTime::now_utc))
    }

    /// A clock that does what `tell` says.
    #[must_use]
    pub fn of(tell: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        (self.0)()
    }

    /// A new id of version 7: sorts by the time it was made.
    #[must_use]
    pub fn new_id(&self) -> Uuid {
        let now = self.now();
        let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let at = |seconds| Clock::of(move || OffsetDateTime::from_unix_timestamp(seconds).expect("a valid time"));
        assert!(at(1_000_000).new_id() < at(2_000_000).new_id());
        assert_eq!(at(1_000_000).new_id().get_version_num(), 7);
    }
}
