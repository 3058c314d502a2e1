//! Second factors: a code is good once, whoever shows it and however many do at once; and what counts as a failure.

use std::sync::Arc;

use cloud_hub::clock::Clock;
use cloud_hub::domain::ids::TenantId;
use cloud_hub::domain::permission::Role;
use cloud_hub::keys::{Beginning, Confirmed, Custody, Entered, LoggedIn, PasswordChange, Proof, Removed};
use cloud_hub::store::logins::Kind;
use data_encoding::BASE32_NOPAD;
use ring::hmac;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::support::{TestHub, skipped};

const PASSWORD: &str = "correct horse battery";

fn password() -> Zeroizing<String> {
    Zeroizing::new(String::from(PASSWORD))
}

/// As an app makes it of what it was shown.
fn code(secret: &str, step: i64) -> String {
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret), &step.to_be_bytes());
    let at = usize::from(tag.as_ref()[19] & 15);
    let word = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

struct Ada {
    hub: TestHub,
    tenant: TenantId,
    now: OffsetDateTime,
    secret: String,
    recovery: Vec<Zeroizing<String>>,
    session: LoggedIn,
}

impl Ada {
    /// Ada, with a second factor that she confirmed in the first second of a step.
    async fn new() -> Self {
        let hub = TestHub::start().await;
        let tenant = hub.tenant().await;
        let invited = hub.custody.create_user(tenant, "ada", Role::Owner, "test").await.unwrap();
        assert!(hub.custody.accept_invitation(&invited.token, password()).await.unwrap());
        let seconds = hub.clock.now().unix_timestamp();
        let now = OffsetDateTime::from_unix_timestamp(seconds - seconds % 30).unwrap();
        let first = at(&hub, now, 0);
        let Entered::In(granted) = first.log_in(tenant, "ada", password(), Kind::Cookie).await.unwrap() else {
            panic!("no second factor yet")
        };
        let session = first.recognise_cookie(&granted.secret).await.unwrap().unwrap();
        let wrong = first.begin_totp(session, Zeroizing::new(String::from("something else!"))).await.unwrap();
        assert!(matches!(wrong, Beginning::WrongPassword));
        let Beginning::Begun(begun) = first.begin_totp(session, password()).await.unwrap() else {
            panic!("there is none yet")
        };
        let secret = begun.secret.to_string();
        let step = now.unix_timestamp() / 30;
        assert!(matches!(first.confirm_totp(session, &code(&secret, step + 3)).await.unwrap(), Confirmed::Wrong));
        let Confirmed::Yes(recovery) = first.confirm_totp(session, &code(&secret, step)).await.unwrap() else {
            panic!("a code of now")
        };
        assert!(matches!(first.begin_totp(session, password()).await.unwrap(), Beginning::There));
        Self { hub, tenant, now, secret, recovery, session }
    }

    fn code(&self, steps: i64) -> String {
        code(&self.secret, self.now.unix_timestamp() / 30 + steps)
    }

    fn at(&self, seconds: i64) -> Custody {
        at(&self.hub, self.now, seconds)
    }

    async fn log_in(&self, seconds: i64, shown: Option<&str>) -> Entered {
        let code = shown.map(|code| Zeroizing::new(code.to_owned()));
        let proof = Proof { password: password(), code };
        self.at(seconds).log_in(self.tenant, "ada", proof, Kind::Tokens).await.unwrap()
    }
}

fn at(hub: &TestHub, now: OffsetDateTime, seconds: i64) -> Custody {
    let then = now + time::Duration::seconds(seconds);
    Custody::new(hub.db.clone(), Arc::clone(hub.custody.keyring()), Clock::of(move || then))
}

