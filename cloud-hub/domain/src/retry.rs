//! When a webhook is tried again.
//!
//! In: how many attempts have been made, what the receiver said, and one random number. Out: the wait before
//! the next attempt, or that there is none. The schedule is that of Standard Webhooks: quick at first for a
//! receiver that restarts, then for days for one that is down over a weekend.

use time::Duration;

/// Waits after the first, second, ... failed attempt. Ten attempts over about three days and seven hours.
const SCHEDULE: [Duration; 9] = [
    Duration::seconds(5),
    Duration::minutes(1),
    Duration::minutes(5),
    Duration::minutes(30),
    Duration::hours(2),
    Duration::hours(5),
    Duration::hours(10),
    Duration::hours(14),
    Duration::hours(48),
];

/// A receiver may ask for patience, but not for ever.
const LONGEST_RETRY_AFTER: Duration = Duration::hours(1);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx answer.
    Delivered,
    /// 410 Gone: the receiver wants no more of this endpoint.
    Gone,
    /// Anything else: another status, a refused address, a broken connection, a timeout.
    Failed {
        /// What a `Retry-After` header asked for, if there was one.
        retry_after: Option<Duration>,
    },
}

/// What to do next with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Delivered,
    /// Try again after this long.
    RetryAfter(Duration),
    /// Give up; the row stays for the operator to see and replay.
    GiveUp,
}

/// Decides after the attempt numbered `attempts` (the first is 1). `jitter` in [0, 1) stretches the wait by up to
/// a fifth, so that a thousand deliveries that failed together do not return together.
#[must_use]
pub fn after_attempt(attempts: u32, outcome: Outcome, jitter: f64) -> Next {
    let retry_after = match outcome {
        Outcome::Delivered => return Next::Delivered,
        Outcome::Gone => return Next::GiveUp,
        Outcome::Failed { retry_after } => retry_after.unwrap_or(Duration::ZERO).min(LONGEST_RETRY_AFTER),
    };
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    match SCHEDULE.get(index) {
        Some(wait) => Next::RetryAfter((*wait * (1.0 + 0.2 * jitter.clamp(0.0, 1.0))).max(retry_after)),
        None => Next::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Outcome = Outcome::Failed { retry_after: None };

    #[test]
    fn waits_grow_and_end_after_ten_attempts() {
        let mut last = Duration::ZERO;
        for attempt in 1..=9 {
            let Next::RetryAfter(wait) = after_attempt(attempt, FAILED, 0.0) else {
                panic!("attempt {attempt} must be retried")
            };
            assert!(wait > last);
            last = wait;
        }
        assert_eq!(after_attempt(10, FAILED, 0.0), Next::GiveUp);
        assert_eq!(after_attempt(u32::MAX, FAILED, 0.0), Next::GiveUp);
    }

    #[test]
    fn jitter_only_ever_stretches() {
        let Next::RetryAfter(wait) = after_attempt(1, FAILED, 0.999) else { panic!("must be retried") };
        assert!(wait > Duration::seconds(5) && wait <= Duration::seconds(6));
    }

    #[test]
    fn a_receiver_is_given_the_patience_it_asks_for_up_to_an_hour() {
        let asked = |hours| after_attempt(1, Outcome::Failed { retry_after: Some(Duration::hours(hours)) }, 0.0);
        assert_eq!(asked(1), Next::RetryAfter(Duration::hours(1)));
        assert_eq!(asked(1_000), Next::RetryAfter(Duration::hours(1)));
    }

    #[test]
    fn success_and_gone_end_it() {
        assert_eq!(after_attempt(3, Outcome::Delivered, 0.5), Next::Delivered);
        assert_eq!(after_attempt(1, Outcome::Gone, 0.5), Next::GiveUp);
    }
}
