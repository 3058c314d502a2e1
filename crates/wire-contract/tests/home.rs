//! What Home Assistants are told, against the rules that Home Assistant publishes for it
//! (<https://www.home-assistant.io/integrations/mqtt/>, device discovery; the pages of the lock, binary sensor, sensor and
//! event platforms; read on 2026-11-28), and against the events that it follows from.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;
use wire_contract::home::{Announced, Door, Said};
use wire_contract::{CloudEvent, DeviceId, TenantId, Topic};

fn announced(may_unlock: bool) -> Announced {
    let door = |n: u128, local_id: &str, name: &str| Door {
        id: Uuid::from_u128(n),
        local_id: local_id.to_owned(),
        name: name.to_owned(),
    };
    Announced {
        tenant: TenantId(Uuid::from_u128(1)),
        device: DeviceId(Uuid::from_u128(2)),
        name: "Entrance \"north\"".to_owned(),
        agent_version: Some("0.1.0".to_owned()),
        doors: vec![door(3, "main", "Main door"), door(4, "back/yard +#", "Yard")],
        may_unlock,
    }
}

const TOP: &[&str] = &[
    "device",
    "origin",
    "components",
    "availability",
    "availability_mode",
    "availability_topic",
    "availability_template",
    "payload_available",
    "payload_not_available",
    "state_topic",
    "command_topic",
    "qos",
    "encoding",
];
const DEVICE: &[&str] = &[
    "identifiers",
    "connections",
    "manufacturer",
    "model",
    "model_id",
    "name",
    "hw_version",
    "serial_number",
    "sw_version",
    "via_device",
    "suggested_area",
    "configuration_url",
];
/// Of the options that every entity has, those that matter here.
const ENTITY: &[&str] = &["platform", "unique_id", "name", "icon", "state_topic", "qos", "device_class"];

/// Required and further options of a platform.
fn platform(name: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    Some(match name {
        "lock" => (
            &["command_topic"],
            &["state_locked", "state_unlocked", "payload_lock", "payload_unlock", "optimistic", "retain"],
        ),
        "binary_sensor" => (&["state_topic"], &["payload_on", "payload_off"]),
        "sensor" => (&["state_topic"], &[]),
        "event" => (&["state_topic", "event_types"], &[]),
        _ => return None,
    })
}

/// Every breach of the published rules.
fn breaches(message: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut only = |what: &str, value: &Value, allowed: &[&[&str]]| match value.as_object() {
        None => found.push(format!("{what} is missing or no object")),
        Some(fields) => found.extend(
            fields
                .keys()
                .filter(|key| !allowed.concat().contains(&key.as_str()))
                .map(|key| format!("{what} has an unknown {key}")),
        ),
    };
    only("the message", message, &[TOP]);
    only("device", &message["device"], &[DEVICE]);
    only("origin", &message["origin"], &[&["name", "sw_version", "support_url"]]);
    if !["identifiers", "connections"]
        .iter()
        .any(|key| message["device"][key].as_array().is_some_and(|ids| !ids.is_empty()))
    {
        found.push("device has neither identifiers nor connections".to_owned());
    }
    if !message["origin"]["name"].is_string() {
        found.push("origin has no name".to_owned());
    }
    for place in message["availability"].as_array().into_iter().flatten() {
        found.extend(bad_topic("availability", &place["topic"]));
    }
    if message["qos"].as_u64().is_some_and(|qos| qos > 2) {
        found.push("qos is above 2".to_owned());
    }
    let mut unique = BTreeSet::new();
    for (key, component) in message["components"].as_object().into_iter().flatten() {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            found.push(format!("component id {key:?}"));
        }
        let Some((required, further)) = component["platform"].as_str().and_then(platform) else {
            found.push(format!("{key} has no platform that is known"));
            continue;
        };
        let Some(fields) = component.as_object() else { continue };
        found.extend(
            required.iter().filter(|name| !fields.contains_key(**name)).map(|name| format!("{key} has no {name}")),
        );
        let allowed = [ENTITY, required, further].concat();
        found.extend(
            fields.keys().filter(|name| !allowed.contains(&name.as_str())).map(|name| format!("{key}: {name}")),
        );
        for topic in ["state_topic", "command_topic"] {
            if let Some(topic) = fields.get(topic) {
                found.extend(bad_topic(key, topic));
            }
        }
        // Required of every entity of a device's discovery.
        if !component["unique_id"].as_str().is_some_and(|id| unique.insert(id.to_owned())) {
            found.push(format!("{key} has no unique id of its own"));
        }
        if fields.get("event_types").is_some_and(|types| types.as_array().is_none_or(Vec::is_empty)) {
            found.push(format!("{key} has no event types"));
        }
    }
    found
}

fn bad_topic(what: &str, topic: &Value) -> Option<String> {
    let fine = topic
        .as_str()
        .is_some_and(|topic| !topic.is_empty() && topic.len() <= 65_535 && !topic.contains(['+', '#', '\0']));
    (!fine).then(|| format!("{what} has the topic {topic}"))
}

fn discovery(may_unlock: bool) -> (String, Value) {
    let Said { topic, payload } = announced(may_unlock).discovery("0.1.0");
    assert!(topic.kept_by_the_broker());
    (topic.to_string(), serde_json::from_slice(&payload).unwrap())
}

#[test]
fn the_discovery_message_keeps_home_assistants_rules() {
    for may_unlock in [false, true] {
        let (topic, message) = discovery(may_unlock);
        // `<prefix>/device/<object id>/config`, the id of letters, digits, `_` and `-`.
        let id = topic.strip_prefix("homeassistant/device/").unwrap().strip_suffix("/config").unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{topic}");
        assert_eq!(breaches(&message), Vec::<String>::new(), "{message:#}");
        assert_eq!(message["components"].as_object().unwrap().len(), 7, "three for each door, and the alerts");
    }
}

