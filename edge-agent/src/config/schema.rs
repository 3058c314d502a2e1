//! Which keys a section may have, and which of them a misspelt one probably meant.
//!
//! In: the configuration structs themselves, through their `Deserialize`. Out: key names and suggestions. The list of
//! valid keys is asked of the struct, so it cannot drift away from it.

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

/// The field names of a struct that derives `Deserialize`, in the order of declaration. Empty for other types.
#[must_use]
pub(super) fn fields_of<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // The answer is always an error; the names are the point of the call.
    let _ = T::deserialize(FieldProbe(&mut fields));
    fields
}

struct FieldProbe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldProbe<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("a probe holds no data"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Self::Error::custom("a probe holds no data"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The valid key nearest to `written`; `None` when none is near enough to be what was meant.
#[must_use]
pub(super) fn nearest<'a>(written: &str, valid: &[&'a str]) -> Option<&'a str> {
    let limit = written.len().max(3) / 2;
    valid
        .iter()
        .map(|key| (edit_distance(written, key), *key))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, key)| key)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the names matter")]
    struct Sample {
        hold: u8,
        fail: u8,
    }

    #[test]
    fn the_struct_itself_says_its_keys() {
        assert_eq!(fields_of::<Sample>(), ["hold", "fail"]);
        assert!(fields_of::<u8>().is_empty());
    }

    #[test]
    fn typing_slips_find_their_key_and_nonsense_does_not() {
        let valid = ["hold", "camera", "actuator", "policy"];
        assert_eq!(nearest("hodl", &valid), Some("hold"));
        assert_eq!(nearest("actuater", &valid), Some("actuator"));
        assert_eq!(nearest("zzzzzzzz", &valid), None);
    }
}
