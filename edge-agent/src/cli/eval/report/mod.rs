//! `eval report`: the figures of `eval pairs` and `eval liveness` as one page that needs nothing else.
//!
//! In: reports. Out: HTML with its style and drawings inside: no script, no address, no picture of anybody. Names of files
//! are written as text. Deliberately absent: measuring (`crate::eval`).

mod chart;

use std::fmt::Write;
use std::io;
use std::path::Path;

use chart::{Axis, Line, Scale, chart};

use crate::eval::liveness::LivenessReport;
use crate::eval::{Curves, Histogram, PairsReport};

const GENUINE: &str = "#1b6ca8";
const IMPOSTOR: &str = "#c0392b";

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}\
table{border-collapse:collapse;margin:.6em 0}td,th{border-bottom:1px solid #ddd;padding:.25em .8em;text-align:left}\
figure{display:inline-block;width:47%;min-width:330px;margin:.5em 1%;vertical-align:top}figcaption{color:#555;font-size:.9em}\
svg{width:100%;font-size:11px}.grid{stroke:#e5e5e5}.mind{background:#fff6e0;padding:.5em .8em}";

/// The whole page. `when` is the day of the measurement.
pub(super) fn page(pairs: &PairsReport, liveness: Option<&LivenessReport>, when: &str) -> String {
    let mut body = String::new();
    recognition(&mut body, pairs);
    drawings(&mut body, &pairs.curves, pairs);
    match liveness {
        Some(report) => card(&mut body, report),
        None => body.push_str(
            "<h2>Liveness</h2><p class=mind>Not measured here: name --liveness-list and --liveness-root to have its report card.</p>",
        ),
    }
    let seen = &pairs.seen;
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Lintel: {pack} measured</title><style>{STYLE}</style>\n<h1>Recognition and liveness, measured</h1>\n\
         <p>Model pack {pack}, space {space}; gate {gate}; seed {seed}; {when}. Made by <code>edge-agent eval report</code> with the code of \
         the door.</p>\n{body}</html>\n",
        pack = escaped(&seen.pack),
        space = escaped(&seen.space_id),
        gate = seen.gate.name(),
        seed = seen.seed,
    )
}

/// Writes a page beside its place first, so that a page that is there is whole.
pub(super) fn write(path: &Path, page: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let part = path.with_file_name(name);
    std::fs::write(&part, page).and_then(|()| std::fs::rename(&part, path)).inspect_err(|_| {
        // What is left of a failed attempt is of no use to anybody.
        let _ = std::fs::remove_file(&part);
    })
}

fn recognition(body: &mut String, report: &PairsReport) {
    let (seen, all) = (&report.seen, &report.all);
    put(body, "<h2>Recognition</h2><table>");
    let mut row = |name: &str, value: String| put(body, &format!("<tr><th>{name}<td>{value}"));
    row(
        "pictures",
        format!(
            "{}, of which {} gave no template ({})",
            seen.n_pictures,
            seen.lost.len(),
            percent(seen.failure_to_acquire())
        ),
    );
    row("people", all.n_people.to_string());
    row("genuine pairs", format!("{} ({} without a template count as refused)", all.n_genuine, all.n_lost_genuine));
    row("impostor pairs", format!("{} ({} without a template left out)", all.n_impostor, all.n_lost_impostor));
    row("equal error rate", all.equal_error_rate.map_or_else(|| "too few pairs".to_owned(), percent));
    if let Some(accuracy) = report.listed.as_ref().and_then(|listed| listed.accuracy.as_ref()) {
        let spread = accuracy.std.map_or_else(
            || " (best single threshold: optimistic)".to_owned(),
            |std| format!(" ± {} over folds", percent(std)),
        );
        row("accuracy of the listed pairs", format!("{}{spread}", percent(accuracy.mean)));
    }
    put(body, "</table><table><tr><th>FAR<th>TAR (95 %)<th>threshold (95 %)");
    for point in &all.points {
        let told = point.found.as_ref().map_or_else(
            || "<td colspan=2>not supported: too few impostor pairs (rule of three)".to_owned(),
            |found| {
                let accepts = found.true_accepts.map_or_else(|| "-".to_owned(), percent);
                let accepts_interval =
                    found.true_accepts_interval.map(|(low, high)| format!(" ({} to {})", percent(low), percent(high)));
                let threshold_interval =
                    found.threshold_interval.map(|(low, high)| format!(" ({low:.4} to {high:.4})"));
                format!(
                    "<td>{accepts}{}<td>{:.4}{}",
                    accepts_interval.unwrap_or_default(),
                    found.threshold,
                    threshold_interval.unwrap_or_default()
                )
            },
        );
        put(body, &format!("<tr><td>{}{told}", point.rate.name));
    }
    put(body, "</table>");
}

fn drawings(body: &mut String, curves: &Curves, report: &PairsReport) {
    let n = report.all.n_impostor.max(10) as f64;
    let far = Axis { name: "false accept rate", from: 10f64.powf(-n.log10().floor()), to: 1.0, scale: Scale::Log };
    let errors = || curves.errors.iter().map(|point| (point.false_accepts, point.false_rejects));
    let points = || {
        let found = report.all.points.iter().filter_map(|point| Some((point, point.found.as_ref()?.true_accepts?)));
        found.map(|(point, accepts)| (point.rate.name.to_owned(), point.rate.value, accepts))
    };
    let lowest = errors().map(|(_, rejects)| rejects).filter(|rejects| *rejects > 0.0).fold(0.1, f64::min);
    let tar = Axis { name: "true accept rate", from: 0.0, to: 1.0, scale: Scale::Linear(5) };
    let frr = Axis { name: "false reject rate", from: 10f64.powf(lowest.log10().floor()), to: 1.0, scale: Scale::Log };
    let roc = Line {
        name: "",
        colour: GENUINE,
        points: errors().map(|(accepts, rejects)| (accepts, 1.0 - rejects)).collect(),
    };
    let det = Line { name: "", colour: GENUINE, points: errors().collect() };
    let roc_marks: Vec<_> = points().collect();
    let det_marks: Vec<_> = points().map(|(name, rate, accepts)| (name, rate, 1.0 - accepts)).collect();
    put(body, "<h2>Curves</h2>");
    figure(
        body,
        "ROC: every threshold; the points are the supported rates.",
        &chart("ROC", (far, tar), &[roc], &roc_marks),
    );
    figure(
        body,
        "DET: both errors, logarithmic; nearer to the lower left is better.",
        &chart("DET", (far, frr), &[det], &det_marks),
    );
    figure(body, "Scores: share of each kind of pair in bins of 0.02.", &histogram(&curves.histogram));
    let highest = curves.rejects.iter().map(|(_, refused)| *refused).fold(0.01, f64::max);
    let away = Axis {
        name: "share of genuine pairs turned away, worst quality first",
        from: 0.0,
        to: 0.5,
        scale: Scale::Linear(5),
    };
    let refused = Axis { name: "false reject rate of the rest", from: 0.0, to: highest, scale: Scale::Linear(4) };
    let line = Line { name: "", colour: GENUINE, points: curves.rejects.clone() };
    let caption = format!(
        "Error versus reject at the threshold {:.3}: where it falls, quality finds the pictures that fail.",
        curves.reject_threshold
    );
    figure(body, &caption, &chart("error versus reject", (away, refused), &[line], &[]));
}

fn histogram(histogram: &Histogram) -> String {
    // Each bin as a step, so that a share can be read off.
    let steps = |shares: &[f64]| {
        let edge = |bin: usize| f64::from(histogram.from) + bin as f64 * f64::from(histogram.bin);
        shares.iter().enumerate().flat_map(|(bin, share)| [(edge(bin), *share), (edge(bin + 1), *share)]).collect()
    };
    let highest = histogram.genuine.iter().chain(&histogram.impostors).copied().fold(0.01, f64::max);
    let score = Axis { name: "cosine", from: -0.4, to: 1.0, scale: Scale::Linear(7) };
    let shares = Axis { name: "share", from: 0.0, to: highest, scale: Scale::Linear(4) };
    let lines = [
        Line { name: "genuine", colour: GENUINE, points: steps(&histogram.genuine) },
        Line { name: "impostor", colour: IMPOSTOR, points: steps(&histogram.impostors) },
    ];
    chart("scores", (score, shares), &lines, &[])
}

fn card(body: &mut String, report: &LivenessReport) {
    let card = &report.card;
    let attacks = card.attacks();
    put(body, &format!("<h2>Liveness report card, level {}</h2>", report.level));
    put(
        body,
        &format!(
            "<p class=mind>{} attacks of {} kinds and {} living persons. None of {} attacks called live would leave an APCER of up to {} unrefuted \
         with 95 % confidence.</p>",
            attacks.n(),
            card.species.len(),
            card.live.n(),
            attacks.n(),
            percent(attacks.at_most(0)),
        ),
    );
    put(
        body,
        "<table><tr><th>kind of attack<th>n<th>APCER<th>at most (95 %)<th>called attack<th>challenge<th>insufficient",
    );
    for (name, tally) in &card.species {
        let worst = if card.worst().is_some_and(|(worst, _)| worst == name) { " (worst)" } else { "" };
        put(
            body,
            &format!(
                "<tr><td>{}{worst}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
                escaped(name),
                tally.n(),
                percent(tally.share(tally.live)),
                percent(tally.at_most(tally.live)),
                tally.attack,
                tally.challenge,
                tally.insufficient
            ),
        );
    }
    put(body, &format!("</table><p>BPCER {}; RIAPAR {}.</p>", percent(card.bpcer()), percent(card.riapar())));
    put(body, "<table><tr><th>presentation<th>label<th>decision<th>by<th>score");
    for item in &report.items {
        let kind = if item.presentation.species.is_empty() {
            String::new()
        } else {
            format!(" ({})", escaped(&item.presentation.species))
        };
        put(
            body,
            &format!(
                "<tr><td>{}<td>{}{kind}<td>{}<td>{}<td>{}",
                escaped(&item.presentation.path),
                item.presentation.label.name(),
                item.decided.decision.name(),
                item.decided.by.map_or("-", face_core::liveness::Method::name),
                item.decided.score.map_or_else(|| "-".to_owned(), |score| format!("{score:.2}"))
            ),
        );
    }
    put(body, "</table>");
}

fn figure(body: &mut String, caption: &str, svg: &str) {
    put(body, &format!("<figure>{svg}<figcaption>{caption}</figcaption></figure>"));
}

fn put(body: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(body, "{text}");
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Text as it is, whatever a file is called.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_page_that_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        super::write(&path, "first").unwrap();
        super::write(&path, "second").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(super::write(&dir.path().join("nowhere/report.html"), "x").is_err());
    }

    #[test]
    fn names_of_files_are_text() {
        assert_eq!(super::escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
