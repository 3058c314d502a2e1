//! Spans of requests, for whoever collects traces (OpenTelemetry).
//!
//! In: a request's place in its trace, what came of it, and which of its parts took how long. Out: spans, in batches, to a receiver of
//! OTLP over HTTP. A bounded queue lies between: a receiver that is slow or away costs no request anything, and what it does not take
//! is dropped and counted. Without a receiver a call costs next to nothing, so that no caller asks whether there is one.
//!
//! Deliberately absent from a span: paths, query strings, bodies, headers (`tracestate` too), addresses of callers, and ids of anybody
//! but the tenant. A route is told by its pattern.

mod otlp;
mod sending;

use std::sync::Arc;
use std::time::Duration;

use axum::http::Version;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use crate::metrics::traces as measured;
use hub_domain::ids::TenantId;
use hub_domain::trace::Trace;
pub use otlp::OpenError;
pub use sending::Sending;

/// Requests whose spans wait to be sent. While as many wait, those of further requests are dropped.
const QUEUE: usize = 2_048;
/// Parts of one request that are told; a request that goes to the database a thousand times is not to fill the queue alone.
const MAX_PARTS: usize = 32;

/// Where spans go and which.
#[derive(Debug, Clone)]
pub struct Options {
    /// The receiver.
    pub receiver: Url,
    /// For its answer.
    pub timeout: Duration,
    /// The share of traces that begin here and are sent, in [0, 1].
    pub share: f64,
    /// Where clients reach the API.
    pub public_url: Url,
}

/// Takes spans. Cheap to clone; the default takes none.
#[derive(Clone, Default)]
pub struct Traces(Option<On>);

#[derive(Clone)]
struct On {
    share: f64,
    queue: mpsc::Sender<Request>,
}

/// A request that was answered.
struct Request {
    trace: Trace,
    begun: OffsetDateTime,
    took: Duration,
    method: &'static str,
    /// Its pattern; none if it matched none.
    route: Option<&'static str>,
    status: u16,
    version: &'static str,
    tenant: Option<TenantId>,
    parts: Vec<Timed>,
}

/// A part of a request.
struct Timed {
    part: Part,
    /// From the request's beginning to its own.
    after: Duration,
    took: Duration,
}

/// What is timed apart from the request that it is a part of.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// A transaction of Postgres, with the wait for a connection.
    Database,
    /// Models at work on photographs, without the wait for a worker.
    Models,
    /// A comparison with a gallery, with the wait for a processor.
    Search,
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database transaction",
            Self::Models => "models",
            Self::Search => "search",
        }
    }
}

impl Request {
    /// How many spans it is told in.
    fn spans(&self) -> u64 {
        1 + self.parts.len() as u64
    }
}

/// Opens the way to a receiver: what takes spans, and what sends them.
pub fn open(options: &Options) -> Result<(Traces, Sending), OpenError> {
    let receiver = otlp::Receiver::new(options)?;
    let (queue, inbox) = mpsc::channel(QUEUE);
    Ok((Traces(Some(On { share: options.share, queue })), Sending::new(inbox, receiver)))
}

impl Traces {
    /// The trace with the decision whether its spans are sent, if that is the hub's.
    #[must_use]
    pub fn decided(&self, trace: Trace) -> Trace {
        self.0.as_ref().map_or(trace, |on| trace.sampled_by(on.share))
    }

    /// A request begins; nothing, if its spans are not sent.
    #[must_use]
    pub fn begin(&self, trace: Trace, now: OffsetDateTime) -> Option<Recording> {
        let on = self.0.as_ref().filter(|_| trace.is_sampled())?;
        let work = Arc::new(Work { begun: Instant::now(), told: Mutex::default() });
        Some(Recording { trace, now, work, queue: on.queue.clone() })
    }
}

/// A request that is being worked on, until its answer is known. One that is dropped is not sent.
pub struct Recording {
    trace: Trace,
    now: OffsetDateTime,
    work: Arc<Work>,
    queue: mpsc::Sender<Request>,
}

/// What is learnt of a request while it is worked on.
struct Work {
    begun: Instant,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    tenant: Option<TenantId>,
    parts: Vec<Timed>,
}

tokio::task_local! {
    /// The request that the present task works on, if its spans are sent.
    static WORK: Option<Arc<Work>>;
}

impl Recording {
    /// The request was answered. `route` is the pattern that it matched, out of the table of routes.
    pub fn end(self, method: &str, route: Option<&'static str>, status: u16, version: Version) {
        let Told { tenant, parts } = std::mem::take(&mut *self.work.told.lock());
        let request = Request {
            trace: self.trace,
            begun: self.now,
            took: self.work.begun.elapsed(),
            method: known_method(method),
            route,
            status,
            version: known_version(version),
            tenant,
            parts,
        };
        if let Err(full) = self.queue.try_send(request) {
            measured::dropped(full.into_inner().spans());
        }
    }
}

