//! Sessions: from being opened over frames to an end. Enrolment, verification and identification have the same states.
//!
//! In: a session's state, what happened, and the time. Out: the next state, or an error that names the forbidden step. Whether somebody
//! lives is [`life`]'s to say, who it is `domain::recognition`'s. [`token`] is what a kiosk holds. Deliberately absent: pictures, where rows are.

pub mod life;
pub mod token;

use face_core::Embedding;
use life::Look;
use time::{Duration, OffsetDateTime};
use wire_contract::Code;

/// How long one request with photographs may take: a minute or so, and what is older was left by a hub that stopped.
pub const LIFETIME: Duration = Duration::minutes(15);
/// Attempts that a session may have at most. Each is one chance in 36 for a recording ([`face_core::liveness::Challenge`]).
pub const MAX_ATTEMPTS: u16 = 5;
/// Attempts unless somebody says otherwise: as many as a face at a door has.
pub const ATTEMPTS: u16 = 3;
/// The best frames of an attempt, of which the mean is taken: more of them add nothing (docs/measurements).
pub const BEST_FRAMES: usize = 5;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A template for a person.
    Enrolment,
    /// Whether it is a person.
    Verification,
    /// Who it is.
    Identification,
}

impl Kind {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Enrolment, Self::Verification, Self::Identification];

    /// The stored and published name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolment => "enrolment",
            Self::Verification => "verification",
            Self::Identification => "identification",
        }
    }

    /// The kind of a stored name; `None` for a name that no version wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Frames that one attempt may have: a challenge of fifteen seconds at four a second, or photographs.
    #[must_use]
    pub fn max_frames(self) -> usize {
        match self {
            Self::Enrolment => 20,
            Self::Verification | Self::Identification => 60,
        }
    }
}

/// How long sessions of a tenant stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Seconds of a verification or identification.
    pub authentication_s: u32,
    /// Seconds of an enrolment.
    pub enrolment_s: u32,
}

impl Lifetimes {
    /// Bounds of an authentication: a challenge takes fifteen seconds, and nobody stands before a kiosk for ten minutes.
    pub const AUTHENTICATION: std::ops::RangeInclusive<u32> = 30..=600;
    /// Bounds of an enrolment, which may have to wait for somebody.
    pub const ENROLMENT: std::ops::RangeInclusive<u32> = 60..=3_600;

    /// How long one of this kind stays open.
    #[must_use]
    pub fn of(self, kind: Kind) -> Duration {
        Duration::seconds(i64::from(match kind {
            Kind::Enrolment => self.enrolment_s,
            Kind::Verification | Kind::Identification => self.authentication_s,
        }))
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Opened; no frame has been judged.
    Initialized,
    /// Frames are being judged.
    Processing,
    /// It came to what it is for: a template, or somebody who was recognised.
    Completed,
    /// It did not; the session keeps the reason code.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// Its time was over.
    Expired,
}

/// What happens to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Frames arrived.
    Submitted,
    /// A template was stored, or somebody was recognised.
    Accepted,
    /// It was refused, and there is no attempt left.
    Refused,
    /// Somebody ended it.
    Cancelled,
    /// The job found that its time is over.
    Lapsed,
}

/// A step that the state does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session has ended or has not begun.
    #[error("a session that is {state} cannot be {input}")]
    NotAllowed {
        /// The state it is in.
        state: &'static str,
        /// The step that was tried.
        input: &'static str,
    },
    /// Its time is over.
    #[error("the time of this session is over: open a new one")]
    Expired,
    /// Something else happened to the session in the meantime.
    #[error("the session has changed meanwhile: read it, and send one request after the other")]
    Changed,
}

impl State {
    /// All there are.
    pub const ALL: &[Self] =
        &[Self::Initialized, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled, Self::Expired];

    /// The stored and published name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialized => "initialized",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// The state of a stored name; `None` for a name that no version wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }

    /// Whether nothing more can happen to the session.
    #[must_use]
    pub fn ended(self) -> bool {
        !matches!(self, Self::Initialized | Self::Processing)
    }

    /// What it is at `now`, whether or not the job has been there yet.
    #[must_use]
    pub fn at(self, now: OffsetDateTime, expires_at: OffsetDateTime) -> Self {
        if !self.ended() && now >= expires_at { Self::Expired } else { self }
    }
}

impl Input {
    fn name(self) -> &'static str {
        match self {
            Self::Submitted => "given frames",
            Self::Accepted => "completed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Lapsed => "expired",
        }
    }
}

