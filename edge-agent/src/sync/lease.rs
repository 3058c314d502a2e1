//! How long this device may go on with its galleries without hearing from its hub.
//!
//! In: the hub's fresh time at each contact, monotonic and wall time. Out: that the lease is over: then the galleries' keys are
//! destroyed and every door denies by its policy, until there is contact again and the hub has filled them.
//!
//! What counts is the longer of two: how long the device has run since the contact, by its monotonic clock and over all its
//! runs; and how long ago the contact is by the wall clock, where that can be trusted. So a clock that was set back prolongs
//! nothing, one that cannot be trusted ends nothing, and a device that was switched off is judged by the wall clock as soon as
//! there is one. Each start costs [`SLICE`], so that cutting the power again and again prolongs nothing either.
//!
//! A contact is what nobody can have recorded: a link fetched over mutual TLS, or the answer to this device's own question for
//! the time. Other messages of the broker may be old ones, delivered again.

use std::path::Path;
use std::time::Duration;

use edge_store::{Contact, ContactError, ContactFile, ContactFound, DeviceKeys};
use face_core::MonoTime;
use parking_lot::Mutex;
use std::sync::Arc;
use time::OffsetDateTime;

use crate::clock::{ClockQuality, WallTime};
use crate::gallery::Galleries;
use crate::logging::chain;

/// How much of its running time a device may forget at a power cut: what it has run is kept this often, and each start counts
/// as much.
pub const SLICE: Duration = Duration::from_secs(600);
/// The same, by the hub's time.
const SLICE_SECONDS: i64 = 600;

/// The lease, as the time given to it says. Pure but for the file, which [`Lease::keep`] writes.
pub struct Lease {
    /// `None`: it never ends.
    span: Option<Duration>,
    contact: Contact,
    last: MonoTime,
    kept: Contact,
    file: Arc<Mutex<ContactFile>>,
}

impl Lease {
    /// Takes the lease up where it was left. `claimed_at` is the hub's time that the identity has, in Unix seconds: the first
    /// contact there was.
    pub fn open(
        state_dir: &Path,
        keys: &DeviceKeys,
        span: Option<Duration>,
        claimed_at: i64,
        now: MonoTime,
    ) -> Result<Self, ContactError> {
        let (file, found) = ContactFile::open(state_dir, keys)?;
        let contact = match found {
            ContactFound::Kept(kept) => Contact { run: kept.run.saturating_add(SLICE), ..kept },
            ContactFound::Nothing => Contact { at: claimed_at, run: SLICE, over: false },
            ContactFound::Forged => {
                tracing::error!(
                    event = "contact_forged",
                    alarm = true,
                    "the file with the last contact was not written by this device; the lease counts as over"
                );
                Contact { at: claimed_at, run: Duration::MAX, over: false }
            }
        };
        Ok(Self { span, contact, last: now, kept: Contact::default(), file: Arc::new(Mutex::new(file)) })
    }

    /// Counts on. True once, when the lease has just ended.
    pub fn tick(&mut self, now: MonoTime, wall: WallTime) -> bool {
        self.contact.run = self.contact.run.saturating_add(now.since(self.last));
        self.last = now;
        let ended = !self.contact.over && self.span.is_some_and(|span| self.since(wall) >= span);
        self.contact.over |= ended;
        ended
    }

    /// There was contact; the hub's time was `at`.
    pub fn contact(&mut self, at: i64, now: MonoTime) {
        self.contact = Contact { at: self.contact.at.max(at), run: Duration::ZERO, over: false };
        self.last = now;
    }

    /// Whether it has ended and there was no contact since.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.contact.over
    }

    /// When it ends, if there is no contact; `None` when it never does.
    #[must_use]
    pub fn until(&self, wall: WallTime) -> Option<OffsetDateTime> {
        let left = self.span?.saturating_sub(self.since(wall));
        wall.utc.checked_add(left.try_into().ok()?)
    }

    fn since(&self, wall: WallTime) -> Duration {
        let by_wall = match wall.quality {
            ClockQuality::Untrusted => 0,
            _ => u64::try_from(wall.utc.unix_timestamp().saturating_sub(self.contact.at)).unwrap_or(0),
        };
        self.contact.run.max(Duration::from_secs(by_wall))
    }

    /// Whether something is to be kept that a power cut must not take back.
    #[must_use]
    pub fn to_be_kept(&self) -> bool {
        let Contact { at, run, over } = self.contact;
        let passed = run.saturating_sub(self.kept.run) >= SLICE || at - self.kept.at >= SLICE_SECONDS;
        self.kept == Contact::default() || over != self.kept.over || passed || run < self.kept.run
    }

    /// What writes it, away from the async workers; the lease counts it as kept.
    pub fn keep(&mut self) -> impl FnOnce() + Send + use<> {
        let (file, contact) = (Arc::clone(&self.file), self.contact);
        self.kept = contact;
        move || {
            if let Err(error) = file.lock().keep(&contact) {
                tracing::warn!(
                    event = "contact_not_kept",
                    error = chain(&error),
                    "after a restart the lease counts from an earlier contact"
                );
            }
        }
    }
}

