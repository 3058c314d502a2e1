//! What a comparison goes by in the database: the tenant's false accept rate, and how often its templates have changed.
//!
//! Both must be as they are when the request comes, so that nobody who was deleted before is found. But a thousand requests a
//! second are no reason for a thousand reads: whoever asks while a read is under way waits for the next one, which began after they
//! asked, and shares it with all who asked meanwhile. When several ask, a read that follows close upon another waits a moment for
//! more to share it: a database that answers quickly would otherwise be asked nearly once for each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::pace::Pace;
use hub_domain::ids::TenantId;
use hub_store::{Database, StoreError, template_changes};

/// From the beginning of one read to that of the next.
const APART: Duration = Duration::from_millis(8);

/// As it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How often a stranger may be taken for somebody, as the tenant has chosen it.
    pub far: String,
    /// How often the tenant's templates had changed.
    pub stamp: i64,
}

/// Reads the standing of tenants.
pub struct Standings {
    db: Database,
    reads: Mutex<HashMap<TenantId, Arc<Reads<Standing>>>>,
}

impl Standings {
    /// Nothing is remembered from one request to a later one.
    #[must_use]
    pub fn new(db: Database) -> Self {
        Self { db, reads: Mutex::default() }
    }

    /// The tenant's, read after this was called.
    pub async fn of(&self, tenant: TenantId) -> Result<Standing, StoreError> {
        let reads = Arc::clone(self.reads.lock().entry(tenant).or_default());
        let read = async || {
            template_changes::stamp_with_far(&self.db, tenant).await.map(|(stamp, far)| Standing { far, stamp })
        };
        // This one's and the map's.
        let alone = || Arc::strong_count(&reads) == 2;
        let standing = reads.shared(alone, read).await;
        drop(reads);
        // Those in the map alone are waited for by nobody; but the next read is to keep its distance from one that was just made.
        let now = Instant::now();
        self.reads.lock().retain(|_, kept| Arc::strong_count(kept) > 1 || !kept.state.lock().pace.is_free(now));
        standing
    }
}

/// Reads of one thing, one at a time.
struct Reads<T> {
    turn: tokio::sync::Mutex<()>,
    state: Mutex<Done<T>>,
}

struct Done<T> {
    /// How many have begun.
    begun: u64,
    /// The last that succeeded, and which it was.
    last: Option<(u64, T)>,
    pace: Pace,
}

impl<T> Default for Reads<T> {
    fn default() -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(Done { begun: 0, last: None, pace: Pace::new(APART) }),
        }
    }
}

impl<T: Clone> Reads<T> {
    /// What a read finds that begins after this was called, whoever makes it. Whoever asks alone does not wait for others.
    async fn shared<E>(&self, alone: impl Fn() -> bool, read: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, E> {
        let before = self.state.lock().begun;
        let _turn = self.turn.lock().await;
        let free = {
            let state = self.state.lock();
            if let Some((number, found)) = &state.last
                && *number > before
            {
                return Ok(found.clone());
            }
            state.pace.free_at()
        };
        if let Some(free) = free.filter(|_| !alone()) {
            tokio::time::sleep_until(free).await;
        }
        let number = {
            let mut state = self.state.lock();
            state.pace.begin(Instant::now());
            state.begun += 1;
            state.begun
        };
        let found = read().await?;
        self.state.lock().last = Some((number, found.clone()));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_during_a_read_shares_the_next_one_and_never_that() {
        let (truth, made, may_end) = (AtomicU64::new(1), AtomicU64::new(0), Semaphore::new(0));
        let reads: Reads<u64> = Reads::default();
        let read = async || {
            made.fetch_add(1, Ordering::SeqCst);
            let found = truth.load(Ordering::SeqCst);
            may_end.acquire().await.unwrap().forget();
            Ok::<_, ()>(found)
        };
        let first = reads.shared(|| false, read);
        tokio::pin!(first);
        assert!(futures::poll!(&mut first).is_pending());
        truth.store(2, Ordering::SeqCst);
        let mut asked: Vec<_> = (0..100).map(|_| Box::pin(reads.shared(|| false, read))).collect();
        for asked in &mut asked {
            assert!(futures::poll!(asked).is_pending());
        }
        may_end.add_permits(2);
        assert_eq!(first.await, Ok(1));
        let found = futures::future::join_all(asked).await;
        assert!(found.iter().all(|found| *found == Ok(2)), "{found:?}: read before they asked");
        assert_eq!(made.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_read_close_upon_another_waits_a_moment_and_is_shared_by_whoever_comes_meanwhile() {
        let (made, reads) = (AtomicU64::new(0), Reads::<u64>::default());
        let apart = Duration::from_millis(500);
        reads.state.lock().pace = Pace::new(apart);
        let read = async || Ok::<_, ()>(made.fetch_add(1, Ordering::SeqCst));
        let began = Instant::now();
        assert_eq!(reads.shared(|| false, read).await, Ok(0));
        let found = futures::future::join_all((0..20).map(|_| reads.shared(|| false, read))).await;
        assert_eq!(found, [Ok(1); 20]);
        assert!(began.elapsed() >= apart);
        // Whoever is alone waits for nobody.
        reads.state.lock().pace = Pace::new(Duration::from_secs(3_600));
        reads.state.lock().pace.begin(Instant::now());
        assert_eq!(reads.shared(|| true, read).await, Ok(2));
    }

    #[tokio::test]
    async fn a_read_that_failed_is_nobody_else_s() {
        let reads: Reads<u64> = Reads::default();
        assert_eq!(reads.shared(|| true, async || { Err::<u64, _>("away") }).await, Err("away"));
        assert_eq!(reads.shared(|| true, async || { Ok::<_, &str>(7) }).await, Ok(7));
    }
}
