//! Watching the simulated door's relay on its Unix socket, across restarts of the agent.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// One change of the relay, with the watcher's own time.
#[derive(Clone, Debug)]
pub struct Edge {
    /// When the watcher saw it.
    pub seen: Instant,
    /// `unlock` or `lock`.
    pub kind: String,
    /// The decision behind it, if the door names one.
    pub decision: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    edge: Option<String>,
    decision: Option<String>,
}

/// A watcher that reconnects whenever the agent comes back.
pub struct RelayWatch {
    edges: Arc<Mutex<Vec<Edge>>>,
    connected: Arc<std::sync::atomic::AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl RelayWatch {
    /// Begins to watch the socket at `path`; it need not exist yet.
    pub fn start(path: PathBuf) -> Self {
        let edges = Arc::new(Mutex::new(Vec::new()));
        let connected = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let task = tokio::spawn(watch(path, Arc::clone(&edges), Arc::clone(&connected)));
        Self { edges, connected, task }
    }

    /// Waits until the socket is being read, so that no edge can be missed.
    pub async fn connected(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.connected.load(std::sync::atomic::Ordering::Acquire) {
            if Instant::now() > until {
                bail!("the door's socket could not be watched within 10 s");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// All edges seen since `since`.
    pub fn since(&self, since: Instant) -> Vec<Edge> {
        let edges = self.edges.lock().expect("no holder of this lock panics");
        edges.iter().filter(|edge| edge.seen >= since).cloned().collect()
    }

    /// The first edge of this kind seen since `since`, waiting for at most `patience`.
    pub async fn wait_for(&self, kind: &str, since: Instant, patience: Duration) -> Result<Edge> {
        let until = Instant::now() + patience;
        loop {
            if let Some(edge) = self.since(since).into_iter().find(|edge| edge.kind == kind) {
                return Ok(edge);
            }
            if Instant::now() > until {
                bail!("no {kind} edge on the door's socket within {patience:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for RelayWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(path: PathBuf, edges: Arc<Mutex<Vec<Edge>>>, connected: Arc<std::sync::atomic::AtomicBool>) {
    loop {
        if let Ok(stream) = UnixStream::connect(&path).await {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(text)) = lines.next_line().await {
                connected.store(true, std::sync::atomic::Ordering::Release);
                if let Ok(Line { edge: Some(kind), decision }) = serde_json::from_str(&text) {
                    let edge = Edge { seen: Instant::now(), kind, decision };
                    edges.lock().expect("no holder of this lock panics").push(edge);
                }
            }
            connected.store(false, std::sync::atomic::Ordering::Release);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
