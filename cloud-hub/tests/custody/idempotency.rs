//! Requests with a key in the database: one of many is carried out, an attempt that was given up changes nothing any more.

use cloud_hub::domain::idempotency::{Key, MAX_ANSWER};
use cloud_hub::domain::ids::{SiteId, TenantId};
use cloud_hub::keys::{Claim, KeysError, NewSite};
use cloud_hub::store::StoreError;
use cloud_hub::store::idempotency::{Attempt, bound, remove_ended};
use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::support::{TestHub, skipped};

async fn claim(hub: &TestHub, tenant: TenantId, key: &str) -> Claim {
    let key = Key::parse([key.as_bytes()].into_iter()).unwrap();
    hub.custody.claim_key(tenant, "api_key:x", &key, "digest").await.unwrap()
}

async fn attempt(hub: &TestHub, tenant: TenantId, key: &str) -> Attempt {
    match claim(hub, tenant, key).await {
        Claim::CarryOut(attempt) => attempt,
        _ => panic!("{key} is not to be carried out"),
    }
}

async fn make_site(hub: &TestHub, tenant: TenantId, attempt: Attempt) -> Result<(), KeysError> {
    let new = NewSite { id: SiteId(Uuid::new_v4()), name: attempt.id.to_string(), time_zone: "UTC".to_owned() };
    bound(attempt, hub.custody.create_site(tenant, new, "test")).await.map(drop)
}

async fn sites(superuser: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM site").fetch_one(superuser).await.unwrap()
}

async fn counted(superuser: &mut PgConnection) -> (i32, i64) {
    sqlx::query_as("SELECT keys, bytes FROM idempotency_use").fetch_one(superuser).await.unwrap()
}

#[tokio::test]
async fn an_attempt_that_was_taken_over_changes_nothing_any_more() {
    if skipped("an_attempt_that_was_taken_over_changes_nothing_any_more") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    let slow = attempt(&hub, tenant, "one").await;
    assert!(matches!(claim(&hub, tenant, "one").await, Claim::UnderWay));
    sqlx::query("UPDATE idempotency_key SET held_until = now()").execute(&mut superuser).await.unwrap();
    let second = attempt(&hub, tenant, "one").await;
    assert_ne!(slow, second);
    // The first was not dead after all.
    let late = make_site(&hub, tenant, slow).await;
    assert!(matches!(late, Err(KeysError::Store(StoreError::Superseded))), "{late:?}");
    assert_eq!(sites(&mut superuser).await, 0);
    make_site(&hub, tenant, second).await.unwrap();
    assert_eq!(sites(&mut superuser).await, 1);
    // Now something is changed: no third attempt, whatever becomes of the second.
    sqlx::query("UPDATE idempotency_key SET held_until = now()").execute(&mut superuser).await.unwrap();
    assert!(matches!(claim(&hub, tenant, "one").await, Claim::OutcomeUnknown));
    let kept = hub.custody.keep_answer(second, 201, Zeroizing::new(b"{}".to_vec()), Some(Vec::new())).await;
    kept.unwrap();
    assert!(matches!(claim(&hub, tenant, "one").await, Claim::Replay(answer) if answer.as_slice() == b"{}"));
}

#[tokio::test]
async fn of_many_at_once_one_is_carried_out() {
    if skipped("of_many_at_once_one_is_carried_out") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let claims = futures::future::join_all((0..16).map(|_| claim(&hub, tenant, "same"))).await;
    let carried = claims.iter().filter(|claim| matches!(claim, Claim::CarryOut(_))).count();
    let waiting = claims.iter().filter(|claim| matches!(claim, Claim::UnderWay)).count();
    assert_eq!((carried, waiting), (1, 15));
}

