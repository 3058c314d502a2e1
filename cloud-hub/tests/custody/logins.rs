//! Log-ins as two replicas see them: what one ends, the other lets in for five seconds at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_hub::clock::Clock;
use cloud_hub::domain::permission::{Grant, Permission, Role};
use cloud_hub::domain::user::State;
use cloud_hub::keys::{Custody, Entered, Granted, KeysError, Refreshed, RoleDeleted, WantedApiKey, WantedRole};
use cloud_hub::store::logins::Kind;
use cloud_hub::store::{StoreError, tenants};
use zeroize::Zeroizing;

use crate::support::{TestHub, skipped};

fn password() -> Zeroizing<String> {
    Zeroizing::new(String::from("correct horse battery"))
}

fn granted(entered: Entered) -> Box<Granted> {
    match entered {
        Entered::In(granted) => granted,
        _ => panic!("the password is right"),
    }
}

#[tokio::test]
async fn what_one_hub_ends_the_other_refuses_within_five_seconds() {
    if skipped("what_one_hub_ends_the_other_refuses_within_five_seconds") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let other = Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), hub.clock.clone());
    let invited = hub.custody.create_user(tenant, "ada", Role::Owner, "test").await.unwrap();
    assert!(other.accept_invitation(&invited.token, password()).await.unwrap());
    let enter = async |kind| granted(hub.custody.log_in(tenant, "ada", password(), kind).await.unwrap());
    let (tokens, cookie) = (enter(Kind::Tokens).await, enter(Kind::Cookie).await);
    let token = tokens.access_token.as_deref().unwrap();
    let seen = other.recognise_token(token).await.unwrap().unwrap();
    assert!(other.recognise_cookie(&cookie.secret).await.unwrap().is_some());
    hub.custody.log_out(tenant, seen.login).await.unwrap();
    assert!(hub.custody.recognise_token(token).await.unwrap().is_none(), "where it was ended, at once");
    let begun = Instant::now();
    while other.recognise_token(token).await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The other log-in goes on, until its user is invited anew.
    assert!(other.recognise_cookie(&cookie.secret).await.unwrap().is_some());
    hub.custody.invite_user(tenant, invited.user, None, "test").await.unwrap();
    let begun = Instant::now();
    while other.recognise_cookie(&cookie.secret).await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!other.accept_invitation(&invited.token, password()).await.unwrap(), "it was used");
}

