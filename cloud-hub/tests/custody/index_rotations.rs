//! Another index key in the place of a tenant's, with two hubs of which one hears of it later: everybody is found, nobody is there
//! twice, and nothing is under the old key at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloud_hub::domain::idempotency::Key;
use cloud_hub::domain::ids::{PersonId, TenantId};
use cloud_hub::domain::people::Profile;
use cloud_hub::domain::permission::Role;
use cloud_hub::keys::{Claim, Custody, Entered, Keyring, KeysError, Progress};
use cloud_hub::store::logins::Kind;
use cloud_hub::store::{Clash, StoreError};
use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::support::{TestHub, skipped};

/// Two hubs with one database and one store of people's keys.
struct Two {
    hub: TestHub,
    one: Custody,
    other: Custody,
    tenant: TenantId,
    superuser: PgConnection,
}

/// A hub of its own, which remembers nothing.
fn replica(hub: &TestHub) -> Custody {
    let folder = hub.dir.path().join("persons");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("person-keys.v1"), b"").unwrap();
    let keyring = Keyring::open_with(&hub.dir.path().join("keys"), Some(&folder)).unwrap();
    Custody::new(hub.db.clone(), Arc::new(keyring), hub.clock.clone())
}

impl Two {
    async fn start() -> Self {
        let hub = TestHub::start().await;
        let (tenant, superuser) = (hub.tenant().await, hub.superuser().await);
        let (one, other) = (replica(&hub), replica(&hub));
        Self { hub, one, other, tenant, superuser }
    }

    /// Begins at one hub, while the other believes for two seconds that there is one key.
    async fn begin(&mut self) {
        self.other.tenant_keys(self.tenant).await.unwrap();
        self.one.rotate_index_key(self.tenant, "test").await.unwrap();
    }

    async fn older(&mut self, seconds: i32) {
        sqlx::query(
            "UPDATE tenant_secret SET created_at = created_at - make_interval(secs => $1),
                 ended_at = ended_at - make_interval(secs => $1) WHERE kind = 'bi'",
        )
        .bind(f64::from(seconds))
        .execute(&mut self.superuser)
        .await
        .unwrap();
    }

    async fn go_on(&self) -> Progress {
        loop {
            match self.one.go_on_with_index_key(self.tenant).await.unwrap() {
                Progress::Resealed(_) => {}
                other => return other,
            }
        }
    }

    /// All the way, as time goes by.
    async fn until_it_ends(&mut self) {
        self.older(15).await;
        assert_eq!(self.go_on().await, Progress::Waits);
        self.older(60).await;
        assert_eq!(self.go_on().await, Progress::Waits);
        self.older(60).await;
        assert_eq!(self.go_on().await, Progress::Done);
    }

    async fn states(&self) -> Vec<(u32, &'static str, Option<u64>)> {
        let views = self.one.index_key_views(self.tenant).await.unwrap();
        views.iter().map(|view| (view.version, view.state, view.left)).collect()
    }

    async fn count(&mut self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&mut self.superuser).await.unwrap()
    }
}

fn profile(name: &str) -> Profile {
    Profile {
        external_id: Some(name.to_owned()),
        name: name.to_owned(),
        email: Some(format!("{name}@example.org")),
        access: Default::default(),
    }
}

/// Makes a person; false if there is one of that name.
async fn make(at: &Custody, tenant: TenantId, name: &str) -> bool {
    match at.create_person(tenant, PersonId(Uuid::new_v4()), profile(name), None, "test").await {
        Ok(_) => true,
        Err(KeysError::Store(StoreError::Clash(Clash::ExternalId))) => false,
        Err(error) => panic!("{name}: {error}"),
    }
}

async fn is_found(at: &Custody, tenant: TenantId, name: &str) -> bool {
    at.person_with(tenant, name.to_owned()).await.unwrap().is_some_and(|(_, profile)| profile.name == name)
}

fn password() -> Zeroizing<String> {
    Zeroizing::new(String::from("correct horse battery"))
}

async fn claim(at: &Custody, tenant: TenantId, key: &str) -> Claim {
    let key = Key::parse([key.as_bytes()].into_iter()).unwrap();
    at.claim_key(tenant, "api_key:x", &key, "digest").await.unwrap()
}

