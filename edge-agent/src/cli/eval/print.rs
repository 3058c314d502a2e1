//! Reports as JSON for scripts and as tables for people. The JSON keys are part of the interface.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::eval::{Accuracy, DRAWS, IdentifyReport, Lost, OpenSet, PairsReport, Seen};

mod against;

/// Pictures without a template that a table names; JSON names them all.
const NAMED: usize = 20;

pub(super) fn pairs_json(report: &PairsReport) -> String {
    let all = &report.all;
    let accuracy = report.listed.as_ref().and_then(|listed| listed.accuracy.as_ref());
    let mut value = json!({
        "accuracy": accuracy.map(|accuracy| accuracy.mean),
        "accuracy_std": accuracy.and_then(|accuracy| accuracy.std),
        "accuracy_method": accuracy.map(method),
        "eer": all.equal_error_rate,
        "n_genuine": all.n_genuine,
        "n_impostor": all.n_impostor,
        "n_lost": {"genuine": all.n_lost_genuine, "impostor": all.n_lost_impostor},
        "listed": report.listed.as_ref().map(|listed| json!({
            "n": listed.n, "n_genuine": listed.n_genuine, "n_lost": listed.n_lost, "folds": listed.n_folds,
        })),
        "people": {"n": all.n_people, "from": people_from(report)},
        "replicates": all.n_replicates,
    });
    let keys = ["tar_at_far", "tar_intervals", "thresholds", "threshold_intervals", "unsupported"];
    let mut maps = keys.map(|_| Map::new());
    for point in &all.points {
        let (name, found) = (point.rate.name, point.found.as_ref());
        let cells = [
            json!(found.and_then(|found| found.true_accepts)),
            json!(found.and_then(|found| found.true_accepts_interval)),
            json!(found.map(|found| found.threshold)),
            json!(found.and_then(|found| found.threshold_interval)),
        ];
        for (map, cell) in maps.iter_mut().zip(cells) {
            map.insert(name.to_owned(), cell);
        }
        if found.is_none() {
            maps[4]
                .insert(name.to_owned(), too_few("impostor pairs", all.n_impostor, point.rate.trials_needed()).into());
        }
    }
    for (key, map) in keys.into_iter().zip(maps) {
        value[key] = map.into();
    }
    value["at_manifest_thresholds"] = report
        .manifest
        .iter()
        .map(|point| {
            let figures = json!({
                "threshold": point.threshold, "tar": point.true_accepts, "far": point.false_accepts,
                "listed_right": point.n_right,
            });
            (point.promised.clone(), figures)
        })
        .collect::<Map<String, Value>>()
        .into();
    if let Some(plain) = &report.against {
        value["against"] = against::pairs_json(plain, report.seen.n_pictures);
    }
    with_seen(value, &report.seen)
}

pub(super) fn identify_json(report: &IdentifyReport) -> String {
    let mut sizes: Vec<Value> = report.sizes.iter().map(size_json).collect();
    for (size, misses) in sizes.iter_mut().zip(report.against.iter().flat_map(|against| &against.misses)) {
        size["against"] = json!({"pipeline": "plain", "fnir_at_fpir": against::rates_json(misses)});
    }
    let value = json!({
        "sizes": sizes,
        "people": {"n": report.n_people, "from": report.labels.display().to_string()},
        "margin": report.margin,
        "draws": DRAWS,
    });
    with_seen(value, &report.seen)
}

fn size_json(size: &OpenSet) -> Value {
    let (mut rates, mut intervals, mut thresholds, mut unsupported) = (Map::new(), Map::new(), Map::new(), Map::new());
    for point in &size.points {
        let (name, found) = (point.rate.name.to_owned(), point.found.as_ref());
        rates.insert(name.clone(), json!(found.map(|found| found.misses)));
        intervals.insert(name.clone(), json!(found.and_then(|found| found.misses_interval)));
        thresholds.insert(name.clone(), json!(found.map(|found| found.threshold)));
        if found.is_none() {
            unsupported
                .insert(name, too_few("strangers' pictures", size.n_strangers, point.rate.trials_needed()).into());
        }
    }
    json!({
        "n": size.n, "enrolled": size.enrolled,
        "fnir_at_fpir": rates, "fnir_intervals": intervals, "thresholds": thresholds, "unsupported": unsupported,
        "mated_people": size.n_mated_people, "mated_probes": size.n_mated, "stranger_probes": size.n_strangers,
        "unenrolled": size.n_unenrolled,
    })
}

