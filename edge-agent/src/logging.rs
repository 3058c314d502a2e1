//! Log lines: JSON on standard error, or the journal when it is there.
//!
//! In: `tracing` events. Out: one JSON object a line with the keys `timestamp, level, service, component, event,
//! message` and the event's own fields; in the journal the same as `LINTEL_*` fields. Log lines carry ids, counts and
//! times. Deliberately absent, everywhere: names of people, pictures, vectors, keys, tokens. The last lines are kept in memory
//! for whoever collects them ([`ring`]); how much is written can change while the agent runs ([`LogDesk`]).

mod ring;

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use wire_contract::LogLevel;

use crate::clock::{SystemClock, rfc3339_ms};

pub use ring::{LogRing, redact};

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A level or a filter that `EnvFilter` accepts.
    #[serde(deserialize_with = "filter")]
    pub level: String,
    /// Where lines go.
    pub target: LogTarget,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// The journal when standard error is connected to it (a systemd service), else standard error.
    Auto,
    /// JSON lines on standard error.
    Stderr,
    /// The journal; standard error where there is none.
    Journald,
}

fn filter<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = |part: &str| {
        let level = part.rsplit('=').next().unwrap_or(part);
        ["error", "warn", "info", "debug", "trace", "off"].contains(&level)
    };
    if text.split(',').all(known) && text.parse::<EnvFilter>().is_ok() {
        return Ok(text);
    }
    let message = format!("{text:?} is not a log level; use error, warn, info, debug or trace");
    Err(serde::de::Error::custom(message))
}

/// How much is written, and what was written last. Cheap to clone.
#[derive(Clone)]
pub struct LogDesk {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    ring: Arc<LogRing>,
    levels: Arc<Mutex<Levels>>,
}

/// By what is written: an order goes before the configuration, until it ends.
#[derive(Debug, Default)]
struct Levels {
    configured: String,
    ordered: Option<String>,
}

impl fmt::Debug for LogDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogDesk")
    }
}

impl LogDesk {
    /// A desk that nothing is written to: for devices without a log of their own, such as those of a test.
    #[must_use]
    pub fn unattached() -> Self {
        Self { filter: None, ring: Arc::default(), levels: Arc::default() }
    }

    /// Writes by another `[log] level`, one that was checked, unless an operator has ordered otherwise for the moment.
    pub fn configure(&self, level: &str) {
        level.clone_into(&mut self.levels.lock().configured);
        self.write();
    }

    /// Writes at this level until [`LogDesk::end_order`]; false when the log cannot be told.
    #[must_use]
    pub fn order(&self, level: LogLevel) -> bool {
        self.levels.lock().ordered = Some(own_parts_at(level.as_str()));
        self.write()
    }

    /// Writes as configured again.
    pub fn end_order(&self) {
        self.levels.lock().ordered = None;
        self.write();
    }

    /// By what is written now.
    #[must_use]
    pub fn level(&self) -> String {
        let levels = self.levels.lock();
        levels.ordered.clone().unwrap_or_else(|| levels.configured.clone())
    }

    fn write(&self) -> bool {
        self.filter.as_ref().is_some_and(|handle| handle.reload(filter_of(&self.level())).is_ok())
    }

    /// The last lines.
    #[must_use]
    pub fn ring(&self) -> &LogRing {
        &self.ring
    }
}

/// A filter that writes the agent's own crates at this level, and libraries no more than usual: at debug some of them write
/// what goes over their connections.
#[must_use]
pub fn own_parts_at(level: &str) -> String {
    if !["debug", "trace"].contains(&level) {
        return level.to_owned();
    }
    let own = ["edge_agent", "edge_capture", "edge_store", "face_core", "face_index", "face_runtime", "gallery_log"];
    let own: Vec<String> = own.iter().map(|part| format!("{part}={level}")).collect();
    format!("info,ort=warn,rumqttc=warn,{}", own.join(","))
}

fn filter_of(level: &str) -> EnvFilter {
    // These two tell at "info" what only their authors want to know; a filter that names them still wins.
    let quiet = if level.contains('=') { "" } else { ",ort=warn,rumqttc=warn" };
    format!("{level}{quiet}").parse().expect("the level was checked when the configuration was read")
}

