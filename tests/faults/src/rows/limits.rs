//! S8: a million callers in the hub's limiter. Its memory is bounded, and who asks without a pause is let through as often as the rate
//! says, to within a hundredth.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::row::Row;

/// The row.
pub(super) static S8: Row = Row {
    id: "S8",
    title: "a million callers in the limiter: its memory, and how exact it is under a load without a pause",
    count: 1_000_000,
    small: 1_000_000,
    needs: &[],
    run: callers,
};

/// What a million may cost.
const MOST_KIB: u64 = 100_000_000 / 1024;
const MOST_ERROR_PERCENT: f64 = 1.0;
/// The table is in parts of equal size, and callers are spread by chance: the fullest parts push some out.
const MOST_FORGOTTEN_PERCENT: u64 = 3;
const SUSTAINED_MS: u64 = 5_000;

fn callers(lab: &mut Lab) -> Result<Verdict> {
    let (count, program) = (lab.count(), lab.program("limit-worker"));
    let tally = lab.phase("callers", 1, |_, tally| {
        let told = ask(&program, count, &[])?;
        let number = |name: &str| told[name].as_u64().with_context(|| format!("{name} in {told}"));
        let error = told["error_percent"].as_f64().context("no error")?;
        tally.injected = number("admitted")?;
        tally.figure("resident_kib", number("resident_kib")?);
        tally.figure("error_percent", error);
        tally.figure("asked_without_a_pause", number("tried")?);
        tally.figure("let_through", number("through")?);
        tally.figure("forgotten", number("forgotten")?);
        tally.require(number("tried")? > number("through")? * 2, || format!("the load was not sustained: {told}"));
        judge(&told, tally)?;
        let mut broken = Tally::default();
        judge(&ask(&program, count, &["--broken"])?, &mut broken)?;
        tally.add("control_broken", broken.breaches);
        let most = number("looked_at")? * MOST_FORGOTTEN_PERCENT / 100;
        tally.require(number("forgotten")? <= most, || format!("callers were forgotten: {told}"));
        Ok(())
    })?;
    let control = Control::of("kept_all_and_let_all_through", tally.count_of("control_broken") / 2);
    Ok(Verdict { tally, control })
}

fn judge(told: &Value, tally: &mut Tally) -> Result<()> {
    let resident = told["resident_kib"].as_u64().context("no memory")?;
    let error = told["error_percent"].as_f64().context("no error")?;
    tally.require(resident < MOST_KIB, || format!("{resident} KiB for the callers"));
    tally.require(error <= MOST_ERROR_PERCENT, || format!("an error of {error} %"));
    Ok(())
}

fn ask(program: &std::path::Path, count: u64, more: &[&str]) -> Result<Value> {
    let (count, sustained) = (count.to_string(), SUSTAINED_MS.to_string());
    let output = Command::new(program).args(["--count", &count, "--sustained-ms", &sustained]).args(more).output()?;
    ensure!(output.status.success(), "limit-worker: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
