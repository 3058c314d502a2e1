//! How much a caller may ask: which buckets a request has to find room in, and what callers are told of them.
//!
//! In: who calls, and what for. Out: `RateLimit` headers, and with an empty bucket 429 with the time to wait. A door's commands
//! and whatever is taken down count by their own class alone: neither a door nor a lost badge waits for an allowance. Addresses
//! are those of connections; a header that names another one is anybody's to write.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire_contract::Code;

use super::admin::PlatformCaller;
use super::auth::{Caller, Who};
use super::listener::group;
use super::problem::ApiError;
use super::state::Api;
use super::watch;
use hub_domain::intrusion::TIGHTENED_SHARE;
use hub_domain::limit::{Class, Micros, Rate, Span, Standing};
use hub_domain::permission::Permission;
use hub_domain::tenant::Tier;
use hub_host::metrics::security;
use hub_limit::{Asked, Bucket};

/// Keys that may be refused of one address before it is not listened to for a while: a program that was set up wrongly, not a
/// search, which has 2^256 keys before it.
fn refused_keys(api: &Api) -> Asked {
    let count = api.in_force.live().refused_keys_per_minute;
    Asked { bucket: Bucket::Refused, rate: Rate::new(count, Duration::from_secs(60), count) }
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What the buckets of a request said.
pub(super) struct Told(Vec<(Asked, Standing)>);

/// The class of a request.
pub(super) fn class(method: &Method, permission: Option<Permission>) -> Class {
    match permission {
        Some(Permission::DoorsCommand) => Class::Command,
        Some(Permission::PeopleEnrol) if method == Method::POST => Class::Biometric,
        Some(Permission::RecognitionUse | Permission::RecognitionEmbed) => Class::Biometric,
        // Frames; what is cancelled is taken down.
        Some(Permission::SessionsWrite) if method == Method::POST => Class::Biometric,
        _ if method == Method::GET || method == Method::HEAD => Class::Read,
        _ => Class::Write,
    }
}

fn asked(caller: &Caller, method: &Method, permission: Option<Permission>, tightened: bool) -> Vec<Asked> {
    let class = class(method, permission);
    let agreed = &caller.agreement;
    let mut asked = vec![Asked { bucket: Bucket::Class(class), rate: class.rate(agreed.tier) }];
    if class == Class::Command || method == Method::DELETE {
        return asked;
    }
    if tightened {
        let rate = class.rate(agreed.tier).tightened(TIGHTENED_SHARE);
        asked.push(Asked { bucket: Bucket::Caller(watch::id_of(caller)), rate });
    }
    for span in [Span::Hour, Span::Day] {
        if let Some(count) = agreed.allowance.of(agreed.tier, span) {
            asked.push(Asked { bucket: Bucket::Span(span), rate: span.rate(count) });
        }
    }
    if let (Some(count), Who::Key(key)) = (caller.requests_per_hour, caller.who) {
        asked.push(Asked { bucket: Bucket::Key(key), rate: Span::Hour.rate(count) });
    }
    asked
}

/// Takes a request out of its buckets.
pub(super) async fn take(
    api: &Api,
    caller: &Caller,
    method: &Method,
    permission: Option<Permission>,
) -> Result<Told, (ApiError, Told)> {
    let tightened = api.watch.is_tightened(watch::id_of(caller));
    let asked = asked(caller, method, permission, tightened);
    let standings = api.limiter.take(caller.tenant.0, &asked).await;
    let told = Told(asked.into_iter().zip(standings).collect());
    match told.refusal() {
        None => Ok(told),
        Some((bucket, error)) => {
            security::limited(bucket.name());
            tracing::info!(event = "rate_limited", client_id = %caller.tenant, caller = caller.actor(), limit = bucket.name(), "a request was above a limit");
            Err((error, told))
        }
    }
}

/// The same for a platform administrator: each key has as much room as the largest tenant.
pub(super) async fn take_for_platform(
    api: &Api,
    caller: &PlatformCaller,
    method: &Method,
) -> Result<Told, (ApiError, Told)> {
    let class = class(method, None);
    let asked = vec![Asked { bucket: Bucket::Class(class), rate: class.rate(Tier::Enterprise) }];
    let standings = api.limiter.take(caller.key.0, &asked).await;
    let told = Told(asked.into_iter().zip(standings).collect());
    match told.refusal() {
        None => Ok(told),
        Some((bucket, error)) => {
            security::limited(bucket.name());
            tracing::info!(
                event = "rate_limited",
                caller = caller.actor(),
                limit = bucket.name(),
                "a request was above a limit"
            );
            Err((error, told))
        }
    }
}

/// Refuses an address whose keys were refused too often.
pub(super) fn admit_address(api: &Api, address: IpAddr) -> Result<(), ApiError> {
    let standing = api.limiter.look_at_stranger(stranger(address), refused_keys(api));
    if standing.admits {
        return Ok(());
    }
    security::limited(Bucket::Refused.name());
    let detail =
        "too many keys from this address were refused; the next one is looked at after the time in Retry-After";
    Err(ApiError::because(Code::RateLimited, detail).retry_after(seconds(standing.wait)))
}

/// Counts a key that was refused.
pub(super) fn note_refused(api: &Api, address: IpAddr) {
    let standing = api.limiter.take_stranger(stranger(address), refused_keys(api));
    if standing.remaining == 0 {
        security::address_locked();
        tracing::warn!(event = "authentication_burst", peer = %address, "so many keys of an address were refused that it is not listened to for a while");
    }
}

/// Takes one out of a budget that each address has, and all of them together.
pub(super) fn take_free(api: &Api, address: IpAddr, each: Asked, all: Asked) -> Result<(), ApiError> {
    for (owner, asked) in [(stranger(address), each), (0, all)] {
        let standing = api.limiter.take_stranger(owner, asked);
        if !standing.admits {
            security::limited(asked.bucket.name());
            return Err(ApiError::of(Code::RateLimited).retry_after(seconds(standing.wait)));
        }
    }
    Ok(())
}

fn stranger(address: IpAddr) -> u128 {
    match group(address) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn seconds(wait: Micros) -> u32 {
    u32::try_from(wait.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1)
}

impl Told {
    /// The bucket that will have no room for longest, with the refusal.
    fn refusal(&self) -> Option<(Bucket, ApiError)> {
        let refused = self.0.iter().filter(|(_, standing)| !standing.admits).max_by_key(|(_, standing)| standing.wait);
        refused.map(|(asked, standing)| {
            let (bucket, wait) = (asked.bucket, seconds(standing.wait));
            let detail = format!("the limit \"{}\" is used up: come back in {wait} s", bucket.name());
            (bucket, ApiError::because(Code::RateLimited, detail).retry_after(wait))
        })
    }

    /// Writes the buckets and what is left in them, as `draft-ietf-httpapi-ratelimit-headers` has it: `q` requests fit in, and
    /// an empty bucket takes `w` seconds to be whole; `r` are left, and in `t` seconds it is whole again.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let (mut policy, mut limit) = (String::new(), String::new());
        for (asked, standing) in &self.0 {
            let (name, comma) = (asked.bucket.name(), if policy.is_empty() { "" } else { ", " });
            let (whole, reset) = (seconds(asked.rate.whole()), standing.reset.div_ceil(1_000_000));
            let _ = write!(policy, "{comma}\"{name}\";q={};w={whole}", asked.rate.burst);
            let _ = write!(limit, "{comma}\"{name}\";r={};t={reset}", standing.remaining);
        }
        for (header, value) in [(POLICY, policy), (LIMIT, limit)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(header, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use hub_domain::ids::{ApiKeyId, TenantId};
    use hub_domain::permission::Role;
    use hub_domain::tenant::Agreement;

    fn caller(tier: Tier, requests_per_hour: Option<u32>) -> Caller {
        Caller {
            tenant: TenantId(Uuid::nil()),
            who: Who::Key(ApiKeyId(Uuid::nil())),
            permissions: Role::Owner.permissions(),
            requests_per_hour,
            agreement: Agreement::of(tier),
        }
    }

    fn names(caller: &Caller, method: &Method, permission: Permission) -> Vec<&'static str> {
        asked(caller, method, Some(permission), false).into_iter().map(|asked| asked.bucket.name()).collect()
    }

    #[test]
    fn doors_and_what_is_taken_down_wait_for_no_allowance() {
        let caller = caller(Tier::Basic, Some(5));
        assert_eq!(names(&caller, &Method::GET, Permission::PeopleRead), ["read", "hour", "day", "key"]);
        assert_eq!(names(&caller, &Method::POST, Permission::PeopleEnrol), ["biometric", "hour", "day", "key"]);
        assert_eq!(names(&caller, &Method::POST, Permission::DoorsCommand), ["command"]);
        assert_eq!(names(&caller, &Method::DELETE, Permission::PeopleWrite), ["write"]);
        // Whoever behaves as an intruder has a limit of their own, and opens doors all the same.
        let watched = |method: &Method, permission| {
            let asked = asked(&caller, method, Some(permission), true);
            asked.into_iter().find(|asked| asked.bucket.name() == "caller").map(|asked| asked.rate)
        };
        let whole = Class::Read.rate(Tier::Basic);
        assert!(watched(&Method::GET, Permission::PeopleRead).unwrap().interval >= 8 * whole.interval);
        assert_eq!(watched(&Method::POST, Permission::DoorsCommand), None);
        assert_eq!(names(&self::caller(Tier::Enterprise, None), &Method::PUT, Permission::DevicesWrite), ["write"]);
    }

    #[test]
    fn what_is_left_is_told() {
        let asked = Asked { bucket: Bucket::Span(Span::Hour), rate: Span::Hour.rate(10_000) };
        let standing = Standing { admits: true, remaining: 999, wait: 0, reset: 360_001 };
        let mut headers = HeaderMap::new();
        Told(vec![(asked, standing)]).write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"hour\";q=1000;w=360");
        assert_eq!(headers["ratelimit"], "\"hour\";r=999;t=1");
    }

    #[test]
    fn a_network_is_one_stranger() {
        let of = |text: &str| stranger(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_ne!(of("192.0.2.1"), 0);
    }
}
