//! Negative anchors in the store: sealed under the person's key, in every gallery of theirs, gone with them.

use cloud_hub::domain::anchor::{MOST, Objection};
use cloud_hub::domain::ids::{AnchorId, PersonId, TenantId};
use cloud_hub::keys::{Anchored, KeysError, NotThem};
use cloud_hub::store::{StoreError, anchors, galleries};
use face_core::{Embedding, Space};
use gallery_log::{Body, Kind, Op};
use sqlx::{Executor as _, Row as _};
use uuid::Uuid;

use crate::support::{SPACE, TestHub, skipped};

/// A picture whose embedding lies between two axes: `cosine` to the first.
fn picture(axis: usize, cosine: f32) -> NotThem {
    let mut embedding = Box::new([0.0; 512]);
    embedding[axis] = cosine;
    embedding[axis + 1] = (1.0 - cosine * cosine).sqrt();
    let (space_id, model_version) = (SPACE.to_owned(), "1".to_owned());
    NotThem { space_id, model_version, quality: 0.5, embedding, confirmed: false }
}

async fn add(hub: &TestHub, tenant: TenantId, person: PersonId, picture: NotThem) -> Anchored {
    hub.custody.add_anchor(tenant, person, picture, "test").await.unwrap()
}

fn made(anchored: Anchored) -> AnchorId {
    match anchored {
        Anchored::Made { id, .. } => id,
        Anchored::Refused(why) => panic!("{why}"),
    }
}

/// The live anchors of a gallery as its log says, opened under the person's key.
async fn in_log(hub: &TestHub, tenant: TenantId, person: PersonId) -> Vec<(u64, Op, Option<f32>)> {
    let key = hub.custody.person_key(tenant, person).await.ok();
    let records = hub
        .db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                let gallery = galleries::of_sites(tx, None).await?[0];
                galleries::records(tx, gallery, 1, 0, 100).await
            })
        })
        .await
        .unwrap();
    let anchors = records.into_iter().filter(|record| record.kind == Kind::Anchor);
    anchors
        .map(|record| {
            let body = record.sealed.as_ref().zip(key.as_ref()).map(|(sealed, key)| {
                let bytes = key.open_anchor(AnchorId(record.id.0), record.rev, SPACE, sealed).unwrap();
                let Ok(Body::Anchor(body)) = Body::decode(Kind::Anchor, &bytes) else { panic!("no anchor") };
                assert_eq!(body.person, person.0);
                body.embedding[3]
            });
            (record.version, record.op, body)
        })
        .collect()
}

#[tokio::test]
async fn an_anchor_is_in_the_log_until_it_is_taken_back_and_nobody_is_found_by_it() {
    if skipped("an_anchor_is_in_the_log_until_it_is_taken_back_and_nobody_is_found_by_it") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let person = hub.person(place.tenant, "ada").await;
    hub.enrol(place.tenant, person, 3).await;
    let Anchored::Made { id, score } = add(&hub, place.tenant, person, picture(3, 0.5)).await else { panic!("made") };
    assert_eq!(score, Some(0.5), "how much it resembles the person is told");
    assert_eq!(in_log(&hub, place.tenant, person).await, [(3, Op::Put, Some(0.5))]);
    let probe = Embedding::from_slice(picture(3, 0.5).embedding.as_slice()).unwrap();
    let near = hub.custody.nearest(place.tenant, &Space::plain(SPACE), probe, 5).await.unwrap();
    assert_eq!(near.len(), 1, "the template alone is searched");
    assert!((near[0].similarity - 0.5).abs() < 1e-6);

    // A site that is made later has it too.
    hub.site(place.tenant, "second").await;
    let kinds: Vec<String> = hub
        .superuser()
        .await
        .fetch_all("SELECT kind FROM gallery_leaf ORDER BY gallery_id, kind")
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(kinds, ["anchor", "person", "template", "anchor", "person", "template"]);

    hub.custody.remove_anchor(place.tenant, person, id, "test").await.unwrap();
    let mut superuser = hub.superuser().await;
    for (what, query) in [
        ("rows", "SELECT count(*) FROM anchor"),
        ("live entries", "SELECT count(*) FROM gallery_leaf WHERE kind = 'anchor'"),
        ("bodies", "SELECT count(*) FROM gallery_record WHERE kind = 'anchor' AND sealed IS NOT NULL"),
    ] {
        let left: i64 = superuser.fetch_one(query).await.unwrap().get(0);
        assert_eq!(left, 0, "{what}");
    }
    let again = hub.custody.remove_anchor(place.tenant, person, id, "test").await.unwrap_err();
    assert!(matches!(again, KeysError::Store(StoreError::NotFound { what: "negative anchor", .. })), "{again}");
    let audited: Vec<String> = superuser
        .fetch_all("SELECT action FROM audit_entry WHERE action LIKE 'anchor.%' ORDER BY at")
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(audited, ["anchor.create", "anchor.delete"]);
}

