//! How long to wait before a source is tried again.

use std::time::Duration;

/// After the first failure. A camera that only dropped its connection is back at once.
const FIRST: Duration = Duration::from_millis(250);
/// Never longer: a camera that comes back must show a picture within 5 s, of which connecting and the next key frame take
/// up to three.
const LONGEST: Duration = Duration::from_millis(1500);

/// Doubles from [`FIRST`] to [`LONGEST`]; a frame starts it over.
#[derive(Debug)]
pub(crate) struct BackOff {
    next: Duration,
}

impl BackOff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_the_longest_and_starts_over_after_a_frame() {
        let mut back_off = BackOff::new();
        let waits: Vec<_> = (0..5).map(|_| back_off.next().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 1500, 1500]);
        back_off.reset();
        assert_eq!(back_off.next(), FIRST);
    }
}
