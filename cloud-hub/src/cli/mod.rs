//! The command line: what an operator types, and how answers are shown.
//!
//! In: arguments. Out: text on stdout, an exit code (0 done, 1 failed, 2 usage, 3 hub not running, 4 configuration).
//! Commands about a hub talk to the running one over its control socket; only `serve`, `migrate` and `config` work
//! without it. Deliberately absent: any second way to change data.

mod client;
mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::{self, Config, ConfigError};
use crate::embedded::Layout;
pub use client::ClientError;

/// Exit code when the hub does not run.
const EXIT_UNAVAILABLE: u8 = 3;
/// Exit code for a configuration that cannot be used.
pub const EXIT_CONFIGURATION: u8 = 4;

/// The Lintel cloud hub.
#[derive(Debug, Parser)]
#[command(
    name = "cloud-hub",
    version,
    about = "The Lintel cloud hub: tenants, people, templates, devices, audit and webhooks",
    after_help = "Examples:
  cloud-hub serve --embedded --data-dir ./hub       everything on one machine, loopback only
  cloud-hub --data-dir ./hub tenants create Acme    a tenant and its first API key
  cloud-hub --data-dir ./hub devices list --tenant 0192f0c1-…
  cloud-hub --config /etc/cloud-hub/config.toml config check

