//! Texts with bounds, as [`Checks`](crate::body::Checks) and the handlers check them.

use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};
use wire_contract::EventClass;

use super::named::named_schemas;
use crate::live_settings::MAX_COMMENT;
use crate::people::MAX_EMAIL;
use crate::roles::MAX_DESCRIPTION;
use crate::sites::{MAX_NAME, MAX_TIME_ZONE};
use crate::webhooks::MAX_URL;
use hub_domain::{role, user};

/// What `Checks::text` takes: no control characters, no blanks at the ends.
const CLEAN: &str =
    r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$";

named_schemas! {
    /// A name for people to read, without control characters and without blanks at its ends.
    Name => text(MAX_NAME).min_length(Some(1)).pattern(Some(CLEAN)).examples(["Main entrance"]);
    /// An IANA time zone.
    TimeZone => text(MAX_TIME_ZONE)
        .min_length(Some(1))
        .pattern(Some(r"^(UTC|GMT|[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)+)$"))
        .examples(["Asia/Jakarta"]);
    /// A mail address.
    Email => text(MAX_EMAIL)
        .pattern(Some(r"^[^\s\u0000-\u001f\u007f-\u009f]+@[^\s\u0000-\u001f\u007f-\u009f@]+$"))
        .examples(["ada@example.org"]);
    /// A name to log in by: no blanks, no control characters.
    Login => text(user::MAX_LOGIN)
        .min_length(Some(1))
        .pattern(Some(r"^[^\s\u0000-\u001f\u007f-\u009f]+$"))
        .examples(["ada@example.org"]);
    /// A role of the program (owner, administrator, operator, auditor, integrator), or one of the tenant's own by its name.
    RoleName => text(role::MAX_NAME)
        .min_length(Some(1))
        .pattern(Some(r"^[a-z][a-z0-9_-]*$"))
        .examples(["auditor"]);
    /// The name of a role that a tenant makes; those of the program's roles are taken.
    OwnRoleName => text(role::MAX_NAME)
        .min_length(Some(1))
        .pattern(Some(r"^[a-z][a-z0-9_-]*$"))
        .examples(["night-shift"]);
    /// What a role is for.
    RoleDescription => text(MAX_DESCRIPTION)
        .pattern(Some(r"^([^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?)?$"));
    /// Why something was changed; may be empty.
    Comment => text(MAX_COMMENT)
        .pattern(Some(r"^([^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?)?$"));
    /// A code of an authenticator app, or a recovery code; blanks and hyphens make no difference.
    OneTimeCode => text(40).min_length(Some(6)).examples(["081804"]);
    /// A password to be chosen: long, of whatever signs; at most 512 bytes.
    Password => text(user::MAX_PASSWORD_BYTES).min_length(Some(user::MIN_PASSWORD));
    /// Where a webhook goes: https, a public address.
    WebhookUrl => text(MAX_URL)
        .min_length(Some(1))
        .format(Some(SchemaFormat::Custom(String::from("uri"))))
        .examples(["https://example.org/lintel"]);
    /// Any RFC 3339 time from 1970 to 9999; finer fractions than milliseconds are cut off.
    Moment => ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples(["2027-01-31T00:00:00Z"]);
    /// Bytes in base64, with padding.
    Base64 => ObjectBuilder::new()
        .schema_type(Type::String)
        .content_encoding("base64")
        .pattern(Some(r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"));
    /// A place in a list of things with ids. Opaque: only what this hub gave out is understood.
    IdCursor => ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^A[g-v][A-Za-z0-9_-]{20}[AEIMQUYcgkosw048]$"));
    /// A place in the feed. Opaque: only what this hub gave out is understood.
    FeedCursor => ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^A[Q-X][A-Za-z0-9_-]{10}$"));
    /// Classes of events, separated by commas.
    ClassList => ObjectBuilder::new().schema_type(Type::String).pattern(Some(class_list())).examples(["access,door"]);
}

fn text(max: usize) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(max))
}

fn class_list() -> String {
    let words = EventClass::ALL.iter().map(|class| class.as_str()).collect::<Vec<_>>().join("|");
    format!("^ *({words})( *, *({words}))* *$")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::encode_id;
    use hub_domain::cursor::Cursor;

    /// Enough of a pattern to try the two below: classes of one character, each with a count.
    fn is_cursor(text: &str, second: std::ops::RangeInclusive<char>, length: usize) -> bool {
        let mut letters = text.chars();
        letters.next() == Some('A')
            && letters.next().is_some_and(|letter| second.contains(&letter))
            && text.len() == length
    }

    #[test]
    fn cursors_that_the_hub_gives_out_are_of_their_pattern() {
        for position in [0, 1, 77, i64::MAX as u64] {
            assert!(is_cursor(&Cursor(position).encode(), 'Q'..='X', 12), "{position}");
        }
        for id in [0, 7, u128::MAX] {
            assert!(is_cursor(&encode_id(uuid::Uuid::from_u128(id)), 'g'..='v', 23), "{id}");
        }
    }

    #[test]
    fn a_list_of_classes_names_each_of_them() {
        let pattern = class_list();
        assert!(EventClass::ALL.iter().all(|class| pattern.contains(class.as_str())), "{pattern}");
    }
}
