//! Follows the versions of settings in the database, so that every hub has the newest within seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::chain::chain;
use crate::limit::InForce;
use crate::store::{Database, StoreError, settings};

/// How often a hub looks for a newer version.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Takes the newest version, if there is one that is not held yet.
pub(super) async fn take_newest(db: &Database, in_force: &InForce) -> Result<(), StoreError> {
    let Some(newest) = settings::newest(db).await? else { return Ok(()) };
    match in_force.take(newest.version, &newest.changes) {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!(
                event = "settings_taken",
                version = newest.version,
                actor = newest.actor,
                "another version of the settings holds"
            );
        }
        Err(wrong) => {
            let wrong =
                wrong.iter().map(|wrong| format!("{} {}", wrong.name, wrong.reason)).collect::<Vec<_>>().join("; ");
            tracing::error!(
                event = "settings_unusable",
                version = newest.version,
                wrong,
                "what held before goes on; set it anew with this program"
            );
        }
    }
    Ok(())
}

/// Until `stop`.
pub(super) async fn follow(db: Database, in_force: Arc<InForce>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = take_newest(&db, &in_force).await {
            tracing::warn!(event = "settings_not_read", cause = %chain(&error), "settings stay as they are until the database answers");
        }
    }
}
