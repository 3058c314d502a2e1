//! Bodies of requests that are not JSON.

use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, Schema};

use super::named::named_schemas;

named_schemas! {
    /// A form with photographs, JPEG or PNG, one in each field named `photo`.
    PhotographForm => form(ArrayBuilder::new().items(picture()).min_items(Some(1)).into());
    /// A form with one picture, JPEG or PNG, in the field `photo`.
    PictureForm => form(picture().into());
    /// A form with one picture, JPEG, PNG or WebP.
    ImageForm => images(&["image"]).required("image");
    /// A form with a picture, JPEG, PNG or WebP, and everything else as JSON in `options`.
    ProbeForm => images(&["image"]).property("options", options());
    /// A form with frames, JPEG, PNG or WebP, each in a part named `image`, and everything else as JSON in `options`.
    FramesForm => images(&[])
        .property("image", ArrayBuilder::new().items(picture()).min_items(Some(1)))
        .required("image")
        .property("options", options());
    /// A form with two pictures, JPEG, PNG or WebP, or with a template in `options` in the place of one.
    PairForm => images(&["image", "other_image"]).property("options", options());
}

fn images(names: &[&str]) -> ObjectBuilder {
    let closed = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    names.iter().fold(closed, |form, name| form.property(*name, picture()))
}

fn options() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some("The fields of the JSON body that are no pictures"))
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
