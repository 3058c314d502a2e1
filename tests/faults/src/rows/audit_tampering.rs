//! S9: somebody with all rights over the database, and over the files of heads but not the key, tampers with the audit. Every
//! tampering is found; without the heads outside, a cut-off end and a chain that was made anew are not.

use anyhow::{Context as _, Result, ensure};

use crate::chain::{Bench, Kind, tamper};
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::random::Random;
use crate::row::{Need, Row};

/// The row.
pub(super) static S9: Row = Row {
    id: "S9",
    title: "audit edited, cut, swapped, made anew, an old database, heads dropped: found against the heads outside",
    count: 10_000,
    small: 120,
    needs: &[Need::Part("postgres")],
    run: tamperings,
};

/// Tamperings of one audit.
const AT_ONCE: u64 = 1_000;
/// Of these, one in so many goes the whole way: rows into Postgres, lines into files, and `audit verify`'s own reading.
const THROUGH_DATABASE: u64 = 20;

fn tamperings(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    let tally = lab.phase("tamperings", count.div_ceil(AT_ONCE), |round, tally| {
        let wanted = AT_ONCE.min(count - round * AT_ONCE);
        runtime.block_on(one_audit(&mut Random::new(round), wanted, tally))
    })?;
    let control = Control::of("tail_not_found_without_heads", tally.count_of("control_tail"))
        .and("rechain_not_found_without_heads", tally.count_of("control_rechain"));
    Ok(Verdict { tally, control })
}

async fn one_audit(random: &mut Random, count: u64, tally: &mut Tally) -> Result<()> {
    let mut bench = Bench::open().await?;
    let untouched = bench.evidence.clone();
    let report = bench.judge(&untouched);
    ensure!(report.is_well() && report.covered == report.entries, "the untouched audit: {report:?}");
    let report = bench.verify_through_database(&untouched).await?;
    ensure!(report.is_well(), "the untouched audit, through the database: {report:?}");
    tally.add("found", 0);
    tally.add("missed", 0);
    for number in 0..count {
        let kind = Kind::ALL[usize::try_from(number)? % Kind::ALL.len()];
        let state = tamper(&untouched, kind, random, &|tenant, number, last| bench.sign(tenant, number, last));
        let whole_way = (number / Kind::ALL.len() as u64).is_multiple_of(THROUGH_DATABASE);
        let report = if whole_way { bench.verify_through_database(&state).await? } else { bench.judge(&state) };
        tally.injected += 1;
        tally.add(kind.name(), 1);
        tally.add("through_database", u64::from(whole_way));
        tally.add(if report.is_well() { "missed" } else { "found" }, 1);
        tally.require(!report.is_well(), || format!("{kind:?}, number {number}, was not found: {report:?}"));
        let unseen = match kind {
            Kind::Truncate => "control_tail",
            Kind::Rechain => "control_rechain",
            _ => continue,
        };
        tally.add(unseen, u64::from(bench.judge_without_heads(&state).is_well()));
    }
    Ok(())
}
