//! Everything that is wrong with a pack or a library is refused with an error that names it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use face_runtime::manifest::Manifest;
use face_runtime::{ModelPack, PackError, PackOptions, Provider, Runtime, RuntimeError, Task};
use support::{chain, manifest_text, on_cpu, parts, runtime};
use tempfile::TempDir;

/// A copy of the pack that a test may spoil.
struct Copy {
    folder: TempDir,
    parts: PathBuf,
    manifest: String,
}

impl Copy {
    fn of(parts: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for entry in fs::read_dir(parts.join("models/faceplugin")).expect("the weights") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copies");
        }
        Self { folder, parts: parts.to_owned(), manifest: manifest_text() }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn edit(mut self, from: &str, to: &str) -> Self {
        assert!(self.manifest.contains(from), "the manifest has no {from:?}");
        self.manifest = self.manifest.replacen(from, to, 1);
        self
    }

    fn open(&self) -> PackError {
        let manifest = self.path("manifest.toml");
        fs::write(&manifest, &self.manifest).expect("writes");
        match ModelPack::open(&runtime(&self.parts), &manifest, self.folder.path(), &on_cpu()) {
            Ok(pack) => panic!("accepted {pack:?}"),
            Err(error) => error,
        }
    }
}

#[test]
fn the_untouched_pack_opens_and_says_why_it_runs_on_the_cpu() {
    let Some(parts) = parts("the_untouched_pack_opens_and_says_why_it_runs_on_the_cpu") else { return };
    let options = PackOptions { sessions: 2, ..PackOptions::default() };
    let weights = parts.join("models/faceplugin");
    let pack = ModelPack::open(&runtime(&parts), &support::manifest_path(), &weights, &options).expect("opens");
    for (task, report) in pack.providers() {
        assert_eq!(pack.usage(*task).runs, 2, "one warm-up run for each session of {task}");
        if report.used == Provider::Cpu {
            let skipped: Vec<Provider> = report.skipped.iter().map(|skipped| skipped.provider).collect();
            assert_eq!(skipped, [Provider::Tensorrt, Provider::Cuda]);
            assert!(report.skipped.iter().all(|skipped| !skipped.reason.is_empty()));
        }
    }
    assert_eq!(pack.manifest().name, "faceplugin");
}

#[test]
fn one_changed_byte_is_refused_before_the_runtime_sees_it() {
    let Some(parts) = parts("one_changed_byte_is_refused_before_the_runtime_sees_it") else { return };
    let copy = Copy::of(&parts);
    let path = copy.path("fr_feature.onnx");
    let mut bytes = fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("writes");
    let error = copy.open();
    assert!(matches!(&error, PackError::WrongHash { path: at, .. } if *at == path), "{error}");
}

#[test]
fn a_truncated_model_is_refused() {
    let Some(parts) = parts("a_truncated_model_is_refused") else { return };
    let copy = Copy::of(&parts);
    let path = copy.path("fr_pose.onnx");
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(1000)).expect("truncates");
    let error = copy.open();
    assert!(matches!(&error, PackError::WrongSize { found: 1000, expected: 5_811_723, .. }), "{error}");
    assert!(error.to_string().contains("fr_pose.onnx"), "{error}");
}

#[test]
fn a_missing_model_is_named() {
    let Some(parts) = parts("a_missing_model_is_named") else { return };
    let copy = Copy::of(&parts);
    fs::remove_file(copy.path("fr_eye.onnx")).expect("removes");
    let error = copy.open();
    assert!(matches!(&error, PackError::FileUnreadable { .. }), "{error}");
    assert!(error.to_string().contains("fr_eye.onnx") && error.to_string().contains("scripts/setup"), "{error}");
}

