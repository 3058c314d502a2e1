//! The signing key, and how another one takes its place.
//!
//! ```text
//! signing.p8                signs
//! signing-next.p8           made by the first half of a rotation, and copied to the other hubs if there are some
//! signing-previous.p8       a second name of the key before, for the moment until it is destroyed
//! signing-successions.json  no secret: the public halves of all keys before, and what each said of its successor
//! ```
//!
//! In: the folder of the keys. Out: the key that signs, with its past. The key before vouches for its successor with its last signature,
//! which is on the disk before anything else changes; from there on a hub that was killed ends the change when it starts, and before that
//! everything is as it was. A key before is destroyed at once: it signs nothing any more, and devices need its public half alone.
//! Deliberately absent: who must be told (`keys::signing_rotation`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::Succession;
use wire_contract::claim::HubKey;
use zeroize::Zeroizing;

use super::{KeysError, SigningKey};
use hub_host::secret_file::{self, SecretFileError};

/// The key's file in the folder of the hub's keys.
pub(super) const FILE: &str = "signing.p8";
const NEXT: &str = "signing-next.p8";
const PREVIOUS: &str = "signing-previous.p8";
const HISTORY: &str = "signing-successions.json";
/// The version of the file of successions.
const V: u8 = 1;

/// A key before the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Predecessor {
    pub(super) key: HubKey,
    /// No hub signs with it any more: devices need not believe it.
    pub(super) retired: bool,
}

/// The past of a signing key, the oldest first. Nothing of it is ever taken away: a device may have slept through all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    v: u8,
    pub(super) predecessors: Vec<Predecessor>,
    pub(super) successions: Vec<Succession>,
}

impl Default for History {
    fn default() -> Self {
        Self { v: V, predecessors: Vec::new(), successions: Vec::new() }
    }
}

