//! What a record says, as versioned bytes: `0x01 ‖ fields`, numbers big-endian, embeddings f32 little-endian.
//!
//! In: a typed body, or the plaintext bytes of a record. Out: the other one. The digest covers the bytes, so encoding is
//! canonical: a value has one encoding, and [`Body::decode`] accepts nothing else.
//! Deliberately absent: names, e-mails, pictures. Nothing of those ever reaches a device.

use uuid::Uuid;

use crate::lengths::Reader;
use crate::record::Kind;

/// Components of an embedding.
pub const EMBEDDING_LEN: usize = 512;

const BODY_VERSION: u8 = 1;
/// Longest name of a space, in bytes: model names are short, and one length byte suffices.
const MAX_SPACE_ID_LEN: usize = 255;

/// Whether a person may be recognised at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PersonState {
    /// Recognised and decided upon.
    Active = 1,
    /// Recognised, but refused.
    Suspended = 2,
}

/// A person as doors know them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PersonBody {
    /// Whether they may be let in.
    pub state: PersonState,
    /// Not before this time (Unix seconds, UTC).
    pub valid_from: Option<i64>,
    /// Not at or after this time (Unix seconds, UTC).
    pub valid_until: Option<i64>,
    /// The groups they are in: sorted, without duplicates ([`PersonBody::new`] sees to it).
    pub groups: Vec<Uuid>,
}

/// One embedding of a person.
#[derive(Clone, PartialEq, Debug)]
pub struct TemplateBody {
    /// The person: the record id of a [`PersonBody`] in the same gallery.
    pub person: Uuid,
    /// The embedding space; templates of different spaces never meet. 1 to 255 bytes.
    pub space_id: String,
    /// How good the photographs were, in [0, 1].
    pub quality: f32,
    /// The embedding, of unit norm as face-core makes it; here only checked to be finite.
    pub embedding: Box<[f32; EMBEDDING_LEN]>,
}

/// A negative anchor: one embedding of somebody who was taken for a person and is not them.
///
/// A kind of its own, although it reads much like a template: what may keep somebody out must never become what lets
/// them in.
#[derive(Clone, PartialEq, Debug)]
pub struct AnchorBody {
    /// The person whom it does not show: the record id of a [`PersonBody`] in the same gallery.
    pub person: Uuid,
    /// The embedding space, as of a [`TemplateBody`].
    pub space_id: String,
    /// How good the picture was, in [0, 1]; kept in steps of 1/65535, in two bytes, so that no anchor is as long as a template
    /// and what keeps out is never read as what lets in.
    pub quality: f32,
    /// The embedding, as of a [`TemplateBody`].
    pub embedding: Box<[f32; EMBEDDING_LEN]>,
}

/// What a credential is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CredentialKind {
    /// A number typed by the person.
    Pin = 1,
    /// A card or tag.
    Card = 2,
    /// A printed or displayed code.
    Code = 3,
}

/// A second factor, as a hash keyed with the gallery's CK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialBody {
    /// The person it belongs to.
    pub person: Uuid,
    /// What it is.
    pub kind: CredentialKind,
    /// HMAC-SHA256(CK, the credential).
    pub keyed_hash: [u8; 32],
}

/// What a rule is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RuleKind {
    /// Weekly hours.
    Schedule = 1,
    /// Days that differ from the week.
    Holiday = 2,
    /// Who may pass which door.
    Policy = 3,
}

/// A rule, as the JSON document that the hub wrote, byte for byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleBody {
    /// What it is.
    pub kind: RuleKind,
    /// The document.
    pub document: String,
}

/// The body of any record.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// Of a [`Kind::Person`].
    Person(PersonBody),
    /// Of a [`Kind::Template`].
    Template(TemplateBody),
    /// Of a [`Kind::Credential`].
    Credential(CredentialBody),
    /// Of a [`Kind::Rule`].
    Rule(RuleBody),
    /// Of a [`Kind::Anchor`].
    Anchor(AnchorBody),
}

