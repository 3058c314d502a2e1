//! Where the installed parts are, and the pack opened from them. Shared by the tests of this crate.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use face_core::RgbImage;
use face_runtime::{ModelPack, PackOptions, PhotoLimits, Provider, Runtime, decode_photo};

/// The parts that scripts/setup installed: `LINTEL_PARTS`, else the system's cache, else the user's.
pub(crate) fn parts_dir() -> PathBuf {
    let given = std::env::var_os("LINTEL_PARTS").filter(|path| !path.is_empty()).map(PathBuf::from);
    let user_cache = || match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
    };
    let system = Path::new("/var/cache/lintel/parts");
    given.unwrap_or_else(|| if system.is_dir() { system.to_owned() } else { user_cache().join("lintel/parts") })
}

/// The parts, or none after saying which test is skipped and why.
pub(crate) fn parts(test: &str) -> Option<PathBuf> {
    let parts = parts_dir();
    for needed in ["onnxruntime/libonnxruntime.so", "models/faceplugin/fr_detect.onnx", "demo/obama.jpg"] {
        if !parts.join(needed).exists() {
            eprintln!("SKIPPED {test}: {} is missing, run scripts/setup", parts.join(needed).display());
            return None;
        }
    }
    Some(parts)
}

/// The pictures for measuring, or none after saying which test is skipped and why.
pub(crate) fn test_data(test: &str) -> Option<PathBuf> {
    let default = || repository().join("../shared/data");
    let folder = std::env::var_os("LINTEL_TEST_DATA").map_or_else(default, PathBuf::from);
    if folder.join("faces").is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED {test}: {} has no faces, set LINTEL_TEST_DATA", folder.display());
    None
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn manifest_path() -> PathBuf {
    repository().join("models/faceplugin/manifest.toml")
}

pub(crate) fn manifest_text() -> String {
    std::fs::read_to_string(manifest_path()).expect("the manifest is in the repository")
}

pub(crate) fn runtime(parts: &Path) -> Runtime {
    Runtime::load(&parts.join("onnxruntime/libonnxruntime.so")).expect("loads")
}

pub(crate) fn on_cpu() -> PackOptions {
    PackOptions { providers: vec![Provider::Cpu], ..PackOptions::default() }
}

pub(crate) fn pack(parts: &Path) -> ModelPack {
    ModelPack::open(&runtime(parts), &manifest_path(), &parts.join("models/faceplugin"), &on_cpu()).expect("opens")
}

pub(crate) fn demo_picture(parts: &Path, name: &str) -> RgbImage {
    picture(&parts.join("demo").join(name))
}

pub(crate) fn picture(path: &Path) -> RgbImage {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    decode_photo(&bytes, &PhotoLimits::default()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One colour all over.
pub(crate) fn plain(width: u32, height: u32, value: u8) -> RgbImage {
    RgbImage::from_vec(width, height, vec![value; width as usize * height as usize * 3]).expect("a picture")
}

/// The whole chain of causes, as a log line would have it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
