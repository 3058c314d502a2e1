//! Sessions without models: a challenge from hub to hub through the database, what is stored of frames, and how sessions end.

use std::sync::Arc;

use cloud_hub::clock::Clock;
use cloud_hub::domain::ids::{SessionId, TenantId};
use cloud_hub::domain::session::life::Look;
use cloud_hub::domain::session::token::SessionToken;
use cloud_hub::domain::session::{Input, Kind, Seen, SessionError, State};
use cloud_hub::keys::{Custody, Decision, KeysError, OpenedSession, SessionState, WantedSession};
use cloud_hub::store::routes::{self, Job};
use face_core::liveness::{EyeLook, Movement};
use face_core::{Embedding, HeadPose, PassiveScores};
use serde_json::json;

use crate::support::{SPACE, TestHub, skipped, template};

const FRONTAL: HeadPose = HeadPose { yaw_deg: 0.0, pitch_deg: -8.5, roll_deg: 0.0 };
const IDENTIFICATION: WantedSession = WantedSession {
    kind: Kind::Identification,
    person: None,
    allow_duplicate: false,
    require_liveness: true,
    max_attempts: 2,
};

/// Somebody before a kiosk, five frames a second; each burst may go to another hub.
struct Kiosk {
    tenant: TenantId,
    id: SessionId,
    now: u64,
}

impl Kiosk {
    fn seen(&mut self, pose: HeadPose, eyes: (f32, f32), prompt: Option<u16>) -> Seen {
        self.now += 200;
        let frontal = pose == FRONTAL;
        Seen {
            accepted: frontal,
            quality: Some(0.5),
            reasons: Vec::new(),
            look: Some(Look {
                at_ms: self.now,
                pose,
                passive: frontal.then_some(PassiveScores { boxed: 0.9, square: 0.9 }),
                glow: Some(1.0),
                eyes: Some(EyeLook { aspect_ratio: eyes.0, closed: eyes.1 }),
                digest: Some(self.now),
                prompt,
            }),
            embedding: frontal.then(|| Embedding::from_raw(*template(3).embedding).unwrap()),
        }
    }

    fn burst(&mut self, movement: Movement, prompt: Option<u16>) -> Vec<Seen> {
        let (open, shut) = ((0.3, 0.1), (0.1, 0.9));
        let mut seen: Vec<Seen> = (0..8).map(|_| self.seen(FRONTAL, open, prompt)).collect();
        let (pose, eyes) = match movement {
            Movement::TurnLeft => (HeadPose { yaw_deg: 25.0, ..FRONTAL }, open),
            Movement::TurnRight => (HeadPose { yaw_deg: -25.0, ..FRONTAL }, open),
            Movement::Nod => (HeadPose { pitch_deg: 8.0, ..FRONTAL }, open),
            Movement::Blink => (FRONTAL, shut),
        };
        seen.push(self.seen(pose, eyes, prompt));
        seen.push(self.seen(FRONTAL, open, prompt));
        seen
    }

    async fn send(&self, custody: &Custody, seen: Vec<Seen>) -> Result<SessionState, KeysError> {
        let before = custody.session(self.tenant, self.id).await?;
        custody.add_frames(self.tenant, self.id, (before.session.revision, SPACE), seen, "test").await
    }
}

fn at(hub: &TestHub, later: time::Duration) -> Custody {
    let clock = hub.clock.clone();
    Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), Clock::of(move || clock.now() + later))
}

async fn rows(hub: &TestHub) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM session_frame").fetch_one(&mut hub.superuser().await).await.unwrap()
}

