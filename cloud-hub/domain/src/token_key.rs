//! Which of the keys of access tokens signs, and which go on verifying.
//!
//! In: from when on each signs, and the time. Out: how each stands. A key is known to everybody before it signs, and goes on
//! verifying until the last token of it is over. Deliberately absent: keys (`keys::tokens`).

use time::{Duration, OffsetDateTime};

/// How long before its first token a key is known: longer than any hub believes what it read of them.
pub const KNOWN_BEFORE: Duration = Duration::seconds(5);
/// By how much the clocks of two hubs may differ, and how long a hub may go on signing with the key before.
const LEEWAY: Duration = Duration::seconds(10);

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It will sign.
    Next,
    /// It signs.
    Signs,
    /// It has signed; its tokens are good until then.
    Verifies(OffsetDateTime),
    /// No token of it can be good any more.
    Over,
}

impl Standing {
    /// As documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signs => "signs",
            Self::Verifies(_) => "verifies",
            Self::Over => "over",
        }
    }
}

/// How each key stands at `now`, of keys in the order in which they sign; `life` is that of a token. One signs always, unless there
/// is none.
#[must_use]
pub fn standings(sign_from: &[OffsetDateTime], life: Duration, now: OffsetDateTime) -> Vec<Standing> {
    // Where no key has begun, a clock went back: better the first one early than no token at all.
    let signs = sign_from.iter().rposition(|from| *from <= now).unwrap_or(0);
    let of = |at: usize| match at.cmp(&signs) {
        std::cmp::Ordering::Greater => Standing::Next,
        std::cmp::Ordering::Equal => Standing::Signs,
        std::cmp::Ordering::Less => {
            let until = sign_from[at + 1] + life + LEEWAY;
            if until > now { Standing::Verifies(until) } else { Standing::Over }
        }
    };
    (0..sign_from.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_signs_and_the_one_before_it_goes_on_until_its_last_token_is_over() {
        let (begin, life) = (OffsetDateTime::UNIX_EPOCH + Duration::days(1), Duration::minutes(10));
        let at = |seconds| begin + Duration::seconds(seconds);
        let keys = [at(0), at(1_000)];
        let told = |seconds| standings(&keys, life, at(seconds));
        assert_eq!(told(-5), [Standing::Signs, Standing::Next], "a clock that went back");
        assert_eq!(told(999), [Standing::Signs, Standing::Next]);
        let until = Standing::Verifies(at(1_610));
        assert_eq!(told(1_000), [until, Standing::Signs]);
        assert_eq!(told(1_609), [until, Standing::Signs]);
        assert_eq!(told(1_610), [Standing::Over, Standing::Signs]);
        assert_eq!(standings(&[], life, at(0)), []);
        let three = standings(&[at(0), at(10), at(20)], life, at(625));
        assert_eq!(three, [Standing::Over, Standing::Verifies(at(630)), Standing::Signs]);
    }
}
