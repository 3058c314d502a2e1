//! What a well-formed manifest must also be before it is believed: names plain, paths inside, shapes fixed and bounded,
//! thresholds in order, an answer for each output.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use face_core::ClarityScale;
use face_core::clarity::ScaleError;

use super::{ClaritySpec, InputSpec, ManifestError, ModelFile, RawManifest, Task, Threshold, WarmUp};

/// Largest model file that is read, in bytes. The default pack's largest is 5.8 MB; a hostile manifest must not make
/// a 4 GB edge device read a 10 GB file.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Largest tensor that a manifest may declare, in elements (64 Mi floats = 256 MiB).
const MAX_TENSOR_ELEMENTS: u64 = 1 << 26;

fn invalid(field: impl Into<String>, problem: &'static str) -> ManifestError {
    ManifestError::Invalid { field: field.into(), problem }
}

/// Names end up in file names, log lines and the authenticated data of templates: a small alphabet keeps them plain.
fn is_plain_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn identity(raw: &RawManifest) -> Result<(), ManifestError> {
    const NAME: &str = "must be 1 to 64 characters of a-z, 0-9, '-', '_' and '.'";
    if !is_plain_name(&raw.name) {
        return Err(invalid("name", NAME));
    }
    if !is_plain_name(&raw.space_id) {
        return Err(invalid("space_id", NAME));
    }
    if raw.licence.trim().is_empty() {
        return Err(invalid("licence", "must name the licence of the weights"));
    }
    if raw.provenance.trim().is_empty() {
        return Err(invalid("provenance", "must say where the models come from"));
    }
    if !is_sha256(&raw.source.sha256) {
        return Err(invalid("source.sha256", "must be 64 lower-case hexadecimal digits"));
    }
    if raw.embedding.dimension == 0 {
        return Err(invalid("embedding.dimension", "must be above zero"));
    }
    if let Some(ClaritySpec { dim_norm, clear_norm, weight }) = raw.embedding.clarity {
        ClarityScale::new(dim_norm, clear_norm, weight).map_err(|error| match error {
            ScaleError::Norms => invalid("embedding.clarity", "dim_norm must be above zero and below clear_norm"),
            ScaleError::Weight => invalid("embedding.clarity", "weight must be between 0 and 0.2"),
        })?;
        if raw.embedding.normalised {
            return Err(invalid("embedding.clarity", "a model whose output always has unit length says nothing by it"));
        }
    }
    Ok(())
}

pub(super) fn thresholds(mut thresholds: Vec<Threshold>) -> Result<Vec<Threshold>, ManifestError> {
    if thresholds.is_empty() {
        return Err(invalid("thresholds", "must hold at least one calibrated operating point"));
    }
    for threshold in &thresholds {
        if !(threshold.score > -1.0 && threshold.score < 1.0) {
            return Err(invalid("thresholds.score", "must be a cosine between -1 and 1"));
        }
        check_galleries(threshold)?;
        if threshold.data_set.trim().is_empty() {
            return Err(invalid("thresholds.data_set", "must name the pictures it was measured on"));
        }
        if threshold.measured_on.date.is_none() {
            return Err(invalid("thresholds.measured_on", "must be a date"));
        }
    }
    thresholds.sort_by(|a, b| a.far.0.total_cmp(&b.far.0));
    for pair in thresholds.windows(2) {
        if pair[0].far.same_as(pair[1].far) {
            return Err(invalid("thresholds.far", "appears twice"));
        }
        // A stricter rate with a laxer score would open doors that the operator meant to close.
        if pair[0].score <= pair[1].score {
            return Err(invalid("thresholds.score", "must rise as the false accept rate falls"));
        }
        let (strict, lax) = (&pair[0].galleries, &pair[1].galleries);
        if strict.len() != lax.len() || strict.iter().zip(lax).any(|(strict, lax)| strict.up_to != lax.up_to) {
            return Err(invalid("thresholds.galleries", "must have the same sizes at every false accept rate"));
        }
        if strict.iter().zip(lax).any(|(strict, lax)| strict.score <= lax.score) {
            return Err(invalid("thresholds.galleries", "must rise as the false accept rate falls"));
        }
    }
    Ok(thresholds)
}

