//! Claims against a TLS server with a real chain, which answers as a hub does, or does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edge_store::Priority;
use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;
use wire_contract::claim::{BrokerAddress, TOKEN_LIFETIME_SECONDS};
use wire_contract::{ClaimId, Code, DeviceId, Hash32, Problem, SecretBytes, TenantId};

use super::*;
use crate::clock::{ClockQuality, WallTime};
use crate::sync::testkit::{
    Asked, DEVICE, Device, GALLERY, HttpsHub, Pki, TENANT, hub_key, link_answer_for, now, signed_time,
};

const CLAIM: Uuid = Uuid::from_u128(0xc1);

/// A clock that always shows the same time.
struct Still(Timestamp);

impl Clock for Still {
    fn now(&self) -> face_core::MonoTime {
        face_core::MonoTime::START
    }

    fn wall(&self) -> WallTime {
        WallTime { utc: self.0.to_offset_date_time(), quality: ClockQuality::Holdover }
    }
}

fn token(hub_url: &str, root: Hash32) -> ClaimToken {
    let iat = now().unix_seconds() - 10;
    ClaimToken {
        hub_url: hub_url.parse().unwrap(),
        root_spki_sha256: root,
        claim_id: ClaimId(CLAIM),
        secret: SecretBytes::new([2; 32]),
        iat,
        exp: iat + TOKEN_LIFETIME_SECONDS,
    }
}

fn answer(pki: &Pki, request: &ClaimRequest, hub_url: &str) -> ClaimAnswer {
    ClaimAnswer {
        v: V1,
        tenant: TenantId(TENANT),
        device: DeviceId(DEVICE),
        certificate_chain: pki.certify(&request.csr, &DEVICE.to_string()),
        root: pki.root.pem(),
        hub_keys: vec![hub_key()],
        hub_url: hub_url.parse().unwrap(),
        broker: BrokerAddress { host: "127.0.0.1".into(), port: 8883 },
        server_time: signed_time(CLAIM),
        successions: Vec::new(),
    }
}

