//! Other digest keys in the places of those of galleries: the entries and the version stay, every leaf is another, and a gallery that cannot
//! be opened is left alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloud_hub::domain::gallery::log_id;
use cloud_hub::domain::ids::{GalleryId, PersonId, SiteId, TenantId};
use cloud_hub::domain::people::Profile;
use cloud_hub::keys::{Opener, Rekeyed};
use cloud_hub::store::galleries::{self, StoredRecord};
use gallery_log::{Digest, DigestKey, Leaf};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::support::{TestHub, skipped};

pub(super) async fn gallery(hub: &TestHub, tenant: TenantId, id: GalleryId) -> galleries::Gallery {
    hub.db.tenant(tenant, move |tx| Box::pin(galleries::get(tx, id))).await.unwrap()
}

/// Every live entry, with the body that a device gets.
pub(super) async fn live(hub: &TestHub, tenant: TenantId, id: GalleryId, epoch: u32) -> Vec<(StoredRecord, Vec<u8>)> {
    let keys = hub.custody.tenant_keys(tenant).await.unwrap();
    let all: BTreeSet<u8> = (0..=u8::MAX).collect();
    let records =
        hub.db.tenant(tenant, move |tx| Box::pin(async move { galleries::live_in(tx, id, epoch, &all).await }));
    let records = records.await.unwrap();
    let keyring = Arc::clone(hub.custody.keyring());
    let mut opener = Opener::new(&keyring, &keys);
    records.into_iter().map(|record| (record.clone(), opener.body(&record).unwrap())).collect()
}

/// All that the database has of a gallery, as one number.
async fn print_of(superuser: &mut PgConnection, gallery: GalleryId) -> String {
    sqlx::query_scalar(
        "SELECT md5(concat(
             (SELECT string_agg(g::text, ',') FROM gallery g WHERE id = $1),
             (SELECT string_agg(l::text, ',' ORDER BY bucket, object_id) FROM gallery_leaf l WHERE gallery_id = $1),
             (SELECT string_agg(r::text, ',' ORDER BY epoch, version) FROM gallery_record r WHERE gallery_id = $1),
             (SELECT string_agg(v::text, ',' ORDER BY epoch, version) FROM gallery_version v WHERE gallery_id = $1)))",
    )
    .bind(gallery.0)
    .fetch_one(superuser)
    .await
    .unwrap()
}

async fn count(superuser: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(superuser).await.unwrap()
}

#[tokio::test]
async fn every_leaf_follows_from_the_new_key_and_nothing_of_the_epoch_before_is_left() {
    if skipped("every_leaf_follows_from_the_new_key_and_nothing_of_the_epoch_before_is_left") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let (tenant, id) = (place.tenant, place.link.galleries[0].gallery);
    let mut people = Vec::new();
    for axis in 0..30 {
        let person = hub.person(tenant, &format!("{axis}")).await;
        hub.enrol(tenant, person, axis).await;
        people.push(person);
    }
    hub.custody.delete_person(tenant, people[7], "test").await.unwrap();
    let before = gallery(&hub, tenant, id).await;
    let bodies = |live: Vec<(StoredRecord, Vec<u8>)>| {
        live.into_iter().map(|(record, body)| (record.id, record.version, record.rev, body)).collect::<Vec<_>>()
    };
    let entries = bodies(live(&hub, tenant, id, 1).await);
    assert_eq!(entries.len(), 58);

    let told = hub.custody.rotate_gallery_keys(tenant, "test").await.unwrap();
    assert_eq!(told, [Rekeyed { gallery: id, epoch: 2, unopened: 0 }]);
    let held = gallery(&hub, tenant, id).await;
    assert_eq!((held.epoch, held.version, held.compacted_to), (2, before.version, before.version));
    let link = hub.custody.link(tenant, place.device).await.unwrap();
    let (old, new) = (&place.link.galleries[0], &link.galleries[0]);
    assert_eq!(new.epoch, 2);
    assert!(*new.gdk != *old.gdk && *new.ck != *old.ck, "both are others");

    let after = live(&hub, tenant, id, 2).await;
    let (gdk, mut digest) = (DigestKey::new(*new.gdk), Digest::new(log_id(id), 2));
    for (record, body) in &after {
        let leaf = Leaf::of(&gdk, record.kind, record.id, record.rev, body);
        assert_eq!(record.leaf, Some(leaf), "the log says the leaf that a device has");
        digest.put(record.id, leaf);
    }
    assert_eq!(held.root, digest.root());
    assert_eq!(bodies(after), entries, "what is in it has not changed");
    let buckets = hub.db.tenant(tenant, move |tx| Box::pin(galleries::hold(tx, id))).await.unwrap();
    assert_eq!(*buckets.buckets, digest.buckets());
    let mut superuser = hub.superuser().await;
    let leaves = "SELECT count(*) FROM gallery_leaf l JOIN gallery_record r USING (tenant_id, gallery_id, object_id, revision, leaf)";
    assert_eq!(count(&mut superuser, leaves).await, 58, "and so does the present state");
    for table in
        ["SELECT count(*) FROM gallery_record WHERE epoch = 1", "SELECT count(*) FROM gallery_version WHERE epoch = 1"]
    {
        assert_eq!(count(&mut superuser, table).await, 0, "{table}");
    }
    let audited =
        "SELECT count(*) FROM audit_entry WHERE action = 'gallery.key_rotate' AND (detail->>'epoch')::int = 2";
    assert_eq!(count(&mut superuser, audited).await, 1);

    // It goes on, and a second time.
    hub.custody.delete_person(tenant, people[8], "test").await.unwrap();
    let late = hub.person(tenant, "late").await;
    hub.enrol(tenant, late, 50).await;
    let told = hub.custody.rotate_gallery_keys(tenant, "test").await.unwrap();
    assert_eq!(told, [Rekeyed { gallery: id, epoch: 3, unopened: 0 }]);
    assert_eq!(live(&hub, tenant, id, 3).await.len(), 58);
    let again = hub.custody.create_person(tenant, people[8], profile("again"), None, "test").await;
    assert!(again.is_err(), "who was deleted in an epoch that is over is deleted");
}

