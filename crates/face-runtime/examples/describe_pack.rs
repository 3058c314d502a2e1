//! Prints what a manifest should say of its files: hashes, sizes, and the warm-up answers on this machine.
//!
//! `cargo run --release -p face-runtime --example describe_pack -- MANIFEST WEIGHTS LIBONNXRUNTIME`
//!
//! The manifest must be complete but for hashes, sizes and answers. What is printed proves that later runs compute the
//! same, not that the models are good; see models/README.md.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::path::Path;

use face_runtime::manifest::{Manifest, ModelFile};
use face_runtime::warm_up;
use face_runtime::{Runtime, SessionPool};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, weights, library] = arguments.as_slice() else {
        return Err("usage: describe_pack MANIFEST WEIGHTS LIBONNXRUNTIME".into());
    };
    let manifest = Manifest::parse(&std::fs::read_to_string(manifest)?)?;
    let runtime = Runtime::load(Path::new(library))?;
    for file in manifest.files() {
        let bytes = std::fs::read(Path::new(weights).join(&file.path))?;
        let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, &bytes));
        println!("# {}\npath = {:?}\nsha256 = {hash:?}\nsize_bytes = {}", file.task, file.path, bytes.len());
        let pool = SessionPool::unchecked(&runtime, file, &bytes)?;
        describe_answers(file, &pool)?;
    }
    Ok(())
}

fn describe_answers(file: &ModelFile, pool: &SessionPool) -> Result<(), Box<dyn Error>> {
    let fill = |tensor: &mut [f32]| warm_up::fill_question(&file.input, file.warm_up.seed, tensor);
    let answers = pool.run(
        |_, tensor| {
            fill(tensor);
            Ok(())
        },
        |outputs| {
            let described = file.outputs.iter().enumerate();
            Ok(described
                .map(|(index, output)| warm_up::describe_answer(&output.name, outputs.values(index), 8))
                .collect::<Vec<_>>())
        },
    )?;
    for answer in answers {
        println!(
            "[[files.warm_up.answers]]\noutput = {:?}\nrms = {}\nsamples = {:?}\n",
            answer.output, answer.rms, answer.samples
        );
    }
    Ok(())
}
