//! `scripts/demo` ends here: tells the story of one door with the real programs and judges it from outside.
//!
//! In: built programs and installed parts. Out: the story on standard output; with `--check` its last line is one JSON
//! object and the exit code is 0 only if every step was seen.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use system_tests::launcher::Places;
use system_tests::story;

/// From nothing to a door opening, told while it happens.
#[derive(Parser)]
#[command(after_help = "Run it through scripts/demo, which installs and builds what is missing.\n\n\
                        Environment:\n  LINTEL_PARTS  folder of installed parts (see scripts/setup --help)")]
struct Arguments {
    /// Tell it unattended, end by itself, and print one JSON object as the last line
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().expect("this is the first provider");
    let report = story::tell(Places::find()?, story::Options { check: arguments.check }).await?;
    if arguments.check {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
