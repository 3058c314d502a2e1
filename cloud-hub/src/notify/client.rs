//! One delivery attempt: resolved, checked, connected to exactly what was checked, signed, and cut short.
//!
//! In: an endpoint's URL and secret, an event's id and body. Out: how it ended. No redirects, no proxies, no
//! decompression; of the answer only the status and `Retry-After` are used, and its body is read to a small bound and
//! thrown away, so that nothing of what lies behind an address can reach a tenant.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use crate::domain::trace::Trace;
use crate::outbound::address::{AddressError, AddressPolicy};
use crate::outbound::signature;

/// Of an answer's body no more than this is read before the connection is dropped.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// A receiver that cannot be connected to in this time will not answer in time either.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Turns names into addresses. The system's resolver, or a test's.
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of `name`.
    fn lookup(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver answered with this status; seconds of `Retry-After` if it said so.
    Answered {
        /// HTTP status.
        status: u16,
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// The address may not be called; nothing was sent.
    Refused(AddressError),
    /// No answer in time.
    TimedOut,
    /// No connection, no TLS, or a broken answer.
    Failed,
}

/// A signed request, ready to go.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// `webhook-id`: the event's id, the same in every attempt.
    pub id: &'a str,
    /// `webhook-timestamp`: when this attempt is made, Unix seconds.
    pub timestamp: i64,
    /// The attempt's own trace, which its lines in the hub's log have too.
    pub trace: &'a Trace,
    /// The JSON body.
    pub body: Bytes,
}

/// Sends deliveries. Cheap to clone.
#[derive(Clone)]
pub struct WebhookClient {
    policy: AddressPolicy,
    https: reqwest::Client,
    plain: reqwest::Client,
}

/// The HTTP client could not be made: no TLS provider or no root certificates.
#[derive(Debug, thiserror::Error)]
#[error("webhook client: {0}")]
pub struct ClientError(#[from] reqwest::Error);

impl WebhookClient {
    /// A client under the operator's rule; every attempt ends within `timeout`.
    pub fn new(policy: AddressPolicy, lookup: &Arc<dyn Lookup>, timeout: Duration) -> Result<Self, ClientError> {
        let build = |plain: bool| {
            let resolver = GuardedResolver { policy: policy.clone(), lookup: Arc::clone(lookup), plain };
            reqwest::Client::builder()
                .dns_resolver(Arc::new(resolver))
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .timeout(timeout)
                .connect_timeout(CONNECT_TIMEOUT.min(timeout))
                .pool_max_idle_per_host(1)
                .user_agent(concat!("lintel-webhooks/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        Ok(Self { https: build(false)?, plain: build(true)?, policy })
    }

    /// Makes one attempt.
    pub async fn send(&self, url: &Url, secret: &[u8], message: &Message<'_>) -> Attempt {
        if let Err(error) = self.policy.check_url(url) {
            return Attempt::Refused(error);
        }
        let client = if url.scheme() == "http" { &self.plain } else { &self.https };
        let request = client
            .post(url.clone())
            .header("content-type", "application/json")
            .header("traceparent", message.trace.to_string())
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp)
            .header("webhook-signature", signature::sign(secret, message.id, message.timestamp, &message.body))
            .body(message.body.clone());
        match request.send().await {
            Ok(answer) => read_answer(answer).await,
            Err(error) => failure(&error),
        }
    }
}

async fn read_answer(mut answer: reqwest::Response) -> Attempt {
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let mut read = 0;
    // A whole small body lets the connection be used again; a large or slow one is cut off.
    while read < MAX_ANSWER_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => break,
            Err(error) if error.is_timeout() => return Attempt::TimedOut,
            Err(_) => break,
        }
    }
    Attempt::Answered { status, retry_after }
}

fn failure(error: &reqwest::Error) -> Attempt {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<AddressError>() {
            return Attempt::Refused(refused.clone());
        }
        cause = error.source();
    }
    if error.is_timeout() { Attempt::TimedOut } else { Attempt::Failed }
}

/// Resolves and checks in one step: the connector gets only what was checked, so a second resolution cannot differ.
struct GuardedResolver {
    policy: AddressPolicy,
    lookup: Arc<dyn Lookup>,
    plain: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, plain) = (self.policy.clone(), self.plain);
        let lookup = self.lookup.lookup(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = lookup.await?;
            policy.check_resolved(&addresses, plain)?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
