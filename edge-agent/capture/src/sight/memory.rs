//! Which pictures were seen before, by their digests, and whether they come again in their order.

use std::collections::{HashMap, VecDeque};

/// Pictures remembered: ten minutes at 15 a second, under half a megabyte. A longer loop is not found.
const REMEMBERED: usize = 9_000;

/// How a picture relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// New.
    Never,
    /// The very picture before this one.
    Last,
    /// An earlier one; the last `run` pictures in a row came at this same distance behind theirs.
    Earlier { run: u32 },
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Number of the newest picture with this digest.
    places: HashMap<u64, u64>,
    order: VecDeque<u64>,
    count: u64,
    run: u32,
    distance: u64,
}

impl Memory {
    /// Takes the next picture's digest in. A picture that only repeats the last one is not counted as a place of its own.
    pub(super) fn take(&mut self, digest: u64) -> Before {
        if self.order.back() == Some(&digest) {
            return Before::Last;
        }
        self.count += 1;
        let earlier = self.places.insert(digest, self.count);
        self.order.push_back(digest);
        if self.order.len() > REMEMBERED {
            self.forget_oldest();
        }
        let Some(place) = earlier else {
            self.run = 0;
            return Before::Never;
        };
        let distance = self.count - place;
        self.run = if distance == self.distance { self.run + 1 } else { 1 };
        self.distance = distance;
        Before::Earlier { run: self.run }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        // It may have come again since: then the newer place stays.
        let first_kept = self.count - self.order.len() as u64;
        if self.places.get(&oldest).is_some_and(|place| *place <= first_kept) {
            self.places.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_known_by_one_distance_and_a_chance_meeting_is_not_a_run() {
        let mut memory = Memory::default();
        for digest in [1, 2, 3, 4] {
            assert_eq!(memory.take(digest), Before::Never);
        }
        assert_eq!(memory.take(4), Before::Last);
        for (digest, run) in [(1, 1), (2, 2), (3, 3), (4, 4), (1, 5)] {
            assert_eq!(memory.take(digest), Before::Earlier { run });
        }
        assert_eq!(memory.take(9), Before::Never);
        assert_eq!(memory.take(3), Before::Earlier { run: 1 }, "another distance begins another run");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_is_kept() {
        let mut memory = Memory::default();
        let kept = u64::try_from(REMEMBERED).unwrap();
        for digest in 0..3 * kept {
            assert_eq!(memory.take(digest), Before::Never);
        }
        assert_eq!((memory.order.len(), memory.places.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(memory.take(0), Before::Never, "forgotten");
        assert_eq!(memory.take(3 * kept - 1), Before::Earlier { run: 1 });
    }
}
