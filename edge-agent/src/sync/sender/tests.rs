use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> MonoTime {
    MonoTime::from_millis(ms)
}

fn connected(acknowledged: u64) -> Sender {
    let mut sender = Sender::new(acknowledged, Duration::from_secs(10));
    sender.connected(at(0));
    sender
}

#[test]
fn nothing_is_sent_without_a_line_or_without_events() {
    let mut sender = Sender::new(5, Duration::from_secs(10));
    assert_eq!(sender.next(9), None, "no line");
    sender.connected(at(0));
    assert_eq!(sender.next(5), None, "nothing recorded");
    assert_eq!(sender.next(9), Some(5));
}

#[test]
fn four_batches_are_on_their_way_and_the_fifth_waits_for_an_acknowledgement() {
    let mut sender = answered(0, 10, 1);
    for last in [20, 30, 40, 50] {
        assert_eq!(sender.next(100), Some(last - 10));
        sender.sent(last, at(1));
    }
    assert_eq!(sender.next(100), None);
    assert_eq!(sender.acknowledged(20, at(2)), None);
    assert_eq!(sender.next(100), Some(50));
}

/// A sender on a new line whose first batch, sent at 0 ms, was answered at `ms`.
fn answered(after: u64, through: u64, ms: u64) -> Sender {
    let mut sender = connected(after);
    sender.sent(through, at(0));
    assert_eq!(sender.acknowledged(through, at(ms)), None);
    sender
}

#[test]
fn the_first_batch_goes_alone_and_so_does_each_while_the_hub_is_slow() {
    let mut sender = connected(0);
    sender.sent(10, at(0));
    assert_eq!(sender.next(100), None, "a fleet that comes back sends one batch each");
    sender.acknowledged(10, at(4_000));
    sender.sent(20, at(4_000));
    assert_eq!(sender.next(100), None, "the hub took four seconds");
    sender.acknowledged(20, at(4_900));
    sender.sent(30, at(4_900));
    assert_eq!(sender.next(100), Some(30), "it is quick again");
    sender.disconnected();
    sender.connected(at(5_000));
    sender.sent(30, at(5_000));
    assert_eq!(sender.next(100), None, "a new line begins carefully");
}

#[test]
fn a_hub_that_needs_long_is_given_twice_as_long_and_not_longer_than_eighty_seconds() {
    let mut sender = answered(0, 10, 9_000);
    sender.sent(20, at(9_000));
    assert_eq!(sender.tick(at(26_999)), None, "what took nine seconds may take eighteen");
    assert_eq!(sender.tick(at(27_000)), Some(Resend::Timeout));
    for (begun, wait) in [(100_000, 36_000), (200_000, 72_000), (300_000, 80_000), (400_000, 80_000)] {
        sender.sent(20, at(begun));
        assert_eq!(sender.tick(at(begun + wait - 1)), None, "{wait}");
        assert_eq!(sender.tick(at(begun + wait)), Some(Resend::Timeout), "{wait}");
    }
    sender.connected(at(500_000));
    sender.sent(20, at(500_000));
    assert_eq!(sender.tick(at(510_000)), Some(Resend::Timeout), "a new line knows nothing of the old one");
}

#[test]
fn a_new_line_begins_after_what_is_acknowledged() {
    let mut sender = connected(0);
    sender.sent(10, at(1));
    sender.sent(20, at(1));
    sender.acknowledged(10, at(2));
    sender.disconnected();
    assert_eq!(sender.next(20), None);
    sender.connected(at(3));
    assert_eq!(sender.next(20), Some(10));
}

#[test]
fn ten_seconds_without_progress_repeat_and_progress_puts_it_off() {
    let mut sender = connected(0);
    sender.sent(10, at(0));
    sender.sent(20, at(0));
    assert_eq!(sender.tick(at(9_999)), None);
    sender.acknowledged(10, at(9_999));
    assert_eq!(sender.tick(at(29_996)), None, "a hub that needed ten seconds is given twenty");
    assert_eq!(sender.tick(at(29_997)), Some(Resend::Timeout));
    assert_eq!(sender.next(20), Some(10));
    assert_eq!(sender.tick(at(110_000)), None, "nothing is on its way any more");
}

#[test]
fn a_hole_answered_four_times_is_filled_once() {
    let mut sender = connected(0);
    for last in [10, 20, 30, 40] {
        sender.sent(last, at(0));
    }
    assert_eq!(sender.rewind(0, at(50)), Some(Resend::Rewind));
    assert_eq!(sender.next(40), Some(0));
    sender.sent(10, at(51));
    assert_eq!(sender.rewind(0, at(52)), None);
    assert_eq!(sender.rewind(0, at(53)), None);
    assert_eq!(sender.acknowledged(10, at(60)), None);
    assert_eq!(sender.next(40), Some(10));
    sender.sent(20, at(61));
    assert_eq!(sender.rewind(10, at(70)), Some(Resend::Rewind), "another hole is filled at once");
}

#[test]
fn a_rewind_may_carry_progress() {
    let mut sender = connected(0);
    sender.sent(10, at(0));
    sender.sent(20, at(0));
    sender.sent(30, at(0));
    assert_eq!(sender.rewind(10, at(5)), Some(Resend::Rewind));
    assert_eq!(sender.next(30), Some(10));
}

