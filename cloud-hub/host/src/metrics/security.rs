//! Who was refused and why, how much is asked, and how far the audit is sealed.

use std::time::Duration;

use super::{Label, Metric, QUICK_SECONDS};

const TIER: Label = Label { name: "tier", values: &["basic", "professional", "enterprise"] };
const CLASS: Label = Label { name: "class", values: &["read", "write", "biometric", "command"] };

const FAILED: Metric = Metric::counter(
    "lintel_hub_authentication_failures_total",
    "Proofs of who somebody is that were refused, by what was shown.",
    &[Label {
        name: "kind",
        values: &[
            "none",
            "malformed",
            "api_key",
            "token",
            "cookie",
            "csrf",
            "password",
            "refresh_token",
            "invitation",
            "code",
            "session_token",
            "certificate",
            "platform_key",
        ],
    }],
);
const FORBIDDEN: Metric = Metric::counter(
    "lintel_hub_permission_refusals_total",
    "Requests of callers who are known and may not do what they asked for: permission is one that they lack, feature one that \
     their tenant does not have, suspended a tenant that is not served.",
    &[Label { name: "kind", values: &["permission", "feature", "suspended"] }],
);
const LIMITED: Metric = Metric::counter(
    "lintel_hub_limit_refusals_total",
    "Requests above a limit, by the limit: hour and day of a tenant, a class, a key, a caller after a signal of an intrusion, and by address refused keys, time and login.",
    &[Label {
        name: "limit",
        values: &["hour", "day", "read", "write", "biometric", "command", "key", "caller", "refused", "time", "login"],
    }],
);
const LOCKED: Metric = Metric::counter(
    "lintel_hub_locks_total",
    "How often an address was locked after too many refused keys, and a log-in refused because its name is locked.",
    &[Label { name: "kind", values: &["address", "name"] }],
);
/// Signals of an intrusion.
pub const SIGNALS: &[&str] =
    &["authentication_burst", "impossible_travel", "cross_tenant_probing", "template_scraping"];

const INTRUSIONS: Metric = Metric::counter(
    "lintel_hub_intrusion_signals_total",
    "Callers that behaved as an intruder would, by the signal; each at most once in its window.",
    &[Label { name: "signal", values: SIGNALS }],
);
const BUCKETS: Metric = Metric::gauge(
    "lintel_hub_limit_buckets",
    "Limits in use that this process counts: of tenants, and of strangers by address.",
    &[Label { name: "table", values: &["tenants", "strangers"] }],
);
const BUCKETS_MAX: Metric =
    Metric::gauge("lintel_hub_limit_buckets_max", "Limits that this process can count, in each of the tables.", &[]);
const SHARE: Metric = Metric::gauge(
    "lintel_hub_limit_share_ratio",
    "How much of their limits callers have: 1, or less while more is asked than the hub can do.",
    &[],
);
const SHARED: Metric = Metric::gauge(
    "lintel_hub_limit_shared_up",
    "1 while the shared limits answer, 0 while they do not; -1 where there are none.",
    &[],
);
const USAGE: Metric = Metric::counter(
    "lintel_hub_usage_requests_total",
    "Requests within limits, by the tier of the tenant and the class of the request.",
    &[TIER, CLASS],
);
const TENANTS: Metric = Metric::gauge("lintel_hub_tenants", "Tenants, without those that are being deleted.", &[]);
const DEVICES: Metric = Metric::gauge("lintel_hub_devices", "Devices that may speak to the hub, of all tenants.", &[]);
const API_KEYS: Metric = Metric::gauge("lintel_hub_api_keys", "API keys that are not revoked, of all tenants.", &[]);
const SEALED: Metric =
    Metric::counter("lintel_hub_audit_entries_sealed_total", "Audit entries that got their place in a chain.", &[]);
const LAG: Metric = Metric::histogram(
    "lintel_hub_audit_sealing_lag_seconds",
    "Age of the oldest entry of a batch when it got its place in the chain.",
    &[],
    QUICK_SECONDS,
);
const UNSEALED: Metric = Metric::gauge(
    "lintel_hub_audit_unsealed_transactions",
    "Transactions whose audit entries have no place in a chain yet.",
    &[],
);
const HEADS: Metric =
    Metric::counter("lintel_hub_audit_heads_total", "Signed heads of audit chains written outside the database.", &[]);