/// A hub that answers the claim with what `change` makes of the right answer. Counts the requests it got.
async fn hub(pki: Arc<Pki>, change: impl Fn(&mut ClaimAnswer) + Send + Sync + 'static) -> (HttpsHub, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let url = Arc::new(Mutex::new(String::new()));
    let (own_url, pki_inside) = (Arc::clone(&url), Arc::clone(&pki));
    let server = HttpsHub::start(&pki, true, move |asked: Asked| {
        counter.fetch_add(1, Ordering::SeqCst);
        if asked.line.starts_with("GET /v1/device/link?") {
            assert!(asked.with_certificate);
            return (200, serde_json::to_value(link_answer_for(asked.nonce(), 1, &[(GALLERY, 1)])).unwrap());
        }
        assert_eq!(asked.line, "POST /v1/claims HTTP/1.1");
        let request: ClaimRequest = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!((request.claim_id.0, request.secret.expose()), (CLAIM, &[2; 32]));
        let mut answer = answer(&pki_inside, &request, &own_url.lock());
        change(&mut answer);
        (200, serde_json::to_value(answer).unwrap())
    })
    .await;
    *url.lock() = server.url.clone();
    (server, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_gives_an_identity_that_is_written_as_a_whole() {
    let pki = Arc::new(Pki::new());
    let (server, _) = hub(Arc::clone(&pki), |_| {}).await;
    let claimed = claim(&token(&server.url, pki.root_hash()), "LT-1", &Still(now())).await.unwrap();
    assert_eq!((claimed.identity.tenant, claimed.identity.device), (TENANT, DEVICE));
    assert_eq!(claimed.link.link_epoch, 1);

    let dir = tempfile::tempdir().unwrap();
    let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_343_851);
    let (galleries, outbox) = (dir.path().join("galleries"), dir.path().join("outbox"));
    claimed.commit(dir.path(), &galleries, &outbox, &keys, wall).unwrap();
    let loaded = Identity::load(dir.path()).unwrap().unwrap();
    assert_eq!(loaded.chain_pem, claimed.identity.chain_pem);
    assert_eq!(keys.link().unwrap().unwrap().current.epoch, 1);
    assert_eq!(keys.galleries().unwrap(), [GALLERY]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_claim_leaves_nothing_of_the_first_but_the_device() {
    let pki = Arc::new(Pki::new());
    let (server, _) = hub(Arc::clone(&pki), |_| {}).await;
    let Device { dir, keys, galleries, outbox, identity } = Device::new().linked();
    identity.store(dir.path()).unwrap();
    keys.set_link(40, &[40; 32]).unwrap();
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_343_851);
    outbox.append(wall, Priority::MustKeep, |_| b"{}".to_vec()).unwrap();
    let old_stream = outbox.stats().unwrap().stream;
    drop((galleries, outbox));
    // Nor does what is damaged of the first keep the second from being taken in.
    std::fs::write(dir.path().join("keys").join(format!("gallery-{GALLERY}.sealed")), b"noise").unwrap();

    let claimed = claim(&token(&server.url, pki.root_hash()), "LT-1", &Still(now())).await.unwrap();
    let (galleries, outbox) = (dir.path().join("galleries"), dir.path().join("outbox"));
    claimed.commit(dir.path(), &galleries, &outbox, &keys, wall).unwrap();
    assert_ne!(Identity::load(dir.path()).unwrap().unwrap().key_pem, identity.key_pem);
    assert_eq!(keys.link().unwrap().unwrap().current.epoch, 1, "an older epoch of another life");
    assert!(keys.link().unwrap().unwrap().previous.is_none());
    let (outbox, _) = Outbox::open(&outbox, &keys.outbox().unwrap(), OutboxOptions::default(), wall).unwrap();
    assert_ne!(outbox.stats().unwrap().stream, old_stream);
    assert_eq!(outbox.stats().unwrap().last_sequence, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_with_another_root_is_told_nothing() {
    let pki = Arc::new(Pki::new());
    let (server, asked) = hub(Arc::clone(&pki), |_| {}).await;
    let refused = claim(&token(&server.url, Hash32([9; 32])), "LT-1", &Still(now())).await;
    let Err(ClaimError::OtherHub(PinError::OtherRoot { expected, found })) = refused else { panic!("{refused:?}") };
    assert_eq!((expected, found), (Hash32([9; 32]), pki.root_hash()));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the secret was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_without_its_root_and_a_root_that_did_not_sign_are_told_nothing() {
    let pki = Pki::new();
    let bare = HttpsHub::start(&pki, false, |_| -> (u16, serde_json::Value) { panic!("the secret was sent") }).await;
    let refused = claim(&token(&bare.url, pki.root_hash()), "LT-1", &Still(now())).await;
    assert!(matches!(refused, Err(ClaimError::OtherHub(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_refusal_is_passed_on_with_its_code() {
    let pki = Pki::new();
    let server = HttpsHub::start(&pki, true, |_| {
        (409, serde_json::to_value(Problem::of(Code::ClaimUsed).detail("used by another device")).unwrap())
    })
    .await;
    let refused = claim(&token(&server.url, pki.root_hash()), "LT-1", &Still(now())).await;
    let Err(ClaimError::Hub(HttpsError::Refused { status: 409, code: Code::ClaimUsed, text })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(text, "used by another device");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_and_a_hub_that_is_not_there_are_named() {
    let pki = Pki::new();
    let late = Timestamp::from_unix_ms(now().unix_ms() + TOKEN_LIFETIME_SECONDS * 1000);
    let refused = claim(&token("https://127.0.0.1:1/", pki.root_hash()), "LT-1", &Still(late)).await;
    assert!(matches!(refused, Err(ClaimError::Token(TokenError::Expired { .. }))), "{refused:?}");
    let refused = claim(&token("https://127.0.0.1:1/", pki.root_hash()), "LT-1", &Still(now())).await;
    let Err(ClaimError::Hub(error)) = refused else { panic!("{refused:?}") };
    assert!(error.is_unreachable() && error.to_string().contains("127.0.0.1:1"), "{error}");
    let refused = claim(&token("https://127.0.0.1:1/", pki.root_hash()), "", &Still(now())).await;
    assert!(matches!(refused, Err(ClaimError::Request(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_fell_back_to_1970_does_not_stop_a_claim() {
    let pki = Arc::new(Pki::new());
    let (server, _) = hub(Arc::clone(&pki), |_| {}).await;
    let token = token(&server.url, pki.root_hash());
    assert!(claim(&token, "LT-1", &Still(Timestamp::from_unix_ms(0))).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_do_not_hold_together_are_refused() {
    type Change = fn(&mut ClaimAnswer);
    let cases: [(Change, AnswerProblem); 6] = [
        (|answer| answer.root = Pki::new().root.pem(), AnswerProblem::OtherRoot),
        (|answer| answer.certificate_chain.clear(), AnswerProblem::OtherKey),
        (|answer| answer.certificate_chain = Pki::new().identity("https://x/", 1).chain_pem, AnswerProblem::OtherKey),
        (|answer| answer.device = DeviceId(TENANT), AnswerProblem::OtherDevice),
        (
            |answer| {
                let other = Pki::new().identity("https://x/", 1).chain_pem;
                let ca = other.find("-----END CERTIFICATE-----\n").unwrap() + 26;
                let own = answer.certificate_chain.find("-----END CERTIFICATE-----\n").unwrap() + 26;
                answer.certificate_chain.truncate(own);
                answer.certificate_chain.push_str(&other[ca..]);
            },
            AnswerProblem::BrokenChain,
        ),
        (|answer| answer.hub_keys.clear(), AnswerProblem::SigningKeys),
    ];
    for (change, expected) in cases {
        let pki = Arc::new(Pki::new());
        let (server, _) = hub(Arc::clone(&pki), change).await;
        let refused = claim(&token(&server.url, pki.root_hash()), "LT-1", &Still(now())).await;
        let Err(ClaimError::Answer { problem }) = refused else { panic!("{expected:?}: {refused:?}") };
        assert_eq!(problem, expected);
    }
    let pki = Arc::new(Pki::new());
    let (server, _) = hub(Arc::clone(&pki), |answer| answer.server_time = signed_time(TENANT)).await;
    let refused = claim(&token(&server.url, pki.root_hash()), "LT-1", &Still(now())).await;
    assert!(matches!(refused, Err(ClaimError::Time(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_answered_is_made_again_with_the_same_key() {
    let pki = Arc::new(Pki::new());
    let keys_seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let url = Arc::new(Mutex::new(String::new()));
    let (seen, own_url, pki_inside) = (Arc::clone(&keys_seen), Arc::clone(&url), Arc::clone(&pki));
    let server = HttpsHub::start(&pki, true, move |asked: Asked| {
        if asked.line.starts_with("GET ") {
            return (200, serde_json::to_value(link_answer_for(asked.nonce(), 1, &[])).unwrap());
        }
        let request: ClaimRequest = serde_json::from_slice(&asked.body).unwrap();
        seen.lock().push(request.csr.clone());
        if seen.lock().len() == 1 {
            return (503, json!({ "not": "a problem" }));
        }
        (200, serde_json::to_value(answer(&pki_inside, &request, &own_url.lock())).unwrap())
    })
    .await;
    *url.lock() = server.url.clone();
    claim(&token(&server.url, pki.root_hash()), "LT-1", &Still(now())).await.unwrap();
    let seen = keys_seen.lock();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
}
