//! Golden files: one example of each payload, read and written. An old file never changes: what it says must be
//! readable for ever. To add one, write the example below and run with `LINTEL_GOLDEN=write`, which writes only files
//! that do not exist yet. Schema files are rewritten by it, since they may grow.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;
use wire_contract::claim::{BrokerAddress, HubKey, SignedTime};
use wire_contract::command::{TimeAnswer, TimeRequest};
use wire_contract::event::{
    AccessData, CameraRecoveredData, CameraStalledData, ClaimReusedData, ClockQuality, CommandSettledData, DoorCause,
    DoorData, EnrolmentCompletedData, FaceAppearedData, GalleryDivergedData, GalleryHealedData, GalleryOlderEpochData,
    GalleryPoint, GalleryRebuiltData, IdentityScores, IntrusionData, KINDS, LivenessChallengeEndedData,
    LivenessPromptedData, LivenessScores, Meta, PersonDeletedData, Reason, SnapshotRefusedData, StreamConflictData,
    SystemGapData, SystemStartedData, Timing, device_source,
};
use wire_contract::gallery::{
    GalleryCondition, GalleryRebuild, GalleryRecord, GalleryRecords, GalleryStand, GalleryState, RecordKind, RecordOp,
};
use wire_contract::guidance::{DoorGuidance, Prompt, Show};
use wire_contract::healing::{BUCKETS, GalleryBuckets, GalleryCompare, GalleryHashes};
use wire_contract::link::LinkGallery;
use wire_contract::snapshot::{SnapshotAnswer, SnapshotChunk};
use wire_contract::status::Presence;
use wire_contract::webhook::WebhookBody;
use wire_contract::*;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x018f_3c1e_0000_7000_8000_0000_0000_0000 + n)
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_795_343_851_042 + ms)
}

const STREAM: StreamId = StreamId([0xab; 16]);

fn access(code: Code) -> AccessData {
    AccessData {
        door: "main".into(),
        camera: "front".into(),
        decision: uuid(20),
        person: Some(PersonId(uuid(21))),
        reason: Reason::of(code).compared(0.7213_f32, 0.442_f32),
        identity: Some(IdentityScores {
            best_score: Some(Score::from(0.7213_f32)),
            threshold: Score::from(0.442_f32),
            margin: Some(Score::from(0.31_f32)),
        }),
        liveness: Some(LivenessScores {
            verdict: "live".into(),
            score: Some(Score::from(0.93_f32)),
            threshold: Score::from(0.6_f32),
        }),
        quality: Some(Score::from(0.8_f32)),
        timing: Timing { last_frame_to_relay_ms: Some(61), arrival_to_relay_ms: Some(912), frame_age_ms: Some(58) },
        space_id: Some("faceplugin-r50-v1".into()),
        pack: Some("faceplugin 0.0.1".into()),
    }
}

fn denied() -> AccessData {
    AccessData {
        person: None,
        reason: Reason::of(Code::Unknown),
        identity: None,
        liveness: None,
        quality: None,
        timing: Timing::default(),
        ..access(Code::Unknown)
    }
}

