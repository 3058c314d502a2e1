//! When an endpoint that cannot be reached is left alone for a while.
//!
//! In: how attempts ended. Out: which endpoints rest now. A receiver that is down must cost little however long its queue
//! grows: without a rest each new event is an attempt, with two transactions, against an address that answers nobody.
//! Deliberately absent: the schedule of a single delivery ([`super::retry`]); a rest only holds deliveries back, it makes none
//! fail. Kept in memory alone: a hub that starts again finds out anew within a few attempts.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};

use super::ids::EndpointId;

/// Attempts in a row that reached nobody before the first rest: fewer would let one lost connection hold up others.
const PATIENCE: u32 = 3;
/// The first rest; each further one is twice as long.
const SHORTEST: Duration = Duration::seconds(1);
/// The longest: so late, at most, a receiver that is back gets its first delivery.
const LONGEST: Duration = Duration::seconds(30);

/// The endpoints that were not reached lately.
#[derive(Debug, Default)]
pub struct Rests(HashMap<EndpointId, Unreached>);

#[derive(Debug, Default)]
struct Unreached {
    in_a_row: u32,
    until: Option<OffsetDateTime>,
}

impl Rests {
    /// An attempt has ended; `reached` says whether anybody answered, whatever the answer was.
    pub fn ended(&mut self, endpoint: EndpointId, reached: bool, now: OffsetDateTime) {
        if reached {
            self.0.remove(&endpoint);
            return;
        }
        let unreached = self.0.entry(endpoint).or_default();
        // Of several attempts that were under way together, the first to fail begins the rest.
        if unreached.until.is_some_and(|until| now < until) {
            return;
        }
        unreached.in_a_row = unreached.in_a_row.saturating_add(1);
        let beyond = unreached.in_a_row.checked_sub(PATIENCE);
        unreached.until = beyond.map(|times| now + (SHORTEST * 2_i32.pow(times.min(10))).min(LONGEST));
    }

    /// Who gets nothing at this moment.
    #[must_use]
    pub fn resting(&self, now: OffsetDateTime) -> Vec<EndpointId> {
        self.0.iter().filter(|(_, rest)| rest.until.is_some_and(|until| now < until)).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const DOWN: EndpointId = EndpointId(Uuid::from_u128(1));
    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn an_endpoint_that_nobody_answers_at_rests_longer_and_longer() {
        let (mut rests, mut now) = (Rests::default(), START);
        for _ in 0..PATIENCE - 1 {
            rests.ended(DOWN, false, now);
            assert!(rests.resting(now).is_empty(), "a lost connection or two are no reason");
        }
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            rests.ended(DOWN, false, now);
            rests.ended(DOWN, false, now);
            assert_eq!(rests.resting(now + Duration::seconds(seconds) - Duration::MILLISECOND), [DOWN], "{seconds} s");
            now += Duration::seconds(seconds);
            assert!(rests.resting(now).is_empty(), "{seconds} s are over");
        }
    }

    #[test]
    fn an_answer_of_any_kind_ends_it() {
        let mut rests = Rests::default();
        for _ in 0..10 {
            rests.ended(DOWN, false, START);
        }
        rests.ended(DOWN, true, START);
        assert!(rests.resting(START).is_empty());
        rests.ended(DOWN, false, START);
        assert!(rests.resting(START).is_empty(), "the count begins anew");
    }
}