/// Starts logging for the rest of the process. Called once, by the binary.
pub fn init(config: &LogConfig) -> LogDesk {
    let (filter, handle) = reload::Layer::new(filter_of(&config.level));
    let journal = match config.target {
        LogTarget::Stderr => None,
        LogTarget::Auto if std::env::var_os("JOURNAL_STREAM").is_none() => None,
        LogTarget::Auto | LogTarget::Journald => tracing_journald::layer()
            .map(|layer| {
                layer.with_field_prefix(Some("LINTEL".to_owned())).with_syslog_identifier("edge-agent".to_owned())
            })
            .ok(),
    };
    let ring = Arc::new(LogRing::default());
    let kept = tracing_subscriber::fmt::layer().event_format(JsonLine).with_ansi(false).with_writer(Arc::clone(&ring));
    let registry = tracing_subscriber::registry().with(filter).with(kept);
    let begun = match journal {
        Some(journal) => registry.with(journal).try_init(),
        None => registry
            .with(tracing_subscriber::fmt::layer().event_format(JsonLine).with_writer(std::io::stderr))
            .try_init(),
    };
    // A second call (tests in one process) keeps the first subscriber, which is what such a test wants.
    let levels = Levels { configured: config.level.clone(), ordered: None };
    LogDesk { filter: begun.ok().map(|()| handle), ring, levels: Arc::new(Mutex::new(levels)) }
}

/// Whether data for people may be coloured: a terminal, and nobody said `NO_COLOR`.
#[must_use]
pub fn colours_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stdout().is_terminal()
}

struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let line = line(SystemClock::utc(), event.metadata(), fields.0);
        writeln!(writer, "{line}")
    }
}

fn line(now: OffsetDateTime, metadata: &tracing::Metadata<'_>, fields: Map<String, Value>) -> Value {
    let mut line = Map::new();
    line.insert("timestamp".into(), rfc3339_ms(now).into());
    line.insert("level".into(), metadata.level().as_str().into());
    line.insert("service".into(), "edge-agent".into());
    line.insert("component".into(), component(metadata.target()).into());
    // A line of another crate has no event name of ours; "log" keeps the key present.
    line.insert("event".into(), "log".into());
    line.extend(fields);
    Value::Object(line)
}

/// `edge_agent::stages::decide` is the component `stages.decide`; another crate is its own component.
fn component(target: &str) -> String {
    target.strip_prefix("edge_agent::").unwrap_or(target).replace("::", ".")
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().to_owned(), chain(value).into());
    }
}

/// An error with all its causes, for one log line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_follow_the_modules() {
        assert_eq!(component("edge_agent::stages::decide"), "stages.decide");
        assert_eq!(component("rumqttc"), "rumqttc");
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        let parse = |text: &str| toml::from_str::<LogConfig>(&format!("level = {text:?}\ntarget = \"auto\"\n"));
        assert!(parse("info").is_ok());
        assert!(parse("info,edge_agent::sync=debug").is_ok());
        assert!(parse("verbose").is_err());
        assert!(parse("info,edge_agent=loud").is_err());
    }

    #[test]
    fn an_order_goes_before_the_configuration_until_it_ends() {
        let desk = LogDesk::unattached();
        desk.configure("info");
        assert!(!desk.order(LogLevel::Error), "nothing is attached");
        desk.configure("warn");
        assert_eq!(desk.level(), "error");
        desk.end_order();
        assert_eq!(desk.level(), "warn");
    }

    #[test]
    fn only_the_agents_own_parts_become_talkative() {
        let filter = own_parts_at("trace");
        assert!(filter.contains("edge_agent=trace") && filter.starts_with("info,"), "{filter}");
        assert_eq!(own_parts_at("warn"), "warn");
        for level in ["error", "warn", "info", "debug", "trace"] {
            drop(filter_of(&own_parts_at(level)));
        }
    }

    #[test]
    fn the_whole_chain_of_causes_is_in_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("outbox cannot be written")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no space left"));
        assert_eq!(chain(&error), "outbox cannot be written: no space left");
    }
}
