//! The command line: `edge-agent run | claim | embed | eval | models | outbox status | gallery status | guidance | doctor | config | completions`.
//!
//! In: arguments and environment. Out: data on standard output, log lines and problems on standard error, and one of
//! the exit codes of [`Exit`]. The status commands ask the running agent over its control socket; nothing here opens
//! the stores of a running agent.

mod claim;
mod config;
mod doctor;
mod embed;
mod eval;
mod guidance;
mod models;
mod output;
mod run;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{ConfigErrors, Format, Loaded, Sources};

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// The command was understood and failed.
    Failure,
    /// Something that the command needs does not answer: the running agent, the hub.
    Unavailable,
    /// The configuration cannot be used.
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // 2 is a wrong command line; clap ends the process with it.
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Unavailable => 3,
            Exit::Configuration => 4,
        })
    }
}

const EXAMPLES: &str = "\
Examples:
  edge-agent --config /etc/edge-agent/config.toml run
  edge-agent claim --token-file /run/claim-token
  edge-agent embed portrait.jpg -o json
  edge-agent eval pairs --images faces --pairs faces/pairs.csv
  edge-agent models list
  edge-agent outbox status -o json
  edge-agent doctor

Environment:
  LINTEL_CONFIG           the same as --config
  LINTEL__SECTION__KEY    overlays one key, e.g. LINTEL__LOG__LEVEL=debug or LINTEL__DOOR__MAIN__HOLD=5s
  NO_COLOR                no colours

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 agent or hub does not answer, 4 configuration";

/// Recognises people at doors: cameras in, decisions out, with or without a network.
#[derive(Debug, Parser)]
#[command(name = "edge-agent", version, about, after_help = EXAMPLES, propagate_version = true)]
pub struct Args {
    /// Configuration file. Without it: /etc/edge-agent/config.toml when it exists, else defaults and environment.
    #[arg(long, short, global = true, env = "LINTEL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How to print results.
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    pub output: Output,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON object.
    Json,
    /// TOML, for `config show`.
    Toml,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the cameras and work the doors until SIGTERM.
    Run,
    /// Give this device its identity with a claim token of the hub.
    #[command(
        after_help = "Example:\n  edge-agent claim --token-file /run/claim-token\n\nThe agent must not be running. The token works once and for 15 minutes."
    )]
    Claim(claim::ClaimArgs),
    /// Show template, quality and face box of a photograph.
    #[command(
        after_help = "Example:\n  edge-agent embed portrait.jpg -o json\n\nNothing is stored. Fails for a photograph without a face, with several, or with one too small."
    )]
    Embed(embed::EmbedArgs),
    /// Measure recognition on pictures of your own, with the code of the door.
    #[command(
        after_help = "Examples:\n  edge-agent eval pairs --images faces --pairs faces/pairs.csv\n  edge-agent eval identify --images faces --labels faces/labels.csv\n\nNothing is stored or sent."
    )]
    Eval {
        /// What to measure.
        #[command(subcommand)]
        command: eval::EvalCommand,
    },
    /// The model packs of this device.
    Models {
        /// What to do.
        #[command(subcommand)]
        command: models::ModelsCommand,
    },
    /// The events that wait for the hub.
    Outbox {
        /// What to do.
        #[command(subcommand)]
        command: OutboxCommand,
    },
    /// The people that this device may let in.
    Gallery {
        /// What to do.
        #[command(subcommand)]
        command: StatusCommand,
    },
    /// How the running agent is: its link, doors, lock-downs, twin, and the last commands of the hub.
    #[command(after_help = "Examples:\n  edge-agent status\n  edge-agent status -o json | jq .commands")]
    Status,
    /// What a display beside each door should show: which movement a door asks for, and how it went.
    #[command(
        after_help = "Example:\n  edge-agent guidance --follow -o json\n\nWith --follow: a line for each change, until it is stopped; JSON lines have texts in every language."
    )]
    Guidance {
        /// Go on, and print each change.
        #[arg(long)]
        follow: bool,
    },
    /// Examine configuration, models, cameras, folders, identity, network and clock, and say what to do.
    Doctor,
    /// Examine the configuration.
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the completions of a shell.
    #[command(after_help = "Example:\n  edge-agent completions bash > /etc/bash_completion.d/edge-agent")]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Verbs of `outbox`.