#[test]
fn a_missing_manifest_is_named() {
    let Some(parts) = parts("a_missing_manifest_is_named") else { return };
    let nowhere = Path::new("/nonexistent/manifest.toml");
    let error = ModelPack::open(&runtime(&parts), nowhere, &parts, &on_cpu()).expect_err("accepted");
    assert!(matches!(&error, PackError::ManifestUnreadable { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/manifest.toml"), "{error}");
}

#[test]
fn shapes_that_are_not_the_models_are_refused() {
    let Some(parts) = parts("shapes_that_are_not_the_models_are_refused") else { return };
    let error = Copy::of(&parts).edit("[1, 1, 24, 24]", "[1, 1, 32, 32]").open();
    assert!(matches!(&error, PackError::WrongShape { .. }), "{error}");
    assert!(error.to_string().contains("fr_eye.onnx"), "{error}");
    let error = Copy::of(&parts).edit("name = \"boxes\"", "name = \"places\"").open();
    // The manifest's own check of its answers comes first: an output without an answer.
    assert!(chain(&error).contains("warm_up"), "{}", chain(&error));
}

#[test]
fn tensors_that_the_code_cannot_read_are_refused() {
    let Some(parts) = parts("tensors_that_the_code_cannot_read_are_refused") else { return };
    let error = Copy::of(&parts).edit("shape = [1, 3, 240, 320]", "shape = [1, 3, 480, 640]").open();
    assert!(matches!(&error, PackError::Unsupported { task: Task::Detect, .. }), "{error}");
    let error = Copy::of(&parts).edit("dimension = 512", "dimension = 256").open();
    assert!(matches!(&error, PackError::Unsupported { task: Task::Feature, .. }), "{error}");
}

#[test]
fn another_warm_up_answer_is_refused() {
    let Some(parts) = parts("another_warm_up_answer_is_refused") else { return };
    let first_sample =
        Manifest::parse(&manifest_text()).expect("parses").file(Task::Landmark).warm_up.answers[0].samples[0];
    let off = first_sample + 0.05;
    let error = Copy::of(&parts).edit(&first_sample.to_string(), &off.to_string()).open();
    assert!(matches!(&error, PackError::WrongAnswer { .. }), "{error}");
    assert!(chain(&error).contains("fr_landmark.onnx") && chain(&error).contains("sample 0"), "{}", chain(&error));
}

#[test]
fn preprocessing_that_is_not_the_measured_one_changes_the_answer() {
    let Some(parts) = parts("preprocessing_that_is_not_the_measured_one_changes_the_answer") else { return };
    let error = Copy::of(&parts).edit("mean = [123.675, 116.28, 103.53]", "mean = [127.0, 127.0, 127.0]").open();
    assert!(matches!(&error, PackError::WrongAnswer { .. }), "{error}");
}

/// Puts `bytes` in place of the eye model, with a manifest that vouches for them.
fn with_eye_model(parts: &Path, bytes: &[u8]) -> Copy {
    let copy = Copy::of(parts);
    let eye = Manifest::parse(&copy.manifest).expect("parses").file(Task::Eye).clone();
    fs::write(copy.path("fr_eye.onnx"), bytes).expect("writes");
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes));
    copy.edit(&eye.sha256, &hash)
        .edit(&format!("size_bytes = {}", eye.size_bytes), &format!("size_bytes = {}", bytes.len()))
}

#[test]
fn bytes_that_are_no_model_are_refused_by_name() {
    let Some(parts) = parts("bytes_that_are_no_model_are_refused_by_name") else { return };
    let error = with_eye_model(&parts, b"this is not a model").open();
    assert!(matches!(&error, PackError::NotRunnable { .. }), "{error}");
    assert!(error.to_string().contains("fr_eye.onnx"), "{error}");
}

#[test]
fn a_model_that_reads_other_files_is_refused() {
    let Some(parts) = parts("a_model_that_reads_other_files_is_refused") else { return };
    // The same graph twice: with its weights inside it is accepted as far as its shapes, with its weights in another
    // file it is not even opened. The file exists, next to where the program runs.
    let inside = with_eye_model(&parts, &onnx::matmul(&onnx::Weights::Inside)).open();
    assert!(matches!(&inside, PackError::WrongShape { .. }), "{}", chain(&inside));
    let location = std::env::current_dir().expect("a folder").join("Cargo.toml");
    for location in ["Cargo.toml", "../../Cargo.toml", location.to_str().expect("UTF-8")] {
        let outside = with_eye_model(&parts, &onnx::matmul(&onnx::Weights::In(location))).open();
        assert!(matches!(&outside, PackError::NotRunnable { .. }), "{location}: {}", chain(&outside));
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let Some(parts) = parts("options_that_make_no_sense_are_refused") else { return };
    let open = |options: &PackOptions| {
        ModelPack::open(&runtime(&parts), &support::manifest_path(), &parts.join("models/faceplugin"), options)
    };
    let none = PackOptions { sessions: 0, ..on_cpu() };
    assert!(matches!(open(&none), Err(PackError::Options(_))));
    let nowhere = PackOptions { providers: vec![], ..on_cpu() };
    let error = open(&nowhere).expect_err("accepted");
    assert!(chain(&error).contains("list of providers is empty"), "{}", chain(&error));
}

#[test]
fn a_second_library_is_refused_and_the_same_one_is_not() {
    let Some(parts) = parts("a_second_library_is_refused_and_the_same_one_is_not") else { return };
    let first = runtime(&parts);
    assert_eq!(runtime(&parts).library(), first.library());
    let folder = TempDir::new().expect("a temporary folder");
    let other = folder.path().join("libonnxruntime.so");
    fs::copy(first.library(), &other).expect("copies");
    assert!(matches!(Runtime::load(&other), Err(RuntimeError::AlreadyLoaded { .. })));
}

/// Just enough of ONNX's protobuf to write a model of one matrix product.
mod onnx {
    pub(super) enum Weights<'a> {
        Inside,
        In(&'a str),
    }

    fn field(number: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut rest = payload.len();
        while rest >= 0x80 {
            bytes.push((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes.extend(payload);
        bytes
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    fn value_info(name: &str, shape: [u8; 2]) -> Vec<u8> {
        let dimensions: Vec<u8> = shape.iter().flat_map(|size| field(1, &number(1, *size))).collect();
        let tensor = [number(1, 1), field(2, &dimensions)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    }

    /// `output[1,2] = input[1,3] x w[3,2]`.
    pub(super) fn matmul(weights: &Weights<'_>) -> Vec<u8> {
        let node = [field(1, b"input"), field(1, b"w"), field(2, b"output"), field(4, b"MatMul")].concat();
        let entry =
            |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
        let stored = match weights {
            Weights::Inside => field(9, &[0; 24]),
            Weights::In(location) => [entry("location", location), entry("length", "24"), number(14, 1)].concat(),
        };
        let tensor = [number(1, 3), number(1, 2), number(2, 1), field(8, b"w"), stored].concat();
        let graph = [
            field(1, &node),
            field(2, b"g"),
            field(5, &tensor),
            field(11, &value_info("input", [1, 3])),
            field(12, &value_info("output", [1, 2])),
        ]
        .concat();
        [number(1, 6), field(7, &graph), field(8, &number(2, 9))].concat()
    }
}
