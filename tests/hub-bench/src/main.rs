//! `scripts/bench hub`: how fast the hub is, client, hub and Postgres together on this machine.
//!
//! In: the release programs and the installed parts. Out: one JSON object; each figure has its goal and stands beside the floor
//! of the same run, since machines are shared and noisy. Deliberately absent: tests of what the hub answers, but that every answer
//! is looked at: who was to be found is found, and who is nobody is nobody.

mod authentication;
mod connections;
mod floor;
mod identification;
mod load;
mod memory;
mod people;
mod photographs;
mod processors;
mod rig;
mod sessions;
mod streams;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value, json};

use memory::Memory;
use rig::Rig;

/// How fast the hub is, each figure beside the floor of the same run.
#[derive(Parser)]
struct Arguments {
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Measure these alone
    #[arg(value_enum)]
    figures: Vec<Figure>,
    /// People of the larger gallery
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    people: usize,
    /// Seconds of each load
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Keys that were and were not seen lately
    Authentication,
    /// Sessions opened, five hundred of them at once
    Sessions,
    /// A photograph of 640×480 searched for, and three enrolled
    Photographs,
    /// A thousand event streams
    Streams,
    /// A hundred connections to the database
    Connections,
    /// Templates searched for among 10,000 people and among more
    Identification,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().expect("this is the first provider");
    let rig = Rig::start().await?;
    let memory = Memory::watch(rig.hub_process());
    let mut told = Map::new();
    let lasting = Duration::from_secs(arguments.seconds);
    let wanted = |figure| arguments.figures.is_empty() || arguments.figures.contains(&figure);
    if wanted(Figure::Authentication) {
        say("keys");
        told.extend(authentication::measure(&rig, lasting).await?);
    }
    if wanted(Figure::Sessions) {
        say("sessions");
        told.extend(sessions::measure(&rig).await?);
    }
    if wanted(Figure::Photographs) {
        say("photographs");
        told.extend(photographs::measure(&rig, lasting).await?);
    }
    if wanted(Figure::Streams) {
        say("event streams");
        told.extend(streams::measure(&rig).await?);
    }
    if wanted(Figure::Connections) {
        say("connections to the database");
        told.extend(connections::measure(&rig, lasting).await?);
    }
    if wanted(Figure::Identification) {
        for people in [10_000, arguments.people] {
            say(&format!("identification among {people} people"));
            told.extend(identification::measure(&rig, people, lasting).await?);
        }
    }
    told.insert("memory".into(), memory.told());
    let ok = told.values().all(|figure| figure.get("ok") != Some(&Value::Bool(false)));
    told.insert("ok".into(), json!(ok));
    let told = Value::Object(told);
    let text = if arguments.json { told.to_string() } else { serde_json::to_string_pretty(&told)? };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn say(part: &str) {
    // Who has closed standard error does not want to hear it.
    let _closed = writeln!(std::io::stderr(), "measuring: {part}");
}
