//! What is told of a session. Never a template, a picture, or what movements are drawn from.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use face_core::liveness::{Movement, STEPS};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::{Code, Timestamp};

use crate::openapi::{wire, words};
use crate::recognition::answers::WhyView;
use hub_domain::recognition::WhyNot;
use hub_keys::SessionState;
use hub_store::sessions::Session;
use hub_store::sessions::frames::Frame;

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct SessionView {
    id: Uuid,
    #[schema(value_type = words::SessionKind)]
    kind: &'static str,
    #[schema(value_type = words::SessionState)]
    state: &'static str,
    /// Whom it is about; `null` in an identification.
    #[schema(required)]
    person_id: Option<Uuid>,
    require_liveness: bool,
    /// Attempts that were judged.
    attempts: u16,
    max_attempts: u16,
    /// The template that an enrolment made.
    #[schema(required)]
    template_id: Option<Uuid>,
    /// What came of the last attempt that was judged.
    #[schema(required)]
    result: Option<ResultView>,
    /// Why the last attempt, or the session, came to nothing.
    #[schema(required)]
    why: Option<WhyView>,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = wire::Timestamp)]
    expires_at: Timestamp,
    #[schema(value_type = Option<wire::Timestamp>, required)]
    ended_at: Option<Timestamp>,
}

/// What came of an attempt. Without a comparison there is no score: nobody is looked for before they are seen to live.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionResult)]
pub(crate) struct ResultView {
    matched: bool,
    /// Who it is.
    #[schema(required)]
    person_id: Option<Uuid>,
    #[schema(required)]
    score: Option<f32>,
    #[schema(required)]
    threshold: Option<f32>,
    /// How far the second-best person is below.
    #[schema(required)]
    margin: Option<f32>,
    #[schema(required)]
    far: Option<String>,
    /// The passive model's mean.
    #[schema(required)]
    liveness: Option<f32>,
}

/// The stored form of a result.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Stored {
    pub(super) matched: bool,
    pub(super) person_id: Option<Uuid>,
    pub(super) score: Option<f32>,
    pub(super) threshold: Option<f32>,
    pub(super) margin: Option<f32>,
    pub(super) far: Option<String>,
    pub(super) liveness: Option<f32>,
    pub(super) why: Option<StoredWhy>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredWhy {
    code: Code,
    #[serde(default)]
    score: Option<f32>,
    #[serde(default)]
    threshold: Option<f32>,
}

impl StoredWhy {
    pub(super) fn code(&self) -> Code {
        self.code
    }
}

impl From<WhyNot> for StoredWhy {
    fn from(WhyNot { code, score, threshold }: WhyNot) -> Self {
        Self { code, score, threshold }
    }
}

impl From<StoredWhy> for WhyView {
    fn from(StoredWhy { code, score, threshold }: StoredWhy) -> Self {
        WhyNot { code, score, threshold }.into()
    }
}

impl SessionView {
    pub(super) fn of(session: Session, now: OffsetDateTime) -> Self {
        let stored: Option<Stored> = session.result.and_then(|result| serde_json::from_value(result).ok());
        let code = |word: String| serde_json::from_value::<Code>(Value::String(word)).ok();
        let ended = session.reason.and_then(code).map(|code| WhyNot { code, score: None, threshold: None }.into());
        let (result, why) = match stored {
            None => (None, ended),
            Some(Stored { matched, person_id, score, threshold, margin, far, liveness, why }) => (
                Some(ResultView { matched, person_id, score, threshold, margin, far, liveness }),
                why.map(WhyView::from).or(ended),
            ),
        };
        Self {
            id: session.id.0,
            kind: session.kind.as_str(),
            state: session.state.at(now, session.expires_at).name(),
            person_id: session.person_id.map(|person| person.0),
            require_liveness: session.require_liveness,
            attempts: session.attempts,
            max_attempts: session.max_attempts,
            template_id: session.template_id.map(|template| template.0),
            result,
            why,
            created_at: session.created_at.into(),
            expires_at: session.expires_at.into(),
            ended_at: session.ended_at.map(Timestamp::from),
        }
    }
}

/// A session, its frames so far, and what is asked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionProgress)]
pub(crate) struct StateView {
    pub(super) session: SessionView,
    /// The frames of the present attempt; none once the session ended.
    frames: Vec<FrameView>,
    /// What is asked of the person; `null` when nothing is.
    #[schema(required)]
    challenge: Option<ChallengeView>,
    /// Why it cannot be decided yet, if somebody asked for the decision too early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) undecided: Option<WhyView>,
    /// Another person who looks the same; not told to whoever has nothing but the session's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub(super) duplicate: Option<Value>,
}

/// What came of one frame.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionFrame)]
struct FrameView {
    /// Its place in the attempt, from 0.
    index: u32,
    /// Whether it can be compared. A turned head cannot, and answers a challenge all the same.
    accepted: bool,
    /// How good it is, in [0, 1]; `null` when there was not exactly one face.
    #[schema(required)]
    quality: Option<f32>,
    /// Why not, the most helpful first.
    #[schema(value_type = Vec<wire::Code>)]
    reasons: Vec<String>,
}

impl From<Frame> for FrameView {
    fn from(frame: Frame) -> Self {
        Self { index: frame.number, accepted: frame.accepted, quality: frame.quality, reasons: frame.reasons }
    }
}

/// What is asked of the person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionChallenge)]
pub(crate) struct ChallengeView {
    /// The movement to make, from a frontal face; `null` when all were made.
    #[schema(value_type = Option<words::Movement>, required)]
    movement: Option<&'static str>,
    /// Which one it is, from 1.
    step: usize,
    /// How many there are.
    steps: usize,
    /// Frames that answer carry it: what was taken before it was shown is no answer.
    nonce: String,
    /// Whether all movements were made.
    passed: bool,
}

/// As documents name it.
const fn word(movement: Movement) -> &'static str {
    match movement {
        Movement::TurnLeft => "turn_left",
        Movement::TurnRight => "turn_right",
        Movement::Nod => "nod",
        Movement::Blink => "blink",
    }
}

/// All of them.
pub(crate) const MOVEMENTS: [&str; 4] =
    [word(Movement::TurnLeft), word(Movement::TurnRight), word(Movement::Nod), word(Movement::Blink)];

impl ChallengeView {
    pub(super) fn of(state: &SessionState) -> Option<Self> {
        let standing = state.standing()?;
        let wanted = standing.wanted();
        Some(Self {
            movement: wanted.map(|(movement, _)| word(movement)),
            step: wanted.map_or(STEPS, |(_, number)| usize::from(number) + 1),
            steps: STEPS,
            nonce: URL_SAFE_NO_PAD.encode(state.session.prompt?.nonce),
            passed: standing.passed(),
        })
    }
}

impl StateView {
    pub(super) fn of(state: SessionState, now: OffsetDateTime) -> Self {
        let open = !state.session.state.at(now, state.session.expires_at).ended();
        let challenge = if open { ChallengeView::of(&state) } else { None };
        let frames = if open { state.frames } else { Vec::new() };
        Self {
            session: SessionView::of(state.session, now),
            frames: frames.into_iter().map(FrameView::from).collect(),
            challenge,
            undecided: None,
            duplicate: None,
        }
    }
}