/// Advances a session by one input at `now`. Expiry wins over every input.
pub fn step(
    state: State,
    input: Input,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<State, SessionError> {
    let not_allowed = || Err(SessionError::NotAllowed { state: state.name(), input: input.name() });
    if state.ended() {
        return not_allowed();
    }
    if now >= expires_at {
        return if input == Input::Lapsed { Ok(State::Expired) } else { Err(SessionError::Expired) };
    }
    match (state, input) {
        (State::Initialized | State::Processing, Input::Submitted) => Ok(State::Processing),
        (State::Processing, Input::Accepted) => Ok(State::Completed),
        (State::Processing, Input::Refused) => Ok(State::Failed),
        (State::Initialized | State::Processing, Input::Cancelled) => Ok(State::Cancelled),
        _ => not_allowed(),
    }
}

/// What one frame gave.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether it can be compared.
    pub accepted: bool,
    /// How good it is, in [0, 1]; none when there was not exactly one face.
    pub quality: Option<f32>,
    /// Why not, the most helpful first.
    pub reasons: Vec<Code>,
    /// What it says of life, of one that shows the person of the frames before.
    pub look: Option<Look>,
    /// The template of one that was accepted.
    pub embedding: Option<Embedding>,
}

/// The places of the best frames, the best first. Equal ones keep their order.
#[must_use]
pub fn best(qualities: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..qualities.len()).collect();
    order.sort_by(|a, b| qualities[*b].total_cmp(&qualities[*a]));
    order.truncate(BEST_FRAMES);
    order
}

/// What a refused attempt means for the session: the next one, or its end.
#[must_use]
pub fn after_refusal(attempts: u16, max_attempts: u16) -> Option<Input> {
    (attempts >= max_attempts).then_some(Input::Refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const INPUTS: [Input; 5] = [Input::Submitted, Input::Accepted, Input::Refused, Input::Cancelled, Input::Lapsed];

    fn run(state: State, input: Input) -> Result<State, SessionError> {
        step(state, input, START, START + LIFETIME)
    }

    #[test]
    fn frames_lead_to_an_answer_or_to_a_reason() {
        let processing = run(State::Initialized, Input::Submitted).unwrap();
        assert_eq!(run(processing, Input::Submitted), Ok(State::Processing));
        assert_eq!(run(processing, Input::Accepted), Ok(State::Completed));
        assert_eq!(run(processing, Input::Refused), Ok(State::Failed));
        for open in [State::Initialized, State::Processing] {
            assert_eq!(run(open, Input::Cancelled), Ok(State::Cancelled));
            assert!(matches!(run(open, Input::Lapsed), Err(SessionError::NotAllowed { .. })), "not before its time");
        }
        for early in [Input::Accepted, Input::Refused] {
            assert!(matches!(run(State::Initialized, early), Err(SessionError::NotAllowed { .. })));
        }
    }

    #[test]
    fn a_session_whose_time_is_over_takes_nothing_from_the_very_instant() {
        let at = START + LIFETIME;
        let just_before = at - Duration::milliseconds(1);
        assert_eq!(step(State::Processing, Input::Accepted, at, at), Err(SessionError::Expired));
        assert_eq!(step(State::Processing, Input::Accepted, just_before, at), Ok(State::Completed));
        assert_eq!(State::Processing.at(at, at), State::Expired);
        assert_eq!(State::Processing.at(just_before, at), State::Processing);
        assert_eq!(State::Completed.at(at, at), State::Completed);
    }

    #[test]
    fn the_best_frames_are_the_best_and_not_the_first() {
        assert_eq!(best(&[0.2, 0.9, 0.5]), [1, 2, 0]);
        assert_eq!(best(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6]), [5, 6, 4, 3, 2]);
        assert!(best(&[]).is_empty());
    }

    #[test]
    fn attempts_come_to_an_end() {
        assert_eq!(after_refusal(2, 3), None);
        assert_eq!(after_refusal(3, 3), Some(Input::Refused));
        assert_eq!(after_refusal(9, 3), Some(Input::Refused));
    }

    #[test]
    fn names_round_trip() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(*state));
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.as_str()), Some(*kind));
        }
        assert_eq!((State::from_name("paused"), Kind::from_name("party")), (None, None));
    }

    proptest! {
        /// Whatever happens, in whatever order: an end is an end, and whoever is open when the time is over expires.
        #[test]
        fn no_way_leads_out_of_an_end_and_time_ends_what_is_open(
            happenings in prop::collection::vec((0..INPUTS.len(), 0_i64..200), 0..40),
            seconds in 1_i64..120,
        ) {
            let expires_at = START + Duration::seconds(seconds);
            let (mut state, mut now, mut ended) = (State::Initialized, START, None);
            for (input, passed) in happenings {
                now += Duration::seconds(passed);
                let before = state;
                match step(state, INPUTS[input], now, expires_at) {
                    Ok(next) => {
                        prop_assert!(!before.ended(), "{before:?} led to {next:?}");
                        prop_assert!(now < expires_at || next == State::Expired);
                        state = next;
                    }
                    Err(error) => prop_assert_eq!(
                        error == SessionError::Expired,
                        !before.ended() && now >= expires_at
                    ),
                }
                if state.ended() {
                    prop_assert_eq!(*ended.get_or_insert(state), state);
                }
            }
            if !state.ended() {
                let at = expires_at.max(now);
                prop_assert_eq!(state.at(at, expires_at), State::Expired);
                prop_assert_eq!(step(state, Input::Lapsed, at, expires_at), Ok(State::Expired));
            }
        }
    }
}
