//! Resident memory of both programs with a gallery of a thousand people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Figures;
use super::rig::Rig;
use crate::launcher::Places;
use crate::scene;

const PEOPLE: usize = 1000;

/// Enrols one photograph each of up to [`PEOPLE`] people of the test data, by the REST API as an integrator would.
///
/// Without test data the gallery stays empty, and the figure `people` says so.
pub(super) async fn measure(places: &Places) -> Result<Figures> {
    let clips = crate::launcher::run_dir()?;
    let corridor = clips.path().join("corridor.avi");
    scene::empty_corridor(&corridor, 5)?;
    let mut rig = Rig::start(places, 1, &corridor, "").await?;
    let mut enrolled = 0;
    let began = tokio::time::Instant::now();
    for (index, picture) in photographs()?.iter().enumerate() {
        let bytes = std::fs::read(picture).with_context(|| format!("photograph {}", picture.display()))?;
        // A small or blurred press photograph may be refused at the enrolment gate: the next one is taken.
        let id = format!("P-{index}");
        if rig.hub.enrol(&rig.tenant, &id, &id, vec![bytes]).await.is_ok() {
            enrolled += 1;
        }
        if enrolled == PEOPLE {
            break;
        }
    }
    let enrolling = began.elapsed();
    settle(&rig, enrolled).await?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Figures::from([
        ("people".to_owned(), enrolled as f64),
        ("enrol_ms_each".to_owned(), enrolling.as_secs_f64() * 1000.0 / (enrolled.max(1)) as f64),
        ("agent_resident_mib".to_owned(), mebibytes(rig.agent.process().resident_bytes()?)),
        ("hub_resident_mib".to_owned(), mebibytes(rig.hub.process().resident_bytes()?)),
    ]))
}

/// Waits until the agent searches as many templates as were enrolled.
async fn settle(rig: &Rig, templates: usize) -> Result<()> {
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let status = rig.setup.status(&["gallery", "status"])?;
        let there = status.pointer("/galleries/0/templates").and_then(Value::as_u64).unwrap_or_default();
        if there >= templates as u64 || tokio::time::Instant::now() > until {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One picture of each person in `faces/lfw-dev/labels.csv` (`path,person`).
fn photographs() -> Result<Vec<PathBuf>> {
    let data = std::env::var_os("LINTEL_TEST_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    let folder: &Path = &data.join("faces/lfw-dev");
    let Ok(labels) = std::fs::read_to_string(folder.join("labels.csv")) else { return Ok(Vec::new()) };
    let mut first = BTreeMap::new();
    for line in labels.lines().skip(1) {
        if let Some((path, person)) = line.split_once(',') {
            first.entry(person.to_owned()).or_insert_with(|| folder.join(path));
        }
    }
    Ok(first.into_values().collect())
}