#[test]
fn a_breach_of_each_rule_is_found() {
    let key = "access_00000000-0000-0000-0000-000000000003";
    type Spoil = fn(&mut Value, &str);
    let spoils: [(&str, Spoil); 9] = [
        ("origin", |message, _| drop(message.as_object_mut().unwrap().remove("origin"))),
        ("identifiers", |message, _| message["device"]["identifiers"] = json!([])),
        ("unknown", |message, _| message["cmps"] = json!({})),
        ("platform", |message, key| message["components"][key]["platform"] = json!("doorbell")),
        ("unique", |message, key| drop(message["components"][key].as_object_mut().unwrap().remove("unique_id"))),
        ("state_topic", |message, key| drop(message["components"][key].as_object_mut().unwrap().remove("state_topic"))),
        ("event types", |message, key| message["components"][key]["event_types"] = json!([])),
        ("topic", |message, _| message["availability"][0]["topic"] = json!("a/+/b")),
        ("qos", |message, _| message["qos"] = json!(3)),
    ];
    for (word, spoil) in spoils {
        let mut message = discovery(false).1;
        spoil(&mut message, key);
        let found = breaches(&message);
        assert!(found.iter().any(|breach| breach.contains(word)), "{word}: {found:?}");
    }
}

#[test]
fn a_lock_has_a_command_only_where_doors_may_be_opened() {
    let platforms = |may_unlock| -> BTreeSet<String> {
        let message = discovery(may_unlock).1;
        let components = message["components"].as_object().unwrap().values();
        components.map(|component| component["platform"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!discovery(false).1.to_string().contains("/set"));
    assert!(!platforms(false).contains("lock") && platforms(false).contains("binary_sensor"));
    assert!(platforms(true).contains("lock") && !platforms(true).contains("binary_sensor"));
}

/// The golden event of this name, of a door that is called `main`.
fn event(name: &str) -> CloudEvent {
    let path = format!("{}/golden/v1/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let mut event: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    if event["data"]["door"].is_string() {
        event["data"]["door"] = json!("main");
    }
    serde_json::from_value(event).unwrap()
}

fn said(name: &str) -> Vec<(String, String)> {
    let said = announced(false).states(&event(name));
    said.into_iter().map(|said| (said.topic.to_string(), String::from_utf8(said.payload).unwrap())).collect()
}

#[test]
fn states_follow_from_events() {
    let base = "lintel/v1/00000000-0000-0000-0000-000000000001/_home/00000000-0000-0000-0000-000000000002";
    let door = format!("{base}/00000000-0000-0000-0000-000000000003");
    assert_eq!(said("door.unlocked.v1"), [(format!("{door}/lock"), "UNLOCKED".to_owned())]);
    assert_eq!(said("door.locked.v1"), [(format!("{door}/lock"), "LOCKED".to_owned())]);
    let granted = said("access.granted.v1");
    let person = event("access.granted.v1").data["person"].as_str().unwrap().to_owned();
    assert_eq!(granted[0].0, format!("{door}/access"));
    assert_eq!(granted[1], (format!("{door}/person"), person));
    let told: Value = serde_json::from_str(&granted[0].1).unwrap();
    assert_eq!(told["event_type"], "granted");
    let denied = said("access.denied.v1");
    let told: Value = serde_json::from_str(&denied[0].1).unwrap();
    assert_eq!((denied.len(), &told["event_type"]), (1, &json!("denied")), "who was refused was not let in");
    for (name, word) in [
        ("camera.stalled.v1", "camera_stalled"),
        ("camera.recovered.v1", "camera_recovered"),
        ("tamper.stream_conflict.v1", "stream_conflict"),
        ("tamper.claim_reused.v1", "claim_reused"),
        ("tamper.gallery_diverged.v1", "gallery_diverged"),
        ("tamper.gallery_older_epoch.v1", "gallery_older_epoch"),
    ] {
        let alert = said(name);
        let told: Value = serde_json::from_str(&alert[0].1).unwrap();
        assert_eq!((alert[0].0.as_str(), &told["event_type"]), (format!("{base}/alert").as_str(), &json!(word)));
        let types = &discovery(false).1["components"]["alert"]["event_types"];
        assert!(types.as_array().unwrap().contains(&json!(word)), "{word} is not announced");
    }
    for name in ["face.appeared.v1", "system.started.v1", "enrolment.completed.v1"] {
        assert_eq!(said(name), [], "{name}");
    }
}

#[test]
fn an_event_of_a_door_that_is_not_announced_says_nothing() {
    let mut other = event("door.unlocked.v1");
    other.data["door"] = json!("cellar");
    assert_eq!(announced(true).states(&other), []);
}

#[test]
fn what_is_taken_back_is_all_that_the_broker_keeps() {
    let device = announced(true);
    let mut kept: BTreeSet<String> = ["access.granted.v1", "door.locked.v1", "camera.stalled.v1"]
        .iter()
        .flat_map(|name| device.states(&event(name)))
        .chain([device.discovery("1"), device.availability(true)])
        .filter(|said| said.topic.kept_by_the_broker())
        .map(|said| said.topic.to_string())
        .collect();
    // The second door has the same.
    for topic in kept.clone() {
        kept.insert(topic.replace("000000000003/", "000000000004/"));
    }
    let withdrawal = device.withdrawal();
    assert!(withdrawal.iter().all(|said| said.payload.is_empty()));
    assert!(matches!(withdrawal.last().unwrap().topic, Topic::Discovery { .. }));
    assert_eq!(withdrawal.iter().map(|said| said.topic.to_string()).collect::<BTreeSet<_>>(), kept);
}
