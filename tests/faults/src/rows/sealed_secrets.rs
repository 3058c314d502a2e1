//! S10: what is sealed. Seals are exchanged in the database: each is refused when it is read, and nothing else is disturbed. Keys are
//! replaced under traffic: nobody notices, and the old ones are not needed any more, though the hub be killed in the middle of it. And in everything that a thief of the disk has,
//! but for the keys, no vector is a person's.

use anyhow::{Context as _, Result, ensure};

use crate::lab::Lab;
use crate::line::people::people;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};
use crate::secrecy::{Place, Sealed, theft, traffic};

/// The row.
pub(super) static S10: Row = Row {
    id: "S10",
    title: "seals exchanged, keys replaced under traffic, the disk stolen: refused, unnoticed, and nobody's face without a key",
    count: 2_000,
    small: 120,
    needs: &[Need::Part("postgres"), Need::Part("models"), Need::Part("demo"), Need::Program("mosquitto", "mosquitto")],
    run: secrets,
};

/// Exchanges of one bench.
const AT_ONCE: u64 = 500;

fn secrets(lab: &mut Lab) -> Result<Verdict> {
    let (count, is_long) = (lab.count(), lab.is_long());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    let mut tally = lab.phase("exchanges", count.div_ceil(AT_ONCE), |round, tally| {
        let wanted = AT_ONCE.min(count - round * AT_ONCE);
        runtime.block_on(exchanges(&mut Random::new(round), wanted, tally))
    })?;
    tally.merge(lab.phase("rotation", 1, |_, tally| {
        let mut neighbours = crate::isolation::Neighbours::open()?;
        let enrolled = people(neighbours.site(), if is_long { MANY } else { FEW })?;
        traffic::rotate_under(&mut neighbours, &enrolled, is_long, tally)?;
        theft::steal(&neighbours, &enrolled, is_long, tally)?;
        traffic::drop_too_early(&neighbours, tally)
    })?);
    let control = Control::of("wrong_without_place", tally.count_of("control_without_place"))
        .and("dropped_too_early", tally.count_of("control_dropped_too_early"))
        .and("found_with_key", tally.count_of("control_found_with_key"))
        .and("planted_found", tally.count_of("control_planted"));
    Ok(Verdict { tally, control })
}

/// People whose faces are looked for.
const MANY: usize = 10;
const FEW: usize = 2;

async fn exchanges(random: &mut Random, count: u64, tally: &mut Tally) -> Result<()> {
    let mut bench = Sealed::open().await?;
    let columns = bench.columns().await?;
    let mut places = Vec::new();
    for column in &columns {
        let found = bench.places(column).await?;
        ensure!(found.len() > 1, "{column}: {} seals", found.len());
        places.push(found);
    }
    tally.figure("columns", columns.len());
    tally.figure("seals", places.iter().map(Vec::len).sum::<usize>());
    for number in 0..count {
        // Every column in turn, with one of its own or of another.
        let at = usize::try_from(number)? % columns.len();
        let one = pick(random, &places[at]);
        let with = if number.is_multiple_of(2) { at } else { usize::try_from(random.below(columns.len() as u64))? };
        let other = pick(random, &places[with]);
        if one.is(&other) {
            tally.injected += 1;
            tally.add("with_itself", 1);
            continue;
        }
        exchanged(&mut bench, &one, &other, tally).await?;
    }
    // At the end everything is as it was, and is read.
    for owner in bench.owners.iter().map(|owner| owner.tenant).collect::<Vec<_>>() {
        for column in &columns {
            let tenant = Some(owner).filter(|_| column != "token_key.sealed");
            let read = bench.read(column, tenant).await?;
            tally.require(read.is_ok(), || format!("{column} when all is put back: {read:?}"));
        }
    }
    tally.add("control_without_place", bench.wrong_without_place().await?);
    Ok(())
}

async fn exchanged(bench: &mut Sealed, one: &Place, other: &Place, tally: &mut Tally) -> Result<()> {
    let mut before = Vec::new();
    for place in [one, other] {
        let read = bench.read(&place.column, place.tenant).await?;
        before.push(read.map_err(anyhow::Error::msg).with_context(|| format!("{} before", place.column))?);
    }
    bench.exchange(one, other).await?;
    tally.injected += 1;
    for (place, before) in [one, other].into_iter().zip(&before) {
        match bench.read(&place.column, place.tenant).await? {
            Err(_) => tally.add("refused", 1),
            // The same record twice, in its table and in the log of a gallery: either says the same.
            Ok(after) if after == *before => {
                tally.add("the_same_record", 1);
                tally.require(one.may_be_a_copy_of(other), || {
                    format!("{} for {}: not refused, and nothing changed", one.column, other.column)
                });
            }
            Ok(_) => tally.breach(format!("{} was read from the place of {}", one.column, other.column)),
        }
    }
    bench.put_back(one, other).await
}

fn pick(random: &mut Random, places: &[Place]) -> Place {
    places[usize::try_from(random.below(places.len() as u64)).unwrap_or_default()].clone()
}
