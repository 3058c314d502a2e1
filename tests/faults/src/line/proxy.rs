//! A TCP proxy that does to a line what networks do: late, slow, silent, one-way, cut in the middle, changed, refused.
//!
//! In: the broker's address and the [`Fault`] of the moment. Out: a port to connect to, and how many pieces or connections
//! the fault has met. With TLS on the line a piece is a piece of records: doubling or reordering them could only be seen as
//! damage, and damage is one of the faults. What the ends themselves repeat is broken elsewhere (row M4).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The most that is read at once: a TLS record.
const PIECE: usize = 16 * 1024;

/// What a network can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Each piece comes this much later.
    Late(Duration),
    /// Nothing passes in either direction; everything passes when it is over.
    Silent,
    /// Nothing passes to the hub.
    SilentUp,
    /// Nothing passes to the device.
    SilentDown,
    /// What comes down is lost for good, and the device is not told when the broker's end closes: acknowledgements never
    /// come, on this connection, after the fault too.
    Deaf,
    /// The broker's end is closed and the device is never told: its packets go nowhere, after the fault too.
    HalfOpen,
    /// Half a piece passes, then both ends are reset.
    CutInside,
    /// Every connection is reset, and new ones at once.
    Refused,
    /// So many bytes a second.
    Slow(u32),
    /// One byte of each piece is another one.
    Damaged,
}

/// Which way a piece goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// The proxy. Dropping it closes every connection.
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Option<Fault>>,
    met: Arc<AtomicU64>,
    ended: CancellationToken,
    task: JoinHandle<()>,
}

/// What the tasks of one connection share.
#[derive(Clone)]
struct Link {
    fault: watch::Receiver<Option<Fault>>,
    met: Arc<AtomicU64>,
    /// Ends both directions with a reset.
    cut: CancellationToken,
    /// The device's end is kept open although the broker's is not.
    half_open: Arc<AtomicBool>,
    /// Nothing comes down any more.
    deaf: Arc<AtomicBool>,
}

impl Link {
    /// Whether the device is not to learn that the broker's end has closed.
    fn keeps_the_end_from_the_device(&self) -> bool {
        self.half_open.load(Ordering::SeqCst) || self.deaf.load(Ordering::SeqCst)
    }
}

impl Proxy {
    /// Listens on a free port of loopback and passes everything to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port for the proxy")?;
        let port = listener.local_addr()?.port();
        let (fault, seen) = watch::channel(None);
        let (met, ended) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let task = tokio::spawn(accept(listener, upstream, seen, Arc::clone(&met), ended.clone()));
        Ok(Self { port, fault, met, ended, task })
    }

    /// Where devices connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on the line is like this.
    pub fn inject(&self, fault: Fault) {
        self.met.store(0, Ordering::SeqCst);
        self.fault.send_replace(Some(fault));
    }

    /// The line is whole again. Returns how many pieces and connections the fault has met.
    pub fn heal(&self) -> u64 {
        self.fault.send_replace(None);
        self.met.load(Ordering::SeqCst)
    }

    /// How many pieces and connections the present fault has met so far.
    #[must_use]
    pub fn met(&self) -> u64 {
        self.met.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.cancel();
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    fault: watch::Receiver<Option<Fault>>,
    met: Arc<AtomicU64>,
    ended: CancellationToken,
) {
    loop {
        // A device that goes away between SYN and accept is its own affair.
        let Ok((device, _)) = listener.accept().await else { continue };
        if *fault.borrow() == Some(Fault::Refused) {
            met.fetch_add(1, Ordering::SeqCst);
            reset(&device);
            continue;
        }
        let link = Link {
            fault: fault.clone(),
            met: Arc::clone(&met),
            cut: ended.child_token(),
            half_open: Arc::new(AtomicBool::new(false)),
            deaf: Arc::new(AtomicBool::new(false)),
        };
        tokio::spawn(connection(device, upstream, link));
    }
}

/// Makes the next close of this socket a reset.
fn reset(socket: &TcpStream) {
    // On a socket that is closed already there is nothing left to reset.
    let _closed = socket.set_zero_linger();
}

async fn connection(device: TcpStream, upstream: SocketAddr, link: Link) {
    let Ok(broker) = TcpStream::connect(upstream).await else {
        reset(&device);
        return;
    };
    for socket in [&device, &broker] {
        // Latency is for the faults to make; a socket that is closed already needs none.
        let _closed = socket.set_nodelay(true);
    }
    let (from_device, to_device) = device.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let watcher = tokio::spawn(refuse(link.clone()));
    let up = pass(Way::Up, from_device, to_broker, link.clone());
    let down = pass(Way::Down, from_broker, to_device, link);
    tokio::join!(up, down);
    watcher.abort();
}

/// Cuts the connection when the line begins to refuse.
async fn refuse(mut link: Link) {
    if link.fault.wait_for(|fault| *fault == Some(Fault::Refused)).await.is_ok() {
        link.met.fetch_add(1, Ordering::SeqCst);
        link.cut.cancel();
    }
}

/// What became of a piece.
enum Fate {
    Pass,
    PassHalfAndCut,
    /// It and whatever comes after it.
    Swallow,
    /// It alone.
    Lose,
}

