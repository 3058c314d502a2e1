//! The plain pipeline beside the door's own, as JSON and as tables.

use serde_json::{Map, Value, json};

use super::{columns, per_face, percent};
use crate::eval::{AgainstIdentify, AgainstPairs, AtRates, Difference, OpenSet};

pub(super) fn pairs_json(plain: &AgainstPairs, n_pictures: usize) -> Value {
    let calls = plain
        .calls
        .iter()
        .map(|(task, runs)| (task.to_string(), json!({"runs": runs, "per_face": per_face(*runs, plain.n_faces)})));
    json!({
        "pipeline": "plain",
        "accuracy": plain.accuracy.as_ref().map(difference_json),
        "tar_at_far": rates_json(&plain.true_accepts),
        "eer": plain.all.equal_error_rate,
        "fte": plain.lost.len() as f64 / n_pictures as f64,
        "calls": calls.collect::<Map<String, Value>>(),
    })
}

pub(super) fn rates_json(rates: &AtRates) -> Value {
    let rates = rates.iter().map(|(rate, found)| (rate.name.to_owned(), found.as_ref().map(difference_json).into()));
    rates.collect::<Map<String, Value>>().into()
}

fn difference_json(found: &Difference) -> Value {
    json!({"plain": found.plain, "ours": found.ours, "difference": found.change(), "interval": found.interval})
}

pub(super) fn pairs_table(plain: &AgainstPairs, n_pictures: usize) -> String {
    let mut rows = vec![["", "plain", "ours", "difference", "95 %"].map(str::to_owned).to_vec()];
    rows.extend(plain.accuracy.as_ref().map(|found| row("accuracy", found)));
    rows.extend(
        plain
            .true_accepts
            .iter()
            .filter_map(|(rate, found)| Some(row(&format!("TAR at {}", rate.name), found.as_ref()?))),
    );
    let calls: Vec<String> =
        plain.calls.iter().map(|(task, runs)| format!("{task} {:.3}", per_face(*runs, plain.n_faces))).collect();
    let (lost, calls) = (plain.lost.len(), calls.join(", "));
    format!(
        "\nAgainst the plain pipeline (of {n_pictures} pictures {lost} gave it no template; calls per face {calls}):\n{}",
        columns(&rows)
    )
}

pub(super) fn identify_table(plain: &AgainstIdentify, sizes: &[OpenSet]) -> String {
    let head = ["gallery", "enrolled with", "FNIR at FPIR", "plain", "ours", "difference", "95 %"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (size, misses) in sizes.iter().zip(&plain.misses) {
        for (rate, found) in misses {
            let Some(found) = found else { continue };
            let mut cells = vec![format!("{} people", size.n), format!("{} each", size.enrolled)];
            cells.extend(row(rate.name, found));
            rows.push(cells);
        }
    }
    let lost = plain.seen.lost.len();
    format!("\nAgainst the plain pipeline ({lost} pictures gave it no template):\n{}", columns(&rows))
}

/// Name, both figures, and the change in points with its interval.
fn row(name: &str, found: &Difference) -> Vec<String> {
    let points = |share: f64| format!("{:+.2}", share * 100.0);
    let interval =
        found.interval.map_or_else(|| "-".to_owned(), |(low, high)| format!("{} to {}", points(low), points(high)));
    vec![name.to_owned(), percent(found.plain), percent(found.ours), points(found.change()), interval]
}
