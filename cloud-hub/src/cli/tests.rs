//! What arguments become.

use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use serde_json::json;
use uuid::Uuid;

use super::client::Sent;
use super::{Cli, Task};

fn task(arguments: &[&str]) -> Task {
    Cli::try_parse_from(arguments).unwrap().task([]).unwrap()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn flags_win_over_settings() {
    let Task::Serve(config) = task(&[
        "cloud-hub",
        "serve",
        "--embedded",
        "--data-dir",
        "/x",
        "--listen",
        "127.0.0.1:0",
        "--mqtt-listen",
        "127.0.0.1:1",
    ]) else {
        panic!("serve")
    };
    assert!(config.embedded.enabled);
    assert_eq!(config.data.dir, Path::new("/x"));
    assert_eq!(config.server.listen.port(), 0);
    assert_eq!(config.embedded.mqtt_listen.port(), 1);
}

#[test]
fn the_control_socket_is_found_from_the_data_directory() {
    let Task::Ask(question) = task(&["cloud-hub", "--data-dir", "/x", "tenants", "create", "Acme", "-o", "json"])
    else {
        panic!("a question")
    };
    assert_eq!(question.socket, Path::new("/x/run/control.sock"));
    assert_eq!((question.method, question.path.as_str()), ("POST", "/tenants"));
    assert_eq!(question.sent, Sent::Json(json!({ "name": "Acme", "tier": "enterprise" })));
}

#[test]
fn negative_anchors_are_asked_for_by_person() {
    let (tenant, person) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let ids = ["--tenant".to_owned(), tenant.to_string(), "--person".to_owned(), person.to_string()];
    let asked = |rest: &[&str]| {
        let start = ["cloud-hub", "negative-anchors", rest[0]];
        let all = start.into_iter().chain(ids.iter().map(String::as_str)).chain(rest[1..].iter().copied());
        let Task::Ask(question) = task(&all.collect::<Vec<_>>()) else { panic!("a question") };
        (question.method, question.path, question.sent)
    };
    let base = format!("/tenants/{tenant}/people/{person}/negative-anchors");
    let picture = Sent::File(PathBuf::from("a.jpg"));
    assert_eq!(asked(&["add", "a.jpg", "--confirm"]), ("POST", format!("{base}?confirm=true"), picture));
    assert_eq!(asked(&["list"]), ("GET", base.clone(), Sent::Nothing));
    let anchor = Uuid::from_u128(3).to_string();
    assert_eq!(asked(&["remove", &anchor]), ("DELETE", format!("{base}/{anchor}"), Sent::Nothing));
}

#[test]
fn a_command_says_only_what_its_kind_takes() {
    let (tenant, door) = (Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string());
    let send = |words: &[&str]| {
        let arguments = ["cloud-hub", "--data-dir", "/x", "commands", "send"].iter().chain(words).copied();
        let Task::Ask(question) = task(&arguments.collect::<Vec<_>>()) else { panic!("a question") };
        {
            let Sent::Json(body) = question.sent else { panic!("JSON") };
            (question.path, body)
        }
    };
    let (path, body) = send(&["unlock", "--tenant", &tenant, "--door", &door, "--wait"]);
    assert_eq!((path, body), (format!("/tenants/{tenant}/doors/{door}/commands"), json!({ "kind": "unlock" })));
    let (_, body) = send(&["lockdown", "--tenant", &tenant, "--door", &door, "--off"]);
    assert_eq!(body, json!({ "kind": "lockdown", "on": false }));
    let (path, body) = send(&["log-level", "debug", "--tenant", &tenant, "--device", &door, "--for-s", "60"]);
    assert!(path.ends_with(&format!("/devices/{door}/commands")));
    assert_eq!(body, json!({ "kind": "log_level", "level": "debug", "for_s": 60 }));
    assert!(Cli::try_parse_from(["cloud-hub", "commands", "send", "lockdown", "--tenant", &tenant]).is_err());
}

#[tokio::test]
async fn a_hub_that_does_not_run_is_exit_code_3() {
    let Task::Ask(question) = task(&["cloud-hub", "--data-dir", "/nonexistent", "tenants", "list"]) else {
        panic!("a question")
    };
    let error = question.ask().await.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("/nonexistent/run/control.sock"), "{error}");
}
