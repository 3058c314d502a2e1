//! How often strangers may ask for something that is free: each address so often, and all of them together so often.
//!
//! In: an address and the time. Out: yes, or how long to wait. The number of addresses remembered is bounded: one whose
//! budget has filled up again is forgotten, and while none has, a new address is told to wait. Deliberately absent:
//! clocks, what is asked for.

use std::collections::HashMap;
use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

/// Addresses that are remembered at once; an entry has some 60 bytes.
const MAX_ADDRESSES: usize = 20_000;

/// How much at once, and how much a second in the long run.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// A second.
    pub per_second: f64,
}

/// What is left of a rate.
#[derive(Debug, Clone, Copy)]
struct Left {
    requests: f64,
    at: OffsetDateTime,
}

impl Left {
    fn refilled(self, rate: Rate, now: OffsetDateTime) -> Self {
        // A clock that was set back refills nothing.
        let passed = (now - self.at).max(Duration::ZERO).as_seconds_f64();
        Self { requests: (self.requests + passed * rate.per_second).min(rate.burst), at: now }
    }
}

/// The budget of all who ask.
#[derive(Debug)]
pub struct Budget {
    each: Rate,
    all: Rate,
    left: Option<Left>,
    addresses: HashMap<IpAddr, Left>,
}

impl Budget {
    /// A full budget.
    #[must_use]
    pub fn new(each: Rate, all: Rate) -> Self {
        Self { each, all, left: None, addresses: HashMap::new() }
    }

    /// Takes one request of `address`.
    ///
    /// # Errors
    /// How long until the next one is possible, when there is none left.
    pub fn take(&mut self, address: IpAddr, now: OffsetDateTime) -> Result<(), Duration> {
        let full = |rate: Rate| Left { requests: rate.burst, at: now };
        let all = self.left.unwrap_or(full(self.all)).refilled(self.all, now);
        let known = self.addresses.get(&address).map(|left| left.refilled(self.each, now));
        let own = match known {
            Some(left) => left,
            None if self.has_room(now) => full(self.each),
            None => return Err(Duration::SECOND),
        };
        let missing = wait(own, self.each).max(wait(all, self.all));
        let spent = if missing > Duration::ZERO { 0.0 } else { 1.0 };
        self.addresses.insert(address, Left { requests: own.requests - spent, ..own });
        self.left = Some(Left { requests: all.requests - spent, ..all });
        if missing > Duration::ZERO { Err(missing) } else { Ok(()) }
    }

    fn has_room(&mut self, now: OffsetDateTime) -> bool {
        if self.addresses.len() >= MAX_ADDRESSES {
            let each = self.each;
            self.addresses.retain(|_, left| left.refilled(each, now).requests < each.burst);
        }
        self.addresses.len() < MAX_ADDRESSES
    }
}

fn wait(left: Left, rate: Rate) -> Duration {
    Duration::seconds_f64(((1.0 - left.requests) / rate.per_second).max(0.0))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    fn budget() -> Budget {
        Budget::new(Rate { burst: 3.0, per_second: 1.0 }, Rate { burst: 1e6, per_second: 10.0 })
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_rate_whatever_others_do() {
        let mut budget = budget();
        for _ in 0..3 {
            budget.take(address(1), START).unwrap();
        }
        assert_eq!(budget.take(address(1), START), Err(Duration::SECOND));
        budget.take(address(2), START).unwrap();
        budget.take(address(1), START + Duration::SECOND).unwrap();
        assert!(budget.take(address(1), START + Duration::SECOND).is_err());
        assert!(budget.take(address(1), START - Duration::DAY).is_err(), "a clock that was set back gives nothing");
    }

    #[test]
    fn all_together_have_a_rate_too() {
        let mut budget = Budget::new(Rate { burst: 3.0, per_second: 1.0 }, Rate { burst: 10.0, per_second: 2.0 });
        let taken = (0..100).filter(|n| budget.take(address(*n), START).is_ok()).count();
        assert_eq!(taken, 10);
        assert_eq!(budget.take(address(500), START), Err(Duration::milliseconds(500)));
    }

    #[test]
    fn a_flood_of_addresses_fills_no_memory_and_passes() {
        let mut budget = budget();
        let taken = (0..100_000).filter(|n| budget.take(address(*n), START).is_ok()).count();
        assert_eq!(taken, MAX_ADDRESSES);
        assert_eq!(budget.addresses.len(), MAX_ADDRESSES);
        budget.take(address(200_000), START + Duration::seconds(4)).unwrap();
        assert_eq!(budget.addresses.len(), 1, "those that have filled up are forgotten");
    }
}
