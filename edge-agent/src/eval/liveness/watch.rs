//! One presentation before the door's own eyes: what every look at it found.
//!
//! In: a file. Out: [`Watched`]: the findings of every examined frame, and for a still picture what a single moment tells.
//! Frames go through [`Perceiver`] and [`Cadence`] with the clip's own times, none dropped because the machine is slow.
//! Deliberately absent: what the findings amount to (`decision`), counting (`card`).

use std::path::Path;
use std::time::Duration;

use face_core::liveness::{Findings, LivenessEvidence, LivenessPolicy};
use face_core::quality::QualityGate;
use face_core::{Detection, Detector, Frame, LivenessModel, ModelError, PassiveScores, TrackId};
use face_runtime::ModelPack;

use super::media::{Media, MediaError, frame, since_start};
use crate::eval::EvalError;
use crate::stages::perceive::{Attention, Cadence, PerceiveConfig, Perceiver, Percept};

/// What one look found of one face.
pub(super) struct Moment {
    pub(super) track: TrackId,
    /// Since the clip's first picture.
    pub(super) at: Duration,
    /// Since the track's first frame.
    pub(super) since_arrival: Duration,
    pub(super) findings: Findings,
    /// What the frame itself said; none when it was too poor to be evidence.
    pub(super) evidence: Option<LivenessEvidence>,
}

/// Everything seen of one presentation.
#[derive(Default)]
pub(super) struct Watched {
    /// The passive model's scores of the largest face, where this is a single picture.
    pub(super) still: Option<Option<PassiveScores>>,
    pub(super) n_frames: usize,
    pub(super) n_looks: usize,
    /// Looks that found a face.
    pub(super) n_faces: usize,
    pub(super) length: Duration,
    pub(super) moments: Vec<Moment>,
}

/// Watches a presentation to its end.
pub(super) fn watch(pack: &ModelPack, path: &Path, config: PerceiveConfig) -> Result<Watched, EvalError> {
    match Media::open(path)? {
        Media::Still(image) => still(pack, &frame(image, Duration::ZERO, 1), path),
        Media::Video(mut video) => {
            let mut watching = Watching::new(pack, config);
            let mut last = None;
            for frame in &mut video {
                let frame = frame?;
                watching.take(&frame, path)?;
                last = Some(frame);
            }
            match last {
                // A video of one picture is a still picture in another wrapping.
                Some(only) if watching.seen.n_frames == 1 => still(pack, &only, path),
                _ => Ok(watching.seen),
            }
        }
    }
}

struct Watching<'a> {
    pack: &'a ModelPack,
    perceiver: Perceiver,
    cadence: Cadence,
    seen: Watched,
}

impl<'a> Watching<'a> {
    fn new(pack: &'a ModelPack, config: PerceiveConfig) -> Self {
        let perceiver = Perceiver::new("eval".into(), QualityGate::matching(), LivenessPolicy::default());
        Self { pack, perceiver, cadence: Cadence::new(config), seen: Watched::default() }
    }

    fn take(&mut self, frame: &Frame, path: &Path) -> Result<(), EvalError> {
        self.seen.n_frames += 1;
        self.seen.length = since_start(frame.captured_at);
        // Every moment may be somebody's arrival, so no face is old enough to be looked at less often.
        let attention = match self.perceiver.attention() {
            Attention::Settled => Attention::Undecided,
            other => other,
        };
        if !self.cadence.due(frame.captured_at, attention) {
            return Ok(());
        }
        // As on a machine that is quick enough: a look costs no time.
        self.cadence.looked(frame.captured_at, Duration::ZERO);
        self.seen.n_looks += 1;
        let failed = |source| EvalError::Model { path: path.to_owned(), source };
        let percepts = self.perceiver.look(self.pack, frame).map_err(failed)?;
        let before = self.seen.moments.len();
        for percept in percepts {
            if let Percept::Face(report) = percept {
                let newest = self.perceiver.evidence(report.track);
                self.seen.moments.push(Moment {
                    track: report.track,
                    at: since_start(report.captured_at),
                    since_arrival: report.captured_at.since(report.first_seen),
                    findings: report.liveness,
                    evidence: newest.filter(|evidence| evidence.captured_at == frame.captured_at).cloned(),
                });
            }
        }
        self.seen.n_faces += usize::from(self.seen.moments.len() > before);
        Ok(())
    }
}

/// A single moment: the passive model looks at the largest face, however it is turned.
fn still(pack: &ModelPack, frame: &Frame, path: &Path) -> Result<Watched, EvalError> {
    let failed = |source: ModelError| EvalError::Model { path: path.to_owned(), source };
    let faces = pack.detect(&frame.image).map_err(failed)?;
    let largest = faces.iter().max_by(|a: &&Detection, b: &&Detection| a.rect.area().total_cmp(&b.rect.area()));
    let scores = largest.map(|face| pack.live_scores(&frame.image, &face.rect)).transpose().map_err(failed)?;
    let n_faces = usize::from(largest.is_some());
    Ok(Watched { still: Some(scores), n_frames: 1, n_looks: 1, n_faces, ..Watched::default() })
}

impl From<MediaError> for EvalError {
    fn from(error: MediaError) -> Self {
        Self::Media(error)
    }
}
