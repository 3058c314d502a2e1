//! Quotas: the last one fits, the next does not, and of two who come at once only one is the last.

use std::time::Duration;

use cloud_hub::domain::event::NewEvent;
use cloud_hub::domain::ids::{DeviceId, EventId, PersonId, TenantId};
use cloud_hub::domain::people::Profile;
use cloud_hub::domain::tenant::{Agreement, Overrides, Resource, Tier};
use cloud_hub::keys::KeysError;
use cloud_hub::store::{StoreError, devices, events, tenants};
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::event::{EventData, PersonDeletedData};

use crate::support::{TestHub, skipped, template};

async fn allow(hub: &TestHub, tenant: TenantId, resource: Resource, quota: u64) {
    let quotas = Overrides::default().with(resource, Some(Some(quota)));
    let agreement = Agreement { quotas, ..Agreement::of(Tier::Basic) };
    hub.db.tenant(tenant, move |tx| Box::pin(async move { tenants::agree(tx, &agreement).await })).await.unwrap();
}

async fn used(hub: &TestHub, tenant: TenantId, resource: Resource) -> u64 {
    hub.db.tenant(tenant, move |tx| Box::pin(tenants::count(tx, resource))).await.unwrap()
}

fn profile(name: &str) -> Profile {
    Profile { external_id: Some(name.to_owned()), name: name.to_owned(), email: None, access: Default::default() }
}

#[tokio::test]
async fn a_tenant_has_no_more_people_than_it_may_have() {
    if skipped("a_tenant_has_no_more_people_than_it_may_have") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    allow(&hub, tenant, Resource::People, 3).await;
    // Twelve at once for three places.
    let made = (0..12).map(|number| {
        let custody = hub.custody.clone();
        tokio::spawn(async move {
            let name = format!("person {number}");
            custody.create_person(tenant, PersonId(Uuid::new_v4()), profile(&name), None, "test").await
        })
    });
    let mut refused = 0;
    for made in made.collect::<Vec<_>>() {
        match made.await.unwrap() {
            Ok(_) => {}
            Err(KeysError::Store(StoreError::QuotaReached { what: "people", quota: 3 })) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((refused, used(&hub, tenant, Resource::People).await), (9, 3));
    // Nobody keeps a key who has no row.
    assert_eq!(hub.custody.find_missing_keys(tenant).await.unwrap(), 0);
    // A place that becomes free is somebody else's.
    let kept = hub.db.tenant(tenant, |tx| Box::pin(cloud_hub::store::people::page(tx, None, 10))).await.unwrap();
    hub.custody.delete_person(tenant, kept[0].id, "test").await.unwrap();
    hub.person(tenant, "the next").await;
    // A quota that is lowered takes nothing away.
    allow(&hub, tenant, Resource::People, 1).await;
    assert_eq!(used(&hub, tenant, Resource::People).await, 3);
    let more = hub.custody.create_person(tenant, PersonId(Uuid::new_v4()), profile("more"), None, "test").await;
    assert!(matches!(more, Err(KeysError::Store(StoreError::QuotaReached { .. }))));
}

#[tokio::test]
async fn templates_and_devices_have_quotas_too() {
    if skipped("templates_and_devices_have_quotas_too") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let (site, person) = (hub.site(tenant, "site").await, hub.person(tenant, "somebody").await);
    allow(&hub, tenant, Resource::Templates, 1).await;
    hub.enrol(tenant, person, 0).await;
    let second = hub.custody.enrol(tenant, person, None, template(1), "test").await;
    assert!(matches!(second, Err(KeysError::Store(StoreError::QuotaReached { what: "templates", quota: 1 }))));
    allow(&hub, tenant, Resource::Devices, 0).await;
    let refused = hub.db.tenant(tenant, |tx| Box::pin(tenants::admit(tx, Resource::Devices))).await;
    assert!(matches!(refused, Err(StoreError::QuotaReached { what: "devices", quota: 0 })));
    // A revoked device gives its place back.
    allow(&hub, tenant, Resource::Devices, 1).await;
    let device = hub.device(tenant, site).await;
    let admitted = || hub.db.tenant(tenant, |tx| Box::pin(tenants::admit(tx, Resource::Devices)));
    assert!(admitted().await.is_err());
    hub.db.tenant(tenant, move |tx| Box::pin(async move { devices::revoke(tx, device).await })).await.unwrap();
    admitted().await.unwrap();
}

#[tokio::test]
async fn storage_is_what_people_and_events_take_and_events_come_in_whatever_its_quota() {
    if skipped("storage_is_what_people_and_events_take_and_events_come_in_whatever_its_quota") {
        return;
    }
    let hub = TestHub::start().await;
    let (tenant, neighbour) = (hub.tenant().await, hub.tenant().await);
    let storage = || used(&hub, tenant, Resource::Storage);
    let mut before = storage().await;
    let mut grown = async || {
        let now = storage().await;
        now - std::mem::replace(&mut before, now)
    };
    let person = hub.person(tenant, "somebody").await;
    assert!(grown().await > 0, "their name is sealed");
    hub.enrol(tenant, person, 0).await;
    assert!(grown().await > 512 * 4, "a template has 512 numbers");
    let event = || {
        let gone = PersonDeletedData { person: wire_contract::PersonId(Uuid::new_v4()) };
        let data = EventData::PersonDeleted(gone);
        NewEvent::from_hub(EventId(Uuid::new_v4()), None, OffsetDateTime::UNIX_EPOCH, &data)
    };
    let append = async || {
        let event = event();
        let bytes = event.body.len() as u64;
        let at = OffsetDateTime::UNIX_EPOCH;
        hub.db.tenant(tenant, move |tx| Box::pin(async move { events::append(tx, &[event], at).await })).await.unwrap();
        bytes
    };
    assert_eq!(append().await, grown().await);
    // All of it is used: nothing new of any kind, but what doors say.
    allow(&hub, tenant, Resource::Storage, storage().await).await;
    for resource in [Resource::People, Resource::Templates, Resource::Devices, Resource::Sessions] {
        let refused = hub.db.tenant(tenant, move |tx| Box::pin(tenants::admit(tx, resource))).await;
        assert!(matches!(refused, Err(StoreError::QuotaReached { what: "bytes of storage", .. })), "{refused:?}");
    }
    assert_eq!(append().await, grown().await);
    // Somebody who goes makes room.
    hub.custody.delete_person(tenant, person, "test").await.unwrap();
    hub.person(tenant, "the next").await;
    assert!(used(&hub, neighbour, Resource::Storage).await < storage().await, "each tenant's is its own");
}

/// What the quota's lock is for, without luck: the first has its place and has not committed when the second asks.
#[tokio::test]
async fn whoever_comes_second_counts_the_first() {
    if skipped("whoever_comes_second_counts_the_first") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let site = hub.site(tenant, "site").await;
    allow(&hub, tenant, Resource::Devices, 1).await;
    let db = hub.db.clone();
    let second = hub.db.tenant(tenant, move |tx| {
        Box::pin(async move {
            tenants::admit(tx, Resource::Devices).await?;
            devices::create(tx, DeviceId(Uuid::new_v4()), site, "the first").await?;
            let second =
                tokio::spawn(
                    async move { db.tenant(tenant, |tx| Box::pin(tenants::admit(tx, Resource::Devices))).await },
                );
            // Long enough for it to be let in, if nothing made it wait.
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<_, StoreError>(second)
        })
    });
    let second = second.await.unwrap().await.unwrap();
    assert!(matches!(second, Err(StoreError::QuotaReached { what: "devices", quota: 1 })), "{second:?}");
}
