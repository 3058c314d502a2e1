//! S3: two hubs on one Postgres, broker and store of limits. Whatever lets somebody in is taken away at one of them, and is refused at the
//! other within five seconds and never accepted again; and limits, what is kept in memory, sessions and events hold across both.

use anyhow::Result;

use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::replicas::{BOTH, Pair, caches, limits, revoking, sessions, streams};
use crate::row::{Need, Row};

/// The row. Its count is that of keys, log-ins, tokens and certificates that are taken away.
pub(super) static S3: Row = Row {
    id: "S3",
    title: "two hubs: what is taken away at one is refused at the other within 5 s; limits, caches, sessions and events hold across both",
    count: 1_000,
    small: 20,
    needs: &[
        Need::Part("postgres"),
        Need::Part("models"),
        Need::Part("demo"),
        Need::Program("mosquitto", "mosquitto"),
        Need::Program("redis-check-rdb", "redis-tools"),
    ],
    run: replicas,
};

/// Event streams of a long run and of a short one, and the events that they hear.
const STREAMS: (usize, usize) = (200, 24);
const EVENTS: (u64, u64) = (600, 150);

fn replicas(lab: &mut Lab) -> Result<Verdict> {
    let (count, long) = (lab.count(), lab.is_long());
    let mut control = Control::default();
    let tally = lab.phase("replicas", 1, |_, tally| {
        let mut pair = Pair::open()?;
        pair.block_on(revoking::campaign(&pair, count, tally))?;
        // A session that nobody completes takes half a minute; the control of revocations has time meanwhile.
        let (mut of_sessions, rounds) = (Tally::default(), count.div_ceil(50));
        let (ended_twice, believed) = pair.block_on(async {
            tokio::try_join!(sessions::measure(&pair, rounds.min(10), &mut of_sessions), revoking::believing(&pair))
        })?;
        tally.merge(of_sessions);
        let old_answers = pair.block_on(caches::measure(&pair, rounds + 1, tally))?;
        let (streams, events) = if long { (STREAMS.0, EVENTS.0) } else { (STREAMS.1, EVENTS.1) };
        let forgotten = streams::measure(&mut pair, streams, events, tally)?;
        let apart = limits::measure(&mut pair, tally)?;
        for which in BOTH {
            tally.add("database_unavailable", pair.busy(which)?.len() as u64);
        }
        control = Control::of("believed_for_a_minute", believed)
            .and("ended_twice", ended_twice)
            .and("old_answers", old_answers)
            .and("forgotten_place", forgotten)
            .and("counted_apart", apart);
        Ok(())
    })?;
    Ok(Verdict { tally, control })
}
