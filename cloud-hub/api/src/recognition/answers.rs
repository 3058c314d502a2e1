//! What recognition answers: faces, qualities, decisions, and why not.

use face_core::Ranked;
use face_core::quality::{Quality, QualityGate};
use face_runtime::ExaminedFace;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::texts::{Language, code_text, hint_text};
use wire_contract::{Code, Problem, Stage};

use crate::enrolments::refused;
use crate::openapi::{texts, wire, words};
use crate::problem::ApiError;
use hub_domain::recognition::WhyNot;
use hub_recognition::enroller::refusal_code;
use hub_recognition::faces::NoFace;

/// Why not: what refused, what was reached, and what to do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WhyNot)]
pub(crate) struct WhyView {
    /// Where it was refused.
    #[schema(value_type = words::Stage)]
    stage: Stage,
    /// Why.
    #[schema(value_type = wire::Code)]
    code: Code,
    /// The same in words.
    text: &'static str,
    /// What to do.
    #[schema(required)]
    hint: Option<&'static str>,
    /// What was reached.
    #[schema(required)]
    score: Option<f32>,
    /// What had to be reached.
    #[schema(required)]
    threshold: Option<f32>,
}

impl From<WhyNot> for WhyView {
    fn from(why: WhyNot) -> Self {
        Self {
            stage: why.code.entry().map_or(Stage::Api, |entry| entry.stage),
            code: why.code,
            text: code_text(why.code, Language::English),
            hint: hint_text(why.code, Language::English),
            score: why.score,
            threshold: why.threshold,
        }
    }
}

