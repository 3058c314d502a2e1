//! How old a frame is when it reaches us: protocol.md, "Time at the door".
//!
//! In: for RTSP, the stream's own time of each packet and its arrival; for the others nothing. Out: the age to take off
//! the present time. Pure: times are arguments.
//!
//! An RTSP frame's age = base latency + (arrival − stream time, above its running minimum) + time spent in our pipeline.
//! The minimum is the shortest way that a frame ever took; what is above it is delay. Stream time and ours drift apart, so
//! the minimum may creep up, by no more than two bad crystals can drift: a delay that persists stays visible for hours.

use std::collections::VecDeque;
use std::time::Duration;

use face_core::MonoTime;

/// 200 parts per million: twice what a cheap oscillator is off.
const DRIFT_PER_SECOND: Duration = Duration::from_micros(200);
/// Frames on their way through the decoder at a time; 64 is two seconds at 30 a second.
const MAX_IN_FLIGHT: usize = 64;

/// Follows the packets of one RTSP stream.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Shortest (arrival − stream time) so far, and when it was corrected last.
    minimum: Option<(i128, MonoTime)>,
    in_flight: VecDeque<Arrival>,
}

#[derive(Debug)]
struct Arrival {
    stream_ns: u64,
    arrived_at: MonoTime,
    delay: Duration,
}

impl Arrivals {
    /// Notes that a packet of the frame at `stream_ns` (running time, ns) arrived. Only a frame's first packet counts.
    pub(crate) fn note(&mut self, stream_ns: u64, arrived_at: MonoTime) {
        if self.in_flight.iter().any(|arrival| arrival.stream_ns == stream_ns) {
            return;
        }
        let offset = i128::from(arrived_at.as_nanos()) - i128::from(stream_ns);
        let minimum = match self.minimum {
            None => offset,
            Some((minimum, since)) => {
                let creep = DRIFT_PER_SECOND.mul_f64(arrived_at.since(since).as_secs_f64());
                offset.min(minimum + i128::try_from(creep.as_nanos()).unwrap_or(0))
            }
        };
        self.minimum = Some((minimum, arrived_at));
        if self.in_flight.len() == MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        let delay = Duration::from_nanos(u64::try_from(offset - minimum).unwrap_or(u64::MAX));
        self.in_flight.push_back(Arrival { stream_ns, arrived_at, delay });
    }

    /// The age, at `now`, of the decoded frame at `stream_ns`; without its packet's note, that of the oldest that is still
    /// on its way, since a frame must never look younger than it is. `None` when no packet was ever noted.
    pub(crate) fn age(&self, stream_ns: Option<u64>, now: MonoTime, base: Duration) -> Option<Duration> {
        let noted = stream_ns
            .and_then(|wanted| self.in_flight.iter().rev().find(|arrival| arrival.stream_ns == wanted))
            .or_else(|| self.in_flight.front())?;
        Some(base.saturating_add(noted.delay).saturating_add(now.since(noted.arrived_at)))
    }

    /// Whether any packet has come.
    pub(crate) fn any(&self) -> bool {
        self.minimum.is_some()
    }

    /// Forgets frames that are older than the one just taken.
    pub(crate) fn forget_before(&mut self, stream_ns: u64) {
        while self.in_flight.len() > 1 && self.in_flight.front().is_some_and(|arrival| arrival.stream_ns < stream_ns) {
            self.in_flight.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);

    fn ms(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    fn stream(millis: u64) -> u64 {
        millis * 1_000_000
    }

    #[test]
    fn a_frame_on_time_has_the_base_age_and_its_time_in_the_pipeline() {
        let mut arrivals = Arrivals::default();
        arrivals.note(stream(0), ms(1000));
        arrivals.note(stream(40), ms(1040));
        assert_eq!(arrivals.age(Some(stream(40)), ms(1065), BASE), Some(Duration::from_millis(125)));
    }

    #[test]
    fn a_held_up_frame_is_older_by_its_delay() {
        let mut arrivals = Arrivals::default();
        arrivals.note(stream(0), ms(1000));
        arrivals.note(stream(40), ms(3040));
        assert_eq!(arrivals.age(Some(stream(40)), ms(3040), BASE), Some(Duration::from_millis(2100) - creep(2040)));
    }

    #[test]
    fn the_first_packet_of_a_frame_counts() {
        let mut arrivals = Arrivals::default();
        arrivals.note(stream(0), ms(1000));
        arrivals.note(stream(0), ms(1030));
        assert_eq!(arrivals.age(Some(stream(0)), ms(1040), BASE), Some(Duration::from_millis(140)));
    }

    #[test]
    fn drift_within_a_crystals_bounds_is_no_delay() {
        let mut arrivals = Arrivals::default();
        // The camera's clock is 100 ppm slow: after an hour the offset has grown by 360 ms.
        for second in 0..3600 {
            arrivals.note(
                stream(second * 1000),
                MonoTime::from_nanos((second * 1000 + 1000) * 1_000_000 + second * 100_000),
            );
        }
        let last = MonoTime::from_nanos((3599 * 1000 + 1000) * 1_000_000 + 3599 * 100_000);
        assert_eq!(arrivals.age(Some(stream(3_599_000)), last, BASE), Some(BASE));
    }

    #[test]
    fn a_delay_that_stays_is_still_seen_after_an_hour() {
        let mut arrivals = Arrivals::default();
        arrivals.note(stream(0), ms(1000));
        for second in 1..3600 {
            arrivals.note(stream(second * 1000), ms(second * 1000 + 4000));
        }
        let age = arrivals.age(Some(stream(3_599_000)), ms(3_603_000), BASE).unwrap();
        assert!(age > Duration::from_secs(2), "{age:?}");
    }

    #[test]
    fn a_frame_of_unknown_time_is_taken_for_the_oldest_on_its_way() {
        let mut arrivals = Arrivals::default();
        arrivals.note(stream(0), ms(1000));
        arrivals.note(stream(500), ms(1500));
        assert_eq!(arrivals.age(None, ms(1600), BASE), Some(Duration::from_millis(700)));
        arrivals.forget_before(stream(500));
        assert_eq!(arrivals.age(None, ms(1600), BASE), Some(Duration::from_millis(200)));
    }

    fn creep(over_ms: u64) -> Duration {
        DRIFT_PER_SECOND.mul_f64(Duration::from_millis(over_ms).as_secs_f64())
    }
}