/// A larger gallery with a laxer score would let more strangers in than the rate says.
fn check_galleries(threshold: &Threshold) -> Result<(), ManifestError> {
    if threshold.galleries.is_empty() {
        return Err(invalid("thresholds.galleries", "must say what a gallery of more than one template needs"));
    }
    let mut before = (1, threshold.score);
    for gallery in &threshold.galleries {
        if !(gallery.score > -1.0 && gallery.score < 1.0) {
            return Err(invalid("thresholds.galleries", "each score must be a cosine between -1 and 1"));
        }
        if gallery.up_to <= before.0 || gallery.score <= before.1 {
            return Err(invalid("thresholds.galleries", "must rise with the size of the gallery"));
        }
        before = (gallery.up_to, gallery.score);
    }
    Ok(())
}

pub(super) fn files(files: &[ModelFile]) -> Result<(), ManifestError> {
    let mut seen = BTreeSet::new();
    for file in files {
        if !seen.insert(file.task) {
            return Err(invalid(format!("files[{}]", file.task), "the task has two files"));
        }
        check_file(file)?;
    }
    match Task::ALL.into_iter().find(|task| !seen.contains(task)) {
        Some(task) => Err(ManifestError::MissingTask { task }),
        None => Ok(()),
    }
}

fn check_file(file: &ModelFile) -> Result<(), ManifestError> {
    let field = |key: &str| format!("files[{}].{key}", file.task);
    if !is_inside(&file.path) {
        return Err(invalid(field("path"), "must be a relative path without '..'"));
    }
    if !is_sha256(&file.sha256) {
        return Err(invalid(field("sha256"), "must be 64 lower-case hexadecimal digits"));
    }
    if !(1..=MAX_FILE_BYTES).contains(&file.size_bytes) {
        return Err(invalid(field("size_bytes"), "must be between 1 byte and 1 GiB"));
    }
    if file.onnx.min_ort_api > ort::MINOR_VERSION {
        return Err(invalid(
            field("onnx.min_ort_api"),
            "is newer than the ONNX Runtime API this program was built for",
        ));
    }
    check_input(&file.input).map_err(|problem| invalid(field("input"), problem))?;
    if file.outputs.is_empty() {
        return Err(invalid(field("outputs"), "must list at least one output"));
    }
    for output in &file.outputs {
        if !is_shape(&output.shape) {
            return Err(invalid(field("outputs"), "every dimension must be fixed and above zero"));
        }
    }
    check_warm_up(file).map_err(|problem| invalid(field("warm_up"), problem))
}

/// A pack must not reach outside its own directory.
fn is_inside(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_shape(shape: &[usize]) -> bool {
    let elements = shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size as u64));
    !shape.is_empty() && elements.is_some_and(|elements| (1..=MAX_TENSOR_ELEMENTS).contains(&elements))
}

fn check_input(input: &InputSpec) -> Result<(), &'static str> {
    if !is_shape(&input.shape) {
        return Err("shape: every dimension must be fixed and above zero");
    }
    if input.shape[0] != 1 {
        return Err("shape: the batch must be 1");
    }
    if input.shape[1] != input.colour.planes() {
        return Err("shape: the number of planes does not fit the colour");
    }
    if input.mean.len() != input.shape[1] || input.scale.len() != input.shape[1] {
        return Err("mean and scale need one value per plane");
    }
    if !input.mean.iter().all(|mean| mean.is_finite()) {
        return Err("mean must be finite");
    }
    if !input.scale.iter().all(|scale| scale.is_finite() && *scale > 0.0) {
        return Err("scale must be finite and above zero");
    }
    Ok(())
}

fn check_warm_up(file: &ModelFile) -> Result<(), &'static str> {
    let WarmUp { tolerance, answers, .. } = &file.warm_up;
    // Above a tenth, another model of the same family could pass.
    if !(*tolerance > 0.0 && *tolerance <= 0.1) {
        return Err("tolerance must be above 0 and at most 0.1");
    }
    if answers.len() != file.outputs.len() {
        return Err("needs one answer for each output");
    }
    for output in &file.outputs {
        let Some(answer) = answers.iter().find(|answer| answer.output == output.name) else {
            return Err("an output has no answer");
        };
        let finite = answer.rms.is_finite() && answer.samples.iter().all(|sample| sample.is_finite());
        if !finite || answer.rms <= 0.0 {
            return Err("an answer must be finite and its rms above zero");
        }
        if answer.samples.len() < 2 || answer.samples.len() > output.len() {
            return Err("an answer needs at least two samples and no more than the output has elements");
        }
    }
    Ok(())
}
