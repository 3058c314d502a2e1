//! Three people come: one who is known, one who is not, and a photograph.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::Story;
use crate::watch::EventRow;

const PATIENCE: Duration = Duration::from_secs(20);

impl Story {
    pub(super) async fn known_opens(&mut self) -> Result<()> {
        let position = self.rows().position().await?;
        let row = self.the_man_opens(position).await?;
        self.tell.say(&format!(
            "The row is there: granted, score {:.2} against {:.2}, {:.0} ms from arrival to relay.",
            row.number("/identity/best_score").unwrap_or_default(),
            row.number("/identity/threshold").unwrap_or_default(),
            row.number("/timing/arrival_to_relay_ms").unwrap_or_default(),
        ));
        self.webhook_arrives(&row.id).await?;
        self.tell.say("The webhook is there, with a valid signature.");
        self.empty_the_corridor().await
    }

    pub(super) async fn stranger_refused(&mut self) -> Result<()> {
        let clip = self.clips.stranger.clone();
        let row = self.refused("a stranger is refused as unknown", &clip, |row| row.reason() == "unknown").await?;
        if row.data.pointer("/liveness/verdict").and_then(|v| v.as_str()) != Some("live") {
            bail!("the stranger's liveness was not passed: {}", row.data);
        }
        let (best, threshold) = (row.number("/identity/best_score"), row.number("/identity/threshold"));
        if best >= threshold {
            bail!("the stranger's best score is not below the threshold: {}", row.data);
        }
        self.tell.say(&format!(
            "A stranger is refused: unknown (alive; best score {:.2}, threshold {:.2}).",
            best.unwrap_or_default(),
            threshold.unwrap_or_default()
        ));
        self.empty_the_corridor().await
    }

    pub(super) async fn photo_refused(&mut self) -> Result<()> {
        let clip = self.clips.photograph.clone();
        let is_liveness =
            |row: &EventRow| row.data.pointer("/reason/stage").and_then(|v| v.as_str()) == Some("liveness");
        let row = self.refused("a photograph is refused for liveness", &clip, is_liveness).await?;
        let (best, threshold) = (row.number("/identity/best_score"), row.number("/identity/threshold"));
        if best.is_none() || best < threshold {
            bail!("the photograph's identity is not above the threshold, so the refusal proves nothing: {}", row.data);
        }
        if row.data["person"].as_str() != Some(&self.people.obama) {
            bail!("the photograph was not recognised as the person on it: {}", row.data);
        }
        self.tell.say(&format!(
            "A photograph of an enrolled person is refused: {} (its identity score {:.2} is above {:.2}).",
            row.reason(),
            best.unwrap_or_default(),
            threshold.unwrap_or_default()
        ));
        self.empty_the_corridor().await
    }

    /// Plays the man's clip; the relay must unlock and the row must name him.
    pub(super) async fn the_man_opens(&mut self, position: i64) -> Result<EventRow> {
        self.the_man_comes().await?;
        let man = self.people.man.clone();
        let is_his = |row: &EventRow| row.reason() == "granted" && row.data["person"].as_str() == Some(&man);
        let row = self.rows().wait_for("the man's grant", position, PATIENCE, is_his).await?;
        for name in ["last_frame_to_relay_ms", "arrival_to_relay_ms"] {
            let value = row.number(&format!("/timing/{name}"));
            self.timings.entry(name.to_owned()).or_default().extend(value);
        }
        Ok(row)
    }

    /// Plays the man's clip and waits for the relay. Returns when the unlock edge was seen.
    pub(super) async fn the_man_comes(&mut self) -> Result<Instant> {
        let began = Instant::now();
        self.setup().play(&self.clips.man)?;
        let edge = self.relay().wait_for("unlock", began, PATIENCE).await?;
        let waited = edge.seen - began;
        self.tell.say(&format!("The man walks up and the relay unlocks after {:.1} s.", waited.as_secs_f64()));
        Ok(edge.seen)
    }

    /// Plays a clip that must not open the door and returns the row that says why.
    async fn refused(
        &mut self,
        what: &str,
        clip: &std::path::Path,
        fits: impl Fn(&EventRow) -> bool,
    ) -> Result<EventRow> {
        let position = self.rows().position().await?;
        let began = Instant::now();
        self.setup().play(clip)?;
        let denied = |row: &EventRow| row.kind == "lintel.access.denied.v1" && fits(row);
        let row = self.rows().wait_for(what, position, PATIENCE, denied).await?;
        // The refusal is not the end of it: the clip goes on, and the door must stay shut.
        tokio::time::sleep(Duration::from_secs(2)).await;
        if let Some(edge) = self.relay().since(began).iter().find(|edge| edge.kind == "unlock") {
            bail!("the relay unlocked (decision {:?}) although it should stay shut: {what}", edge.decision);
        }
        Ok(row)
    }

    /// Shows the empty corridor and waits until the relay is locked and nobody is tracked.
    pub(super) async fn empty_the_corridor(&mut self) -> Result<()> {
        self.setup().play(&self.clips.corridor)?;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let began = Instant::now() - Duration::from_millis(1200);
        if self.relay().since(began).iter().any(|edge| edge.kind == "unlock") {
            bail!("the relay unlocked although the corridor was empty");
        }
        Ok(())
    }

    /// Waits until the receiver has a delivery for this event with a valid signature.
    async fn webhook_arrives(&self, event: &str) -> Result<()> {
        let receiver = self.receiver.as_ref().expect("the receiver runs from hub_ready on");
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let seen = receiver.count(&self.webhook_secret)?;
            if seen.wrong_signatures > 0 {
                bail!("{} webhooks carry a wrong signature", seen.wrong_signatures);
            }
            if seen.ids.contains(event) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("no webhook for event {event} within {PATIENCE:?}")
    }
}
