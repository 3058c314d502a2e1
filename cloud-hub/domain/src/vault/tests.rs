//! Each seal opens at its own place, and at no other.

use super::*;
use crate::ids::{AnchorId, PersonId, TemplateId};
use crate::people::Profile;
use crate::person_key::PersonKey;

fn tenant(byte: u8) -> TenantKeys {
    let index = IndexKeys::only(Zeroizing::new([byte; 32]));
    TenantKeys::new(TenantId(Uuid::from_bytes([byte; 16])), vec![SealKey::new([byte; 32])], index)
}

#[test]
fn a_template_opens_only_where_it_belongs() {
    let person = PersonKey::random(tenant(1).tenant(), PersonId(Uuid::from_u128(1))).unwrap();
    let id = TemplateId(Uuid::from_u128(2));
    let sealed = person.seal_template(id, 1, "space-a", b"body").unwrap();
    assert_eq!(person.open_template(id, 1, "space-a", &sealed).unwrap().as_slice(), b"body");
    assert!(person.open_template(TemplateId(Uuid::from_u128(3)), 1, "space-a", &sealed).is_err());
    assert!(person.open_template(id, 2, "space-a", &sealed).is_err());
    assert!(person.open_template(id, 1, "space-b", &sealed).is_err());
    assert!(person.open_person_body(1, &sealed).is_err());
}

#[test]
fn a_negative_anchor_never_opens_as_a_template_nor_a_template_as_an_anchor() {
    let person = PersonKey::random(tenant(1).tenant(), PersonId(Uuid::from_u128(1))).unwrap();
    let (anchor, template) = (AnchorId(Uuid::from_u128(2)), TemplateId(Uuid::from_u128(2)));
    let sealed = person.seal_anchor(anchor, 1, "space-a", b"body").unwrap();
    assert_eq!(person.open_anchor(anchor, 1, "space-a", &sealed).unwrap().as_slice(), b"body");
    assert!(person.open_template(template, 1, "space-a", &sealed).is_err());
    assert!(person.open_anchor(AnchorId(Uuid::from_u128(3)), 1, "space-a", &sealed).is_err());
    let sealed = person.seal_template(template, 1, "space-a", b"body").unwrap();
    assert!(person.open_anchor(anchor, 1, "space-a", &sealed).is_err());
}

#[test]
fn a_frame_opens_only_in_its_session_and_under_its_key() {
    let (session, other) = (SessionId(Uuid::from_u128(4)), SessionId(Uuid::from_u128(5)));
    let keys = tenant(1);
    let person = PersonKey::random(keys.tenant(), PersonId(Uuid::from_u128(1))).unwrap();
    let (known, unknown) =
        (person.seal_frame(session, 3, b"face").unwrap(), keys.seal_frame(session, 3, b"face").unwrap());
    assert_eq!(person.open_frame(session, 3, &known).unwrap().as_slice(), b"face");
    assert_eq!(keys.open_frame(session, 3, &unknown).unwrap().as_slice(), b"face");
    assert!(person.open_frame(other, 3, &known).is_err() && person.open_frame(session, 4, &known).is_err());
    assert!(keys.open_frame(other, 3, &unknown).is_err() && keys.open_frame(session, 3, &known).is_err());
    assert!(tenant(2).open_frame(session, 3, &unknown).is_err());
}

#[test]
fn a_kept_answer_opens_for_its_attempt_and_tenant_alone() {
    let (keys, attempt) = (tenant(1), Uuid::from_u128(8));
    let sealed = keys.seal_answer(attempt, b"secret").unwrap();
    assert_eq!(keys.open_answer(attempt, &sealed).unwrap().as_slice(), b"secret");
    assert!(keys.open_answer(Uuid::from_u128(9), &sealed).is_err());
    assert!(tenant(2).open_answer(attempt, &sealed).is_err());
}

#[test]
fn the_same_key_in_another_tenant_opens_nothing() {
    let one = tenant(1);
    let other = TenantKeys::new(TenantId(Uuid::from_u128(9)), one.versions.clone(), one.index.clone());
    let sealed = one.seal_gdk(GalleryId(Uuid::nil()), 1, &[5; 32]).unwrap();
    assert_eq!(*one.open_gdk(GalleryId(Uuid::nil()), 1, &sealed).unwrap(), [5; 32]);
    assert!(other.open_gdk(GalleryId(Uuid::nil()), 1, &sealed).is_err());
    assert!(one.open_ck(GalleryId(Uuid::nil()), 1, &sealed).is_err());
}

