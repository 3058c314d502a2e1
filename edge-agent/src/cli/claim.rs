//! `edge-agent claim`: this device's identity, once, with a token that the hub made.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use clap::Args;
use edge_store::DeviceKeys;
use serde_json::json;
use wire_contract::ClaimToken;

use super::{Exit, Output, output};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control::{Ask, ControlError, ask};
use crate::sync::{ClaimError, claim as claim_identity};
use crate::{logging, wiring};

/// Arguments of `claim`.
#[derive(Debug, Args)]
pub struct ClaimArgs {
    /// The token. Other users of this machine can see a command line: prefer --token-file.
    #[arg(long, value_name = "TOKEN", required_unless_present = "token_file", conflicts_with = "token_file")]
    token: Option<String>,

    /// A file that holds the token; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The serial number that the hub shows for this device. Without it: the machine's own.
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
}

pub(super) fn claim(args: &ClaimArgs, config: &Config, form: Output) -> Exit {
    let _ = logging::init(&config.log);
    match ask(&config.agent.runtime_dir, Ask::Status) {
        Err(ControlError::NotRunning { .. }) => {}
        _ => {
            output::problem("the agent is running; stop it, claim, and start it again");
            return Exit::Failure;
        }
    }
    match claimed(args, config) {
        Ok(value) => output::object(&value, form),
        Err(error) => {
            output::problem(&format!("the device was not claimed: {error:#}"));
            match error.downcast_ref::<ClaimError>() {
                Some(ClaimError::Hub(hub)) if hub.is_unreachable() => Exit::Unavailable,
                _ => Exit::Failure,
            }
        }
    }
}

fn claimed(args: &ClaimArgs, config: &Config) -> Result<serde_json::Value> {
    let token: ClaimToken = token(args)?.trim().parse().context("the token is not one that a hub makes")?;
    let serial = args.serial.clone().unwrap_or_else(machine_serial);
    wiring::prepare_dirs(&config.agent)?;
    let keys = DeviceKeys::open(&config.agent.keys_dir(), wiring::credentials_dir().as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clock = SystemClock::default();
    let claimed = runtime.block_on(claim_identity(&token, &serial, &clock))?;
    let agent = &config.agent;
    let now = SystemTime::from(clock.wall().utc);
    claimed.commit(&agent.state_dir, &agent.galleries_dir(), &agent.outbox_dir(), &keys, now)?;
    let identity = &claimed.identity;
    Ok(json!({
        "tenant": identity.tenant,
        "device": identity.device,
        "hub": identity.hub_url,
        "broker": format!("{}:{}", identity.broker.host, identity.broker.port),
        "serial": serial,
    }))
}

fn token(args: &ClaimArgs) -> Result<String> {
    match (&args.token, &args.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(file)) if file == Path::new("-") => {
            let mut text = String::new();
            std::io::stdin().take(64 * 1024).read_to_string(&mut text).context("standard input cannot be read")?;
            Ok(text)
        }
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("token file {} cannot be read", file.display()))
        }
        (None, None) => bail!("no token was given"),
    }
}

/// The board's serial number where there is one, else the installation's own id: it only helps people to recognise the
/// device in the hub's list.
fn machine_serial() -> String {
    ["/proc/device-tree/serial-number", "/sys/class/dmi/id/product_serial", "/etc/machine-id"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
        .find(|text| !text.is_empty() && text.len() <= 64)
        .unwrap_or_else(|| "unknown".to_owned())
}
