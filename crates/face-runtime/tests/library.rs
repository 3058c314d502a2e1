//! A path that is no ONNX Runtime is refused by name. In a process of its own, because a process that has loaded one
//! library answers every other path with that fact.

mod support;

use std::path::Path;

use face_runtime::{Runtime, RuntimeError};
use support::chain;

#[test]
fn a_library_that_is_missing_or_is_none_is_named() {
    let missing = Path::new("/nonexistent/libonnxruntime.so");
    let error = Runtime::load(missing).expect_err("loaded");
    assert!(matches!(&error, RuntimeError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/libonnxruntime.so"), "{error}");

    let text = support::manifest_path();
    let error = Runtime::load(&text).expect_err("loaded");
    assert!(matches!(&error, RuntimeError::Unusable { .. }), "{error}");

    // A real library, but not this one.
    let Some(libc) = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/usr/lib64/libm.so.6"]
        .into_iter()
        .find(|path| Path::new(path).exists())
    else {
        return;
    };
    let error = Runtime::load(Path::new(libc)).expect_err("loaded");
    assert!(chain(&error).contains("OrtGetApiBase"), "{}", chain(&error));
}
