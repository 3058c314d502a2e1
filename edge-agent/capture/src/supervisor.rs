//! The thread that keeps one camera giving frames.
//!
//! In: a configuration, a clock, a stop signal. Out: frames and states into the slot, events into a bounded channel. It
//! owns the pipeline: it alone builds it, reads it and tears it down, and it makes it anew when no frame comes for longer
//! than the profile allows, when the pipeline reports an error, when a live stream ends, and when it goes on giving old
//! pictures.
//! Deliberately absent: GStreamer's types (they are in `pipeline`), and any decision about what the door does meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use face_core::{Frame, MonoTime, RgbImage};

use crate::backoff::BackOff;
use crate::config::{CameraConfig, Source, Watch, WhenFinished};
use crate::event::{CameraEvent, CameraState, Failure, Happening};
use crate::pipeline::{Next, Session};
use crate::sight::{Seen, Sight, SightFault, SightPolicy};
use crate::slot::Slot;
use crate::watch::FileVersion;

/// The program's monotonic clock.
pub type MonoClock = Arc<dyn Fn() -> MonoTime + Send + Sync>;

/// One wait for a frame: how long a stop, an error or a stall can go unnoticed at most.
const FRAME_WAIT: Duration = Duration::from_millis(50);
/// How often a file that ended or failed is looked at. A replaced clip is on within a third of a second.
const FILE_POLL: Duration = Duration::from_millis(200);
/// First picture of a camera that has sent nothing at all: beyond this another attempt is the better bet.
const SILENT_LIMIT: Duration = Duration::from_secs(4);
/// First picture of a camera that sends: it may have to wait for a key frame, which some send every 4 s only.
const KEY_FRAME_LIMIT: Duration = Duration::from_secs(8);
/// First picture of a file: nothing but the machine's own load can delay it.
const FILE_LIMIT: Duration = Duration::from_secs(10);
/// A pipeline that has given nothing but old pictures for so long is made anew: its decoder may be what hangs.
const OLD_PICTURES_LIMIT: Duration = Duration::from_secs(10);
/// Tearing down takes milliseconds; a driver that hangs in it must not take the camera's thread with it.
const TEAR_DOWN_LIMIT: Duration = Duration::from_secs(3);

pub(crate) struct Supervisor {
    config: Arc<CameraConfig>,
    clock: MonoClock,
    slot: Arc<Slot>,
    events: Sender<CameraEvent>,
    stop: Receiver<()>,
    back_off: BackOff,
    /// When the newest frame came, or the camera was opened.
    last_frame_at: MonoTime,
    sequence: u64,
    /// Watches the pictures, over all sessions; none when only their arrival is watched.
    sight: Option<Sight>,
}

/// How one session ended.
enum Outcome {
    Stopped,
    Ended {
        pictures: u64,
    },
    /// The file that plays was replaced by another, and the camera waits for such.
    Replaced,
    Broken(Failure),
    Silent {
        pictures: u64,
        waited: Duration,
    },
    /// Pictures came, and they were old ones.
    OldPictures,
}

/// What to do after a session.
enum After {
    Stop,
    /// At once: a clip that repeats.
    Again,
    /// After the back-off.
    Later,
    /// When the file is another than this one (`None`: when there is one).
    WhenReplaced(Option<FileVersion>),
}

impl Supervisor {
    pub(crate) fn new(
        config: Arc<CameraConfig>,
        clock: MonoClock,
        slot: Arc<Slot>,
        events: Sender<CameraEvent>,
        stop: Receiver<()>,
    ) -> Self {
        let last_frame_at = clock();
        let sight = (config.watch == Watch::Pictures).then(|| Sight::new(SightPolicy::default()));
        Self { config, clock, slot, events, stop, back_off: BackOff::new(), last_frame_at, sequence: 0, sight }
    }

    /// Runs until the stop channel is closed.
    pub(crate) fn run(mut self) {
        loop {
            let after = self.one_session();
            let go_on = match after {
                After::Stop => false,
                After::Again => !self.stopped(),
                After::Later => {
                    let wait = self.back_off.next();
                    self.pause(wait)
                }
                After::WhenReplaced(version) => self.await_replacement(version.as_ref()),
            };
            if !go_on {
                return;
            }
            // A clip that follows another is no restart.
            if !matches!(self.slot.state(), CameraState::Starting | CameraState::Playing | CameraState::Ended) {
                self.slot.count_restart();
            }
        }
    }

