//! A hub in a process of its own, and the clients that talk to it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use cloud_hub::embedded::parts;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

pub(crate) use super::cluster::{data_dir, empty_data_dir, skipped};

/// Longer than any start on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// As [`skipped`], for tests that need models and the demonstration pictures too.
pub(crate) fn skipped_without_models(test: &str) -> bool {
    let needed = [manifest(), weights().join("fr_feature.onnx"), onnxruntime(), demo_picture("obama.jpg")];
    if let Some(missing) = needed.iter().find(|path| !path.is_file()) {
        eprintln!("SKIPPED {test}: {} is missing: run scripts/setup", missing.display());
        return true;
    }
    skipped(test)
}

fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/faceplugin/manifest.toml")
}

fn weights() -> PathBuf {
    parts::parts_dir().join("models/faceplugin")
}

fn onnxruntime() -> PathBuf {
    parts::parts_dir().join("onnxruntime/libonnxruntime.so")
}

/// A demonstration picture that setup has fetched.
pub(crate) fn demo_picture(name: &str) -> PathBuf {
    parts::parts_dir().join("demo").join(name)
}

/// A running hub; killed when dropped.
pub(crate) struct Hub {
    pub(crate) child: Child,
    pub(crate) ready: Value,
    data_dir: PathBuf,
}

/// A tenant and its key.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) authorization: String,
}

/// The program with its configuration for tests: webhooks may reach loopback, models if they are there.
pub(crate) fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloud-hub"));
    command
        .arg("--data-dir")
        .arg(data_dir)
        .env("LINTEL__WEBHOOKS__ALLOW_NETWORKS", "127.0.0.0/8")
        .env("LINTEL__MODELS__MANIFEST", manifest())
        .env("LINTEL__MODELS__WEIGHTS", weights())
        .env("LINTEL__MODELS__ONNXRUNTIME", onnxruntime());
    command
}

/// `serve --embedded` on free ports.
pub(crate) fn serve(data_dir: &Path) -> Command {
    let mut command = command(data_dir);
    command.args(["serve", "--embedded", "--listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"]);
    command
}

/// Runs a command to its end.
pub(crate) fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

impl Hub {
    /// Starts a hub and waits for its ready line.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::from_command(serve(data_dir), data_dir)
    }

    /// As [`Hub::start`], with a command of the caller's.
    pub(crate) fn from_command(mut command: Command, data_dir: &Path) -> Self {
        let log_path = data_dir.join("hub.log");
        let log = std::fs::File::options().create(true).append(true).open(&log_path).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, line) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = line.recv_timeout(READY_WITHIN).unwrap_or_default();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("no ready line but {line:?}; log: {}", std::fs::read_to_string(&log_path).unwrap_or_default())
        });
        Self { child, ready, data_dir: data_dir.to_path_buf() }
    }

    pub(crate) fn https(&self) -> &str {
        self.ready["https"].as_str().unwrap()
    }

    /// `host:port` of the API.
    pub(crate) fn address(&self) -> &str {
        self.https().strip_prefix("https://").unwrap()
    }

    /// Runs a subcommand and reads its JSON.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Value {
        let mut command = command(&self.data_dir);
        command.args(arguments).args(["-o", "json"]);
        let output = output(command);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn tenant(&self, name: &str) -> Tenant {
        let made = self.cli(&["tenants", "create", name]);
        let text = |pointer: &str| made.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        Tenant {
            id: text("/tenant/id"),
            authorization: format!("ApiKey {}:{}", text("/api_key/id"), text("/api_key/secret")),
        }
    }

    /// The root certificate, PEM.
    pub(crate) fn root(&self) -> Vec<u8> {
        std::fs::read(self.ready["root_certificate"].as_str().unwrap()).unwrap()
    }

    /// A client that trusts this hub's root alone.
    pub(crate) fn client(&self) -> reqwest::Client {
        self.client_builder().build().unwrap()
    }

    pub(crate) fn client_builder(&self) -> reqwest::ClientBuilder {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&self.root()).unwrap()])
            .no_proxy()
            .timeout(Duration::from_secs(60))
    }

    /// Sends a request as the tenant; returns status and JSON (`null` for an empty body).
    pub(crate) async fn call(
        &self,
        tenant: &Tenant,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.client().request(method, format!("{}{path}", self.https()));
        request = request.header("authorization", &tenant.authorization);
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request.send().await.unwrap()).await
    }

    /// A `POST` that must succeed.
    pub(crate) async fn made(&self, tenant: &Tenant, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(tenant, Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {answer}");
        answer
    }

    /// A `GET` that must succeed.
    pub(crate) async fn get(&self, tenant: &Tenant, path: &str) -> Value {
        let (status, answer) = self.call(tenant, Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub(crate) async fn site(&self, tenant: &Tenant) -> String {
        let site = self.made(tenant, "/v1/sites", json!({ "name": "HQ", "time_zone": "Asia/Jakarta" })).await;
        site["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn person(&self, tenant: &Tenant, external_id: &str) -> String {
        let body = json!({ "external_id": external_id, "name": "Someone" });
        self.made(tenant, "/v1/people", body).await["id"].as_str().unwrap().to_owned()
    }

    /// A connection that sees every row.
    pub(crate) async fn superuser(&self) -> PgConnection {
        PgConnection::connect(self.ready["postgres"].as_str().unwrap()).await.unwrap()
    }

    /// Asks for a clean stop and waits for it.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        signal(&self.child, rustix::process::Signal::TERM);
        self.child.wait().unwrap()
    }
}

pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

pub(crate) async fn read(answer: reqwest::Response) -> (StatusCode, Value) {
    let status = answer.status();
    let text = answer.text().await.unwrap();
    let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect(&text) };
    (status, value)
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The parts die with it; the directory can only be removed once Postgres has let go of it.
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while !children_of(&self.data_dir).is_empty() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes that name the directory on their command line or work in it: Postgres, Mosquitto.
pub(crate) fn children_of(data_dir: &Path) -> Vec<String> {
    let dir = data_dir.to_string_lossy().into_owned();
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|entry| entry.file_name().to_string_lossy() != own)
        .filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let ours =
                !line.starts_with(env!("CARGO_BIN_EXE_cloud-hub")) && (line.contains(&dir) || cwd.starts_with(&dir));
            ours.then_some(line)
        })
        .collect()
}
