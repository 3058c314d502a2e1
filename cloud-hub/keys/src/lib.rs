//! Where the hub's keys come from and who may use them.
//!
//! ```text
//! MK  master key           file 0600            wraps TK; replaced by `keys rotate master`
//! TK  per tenant           Postgres, under MK   only wraps: PK, GDK, CK, LK, BI, RS, webhook secrets; replaced by `keys rotate tenant`
//! BI  per tenant           Postgres, under TK   finds people and users by keyed marks; replaced by `keys rotate blind-index`
//! RS  per tenant, space    Postgres, under TK   rotates searchable vectors; replaced by `keys rotate seeds`
//! GDK per gallery          Postgres, under TK   keys its digest, as does CK the hashes of credentials; replaced by `keys rotate galleries`
//! PK  per person           key store (redb) outside Postgres, under TK; deleting it erases the person
//! HSK Ed25519              file 0600            signs time, snapshots and audit heads; replaced by `keys rotate signing`
//! JWT Ed25519, some        Postgres, under MK   sign access tokens of users; shared by all hubs, rotated by `keys rotate-jwt`
//! pepper                   file 0600            MACs of API keys, platform keys, claim secrets, refresh tokens, cookies; replaced by `keys rotate pepper`
//! epochs                   file                 what was seen of the database; raised when it was restored from a backup
//! ```
//!
//! In: a directory and a database. Out: [`Keyring`], which unwraps, and [`Custody`], the operations in which a row and
//! a key must change together. Imports `domain`, `store` and `host`. Deliberately absent: what is sealed to which place
//! (`domain::vault`), and certificates (`pki`).

mod access_token;
mod anchors;
mod api_keys;
mod authority_rotation;
mod changes;
mod consumers;
mod custody;
mod deletion;
mod enrolment;
mod entering;
mod error;
mod gallery_rotation;
mod idempotency;
mod imports;
mod index_rotation;
mod keyring;
mod link;
mod logins;
mod masters;
mod near;
mod opener;
mod passwords;
mod pepper_rotation;
mod peppers;
mod person_files;
mod person_rotation;
mod persons;
mod platform_keys;
mod recognised;
mod renewal;
mod restored;
mod roles;
mod rotation;
mod second_factor;
mod seed_rotation;
mod session_frames;
mod sessions;
mod signing;
mod signing_keys;
mod signing_rotation;
mod snapshots;
mod succession;
mod tokens;
mod unsealed;
mod users;

pub use access_token::{Claims, LIFE as ACCESS_LIFE, Untrue};
pub use anchors::{Anchored, NotThem};
pub use api_keys::{Recognised, Rotated, WantedApiKey};
pub use consumers::Password;
pub use custody::{Claimed, Custody, IssuedClaim, LinkGallery, LinkMaterial, NewSite, Redeemed};
pub use deletion::{NotDeleted, Step};
pub use enrolment::{Candidate, Enrolment, NewTemplate, Origin, Sameness, told as duplicate_told};
pub use entering::{Entered, Proof};
pub use error::KeysError;
pub use gallery_rotation::Rekeyed;
pub use idempotency::Claim;
pub use imports::Photographs;
pub use index_rotation::VersionView;
pub use keyring::Keyring;
pub use link::{Accepted, DeviceLinks};
pub use logins::{Granted, LoggedIn, Means, Refreshed};
pub use near::Way;
pub use opener::{Opener, stand_in_leaf};
pub use pepper_rotation::{Forgotten, PepperStanding};
pub use person_rotation::PersonKeysView;
pub use platform_keys::WantedPlatformKey;
pub use restored::{BEAT, Raised};
pub use roles::{RoleDeleted, WantedRole};
pub use rotation::{MasterStanding, Progress, TenantKeyView};
pub use second_factor::{Beginning, Begun, Confirmed, Removed};
pub use sessions::{Decision, JoinedSession, OpenedFrame, OpenedSession, SessionState, WantedSession};
pub use signing::{SigningKey, id_of as signing_key_id};
pub use signing_keys::SigningPast;
pub use snapshots::{Ready, Snapshots};
pub use tokens::{TokenKeyView, TokenKeys};
pub use unsealed::{Found, Row, Unsealed};
pub use users::{Invited, PasswordChange, UserView};
