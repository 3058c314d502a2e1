//! `edge-agent models`: the model packs of this device.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Exit, Output, output};
use crate::config::Config;
use crate::logging::chain;
use crate::models::install::{self, Added};
use crate::models::proof::{self, Proof, prove};
use crate::models::shelf::{self, Shelved};

const ADD_HELP: &str = "\
Examples:
  edge-agent models add /media/stick/faceplugin-int8
  edge-agent models add ./pack -o json

The folder holds manifest.toml and the files that it names. They are copied to [models] packs_dir, opened there in a \
process of their own, and kept only if hashes, shapes and warm-up answers are the manifest's. Adding the same pack again \
examines it again. What is in use does not change: set [models] pack and restart the agent.";

/// Verbs of `models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// The packs there are, and which one is in use.
    List,
    /// Open packs and compare every hash, shape and warm-up answer with the manifest.
    #[command(after_help = "Example:\n  edge-agent models verify\n  edge-agent models verify faceplugin-int8 -o json")]
    Verify {
        /// Names of packs; all when none is named.
        names: Vec<String>,
    },
    /// Add a pack from a folder.
    #[command(after_help = ADD_HELP)]
    Add {
        /// The folder with manifest.toml.
        dir: PathBuf,
    },
    /// Remove a pack that was added and is not in use.
    #[command(after_help = "Example:\n  edge-agent models remove faceplugin-int8-0.0.1")]
    Remove {
        /// The name of the pack.
        name: String,
    },
    /// Open one pack and print what came of it: the process that `verify` and `add` start.
    #[command(hide = true)]
    Prove {
        /// Which pack, as JSON.
        question: String,
    },
}

pub(super) fn models(command: &ModelsCommand, config: &Config, form: Output) -> Exit {
    match command {
        ModelsCommand::List => list(config, form),
        ModelsCommand::Verify { names } => verify(names, config, form),
        ModelsCommand::Add { dir } => match install::add(&config.models, dir, output::progress) {
            Ok(added) => output::object(&told_added(&added, config), form),
            Err(error) => refused(&error),
        },
        ModelsCommand::Remove { name } => match install::remove(&config.models, name) {
            Ok(name) => output::object(&json!({"removed": name}), form),
            Err(error) => refused(&error),
        },
        ModelsCommand::Prove { question } => prove_here(question),
    }
}

/// The child's side. It is told everything it needs, so it runs without a configuration.
pub(super) fn prove_here(question: &str) -> Exit {
    output::text(&format!("{}\n", proof::answer(question)))
}

fn refused(error: &(dyn std::error::Error + 'static)) -> Exit {
    output::problem(&chain(error));
    Exit::Failure
}

fn list(config: &Config, form: Output) -> Exit {
    let packs = match shelf::list(&config.models) {
        Ok(packs) => packs,
        Err(error) => return refused(&error),
    };
    let in_use = shelf::find(&config.models, &config.models.pack);
    let rows: Vec<Value> =
        packs.iter().map(|pack| row(pack, in_use.as_ref().is_ok_and(|place| *place == pack.place))).collect();
    let printed = output::object(&json!({"packs": rows}), form);
    match in_use {
        Ok(_) => printed,
        Err(error) => refused(&error),
    }
}

fn row(pack: &Shelved, in_use: bool) -> Value {
    let manifest = pack.manifest.as_ref().ok();
    let state = match (&pack.manifest, pack.incomplete()) {
        (Err(reason), _) => format!("unreadable: {reason}"),
        (Ok(_), Some(missing)) => format!("incomplete: {missing}"),
        (Ok(_), None) => "complete".to_owned(),
    };
    json!({
        "name": pack.full_name(),
        "in_use": in_use,
        "default": pack.is_default,
        "space_id": manifest.map(|manifest| manifest.space_id.clone()),
        "licence": manifest.map(|manifest| manifest.licence.clone()),
        "bytes": manifest.map(|manifest| manifest.files().iter().map(|file| file.size_bytes).sum::<u64>()),
        "state": state,
        "folder": pack.place.weights.display().to_string(),
    })
}

fn verify(names: &[String], config: &Config, form: Output) -> Exit {
    let places = if names.is_empty() {
        shelf::list(&config.models)
            .map(|packs| packs.into_iter().map(|pack| (pack.full_name(), pack.place)).collect::<Vec<_>>())
    } else {
        names.iter().map(|name| Ok((name.clone(), shelf::find(&config.models, name)?))).collect()
    };
    let places = match places {
        Ok(places) => places,
        Err(error) => return refused(&error),
    };
    let mut rows = Vec::new();
    let mut bad = false;
    for (name, place) in places {
        output::progress(&format!("examining {name}"));
        rows.push(match prove(&config.models, &place) {
            Ok(proof) => told_proof(&proof, form),
            Err(error) => {
                bad = true;
                output::problem(&format!("{name}: {}", chain(&error)));
                json!({"pack": name, "good": false, "reason": chain(&error)})
            }
        });
    }
    match (output::object(&json!({"packs": rows}), form), bad) {
        (Exit::Success, true) => Exit::Failure,
        (exit, _) => exit,
    }
}

fn told_proof(proof: &Proof, form: Output) -> Value {
    let mut value = json!({"pack": proof.pack, "good": true, "space_id": proof.space_id});
    let providers: Vec<String> =
        proof.models.iter().map(|model| format!("{}={}", model.task, model.provider)).collect();
    value["models"] = match form {
        Output::Json => serde_json::to_value(&proof.models).unwrap_or_default(),
        Output::Table | Output::Toml => providers.join(" ").into(),
    };
    value
}

/// What was added, and what the operator has to do to use it.
fn told_added(added: &Added, config: &Config) -> Value {
    let in_use = shelf::find(&config.models, &config.models.pack).ok().and_then(|place| {
        shelf::list(&config.models).ok()?.into_iter().find(|pack| pack.place == place)?.manifest.ok()
    });
    let same_space = in_use.is_some_and(|manifest| manifest.space_id == added.proof.space_id);
    let note = if same_space {
        "the same embedding space as the pack in use: templates stay valid"
    } else {
        "another embedding space than the pack in use: only templates of this space will be matched, so the hub must hold some"
    };
    json!({
        "added": added.name,
        "was_there": added.was_there,
        "space_id": added.proof.space_id,
        "folder": added.dir.display().to_string(),
        "note": note,
        "to_use": format!("set [models] pack = {:?} and restart the agent", added.name),
    })
}