fn every_event() -> Vec<EventData> {
    let door = DoorData {
        door: "main".into(),
        cause: DoorCause::Granted,
        decision: Some(uuid(20)),
        person: Some(PersonId(uuid(21))),
    };
    let locked = DoorData { cause: DoorCause::HoldElapsed, ..door.clone() };
    vec![
        EventData::AccessGranted(access(Code::Granted)),
        EventData::AccessDenied(denied()),
        EventData::DoorUnlocked(door),
        EventData::DoorLocked(locked),
        EventData::FaceAppeared(FaceAppearedData { camera: "front".into(), track: 7 }),
        EventData::CameraStalled(CameraStalledData {
            camera: "front".into(),
            frame_age_ms: Some(2100),
            detail: "no frame for 2 s".into(),
        }),
        EventData::CameraRecovered(CameraRecoveredData { camera: "front".into(), outage_ms: 3400 }),
        EventData::SystemStarted(SystemStartedData {
            agent_version: "0.1.0".into(),
            pack: Some("faceplugin 0.0.1".into()),
            space_id: Some("faceplugin-r50-v1".into()),
        }),
        EventData::SystemGap(SystemGapData {
            from: at(0),
            until: at(5000),
            count: 12,
            classes: vec![EventClass::Face, EventClass::Camera],
        }),
        EventData::GalleryRebuilt(GalleryRebuiltData {
            gallery: GalleryId(uuid(30)),
            epoch: 2,
            reason: Reason::of(Code::RootMismatch),
        }),
        EventData::EnrolmentCompleted(EnrolmentCompletedData {
            person: PersonId(uuid(21)),
            template: uuid(22),
            space_id: "faceplugin-r50-v1".into(),
            photographs: 3,
            quality: Score::from(0.9_f32),
        }),
        EventData::PersonDeleted(PersonDeletedData { person: PersonId(uuid(21)) }),
        EventData::StreamConflict(StreamConflictData {
            alarm: true,
            device: DeviceId(uuid(2)),
            stream: STREAM,
            sequence: Some(Sequence(4)),
            reason: Reason::of(Code::StreamConflict),
        }),
        EventData::ClaimReused(ClaimReusedData { alarm: true, claim: ClaimId(uuid(50)), device: DeviceId(uuid(2)) }),
        EventData::GalleryDiverged(GalleryDivergedData {
            alarm: true,
            device: DeviceId(uuid(2)),
            gallery: GalleryId(uuid(30)),
            reported: GalleryPoint { epoch: 2, version: 9, root: Some(Hash32([0xcd; 32])) },
            expected: GalleryPoint { epoch: 2, version: 12, root: None },
        }),
        EventData::GalleryHealed(GalleryHealedData {
            gallery: GalleryId(uuid(30)),
            epoch: 2,
            version: 12,
            buckets: 1,
            received: 3,
            removed: 1,
        }),
        EventData::GalleryOlderEpoch(GalleryOlderEpochData {
            alarm: true,
            gallery: GalleryId(uuid(30)),
            offered: 1,
            held: 2,
        }),
        EventData::SnapshotRefused(SnapshotRefusedData {
            alarm: true,
            gallery: GalleryId(uuid(30)),
            epoch: 2,
            version: 12,
            reason: Reason::of(Code::SnapshotForged),
        }),
        EventData::CommandSettled(CommandSettledData {
            command: CommandId(uuid(60)),
            order: Order::Lockdown { door: Some("main".into()), on: true },
            state: CommandState::Succeeded,
            reason: None,
        }),
        EventData::LivenessPrompted(LivenessPromptedData {
            door: "main".into(),
            camera: "front".into(),
            track: 7,
            prompt: Prompt::TurnLeft,
            step: 2,
            steps: 3,
            within_ms: 4000,
        }),
        EventData::LivenessChallengeEnded(LivenessChallengeEndedData {
            door: "main".into(),
            camera: "front".into(),
            track: 7,
            passed: false,
            reason: Some(Reason::of(Code::ChallengeFailed)),
            answered: 1,
            steps: 3,
            took_ms: Some(3120),
        }),
        EventData::Intrusion(IntrusionData {
            alarm: true,
            signal: "cross_tenant_probing".to_owned(),
            caller_kind: "api_key".to_owned(),
            caller: uuid(60),
            count: 20,
        }),
    ]
}

fn event(n: u64, data: &EventData) -> CloudEvent {
    let meta = Meta {
        id: EventId(uuid(100 + u128::from(n))),
        source: device_source(TenantId(uuid(1)), DeviceId(uuid(2))),
        subject: Some("door/main".into()),
        time: at(i64::try_from(n).unwrap()),
        stream: STREAM,
        sequence: Sequence(n),
        boot: uuid(3),
        monotonic_ms: 42_000 + n,
        clock_quality: ClockQuality::Synchronised,
    };
    CloudEvent::new(meta, data)
}

