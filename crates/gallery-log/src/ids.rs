//! Names of things in the log. Each is a UUID with a type of its own, so that they cannot be mixed up.

use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The 16 bytes of the id, in network order, as they enter hashes and additional data.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id with these 16 bytes; every value is allowed.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A customer of the hub. Nothing of one tenant opens under the seal of another.
    TenantId
}
id! {
    /// A gallery: the people, rules and credentials of one site or door group.
    GalleryId
}
id! {
    /// One entry of a gallery (a person, a template, a credential or a rule). Random, and never used again after a `del`.
    RecordId
}
