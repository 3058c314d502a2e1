//! What a scrape gets: every metric as text, in the format that Prometheus reads.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{Kind, all, hub};

/// Metrics are collected in this process already.
#[derive(Debug, thiserror::Error)]
pub enum InUse {
    /// By another exporter.
    #[error("metrics are collected in this process already")]
    Already,
    /// A table has a histogram without buckets.
    #[error("metrics: {0}")]
    Buckets(#[from] BuildError),
}

/// Collects from now on. Cheap to clone.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// Collects in this process from now on; every metric is there, with 0.
    pub fn install() -> Result<Self, InUse> {
        let mut builder = PrometheusBuilder::new();
        for metric in all().iter().flat_map(|(_, metrics)| metrics.iter()) {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| InUse::Already)?;
        for metric in all().iter().flat_map(|(_, metrics)| metrics.iter()) {
            metric.begin();
        }
        hub::build(env!("CARGO_PKG_VERSION"));
        Ok(Self(handle))
    }

    /// Everything as it is now.
    #[must_use]
    pub fn render(&self) -> String {
        hub::look_at_process();
        self.0.render()
    }

    /// Sorts what was measured into its buckets. To be called every [`Exporter::UPKEEP_EVERY`].
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }

    /// How often measured numbers are sorted into their buckets though nobody scrapes: until then each takes its own room.
    pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);
}