fn server_time() -> SignedTime {
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    SignedTime::sign(&pair, uuid(40), uuid(2), at(0))
}

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1").join(format!("{name}.json"))
}

fn writing() -> bool {
    std::env::var("LINTEL_GOLDEN").is_ok_and(|v| v == "write")
}

/// The file says what the example is, and reads as the example; the example is written as the file says.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, example: &T) {
    let path = golden_path(name);
    if writing() && !path.exists() {
        std::fs::write(&path, serde_json::to_string_pretty(example).unwrap() + "\n").unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&serde_json::from_str::<T>(&file).unwrap(), example, "{name}: reading");
    // Compared as values: the order of keys is no part of the contract.
    let written = serde_json::to_value(example).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(&file).unwrap(), "{name}: writing");
}

#[test]
fn events_are_as_in_the_golden_files() {
    let all = every_event();
    assert_eq!(all.iter().map(EventData::kind).collect::<Vec<_>>(), KINDS, "an example for every type, in order");
    for (n, data) in (1..).zip(&all) {
        let event = event(n, data);
        assert_eq!(event.class(), Some(data.class()));
        assert_eq!(&event.typed().unwrap(), data);
        check(data.kind().trim_start_matches("lintel."), &event);
    }
    let by_hub = CloudEvent::from_hub(EventId(uuid(5)), None, at(0), &all[11]);
    check("person.deleted.by_hub.v1", &by_hub);
}

#[test]
fn guidance_is_as_in_the_golden_files() {
    let prompt = Show::Prompt { prompt: Prompt::TurnLeft, step: 2, steps: 3, within_ms: 4000 };
    for (name, show) in [
        ("guidance_idle", Show::Idle),
        ("guidance_prompt", prompt),
        ("guidance_passed", Show::Passed),
        ("guidance_failed", Show::Failed { code: Code::ChallengeTimeout }),
    ] {
        check(name, &DoorGuidance { door: "main".into(), show });
    }
}

#[test]
fn messages_are_as_in_the_golden_files() {
    let events =
        [1, 2].map(|n| event(n, &EventData::FaceAppeared(FaceAppearedData { camera: "front".into(), track: n })));
    check("batch", &Batch { v: V1, stream: STREAM, events: events.to_vec() });
    for (name, verdict, through) in [
        ("evtack_ok", Verdict::Ok, 812),
        ("evtack_rewind", Verdict::Rewind, 0),
        ("evtack_conflict", Verdict::Conflict, 3),
    ] {
        check(name, &EvtAck { v: V1, hub_epoch: 1, stream: STREAM, through: Sequence(through), verdict });
    }
    let ack = EvtAck { v: V1, hub_epoch: 1, stream: STREAM, through: Sequence(3), verdict: Verdict::Conflict };
    check("evtack_refusal", &EvtRefusal { ack, code: Code::BatchRefused });
    let gallery = GalleryId(uuid(30));
    let state =
        GalleryState { gallery, epoch: 2, version: 9, root: Hash32([0xcd; 32]), condition: GalleryCondition::Ready };
    check("gallery_state", &GalleryUp::State { v: V1, galleries: vec![state] });
    let records = vec![
        GalleryRecord {
            version: 8,
            op: RecordOp::Put,
            kind: RecordKind::Person,
            id: uuid(21),
            rev: 1,
            body: Bytes(vec![1, 2, 3, 4]),
        },
        GalleryRecord {
            version: 9,
            op: RecordOp::Del,
            kind: RecordKind::Template,
            id: uuid(22),
            rev: 2,
            body: Bytes(vec![]),
        },
    ];
    let records = GalleryRecords { v: V1, gallery, epoch: 2, from: 8, records, root: Hash32([0xcd; 32]) };
    assert_eq!(records.check(), Ok(()));
    check("gallery_records", &GalleryDown::Records(records));
    let anchor = GalleryRecord {
        version: 10,
        op: RecordOp::Put,
        kind: RecordKind::Anchor,
        id: uuid(23),
        rev: 1,
        body: Bytes(vec![1, 2, 3, 4]),
    };
    let anchored =
        GalleryRecords { v: V1, gallery, epoch: 2, from: 10, records: vec![anchor], root: Hash32([0xcd; 32]) };
    assert_eq!(anchored.check(), Ok(()));
    check("gallery_records_anchor", &GalleryDown::Records(anchored));
    let rebuild = GalleryRebuild { v: V1, gallery, epoch: 3, reason: Code::RootMismatch, answers: None };
    check("gallery_rebuild", &GalleryDown::Rebuild(rebuild.clone()));
    let answers = Some(GalleryStand { version: 9, root: Hash32([0xcd; 32]) });
    check("gallery_rebuild_answer", &GalleryDown::Rebuild(GalleryRebuild { answers, ..rebuild }));
    let status = Status {
        v: V1,
        state: Presence::Online,
        boot: uuid(3),
        connection_epoch: 17,
        since: at(0),
        agent_version: "0.1.0".into(),
        pack: Some("faceplugin 0.0.1".into()),
        space_id: Some("faceplugin-r50-v1".into()),
    };
    check("status_online", &status);
    check("status_offline", &Status { state: Presence::Offline, pack: None, space_id: None, ..status });
}