    fn one_session(&mut self) -> After {
        let version = match &self.config.source {
            Source::File { path, .. } => match file_version(path) {
                Ok(version) => Some(version),
                Err(failure) => {
                    self.failed(failure);
                    return After::WhenReplaced(None);
                }
            },
            _ => None,
        };
        let outcome = match Session::start(&self.config, &self.clock) {
            Err(failure) => Outcome::Broken(failure),
            Ok(session) => {
                let outcome = self.play(&session, version.as_ref());
                tear_down(&self.config.id, session);
                outcome
            }
        };
        self.conclude(outcome, version)
    }

    /// Says what the outcome means and what to do next.
    fn conclude(&mut self, outcome: Outcome, version: Option<FileVersion>) -> After {
        let config = Arc::clone(&self.config);
        match (outcome, &config.source) {
            (Outcome::Stopped, _) => After::Stop,
            (Outcome::Replaced, _) => After::Again,
            (Outcome::Ended { pictures: 0 }, Source::File { path, .. }) => {
                let message = "there is no picture in it".to_owned();
                self.failed(Failure::Unplayable { path: path.display().to_string(), message });
                After::WhenReplaced(version)
            }
            (Outcome::Ended { .. }, Source::File { when_finished: WhenFinished::Repeat, .. }) => After::Again,
            (Outcome::Ended { .. }, Source::File { when_finished: WhenFinished::Wait, .. }) => {
                self.slot.set_state(CameraState::Ended);
                self.tell(Happening::Ended);
                After::WhenReplaced(version)
            }
            (Outcome::Ended { .. }, source) => {
                self.failed(Failure::StreamEnded { source_name: source.to_string() });
                After::Later
            }
            (Outcome::Broken(failure), Source::File { .. }) => {
                self.failed(failure);
                After::WhenReplaced(version)
            }
            (Outcome::Broken(failure), _) => {
                self.failed(failure);
                After::Later
            }
            (Outcome::Silent { pictures: 0, waited }, source) => {
                self.failed(Failure::Silent { source_name: source.to_string(), waited });
                After::Later
            }
            (Outcome::Silent { .. }, _) => {
                self.stalled();
                After::Later
            }
            (Outcome::OldPictures, _) => After::Later,
        }
    }

    /// Reads frames until there are no more.
    fn play(&mut self, session: &Session, playing: Option<&FileVersion>) -> Outcome {
        let mut newest = (self.clock)();
        let mut handed_on = newest;
        let mut looked_at_file = newest;
        let mut pictures = 0;
        loop {
            if self.stopped() {
                return Outcome::Stopped;
            }
            let now = (self.clock)();
            if now.since(looked_at_file) >= FILE_POLL {
                looked_at_file = now;
                if self.is_replaced(playing) {
                    return Outcome::Replaced;
                }
            }
            match session.next(FRAME_WAIT) {
                Next::Picture { image, age } => {
                    newest = (self.clock)();
                    pictures += 1;
                    if self.picture(image, age, newest) {
                        handed_on = newest;
                    } else if newest.since(handed_on) > OLD_PICTURES_LIMIT {
                        return Outcome::OldPictures;
                    }
                }
                Next::Nothing => {
                    let waited = (self.clock)().since(newest);
                    if waited > self.patience(pictures, session) {
                        return Outcome::Silent { pictures, waited };
                    }
                }
                Next::End => return Outcome::Ended { pictures },
                Next::Broken(failure) => return Outcome::Broken(failure),
            }
        }
    }

    /// Whether a camera that waits for another file has got one while this one plays.
    fn is_replaced(&self, playing: Option<&FileVersion>) -> bool {
        match &self.config.source {
            Source::File { path, when_finished: WhenFinished::Wait } => {
                FileVersion::of(path).is_ok_and(|version| Some(&version) != playing)
            }
            _ => false,
        }
    }

    /// How long to wait for the next picture.
    fn patience(&self, pictures: u64, session: &Session) -> Duration {
        match (&self.config.source, pictures) {
            (Source::File { .. }, 0) => FILE_LIMIT,
            (_, 0) if session.hears_camera() => KEY_FRAME_LIMIT,
            (_, 0) => SILENT_LIMIT,
            _ => self.config.profile.stall_after,
        }
    }