#[tokio::test]
async fn a_code_opens_one_log_in_however_many_show_it_at_once() {
    if skipped("a_code_opens_one_log_in_however_many_show_it_at_once") {
        return;
    }
    let ada = Ada::new().await;
    assert!(matches!(ada.log_in(1, None).await, Entered::CodeNeeded { shown: false }));
    assert!(matches!(ada.log_in(1, Some(&ada.code(0))).await, Entered::CodeNeeded { shown: true }), "it was used");
    let good = ada.code(1);
    let tries = futures::future::join_all((0..3).map(|_| ada.log_in(31, Some(&good)))).await;
    let let_in = tries.iter().filter(|one| matches!(one, Entered::In(_))).count();
    assert_eq!(let_in, 1);
    // Within its window, and one before it: not again.
    for steps in [1, 0] {
        assert!(matches!(ada.log_in(45, Some(&ada.code(steps))).await, Entered::CodeNeeded { shown: true }));
    }
    // A step early, as a fast clock shows it; then a recovery code, once, however it is written.
    assert!(matches!(ada.log_in(45, Some(&ada.code(2))).await, Entered::In(_)));
    let recovery = ada.recovery[3].to_uppercase().replace('-', " ");
    assert!(matches!(ada.log_in(46, Some(&recovery)).await, Entered::In(_)));
    assert!(matches!(ada.log_in(46, Some(&ada.recovery[3])).await, Entered::CodeNeeded { shown: true }));
    assert_eq!(ada.hub.custody.totp(ada.tenant, ada.session.user).await.unwrap(), Some(9));
}

#[tokio::test]
async fn wrong_codes_lock_the_name_and_the_password_alone_forgives_none() {
    if skipped("wrong_codes_lock_the_name_and_the_password_alone_forgives_none") {
        return;
    }
    let ada = Ada::new().await;
    for seconds in [61, 62] {
        assert!(matches!(ada.log_in(seconds, Some(&ada.code(9))).await, Entered::CodeNeeded { shown: true }));
        assert!(matches!(ada.log_in(seconds, None).await, Entered::CodeNeeded { shown: false }));
    }
    assert!(matches!(ada.log_in(63, Some("nonsense")).await, Entered::CodeNeeded { shown: true }));
    assert!(matches!(ada.log_in(64, Some(&ada.code(2))).await, Entered::Locked(_)), "not even the right one");
    // After its time the right one opens, and forgives.
    assert!(matches!(ada.log_in(140, Some(&ada.code(4))).await, Entered::In(_)));
    // Another password is chosen with the one before alone: it is no failure, and forgives none either.
    for _ in 0..6 {
        let changed = ada.at(140).change_password(ada.session, password(), password()).await.unwrap();
        assert_eq!(changed, PasswordChange::Done);
    }
    for seconds in 141..145 {
        assert!(matches!(ada.log_in(seconds, Some("nonsense")).await, Entered::CodeNeeded { shown: true }));
    }
    let changed = ada.at(145).change_password(ada.session, password(), password()).await.unwrap();
    assert_eq!(changed, PasswordChange::Done);
    assert!(matches!(ada.log_in(146, Some("nonsense")).await, Entered::CodeNeeded { shown: true }));
    assert!(matches!(ada.log_in(147, Some(&ada.code(4))).await, Entered::Locked(_)), "the fifth counted");
    // Once the lock has ended, the right password leads to no longer one.
    for _ in 0..2 {
        let changed = ada.at(210).change_password(ada.session, password(), password()).await.unwrap();
        assert_eq!(changed, PasswordChange::Done);
    }
    let ada = Ada::new().await;
    // Being without it takes both, each counted.
    let remove = async |seconds, typed: &str, code: String| {
        let (typed, code) = (Zeroizing::new(typed.to_owned()), Zeroizing::new(code));
        ada.at(seconds).remove_totp(ada.session, typed, code).await.unwrap()
    };
    assert_eq!(remove(150, "something else!", ada.code(5)).await, Removed::WrongPassword);
    assert_eq!(remove(151, PASSWORD, ada.code(9)).await, Removed::WrongCode);
    assert_eq!(remove(152, PASSWORD, ada.code(5)).await, Removed::Yes);
    assert_eq!(remove(153, PASSWORD, ada.code(6)).await, Removed::NotThere);
    assert!(matches!(ada.log_in(154, None).await, Entered::In(_)));
}
