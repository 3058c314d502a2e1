//! The hub's configuration: compiled-in defaults, then a file, then the environment; checked whole before anything starts.
//!
//! In: TOML text and environment variables. Out: a [`Config`] of final types, so that no later code parses again.
//! Unknown keys are errors with their line, or with the variable's name. Secrets print as `***`. Deliberately absent:
//! flags (the command line applies them last) and reading at any other time than the start.

mod overlay;
mod tree;
mod values;

use std::path::{Path, PathBuf};

pub use tree::{
    AuditConfig, BrokerConfig, Config, DataConfig, DatabaseConfig, EmbeddedConfig, EnrolmentConfig,
    HomeAssistantConfig, LogConfig, MetricsConfig, ModelsConfig, ServerConfig, TracesConfig, WebhooksConfig,
};
pub use values::{HumanDuration, MaybeAddress, MaybePath, MaybeUrl, Secret};

/// All defaults, with comments; what `cloud-hub config defaults` prints.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// The version of the configuration's shape that this program reads.
pub const SCHEMA_VERSION: u32 = 1;

/// A configuration that cannot be used; the message names the file and line, or the variable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML, has an unknown key, or a value of the wrong kind.
    #[error("configuration file {}: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// With line and column.
        source: Box<toml::de::Error>,
    },
    /// An environment variable names no setting.
    #[error("environment variable {name}: there is no setting {setting} (cloud-hub config defaults lists all)")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The dotted path it stands for.
        setting: String,
    },
    /// An environment variable has a value of the wrong kind.
    #[error("environment variable {name}: {problem}")]
    InvalidVariable {
        /// The variable.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The file is of another version.
    #[error("configuration schema_version is {found}, this program reads {SCHEMA_VERSION}")]
    Version {
        /// In the file.
        found: u32,
    },
    /// Two settings, or a setting and reality, do not fit.
    #[error("{setting}: {problem}")]
    Unfit {
        /// Dotted path.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// Reads the configuration: defaults, the file if one is named, and the variables (`LINTEL__SECTION__KEY`).
pub fn load(file: Option<&Path>, variables: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let text = match file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?,
    };
    read(file.unwrap_or(Path::new("(none)")), &text, variables)
}

fn read(path: &Path, text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let invalid = |source| ConfigError::Invalid { path: path.to_path_buf(), source: Box::new(source) };
    // Read once on its own: only the text knows its lines.
    let _checked: tree::PartialConfig = toml::from_str(text).map_err(invalid)?;
    let mut table: toml::Table = toml::from_str(DEFAULTS).expect("the compiled-in defaults are valid TOML, by test");
    let schema = table.clone();
    overlay::merge(&mut table, toml::from_str(text).map_err(invalid)?);
    overlay::apply_variables(&mut table, &schema, variables)?;
    let config: Config = toml::Value::Table(table).try_into().map_err(invalid)?;
    config.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        read(Path::new("hub.toml"), text, variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn the_defaults_are_valid_and_complete() {
        let config = from("", &[]).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8443");
        assert!(config.webhooks.allow_networks.is_empty(), "no private network unless the operator says so");
        assert!(!config.embedded.enabled);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let message = from("[server]\nlisten = \"127.0.0.1:1\"\nlissten = \"x\"\n", &[]).unwrap_err().to_string();
        assert!(message.contains("line 3") && message.contains("lissten"), "{message}");
        let message = from("\n[serwer]\n", &[]).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("serwer"), "{message}");
    }

    #[test]
    fn a_wrong_value_is_an_error_with_its_line() {
        for (text, word) in [
            ("[server]\nlisten = \"nowhere\"\n", "line 2"),
            ("[server]\nhandshake_timeout = \"5 parsecs\"\n", "duration"),
            ("[webhooks]\nallow_networks = [\"127.0.0.1/99\"]\n", "network"),
        ] {
            let message = from(text, &[]).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\n";
        let config = from(
            text,
            &[("LINTEL__SERVER__LISTEN", "127.0.0.1:2"), ("LINTEL__WEBHOOKS__ALLOW_NETWORKS", "127.0.0.0/8, ::1/128")],
        )
        .unwrap();
        assert_eq!(config.server.listen.port(), 2);
        assert_eq!(config.webhooks.allow_networks.len(), 2);
    }

    #[test]
    fn an_unknown_or_wrong_variable_is_named() {
        let message = from("", &[("LINTEL__SERVER__LISSTEN", "x")]).unwrap_err().to_string();
        assert!(message.contains("LINTEL__SERVER__LISSTEN"), "{message}");
        let message = from("", &[("LINTEL__DATABASE__MAX_CONNECTIONS", "many")]).unwrap_err().to_string();
        assert!(message.contains("LINTEL__DATABASE__MAX_CONNECTIONS"), "{message}");
    }

    #[test]
    fn heads_of_the_audit_come_within_a_minute() {
        let config = from("", &[]).unwrap();
        assert_eq!((config.audit.heads.get(), config.audit.heads_every.0.as_secs()), (None, 30));
        for wrong in ["61s", "0s"] {
            let message = from(&format!("[audit]\nheads_every = \"{wrong}\"\n"), &[]).unwrap_err().to_string();
            assert!(message.contains("audit.heads_every"), "{message}");
        }
        assert!(from("[audit]\nhead = \"x\"\n", &[]).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn another_schema_version_is_refused() {
        let message = from("schema_version = 2\n", &[]).unwrap_err().to_string();
        assert!(message.contains("schema_version is 2"), "{message}");
    }

    #[test]
    fn the_consumers_listener_is_off_and_is_whole_or_not_there() {
        assert_eq!(from("", &[]).unwrap().embedded.consumer_listen.0, None);
        let set = from("[embedded]\nconsumer_listen = \"127.0.0.1:8884\"\n", &[]).unwrap();
        assert_eq!(set.embedded.consumer_listen.0, Some("127.0.0.1:8884".parse().unwrap()));
        let message = from("[embedded]\nconsumer_listen = \"8884\"\n", &[]).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("127.0.0.1:8884"), "{message}");
        let message = from("[broker]\nconsumer_address = \"broker:8884\"\n", &[]).unwrap_err().to_string();
        assert!(message.contains("broker.consumer_password_file"), "{message}");
    }

    #[test]
    fn metrics_are_told_nowhere_unless_an_address_says_where() {
        assert_eq!(from("", &[]).unwrap().metrics.listen.0, None);
        let set = from("[metrics]\nlisten = \"127.0.0.1:9464\"\n", &[]).unwrap();
        assert_eq!(set.metrics.listen.0, Some("127.0.0.1:9464".parse().unwrap()));
        for (wrong, word) in [("listen = \"9464\"", "no address"), ("listn = \"\"", "listn")] {
            let message = from(&format!("[metrics]\n{wrong}\n"), &[]).unwrap_err().to_string();
            assert!(message.contains("line 2") && message.contains(word), "{message}");
        }
    }

    #[test]
    fn spans_are_sent_nowhere_unless_a_receiver_is_named() {
        let traces = from("", &[]).unwrap().traces;
        assert_eq!((traces.receiver(), traces.sample, traces.timeout.0.as_secs()), (None, 1.0, 10));
        for (endpoint, whole) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/otlp/v1/traces", "https://collector.example/otlp/v1/traces"),
        ] {
            let set = from(&format!("[traces]\nendpoint = \"{endpoint}\"\nsample = 0.25\n"), &[]).unwrap().traces;
            assert_eq!((set.receiver().unwrap().as_str(), set.sample), (whole, 0.25));
        }
        for (wrong, word) in [
            ("endpoint = \"collector\"", "line 2"),
            ("endpoint = \"localhost:4318\"", "traces.endpoint: must be a URL of https or http"),
            ("endpoint = \"http://1.1.1.1:4318\"", "traces.endpoint: plain http reaches"),
            ("endpoint = \"https://a:b@collector.example\"", "traces.endpoint: must not hold a user name"),
            ("sample = 1.5", "traces.sample"),
            ("sample = -0.1", "traces.sample"),
            ("sample = nan", "traces.sample"),
            ("timeout = \"0s\"", "traces.timeout"),
            ("timeout = \"2m\"", "traces.timeout"),
            ("samples = 1.0", "line 2"),
        ] {
            let message = from(&format!("[traces]\n{wrong}\n"), &[]).unwrap_err().to_string();
            assert!(message.contains(word) && !message.contains("a:b"), "{wrong}: {message}");
        }
    }

    #[test]
    fn doors_are_opened_from_home_assistant_only_where_it_is_told_of_them() {
        let id = "018f3c1e-0000-7000-8000-000000000001";
        let text = format!("[home_assistant]\ntenants = [\"{id}\"]\nunlock = [\"{id}\"]\n");
        assert_eq!(from(&text, &[]).unwrap().home_assistant.unlock.len(), 1);
        let message = from(&format!("[home_assistant]\nunlock = [\"{id}\"]\n"), &[]).unwrap_err().to_string();
        assert!(message.contains("home_assistant.tenants") && message.contains(id), "{message}");
    }

    #[test]
    fn secrets_do_not_show() {
        let config = from("[database]\nurl = \"postgresql://lintel_app:hunter2@db/lintel\"\n", &[]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!config.redacted().contains("hunter2"));
        assert!(config.redacted().contains("***"));
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let shown = from("[webhooks]\nallow_networks = [\"10.0.0.0/8\"]\n", &[]).unwrap().redacted();
        let again = from(&shown, &[]).unwrap();
        assert_eq!(again.webhooks.allow_networks.len(), 1);
    }
}
