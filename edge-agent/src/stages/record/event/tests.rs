use std::sync::Arc;
use std::time::Duration;

use face_core::{MonoTime, TrackId};
use uuid::Uuid;

use super::*;
use crate::stages::decide::Identity;

fn origin() -> Origin {
    Origin { pack: "faceplugin-0.0.1".into(), space_id: "space".into(), agent_version: "0.1.0".into() }
}

fn context(verdict: LivenessVerdict) -> AccessContext {
    AccessContext {
        decision: Uuid::from_u128(5),
        track: Some(TrackId(7)),
        at: MonoTime::from_millis(900),
        person: Some(face_core::PersonId(Uuid::from_u128(1))),
        identity: Some(Identity {
            person: Some(face_core::PersonId(Uuid::from_u128(1))),
            score: Some(0.8),
            threshold: 0.442,
            margin: Some(0.3),
            anchor: None,
            quality: 0.7,
        }),
        liveness: Some(LivenessSeen { verdict, threshold: 0.5 }),
        frame_age: Some(Duration::from_millis(31)),
        since_arrival: Some(Duration::from_millis(912)),
    }
}

fn told(event: DoorEvent) -> serde_json::Value {
    let (door, camera) = (Arc::from("main"), Arc::from("front"));
    let happening = Happening::Door { door, camera, event, at: MonoTime::from_millis(900) };
    let (kind, mut data) = data_of(&happening, &origin()).data.to_parts();
    data["type"] = kind.into();
    data
}

fn denied(reason: DenyReason, verdict: LivenessVerdict) -> serde_json::Value {
    told(DoorEvent::Denied { context: context(verdict), reason })
}

#[test]
fn a_grant_tells_scores_and_times() {
    let data = told(DoorEvent::Granted(context(LivenessVerdict::Live { score: 0.97 })));
    assert_eq!(data["type"], "lintel.access.granted.v1");
    assert_eq!(data["reason"]["code"], "granted");
    assert_eq!(data["identity"]["best_score"], 0.8);
    assert_eq!(data["liveness"]["verdict"], "live");
    assert_eq!(data["timing"]["last_frame_to_relay_ms"], 31);
    assert_eq!(data["timing"]["arrival_to_relay_ms"], 912);
    assert_eq!(data["pack"], "faceplugin-0.0.1");
}

#[test]
fn each_refusal_tells_its_own_stages_comparison() {
    let unknown = denied(DenyReason::Unknown, LivenessVerdict::Live { score: 0.97 });
    assert_eq!(unknown["reason"]["stage"], "identify");
    assert_eq!((&unknown["reason"]["score"], &unknown["reason"]["threshold"]), (&0.8.into(), &0.442.into()));
    assert_eq!(unknown["liveness"]["verdict"], "live");
    assert!(unknown["timing"]["arrival_to_relay_ms"].is_null(), "the relay was not called");

    let attack = LivenessVerdict::Attack { by: Method::Temporal, score: 0.9 };
    let still = denied(DenyReason::LivenessStill, attack);
    assert_eq!(still["reason"]["stage"], "liveness");
    assert_eq!((&still["reason"]["score"], &still["reason"]["threshold"]), (&0.9.into(), &0.5.into()));
    assert_eq!(still["identity"]["best_score"], 0.8);
    assert_eq!(still["person"], Uuid::from_u128(1).to_string());

    let stale = denied(DenyReason::Stale, LivenessVerdict::Live { score: 0.97 });
    assert!(stale["reason"]["score"].is_null() && stale["reason"]["hint"].is_string());
}

#[test]
fn every_reason_has_a_listed_code_and_a_hint() {
    let qualities = [
        QualityReason::TooSmall,
        QualityReason::Blurred,
        QualityReason::TooDark,
        QualityReason::TooBright,
        QualityReason::Turned,
        QualityReason::Occluded,
    ];
    let mut reasons: Vec<DenyReason> = qualities.into_iter().map(DenyReason::Quality).collect();
    reasons.extend([
        DenyReason::Unknown,
        DenyReason::Ambiguous,
        DenyReason::NotThisPerson,
        DenyReason::LivenessFailed,
        DenyReason::LivenessStill,
        DenyReason::LivenessUndecided,
        DenyReason::LivenessUnavailable,
        DenyReason::Stale,
        DenyReason::PersonRemoved,
        DenyReason::PersonExpired,
        DenyReason::NotPermitted,
        DenyReason::GalleryUnavailable,
        DenyReason::ModelsUnavailable,
        DenyReason::CameraStalled,
        DenyReason::DoorFault,
    ]);
    let mut seen = std::collections::HashSet::new();
    for reason in reasons {
        let data = denied(reason, LivenessVerdict::Unavailable);
        let code = data["reason"]["code"].as_str().unwrap().to_owned();
        assert!(data["reason"]["hint"].is_string(), "{reason:?}");
        assert!(seen.insert(code.clone()), "{code} is used twice");
    }
}

#[test]
fn relay_edges_say_why() {
    let unlocked = told(DoorEvent::Unlocked { decision: Some(Uuid::from_u128(5)), person: None, command: None });
    assert_eq!(
        (unlocked["type"].as_str(), unlocked["cause"].as_str()),
        (Some("lintel.door.unlocked.v1"), Some("granted"))
    );
    let command = Uuid::from_u128(6);
    let ordered = told(DoorEvent::Unlocked { decision: None, person: None, command: Some(command) });
    assert_eq!(
        (ordered["cause"].as_str(), ordered["decision"].as_str()),
        (Some("command"), Some(&*command.to_string()))
    );
    let locked = told(DoorEvent::Locked { cause: LockCause::PersonRevoked });
    assert_eq!(locked["cause"], "person_removed");
}
