//! People to enrol: photographs of the data set or the demo, each with the embedding by which a search finds exactly them.
//!
//! In: the installed demo pictures, and `LINTEL_TEST_DATA` for more than three. Out: photographs that the model pack accepts,
//! of different people. No picture is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_sim::searches::Probe;
use serde_json::Value;

use super::Site;
use crate::row::part;

/// Somebody who can be enrolled.
pub struct Somebody {
    /// The bytes of a JPEG or PNG.
    pub photograph: Vec<u8>,
    /// How to find them.
    pub probe: Probe,
}

/// The first `wanted` people whose photograph is good enough to be enrolled.
pub fn people(site: &Site, wanted: usize) -> Result<Vec<Somebody>> {
    let config = site.file("embed.toml");
    std::fs::write(&config, config_text(site))?;
    let mut found = Vec::new();
    for picture in pictures()? {
        if found.len() == wanted {
            break;
        }
        if let Some(embedding) = embed(site, &config, &picture)? {
            let name = picture.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Somebody { photograph: std::fs::read(&picture)?, probe: Probe { name, embedding } });
        }
    }
    ensure!(found.len() == wanted, "{} of {wanted} photographs can be enrolled; set LINTEL_TEST_DATA", found.len());
    Ok(found)
}

/// One picture a person: the demo's three, then the data set's.
fn pictures() -> Result<Vec<PathBuf>> {
    let mut pictures: Vec<PathBuf> = ["obama.jpg", "biden.jpg", "astronaut.png"]
        .iter()
        .map(|name| part("demo").join(name))
        .filter(|path| path.exists())
        .collect();
    let Some(data) = std::env::var_os("LINTEL_TEST_DATA") else { return Ok(pictures) };
    let folder = Path::new(&data).join("faces/lfw-dev");
    let Ok(labels) = std::fs::read_to_string(folder.join("labels.csv")) else { return Ok(pictures) };
    let mut last = "";
    for line in labels.lines().skip(1) {
        let (file, person) = line.split_once(',').with_context(|| format!("labels.csv: {line:?}"))?;
        if person != last {
            pictures.push(folder.join(file));
            last = person;
        }
    }
    Ok(pictures)
}

/// The embedding of a photograph; none when the quality gate refuses it.
fn embed(site: &Site, config: &Path, picture: &Path) -> Result<Option<Vec<f32>>> {
    let mut command = Command::new(site.places().programs.join("edge-agent"));
    let output = command.arg("--config").arg(config).arg("embed").arg(picture).args(["-o", "json"]).output()?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("embed {}: {}", picture.display(), String::from_utf8_lossy(&output.stderr)))?;
    if told["accepted"] != true {
        return Ok(None);
    }
    let bytes = STANDARD.decode(told["template"].as_str().context("no template")?)?;
    Ok(Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes"))).collect()))
}

fn config_text(site: &Site) -> String {
    let places = site.places();
    format!(
        "schema_version = 1\n[agent]\nstate_dir = {:?}\nruntime_dir = {:?}\n[models]\nmanifest = {:?}\nweights = {:?}\nonnxruntime = {:?}\n",
        site.file("embed-state"),
        site.file("embed-run"),
        places.repository.join("models/faceplugin/manifest.toml"),
        places.parts.join("models/faceplugin"),
        places.parts.join("onnxruntime/libonnxruntime.so"),
    )
}