#[test]
fn an_older_tenant_key_still_opens() {
    let old = tenant(1);
    let sealed = old.seal_rotation_seed("space", 1, &[7; 32]).unwrap();
    let rotated = TenantKeys::new(old.tenant(), vec![SealKey::new([2; 32]), SealKey::new([1; 32])], old.index.clone());
    assert_eq!(*rotated.open_rotation_seed("space", 1, &sealed).unwrap(), [7; 32]);
}

#[test]
fn a_seed_of_before_opens_where_it_was_bound_and_is_known_as_such() {
    let (keys, other) = (tenant(1), tenant(2));
    let object = keys.index.spaces(keys.tenant(), "space").next().unwrap();
    let before = keys.seal(Purpose::ROTATION_SEED, object, 1, &[7; 32]).unwrap();
    assert_eq!(*keys.open_rotation_seed("space", 1, &before).unwrap(), [7; 32]);
    assert!(keys.is_seed_of_before("space", 1, &before) && keys.open_rotation_seed("other", 1, &before).is_err());
    let anew = keys.seal_rotation_seed("space", 1, &[7; 32]).unwrap();
    assert!(!keys.is_seed_of_before("space", 1, &anew) && keys.open_rotation_seed("space", 2, &anew).is_err());
    // Without the index key it was bound by it is lost; sealed anew it is not.
    let index = IndexKeys::only(Zeroizing::new([3; 32]));
    let after = TenantKeys::new(keys.tenant(), keys.versions.clone(), index);
    assert!(
        after.open_rotation_seed("space", 1, &before).is_err() && other.open_rotation_seed("space", 1, &anew).is_err()
    );
    assert_eq!(*after.open_rotation_seed("space", 1, &anew).unwrap(), [7; 32]);
}

#[test]
fn a_persons_marks_are_theirs_alone() {
    let of = |person| PersonKey::random(tenant(1).tenant(), PersonId(Uuid::from_u128(person))).unwrap();
    let (one, other) = (of(1), of(1));
    assert_eq!(one.mark("photographs", "a"), one.mark("photographs", "a"));
    assert_ne!(one.mark("photographs", "a"), other.mark("photographs", "a"));
    assert_ne!(one.mark("photographs", "a"), one.mark("photograph", "sa"));
}

/// A way to seal something, the ways to open it, and in the end all of them against one another.
type Sealer = fn(&TenantKeys, Uuid, u32) -> Vec<u8>;
type Opener = fn(&TenantKeys, Uuid, u32, &[u8]) -> Option<Vec<u8>>;