/// Why bytes are not a body, or a value cannot become one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Fewer bytes than the fields need.
    #[error("{kind:?} body is truncated: {found} bytes")]
    Truncated {
        /// The kind of body.
        kind: Kind,
        /// How many bytes there are.
        found: usize,
    },
    /// More bytes than the fields need.
    #[error("{kind:?} body has {extra} bytes after its end")]
    Trailing {
        /// The kind of body.
        kind: Kind,
        /// How many there are too many.
        extra: usize,
    },
    /// Written by a newer hub; the agent must be updated before it can decide by it.
    #[error("{kind:?} body format {found} is not known (this program knows {BODY_VERSION}); update the program")]
    UnknownVersion {
        /// The kind of body.
        kind: Kind,
        /// The first byte.
        found: u8,
    },
    /// A field has a value that is not allowed.
    #[error("{kind:?} body: field {field} is not valid")]
    Invalid {
        /// The kind of body.
        kind: Kind,
        /// The field.
        field: &'static str,
    },
}

impl PersonBody {
    /// A body with its groups sorted and without duplicates.
    pub fn new(state: PersonState, valid_from: Option<i64>, valid_until: Option<i64>, mut groups: Vec<Uuid>) -> Self {
        groups.sort_unstable();
        groups.dedup();
        Self { state, valid_from, valid_until, groups }
    }
}

impl Body {
    /// The kind of record that carries this body.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Person(_) => Kind::Person,
            Self::Template(_) => Kind::Template,
            Self::Credential(_) => Kind::Credential,
            Self::Rule(_) => Kind::Rule,
            Self::Anchor(_) => Kind::Anchor,
        }
    }

    /// The canonical bytes. Fails on a value that [`Body::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, BodyError> {
        let mut out = vec![BODY_VERSION];
        match self {
            Self::Person(body) => encode_person(body, &mut out)?,
            Self::Template(body) => encode_template(body, &mut out)?,
            Self::Credential(body) => {
                out.extend_from_slice(body.person.as_bytes());
                out.push(body.kind as u8);
                out.extend_from_slice(&body.keyed_hash);
            }
            Self::Rule(body) => {
                out.push(body.kind as u8);
                out.extend_from_slice(body.document.as_bytes());
            }
            Self::Anchor(body) => encode_anchor(body, &mut out)?,
        }
        Ok(out)
    }

    /// Reads the body of a record of this kind.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, BodyError> {
        let truncated = || BodyError::Truncated { kind, found: bytes.len() };
        let mut reader = Reader(bytes);
        let version = reader.u8().ok_or_else(truncated)?;
        if version != BODY_VERSION {
            return Err(BodyError::UnknownVersion { kind, found: version });
        }
        let body = match kind {
            Kind::Person => decode_person(&mut reader),
            Kind::Template => decode_template(&mut reader),
            Kind::Credential => decode_credential(&mut reader),
            Kind::Rule => decode_rule(&mut reader),
            Kind::Anchor => decode_anchor(&mut reader),
        }
        .map_err(|stop| match stop {
            Stop::Truncated => truncated(),
            Stop::Invalid(field) => BodyError::Invalid { kind, field },
        })?;
        if !reader.is_empty() {
            return Err(BodyError::Trailing { kind, extra: reader.0.len() });
        }
        Ok(body)
    }
}