/// Works on a request: what its task does is a part of it. Not what tasks do that it begins, unless they are [`carried`].
pub async fn within<T>(recording: Option<&Recording>, work: impl Future<Output = T>) -> T {
    WORK.scope(recording.map(|recording| Arc::clone(&recording.work)), work).await
}

/// For a task that goes on with the present request.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    WORK.scope(present(), work)
}

/// Whose data the present request is about.
pub fn about(tenant: TenantId) {
    if let Some(work) = present() {
        work.told.lock().tenant = Some(tenant);
    }
}

/// Does a part of the present request, and tells how long it took.
pub async fn part<T>(part: Part, doing: impl Future<Output = T>) -> T {
    let Some(work) = present() else { return doing.await };
    let begun = Instant::now();
    let done = doing.await;
    let mut told = work.told.lock();
    if told.parts.len() < MAX_PARTS {
        told.parts.push(Timed { part, after: begun - work.begun, took: begun.elapsed() });
    }
    drop(told);
    done
}

fn present() -> Option<Arc<Work>> {
    WORK.try_with(Clone::clone).ok().flatten()
}

/// The methods of the semantic conventions. Any other is a caller's own word.
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or(otlp::OTHER_METHOD)
}

fn known_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: [u8; 24] = [7; 24];
    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 10:00 UTC);

    fn on(share: f64) -> (Traces, mpsc::Receiver<Request>) {
        let (queue, inbox) = mpsc::channel(QUEUE);
        (Traces(Some(On { share, queue })), inbox)
    }

    #[tokio::test]
    async fn a_request_is_told_with_its_parts_and_not_with_those_of_others() {
        let (traces, mut inbox) = on(1.0);
        part(Part::Database, async {}).await;
        let recording = traces.begin(Trace::begin(RANDOM), NOW).unwrap();
        let tenant = TenantId(uuid::Uuid::from_u128(1));
        let work = async {
            about(tenant);
            part(Part::Models, async {}).await;
            tokio::spawn(carried(part(Part::Search, async {}))).await.unwrap();
            tokio::spawn(part(Part::Database, async {})).await.unwrap();
        };
        within(Some(&recording), work).await;
        recording.end("KENARI", None, 404, Version::HTTP_2);
        let request = inbox.recv().await.unwrap();
        let parts: Vec<&str> = request.parts.iter().map(|timed| timed.part.as_str()).collect();
        assert_eq!(parts, ["models", "search"]);
        assert_eq!((request.method, request.version, request.tenant), ("_OTHER", "2", Some(tenant)));
        assert_eq!(request.spans(), 3);
    }

    #[tokio::test]
    async fn a_request_is_told_in_so_many_spans_at_most() {
        let (traces, mut inbox) = on(1.0);
        let recording = traces.begin(Trace::begin(RANDOM), NOW).unwrap();
        let work = async {
            for _ in 0..2 * MAX_PARTS {
                part(Part::Database, async {}).await;
            }
        };
        within(Some(&recording), work).await;
        recording.end("GET", Some("/v1/people"), 200, Version::HTTP_11);
        assert_eq!(inbox.recv().await.unwrap().spans(), 1 + MAX_PARTS as u64);
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let (traces, inbox) = on(1.0);
        ::metrics::with_local_recorder(&recorder, || {
            for _ in 0..QUEUE + 3 {
                let recording = traces.begin(Trace::begin(RANDOM), NOW).unwrap();
                recording.end("GET", None, 200, Version::HTTP_11);
            }
        });
        assert_eq!(inbox.len(), QUEUE);
        let text = handle.render();
        assert!(text.contains("lintel_hub_trace_spans_total{outcome=\"dropped\"} 3"), "{text}");
    }

    #[test]
    fn nothing_begins_of_what_is_not_sampled() {
        let unsampled = Trace::of(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), RANDOM);
        let (traces, _inbox) = on(1.0);
        assert!(traces.begin(traces.decided(unsampled), NOW).is_none());
        let (none, _inbox) = on(0.0);
        assert!(none.begin(none.decided(Trace::begin(RANDOM)), NOW).is_none());
        let off = Traces::default();
        assert!(off.decided(Trace::begin(RANDOM)).is_sampled(), "as it was");
        assert!(off.begin(Trace::begin(RANDOM), NOW).is_none());
    }
}
