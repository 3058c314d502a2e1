//! The command line: what an operator types, and how answers are shown.
//!
//! In: arguments. Out: text on stdout, an exit code (0 done, 1 failed, 2 usage, 3 hub not running, 4 configuration).
//! Commands about a hub talk to the running one over its control socket; only `serve`, `migrate`, `config`, `openapi` and
//! `audit verify` work without it. Deliberately absent: any second way to change data.

mod audit;
mod client;
mod keys;
mod orders;
mod table;
mod tenants;
mod users;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::openapi;
use crate::config::{self, Config, ConfigError};
use crate::embedded::Layout;
use audit::AuditCommand;
pub use audit::{Copy, Verification};
pub use client::ClientError;
use client::Sent;
use keys::KeysCommand;
use orders::{CommandsCommand, TwinCommand};
use tenants::{ApiKeysCommand, TenantsCommand};
use users::UsersCommand;

/// Between two questions about a command that is waited for.
const ASK_AGAIN: Duration = Duration::from_millis(200);
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
  cloud-hub --data-dir ./hub commands send unlock --tenant 0192f0c1-… --door 0192f0c2-… --wait
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
    /// People of a tenant who log in
    #[command(subcommand)]
    Users(UsersCommand),
    /// The hub's own keys: how old each is, and another one for access tokens
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Programs that read a tenant's events at the broker
    #[command(subcommand)]
    Consumers(ConsumersCommand),
    /// Devices of a tenant
    #[command(subcommand)]
    Devices(DevicesCommand),
    /// Galleries of a tenant and their logs
    #[command(subcommand)]
    Galleries(GalleriesCommand),
    /// Commands to devices and doors
    #[command(subcommand)]
    Commands(orders::CommandsCommand),
    /// Pictures of people whom a door takes for somebody, and who are not them
    #[command(subcommand)]
    NegativeAnchors(AnchorsCommand),
    /// Who did what and who looked at whom, and whether all of it is as it was
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Ask the running hub how its parts are
    Doctor,
    /// Print the OpenAPI document of the REST API
    #[command(after_help = "Example:\n  cloud-hub openapi > openapi.json")]
    Openapi,
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
    /// How a device should be set up, and how it is
    #[command(subcommand)]
    Twin(orders::TwinCommand),
}

#[derive(Debug, Subcommand)]
enum GalleriesCommand {
    /// List galleries: how long each log is, from which version on it is whole, and how many snapshots are on offer
    List {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
    },
    /// Take out of the logs, now, what no live device needs any more (the hub does it by itself once an hour; see [galleries])
    Compact {
        /// Whose
        #[arg(long)]
        tenant: Uuid,
        /// Only this one
        #[arg(long)]
        gallery: Option<Uuid>,
    },
}

#[derive(Debug, Subcommand)]
#[command(
    after_help = "A door refuses whoever is at least as near to a negative anchor as to the person (not_this_person).