/// What a tenant's keys seal, with 32 bytes or text in it, whether its place has a revision, and how it is opened.
const PLACES: [(&str, bool, Sealer, Opener); 10] = [
    (
        "gdk",
        true,
        |k, id, n| k.seal_gdk(GalleryId(id), n, &[5; 32]).unwrap(),
        |k, id, n, sealed| k.open_gdk(GalleryId(id), n, sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "ck",
        true,
        |k, id, n| k.seal_ck(GalleryId(id), n, &[5; 32]).unwrap(),
        |k, id, n, sealed| k.open_ck(GalleryId(id), n, sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "link",
        true,
        |k, id, n| k.seal_link(DeviceId(id), n, &[5; 32]).unwrap(),
        |k, id, n, sealed| k.open_link(DeviceId(id), n, sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "snapshot",
        false,
        |k, id, _| k.seal_snapshot_key(SnapshotId(id), &[5; 32]).unwrap(),
        |k, id, _, sealed| k.open_snapshot_key(SnapshotId(id), sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "webhook",
        false,
        |k, id, _| k.seal_webhook_secret(EndpointId(id), &[5; 32]).unwrap(),
        |k, id, _, sealed| k.open_webhook_secret(EndpointId(id), sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "seed",
        true,
        |k, id, n| k.seal_rotation_seed(&id.to_string(), n, &[5; 32]).unwrap(),
        |k, id, n, sealed| k.open_rotation_seed(&id.to_string(), n, sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "login",
        false,
        |k, id, _| k.seal_login(UserId(id), "\u{5}".repeat(32).as_str()).unwrap(),
        |k, id, _, sealed| k.open_login(UserId(id), sealed).ok().map(|plain| plain.as_bytes().to_vec()),
    ),
    (
        "totp",
        false,
        |k, id, _| k.seal_totp(UserId(id), &[5; 32]).unwrap(),
        |k, id, _, sealed| k.open_totp(UserId(id), sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "frame",
        true,
        |k, id, n| k.seal_frame(SessionId(id), n, &[5; 32]).unwrap(),
        |k, id, n, sealed| k.open_frame(SessionId(id), n, sealed).ok().map(|plain| plain.to_vec()),
    ),
    (
        "rule",
        true,
        |k, id, n| k.seal_rule(id, n, &[5; 32]).unwrap(),
        |k, id, n, sealed| k.open_rule(id, n, sealed).ok().map(|plain| plain.to_vec()),
    ),
];

#[test]
fn whatever_a_tenant_seals_opens_at_its_own_place_and_as_nothing_else() {
    let (keys, id, other) = (tenant(1), Uuid::from_u128(7), Uuid::from_u128(8));
    for (name, has_revision, seal, open) in PLACES {
        let sealed = seal(&keys, id, 3);
        assert_eq!(open(&keys, id, 3, &sealed), Some(vec![5; 32]), "{name}");
        assert_eq!(open(&keys, other, 3, &sealed), None, "{name} of another object");
        assert_eq!(open(&keys, id, 4, &sealed).is_none(), has_revision, "{name} of another revision");
        assert_eq!(open(&tenant(2), id, 3, &sealed), None, "{name} of another tenant");
        for (elsewhere, _, _, open) in PLACES {
            assert_eq!(open(&keys, id, 3, &sealed).is_some(), elsewhere == name, "{name} as {elsewhere}");
        }
    }
}

#[test]
fn a_seal_of_the_wrong_length_is_no_key_and_bytes_that_are_no_text_are_no_login() {
    let (keys, id) = (tenant(1), Uuid::from_u128(7));
    let short = keys.seal(Purpose::DIGEST_KEY, id, 3, &[5; 31]).unwrap();
    assert!(matches!(keys.open_gdk(GalleryId(id), 3, &short), Err(VaultError::Length("key"))));
    let bytes = keys.seal(USER_LOGIN, id, 1, &[0xff, 0xfe]).unwrap();
    assert!(matches!(keys.open_login(UserId(id), &bytes), Err(VaultError::Length("login"))));
}

#[test]
fn a_person_key_that_was_put_away_opens_what_it_sealed_for_that_person_alone() {
    let (keys, id) = (tenant(1), PersonId(Uuid::from_u128(1)));
    let key = PersonKey::random(keys.tenant(), id).unwrap();
    let profile = Profile { external_id: None, name: "Ani".into(), email: None, access: Default::default() };
    let (sealed, body) = (key.seal_profile(2, &profile).unwrap(), key.seal_person_body(2, b"groups").unwrap());
    let wrapped = keys.wrap_person(&key).unwrap();
    assert!(keys.unwrap_person(PersonId(Uuid::from_u128(9)), &wrapped).is_err(), "put away as somebody else's");
    assert!(tenant(2).unwrap_person(id, &wrapped).is_err());
    let back = keys.unwrap_person(id, &wrapped).unwrap();
    assert_eq!(back.person(), id);
    assert!(back.open_profile(2, &sealed).unwrap() == profile);
    assert_eq!(back.open_person_body(2, &body).unwrap().as_slice(), b"groups");
    assert!(
        back.open_profile(3, &sealed).is_err() && back.open_person_body(3, &body).is_err(),
        "an older one put back"
    );
    assert!(back.open_profile(2, &body).is_err() && back.open_person_body(2, &sealed).is_err());
    let stranger = PersonKey::random(keys.tenant(), id).unwrap();
    assert!(stranger.open_profile(2, &sealed).is_err(), "a new key does not bring back who was forgotten");
}

#[test]
fn keys_do_not_print() {
    let keys = tenant(1);
    let person = PersonKey::random(keys.tenant(), PersonId(Uuid::nil())).unwrap();
    assert_eq!(format!("{keys:?}"), "TenantKeys(01010101-0101-0101-0101-010101010101, ***)");
    assert_eq!(format!("{person:?}"), "PersonKey(00000000-0000-0000-0000-000000000000, ***)");
}

#[test]
#[should_panic(expected = "at least one key")]
fn a_tenant_without_a_key_cannot_be() {
    let _ = TenantKeys::new(TenantId(Uuid::nil()), Vec::new(), IndexKeys::only(Zeroizing::new([0; 32])));
}
