//! The manifest is read strictly: what is not known is refused, what cannot be right is named.

mod support;

use face_runtime::Task;
use face_runtime::manifest::{FalseAcceptRate, Manifest, ManifestError};
use support::{chain, manifest_text};

fn edited(from: &str, to: &str) -> Result<Manifest, ManifestError> {
    let text = manifest_text();
    assert!(text.contains(from), "the manifest has no {from:?}");
    Manifest::parse(&text.replacen(from, to, 1))
}

fn refusal(from: &str, to: &str) -> String {
    match edited(from, to) {
        Ok(_) => panic!("accepted {to:?} for {from:?}"),
        Err(error) => chain(&error),
    }
}

fn rate(text: &str) -> FalseAcceptRate {
    text.parse().expect("a rate")
}

#[test]
fn the_shipped_manifest_is_complete() {
    let manifest = Manifest::parse(&manifest_text()).expect("parses");
    assert_eq!(manifest.files().len(), Task::ALL.len());
    assert_eq!(manifest.file(Task::Feature).path.to_str(), Some("fr_feature.onnx"));
    assert!(!manifest.space_id.is_empty());
    assert_eq!(manifest.licence, "MIT");
}

#[test]
fn thresholds_are_addressed_by_rate_and_never_guessed() {
    let manifest = Manifest::parse(&manifest_text()).expect("parses");
    assert_eq!(manifest.threshold_at(rate("1e-4")).expect("calibrated").score, 0.442);
    assert_eq!(manifest.threshold_at(rate("0.001")).expect("calibrated").score, 0.393);
    let error = manifest.threshold_at(rate("1e-5")).expect_err("invented").to_string();
    assert!(error.contains("1e-5") && error.contains("1e-4"), "{error}");
    assert!(manifest.thresholds.iter().all(|threshold| !threshold.data_set.is_empty()));
}

#[test]
fn the_threshold_rises_with_the_gallery_and_as_the_rate_falls() {
    let manifest = Manifest::parse(&manifest_text()).expect("parses");
    let (lax, strict) = (manifest.ladder_at(rate("1e-3")), manifest.ladder_at(rate("1e-4")));
    let (lax, strict) = (lax.expect("calibrated"), strict.expect("calibrated"));
    let sizes = [0, 1, 2, 3, 10, 11, 30, 100, 101, 1_000, 3_000, 5_000, 10_000, 50_000, 100_000];
    for pair in sizes.windows(2) {
        assert!(lax.at(pair[0]) <= lax.at(pair[1]) && strict.at(pair[0]) <= strict.at(pair[1]), "{pair:?}");
    }
    for size in sizes {
        assert!(lax.at(size).expect("calibrated") < strict.at(size).expect("calibrated"), "{size}");
    }
    assert_eq!(strict.at(1).map(|score| score.value()), Some(0.442));
    assert_eq!((strict.at(100_001), lax.at(100_001)), (None, None));
    let error = manifest.ladder_at(rate("1e-5")).expect_err("invented").to_string();
    assert!(error.contains("1e-5") && error.contains("1e-3, 1e-4") | error.contains("1e-4, 1e-3"), "{error}");
}

#[test]
fn a_pack_without_a_scale_goes_by_the_cosine() {
    let text = manifest_text();
    let space = Manifest::parse(&text).expect("parses").space();
    assert!(space.handicap(1.0) > 0.04 && space.handicap(0.0) < -0.04, "{space:?}");
    let (from, to) = (text.find("[embedding.clarity]").expect("there"), text.find("[[thresholds]]").expect("there"));
    let bare = Manifest::parse(&(text[..from].to_owned() + &text[to..])).expect("parses").space();
    assert_eq!((bare.clarity, bare.handicap(1.0)), (None, 0.0));
}

#[test]
fn nonsense_is_no_rate() {
    for text in ["", "0", "1", "-1e-4", "NaN", "inf", "1e-4%"] {
        assert!(text.parse::<FalseAcceptRate>().is_err(), "{text}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = refusal("licence = ", "licence_of = ");
    assert!(error.contains("licence_of") && error.contains("line"), "{error}");
    let error = refusal("tolerance = ", "tolerence = ");
    assert!(error.contains("tolerence"), "{error}");
}

#[test]
fn a_later_schema_is_named_as_such() {
    let error = refusal("schema_version = 1", "schema_version = 2\nbrand_new_key = true");
    assert!(error.contains("schema 2"), "{error}");
}

#[test]
fn a_path_never_leaves_the_pack() {
    for path in ["../fr_eye.onnx", "/etc/passwd", "a/../../b", ""] {
        let error = refusal("path = \"fr_eye.onnx\"", &format!("path = {path:?}"));
        assert!(error.contains("files[eye].path"), "{error}");
    }
}

#[test]
fn values_that_cannot_be_right_are_named() {
    let cases = [
        ("space_id = \"", "space_id = \"A space/", "space_id"),
        ("far = \"1e-4\"", "far = \"1e-3\"", "thresholds.far"),
        ("score = 0.442\n", "score = 0.2\n", "must rise as the false accept rate falls"),
        ("score = 0.442\n", "score = 1.5\n", "cosine"),
        ("weight = 0.09\n", "weight = 0.3\n", "weight must be between"),
        ("clear_norm = 4.29\n", "clear_norm = 2.0\n", "below clear_norm"),
        ("normalised = false\n", "normalised = true\n", "unit length"),
        ("up_to = 3,", "up_to = 1,", "rise with the size"),
        ("up_to = 3,", "up_to = 4,", "same sizes"),
        ("score = 0.525", "score = 0.3", "rise with the size"),
        ("up_to = 100000, score = 0.65", "up_to = 100000, score = 0.71", "rise as the false accept rate falls"),
        ("score = 0.55 ", "score = 2.0 ", "cosine"),
        ("up_to = 3,", "upto = 3,", "upto"),
        ("scale = [255.0]", "scale = [0.0]", "files[eye].input"),
        ("mean = [123.675, 116.28, 103.53]", "mean = [0.0]", "files[pose].input"),
        ("shape = [1, 1, 24, 24]", "shape = [1, 3, 24, 24]", "planes"),
        ("shape = [1, 1, 24, 24]", "shape = [1, 1, 0, 24]", "files[eye].input"),
        ("shape = [1, 1, 24, 24]", "shape = [8, 1, 24, 24]", "batch"),
        ("tolerance = 0.02", "tolerance = 0.5", "tolerance"),
        ("min_ort_api = 17", "min_ort_api = 99", "newer than the ONNX Runtime"),
        ("size_bytes = 207130", "size_bytes = 0", "files[eye].size_bytes"),
        ("metric = \"cosine\"", "metric = \"l2\"", "l2"),
        ("task = \"eye\"", "task = \"pose\"", "two files"),
    ];
    for (from, to, named) in cases {
        let error = refusal(from, to);
        assert!(error.contains(named), "{to}: {error}");
    }
}

#[test]
fn a_hash_is_64_lower_case_digits() {
    let eye = Manifest::parse(&manifest_text()).expect("parses").file(Task::Eye).sha256.clone();
    for wrong in [eye.to_uppercase(), eye[1..].to_owned(), format!("{}z", &eye[1..])] {
        let error = refusal(&eye, &wrong);
        assert!(error.contains("files[eye].sha256"), "{error}");
    }
}

#[test]
fn a_pack_without_a_task_is_incomplete() {
    let text = manifest_text();
    let start = text.rfind("[[files]]").expect("files");
    let error = Manifest::parse(&text[..start]).expect_err("accepted");
    assert!(matches!(error, ManifestError::MissingTask { task: Task::Pose }), "{error}");
}