    /// Hands a picture on, unless it is an old one. Says whether it did.
    fn picture(&mut self, image: RgbImage, age: Duration, now: MonoTime) -> bool {
        let seen = self.sight.as_mut().map_or(Seen::UNWATCHED, |sight| sight.see(&image, now));
        if let Some(fault) = seen.fault {
            self.faulty(fault, now);
        }
        if !seen.may_pass() {
            return false;
        }
        let state = self.slot.state();
        if seen.fault.is_none() && state != CameraState::Playing {
            self.slot.set_state(CameraState::Playing);
            self.tell(match state {
                CameraState::Stalled { .. } | CameraState::Failed { .. } => {
                    Happening::Recovered { after: now.since(self.last_frame_at) }
                }
                CameraState::Faulty { since, .. } => Happening::Recovered { after: now.since(since) },
                _ => Happening::Playing,
            });
        }
        self.last_frame_at = now;
        self.back_off.reset();
        self.sequence += 1;
        self.slot.put(Frame { image, captured_at: now.before(age), sequence: self.sequence });
        true
    }

    fn faulty(&mut self, fault: SightFault, now: MonoTime) {
        let since = match self.slot.state() {
            CameraState::Faulty { fault: known, .. } if known == fault => return,
            CameraState::Faulty { since, .. } => since,
            _ => now,
        };
        self.slot.set_state(CameraState::Faulty { since, fault });
        self.tell(Happening::Faulty { fault });
    }

    fn stalled(&mut self) {
        // An outage that is known already keeps the reason it has.
        if !matches!(self.slot.state(), CameraState::Stalled { .. } | CameraState::Failed { .. }) {
            let since = self.last_frame_at;
            self.slot.set_state(CameraState::Stalled { since });
            self.tell(Happening::Stalled { since });
        }
    }

    fn failed(&mut self, failure: Failure) {
        if matches!(self.slot.state(), CameraState::Failed { reason, .. } if *reason == failure) {
            return;
        }
        let reason = Arc::new(failure);
        self.slot.set_state(CameraState::Failed { since: self.last_frame_at, reason: Arc::clone(&reason) });
        self.tell(Happening::Failed { reason });
    }

    fn tell(&self, happening: Happening) {
        match &happening {
            Happening::Failed { reason } => {
                tracing::warn!(event = "camera_failed", camera = %self.config.id, reason = %reason, "a camera gives no pictures");
            }
            Happening::Stalled { .. } => {
                tracing::warn!(event = "camera_stalled", camera = %self.config.id, "a camera has stalled; it is made anew");
            }
            Happening::Faulty { fault } => {
                tracing::warn!(event = "camera_faulty", alarm = true, camera = %self.config.id, fault = %fault, "something is wrong with a camera's pictures");
            }
            other => {
                tracing::info!(event = "camera", camera = %self.config.id, happening = ?other, "a camera's state changed");
            }
        }
        // A full channel means that nobody reads events; the state, which is what counts, is in the slot all the same.
        let _ = self.events.try_send(CameraEvent { at: (self.clock)(), happening });
    }

    fn stopped(&self) -> bool {
        matches!(self.stop.try_recv(), Ok(()) | Err(TryRecvError::Disconnected))
    }

    /// Waits; `false` when stopped meanwhile.
    fn pause(&self, span: Duration) -> bool {
        matches!(self.stop.recv_timeout(span), Err(RecvTimeoutError::Timeout))
    }

    /// Waits until the file is there and another than `played`; `false` when stopped meanwhile.
    fn await_replacement(&self, played: Option<&FileVersion>) -> bool {
        let Source::File { path, .. } = &self.config.source else { return true };
        loop {
            if !self.pause(FILE_POLL) {
                return false;
            }
            if FileVersion::of(path).is_ok_and(|version| Some(&version) != played) {
                return true;
            }
        }
    }
}

/// The version of a file camera's file, or why there is none.
pub(crate) fn file_version(path: &Path) -> Result<FileVersion, Failure> {
    FileVersion::of(path)
        .map_err(|error| Failure::File { path: path.display().to_string(), message: error.to_string() })
}

/// Tears a session down on a thread of its own, and leaves it behind if that hangs.
fn tear_down(camera: &str, session: Session) {
    let (done, waiting) = bounded::<()>(1);
    let thread = thread::Builder::new().name(format!("teardown-{camera}")).spawn(move || {
        session.stop();
        drop(done);
    });
    // The sender is dropped when the work is done, which ends the waiting.
    if thread.is_ok() && waiting.recv_timeout(TEAR_DOWN_LIMIT) == Err(RecvTimeoutError::Timeout) {
        tracing::error!(
            event = "camera_hangs",
            camera,
            "a camera's pipeline hangs while it is torn down; it is left behind"
        );
    }
}
