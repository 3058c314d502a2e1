//! Bodies of HTTP/1 requests that nobody read to their end.
//!
//! Whoever sends a photograph with a wrong key is answered before the photograph is there. A connection that is closed then is
//! reset, since bytes come in that nobody takes, and what the client finds is a broken connection instead of the refusal. So what
//! was left is still taken, and thrown away, within bounds. HTTP/2 can end one request and keep the connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};

/// More than this is not waited for: no request that is held in memory has more.
const MAX_BYTES: u64 = 32 << 20;
/// A client that takes longer is not sending what it has ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that is taken to its end by itself when it is let go of before.
pub(super) struct Lingering(Option<Incoming>);

impl Lingering {
    pub(super) const fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(body) = self.0.as_mut() else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        if body.size_hint().lower() > MAX_BYTES {
            return;
        }
        // There is none while the program ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(PATIENCE, take(body)));
        }
    }
}

/// Ends with the connection, too: then the next frame is an error.
async fn take(mut body: Incoming) {
    let mut taken = 0;
    while taken <= MAX_BYTES {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        taken += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}
