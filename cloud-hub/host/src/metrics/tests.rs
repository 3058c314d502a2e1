use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::{Kind, Metric, all};

fn metrics() -> impl Iterator<Item = &'static Metric> {
    all().into_iter().flat_map(|(_, metrics)| metrics)
}

/// The page for people.
fn page() -> String {
    let mut text = String::from(
        "# Metrics of the hub\n\n\
         Written by a test from the program's own table (`LINTEL_GOLDEN=write`). Set `[metrics] listen` in the hub's configuration, and \
         Prometheus finds them at `/metrics`; alert rules and a dashboard are in [monitoring](../../monitoring/README.md).\n\n\
         No label has a name, an id, an address or a path in it: values are of fixed lists, and what is in none of them is told as \
         `other`. Numbers are of one hub and of all its tenants together. Counters begin at 0 with the process.\n",
    );
    for (about, metrics) in all() {
        let _ = write!(
            text,
            "\n## {about}\n\n| Metric | Kind | Unit | Labels | Meaning |\n| --- | --- | --- | --- | --- |\n"
        );
        for metric in metrics {
            let labels: Vec<String> = metric
                .labels
                .iter()
                .map(|label| match label.values {
                    [] => format!("`{}`", label.name),
                    values => format!("`{}`: {}", label.name, values.join(", ")),
                })
                .collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                metric.name,
                kind(metric.kind),
                unit(metric.name),
                labels.join("; "),
                metric.help
            );
        }
    }
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

/// What is at the end of its name, but for `_total` and `_max`.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes", "ratio"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or("")
}

#[test]
fn the_page_is_what_the_program_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
    if std::env::var("LINTEL_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, page()).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(file == page(), "{} is of another program: LINTEL_GOLDEN=write writes it", path.display());
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let mut seen = BTreeSet::new();
    for Metric { name, kind, help, labels } in metrics() {
        assert!(seen.insert(*name), "{name} is there twice");
        assert!(name.starts_with("lintel_hub_") || name.starts_with("process_"), "{name}");
        assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}: counters alone end in _total");
        assert!(!matches!(kind, Kind::Histogram(_)) || unit(name) == "seconds", "{name}");
        assert!(help.ends_with('.'), "{name}: {help}");
        for label in *labels {
            let distinct: BTreeSet<_> = label.values.iter().collect();
            assert_eq!(distinct.len(), label.values.len(), "{name}{{{}}}", label.name);
        }
        if let Kind::Histogram(buckets) = kind {
            assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]), "{name}");
        }
    }
}

#[test]
fn there_are_only_so_many_series() {
    let of = |metric: &Metric| metric.labels.iter().map(|label| label.values.len().max(1)).product::<usize>();
    let series: usize = metrics().map(of).sum();
    assert!(series < 400, "{series} series but for those by route");
}

#[test]
fn what_the_table_does_not_have_is_other() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    ::metrics::with_local_recorder(&recorder, || {
        super::recognition::refused_for("no_face");
        super::recognition::refused_for("something of tomorrow");
        super::http::answered("BREW", "none", 404, std::time::Duration::from_millis(3));
    });
    let text = handle.render();
    assert!(text.contains("lintel_hub_quality_refusals_total{reason=\"no_face\"} 1"), "{text}");
    assert!(text.contains("lintel_hub_quality_refusals_total{reason=\"other\"} 1"), "{text}");
    assert!(text.contains("{method=\"other\",route=\"none\",status=\"4xx\"} 1"), "{text}");
    assert!(!text.contains("tomorrow") && !text.contains("BREW"), "{text}");
}
