//! Starting, stopping, being killed, and bad beginnings.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::process::{Hub, children_of, command, empty_data_dir, output, serve, signal, skipped};

/// Waits until nothing runs on the directory; fails after `within`.
fn nothing_left(dir: &std::path::Path, within: Duration) {
    let until = Instant::now() + within;
    loop {
        let left = children_of(dir);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "still running: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_hub_stops_cleanly_starts_again_fast_and_dies_without_orphans() {
    if skipped("a_hub_stops_cleanly_starts_again_fast_and_dies_without_orphans") {
        return;
    }
    let dir = empty_data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    let site = hub.site(&tenant).await;
    assert!(children_of(dir.path()).len() >= 2, "postgres and mosquitto run");

    let stopping = Instant::now();
    assert!(hub.stop().success());
    assert!(stopping.elapsed() < Duration::from_secs(5), "the stop took {:?}", stopping.elapsed());
    assert_eq!(children_of(dir.path()), Vec::<String>::new());

    let starting = Instant::now();
    let mut hub = Hub::start(dir.path());
    assert!(starting.elapsed() < Duration::from_secs(5), "the second start took {:?}", starting.elapsed());
    assert_eq!(hub.get(&tenant, &format!("/v1/sites/{site}")).await["name"], "HQ");

    signal(&hub.child, Signal::KILL);
    hub.child.wait().unwrap();
    nothing_left(dir.path(), Duration::from_secs(5));

    let starting = Instant::now();
    let hub = Hub::start(dir.path());
    assert!(starting.elapsed() < Duration::from_secs(5), "the start after a kill took {:?}", starting.elapsed());
    assert_eq!(hub.get(&tenant, &format!("/v1/sites/{site}")).await["name"], "HQ");
}

#[tokio::test]
async fn a_start_right_after_a_kill_finds_the_leftovers() {
    if skipped("a_start_right_after_a_kill_finds_the_leftovers") {
        return;
    }
    let dir = empty_data_dir();
    let mut hub = Hub::start(dir.path());
    let mqtt = hub.ready["mqtt"].as_str().unwrap().to_owned();
    signal(&hub.child, Signal::KILL);
    hub.child.wait().unwrap();
    // At once, and on the same port: whatever the first life left is stopped first.
    let mut command = command(dir.path());
    command.args(["serve", "--embedded", "--listen", "127.0.0.1:0", "--mqtt-listen", &mqtt]);
    let again = Hub::from_command(command, dir.path());
    assert_eq!(again.ready["mqtt"], json!(mqtt));
}

#[tokio::test]
async fn a_second_hub_on_the_same_directory_is_refused() {
    if skipped("a_second_hub_on_the_same_directory_is_refused") {
        return;
    }
    let dir = empty_data_dir();
    let hub = Hub::start(dir.path());
    let second = output(serve(dir.path()));
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(message.contains(&format!("process {}", hub.child.id())), "{message}");
    assert!(hub.client().get(format!("{}/health/ready", hub.https())).send().await.unwrap().status().is_success());
}

#[test]
fn a_busy_port_is_named_with_its_owner() {
    if skipped("a_busy_port_is_named_with_its_owner") {
        return;
    }
    let dir = empty_data_dir();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--mqtt-listen"), ("--mqtt-listen", "--listen")] {
        let mut command = command(dir.path());
        command.args(["serve", "--embedded", flag, &address, other, "127.0.0.1:0"]);
        let begun = Instant::now();
        let output = output(command);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        for part in [&address, flag, &format!("process {}", std::process::id())] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "told before anything starts");
    }
}

#[test]
fn the_embedded_hub_refuses_the_network() {
    let dir = empty_data_dir();
    let mut command = command(dir.path());
    command.args(["serve", "--embedded", "--listen", "0.0.0.0:0"]);
    let output = output(command);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("loopback"), "{message}");
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_exit_code_4() {
    let dir = empty_data_dir();
    let file = dir.path().join("hub.toml");
    std::fs::write(&file, "[server]\nlisten = \"127.0.0.1:0\"\nlisstén = 1\n").unwrap();
    for arguments in [["config", "check"].as_slice(), &["serve", "--embedded"]] {
        let mut command = command(dir.path());
        command.arg("--config").arg(&file).args(arguments);
        let output = output(command);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{message}");
        assert!(message.contains("line 3") && message.contains("hub.toml"), "{message}");
    }
}

#[test]
fn missing_parts_are_named_with_what_to_do() {
    let (dir, empty) = (empty_data_dir(), tempfile::tempdir().unwrap());
    let mut command = serve(dir.path());
    command.env("LINTEL_PARTS", empty.path());
    let output = output(command);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("Postgres") && message.contains("scripts/setup"), "{message}");
}

#[test]
fn a_data_directory_that_the_service_user_cannot_reach_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    if skipped("a_data_directory_that_the_service_user_cannot_reach_is_refused") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "SKIPPED a_data_directory_that_the_service_user_cannot_reach_is_refused: only a hub that is root has a service user"
        );
        return;
    }
    let dir = empty_data_dir();
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let output = output(serve(&closed.join("data")));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("`lintel` may not pass through") && message.contains("/closed"), "{message}");
}

#[test]
fn a_command_without_a_hub_is_exit_code_3() {
    let dir = empty_data_dir();
    let mut command = command(dir.path());
    command.args(["devices", "list", "--tenant", "0192f0c1-0000-7000-8000-000000000000"]);
    let output = output(command);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not running"));
}

#[tokio::test]
async fn secrets_are_private_and_not_in_the_log() {
    use std::os::unix::fs::PermissionsExt as _;
    if skipped("secrets_are_private_and_not_in_the_log") {
        return;
    }
    let dir = empty_data_dir();
    let hub = Hub::start(dir.path());
    let tenant = hub.tenant("Acme");
    hub.person(&tenant, "E-4711").await;
    let mut secrets = vec![tenant.authorization.rsplit(':').next().unwrap().to_owned(), String::from("E-4711")];
    for folder in ["secrets", "keys"] {
        for entry in std::fs::read_dir(dir.path().join(folder)).unwrap().flatten() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
            if folder == "secrets" {
                secrets.push(std::fs::read_to_string(entry.path()).unwrap_or_default().trim().to_owned());
            }
        }
    }
    let socket = std::fs::metadata(dir.path().join("run/control.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert!(hub.stop().success());
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap();
    assert!(log.contains("hub_ready"), "the log is the hub's");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
    }
}
