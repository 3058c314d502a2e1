//! Who was recognised lately, so that a busy caller does not ask the database twice a request.
//!
//! What is remembered holds for two seconds from when the database was asked, however long it took to answer, and no longer than a key or
//! a log-in itself: one that another hub ends, ends here within that time. Whatever this hub changes is forgotten at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Recognised;
use hub_domain::ids::{ApiKeyId, TenantId};
use hub_host::metrics::recognition::{Cache, looked_up};

/// How long somebody is believed without asking.
const BELIEVED: Duration = Duration::from_secs(2);
/// Remembered at once, some 200 bytes each.
const MAX_KNOWN: usize = 10_000;

/// Something that was recognised.
pub(super) trait Belief: Copy {
    /// As metrics name what is remembered.
    const CACHE: Cache;

    /// Whose it is.
    fn tenant(&self) -> TenantId;
    /// When it ends by itself, if it does.
    fn ends_at(&self) -> Option<OffsetDateTime>;
}

/// A key as the database had it.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The MAC of its secret half.
    pub(super) mac: [u8; 32],
    /// What it is.
    pub(super) recognised: Recognised,
    /// When it ends by itself, if it does.
    pub(super) expires_at: Option<OffsetDateTime>,
}

impl Belief for Known {
    const CACHE: Cache = Cache::ApiKeys;

    fn tenant(&self) -> TenantId {
        self.recognised.tenant
    }

    fn ends_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }
}

struct Held<K, V> {
    /// With when the database was asked.
    known: HashMap<K, (V, Instant)>,
    /// Grows with everything that is forgotten, so that what was read before is not remembered after.
    forgotten: u64,
}

/// When the database was asked, and how much had been forgotten by then.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    asked: Instant,
    forgotten: u64,
}

/// What is believed of all tenants.
pub(super) struct Believed<K, V>(Mutex<Held<K, V>>);

/// The keys of all tenants.
pub(super) type KnownKeys = Believed<ApiKeyId, Known>;

impl<K, V> Default for Believed<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Held { known: HashMap::new(), forgotten: 0 }))
    }
}

impl<K, V> std::fmt::Debug for Believed<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Believed").field("known", &self.0.lock().known.len()).finish_non_exhaustive()
    }
}

impl<K: Copy + Eq + Hash, V: Belief> Believed<K, V> {
    /// What is still believed at `now`.
    pub(super) fn get(&self, id: K, now: OffsetDateTime) -> Option<V> {
        let held = self.0.lock();
        let found = held.known.get(&id).filter(|(known, asked)| {
            let ended = known.ends_at().is_some_and(|end| end <= now);
            asked.elapsed() < BELIEVED && !ended
        });
        looked_up(V::CACHE, found.is_some());
        found.map(|(known, _)| *known)
    }

    /// To be asked before the database is, and given to [`Believed::remember`].
    pub(super) fn ticket(&self) -> Ticket {
        Ticket { asked: Instant::now(), forgotten: self.0.lock().forgotten }
    }

    /// Remembers what the database said, unless something was forgotten since the ticket was taken.
    pub(super) fn remember(&self, id: K, known: V, ticket: Ticket) {
        let mut held = self.0.lock();
        if held.forgotten != ticket.forgotten {
            return;
        }
        if held.known.len() >= MAX_KNOWN {
            held.known.retain(|_, (_, asked)| asked.elapsed() < BELIEVED);
            if held.known.len() >= MAX_KNOWN {
                held.known.clear();
            }
        }
        held.known.insert(id, (known, ticket.asked));
    }

    /// Forgets everything of a tenant: something of it has changed.
    pub(super) fn forget(&self, tenant: TenantId) {
        let mut held = self.0.lock();
        held.forgotten += 1;
        held.known.retain(|_, (known, _)| known.tenant() != tenant);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use hub_domain::permission::Role;
    use hub_domain::tenant::{Agreement, Tier};

    fn known(tenant: u128, expires_at: Option<OffsetDateTime>) -> Known {
        let recognised = Recognised {
            tenant: TenantId(Uuid::from_u128(tenant)),
            permissions: Role::Owner.permissions(),
            requests_per_hour: None,
            suspended: false,
            agreement: Agreement::of(Tier::Basic),
        };
        Known { mac: [0; 32], recognised, expires_at }
    }

    fn id(key: u128) -> ApiKeyId {
        ApiKeyId(Uuid::from_u128(key))
    }

    #[test]
    fn a_key_is_believed_until_it_ends_or_its_tenant_changes() {
        let (keys, now) = (KnownKeys::default(), OffsetDateTime::UNIX_EPOCH);
        let end = now + time::Duration::HOUR;
        for (key, tenant) in [(1, 1), (2, 1), (3, 2)] {
            keys.remember(id(key), known(tenant, Some(end)), keys.ticket());
        }
        assert!(keys.get(id(1), now).is_some() && keys.get(id(9), now).is_none());
        assert!(keys.get(id(1), end).is_none(), "it has ended");
        keys.forget(TenantId(Uuid::from_u128(1)));
        assert!(keys.get(id(1), now).is_none() && keys.get(id(2), now).is_none() && keys.get(id(3), now).is_some());
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let (keys, now) = (KnownKeys::default(), OffsetDateTime::UNIX_EPOCH);
        let ticket = keys.ticket();
        keys.forget(TenantId(Uuid::from_u128(7)));
        keys.remember(id(1), known(7, None), ticket);
        assert!(keys.get(id(1), now).is_none());
    }

    #[test]
    fn what_a_slow_database_said_is_not_believed_for_longer() {
        let (keys, now) = (KnownKeys::default(), OffsetDateTime::UNIX_EPOCH);
        for (key, took) in [(1, Duration::ZERO), (2, BELIEVED)] {
            let asked = keys.ticket();
            let ticket = Ticket { asked: asked.asked.checked_sub(took).unwrap(), ..asked };
            keys.remember(id(key), known(1, None), ticket);
        }
        assert!(keys.get(id(1), now).is_some() && keys.get(id(2), now).is_none());
    }

    #[test]
    fn there_are_never_more_than_fit() {
        let keys = KnownKeys::default();
        for key in 0..MAX_KNOWN as u128 * 2 + 5 {
            keys.remember(id(key), known(1, None), keys.ticket());
        }
        assert!(keys.0.lock().known.len() <= MAX_KNOWN);
    }
}
