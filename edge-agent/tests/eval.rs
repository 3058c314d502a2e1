//! `edge-agent eval` as it is run: figures on the demonstration pictures and, where they are, on collections; the bits of
//! its templates; what it says of useless lists.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edge_agent::eval::template::{NoTemplate, template};
use edge_agent::stages::perceive::{Perceiver, Percept};
use face_core::liveness::LivenessPolicy;
use face_core::quality::QualityGate;
use face_core::{Embedder, Embedding, Frame, MonoTime};
use face_runtime::{ModelPack, PhotoLimits, decode_photo};
use image::{Rgb, RgbImage};
use serde_json::Value;
use support::{Parts, Site, text};

const PEOPLE: [(&str, &str); 5] = [
    ("obama.jpg", "Obama"),
    ("obama2.jpg", "Obama"),
    ("obama3.jpg", "Obama"),
    ("biden.jpg", "Biden"),
    ("astronaut.png", "Collins"),
];

fn labels() -> String {
    let rows: Vec<String> = PEOPLE.iter().map(|(path, person)| format!("{path},{person}\n")).collect();
    format!("path,person\n{}", rows.concat())
}

/// The demonstration pictures' folder, the list `list.csv` with this text, and the answer in JSON.
fn answer(site: &Site, parts: &Parts, verb: &str, option: &str, list: &str) -> Value {
    let (images, file) = (parts.demo(""), site.path("list.csv"));
    std::fs::write(&file, list).unwrap();
    site.json(&["eval", verb, "--images", images.to_str().unwrap(), option, file.to_str().unwrap()])
}

#[test]
fn one_picture_gives_the_same_bits_in_eval_at_enrolment_and_at_the_door() {
    let Some(parts) = Parts::find("one_picture_gives_the_same_bits_in_eval_at_enrolment_and_at_the_door") else {
        return;
    };
    let (site, pack) = (Site::new(&parts, ""), parts.pack());
    for name in ["obama.jpg", "biden.jpg", "astronaut.png"] {
        let path = parts.demo(name);
        let bytes = std::fs::read(&path).unwrap();
        let measured = template(&pack, &bytes, &QualityGate::enrol()).unwrap().embedding;
        let told = site.json(&["embed", path.to_str().unwrap()]);
        assert_eq!(
            STANDARD.decode(told["template"].as_str().unwrap()).unwrap(),
            measured.to_le_bytes(),
            "{name}: embed"
        );
        assert_eq!(at_the_door(&pack, &bytes).to_le_bytes(), measured.to_le_bytes(), "{name}: the door");
    }
}

/// The template that a door's camera makes when it sees this picture: perceive finds the shot, identify embeds it.
fn at_the_door(pack: &ModelPack, bytes: &[u8]) -> Embedding {
    let image = decode_photo(bytes, &PhotoLimits::default()).unwrap();
    let frame = Frame { image, captured_at: MonoTime::from_millis(1_000), sequence: 1 };
    let mut perceiver = Perceiver::new("front".into(), QualityGate::matching(), LivenessPolicy::default());
    let percepts = perceiver.look(pack, &frame).unwrap();
    let shot =
        percepts.into_iter().find_map(|percept| if let Percept::Shot(shot) = percept { Some(shot) } else { None });
    let shot = shot.expect("a good face is worth an embedding at first sight");
    pack.embed(&shot.image, &shot.points).unwrap()
}

