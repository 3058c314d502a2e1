//! Bodies of requests that are not JSON.

use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, Schema};

use super::named::named_schemas;

named_schemas! {
    /// A form with photographs, JPEG or PNG, one in each field named `photo`.
    PhotographForm => form(ArrayBuilder::new().items(picture()).min_items(Some(1)).into());
    /// A form with one picture, JPEG or PNG, in the field `photo`.
    PictureForm => form(picture().into());
}

fn form(photo: Schema) -> ObjectBuilder {
    ObjectBuilder::new()
        .property("photo", photo)
        .required("photo")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

fn picture() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
}
