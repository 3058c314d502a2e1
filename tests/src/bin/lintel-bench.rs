//! The part of `scripts/bench` that runs the programs: prints figures, as a table or as JSON.

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use system_tests::bench;
use system_tests::launcher::Places;

/// Figures of the running programs: start, arrivals, an empty corridor, memory.
#[derive(Parser)]
struct Arguments {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().expect("this is the first provider");
    let figures = bench::run(&Places::find()?, |part| {
        let _closed = writeln!(std::io::stderr(), "measuring: {part}");
    })
    .await?;
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&figures)?)?;
    } else {
        for (name, value) in figures {
            writeln!(out, "{name:40} {value:10.2}")?;
        }
    }
    Ok(())
}
