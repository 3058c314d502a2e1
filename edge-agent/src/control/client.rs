//! The asking side, used by the command line. Blocking, with a limit on every step.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Ask, Request, Response, control_socket};

/// An agent answers from memory; more than this means that it hangs.
const LIMIT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no edge-agent is running with runtime folder {}; start `edge-agent run`, or give the same --config", path.display())]
    NotRunning {
        /// The runtime folder.
        path: PathBuf,
    },
    /// The socket belongs to another user.
    #[error("{}: permission denied; ask as the user that runs the agent, or as root", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// It listens but does not answer.
    #[error("{}: the running agent did not answer", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered that it cannot.
    #[error("the running agent answers: {message} ({code})")]
    Refused {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
}

/// Asks the agent that runs in `runtime_dir`.
///
/// # Errors
/// [`ControlError`]: not running, not allowed, no answer within five seconds, or its own refusal.
pub fn ask(runtime_dir: &Path, ask: Ask) -> Result<Value, ControlError> {
    let path = control_socket(runtime_dir);
    let stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning { path: runtime_dir.to_owned() }
        }
        io::ErrorKind::PermissionDenied => ControlError::Denied { path: path.clone() },
        _ => ControlError::NoAnswer { path: path.clone(), source },
    })?;
    match exchange(&stream, ask) {
        Ok(Response::Ok(value)) => Ok(value),
        Ok(Response::Error { code, message }) => Err(ControlError::Refused { code, message }),
        Err(source) => Err(ControlError::NoAnswer { path, source }),
    }
}

fn exchange(mut stream: &UnixStream, ask: Ask) -> io::Result<Response> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut line = serde_json::to_vec(&Request { v: 1, ask }).expect("a request has a JSON form");
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    serde_json::from_str(&answer).map_err(io::Error::from)
}
