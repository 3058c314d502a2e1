//! What can go wrong with keys.

use std::path::PathBuf;

use gallery_log::KeyId;
use uuid::Uuid;

use hub_domain::ids::{PersonId, TenantId};
use hub_domain::permission::Permissions;
use hub_domain::session::SessionError;
use hub_domain::vault::VaultError;
use hub_host::secret_file::SecretFileError;
use hub_store::StoreError;

/// An operation with keys failed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A key file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A key file has other content than this program writes.
    #[error("key file {path} is damaged: restore it from a backup; without it what it protects is lost")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The key store outside Postgres.
    #[error("person key store {path}: {source}")]
    Persons {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The folder of person keys that several hubs share.
    #[error(
        "person keys in {path}: {source}; data.person_keys_dir must be the folder that all hubs share, and hold the file person-keys.v1"
    )]
    PersonFolder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A row of a person without their key: erased by a deletion that is not finished, or the key store is older than
    /// the database.
    #[error("person {0} has no key in the key store")]
    NoPersonKey(PersonId),
    /// A tenant without keys.
    #[error("tenant {0} has no key: restore the table tenant_secret")]
    NoTenantKey(TenantId),
    /// A seal under a master key that is not there.
    #[error(
        "sealed under master key {0}, which is not among this hub's: put the file back that was copied when it was replaced"
    )]
    OtherMaster(KeyId),
    /// Two rotations of the master key do not mix.
    #[error("the master key is being replaced: another one can take its place when that is done")]
    MasterUnderWay,
    /// The next master key has not been made, or not been copied to this hub.
    #[error(
        "there is no next master key on this hub: make it on one of them by `cloud-hub keys rotate master`, and copy keys/master-next.key here"
    )]
    NoNextMaster,
    /// The key before is needed still.
    #[error("the master key before is needed still: `cloud-hub keys status` says by whom")]
    MasterNeeded,
    /// Two rotations of the pepper do not mix.
    #[error(
        "the pepper is being replaced: another one can take its place when the one before is forgotten, by `cloud-hub keys retire-pepper`"
    )]
    PepperUnderWay,
    /// The next pepper has not been made, or not been copied to this hub.
    #[error(
        "there is no next pepper on this hub: make it on one of them by `cloud-hub keys rotate pepper`, and copy keys/pepper-next.key here"
    )]
    NoNextPepper,
    /// There is none to forget.
    #[error("there is no pepper before the present one")]
    NoPepperBefore,
    /// The next signing key has not been made, or not been copied to this hub.
    #[error(
        "there is no next signing key on this hub: it has taken its place already (`cloud-hub keys status`), or is to be made on one hub by `cloud-hub keys rotate signing`, and keys/signing-next.p8 to be copied here"
    )]
    NoNextSigningKey,
    /// There is none to retire.
    #[error("there is no signing key before the present one that devices are told to believe")]
    NoSigningKeyBefore,
    /// So many passwords are being looked at that one more would wait too long.
    #[error("too many passwords are being looked at")]
    TooManyPasswords,
    /// Somebody decides over what has more rights than they have.
    #[error("nobody gives away or takes what they do not have")]
    Beyond(Permissions),
    /// A key of access tokens is none.
    #[error("key {0} of access tokens is unreadable: cloud-hub keys rotate-jwt --revoke-old")]
    TokenKey(Uuid),
    /// A search by vectors would find the nearest of some.
    #[error("the searchable vectors are being made anew after a crash of the database")]
    VectorsMissing,
    /// A session does not allow it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Work on keys was thrown away by a panic.
    #[error("work on keys was not finished")]
    Crashed,
    /// Sealing or opening.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] gallery_log::keys::NoRandomness),
    /// A stored template is not one.
    #[error("stored template is unreadable")]
    Template(#[from] gallery_log::BodyError),
}
