//! Happenings in the words of the wire contract. Pure.

use face_core::door::{DenyReason, LockCause};
use face_core::liveness::{LivenessVerdict, Method, STEP_LIMIT, STEPS};
use face_core::quality::QualityReason;
use wire_contract::event::{
    AccessData, CameraRecoveredData, CameraStalledData, CommandSettledData, DoorCause, DoorData, FaceAppearedData,
    GalleryHealedData, GalleryOlderEpochData, GalleryRebuiltData, IdentityScores, LivenessChallengeEndedData,
    LivenessPromptedData, LivenessScores, Reason, SnapshotRefusedData, SystemGapData, SystemStartedData, Timing,
};
use wire_contract::{Code, EventData, GalleryId, PersonId, Score, Stage};

use super::Happening;
use crate::stages::decide::{AccessContext, DoorEvent, LivenessSeen};

/// As the wire counts them.
const STEPS_TOLD: u32 = STEPS as u32;

/// What every event of this run says of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The model pack, name and version.
    pub pack: String,
    /// The embedding space.
    pub space_id: String,
    /// The agent's version.
    pub agent_version: String,
}

/// An event's data and what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Type and data.
    pub data: EventData,
    /// An opaque id.
    pub subject: Option<String>,
}

/// Says what happened.
#[must_use]
pub fn data_of(happening: &Happening, origin: &Origin) -> Told {
    match happening {
        Happening::Door { door, camera, event, .. } => door_event(door, camera, event, origin),
        Happening::FaceAppeared { camera, track, .. } => Told {
            data: EventData::FaceAppeared(FaceAppearedData { camera: camera.to_string(), track: track.0 }),
            subject: Some(camera.to_string()),
        },
        Happening::CameraStalled { camera, frame_age, detail, .. } => Told {
            data: EventData::CameraStalled(CameraStalledData {
                camera: camera.to_string(),
                frame_age_ms: frame_age.map(milliseconds),
                detail: detail.clone(),
            }),
            subject: Some(camera.to_string()),
        },
        Happening::CameraRecovered { camera, outage, .. } => Told {
            data: EventData::CameraRecovered(CameraRecoveredData {
                camera: camera.to_string(),
                outage_ms: milliseconds(*outage),
            }),
            subject: Some(camera.to_string()),
        },
        Happening::SystemStarted { .. } => Told {
            data: EventData::SystemStarted(SystemStartedData {
                agent_version: origin.agent_version.clone(),
                pack: Some(origin.pack.clone()),
                space_id: Some(origin.space_id.clone()),
            }),
            subject: None,
        },
        Happening::StreamRenewed { from, until, count, .. } => Told {
            data: EventData::SystemGap(SystemGapData {
                from: (*from).into(),
                until: (*until).into(),
                count: *count,
                // What cannot be read does not say what it was.
                classes: Vec::new(),
            }),
            subject: None,
        },
        Happening::GalleryRebuilt { gallery, epoch, code, .. } => Told {
            data: EventData::GalleryRebuilt(GalleryRebuiltData {
                gallery: GalleryId(*gallery),
                epoch: *epoch,
                reason: Reason::of(*code),
            }),
            subject: Some(gallery.to_string()),
        },
        Happening::GalleryHealed { gallery, epoch, version, buckets, replaced, .. } => Told {
            data: EventData::GalleryHealed(GalleryHealedData {
                gallery: GalleryId(*gallery),
                epoch: *epoch,
                version: *version,
                buckets: *buckets,
                received: replaced.received,
                removed: replaced.removed,
            }),
            subject: Some(gallery.to_string()),
        },
        Happening::SnapshotRefused { gallery, epoch, version, code, .. } => Told {
            data: EventData::SnapshotRefused(SnapshotRefusedData {
                alarm: true,
                gallery: GalleryId(*gallery),
                epoch: *epoch,
                version: *version,
                reason: Reason::of(*code),
            }),
            subject: Some(gallery.to_string()),
        },
        Happening::CommandSettled { command, order, state, code, .. } => Told {
            data: EventData::CommandSettled(CommandSettledData {
                command: *command,
                order: order.clone(),
                state: *state,
                reason: code.map(Reason::of),
            }),
            subject: Some(command.to_string()),
        },
        Happening::OlderEpochOffered { gallery, offered, held, .. } => Told {
            data: EventData::GalleryOlderEpoch(GalleryOlderEpochData {
                alarm: true,
                gallery: GalleryId(*gallery),
                offered: *offered,
                held: *held,
            }),
            subject: Some(gallery.to_string()),
        },
    }
}

