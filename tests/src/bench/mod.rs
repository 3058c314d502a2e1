//! Figures of the running programs: how fast a door opens, what nobody costs, how much memory a gallery takes.
//!
//! In: the release binaries and the installed parts. Out: figures by name, each with its unit in the name. Nothing here is
//! a test: machines are shared and noisy, and a figure is read beside the others of its run.

mod arrivals;
mod cameras;
mod idle;
mod memory;
mod rig;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::launcher::Places;

pub use cameras::{Cameras, cameras};

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
pub(crate) fn percentiles(name: &str, values: &[f64]) -> Figures {
    let mut figures = Figures::from([(format!("{name}_n"), values.len() as f64)]);
    for share in [50, 95] {
        figures.extend(percentile(values, share).map(|value| (format!("{name}_p{share}"), value)));
    }
    figures
}

/// The smallest value that at least `share` percent of the values do not exceed; none of nothing.
#[must_use]
pub fn percentile(values: &[f64], share: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * share).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_a_value_that_occurred_and_never_flatters() {
        let values: Vec<f64> = (1..=40).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(20.0));
        assert_eq!(percentile(&values, 95), Some(38.0));
        assert_eq!(percentile(&values[..10], 95), Some(10.0));
        assert_eq!(percentile(&values, 100), Some(40.0));
        assert_eq!(percentile(&[], 95), None);
    }
}
