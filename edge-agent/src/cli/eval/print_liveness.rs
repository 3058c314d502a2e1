//! The liveness report as JSON for scripts and as a table for people. The JSON keys are part of the interface.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::print::{columns, line, percent};
use crate::eval::lists::Label;
use crate::eval::liveness::{Ablation, Card, FrameTally, Item, LivenessReport, Tally};

/// Said of every report: ISO/IEC 30107-3 asks for hundreds of presentations a kind of attack.
const SMALL: &str = "each apcer_at_most is what so few presentations cannot exclude with 95 % confidence";
const ASSUMES: &str = "every attack looks like somebody enrolled, and every living person is known: an upper bound";

pub(super) fn json(report: &LivenessReport) -> String {
    let card = &report.card;
    let worst = card.worst();
    let attacks = card.attacks();
    let species: Map<String, Value> =
        card.species.iter().map(|(name, tally)| (name.clone(), species_json(tally))).collect();
    let mut value = json!({
        "species": species,
        "worst_apcer": worst.map(|(_, rate)| rate),
        "worst_species": worst.map(|(name, _)| name),
        "bpcer": card.bpcer(),
        "riapar": card.riapar(),
        "riapar_assumes": ASSUMES,
        "n_live": card.live.n(),
        "n_attack": attacks.n(),
        "apcer_at_most": attacks.at_most(attacks.live),
        "small": SMALL,
        "live": tally_json(&card.live),
        "live_videos": tally_json(&card.live_videos),
        "attacks": tally_json(&attacks),
        "items": report.items.iter().map(item_json).collect::<Vec<_>>(),
        "per_frame": per_frame_json(&report.items),
        "arrivals": arrivals_json(&report.items),
        "ablation": report.ablation.iter().map(ablation_json).collect::<Vec<_>>(),
    });
    value["calls"] = report
        .calls
        .iter()
        .map(|(task, runs)| {
            (task.to_string(), json!({"runs": runs, "per_look": rounded(*runs as f64 / report.n_looks.max(1) as f64)}))
        })
        .collect::<Map<String, Value>>()
        .into();
    value["level"] = report.level.into();
    value["pack"] = report.pack.as_str().into();
    format!("{value}\n")
}

fn species_json(tally: &Tally) -> Value {
    let mut value = tally_json(tally);
    value["apcer"] = tally.share(tally.live).into();
    value["apcer_at_most"] = tally.at_most(tally.live).into();
    value
}

fn tally_json(tally: &Tally) -> Value {
    json!({
        "n": tally.n(), "live": tally.live, "attack": tally.attack, "challenge": tally.challenge,
        "insufficient": tally.insufficient,
    })
}

fn item_json(item: &Item) -> Value {
    json!({
        "path": item.presentation.path,
        "label": item.presentation.label.name(),
        "species": item.presentation.species,
        "decision": item.decided.decision.name(),
        "score": item.decided.score,
        "by": item.decided.by.map(face_core::liveness::Method::name),
        "after_ms": item.decided.after.map(millis),
        "kind": if item.is_still { "still" } else { "video" },
        "length_ms": millis(item.length),
        "frames": item.n_frames,
        "looks": item.n_looks,
        "faces": item.n_faces,
        "scored_frames": item.frames.n,
        "frames_above": item.frames.n_live,
        "mean_passive": item.frames.mean,
        "mean_boxed": item.boxed,
        "mean_square": item.square,
        "glow": item.glow,
        "highest": item.highest.iter().map(|(method, score)| (method.name().to_owned(), json!(score))).collect::<Map<_, _>>(),
        "arrivals_ms": item.arrivals.iter().map(|after| after.map(millis)).collect::<Vec<_>>(),
    })
}

/// Rates of single frames at the passing score, for comparison with what a window makes of them.
fn per_frame_json(items: &[Item]) -> Value {
    let mut species: BTreeMap<&str, FrameTally> = BTreeMap::new();
    let mut live = FrameTally::default();
    for item in items {
        let tally = match item.presentation.label {
            Label::Live => &mut live,
            Label::Attack => species.entry(&item.presentation.species).or_default(),
        };
        tally.n += item.frames.n;
        tally.n_live += item.frames.n_live;
    }
    let apcer = |tally: &FrameTally| rounded(tally.n_live as f64 / tally.n.max(1) as f64);
    let species: Map<String, Value> = species
        .into_iter()
        .map(|(name, tally)| (name.to_owned(), json!({"n": tally.n, "apcer": apcer(&tally)})))
        .collect();
    let bpcer = rounded((live.n - live.n_live) as f64 / live.n.max(1) as f64);
    json!({"passive_above": 0.5, "n_live": live.n, "bpcer": bpcer, "species": species})
}

/// From a face's first frame to `live`, over arrivals at each half second of the living persons' videos.
fn arrivals_json(items: &[Item]) -> Value {
    let of = |label: Label| {
        let items = items.iter().filter(move |item| item.presentation.label == label);
        items.flat_map(|item| item.arrivals.iter().copied())
    };
    let (n, mut times): (usize, Vec<u64>) = {
        let all: Vec<Option<Duration>> = of(Label::Live).collect();
        (all.len(), all.into_iter().flatten().map(millis).collect())
    };
    times.sort_unstable();
    // An arrival that is never called live is slower than any that is.
    let at = |share: f64| times.get(((n as f64 * share).ceil() as usize).max(1) - 1).copied();
    let attacks: Vec<Option<Duration>> = of(Label::Attack).collect();
    json!({
        "every_ms": 500,
        "n": n,
        "live": times.len(),
        "p50_ms": at(0.5),
        "p90_ms": at(0.9),
        "p95_ms": at(0.95),
        "attack_n": attacks.len(),
        "attack_live": attacks.iter().flatten().count(),
    })
}

