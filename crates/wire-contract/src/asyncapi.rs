//! The AsyncAPI 3.0 document of everything that goes over the broker, as the hub does it: it receives what devices say, and
//! sends to devices and consumers. `schemas/asyncapi.json` holds it as a file; a test keeps both equal.
//!
//! Payload schemas are those of [`crate::schema`], by reference to their files. Channels that have a name and no speaker yet
//! (telemetry, video signalling) are left out, so that nobody waits for them.

use serde_json::{Map, Value, json};

use crate::topic::{DownChannel, EventClass, UpChannel};

/// What a channel says and how.
struct Spoken {
    /// Its name in the document.
    name: String,
    address: String,
    title: &'static str,
    /// Files below `schemas/v1`, without `.json`.
    payloads: &'static [&'static str],
    /// How the JSON is packed, in words.
    packing: &'static str,
    retained: bool,
    /// The hub's side: `receive` or `send`.
    action: &'static str,
}

const AUTHENTICATED: &str = "The JSON, followed by its authentication under the device's up key (docs/protocol.md, Keys); the topic, the link epoch and the JSON are covered.";
const SEALED: &str =
    "The JSON, sealed under the device's down key with the topic in the additional data (docs/protocol.md, Keys).";
const PLAIN: &str = "Plain JSON.";

impl Spoken {
    fn up(channel: UpChannel) -> Option<Self> {
        let (title, payloads): (_, &[_]) = match channel {
            UpChannel::Status => ("Online or offline; also the last will", &["status"]),
            UpChannel::Evt => ("Batches of events", &["batch"]),
            UpChannel::Gallery => {
                ("What the device's searched galleries hold, and bucket hashes where one differs", &["gallery_up"])
            }
            UpChannel::Cmd => ("Progress of commands, and questions for the time", &["command_up"]),
            UpChannel::Twin => ("How the device is set up, and what it made of the desired settings", &["twin_up"]),
            UpChannel::Tele | UpChannel::Rtc => return None,
        };
        Some(Self {
            name: format!("up_{channel}"),
            address: format!("lintel/v1/{{tenant}}/{{device}}/up/{channel}"),
            title,
            payloads,
            packing: AUTHENTICATED,
            retained: channel.retained(),
            action: "receive",
        })
    }

    fn down(channel: DownChannel) -> Option<Self> {
        let (title, payloads): (_, &[_]) = match channel {
            DownChannel::Gallery => {
                ("Records of the gallery log, buckets that differ, and orders to begin anew", &["gallery_down"])
            }
            DownChannel::Cmd => ("Commands, and the hub's time", &["command_down"]),
            DownChannel::Evtack => ("What the hub has committed", &["evtack", "evtack_refusal"]),
            DownChannel::Twin => ("The desired settings, whole", &["twin_down"]),
            DownChannel::Rtc => return None,
        };
        Some(Self {
            name: format!("down_{channel}"),
            address: format!("lintel/v1/{{tenant}}/{{device}}/down/{channel}"),
            title,
            payloads,
            packing: SEALED,
            retained: channel.retained(),
            action: "send",
        })
    }

    fn feed(class: EventClass) -> Self {
        Self {
            name: format!("feed_{class}"),
            address: format!("lintel/v1/{{tenant}}/_feed/{class}"),
            title: "Committed events of one class, in order, at least once: know them by their id",
            payloads: &["cloud_event"],
            packing: PLAIN,
            retained: false,
            action: "send",
        }
    }

    fn channel(&self) -> Value {
        let mut parameters = json!({ "tenant": { "description": "The tenant's UUID, in lower case with hyphens." } });
        if self.address.contains("{device}") {
            parameters["device"] = json!({
                "description": "The device's UUID, in lower case with hyphens: the common name of its certificate."
            });
        }
        let messages: Map<String, Value> =
            self.payloads.iter().map(|name| ((*name).to_owned(), self.message(name))).collect();
        json!({
            "address": self.address,
            "title": self.title,
            "parameters": parameters,
            "messages": messages,
        })
    }

    fn message(&self, payload: &str) -> Value {
        json!({
            "name": payload,
            "contentType": if self.packing == PLAIN { "application/cloudevents+json" } else { "application/octet-stream" },
            "description": self.packing,
            "payload": { "$ref": format!("./v1/{payload}.json") },
        })
    }

    fn operation(&self) -> Value {
        let channel = format!("#/channels/{}", self.name);
        let messages: Vec<Value> =
            self.payloads.iter().map(|name| json!({ "$ref": format!("{channel}/messages/{name}") })).collect();
        json!({
            "action": self.action,
            "channel": { "$ref": channel },
            "messages": messages,
            "bindings": { "mqtt": { "qos": 1, "retain": self.retained, "bindingVersion": "0.2.0" } },
        })
    }
}

/// The document.
pub fn document() -> Value {
    let up = UpChannel::ALL.iter().filter_map(|channel| Spoken::up(*channel));
    let down = DownChannel::ALL.iter().filter_map(|channel| Spoken::down(*channel));
    let feed = EventClass::ALL.iter().map(|class| Spoken::feed(*class));
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for spoken in up.chain(down).chain(feed) {
        operations.insert(format!("{}_{}", spoken.action, spoken.name), spoken.operation());
        channels.insert(spoken.name.clone(), spoken.channel());
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Lintel over MQTT",
            "version": "1",
            "description": "What hub, devices and consumers say to one another over an MQTT 5 broker, seen from the hub. QoS 1 throughout. Unknown fields are to be ignored. docs/protocol.md has the rules behind the messages.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    })
}