#[tokio::test]
async fn everybody_is_found_and_nobody_is_there_twice_whichever_hub_has_heard_of_the_new_key() {
    if skipped("everybody_is_found_and_nobody_is_there_twice_whichever_hub_has_heard_of_the_new_key") {
        return;
    }
    let mut two = Two::start().await;
    let tenant = two.tenant;
    assert!(make(&two.one, tenant, "before").await);
    let invited = two.one.create_user(tenant, "ada", Role::Owner, "test").await.unwrap();
    assert!(two.one.accept_invitation(&invited.token, password()).await.unwrap());
    let group = two.one.tenant_keys(tenant).await.unwrap().group("staff");

    two.begin().await;
    // The other has not heard of it: what it makes is known by the old key, and it knows what is made under both.
    assert!(make(&two.other, tenant, "by-the-other").await && !make(&two.one, tenant, "by-the-other").await);
    assert!(make(&two.one, tenant, "by-the-one").await && !make(&two.other, tenant, "by-the-one").await);
    let names = ["before", "by-the-other", "by-the-one"];
    for name in names {
        assert!(is_found(&two.one, tenant, name).await && is_found(&two.other, tenant, name).await, "{name}");
    }
    assert_eq!(two.states().await, [(2, "in use", None), (1, "looked under", Some(3))]);
    two.one.rotate_index_key(tenant, "test").await.unwrap();
    assert_eq!(two.states().await.len(), 2, "it is under way");

    for (seconds, then) in [(15, Progress::Waits), (60, Progress::Waits), (60, Progress::Done)] {
        two.older(seconds).await;
        assert_eq!(two.go_on().await, then);
        // A hub of before is one that has heard of it by now.
        two.other = replica(&two.hub);
        for name in names {
            assert!(is_found(&two.one, tenant, name).await && is_found(&two.other, tenant, name).await, "{name}");
            assert!(!make(&two.one, tenant, name).await && !make(&two.other, tenant, name).await, "{name}");
        }
        let entered = two.other.log_in(tenant, "ada", password(), Kind::Tokens).await.unwrap();
        assert!(matches!(entered, Entered::In(_)));
    }
    assert_eq!(two.states().await, [(2, "in use", None)]);
    assert_eq!(two.one.tenant_keys(tenant).await.unwrap().group("staff"), group, "doors know it still");
    let old = "SELECT count(*) FROM person WHERE external_id_index IS NOT NULL OR email_index IS NOT NULL";
    assert_eq!(two.count(old).await, 0);
    assert_eq!(two.count("SELECT count(*) FROM app_user WHERE login_index IS NOT NULL").await, 0);
    let told: Vec<String> = sqlx::query_scalar(
        "SELECT action FROM audit_entry WHERE tenant_id = $1 AND action LIKE 'tenant.index%' ORDER BY at, id",
    )
    .bind(tenant.0)
    .fetch_all(&mut two.superuser)
    .await
    .unwrap();
    assert_eq!(told, ["tenant.index_key_rotate", "tenant.index_key_retire"]);
    // And once more, into the columns that are empty now.
    two.one.rotate_index_key(tenant, "test").await.unwrap();
    two.until_it_ends().await;
    assert_eq!(two.states().await, [(3, "in use", None)]);
    for name in names {
        assert!(is_found(&two.one, tenant, name).await && !make(&two.one, tenant, name).await, "{name}");
    }
    assert_eq!(two.count("SELECT count(*) FROM person WHERE email_index_even IS NOT NULL").await, 0);
}

#[tokio::test]
async fn two_hubs_that_make_people_all_the_while_and_one_that_is_started_anew_make_each_once() {
    if skipped("two_hubs_that_make_people_all_the_while_and_one_that_is_started_anew_make_each_once") {
        return;
    }
    let mut two = Two::start().await;
    let tenant = two.tenant;
    let stop = Arc::new(AtomicBool::new(false));
    let (one, other, ended) = (two.one.clone(), replica(&two.hub), Arc::clone(&stop));
    let work = tokio::spawn(async move {
        let mut names = Vec::new();
        while !ended.load(Ordering::Relaxed) || names.len() < 20 {
            let name = format!("person-{}", names.len());
            let made = tokio::join!(make(&one, tenant, &name), make(&other, tenant, &name));
            assert!(made.0 != made.1, "{name}: {made:?}");
            assert!(is_found(&one, tenant, &name).await && is_found(&other, tenant, &name).await, "{name}");
            names.push(name);
        }
        names
    });
    two.begin().await;
    // Neither hub believes any more that there is one key alone, except where it is told so above.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    two.older(12).await;
    assert!(matches!(two.one.go_on_with_index_key(tenant).await.unwrap(), Progress::Resealed(_) | Progress::Waits));
    // The job's hub is gone; another one goes on.
    two.one = replica(&two.hub);
    two.older(60).await;
    assert_eq!(two.go_on().await, Progress::Waits);
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    two.one = replica(&two.hub);
    two.older(60).await;
    assert_eq!(two.go_on().await, Progress::Done);
    stop.store(true, Ordering::Relaxed);
    let names = work.await.unwrap();
    let fresh = replica(&two.hub);
    for name in &names {
        assert!(is_found(&fresh, tenant, name).await && !make(&fresh, tenant, name).await, "{name}");
    }
    assert_eq!(two.count("SELECT count(*) FROM person").await, i64::try_from(names.len()).unwrap());
}