#[test]
fn what_is_said_of_a_gallery_that_differs_is_as_in_the_golden_files() {
    let (gallery, root) = (GalleryId(uuid(30)), Hash32([0xcd; 32]));
    check("gallery_compare", &GalleryDown::Compare(GalleryCompare { v: V1, gallery, epoch: 2, version: 9, root }));
    let mut hashes = [[0x11; 32]; BUCKETS];
    hashes[204] = [0xcd; 32];
    check("gallery_hashes", &GalleryUp::Hashes(GalleryHashes::of(gallery, 2, 9, &hashes)));
    let record = GalleryRecord {
        version: 8,
        op: RecordOp::Put,
        kind: RecordKind::Person,
        id: uuid(21),
        rev: 1,
        body: Bytes(vec![1, 2, 3, 4]),
    };
    let buckets = GalleryBuckets {
        v: V1,
        gallery,
        epoch: 2,
        version: 12,
        root,
        buckets: vec![3, 204],
        part: 0,
        parts: 1,
        records: vec![record],
    };
    assert_eq!(buckets.check(), Ok(()));
    check("gallery_buckets", &GalleryDown::Buckets(buckets));
}

#[test]
fn a_snapshot_is_as_in_the_golden_files() {
    let (snapshot, gallery, expires_at) = (uuid(70), GalleryId(uuid(30)), at(3_600_000));
    let offer = SnapshotOffer { v: V1, snapshot, gallery, epoch: 2, version: 12, expires_at };
    check("gallery_snapshot", &GalleryDown::Snapshot(offer));
    let manifest = SnapshotManifest {
        v: V1,
        snapshot,
        tenant: TenantId(uuid(1)),
        device: DeviceId(uuid(2)),
        gallery,
        epoch: 2,
        version: 12,
        root: Hash32([0xcd; 32]),
        records: 150,
        chunks: vec![
            SnapshotChunk { bytes: 262_100, sha256: Hash32([0x11; 32]) },
            SnapshotChunk { bytes: 60_000, sha256: Hash32([0x22; 32]) },
        ],
        created_at: at(0),
        expires_at,
        key_id: uuid(40),
        signature: Bytes(Vec::new()),
    };
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = SecretBytes::new([0x44; 32]);
    let manifest = manifest.signed(&pair, uuid(40));
    check("snapshot_answer", &SnapshotAnswer { manifest, key, successions: Vec::new() });
}

