//! What a display beside each door shows, for whoever asks over the control socket.
//!
//! In: what each door's task wants shown. Out: all of it at once, with a number that grows with each change, so that a display
//! may wait for the next one. Deliberately absent: what is to be shown (decide), the socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wire_contract::guidance::{DoorGuidance, Show};

/// The displays of all doors. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Displays(Arc<watch::Sender<Shown>>);

#[derive(Debug, Clone, Default)]
struct Shown {
    changes: u64,
    doors: BTreeMap<Arc<str>, Show>,
}

impl Displays {
    /// Displays of these doors, with nothing on them.
    #[must_use]
    pub fn of(doors: impl IntoIterator<Item = Arc<str>>) -> Self {
        let doors = doors.into_iter().map(|door| (door, Show::Idle)).collect();
        Self(Arc::new(watch::channel(Shown { changes: 1, doors }).0))
    }

    /// Shows this at a door. Never waits.
    pub fn show(&self, door: &Arc<str>, show: Show) {
        self.0.send_if_modified(|shown| {
            if shown.doors.get(door) == Some(&show) {
                return false;
            }
            shown.doors.insert(Arc::clone(door), show);
            shown.changes += 1;
            true
        });
    }

    /// What is shown, with the number of the change that led to it; waits for another number than `seen`, at most for
    /// `patience`.
    pub async fn after(&self, seen: u64, patience: Duration) -> (u64, Vec<DoorGuidance>) {
        let mut changes = self.0.subscribe();
        // Whether in time or not: what is shown now is the answer.
        let _ = tokio::time::timeout(patience, changes.wait_for(|shown| shown.changes != seen)).await;
        let shown = self.0.borrow();
        let doors = shown.doors.iter();
        (shown.changes, doors.map(|(door, show)| DoorGuidance { door: door.to_string(), show: show.clone() }).collect())
    }
}

#[cfg(test)]
mod tests {
    use wire_contract::guidance::Prompt;

    use super::*;

    const PROMPT: Show = Show::Prompt { prompt: Prompt::Nod, step: 1, steps: 3, within_ms: 4_000 };

    #[tokio::test]
    async fn who_waits_is_told_of_the_next_change_and_of_nothing_else() {
        let door: Arc<str> = "main".into();
        let displays = Displays::of([Arc::clone(&door), "back".into()]);
        let (first, doors) = displays.after(0, Duration::ZERO).await;
        assert_eq!(
            doors.iter().map(|door| (door.door.as_str(), &door.show)).collect::<Vec<_>>(),
            [("back", &Show::Idle), ("main", &Show::Idle)]
        );
        displays.show(&door, Show::Idle);
        let (same, _) = displays.after(first, Duration::from_millis(10)).await;
        assert_eq!(same, first, "the same again is no change");
        let waiting = tokio::spawn({
            let displays = displays.clone();
            async move { displays.after(first, Duration::from_secs(60)).await }
        });
        displays.show(&door, PROMPT);
        let (next, doors) = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("told at once").unwrap();
        assert_eq!((next, &doors[1].show), (first + 1, &PROMPT));
    }
}
