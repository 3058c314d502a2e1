//! The key of one person, and those that it has taken the place of.
//!
//! In: the keys of a person as the key store has them, wrapped under the tenant's. Out: what would identify the person, sealed and
//! opened; and the same keys wrapped anew, or with another one that seals. The keys before stay beside it, so that a backup of the
//! database opens and whoever had read them goes on; they go with the person. Deliberately absent: where keys and rows are
//! (`keys::persons`, `store::person_seals`).

use gallery_log::seal::{SEAL_OVERHEAD, key_id};
use gallery_log::{KeyId, Purpose, SealContext, SealKey, TemplateRow};
use ring::hmac;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ids::{AnchorId, PersonId, SessionId, TemplateId, TenantId};
use super::people::Profile;
use super::vault::{KEPT_ANSWER, SESSION_FRAME, TenantKeys, VaultError, seal_tenant};

/// The generation of the key that a person is made with.
const FIRST: u64 = 0;
/// Keys that a person has at most: so many fit into a sector, which a power cut leaves as it was or as it is to be.
const KEPT: usize = 6;
/// A wrapped first key: it says nothing of its generation.
const FIRST_LEN: usize = 32 + SEAL_OVERHEAD;
/// A wrapped later key, with its generation.
const LATER_LEN: usize = 32 + 8 + SEAL_OVERHEAD;

/// The key of one person, for what would identify them.
#[derive(Clone)]
pub struct PersonKey {
    tenant: TenantId,
    person: PersonId,
    /// Newest first. The first seals, all open, the last makes marks.
    versions: Vec<Version>,
}

#[derive(Clone)]
struct Version {
    key: SealKey,
    /// Of which order to replace keys it is.
    generation: u64,
}

/// What is sealed under a person's key in a row that stays as long as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersonSeal {
    /// Name, e-mail and external id.
    Profile,
    /// The body of their record in a gallery.
    Body,
    /// The body of a template, in its row and in a gallery.
    Template,
    /// The body of a negative anchor, likewise.
    Anchor,
}

impl TenantKeys {
    /// Wraps a person's keys for the key store, oldest first.
    pub fn wrap_person(&self, key: &PersonKey) -> Result<Vec<u8>, VaultError> {
        let mut wrapped = Vec::with_capacity(FIRST_LEN);
        for Version { key: version, generation } in key.versions.iter().rev() {
            let mut plain = Zeroizing::new(version.expose().to_vec());
            if *generation > FIRST {
                plain.extend_from_slice(&generation.to_be_bytes());
            }
            wrapped.extend(self.seal(Purpose::PERSON_KEY, key.person.0, 1, &plain)?);
        }
        Ok(wrapped)
    }

    /// Unwraps a person's keys from the key store.
    pub fn unwrap_person(&self, person: PersonId, wrapped: &[u8]) -> Result<PersonKey, VaultError> {
        let (first, later) = wrapped.split_at_checked(FIRST_LEN).unwrap_or((wrapped, &[]));
        // What a power cut left of one that was being added was never sealed with.
        let later = later.chunks_exact(LATER_LEN);
        let mut versions = Vec::new();
        for sealed in std::iter::once(first).chain(later) {
            let plain = self.open(Purpose::PERSON_KEY, person.0, 1, sealed)?;
            let (key, generation) = plain.split_first_chunk().ok_or(VaultError::Length("person's key"))?;
            let generation = match (versions.is_empty(), generation) {
                (true, []) => FIRST,
                (false, bytes) => {
                    bytes.try_into().map(u64::from_be_bytes).map_err(|_| VaultError::Length("person's key"))?
                }
                (true, _) => return Err(VaultError::Length("person's key")),
            };
            versions.push(Version { key: SealKey::new(*key), generation });
        }
        if !versions.is_sorted_by_key(|version| version.generation) {
            return Err(VaultError::Order);
        }
        versions.reverse();
        Ok(PersonKey { tenant: self.tenant(), person, versions })
    }

    /// A person's keys wrapped by the key that seals; `None` if they are, or if this is no key: one that is being destroyed is zeros.
    pub fn rewrap_person(&self, person: PersonId, wrapped: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        let Ok(id) = key_id(wrapped) else { return Ok(None) };
        if !self.old_ids().contains(&id) {
            return Ok(None);
        }
        self.wrap_person(&self.unwrap_person(person, wrapped)?).map(Some)
    }
}

impl PersonKey {
    /// A fresh key for a new person.
    pub fn random(tenant: TenantId, person: PersonId) -> Result<Self, VaultError> {
        Ok(Self { tenant, person, versions: vec![Version { key: SealKey::random()?, generation: FIRST }] })
    }

