//! What a camera's pictures say about the camera: frozen, replayed, black, covered, defocused or turned away.
//!
//! In: every picture with its time. Out: for each, whether it may be used at all ([`Seen::usable`]: a picture that was
//! shown before never is), and the [`SightFault`] that has lasted long enough to be told. Pure: time is an argument.
//! Deliberately absent: that no picture comes at all (the supervisor), and what a door does about any of it.
//!
//! Two things keep it quiet at night: a sensor is never without noise, so that a still scene is told from a frozen one by
//! the noise alone; and what needs light to be judged (covered, defocused, turned) is not judged in the dark. A loop that
//! was encoded anew carries new noise and is not found here; liveness stands against it.

mod memory;
mod signature;

use std::fmt;
use std::time::Duration;

use face_core::{MonoTime, RgbImage};

use memory::Memory;
use signature::{Scene, Signature};

/// What is wrong with a camera's pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SightFault {
    /// The same picture again and again, with fresh times.
    Frozen,
    /// Earlier pictures come again in their order.
    Replayed,
    /// Black all over.
    Black,
    /// Something covers the lens.
    Covered,
    /// The scene is there and blurred.
    Defocused,
    /// Another scene, and still.
    Turned,
}

impl SightFault {
    /// Whether the pictures are not what the sensor sees now. They are not handed on then, and making the pipeline anew may
    /// help.
    #[must_use]
    pub fn is_old_picture(self) -> bool {
        matches!(self, Self::Frozen | Self::Replayed)
    }
}

impl fmt::Display for SightFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Frozen => "frozen: the same picture again and again; check the camera and its encoder",
            Self::Replayed => {
                "replayed: earlier pictures come again; check that nothing was put between camera and agent"
            }
            Self::Black => "black: check the lens cap, the light and the camera's power",
            Self::Covered => "covered: something is before the lens; go and look",
            Self::Defocused => "defocused: the scene is there and blurred; clean or focus the lens",
            Self::Turned => "turned: it shows another place than it did; restart the agent when that is on purpose",
        })
    }
}

/// How long each fault must last before it is told, and below what it is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SightPolicy {
    /// The same picture for this long. An encoder may repeat a still scene to the bit until its next key frame, which
    /// some cameras send every 4 s only.
    frozen_after: Duration,
    /// So many pictures in a row, at one distance, must have been seen before: half a second at 15 a second.
    replayed_pictures: u32,
    /// Black, covered or defocused for this long: a hand before the lens is no sabotage.
    blind_after: Duration,
    /// Another still scene for this long: whoever stands before a terminal fills its picture, but moves.
    turned_after: Duration,
    /// Good pictures for this long end a fault.
    well_after: Duration,
}

impl Default for SightPolicy {
    fn default() -> Self {
        Self {
            frozen_after: Duration::from_secs(5),
            replayed_pictures: 8,
            blind_after: Duration::from_secs(10),
            turned_after: Duration::from_secs(30),
            well_after: Duration::from_secs(1),
        }
    }
}

/// Green level up to which a cell is dark: video black is 16, and a night's corridor lies below 40.
const DARK: f32 = 24.0;
/// A dark picture whose cells differ by no more than this shows nothing at all. A cell is the mean of 50 pixels of a
/// 640×480 picture: noise of two levels leaves a third of one, and two between the extremes of all cells.
const FLAT: f32 = 4.0;
// The shares below were set on drawn corridors with drawn sabotage (`tests.rs`); recordings of the real thing were not at
// hand. They lie between a scene in other light (shares near 1) and one that is gone (near 0).

/// Structure and contrast below these shares of what they were: nothing of the scene is left.
const COVERED_STRUCTURE: f32 = 0.2;
const COVERED_CONTRAST: f32 = 0.3;
/// Edges below this share while the scene's coarse shape is still there.
const DEFOCUSED_STRUCTURE: f32 = 0.35;
const SAME_SCENE: f32 = 0.8;
/// The coarse shape has this little in common with what it was.
const OTHER_SCENE: f32 = 0.4;

/// What is known after one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// False for a picture that was shown before: it proves nothing and is not handed on.
    pub(crate) usable: bool,
    /// The fault that has lasted long enough.
    pub(crate) fault: Option<SightFault>,
}

