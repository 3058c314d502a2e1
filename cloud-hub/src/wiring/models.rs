//! Loading the model pack, away from the async workers; the hub serves everything else meanwhile and without it.

use anyhow::{Context as _, Result};
use face_runtime::{FalseAcceptRate, ModelPack, PackOptions, Runtime};

use crate::config::Config;
use crate::recognition::enroller::Models;

/// Loads and proves the pack. About a second; blocks its thread.
pub(super) fn load(config: &Config) -> Result<Models> {
    let settings = &config.models;
    let runtime = Runtime::load(&settings.onnxruntime)?;
    let options =
        PackOptions { sessions: settings.sessions, intra_threads: settings.intra_threads, ..PackOptions::default() };
    let pack = ModelPack::open(&runtime, &settings.manifest, &settings.weights, &options)?;
    let far: FalseAcceptRate = config.enrolment.duplicate_far.parse().context("enrolment.duplicate_far")?;
    let duplicates = pack.manifest().ladder_at(far).context("enrolment.duplicate_far")?;
    let (_, report) = pack.providers().first().context("the model pack has no model")?;
    let skipped: Vec<String> = report.skipped.iter().map(|one| format!("{:?}: {}", one.provider, one.reason)).collect();
    tracing::info!(
        event = "models_loaded",
        pack = %pack.manifest().name,
        version = %pack.manifest().version,
        provider = ?report.used,
        skipped = %skipped.join("; "),
        "the model pack is in use"
    );
    Ok(Models { pack, duplicates })
}