    /// The same with another key that seals, of this generation; `None` if there is one of it or a later one. Of those before, the
    /// first and the latest stay.
    pub fn renewed(&self, generation: u64) -> Result<Option<Self>, VaultError> {
        if self.versions[0].generation >= generation {
            return Ok(None);
        }
        let mut versions = vec![Version { key: SealKey::random()?, generation }];
        versions.extend(self.versions.iter().cloned());
        if versions.len() > KEPT {
            versions.remove(KEPT - 1);
        }
        Ok(Some(Self { versions, ..*self }))
    }

    /// The ids of the keys that do not seal any more.
    #[must_use]
    pub fn old_ids(&self) -> Vec<KeyId> {
        self.versions[1..].iter().map(|version| version.key.id()).collect()
    }

    /// The same sealed by the key that seals. Of what is in no space the space is empty.
    pub fn reseal(
        &self,
        what: PersonSeal,
        object: Uuid,
        revision: u32,
        space_id: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        let context = match what {
            PersonSeal::Profile => self.own_context(Purpose::PERSON_FIELD, revision),
            PersonSeal::Body => self.own_context(Purpose::RECORD_BODY, revision),
            PersonSeal::Template => self.template_context(TemplateId(object), revision, space_id),
            PersonSeal::Anchor => self.anchor_context(AnchorId(object), revision, space_id),
        };
        let plain = self.open(&context, sealed)?;
        self.seal(&context, &plain)
    }

    fn seal(&self, context: &SealContext<'_>, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        Ok(self.versions[0].key.seal(context, plain)?)
    }

    fn open(&self, context: &SealContext<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let wanted = key_id(sealed)?;
        let version = self.versions.iter().find(|version| version.key.id() == wanted).unwrap_or(&self.versions[0]);
        Ok(version.key.open(context, sealed)?)
    }

    /// Whose key this is.
    #[must_use]
    pub fn person(&self) -> PersonId {
        self.person
    }

    /// Seals name, e-mail and external id.
    pub fn seal_profile(&self, revision: u32, profile: &Profile) -> Result<Vec<u8>, VaultError> {
        self.seal(&self.own_context(Purpose::PERSON_FIELD, revision), &profile.to_bytes())
    }

    /// Opens name, e-mail and external id.
    pub fn open_profile(&self, revision: u32, sealed: &[u8]) -> Result<Profile, VaultError> {
        Ok(Profile::from_bytes(&self.open(&self.own_context(Purpose::PERSON_FIELD, revision), sealed)?)?)
    }

    /// The mark of a value that is found among what is this person's alone. It goes with their key, the first that they had: what was
    /// marked is not here to be marked again.
    #[must_use]
    pub fn mark(&self, field: &str, value: &str) -> [u8; 32] {
        let first = self.versions.last().expect("there is one at least");
        // Another key than the one that seals.
        let own = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, first.key.expose()), b"lintel.person.mark.v1");
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()));
        for part in [self.person.0.as_bytes().as_slice(), field.as_bytes(), value.as_bytes()] {
            context.update(&u64::try_from(part.len()).expect("a usize fits in 64 bits").to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
    }

    /// Seals the body of the person's record in a gallery.
    pub fn seal_person_body(&self, revision: u32, body: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(&self.own_context(Purpose::RECORD_BODY, revision), body)
    }

    /// Opens the body of the person's record in a gallery.
    pub fn open_person_body(&self, revision: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(&self.own_context(Purpose::RECORD_BODY, revision), sealed)
    }

    /// Seals a template's body: the record of the embedding, in `template` and in every gallery's log alike.
    pub fn seal_template(
        &self,
        template: TemplateId,
        revision: u32,
        space_id: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        self.seal(&self.template_context(template, revision, space_id), body)
    }

    /// Opens a template's body.
    pub fn open_template(
        &self,
        template: TemplateId,
        revision: u32,
        space_id: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(&self.template_context(template, revision, space_id), sealed)
    }

    /// Seals a negative anchor's body. Another purpose than a template's: moved into a template's row it does not open.
    pub fn seal_anchor(
        &self,
        anchor: AnchorId,
        revision: u32,
        space_id: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        self.seal(&self.anchor_context(anchor, revision, space_id), body)
    }

    /// Opens a negative anchor's body.
    pub fn open_anchor(
        &self,
        anchor: AnchorId,
        revision: u32,
        space_id: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(&self.anchor_context(anchor, revision, space_id), sealed)
    }

    /// Seals what a frame of a session about this person gave.
    pub fn seal_frame(&self, session: SessionId, number: u32, body: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(&self.frame_context(session, number), body)
    }

    /// Opens what a frame of a session about this person gave.
    pub fn open_frame(&self, session: SessionId, number: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(&self.frame_context(session, number), sealed)
    }

    /// Seals an answer about this person that is kept to be given again.
    pub fn seal_answer(&self, attempt: Uuid, answer: &[u8]) -> Result<Vec<u8>, VaultError> {
        self.seal(&self.answer_context(attempt), answer)
    }

    /// Opens an answer about this person that was kept.
    pub fn open_answer(&self, attempt: Uuid, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(&self.answer_context(attempt), sealed)
    }

    fn own_context(&self, purpose: Purpose, revision: u32) -> SealContext<'static> {
        SealContext::new(purpose, seal_tenant(self.tenant), self.person.0, u64::from(revision))
    }

    fn answer_context(&self, attempt: Uuid) -> SealContext<'static> {
        SealContext::new(KEPT_ANSWER, seal_tenant(self.tenant), attempt, 1)
    }

    fn frame_context(&self, session: SessionId, number: u32) -> SealContext<'static> {
        SealContext::new(SESSION_FRAME, seal_tenant(self.tenant), session.0, u64::from(number))
    }

    fn anchor_context<'a>(&self, anchor: AnchorId, revision: u32, space_id: &'a str) -> SealContext<'a> {
        SealContext::new(Purpose::ANCHOR, seal_tenant(self.tenant), anchor.0, u64::from(revision))
            .with_template(TemplateRow { person: self.person.0, space_id, row: anchor.0 })
    }

    fn template_context<'a>(&self, template: TemplateId, revision: u32, space_id: &'a str) -> SealContext<'a> {
        SealContext::new(Purpose::TEMPLATE, seal_tenant(self.tenant), template.0, u64::from(revision))
            .with_template(TemplateRow { person: self.person.0, space_id, row: template.0 })
    }
}