impl History {
    /// Reads the file in `dir`; empty if there is none. One that cannot be read is an error: a hub without it would be refused by devices.
    fn read(dir: &Path) -> Result<Self, KeysError> {
        let path = dir.join(HISTORY);
        match fs::read(&path) {
            Ok(bytes) => {
                let read = serde_json::from_slice::<Self>(&bytes).ok().filter(|history| history.v == V);
                read.ok_or(KeysError::Damaged { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SecretFileError::Io { path, source }.into()),
        }
    }

    fn write(&self, dir: &Path) -> Result<(), KeysError> {
        let json = serde_json::to_vec_pretty(self).expect("a history is a plain struct");
        Ok(secret_file::replace(&dir.join(HISTORY), &json)?)
    }

    /// Whether the key `before` has vouched for `next`.
    fn leads(&self, before: Uuid, next: Uuid) -> bool {
        self.successions.iter().any(|of| of.predecessor == before && of.key.key_id == next)
    }
}

/// What a folder of keys says of signing keys, without their private halves. For whoever verifies.
#[derive(Clone, Debug, Default)]
pub struct SigningPast {
    /// The public halves of the keys before.
    pub before: Vec<HubKey>,
    /// What leads from each to its successor.
    pub successions: Vec<Succession>,
}

impl SigningPast {
    /// Reads what is in a hub's folder of keys; empty if its key was never replaced.
    pub fn in_dir(keys_dir: &Path) -> Result<Self, KeysError> {
        let History { predecessors, successions, .. } = History::read(keys_dir)?;
        Ok(Self { before: predecessors.into_iter().map(|before| before.key).collect(), successions })
    }
}

/// The signing keys of one hub.
pub(super) struct SigningKeys {
    dir: PathBuf,
    present: RwLock<Arc<SigningKey>>,
    /// One step of a rotation at a time.
    changing: Mutex<()>,
}

impl SigningKeys {
    /// Reads the key in `dir`, making the first one if there never was any. A change that a kill interrupted is ended.
    pub(super) fn open(dir: &Path) -> Result<Self, KeysError> {
        let history = History::read(dir)?;
        let path = dir.join(FILE);
        if !path.exists() && !history.predecessors.is_empty() {
            // Another first key would be believed by nobody.
            return Err(KeysError::Damaged { path });
        }
        let present = SigningKey::read(&load_or_make(&path)?, &path)?;
        if let Some(next) = next_in(dir)?
            && history.leads(present.id(), next.id())
        {
            exchange(dir)?;
        }
        drop_previous(dir)?;
        Ok(Self { present: RwLock::new(Arc::new(read(dir)?)), dir: dir.to_owned(), changing: Mutex::default() })
    }

    /// The one that signs.
    pub(super) fn present(&self) -> Arc<SigningKey> {
        Arc::clone(&self.present.read())
    }

    /// The keys before it that may be signed with still, the newest first.
    pub(super) fn before(&self) -> Vec<HubKey> {
        self.present().valid().split_off(1)
    }

    /// Makes the next key, unless there is one.
    pub(super) fn prepare(&self) -> Result<(), KeysError> {
        let _alone = self.changing.lock();
        let path = self.dir.join(NEXT);
        SigningKey::read(&load_or_make(&path)?, &path).map(drop)
    }

    /// The id of the key that is to take the place of the present one.
    pub(super) fn next(&self) -> Result<Option<Uuid>, KeysError> {
        Ok(next_in(&self.dir)?.map(|next| next.id()))
    }

    /// Puts the next key in the place of the present one, which vouches for it and is destroyed. Nothing changes if there is no next one.
    pub(super) fn switch(&self, now: OffsetDateTime) -> Result<(), KeysError> {
        let _alone = self.changing.lock();
        let Some(next) = next_in(&self.dir)? else { return Ok(()) };
        let present = read(&self.dir)?;
        if next.id() == present.id() {
            // Copied to a hub that has it already.
            return Ok(secret_file::destroy(&self.dir.join(NEXT))?);
        }
        let mut history = History::read(&self.dir)?;
        if !history.leads(present.id(), next.id()) {
            history.successions.push(present.vouch_for(&next, now));
            history.predecessors.retain(|before| before.key.key_id != present.id());
            history.predecessors.push(Predecessor { key: present.public(), retired: false });
            history.write(&self.dir)?;
        }
        exchange(&self.dir)?;
        drop_previous(&self.dir)?;
        self.read_again()
    }

    /// Says that no hub signs with the keys before any more; returns which those are.
    pub(super) fn retire(&self) -> Result<Vec<Uuid>, KeysError> {
        let _alone = self.changing.lock();
        let mut history = History::read(&self.dir)?;
        let mut retired = Vec::new();
        for before in history.predecessors.iter_mut().filter(|before| !before.retired) {
            before.retired = true;
            retired.push(before.key.key_id);
        }
        history.write(&self.dir)?;
        self.read_again()?;
        Ok(retired)
    }

    fn read_again(&self) -> Result<(), KeysError> {
        *self.present.write() = Arc::new(read(&self.dir)?);
        Ok(())
    }
}

fn load_or_make(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    secret_file::load_or_make(path, || {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| gallery_log::keys::NoRandomness)?;
        Ok::<_, KeysError>(Zeroizing::new(document.as_ref().to_vec()))
    })
}

fn read(dir: &Path) -> Result<SigningKey, KeysError> {
    let path = dir.join(FILE);
    Ok(SigningKey::read(&secret_file::load(&path)?, &path)?.with(History::read(dir)?))
}

fn next_in(dir: &Path) -> Result<Option<SigningKey>, KeysError> {
    let path = dir.join(NEXT);
    match secret_file::load(&path) {
        Ok(pkcs8) => SigningKey::read(&pkcs8, &path).map(Some),
        Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives the present key a second name, and the next one its first.
fn exchange(dir: &Path) -> Result<(), KeysError> {
    drop_previous(dir)?;
    secret_file::name_again(&dir.join(FILE), &dir.join(PREVIOUS))?;
    Ok(secret_file::put_in_place(&dir.join(NEXT), &dir.join(FILE))?)
}

/// Destroys the key before. While it is the present one still, only its second name goes: both are the same bytes on the disk.
fn drop_previous(dir: &Path) -> Result<(), KeysError> {
    let (present, previous) = (dir.join(FILE), dir.join(PREVIOUS));
    match secret_file::is_one_file(&present, &previous)? {
        true => Ok(secret_file::remove_name(&previous)?),
        false => Ok(secret_file::destroy(&previous)?),
    }
}

#[cfg(test)]
mod tests;