#[test]
fn claim_and_link_are_as_in_the_golden_files() {
    let hub_url: url::Url = "https://hub.example:8443/".parse().unwrap();
    let token = ClaimToken {
        hub_url: hub_url.clone(),
        root_spki_sha256: Hash32([0x11; 32]),
        claim_id: ClaimId(uuid(50)),
        secret: SecretBytes::new([0x22; 32]),
        iat: 1_795_343_851,
        exp: 1_795_344_751,
    };
    check("claim_token", &token);
    let text = std::fs::read_to_string(golden_path("claim_token").with_extension("txt"));
    if text.is_err() && writing() {
        std::fs::write(golden_path("claim_token").with_extension("txt"), format!("{}\n", *token.encode())).unwrap();
    } else {
        assert_eq!(text.unwrap().parse::<ClaimToken>().unwrap(), token);
    }
    let request = ClaimRequest {
        v: V1,
        claim_id: token.claim_id,
        secret: token.secret.clone(),
        serial: "LT-0001".into(),
        csr: "-----BEGIN CERTIFICATE REQUEST-----\n…\n-----END CERTIFICATE REQUEST-----\n".into(),
    };
    check("claim_request", &request);
    check("renewal_request", &RenewalRequest { v: V1, csr: request.csr.clone(), nonce: None });
    let nonce = Some(uuid(62));
    check("renewal_request_nonce", &RenewalRequest { v: V1, csr: request.csr.clone(), nonce });
    let answer = ClaimAnswer {
        v: V1,
        tenant: TenantId(uuid(1)),
        device: DeviceId(uuid(2)),
        certificate_chain: "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n".into(),
        root: "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n".into(),
        hub_keys: vec![HubKey { key_id: uuid(40), public_key: Bytes(vec![0x33; 32]) }],
        hub_url,
        broker: BrokerAddress { host: "hub.example".into(), port: 8883 },
        server_time: server_time(),
        successions: Vec::new(),
    };
    check("claim_answer", &answer);
    let gallery = LinkGallery {
        gallery: GalleryId(uuid(30)),
        epoch: 2,
        gdk: SecretBytes::new([0x44; 32]),
        ck: SecretBytes::new([0x55; 32]),
    };
    let link = LinkAnswer {
        v: V1,
        link_epoch: 1,
        link_key: SecretBytes::new([0x66; 32]),
        hub_epoch: 1,
        galleries: vec![gallery],
        server_time: server_time(),
        successions: Vec::new(),
    };
    check("link_answer", &link);
    let before = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[6; 32]).unwrap();
    let succession = Succession::sign(&before, uuid(40), &[0x88; 32], at(0));
    check("succession", &succession);
    check("link_answer_succession", &LinkAnswer { successions: vec![succession], ..link });
    let nonce = Nonce([0x77; 32]);
    check("hub_time_request", &HubTimeRequest { v: V1, nonce });
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    check("hub_time", &HubTime::sign(&pair, uuid(40), nonce, at(0)));
}

#[test]
fn commands_are_as_in_the_golden_files() {
    let id = CommandId(uuid(60));
    let unlock = Order::Unlock { door: "main".into(), hold_ms: Some(5_000) };
    let command = |order| CommandDown::Command(Command { v: V1, id, order, issued_at: at(0), expires_at: at(10_000) });
    check("command_unlock", &command(unlock));
    check("command_refresh", &command(Order::Refresh));
    check("command_lockdown", &command(Order::Lockdown { door: Some("main".into()), on: true }));
    check("command_reboot", &command(Order::Reboot { target: RebootTarget::Agent }));
    check("command_log_level", &command(Order::LogLevel { level: LogLevel::Debug, for_s: Some(600) }));
    check("command_collect_logs", &command(Order::CollectLogs { max_bytes: Some(65_536) }));
    let enrol = Order::Enrol { door: "main".into(), person: PersonId(uuid(21)), within_s: 30 };
    check("command_enrol", &command(enrol));
    check("command_time_answer", &CommandDown::Time(TimeAnswer { v: V1, nonce: uuid(61), at: at(5) }));
    check("command_time_request", &CommandUp::Time(TimeRequest { v: V1, nonce: uuid(61) }));
    let expired = CommandProgress { v: V1, id, state: CommandState::Expired, code: Some(Code::CommandExpired) };
    check("command_progress", &CommandUp::Progress(expired));
    let later = json!({ "kind": "dance", "door": "main" });
    assert_eq!(serde_json::from_value::<Order>(later).unwrap(), Order::Unknown);
}