fn door_event(door: &str, camera: &str, event: &DoorEvent, origin: &Origin) -> Told {
    match event {
        DoorEvent::Granted(context) => {
            let mut reason = Reason::of(Code::Granted);
            if let Some((score, threshold)) = context.identity.and_then(|i| i.score.map(|score| (score, i.threshold))) {
                reason = reason.compared(score, threshold);
            }
            let timing = Timing {
                last_frame_to_relay_ms: context.frame_age.map(milliseconds),
                arrival_to_relay_ms: context.since_arrival.map(milliseconds),
                frame_age_ms: context.frame_age.map(milliseconds),
            };
            let data = access(door, camera, context, reason, timing, origin);
            Told { subject: data.person.map(|person| person.to_string()), data: EventData::AccessGranted(data) }
        }
        DoorEvent::Denied { context, reason } => {
            let reason = denial(*reason, context);
            let timing = Timing { frame_age_ms: context.frame_age.map(milliseconds), ..Timing::default() };
            let data = access(door, camera, context, reason, timing, origin);
            Told { subject: Some(door.to_owned()), data: EventData::AccessDenied(data) }
        }
        DoorEvent::Unlocked { decision, person, command } => {
            let cause = match (decision, command) {
                (Some(_), _) => DoorCause::Granted,
                (None, Some(_)) => DoorCause::Command,
                (None, None) => DoorCause::Agent,
            };
            let person = person.map(|person| PersonId(person.0));
            let data = DoorData { door: door.to_owned(), cause, decision: decision.or(*command), person };
            Told { data: EventData::DoorUnlocked(data), subject: Some(door.to_owned()) }
        }
        DoorEvent::Prompted { track, prompt, step, .. } => {
            let data = LivenessPromptedData {
                door: door.to_owned(),
                camera: camera.to_owned(),
                track: track.0,
                prompt: *prompt,
                step: *step,
                steps: STEPS_TOLD,
                within_ms: milliseconds(STEP_LIMIT),
            };
            Told { data: EventData::LivenessPrompted(data), subject: Some(door.to_owned()) }
        }
        DoorEvent::ChallengeEnded(end) => {
            let data = LivenessChallengeEndedData {
                door: door.to_owned(),
                camera: camera.to_owned(),
                track: end.track.0,
                passed: end.reason.is_none(),
                reason: end.reason.map(|reason| Reason::of(denial_code(reason))),
                answered: u32::try_from(end.answered).unwrap_or(u32::MAX),
                steps: STEPS_TOLD,
                took_ms: end.took.map(milliseconds),
            };
            Told { data: EventData::LivenessChallengeEnded(data), subject: Some(door.to_owned()) }
        }
        DoorEvent::Locked { cause } => {
            let cause = match cause {
                LockCause::HoldElapsed => DoorCause::HoldElapsed,
                LockCause::PersonRevoked => DoorCause::PersonRemoved,
                LockCause::Lockdown => DoorCause::Command,
                LockCause::Fault | LockCause::Tamper | LockCause::FaultCleared => DoorCause::Agent,
            };
            let data = DoorData { door: door.to_owned(), cause, decision: None, person: None };
            Told { data: EventData::DoorLocked(data), subject: Some(door.to_owned()) }
        }
    }
}

fn access(
    door: &str,
    camera: &str,
    context: &AccessContext,
    reason: Reason,
    timing: Timing,
    origin: &Origin,
) -> AccessData {
    AccessData {
        door: door.to_owned(),
        camera: camera.to_owned(),
        decision: context.decision,
        person: context.person.map(|person| PersonId(person.0)),
        reason,
        identity: context.identity.map(|identity| IdentityScores {
            best_score: identity.score.map(Score::from),
            threshold: Score::from(identity.threshold),
            margin: identity.margin.map(Score::from),
        }),
        liveness: context.liveness.map(|seen| liveness(&seen)),
        quality: context.identity.map(|identity| Score::from(identity.quality)),
        timing,
        space_id: Some(origin.space_id.clone()),
        pack: Some(origin.pack.clone()),
    }
}

