//! Asking the running hub over its control socket: HTTP/1.1 on a Unix socket that only the hub's user can open.

use std::io;
use std::path::{Path, PathBuf};

use axum::http::{Request, Response, header};
use bytes::Bytes;
use futures::TryStreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the hub is not running: nobody listens at {} (start it with `cloud-hub serve`, or name its --data-dir)", socket.display())]
    NotRunning {
        /// The control socket.
        socket: PathBuf,
    },
    /// The socket is another user's.
    #[error("{} may only be used by the hub's own user or root", socket.display())]
    NotAllowed {
        /// The control socket.
        socket: PathBuf,
    },
    /// The hub refused.
    #[error("{0}")]
    Refused(String),
    /// A command that was waited for did not succeed.
    #[error("the command did not succeed:\n{0}")]
    NotSucceeded(String),
    /// A file that was to be sent cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the hub broke off the answer: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Broken(error.into())
}

impl ClientError {
    /// What was said cannot be written down.
    pub(super) fn broken(error: io::Error) -> Self {
        broken(error)
    }
}

/// What a request carries.
#[derive(Debug, PartialEq)]
pub(super) enum Sent {
    /// Nothing.
    Nothing,
    /// JSON.
    Json(Value),
    /// The bytes of a file.
    File(PathBuf),
}

impl Sent {
    fn bytes(&self) -> Result<(&'static str, Bytes), ClientError> {
        Ok(match self {
            Self::Nothing => ("application/json", Bytes::new()),
            Self::Json(value) => ("application/json", Bytes::from(value.to_string())),
            Self::File(path) => {
                let read = std::fs::read(path).map_err(|source| ClientError::File { path: path.clone(), source })?;
                ("application/octet-stream", Bytes::from(read))
            }
        })
    }
}

/// Sends one request and returns the JSON answer (`null` for an empty one).
pub(super) async fn ask(socket: &Path, method: &str, path: &str, sent: &Sent) -> Result<Value, ClientError> {
    let (answer, driver) = send(socket, method, path, sent).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await.map_err(broken)?.to_bytes();
    driver.abort();
    let value: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).map_err(broken)? };
    if status.is_success() { Ok(value) } else { Err(ClientError::Refused(refusal(&value))) }
}

/// Hands over each line of an answer as it comes. An answer that breaks off is an error: what came of it is not all of it.
pub(super) async fn lines(
    socket: &Path,
    path: &str,
    take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ClientError> {
    let (answer, driver) = send(socket, "GET", path, &Sent::Nothing).await?;
    read_lines(answer, driver, take).await
}

/// Sends a file as it is read, and hands over each line of the answer.
pub(super) async fn upload(
    socket: &Path,
    path: &str,
    kind: &'static str,
    file: &Path,
    take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ClientError> {
    let opened = tokio::fs::File::open(file).await;
    let opened = opened.map_err(|source| ClientError::File { path: file.to_path_buf(), source })?;
    let body = StreamBody::new(ReaderStream::new(opened).map_ok(Frame::data)).boxed();
    let (answer, driver) = carry(socket, "POST", path, kind, body).await?;
    read_lines(answer, driver, take).await
}

async fn read_lines(
    answer: Response<Incoming>,
    driver: JoinHandle<hyper::Result<()>>,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ClientError> {
    let (status, mut body) = (answer.status(), answer.into_body());
    if !status.is_success() {
        let bytes = body.collect().await.map_err(broken)?.to_bytes();
        return Err(ClientError::Refused(refusal(&serde_json::from_slice(&bytes).map_err(broken)?)));
    }
    let mut pending: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        pending.extend_from_slice(&data);
        let whole = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = pending.split_off(whole);
        for line in pending.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            take(line).map_err(broken)?;
        }
        pending = rest;
    }
    driver.abort();
    if pending.is_empty() { Ok(()) } else { Err(broken("the last line has no end")) }
}

async fn send(
    socket: &Path,
    method: &str,
    path: &str,
    sent: &Sent,
) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), ClientError> {
    let (kind, body) = sent.bytes()?;
    let body = Full::new(body).map_err(|never| match never {}).boxed();
    carry(socket, method, path, kind, body).await
}

async fn carry(
    socket: &Path,
    method: &str,
    path: &str,
    kind: &str,
    body: BoxBody<Bytes, io::Error>,
) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket: socket.to_path_buf() },
        _ => ClientError::NotRunning { socket: socket.to_path_buf() },
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "control")
        .header(header::CONTENT_TYPE, kind)
        .body(body)
        .map_err(broken)?;
    Ok((sender.send_request(request).await.map_err(broken)?, driver))
}

/// A problem in one line for a terminal.
fn refusal(problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let fields: Vec<String> = problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|field| {
            format!("{}: {}", field["pointer"].as_str().unwrap_or("?"), field["message"].as_str().unwrap_or("?"))
        })
        .collect();
    [text("title"), text("detail"), fields.join("; ")]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(": ")
}
