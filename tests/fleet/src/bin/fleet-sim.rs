//! `fleet-sim`: makes devices at a hub and runs them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use edge_store::Broker;
use fleet_sim::admin::Admin;
use fleet_sim::device::SPACE_ID;
use fleet_sim::fleet::{Fleet, Plan, Standing};
use fleet_sim::searches::Searches;
use tokio_util::sync::CancellationToken;

/// Devices without cameras: the agent's own sync, outbox and galleries against a real hub, many at once.
#[derive(Parser)]
#[command(after_help = "Examples:
  fleet-sim create --dir fleet --hub https://127.0.0.1:8443 --root data/pki/root.pem --authorization-file key --site SITE --devices 100
  fleet-sim run --dir fleet --rate 200 --events 10000")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make devices through the hub's API and claim them
    Create(Create),
    /// Run all devices of a folder
    Run(Run),
}

#[derive(Args)]
struct Create {
    /// The fleet's folder
    #[arg(long)]
    dir: PathBuf,
    /// Base URL of the hub's API
    #[arg(long)]
    hub: String,
    /// The hub's root certificate
    #[arg(long)]
    root: PathBuf,
    /// File with the value of the Authorization header: `ApiKey id:secret`
    #[arg(long)]
    authorization_file: PathBuf,
    /// Id of the site at which the devices stand
    #[arg(long)]
    site: String,
    /// How many there shall be
    #[arg(long, value_name = "N")]
    devices: usize,
}

#[derive(Args)]
struct Run {
    /// The fleet's folder
    #[arg(long)]
    dir: PathBuf,
    /// Events a second, of all devices together
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// Record this many, wait for the hub's acknowledgement, and end
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Connect to the broker by this address instead of the one that the hub named
    #[arg(long, value_name = "HOST:PORT")]
    through: Option<String>,
    /// The embedding space of the people that are taken in
    #[arg(long, default_value = SPACE_ID)]
    space_id: String,
    /// Search for these people (a JSON array of {"name", "embedding"}) whenever a device's gallery changes
    #[arg(long, value_name = "FILE", requires = "findings")]
    probes: Option<PathBuf>,
    /// Write to this file what each device's search finds, and when: microseconds, device, person or -, name
    #[arg(long, value_name = "FILE", requires = "probes")]
    findings: Option<PathBuf>,
    /// While this file is there, record nothing
    #[arg(long, value_name = "FILE")]
    hold: Option<PathBuf>,
    /// Write every attempt and acknowledgement to this file
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Keep this file up to date with the fleet's standing
    #[arg(long, value_name = "FILE")]
    status: Option<PathBuf>,
    /// Print the standing at the end as one line of JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The first provider of this process: nothing else was started yet.
    let _first = rustls::crypto::ring::default_provider().install_default();
    let done = tokio::runtime::Runtime::new().context("no threads").and_then(|runtime| match arguments.command {
        Command::Create(create) => runtime.block_on(make(&create)),
        Command::Run(run) => runtime.block_on(work(run)),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn make(create: &Create) -> Result<()> {
    let authorization = std::fs::read_to_string(&create.authorization_file)
        .with_context(|| format!("authorization file {}", create.authorization_file.display()))?;
    let admin = Admin::new(&create.hub, &create.root, &authorization)?;
    admin
        .populate(&create.dir, &create.site, create.devices, |done| {
            let _closed = writeln!(std::io::stderr(), "    {done} of {} devices claimed", create.devices);
        })
        .await
}

async fn work(run: Run) -> Result<()> {
    let through = run.through.as_deref().map(broker).transpose()?;
    let searched = run.probes.as_deref().zip(run.findings.as_deref());
    let searches = searched.map(|(probes, findings)| Searches::open(probes, findings)).transpose()?;
    let fleet = Fleet::start(&run.dir, &run.space_id, through.as_ref(), searches.as_ref())?;
    let plan = Plan { rate: run.rate, events: run.events, hold: run.hold, history: run.history, status: run.status };
    let enough = CancellationToken::new();
    let asked = enough.clone();
    tokio::spawn(async move {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
        asked.cancel();
        std::io::Result::Ok(())
    });
    let mut shown = Standing::default();
    let (fleet, recorded) = tokio::task::spawn_blocking(move || {
        let recorded = fleet.record(&plan, &enough, |standing| tell(&mut shown, standing));
        (fleet, recorded)
    })
    .await?;
    recorded?;
    let standing = fleet.standing()?;
    fleet.stop().await;
    if run.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&standing)?)?;
    }
    Ok(())
}

/// Progress for the person who waits: when it has moved by a twentieth, or a line came or went.
fn tell(shown: &mut Standing, standing: &Standing) {
    let moved = standing.acknowledged.saturating_sub(shown.acknowledged) * 20 > standing.recorded;
    if moved || standing.connected != shown.connected {
        let Standing { devices, connected, recorded, acknowledged, .. } = standing;
        let line = format!("    {connected} of {devices} connected; {recorded} recorded, {acknowledged} acknowledged");
        let _closed = writeln!(std::io::stderr(), "{line}");
        *shown = standing.clone();
    }
}

fn broker(text: &str) -> Result<Broker> {
    let (host, port) = text.rsplit_once(':').context("--through wants HOST:PORT")?;
    Ok(Broker { host: host.to_owned(), port: port.parse().context("--through wants HOST:PORT")? })
}