fn liveness(seen: &LivenessSeen) -> LivenessScores {
    let (verdict, score) = match seen.verdict {
        LivenessVerdict::Live { score } => ("live", Some(score)),
        LivenessVerdict::Attack { by: Method::Temporal | Method::Motion, score } => ("still", Some(score)),
        LivenessVerdict::Attack { by: Method::Challenge, score } => ("unanswered", Some(score)),
        LivenessVerdict::Attack { score, .. } => ("attack", Some(score)),
        LivenessVerdict::Watch { score, .. } => ("collecting", Some(score)),
        LivenessVerdict::Collecting { .. } => ("collecting", None),
        LivenessVerdict::Unavailable => ("unavailable", None),
    };
    LivenessScores {
        verdict: verdict.to_owned(),
        score: score.map(Score::from),
        threshold: Score::from(seen.threshold),
    }
}

/// The reason with the comparison of its own stage: similarity where the search spoke, liveness where that did.
fn denial(reason: DenyReason, context: &AccessContext) -> Reason {
    let told = Reason::of(denial_code(reason));
    let compared = match told.stage {
        // Before a negative anchor the score had to beat the anchor's, which is above the policy's threshold.
        Some(Stage::Identify) => {
            context.identity.and_then(|i| i.score.map(|score| (score, i.anchor.unwrap_or(i.threshold))))
        }
        Some(Stage::Liveness) => context.liveness.and_then(|seen| match seen.verdict {
            LivenessVerdict::Live { score }
            | LivenessVerdict::Attack { score, .. }
            | LivenessVerdict::Watch { score, .. } => Some((score, seen.threshold)),
            LivenessVerdict::Collecting { .. } | LivenessVerdict::Unavailable => None,
        }),
        _ => None,
    };
    match compared {
        Some((score, threshold)) => told.compared(score, threshold),
        None => told,
    }
}

/// The code of a refusal.
#[must_use]
pub fn denial_code(reason: DenyReason) -> Code {
    match reason {
        DenyReason::Unknown => Code::Unknown,
        DenyReason::Ambiguous => Code::Ambiguous,
        DenyReason::NotThisPerson => Code::NotThisPerson,
        DenyReason::LivenessFailed => Code::LivenessFailed,
        DenyReason::LivenessStill => Code::LivenessStill,
        DenyReason::LivenessUndecided => Code::LivenessUndecided,
        DenyReason::LivenessUnavailable => Code::LivenessUnavailable,
        DenyReason::ChallengeFailed => Code::ChallengeFailed,
        DenyReason::ChallengeTimeout => Code::ChallengeTimeout,
        DenyReason::Quality(quality) => quality_code(quality),
        DenyReason::Stale => Code::DecisionStale,
        DenyReason::PersonRemoved => Code::PersonRemoved,
        DenyReason::PersonExpired => Code::PersonExpired,
        DenyReason::NotPermitted => Code::NotPermitted,
        DenyReason::GalleryUnavailable => Code::GalleryUnavailable,
        DenyReason::ModelsUnavailable => Code::ModelsUnavailable,
        DenyReason::CameraStalled => Code::CameraStalled,
        DenyReason::DoorFault => Code::Unavailable,
        DenyReason::LockedDown => Code::DoorLockedDown,
    }
}

/// The code of a quality reason; the same on the command line.
#[must_use]
pub fn quality_code(reason: QualityReason) -> Code {
    match reason {
        QualityReason::TooSmall => Code::FaceTooSmall,
        QualityReason::Blurred => Code::FaceBlurred,
        QualityReason::TooDark => Code::FaceTooDark,
        QualityReason::TooBright => Code::FaceTooBright,
        QualityReason::Turned => Code::FaceTurned,
        QualityReason::Occluded => Code::FaceOccluded,
    }
}

fn milliseconds(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
