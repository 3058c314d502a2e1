//! Logs: the specification's JSON keys, one object a line on stderr, or journald when stderr is its.
//!
//! Keys: `timestamp`, `level`, `service`, `component`, `event`, then whatever the line tells (`client_id` for the tenant, `user_id`
//! for a user who has logged in, `confidence` for a score, `processing_time` in seconds, ...). A line about a request has what is
//! known of the request too: `request_id`, `trace_id`, `span_id`. Names, pictures, vectors and keys are never given to a log line.

use std::fmt;

use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::clock::Clock;

const SERVICE: &str = "cloud-hub";

/// Starts logging at `level` (checked with the configuration). Call once.
pub fn start(level: &str, clock: Clock) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    // systemd sets this when stderr goes to the journal; the journal then gets fields instead of text.
    let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer = match journald {
        Some(journald) => journald.with_field_prefix(Some(String::from("LINTEL"))).boxed(),
        None => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(Json { clock });
            SpanFields.and_then(lines).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// Formats an event as the specification's JSON.
struct Json {
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut line = Map::new();
        let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
        put("timestamp", Value::String(self.clock.now().format(&Rfc3339).unwrap_or_default()));
        put("level", Value::String(metadata.level().to_string()));
        put("service", Value::String(SERVICE.to_owned()));
        let component = fields.0.remove("component").unwrap_or_else(|| Value::String(component(metadata.target())));
        put("component", component);
        let message = fields.0.remove("message");
        let event = fields.0.remove("event").or_else(|| message.clone()).unwrap_or(Value::Null);
        if message.is_some() && message.as_ref() != Some(&event) {
            put("message", message.unwrap_or(Value::Null));
        }
        put("event", event);
        for (key, value) in fields.0 {
            put(&key, value);
        }
        // What the line says itself is nearer than what its spans say, and the inner span nearer than the outer one.
        for span in context.event_scope().into_iter().flatten() {
            if let Some(Fields(known)) = span.extensions().get::<Fields>() {
                for (key, value) in known {
                    line.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Keeps what spans are given, for the lines in them.
struct SpanFields;

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for SpanFields {
    fn on_new_span(&self, given: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(Map::new());
        given.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, given: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            given.record(fields);
        }
    }
}

/// The part of the hub that speaks: a module of the program or of what it has of its machine, or a crate of its own. Of others', the crate.
fn component(target: &str) -> String {
    let mut segments = target.split("::");
    match (segments.next(), segments.next()) {
        (Some("cloud_hub" | "hub_host"), Some(module)) => module.to_owned(),
        (Some(other), _) => other.strip_prefix("hub_").unwrap_or(other).to_owned(),
        (None, _) => String::from("unknown"),
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(work: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let clock = Clock::of(|| time::macros::datetime!(2026-11-22 10:00 UTC));
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).event_format(Json { clock });
        let layer = SpanFields.and_then(lines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let text = String::from_utf8(buffer.0.lock().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_about_a_request_says_which_and_whose_it_is() {
        let lines = lines(|| {
            let span = tracing::error_span!(
                "request",
                trace_id = "t",
                span_id = "s",
                client_id = tracing::field::Empty,
                user_id = tracing::field::Empty
            );
            span.in_scope(|| {
                tracing::warn!("before it is known");
                span.record("client_id", "acme").record("user_id", "u");
                tracing::info!(event = "face_compared", confidence = 0.95, span_id = "inner");
            });
            tracing::info!("another one");
        });
        assert_eq!(
            (&lines[0]["trace_id"], &lines[0]["span_id"], &lines[0]["client_id"]),
            (&"t".into(), &"s".into(), &Value::Null)
        );
        assert_eq!((&lines[1]["client_id"], &lines[1]["user_id"]), (&"acme".into(), &"u".into()));
        assert_eq!((&lines[1]["confidence"], &lines[1]["span_id"]), (&0.95.into(), &"inner".into()), "the line's own");
        assert_eq!(lines[2].get("trace_id"), None);
    }

    #[test]
    fn a_line_says_which_part_speaks_whatever_crate_that_is_in() {
        for (target, part) in [
            ("cloud_hub::notify::deliver", "notify"),
            ("hub_host::outbound", "outbound"),
            ("hub_store::people", "store"),
            ("hub_keys", "keys"),
            ("sqlx::query", "sqlx"),
            ("cloud_hub", "cloud_hub"),
        ] {
            assert_eq!(component(target), part, "{target}");
        }
    }

    #[test]
    fn a_line_has_the_specifications_keys() {
        let lines = lines(|| {
            tracing::info!(event = "face_enrolled", client_id = "t", processing_time = 0.25, n = 3, "enrolled");
        });
        let line = &lines[0];
        assert_eq!(line["timestamp"], "2026-11-22T10:00:00Z");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["service"], "cloud-hub");
        assert_eq!(line["component"], "wiring");
        assert_eq!(line["event"], "face_enrolled");
        assert_eq!(line["message"], "enrolled");
        assert_eq!(line["processing_time"], 0.25);
        assert_eq!(line["n"], 3);
    }
}
