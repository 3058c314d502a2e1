//! The enrolment session: from photographs to a template, or to reasons why not.
//!
//! In: a session's state and what happened. Out: the next state, or an error that names the forbidden step.
//! The photographs themselves are judged elsewhere (face-runtime's `photograph`).

use time::{Duration, OffsetDateTime};

/// How long a session may take from being opened to its end. Ten photographs take seconds; an operator with a
/// camera at a reception desk takes minutes; an hour-old session is one that somebody left.
pub const LIFETIME: Duration = Duration::minutes(15);

/// Where an enrolment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Opened; no photograph has been judged.
    Initialized,
    /// Photographs are being judged.
    Processing,
    /// A template was made and is in the gallery log.
    Completed,
    /// No template came of it; the session keeps the reason code.
    Failed,
}

/// What happens to an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Photographs arrived.
    Submitted,
    /// A template was stored.
    Accepted,
    /// The photographs were refused with this stable reason code.
    Refused(&'static str),
}

/// A step that the state does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// The session has ended or has not begun.
    #[error("enrolment in state {state} cannot take step {input}")]
    NotAllowed {
        /// The state it is in.
        state: &'static str,
        /// The step that was tried.
        input: &'static str,
    },
    /// The session is older than [`LIFETIME`].
    #[error("enrolment session expired: open a new one")]
    Expired,
}

impl State {
    /// The stored and published name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Initialized => "initialized",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// The state of a stored name; `None` for a name that no version wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Initialized, Self::Processing, Self::Completed, Self::Failed]
            .into_iter()
            .find(|state| state.name() == name)
    }

    /// Whether nothing more can happen to the session.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

impl Input {
    fn name(&self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Accepted => "accepted",
            Self::Refused(_) => "refused",
        }
    }
}

/// Advances an enrolment by one input at `now`. Expiry wins over every input.
pub fn step(
    state: State,
    input: &Input,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<State, EnrolmentError> {
    if !state.ended() && now >= expires_at {
        return Err(EnrolmentError::Expired);
    }
    match (state, input) {
        (State::Initialized, Input::Submitted) => Ok(State::Processing),
        (State::Processing, Input::Accepted) => Ok(State::Completed),
        (State::Processing, Input::Refused(_)) => Ok(State::Failed),
        (state, input) => Err(EnrolmentError::NotAllowed { state: state.name(), input: input.name() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn run(state: State, input: &Input) -> Result<State, EnrolmentError> {
        step(state, input, START, START + LIFETIME)
    }

    #[test]
    fn photographs_lead_to_a_template_or_to_a_reason() {
        let processing = run(State::Initialized, &Input::Submitted).unwrap();
        assert_eq!(run(processing, &Input::Accepted), Ok(State::Completed));
        assert_eq!(run(processing, &Input::Refused("no_face")), Ok(State::Failed));
    }

    #[test]
    fn an_ended_session_takes_nothing_more() {
        for ended in [State::Completed, State::Failed] {
            for input in [Input::Submitted, Input::Accepted, Input::Refused("no_face")] {
                assert!(matches!(run(ended, &input), Err(EnrolmentError::NotAllowed { .. })));
            }
        }
        assert!(matches!(run(State::Initialized, &Input::Accepted), Err(EnrolmentError::NotAllowed { .. })));
    }

    #[test]
    fn an_expired_session_takes_nothing_from_the_very_instant() {
        let at = START + LIFETIME;
        assert_eq!(step(State::Processing, &Input::Accepted, at, at), Err(EnrolmentError::Expired));
        assert_eq!(step(State::Processing, &Input::Accepted, at - Duration::milliseconds(1), at), Ok(State::Completed));
    }

    #[test]
    fn names_round_trip() {
        for state in [State::Initialized, State::Processing, State::Completed, State::Failed] {
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        assert_eq!(State::from_name("paused"), None);
    }
}