/// What both reports say of their pictures.
fn with_seen(mut value: Value, seen: &Seen) -> String {
    let calls: Map<String, Value> = seen
        .calls
        .iter()
        .map(|(task, runs)| (task.to_string(), json!({"runs": runs, "per_face": per_face(*runs, seen.n_faces)})))
        .collect();
    let failure = |lost: &Lost| json!({"path": lost.path, "reasons": lost.codes, "message": lost.why});
    value["fte"] = seen.failure_to_acquire().into();
    value["pictures"] = seen.n_pictures.into();
    value["failures"] = seen.lost.iter().map(failure).collect();
    value["calls"] = calls.into();
    value["pack"] = seen.pack.as_str().into();
    value["space_id"] = seen.space_id.as_str().into();
    value["gate"] = seen.gate.name().into();
    value["seed"] = seen.seed.into();
    format!("{value}\n")
}

pub(super) fn pairs_table(report: &PairsReport) -> String {
    let all = &report.all;
    let mut text = seen_table(&report.seen);
    let lost = if all.n_lost_genuine + all.n_lost_impostor == 0 {
        String::new()
    } else {
        let (genuine, impostor) = (all.n_lost_genuine, all.n_lost_impostor);
        format!("; without a template {genuine} genuine (counted as refused) and {impostor} impostor (left out)")
    };
    line(&mut text, "people", &format!("{}, from {}", all.n_people, people_from(report)));
    line(&mut text, "all pairs", &format!("{} genuine, {} impostor{lost}", all.n_genuine, all.n_impostor));
    if let Some(listed) = &report.listed {
        let counts = format!(
            "{} genuine of {}, {} without a template (counted as wrong)",
            listed.n_genuine, listed.n, listed.n_lost
        );
        line(&mut text, "listed pairs", &counts);
        let accuracy = listed.accuracy.as_ref().map_or_else(
            || "none: a fold has no other pairs to take a threshold from".to_owned(),
            |accuracy| format!("{}{}  ({})", percent(accuracy.mean), deviation(accuracy), method(accuracy)),
        );
        line(&mut text, "accuracy", &accuracy);
    }
    line(&mut text, "equal error rate", &all.equal_error_rate.map_or_else(|| "-".to_owned(), percent));
    let mut rows = vec![["FAR", "TAR", "95 %", "threshold", "95 %"].map(str::to_owned).to_vec()];
    for point in &all.points {
        rows.push(match &point.found {
            Some(found) => vec![
                point.rate.name.to_owned(),
                found.true_accepts.map_or_else(|| "-".to_owned(), percent),
                found.true_accepts_interval.map_or_else(|| "-".to_owned(), percents),
                format!("{:.4}", found.threshold),
                found.threshold_interval.map_or_else(|| "-".to_owned(), |(low, high)| format!("{low:.4} to {high:.4}")),
            ],
            None => {
                vec![point.rate.name.to_owned(), too_few("impostor pairs", all.n_impostor, point.rate.trials_needed())]
            }
        });
    }
    text.push_str("\nAll pictures against each other (cosine at or above the threshold is accepted):\n");
    text.push_str(&columns(&rows));
    let mut rows =
        vec![["promised FAR", "threshold", "TAR", "FAR found", "listed pairs right"].map(str::to_owned).to_vec()];
    for point in &report.manifest {
        rows.push(vec![
            point.promised.clone(),
            format!("{:.4}", point.threshold),
            point.true_accepts.map_or_else(|| "-".to_owned(), percent),
            point.false_accepts.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2e}")),
            point
                .n_right
                .zip(report.listed.as_ref())
                .map_or_else(|| "-".to_owned(), |(right, listed)| format!("{right} of {}", listed.n)),
        ]);
    }
    text.push_str("\nAt the thresholds of the manifest:\n");
    text.push_str(&columns(&rows));
    if let Some(plain) = &report.against {
        text.push_str(&against::pairs_table(plain, report.seen.n_pictures));
    }
    text
}

