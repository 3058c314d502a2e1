//! A picture reduced to what watching needs: a digest, a coarse grid, fine differences. Cost: four passes over an eighth
//! of the rows.
//!
//! The green channel stands for brightness: it carries most of it and needs no conversion.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use face_core::{MonoTime, RgbImage};

const COLUMNS: usize = 32;
const ROWS: usize = 24;
/// About so many rows are read, spread evenly: every eighth of 480. No living face fits between two of them.
const ROWS_READ: u32 = 60;
/// Change of a cell's mean, in levels, from which on something moves. Noise of two levels changes the mean of 50 pixels by
/// less than one and a half.
const MOVING: f32 = 4.0;
/// The scene is known when it was watched for so long without a fault.
const LEARNING: Duration = Duration::from_secs(10);
/// Share of the newest picture in what is known: daylight comes and goes in minutes, at 15 pictures a second.
const LEARNING_SHARE: f32 = 0.001;

pub(super) struct Signature {
    pub(super) digest: u64,
    cells: [f32; COLUMNS * ROWS],
    /// Green of the rows that are read, row by row.
    green: Vec<u8>,
    width: usize,
}

impl Signature {
    pub(super) fn of(image: &RgbImage) -> Self {
        let mut hasher = DefaultHasher::new();
        let width = image.width() as usize;
        let (mut sums, mut counts) = ([0_u32; COLUMNS * ROWS], [0_u32; COLUMNS * ROWS]);
        let step = (image.height() / ROWS_READ).max(1);
        let mut green = Vec::with_capacity(width * (image.height() / step + 1) as usize);
        for y in (0..image.height()).step_by(step as usize) {
            let row = image.row(y);
            hasher.write(row);
            let first = y as usize * ROWS / image.height() as usize * COLUMNS;
            let begin = green.len();
            green.extend(row.chunks_exact(3).map(|pixel| pixel[1]));
            for (x, value) in green[begin..].iter().enumerate() {
                let cell = first + x * COLUMNS / width;
                sums[cell] += u32::from(*value);
                counts[cell] += 1;
            }
        }
        // A picture smaller than the grid leaves cells empty: they take the picture's mean, which says nothing.
        let mean = sums.iter().sum::<u32>() as f32 / counts.iter().sum::<u32>().max(1) as f32;
        let cell = |cell: usize| if counts[cell] == 0 { mean } else { sums[cell] as f32 / counts[cell] as f32 };
        let cells = std::array::from_fn(cell);
        Self { digest: hasher.finish(), cells, green, width }
    }

    pub(super) fn brightest(&self) -> f32 {
        self.cells.iter().copied().fold(0.0, f32::max)
    }

    /// Between the darkest and the brightest cell.
    pub(super) fn range(&self) -> f32 {
        self.brightest() - self.cells.iter().copied().fold(f32::INFINITY, f32::min)
    }

    /// Mean difference of the same pixels in two pictures of a still scene, which is the sensor's noise; none when
    /// something moves.
    pub(super) fn noise_since(&self, previous: &Self) -> Option<f32> {
        if self.green.len() != previous.green.len() {
            return None;
        }
        let moves = self.cells.iter().zip(&previous.cells).any(|(now, before)| (now - before).abs() > MOVING);
        (!moves).then(|| mean_difference(self.green.iter().zip(&previous.green)))
    }

    /// Mean difference of neighbouring pixels beyond what the noise makes of it: edges.
    fn structure(&self, noise: f32) -> f32 {
        let rows = self.green.chunks_exact(self.width);
        let neighbours = rows.flat_map(|row| row.iter().zip(&row[1..]));
        (mean_difference(neighbours) - noise).max(0.0)
    }
}

fn mean_difference<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> f32 {
    let (sum, count) = pairs.fold((0_u64, 0_u64), |(sum, count), (a, b)| (sum + u64::from(a.abs_diff(*b)), count + 1));
    sum as f32 / count.max(1) as f32
}

/// What the camera normally shows.
#[derive(Default)]
pub(super) struct Scene {
    since: Option<MonoTime>,
    known: Option<Known>,
}

struct Known {
    cells: [f32; COLUMNS * ROWS],
    structure: f32,
}

/// A picture beside what the camera normally shows.
pub(super) struct Shares {
    /// Edges, as a share of the normal ones, at equal brightness.
    pub(super) structure: f32,
    /// Spread of the cells, likewise.
    pub(super) contrast: f32,
    /// Correlation of the cells, in [-1, 1]; other light does not change it.
    pub(super) likeness: f32,
}

impl Scene {
    /// None while the scene is still being learnt.
    pub(super) fn compare(&mut self, signature: &Signature, noise: f32, at: MonoTime) -> Option<Shares> {
        let since = *self.since.get_or_insert(at);
        let Some(known) = &self.known else {
            self.known = Some(Known { cells: signature.cells, structure: signature.structure(noise) });
            return None;
        };
        if at.since(since) < LEARNING {
            self.blend(signature, noise, 0.05);
            return None;
        }
        let (now, normal) = (Spread::of(&signature.cells), Spread::of(&known.cells));
        // Half the light leaves half of every difference.
        let light = (now.mean / normal.mean.max(1.0)).max(f32::MIN_POSITIVE);
        let share = |now: f32, normal: f32| now / (normal * light).max(0.01);
        let product: f32 =
            signature.cells.iter().zip(&known.cells).map(|(a, b)| (a - now.mean) * (b - normal.mean)).sum::<f32>()
                / now.count;
        Some(Shares {
            structure: share(signature.structure(noise), known.structure),
            contrast: share(now.deviation, normal.deviation),
            likeness: product / (now.deviation * normal.deviation).max(0.01),
        })
    }

    /// Follows the slow changes of a scene in order.
    pub(super) fn learn(&mut self, signature: &Signature, noise: f32) {
        self.blend(signature, noise, LEARNING_SHARE);
    }

    fn blend(&mut self, signature: &Signature, noise: f32, share: f32) {
        let structure = signature.structure(noise);
        if let Some(known) = &mut self.known {
            let towards = |known: &mut f32, now: f32| *known += (now - *known) * share;
            towards(&mut known.structure, structure);
            known.cells.iter_mut().zip(&signature.cells).for_each(|(known, now)| towards(known, *now));
        }
    }
}

struct Spread {
    mean: f32,
    deviation: f32,
    count: f32,
}

impl Spread {
    fn of(cells: &[f32]) -> Self {
        let count = cells.len() as f32;
        let mean = cells.iter().sum::<f32>() / count;
        let variance = cells.iter().map(|cell| (cell - mean).powi(2)).sum::<f32>() / count;
        Self { mean, deviation: variance.sqrt(), count }
    }
}
