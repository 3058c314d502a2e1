//! The fixed list of calls on one picture, here and in Python, in turns.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use face_core::align::Alignment;
use face_core::quality::{Quality, QualityInput};
use face_core::sample::aligned_grey;
use face_core::{
    Detector, Embedder, Embedding, EyeModel, EyeState, HeadPose, LandmarkModel, LivenessModel, PixelRect, PoseModel,
    RgbImage,
};
use face_runtime::{ModelPack, Task};
use serde_json::{Map, Value, json};

use super::{median, ms, ratio};

/// What the list of calls finds out about the largest face.
pub(super) struct Answers {
    face: PixelRect,
    pose: HeadPose,
    live: f32,
    eyes: EyeState,
    embedding: Embedding,
}

/// The list: detector, landmarks, pose, quality, both liveness crops, both eyes, embedding.
pub(super) fn every_model(pack: &ModelPack, image: &RgbImage) -> Result<Option<Answers>> {
    let faces = pack.detect(image)?;
    let largest = faces.iter().max_by(|a, b| a.rect.area().total_cmp(&b.rect.area()));
    let Some(face) = largest.map(|detection| detection.rect) else { return Ok(None) };
    let landmarks = pack.landmarks(image, &face)?;
    let points = landmarks.five_points();
    let pose = pack.pose(image, &face)?;
    let aligned = aligned_grey(image, &Alignment::fit(&points)?);
    let picture = (image.width(), image.height());
    std::hint::black_box(Quality::measure(&QualityInput { aligned: &aligned, face: &face, picture, pose: Some(pose) }));
    let live = pack.live_score(image, &face)?;
    let eyes = pack.eyes(image, &landmarks)?;
    Ok(Some(Answers { face, pose, live, eyes, embedding: pack.embed(image, &points)? }))
}

