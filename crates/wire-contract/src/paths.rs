//! The hub's HTTPS paths that devices call.

/// `POST`, no client certificate: a device claims its identity ([`crate::claim`]).
pub const CLAIMS: &str = "/v1/claims";
/// `POST`, no client certificate: the hub's time, signed ([`crate::hub_time`]).
pub const TIME: &str = "/v1/time";
/// `GET`, with the device's certificate: link keys and galleries ([`crate::link`]). [`NONCE`] may be in its query.
pub const DEVICE_LINK: &str = "/v1/device/link";
/// Before the id of a snapshot. `GET …/{id}/manifest` ([`crate::snapshot::SnapshotAnswer`]) and `GET …/{id}`, the content, which
/// answers `Range: bytes=N-`; both with the device's certificate.
pub const DEVICE_SNAPSHOTS: &str = "/v1/device/snapshots";
/// `POST`, with the device's certificate, even one that expired lately: the next certificate, for a new key
/// ([`crate::claim::RenewalRequest`]).
pub const DEVICE_RENEWAL: &str = "/v1/device/renewal";
/// Query parameter of [`DEVICE_LINK`]: a random UUID, for which the time in the answer is signed.
pub const NONCE: &str = "nonce";
/// `PUT` with a command's id behind it, and the device's certificate: what `collect_logs` asked for, as JSON lines.
pub const DEVICE_LOGS: &str = "/v1/device/logs";
/// `POST`, with the device's certificate: a face that an `enrol` command asked for ([`crate::enrol::EnrolRequest`]).
pub const DEVICE_ENROLMENTS: &str = "/v1/device/enrolments";
