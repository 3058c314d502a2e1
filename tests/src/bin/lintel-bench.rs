//! The part of `scripts/bench` that runs the programs: prints figures, as a table or as JSON.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use system_tests::bench;
use system_tests::launcher::Places;

/// Figures of the running programs: start, arrivals, an empty corridor, memory; or of several cameras at once.
#[derive(Parser)]
struct Arguments {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Measure this many cameras with a face before each, instead
    #[arg(long, value_name = "N")]
    cameras: Option<usize>,
    /// Visits to each of the cameras
    #[arg(long, value_name = "N", default_value_t = 10)]
    visits: u32,
    /// Where the clips of the cameras are kept from run to run
    #[arg(long, value_name = "DIR", default_value = "/tmp/lintel-bench-clips")]
    clips: PathBuf,
    /// Appended to the agent's configuration, to compare settings
    #[arg(long, value_name = "TOML", default_value = "")]
    settings: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().expect("this is the first provider");
    let places = Places::find()?;
    let mut out = std::io::stdout();
    if let Some(n_cameras) = arguments.cameras {
        let (visits, clips, extra) = (arguments.visits, &*arguments.clips, &*arguments.settings);
        let told = bench::cameras(&places, &bench::Cameras { n_cameras, visits, clips, extra }).await?;
        let text = if arguments.json { serde_json::to_string(&told)? } else { serde_json::to_string_pretty(&told)? };
        writeln!(out, "{text}")?;
        return Ok(());
    }
    let figures = bench::run(&places, |part| {
        let _closed = writeln!(std::io::stderr(), "measuring: {part}");
    })
    .await?;
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&figures)?)?;
    } else {
        for (name, value) in figures {
            writeln!(out, "{name:40} {value:10.2}")?;
        }
    }
    Ok(())
}