/// Both sides in turns, after a few rounds to warm up; medians. Python comes twice: as its users write it, and with ONNX Runtime's
/// switch for denormal numbers, which the agent's runtime has by itself.
pub(super) fn measure(
    pack: &ModelPack,
    python: &Path,
    weights: &Path,
    threads: usize,
    image: &RgbImage,
    rounds: usize,
) -> Result<Value> {
    let calls = calls_of_one_round(pack, image)?;
    let mut peer = Peer::start(python, weights, threads, false, &calls, image)?;
    let mut flushing = Peer::start(python, weights, threads, true, &calls, image)?;
    let (mut ours, mut theirs, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
    let mut agreement = Value::Null;
    for round in 0..rounds + 5 {
        let began = Instant::now();
        let answers = every_model(pack, image)?.context("the picture has no face")?;
        let own = began.elapsed();
        let (time, told) = peer.look()?;
        let (time_flushed, _) = flushing.look()?;
        if round == 0 {
            agreement = compare(&answers, &told)?;
        }
        if round >= 5 {
            ours.push(own);
            theirs.push(time);
            flushed.push(time_flushed);
        }
    }
    let (own, other, flushed) = (median(ours), median(theirs), median(flushed));
    Ok(json!({
        "speedup": ratio(other, own),
        "speedup_flushed": ratio(flushed, own),
        "calls": calls.iter().map(|(task, runs)| (task.as_str().to_owned(), json!(runs))).collect::<Map<_, _>>(),
        "rounds": rounds,
        "lintel_ms": ms(own),
        "peer_ms": ms(other),
        "peer_flushed_ms": ms(flushed),
        "peer": peer.versions,
        "agreement": agreement,
    }))
}

/// How often each model runs for the list; the peer is told, and knows these lists only.
fn calls_of_one_round(pack: &ModelPack, image: &RgbImage) -> Result<Vec<(Task, u64)>> {
    let before = Task::ALL.map(|task| pack.usage(task).runs);
    every_model(pack, image)?.context("the picture has no face")?;
    let runs = Task::ALL.iter().zip(before);
    let calls: Vec<(Task, u64)> = runs.map(|(task, before)| (*task, pack.usage(*task).runs - before)).collect();
    let known = calls.iter().all(|(task, runs)| match task {
        Task::Detect | Task::Pose => *runs == 1,
        Task::Liveness | Task::Eye => *runs == 2,
        Task::Landmark | Task::Feature => *runs == 1 || *runs == 2,
    });
    if known { Ok(calls) } else { bail!("peer.py does not know this list of calls: {calls:?}") }
}

/// Fails unless both did the same work: the same box, pose, scores and embedding, as far as their resampling differs.
fn compare(ours: &Answers, theirs: &Value) -> Result<Value> {
    let numbers = |key: &str| -> Vec<f32> {
        theirs[key].as_array().into_iter().flatten().filter_map(Value::as_f64).map(|value| value as f32).collect()
    };
    let corner = numbers("box");
    let [x, y, width, height] = corner[..] else { bail!("the peer's box has {} numbers", corner.len()) };
    let iou = PixelRect::new(x, y, width, height)?.iou(&ours.face);
    let cosine: f32 = numbers("embedding").iter().zip(ours.embedding.as_slice()).map(|(a, b)| a * b).sum();
    let apart = |key: &str, own: &[f32]| numbers(key).iter().zip(own).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let pose_deg = apart("pose", &[ours.pose.yaw_deg, ours.pose.pitch_deg, ours.pose.roll_deg]);
    let closed = apart("closed", &[ours.eyes.left_closed, ours.eyes.right_closed]);
    let live = (theirs["live"].as_f64().unwrap_or(f64::NAN) as f32 - ours.live).abs();
    let told = json!({"iou": iou, "cosine": cosine, "pose_deg": pose_deg, "live": live, "closed": closed});
    // Loose on purpose: crops are cut at whole pixels there and between them here.
    if iou > 0.9 && cosine > 0.95 && pose_deg < 6.0 && live < 0.2 && closed < 0.5 {
        return Ok(told);
    }
    bail!("the peer does not do the same work: {told}")
}

/// The Python process.
struct Peer {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    versions: String,
}

impl Peer {
    fn start(
        python: &Path,
        weights: &Path,
        threads: usize,
        flushes: bool,
        calls: &[(Task, u64)],
        image: &RgbImage,
    ) -> Result<Self> {
        let runs = |wanted: Task| calls.iter().find(|(task, _)| *task == wanted).map_or(0, |(_, runs)| *runs);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pipeline/peer.py");
        let mut child = Command::new(python)
            .arg(&script)
            .arg(weights)
            .args([threads.to_string().as_str(), "0", if flushes { "1" } else { "0" }])
            .args([Task::Landmark, Task::Feature].map(|task| runs(task).to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} could not be started", python.display()))?;
        let answers = BufReader::new(child.stdout.take().context("the peer's output")?);
        let input = child.stdin.as_mut().context("the peer's input")?;
        writeln!(input, "{} {}", image.width(), image.height())?;
        for y in 0..image.height() {
            input.write_all(image.row(y))?;
        }
        input.flush()?;
        let mut peer = Self { child, answers, versions: String::new() };
        peer.versions = peer.line()?.trim().to_owned();
        Ok(peer)
    }

    /// One round there: its time and its answers.
    fn look(&mut self) -> Result<(Duration, Value)> {
        let input = self.child.stdin.as_mut().context("the peer's input")?;
        input.write_all(b"\n")?;
        input.flush()?;
        let line = self.line()?;
        let (time, answers) = line.split_once(' ').context("the peer's answer")?;
        Ok((Duration::from_nanos(time.parse()?), serde_json::from_str(answers)?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.by_ref().read_line(&mut line)? == 0 {
            bail!("the peer ended; its complaint stands above");
        }
        Ok(line)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its input closes with the child's handles; what does not end by that is ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