#[test]
fn the_twin_is_as_in_the_golden_files() {
    let value = json!({
        "log": { "level": "debug" },
        "perceive": { "idle_interval_ms": 250, "track_interval_ms": 80, "settled_interval_ms": 160 },
        "door": { "main": { "hold_ms": 5000, "regrant_ms": 1000 } },
        "policy": { "default": { "far": "1e-5", "liveness": "strict", "freshness_ms": 800, "min_face_px": 48 } },
    });
    let settings = TwinSettings::parse(&value).unwrap();
    check("twin_settings", &settings);
    let desired = TwinVersion { epoch: 1, version: 7 };
    check("twin_down", &TwinDown { v: V1, desired, hash: settings.hash(), settings: value.clone() });
    let up = TwinUp {
        v: V1,
        boot: uuid(3),
        seen: Some(desired),
        applied: Some(desired),
        hash: Some(settings.hash()),
        state: TwinState::RestartNeeded,
        settings: value,
        restart_needed: vec!["policy.default.liveness".into()],
        code: None,
        reason: None,
    };
    check("twin_up", &up);
    let refused = TwinUp {
        state: TwinState::Refused,
        applied: None,
        hash: None,
        restart_needed: vec![],
        code: Some(Code::TwinInvalid),
        reason: Some("door.cellar: this device has no such door; it has main".into()),
        ..up
    };
    check("twin_up_refused", &refused);
}

#[test]
fn an_enrolment_at_a_door_is_as_in_the_golden_files() {
    let mut embedding = [0.0; enrol::DIM];
    embedding[0] = 1.0;
    let request = EnrolRequest {
        v: V1,
        command: CommandId(uuid(60)),
        person: PersonId(uuid(21)),
        space_id: "faceplugin-r50-v1".into(),
        pack: "faceplugin 0.0.1".into(),
        quality: Score::from(0.8_f32),
        template: enrol::Template::of(&embedding),
    };
    check("enrol_request", &request);
    check("enrol_answer", &EnrolAnswer { v: V1, template: uuid(62) });
}

#[test]
fn what_integrators_see_is_as_in_the_golden_files() {
    let event = event(1, &EventData::AccessGranted(access(Code::Granted)));
    check("webhook", &WebhookBody::of(&event, TenantId(uuid(1)), Some(DeviceId(uuid(2)))));
    check("problem", &Problem::of(Code::NotFound).detail("no person has this id"));
    let refused = Problem::of(Code::NoFace)
        .field("/photo/0", Code::NoFace, "no face was found in photograph 0")
        .extension("photographs", json!([{ "index": 0, "accepted": false, "reasons": ["no_face"] }]));
    check("problem_enrolment", &refused);
}

#[test]
fn every_schema_is_the_one_in_its_file() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/v1");
    let mut names = Vec::new();
    for (name, schema) in schema::all() {
        let path = dir.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if writing() {
            std::fs::write(&path, &text).unwrap();
        }
        let file = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file: Value = serde_json::from_str(&file).unwrap();
        assert_eq!(
            file,
            serde_json::to_value(&schema).unwrap(),
            "{name}: run the test with LINTEL_GOLDEN=write and commit the schema"
        );
        names.push(format!("{name}.json"));
    }
    let files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(files.iter().all(|file| names.contains(file)), "a schema file without a type: {files:?}");
}

