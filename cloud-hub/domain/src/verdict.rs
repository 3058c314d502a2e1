//! What the hub makes of a batch of events: the heart of exactly-once.
//!
//! In: the stream's committed sequence, the ids already stored in the batch's range, and the batch's own
//! `(sequence, id)` pairs. Out: a [`Ruling`]. The caller holds the lock on the stream's row and writes what the
//! ruling says in the same transaction.

use std::collections::HashMap;

use uuid::Uuid;

/// What is done with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// There is a hole before the batch: write nothing and tell the edge to resend from `committed + 1`.
    Rewind,
    /// Store the events from this index on (those before it are duplicates) and set the committed sequence.
    Store {
        /// Index in the batch of the first new event; the batch's length if all are duplicates.
        first_new: usize,
        /// The committed sequence afterwards.
        through: u64,
    },
    /// A sequence that is already committed came with another id: a clone. Quarantine, do not advance.
    Conflict {
        /// Index in the batch of the first event that contradicts a stored one.
        index: usize,
    },
}

/// A batch that no edge of ours sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There is nothing in it.
    #[error("batch is empty")]
    Empty,
    /// A sequence is not the one before plus one, or starts below 1.
    #[error("batch is not contiguous at index {index}: found sequence {found}")]
    NotContiguous {
        /// Where.
        index: usize,
        /// What stood there.
        found: u64,
    },
}

/// Rules on a batch whose events are `(sequence, id)` in order.
///
/// `stored` must hold the id of every committed sequence from the batch's first one on. A committed sequence that
/// it does not hold (its rows passed their retention) counts as the duplicate that it is.
pub fn rule(committed: u64, stored: &HashMap<u64, Uuid>, batch: &[(u64, Uuid)]) -> Result<Ruling, BatchError> {
    let first = batch.first().ok_or(BatchError::Empty)?.0;
    let contiguous = |index: usize, found: u64| {
        let expected = u64::try_from(index).ok().and_then(|index| first.checked_add(index));
        first > 0 && expected == Some(found)
    };
    if let Some((index, (found, _))) = batch.iter().enumerate().find(|(index, event)| !contiguous(*index, event.0)) {
        return Err(BatchError::NotContiguous { index, found: *found });
    }
    if first > committed + 1 {
        return Ok(Ruling::Rewind);
    }
    let contradicts =
        |(sequence, id): &(u64, Uuid)| *sequence <= committed && stored.get(sequence).is_some_and(|known| known != id);
    if let Some(index) = batch.iter().position(contradicts) {
        return Ok(Ruling::Conflict { index });
    }
    let first_new = batch.iter().position(|(sequence, _)| *sequence > committed).unwrap_or(batch.len());
    let last = batch.last().map_or(first, |event| event.0);
    Ok(Ruling::Store { first_new, through: committed.max(last) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(sequence: u64) -> Uuid {
        Uuid::from_u128(u128::from(sequence))
    }

    fn batch(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, Uuid)> {
        range.map(|sequence| (sequence, id(sequence))).collect()
    }

    fn stored(through: u64) -> HashMap<u64, Uuid> {
        batch(1..=through).into_iter().collect()
    }

    #[test]
    fn a_hole_before_the_batch_is_a_rewind() {
        assert_eq!(rule(4, &stored(4), &batch(6..=8)), Ok(Ruling::Rewind));
        assert_eq!(rule(0, &stored(0), &batch(2..=2)), Ok(Ruling::Rewind));
    }

    #[test]
    fn a_batch_that_overlaps_is_split_into_duplicates_and_new_events() {
        assert_eq!(rule(4, &stored(4), &batch(3..=6)), Ok(Ruling::Store { first_new: 2, through: 6 }));
        assert_eq!(rule(4, &stored(4), &batch(5..=6)), Ok(Ruling::Store { first_new: 0, through: 6 }));
        assert_eq!(rule(4, &stored(4), &batch(1..=3)), Ok(Ruling::Store { first_new: 3, through: 4 }));
    }

    #[test]
    fn a_committed_sequence_with_another_id_is_a_conflict() {
        let mut twin = batch(3..=6);
        twin[1].1 = Uuid::from_u128(99);
        assert_eq!(rule(4, &stored(4), &twin), Ok(Ruling::Conflict { index: 1 }));
    }

    #[test]
    fn an_event_whose_row_was_retired_is_a_duplicate() {
        assert_eq!(rule(4, &HashMap::new(), &batch(2..=5)), Ok(Ruling::Store { first_new: 3, through: 5 }));
    }

    #[test]
    fn broken_batches_are_refused() {
        assert_eq!(rule(0, &stored(0), &[]), Err(BatchError::Empty));
        assert_eq!(rule(0, &stored(0), &batch(0..=1)), Err(BatchError::NotContiguous { index: 0, found: 0 }));
        let holed = [(1, id(1)), (3, id(3))];
        assert_eq!(rule(0, &stored(0), &holed), Err(BatchError::NotContiguous { index: 1, found: 3 }));
        let overflowing = [(u64::MAX, id(1)), (0, id(2))];
        assert_eq!(rule(0, &stored(0), &overflowing), Err(BatchError::NotContiguous { index: 1, found: 0 }));
    }

    proptest! {
        /// However an edge cuts, repeats and reorders its batches, every event is stored exactly once and in order.
        #[test]
        fn any_delivery_stores_each_event_once_and_in_order(cuts in prop::collection::vec((1u64..40, 1u64..8), 1..60)) {
            let (mut committed, mut rows) = (0, Vec::new());
            for (first, length) in cuts {
                let known: HashMap<u64, Uuid> = rows.iter().copied().collect();
                let sent = batch(first..=first + length - 1);
                match rule(committed, &known, &sent).unwrap() {
                    Ruling::Rewind => prop_assert!(first > committed + 1),
                    Ruling::Store { first_new, through } => {
                        rows.extend_from_slice(&sent[first_new..]);
                        committed = through;
                    }
                    Ruling::Conflict { .. } => prop_assert!(false, "the edge never contradicted itself"),
                }
                prop_assert_eq!(&rows, &batch(1..=committed));
            }
        }
    }
}
