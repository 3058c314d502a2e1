//! From findings to a verdict: which methods a door asks for, and what their answers amount to together.
//!
//! In: [`Findings`] and a [`Demand`]. Out: [`LivenessVerdict`]. Pure and monotone: no answer can get worse and the
//! verdict become live. Fails closed: a required method that is unavailable is never alive.

use super::findings::{CheckState, Findings, Method};

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods(u16);

impl Methods {
    /// These methods.
    #[must_use]
    pub fn of(methods: &[Method]) -> Self {
        methods.iter().fold(Self::default(), |set, method| set.with(*method))
    }

    /// This set and one more.
    #[must_use]
    pub fn with(self, method: Method) -> Self {
        Self(self.0 | 1 << method as u16)
    }

    /// This set and not that method.
    #[must_use]
    pub fn without(self, method: Method) -> Self {
        Self(self.0 & !(1 << method as u16))
    }

    /// Whether the method is among them.
    #[must_use]
    pub fn has(self, method: Method) -> bool {
        self.0 & (1 << method as u16) != 0
    }

    /// The methods, in the order of [`Method::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Method> {
        Method::ALL.into_iter().filter(move |method| self.has(*method))
    }
}

/// What a door asks of a face before it counts as alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Methods that must pass.
    pub required: Methods,
    /// Methods whose pass is a sign of life, of which [`Self::min_signs`] must be seen.
    pub signs: Methods,
    /// How many signs of life must be seen.
    pub min_signs: usize,
    /// Methods whose failure is an attack, beside the required ones.
    pub vetoes: Methods,
    /// Frontal frames that a live verdict needs.
    pub min_frontal_frames: usize,
}

impl Demand {
    /// Nothing but the passive model: for a door that somebody watches. A good picture may pass.
    #[must_use]
    pub fn basic() -> Self {
        Self {
            required: Methods::of(&[Method::Passive]),
            signs: Methods::default(),
            min_signs: 0,
            vetoes: Methods::of(&[Method::Injection]),
            min_frontal_frames: 8,
        }
    }

    /// The passive model, and the sign of life that no flat picture gives: a change. A blink is none here: on all that was
    /// measured it never decided anything (docs/measurements/liveness-2026-11-22.md).
    #[must_use]
    pub fn standard() -> Self {
        Self {
            signs: Methods::of(&[Method::Temporal]),
            min_signs: 1,
            vetoes: Methods::of(&[Method::Injection, Method::Temporal, Method::Motion]),
            ..Self::basic()
        }
    }

    /// As [`Demand::standard`], over twice the frames, and two signs of life: a face that changes must blink or turn too.
    #[must_use]
    pub fn strict() -> Self {
        let signs = Methods::of(&[Method::Temporal, Method::Blink, Method::Head]);
        Self { signs, min_signs: 2, min_frontal_frames: 20, ..Self::standard() }
    }

    /// This demand as if a method did not exist: what an ablation asks.
    #[must_use]
    pub fn without(self, method: Method) -> Self {
        let signs = self.signs.without(method);
        Self {
            required: self.required.without(method),
            signs,
            min_signs: self.min_signs.min(signs.iter().count()),
            vetoes: self.vetoes.without(method),
            ..self
        }
    }

    /// The methods that can decide anything under this demand.
    #[must_use]
    pub fn deciding(&self) -> Methods {
        Methods(self.required.0 | self.signs.0 | self.vetoes.0)
    }
}

/// What the evidence so far amounts to. Only [`LivenessVerdict::Live`] may open a door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LivenessVerdict {
    /// Not enough frames yet.
    Collecting {
        /// Frontal frames seen.
        frontal_frames: usize,
    },
    /// Alive.
    Live {
        /// Mean passive score.
        score: f32,
    },
    /// Undecided: keep watching.
    Watch {
        /// The method that has not passed; of several signs of life, the first.
        missing: Method,
        /// Mean passive score.
        score: f32,
    },
    /// Not a living person.
    Attack {
        /// The method that says so.
        by: Method,
        /// Mean passive score.
        score: f32,
    },
    /// A required check cannot be made: never alive.
    Unavailable,
}

impl LivenessVerdict {
    /// Whether a door may open on it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// The mean passive score, where the verdict rests on one.
    #[must_use]
    pub fn score(&self) -> Option<f32> {
        match self {
            Self::Live { score } | Self::Watch { score, .. } | Self::Attack { score, .. } => Some(*score),
            Self::Collecting { .. } | Self::Unavailable => None,
        }
    }
}

/// The verdict that findings amount to at a door with this demand.
///
/// A failure is named before all else: an attack is one however few frames were seen. Then comes what cannot be checked,
/// then what is missing.
#[must_use]
pub fn judge(findings: &Findings, demand: &Demand) -> LivenessVerdict {
    let score = findings.passive_score();
    let state = |method: Method| findings.of(method).state;
    let may_fail = |method: &Method| demand.required.has(*method) || demand.vetoes.has(*method);
    if let Some(by) = Method::ALL.into_iter().filter(may_fail).find(|method| state(*method) == CheckState::Fail) {
        return LivenessVerdict::Attack { by, score };
    }
    let frontal_frames = findings.frontal_frames;
    if frontal_frames < demand.min_frontal_frames {
        return LivenessVerdict::Collecting { frontal_frames };
    }
    let possible = demand.signs.iter().filter(|method| state(*method) != CheckState::Unavailable).count();
    let unavailable = |method: Method| state(method) == CheckState::Unavailable;
    if demand.required.iter().any(unavailable) || possible < demand.min_signs {
        return LivenessVerdict::Unavailable;
    }
    if let Some(missing) = demand.required.iter().find(|method| state(*method) != CheckState::Pass) {
        return LivenessVerdict::Watch { missing, score };
    }
    let seen = demand.signs.iter().filter(|method| state(*method) == CheckState::Pass).count();
    match demand.signs.iter().find(|method| state(*method) != CheckState::Pass) {
        Some(missing) if seen < demand.min_signs => LivenessVerdict::Watch { missing, score },
        // A demand for more signs than it names can never be met.
        None if seen < demand.min_signs => LivenessVerdict::Unavailable,
        _ => LivenessVerdict::Live { score },
    }
}

#[cfg(test)]
mod tests;