Example:
  cloud-hub negative-anchors add --tenant 0192f0c1-… --person 7c1b… visitor.jpg"
)]
enum AnchorsCommand {
    /// Say that whoever is in a picture is not this person; every door of the person follows
    Add {
        /// Whose tenant
        #[arg(long)]
        tenant: Uuid,
        /// Who it is not
        #[arg(long)]
        person: Uuid,
        /// JPEG or PNG with one face
        picture: PathBuf,
        /// It shows somebody else although it looks as if it were the person
        #[arg(long)]
        confirm: bool,
    },
    /// List a person's negative anchors (never a picture)
    List {
        /// Whose tenant
        #[arg(long)]
        tenant: Uuid,
        /// Whose
        #[arg(long)]
        person: Uuid,
    },
    /// Take one back
    Remove {
        /// Whose tenant
        #[arg(long)]
        tenant: Uuid,
        /// Whose
        #[arg(long)]
        person: Uuid,
        /// Which
        anchor: Uuid,
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
    /// Copy the audit from the running hub to stdout.
    Copy(Copy),
    /// Verify the audit.
    Verify(Box<Config>, Verification),
}

/// A question to the running hub.
#[derive(Debug)]
pub struct Question {
    socket: PathBuf,
    method: &'static str,
    path: String,
    sent: Sent,
    output: Output,
    columns: &'static [table::Column],
    list: &'static str,
    then: Then,
}

/// What follows the answer, or comes before the question.
#[derive(Debug, Default)]
enum Then {
    /// Nothing.
    #[default]
    Show,
    /// Ask about the command here until its last word.
    Wait(String),
    /// Print this text of the answer as it is.
    Text(&'static str),
    /// Read what is wished first, and lay these over it.
    LayOver(Vec<String>),
    /// Send what is in this file.
    Replace(PathBuf),
    /// Read a password from stdin first, and send it.
    Password,
}

impl Cli {
    /// Reads the configuration and decides what is to be done.
    pub fn task(self, variables: impl IntoIterator<Item = (String, String)>) -> Result<Task, ConfigError> {
        match &self.command {
            Command::Completions { shell } => return Ok(Task::Print(completions(*shell))),
            Command::Openapi => return Ok(Task::Print(openapi::text())),
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
            Command::Audit(AuditCommand::Verify(asked)) => {
                Task::Verify(Box::new(config), asked.verification(self.output == Output::Json))
            }
            Command::Audit(AuditCommand::Export(asked)) => Task::Copy(asked.copy(control_socket(&config))),
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
    let mut then = Then::Show;
    let (method, path, sent, list, columns): (_, _, _, _, &'static [table::Column]) = match command {
        Command::Tenants(command) => command.asked(),
        Command::ApiKeys(command) => command.asked(),
        Command::Keys(command) => command.asked(),
        Command::Users(command) => {
            if command.reads_password() {
                then = Then::Password;
            }
            command.asked()
        }
        Command::Consumers(ConsumersCommand::Create { tenant, name, home_assistant }) => {
            let path = format!("/tenants/{tenant}/consumers");
            let body = json!({ "name": name, "home_assistant": home_assistant });
            ("POST", path, Sent::Json(body), "", table::NEW_CONSUMER)
        }
        Command::Consumers(ConsumersCommand::List { tenant }) => {
            ("GET", format!("/tenants/{tenant}/consumers"), Sent::Nothing, "consumers", table::CONSUMERS)
        }
        Command::Consumers(ConsumersCommand::Rotate { tenant, consumer }) => {
            ("POST", format!("/tenants/{tenant}/consumers/{consumer}/password"), Sent::Nothing, "", table::NEW_CONSUMER)
        }
        Command::Consumers(ConsumersCommand::Delete { tenant, consumer }) => {
            ("DELETE", format!("/tenants/{tenant}/consumers/{consumer}"), Sent::Nothing, "", &[])
        }
        Command::Devices(DevicesCommand::List { tenant }) => {
            ("GET", format!("/tenants/{tenant}/devices"), Sent::Nothing, "devices", table::DEVICES)
        }
        Command::Galleries(GalleriesCommand::List { tenant }) => {
            ("GET", format!("/tenants/{tenant}/galleries"), Sent::Nothing, "logs", table::LOGS)
        }
        Command::Galleries(GalleriesCommand::Compact { tenant, gallery }) => {
            let path = format!("/tenants/{tenant}/galleries/compact");
            let which = gallery.map_or_else(|| json!({}), |gallery| json!({ "gallery": gallery }));
            ("POST", path, Sent::Json(which), "logs", table::COMPACTED)
        }
        Command::Devices(DevicesCommand::Twin(twin)) => match twin {
            TwinCommand::Show(of) => ("GET", of.path(), Sent::Nothing, "", table::TWIN),
            TwinCommand::Diff(of) => ("GET", of.path(), Sent::Nothing, "difference", table::DIFFERENCE),
            TwinCommand::Set { of, settings, file } => {
                then = file.clone().map_or_else(|| Then::LayOver(settings.clone()), Then::Replace);
                ("PUT", of.path(), Sent::Nothing, "", table::TWIN)
            }
        },
        Command::Commands(CommandsCommand::Send(send)) => {
            let sending = send.sending();
            if sending.wait {
                then = Then::Wait(sending.asked_at);
            }
            ("POST", sending.path, Sent::Json(sending.body), "", table::COMMANDS)
        }
        Command::Commands(CommandsCommand::List { tenant, device: None }) => {
            ("GET", format!("/tenants/{tenant}/commands"), Sent::Nothing, "commands", table::COMMANDS)
        }
        Command::Commands(CommandsCommand::List { tenant, device: Some(device) }) => {
            ("GET", format!("/tenants/{tenant}/devices/{device}/commands"), Sent::Nothing, "commands", table::COMMANDS)
        }
        Command::Commands(CommandsCommand::Show { tenant, command }) => {
            ("GET", format!("/tenants/{tenant}/commands/{command}"), Sent::Nothing, "", table::COMMANDS)
        }
        Command::Commands(CommandsCommand::Logs { tenant, command }) => {
            then = Then::Text("lines");
            ("GET", format!("/tenants/{tenant}/commands/{command}/logs"), Sent::Nothing, "", &[])
        }
        Command::NegativeAnchors(command) => anchors(command),
        Command::Audit(AuditCommand::List(asked)) => ("GET", asked.path("/audit"), Sent::Nothing, "data", table::AUDIT),
        _ => ("GET", String::from("/doctor"), Sent::Nothing, "components", table::COMPONENTS),
    };
    Question { socket, method, path, sent, output, columns, list, then }
}

/// Method, path, what is sent, the list of the answer, and the columns of its table.
type Asked = (&'static str, String, Sent, &'static str, &'static [table::Column]);

fn anchors(command: &AnchorsCommand) -> Asked {
    let base = |tenant: &Uuid, person: &Uuid| format!("/tenants/{tenant}/people/{person}/negative-anchors");
    match command {
        AnchorsCommand::Add { tenant, person, picture, confirm } => {
            let query = if *confirm { "?confirm=true" } else { "" };
            let path = base(tenant, person) + query;
            ("POST", path, Sent::File(picture.clone()), "", table::NEW_ANCHOR)
        }
        AnchorsCommand::List { tenant, person } => {
            ("GET", base(tenant, person), Sent::Nothing, "negative_anchors", table::ANCHORS)
        }
        AnchorsCommand::Remove { tenant, person, anchor } => {
            ("DELETE", format!("{}/{anchor}", base(tenant, person)), Sent::Nothing, "", &[])
        }
    }
}

/// All settings of a twin, from a JSON file.
fn settings_file(path: &Path) -> Result<Value, ClientError> {
    let unreadable = |why: String| ClientError::Refused(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| unreadable(format!("is not JSON: {error}")))
}

impl Question {
    /// Asks, and returns what to print and the exit code.
    pub async fn ask(&self) -> Result<String, ClientError> {
        let answer = match &self.then {
            Then::LayOver(pairs) => self.lay_over(pairs).await?,
            Then::Replace(file) => {
                let body = json!({ "settings": settings_file(file)? });
                client::ask(&self.socket, self.method, &self.path, &Sent::Json(body)).await?
            }
            Then::Password => {
                let body = users::with_password().map_err(ClientError::Refused)?;
                client::ask(&self.socket, self.method, &self.path, &Sent::Json(body)).await?
            }
            _ => client::ask(&self.socket, self.method, &self.path, &self.sent).await?,
        };
        match &self.then {
            Then::Text(member) => return Ok(answer[*member].as_str().unwrap_or_default().to_owned()),
            Then::Wait(path) => {
                let answer = self.last_word(path, answer).await?;
                let text = self.shown(&answer);
                let succeeded = answer["state"] == "succeeded";
                return if succeeded { Ok(text) } else { Err(ClientError::NotSucceeded(text.trim_end().to_owned())) };
            }
            Then::Show | Then::LayOver(_) | Then::Replace(_) | Then::Password => {}
        }
        Ok(self.shown(&answer))
    }

    fn shown(&self, answer: &Value) -> String {
        match self.output {
            Output::Json => format!("{answer}\n"),
            Output::Table => table::render(answer, self.list, self.columns),
        }
    }

    /// Reads what is wished, and wishes it with these differences, of that version and no other.
    async fn lay_over(&self, pairs: &[String]) -> Result<Value, ClientError> {
        let present = client::ask(&self.socket, "GET", &self.path, &Sent::Nothing).await?;
        let settings = orders::laid_over(&present["desired"]["settings"], pairs).map_err(ClientError::Refused)?;
        let version = present["desired"]["version"].as_u64().unwrap_or(0);
        let body = json!({ "settings": settings, "version": version });
        client::ask(&self.socket, self.method, &self.path, &Sent::Json(body)).await
    }

    /// Asks until the device has had its last word, or can have none any more.
    async fn last_word(&self, path: &str, mut command: Value) -> Result<Value, ClientError> {
        let path = format!("{path}/{}", command["id"].as_str().unwrap_or_default());
        while ["issued", "accepted", "executing"].iter().any(|open| command["state"] == *open) {
            tokio::time::sleep(ASK_AGAIN).await;
            command = client::ask(&self.socket, "GET", &path, &Sent::Nothing).await?;
        }
        Ok(command)
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
        assert_eq!(question.sent, Sent::Json(json!({ "name": "Acme", "tier": "enterprise" })));
    }

    #[test]
    fn negative_anchors_are_asked_for_by_person() {
        let (tenant, person) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ids = ["--tenant".to_owned(), tenant.to_string(), "--person".to_owned(), person.to_string()];
        let asked = |rest: &[&str]| {
            let start = ["cloud-hub", "negative-anchors", rest[0]];
            let all = start.into_iter().chain(ids.iter().map(String::as_str)).chain(rest[1..].iter().copied());
            let Task::Ask(question) = task(&all.collect::<Vec<_>>()) else { panic!("a question") };
            (question.method, question.path, question.sent)
        };
        let base = format!("/tenants/{tenant}/people/{person}/negative-anchors");
        let picture = Sent::File(PathBuf::from("a.jpg"));
        assert_eq!(asked(&["add", "a.jpg", "--confirm"]), ("POST", format!("{base}?confirm=true"), picture));
        assert_eq!(asked(&["list"]), ("GET", base.clone(), Sent::Nothing));
        let anchor = Uuid::from_u128(3).to_string();
        assert_eq!(asked(&["remove", &anchor]), ("DELETE", format!("{base}/{anchor}"), Sent::Nothing));
    }

    #[test]
    fn a_command_says_only_what_its_kind_takes() {
        let (tenant, door) = (Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string());
        let send = |words: &[&str]| {
            let arguments = ["cloud-hub", "--data-dir", "/x", "commands", "send"].iter().chain(words).copied();
            let Task::Ask(question) = task(&arguments.collect::<Vec<_>>()) else { panic!("a question") };
            {
                let Sent::Json(body) = question.sent else { panic!("JSON") };
                (question.path, body)
            }
        };
        let (path, body) = send(&["unlock", "--tenant", &tenant, "--door", &door, "--wait"]);
        assert_eq!((path, body), (format!("/tenants/{tenant}/doors/{door}/commands"), json!({ "kind": "unlock" })));
        let (_, body) = send(&["lockdown", "--tenant", &tenant, "--door", &door, "--off"]);
        assert_eq!(body, json!({ "kind": "lockdown", "on": false }));
        let (path, body) = send(&["log-level", "debug", "--tenant", &tenant, "--device", &door, "--for-s", "60"]);
        assert!(path.ends_with(&format!("/devices/{door}/commands")));
        assert_eq!(body, json!({ "kind": "log_level", "level": "debug", "for_s": 60 }));
        assert!(Cli::try_parse_from(["cloud-hub", "commands", "send", "lockdown", "--tenant", &tenant]).is_err());
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
