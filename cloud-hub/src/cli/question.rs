//! A question to the running hub, what follows its answer, and how that is shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{self, ClientError, Sent};
use super::{EXIT_UNAVAILABLE, Output, orders, table, users};

/// Between two questions about a command that is waited for.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Method, path, what is sent, the list of the answer, and the columns of its table.
pub(super) type Asked = (&'static str, String, Sent, &'static str, &'static [table::Column]);

/// A question to the running hub.
#[derive(Debug)]
pub struct Question {
    pub(super) socket: PathBuf,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) sent: Sent,
    pub(super) output: Output,
    pub(super) columns: &'static [table::Column],
    pub(super) list: &'static str,
    pub(super) then: Then,
}

/// What follows the answer, or comes before the question.
#[derive(Debug, Default)]
pub(super) enum Then {
    /// Nothing.
    #[default]
    Show,
    /// Ask about the command here until its last word.
    Wait(String),
    /// Print this text of the answer as it is.
    Text(&'static str),
    /// Read what is wished first, and lay these over it.
    LayOver(Vec<String>),
    /// Send what is in this file.
    Replace(PathBuf),
    /// Read a password from stdin first, and send it.
    Password,
}

/// All settings of a twin, from a JSON file.
fn settings_file(path: &Path) -> Result<Value, ClientError> {
    let unreadable = |why: String| ClientError::Refused(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| unreadable(format!("is not JSON: {error}")))
}

impl Question {
    /// Asks, and returns what to print and the exit code.
    pub async fn ask(&self) -> Result<String, ClientError> {
        let answer = match &self.then {
            Then::LayOver(pairs) => self.lay_over(pairs).await?,
            Then::Replace(file) => {
                let body = json!({ "settings": settings_file(file)? });
                client::ask(&self.socket, self.method, &self.path, &Sent::Json(body)).await?
            }
            Then::Password => {
                let body = users::with_password().map_err(ClientError::Refused)?;
                client::ask(&self.socket, self.method, &self.path, &Sent::Json(body)).await?
            }
            _ => client::ask(&self.socket, self.method, &self.path, &self.sent).await?,
        };
        match &self.then {
            Then::Text(member) => return Ok(answer[*member].as_str().unwrap_or_default().to_owned()),
            Then::Wait(path) => {
                let answer = self.last_word(path, answer).await?;
                let text = self.shown(&answer);
                let succeeded = answer["state"] == "succeeded";
                return if succeeded { Ok(text) } else { Err(ClientError::NotSucceeded(text.trim_end().to_owned())) };
            }
            Then::Show | Then::LayOver(_) | Then::Replace(_) | Then::Password => {}
        }
        Ok(self.shown(&answer))
    }

    fn shown(&self, answer: &Value) -> String {
        match self.output {
            Output::Json => format!("{answer}\n"),
            Output::Table => table::render(answer, self.list, self.columns),
        }
    }

    /// Reads what is wished, and wishes it with these differences, of that version and no other.
    async fn lay_over(&self, pairs: &[String]) -> Result<Value, ClientError> {
        let present = client::ask(&self.socket, "GET", &self.path, &Sent::Nothing).await?;
        let settings = orders::laid_over(&present["desired"]["settings"], pairs).map_err(ClientError::Refused)?;
        let version = present["desired"]["version"].as_u64().unwrap_or(0);
        let body = json!({ "settings": settings, "version": version });
        client::ask(&self.socket, self.method, &self.path, &Sent::Json(body)).await
    }

    /// Asks until the device has had its last word, or can have none any more.
    async fn last_word(&self, path: &str, mut command: Value) -> Result<Value, ClientError> {
        let path = format!("{path}/{}", command["id"].as_str().unwrap_or_default());
        while ["issued", "accepted", "executing"].iter().any(|open| command["state"] == *open) {
            tokio::time::sleep(ASK_AGAIN).await;
            command = client::ask(&self.socket, "GET", &path, &Sent::Nothing).await?;
        }
        Ok(command)
    }
}

impl ClientError {
    /// The exit code that fits.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NotRunning { .. }) { EXIT_UNAVAILABLE } else { 1 }
    }
}
