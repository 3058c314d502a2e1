//! API keys: whose they are, what they may do, and each way in which they end.

use std::sync::Arc;

use cloud_hub::clock::Clock;
use cloud_hub::domain::api_key::ApiKey;
use cloud_hub::domain::permission::{Grant, Permission, Role};
use cloud_hub::domain::tenant::{Agreement, Tier};
use cloud_hub::keys::{Custody, KeysError, Recognised, WantedApiKey};
use cloud_hub::store::{StoreError, credentials, tenants};
use time::{Duration, OffsetDateTime};

use crate::support::{TestHub, skipped};

/// The same hub at another time.
fn at(hub: &TestHub, now: OffsetDateTime) -> Custody {
    Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), Clock::of(move || now))
}

fn owner() -> Grant {
    Grant::all_of(Role::Owner)
}

#[tokio::test]
async fn an_api_key_opens_its_own_tenant_until_it_is_revoked() {
    if skipped("an_api_key_opens_its_own_tenant_until_it_is_revoked") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let key = hub.custody.create_api_key(tenant, WantedApiKey::of("key", owner()), "test").await.unwrap();
    let found = Recognised {
        tenant,
        permissions: owner().permissions(),
        requests_per_hour: None,
        suspended: false,
        agreement: Agreement::of(Tier::Enterprise),
    };
    assert_eq!(hub.custody.recognise(&key).await.unwrap(), Some(found));
    let mut wrong = ApiKey { id: key.id, secret: key.secret.clone() };
    wrong.secret[31] ^= 1;
    assert_eq!(hub.custody.recognise(&wrong).await.unwrap(), None);
    hub.custody.revoke_api_key(tenant, key.id, None, "test").await.unwrap();
    assert_eq!(hub.custody.recognise(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_key_ends_by_itself_and_says_when_it_was_last_used() {
    if skipped("a_key_ends_by_itself_and_says_when_it_was_last_used") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, now) = (hub.tenant().await, hub.clock.now());
    let end = now + Duration::HOUR;
    let key = hub
        .custody
        .create_api_key(tenant, WantedApiKey { expires_at: Some(end), ..WantedApiKey::of("key", owner()) }, "test")
        .await
        .unwrap();
    let id = key.id;
    let last_used =
        || async { hub.db.tenant(tenant, move |tx| Box::pin(credentials::get(tx, id))).await.unwrap().last_used_at };
    assert_eq!(last_used().await, None);
    assert!(at(&hub, now).recognise(&key).await.unwrap().is_some());
    let first = last_used().await.unwrap();
    // A key that is used all the time is not written all the time.
    assert!(at(&hub, now + Duration::seconds(30)).recognise(&key).await.unwrap().is_some());
    assert_eq!(last_used().await, Some(first));
    assert!(at(&hub, now + Duration::seconds(90)).recognise(&key).await.unwrap().is_some());
    assert!(last_used().await.unwrap() >= first + credentials::LAST_USED_WITHIN);
    assert!(at(&hub, end - Duration::SECOND).recognise(&key).await.unwrap().is_some());
    assert_eq!(at(&hub, end).recognise(&key).await.unwrap(), None);
}

#[tokio::test]
async fn a_rotated_key_works_beside_the_new_one_for_a_while() {
    if skipped("a_rotated_key_works_beside_the_new_one_for_a_while") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, now) = (hub.tenant().await, hub.clock.now());
    let scopes = [Permission::EventsRead].into_iter().collect();
    let grant = Grant { role: Role::Auditor.into(), scopes: Some(scopes) };
    let old = hub
        .custody
        .create_api_key(
            tenant,
            WantedApiKey { requests_per_hour: Some(60), ..WantedApiKey::of("time sheet", grant) },
            "test",
        )
        .await
        .unwrap();
    let until = now + Duration::HOUR;
    let rotated = hub.custody.rotate_api_key(tenant, old.id, until, None, "test").await.unwrap();
    let new = rotated.key;
    assert!(old.secret != new.secret && rotated.old_ends_at == until);
    let found = hub.custody.recognise(&new).await.unwrap().unwrap();
    assert_eq!(found.permissions, scopes, "the same rights");
    assert!(at(&hub, until - Duration::SECOND).recognise(&old).await.unwrap().is_some());
    assert_eq!(at(&hub, until).recognise(&old).await.unwrap(), None);
    assert!(at(&hub, until).recognise(&new).await.unwrap().is_some());
    // A chain has one living end.
    let again = hub.custody.rotate_api_key(tenant, old.id, until, None, "test").await;
    assert!(matches!(again, Err(KeysError::Store(StoreError::NotFound { .. }))));
    let rows = hub.db.tenant(tenant, |tx| Box::pin(credentials::list(tx))).await.unwrap();
    assert_eq!(rows.len(), 2, "what was refused left nothing behind");
    assert_eq!((rows[0].replaced_by, rows[1].name.as_str()), (Some(new.id), "time sheet"));
    // An overlap never outlives the key's own end.
    let soon = now + Duration::MINUTE;
    let short = hub
        .custody
        .create_api_key(tenant, WantedApiKey { expires_at: Some(soon), ..WantedApiKey::of("short", owner()) }, "test")
        .await
        .unwrap();
    let rotated = hub.custody.rotate_api_key(tenant, short.id, until, None, "test").await.unwrap();
    assert!((rotated.old_ends_at - soon).abs() < Duration::SECOND);
}

#[tokio::test]
async fn a_key_that_one_hub_revokes_ends_at_the_other_within_five_seconds() {
    if skipped("a_key_that_one_hub_revokes_ends_at_the_other_within_five_seconds") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let other = Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), hub.clock.clone());
    let key = hub.custody.create_api_key(tenant, WantedApiKey::of("key", owner()), "test").await.unwrap();
    for custody in [&hub.custody, &other] {
        assert!(custody.recognise(&key).await.unwrap().is_some());
    }
    hub.custody.revoke_api_key(tenant, key.id, None, "test").await.unwrap();
    assert_eq!(hub.custody.recognise(&key).await.unwrap(), None, "where it was revoked, at once");
    let begun = std::time::Instant::now();
    // It is asked all the time, so that nothing but its age ends what the other one believes.
    while other.recognise(&key).await.unwrap().is_some() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn keys_of_a_suspended_tenant_say_so() {
    if skipped("keys_of_a_suspended_tenant_say_so") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, now) = (hub.tenant().await, hub.clock.now());
    let key = hub.custody.create_api_key(tenant, WantedApiKey::of("key", owner()), "test").await.unwrap();
    let suspend = |since| hub.db.tenant(tenant, move |tx| Box::pin(tenants::suspend(tx, since)));
    assert!(suspend(Some(now)).await.unwrap());
    // As whoever suspends a tenant does.
    hub.custody.forget_keys(tenant);
    assert!(!suspend(Some(now)).await.unwrap(), "no change the second time");
    assert!(hub.custody.recognise(&key).await.unwrap().unwrap().suspended);
    assert!(suspend(None).await.unwrap());
    hub.custody.forget_keys(tenant);
    assert!(!hub.custody.recognise(&key).await.unwrap().unwrap().suspended);
}
