//! The operator opens the door from afar: once, in time, and on record at both ends.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Story;

/// An order lives ten seconds; one that is not carried out by then never is.
const PATIENCE: Duration = Duration::from_secs(12);

impl Story {
    pub(super) async fn unlocked_from_afar(&mut self) -> Result<()> {
        let doors = self.hub().get(self.tenant(), "/v1/doors").await?;
        let door = doors["data"][0]["id"].as_str().context("the door has an id")?.to_owned();
        let position = self.rows().position().await?;
        let began = Instant::now();
        let path = format!("/v1/doors/{door}/unlock");
        let command = self.hub().post(self.tenant(), &path, json!({ "hold_ms": 1000 })).await?;
        let id = command["id"].as_str().context("the command has an id")?.to_owned();
        let edge = self.relay().wait_for("unlock", began, PATIENCE).await?;
        let waited = edge.seen - began;
        if edge.decision.as_deref() != Some(&*id) {
            bail!("the relay was unlocked by {:?}, not by command {id}", edge.decision);
        }
        self.tell.say(&format!(
            "The operator opens the door from the hub; the relay unlocks after {} ms.",
            waited.as_millis()
        ));
        self.tell.figure("order_to_relay_ms", waited.as_secs_f64() * 1e3);
        let by_command = |row: &crate::watch::EventRow| {
            row.kind == "lintel.door.unlocked.v1" && row.data["cause"] == "command" && row.data["decision"] == json!(id)
        };
        self.rows().wait_for("the door's own record of the command", position, PATIENCE, by_command).await?;
        let settled = self.settled(&id).await?;
        if settled["state"] != "succeeded" {
            bail!("the command did not succeed: {settled}");
        }
        self.relay().wait_for("lock", edge.seen, PATIENCE).await?;
        // Asked again with the same id, it is the same command, and the door stays shut.
        let again = Instant::now();
        self.hub().post(self.tenant(), &path, json!({ "id": id, "hold_ms": 1000 })).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if self.relay().since(again).iter().any(|edge| edge.kind == "unlock") {
            bail!("one command unlocked the door twice");
        }
        self.locked_down(&door).await
    }

    /// A lock-down refuses even the operator's own unlock, until it is ended; the device's log tells of it.
    async fn locked_down(&mut self, door: &str) -> Result<()> {
        let path = format!("/v1/doors/{door}/commands");
        let begun = self.ordered(&path, json!({ "kind": "lockdown", "on": true })).await?;
        let refused = self.ordered(&path, json!({ "kind": "unlock" })).await?;
        let ended = self.ordered(&path, json!({ "kind": "lockdown", "on": false })).await?;
        if (&begun["state"], &ended["state"]) != (&json!("succeeded"), &json!("succeeded")) {
            bail!("the lock-down did not begin or end: {begun}, {ended}");
        }
        if refused["code"] != "door_locked_down" {
            bail!("a door in lock-down was not refused to the operator: {refused}");
        }
        let device = begun["device_id"].as_str().context("the command names its device")?;
        let logs = self.ordered(&format!("/v1/devices/{device}/commands"), json!({ "kind": "collect_logs" })).await?;
        if logs["state"] != "succeeded" {
            bail!("the device's log was not collected: {logs}");
        }
        self.tell.say("In lock-down the door refuses even the operator; the device sends its log when asked.");
        Ok(())
    }

    /// Gives a command and waits for its last word.
    async fn ordered(&self, path: &str, body: Value) -> Result<Value> {
        let command = self.hub().post(self.tenant(), path, body).await?;
        self.settled(command["id"].as_str().context("the command has an id")?).await
    }

    /// The command once its device had the last word.
    async fn settled(&self, id: &str) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let command = self.hub().get(self.tenant(), &format!("/v1/commands/{id}")).await?;
            let open = ["issued", "accepted", "executing"].iter().any(|state| command["state"] == *state);
            if !open || Instant::now() >= until {
                return Ok(command);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