/// A rectangle in pixels of the picture, from its upper left corner.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FaceBox)]
pub(crate) struct BoxView {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

/// Where a head points, in degrees.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HeadPose)]
pub(crate) struct PoseView {
    yaw: f32,
    pitch: f32,
    roll: f32,
}

/// Five scores in [0, 1], 1 best, and their product.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FaceQuality)]
pub(crate) struct QualityView {
    overall: f32,
    sharpness: f32,
    brightness: f32,
    pose: f32,
    visibility: f32,
    size: f32,
}

impl From<&Quality> for QualityView {
    fn from(quality: &Quality) -> Self {
        Self {
            overall: quality.overall(),
            sharpness: quality.sharpness,
            brightness: quality.brightness,
            pose: quality.pose,
            visibility: quality.visibility,
            size: quality.size,
        }
    }
}

/// A face on a photograph.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Face)]
pub(crate) struct FaceView {
    #[serde(rename = "box")]
    rect: BoxView,
    /// The detector's confidence in [0, 1].
    score: f32,
    pose: PoseView,
    quality: QualityView,
}

impl From<&ExaminedFace> for FaceView {
    fn from(face: &ExaminedFace) -> Self {
        let (rect, pose) = (&face.face, &face.pose);
        Self {
            rect: BoxView { x: rect.x(), y: rect.y(), width: rect.width(), height: rect.height() },
            score: face.score,
            pose: PoseView { yaw: pose.yaw_deg, pitch: pose.pitch_deg, roll: pose.roll_deg },
            quality: (&face.quality).into(),
        }
    }
}

/// Faces, the largest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Faces)]
pub(crate) struct FacesView {
    /// At most sixteen of them.
    pub(super) faces: Vec<FaceView>,
    /// How many there are.
    pub(super) count: usize,
}

/// Whether a face is good enough, and if not, why not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GateVerdict)]
pub(crate) struct GateView {
    accepted: bool,
    why: Vec<WhyView>,
}

impl GateView {
    fn of(gate: &QualityGate, quality: &Quality) -> Self {
        let code = |reason| refusal_code(face_runtime::RefusalReason::Quality(reason));
        let why = |reason| WhyView::from(WhyNot { code: code(reason), score: None, threshold: None });
        let why: Vec<WhyView> = gate.reasons(quality).into_iter().map(why).collect();
        Self { accepted: why.is_empty(), why }
    }
}

/// The quality of the only face.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QualityReport)]
pub(crate) struct QualityAnswer {
    face: FaceView,
    /// For an enrolment.
    enrolment: GateView,
    /// For a comparison.
    matching: GateView,
}

impl From<&ExaminedFace> for QualityAnswer {
    fn from(face: &ExaminedFace) -> Self {
        Self {
            face: face.into(),
            enrolment: GateView::of(&QualityGate::enrol(), &face.quality),
            matching: GateView::of(&QualityGate::matching(), &face.quality),
        }
    }
}

/// What a still photograph says of life.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StillLiveness)]
pub(crate) struct LivenessAnswer {
    /// `attack`, or `insufficient`: a still photograph never proves that somebody lives.
    #[schema(value_type = words::StillDecision)]
    pub(super) decision: &'static str,
    /// How alive it looks, in [0, 1].
    pub(super) score: f32,
    pub(super) face: FaceView,
    #[schema(required)]
    pub(super) why: Option<WhyView>,
}

/// A template.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EmbeddedTemplate)]
pub(crate) struct TemplateAnswer {
    pub(super) space_id: String,
    pub(super) model_version: String,
    /// 512 numbers of 32 bits, little endian, of unit norm, in base64.
    #[schema(value_type = texts::Base64)]
    pub(super) vector: String,
    /// How good the photograph was, in [0, 1], as templates are docked by.
    pub(super) quality: f32,
}

/// Two faces compared.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Comparison)]
pub(crate) struct ComparisonAnswer {
    pub(super) same: bool,
    pub(super) score: f32,
    pub(super) threshold: f32,
    pub(super) far: String,
    #[schema(required)]
    pub(super) why: Option<WhyView>,
}

/// Whether it is the person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Verification)]
pub(crate) struct VerificationAnswer {
    pub(super) verified: bool,
    pub(super) person_id: Uuid,
    #[schema(required)]
    pub(super) score: Option<f32>,
    pub(super) threshold: f32,
    pub(super) far: String,
    #[schema(required)]
    pub(super) liveness: Option<f32>,
    #[schema(required)]
    pub(super) why: Option<WhyView>,
}

/// A template of the gallery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Candidate)]
pub(crate) struct CandidateView {
    pub(super) person_id: Uuid,
    pub(super) template_id: Uuid,
    pub(super) score: f32,
}

impl From<&Ranked> for CandidateView {
    fn from(row: &Ranked) -> Self {
        Self { person_id: row.person.0, template_id: row.template.0, score: row.similarity.value() }
    }
}

/// Who it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identification)]
pub(crate) struct IdentificationAnswer {
    #[schema(value_type = words::Identity)]
    pub(super) decision: &'static str,
    #[schema(required)]
    pub(super) person_id: Option<Uuid>,
    #[schema(required)]
    pub(super) score: Option<f32>,
    pub(super) threshold: f32,
    #[schema(required)]
    pub(super) margin: Option<f32>,
    pub(super) far: String,
    #[schema(required)]
    pub(super) liveness: Option<f32>,
    /// Templates that were compared.
    pub(super) compared: usize,
    /// The nearest people, each by their best template; as many as were asked for.
    pub(super) candidates: Vec<CandidateView>,
    #[schema(required)]
    pub(super) why: Option<WhyView>,
}

/// The nearest people.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SearchResult)]
pub(crate) struct SearchAnswer {
    pub(super) candidates: Vec<CandidateView>,
    /// Templates that were compared.
    pub(super) compared: usize,
}

/// A photograph that gives no answer: 422 with every reason, or the hub's fault.
pub(super) fn no_face(why: NoFace, name: &str) -> ApiError {
    match why {
        NoFace::Hub(refusal) => refused(refusal),
        NoFace::Photograph(codes) => {
            let first = codes.first().copied().unwrap_or(Code::NoFace);
            let mut problem = Problem::of(first);
            problem.status = axum::http::StatusCode::UNPROCESSABLE_ENTITY.as_u16();
            let mut whys = Vec::new();
            for code in codes {
                let view = WhyView::from(WhyNot { code, score: None, threshold: None });
                let message = [Some(view.text), view.hint].into_iter().flatten().collect::<Vec<_>>().join(". ");
                problem = problem.field(format!("/{name}"), code, message);
                whys.push(view);
            }
            problem.extension("why", serde_json::json!(whys)).into()
        }
    }
}