#[test]
fn of_several_faces_the_largest_is_taken_and_a_picture_without_one_says_so() {
    let Some(parts) = Parts::find("of_several_faces_the_largest_is_taken_and_a_picture_without_one_says_so") else {
        return;
    };
    let (site, pack) = (Site::new(&parts, ""), parts.pack());
    let open = |name: &str, side: u32| {
        let filter = image::imageops::FilterType::Triangle;
        image::open(parts.demo(name)).unwrap().resize_exact(side, side, filter).to_rgb8()
    };
    let mut both = RgbImage::new(1_000, 600);
    image::imageops::replace(&mut both, &open("obama.jpg", 400), 0, 100);
    image::imageops::replace(&mut both, &open("biden.jpg", 600), 400, 0);
    let path = site.path("both.png");
    both.save(&path).unwrap();
    let largest = template(&pack, &std::fs::read(&path).unwrap(), &QualityGate::matching()).unwrap();
    assert!(largest.examined.face.x() > 400.0, "{:?}", largest.examined.face);
    let wall = site.path("wall.png");
    RgbImage::from_pixel(320, 240, Rgb([120, 118, 110])).save(&wall).unwrap();
    let none = template(&pack, &std::fs::read(&wall).unwrap(), &QualityGate::matching()).unwrap_err();
    assert!(matches!(none, NoTemplate::NoFace), "{none}");
}

#[test]
fn pairs_of_the_demonstration_pictures_are_told_apart() {
    let Some(parts) = Parts::find("pairs_of_the_demonstration_pictures_are_told_apart") else { return };
    let site = Site::new(&parts, "");
    let list =
        "a,b,same\nobama.jpg,obama2.jpg,1\nobama.jpg,obama3.jpg,1\nobama.jpg,biden.jpg,0\nbiden.jpg,astronaut.png,0\n";
    let told = answer(&site, &parts, "pairs", "--pairs", list);
    assert_eq!((told["accuracy"].as_f64(), told["accuracy_std"].as_f64()), (Some(1.0), None), "{told}");
    assert!(told["accuracy_method"].as_str().unwrap().contains("optimistic"), "{told}");
    assert_eq!((told["eer"].as_f64(), told["fte"].as_f64()), (Some(0.0), Some(0.0)), "{told}");
    // Three of one man; he is not Biden (3), Biden is not Collins (1), and nobody says that he is not Collins.
    assert_eq!((told["n_genuine"].as_u64(), told["n_impostor"].as_u64()), (Some(3), Some(4)), "{told}");
    for rate in ["1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6"] {
        assert!(told["tar_at_far"][rate].is_null() && told["thresholds"][rate].is_null(), "{told}");
        assert!(told["unsupported"][rate].as_str().unwrap().contains("rule of three"), "{told}");
    }
    assert_eq!(told["at_manifest_thresholds"]["1e-4"]["listed_right"], 4, "{told}");
    // The face and its mirror image.
    assert_eq!(told["calls"]["feature"]["per_face"], 2.0, "{told}");
    let told = answer(&site, &parts, "pairs", "--labels", &labels());
    assert!(told["accuracy"].is_null(), "{told}");
    assert_eq!((told["n_genuine"].as_u64(), told["n_impostor"].as_u64()), (Some(3), Some(7)), "{told}");
}

#[test]
fn with_folds_the_threshold_comes_from_the_other_folds() {
    let Some(parts) = Parts::find("with_folds_the_threshold_comes_from_the_other_folds") else { return };
    let site = Site::new(&parts, "");
    let list = "a,b,same,fold\nobama.jpg,obama2.jpg,1,1\nobama.jpg,biden.jpg,0,1\nobama2.jpg,obama3.jpg,1,2\nobama2.jpg,biden.jpg,0,2\n";
    let told = answer(&site, &parts, "pairs", "--pairs", list);
    assert_eq!((told["accuracy"].as_f64(), told["accuracy_std"].as_f64()), (Some(1.0), Some(0.0)), "{told}");
    assert_eq!(told["listed"]["folds"], 2);
}

