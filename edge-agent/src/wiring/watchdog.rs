//! Telling systemd that the agent is ready, and that it gets on: progress feeds the watchdog, not a timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Every part turns at least once a second; two seconds without a turn is a part that hangs or waits for one that does.
const SHORTEST_CHECK: Duration = Duration::from_secs(2);

/// One part's counter of turns.
pub(super) struct Beat {
    name: String,
    turns: Arc<AtomicU64>,
    last: u64,
    may_rest: Option<Box<dyn Fn() -> bool + Send>>,
}

impl Beat {
    pub(super) fn new(name: String, turns: Arc<AtomicU64>) -> Self {
        Self { name, turns, last: u64::MAX, may_rest: None }
    }

    /// For a part that only turns when it has work: `idle` says when it has none.
    pub(super) fn may_rest(&mut self, idle: Box<dyn Fn() -> bool + Send>) {
        self.may_rest = Some(idle);
    }

    /// Whether the part got on since the last call.
    fn alive(&mut self) -> bool {
        let turns = self.turns.load(Ordering::Relaxed);
        let moved = std::mem::replace(&mut self.last, turns) != turns;
        moved || self.may_rest.as_ref().is_some_and(|idle| idle())
    }
}

/// How much more time is asked for at once while the models are opened, and how often.
const EXTENSION: Duration = Duration::from_secs(60);
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// TensorRT builds the engines of a pack within minutes; a start that takes longer than this hangs, and may be ended.
const LONGEST_OPENING: u64 = 20 * 60;

/// Waits for the models, and keeps systemd from taking the building of engines for a hang.
pub(super) async fn waiting_for_models<T>(opening: impl Future<Output = T>) -> T {
    tokio::pin!(opening);
    for turn in 0u64.. {
        tokio::select! {
            opened = &mut opening => return opened,
            () = tokio::time::sleep(EXTEND_EVERY) => {}
        }
        let waited_s = (turn + 1) * EXTEND_EVERY.as_secs();
        tracing::info!(event = "models_opening", waited_s, "still {}", super::desk::STARTING);
        if waited_s < LONGEST_OPENING {
            let more = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
            notify(&[NotifyState::ExtendTimeoutUsec(more), NotifyState::Status(super::desk::STARTING)]);
        }
    }
    unreachable!("u64 does not run out of turns")
}

/// Says that the start is over. Without systemd nothing happens.
pub(super) fn ready() {
    notify(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// Says that the stop has begun.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds systemd's watchdog for as long as every part gets on.
pub(super) async fn run(mut beats: Vec<Beat>, stop: CancellationToken) {
    let period = sd_notify::watchdog_enabled().map(|limit| (limit / 3).max(SHORTEST_CHECK));
    let mut ticks = tokio::time::interval(period.unwrap_or(Duration::from_secs(10)));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let stuck: Vec<&str> =
            beats.iter_mut().filter_map(|beat| (!beat.alive()).then_some(beat.name.as_str())).collect();
        if stuck.is_empty() {
            if period.is_some() {
                notify(&[NotifyState::Watchdog]);
            }
        } else {
            tracing::error!(
                event = "no_progress",
                alarm = true,
                parts = stuck.join(", "),
                "these parts do not get on; the watchdog is not fed"
            );
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(event = "systemd_notify_failed", %error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_does_not_turn_is_not_alive_unless_it_has_no_work() {
        let turns = Arc::new(AtomicU64::new(0));
        let mut beat = Beat::new("record".to_owned(), Arc::clone(&turns));
        assert!(beat.alive(), "the first look cannot know");
        assert!(!beat.alive());
        turns.fetch_add(1, Ordering::Relaxed);
        assert!(beat.alive());
        assert!(!beat.alive());
        beat.may_rest(Box::new(|| true));
        assert!(beat.alive());
    }
}
