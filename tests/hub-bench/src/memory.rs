//! What the hub holds of the memory, looked at all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

const EVERY: Duration = Duration::from_millis(200);

/// Looks until it is dropped.
pub(crate) struct Memory {
    at_first: u64,
    most: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
    watch: tokio::task::JoinHandle<()>,
}

impl Memory {
    pub(crate) fn watch(process: u32) -> Self {
        let at_first = resident_kib(process);
        let (most, last) = (Arc::new(AtomicU64::new(at_first)), Arc::new(AtomicU64::new(at_first)));
        let (shown, current) = (Arc::clone(&most), Arc::clone(&last));
        let watch = tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                let now = resident_kib(process);
                current.store(now, Ordering::Relaxed);
                shown.fetch_max(now, Ordering::Relaxed);
            }
        });
        Self { at_first, most, last, watch }
    }

    pub(crate) fn told(&self) -> Value {
        let mib = |kib: u64| kib as f64 / 1024.0;
        json!({
            "start_mib": mib(self.at_first), "most_mib": mib(self.most.load(Ordering::Relaxed)),
            "end_mib": mib(self.last.load(Ordering::Relaxed)),
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// 0 of a process that is gone.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
