//! The program itself, and its process as Linux sees it.

use procfs::process::{LimitValue, Process};

use super::{Label, Metric};

/// Of this program's version there is one.
const BUILD: Metric = Metric::gauge(
    "lintel_hub_build_info",
    "Always 1; the version of the program stands in its label.",
    &[Label { name: "version", values: &[] }],
);
const READY: Metric = Metric::gauge("lintel_hub_ready", "1 while the hub serves, 0 while it starts or stops.", &[]);
const CPU: Metric = Metric::counter(
    "process_cpu_seconds_total",
    "Processor time of the process in whole seconds, its children (Postgres, broker) not counted.",
    &[],
);
const RSS: Metric = Metric::gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", &[]);
const VIRTUAL: Metric = Metric::gauge("process_virtual_memory_bytes", "Address space of the process.", &[]);
const FDS: Metric = Metric::gauge("process_open_fds", "Open files and sockets of the process.", &[]);
const FDS_MAX: Metric = Metric::gauge("process_max_fds", "Files and sockets that the process may open.", &[]);
const THREADS: Metric = Metric::gauge("process_threads", "Threads of the process.", &[]);
const STARTED: Metric =
    Metric::gauge("process_start_time_seconds", "When the process was started, in Unix seconds.", &[]);

pub(super) const METRICS: &[Metric] = &[BUILD, READY, CPU, RSS, VIRTUAL, FDS, FDS_MAX, THREADS, STARTED];

pub(super) fn build(version: &'static str) {
    BUILD.set(&[version], 1.0);
}

/// Whether the hub serves.
pub fn ready(ready: bool) {
    READY.set(&[], f64::from(u8::from(ready)));
}

/// Reads what Linux says of the process. What cannot be read stays as it was.
pub(super) fn look_at_process() {
    let Ok(process) = Process::myself() else { return };
    if let Ok(stat) = process.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        CPU.total(&[], (stat.utime + stat.stime) / procfs::ticks_per_second().max(1));
        RSS.set(&[], stat.rss as f64 * procfs::page_size() as f64);
        VIRTUAL.set(&[], stat.vsize as f64);
        THREADS.set(&[], stat.num_threads as f64);
        if let Ok(boot) = procfs::boot_time_secs() {
            STARTED.set(&[], boot as f64 + stat.starttime as f64 / ticks);
        }
    }
    if let Ok(count) = process.fd_count() {
        FDS.set(&[], count as f64);
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(max) = limits.max_open_files.soft_limit
    {
        FDS_MAX.set(&[], max as f64);
    }
}
