//! Things go away: the network, the agent, the hub in the middle of a transaction. Nothing is lost or doubled.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use super::Story;
use crate::watch::Rows;

impl Story {
    pub(super) async fn offline_opens(&mut self) -> Result<()> {
        self.drained().await?;
        self.stop_hub().await?;
        self.tell.say("Hub and broker are gone.");
        self.stop_agent().await?;
        self.start_agent().await?;
        self.tell.say("The agent was restarted without them.");
        self.the_man_comes().await?;
        let pending = self.pending()?;
        if pending == 0 {
            bail!("the door opened offline but the outbox holds nothing");
        }
        self.tell.say(&format!("The outbox grows: {pending} events wait for the hub."));
        self.empty_the_corridor().await
    }

    pub(super) async fn events_once(&mut self) -> Result<()> {
        self.start_hub().await?;
        self.tell.say("Hub and broker are back.");
        self.everything_once().await
    }

    pub(super) async fn edge_killed_recovers(&mut self) -> Result<()> {
        self.stop_hub().await?;
        self.setup().play(&self.clips.man)?;
        let began = Instant::now();
        while self.pending()? < 50 {
            if began.elapsed() > Duration::from_secs(120) {
                bail!("only {} events wait after two minutes", self.pending()?);
            }
            if began.elapsed().as_secs() % 29 == 28 {
                self.setup().play(&self.clips.man)?;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let before = self.recorded_ids()?;
        let agent = self.agent.as_mut().context("the agent runs")?;
        agent.process().kill()?;
        self.tell
            .say(&format!("The agent is killed with {} events recorded, 50 or more unacknowledged.", before.len()));
        self.setup().play(&self.clips.corridor)?;
        self.start_hub().await?;
        self.start_agent().await?;
        self.everything_once().await?;
        let after = self.recorded_ids()?;
        if let Some(lost) = before.difference(&after).next() {
            bail!("event {lost} was recorded before the kill and is gone");
        }
        let position = self.rows().position().await?;
        self.the_man_opens(position).await?;
        self.empty_the_corridor().await
    }

    pub(super) async fn hub_killed_recovers(&mut self) -> Result<()> {
        self.drained().await?;
        let mut blocker = Rows::connect(&self.hub().ready().postgres).await?;
        blocker.hold_ingest_open().await?;
        self.the_man_comes().await?;
        let until = Instant::now() + Duration::from_secs(20);
        while !blocker.ingest_is_waiting().await? {
            if Instant::now() > until {
                bail!("the hub did not begin a transaction within 20 s");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.rows = None;
        let mut hub = self.hub.take().context("the hub runs")?;
        hub.process().kill()?;
        drop(blocker);
        drop(hub);
        self.tell.say("The hub is killed while its ingest transaction is open.");
        self.empty_the_corridor().await?;
        self.start_hub().await?;
        self.everything_once().await?;
        let position = self.rows().position().await?;
        self.the_man_opens(position).await?;
        self.empty_the_corridor().await
    }

    /// Outbox entries = event rows of the device, and event rows = distinct webhook ids, each by id.
    async fn everything_once(&mut self) -> Result<()> {
        self.drained().await?;
        let recorded = self.recorded_ids()?;
        let device_rows = self.rows().device_event_ids().await?;
        if let Some(id) = recorded.symmetric_difference(&device_rows).next() {
            let (edge, hub) = (recorded.len(), device_rows.len());
            bail!("event {id} is only on one side: {edge} recorded at the edge, {hub} rows at the hub");
        }
        let all = self.rows().event_ids().await?;
        let distinct: BTreeSet<String> = all.iter().cloned().collect();
        if distinct.len() != all.len() {
            bail!("{} event rows have only {} distinct ids", all.len(), distinct.len());
        }
        self.webhooks_are(&distinct).await?;
        self.tell.say(&format!(
            "{} outbox entries = {} rows of the device; {} rows = {} webhook ids.",
            recorded.len(),
            device_rows.len(),
            all.len(),
            distinct.len()
        ));
        Ok(())
    }

    async fn webhooks_are(&mut self, expected: &BTreeSet<String>) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let receiver = self.receiver.as_ref().expect("the receiver runs from hub_ready on");
            let seen = receiver.count(&self.webhook_secret)?;
            if seen.ids == *expected && seen.wrong_signatures == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "{} distinct webhook ids ({} wrong signatures) for {} event rows after 60 s",
                    seen.ids.len(),
                    seen.wrong_signatures,
                    expected.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the hub has acknowledged everything that the agent recorded.
    pub(super) async fn drained(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(45);
        while self.pending()? > 0 {
            if Instant::now() > until {
                bail!("{} events still wait for the hub after 45 s", self.pending()?);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn pending(&self) -> Result<u64> {
        let status = self.setup().status(&["outbox", "status"])?;
        status["pending"].as_u64().with_context(|| format!("no `pending` in {status}"))
    }

    /// Ids of every event in the outbox, acknowledged ones included.
    fn recorded_ids(&self) -> Result<BTreeSet<String>> {
        let list = self.setup().status(&["outbox", "list"])?;
        let entries = list["entries"].as_array().with_context(|| format!("no `entries` in {list}"))?;
        entries
            .iter()
            .map(|entry| Ok(entry["id"].as_str().with_context(|| format!("no id in {entry}"))?.to_owned()))
            .collect()
    }

    /// Sequence of the newest event in the outbox, for the time when no hub can be asked.
    pub(super) fn last_sequence(&self) -> Result<u64> {
        let status = self.setup().status(&["outbox", "status"])?;
        status["last_sequence"]
            .as_u64()
            .or_else(|| status["last_sequence"].as_str()?.parse().ok())
            .with_context(|| format!("no `last_sequence` in {status}"))
    }
}
