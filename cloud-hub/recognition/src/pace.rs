//! A distance between beginnings: the first is at once, what follows close upon it waits a moment, and whoever comes meanwhile
//! goes along. Nobody waits while little is asked, and work that costs the same for one as for many is not done for each.

use std::time::Duration;

use tokio::time::Instant;

/// When the next may begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    apart: Duration,
    begun: Option<Instant>,
}

impl Pace {
    /// Nothing has begun.
    pub(super) fn new(apart: Duration) -> Self {
        Self { apart, begun: None }
    }

    /// From when on the next may begin; at once if nothing has begun yet.
    pub(super) fn free_at(self) -> Option<Instant> {
        self.begun.map(|begun| begun + self.apart)
    }

    /// Whether it may begin.
    pub(super) fn is_free(self, now: Instant) -> bool {
        self.free_at().is_none_or(|free| free <= now)
    }

    /// It begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_begins_at_once_and_the_next_after_the_distance() {
        let (mut pace, now) = (Pace::new(Duration::from_millis(4)), Instant::now());
        assert!(pace.is_free(now));
        pace.begin(now);
        assert_eq!(pace.free_at(), Some(now + Duration::from_millis(4)));
        assert!(!pace.is_free(now + Duration::from_micros(3_999)) && pace.is_free(now + Duration::from_millis(4)));
    }
}
