//! Figures of the running programs: how fast a door opens, what nobody costs, how much memory a gallery takes.
//!
//! In: the release binaries and the installed parts. Out: figures by name, each with its unit in the name. Nothing here is
//! a test: machines are shared and noisy, and a figure is read beside the others of its run.

mod arrivals;
mod idle;
mod memory;
mod rig;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::launcher::Places;

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// Runs everything and collects the figures; `say` is called with each part's name before it begins.
pub async fn run(places: &Places, mut say: impl FnMut(&str)) -> Result<Figures> {
    let mut figures = Figures::new();
    say("start, and arrivals at the door");
    figures.extend(arrivals::measure(places).await?);
    say("nobody before the camera, and first detections");
    figures.extend(idle::measure(places).await?);
    say("memory with a full gallery");
    figures.extend(memory::measure(places).await?);
    Ok(figures)
}

/// Median and 95th percentile under `name_p50` and `name_p95`, and the count.
pub(crate) fn percentiles(name: &str, mut values: Vec<f64>) -> Figures {
    values.sort_by(f64::total_cmp);
    let mut figures = Figures::from([(format!("{name}_n"), values.len() as f64)]);
    if let Some(last) = values.len().checked_sub(1) {
        figures.insert(format!("{name}_p50"), values[last / 2]);
        figures.insert(format!("{name}_p95"), values[last * 95 / 100]);
    }
    figures
}
