//! A face that was taken at a door for a person: a request that the hub may refuse.
//!
//! In and out: JSON over HTTPS with the device's certificate, in answer to an `enrol` command. The template becomes one of the
//! person's only when the hub stores it; the device itself keeps nothing of it.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::encoding::{Bytes, Score, V1};
use crate::ids::{CommandId, PersonId};

/// Components of an embedding.
pub const DIM: usize = 512;

/// An embedding: 512 × f32, little endian, in base64. Never printed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(Bytes);

impl Template {
    /// The template of a unit vector.
    #[must_use]
    pub fn of(embedding: &[f32; DIM]) -> Self {
        Self(Bytes(embedding.iter().flat_map(|component| component.to_le_bytes()).collect()))
    }

    /// The vector; `None` when it is not 512 finite numbers.
    #[must_use]
    pub fn embedding(&self) -> Option<Box<[f32; DIM]>> {
        if self.0.0.len() != 4 * DIM {
            return None;
        }
        let mut embedding = Box::new([0.0; DIM]);
        for (component, bytes) in embedding.iter_mut().zip(self.0.0.chunks_exact(4)) {
            *component = f32::from_le_bytes(bytes.try_into().ok()?);
        }
        embedding.iter().all(|component| component.is_finite()).then_some(embedding)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template(***)")
    }
}

impl JsonSchema for Template {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9+/]{2731}=$" })
    }
}

/// `POST /v1/device/enrolments`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// Payload version.
    pub v: V1,
    /// The command that asked for it.
    pub command: CommandId,
    /// For whom; the command's.
    pub person: PersonId,
    /// The space of the embedding.
    pub space_id: String,
    /// The model pack that made it.
    pub pack: String,
    /// Quality of the shot, in [0, 1].
    pub quality: Score,
    /// The embedding.
    pub template: Template,
}

/// The hub has taken it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EnrolAnswer {
    /// Payload version.
    pub v: V1,
    /// The template's id.
    pub template: uuid::Uuid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_comes_back_bit_for_bit_and_nothing_else_is_one() {
        let mut embedding = [0.0; DIM];
        embedding[7] = 0.6;
        embedding[8] = -0.8;
        let json = serde_json::to_string(&Template::of(&embedding)).unwrap();
        let read: Template = serde_json::from_str(&json).unwrap();
        assert_eq!(read.embedding().unwrap().map(f32::to_bits), embedding.map(f32::to_bits));
        assert_eq!(format!("{read:?}"), "Template(***)");
        embedding[0] = f32::NAN;
        assert!(Template::of(&embedding).embedding().is_none());
        assert!(serde_json::from_str::<Template>("\"AAAA\"").unwrap().embedding().is_none());
    }
}