async fn pass(way: Way, mut from: OwnedReadHalf, to: OwnedWriteHalf, mut link: Link) {
    let (mut to, cut) = (Some(to), link.cut.clone());
    let mut piece = vec![0; PIECE];
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read.unwrap_or(0),
            () = cut.cancelled() => break,
        };
        if read == 0 {
            if way == Way::Down && link.keeps_the_end_from_the_device() {
                // The broker is gone, and the device must not learn it from us.
                cut.cancelled().await;
            }
            break;
        }
        let fate = tokio::select! {
            fate = suffer(way, &mut piece[..read], &mut link) => fate,
            () = cut.cancelled() => break,
        };
        match (fate, &mut to) {
            (Fate::Swallow, _) => to = None,
            (Fate::Lose, _) | (_, None) => {}
            (Fate::Pass, Some(to)) => {
                if to.write_all(&piece[..read]).await.is_err() {
                    if way == Way::Up && link.deaf.load(Ordering::SeqCst) {
                        continue;
                    }
                    break;
                }
            }
            (Fate::PassHalfAndCut, Some(to)) => {
                // It is to be broken off anyway.
                let _broken = to.write_all(&piece[..read / 2]).await;
                break;
            }
        }
    }
    let _closed = from.as_ref().set_zero_linger();
    // Whatever ends one direction ends the other: MQTT never half-closes.
    cut.cancel();
}

/// Lets the fault of the moment work upon a piece; while the line is silent this does not return.
async fn suffer(way: Way, piece: &mut [u8], link: &mut Link) -> Fate {
    let mut counted = false;
    loop {
        if way == Way::Up && link.half_open.load(Ordering::SeqCst) {
            return Fate::Swallow;
        }
        if way == Way::Down && link.deaf.load(Ordering::SeqCst) {
            return Fate::Lose;
        }
        let Some(fault) = *link.fault.borrow_and_update() else { return Fate::Pass };
        let silent =
            matches!((fault, way), (Fault::Silent, _) | (Fault::SilentUp, Way::Up) | (Fault::SilentDown, Way::Down));
        let untouched =
            matches!((fault, way), (Fault::SilentUp, Way::Down) | (Fault::SilentDown | Fault::Deaf, Way::Up));
        if !counted && !untouched {
            link.met.fetch_add(1, Ordering::SeqCst);
            counted = true;
        }
        if silent {
            if link.fault.changed().await.is_err() {
                return Fate::Swallow;
            }
            continue;
        }
        match fault {
            Fault::Late(by) => tokio::time::sleep(by).await,
            Fault::Slow(bytes_a_second) => {
                let share = piece.len() as f64 / f64::from(bytes_a_second);
                tokio::time::sleep(Duration::from_secs_f64(share)).await;
            }
            Fault::Damaged => piece[piece.len() / 2] ^= 1,
            Fault::CutInside => return Fate::PassHalfAndCut,
            Fault::HalfOpen => {
                link.half_open.store(true, Ordering::SeqCst);
                // What comes down is lost too: the next piece up closes the broker's end.
                return if way == Way::Up { Fate::Swallow } else { Fate::Pass };
            }
            Fault::Deaf if way == Way::Down => {
                link.deaf.store(true, Ordering::SeqCst);
                return Fate::Lose;
            }
            Fault::Refused => {
                link.cut.cancel();
                return Fate::Swallow;
            }
            Fault::Silent | Fault::SilentUp | Fault::SilentDown | Fault::Deaf => {}
        }
        return Fate::Pass;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ended = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn answer(socket: &mut TcpStream, said: &[u8]) -> Option<Vec<u8>> {
        let mut heard = vec![0; said.len()];
        socket.write_all(said).await.ok()?;
        let read = tokio::time::timeout(Duration::from_millis(300), socket.read(&mut heard)).await.ok()?.ok()?;
        (read > 0).then(|| heard[..read].to_vec())
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says_and_is_counted() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
        let mut line = connect().await.unwrap();
        assert_eq!(answer(&mut line, b"whole").await.unwrap(), b"whole");
        proxy.inject(Fault::Damaged);
        // Once on its way there, once on its way back: the same byte twice is whole again, so a longer word is cut in two.
        assert!(answer(&mut line, b"damaged").await.is_some());
        assert_eq!(proxy.heal(), 2);
        proxy.inject(Fault::Silent);
        assert_eq!(answer(&mut line, b"nobody").await, None);
        assert_eq!(proxy.heal(), 1);
        let mut late = [0; 6];
        line.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"nobody");
        proxy.inject(Fault::CutInside);
        assert_ne!(answer(&mut line, b"halved").await.as_deref(), Some(b"halved".as_slice()));
        assert!(proxy.heal() >= 1);
        let mut line = connect().await.unwrap();
        assert!(answer(&mut line, b"again").await.is_some());
        proxy.inject(Fault::HalfOpen);
        assert_eq!(answer(&mut line, b"lost").await, None);
        proxy.heal();
        assert_eq!(answer(&mut line, b"lost for ever").await, None);
        let mut line = connect().await.unwrap();
        assert!(answer(&mut line, b"again").await.is_some());
        proxy.inject(Fault::Deaf);
        assert_eq!(answer(&mut line, b"acknowledged?").await, None);
        assert_eq!(proxy.heal(), 1, "it went up, and what came down is lost");
        assert_eq!(answer(&mut line, b"still?").await, None);
        assert_eq!(answer(&mut connect().await.unwrap(), b"anew").await.unwrap(), b"anew");
        proxy.inject(Fault::Refused);
        let mut refused = connect().await.unwrap();
        assert_eq!(answer(&mut refused, b"x").await, None);
        assert!(proxy.heal() >= 1);
    }
}
