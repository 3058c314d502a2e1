//! Identifiers as distinct types, so that a person can never be passed where a device belongs.
//!
//! All are UUIDs. Rows that are read in order have version 7, made by the caller from its clock; people,
//! templates and anchors have version 4, because their ids go into galleries and shall tell nothing.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The UUID inside.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// A customer of the hub; the border that nothing crosses.
    TenantId
);
id!(
    /// A place with a time zone and one gallery.
    SiteId
);
id!(
    /// A role that a tenant made.
    RoleId
);
id!(
    /// A door of a site.
    DoorId
);
id!(
    /// A command to a device, version 7.
    CommandId
);
id!(
    /// A site's log of people, templates and rules.
    GalleryId
);
id!(
    /// Somebody who may be recognised.
    PersonId
);
id!(
    /// Somebody who logs in.
    UserId
);
id!(
    /// One log-in of a user, version 7.
    LoginId
);
id!(
    /// One embedding of a person in one space.
    TemplateId
);
id!(
    /// One embedding that is on record as not being a person.
    AnchorId
);
id!(
    /// An edge agent: the common name of its certificate.
    DeviceId
);
id!(
    /// A one-time right to become a device.
    ClaimId
);
id!(
    /// An API key's public half.
    ApiKeyId
);
id!(
    /// The public half of a key of a platform administrator.
    PlatformKeyId
);
id!(
    /// A program that reads a tenant's feed at the broker.
    ConsumerId
);
id!(
    /// An event; also the `webhook-id` of its deliveries.
    EventId
);
id!(
    /// A webhook endpoint.
    EndpointId
);
id!(
    /// An enrolment, verification or identification, version 7.
    SessionId
);
id!(
    /// A snapshot of a gallery, for one device.
    SnapshotId
);

impl ConsumerId {
    /// Its user name at the broker, and its client id there: neither a device's, which is a bare UUID, nor the hub's.
    #[must_use]
    pub fn user_name(self) -> String {
        format!("consumer-{self}")
    }
}