/// Why a decoder stopped; the caller adds kind and length.
enum Stop {
    Truncated,
    Invalid(&'static str),
}

fn need<T>(value: Option<T>) -> Result<T, Stop> {
    value.ok_or(Stop::Truncated)
}

fn encode_person(body: &PersonBody, out: &mut Vec<u8>) -> Result<(), BodyError> {
    let invalid = |field| BodyError::Invalid { kind: Kind::Person, field };
    let n_groups = u16::try_from(body.groups.len()).map_err(|_| invalid("groups"))?;
    if !body.groups.is_sorted_by(|a, b| a < b) {
        return Err(invalid("groups"));
    }
    out.push(body.state as u8);
    for time in [body.valid_from, body.valid_until] {
        out.push(u8::from(time.is_some()));
        out.extend_from_slice(&time.unwrap_or(0).to_be_bytes());
    }
    out.extend_from_slice(&n_groups.to_be_bytes());
    for group in &body.groups {
        out.extend_from_slice(group.as_bytes());
    }
    Ok(())
}

fn decode_person(reader: &mut Reader<'_>) -> Result<Body, Stop> {
    let state = match need(reader.u8())? {
        1 => PersonState::Active,
        2 => PersonState::Suspended,
        _ => return Err(Stop::Invalid("state")),
    };
    let valid_from = decode_time(reader, "valid_from")?;
    let valid_until = decode_time(reader, "valid_until")?;
    let n_groups = need(reader.u16())?;
    let groups = (0..n_groups).map(|_| need(reader.array()).map(Uuid::from_bytes)).collect::<Result<Vec<_>, _>>()?;
    if !groups.is_sorted_by(|a, b| a < b) {
        return Err(Stop::Invalid("groups"));
    }
    Ok(Body::Person(PersonBody { state, valid_from, valid_until, groups }))
}

fn decode_time(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<i64>, Stop> {
    match (need(reader.u8())?, need(reader.i64())?) {
        (1, time) => Ok(Some(time)),
        (0, 0) => Ok(None),
        _ => Err(Stop::Invalid(field)),
    }
}

fn encode_template(body: &TemplateBody, out: &mut Vec<u8>) -> Result<(), BodyError> {
    check_template(body).map_err(|field| BodyError::Invalid { kind: Kind::Template, field })?;
    push_owner(body.person, &body.space_id, out);
    out.extend_from_slice(&body.quality.to_be_bytes());
    push_embedding(&body.embedding, out);
    Ok(())
}

/// Steps of an anchor's quality.
const QUALITY_STEPS: f64 = 65_535.0;

fn encode_anchor(body: &AnchorBody, out: &mut Vec<u8>) -> Result<(), BodyError> {
    check_vector(&body.space_id, &body.embedding).map_err(|field| BodyError::Invalid { kind: Kind::Anchor, field })?;
    if !(0.0..=1.0).contains(&body.quality) {
        return Err(BodyError::Invalid { kind: Kind::Anchor, field: "quality" });
    }
    push_owner(body.person, &body.space_id, out);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0 and at most 65535")]
    let steps = (f64::from(body.quality) * QUALITY_STEPS).round() as u16;
    out.extend_from_slice(&steps.to_be_bytes());
    push_embedding(&body.embedding, out);
    Ok(())
}

fn push_owner(person: Uuid, space_id: &str, out: &mut Vec<u8>) {
    let length = u8::try_from(space_id.len()).expect("check_vector bounds it by 255");
    out.reserve(16 + 1 + space_id.len() + 4 + EMBEDDING_LEN * 4);
    out.extend_from_slice(person.as_bytes());
    out.push(length);
    out.extend_from_slice(space_id.as_bytes());
}

fn push_embedding(embedding: &[f32; EMBEDDING_LEN], out: &mut Vec<u8>) {
    for component in embedding {
        out.extend_from_slice(&component.to_le_bytes());
    }
}

fn decode_template(reader: &mut Reader<'_>) -> Result<Body, Stop> {
    let (person, space_id) = read_owner(reader)?;
    let quality = f32::from_be_bytes(need(reader.array())?);
    let body = TemplateBody { person, space_id, quality, embedding: read_embedding(reader)? };
    check_template(&body).map_err(Stop::Invalid)?;
    Ok(Body::Template(body))
}

fn decode_anchor(reader: &mut Reader<'_>) -> Result<Body, Stop> {
    let (person, space_id) = read_owner(reader)?;
    let steps = u16::from_be_bytes(need(reader.array())?);
    #[expect(clippy::cast_possible_truncation, reason = "of 16 bits, which an f32 holds")]
    let quality = (f64::from(steps) / QUALITY_STEPS) as f32;
    let body = AnchorBody { person, space_id, quality, embedding: read_embedding(reader)? };
    check_vector(&body.space_id, &body.embedding).map_err(Stop::Invalid)?;
    Ok(Body::Anchor(body))
}

fn read_owner(reader: &mut Reader<'_>) -> Result<(Uuid, String), Stop> {
    let person = Uuid::from_bytes(need(reader.array())?);
    let length = usize::from(need(reader.u8())?);
    let space_id = String::from_utf8(need(reader.take(length))?.to_vec()).map_err(|_| Stop::Invalid("space_id"))?;
    Ok((person, space_id))
}

fn read_embedding(reader: &mut Reader<'_>) -> Result<Box<[f32; EMBEDDING_LEN]>, Stop> {
    let mut embedding = Box::new([0.0; EMBEDDING_LEN]);
    for component in embedding.iter_mut() {
        *component = f32::from_le_bytes(need(reader.array())?);
    }
    Ok(embedding)
}

fn check_template(body: &TemplateBody) -> Result<(), &'static str> {
    if !(0.0..=1.0).contains(&body.quality) {
        return Err("quality");
    }
    check_vector(&body.space_id, &body.embedding)
}

fn check_vector(space_id: &str, embedding: &[f32; EMBEDDING_LEN]) -> Result<(), &'static str> {
    if space_id.is_empty() || space_id.len() > MAX_SPACE_ID_LEN {
        return Err("space_id");
    }
    if !embedding.iter().all(|component| component.is_finite()) {
        return Err("embedding");
    }
    Ok(())
}

