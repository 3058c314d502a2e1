//! Bodies of stored records, opened for whoever sends them to a device.
//!
//! In: records of the log and the keys of their tenant. Out: plaintext bodies; where a person was erased, or their key is missing,
//! a stand-in: a person who may not pass, a template in a space that no model has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use gallery_log::body::{EMBEDDING_LEN, PersonState};
use gallery_log::{AnchorBody, Body, DigestKey, Kind, Leaf, Op, PersonBody, TemplateBody};
use uuid::Uuid;

use super::{Keyring, KeysError};
use hub_domain::ids::{AnchorId, PersonId, TemplateId};
use hub_domain::person_key::PersonKey;
use hub_domain::vault::TenantKeys;
use hub_store::galleries::StoredRecord;

/// The space of stand-ins. No model pack may have it.
const ERASED_SPACE: &str = "lintel.erased";

/// Opens bodies; reads each person's key once. Short-lived: a key that it holds outlives an erasure by as long as it lives.
pub struct Opener<'a> {
    keyring: &'a Keyring,
    keys: &'a TenantKeys,
    people: HashMap<PersonId, PersonKey>,
}

impl<'a> Opener<'a> {
    /// An opener for records of one tenant.
    #[must_use]
    pub fn new(keyring: &'a Keyring, keys: &'a TenantKeys) -> Self {
        Self { keyring, keys, people: HashMap::new() }
    }

    /// The body of a record as a device gets it; empty for a del.
    pub fn body(&mut self, record: &StoredRecord) -> Result<Vec<u8>, KeysError> {
        match (record.op, &record.sealed) {
            (Op::Del, _) => Ok(Vec::new()),
            (Op::Put, None) => stand_in(record),
            (Op::Put, Some(sealed)) => self.open(record, sealed),
        }
    }

    fn open(&mut self, record: &StoredRecord, sealed: &[u8]) -> Result<Vec<u8>, KeysError> {
        let Some(person) = record.person else {
            return Ok(self.keys.open_rule(record.id.0, record.rev, sealed)?.to_vec());
        };
        let key = match self.people.entry(person) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.keyring.person(self.keys, person)?),
        };
        let opened = match &record.space_id {
            Some(space_id) if record.kind == Kind::Anchor => {
                key.open_anchor(AnchorId(record.id.0), record.rev, space_id, sealed)?
            }
            Some(space_id) => key.open_template(TemplateId(record.id.0), record.rev, space_id, sealed)?,
            None => key.open_person_body(record.rev, sealed)?,
        };
        Ok(opened.to_vec())
    }
}

/// The leaf that a device has for a stand-in.
pub fn stand_in_leaf(gdk: &DigestKey, record: &StoredRecord) -> Result<Leaf, KeysError> {
    Ok(Leaf::of(gdk, record.kind, record.id, record.rev, &stand_in(record)?))
}

/// What stands where an erased body stood: valid, and good for nothing.
fn stand_in(record: &StoredRecord) -> Result<Vec<u8>, KeysError> {
    let person = record.person.map_or(Uuid::nil(), |person| person.0);
    let embedding = || {
        let mut embedding = Box::new([0.0; EMBEDDING_LEN]);
        embedding[0] = 1.0;
        embedding
    };
    let body = match record.kind {
        Kind::Template => {
            let space_id = ERASED_SPACE.to_owned();
            Body::Template(TemplateBody { person, space_id, quality: 0.0, embedding: embedding() })
        }
        Kind::Anchor => {
            let space_id = ERASED_SPACE.to_owned();
            Body::Anchor(AnchorBody { person, space_id, quality: 0.0, embedding: embedding() })
        }
        // Rules belong to no person and credentials do not exist yet: what is left is people.
        Kind::Person | Kind::Credential | Kind::Rule => {
            Body::Person(PersonBody::new(PersonState::Suspended, None, None, Vec::new()))
        }
    };
    Ok(body.encode()?)
}
