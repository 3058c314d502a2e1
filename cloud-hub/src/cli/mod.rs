//! The command line: what an operator types, and how answers are shown.
//!
//! In: arguments. Out: text on stdout, an exit code (0 done, 1 failed, 2 usage, 3 hub not running, 4 configuration).
//! Commands about a hub talk to the running one over its control socket; only `serve`, `migrate`, `config`, `openapi` and
//! `audit verify` work without it. Deliberately absent: any second way to change data.

mod admins;
mod anchors;
mod audit;
mod client;
mod completions;
mod consumers;
mod devices;
mod import;
mod keys;
mod orders;
mod people;
mod question;
mod sessions;
mod settings;
mod table;
mod tenants;
#[cfg(test)]
mod tests;
mod users;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::openapi;
use crate::config::{self, Config, ConfigError};
use crate::embedded::Layout;
use admins::AdminsCommand;
use anchors::AnchorsCommand;
use audit::AuditCommand;
pub use audit::{Copy, Verification};
pub use client::ClientError;
use client::Sent;
use consumers::ConsumersCommand;
use devices::{DevicesCommand, GalleriesCommand};
pub use import::ImportTask;
use keys::KeysCommand;
use orders::CommandsCommand;
use people::PeopleCommand;
pub use question::Question;
use question::{Asked, Then};
use sessions::SessionsCommand;
use settings::LiveCommand;
use tenants::{ApiKeysCommand, TenantsCommand};
use users::UsersCommand;

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
  cloud-hub --data-dir ./hub people import staff.zip --tenant 0192f0c1-…
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
    /// Look at the configuration, and change what can be changed while the hub runs
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Tenants of the running hub
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Keys of platform administrators, who make and end tenants over the network
    #[command(subcommand)]
    Admins(AdminsCommand),
    /// API keys of a tenant
    #[command(subcommand)]
    ApiKeys(ApiKeysCommand),
    /// People of a tenant who log in
    #[command(subcommand)]
    Users(UsersCommand),
    /// The hub's own keys: how old each is, and another one for access tokens
    #[command(subcommand)]
    Keys(KeysCommand),
    /// People who may be recognised: listed, made, changed, erased, imported from a file
    #[command(subcommand)]
    People(PeopleCommand),
    /// Sessions of a tenant: who stands before a camera, and what came of it
    #[command(subcommand)]
    Sessions(SessionsCommand),
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
    Commands(CommandsCommand),
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
    #[command(after_help = completions::HELP)]
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
    #[command(flatten)]
    OfRunning(LiveCommand),
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
    /// Send people to the running hub.
    Import(ImportTask),
    /// Verify the audit.
    Verify(Box<Config>, Verification),
}

impl Cli {
    /// Reads the configuration and decides what is to be done.
    pub fn task(self, variables: impl IntoIterator<Item = (String, String)>) -> Result<Task, ConfigError> {
        match &self.command {
            Command::Completions { shell } => return Ok(Task::Print(completions::script(*shell))),
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
            Command::Config(ConfigCommand::OfRunning(_)) => {
                Task::Ask(question(&self.command, control_socket(&config), self.output))
            }
            Command::Config(ConfigCommand::Show) => Task::Print(config.redacted()),
            Command::Config(_) => Task::Print(String::from("the configuration can be used\n")),
            Command::Audit(AuditCommand::Verify(asked)) => {
                Task::Verify(Box::new(config), asked.verification(self.output == Output::Json))
            }
            Command::Audit(AuditCommand::Export(asked)) => Task::Copy(asked.copy(control_socket(&config))),
            Command::People(PeopleCommand::Import(asked)) => {
                Task::Import(asked.task(control_socket(&config), self.output))
            }
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

fn question(command: &Command, socket: PathBuf, output: Output) -> Question {
    let show = |asked: Asked| (asked, Then::Show);
    let ((method, path, sent, list, columns), then) = match command {
        Command::Config(ConfigCommand::OfRunning(command)) => show(command.asked()),
        Command::Tenants(command) => show(command.asked()),
        Command::Admins(command) => show(command.asked()),
        Command::ApiKeys(command) => show(command.asked()),
        Command::Keys(command) => show(command.asked()),
        Command::Users(command) => {
            (command.asked(), if command.reads_password() { Then::Password } else { Then::Show })
        }
        Command::People(command) => show(command.asked()),
        Command::Sessions(command) => show(command.asked()),
        Command::Consumers(command) => show(command.asked()),
        Command::Devices(command) => command.asked(),
        Command::Galleries(command) => show(command.asked()),
        Command::Commands(command) => command.asked(),
        Command::NegativeAnchors(command) => show(command.asked()),
        Command::Audit(AuditCommand::List(asked)) => {
            show(("GET", asked.path("/audit"), Sent::Nothing, "data", table::AUDIT))
        }
        _ => show(("GET", String::from("/doctor"), Sent::Nothing, "components", table::COMPONENTS)),
    };
    Question { socket, method, path, sent, output, columns, list, then }
}
