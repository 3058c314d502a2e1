//! FAISS `IndexFlatIP` as a source of candidates.
//!
//! In: the rows, once. Out: rows that surely contain the exact top `k`. FAISS gives the `k` best by its own sums,
//! which say nothing of rows that tie with the last one; so it is asked for more until the last score is clearly below
//! the `k`-th. It is given the rows at their stored precision, so that it answers about the same templates as the exact
//! kernel. The index is never written to or read from disk: FAISS does not survive hostile files.

use face_core::clarity::docked_by;
use face_core::{DIM, Embedding};
use faiss::index::flat::FlatIndex;
use faiss::{ConcurrentIndex, Index};

use crate::candidates::floor_of;
use crate::rows::Rows;
use crate::snapshot::BuildError;

/// Twice the largest difference between a score of FAISS and the oracle's, with room for norms of 1 ± 2e-4.
///
/// FAISS adds in an order of its own. For unit vectors of `n` = 512 components any order is within `n·u / (1 − n·u)` =
/// 3.06e-5 of the true value, `u` = 2⁻²⁴ (Higham, §3.1), so two of them within 6.12e-5 of each other. Let A be the `k`-th
/// best score of FAISS: at least `k` rows score A − 6.12e-5 or more with the oracle, so a row of the exact top `k` has a
/// score of at least A − 2 · 6.12e-5 with FAISS. Docking rounds by less than 4e-7 on either side, for which there is room.
const MARGIN: f32 = 1.3e-4;

/// Rows handed to FAISS at a time, so that building needs one small buffer beside its own copy.
const ADD_ROWS: usize = 1024;

/// A flat inner-product index over all rows.
pub(crate) struct FaissFlat {
    index: FlatIndex,
    handicaps: Vec<f32>,
}

impl FaissFlat {
    pub(crate) fn build(rows: &Rows) -> Result<Self, BuildError> {
        let failed = |source| BuildError::Faiss { rows: rows.len(), source: Box::new(source) };
        let dimension = u32::try_from(DIM).expect("512 fits");
        let mut index = FlatIndex::new_ip(dimension).map_err(failed)?;
        let mut buffer = Vec::with_capacity(ADD_ROWS.min(rows.len()) * DIM);
        for first in (0..rows.len()).step_by(ADD_ROWS) {
            buffer.clear();
            for row in first..rows.len().min(first + ADD_ROWS) {
                buffer.extend_from_slice(&rows.restore(row));
            }
            index.add(&buffer).map_err(failed)?;
        }
        Ok(Self { index, handicaps: rows.handicaps().to_vec() })
    }

    /// Bytes of its own copy.
    pub(crate) fn bytes(&self) -> usize {
        self.handicaps.len() * (DIM + 1) * size_of::<f32>()
    }

    /// Rows that surely contain the exact top `k` (at least 1, at most the number of rows), in gallery order.
    pub(crate) fn candidates(&self, probe: &Embedding, k: usize) -> Result<Vec<usize>, faiss::error::Error> {
        let n_rows = self.handicaps.len();
        let least = self.handicaps.iter().fold(f32::INFINITY, |least, handicap| least.min(*handicap));
        let mut depth = k.saturating_mul(2).saturating_add(8).min(n_rows);
        loop {
            let found = self.index.search(probe.as_slice(), depth)?;
            let rows = found.labels.iter().map(|label| label.get().and_then(|label| usize::try_from(label).ok()));
            let mut docked: Vec<(usize, f32)> = rows
                .zip(&found.distances)
                .filter_map(|(row, cosine)| {
                    row.map(|row| (row, cosine - docked_by(probe.handicap(), self.handicaps[row])))
                })
                .collect();
            docked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
            // Fewer labels than asked for would be FAISS's error; then everything is looked at.
            let floor = docked.get(k - 1).map_or(f32::NEG_INFINITY, |(_, kth)| floor_of(kth - MARGIN));
            let lowest = found.distances[depth - 1] - docked_by(probe.handicap(), least);
            if depth == n_rows || lowest < floor {
                let mut rows: Vec<usize> =
                    docked.into_iter().filter(|(_, score)| *score >= floor).map(|(row, _)| row).collect();
                rows.sort_unstable();
                return Ok(rows);
            }
            depth = depth.saturating_mul(4).min(n_rows);
        }
    }
}
