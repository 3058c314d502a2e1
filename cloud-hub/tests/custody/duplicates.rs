//! Who is enrolled already under another id, by the model pack's thresholds for as many templates as the others have.

use cloud_hub::domain::duplicate::Duplicate;
use cloud_hub::domain::ids::PersonId;
use cloud_hub::keys::{Enrolment, KeysError, NewTemplate, Origin, Sameness};
use face_core::{Embedding, Similarity, Space, ThresholdLadder, ThresholdStep};
use sqlx::{Executor as _, Row as _};

use crate::support::{SPACE, TestHub, skipped, template};

fn ladder() -> ThresholdLadder {
    let step = |up_to, cosine| ThresholdStep { up_to, threshold: Similarity::new(cosine) };
    ThresholdLadder::new(vec![step(1, 0.4), step(3, 0.5), step(10, 0.6)]).unwrap()
}

/// At this cosine to an axis.
fn towards(axis: usize, cosine: f32) -> Box<[f32; 512]> {
    let mut embedding = Box::new([0.0; 512]);
    embedding[axis] = cosine;
    embedding[511] = (1.0 - cosine * cosine).sqrt();
    embedding
}

fn sameness(embedding: &[f32; 512], allowed: bool) -> Sameness {
    let probe = Embedding::from_slice(embedding.as_slice()).unwrap();
    Sameness { space: Space::plain(SPACE), probe, ladder: ladder(), allowed }
}

#[tokio::test]
async fn the_threshold_rises_with_the_templates_of_the_others_and_the_override_is_audited() {
    if skipped("the_threshold_rises_with_the_templates_of_the_others_and_the_override_is_audited") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let (first, newcomer) = (hub.person(place.tenant, "first").await, hub.person(place.tenant, "new").await);
    let look = async |cosine: f32, person: PersonId| {
        hub.custody.duplicate(place.tenant, person, sameness(&towards(0, cosine), false), "test").await.unwrap()
    };
    assert_eq!(look(0.99, newcomer).await, None, "nobody has a template");
    hub.enrol(place.tenant, first, 0).await;
    let found = look(0.45, newcomer).await.expect("one comparison, 0.4");
    assert_eq!((found.person, found.threshold, found.compared), (first, 0.4, 1));
    assert!((found.score - 0.45).abs() < 1e-6);
    // Templates of the newcomer do not count, however many there are, and hide nobody.
    for _ in 0..20 {
        let own = NewTemplate { embedding: towards(0, 0.9), ..template(0) };
        hub.custody.enrol(place.tenant, newcomer, None, own, "test").await.unwrap();
    }
    assert_eq!(look(0.45, newcomer).await.map(|found| (found.person, found.compared)), Some((first, 1)));
    for axis in 1..3 {
        let person = hub.person(place.tenant, &format!("p{axis}")).await;
        hub.enrol(place.tenant, person, axis).await;
    }
    assert_eq!(look(0.45, newcomer).await, None, "three comparisons ask for 0.5");
    let found: Duplicate = look(0.55, newcomer).await.expect("0.55 is enough for three");
    assert_eq!((found.person, found.threshold, found.compared), (first, 0.5, 3));
    assert_eq!(look(0.99, first).await.map(|found| found.person), Some(newcomer), "nobody is their own duplicate");

    // The newcomer has the same face: not stored, unless that is wanted.
    let enrol = async |allowed| {
        let wanted = (NewTemplate { embedding: towards(0, 0.55), ..template(0) }, sameness(&towards(0, 0.55), allowed));
        hub.custody.enrol_unless_known(place.tenant, newcomer, Origin::Import, wanted, "test").await.unwrap()
    };
    assert!(matches!(enrol(false).await, Enrolment::Known(other) if other == found));
    let Enrolment::Made(id, Some(other)) = enrol(true).await else { panic!("it was wanted all the same") };
    assert_eq!(other, found);
    let detail: serde_json::Value = hub
        .superuser()
        .await
        .fetch_one("SELECT detail FROM audit_entry WHERE detail ? 'duplicate_allowed'")
        .await
        .unwrap()
        .get(0);
    assert_eq!(detail["template"], serde_json::json!(id.0));
    assert_eq!(detail["duplicate_allowed"]["person"], serde_json::json!(first.0));
    assert_eq!(detail["duplicate_allowed"]["compared"], 3);
}

#[tokio::test]
async fn of_many_who_come_at_once_with_one_face_one_is_enrolled() {
    if skipped("of_many_who_come_at_once_with_one_face_one_is_enrolled") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    let mut people = Vec::new();
    for number in 0..12 {
        people.push(hub.person(tenant, &format!("p{number}")).await);
    }
    // The first of a tenant makes the space's seed, for which all others wait.
    let first = hub.person(tenant, "first").await;
    hub.enrol(tenant, first, 1).await;
    let face = towards(0, 0.99);
    let enrol = |person: PersonId| {
        let wanted = (NewTemplate { embedding: face.clone(), ..template(0) }, sameness(&face, false));
        hub.custody.enrol_unless_known(tenant, person, Origin::Import, wanted, "test")
    };
    let all = futures::future::join_all(people.into_iter().map(enrol)).await;
    let made = all.iter().filter(|enrolled| matches!(enrolled.as_ref().unwrap(), Enrolment::Made(..))).count();
    assert_eq!((all.len(), made), (12, 1));
}

#[tokio::test]
async fn nobody_is_enrolled_while_those_who_look_the_same_cannot_be_found() {
    if skipped("nobody_is_enrolled_while_those_who_look_the_same_cannot_be_found") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    let (first, newcomer) = (hub.person(tenant, "first").await, hub.person(tenant, "new").await);
    hub.enrol(tenant, first, 0).await;
    let mut superuser = hub.superuser().await;
    // What a crash of the server leaves of tables that are not in its log.
    superuser.execute("TRUNCATE template_vector, template_vector_whole").await.unwrap();
    let face = towards(0, 0.99);
    let enrol = async |allowed| {
        let wanted = (NewTemplate { embedding: face.clone(), ..template(0) }, sameness(&face, allowed));
        hub.custody.enrol_unless_known(tenant, newcomer, Origin::Import, wanted, "test").await
    };
    for allowed in [false, true] {
        assert!(matches!(enrol(allowed).await, Err(KeysError::VectorsMissing)), "allowed: {allowed}");
    }
    let looked = hub.custody.duplicate(tenant, newcomer, sameness(&face, false), "test").await;
    assert!(matches!(looked, Err(KeysError::VectorsMissing)));
    // The hub's job makes them anew, and everything is as before.
    assert_eq!(hub.custody.rebuild_vectors(tenant).await.unwrap(), 1);
    assert!(matches!(enrol(false).await.unwrap(), Enrolment::Known(other) if other.person == first));
}
