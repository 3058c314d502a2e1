//! A webhook receiver for the demo and the system tests: it answers 204 and writes down what arrived.
//!
//! In: HTTP POST on a loopback port that it prints. Out: one JSON line a request, flushed before the answer. It checks
//! nothing: the judge reads the lines and checks the signatures, so that a wrong one is seen and not hidden.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use clap::Parser;

/// Writes down the webhooks that arrive on a loopback port.
#[derive(Parser)]
#[command(after_help = "Example:\n  webhook-receiver --log webhooks.ndjson")]
struct Arguments {
    /// File that gets one JSON line a request
    #[arg(long)]
    log: PathBuf,
}

type Log = Arc<Mutex<File>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let file = File::options()
        .create(true)
        .append(true)
        .open(&arguments.log)
        .with_context(|| format!("log {} cannot be written", arguments.log.display()))?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.context("no free port on loopback")?;
    writeln!(std::io::stdout(), "http://{}/hook", listener.local_addr()?)?;
    let app = axum::Router::new().route("/hook", axum::routing::post(receive)).with_state(Arc::new(Mutex::new(file)));
    axum::serve(listener, app).await?;
    Ok(())
}

async fn receive(State(log): State<Log>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let line = serde_json::json!({
        "id": header("webhook-id"),
        "timestamp": header("webhook-timestamp"),
        "signature": header("webhook-signature"),
        "body": String::from_utf8_lossy(&body),
    });
    let mut file = log.lock().expect("no holder of this lock panics");
    match writeln!(file, "{line}").and_then(|()| file.flush()) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::INSUFFICIENT_STORAGE,
    }
}
