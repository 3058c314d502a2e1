//! Ids are given once: nothing that was deleted comes back, whoever asks and however late.

use cloud_hub::domain::gallery::Change;
use cloud_hub::domain::ids::{GalleryId, PersonId, TenantId};
use cloud_hub::domain::people::Profile;
use cloud_hub::keys::KeysError;
use cloud_hub::store::galleries::{self, Pending};
use cloud_hub::store::{Clash, StoreError};
use gallery_log::{Kind, RecordId};
use sqlx::{Executor as _, Row as _};

use crate::support::{TestHub, skipped, template};

async fn create(hub: &TestHub, tenant: TenantId, id: PersonId) -> Result<(), KeysError> {
    let profile = Profile { external_id: None, name: "again".to_owned(), email: None, access: Default::default() };
    hub.custody.create_person(tenant, id, profile, None, "test").await.map(drop)
}

fn is_taken(error: &KeysError) -> bool {
    matches!(error, KeysError::Store(StoreError::Clash(Clash::Other)))
}

/// An upsert of the person's own record, as an older log or a replay would have it.
async fn put(hub: &TestHub, tenant: TenantId, gallery: GalleryId, id: PersonId) -> Result<(), StoreError> {
    let keys = hub.custody.tenant_keys(tenant).await.unwrap();
    let change = Change::Put { kind: Kind::Person, id: RecordId(id.0), rev: 99, body: vec![1] };
    let pending = Pending { change, sealed: Some(vec![1]), person: None, space_id: None };
    hub.db
        .tenant(tenant, move |tx| Box::pin(async move { galleries::append(tx, &keys, &[gallery], &[pending]).await }))
        .await
}

#[tokio::test]
async fn an_id_that_was_given_is_never_given_again() {
    if skipped("an_id_that_was_given_is_never_given_again") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let tenant = place.tenant;
    let person = hub.person(tenant, "ada").await;
    hub.enrol(tenant, person, 7).await;

    let error = create(&hub, tenant, person).await.unwrap_err();
    assert!(is_taken(&error), "{error}");
    assert!(hub.custody.person_key(tenant, person).await.is_ok(), "the key of who has the id is untouched");
    hub.enrol(tenant, person, 8).await;

    hub.custody.delete_person(tenant, person, "test").await.unwrap();
    let error = create(&hub, tenant, person).await.unwrap_err();
    assert!(is_taken(&error), "{error}");
    assert!(matches!(hub.custody.person_key(tenant, person).await, Err(KeysError::NoPersonKey(_))));
    let error = hub.custody.enrol(tenant, person, None, template(9), "test").await.unwrap_err();
    assert!(matches!(error, KeysError::Store(StoreError::NotFound { what: "person", .. })), "{error}");
}

#[tokio::test]
async fn no_put_follows_a_del_in_the_log() {
    if skipped("no_put_follows_a_del_in_the_log") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let (tenant, gallery) = (place.tenant, place.link.galleries[0].gallery);
    let person = hub.person(tenant, "ada").await;
    let head = |id| hub.db.tenant(tenant, move |tx| Box::pin(galleries::get(tx, id)));
    put(&hub, tenant, gallery, person).await.unwrap();
    assert_eq!(head(gallery).await.unwrap().version, 2, "who is there may change");
    hub.custody.delete_person(tenant, person, "test").await.unwrap();
    let before = head(gallery).await.unwrap();
    let error = put(&hub, tenant, gallery, person).await.unwrap_err();
    assert!(matches!(error, StoreError::Deleted { id } if id == person.0), "{error}");
    let after = head(gallery).await.unwrap();
    assert_eq!((after.version, after.root), (before.version, before.root));

    let mut connection = hub.superuser().await;
    connection.execute("SET enable_seqscan = off").await.unwrap();
    let plan = connection
        .fetch_all(
            "EXPLAIN SELECT object_id FROM gallery_record
             WHERE tenant_id = gen_random_uuid() AND gallery_id = gen_random_uuid() AND op = 'del'
               AND object_id = ANY (ARRAY[gen_random_uuid()])",
        )
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("gallery_record_deleted")), "{plan:?}");
}
