//! No import runs against the arrows of the design (docs/ARCHITECTURE.md).
//!
//! Three borders: between the crates of the workspace (from `cargo metadata`), between the modules of the hub and what
//! the pure crates may touch (from their sources). Each rule is also shown to catch a violation.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of our crates each of our crates may depend on, outside its tests.
const CRATES: &[(&str, &[&str])] = &[
    ("face-core", &[]),
    ("gallery-log", &[]),
    ("wire-contract", &[]),
    ("face-index", &["face-core"]),
    ("face-runtime", &["face-core"]),
    ("edge-capture", &["face-core"]),
    ("edge-store", &["face-core", "gallery-log"]),
    (
        "edge-agent",
        &["face-core", "face-index", "face-runtime", "gallery-log", "wire-contract", "edge-capture", "edge-store"],
    ),
    ("hub-domain", &["face-core", "gallery-log", "wire-contract"]),
    // Whatever happens anywhere may be counted and timed; what is counted names nothing of anybody.
    ("hub-host", &["hub-domain"]),
    ("hub-embedded", &["hub-domain", "hub-host", "wire-contract"]),
    ("hub-store", &["face-core", "gallery-log", "hub-domain", "hub-host", "wire-contract"]),
    // Custody writes what wraps what in the transaction of the change that it belongs to.
    ("hub-keys", &["face-core", "gallery-log", "hub-domain", "hub-host", "hub-store", "wire-contract"]),
    ("hub-limit", &["hub-domain", "hub-host"]),
    ("hub-pki", &["hub-domain", "hub-host"]),
    ("hub-roster", &[]),
    (
        "hub-recognition",
        &[
            "face-core",
            "face-index",
            "face-runtime",
            "hub-domain",
            "hub-host",
            "hub-keys",
            "hub-store",
            "wire-contract",
        ],
    ),
    // Neither a broker nor a job: what they are to do is asked of them by what the program hands in.
    (
        "hub-api",
        &[
            "face-core",
            "face-runtime",
            "hub-domain",
            "hub-host",
            "hub-keys",
            "hub-limit",
            "hub-pki",
            "hub-recognition",
            "hub-roster",
            "hub-store",
            "wire-contract",
        ],
    ),
    (
        "cloud-hub",
        &[
            "face-runtime",
            "gallery-log",
            "hub-api",
            "hub-domain",
            "hub-embedded",
            "hub-host",
            "hub-keys",
            "hub-limit",
            "hub-pki",
            "hub-recognition",
            "hub-roster",
            "hub-store",
            "wire-contract",
        ],
    ),
    // The judge starts the programs and never links them.
    ("system-tests", &[]),
    // It breaks the stores and cameras from inside and the programs from outside, and plays both ends' rules by seed.
    (
        "fault-lab",
        &[
            "cloud-hub",
            "edge-agent",
            "edge-capture",
            "edge-store",
            "face-core",
            "fleet-sim",
            "fuzz-targets",
            "gallery-log",
            "system-tests",
            "vector-scan",
            "wire-contract",
        ],
    ),
    // The search of a stolen disk, apart because it is built for speed.
    ("vector-scan", &[]),
    // Devices made of the agent's own parts; what their galleries find is asked in face-core's words.
    ("fleet-sim", &["edge-agent", "edge-store", "face-core", "wire-contract"]),
    // It enrols thousands by the hub's own way into its store, and measures its parts bare.
    ("hub-bench", &["cloud-hub", "face-core", "face-index", "face-runtime", "system-tests"]),
    // It calls the parsers of both programs, so it must link them.
    ("fuzz-targets", &["cloud-hub", "edge-agent", "edge-capture", "face-runtime", "gallery-log", "wire-contract"]),
    ("controls", &[]),
];

/// What a pure crate may never reach for: the outside world and its clock. An address is a value like any other.
const IMPURE: &[&str] = &[
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "tokio",
    "async fn",
];
const PURE_CRATES: &[&str] = &["crates/face-core", "crates/gallery-log", "crates/wire-contract", "cloud-hub/domain"];

/// The hub's parts that are crates, `hub-…` each, beside `host`, whose modules are named for themselves.
const HUB_PARTS: &[&str] = &["api", "domain", "embedded", "keys", "limit", "pki", "recognition", "roster", "store"];

/// Which modules of `host` each part may name; its clock, files of secrets and chains of errors are for all.
const OF_HOST: &[(&str, &[&str])] = &[
    // Only who asks others for something goes outside.
    ("api", &["metrics", "traces", "outbound"]),
    ("embedded", &[]),
    ("keys", &["metrics"]),
    ("limit", &["metrics"]),
    ("pki", &[]),
    ("recognition", &["metrics", "traces"]),
    ("roster", &[]),
    ("store", &["metrics", "traces"]),
];

