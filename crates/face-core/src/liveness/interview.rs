//! When a face at a door is asked for a challenge, and what becomes of it: one face, one attempt after the other.
//!
//! In: what a door asks ([`ChallengeRule`]), the findings, a nonce for each attempt, and a [`ChallengeLook`] a frame. Out: what to
//! show ([`Turn`]), and the challenge's own [`Check`] with the time of its pass. Pure: nonce and time are arguments.
//! Deliberately absent: displays, events, and whether somebody may pass.

use std::time::Duration;

use super::challenge::{Challenge, ChallengeLook, Failure, Movement};
use super::findings::{Check, CheckState, Findings, Method};
use super::fusion::{Demand, LivenessVerdict, judge};
use crate::time::MonoTime;

/// Before the next attempt: long enough to read why, and for eyes and head to come to rest.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(3);
/// After a pass: who lingers in the open door is not asked again at once.
const REST_AFTER_PASS: Duration = Duration::from_secs(15);
/// Attempts that may fail, one after the other. Each is one chance in 36 for a recording; who still fails then must leave
/// the picture, and is a new face with a new track.
pub const MAX_FAILURES: u32 = 3;

/// Whether a door asks for a challenge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ChallengeRule {
    /// Never.
    #[default]
    Never,
    /// Whom the passive model neither accepts nor rejects; a pass stands in for its opinion.
    WhenUncertain {
        /// A mean passive score from here on is uncertain; below, it is as good as a rejection.
        from: f32,
    },
    /// Everybody, beside all else that is demanded.
    Always,
}

impl ChallengeRule {
    /// Whether a face of these findings is to be asked now, at a door with this demand. Whom nothing can make alive is
    /// not asked: an attack stays one, and what cannot be checked is no matter of movements.
    #[must_use]
    pub fn asks(self, findings: &Findings, demand: &Demand) -> bool {
        let verdict = judge(&with_challenge(findings, Check::UNDECIDED), demand);
        match (self, verdict) {
            // It asks for signs of life too, and the movements give them: whatever is missing, it may come with them.
            (Self::Always, LivenessVerdict::Watch { .. }) => true,
            (Self::WhenUncertain { from }, LivenessVerdict::Watch { missing: Method::Passive, score }) => score >= from,
            _ => false,
        }
    }

    /// The findings as the door counts them, with the challenge's answer among them.
    #[must_use]
    pub fn counted(self, findings: &Findings, challenge: Check) -> Findings {
        let counted = with_challenge(findings, challenge);
        let passive = findings.of(Method::Passive);
        let stands_in =
            matches!(self, Self::WhenUncertain { from } if passive.score.is_some_and(|score| score >= from));
        if stands_in && challenge.state == CheckState::Pass && passive.state == CheckState::Undecided {
            return counted.with(Method::Passive, Check { state: CheckState::Pass, ..passive });
        }
        counted
    }
}

fn with_challenge(findings: &Findings, challenge: Check) -> Findings {
    findings.with(Method::Challenge, challenge)
}

/// What changed for the person who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// This is to be done now.
    Prompt {
        /// What.
        movement: Movement,
        /// Which step it is, from 1.
        step: usize,
    },
    /// All steps were answered.
    Passed {
        /// How long it took.
        took: Duration,
    },
    /// It is over without a pass.
    Failed {
        /// Why.
        failure: Failure,
        /// Steps that were answered.
        answered: usize,
        /// How long it took.
        took: Duration,
    },
}

/// One face at one door.
#[derive(Clone, Debug, Default)]
pub struct Interview {
    present: State,
    failures: u32,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Idle,
    Running {
        challenge: Challenge,
        begun: MonoTime,
    },
    Passed {
        begun: MonoTime,
        at: MonoTime,
    },
    Failed {
        at: MonoTime,
        failure: Failure,
    },
}

impl Interview {
    /// Whether a new attempt may begin.
    #[must_use]
    pub fn may_begin(&self, now: MonoTime) -> bool {
        match &self.present {
            State::Idle => true,
            State::Running { .. } => false,
            State::Passed { at, .. } => now.since(*at) >= REST_AFTER_PASS,
            State::Failed { at, .. } => self.failures < MAX_FAILURES && now.since(*at) >= REST_AFTER_FAILURE,
        }
    }

    /// Begins an attempt with a nonce that nobody can know beforehand and that was never used.
    pub fn begin(&mut self, nonce: u64, now: MonoTime) -> Turn {
        let challenge = Challenge::from_nonce(nonce);
        let movement = challenge.wanted().unwrap_or(Movement::Blink);
        self.present = State::Running { challenge, begun: now };
        Turn::Prompt { movement, step: 1 }
    }

    /// Whether somebody is being asked.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.present, State::Running { .. })
    }

    /// Takes a frame in. `None` when nothing changed for the person.
    pub fn observe(&mut self, look: &ChallengeLook) -> Option<Turn> {
        let State::Running { challenge, begun } = &mut self.present else { return None };
        let begun = *begun;
        if look.captured_at < begun {
            // Nobody had been asked yet.
            return None;
        }
        let before = challenge.answered();
        challenge.observe(look);
        let (at, took) = (look.captured_at, look.captured_at.since(begun));
        if let Some(failure) = challenge.failure() {
            let answered = challenge.answered();
            self.failures += 1;
            self.present = State::Failed { at, failure };
            return Some(Turn::Failed { failure, answered, took });
        }
        let answered = challenge.answered();
        match challenge.wanted() {
            None => {
                self.failures = 0;
                self.present = State::Passed { begun, at };
                Some(Turn::Passed { took })
            }
            Some(movement) if answered > before => Some(Turn::Prompt { movement, step: answered + 1 }),
            Some(_) => None,
        }
    }

    /// Somebody else stands there now: nothing of what was answered counts. True when a challenge was under way.
    pub fn forget(&mut self) -> bool {
        let running = self.is_running();
        self.present = State::Idle;
        running
    }

    /// When all steps were answered.
    #[must_use]
    pub fn passed_at(&self) -> Option<MonoTime> {
        match self.present {
            State::Passed { at, .. } => Some(at),
            _ => None,
        }
    }

    /// Whether a picture was taken while the person was being asked, in the attempt that runs or was passed: only such a
    /// picture can tell whose answers they are.
    #[must_use]
    pub fn covers(&self, at: MonoTime) -> bool {
        match self.present {
            State::Running { begun, .. } => at >= begun,
            State::Passed { begun, at: passed } => at >= begun && at <= passed,
            State::Idle | State::Failed { .. } => false,
        }
    }

    /// Why the last attempt failed, until the next one begins.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self.present {
            State::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// What it amounts to at `now`. A pass is evidence of life like any other: it counts for `valid`, the time within
    /// which the relay must be called.
    #[must_use]
    pub fn check(&self, now: MonoTime, valid: Duration) -> Check {
        match &self.present {
            State::Running { challenge, .. } => challenge.check(),
            State::Passed { at, .. } if now.since(*at) <= valid => Check::measured(CheckState::Pass, 1.0),
            State::Failed { .. } => Check::measured(CheckState::Fail, 0.0),
            State::Idle | State::Passed { .. } => Check::UNDECIDED,
        }
    }
}

#[cfg(test)]
mod tests;
