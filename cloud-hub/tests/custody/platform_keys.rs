//! Keys of platform administrators: what they may do, and each way in which they end.

use std::sync::Arc;

use cloud_hub::clock::Clock;
use cloud_hub::domain::platform::{PlatformKey, PlatformRole};
use cloud_hub::keys::{Custody, Forgotten, KeysError, WantedPlatformKey};
use cloud_hub::store::{StoreError, platform_keys};
use time::{Duration, OffsetDateTime};

use crate::support::{TestHub, skipped};

/// The same hub at another time.
fn at(hub: &TestHub, now: OffsetDateTime) -> Custody {
    Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), Clock::of(move || now))
}

async fn key(hub: &TestHub, role: PlatformRole, expires_at: Option<OffsetDateTime>) -> PlatformKey {
    let wanted = WantedPlatformKey { name: String::from("key"), role, expires_at };
    hub.custody.create_platform_key(wanted, "test").await.unwrap()
}

#[tokio::test]
async fn a_platform_key_opens_until_it_is_revoked_on_any_hub() {
    if skipped("a_platform_key_opens_until_it_is_revoked_on_any_hub") {
        return;
    }
    let hub = TestHub::start().await;
    let other = at(&hub, hub.clock.now());
    let made = key(&hub, PlatformRole::Auditor, None).await;
    let second = key(&hub, PlatformRole::Administrator, None).await;
    for custody in [&hub.custody, &other] {
        assert_eq!(custody.recognise_platform_key(&made).await.unwrap(), Some(PlatformRole::Auditor));
    }
    let mut wrong = PlatformKey { id: made.id, secret: made.secret.clone() };
    wrong.secret[31] ^= 1;
    // Nor does another key's secret open it.
    let swapped = PlatformKey { id: made.id, secret: second.secret.clone() };
    for wrong in [wrong, swapped] {
        assert_eq!(hub.custody.recognise_platform_key(&wrong).await.unwrap(), None);
    }
    hub.custody.revoke_platform_key(made.id, "test").await.unwrap();
    for custody in [&hub.custody, &other] {
        assert_eq!(custody.recognise_platform_key(&made).await.unwrap(), None, "at once, everywhere");
    }
    let again = hub.custody.revoke_platform_key(made.id, "test").await;
    assert!(matches!(again, Err(KeysError::Store(StoreError::NotFound { .. }))));
    assert_eq!(hub.custody.recognise_platform_key(&second).await.unwrap(), Some(PlatformRole::Administrator));
}

#[tokio::test]
async fn a_platform_key_ends_by_itself_and_says_when_it_was_last_used() {
    if skipped("a_platform_key_ends_by_itself_and_says_when_it_was_last_used") {
        return;
    }
    let hub = TestHub::start().await;
    let now = hub.clock.now();
    let end = now + Duration::HOUR;
    let made = key(&hub, PlatformRole::Administrator, Some(end)).await;
    let last_used = || async { platform_keys::list(&hub.db).await.unwrap()[0].last_used_at };
    assert_eq!(last_used().await, None);
    let opens = async |now| at(&hub, now).recognise_platform_key(&made).await.unwrap().is_some();
    assert!(opens(now).await);
    let first = last_used().await.unwrap();
    // A key that is used all the time is not written all the time.
    assert!(opens(now + Duration::seconds(30)).await);
    assert_eq!(last_used().await, Some(first));
    assert!(opens(now + Duration::seconds(90)).await);
    assert!(last_used().await.unwrap() >= first + Duration::MINUTE);
    assert!(opens(end - Duration::SECOND).await);
    assert!(!opens(end).await);
}

#[tokio::test]
async fn a_platform_key_goes_over_to_another_pepper_at_its_next_use() {
    if skipped("a_platform_key_goes_over_to_another_pepper_at_its_next_use") {
        return;
    }
    let hub = TestHub::start().await;
    let (used, idle) = (key(&hub, PlatformRole::Auditor, None).await, key(&hub, PlatformRole::Auditor, None).await);
    hub.custody.rotate_pepper(false).await.unwrap();
    let left = async || hub.custody.pepper_standing().await.unwrap().before.unwrap().api_keys;
    assert_eq!(left().await, 2);
    assert!(hub.custody.recognise_platform_key(&used).await.unwrap().is_some());
    assert_eq!(left().await, 1);
    assert!(matches!(hub.custody.forget_pepper(Some(1)).await.unwrap(), Forgotten::Done(_)));
    assert!(hub.custody.recognise_platform_key(&used).await.unwrap().is_some());
    assert!(hub.custody.recognise_platform_key(&idle).await.unwrap().is_none());
}

#[tokio::test]
async fn the_program_cannot_give_a_platform_key_other_rights_or_take_it_off_the_list() {
    if skipped("the_program_cannot_give_a_platform_key_other_rights_or_take_it_off_the_list") {
        return;
    }
    let hub = TestHub::start().await;
    key(&hub, PlatformRole::Auditor, None).await;
    let mut app = hub.app().await;
    for statement in [
        "UPDATE platform_key SET role = 'administrator'",
        "UPDATE platform_key SET expires_at = NULL",
        "DELETE FROM platform_key",
    ] {
        let refused = sqlx::query(statement).execute(&mut app).await.unwrap_err().to_string();
        assert!(refused.contains("permission denied"), "{refused}");
    }
}
