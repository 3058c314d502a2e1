//! OpenTelemetry's crates: spans in their words, and the receiver of OTLP over HTTP. Named nowhere else.
//!
//! The exporter writes a batch down and classifies the answer; its requests go by the hub's own HTTP client, since each of those that
//! it could bring would bring TLS of its own. It tries once: trying again is [`sending`](super::sending)'s, which knows of the stop.
//! Of the environment it takes what OpenTelemetry says operators set there: `OTEL_EXPORTER_OTLP_HEADERS` (a receiver's key) and
//! `OTEL_RESOURCE_ATTRIBUTES`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request as HttpRequest, Response as HttpResponse};
use opentelemetry_otlp::{ExporterBuildError, Protocol, RetryPolicy, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;
use uuid::Uuid;

use super::{Options, Request, Timed};
use crate::outbound::collector::{check_plain, is_plain};

const SERVICE: &str = "cloud-hub";
/// What the semantic conventions say of a method that they do not know.
pub(super) const OTHER_METHOD: &str = "_OTHER";
/// Longer answers are not read: a receiver has little to say.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// A receiver that cannot be connected to in this time will not answer in time either.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the receiver cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No TLS provider or no root certificates.
    #[error("the client for the receiver of [traces] cannot be made")]
    Client(#[from] reqwest::Error),
    /// Something in the environment that the exporter reads.
    #[error("the exporter of spans cannot be made")]
    Exporter(#[from] ExporterBuildError),
}

/// A batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// No connection, no TLS, no answer in time.
    #[error("the receiver cannot be reached")]
    Away(#[source] reqwest::Error),
    /// It said no.
    #[error("the receiver answered {0}")]
    Status(u16),
    /// It said more than anybody reads.
    #[error("the receiver's answer is too long")]
    TooLong,
    /// It could not be written down.
    #[error("the spans cannot be sent")]
    Exporter(#[source] OTelSdkError),
}

impl NotTaken {
    /// Whether the same batch may be taken later, as the protocol has it.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Away(_) => true,
            Self::Status(status) => matches!(status, 429 | 502 | 503 | 504),
            Self::TooLong | Self::Exporter(_) => false,
        }
    }
}

/// The receiver of spans.
pub(super) struct Receiver {
    exporter: opentelemetry_otlp::SpanExporter,
    /// Why the last request failed: of the exporter's errors only a text is left.
    failed: Arc<Mutex<Option<NotTaken>>>,
    scope: InstrumentationScope,
    /// What is the same in each request.
    server: Vec<KeyValue>,
}

impl Receiver {
    pub(super) fn new(options: &Options) -> Result<Self, OpenError> {
        let failed = Arc::default();
        let post = Post { client: client(&options.receiver, options.timeout)?, failed: Arc::clone(&failed) };
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(post)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(options.receiver.as_str())
            .with_timeout(options.timeout)
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        exporter.set_resource(&resource());
        let scope = InstrumentationScope::builder(SERVICE).with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, failed, scope, server: server(&options.public_url) })
    }

    /// Sends a batch, once.
    pub(super) async fn send(&self, batch: &[Request]) -> Result<(), NotTaken> {
        self.failed.lock().take();
        let spans = batch.iter().flat_map(|request| self.spans(request)).collect();
        let Err(error) = self.exporter.export(spans).await else { return Ok(()) };
        Err(self.failed.lock().take().unwrap_or(NotTaken::Exporter(error)))
    }

    /// The request, and then its parts.
    fn spans(&self, request: &Request) -> Vec<SpanData> {
        let method = if request.method == OTHER_METHOD { "HTTP" } else { request.method };
        let name = request.route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        let status = if request.status >= 500 { Status::error("") } else { Status::Unset };
        let begun = SystemTime::from(request.begun);
        let whole = SpanData {
            span_kind: SpanKind::Server,
            parent_span_id: request.trace.parent().map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: request.trace.parent().is_some(),
            end_time: begun + request.took,
            attributes: self.attributes(request),
            status,
            ..self.span(request, request.trace.span(), name, begun)
        };
        let part = |Timed { part, after, took }: &Timed| {
            let begun = begun + *after;
            SpanData { end_time: begun + *took, ..self.span(request, rand::random(), part.as_str().to_owned(), begun) }
        };
        std::iter::once(whole).chain(request.parts.iter().map(part)).collect()
    }

    /// A span within a request, without anything more.
    fn span(&self, request: &Request, id: [u8; 8], name: String, begun: SystemTime) -> SpanData {
        let trace = TraceId::from_bytes(request.trace.trace());
        let id = SpanId::from_bytes(id);
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: SpanId::from_bytes(request.trace.span()),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: begun,
            end_time: begun,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// By the semantic conventions for HTTP servers, but for `url.path` and `url.query`, which may hold ids of people.
    fn attributes(&self, request: &Request) -> Vec<KeyValue> {
        let mut attributes = self.server.clone();
        attributes.push(KeyValue::new("http.request.method", request.method));
        attributes.push(KeyValue::new("http.response.status_code", i64::from(request.status)));
        attributes.push(KeyValue::new("network.protocol.version", request.version));
        attributes.extend(request.route.map(|route| KeyValue::new("http.route", route)));
        if request.status >= 500 {
            attributes.push(KeyValue::new("error.type", request.status.to_string()));
        }
        attributes.extend(request.tenant.map(|tenant| KeyValue::new("lintel.client_id", tenant.to_string())));
        attributes
    }
}

