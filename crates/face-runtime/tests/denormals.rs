//! Numbers too small for the normal form are zero in every run of a model, whichever thread asks for it. Of what is slow and of
//! what is fast a test can say nothing certain; of what is zero it can. So the model here multiplies its input by itself.

#![cfg(target_arch = "x86_64")]

mod support;

use face_runtime::{Manifest, SessionPool, Task};
use support::{manifest_text, parts, runtime};

const N: usize = 16;

/// A field of a protocol buffer that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 128).expect("one byte of length");
    [&[(number << 3) | 2, length], bytes].concat()
}

fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// An ONNX model: `y = x * x`, both of shape [1, 1, 1, N].
fn square() -> Vec<u8> {
    let sizes = [1, 1, 1, N as u8].map(|size| field(1, &number(1, size))).concat();
    let tensor = [number(1, 1), field(2, &sizes)].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(1, b"x"), field(2, b"y"), field(4, b"Mul")].concat();
    let graph = [field(1, &node), field(2, b"square"), field(11, &value(b"x")), field(12, &value(b"y"))].concat();
    [number(1, 6), field(7, &graph), field(8, &number(2, 9))].concat()
}

fn pool(parts: &std::path::Path) -> SessionPool {
    let manifest = Manifest::parse(&manifest_text()).expect("as shipped");
    let mut file = manifest.file(Task::Landmark).clone();
    (file.input.name, file.input.shape) = ("x".to_owned(), [1, 1, 1, N]);
    file.outputs.truncate(1);
    (file.outputs[0].name, file.outputs[0].shape) = ("y".to_owned(), vec![1, 1, 1, N]);
    SessionPool::unchecked(&runtime(parts), &file, &square()).expect("ONNX Runtime takes it")
}

/// What the model makes of `x`.
fn squared(pool: &SessionPool, x: f32) -> Vec<f32> {
    let fill = |tensor: &mut [f32]| {
        tensor.fill(x);
        Ok(())
    };
    pool.run(|_, tensor| fill(tensor), |outputs| Ok(outputs.values(0).to_vec())).expect("runs")
}

/// ONNX Runtime's own switch reaches whichever thread makes a process's first session, and no other of ours.
#[test]
fn a_product_too_small_is_zero_on_every_thread_that_runs_a_model() {
    let Some(parts) = parts("a_product_too_small_is_zero_on_every_thread_that_runs_a_model") else { return };
    let pool = pool(&parts);
    // 1e-40, which f32 can only hold as a denormal number.
    let zeroes = || squared(&pool, 1e-20).iter().all(|value| value.to_bits() == 0);
    assert_eq!(squared(&pool, 3.0), [9.0; N], "the model is what it should be");
    assert!(zeroes(), "on the thread that opened it");
    for turn in 0..2 {
        let elsewhere = std::thread::scope(|scope| scope.spawn(zeroes).join().expect("no panic"));
        assert!(elsewhere, "on another thread, turn {turn}");
        assert!(zeroes(), "again where it was opened, turn {turn}");
    }
}