#[test]
fn the_asyncapi_document_is_the_one_in_its_file_and_refers_to_what_is_there() {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let (path, document) = (schemas.join("asyncapi.json"), asyncapi::document());
    if writing() {
        std::fs::write(&path, serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
    }
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(file, document, "run the test with LINTEL_GOLDEN=write and commit the document");

    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 40, "{}", references.len());
    for reference in references {
        match reference.strip_prefix('#') {
            Some(pointer) => assert!(document.pointer(pointer).is_some(), "{reference}"),
            None => assert!(schemas.join(&reference).is_file(), "{reference}"),
        }
    }
    for (name, channel) in document["channels"].as_object().unwrap() {
        let id = uuid(1).to_string();
        let topic = channel["address"].as_str().unwrap().replace("{tenant}", &id).replace("{device}", &id);
        topic.parse::<Topic>().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect_references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// Adds a field that nobody knows.
fn with_unknown_field(name: &str) -> Value {
    let mut value: Value = serde_json::from_str(&std::fs::read_to_string(golden_path(name)).unwrap()).unwrap();
    value.as_object_mut().unwrap().insert("added_later".into(), json!(1));
    value
}

#[test]
fn unknown_fields_are_ignored_when_read_and_rejected_when_written_to_the_hub() {
    assert!(serde_json::from_value::<Batch>(with_unknown_field("batch")).is_ok());
    assert!(serde_json::from_value::<EvtAck>(with_unknown_field("evtack_ok")).is_ok());
    assert!(serde_json::from_value::<Status>(with_unknown_field("status_online")).is_ok());
    assert!(serde_json::from_value::<GalleryDown>(with_unknown_field("gallery_records")).is_ok());
    assert!(serde_json::from_value::<ClaimAnswer>(with_unknown_field("claim_answer")).is_ok());
    assert!(serde_json::from_value::<LinkAnswer>(with_unknown_field("link_answer")).is_ok());
    let refused = serde_json::from_value::<ClaimRequest>(with_unknown_field("claim_request")).unwrap_err();
    assert!(refused.to_string().contains("added_later"), "{refused}");
    assert!(serde_json::from_value::<ClaimToken>(with_unknown_field("claim_token")).is_err());
}

#[test]
fn another_payload_version_is_refused_by_name() {
    for name in ["batch", "evtack_ok", "status_online", "gallery_records", "claim_request", "link_answer"] {
        let mut value: Value = serde_json::from_str(&std::fs::read_to_string(golden_path(name)).unwrap()).unwrap();
        value["v"] = json!(2);
        let refused = match name {
            "batch" => serde_json::from_value::<Batch>(value).map(drop),
            "evtack_ok" => serde_json::from_value::<EvtAck>(value).map(drop),
            "status_online" => serde_json::from_value::<Status>(value).map(drop),
            "gallery_records" => serde_json::from_value::<GalleryDown>(value).map(drop),
            "claim_request" => serde_json::from_value::<ClaimRequest>(value).map(drop),
            _ => serde_json::from_value::<LinkAnswer>(value).map(drop),
        };
        assert!(refused.unwrap_err().to_string().contains("version 2 is not known"), "{name}");
    }
}

#[test]
fn messages_of_an_unknown_type_are_read_as_unknown() {
    let offer = json!({ "type": "snapshot_offer", "v": 2, "url": "x" });
    assert_eq!(serde_json::from_value::<GalleryDown>(offer.clone()).unwrap(), GalleryDown::Unknown);
    assert_eq!(serde_json::from_value::<GalleryUp>(offer).unwrap(), GalleryUp::Unknown);
}

#[test]
fn an_event_of_an_unknown_type_keeps_everything() {
    let mut value = serde_json::to_value(event(1, &every_event()[4])).unwrap();
    value["type"] = json!("lintel.tamper.opened.v3");
    value["data"] = json!({ "lid": { "angle": 12 } });
    let event: CloudEvent = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(event.class(), Some(EventClass::Tamper));
    assert!(matches!(event.typed(), Err(wire_contract::event::EventError::UnknownType { .. })));
    assert_eq!(serde_json::to_value(event).unwrap(), value);
}