impl std::fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PersonKey({}, ***)", self.person)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_key::IndexKeys;

    const PERSON: PersonId = PersonId(Uuid::from_u128(3));

    fn tenant(versions: &[u8]) -> TenantKeys {
        let versions = versions.iter().map(|byte| SealKey::new([*byte; 32])).collect();
        TenantKeys::new(TenantId(Uuid::from_u128(1)), versions, IndexKeys::only(Zeroizing::new([9; 32])))
    }

    fn first(keys: &TenantKeys) -> PersonKey {
        PersonKey::random(keys.tenant(), PERSON).unwrap()
    }

    #[test]
    fn another_key_seals_and_those_before_open() {
        let keys = tenant(&[1]);
        let before = first(&keys);
        let now = before.renewed(7).unwrap().unwrap();
        let sealed = before.seal_person_body(4, b"body").unwrap();
        assert_eq!(now.open_person_body(4, &sealed).unwrap().as_slice(), b"body");
        let sealed = now.seal_person_body(4, b"body").unwrap();
        assert!(before.open_person_body(4, &sealed).is_err(), "whoever has the one before reads nothing of after");
        assert_eq!(now.old_ids(), [before.versions[0].key.id()]);
        assert!(before.old_ids().is_empty());
    }

    #[test]
    fn an_order_is_carried_out_once() {
        let first = first(&tenant(&[1]));
        let now = first.renewed(7).unwrap().unwrap();
        assert!(now.renewed(7).unwrap().is_none() && now.renewed(6).unwrap().is_none());
        assert!(now.renewed(8).unwrap().is_some());
        assert!(first.renewed(FIRST).unwrap().is_none());
    }

    #[test]
    fn marks_are_those_of_the_first_key_for_ever() {
        let keys = tenant(&[1]);
        let mut key = first(&keys);
        let mark = key.mark("photographs", "some");
        for generation in 1..20 {
            key = key.renewed(generation).unwrap().unwrap();
            key = keys.unwrap_person(PERSON, &keys.wrap_person(&key).unwrap()).unwrap();
            assert_eq!(key.mark("photographs", "some"), mark);
        }
    }

    #[test]
    fn the_first_and_the_latest_keys_fit_into_a_sector() {
        let keys = tenant(&[1]);
        let (mut key, mut made) = (first(&keys), Vec::new());
        made.push(key.seal_person_body(1, b"0").unwrap());
        for generation in 1..=7 {
            key = key.renewed(generation).unwrap().unwrap();
            made.push(key.seal_person_body(1, b"n").unwrap());
        }
        let wrapped = keys.wrap_person(&key).unwrap();
        assert_eq!(wrapped.len(), FIRST_LEN + (KEPT - 1) * LATER_LEN);
        assert!(wrapped.len() <= 512);
        let again = keys.unwrap_person(PERSON, &wrapped).unwrap();
        let opens: Vec<bool> = made.iter().map(|sealed| again.open_person_body(1, sealed).is_ok()).collect();
        assert_eq!(opens, [true, false, false, true, true, true, true, true]);
    }

    #[test]
    fn what_a_power_cut_left_of_a_key_is_nothing_and_a_changed_one_is_an_error() {
        let keys = tenant(&[1]);
        let before = first(&keys);
        let wrapped = keys.wrap_person(&before.renewed(7).unwrap().unwrap()).unwrap();
        let cut = keys.unwrap_person(PERSON, &wrapped[..wrapped.len() - 1]).unwrap();
        assert!(cut.old_ids().is_empty());
        assert!(cut.open_person_body(1, &before.seal_person_body(1, b"body").unwrap()).is_ok());
        assert!(keys.unwrap_person(PERSON, &wrapped[..FIRST_LEN - 1]).is_err());
        let mut changed = wrapped.clone();
        changed[FIRST_LEN + 30] ^= 1;
        assert!(keys.unwrap_person(PERSON, &changed).is_err());
        assert!(keys.unwrap_person(PersonId(Uuid::from_u128(4)), &wrapped).is_err(), "somebody else's");
    }

    #[test]
    fn keys_in_another_order_are_not_taken() {
        let keys = tenant(&[1]);
        let key = first(&keys).renewed(7).unwrap().unwrap().renewed(8).unwrap().unwrap();
        let wrapped = keys.wrap_person(&key).unwrap();
        let (first, later) = wrapped.split_at(FIRST_LEN);
        let (earlier, latest) = later.split_at(LATER_LEN);
        assert!(matches!(keys.unwrap_person(PERSON, &[first, latest, earlier].concat()), Err(VaultError::Order)));
        assert!(keys.unwrap_person(PERSON, later).is_err(), "the first is missing");
        assert!(keys.unwrap_person(PERSON, &[first, first, &[0; LATER_LEN - FIRST_LEN]].concat()).is_err());
    }

    #[test]
    fn all_are_wrapped_anew_at_once_and_those_that_are_being_destroyed_stay_so() {
        let (before, during, after) = (tenant(&[1]), tenant(&[2, 1]), tenant(&[2]));
        let key = first(&before).renewed(7).unwrap().unwrap();
        let wrapped = before.wrap_person(&key).unwrap();
        let again = during.rewrap_person(PERSON, &wrapped).unwrap().unwrap();
        assert_eq!(after.unwrap_person(PERSON, &again).unwrap().old_ids(), key.old_ids());
        assert!(during.rewrap_person(PERSON, &again).unwrap().is_none());
        assert!(during.rewrap_person(PERSON, &vec![0; wrapped.len()]).unwrap().is_none());
    }

    #[test]
    fn what_is_sealed_anew_opens_at_its_place_alone() {
        let before = first(&tenant(&[1]));
        let now = before.renewed(7).unwrap().unwrap();
        let (id, other) = (Uuid::from_u128(5), Uuid::from_u128(6));
        let sealed = before.seal_template(TemplateId(id), 2, "space", b"face").unwrap();
        let again = now.reseal(PersonSeal::Template, id, 2, "space", &sealed).unwrap();
        assert_eq!(now.open_template(TemplateId(id), 2, "space", &again).unwrap().as_slice(), b"face");
        assert!(before.open_template(TemplateId(id), 2, "space", &again).is_err());
        for (what, object, revision, space) in [
            (PersonSeal::Anchor, id, 2, "space"),
            (PersonSeal::Template, other, 2, "space"),
            (PersonSeal::Template, id, 3, "space"),
            (PersonSeal::Template, id, 2, "other"),
            (PersonSeal::Body, id, 2, ""),
        ] {
            assert!(now.reseal(what, object, revision, space, &sealed).is_err(), "{what:?}");
        }
        let sealed = before.seal_anchor(AnchorId(id), 2, "space", b"face").unwrap();
        let again = now.reseal(PersonSeal::Anchor, id, 2, "space", &sealed).unwrap();
        assert_eq!(now.open_anchor(AnchorId(id), 2, "space", &again).unwrap().as_slice(), b"face");
        let sealed = before.seal_person_body(2, b"body").unwrap();
        let again = now.reseal(PersonSeal::Body, PERSON.0, 2, "", &sealed).unwrap();
        assert_eq!(now.open_person_body(2, &again).unwrap().as_slice(), b"body");
        assert!(now.reseal(PersonSeal::Profile, PERSON.0, 2, "", &sealed).is_err());
    }
}