#[tokio::test]
async fn a_challenge_goes_on_at_another_hub_and_its_frames_are_sealed() {
    if skipped("a_challenge_goes_on_at_another_hub_and_its_frames_are_sealed") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let other = at(&hub, time::Duration::ZERO);
    let OpenedSession { session, .. } = hub.custody.open_session(tenant, IDENTIFICATION, "test").await.unwrap();
    let mut kiosk = Kiosk { tenant, id: session.id, now: 0 };
    let mut nonces = vec![session.prompt.unwrap().nonce];
    let mut state = hub.custody.session(tenant, session.id).await.unwrap();
    for round in 0.. {
        let Some((movement, number)) = state.standing().unwrap().wanted() else { break };
        assert!(round < 3, "there are three movements");
        // What saw no prompt is no answer.
        let blind = kiosk.burst(movement, None);
        state = kiosk.send(&other, blind).await.unwrap();
        assert_eq!(state.standing().unwrap().wanted(), Some((movement, number)));
        let seen = kiosk.burst(movement, Some(number));
        state = kiosk.send(&hub.custody, seen).await.unwrap();
        nonces.push(state.session.prompt.unwrap().nonce);
    }
    assert!(state.standing().unwrap().passed());
    assert_eq!(state.standing().unwrap().judged().why_not, None);
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 4, "each prompt has a nonce of its own");
    // The template opens here and is not to be read there.
    let (_, opened) = other.session_templates(tenant, session.id, SPACE).await.unwrap();
    assert_eq!(opened[0].embedding.as_slice(), template(3).embedding.as_ref());
    assert!(other.session_templates(tenant, session.id, "another space").await.unwrap().1.is_empty());
    let plain = Embedding::from_raw(*template(3).embedding).unwrap().to_le_bytes();
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM session_frame WHERE position($1 in sealed) > 0")
        .bind(&plain[8..24])
        .fetch_one(&mut hub.superuser().await)
        .await
        .unwrap();
    assert_eq!(found, 0);
    let decision = Decision { result: json!({ "matched": true }), refused: None, person: None };
    let stale = other.attempt_judged(tenant, session.id, 0, decision.clone(), "test").await;
    assert!(matches!(stale, Err(KeysError::Session(SessionError::Changed))), "{stale:?}");
    let revision = state.session.revision;
    let done = other.attempt_judged(tenant, session.id, revision, decision.clone(), "test").await.unwrap();
    assert_eq!((done.session.state, done.frames.len(), rows(&hub).await), (State::Completed, 0, 0));
    let again = other.attempt_judged(tenant, session.id, done.session.revision, decision, "test").await;
    assert!(matches!(again, Err(KeysError::Session(SessionError::NotAllowed { .. }))), "{again:?}");
    hub.postgres.stop().await;
}

#[tokio::test]
async fn a_wrong_movement_uses_an_attempt_up_and_time_ends_what_is_open() {
    if skipped("a_wrong_movement_uses_an_attempt_up_and_time_ends_what_is_open") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let custody = &hub.custody;
    let OpenedSession { session, .. } = custody.open_session(tenant, IDENTIFICATION, "test").await.unwrap();
    let mut kiosk = Kiosk { tenant, id: session.id, now: 0 };
    let mut seeds = Vec::new();
    for (attempts, ended) in [(1, State::Processing), (2, State::Failed)] {
        let state = custody.session(tenant, session.id).await.unwrap();
        seeds.push(state.session.prompt.unwrap().seed);
        let (wanted, number) = state.standing().unwrap().wanted().unwrap();
        let wrong = [Movement::TurnLeft, Movement::Nod].into_iter().find(|movement| *movement != wanted).unwrap();
        let seen = kiosk.burst(wrong, Some(number));
        let after = kiosk.send(custody, seen).await.unwrap();
        assert_eq!((after.session.attempts, after.session.state), (attempts, ended));
        assert_eq!((after.frames.len(), rows(&hub).await), (0, 0), "an attempt takes its frames with it");
    }
    assert_ne!(seeds[0], seeds[1], "the next attempt has other movements");

    let OpenedSession { session, token } = custody.open_session(tenant, IDENTIFICATION, "test").await.unwrap();
    let token = SessionToken::parse(&token).unwrap();
    let mut kiosk = Kiosk { tenant, id: session.id, now: 0 };
    let seen = kiosk.burst(Movement::Blink, None);
    kiosk.send(custody, seen).await.unwrap();
    let (early, late) = (at(&hub, time::Duration::seconds(110)), at(&hub, time::Duration::seconds(121)));
    assert_eq!(early.expire_sessions(tenant).await.unwrap(), 0);
    assert!(early.join_session(&token).await.unwrap().is_some());
    // Whether or not the job was there.
    assert!(late.join_session(&token).await.unwrap().is_none());
    let seen = kiosk.burst(Movement::Blink, None);
    let refused = kiosk.send(&late, seen).await;
    assert!(matches!(refused, Err(KeysError::Session(SessionError::Expired))), "{refused:?}");
    let due = async |later| routes::due(&hub.db, Job::Session, hub.clock.now() + time::Duration::seconds(later)).await;
    assert_eq!((due(0).await.unwrap(), due(121).await.unwrap()), (vec![], vec![tenant]));
    assert_eq!((late.expire_sessions(tenant).await.unwrap(), rows(&hub).await), (1, 0));
    assert_eq!(due(1_000).await.unwrap(), vec![], "nothing is open any more");
    let ended = custody.session(tenant, session.id).await.unwrap().session;
    assert_eq!((ended.state, ended.ended_at.is_some()), (State::Expired, true));
    let cancelled = custody.end_session(tenant, session.id, (Input::Cancelled, None), "test").await;
    assert!(matches!(cancelled, Err(KeysError::Session(SessionError::NotAllowed { .. }))), "{cancelled:?}");
    let told: Vec<String> = sqlx::query_scalar(
        "SELECT action || coalesce(' ' || (detail->>'state'), '') FROM audit_entry WHERE object_id = $1 ORDER BY at, id",
    )
    .bind(session.id.0)
    .fetch_all(&mut hub.superuser().await)
    .await
    .unwrap();
    assert_eq!(told, ["session.create", "session.frames", "session.end expired"]);
    hub.postgres.stop().await;
}