fn profile(name: &str) -> Profile {
    Profile { external_id: None, name: name.to_owned(), email: None, access: Default::default() }
}

async fn person_of(hub: &TestHub, tenant: TenantId, site: SiteId, axis: usize) -> PersonId {
    let id = PersonId(Uuid::new_v4());
    hub.custody.create_person(tenant, id, profile("somebody"), Some(vec![site]), "test").await.unwrap();
    hub.enrol(tenant, id, axis).await;
    id
}

#[tokio::test]
async fn a_gallery_of_which_an_entry_cannot_be_opened_is_left_as_it_was_and_others_are_not() {
    if skipped("a_gallery_of_which_an_entry_cannot_be_opened_is_left_as_it_was_and_others_are_not") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let (one, other) = (hub.site(tenant, "one").await, hub.site(tenant, "other").await);
    let lost = person_of(&hub, tenant, one, 1).await;
    person_of(&hub, tenant, one, 2).await;
    person_of(&hub, tenant, other, 3).await;
    let of = |site: SiteId| {
        let db = hub.db.clone();
        async move {
            let found =
                db.tenant(tenant, move |tx| Box::pin(async move { galleries::of_sites(tx, Some(&[site])).await }));
            found.await.unwrap()[0]
        }
    };
    let (one, other) = (of(one).await, of(other).await);
    let mut superuser = hub.superuser().await;
    let before = print_of(&mut superuser, one).await;
    hub.custody.key_missing(tenant, lost).await.unwrap();

    let mut told = hub.custody.rotate_gallery_keys(tenant, "test").await.unwrap();
    told.sort_by_key(|rekeyed| rekeyed.gallery != one);
    let expected = [Rekeyed { gallery: one, epoch: 1, unopened: 2 }, Rekeyed { gallery: other, epoch: 2, unopened: 0 }];
    assert_eq!(told, expected);
    assert_eq!(print_of(&mut superuser, one).await, before, "nothing of it has changed");

    // With the key there again it follows.
    assert_eq!(hub.custody.find_missing_keys(tenant).await.unwrap(), 1);
    let told = hub.custody.rotate_gallery_keys(tenant, "test").await.unwrap();
    assert!(told.contains(&Rekeyed { gallery: one, epoch: 2, unopened: 0 }), "{told:?}");
}

#[tokio::test]
async fn a_hub_without_a_persons_key_rotates_nothing() {
    if skipped("a_hub_without_a_persons_key_rotates_nothing") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let (tenant, id) = (place.tenant, place.link.galleries[0].gallery);
    let ada = hub.person(tenant, "ada").await;
    hub.enrol(tenant, ada, 1).await;
    let mut superuser = hub.superuser().await;
    let before = print_of(&mut superuser, id).await;
    // Nobody has noted yet that her key is missing.
    let without = crate::support::keys_without_people(&hub);
    let hub_of_a_backup = cloud_hub::keys::Custody::new(hub.db.clone(), without, hub.clock.clone());
    let told = hub_of_a_backup.rotate_gallery_keys(tenant, "test").await.unwrap();
    assert_eq!(told, [Rekeyed { gallery: id, epoch: 1, unopened: 2 }]);
    assert_eq!(print_of(&mut superuser, id).await, before);
}
