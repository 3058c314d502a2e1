//! Where limits are kept: in this process, and in Valkey or Redis for what replicas must share.
//!
//! In: whom it is about, and which buckets a request has to find room in. Out: what each bucket says; a request is counted in all
//! of them or in none. Without the shared store, or while it does not answer, each replica limits by itself: nobody is turned
//! away because a counter is away. Deliberately absent: which buckets a request has to do with (`api::limits`), and the
//! arithmetic (`domain::limit`).

mod in_force;
mod shared;
mod table;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use hub_domain::ids::ApiKeyId;
use hub_domain::limit::{Class, Micros, Pressure, Rate, Span, Standing};
use hub_host::metrics::security as measured;
pub use in_force::InForce;
pub use shared::{Shared, SharedError};
use table::Table;
pub use watch::Watch;

/// How often pressure is looked at.
const BREATH: Duration = Duration::from_secs(1);

/// One thing that is counted of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// All requests of a tenant, by the hour or the day.
    Span(Span),
    /// A tenant's requests of one class.
    Class(Class),
    /// The requests of one of its keys.
    Key(ApiKeyId),
    /// The requests of one caller whose limits are tightened.
    Caller(Uuid),
    /// Keys that were refused, by address.
    Refused,
    /// Whoever asks for the time, by address.
    Time,
    /// All who ask for the time.
    TimeOfAll,
    /// Whoever logs in, by address.
    Login,
    /// All who log in.
    LoginOfAll,
}

impl Bucket {
    /// As headers name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Span(span) => span.as_str(),
            Self::Class(class) => class.as_str(),
            Self::Key(_) => "key",
            Self::Caller(_) => "caller",
            Self::Refused => "refused",
            Self::Time | Self::TimeOfAll => "time",
            Self::Login | Self::LoginOfAll => "login",
        }
    }

    /// Whether it is tightened while the hub has more to do than it can.
    fn gives_way(self) -> bool {
        matches!(self, Self::Class(Class::Read | Class::Write | Class::Biometric))
    }
}

/// A bucket that a request has to find room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub bucket: Bucket,
    /// How much goes in.
    pub rate: Rate,
}

/// The limits of one hub.
pub struct Limiter {
    /// Tenants, and their keys.
    tenants: Table,
    /// Strangers, by address: a table of their own, so that they never push out a tenant.
    strangers: Table,
    shared: Option<Shared>,
    began: Instant,
    pressure: Mutex<Pressure>,
    turned_away: AtomicBool,
}

impl Limiter {
    /// Full buckets for everybody; with `shared`, those that the replicas have left.
    #[must_use]
    pub fn new(shared: Option<Shared>) -> Self {
        Self {
            tenants: Table::new(),
            strangers: Table::new(),
            shared,
            began: Instant::now(),
            pressure: Mutex::default(),
            turned_away: AtomicBool::new(false),
        }
    }

    /// Takes one request of a tenant out of every bucket, or out of none if one of them has no room.
    pub async fn take(&self, tenant: Uuid, asked: &[Asked]) -> Vec<Standing> {
        let share = self.pressure.lock().share();
        let tight = |asked: &Asked| match asked.bucket.gives_way() {
            true => Asked { rate: asked.rate.tightened(share), ..*asked },
            false => *asked,
        };
        let asked: Vec<Asked> = asked.iter().map(tight).collect();
        if let Some(shared) = &self.shared
            && let Some(standings) = shared.take(tenant, &asked).await
        {
            return standings;
        }
        self.tenants.take(tenant.as_u128(), &asked, self.now())
    }

    /// Takes one request of somebody without a tenant. Always this process's own count: it costs nothing to ask.
    pub fn take_stranger(&self, stranger: u128, asked: Asked) -> Standing {
        let standings = self.strangers.take(stranger, &[asked], self.now());
        standings.first().copied().expect("one answer for one bucket")
    }

    /// What a stranger's bucket would say, without taking anything.
    pub fn look_at_stranger(&self, stranger: u128, asked: Asked) -> Standing {
        self.strangers.look(stranger, asked, self.now())
    }

    /// Notes that somebody was turned away for want of room to work.
    pub fn turned_away(&self) {
        self.turned_away.store(true, Ordering::Relaxed);
    }

    /// Tells how many limits are in use, and how much of them callers have.
    pub fn measure(&self) {
        let share = self.pressure.lock().share();
        let (tenants, strangers) = (self.tenants.len(), self.strangers.len());
        measured::limits(tenants, strangers, table::MAX_BUCKETS, share, self.shared_answers());
    }

    /// Whether the shared store answers; `None` if there is none.
    #[must_use]
    pub fn shared_answers(&self) -> Option<bool> {
        self.shared.as_ref().map(Shared::answers)
    }

    /// Tightens and loosens with the load, until `stop`.
    pub async fn breathe(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(BREATH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.breath();
        }
    }

    /// Looks at the second that is over.
    fn breath(&self) {
        let turned_away = self.turned_away.swap(false, Ordering::Relaxed);
        let (before, after) = {
            let mut pressure = self.pressure.lock();
            let before = *pressure;
            *pressure = before.after_a_second(turned_away);
            (before.share(), pressure.share())
        };
        if after < before {
            tracing::warn!(
                event = "limits_tightened",
                share = after,
                "more is asked than this hub can do; limits are tightened"
            );
        } else if after > before && after >= 1.0 {
            tracing::info!(event = "limits_whole", "limits are as agreed again");
        }
    }

    fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(class: Class) -> Asked {
        Asked { bucket: Bucket::Class(class), rate: Rate::new(1, Duration::from_secs(3_600), 8) }
    }

    async fn admitted(limiter: &Limiter, tenant: u128, asked: Asked) -> usize {
        let mut count = 0;
        while limiter.take(Uuid::from_u128(tenant), &[asked]).await[0].admits {
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn under_load_everything_but_doors_gives_way() {
        let limiter = Limiter::new(None);
        assert_eq!(admitted(&limiter, 1, class(Class::Biometric)).await, 8);
        limiter.turned_away();
        limiter.breath();
        assert_eq!(admitted(&limiter, 2, class(Class::Biometric)).await, 4);
        assert_eq!(admitted(&limiter, 2, class(Class::Command)).await, 8);
        for _ in 0..10 {
            limiter.breath();
        }
        assert_eq!(admitted(&limiter, 3, class(Class::Biometric)).await, 8);
    }
}
