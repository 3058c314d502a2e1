//! A place in a tenant's feed, as clients hold it.
//!
//! The position itself is a small number that invites arithmetic; clients get an opaque text with a version, so
//! that what is behind it can change.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// "Everything up to and including this position has been seen." Zero is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(pub u64);

/// A text that is no cursor of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor is not one that this hub gave out: leave it away to start from the beginning")]
pub struct CursorError;

const VERSION: u8 = 1;

impl Cursor {
    /// The text for clients: base64url of a version byte and the position, big-endian.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = [VERSION; 9];
        bytes[1..].copy_from_slice(&self.0.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text made by [`Cursor::encode`]. Positions above `i64::MAX` are refused: no row can have them.
    pub fn decode(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        match <[u8; 9]>::try_from(bytes) {
            Ok([VERSION, position @ ..]) if position[0] < 0x80 => Ok(Self(u64::from_be_bytes(position))),
            _ => Err(CursorError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_round_trip(position in 0..=(i64::MAX as u64)) {
            prop_assert_eq!(Cursor::decode(&Cursor(position).encode()), Ok(Cursor(position)));
        }

        #[test]
        fn other_texts_are_refused_without_a_panic(text in ".*") {
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }

    #[test]
    fn a_position_that_no_row_can_have_is_refused() {
        assert_eq!(Cursor::decode(&Cursor(1 << 63).encode()), Err(CursorError));
    }
}