/// Destroys the galleries if the lease is over, before the first door decides; the galleries that went.
pub fn enforce(
    mut lease: Lease,
    galleries: &Galleries,
    now: MonoTime,
    wall: WallTime,
) -> Vec<(gallery_log::GalleryId, u32)> {
    let ended = lease.tick(now, wall) || lease.is_over();
    if !ended {
        return Vec::new();
    }
    lease.keep()();
    galleries.end_lease()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const CLAIMED: i64 = 1_795_000_000;

    struct Rig {
        dir: tempfile::TempDir,
        keys: DeviceKeys,
        at: MonoTime,
        wall: i64,
        quality: ClockQuality,
        span: Duration,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let keys = DeviceKeys::open(&dir.path().join("keys"), None).unwrap();
            Self {
                dir,
                keys,
                at: MonoTime::from_millis(0),
                wall: CLAIMED,
                quality: ClockQuality::Holdover,
                span: 30 * DAY,
            }
        }

        fn start(&self) -> Lease {
            Lease::open(self.dir.path(), &self.keys, Some(self.span), CLAIMED, self.at).unwrap()
        }

        fn wall(&self) -> WallTime {
            WallTime { utc: OffsetDateTime::from_unix_timestamp(self.wall).unwrap(), quality: self.quality }
        }

        /// Time goes by as it does on a device that runs.
        fn run(&mut self, lease: &mut Lease, span: Duration) -> bool {
            self.at = self.at + span;
            self.wall += i64::try_from(span.as_secs()).unwrap();
            let ended = lease.tick(self.at, self.wall());
            if lease.to_be_kept() {
                lease.keep()();
            }
            ended
        }
    }

    #[test]
    fn a_device_without_contact_for_the_span_is_over_once_and_a_contact_begins_it_anew() {
        let mut rig = Rig::new();
        let mut lease = rig.start();
        assert!(!rig.run(&mut lease, 29 * DAY));
        lease.contact(rig.wall, rig.at);
        assert!(!rig.run(&mut lease, 29 * DAY) && !lease.is_over());
        assert!(rig.run(&mut lease, DAY) && lease.is_over());
        assert!(!rig.run(&mut lease, DAY), "told once");
        drop(lease);
        let mut lease = rig.start();
        assert!(lease.is_over(), "a restart does not forget it");
        lease.contact(rig.wall, rig.at);
        assert!(!lease.is_over() && !rig.run(&mut lease, 29 * DAY));
    }

    #[test]
    fn a_clock_set_back_prolongs_nothing_and_one_that_is_not_trusted_ends_nothing() {
        let mut rig = Rig::new();
        let mut lease = rig.start();
        for _ in 0..29 {
            assert!(!rig.run(&mut lease, DAY));
            rig.wall = CLAIMED - 1_000_000;
        }
        assert!(rig.run(&mut lease, DAY), "by the monotonic clock");

        let mut rig = Rig::new();
        let mut lease = rig.start();
        rig.quality = ClockQuality::Untrusted;
        rig.wall += 400 * 86_400;
        assert!(!rig.run(&mut lease, DAY), "a year ahead, says a clock that nobody believes");
        rig.quality = ClockQuality::Synchronised;
        assert!(rig.run(&mut lease, Duration::from_secs(1)), "now it is believed");
    }

    #[test]
    fn who_was_switched_off_is_judged_by_the_wall_clock_and_restarts_prolong_nothing() {
        let mut rig = Rig::new();
        let mut lease = rig.start();
        assert!(!rig.run(&mut lease, DAY));
        drop(lease);
        rig.wall += 40 * 86_400;
        let mut lease = rig.start();
        assert!(lease.tick(rig.at, rig.wall()), "forty days in a drawer");

        let mut rig = Rig::new();
        (rig.quality, rig.span) = (ClockQuality::Untrusted, 2 * DAY);
        let (mut starts, mut ended) = (0_u32, false);
        while !ended {
            let mut lease = rig.start();
            // Less than is kept.
            ended = rig.run(&mut lease, SLICE / 2);
            starts += 1;
            assert!(starts < 1_000, "a power cut every five minutes would keep it for ever");
        }
        assert!(starts >= 192, "nor does it end long before its time: {starts} starts of five minutes");
    }

    #[test]
    fn a_file_of_somebody_else_is_no_contact_and_a_span_of_nothing_never_ends() {
        let rig = Rig::new();
        std::fs::write(rig.dir.path().join("contact"), vec![7; 8192]).unwrap();
        let mut lease = rig.start();
        assert!(lease.tick(rig.at, rig.wall()));
        let mut never = Lease::open(rig.dir.path(), &rig.keys, None, CLAIMED, rig.at).unwrap();
        assert!(!never.tick(rig.at, rig.wall()));
        assert_eq!(never.until(rig.wall()), None);
    }
}
