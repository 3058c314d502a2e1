//! Writes down what the models are really fed: the input tensors of the faces on some pictures, for `scripts/quantise`.
//!
//! `cargo run --release -p face-runtime --example calibration_tensors -- MANIFEST WEIGHTS LIBONNXRUNTIME OUT PICTURE...`
//!
//! Out: `OUT/<task>.f32`, one tensor after the other (NCHW, little-endian), from the largest face of each picture, and
//! its mirror image. Pictures without a face or of another format are named and skipped. The tensors show faces: keep them out of the project.

#![expect(clippy::print_stderr, reason = "its progress and its warnings")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use face_core::{Detector, Embedder, EyeModel, LandmarkModel, LivenessModel, PoseModel, RgbImage};
use face_runtime::{ModelPack, PackOptions, PhotoLimits, Provider, Runtime, Task, decode_photo};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, weights, library, out, pictures @ ..] = arguments.as_slice() else {
        return Err("usage: calibration_tensors MANIFEST WEIGHTS LIBONNXRUNTIME OUT PICTURE...".into());
    };
    let runtime = Runtime::load(Path::new(library))?;
    let options = PackOptions { providers: vec![Provider::Cpu], ..PackOptions::default() };
    let pack = ModelPack::open(&runtime, Path::new(manifest), Path::new(weights), &options)?;
    std::fs::create_dir_all(out)?;
    let mut files = Vec::new();
    for task in Task::ALL {
        let path = Path::new(out).join(format!("{task}.f32"));
        files.push((task, BufWriter::new(File::create(path)?)));
    }
    for picture in pictures {
        let image = match decode_photo(&std::fs::read(picture)?, &PhotoLimits::default()) {
            Ok(image) => image,
            Err(error) => {
                eprintln!("{picture}: {error}, skipped");
                continue;
            }
        };
        for image in [mirrored(&image)?, image] {
            if !run_models(&pack, &image)? {
                eprintln!("{picture}: no face, skipped");
                continue;
            }
            for (task, file) in &mut files {
                write_last_input(&pack, *task, file)?;
            }
        }
    }
    for (_, file) in &mut files {
        file.flush()?;
    }
    Ok(())
}

/// Runs every model once, as the door does; false when there is no face.
fn run_models(pack: &ModelPack, image: &RgbImage) -> Result<bool, Box<dyn Error>> {
    let faces = pack.detect(image)?;
    let Some(face) = faces.iter().max_by(|a, b| a.rect.area().total_cmp(&b.rect.area())) else { return Ok(false) };
    let landmarks = pack.landmarks(image, &face.rect)?;
    pack.pose(image, &face.rect)?;
    pack.live_score(image, &face.rect)?;
    pack.embed(image, &landmarks.five_points())?;
    // An eye beyond the picture's edge leaves the tensor of the picture before, which is as good.
    let _ = pack.eyes(image, &landmarks);
    Ok(true)
}

/// The tensor of the last run still lies in the session.
fn write_last_input(pack: &ModelPack, task: Task, file: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    pack.pool(task).run(
        |_, tensor| {
            bytes = tensor.iter().flat_map(|value| value.to_le_bytes()).collect();
            Ok(())
        },
        |_| Ok(()),
    )?;
    Ok(file.write_all(&bytes)?)
}

fn mirrored(image: &RgbImage) -> Result<RgbImage, Box<dyn Error>> {
    let bytes = (0..image.height()).flat_map(|y| image.row(y).rchunks(3).flatten().copied().collect::<Vec<u8>>());
    Ok(RgbImage::from_vec(image.width(), image.height(), bytes.collect())?)
}
