//! The device authority and the service authority, and how others take their places under the same root.
//!
//! ```text
//! device-ca.key, .pem            issues devices' certificates
//! device-ca-next.key, .pem       believed already; made by the first half of a rotation, and copied to the other hubs if there are some
//! device-ca-previous.key, .pem   the one before: believed until it is retired, and signs its own revocation list until then
//! service-ca.key, .pem           issues the hub's and the broker's certificates
//! service-ca-next.key, .pem      as above
//! service-ca-previous.key        a second name of the key before, for the moment until it is destroyed
//! ```
//!
//! In: the folder and the root. Out: who signs, and who is believed. Two files cannot change place at once: the certificate does so first, and
//! a key that does not go with it while the next one does is what a kill left; the start ends such a change. Before that everything is as it was.
//! Deliberately absent: who must be told, and which devices are left (`api::hub_authorities`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rcgen::ExtendedKeyUsagePurpose;
use time::OffsetDateTime;

use super::PkiError;
use super::authority::{Authority, Pair, Wanted, fit, read_public, remove_public, write_public};
use hub_host::secret_file;

/// One of the two authorities below the root.
struct Kind {
    name: &'static str,
    common_name: &'static str,
    usage: ExtendedKeyUsagePurpose,
}

static DEVICES: Kind =
    Kind { name: "device-ca", common_name: "Lintel device authority", usage: ExtendedKeyUsagePurpose::ClientAuth };
static SERVICES: Kind =
    Kind { name: "service-ca", common_name: "Lintel service authority", usage: ExtendedKeyUsagePurpose::ServerAuth };

/// The authorities that there are at one moment.
pub(super) struct Held {
    /// Issues devices' certificates.
    pub(super) devices: Authority,
    /// Issues servers' certificates.
    pub(super) services: Authority,
    /// Is to take the place of the one that issues devices' certificates.
    next: Option<Authority>,
    /// The device authority before.
    before: Option<Authority>,
}

impl Held {
    /// Those whose devices are believed: the one that issues first.
    pub(super) fn believed(&self) -> impl Iterator<Item = &Authority> {
        [Some(&self.devices), self.next.as_ref(), self.before.as_ref()].into_iter().flatten()
    }
}

/// The authorities of one hub.
pub(super) struct Authorities {
    dir: PathBuf,
    pub(super) root: Authority,
    held: RwLock<Arc<Held>>,
    /// One step of a rotation at a time.
    changing: Mutex<()>,
}

impl Authorities {
    /// Reads the authorities in `dir`, making them first if there are none. A change that a kill interrupted is ended.
    pub(super) fn open(dir: &Path, now: OffsetDateTime) -> Result<Self, PkiError> {
        let root = |_: &[u8; 32]| Wanted { common_name: "Lintel root".to_owned(), parent: None, usages: Vec::new() };
        let root = Authority::load_or_make(&Pair::of(dir, "root"), root, now)?;
        for kind in [&DEVICES, &SERVICES] {
            end_exchange(dir, kind)?;
            // Without a number: whoever looks finds the first one under the name that it always had.
            let first = |_: &[u8; 32]| wanted(kind, kind.common_name.to_owned(), &root);
            Authority::load_or_make(&kind.present(dir), first, now)?;
            drop_half_previous(dir, kind)?;
        }
        let went_over = DEVICES.previous(dir).is_whole() && !DEVICES.next(dir).is_whole();
        if went_over && SERVICES.next(dir).is_whole() {
            // The first of the two had changed already.
            exchange(dir, &SERVICES)?;
        }
        drop_previous(dir, &SERVICES)?;
        let held = read(dir, &root)?;
        Ok(Self { dir: dir.to_owned(), root, held: RwLock::new(Arc::new(held)), changing: Mutex::default() })
    }

