//! Recognition over the API: runs, decisions, queues; quality and liveness; and what is kept in memory.

use std::time::Duration;

use super::{FOUND, Label, Metric, REQUEST_SECONDS};

const OPERATION: Label = Label {
    name: "operation",
    values: &["detect", "quality", "liveness", "embed", "compare", "verify", "identify", "search", "enrol", "anchor"],
};
const POOL: Label = Label { name: "pool", values: &["photographs", "comparisons"] };

const RUNS: Metric = Metric::counter(
    "lintel_hub_recognition_runs_total",
    "Requests for recognition: answered, refused (the photograph or the request is at fault), turned_away (no room, or above a \
     limit), failed (the hub is at fault).",
    &[OPERATION, Label { name: "outcome", values: &["answered", "refused", "turned_away", "failed"] }],
);
const DURATION: Metric = Metric::histogram(
    "lintel_hub_recognition_duration_seconds",
    "From a request for recognition to its answer, by operation.",
    &[OPERATION],
    REQUEST_SECONDS,
);
const MODELS: Metric = Metric::histogram(
    "lintel_hub_recognition_models_duration_seconds",
    "Work of the models on the photographs of one request, without the wait for a worker.",
    &[],
    REQUEST_SECONDS,
);
const DECISIONS: Metric = Metric::counter(
    "lintel_hub_recognition_decisions_total",
    "What was decided: yes (it is them, or one person), or the reason why not.",
    &[
        Label { name: "operation", values: &["compare", "verify", "identify"] },
        Label { name: "decision", values: &["yes", "unknown", "ambiguous", "not_this_person", "attack", "other"] },
    ],
);
const QUEUE: Metric = Metric::gauge(
    "lintel_hub_recognition_queue_requests",
    "Requests that are worked on or wait for a worker.",
    &[POOL],
);
const QUEUE_MAX: Metric = Metric::gauge(
    "lintel_hub_recognition_queue_requests_max",
    "Requests that may be worked on or wait for a worker; one more is told to come back.",
    &[POOL],
);
const TURNED_AWAY: Metric = Metric::counter(
    "lintel_hub_recognition_turned_away_total",
    "Requests that were told to come back because the queue was full.",
    &[POOL],
);
const QUALITY: Metric = Metric::counter(
    "lintel_hub_quality_refusals_total",
    "Reasons for which photographs were not good enough; one photograph may have several.",
    &[Label {
        name: "reason",
        values: &[
            "no_face",
            "several_faces",
            "face_too_small",
            "face_blurred",
            "face_too_dark",
            "face_too_bright",
            "face_turned",
            "face_occluded",
            "face_cut_off",
            "photo_unreadable",
            "photo_too_large",
            "photos_differ",
            "other",
        ],
    }],
);
const LIVENESS: Metric = Metric::counter(
    "lintel_hub_liveness_verdicts_total",
    "Photographs looked at for life: attack is plainly one; insufficient is not, and a still photograph says no more.",
    &[Label { name: "verdict", values: &["attack", "insufficient"] }],
);
const GALLERIES: Metric = Metric::gauge("lintel_hub_gallery_cache_galleries", "Tenants' galleries in memory.", &[]);
const GALLERY_BYTES: Metric =
    Metric::gauge("lintel_hub_gallery_cache_bytes", "Memory of tenants' galleries, near enough.", &[]);
const GALLERY_BYTES_MAX: Metric = Metric::gauge(
    "lintel_hub_gallery_cache_max_bytes",
    "Memory that tenants' galleries may take ([recognition] galleries_mib).",
    &[],
);
const SEARCHES: Metric = Metric::counter(
    "lintel_hub_gallery_searches_total",
    "Searches of tenants' galleries, by what served them: the gallery in memory; where it is too large for that ([recognition] \
     galleries_mib), a scan of the vectors in the database, or the index over them. One that the index does not decide is a scan too.",
    &[Label { name: "path", values: &["memory", "scan", "index"] }],
);
const LOOKUPS: Metric = Metric::counter(
    "lintel_hub_cache_lookups_total",
    "Whether something was in memory and still held: galleries (else what changed is read), api_keys and logins (believed for two \
     seconds, else the database is asked).",
    &[Label { name: "cache", values: &["galleries", "api_keys", "logins"] }, Label { name: "result", values: FOUND }],
);

pub(super) const METRICS: &[Metric] = &[
    RUNS,
    DURATION,
    MODELS,
    DECISIONS,
    QUEUE,
    QUEUE_MAX,
    TURNED_AWAY,
    QUALITY,
    LIVENESS,
    GALLERIES,
    GALLERY_BYTES,
    GALLERY_BYTES_MAX,
    SEARCHES,
    LOOKUPS,
];

/// Where requests wait.
#[derive(Clone, Copy, Debug)]
pub enum Pool {
    /// For the models.
    Photographs,
    /// For a processor.
    Comparisons,
}

impl Pool {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Photographs => "photographs",
            Self::Comparisons => "comparisons",
        }
    }
}

/// What is kept in memory.
#[derive(Clone, Copy, Debug)]
pub enum Cache {
    /// Templates, ready to search.
    Galleries,
    /// Keys that were recognised.
    ApiKeys,
    /// Log-ins that were recognised.
    Logins,
}

/// A request for recognition was answered with this status.
pub fn ran(operation: &'static str, status: u16, took: Duration) {
    let outcome = match status {
        0..=399 => "answered",
        429 | 503 => "turned_away",
        400..=499 => "refused",
        _ => "failed",
    };
    RUNS.count(&[operation, outcome]);
    DURATION.observe(&[operation], took.as_secs_f64());
}

/// Two faces were compared, or somebody was verified or identified; `why_not` is the code of the refusal.
pub fn decided(operation: &'static str, why_not: Option<&'static str>) {
    let decision = match why_not {
        None => "yes",
        Some("liveness_failed") => "attack",
        Some(code) => code,
    };
    DECISIONS.count(&[operation, decision]);
}

/// Models have worked on the photographs of a request.
pub fn models_worked(took: Duration) {
    MODELS.observe(&[], took.as_secs_f64());
}

/// A pool as it is.
pub fn queue(pool: Pool, taken: usize, places: usize) {
    QUEUE.set(&[pool.as_str()], taken as f64);
    QUEUE_MAX.set(&[pool.as_str()], places as f64);
}

/// A pool had no room.
pub fn turned_away(pool: Pool) {
    TURNED_AWAY.count(&[pool.as_str()]);
}

/// A photograph was not good enough, for this reason.
pub fn refused_for(reason: &'static str) {
    QUALITY.count(&[reason]);
}

/// A photograph was looked at for life.
pub fn liveness(attack: bool) {
    LIVENESS.count(&[if attack { "attack" } else { "insufficient" }]);
}

/// Galleries in memory.
pub fn galleries(count: usize, bytes: usize, max_bytes: usize) {
    GALLERIES.set(&[], count as f64);
    GALLERY_BYTES.set(&[], bytes as f64);
    GALLERY_BYTES_MAX.set(&[], max_bytes as f64);
}

/// A gallery was searched by this path.
pub fn searched(path: &'static str) {
    SEARCHES.count(&[path]);
}

/// Something was looked for in memory.
pub fn looked_up(cache: Cache, hit: bool) {
    let cache = match cache {
        Cache::Galleries => "galleries",
        Cache::ApiKeys => "api_keys",
        Cache::Logins => "logins",
    };
    LOOKUPS.count(&[cache, FOUND[usize::from(!hit)]]);
}
