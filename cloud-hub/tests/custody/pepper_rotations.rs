//! Another pepper: API keys go over to it as they are used, everybody is let in meanwhile, and nobody is told wrong what ends with the old one.

use std::sync::Arc;

use cloud_hub::domain::api_key::ApiKey;
use cloud_hub::domain::ids::TenantId;
use cloud_hub::domain::permission::{Grant, Role};
use cloud_hub::keys::{Custody, Entered, Forgotten, Keyring, KeysError, Refreshed, WantedApiKey};
use cloud_hub::store::credentials::UnderOther;
use cloud_hub::store::logins::Kind;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use crate::support::{TestHub, skipped};

async fn key(hub: &TestHub, tenant: TenantId) -> ApiKey {
    hub.custody.create_api_key(tenant, WantedApiKey::of("test", Grant::all_of(Role::Owner)), "test").await.unwrap()
}

/// The hub started anew: nothing is remembered.
fn again(hub: &TestHub) -> Custody {
    let (from, to) = (hub.dir.path().join("keys"), tempfile::tempdir_in(hub.dir.path()).unwrap().keep());
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "redb") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    Custody::new(hub.db.clone(), Arc::new(Keyring::open(&to).unwrap()), hub.clock.clone())
}

async fn is_let_in(at: &Custody, key: &ApiKey) -> bool {
    at.recognise(key).await.unwrap().is_some()
}

async fn macs(superuser: &mut PgConnection) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    sqlx::query_as("SELECT mac, pepper FROM api_key ORDER BY id").fetch_all(superuser).await.unwrap()
}

async fn left(at: &Custody) -> Option<u64> {
    at.pepper_standing().await.unwrap().before.map(|before| before.api_keys)
}

#[tokio::test]
async fn an_api_key_goes_over_at_its_next_use_and_one_that_is_not_used_ends_with_the_pepper() {
    if skipped("an_api_key_goes_over_at_its_next_use_and_one_that_is_not_used_ends_with_the_pepper") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, mut superuser) = (hub.tenant().await, hub.superuser().await);
    let (used, unused) = (key(&hub, tenant).await, key(&hub, tenant).await);
    // As an older version left it: it did not say which pepper.
    sqlx::query("UPDATE api_key SET pepper = NULL").execute(&mut superuser).await.unwrap();
    assert_eq!(left(&hub.custody).await, None);
    assert!(matches!(hub.custody.forget_pepper(Some(0)).await, Err(KeysError::NoPepperBefore)));

    hub.custody.rotate_pepper(false).await.unwrap();
    assert!(matches!(hub.custody.rotate_pepper(false).await, Err(KeysError::PepperUnderWay)));
    assert_eq!(left(&hub.custody).await, Some(2));
    let before = macs(&mut superuser).await;
    let wrong = ApiKey { id: used.id, secret: unused.secret.clone() };
    assert!(!is_let_in(&hub.custody, &wrong).await && macs(&mut superuser).await == before, "nothing for a wrong one");
    // All at once, and at a hub that has just been started.
    let other = again(&hub);
    let (one, two) = tokio::join!(is_let_in(&hub.custody, &used), is_let_in(&other, &used));
    assert!(one && two);
    let after = macs(&mut superuser).await;
    assert!(after[0].0 != before[0].0 && after[0].1.is_some() && after[1] == before[1], "the one that was used");
    assert_eq!(left(&hub.custody).await, Some(1));
    assert!(is_let_in(&again(&hub), &used).await && macs(&mut superuser).await == after, "once");
    let new = key(&hub, tenant).await;

    let ends = UnderOther { api_keys: 1, recovery_codes: 0 };
    assert_eq!(hub.custody.forget_pepper(None).await.unwrap(), Forgotten::NotConfirmed(ends));
    assert_eq!(hub.custody.forget_pepper(Some(0)).await.unwrap(), Forgotten::NotConfirmed(ends));
    assert_eq!(left(&hub.custody).await, Some(1), "nothing was changed");
    assert_eq!(hub.custody.forget_pepper(Some(1)).await.unwrap(), Forgotten::Done(ends));
    assert_eq!(left(&hub.custody).await, None);
    for at in [&hub.custody, &again(&hub)] {
        assert!(is_let_in(at, &used).await && is_let_in(at, &new).await && !is_let_in(at, &unused).await);
    }
    let told: (String, String) = sqlx::query_as(
        "SELECT detail->>'api_keys', detail->>'recovery_codes' FROM audit_entry WHERE action = 'hub.pepper'",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!(told, ("1".to_owned(), "0".to_owned()));
}

#[tokio::test]
async fn who_is_logged_in_stays_so_while_the_pepper_is_replaced() {
    if skipped("who_is_logged_in_stays_so_while_the_pepper_is_replaced") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let password = || Zeroizing::new(String::from("correct horse battery"));
    let invited = hub.custody.create_user(tenant, "ada", Role::Owner, "test").await.unwrap();
    hub.custody.rotate_pepper(false).await.unwrap();
    assert!(hub.custody.accept_invitation(&invited.token, password()).await.unwrap(), "an invitation of before");
    hub.custody.forget_pepper(Some(0)).await.unwrap();
    let enter = async |kind| match hub.custody.log_in(tenant, "ada", password(), kind).await.unwrap() {
        Entered::In(granted) => granted,
        _ => panic!("the password is right"),
    };
    let (tokens, cookie) = (enter(Kind::Tokens).await, enter(Kind::Cookie).await);
    let csrf = cookie.csrf_token.clone().unwrap();
    hub.custody.rotate_pepper(false).await.unwrap();
    let fresh = again(&hub);
    let seen = fresh.recognise_cookie(&cookie.secret).await.unwrap().unwrap();
    assert!(seen.is_from_its_page(Some(&csrf)), "the page was read before");
    assert!(seen.is_from_its_page(seen.csrf_text().as_deref()) && seen.csrf_text().as_deref() != Some(&*csrf));
    assert!(!seen.is_from_its_page(None) && !seen.is_from_its_page(Some("other")));
    let Refreshed::In(next) = fresh.refresh(&tokens.secret).await.unwrap() else { panic!("it is good once") };
    // What was refreshed is by the new pepper; the cookie was not entered anew.
    hub.custody.forget_pepper(Some(0)).await.unwrap();
    let fresh = again(&hub);
    assert!(fresh.recognise_cookie(&cookie.secret).await.unwrap().is_none());
    assert!(matches!(fresh.refresh(&next.secret).await.unwrap(), Refreshed::In(_)));
}