#[derive(Debug, Subcommand)]
pub enum OutboxCommand {
    /// How many events wait, and how far the hub has acknowledged.
    Status,
    /// The events that are still kept, acknowledged ones included: sequence, id, type and time.
    List,
}

/// Verbs of things that can only be looked at.
#[derive(Debug, Subcommand)]
pub enum StatusCommand {
    /// Ask the running agent.
    Status,
}

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read and check everything, start nothing.
    Check,
    /// Print what is in effect: defaults, files, the hub's twin and environment together, passwords hidden. What comes from
    /// the twin is named at the head.
    #[command(after_help = "Examples:\n  edge-agent config show\n  edge-agent config show -o json | jq .twin")]
    Show,
}

/// Reads the command line, does what it says, returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    // reqwest and rumqttc take the process-wide provider. A second call (tests) finds it set, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    dispatch(&args).into()
}

fn dispatch(args: &Args) -> Exit {
    if let Command::Completions { shell } = &args.command {
        let mut text = Vec::new();
        clap_complete::generate(*shell, &mut Args::command(), "edge-agent", &mut text);
        return output::text(&String::from_utf8_lossy(&text));
    }
    if let Command::Doctor = &args.command {
        return doctor::doctor(args);
    }
    if let Command::Models { command: models::ModelsCommand::Prove { question } } = &args.command {
        return models::prove_here(question);
    }
    let sources = sources(args);
    let loaded = match sources.load(None) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::problem(&format!("the configuration cannot be used:\n{errors}"));
            return Exit::Configuration;
        }
    };
    match &args.command {
        Command::Run => run::run(loaded, sources),
        Command::Claim(claim) => claim::claim(claim, &loaded.config, args.output),
        Command::Embed(embed) => embed::embed(embed, &loaded.config, args.output),
        Command::Eval { command } => eval::eval(command, &loaded.config, args.output),
        Command::Models { command } => models::models(command, &loaded.config, args.output),
        Command::Outbox { command: OutboxCommand::Status } => status::outbox(&loaded.config, args.output),
        Command::Outbox { command: OutboxCommand::List } => status::outbox_list(&loaded.config, args.output),
        Command::Gallery { command: StatusCommand::Status } => status::gallery(&loaded.config, args.output),
        Command::Status => status::agent(&loaded.config, args.output),
        Command::Guidance { follow } => guidance::guidance(*follow, &loaded.config, args.output),
        Command::Config { command: ConfigCommand::Check } => config::check(&loaded, args.output),
        Command::Config { command: ConfigCommand::Show } => config::show(&loaded, &sources, args.output),
        Command::Doctor | Command::Completions { .. } => unreachable!("handled above"),
    }
}

/// Where the configuration is, when nobody says it.
const DEFAULT_CONFIG: &str = "/etc/edge-agent/config.toml";

fn load(args: &Args) -> Result<Loaded, ConfigErrors> {
    sources(args).load(None)
}

fn sources(args: &Args) -> Sources {
    let default = std::path::Path::new(DEFAULT_CONFIG);
    let file = args.config.as_deref().or_else(|| default.exists().then_some(default));
    // A variable that is not UTF-8 cannot be one of ours.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Sources::new(file.map(std::path::Path::to_owned), environment)
}

impl From<Output> for Format {
    fn from(output: Output) -> Self {
        match output {
            Output::Json => Self::Json,
            Output::Table | Output::Toml => Self::Toml,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        for line in EXAMPLES.lines().filter(|line| line.trim_start().starts_with("edge-agent ")) {
            Args::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