/// Where the modules of the hub lie that are no crates of their own.
const HUB_FOLDERS: &[&str] = &["cloud-hub/src", "cloud-hub/host/src"];

/// Which sibling modules each module of the hub may import.
const HUB_MODULES: &[(&str, &[&str])] = &[
    // The pure rules of where requests to the outside may go are parsed with the configuration, and what counts as an intrusion.
    ("config", &["domain", "outbound"]),
    ("outbound", &[]),
    // Whatever happens anywhere may be counted; what is counted names nothing of anybody, so it needs no types of ours.
    ("metrics", &[]),
    // Whatever is a part of a request may be timed.
    ("traces", &["domain", "outbound", "metrics"]),
    ("ingest", &["domain", "store", "keys", "pki", "metrics"]),
    ("publish", &["domain", "store", "keys", "pki", "metrics"]),
    ("notify", &["domain", "store", "keys", "pki", "outbound", "metrics"]),
    ("jobs", &["domain", "store", "keys", "pki"]),
    ("audit", &["domain", "store", "keys", "metrics"]),
];

#[test]
fn crates_depend_only_along_the_arrows() {
    let members = workspace_dependencies();
    assert_eq!(members.len(), CRATES.len(), "a crate is missing from the table: {:?}", members.keys());
    assert_eq!(crate_violations(&members), Vec::<String>::new());
}

#[test]
fn a_crate_against_the_arrows_is_found() {
    let against = BTreeMap::from([("face-core".to_owned(), BTreeSet::from(["wire-contract".to_owned()]))]);
    assert_eq!(crate_violations(&against), ["face-core depends on wire-contract"]);
}

#[test]
fn pure_crates_touch_neither_files_nor_network_nor_clock() {
    for folder in PURE_CRATES {
        for file in rust_files(&repository().join(folder).join("src")) {
            let source = without_tests(&std::fs::read_to_string(&file).unwrap());
            assert_eq!(impurities(&source), Vec::<&str>::new(), "in {}", file.display());
        }
    }
}

#[test]
fn an_impure_line_is_found() {
    assert_eq!(impurities("    let now = Instant::now();"), ["Instant::now"]);
    assert_eq!(impurities("use std::net::{IpAddr, TcpStream};"), ["TcpStream"]);
    assert_eq!(impurities("use std::net::IpAddr;"), Vec::<&str>::new());
    assert_eq!(impurities("/// Never calls `std::fs`."), Vec::<&str>::new());
}

#[test]
fn hub_modules_import_only_along_the_arrows() {
    let mut violations = Vec::new();
    for (module, allowed) in HUB_MODULES {
        let files: Vec<PathBuf> =
            HUB_FOLDERS.iter().flat_map(|folder| module_files(&repository().join(folder), module)).collect();
        assert!(!files.is_empty(), "the hub has no module {module}");
        for file in files {
            let source = without_tests(&std::fs::read_to_string(&file).unwrap());
            for found in hub_imports(&source, module, allowed) {
                violations.push(format!("{} imports {found}", file.display()));
            }
        }
    }
    assert_eq!(violations, Vec::<String>::new());
}

#[test]
fn a_hub_module_against_the_arrows_is_found() {
    assert_eq!(hub_imports("use crate::ingest::Batch;", "api", &["domain", "store"]), ["ingest"]);
    assert_eq!(hub_imports("use crate::{domain::X, notify};", "api", &["domain"]), ["notify"]);
    assert_eq!(hub_imports("use crate::api::Y; use crate::domain;", "api", &["domain"]), Vec::<String>::new());
    // By the crate's own name, too.
    assert_eq!(hub_imports("use hub_api::Y; use hub_domain::X;", "jobs", &["domain"]), ["api"]);
    assert_eq!(hub_imports("use hub_host::{chain::chain, outbound};", "jobs", &["domain"]), ["outbound"]);
}

#[test]
fn hub_parts_name_of_the_machine_what_they_may() {
    let hub = repository().join("cloud-hub");
    let mut violations = Vec::new();
    for (part, allowed) in OF_HOST {
        let files = rust_files(&hub.join(part).join("src"));
        assert!(!files.is_empty(), "the hub has no part {part}");
        for file in files {
            let source = without_tests(&std::fs::read_to_string(&file).unwrap());
            for found in host_imports(&source, allowed) {
                violations.push(format!("{} names {found}", file.display()));
            }
        }
    }
    assert_eq!(violations, Vec::<String>::new());
    assert_eq!(host_imports("use hub_host::{metrics, outbound}; use crate::outbound;", &["metrics"]), ["outbound"]);
}

