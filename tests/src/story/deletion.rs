//! A person is deleted while the door still sees them.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::Story;

/// From the hub's answer to the last relay edge.
const BOUND: Duration = Duration::from_secs(2);

impl Story {
    pub(super) async fn deleted_refused(&mut self) -> Result<()> {
        self.the_man_comes().await?;
        let path = format!("/v1/people/{}", self.people.man);
        self.hub().call(self.tenant(), reqwest::Method::DELETE, &path, None).await?;
        let answered = Instant::now();
        self.tell.say("The man is deleted at the hub while he stands there.");
        tokio::time::sleep(Duration::from_secs(6)).await;
        let edges = self.relay().since(answered);
        let last = edges.last().map_or(Duration::ZERO, |edge| edge.seen - answered);
        self.tell.figure("delete_to_last_edge_ms", last.as_secs_f64() * 1000.0);
        if last > BOUND {
            bail!("the last relay edge came {last:?} after the hub's answer");
        }
        self.tell.say(&format!("The last relay edge came {} ms after the hub's answer.", last.as_millis()));
        self.wait_for_equal_roots(3).await?;
        self.drained().await?;
        self.refused_offline().await
    }

    /// Without a hub and after a restart the man is still unknown; the rows say so when the hub is back.
    async fn refused_offline(&mut self) -> Result<()> {
        let position = self.rows().position().await?;
        self.stop_hub().await?;
        self.stop_agent().await?;
        self.start_agent().await?;
        let (before, began) = (self.last_sequence()?, Instant::now());
        self.setup().play(&self.clips.man)?;
        tokio::time::sleep(Duration::from_secs(8)).await;
        if let Some(edge) = self.relay().since(began).first() {
            bail!("a relay edge ({}) for a deleted person after an offline restart", edge.kind);
        }
        if self.last_sequence()? == before {
            bail!("the refusal of the deleted person was not recorded");
        }
        self.setup().play(&self.clips.corridor)?;
        self.start_hub().await?;
        self.drained().await?;
        let refused = |row: &crate::watch::EventRow| row.reason() == "unknown";
        self.rows().wait_for("the deleted man's refusal", position, Duration::from_secs(10), refused).await?;
        self.tell.say("After an offline restart of the agent he is still refused: unknown.");
        Ok(())
    }
}
