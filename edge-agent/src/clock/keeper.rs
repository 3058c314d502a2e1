//! Writes down what the clock knows, so that the next run knows it from its beginning.
//!
//! In: the clock. Out: a mark on the disk when something new was proven, every ten minutes, and at the stop. A disk that
//! refuses is told once and tried again: the clock of this run is as good as before.

use std::time::Duration;

use edge_store::{ClockMark, ClockStore};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::SystemClock;
use crate::logging::chain;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How much the floor rises before it is written again: what a power cut may take back. Ten minutes are fifty thousand
/// writes of one block a year.
const STEP_MS: i64 = 600_000;

/// Runs until `stop`, then writes a last time.
pub async fn run(clock: SystemClock, mut store: ClockStore, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = false;
    loop {
        let stopping = tokio::select! {
            _ = ticks.tick() => false,
            () = stop.cancelled() => true,
        };
        let mark = clock.mark();
        if stopping || is_news(store.last(), &mark) {
            let written = tokio::task::spawn_blocking(move || {
                let written = store.advance(mark);
                (store, written)
            });
            let written = written.await.expect("writing the mark does not panic");
            store = written.0;
            match written.1 {
                Ok(()) => refused = false,
                Err(error) if !refused => {
                    refused = true;
                    tracing::warn!(
                        event = "clock_mark_not_written",
                        error = chain(&error),
                        "tried again by itself; after a boot this device knows less of the time"
                    );
                }
                Err(_) => {}
            }
        }
        if stopping {
            return;
        }
    }
}

/// Whether `mark` says what `last` does not: a proof where there was none in this boot, or a floor that has risen.
fn is_news(last: Option<ClockMark>, mark: &ClockMark) -> bool {
    let Some(last) = last else { return true };
    let boot = |mark: &ClockMark| mark.proven.map(|proven| proven.boot);
    mark.floor_ms - last.floor_ms >= STEP_MS || (mark.proven.is_some() && boot(mark) != boot(&last))
}

#[cfg(test)]
mod tests {
    use edge_store::{DeviceKeys, ProvenTime};
    use uuid::Uuid;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_proof_and_a_risen_floor_are_news() {
        let proven = |boot: u128, utc_ms| Some(ProvenTime { boot: Uuid::from_u128(boot), utc_ms, mono_ns: 0 });
        let last = ClockMark { floor_ms: 1_000_000, proven: None };
        assert!(is_news(None, &last));
        assert!(!is_news(Some(last), &ClockMark { floor_ms: 1_000_000 + STEP_MS - 1, ..last }));
        assert!(is_news(Some(last), &ClockMark { floor_ms: 1_000_000 + STEP_MS, ..last }));
        let first = ClockMark { proven: proven(1, 5), ..last };
        assert!(is_news(Some(last), &first));
        assert!(!is_news(Some(first), &ClockMark { proven: proven(1, 9), ..last }), "the same boot: it goes on");
        assert!(is_news(Some(first), &ClockMark { proven: proven(2, 5), ..last }));
    }

    #[tokio::test]
    async fn what_was_proven_is_on_the_disk_when_the_agent_has_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
        let clock = SystemClock::default();
        let stop = CancellationToken::new();
        let (store, _) = ClockStore::open(dir.path(), &keys).unwrap();
        let keeping = tokio::spawn(run(clock.clone(), store, stop.clone()));
        let said = SystemClock::utc() + time::Duration::hours(5);
        clock.hub_said(said, clock.now()).unwrap();
        stop.cancel();
        keeping.await.unwrap();
        let last = ClockStore::open(dir.path(), &keys).unwrap().0.last().unwrap();
        assert!(last.proven.is_some() && last.floor_ms >= wire_contract::Timestamp::from(said).unix_ms() - 1000);
    }
}
