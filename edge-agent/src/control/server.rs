//! The answering side. A connection is one question; slow or wordy ones are cut off.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Ask, Request, Response};

/// Questions answered at a time; a further one waits in the listen queue.
const MAX_CONNECTIONS: usize = 8;
/// A question is under 100 bytes.
const MAX_QUESTION: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(5);

/// Whoever can answer: the agent's status board.
pub trait Answer: Send + Sync + 'static {
    /// The answer, or a stable code and a message.
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Value, (&'static str, String)>>;
}

/// Answers questions until `stop`.
pub async fn serve(listener: UnixListener, answerer: Arc<dyn Answer>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answerer = Arc::clone(&answerer);
        tokio::spawn(async move {
            let _place = place;
            // A client that hangs or leaves concerns only itself.
            let _ = tokio::time::timeout(LIMIT, one_question(stream, answerer)).await;
        });
    }
}

async fn one_question(mut stream: UnixStream, answerer: Arc<dyn Answer>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_QUESTION)).read_line(&mut line).await?;
    let response = match serde_json::from_str::<Request>(&line) {
        Ok(Request { v: 1, ask }) => match answerer.answer(ask).await {
            Ok(value) => Response::Ok(value),
            Err((code, message)) => Response::Error { code: code.to_owned(), message },
        },
        Ok(Request { v, .. }) => {
            let message = format!("version {v} is not understood; use the edge-agent of the running version");
            Response::Error { code: "invalid_request".to_owned(), message }
        }
        Err(_) => {
            let message = "this agent does not know that question; use the edge-agent of the running version";
            Response::Error { code: "invalid_request".to_owned(), message: message.to_owned() }
        }
    };
    let mut text = serde_json::to_vec(&response).map_err(std::io::Error::from)?;
    text.push(b'\n');
    write.write_all(&text).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ControlError, ask, control_socket};
    use crate::door::bind_unix;

    struct Outbox;

    impl Answer for Outbox {
        fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Value, (&'static str, String)>> {
            Box::pin(async move {
                match ask {
                    Ask::OutboxStatus => Ok(serde_json::json!({"pending": 3})),
                    _ => Err(("unavailable", "not yet".to_owned())),
                }
            })
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_question_gets_its_answer_or_the_agents_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let listener = bind_unix(&control_socket(dir.path()), 0o600).unwrap();
        tokio::spawn(serve(listener, Arc::new(Outbox), CancellationToken::new()));
        let path = dir.path().to_owned();
        let (good, refused) =
            tokio::task::spawn_blocking(move || (ask(&path, Ask::OutboxStatus), ask(&path, Ask::GalleryStatus)))
                .await
                .unwrap();
        assert_eq!(good.unwrap()["pending"], 3);
        assert!(matches!(refused, Err(ControlError::Refused { code, .. }) if code == "unavailable"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nonsense_is_answered_and_does_not_stop_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = control_socket(dir.path());
        let listener = bind_unix(&path, 0o600).unwrap();
        tokio::spawn(serve(listener, Arc::new(Outbox), CancellationToken::new()));
        for nonsense in ["\n", "{}\n", "{\"v\":2,\"ask\":\"status\"}\n", "{\"v\":1,\"ask\":\"unlock\"}\n"] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(nonsense.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("invalid_request"), "{nonsense:?} got {answer:?}");
        }
    }

    #[test]
    fn without_an_agent_the_error_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = ask(dir.path(), Ask::Status).unwrap_err();
        assert!(matches!(error, ControlError::NotRunning { .. }));
        assert!(error.to_string().contains("edge-agent run"), "{error}");
    }
}
