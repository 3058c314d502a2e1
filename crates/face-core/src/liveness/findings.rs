//! What each method found out about one track: a state that can decide and a score that explains.
//!
//! In: the checks' answers. Out: [`Findings`], which [`super::judge`] fuses. No thresholds live here.

/// A way of telling a living face from a picture of one. The order is that in which attacks are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Signs that the pictures do not come from a sensor: repetitions, impossible times, frozen noise.
    Injection,
    /// The passive model over two crops, averaged over frontal frames.
    Passive,
    /// Change of the aligned face beyond what moving a flat picture explains.
    Temporal,
    /// A face that is moved about and yet changes no more than a flat picture does.
    Motion,
    /// Both eyes shut and opened again.
    Blink,
    /// The head turns, and its nose moves against eyes and mouth as only a solid one does.
    Head,
    /// Uniform local binary patterns of the skin.
    Texture,
    /// Relief of a depth plane.
    Depth,
    /// Reflection in an infrared plane.
    Infrared,
    /// A random sequence of movements that was asked for.
    Challenge,
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Injection,
        Self::Passive,
        Self::Temporal,
        Self::Motion,
        Self::Blink,
        Self::Head,
        Self::Texture,
        Self::Depth,
        Self::Infrared,
        Self::Challenge,
    ];

    /// Its name in configuration and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Injection => "injection",
            Self::Passive => "passive",
            Self::Temporal => "temporal",
            Self::Motion => "motion",
            Self::Blink => "blink",
            Self::Head => "head",
            Self::Texture => "texture",
            Self::Depth => "depth",
            Self::Infrared => "infrared",
            Self::Challenge => "challenge",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// What a check amounts to, from worst to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckState {
    /// Not a living face.
    Fail,
    /// The check cannot be made: no plane, no model, nothing to see.
    Unavailable,
    /// Too little was seen to say.
    Undecided,
    /// A living face, as far as this check goes.
    Pass,
}

/// One method's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// What it amounts to.
    pub state: CheckState,
    /// The measured figure in the method's own unit, for reports; `None` when nothing was measured.
    pub score: Option<f32>,
}

impl Check {
    /// A check that cannot be made.
    pub const UNAVAILABLE: Self = Self { state: CheckState::Unavailable, score: None };

    /// A state with its figure. A figure that is not finite makes the check unavailable: it measured nothing.
    #[must_use]
    pub fn measured(state: CheckState, score: f32) -> Self {
        if score.is_finite() { Self { state, score: Some(score) } } else { Self::UNAVAILABLE }
    }

    /// Undecided, with nothing measured yet.
    pub const UNDECIDED: Self = Self { state: CheckState::Undecided, score: None };
}

/// All methods' answers about one track at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Findings {
    /// Frontal frames that the answers rest on.
    pub frontal_frames: usize,
    checks: [Check; Method::COUNT],
}

impl Default for Findings {
    /// Nothing was checked.
    fn default() -> Self {
        Self { frontal_frames: 0, checks: [Check::UNAVAILABLE; Method::COUNT] }
    }
}

impl Findings {
    /// Nothing checked yet of a face with this many frontal frames.
    #[must_use]
    pub fn over(frontal_frames: usize) -> Self {
        Self { frontal_frames, ..Self::default() }
    }

    /// One method's answer.
    #[must_use]
    pub fn of(&self, method: Method) -> Check {
        self.checks[method as usize]
    }

    /// These findings with one answer replaced.
    #[must_use]
    pub fn with(mut self, method: Method, check: Check) -> Self {
        self.checks[method as usize] = check;
        self
    }

    /// The mean passive score, in [0, 1]; 0 when there is none.
    #[must_use]
    pub fn passive_score(&self) -> f32 {
        self.of(Method::Passive).score.unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_its_own_place_and_name() {
        for (index, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, index);
            assert_eq!(Method::named(method.name()), Some(method));
            let findings = Findings::default().with(method, Check::measured(CheckState::Pass, 0.5));
            let passed = Method::ALL.into_iter().filter(|other| findings.of(*other).state == CheckState::Pass);
            assert_eq!(passed.collect::<Vec<_>>(), [method]);
        }
        assert_eq!(Method::named("luck"), None);
    }

    #[test]
    fn a_figure_that_is_no_number_measured_nothing() {
        assert_eq!(Check::measured(CheckState::Pass, f32::NAN), Check::UNAVAILABLE);
        assert_eq!(Check::measured(CheckState::Pass, f32::INFINITY), Check::UNAVAILABLE);
    }
}
