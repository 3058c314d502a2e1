//! Schemas by name that no Rust type of the API is: closed words, bounded texts, what the wire's contract defines.
//!
//! A field says which one it is by `#[schema(value_type = …)]`; the document then holds it once and refers to it.

/// Types without values, each of which stands for one schema; its doc comment is the schema's description.
macro_rules! named_schemas {
    ($($(#[doc = $text:literal])+ $name:ident => $schema:expr;)+) => {$(
        $(#[doc = $text])+
        pub(crate) enum $name {}

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::Schema::from($schema.description(Some(concat!($($text),+).trim()))).into()
            }
        }

        impl utoipa::ToSchema for $name {}
    )+};
}
pub(super) use named_schemas;
