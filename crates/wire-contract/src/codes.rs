//! The register of reasons and errors: each has one stable code, used by events, API and command line alike.
//!
//! In: a [`Code`]. Out: its stage, the id of a hint for a person, its default HTTP status; its texts are in
//! [`crate::texts`]. A code never changes its meaning and is never removed; new ones are added at the end of their group.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where on the line something was found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Camera.
    Capture,
    /// Finding faces; models.
    Detect,
    /// Judging a face's picture.
    Quality,
    /// Judging whether it is a living person.
    Liveness,
    /// Searching.
    Identify,
    /// Deciding at the door.
    Decide,
    /// Enrolling.
    Enrol,
    /// Between edge and hub.
    Sync,
    /// The hub's API.
    Api,
}

/// One row of the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The code as a word.
    pub word: &'static str,
    /// Where it is found.
    pub stage: Stage,
    /// The id of the text that tells a person what to do.
    pub hint: &'static str,
    /// The HTTP status of an API answer with this code; `None` for codes that only events carry.
    pub http_status: Option<u16>,
}

macro_rules! register {
    ($($(#[$doc:meta])* $variant:ident, $word:literal, $stage:ident, $hint:literal, $status:expr;)+) => {
        /// A reason or error. On the wire it is its word; a word that this program does not know reads as
        /// [`Code::Unlisted`], so that a newer peer is understood as far as possible.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code {
            $($(#[$doc])* $variant,)+
            /// A code of a newer program. Writes as `unlisted`.
            Unlisted,
        }

        impl Code {
            /// Every code of the register.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its row; `None` for [`Code::Unlisted`].
            pub const fn entry(self) -> Option<&'static Entry> {
                match self {
                    $(Self::$variant => Some(&Entry { word: $word, stage: Stage::$stage, hint: $hint, http_status: $status }),)+
                    Self::Unlisted => None,
                }
            }

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ Self::Unlisted => "unlisted" }
            }

            fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

register! {
    /// The door was opened.
    Granted, "granted", Decide, "hint.welcome", None;
    /// Nobody in the gallery is similar enough.
    Unknown, "unknown", Identify, "hint.ask_to_be_enrolled", None;
    /// Two people are too similar to tell which it is.
    Ambiguous, "ambiguous", Identify, "hint.look_straight", None;
    /// The passive check says that it is not a living person.
    LivenessFailed, "liveness_failed", Liveness, "hint.show_yourself", Some(422);
    /// The face hardly changes, as a photograph's would.
    LivenessStill, "liveness_still", Liveness, "hint.move_head", Some(422);
    /// There was not enough to judge by before the person left.
    LivenessUndecided, "liveness_undecided", Liveness, "hint.stay_in_view", Some(422);
    /// A required liveness check could not be made.
    LivenessUnavailable, "liveness_unavailable", Liveness, "hint.ask_operator", Some(503);
    /// The face has too few pixels.
    FaceTooSmall, "face_too_small", Quality, "hint.come_closer", Some(422);
    /// The face is not sharp.
    FaceBlurred, "face_blurred", Quality, "hint.hold_still", Some(422);
    /// The face is too dark.
    FaceTooDark, "face_too_dark", Quality, "hint.more_light", Some(422);
    /// The face is too bright.
    FaceTooBright, "face_too_bright", Quality, "hint.less_light", Some(422);
    /// The face does not look towards the camera.
    FaceTurned, "face_turned", Quality, "hint.look_straight", Some(422);
    /// Something covers the face.
    FaceOccluded, "face_occluded", Quality, "hint.uncover_face", Some(422);
    /// The face is cut off by the edge of the picture.
    FaceCutOff, "face_cut_off", Quality, "hint.centre_face", Some(422);
    /// The evidence was too old when the relay was to be called.
    DecisionStale, "decision_stale", Decide, "hint.look_again", None;
    /// The person was removed while the decision was made.
    PersonRemoved, "person_removed", Decide, "hint.ask_operator", None;
    /// The person's validity is over or has not begun.
    PersonExpired, "person_expired", Decide, "hint.ask_operator", None;
    /// The person may not pass this door now.
    NotPermitted, "not_permitted", Decide, "hint.ask_operator", None;
    /// The door is in lock-down.
    DoorLockedDown, "door_locked_down", Decide, "hint.ask_operator", None;
    /// The gallery cannot be used, so everybody is refused.
    GalleryUnavailable, "gallery_unavailable", Sync, "hint.device_not_ready", Some(503);
    /// The models cannot be used, so everybody is refused.
    ModelsUnavailable, "models_unavailable", Detect, "hint.device_not_ready", Some(503);
    /// The camera gives no pictures.
    CameraStalled, "camera_stalled", Capture, "hint.check_camera", None;
    /// The face is at least as near to a picture on record as not being the person as to the person.
    NotThisPerson, "not_this_person", Identify, "hint.ask_operator", None;
    /// Another movement came than the one that was asked for.
    ChallengeFailed, "challenge_failed", Liveness, "hint.do_as_asked", Some(422);
    /// A movement that was asked for did not come in time.
    ChallengeTimeout, "challenge_timeout", Liveness, "hint.do_as_asked", Some(422);

    /// The file is not a picture that can be read.
    PhotoUnreadable, "photo_unreadable", Enrol, "hint.send_jpeg_or_png", Some(422);
    /// The picture has more pixels than are accepted.
    PhotoTooLarge, "photo_too_large", Enrol, "hint.send_smaller_photo", Some(422);
    /// There is no face in the picture.
    NoFace, "no_face", Enrol, "hint.centre_face", Some(422);
    /// There is more than one face in the picture.
    SeveralFaces, "several_faces", Enrol, "hint.be_alone", Some(422);
    /// The photographs do not show one and the same person.
    PhotosDiffer, "photos_differ", Enrol, "hint.same_person", Some(422);
    /// The person is enrolled already under another id.
    DuplicatePerson, "duplicate_person", Enrol, "hint.check_duplicate", Some(409);
    /// The picture that is said not to be the person looks so much like them that it probably is.
    AnchorIsPerson, "anchor_is_person", Enrol, "hint.check_anchor", Some(409);
    /// The person has as many negative anchors as anyone may have.
    TooManyAnchors, "too_many_anchors", Enrol, "hint.remove_anchor", Some(409);

    /// Records and root do not agree.
    RootMismatch, "root_mismatch", Sync, "hint.device_not_ready", None;
    /// The stored gallery is damaged or rolled back.
    StoreDoubtful, "store_doubtful", Sync, "hint.device_not_ready", None;
    /// The gallery has a new epoch.
    EpochChanged, "epoch_changed", Sync, "hint.device_not_ready", None;
    /// The device is behind the log that the hub still has.
    BehindLog, "behind_log", Sync, "hint.device_not_ready", None;
    /// Nobody told the device to be in contact for so long that it must not decide any more.
    LeaseExpired, "lease_expired", Sync, "hint.device_not_ready", None;
    /// An operator ordered it.
    Ordered, "ordered", Sync, "hint.device_not_ready", None;
    /// One sequence came with two event ids.
    StreamConflict, "stream_conflict", Sync, "hint.ask_operator", Some(409);
    /// A batch has an event that no hub can store.
    BatchRefused, "batch_refused", Sync, "hint.ask_operator", Some(422);
    /// A snapshot's manifest was not signed by a key that the device has pinned, or is about something else.
    SnapshotForged, "snapshot_forged", Sync, "hint.ask_operator", None;
    /// A snapshot's content is not what its manifest says.
    SnapshotDamaged, "snapshot_damaged", Sync, "hint.ask_operator", None;
    /// The hub no longer has the snapshot: its time is over, or somebody in it was erased. Another one is offered.
    SnapshotGone, "snapshot_gone", Sync, "hint.try_later", Some(410);

    /// No credential, or one that is not valid.
    Unauthorized, "unauthorized", Api, "hint.check_credential", Some(401);
    /// The password is right; a code of the second factor is missing, wrong, or was used before.
    TotpRequired, "totp_required", Api, "hint.show_code", Some(401);
    /// The tenant wants a second factor that the user has not set up; until then the log-in opens nothing else.
    TotpSetupRequired, "totp_setup_required", Api, "hint.set_up_code", Some(403);
    /// The credential does not allow this.
    Forbidden, "forbidden", Api, "hint.check_credential", Some(403);
    /// The tenant is not served at present.
    TenantSuspended, "tenant_suspended", Api, "hint.ask_operator", Some(403);
    /// The tenant has as many of something as it may have.
    QuotaReached, "quota_reached", Api, "hint.ask_operator", Some(403);
    /// The tenant does not have this feature.
    FeatureOff, "feature_off", Api, "hint.ask_operator", Some(403);
    /// There is no such thing, or it belongs to another tenant.
    NotFound, "not_found", Api, "hint.check_address", Some(404);
    /// The path exists, the method does not.
    MethodNotAllowed, "method_not_allowed", Api, "hint.check_address", Some(405);
    /// The request is malformed.
    InvalidRequest, "invalid_request", Api, "hint.check_request", Some(400);
    /// A field has a value that is not allowed.
    InvalidField, "invalid_field", Api, "hint.check_request", Some(422);
    /// A field is missing.
    MissingField, "missing_field", Api, "hint.check_request", Some(422);
    /// A field is not known.
    UnknownField, "unknown_field", Api, "hint.check_request", Some(422);
    /// It clashes with what is there.
    Conflict, "conflict", Api, "hint.check_request", Some(409);
    /// The token was used by another device.
    ClaimUsed, "claim_used", Api, "hint.new_claim_token", Some(409);
    /// The token's time is over.
    ClaimExpired, "claim_expired", Api, "hint.new_claim_token", Some(410);
    /// There is no such token, or its secret is wrong.
    ClaimUnknown, "claim_unknown", Api, "hint.new_claim_token", Some(404);
    /// The certificate request is not acceptable.
    CsrInvalid, "csr_invalid", Api, "hint.check_request", Some(422);
    /// The device's certificate is too old for anything but its renewal.
    CertificateExpired, "certificate_expired", Api, "hint.check_clock", Some(403);
    /// The command came too late, or before the agent's present run; it was not carried out.
    CommandExpired, "command_expired", Sync, "hint.order_again", None;
    /// The agent does not know the kind of command, or the door that it names.
    CommandUnknown, "command_unknown", Sync, "hint.check_configuration", None;
    /// The device's own configuration does not allow it.
    NotConfigured, "not_configured", Sync, "hint.check_configuration", None;
    /// The desired settings do not fit the device; it keeps those that it has.
    TwinInvalid, "twin_invalid", Sync, "hint.check_settings", None;
    /// The device did not come up with the desired settings, and went back to the last that worked.
    TwinFailed, "twin_failed", Sync, "hint.check_settings", None;
    /// What the device had kept of its desired settings is damaged; it works by its own file until it has them again.
    TwinUnreadable, "twin_unreadable", Sync, "hint.check_settings", None;
    /// It was changed by somebody else since it was read.
    PreconditionFailed, "precondition_failed", Api, "hint.read_again", Some(412);
    /// A change must say what it is a change of.
    PreconditionRequired, "precondition_required", Api, "hint.read_again", Some(428);
    /// The idempotency key was sent with another request before.
    IdempotencyKeyReused, "idempotency_key_reused", Api, "hint.new_idempotency_key", Some(422);
    /// The request with this idempotency key is being carried out.
    IdempotencyInProgress, "idempotency_in_progress", Api, "hint.try_later", Some(409);
    /// The request with this idempotency key was carried out, or may have been; there is no answer of it to give again.
    IdempotencyNoAnswer, "idempotency_no_answer", Api, "hint.look_up", Some(409);
    /// The device is not connected, so that it could not carry the command out in time.
    DeviceOffline, "device_offline", Api, "hint.device_not_ready", Some(409);
    /// The device was revoked, or its certificate replaced.
    DeviceRevoked, "device_revoked", Api, "hint.new_claim_token", Some(403);
    /// The request is larger than accepted.
    PayloadTooLarge, "payload_too_large", Api, "hint.send_less", Some(413);
    /// The media type is not accepted.
    UnsupportedMediaType, "unsupported_media_type", Api, "hint.check_request", Some(415);
    /// The address of a webhook is not one that the hub may call.
    AddressNotAllowed, "address_not_allowed", Api, "hint.use_public_https", Some(422);
    /// Too many requests.
    RateLimited, "rate_limited", Api, "hint.try_later", Some(429);
    /// A part that is needed is not there at the moment.
    Unavailable, "unavailable", Api, "hint.try_later", Some(503);
    /// It took too long.
    Timeout, "timeout", Api, "hint.try_later", Some(504);
    /// A fault of the hub; the trace id finds it in the log.
    Internal, "internal", Api, "hint.report_fault", Some(500);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not in the register.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a code of the register")]
pub struct CodeError {
    /// The word.
    pub found: String,
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::from_word(word).ok_or_else(|| CodeError { found: word.chars().take(80).collect() })
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Ok(Self::from_word(&word).unwrap_or(Self::Unlisted))
    }
}

impl JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = Self::ALL.iter().map(|code| code.as_str()).collect();
        // Readers must expect codes of newer programs, hence examples and a pattern instead of an enumeration.
        json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9_]*$", "examples": words })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_one_word_and_comes_back_from_it() {
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(code.entry().unwrap().word, code.as_str());
        }
    }

    #[test]
    fn a_newer_code_reads_as_unlisted() {
        assert_eq!(serde_json::from_str::<Code>("\"face_upside_down\"").unwrap(), Code::Unlisted);
        assert_eq!("unlisted".parse::<Code>(), Err(CodeError { found: "unlisted".into() }));
    }

    #[test]
    fn http_statuses_are_errors() {
        for code in Code::ALL {
            if let Some(status) = code.entry().unwrap().http_status {
                assert!((400..600).contains(&status), "{code}");
            }
        }
    }
}