fn decode_credential(reader: &mut Reader<'_>) -> Result<Body, Stop> {
    let person = Uuid::from_bytes(need(reader.array())?);
    let kind = match need(reader.u8())? {
        1 => CredentialKind::Pin,
        2 => CredentialKind::Card,
        3 => CredentialKind::Code,
        _ => return Err(Stop::Invalid("kind")),
    };
    Ok(Body::Credential(CredentialBody { person, kind, keyed_hash: need(reader.array())? }))
}

fn decode_rule(reader: &mut Reader<'_>) -> Result<Body, Stop> {
    let kind = match need(reader.u8())? {
        1 => RuleKind::Schedule,
        2 => RuleKind::Holiday,
        3 => RuleKind::Policy,
        _ => return Err(Stop::Invalid("kind")),
    };
    let rest = std::mem::take(&mut reader.0);
    let document = String::from_utf8(rest.to_vec()).map_err(|_| Stop::Invalid("document"))?;
    Ok(Body::Rule(RuleBody { kind, document }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> Body {
        let group = Uuid::from_u128(0x3031_3233_3435_3637_3839_3a3b_3c3d_3e3f);
        Body::Person(PersonBody::new(PersonState::Active, Some(1000), None, vec![group, group]))
    }

    fn template() -> TemplateBody {
        TemplateBody {
            person: Uuid::from_u128(1),
            space_id: "fp-r1".to_owned(),
            quality: 0.75,
            embedding: Box::new(std::array::from_fn(|i| f32::from(u16::try_from(i).unwrap()) / -512.0)),
        }
    }

    fn anchor() -> AnchorBody {
        let (space_id, embedding) = ("fp-r1".to_owned(), template().embedding);
        AnchorBody { person: Uuid::from_u128(1), space_id, quality: 1.0, embedding }
    }

    fn all() -> [Body; 5] {
        let credential = CredentialBody { person: Uuid::from_u128(1), kind: CredentialKind::Pin, keyed_hash: [9; 32] };
        let rule = RuleBody { kind: RuleKind::Schedule, document: r#"{"v":1}"#.to_owned() };
        [person(), Body::Template(template()), Body::Credential(credential), Body::Rule(rule), Body::Anchor(anchor())]
    }

    #[test]
    fn a_person_has_the_specified_bytes() {
        assert_eq!(
            hex::encode(person().encode().unwrap()),
            "01010100000000000003e80000000000000000000001303132333435363738393a3b3c3d3e3f"
        );
    }

    #[test]
    fn bodies_survive_the_round_trip_and_shorter_or_longer_ones_are_refused() {
        for body in all() {
            let bytes = body.encode().unwrap();
            assert_eq!(Body::decode(body.kind(), &bytes), Ok(body.clone()));
            if body.kind() == Kind::Rule {
                continue; // its document takes all that is there
            }
            for length in 0..bytes.len() {
                assert!(Body::decode(body.kind(), &bytes[..length]).is_err(), "{:?} {length}", body.kind());
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(Body::decode(body.kind(), &longer), Err(BodyError::Trailing { kind: body.kind(), extra: 1 }));
        }
    }

    #[test]
    fn embeddings_are_little_endian_and_keep_their_bits() {
        let mut body = template();
        body.embedding[0] = f32::from_bits(0x3f80_0001);
        body.embedding[1] = -0.0;
        let bytes = Body::Template(body.clone()).encode().unwrap();
        let start = bytes.len() - EMBEDDING_LEN * 4;
        assert_eq!(bytes[start..start + 8], [0x01, 0, 0x80, 0x3f, 0, 0, 0, 0x80]);
        let Ok(Body::Template(read)) = Body::decode(Kind::Template, &bytes) else { panic!("not a template") };
        assert!(read.embedding.iter().zip(body.embedding.iter()).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn values_that_mean_nothing_are_refused_in_both_directions() {
        type Spoil = fn(&mut TemplateBody);
        let cases: [(&str, Spoil); 5] = [
            ("space_id", |b| b.space_id.clear()),
            ("space_id", |b| b.space_id = "x".repeat(256)),
            ("quality", |b| b.quality = 1.5),
            ("quality", |b| b.quality = f32::NAN),
            ("embedding", |b| b.embedding[511] = f32::INFINITY),
        ];
        for (field, spoil) in cases {
            let mut body = template();
            spoil(&mut body);
            let refused = Body::Template(body).encode();
            assert_eq!(refused, Err(BodyError::Invalid { kind: Kind::Template, field }));
        }
        let mut bytes = Body::Template(template()).encode().unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        let refused = Body::decode(Kind::Template, &bytes);
        assert_eq!(refused, Err(BodyError::Invalid { kind: Kind::Template, field: "embedding" }));
    }

    #[test]
    fn an_anchor_has_the_specified_bytes_and_is_no_template() {
        let bytes = Body::Anchor(anchor()).encode().unwrap();
        assert_eq!(bytes.len(), 1 + 16 + 1 + 5 + 2 + EMBEDDING_LEN * 4);
        assert_eq!(bytes[17..25], *b"\x05fp-r1\xff\xff");
        assert!(Body::decode(Kind::Template, &bytes).is_err(), "what keeps out must not be read as what lets in");
        let template = Body::Template(template()).encode().unwrap();
        assert!(Body::decode(Kind::Anchor, &template).is_err());
        let mut body = anchor();
        body.embedding[511] = f32::INFINITY;
        let refused = Body::Anchor(body).encode();
        assert_eq!(refused, Err(BodyError::Invalid { kind: Kind::Anchor, field: "embedding" }));
        let nameless = Body::Anchor(AnchorBody { space_id: String::new(), ..anchor() }).encode();
        assert_eq!(nameless, Err(BodyError::Invalid { kind: Kind::Anchor, field: "space_id" }));
    }

    #[test]
    fn a_second_encoding_of_the_same_person_is_refused() {
        let mut unsorted =
            PersonBody::new(PersonState::Active, None, None, vec![Uuid::from_u128(1), Uuid::from_u128(2)]);
        let bytes = Body::Person(unsorted.clone()).encode().unwrap();
        unsorted.groups.swap(0, 1);
        let invalid = || BodyError::Invalid { kind: Kind::Person, field: "groups" };
        assert_eq!(Body::Person(unsorted).encode(), Err(invalid()));
        let mut swapped = bytes.clone();
        let start = bytes.len() - 32;
        swapped[start..].rotate_left(16);
        assert_eq!(Body::decode(Kind::Person, &swapped), Err(invalid()));
        let mut absent = bytes;
        absent[3] = 1; // a time that is said to be absent, but is not zero
        let refused = Body::decode(Kind::Person, &absent);
        assert_eq!(refused, Err(BodyError::Invalid { kind: Kind::Person, field: "valid_from" }));
    }

    #[test]
    fn a_group_stands_once_in_a_person() {
        let twice = Uuid::from_u128(1);
        let body =
            PersonBody { groups: vec![twice, twice], ..PersonBody::new(PersonState::Active, None, None, Vec::new()) };
        let invalid = || BodyError::Invalid { kind: Kind::Person, field: "groups" };
        assert_eq!(Body::Person(body.clone()).encode(), Err(invalid()));
        let once = PersonBody::new(body.state, None, None, vec![twice, Uuid::from_u128(2)]);
        let mut bytes = Body::Person(once).encode().unwrap();
        *bytes.last_mut().unwrap() = 1;
        assert_eq!(Body::decode(Kind::Person, &bytes), Err(invalid()));
        assert_eq!(PersonBody::new(body.state, None, None, body.groups).groups, [twice]);
    }

    #[test]
    fn every_state_and_kind_is_one_byte_that_is_read_back_and_no_other_byte_is() {
        let states = [PersonState::Active, PersonState::Suspended];
        let person = states.map(|state| Body::Person(PersonBody::new(state, Some(-1), Some(i64::MAX), Vec::new())));
        let credential = [CredentialKind::Pin, CredentialKind::Card, CredentialKind::Code]
            .map(|kind| Body::Credential(CredentialBody { person: Uuid::from_u128(1), kind, keyed_hash: [9; 32] }));
        let rule = [RuleKind::Schedule, RuleKind::Holiday, RuleKind::Policy]
            .map(|kind| Body::Rule(RuleBody { kind, document: "{}".to_owned() }));
        for (bodies, at, field) in [(&person[..], 1, "state"), (&credential[..], 17, "kind"), (&rule[..], 1, "kind")] {
            for (body, byte) in bodies.iter().zip(1..) {
                let bytes = body.encode().unwrap();
                assert_eq!(bytes[at], byte);
                assert_eq!(Body::decode(body.kind(), &bytes).as_ref(), Ok(body));
                for unknown in [0, u8::try_from(bodies.len()).unwrap() + 1, 255] {
                    let mut changed = bytes.clone();
                    changed[at] = unknown;
                    let invalid = BodyError::Invalid { kind: body.kind(), field };
                    assert_eq!(Body::decode(body.kind(), &changed), Err(invalid), "{unknown}");
                }
            }
        }
    }

    #[test]
    fn a_quality_and_a_name_may_be_as_large_as_they_may_be() {
        for quality in [0.0, 1.0] {
            let longest = TemplateBody { quality, space_id: "x".repeat(255), ..template() };
            let bytes = Body::Template(longest.clone()).encode().unwrap();
            assert_eq!(Body::decode(Kind::Template, &bytes), Ok(Body::Template(longest)));
        }
        for quality in [-0.01, 1.01, f32::NAN] {
            let refused = Body::Anchor(AnchorBody { quality, ..anchor() }).encode();
            assert_eq!(refused, Err(BodyError::Invalid { kind: Kind::Anchor, field: "quality" }));
        }
        let half = Body::Anchor(AnchorBody { quality: 0.5, ..anchor() }).encode().unwrap();
        assert_eq!(half[23..25], [0x80, 0], "steps are rounded to the nearest");
        let Ok(Body::Anchor(read)) = Body::decode(Kind::Anchor, &half) else { panic!("not an anchor") };
        assert!((read.quality - 0.5).abs() < 1.0 / 65_535.0);
    }

    #[test]
    fn newer_formats_are_named() {
        let refused = Body::decode(Kind::Rule, &[2, 1]);
        assert_eq!(refused, Err(BodyError::UnknownVersion { kind: Kind::Rule, found: 2 }));
    }
}