fn ablation_json(ablation: &Ablation) -> Value {
    json!({
        "method": ablation.method.name(),
        "asked": ablation.asked,
        "available": ablation.available,
        "passed": {"live": ablation.passed[0], "attack": ablation.passed[1]},
        "failed": {"live": ablation.failed[0], "attack": ablation.failed[1]},
        "without": ablation.without.as_ref().map(card_json),
        "alone": card_json(&ablation.alone),
    })
}

fn card_json(card: &Card) -> Value {
    json!({
        "worst_apcer": card.worst().map(|(_, rate)| rate),
        "bpcer": card.bpcer(),
        "live_videos_live": card.live_videos.live,
        "attacks_called_attack": card.attacks().attack,
        "attacks_called_live": card.attacks().live,
    })
}

pub(super) fn table(report: &LivenessReport) -> String {
    let (card, attacks) = (&report.card, report.card.attacks());
    let mut text = String::new();
    line(&mut text, "model pack", &report.pack);
    line(&mut text, "level", report.level);
    line(&mut text, "presentations", &format!("{} of living persons, {} attacks", card.live.n(), attacks.n()));
    let worst = card.worst().map_or_else(|| "-".to_owned(), |(name, rate)| format!("{} ({name})", percent(rate)));
    line(&mut text, "worst APCER", &worst);
    line(&mut text, "BPCER", &percent(card.bpcer()));
    line(&mut text, "live videos", &format!("{} of {} called live", card.live_videos.live, card.live_videos.n()));
    line(&mut text, "RIAPAR", &format!("{}: {ASSUMES}", percent(card.riapar())));
    let arrivals = arrivals_json(&report.items);
    let millis = |key: &str| arrivals[key].as_u64().map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms"));
    let told = format!(
        "p50 {}, p90 {}, p95 {} over {} arrivals; of {} arrivals of attacks {} were called live",
        millis("p50_ms"),
        millis("p90_ms"),
        millis("p95_ms"),
        arrivals["n"],
        arrivals["attack_n"],
        arrivals["attack_live"],
    );
    line(&mut text, "arrival to live", &told);
    let calls: Vec<String> = report
        .calls
        .iter()
        .map(|(task, runs)| format!("{task} {:.2}", *runs as f64 / report.n_looks.max(1) as f64))
        .collect();
    line(&mut text, "calls per look", &format!("{} ({} looks)", calls.join(", "), report.n_looks));
    text.push('\n');
    text.push_str(&columns(&species_rows(card)));
    text.push_str(&format!("\n{}\n\n", columns(&item_rows(&report.items)).trim_end_matches('\n')));
    text.push_str(&columns(&ablation_rows(&report.ablation)));
    text
}

fn species_rows(card: &Card) -> Vec<Vec<String>> {
    let head = ["attack", "n", "APCER", "at most (95 %)", "called attack", "challenge", "insufficient"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, tally) in &card.species {
        rows.push(vec![
            name.clone(),
            tally.n().to_string(),
            percent(tally.share(tally.live)),
            percent(tally.at_most(tally.live)),
            tally.attack.to_string(),
            tally.challenge.to_string(),
            tally.insufficient.to_string(),
        ]);
    }
    rows
}

fn item_rows(items: &[Item]) -> Vec<Vec<String>> {
    let head = ["presentation", "label", "decision", "score", "by", "after", "frames with a face"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for item in items {
        let dash = || "-".to_owned();
        rows.push(vec![
            item.presentation.path.clone(),
            item.presentation.label.name().to_owned(),
            item.decided.decision.name().to_owned(),
            item.decided.score.map_or_else(dash, |score| format!("{score:.2}")),
            item.decided.by.map_or_else(dash, |by| by.name().to_owned()),
            item.decided.after.map_or_else(dash, |after| format!("{} ms", millis(after))),
            format!("{} of {}", item.n_faces, item.n_looks),
        ]);
    }
    rows
}

fn ablation_rows(ablation: &[Ablation]) -> Vec<Vec<String>> {
    let head = [
        "method",
        "asked for",
        "passed (live, attack)",
        "failed (live, attack)",
        "without it: worst APCER",
        "live videos live",
        "attacks found",
        "alone: worst APCER",
        "live videos live",
        "attacks found",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for row in ablation {
        let card = |card: &Card| {
            let worst = card.worst().map_or_else(|| "-".to_owned(), |(_, rate)| percent(rate));
            vec![worst, card.live_videos.live.to_string(), card.attacks().attack.to_string()]
        };
        let mut cells = vec![
            row.method.name().to_owned(),
            if row.asked { "yes" } else { "no" }.to_owned(),
            format!("{}, {}", row.passed[0], row.passed[1]),
            format!("{}, {}", row.failed[0], row.failed[1]),
        ];
        cells.extend(row.without.as_ref().map_or_else(|| vec!["-".to_owned(); 3], card));
        if row.available == 0 {
            cells.push("never available here".to_owned());
        } else {
            cells.extend(card(&row.alone));
        }
        rows.push(cells);
    }
    rows
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