    /// As they are now.
    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read())
    }

    /// The device authority before, while it is believed.
    pub(super) fn before(&self) -> Option<[u8; 32]> {
        self.held().before.as_ref().map(|before| before.spki_sha256)
    }

    /// The device authority that is to take the place of the present one.
    pub(super) fn next(&self) -> Option<[u8; 32]> {
        self.held().next.as_ref().map(|next| next.spki_sha256)
    }

    /// Looks whether somebody has copied the next authority here, or taken it away. True if so.
    pub(super) fn look_again(&self) -> Result<bool, PkiError> {
        if DEVICES.next(&self.dir).is_whole() == self.held().next.is_some() {
            return Ok(false);
        }
        let _alone = self.changing.lock();
        let before = self.next();
        self.read_again()?;
        Ok(self.next() != before)
    }

    /// Makes the next authorities, unless they are there. From here on devices of the next one are believed.
    pub(super) fn prepare(&self, now: OffsetDateTime) -> Result<(), PkiError> {
        let _alone = self.changing.lock();
        if self.before().is_some() {
            return Err(PkiError::UnderWay);
        }
        for kind in [&DEVICES, &SERVICES] {
            let next = kind.next(&self.dir);
            if !next.is_whole() {
                // What a kill left of one that nobody was told of.
                drop_pair(&next)?;
            }
            // A name of its own, so that nobody takes a list or a certificate of the one for those of the other.
            let named = |spki: &[u8; 32]| {
                let name = format!("{} {}", kind.common_name, hex::encode(&spki[..4]));
                wanted(kind, name, &self.root)
            };
            Authority::load_or_make(&next, named, now)?;
        }
        self.read_again()
    }

    /// Puts the next authorities in the places of the present ones. The device authority before is kept; the service authority before has
    /// nothing to do any more and is destroyed. Nothing changes if there are no next ones.
    pub(super) fn switch(&self) -> Result<(), PkiError> {
        let _alone = self.changing.lock();
        let nexts = [DEVICES.next(&self.dir), SERVICES.next(&self.dir)];
        if !nexts.iter().any(Pair::is_whole) {
            return Ok(());
        }
        if !nexts.iter().all(Pair::is_whole) {
            return Err(PkiError::NoNext);
        }
        // Both are looked at before either changes.
        for next in &nexts {
            if !Authority::read(next)?.is_below(&self.root) {
                return Err(PkiError::Stored { path: next.pem.clone(), what: "authority under this hub's root" });
            }
        }
        if fit(&nexts[0].key, &DEVICES.present(&self.dir).pem) {
            // Copied to a hub that has it already.
            nexts.iter().try_for_each(drop_pair)?;
            return self.read_again();
        }
        if self.before().is_some() {
            return Err(PkiError::UnderWay);
        }
        exchange(&self.dir, &DEVICES)?;
        exchange(&self.dir, &SERVICES)?;
        drop_previous(&self.dir, &SERVICES)?;
        self.read_again()
    }

    /// Believes the device authority before no more, and destroys its key.
    pub(super) fn retire(&self) -> Result<(), PkiError> {
        let _alone = self.changing.lock();
        drop_previous(&self.dir, &DEVICES)?;
        self.read_again()
    }

    fn read_again(&self) -> Result<(), PkiError> {
        *self.held.write() = Arc::new(read(&self.dir, &self.root)?);
        Ok(())
    }
}

impl Kind {
    fn present(&self, dir: &Path) -> Pair {
        Pair::of(dir, self.name)
    }

    fn next(&self, dir: &Path) -> Pair {
        Pair::of(dir, &format!("{}-next", self.name))
    }

    fn previous(&self, dir: &Path) -> Pair {
        Pair::of(dir, &format!("{}-previous", self.name))
    }
}

fn wanted<'a>(kind: &Kind, common_name: String, root: &'a Authority) -> Wanted<'a> {
    Wanted { common_name, parent: Some(root), usages: vec![kind.usage.clone()] }
}

fn read(dir: &Path, root: &Authority) -> Result<Held, PkiError> {
    // Somebody may be copying it just now: what is not whole is not there yet, and `switch` says why.
    let next = Authority::read(&DEVICES.next(dir)).ok().filter(|next| next.is_below(root));
    let previous = DEVICES.previous(dir);
    let before = if previous.is_whole() { Some(Authority::read(&previous)?) } else { None };
    Ok(Held {
        devices: Authority::read(&DEVICES.present(dir))?,
        services: Authority::read(&SERVICES.present(dir))?,
        next,
        before,
    })
}

/// Gives the present authority its second name, and the next one the first.
fn exchange(dir: &Path, kind: &Kind) -> Result<(), PkiError> {
    let (present, next, previous) = (kind.present(dir), kind.next(dir), kind.previous(dir));
    drop_previous(dir, kind)?;
    write_public(&previous.pem, &read_public(&present.pem)?)?;
    secret_file::name_again(&present.key, &previous.key)?;
    secret_file::put_in_place(&next.pem, &present.pem)?;
    end_exchange(dir, kind)
}

/// The second half of an exchange: the certificate has changed place, and its key follows.
fn end_exchange(dir: &Path, kind: &Kind) -> Result<(), PkiError> {
    let (present, next) = (kind.present(dir), kind.next(dir));
    if !fit(&present.key, &present.pem) && fit(&next.key, &present.pem) {
        secret_file::put_in_place(&next.key, &present.key)?;
    }
    Ok(())
}

/// Takes away what a kill left of an exchange that had not begun, or of a retirement that had.
fn drop_half_previous(dir: &Path, kind: &Kind) -> Result<(), PkiError> {
    let previous = kind.previous(dir);
    if !previous.is_whole() || fit(&previous.key, &kind.present(dir).pem) {
        drop_previous(dir, kind)?;
    }
    Ok(())
}

/// Destroys the authority before. While it is the present one still, only its second name goes: both are the same bytes on the disk.
fn drop_previous(dir: &Path, kind: &Kind) -> Result<(), PkiError> {
    let (present, previous) = (kind.present(dir), kind.previous(dir));
    if secret_file::is_one_file(&present.key, &previous.key)? {
        remove_public(&previous.pem)?;
        return Ok(secret_file::remove_name(&previous.key)?);
    }
    drop_pair(&previous)
}

/// Destroys a key and removes its certificate, which goes first: a key that a kill left half overwritten is never taken for one.
fn drop_pair(pair: &Pair) -> Result<(), PkiError> {
    remove_public(&pair.pem)?;
    Ok(secret_file::destroy(&pair.key)?)
}

#[cfg(test)]
mod tests;
