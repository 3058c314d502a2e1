//! Requests, as many as come back or as many as are due, and how long each took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use system_tests::bench::percentile;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What came of a load.
pub(crate) struct Load {
    /// How long each request took, in milliseconds; never none.
    times: Vec<f64>,
    /// From the first request to the last answer.
    took: Duration,
}

impl Load {
    pub(crate) fn of(times: Vec<f64>, took: Duration) -> Result<Self> {
        ensure!(!times.is_empty(), "no request was made in {took:?}");
        Ok(Self { times, took })
    }

    /// The smallest time, in milliseconds, that at least `share` percent of the requests did not exceed.
    pub(crate) fn percentile(&self, share: usize) -> f64 {
        percentile(&self.times, share).expect("a load has a request")
    }

    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    /// Requests.
    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    /// The usual percentiles.
    pub(crate) fn told(&self) -> Value {
        json!({
            "n": self.count(), "per_second": self.rate(),
            "p50_ms": self.percentile(50), "p95_ms": self.percentile(95), "p99_ms": self.percentile(99),
            "max_ms": self.percentile(100),
        })
    }
}

/// `at_once` callers, each of whom asks again as soon as there is an answer; every request must succeed.
///
/// The rate is what the hub can do; the times are those of a hub that is always full.
pub(crate) async fn closed<F>(
    at_once: usize,
    lasting: Duration,
    request: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Result<Load>
where
    F: Future<Output = Result<()>> + Send,
{
    let (request, next, over) = (Arc::new(request), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..at_once {
        let (request, next, over) = (Arc::clone(&request), Arc::clone(&next), Arc::clone(&over));
        callers.spawn(async move {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) && began.elapsed() < lasting {
                let sent = Instant::now();
                let done = request(next.fetch_add(1, Ordering::Relaxed)).await;
                if done.is_err() {
                    over.store(true, Ordering::Relaxed);
                }
                done?;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, anyhow::Error>(times)
        });
    }
    gathered(callers, began).await
}

/// Requests at a fixed rate, whether the ones before are answered or not. A request's time begins when it was due: a hub that
/// stands still for a moment is late with everything that was due meanwhile.
pub(crate) async fn open<F>(
    per_second: f64,
    lasting: Duration,
    request: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Result<Load>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (request, count) = (Arc::new(request), (per_second * lasting.as_secs_f64()).ceil() as usize);
    let began = Instant::now();
    let mut requests = JoinSet::new();
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / per_second);
        tokio::time::sleep_until(due).await;
        let request = Arc::clone(&request);
        requests.spawn(async move {
            request(number).await?;
            Ok(vec![due.elapsed().as_secs_f64() * 1e3])
        });
    }
    gathered(requests, began).await
}

async fn gathered(mut tasks: JoinSet<Result<Vec<f64>>>, began: Instant) -> Result<Load> {
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Load::of(times, began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_due_during_a_stall_counts_as_late() {
        let gate = Arc::new(tokio::sync::Mutex::new(()));
        let stalled = move |number| {
            let gate = Arc::clone(&gate);
            async move {
                let _gate = gate.lock().await;
                if number == 5 {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                Ok(())
            }
        };
        let load = open(100.0, Duration::from_millis(500), stalled).await.unwrap();
        // Requests 5 to 20 are due during the stall and over two hundred milliseconds late with the first half of them.
        assert_eq!((load.count(), load.percentile(95) >= 200.0, load.percentile(100) >= 300.0), (50, true, true));
    }

    #[tokio::test]
    async fn a_failure_is_the_load_s() {
        let failing = |number| async move {
            ensure!(number < 5, "the sixth fails");
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(())
        };
        assert!(closed(2, Duration::from_secs(5), failing).await.is_err());
        assert!(open(1_000.0, Duration::from_millis(20), failing).await.is_err());
    }
}