#[tokio::test]
async fn what_came_to_nothing_may_be_asked_again_and_what_is_over_is_removed() {
    if skipped("what_came_to_nothing_may_be_asked_again_and_what_is_over_is_removed") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    // A fault before anything was changed.
    let first = attempt(&hub, tenant, "fault").await;
    assert!(!hub.custody.release_key(first).await.unwrap());
    assert_eq!(counted(&mut superuser).await, (0, 0));
    // A fault after it.
    let second = attempt(&hub, tenant, "fault").await;
    make_site(&hub, tenant, second).await.unwrap();
    assert!(hub.custody.release_key(second).await.unwrap());
    assert!(matches!(claim(&hub, tenant, "fault").await, Claim::OutcomeUnknown));
    // What only reads is no change.
    let third = attempt(&hub, tenant, "read").await;
    bound(third, hub.custody.users(tenant)).await.unwrap();
    assert!(!hub.custody.release_key(third).await.unwrap());
    // An answer that is too long.
    let long = attempt(&hub, tenant, "long").await;
    let answer = Zeroizing::new(vec![b'x'; MAX_ANSWER + 1]);
    hub.custody.keep_answer(long, 201, answer, Some(Vec::new())).await.unwrap();
    assert!(matches!(claim(&hub, tenant, "long").await, Claim::AnswerGone(201)));
    let short = attempt(&hub, tenant, "short").await;
    hub.custody.keep_answer(short, 201, Zeroizing::new(b"{}".to_vec()), Some(Vec::new())).await.unwrap();
    let (keys, bytes) = counted(&mut superuser).await;
    assert!(keys == 3 && bytes > 0, "{keys} {bytes}");
    // A day later.
    let later = hub.clock.now() + time::Duration::hours(25);
    let removed = hub.db.tenant(tenant, move |tx| Box::pin(remove_ended(tx, later, 2))).await.unwrap();
    assert_eq!(removed, 2);
    let removed = hub.db.tenant(tenant, move |tx| Box::pin(remove_ended(tx, later, 100))).await.unwrap();
    assert_eq!((removed, counted(&mut superuser).await), (1, (0, 0)));
}

#[tokio::test]
async fn an_answer_about_somebody_goes_with_their_key_wherever_it_lies() {
    if skipped("an_answer_about_somebody_goes_with_their_key_wherever_it_lies") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    let (ada, bob) = (hub.person(tenant, "ada").await, hub.person(tenant, "bob").await);
    let keep = async |key: &str, about: Vec<Uuid>| {
        let attempt = attempt(&hub, tenant, key).await;
        hub.custody.keep_answer(attempt, 201, Zeroizing::new(b"Mx".to_vec()), Some(about)).await.unwrap();
    };
    keep("ada", vec![Uuid::new_v4(), ada.0]).await;
    keep("bob", vec![bob.0]).await;
    keep("both", vec![bob.0, ada.0]).await;
    assert!(matches!(claim(&hub, tenant, "ada").await, Claim::Replay(answer) if answer.as_slice() == b"Mx"));
    assert!(matches!(claim(&hub, tenant, "both").await, Claim::Replay(answer) if answer.as_slice() == b"Mx"));
    // A backup of the database from before Ada was deleted.
    let backup: Vec<(Vec<u8>, Option<Vec<u8>>)> =
        sqlx::query_as("SELECT key_index, answer_sealed FROM idempotency_key").fetch_all(&mut superuser).await.unwrap();
    hub.custody.delete_person(tenant, ada, "test").await.unwrap();
    assert!(matches!(claim(&hub, tenant, "ada").await, Claim::AnswerGone(201)));
    for (key, answer) in backup {
        sqlx::query("UPDATE idempotency_key SET answer_sealed = $2 WHERE key_index = $1")
            .bind(key)
            .bind(answer)
            .execute(&mut superuser)
            .await
            .unwrap();
    }
    assert!(matches!(claim(&hub, tenant, "ada").await, Claim::AnswerGone(201)));
    assert!(matches!(claim(&hub, tenant, "both").await, Claim::AnswerGone(201)));
    assert!(matches!(claim(&hub, tenant, "bob").await, Claim::Replay(answer) if answer.as_slice() == b"Mx"));
    // Whoever was deleted while the request was carried out, and what is about more than can be told.
    keep("late", vec![bob.0, ada.0]).await;
    assert!(matches!(claim(&hub, tenant, "late").await, Claim::AnswerGone(201)));
    let many = attempt(&hub, tenant, "many").await;
    hub.custody.keep_answer(many, 200, Zeroizing::new(b"{}".to_vec()), None).await.unwrap();
    assert!(matches!(claim(&hub, tenant, "many").await, Claim::AnswerGone(200)));
}
