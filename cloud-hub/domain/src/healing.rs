//! One gallery of one device that differs from the hub's: what to do at each report, until both are equal again.
//!
//! In: that a report differs, that bucket hashes came, and the time. Out: compare, answer, wait, or have it thrown away.
//! Pure: what is sent, and where this is kept, is the publisher's business.
//!
//! Healing is tried once. A device that differs after it took the answer in has a store or a hub that cannot be trusted
//! bucket by bucket: it is rebuilt, and people are told. So is one that never says its hashes, or takes no answer in. A line
//! that broke in between is no reason for that: what may have been lost is asked for and given again.

use time::{Duration, OffsetDateTime};

/// How long a device may take to answer, or to take the answer in. Its own patience is 10 s (it says its hashes again
/// then), so that one lost message costs no rebuild.
const PATIENCE: Duration = Duration::seconds(25);

/// Hashes that come sooner after an answer crossed it on the way.
const CROSSED: Duration = Duration::seconds(5);

/// Questions that a device may leave without hashes.
const MOST_QUESTIONS: u32 = 2;

/// Answers in a row that may not arrive, as far as the device's hashes tell.
const MOST_ANSWERS: u32 = 3;

/// What to do about a gallery that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An answer is on its way.
    Wait,
    /// Ask for the bucket hashes.
    Compare,
    /// Send the buckets that differ.
    Answer,
    /// Give up: throw it away, and tell people.
    Rebuild,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked { questions: u32, at: OffsetDateTime },
    Answered { version: u64, at: OffsetDateTime },
}

/// The healing of one gallery of one device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Healing {
    stage: Option<Stage>,
    /// Answers so far.
    answers: u32,
}

impl Healing {
    /// A report of `version` has another root than the hub had there.
    pub fn differs(&mut self, version: u64, now: OffsetDateTime) -> Step {
        let questions = match self.stage {
            None => 0,
            Some(Stage::Answered { version: answered, .. }) if version >= answered => return Step::Rebuild,
            Some(Stage::Asked { at, .. } | Stage::Answered { at, .. }) if now - at < PATIENCE => return Step::Wait,
            Some(Stage::Asked { questions, .. }) => questions,
            Some(Stage::Answered { .. }) => 0,
        };
        if questions >= MOST_QUESTIONS || self.answers >= MOST_ANSWERS {
            return Step::Rebuild;
        }
        self.stage = Some(Stage::Asked { questions: questions + 1, at: now });
        Step::Compare
    }

    /// The device said the hashes of `version`.
    pub fn hashes(&mut self, version: u64, now: OffsetDateTime) -> Step {
        match self.stage {
            Some(Stage::Answered { at, .. }) if now - at < CROSSED => Step::Wait,
            Some(Stage::Answered { version: answered, .. }) if version > answered => Step::Rebuild,
            _ if self.answers >= MOST_ANSWERS => Step::Rebuild,
            _ => Step::Answer,
        }
    }

    /// The buckets were sent; the gallery is at `version` with them.
    pub fn answered(&mut self, version: u64, now: OffsetDateTime) {
        self.answers += 1;
        self.stage = Some(Stage::Answered { version, at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    /// Asked at 0 s and answered at 1 s with version 9.
    fn answered() -> Healing {
        let mut healing = Healing::default();
        assert_eq!(healing.differs(7, at(0)), Step::Compare);
        assert_eq!(healing.hashes(7, at(1)), Step::Answer);
        healing.answered(9, at(1));
        healing
    }

    #[test]
    fn a_difference_is_compared_answered_and_waited_for() {
        let mut healing = answered();
        assert_eq!(healing.differs(7, at(2)), Step::Wait, "the report crossed the answer");
        assert_eq!(healing.hashes(7, at(2)), Step::Wait, "and so did the hashes");
    }

    #[test]
    fn what_still_differs_after_the_answer_is_given_up() {
        assert_eq!(answered().differs(9, at(2)), Step::Rebuild);
        assert_eq!(answered().differs(12, at(2)), Step::Rebuild);
        assert_eq!(answered().hashes(10, at(7)), Step::Rebuild);
        assert_eq!(
            answered().hashes(9, at(7)),
            Step::Answer,
            "of the version that was answered: it is not applied yet"
        );
    }

    #[test]
    fn an_answer_that_was_lost_is_given_again_but_not_for_ever() {
        let mut healing = answered();
        assert_eq!(healing.hashes(7, at(11)), Step::Answer);
        healing.answered(9, at(11));
        assert_eq!(healing.hashes(7, at(21)), Step::Answer);
        healing.answered(10, at(21));
        assert_eq!(healing.hashes(7, at(31)), Step::Rebuild);
    }

    #[test]
    fn a_device_that_does_not_know_how_to_compare_is_rebuilt() {
        let mut healing = Healing::default();
        assert_eq!(healing.differs(7, at(0)), Step::Compare);
        assert_eq!(healing.differs(7, at(5)), Step::Wait);
        assert_eq!(healing.differs(7, at(60)), Step::Compare, "it may have been away");
        assert_eq!(healing.differs(7, at(120)), Step::Rebuild);
    }

    #[test]
    fn a_device_that_was_away_is_asked_again() {
        let mut healing = answered();
        assert_eq!(healing.differs(7, at(3_600)), Step::Compare, "the answer may have been lost");
        assert_eq!(healing.differs(7, at(3_601)), Step::Wait);
        assert_eq!(healing.hashes(7, at(3_601)), Step::Answer, "at once");
        healing.answered(11, at(3_601));
        assert_eq!(healing.differs(11, at(3_612)), Step::Rebuild, "but a second failure is one");
    }

    #[test]
    fn a_device_that_found_out_by_itself_needs_no_question() {
        assert_eq!(Healing::default().hashes(7, at(0)), Step::Answer);
    }
}
