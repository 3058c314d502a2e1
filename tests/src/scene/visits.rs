//! A person who comes and goes by the clock, so that the time from arrival to anything else can be measured.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use image::{RgbImage, imageops};

use super::clip::{FPS, corridor, write_clip};
use super::frames::pictures;

/// When the visits of a clip begin, counted from its first picture.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Time of the first picture with a person, one a visit.
    pub arrivals: Vec<Duration>,
    /// Length of the clip.
    pub length: Duration,
}

/// Writes a clip in which the person of `source` is seen `visits` times for `present`, with an empty corridor between.
///
/// The gaps grow by one picture a visit, so that arrivals fall on every phase of the detector's cadence.
pub fn visits(source: &Path, path: &Path, visits: u32, present: Duration, absent: Duration) -> Result<Schedule> {
    let frame = Duration::from_secs(1) / FPS;
    let count = |time: Duration| u32::try_from(time.as_millis() / frame.as_millis()).unwrap_or(u32::MAX);
    let times: Vec<Duration> = (0..count(present)).map(|index| frame * index).collect();
    let person: Vec<RgbImage> = pictures(source, &times)?.iter().map(fill).collect();
    let wall = corridor();
    let mut scenes = Vec::new();
    let mut arrivals = Vec::new();
    let mut length = 0;
    for visit in 0..visits {
        let gap = count(absent) + visit % FPS;
        scenes.push((None, gap));
        arrivals.push(frame * (length + gap));
        scenes.push((Some(()), count(present)));
        length += gap + count(present);
    }
    let frames = scenes.into_iter().flat_map(|(who, count)| {
        let (wall, person) = (&wall, &person);
        (0..count as usize).map(move |index| if who.is_some() { person[index].clone() } else { wall.clone() })
    });
    write_clip(path, frames)?;
    Ok(Schedule { arrivals, length: frame * length })
}

/// The picture at 640×480, as a camera of that size would show it.
fn fill(picture: &RgbImage) -> RgbImage {
    imageops::resize(picture, 640, 480, imageops::FilterType::Triangle)
}