fn resource() -> Resource {
    let attributes = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
    ];
    Resource::builder().with_service_name(SERVICE).with_attributes(attributes).build()
}

/// The API as clients know it, and not as a caller names it.
fn server(public_url: &Url) -> Vec<KeyValue> {
    let mut known = vec![KeyValue::new("url.scheme", public_url.scheme().to_owned())];
    let host = public_url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned());
    known.extend(host.map(|host| KeyValue::new("server.address", host)));
    known.extend(public_url.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port))));
    known
}

/// No redirects and no proxies: spans go where the configuration says.
fn client(receiver: &Url, timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .pool_max_idle_per_host(1);
    if is_plain(receiver) { builder.dns_resolver(Arc::new(OnesOwn)).build() } else { builder.build() }
}

/// Resolves names for plain http: the connection gets only what was checked.
struct OnesOwn;

impl Resolve for OnesOwn {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            check_plain(&found.iter().map(SocketAddr::ip).collect::<Vec<IpAddr>>())?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// The hub's HTTP client, in the exporter's hands.
#[derive(Debug)]
struct Post {
    client: reqwest::Client,
    failed: Arc<Mutex<Option<NotTaken>>>,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: HttpRequest<Bytes>) -> Result<HttpResponse<Bytes>, HttpError> {
        self.ask(request).await.map_err(|why| {
            let text = why.to_string();
            *self.failed.lock() = Some(why);
            HttpError::from(text)
        })
    }
}

impl Post {
    async fn ask(&self, request: HttpRequest<Bytes>) -> Result<HttpResponse<Bytes>, NotTaken> {
        // The URL may hold what a receiver asks for, and is the configuration's anyway.
        let away = |error: reqwest::Error| NotTaken::Away(error.without_url());
        let mut answer = self.client.execute(reqwest::Request::try_from(request).map_err(away)?).await.map_err(away)?;
        if !answer.status().is_success() {
            return Err(NotTaken::Status(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(NotTaken::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(HttpResponse::new(body.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_out_of_ones_own_networks_gets_no_connection() {
        let resolve = async |name: &str| OnesOwn.resolve(name.parse().unwrap()).await.map(drop);
        assert!(resolve("localhost").await.is_ok());
        let error = resolve("192.0.2.1").await.unwrap_err().to_string();
        assert!(error.contains("plain http"), "{error}");
    }

    #[test]
    fn what_may_pass_is_as_the_protocol_has_it() {
        for (status, may_pass) in
            [(400, false), (404, false), (429, true), (500, false), (502, true), (503, true), (504, true)]
        {
            assert_eq!(NotTaken::Status(status).may_pass(), may_pass, "{status}");
        }
    }
}
