//! The TLS listener: HTTP/1.1 and HTTP/2 over TLS 1.3, with optional client certificates of devices.
//!
//! In: a bound socket, a TLS configuration, the routes. Out: served connections. Bounds of its own, because neither
//! hyper nor tokio-rustls has them by default: a handshake timeout, a timeout for the first byte and for each request
//! head, caps on connections in all and per address. One connection is one task; a slow handshake delays nobody.
//! Deliberately absent: what a client certificate may do. Its device and serial are handed on; routes ask the registry.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::lingering::Lingering;
use super::peer::Peer;
use hub_host::metrics::http as measured;

/// After an accept error (usually: no file descriptors) the loop waits this long instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Head of an HTTP/1 request, and header list of an HTTP/2 one. Ours are below 2 KiB.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Silent HTTP/2 connections are asked for a sign of life this often, and closed without one.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long that sign may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds of the listener.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// For the first byte, and for the head of each request.
    pub header_timeout: Duration,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one IPv4 address or IPv6 /64 network.
    pub max_per_address: usize,
    /// How long running requests may take after a stop.
    pub drain: Duration,
}

/// The TLS configuration in use; replaced whole when certificates are renewed.
pub type TlsConfig = Arc<ArcSwap<ServerConfig>>;

/// Serves until `stop` is cancelled, then lets running requests finish for `drain` and cuts the rest.
pub async fn serve(
    listener: TcpListener,
    tls: TlsConfig,
    routes: Router,
    options: ListenerOptions,
    stop: CancellationToken,
) {
    let total = Arc::new(Semaphore::new(options.max_connections));
    let addresses = AddressCounts::default();
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = admit(&total, &addresses, peer.ip(), options.max_per_address) else {
            // Dropping the socket closes it: cheaper than a handshake only to say no.
            tracing::debug!("a connection above the cap is closed");
            measured::not_admitted();
            continue;
        };
        let acceptor = TlsAcceptor::from(tls.load_full());
        let work = connection(stream, peer, acceptor, routes.clone(), options.clone(), stop.clone());
        let cut = cut.clone();
        let open = measured::connected();
        tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = cut.cancelled() => {}
            }
            drop((place, open));
        });
    }
    tasks.close();
    if tokio::time::timeout(options.drain, tasks.wait()).await.is_err() {
        cut.cancel();
        tasks.wait().await;
    }
}

/// A place among the connections; given back when dropped.
struct Place {
    _total: OwnedSemaphorePermit,
    _address: AddressPlace,
}

fn admit(total: &Arc<Semaphore>, addresses: &AddressCounts, peer: IpAddr, max_per_address: usize) -> Option<Place> {
    let permit = Arc::clone(total).try_acquire_owned().ok()?;
    let address = addresses.enter(peer, max_per_address)?;
    Some(Place { _total: permit, _address: address })
}

/// How many connections each address has. Addresses without one are forgotten, so the map is bounded by the total.
#[derive(Clone, Default)]
struct AddressCounts(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct AddressPlace {
    counts: AddressCounts,
    key: IpAddr,
}

impl AddressCounts {
    fn enter(&self, peer: IpAddr, max: usize) -> Option<AddressPlace> {
        let key = group(peer);
        let mut counts = self.0.lock();
        let count = counts.entry(key).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPlace { counts: self.clone(), key })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// An IPv6 client owns at least its /64, so that is what is counted.
pub(super) fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        },
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    routes: Router,
    options: ListenerOptions,
    stop: CancellationToken,
) {
    // Small answers must not wait for Nagle's timer; a socket that refuses the option still works.
    let _ = stream.set_nodelay(true);
    let mut stream = match tokio::time::timeout(options.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            measured::handshake_failed();
            return tell_refusal(address, &error);
        }
        Err(_) => {
            measured::handshake_failed();
            return tracing::debug!(peer = %address, "a TLS handshake took too long");
        }
    };
    // hyper starts its own timer for the head only once it polls for a request; a silent socket is bounded here.
    match tokio::time::timeout(options.header_timeout, stream.fill_buf()).await {
        Ok(Ok(first)) if !first.is_empty() => {}
        _ => return,
    }
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let peer = Peer::of(address, stream.get_ref().1.peer_certificates());
    serve_http(stream, http2, peer, routes, &options, stop).await;
}

/// Whoever shows a certificate that is not to be believed, or speaks another TLS, is told no more than TLS's own alert; the
/// operator is told why. What merely goes away, as port scanners do, is not worth a line.
fn tell_refusal(peer: SocketAddr, error: &std::io::Error) {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::AlertReceived(_)) | None => {
            tracing::debug!(peer = %peer, %error, "a TLS handshake was given up");
        }
        Some(reason) => {
            tracing::warn!(event = "handshake_refused", peer = %peer, %reason, "a TLS handshake was refused");
        }
    }
}

async fn serve_http(
    stream: TlsStream<TcpStream>,
    http2: bool,
    peer: Peer,
    routes: Router,
    options: &ListenerOptions,
    stop: CancellationToken,
) {
    let (begun, seen) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let first = (Arc::clone(&begun), options.header_timeout);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if !seen.swap(true, Ordering::Relaxed) {
            begun.notify_one();
        }
        request.extensions_mut().insert(peer.clone());
        // Whoever waits to be told to go on sends nothing before that.
        let lingers = !http2 && !request.headers().contains_key(header::EXPECT);
        routes
            .clone()
            .oneshot(request.map(|body| if lingers { Body::new(Lingering::new(body)) } else { Body::new(body) }))
    });
    let io = TokioIo::new(stream);
    if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        // hyper waits for the rest of a preface, and for a first request, for ever.
        drive(builder.serve_connection(io, service), Some(first), stop).await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(options.header_timeout).max_buf_size(MAX_HEAD_BYTES);
        drive(builder.serve_connection(io, service), None, stop).await;
    }
}

/// Runs a connection to its end; a stop lets the requests under way finish and takes no more. With `first`, the
/// connection is dropped if nobody is notified of its first request in that time.
async fn drive<C: GracefulConnection>(connection: C, first: Option<(Arc<Notify>, Duration)>, stop: CancellationToken) {
    let mut connection = std::pin::pin!(connection);
    let silent = async {
        if let Some((begun, within)) = first
            && tokio::time::timeout(within, begun.notified()).await.is_err()
        {
            return;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = silent => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // Errors of a closing connection are the client's going away.
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_share_and_gives_it_back() {
        let counts = AddressCounts::default();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = counts.enter(one, 2).unwrap();
        let _second = counts.enter(one, 2).unwrap();
        assert!(counts.enter(one, 2).is_none());
        assert!(counts.enter(other, 2).is_some());
        drop(first);
        assert!(counts.enter(one, 2).is_some());
        assert_eq!(counts.0.lock().len(), 1, "addresses without a connection are forgotten");
    }

    #[test]
    fn a_whole_ipv6_network_counts_as_one() {
        assert_eq!(group("2001:db8::1".parse().unwrap()), group("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(group("2001:db8::1".parse().unwrap()), group("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(group("::ffff:192.0.2.1".parse().unwrap()), group("192.0.2.1".parse().unwrap()));
    }
}