#[test]
fn topics_are_spelled_in_the_wire_contract_alone() {
    for folder in ["edge-agent/src", "cloud-hub", "edge-agent/store", "edge-agent/capture"] {
        for file in rust_files(&repository().join(folder)) {
            let source = without_tests(&std::fs::read_to_string(&file).unwrap());
            let spelled = source.lines().find(|line| is_code(line) && line.contains("lintel/v1"));
            assert_eq!(spelled, None, "in {}", file.display());
        }
    }
}

#[test]
fn queries_stand_in_the_store_alone() {
    let hub = repository().join("cloud-hub");
    for file in rust_files(&hub) {
        // The supervisor of the embedded Postgres makes roles and databases before there is a store.
        if file.starts_with(hub.join("store")) || file.starts_with(hub.join("embedded")) {
            continue;
        }
        let source = without_tests(&std::fs::read_to_string(&file).unwrap());
        let query = source.lines().find(|line| is_code(line) && line.contains("sqlx::query"));
        assert_eq!(query, None, "in {}", file.display());
    }
}

#[test]
fn opentelemetry_is_named_in_one_file() {
    let hub = repository().join("cloud-hub");
    let exporter = hub.join("host/src/traces/otlp.rs");
    let names = |file: &Path| {
        std::fs::read_to_string(file).unwrap().lines().any(|line| is_code(line) && line.contains("opentelemetry"))
    };
    assert!(names(&exporter));
    let others: Vec<PathBuf> = rust_files(&hub).into_iter().filter(|file| *file != exporter && names(file)).collect();
    assert_eq!(others, Vec::<PathBuf>::new());
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Our crates and which of ours each depends on, dev-dependencies left out.
fn workspace_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let linked = dependencies.iter().filter(|dependency| dependency["kind"] != "dev").map(name);
            (name(package), linked.filter(|dependency| ours.contains(dependency)).collect())
        })
        .collect()
}

fn crate_violations(members: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut violations = Vec::new();
    for (member, dependencies) in members {
        let allowed = CRATES.iter().find(|(name, _)| name == member).map_or(&[][..], |(_, allowed)| allowed);
        for dependency in dependencies.iter().filter(|dependency| !allowed.contains(&dependency.as_str())) {
            violations.push(format!("{member} depends on {dependency}"));
        }
    }
    violations
}

fn impurities(source: &str) -> Vec<&'static str> {
    let code: Vec<&str> = source.lines().filter(|line| is_code(line)).collect();
    IMPURE.iter().filter(|word| code.iter().any(|line| line.contains(**word))).copied().collect()
}

/// Modules of `host` that a part of the hub may not name. Its own modules may be called as they like.
fn host_imports(source: &str, allowed: &[&str]) -> Vec<String> {
    hub_imports(&source.replace("crate::", "own::"), "", &[allowed, HUB_PARTS].concat())
}

/// Modules and parts of the hub, named behind `crate::` or as the crates that they are, that `module` may not import.
fn hub_imports(source: &str, module: &str, allowed: &[&str]) -> Vec<String> {
    let source = HUB_PARTS.iter().fold(source.replace("hub_host::", "crate::"), |source, part| {
        source.replace(&format!("hub_{part}::"), &format!("crate::{part}::"))
    });
    let mut found = BTreeSet::new();
    for line in source.split(';').filter(|statement| statement.contains("crate::")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let group = rest.strip_prefix('{').and_then(|group| group.split_once('}'));
            let named: Vec<&str> = match group {
                Some((inside, _)) => inside.split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            found.extend(named.into_iter().map(first_segment));
        }
    }
    let modules: BTreeSet<&str> =
        HUB_MODULES.iter().map(|(name, _)| *name).chain(["wiring", "cli"]).chain(HUB_PARTS.iter().copied()).collect();
    found
        .into_iter()
        .filter(|name| modules.contains(name.as_str()) && name != module && !allowed.contains(&name.as_str()))
        .collect()
}

fn first_segment(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// The part of a file before its unit tests, which may do what the code may not.
fn without_tests(source: &str) -> String {
    let end = source.find("\n#[cfg(test)]\nmod ").unwrap_or(source.len());
    source[..end].to_owned()
}

fn module_files(source_dir: &Path, module: &str) -> Vec<PathBuf> {
    let single = source_dir.join(format!("{module}.rs"));
    let mut files = rust_files(&source_dir.join(module));
    files.extend(single.is_file().then_some(single));
    files
}

/// Rust files below a folder; files that hold nothing but tests are left out.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" && name != "benches" {
            files.extend(rust_files(&path));
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
    files.sort();
    files
}