impl Seen {
    /// What is said of pictures that nobody watches.
    pub(crate) const UNWATCHED: Self = Self { usable: true, fault: None };

    /// Whether the picture may be handed on.
    pub(crate) fn may_pass(self) -> bool {
        self.usable && !self.fault.is_some_and(SightFault::is_old_picture)
    }
}

/// Watches the pictures of one camera.
pub(crate) struct Sight {
    policy: SightPolicy,
    memory: Memory,
    scene: Scene,
    previous: Option<Signature>,
    /// What the pictures look like now, and since when.
    suspicion: Option<(SightFault, MonoTime)>,
    told: Option<SightFault>,
    well_since: Option<MonoTime>,
}

impl Sight {
    pub(crate) fn new(policy: SightPolicy) -> Self {
        Self {
            policy,
            memory: Memory::default(),
            scene: Scene::default(),
            previous: None,
            suspicion: None,
            told: None,
            well_since: None,
        }
    }

    /// Takes a picture in.
    pub(crate) fn see(&mut self, image: &RgbImage, at: MonoTime) -> Seen {
        let signature = Signature::of(image);
        let seen_before = self.memory.take(signature.digest);
        let looks_like = self.looks_like(&signature, seen_before, at);
        self.previous = Some(signature);
        self.follow(looks_like, at);
        Seen { usable: seen_before == memory::Before::Never, fault: self.told }
    }

    /// Which fault this picture alone speaks for.
    fn looks_like(&mut self, signature: &Signature, before: memory::Before, at: MonoTime) -> Option<SightFault> {
        if signature.brightest() < DARK && signature.range() <= FLAT {
            return Some(SightFault::Black);
        }
        match before {
            memory::Before::Last => return Some(SightFault::Frozen),
            memory::Before::Earlier { run } if run >= self.policy.replayed_pictures => {
                return Some(SightFault::Replayed);
            }
            // A few repetitions say nothing yet, neither for nor against.
            memory::Before::Earlier { .. } => return self.suspicion.map(|(fault, _)| fault),
            memory::Before::Never => {}
        }
        let Some(noise) = self.previous.as_ref().and_then(|previous| signature.noise_since(previous)) else {
            // Something moves: nothing can be said of the scene behind it. What moves and is new is neither old nor black,
            // and whoever stands in the way of another scene is no other scene.
            let blind = |fault: &SightFault| matches!(fault, SightFault::Covered | SightFault::Defocused);
            return self.suspicion.map(|(fault, _)| fault).filter(blind);
        };
        if signature.brightest() < DARK {
            return None;
        }
        let shares = self.scene.compare(signature, noise, at)?;
        let gone = shares.structure < COVERED_STRUCTURE && shares.contrast < COVERED_CONTRAST;
        let blurred = shares.structure < DEFOCUSED_STRUCTURE && shares.likeness >= SAME_SCENE;
        if gone {
            Some(SightFault::Covered)
        } else if blurred {
            Some(SightFault::Defocused)
        } else if shares.likeness < OTHER_SCENE {
            Some(SightFault::Turned)
        } else {
            self.scene.learn(signature, noise);
            None
        }
    }

    /// From what single pictures look like to what is told.
    fn follow(&mut self, looks_like: Option<SightFault>, at: MonoTime) {
        let Some(fault) = looks_like else {
            self.suspicion = None;
            let since = *self.well_since.get_or_insert(at);
            if at.since(since) >= self.policy.well_after {
                self.told = None;
            }
            return;
        };
        self.well_since = None;
        let since = match self.suspicion {
            Some((before, since)) if before == fault => since,
            _ => at,
        };
        self.suspicion = Some((fault, since));
        if at.since(since) >= self.patience(fault) {
            self.told = Some(fault);
        }
    }

    fn patience(&self, fault: SightFault) -> Duration {
        match fault {
            SightFault::Frozen => self.policy.frozen_after,
            // The run of pictures was the patience.
            SightFault::Replayed => Duration::ZERO,
            SightFault::Black | SightFault::Covered | SightFault::Defocused => self.policy.blind_after,
            SightFault::Turned => self.policy.turned_after,
        }
    }
}

#[cfg(test)]
mod tests;
