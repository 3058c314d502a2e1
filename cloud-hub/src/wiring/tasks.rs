//! The hub's tasks by name: each runs until it is told to stop, and one that does not is an error that names it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};

/// Tasks that end together.
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// A task ended that nobody told to.
#[derive(Debug, thiserror::Error)]
#[error("task `{name}` ended early{}", .panic.as_ref().map_or_else(String::new, |panic| format!(": {panic}")))]
pub(super) struct EndedEarly {
    /// The task.
    pub(super) name: &'static str,
    /// How, unless it simply returned.
    panic: Option<JoinError>,
}

impl Tasks {
    /// Starts a task.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Resolves when one of the tasks ends; never if there are none.
    pub(super) async fn ended(&mut self) -> EndedEarly {
        let (id, panic) = match self.set.join_next_with_id().await {
            None => return std::future::pending().await,
            Some(Ok((id, ()))) => (id, None),
            Some(Err(error)) => (error.id(), Some(error)),
        };
        EndedEarly { name: self.names.get(&id).copied().unwrap_or("unnamed"), panic }
    }

    /// Waits for tasks that were told to stop; what takes too long is cut off.
    pub(super) async fn join(&mut self, grace: Duration) {
        let all = async {
            while let Some(ended) = self.set.join_next().await {
                if let Err(error) = ended {
                    let task = self.names.get(&error.id()).copied().unwrap_or("unnamed");
                    tracing::error!(event = "task_failed", task, %error, "a task ended badly");
                }
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(event = "task_cut_off", "a task did not stop in time");
            self.set.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_is_named_with_its_panic() {
        let mut tasks = Tasks::default();
        tasks.spawn("patient", std::future::pending());
        tasks.spawn("short", async {});
        assert_eq!(tasks.ended().await.to_string(), "task `short` ended early");
        tasks.spawn("clumsy", async { panic!("on purpose") });
        let ended = tasks.ended().await.to_string();
        assert!(ended.starts_with("task `clumsy` ended early: ") && ended.contains("on purpose"), "{ended}");
    }
}
