//! Keys of access tokens as two replicas see them: rotated without anybody's notice, or at once and for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloud_hub::clock::Clock;
use cloud_hub::domain::permission::Role;
use cloud_hub::domain::token_key::Standing;
use cloud_hub::keys::{ACCESS_LIFE, Claims, Custody, Entered};
use cloud_hub::store::logins::Kind;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::support::{TestHub, skipped};

fn password() -> Zeroizing<String> {
    Zeroizing::new(String::from("correct horse battery"))
}

struct Two {
    hub: TestHub,
    tenant: cloud_hub::domain::ids::TenantId,
    now: time::OffsetDateTime,
}

impl Two {
    async fn new() -> Self {
        let hub = TestHub::start().await;
        let tenant = hub.tenant().await;
        let invited = hub.custody.create_user(tenant, "ada", Role::Owner, "test").await.unwrap();
        assert!(hub.custody.accept_invitation(&invited.token, password()).await.unwrap());
        // The database keeps microseconds: whole seconds, so that they compare.
        let now = hub.clock.now().replace_nanosecond(0).unwrap();
        Self { hub, tenant, now }
    }

    /// A replica of its own, at this time.
    fn replica(&self, seconds: i64) -> Custody {
        let then = self.now + time::Duration::seconds(seconds);
        Custody::new(self.hub.db.clone(), Arc::clone(self.hub.custody.keyring()), Clock::of(move || then))
    }

    async fn token(&self, of: &Custody) -> String {
        let Entered::In(granted) = of.log_in(self.tenant, "ada", password(), Kind::Tokens).await.unwrap() else {
            panic!("the password is right")
        };
        granted.access_token.unwrap()
    }
}

async fn is_good(at: &Custody, token: &str) -> bool {
    at.recognise_token(token).await.unwrap().is_some()
}

fn header(token: &str) -> &str {
    token.split('.').next().unwrap()
}

#[tokio::test]
async fn a_rotation_is_noticed_by_nobody_and_a_dropped_key_signs_for_nobody() {
    if skipped("a_rotation_is_noticed_by_nobody_and_a_dropped_key_signs_for_nobody") {
        return;
    }
    let two = Two::new().await;
    let (one, other) = (two.replica(0), two.replica(0));
    let before = two.token(&one).await;
    let old = other.token_keys().await.unwrap();
    assert!(is_good(&other, &before).await);
    one.rotate_token_keys(false, "test").await.unwrap();
    // Both are published, and the one before still signs: nobody is shown a token of a key that they may not know.
    let at_once = two.token(&one).await;
    assert_eq!((header(&at_once), one.token_keys().await.unwrap().public().len()), (header(&before), 2));
    let later = two.replica(5);
    let after = two.token(&later).await;
    assert_ne!(header(&after), header(&before));
    // Also where the keys were read before there was another one, as soon as it looks again: four times a second for a key that it
    // does not know.
    let begun = Instant::now();
    while !is_good(&other, &after).await {
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", header(&after));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for token in [&before, &at_once, &after] {
        assert!(is_good(&two.replica(5), token).await, "at the hub that signs with it: {}", header(token));
        assert!(is_good(&other, token).await, "where the keys were read before: {}", header(token));
    }
    // Once the last token is over, so is the key, and whoever still has it cannot use it.
    let far = two.replica(5 + ACCESS_LIFE.whole_seconds() + 30);
    let fresh = two.token(&far).await;
    assert_eq!(header(&fresh), header(&after));
    let views = far.token_key_views().await.unwrap();
    assert!(matches!(views.as_slice(), [only] if only.standing == Standing::Signs), "{views:?}");
    let seen = far.recognise_token(&fresh).await.unwrap().unwrap();
    let iat = (two.now + time::Duration::seconds(620)).unix_timestamp();
    let claims = Claims {
        iss: String::from("urn:lintel:hub"),
        aud: String::from("urn:lintel:api"),
        sub: seen.user.0,
        tenant: two.tenant.0,
        role: String::from("owner"),
        login: seen.login.0,
        jti: Uuid::new_v4(),
        iat,
        nbf: iat,
        exp: iat + 600,
    };
    assert!(is_good(&far, &far.token_keys().await.unwrap().sign(&claims)).await, "right but for the key");
    assert!(!is_good(&far, &old.sign(&claims)).await);
}

#[tokio::test]
async fn a_revoked_key_ends_everywhere_within_five_seconds_and_log_ins_go_on() {
    if skipped("a_revoked_key_ends_everywhere_within_five_seconds_and_log_ins_go_on") {
        return;
    }
    let two = Two::new().await;
    let (one, other) = (two.replica(0), two.replica(0));
    let Entered::In(granted) = one.log_in(two.tenant, "ada", password(), Kind::Tokens).await.unwrap() else {
        panic!("the password is right")
    };
    let token = granted.access_token.unwrap();
    assert!(is_good(&other, &token).await);
    let keys = one.rotate_token_keys(true, "test").await.unwrap();
    assert!(matches!(keys.as_slice(), [only] if only.standing == Standing::Signs), "{keys:?}");
    assert!(!is_good(&one, &token).await, "where it was ordered, at once");
    let begun = Instant::now();
    while is_good(&other, &token).await {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cloud_hub::keys::Refreshed::In(again) = one.refresh(&granted.secret).await.unwrap() else {
        panic!("the log-in goes on")
    };
    let token = again.access_token.unwrap();
    assert!(is_good(&one, &token).await && is_good(&other, &token).await);
}

#[tokio::test]
async fn the_key_of_a_hub_from_before_is_taken_over_and_its_file_goes() {
    if skipped("the_key_of_a_hub_from_before_is_taken_over_and_its_file_goes") {
        return;
    }
    let hub = TestHub::start().await;
    let path = hub.custody.keyring().dir().join("jwt.p8");
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let public = {
        use ring::signature::KeyPair as _;
        ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap().public_key().as_ref().to_vec()
    };
    cloud_hub::secret_file::load_or_make(&path, || {
        Ok::<_, cloud_hub::secret_file::SecretFileError>(Zeroizing::new(pkcs8.as_ref().to_vec()))
    })
    .unwrap();
    assert_eq!(hub.custody.token_keys().await.unwrap().public()[0].public, public);
    assert!(!path.exists());
}