#[tokio::test]
async fn of_two_who_show_one_refresh_token_at_once_nobody_stays() {
    if skipped("of_two_who_show_one_refresh_token_at_once_nobody_stays") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let invited = hub.custody.create_user(tenant, "ada", Role::Auditor, "test").await.unwrap();
    assert!(hub.custody.accept_invitation(&invited.token, password()).await.unwrap());
    let tokens = granted(hub.custody.log_in(tenant, "ada", password(), Kind::Tokens).await.unwrap());
    let shown = futures::future::join_all((0..8).map(|_| hub.custody.refresh(&tokens.secret))).await;
    let let_in: Vec<Box<Granted>> = shown
        .into_iter()
        .filter_map(|shown| match shown.unwrap() {
            Refreshed::In(granted) => Some(granted),
            _ => None,
        })
        .collect();
    assert_eq!(let_in.len(), 1, "the first");
    assert!(matches!(hub.custody.refresh(&let_in[0].secret).await.unwrap(), Refreshed::Refused));
    assert!(hub.custody.recognise_token(let_in[0].access_token.as_deref().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_lock_grows_ends_and_is_no_way_around_for_many_at_once() {
    if skipped("a_lock_grows_ends_and_is_no_way_around_for_many_at_once") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let invited = hub.custody.create_user(tenant, "ada", Role::Auditor, "test").await.unwrap();
    assert!(hub.custody.accept_invitation(&invited.token, password()).await.unwrap());
    let wrong = || Zeroizing::new(String::from("something else"));
    // The database keeps microseconds: whole seconds, so that they compare.
    let now = hub.clock.now().replace_nanosecond(0).unwrap();
    let at = |seconds: i64| {
        let then = now + time::Duration::seconds(seconds);
        Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), Clock::of(move || then))
    };
    // Twenty guesses at once are five guesses.
    let first = at(0);
    let many = futures::future::join_all((0..20).map(|_| first.log_in(tenant, "ada", wrong(), Kind::Tokens))).await;
    let refused = many.into_iter().filter(|one| matches!(one, Ok(Entered::Refused))).count();
    assert_eq!(refused, 5);
    let locked = |entered: Entered| match entered {
        Entered::Locked(until) => Some((until - now).whole_seconds()),
        _ => None,
    };
    let try_at = async |seconds, password| at(seconds).log_in(tenant, "ada", password, Kind::Tokens).await.unwrap();
    assert_eq!(locked(try_at(59, password()).await), Some(60));
    assert!(matches!(try_at(61, wrong()).await, Entered::Refused));
    assert_eq!(locked(try_at(300, password()).await), Some(361));
    assert!(matches!(try_at(362, wrong()).await, Entered::Refused));
    assert_eq!(locked(try_at(363, password()).await), Some(362 + 900));
    // The right one after its time forgives all.
    assert!(matches!(try_at(1_300, password()).await, Entered::In(_)));
    for _ in 0..4 {
        assert!(matches!(try_at(1_301, wrong()).await, Entered::Refused));
    }
    assert!(matches!(try_at(1_302, password()).await, Entered::In(_)));
}

#[tokio::test]
async fn changes_of_a_user_at_once_do_not_undo_each_other() {
    if skipped("changes_of_a_user_at_once_do_not_undo_each_other") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let user = hub.custody.create_user(tenant, "ada", Role::Owner, "test").await.unwrap().user;
    for _ in 0..30 {
        let change = |role: Option<Role>, state| {
            hub.custody.change_user(tenant, user, (role.map(Into::into), state), None, "test")
        };
        change(Some(Role::Owner), Some(State::Active)).await.unwrap();
        let (role, state) = tokio::join!(change(Some(Role::Auditor), None), change(None, Some(State::Disabled)));
        role.and(state).unwrap();
        let seen = hub.custody.user(tenant, user).await.unwrap();
        assert_eq!((seen.role.name.as_str(), seen.state), ("auditor", State::Disabled));
    }
}

#[tokio::test]
async fn what_was_not_looked_at_is_no_failure() {
    if skipped("what_was_not_looked_at_is_no_failure") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let invited = hub.custody.create_user(tenant, "ada", Role::Auditor, "test").await.unwrap();
    assert!(hub.custody.accept_invitation(&invited.token, password()).await.unwrap());
    // As many as may wait, of people who are not there; meanwhile Ada is turned away unseen, more often than she may fail.
    let names: Vec<String> = (0..80).map(|number| format!("nobody-{number}")).collect();
    let crowd =
        futures::future::join_all(names.iter().map(|name| hub.custody.log_in(tenant, name, password(), Kind::Tokens)));
    let ada = async {
        tokio::task::yield_now().await;
        let mut turned_away = 0;
        for _ in 0..8 {
            let tried = hub.custody.log_in(tenant, "ada", password(), Kind::Tokens).await;
            turned_away += u32::from(matches!(tried, Err(KeysError::TooManyPasswords)));
        }
        turned_away
    };
    let (_, turned_away) = tokio::join!(crowd, ada);
    assert!(turned_away >= 5, "{turned_away}");
    assert!(matches!(hub.custody.log_in(tenant, "ada", password(), Kind::Tokens).await.unwrap(), Entered::In(_)));
}

#[tokio::test]
async fn a_refresh_token_that_a_suspended_tenants_user_shows_is_not_used_up() {
    if skipped("a_refresh_token_that_a_suspended_tenants_user_shows_is_not_used_up") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let invited = hub.custody.create_user(tenant, "ada", Role::Auditor, "test").await.unwrap();
    assert!(hub.custody.accept_invitation(&invited.token, password()).await.unwrap());
    let tokens = granted(hub.custody.log_in(tenant, "ada", password(), Kind::Tokens).await.unwrap());
    let suspend = async |since| {
        let done: Result<bool, StoreError> =
            hub.db.tenant(tenant, move |tx| Box::pin(tenants::suspend(tx, since))).await;
        assert!(done.unwrap());
    };
    suspend(Some(hub.clock.now())).await;
    for _ in 0..2 {
        assert!(matches!(hub.custody.refresh(&tokens.secret).await.unwrap(), Refreshed::Suspended(_)));
    }
    suspend(None).await;
    assert!(matches!(hub.custody.refresh(&tokens.secret).await.unwrap(), Refreshed::In(_)));
}

#[tokio::test]
async fn a_change_of_a_role_holds_on_the_other_hub_within_five_seconds() {
    if skipped("a_change_of_a_role_holds_on_the_other_hub_within_five_seconds") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let other = Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), hub.clock.clone());
    let set = |words: &[Permission]| WantedRole {
        name: Some(String::from("reception")),
        description: None,
        permissions: Some(words.iter().copied().collect()),
    };
    let both = [Permission::PeopleRead, Permission::EventsRead];
    let role = hub.custody.create_role(tenant, set(&both), None, "test").await.unwrap();
    let key = hub.custody.create_api_key(tenant, WantedApiKey::of("x", Grant::all_of(role)), "test").await.unwrap();
    let may = async |of: &Custody| of.recognise(&key).await.unwrap().unwrap().permissions.allow(Permission::EventsRead);
    assert!(may(&other).await && may(&hub.custody).await);
    hub.custody.change_role(tenant, "reception", set(&both[..1]), None, "test").await.unwrap();
    assert!(!may(&hub.custody).await, "where it was changed, at once");
    let begun = Instant::now();
    while may(&other).await {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nobody has it once the key has ended; until then it stays.
    let deleted = async || hub.custody.delete_role(tenant, "reception", None, "test").await.unwrap();
    assert_eq!(deleted().await, RoleDeleted::InUse(0, 1));
    hub.custody.revoke_api_key(tenant, key.id, None, "test").await.unwrap();
    assert_eq!(deleted().await, RoleDeleted::Yes);
}
