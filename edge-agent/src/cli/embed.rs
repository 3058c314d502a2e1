//! `edge-agent embed IMAGE`: what the models make of one photograph. Nothing is stored or sent.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use face_core::quality::{Quality, QualityGate};
use face_runtime::photograph::{EnrolError, Enrolled, ExaminedFace, RefusalReason, Refused, enrol_photograph};
use face_runtime::{ModelPack, PhotoError, PhotoLimits, decode_photo};
use serde_json::{Value, json};
use wire_contract::Code;

use super::{Exit, Output, output};
use crate::config::Config;
use crate::logging::chain;
use crate::models;
use crate::stages::record::quality_code;

/// Arguments of `embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// A JPEG or PNG of one person.
    image: PathBuf,
}

/// Why a photograph gave no template: the register's code, and a sentence.
struct Problem {
    codes: Vec<Code>,
    message: String,
    examined: Option<Box<ExaminedFace>>,
}

pub(super) fn embed(args: &EmbedArgs, config: &Config, output: Output) -> Exit {
    let name = args.image.display().to_string();
    let bytes = match std::fs::read(&args.image) {
        Ok(bytes) => bytes,
        Err(error) => {
            output::problem(&format!("photograph {name} cannot be read: {error}"));
            return Exit::Failure;
        }
    };
    let pack = match models::open(&config.models) {
        Ok(pack) => pack,
        Err(error) => {
            output::problem(&chain(&error));
            return Exit::Failure;
        }
    };
    match template(&pack, &bytes) {
        Ok(enrolled) => output::object(&told(&pack, &enrolled, output), output),
        Err(problem) => {
            output::problem(&format!("photograph {name}: {}", problem.message));
            if output == Output::Json {
                output::object(&refusal(&problem), output);
            }
            Exit::Failure
        }
    }
}

fn template(pack: &ModelPack, bytes: &[u8]) -> Result<Enrolled, Problem> {
    let image = decode_photo(bytes, &PhotoLimits::default()).map_err(|error| {
        let code = match error {
            PhotoError::TooLarge { .. } | PhotoError::TooManyBytes { .. } => Code::PhotoTooLarge,
            _ => Code::PhotoUnreadable,
        };
        Problem { codes: vec![code], message: chain(&error), examined: None }
    })?;
    enrol_photograph(pack, &image, &QualityGate::enrol()).map_err(|error| match error {
        EnrolError::Refused(refused) => refused_problem(refused),
        EnrolError::Model(error) => {
            Problem { codes: vec![Code::ModelsUnavailable], message: chain(&error), examined: None }
        }
    })
}

fn refused_problem(refused: Refused) -> Problem {
    let codes: Vec<Code> = refused
        .reasons
        .iter()
        .map(|reason| match reason {
            RefusalReason::NoFace => Code::NoFace,
            RefusalReason::SeveralFaces => Code::SeveralFaces,
            RefusalReason::Quality(quality) => quality_code(*quality),
        })
        .collect();
    let sentences: Vec<String> = codes
        .iter()
        .map(|code| match code {
            Code::NoFace => "no face was found; take one in which the whole face is visible".to_owned(),
            Code::SeveralFaces => format!("{} faces were found; take one of one person alone", refused.n_faces),
            Code::FaceTooSmall => {
                let height = refused.examined.as_ref().map_or(0.0, |face| face.quality.measures.face_height_px);
                let wanted = QualityGate::enrol().min_face_height_px;
                format!("the face is only {height:.0} pixels high, {wanted:.0} are needed; come closer")
            }
            Code::FaceBlurred => "the face is not sharp; hold still".to_owned(),
            Code::FaceTooDark => "the face is too dark; more light".to_owned(),
            Code::FaceTooBright => "the face is too bright; less light".to_owned(),
            Code::FaceTurned => "the face is turned away; look into the camera".to_owned(),
            Code::FaceOccluded => "something covers the face; take it away".to_owned(),
            other => other.as_str().to_owned(),
        })
        .collect();
    Problem { codes, message: sentences.join("; "), examined: refused.examined }
}

fn refusal(problem: &Problem) -> Value {
    let reasons: Vec<Value> = problem
        .codes
        .iter()
        .map(|code| {
            let entry = code.entry();
            json!({"code": code.as_str(), "stage": entry.map(|entry| entry.stage), "hint": entry.map(|entry| entry.hint)})
        })
        .collect();
    json!({
        "accepted": false,
        "reasons": reasons,
        "message": problem.message,
        "quality": problem.examined.as_ref().map(|face| quality(&face.quality)),
        "face": problem.examined.as_ref().map(|face| face_box(face)),
    })
}

fn told(pack: &ModelPack, enrolled: &Enrolled, output: Output) -> Value {
    let face = &enrolled.examined;
    let mut value = json!({
        "accepted": true,
        "space_id": pack.manifest().space_id,
        "pack": models::pack_name(pack),
        "face": face_box(face),
        "quality": quality(&face.quality),
    });
    if let Some(scale) = pack.manifest().clarity_scale() {
        value["clarity"] = round3(scale.clarity_behind(enrolled.embedding.handicap()).value()).into();
    }
    // 512 numbers tell a person nothing.
    if output == Output::Json {
        value["template"] = STANDARD.encode(enrolled.embedding.to_le_bytes()).into();
        value["template_format"] = "base64 of 512 x f32, little-endian, unit norm".into();
    }
    value
}

fn face_box(face: &ExaminedFace) -> Value {
    let rect = face.face;
    let round = |value: f32| f64::from((value * 10.0).round()) / 10.0;
    json!({
        "x": round(rect.x()), "y": round(rect.y()), "width": round(rect.width()), "height": round(rect.height()),
        "score": round3(face.score),
    })
}

fn quality(quality: &Quality) -> Value {
    json!({
        "overall": round3(quality.overall()),
        "sharpness": round3(quality.sharpness),
        "brightness": round3(quality.brightness),
        "pose": round3(quality.pose),
        "visibility": round3(quality.visibility),
        "size": round3(quality.size),
    })
}

fn round3(value: f32) -> f64 {
    (f64::from(value) * 1000.0).round() / 1000.0
}
