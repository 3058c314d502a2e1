//! The first pass: which rows may belong to the top `k`, for one probe or several, on one thread or several.
//!
//! In: rows and probes. Out: for each probe the rows that surely hold its exact top `k`, in gallery order. Every row's
//! coarse part is read from memory once a call, however many probes there are.

use std::num::NonZeroUsize;

use crate::bound::Probe;
use crate::candidates::Candidates;
use crate::kernel::Kernel;
use crate::rows::Rows;

/// Rows scored before their scores are looked at: 32 KiB, which stay in the cache while the other probes use them.
const BLOCK: usize = 64;

/// Probes that share one reading of the rows; their 2 KiB each must fit in the cache beside the block.
const BATCH: usize = 16;

/// Fewer rows than this a thread are not worth starting it for: it takes about as long as reading 5,000 rows.
const ROWS_A_THREAD: usize = 10_000;

/// Rows that may belong to each probe's top `k` (at least 1), in gallery order.
pub(crate) fn scan(
    kernel: Kernel,
    rows: &Rows,
    probes: &[Probe],
    k: usize,
    n_threads: NonZeroUsize,
) -> Vec<Vec<usize>> {
    let n_threads = n_threads.get().min(rows.len() / ROWS_A_THREAD).max(1);
    let share = rows.len().div_ceil(n_threads).next_multiple_of(BLOCK);
    let mut found = Vec::with_capacity(probes.len());
    for probes in probes.chunks(BATCH) {
        let part = |first: usize| scan_part(kernel, rows, probes, k, first..rows.len().min(first + share));
        let candidates = std::thread::scope(|scope| {
            let others: Vec<_> =
                (share..rows.len()).step_by(share).map(|first| scope.spawn(move || part(first))).collect();
            let mut candidates = part(0);
            for other in others {
                let other = other.join().expect("the scan does not panic");
                candidates.iter_mut().zip(other).for_each(|(mine, other)| mine.absorb(other));
            }
            candidates
        });
        found.extend(candidates.into_iter().map(Candidates::into_rows));
    }
    found
}

fn scan_part(kernel: Kernel, rows: &Rows, probes: &[Probe], k: usize, part: std::ops::Range<usize>) -> Vec<Candidates> {
    let mut candidates: Vec<Candidates> = probes.iter().map(|_| Candidates::new(k)).collect();
    let mut products = [0; BLOCK];
    for first in part.clone().step_by(BLOCK) {
        let block = first..part.end.min(first + BLOCK);
        let products = &mut products[..block.len()];
        let steps = &rows.coarse_steps()[block.clone()];
        let residuals = &rows.residuals()[block.clone()];
        let handicaps = &rows.handicaps()[block.clone()];
        for (probe, candidates) in probes.iter().zip(&mut candidates) {
            kernel.products(probe, &rows.coarse()[block.clone()], products);
            let intervals = || {
                let scored = products.iter().zip(steps).zip(residuals).zip(handicaps);
                scored.map(|(((product, step), residual), handicap)| {
                    probe.interval(*product, *step, *residual, *handicap)
                })
            };
            // Nearly always nobody reaches the floor, and this question has no branch in it.
            let floor = candidates.floor();
            if intervals().fold(false, |any, (_, high)| any | (high >= floor)) {
                for (offset, (low, high)) in intervals().enumerate() {
                    candidates.offer(first + offset, low, high);
                }
            }
        }
    }
    candidates
}
