//! `edge-agent eval report` on the demonstration pictures: one page, whole, and nothing outside it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod support;

use support::{Parts, Site, text};

const LABELS: &str = "path,person\nobama.jpg,Obama\nobama2.jpg,Obama\nobama3.jpg,Obama\nbiden.jpg,Biden\n";
const PRESENTATIONS: &str = "path,label,species\nsingle_face.mp4,live,\nbiden.jpg,attack,print & paste\n";

fn site(parts: &Parts) -> Site {
    let site = Site::new(parts, "");
    std::fs::write(site.path("labels.csv"), LABELS).unwrap();
    std::fs::write(site.path("list.csv"), PRESENTATIONS).unwrap();
    site
}

#[test]
fn a_report_is_one_page_that_needs_nothing_else() {
    let Some(parts) = Parts::find("a_report_is_one_page_that_needs_nothing_else") else { return };
    let site = site(&parts);
    let path = |name: &str| site.path(name).display().to_string();
    let demo = parts.demo("").display().to_string();
    let (labels, list, out) = (path("labels.csv"), path("list.csv"), path("report.html"));
    let ask = ["eval", "report", "--images", &demo, "--labels", &labels, "--out", &out];
    let told = site.json(&[&ask[..], &["--liveness-list", &list, "--liveness-root", &demo]].concat());
    let page = std::fs::read_to_string(&out).unwrap();
    assert_eq!(told["bytes"], page.len());
    assert_eq!(page.matches("<svg").count(), 4, "ROC, DET, scores, error versus reject");
    for part in
        ["ROC", "DET", "genuine pairs", "BPCER", "RIAPAR", "print &amp; paste", "single_face.mp4", "faceplugin-0.0.1"]
    {
        assert!(page.contains(part), "{part} is missing");
    }
    for foreign in ["<script", "src=", "href=", "http:", "https:", "url(", "data:"] {
        assert!(!page.contains(foreign), "the page reaches outside with {foreign}");
    }
    // Without the liveness list the page says so, and takes the place of the one before.
    site.json(&ask);
    let page = std::fs::read_to_string(&out).unwrap();
    assert!(page.contains("Not measured here") && !page.contains("BPCER"));
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let site = Site::with_config("schema_version = 1\n");
    let out = site.path("nowhere/report.html").display().to_string();
    let output = site.output(&["eval", "report", "--images", "/", "--labels", "x.csv", "--out", &out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nowhere/report.html: cannot be written there"), "{}", text(&output.stderr));
    // One liveness argument without the other is a wrong command line.
    let half = ["eval", "report", "--images", "/", "--labels", "x.csv", "--out", "r.html", "--liveness-list", "l.csv"];
    assert_eq!(site.output(&half).status.code(), Some(2));
}