#[tokio::test]
async fn an_index_key_does_not_go_while_somebody_could_be_found_by_it_alone() {
    if skipped("an_index_key_does_not_go_while_somebody_could_be_found_by_it_alone") {
        return;
    }
    let mut two = Two::start().await;
    let tenant = two.tenant;
    assert!(make(&two.one, tenant, "ada").await && make(&two.one, tenant, "bob").await);
    // Their key is away: what is to be marked cannot be read.
    let (ada, _) = two.one.person_with(tenant, "ada".to_owned()).await.unwrap().unwrap();
    let file = two.hub.dir.path().join(format!("persons/{tenant}/{}.key", ada.id));
    let key = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    two.begin().await;
    two.older(120).await;
    assert_eq!(two.go_on().await, Progress::Waits);
    two.older(120).await;
    assert_eq!(two.go_on().await, Progress::Waits);
    assert_eq!(two.states().await, [(2, "in use", None), (1, "looked under", Some(1))]);
    assert!(!make(&two.one, tenant, "ada").await, "there is one");
    // It is back, and everything goes on.
    std::fs::write(&file, key).unwrap();
    assert_eq!(two.one.find_missing_keys(tenant).await.unwrap(), 1);
    assert_eq!(two.go_on().await, Progress::Waits);
    two.older(60).await;
    assert_eq!(two.go_on().await, Progress::Done);
    assert!(is_found(&two.one, tenant, "ada").await && is_found(&two.one, tenant, "bob").await);
}

#[tokio::test]
async fn a_request_is_carried_out_once_and_a_name_stays_locked_while_the_index_key_is_replaced() {
    if skipped("a_request_is_carried_out_once_and_a_name_stays_locked_while_the_index_key_is_replaced") {
        return;
    }
    let mut two = Two::start().await;
    let tenant = two.tenant;
    for _ in 0..5 {
        let wrong = Zeroizing::new(String::from("wrong horse battery"));
        two.one.log_in(tenant, "nobody", wrong, Kind::Tokens).await.unwrap();
    }
    assert!(matches!(claim(&two.one, tenant, "before").await, Claim::CarryOut(_)));
    two.begin().await;
    assert!(matches!(claim(&two.other, tenant, "by-the-other").await, Claim::CarryOut(_)));
    // One that has read of it just now claims under the new key, and one that has read of it before under the old one.
    let late = two.one.clone();
    late.tenant_keys(tenant).await.unwrap();
    two.older(15).await;
    two.one = replica(&two.hub);
    assert!(matches!(claim(&two.one, tenant, "new").await, Claim::CarryOut(_)));
    for key in ["before", "by-the-other"] {
        assert!(matches!(claim(&two.one, tenant, key).await, Claim::UnderWay), "{key}");
    }
    for (number, (first, second)) in [(&two.one, &late), (&late, &two.one)].into_iter().cycle().take(20).enumerate() {
        let key = format!("at-once-{number}");
        let claims = tokio::join!(claim(first, tenant, &key), claim(second, tenant, &key));
        let carried_out = [&claims.0, &claims.1].into_iter().filter(|claim| matches!(claim, Claim::CarryOut(_)));
        assert_eq!(carried_out.count(), 1, "{key}");
    }
    let entered = two.one.log_in(tenant, "nobody", password(), Kind::Tokens).await.unwrap();
    assert!(matches!(entered, Entered::Locked(_)), "another key is no fresh start");
    two.older(60).await;
    assert_eq!(two.go_on().await, Progress::Waits);
    let left = two.states().await[1].2.unwrap();
    assert!(left >= 2, "two requests and a name: {left}");
    assert_eq!(two.states().await[1].1, "looked under");
    // A day later.
    sqlx::query("DELETE FROM idempotency_key WHERE index_version = 1").execute(&mut two.superuser).await.unwrap();
    sqlx::query("UPDATE login_attempt SET last_at = last_at - interval '2 days', locked_until = NULL")
        .execute(&mut two.superuser)
        .await
        .unwrap();
    assert_eq!(two.go_on().await, Progress::Waits);
    two.older(60).await;
    assert_eq!(two.go_on().await, Progress::Done);
    assert!(matches!(claim(&two.one, tenant, "new").await, Claim::UnderWay));
}

#[tokio::test]
async fn a_tenant_of_before_keeps_its_groups() {
    if skipped("a_tenant_of_before_keeps_its_groups") {
        return;
    }
    let mut two = Two::start().await;
    let tenant = two.tenant;
    // It has no key for groups: they are known by its index key.
    sqlx::query("DELETE FROM tenant_secret WHERE kind = 'gi'").execute(&mut two.superuser).await.unwrap();
    two.one = replica(&two.hub);
    let group = two.one.tenant_keys(tenant).await.unwrap().group("staff");
    two.one.rotate_index_key(tenant, "test").await.unwrap();
    two.until_it_ends().await;
    let fresh = replica(&two.hub);
    assert_eq!(fresh.tenant_keys(tenant).await.unwrap().group("staff"), group);
}