#[test]
fn a_hub_that_announces_itself_gets_at_once_what_was_on_its_way() {
    let mut sender = connected(10);
    sender.sent(20, at(0));
    assert_eq!(sender.acknowledged(10, at(3)), Some(Resend::HubAnnounced), "both were away, and it came back later");
    assert_eq!(sender.next(20), Some(10));
    assert_eq!(sender.acknowledged(10, at(5_000)), None, "nothing is on its way");
}

#[test]
fn the_answers_to_repeated_batches_cause_no_more_of_them() {
    let mut sender = connected(0);
    sender.sent(10, at(0));
    sender.sent(20, at(0));
    assert_eq!(sender.acknowledged(0, at(5)), Some(Resend::HubAnnounced));
    for last in [10, 20] {
        sender.sent(last, at(6));
    }
    // The announcement was made before the first two were taken in: all four are answered.
    assert_eq!([sender.acknowledged(10, at(8)), sender.acknowledged(20, at(9))], [None, None]);
    sender.sent(30, at(10));
    assert_eq!([sender.acknowledged(20, at(11)), sender.acknowledged(20, at(12))], [None, None]);
    assert_eq!(sender.acknowledged(20, at(13)), Some(Resend::HubAnnounced), "nothing more was owed");
    sender.sent(30, at(14));
    assert_eq!([sender.acknowledged(30, at(15)), sender.acknowledged(30, at(16))], [None, None]);
    sender.sent(40, at(17));
    assert_eq!(sender.acknowledged(30, at(18)), Some(Resend::HubAnnounced), "what came while all was quiet counts too");
}

#[test]
fn what_nobody_listened_to_is_repeated_at_the_hubs_next_word() {
    let mut sender = connected(0);
    sender.sent(10, at(0));
    sender.sent(20, at(0));
    assert_eq!(sender.acknowledged(0, at(5)), Some(Resend::HubAnnounced));
    sender.sent(20, at(6));
    sender.unheard();
    assert_eq!(sender.acknowledged(0, at(7)), Some(Resend::HubAnnounced), "not an answer: it never had them");
    sender.sent(20, at(8));
    assert_eq!(sender.acknowledged(0, at(9)), Some(Resend::HubAnnounced), "the broker's word counts once");
}

#[test]
fn a_hub_that_comes_back_right_after_a_repetition_for_silence_is_not_overheard() {
    let mut sender = connected(0);
    sender.sent(10, at(0));
    assert_eq!(sender.tick(at(10_000)), Some(Resend::Timeout));
    sender.sent(10, at(10_000));
    assert_eq!(sender.acknowledged(0, at(10_200)), Some(Resend::HubAnnounced));
}

#[test]
fn old_news_changes_nothing() {
    let mut sender = connected(10);
    sender.sent(20, at(0));
    assert_eq!(sender.acknowledged(3, at(5_000)), None);
    assert_eq!(sender.next(20), None);
}

#[test]
fn an_acknowledgement_beyond_what_was_sent_moves_on() {
    // Another connection's batches arrived after all.
    let mut sender = connected(0);
    sender.sent(10, at(0));
    sender.acknowledged(30, at(1));
    assert_eq!(sender.next(40), Some(30));
}

/// The hub as protocol.md has it: one committed number, contiguous batches only.
#[derive(Default)]
struct Hub {
    committed: u64,
    seen: BTreeSet<u64>,
}

impl Hub {
    fn take(&mut self, first: u64, last: u64) -> (bool, u64) {
        if first > self.committed + 1 {
            return (false, self.committed);
        }
        self.seen.extend(first..=last);
        self.committed = self.committed.max(last);
        (true, self.committed)
    }
}

proptest! {
    /// Batches and answers are lost, lines break, the hub restarts; when the weather clears, everything arrives.
    #[test]
    fn every_event_arrives_whatever_is_lost(
        total in 1..60_u64,
        batch in 1..7_u64,
        weather in prop::collection::vec((any::<bool>(), any::<bool>(), 0..20_u8), 0..120),
    ) {
        let (mut sender, mut hub, mut now) = (connected(0), Hub::default(), at(0));
        let mut step = |sender: &mut Sender, lose_batch: bool, lose_answer: bool, trouble: u8| {
            now = now + Duration::from_millis(400);
            if trouble == 0 {
                sender.disconnected();
                sender.connected(now);
            }
            sender.tick(now);
            let mut answers = Vec::new();
            while let Some(after) = sender.next(total) {
                let last = (after + batch).min(total);
                sender.sent(last, now);
                if !lose_batch {
                    answers.push(hub.take(after + 1, last));
                }
            }
            if trouble == 1 {
                answers.push((true, hub.committed));
            }
            for (ok, through) in answers.into_iter().filter(|_| !lose_answer) {
                if ok { sender.acknowledged(through, now); } else { sender.rewind(through, now); }
            }
            hub.committed == total && hub.seen.len() as u64 == total
        };
        for (lose_batch, lose_answer, trouble) in weather {
            step(&mut sender, lose_batch, lose_answer, trouble);
        }
        // 200 steps are 80 s of clear weather; the timeout alone needs 25 a round.
        let arrived = (0..200).any(|_| step(&mut sender, false, false, 9));
        prop_assert!(arrived, "{sender:?}");
    }
}
