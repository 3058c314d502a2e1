//! M11: the way of events played as a game, a seed a game (see [`crate::sim`]): nothing lost, nothing twice, in order, and
//! everything acknowledged once it is calm. A seed that fails is named, and `scripts/soak M11 --seed N --count 1` plays it
//! alone.

use anyhow::Result;

use crate::lab::Lab;
use crate::outcome::{Control, Verdict};
use crate::row::Row;
use crate::sim::{Game, Wrong};

/// The row. Its count is that of the seeds.
pub(super) static M11: Row = Row {
    id: "M11",
    title: "deterministic simulation of the events' way by seed: nothing lost, doubled or disordered",
    count: 100_000,
    small: 1_000,
    needs: &[],
    run: seeds,
};

/// Seeds between two savings of the run's state.
const AT_ONCE: u64 = 1_000;
/// Seeds that each control is given: it must be caught at least once.
const CONTROLS: u64 = 300;

fn seeds(lab: &mut Lab) -> Result<Verdict> {
    let (count, first) = (lab.count(), lab.first_seed());
    let tally = lab.phase("seeds", count.div_ceil(AT_ONCE), |round, tally| {
        let begin = first + round * AT_ONCE;
        for seed in begin..begin + AT_ONCE.min(count - round * AT_ONCE) {
            let score = Game::play(seed, Wrong::Nothing);
            tally.injected += u64::from(!score.faults.is_empty());
            tally.acked += score.promised;
            tally.lost += score.lost;
            tally.duplicated += score.doubled;
            for (kind, times) in &score.faults {
                tally.add(kind, *times);
            }
            tally.require(score.is_clean(), || format!("seed {seed}: {score:?}"));
        }
        Ok(())
    })?;
    let caught = |wrong| (0..CONTROLS).filter(|seed| !Game::play(*seed, wrong).is_clean()).count() as u64;
    let control = Control::of("ack_before_commit", caught(Wrong::AckBeforeCommit))
        .and("no_verdict", caught(Wrong::NoVerdict))
        .and("broker_believed", caught(Wrong::BrokerBelieved))
        .and("sent_before_sync", caught(Wrong::SentBeforeSync));
    Ok(Verdict { tally, control })
}
