//! A person who comes and goes by the clock, so that the time from arrival to anything else can be measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use image::{RgbImage, imageops};

use super::clip::{FPS, corridor, noisy, write_long_clip};
use super::frames::pictures;

/// Pictures of the empty corridor that differ by their noise; one second of them.
const EXPOSURES: u32 = FPS;

/// When the visits of a clip begin, counted from its first picture.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Time of the first picture with a person, one a visit.
    pub arrivals: Vec<Duration>,
    /// Length of the clip.
    pub length: Duration,
}

/// Somebody who comes again and again.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The clip that shows them.
    pub source: PathBuf,
    /// Where in it a visit begins.
    pub from: Duration,
    /// How long a visit lasts.
    pub present: Duration,
    /// How long nobody is there before a visit, at least.
    pub absent: Duration,
    /// Added to the first gap, so that several cameras are not met in step.
    pub delay: Duration,
    /// How often they come.
    pub visits: u32,
}

/// Writes a clip in which the visitor comes and goes, with an empty corridor between. A clip that is there already is
/// taken for this one.
///
/// The gaps grow by one picture a visit, so that arrivals fall on every phase of the detector's cadence.
pub fn visits(visitor: &Visitor, path: &Path) -> Result<Schedule> {
    let frame = Duration::from_secs(1) / FPS;
    let count = |time: Duration| u32::try_from(time.as_millis() / frame.as_millis()).unwrap_or(u32::MAX);
    let present = count(visitor.present);
    let mut gaps = Vec::new();
    let mut arrivals = Vec::new();
    let mut length = 0;
    for visit in 0..visitor.visits {
        let delay = if visit == 0 { count(visitor.delay) } else { 0 };
        let gap = count(visitor.absent) + visit % FPS + delay;
        gaps.push(gap as usize);
        arrivals.push(frame * (length + gap));
        length += gap + present;
    }
    if !path.exists() {
        let times: Vec<Duration> = (0..present).map(|index| visitor.from + frame * index).collect();
        let person: Vec<RgbImage> = pictures(&visitor.source, &times)?.iter().map(fill).collect();
        // The person's pictures carry their camera's own noise; the wall's are made once and taken in turn.
        let wall: Vec<RgbImage> = (0..EXPOSURES).map(|seed| noisy(&corridor(), seed)).collect();
        let scenes = gaps.into_iter().flat_map(|gap| wall.iter().cycle().take(gap).chain(&person));
        // Aside and then into place, so that an interrupted run leaves no half of it.
        let making = path.with_extension("making");
        write_long_clip(&making, scenes.cloned())?;
        std::fs::rename(making, path)?;
    }
    Ok(Schedule { arrivals, length: frame * length })
}

/// The picture at 640×480, as a camera of that size would show it.
fn fill(picture: &RgbImage) -> RgbImage {
    imageops::resize(picture, 640, 480, imageops::FilterType::Triangle)
}