#[tokio::test]
async fn a_deleted_persons_anchors_can_be_read_nowhere() {
    if skipped("a_deleted_persons_anchors_can_be_read_nowhere") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let person = hub.person(place.tenant, "ada").await;
    let id = made(add(&hub, place.tenant, person, picture(3, 0.5)).await);
    let kept = hub.db.tenant(place.tenant, move |tx| Box::pin(anchors::of_person(tx, person))).await.unwrap().remove(0);
    let key = hub.custody.person_key(place.tenant, person).await.unwrap();
    assert!(key.open_anchor(id, 1, SPACE, &kept.sealed).is_ok(), "what a backup of the database would hold");
    hub.custody.delete_person(place.tenant, person, "test").await.unwrap();
    assert!(matches!(hub.custody.person_key(place.tenant, person).await, Err(KeysError::NoPersonKey(_))));
    assert_eq!(in_log(&hub, place.tenant, person).await, [(2, Op::Put, None), (3, Op::Del, None)]);
    let left: i64 = hub.superuser().await.fetch_one("SELECT count(*) FROM anchor").await.unwrap().get(0);
    assert_eq!(left, 0);
    let gone = hub.custody.add_anchor(place.tenant, person, picture(3, 0.5), "test").await.unwrap_err();
    assert!(matches!(gone, KeysError::Store(StoreError::NotFound { what: "person", .. })), "{gone}");
}

#[tokio::test]
async fn the_persons_own_picture_is_refused_unless_confirmed_and_so_is_one_too_many() {
    if skipped("the_persons_own_picture_is_refused_unless_confirmed_and_so_is_one_too_many") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let person = hub.person(place.tenant, "ada").await;
    hub.enrol(place.tenant, person, 3).await;
    let own = add(&hub, place.tenant, person, picture(3, 0.9)).await;
    assert_eq!(own, Anchored::Refused(Objection::ProbablyThem { score: 0.9 }));
    assert!(in_log(&hub, place.tenant, person).await.is_empty(), "nothing was written");
    made(add(&hub, place.tenant, person, NotThem { confirmed: true, ..picture(3, 0.9) }).await);
    for _ in 1..MOST {
        made(add(&hub, place.tenant, person, picture(3, 0.5)).await);
    }
    assert_eq!(add(&hub, place.tenant, person, picture(3, 0.5)).await, Anchored::Refused(Objection::TooMany));
    // Another tenant finds neither the person nor the anchor.
    let other = hub.tenant().await;
    let refused = hub.custody.add_anchor(other, person, picture(3, 0.5), "test").await.unwrap_err();
    assert!(matches!(refused, KeysError::Store(StoreError::NotFound { .. })), "{refused}");
    let refused = hub.custody.remove_anchor(other, person, AnchorId(Uuid::new_v4()), "test").await.unwrap_err();
    assert!(matches!(refused, KeysError::Store(StoreError::NotFound { .. })), "{refused}");
}