Environment: every setting as LINTEL__SECTION__KEY (see: cloud-hub config defaults).
Exit codes: 0 done, 1 failed, 2 usage, 3 the hub is not running, 4 configuration."
)]
pub struct Cli {
    /// Configuration file (TOML)
    #[arg(long, global = true, env = "LINTEL_HUB_CONFIG")]
    config: Option<PathBuf>,
    /// Data directory; wins over data.dir
    #[arg(long, global = true)]
    data_dir: Option<PathBuf>,
    /// How answers are shown
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the hub
    Serve(ServeArguments),
    /// Bring an external database's schema up to date
    Migrate,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Tenants of the running hub
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// API keys of a tenant
    #[command(subcommand)]
    ApiKeys(ApiKeysCommand),
    /// Programs that read a tenant's events at the broker
    #[command(subcommand)]
    Consumers(ConsumersCommand),
    /// Devices of a tenant
    #[command(subcommand)]
    Devices(DevicesCommand),
    /// Ask the running hub how its parts are
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Flags of `serve`; each wins over its setting.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cloud-hub serve --embedded --data-dir ./hub --listen 127.0.0.1:8443")]
struct ServeArguments {
    /// Run an own Postgres and Mosquitto in the data directory, on loopback only
    #[arg(long)]
    embedded: bool,
    /// Address of the REST API (port 0: a free one)
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Address of the embedded broker for devices (port 0: a free one)
    #[arg(long)]
    mqtt_listen: Option<SocketAddr>,
    /// Address of the embedded broker for consumers of the feed (port 0: a free one); without it they have none
    #[arg(long)]
    consumer_listen: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the whole configuration and say what is wrong with it
    Check,
    /// Print the configuration in use, without secrets
    Show,
    /// Print all settings with their defaults and what they mean
    Defaults,
}

#[derive(Debug, Subcommand)]
enum TenantsCommand {
    /// Make a tenant and its first API key, which is shown once
    Create {
        /// Its name
        name: String,
    },
    /// List tenants
    List,
}

#[derive(Debug, Subcommand)]
enum ApiKeysCommand {
    /// Make a key, which is shown once
    Create {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// What it is for
        #[arg(long, default_value = "api key")]
        name: String,
    },
    /// List keys (never their secrets)
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
    /// End a key
    Revoke {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        key: Uuid,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  cloud-hub serve --embedded --data-dir ./hub --consumer-listen 127.0.0.1:8884
  cloud-hub --data-dir ./hub consumers create --tenant 0192f0c1-… --name 'time sheet'

One credential has one session at the broker: a second program needs a second one.")]
enum ConsumersCommand {
    /// Make a consumer and its password, which is shown once, with a command line that reads the feed
    Create {
        /// Whose feed
        #[arg(long)]
        tenant: Uuid,
        /// What it is for
        #[arg(long, default_value = "consumer")]
        name: String,
        /// It is a Home Assistant: it reads what is said for those too (see home_assistant.tenants)
        #[arg(long)]
        home_assistant: bool,
    },
    /// List consumers (never their passwords)
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
    /// Give a consumer another password, which is shown once; it is disconnected until it uses it
    Rotate {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        consumer: Uuid,
    },
    /// Remove a consumer for good and end its session
    Delete {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Which
        consumer: Uuid,
    },
}

#[derive(Debug, Subcommand)]
enum DevicesCommand {
    /// List devices: version and root of each gallery, whether it equals the hub's, since when, and how long the last change took
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
}

/// What the program is to do, once arguments and configuration are read.
#[derive(Debug)]
pub enum Task {
    /// Run the hub.
    Serve(Box<Config>),
    /// Migrate the external database.
    Migrate(Box<Config>),
    /// Print this and end.
    Print(String),
    /// Ask the running hub.
    Ask(Question),
}

/// A question to the running hub.
#[derive(Debug)]
pub struct Question {
    socket: PathBuf,
    method: &'static str,
    path: String,
    body: Option<Value>,
    output: Output,
    columns: &'static [table::Column],
    list: &'static str,
}

impl Cli {
    /// Reads the configuration and decides what is to be done.
    pub fn task(self, variables: impl IntoIterator<Item = (String, String)>) -> Result<Task, ConfigError> {
        match &self.command {
            Command::Completions { shell } => return Ok(Task::Print(completions(*shell))),
            Command::Config(ConfigCommand::Defaults) => return Ok(Task::Print(config::DEFAULTS.to_owned())),
            _ => {}
        }
        let mut config = config::load(self.config.as_deref(), variables)?;
        if let Some(dir) = &self.data_dir {
            config.data.dir.clone_from(dir);
        }
        config.data.dir = std::path::absolute(&config.data.dir).unwrap_or(config.data.dir);
        Ok(match self.command {
            Command::Serve(arguments) => {
                config.apply(arguments.embedded, arguments.listen, arguments.mqtt_listen, arguments.consumer_listen);
                config.check()?;
                Task::Serve(Box::new(config))
            }
            Command::Migrate => Task::Migrate(Box::new(config)),
            Command::Config(ConfigCommand::Show) => Task::Print(config.redacted()),
            Command::Config(_) => Task::Print(String::from("the configuration can be used\n")),
            command => Task::Ask(question(&command, control_socket(&config), self.output)),
        })
    }
}

/// Where the running hub listens for the command line.
#[must_use]
pub fn control_socket(config: &Config) -> PathBuf {
    let configured = config.server.control_socket.get().map(Path::to_path_buf);
    configured.unwrap_or_else(|| Layout::new(&config.data.dir).control_socket())
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cloud-hub", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn question(command: &Command, socket: PathBuf, output: Output) -> Question {
    let (method, path, body, list, columns): (_, _, _, _, &'static [table::Column]) = match command {
        Command::Tenants(TenantsCommand::Create { name }) => {
            ("POST", String::from("/tenants"), Some(json!({ "name": name })), "", table::NEW_TENANT)
        }
        Command::Tenants(TenantsCommand::List) => ("GET", String::from("/tenants"), None, "tenants", table::TENANTS),
        Command::ApiKeys(ApiKeysCommand::Create { tenant, name }) => {
            let path = format!("/tenants/{tenant}/api-keys");
            ("POST", path, Some(json!({ "name": name })), "", table::NEW_API_KEY)
        }
        Command::ApiKeys(ApiKeysCommand::List { tenant }) => {
            ("GET", format!("/tenants/{tenant}/api-keys"), None, "api_keys", table::API_KEYS)
        }
        Command::ApiKeys(ApiKeysCommand::Revoke { tenant, key }) => {
            ("DELETE", format!("/tenants/{tenant}/api-keys/{key}"), None, "", &[])
        }
        Command::Consumers(ConsumersCommand::Create { tenant, name, home_assistant }) => {
            let path = format!("/tenants/{tenant}/consumers");
            let body = json!({ "name": name, "home_assistant": home_assistant });
            ("POST", path, Some(body), "", table::NEW_CONSUMER)
        }
        Command::Consumers(ConsumersCommand::List { tenant }) => {
            ("GET", format!("/tenants/{tenant}/consumers"), None, "consumers", table::CONSUMERS)
        }
        Command::Consumers(ConsumersCommand::Rotate { tenant, consumer }) => {
            ("POST", format!("/tenants/{tenant}/consumers/{consumer}/password"), None, "", table::NEW_CONSUMER)
        }
        Command::Consumers(ConsumersCommand::Delete { tenant, consumer }) => {
            ("DELETE", format!("/tenants/{tenant}/consumers/{consumer}"), None, "", &[])
        }
        Command::Devices(DevicesCommand::List { tenant }) => {
            ("GET", format!("/tenants/{tenant}/devices"), None, "devices", table::DEVICES)
        }
        _ => ("GET", String::from("/doctor"), None, "components", table::COMPONENTS),
    };
    Question { socket, method, path, body, output, columns, list }
}

impl Question {
    /// Asks, and returns what to print and the exit code.
    pub async fn ask(&self) -> Result<String, ClientError> {
        let answer = client::ask(&self.socket, self.method, &self.path, self.body.as_ref()).await?;
        Ok(match self.output {
            Output::Json => format!("{answer}\n"),
            Output::Table => table::render(&answer, self.list, self.columns),
        })
    }
}

impl ClientError {
    /// The exit code that fits.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NotRunning { .. }) { EXIT_UNAVAILABLE } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(arguments: &[&str]) -> Task {
        Cli::try_parse_from(arguments).unwrap().task([]).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_settings() {
        let Task::Serve(config) = task(&[
            "cloud-hub",
            "serve",
            "--embedded",
            "--data-dir",
            "/x",
            "--listen",
            "127.0.0.1:0",
            "--mqtt-listen",
            "127.0.0.1:1",
        ]) else {
            panic!("serve")
        };
        assert!(config.embedded.enabled);
        assert_eq!(config.data.dir, Path::new("/x"));
        assert_eq!(config.server.listen.port(), 0);
        assert_eq!(config.embedded.mqtt_listen.port(), 1);
    }

    #[test]
    fn the_control_socket_is_found_from_the_data_directory() {
        let Task::Ask(question) = task(&["cloud-hub", "--data-dir", "/x", "tenants", "create", "Acme", "-o", "json"])
        else {
            panic!("a question")
        };
        assert_eq!(question.socket, Path::new("/x/run/control.sock"));
        assert_eq!((question.method, question.path.as_str()), ("POST", "/tenants"));
        assert_eq!(question.body, Some(json!({ "name": "Acme" })));
    }

    #[tokio::test]
    async fn a_hub_that_does_not_run_is_exit_code_3() {
        let Task::Ask(question) = task(&["cloud-hub", "--data-dir", "/nonexistent", "tenants", "list"]) else {
            panic!("a question")
        };
        let error = question.ask().await.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("/nonexistent/run/control.sock"), "{error}");
    }
}