const TROUBLE: Metric = Metric::gauge(
    "lintel_hub_audit_trouble",
    "1 while entries cannot be sealed, or heads cannot be written, else 0.",
    &[Label { name: "kind", values: &["sealing", "heads"] }],
);

pub(super) const METRICS: &[Metric] = &[
    FAILED,
    FORBIDDEN,
    LIMITED,
    LOCKED,
    INTRUSIONS,
    BUCKETS,
    BUCKETS_MAX,
    SHARE,
    SHARED,
    USAGE,
    TENANTS,
    DEVICES,
    API_KEYS,
    SEALED,
    LAG,
    UNSEALED,
    HEADS,
    TROUBLE,
];

/// What was shown as a proof.
#[derive(Clone, Copy, Debug)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// Something that is no proof of any kind.
    Malformed,
    /// An API key.
    ApiKey,
    /// An access token.
    Token,
    /// A cookie.
    Cookie,
    /// A cookie without what must come beside it.
    Csrf,
    /// A name and a password.
    Password,
    /// A refresh token.
    RefreshToken,
    /// An invitation.
    Invitation,
    /// A code of a second factor.
    Code,
    /// A session's token.
    SessionToken,
    /// A device's certificate.
    Certificate,
    /// A key of a platform administrator.
    PlatformKey,
}

/// A proof was refused.
pub fn refused(proof: Proof) {
    FAILED.count(&[match proof {
        Proof::Nothing => "none",
        Proof::Malformed => "malformed",
        Proof::ApiKey => "api_key",
        Proof::Token => "token",
        Proof::Cookie => "cookie",
        Proof::Csrf => "csrf",
        Proof::Password => "password",
        Proof::RefreshToken => "refresh_token",
        Proof::Invitation => "invitation",
        Proof::Code => "code",
        Proof::SessionToken => "session_token",
        Proof::Certificate => "certificate",
        Proof::PlatformKey => "platform_key",
    }]);
}

/// What a known caller lacks.
#[derive(Clone, Copy, Debug)]
pub enum Lack {
    /// A permission.
    Permission,
    /// A feature of their tenant.
    Feature,
    /// A tenant that is served.
    Service,
}

/// A known caller was refused.
pub fn forbidden(lack: Lack) {
    FORBIDDEN.count(&[match lack {
        Lack::Permission => "permission",
        Lack::Feature => "feature",
        Lack::Service => "suspended",
    }]);
}

/// A request was above a limit.
pub fn limited(limit: &'static str) {
    LIMITED.count(&[limit]);
}

/// An address is not listened to for a while.
pub fn address_locked() {
    LOCKED.count(&["address"]);
}

/// A name is locked for a while.
pub fn name_locked() {
    LOCKED.count(&["name"]);
}

/// A caller behaves as an intruder would.
pub fn intrusion(signal: &'static str) {
    INTRUSIONS.count(&[signal]);
}

/// The limits as they are.
pub fn limits(tenants: usize, strangers: usize, max: usize, share: f64, shared: Option<bool>) {
    BUCKETS.set(&["tenants"], tenants as f64);
    BUCKETS.set(&["strangers"], strangers as f64);
    BUCKETS_MAX.set(&[], max as f64);
    SHARE.set(&[], share);
    SHARED.set(&[], shared.map_or(-1.0, |answers| f64::from(u8::from(answers))));
}

/// A request was within its limits.
pub fn used(tier: &'static str, class: &'static str) {
    USAGE.count(&[tier, class]);
}

/// What there is of all tenants together.
pub fn totals(tenants: i64, devices: i64, api_keys: i64) {
    TENANTS.set(&[], tenants as f64);
    DEVICES.set(&[], devices as f64);
    API_KEYS.set(&[], api_keys as f64);
}

/// Entries got their places.
pub fn sealed(count: u32, oldest: Duration) {
    SEALED.add(&[], u64::from(count));
    LAG.observe(&[], oldest.as_secs_f64());
}

/// A head was written outside.
pub fn head_written() {
    HEADS.count(&[]);
}

/// Transactions whose entries wait for their places.
pub fn unsealed(waiting: i64) {
    UNSEALED.set(&[], waiting as f64);
}

/// What does not go as it should.
pub fn audit_trouble(sealing: bool, heads: bool) {
    TROUBLE.set(&["sealing"], f64::from(u8::from(sealing)));
    TROUBLE.set(&["heads"], f64::from(u8::from(heads)));
}