pub(super) fn identify_table(report: &IdentifyReport) -> String {
    let mut text = seen_table(&report.seen);
    line(&mut text, "people", &format!("{}, from {}", report.n_people, report.labels.display()));
    line(&mut text, "decision", &format!("open set with a margin of {}, {DRAWS} draws", report.margin));
    if !report.three {
        line(&mut text, "enrolment", "with 1 picture only: nobody has four, three to enrol with and one to come with");
    }
    let head =
        ["gallery", "enrolled with", "who come", "their probes", "strangers", "FPIR", "FNIR", "95 %", "threshold"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for size in &report.sizes {
        for point in &size.points {
            let mut row = vec![
                format!("{} people", size.n),
                format!("{} each", size.enrolled),
                format!("{} people", size.n_mated_people),
                size.n_mated.to_string(),
                size.n_strangers.to_string(),
                point.rate.name.to_owned(),
            ];
            match &point.found {
                Some(found) => row.extend([
                    percent(found.misses),
                    found.misses_interval.map_or_else(|| "-".to_owned(), percents),
                    format!("{:.4}", found.threshold),
                ]),
                None => row.push(too_few("strangers' pictures", size.n_strangers, point.rate.trials_needed())),
            }
            rows.push(row);
        }
    }
    text.push('\n');
    text.push_str(&columns(&rows));
    if let Some(plain) = &report.against {
        text.push_str(&against::identify_table(plain, &report.sizes));
    }
    let unenrolled: usize = report.sizes.iter().map(|size| size.n_unenrolled).sum();
    if unenrolled > 0 {
        let _ = writeln!(
            text,
            "\n{unenrolled} times, over all draws, somebody could not be enrolled; their probes count as missed."
        );
    }
    text
}

fn seen_table(seen: &Seen) -> String {
    let mut text = String::new();
    line(&mut text, "model pack", &format!("{}, space {}", seen.pack, seen.space_id));
    line(&mut text, "gate, seed", &format!("{}, {}", seen.gate.name(), seen.seed));
    let (n, lost) = (seen.n_pictures, seen.lost.len());
    let share = percent(seen.failure_to_acquire());
    line(&mut text, "pictures", &format!("{n}, of which {lost} ({share}) gave no template"));
    for failure in seen.lost.iter().take(NAMED) {
        let _ = writeln!(text, "                    {}: {}", failure.path, failure.why);
    }
    if lost > NAMED {
        let _ = writeln!(text, "                    and {} more; -o json names them all", lost - NAMED);
    }
    let calls: Vec<String> =
        seen.calls.iter().map(|(task, runs)| format!("{task} {:.3}", per_face(*runs, seen.n_faces))).collect();
    line(&mut text, "calls per face", &format!("{} ({} faces)", calls.join(", "), seen.n_faces));
    text
}

pub(super) fn line(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key:<18}  {value}");
}

pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let n = rows.first().map_or(0, Vec::len);
    // A row that ends early says why in its last cell, which may run on over the columns that it has not.
    let cells = |column: usize| {
        rows.iter().filter(move |row| row.len() == n || column + 1 < row.len()).map(move |row| &row[column])
    };
    let widths: Vec<usize> =
        (0..n).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    text
}

fn people_from(report: &PairsReport) -> String {
    report.labels.as_ref().map_or_else(
        || "the pairs alone: pictures that no pair relates are not compared".to_owned(),
        |labels| labels.display().to_string(),
    )
}

fn method(accuracy: &Accuracy) -> String {
    match accuracy.std {
        Some(_) => format!("mean of {} folds, the threshold of each from the others", accuracy.thresholds.len()),
        None => "best single threshold for these very pairs: optimistic".to_owned(),
    }
}

fn deviation(accuracy: &Accuracy) -> String {
    accuracy.std.map_or_else(String::new, |std| format!(" ± {}", percent(std)))
}

fn too_few(what: &str, found: usize, needed: u64) -> String {
    format!("not supported: {found} {what}, {needed} are needed (rule of three)")
}

fn per_face(runs: u64, n_faces: usize) -> f64 {
    if n_faces == 0 { 0.0 } else { (runs as f64 / n_faces as f64 * 1_000.0).round() / 1_000.0 }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn percents((low, high): (f64, f64)) -> String {
    format!("{:.2} to {:.2} %", low * 100.0, high * 100.0)
}