#[test]
fn a_picture_without_a_template_is_named_counted_and_never_flatters() {
    let Some(parts) = Parts::find("a_picture_without_a_template_is_named_counted_and_never_flatters") else { return };
    let site = Site::new(&parts, "");
    for (name, _) in PEOPLE {
        std::fs::copy(parts.demo(name), site.path(name)).unwrap();
    }
    RgbImage::from_pixel(320, 240, Rgb([120, 118, 110])).save(site.path("wall.png")).unwrap();
    std::fs::write(site.path("letter.jpg"), "Dear door, please open.").unwrap();
    let list = site.path("list.csv");
    let rows =
        "a,b,same\nobama.jpg,obama2.jpg,1\nobama.jpg,wall.png,1\nobama.jpg,biden.jpg,0\nbiden.jpg,letter.jpg,0\n";
    std::fs::write(&list, rows).unwrap();
    let images = site.path("");
    let arguments = ["eval", "pairs", "--images", images.to_str().unwrap(), "--pairs", list.to_str().unwrap()];
    let told = site.json(&arguments);
    assert_eq!(told["accuracy"], 0.5, "two pairs right, two lost: {told}");
    assert_eq!(told["fte"].as_f64(), Some(2.0 / 5.0), "{told}");
    assert_eq!(told["failures"][0]["path"], "wall.png", "{told}");
    assert_eq!(told["failures"][0]["reasons"][0], "no_face");
    assert_eq!(told["failures"][1]["reasons"][0], "photo_unreadable");
    let output = site.output(&arguments);
    let table = text(&output.stdout);
    for part in
        ["wall.png: no face was found", "letter.jpg", "2 (40.00 %) gave no template", "rule of three", "calls per face"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn identify_draws_galleries_and_says_what_it_cannot_say() {
    let Some(parts) = Parts::find("identify_draws_galleries_and_says_what_it_cannot_say") else { return };
    let site = Site::new(&parts, "");
    let told = answer(&site, &parts, "identify", "--labels", &labels());
    let [size] = told["sizes"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((size["n"].as_u64(), size["enrolled"].as_u64()), (Some(1), Some(1)), "{told}");
    assert_eq!((size["mated_probes"].as_u64(), size["stranger_probes"].as_u64()), (Some(2), Some(2)), "{told}");
    for rate in ["1e-2", "3e-3", "1e-3"] {
        assert!(size["fnir_at_fpir"][rate].is_null(), "{told}");
        assert!(size["unsupported"][rate].as_str().unwrap().contains("2 strangers' pictures"), "{told}");
    }
}

#[test]
fn the_gate_and_the_pack_are_what_was_asked_for() {
    let Some(parts) = Parts::find("the_gate_and_the_pack_are_what_was_asked_for") else { return };
    let site = Site::new(&parts, "");
    let list = site.path("labels.csv");
    std::fs::write(&list, labels()).unwrap();
    let images = parts.demo("");
    let ask = |more: &[&str]| {
        let arguments = ["eval", "pairs", "--images", images.to_str().unwrap(), "--labels", list.to_str().unwrap()];
        site.output(&[&arguments[..], more].concat())
    };
    let output = ask(&["--pack", "other"]);
    assert_eq!(output.status.code(), Some(1));
    let problem = text(&output.stderr);
    assert!(problem.contains("there is no model pack other; there is faceplugin-0.0.1"), "{problem}");
    let output = ask(&["--pack", "faceplugin", "--gate", "enrol", "-o", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((told["gate"].as_str(), told["pack"].as_str()), (Some("enrol"), Some("faceplugin-0.0.1")), "{told}");
    assert_eq!(ask(&["--gate", "wide"]).status.code(), Some(2));
}

/// Lists are read before the models are opened, so that this needs none.
#[test]
fn useless_lists_are_refused_by_file_line_and_remedy() {
    let site = Site::with_config("schema_version = 1\n");
    for name in ["x.jpg", "y.jpg", "z.jpg"] {
        std::fs::write(site.path(name), "not opened").unwrap();
    }
    let cases = [
        ("pairs", "a,b,same\nx.jpg,gone.jpg,1\n", "list.csv:2: picture gone.jpg is not in", "--images"),
        ("pairs", "left,right\n", "list.csv:1: the header is \"left,right\"", "must be a,b,same"),
        ("pairs", "", "list.csv:1: the header is \"\"", "must be a,b,same"),
        ("pairs", "a,b,same\n", "list.csv:1: the list has no rows", "write one for each pair"),
        (
            "pairs",
            "a,b,same,fold\nx.jpg,y.jpg,1,a\nx.jpg,z.jpg,0,a\n",
            "list.csv:2: fold \"a\" is alone",
            "at least two folds",
        ),
        (
            "pairs",
            "a,b,same\nx.jpg,y.jpg,1\nx.jpg,z.jpg,1\n",
            "list.csv:1: no two pictures are known to show two people",
            "add some",
        ),
        ("pairs", "a,b,same\nx.jpg,y.jpg,0\n", "list.csv:1: no two pictures are known to show one person", "add some"),
        ("pairs", "a,b,same\nx.jpg,y.jpg,1\ny.jpg,x.jpg,0\n", "list.csv:3: the row says two people", "correct"),
        ("identify", "path,name\nx.jpg,Ann\n", "list.csv:1: the header is \"path,name\"", "path,person"),
        ("identify", "path,person\nx.jpg,Ann\ny.jpg,Ann\n", "list.csv:1: no two pictures", "two people"),
        ("identify", "path,person\nx.jpg,Ann\ny.jpg,Ben\n", "list.csv: nobody has two pictures", "one is enrolled"),
        (
            "identify",
            "path,person\nx.jpg,Ann\nx.jpg,Ben\n",
            "list.csv:3: picture x.jpg was listed already, on line 2",
            "remove",
        ),
        (
            "identify",
            "path,person\nx.jpg,Ann\ny.jpg,Ann\ngone.jpg,Ben\n",
            "list.csv:4: picture gone.jpg is not in",
            "--images",
        ),
    ];
    let (images, list) = (site.path(""), site.path("list.csv"));
    for (verb, rows, problem, remedy) in cases {
        std::fs::write(&list, rows).unwrap();
        let option = if verb == "pairs" { "--pairs" } else { "--labels" };
        let output = site.output(&["eval", verb, "--images", images.to_str().unwrap(), option, list.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{rows:?}");
        assert!(output.stdout.is_empty(), "{rows:?}");
        let told = text(&output.stderr);
        assert!(told.contains(problem) && told.contains(remedy), "{rows:?}: {told}");
    }
    let output = site.output(&["eval", "pairs", "--images", ".", "--pairs", "/nowhere/pairs.csv"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere/pairs.csv: cannot be read"), "{}", text(&output.stderr));
}

#[test]
fn labels_beside_the_pairs_must_name_every_picture_and_agree() {
    let site = Site::with_config("schema_version = 1\n");
    for name in ["x.jpg", "y.jpg"] {
        std::fs::write(site.path(name), "not opened").unwrap();
    }
    let (images, list) = (site.path(""), site.path("list.csv"));
    std::fs::write(&list, "a,b,same\nx.jpg,y.jpg,1\n").unwrap();
    for (labels, problem) in [
        ("path,person\nx.jpg,Ann\n", "list.csv:2: picture y.jpg has no line in"),
        ("path,person\nx.jpg,Ann\ny.jpg,Ben\n", "list.csv:2: the row says one person"),
    ] {
        std::fs::write(site.path("labels.csv"), labels).unwrap();
        let output =
            site.output(&["eval", "pairs", "--images", images.to_str().unwrap(), "--pairs", list.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(problem), "{}", text(&output.stderr));
    }
}

#[test]
fn help_has_examples_and_a_wrong_command_line_exits_with_2() {
    let site = Site::with_config("schema_version = 1\n");
    for verb in ["pairs", "identify"] {
        let help = text(&site.output(&["eval", verb, "--help"]).stdout);
        // It is wrapped to the width of the terminal.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in ["Examples:", "--images faces", "rule of three", "--gate", "bootstrap of people"] {
            assert!(help.contains(part), "{verb}: {part}: {help}");
        }
        assert_eq!(site.output(&["eval", verb]).status.code(), Some(2));
        assert_eq!(site.output(&["eval", verb, "--images", "."]).status.code(), Some(2));
    }
}

/// The collections for measuring, or none after saying that the test is skipped.
fn collections(test: &str) -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let faces = std::env::var_os("LINTEL_TEST_DATA").map_or_else(default, PathBuf::from).join("faces");
    if faces.is_dir() {
        return Some(faces);
    }
    eprintln!("SKIPPED {test}: needs data: {} is missing, set LINTEL_TEST_DATA", faces.display());
    None
}

fn arguments<'a>(verb: &'a str, images: &'a Path, option: &'a str, list: &'a Path) -> [&'a str; 6] {
    ["eval", verb, "--images", images.to_str().unwrap(), option, list.to_str().unwrap()]
}

#[test]
fn press_photographs_are_told_apart_at_the_thresholds_of_the_manifest() {
    let test = "press_photographs_are_told_apart_at_the_thresholds_of_the_manifest";
    let (Some(parts), Some(faces)) = (Parts::find(test), collections(test)) else { return };
    let (site, images) = (Site::new(&parts, ""), faces.join("deepface"));
    let list = images.join("pairs.csv");
    let ask = |sessions: &str| {
        let mut command = site.command(&arguments("pairs", &images, "--pairs", &list));
        let output = command.args(["-o", "json"]).env("LINTEL__MODELS__SESSIONS", sessions).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let told = ask("1");
    assert_eq!((told["n_genuine"].as_u64(), told["n_impostor"].as_u64()), (Some(38), Some(262)), "{told}");
    assert_eq!(told["at_manifest_thresholds"]["1e-4"]["listed_right"], 300, "{told}");
    assert_eq!(told["fte"], 0.0, "{told}");
    assert_eq!(told, ask("3"), "the same figures, whatever the number of sessions");
}

#[test]
fn tight_grey_crops_give_templates_and_keep_the_promised_rate() {
    let test = "tight_grey_crops_give_templates_and_keep_the_promised_rate";
    let (Some(parts), Some(faces)) = (Parts::find(test), collections(test)) else { return };
    let (site, images) = (Site::new(&parts, ""), faces.join("orl-dev"));
    let list = images.join("labels.csv");
    let told = site.json(&arguments("pairs", &images, "--labels", &list));
    assert!(told["fte"].as_f64().unwrap() <= 0.02, "{told}");
    assert!(told["at_manifest_thresholds"]["1e-3"]["far"].as_f64().unwrap() <= 3e-3, "{told}");
    let (lax, strict) = (&told["thresholds"]["1e-2"], &told["thresholds"]["1e-3"]);
    assert!(lax.as_f64() < strict.as_f64() && told["thresholds"]["1e-4"].is_null(), "{told}");
    let told = site.json(&arguments("identify", &images, "--labels", &list));
    let sizes = told["sizes"].as_array().unwrap();
    assert_eq!(sizes.len(), 2, "ten people with one and with three pictures: {told}");
    assert_eq!(sizes[0]["mated_probes"], 70, "{told}");
}

#[test]
fn the_plain_pipeline_is_measured_beside_the_real_one() {
    let Some(parts) = Parts::find("the_plain_pipeline_is_measured_beside_the_real_one") else { return };
    let site = Site::new(&parts, "");
    let (images, file) = (parts.demo(""), site.path("list.csv"));
    std::fs::write(&file, labels()).unwrap();
    let (images, file) = (images.to_str().unwrap(), file.to_str().unwrap());
    let told = site.json(&["eval", "pairs", "--images", images, "--labels", file, "--against", "plain"]);
    let runs = |of: &Value, task: &str| of["calls"][task]["per_face"].as_f64();
    assert_eq!([runs(&told, "landmark"), runs(&told, "feature")], [Some(2.0); 2], "{told}");
    let plain = &told["against"];
    assert_eq!([runs(plain, "landmark"), runs(plain, "feature")], [Some(1.0); 2], "{told}");
    assert_eq!((plain["pipeline"].as_str(), plain["fte"].as_f64()), (Some("plain"), Some(0.0)), "{told}");
    assert!(plain["tar_at_far"]["1e-1"].is_null(), "ten pairs say nothing of 1e-1: {told}");
    let alone = site.json(&["eval", "pairs", "--images", images, "--labels", file]);
    assert!(alone["against"].is_null() && alone["thresholds"] == told["thresholds"], "{alone}");
}
