//! `edge-agent doctor`: examines everything that a door needs and says what to do about what is wrong.
//!
//! In: the configuration, or the reason why there is none. Out: one line a finding. Changes nothing; cameras and stores of
//! a running agent are left alone. Exit codes: 0 when nothing is wrong, 1 when something is, 4 for the configuration.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_store::{DeviceKeys, Identity};
use face_core::FrameSource;
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Args, Exit, Output, load, output};
use crate::clock::{Clock, ClockQuality, SystemClock, rfc3339_ms};
use crate::config::Config;
use crate::control::{Ask, ControlError, ask};
use crate::logging::chain;
use crate::{models, wiring};

/// Below this the outbox begins to shed what is not an access event.
const LOW_SPACE_BYTES: u64 = 256 << 20;
/// A certificate renews itself in the sixth tenth of its 90 days; one that ends sooner has failed to for a week at least.
const RENEWAL_OVERDUE_S: i64 = 30 * 86_400;
/// How long after its end the hub still renews a certificate.
const RENEWABLE_AFTER_END_S: i64 = 30 * 86_400;
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const CAMERA_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Mind,
    Bad,
}

struct Finding {
    subject: String,
    verdict: Verdict,
    found: String,
    advice: Option<String>,
}

impl Finding {
    fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Good, found: found.into(), advice: None }
    }

    fn mind(subject: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Mind, found: found.into(), advice: Some(advice.into()) }
    }

    fn bad(subject: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Bad, found: found.into(), advice: Some(advice.into()) }
    }
}

pub(super) fn doctor(args: &Args) -> Exit {
    let loaded = match load(args) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let finding = Finding::bad(
                "configuration",
                errors.to_string(),
                "correct it; `edge-agent config check` reads it again",
            );
            print(&[finding], args.output);
            return Exit::Configuration;
        }
    };
    let findings = examine(&loaded.config);
    print(&findings, args.output);
    if findings.iter().any(|finding| finding.verdict == Verdict::Bad) { Exit::Failure } else { Exit::Success }
}

fn examine(config: &Config) -> Vec<Finding> {
    let (cameras, doors) = (config.cameras.len(), config.doors.len());
    let mut findings = vec![if doors == 0 {
        Finding::mind("configuration", "no [[door]]", "add at least one [[camera]] and one [[door]]")
    } else {
        Finding::good("configuration", format!("{cameras} camera(s), {doors} door(s)"))
    }];
    let running = running(config);
    let is_running = running.verdict == Verdict::Good;
    findings.push(running);
    findings.push(state_dir(&config.agent.state_dir));
    findings.push(models(config));
    findings.extend(config.cameras.iter().map(|camera| {
        if is_running {
            Finding::good(format!("camera {}", camera.id), "in use by the running agent; see `edge-agent status`")
        } else {
            one_camera(camera)
        }
    }));
    for warning in config.warnings() {
        findings.push(Finding::mind("configuration", "usable", warning));
    }
    findings.extend(identity(config));
    findings.push(clock(config));
    findings
}

fn running(config: &Config) -> Finding {
    let subject = "agent";
    match ask(&config.agent.runtime_dir, Ask::Status) {
        Ok(status) if status["lease_over"] == true => Finding::bad(
            subject,
            "running, without its galleries: the hub was not heard of for longer than [sync] gallery_lease",
            "bring it to its hub again; the doors deny until it has been there",
        ),
        Ok(status) => match status["lease_until"].as_str() {
            Some(until) => {
                Finding::good(subject, format!("running; galleries may be used until {until} without the hub"))
            }
            None => Finding::good(subject, "running"),
        },
        Err(error @ ControlError::NotRunning { .. }) => Finding::mind(subject, "not running", chain(&error)),
        Err(error) => Finding::bad(subject, chain(&error), "restart it; its log says more"),
    }
}

fn state_dir(dir: &Path) -> Finding {
    let subject = "state folder";
    let name = dir.display();
    let Ok(meta) = std::fs::metadata(dir) else {
        let advice = format!("the agent makes it at its first start, if {name} can be made by its user");
        return Finding::mind(subject, format!("{name} does not exist"), advice);
    };
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Finding::bad(
            subject,
            format!("{name} has mode {mode:04o}: others can read it"),
            format!("chmod 700 {name}"),
        );
    }
    let Ok(space) = rustix::fs::statvfs(dir) else {
        return Finding::bad(
            subject,
            format!("{name} cannot be examined"),
            "run doctor as the agent's user or as root",
        );
    };
    let free = space.f_bavail * space.f_frsize;
    let megabytes = free >> 20;
    if rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_err() {
        return Finding::bad(
            subject,
            format!("{name} cannot be written"),
            "run doctor as the agent's user, or give the folder to it",
        );
    }
    if free < LOW_SPACE_BYTES {
        return Finding::bad(
            subject,
            format!("{name} has {megabytes} MB left"),
            "free some space: without it events cannot be recorded",
        );
    }
    Finding::good(subject, format!("{name}, mode {mode:04o}, {megabytes} MB free"))
}

fn models(config: &Config) -> Finding {
    match models::open(&config.models) {
        Ok(pack) => {
            let mut providers: Vec<String> =
                pack.providers().iter().map(|(_, report)| report.used.to_string()).collect();
            providers.sort();
            providers.dedup();
            let found = format!(
                "{}, space {}, on {}",
                models::pack_name(&pack),
                pack.manifest().space_id,
                providers.join(", ")
            );
            Finding::good("models", found)
        }
        Err(error) => {
            Finding::bad("models", chain(&error), "run scripts/setup, or correct [models] in the configuration")
        }
    }
}

fn one_camera(camera: &edge_capture::CameraConfig) -> Finding {
    let subject = format!("camera {}", camera.id);
    let clock = SystemClock::default();
    let mut handle = match edge_capture::open(camera.clone(), Arc::new(move || clock.now())) {
        Ok(handle) => handle,
        Err(error) => return Finding::bad(subject, chain(&error), devices_advice()),
    };
    match handle.next_frame(CAMERA_LIMIT) {
        Ok(frame) => {
            let (width, height) = (frame.image.width(), frame.image.height());
            Finding::good(subject, format!("gives pictures of {width}x{height} ({})", camera.source))
        }
        Err(_) => {
            let found = match handle.monitor().state() {
                edge_capture::CameraState::Failed { reason, .. } => reason.to_string(),
                _ => format!("no picture within {} s from {}", CAMERA_LIMIT.as_secs(), camera.source),
            };
            Finding::bad(subject, found, devices_advice())
        }
    }
}

fn devices_advice() -> String {
    let devices = edge_capture::video_devices();
    let there: Vec<String> =
        devices.iter().map(|device| format!("{} ({})", device.path.display(), device.card)).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    format!(
        "check cable, address and password, and that GStreamer's good, bad and libav plugins are installed; local cameras: {there}"
    )
}

fn identity(config: &Config) -> Vec<Finding> {
    let subject = "identity";
    let identity = match Identity::load(&config.agent.state_dir) {
        Ok(Some(identity)) => identity,
        Ok(None) => {
            let advice = "make a claim token at the hub, then `edge-agent claim --token-file FILE`";
            return vec![Finding::mind(subject, "this device has none: doors stay shut", advice)];
        }
        Err(error) => return vec![Finding::bad(subject, chain(&error), "claim the device again")],
    };
    let mut findings = vec![certificate(&identity, agents_clock(config).wall().utc.unix_timestamp())];
    findings.push(match DeviceKeys::open(&config.agent.keys_dir(), wiring::credentials_dir().as_deref()) {
        Ok(keys) => Finding::good("device store key", keys.source().to_string()),
        Err(error) => Finding::bad("device store key", chain(&error), "claim the device again if the key is gone"),
    });
    findings.push(reachable("broker", &identity.broker.host, identity.broker.port));
    if let Ok(url) = url::Url::parse(&identity.hub_url)
        && let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
    {
        findings.push(reachable("hub", host, port));
    }
    findings
}

fn certificate(identity: &Identity, now: i64) -> Finding {
    let subject = "certificate";
    let chain = identity.chain();
    let Some((_, leaf)) = chain.first().and_then(|der| X509Certificate::from_der(der).ok()) else {
        return Finding::bad(subject, "cannot be read", "claim the device again");
    };
    let (from, until) = (leaf.validity().not_before, leaf.validity().not_after);
    let found = format!("device {}, valid {from} to {until}", identity.device);
    if now < from.timestamp() {
        return Finding::bad(subject, found, "it is not valid yet: set the clock");
    }
    if now >= until.timestamp() + RENEWABLE_AFTER_END_S {
        return Finding::bad(subject, found, "it ended more than 30 days ago: claim the device again");
    }
    if now >= until.timestamp() {
        return Finding::bad(
            subject,
            found,
            "it is over: the agent renews it once it reaches the hub; check the clock and the network",
        );
    }
    if until.timestamp() - now < RENEWAL_OVERDUE_S {
        return Finding::mind(
            subject,
            found,
            "its renewal is overdue: is the agent running, and does it reach the hub? `edge-agent status` says why not",
        );
    }
    Finding::good(subject, found)
}

fn reachable(subject: &str, host: &str, port: u16) -> Finding {
    let address = format!("{host}:{port}");
    let resolved = (host.trim_matches(['[', ']']), port).to_socket_addrs().ok().and_then(|mut all| all.next());
    let advice = "the door works without it, events wait; check network, name server and firewall";
    let Some(target) = resolved else {
        return Finding::mind(subject, format!("{address}: the name cannot be resolved"), advice);
    };
    match TcpStream::connect_timeout(&target, CONNECT_LIMIT) {
        Ok(_) => Finding::good(subject, format!("{address} answers")),
        Err(error) => Finding::mind(subject, format!("{address}: {error}"), advice),
    }
}

/// What the agent would believe of the clock if it started now.
fn agents_clock(config: &Config) -> SystemClock {
    let (state_dir, credentials) = (&config.agent.state_dir, wiring::credentials_dir());
    let identity = Identity::load(state_dir).ok().flatten();
    let known = identity.and_then(|identity| {
        let keys = DeviceKeys::open(&config.agent.keys_dir(), credentials.as_deref()).ok()?;
        Some(wiring::open_clock(config, &keys, Some(&identity)).ok()?.0)
    });
    known.unwrap_or_else(|| SystemClock::resumed(config.clock, 0, None))
}

fn clock(config: &Config) -> Finding {
    let clock = agents_clock(config);
    let (wall, shown, past) = (clock.wall(), SystemClock::utc(), clock.known_past());
    let now = rfc3339_ms(wall.utc);
    match wall.quality {
        ClockQuality::Synchronised => Finding::good("clock", format!("{now}, synchronised")),
        ClockQuality::Holdover => {
            let found = format!("{now}, not synchronised; the agent carries on what it was told in this boot");
            Finding::mind("clock", found, "start a time service such as systemd-timesyncd")
        }
        ClockQuality::Untrusted if shown < past => {
            let advice =
                "set it: people with a limited validity are denied until it is right or the hub has told the time";
            let found = format!("{} cannot be right: it is {} at least", rfc3339_ms(shown), rfc3339_ms(past));
            Finding::bad("clock", found, advice)
        }
        ClockQuality::Untrusted => {
            let advice = "people with a limited validity are denied until the hub has told the time; a time service such as systemd-timesyncd does without the hub";
            Finding::mind("clock", format!("{now}, and nothing has vouched for it since the boot"), advice)
        }
    }
}

fn print(findings: &[Finding], form: Output) {
    if form == Output::Json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                let verdict = match finding.verdict {
                    Verdict::Good => "ok",
                    Verdict::Mind => "warning",
                    Verdict::Bad => "error",
                };
                json!({"check": finding.subject, "state": verdict, "found": finding.found, "advice": finding.advice})
            })
            .collect();
        let ok = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
        output::object(&json!({"ok": ok, "findings": rows}), form);
        return;
    }
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => output::coloured("ok     ", 32),
            Verdict::Mind => output::coloured("warning", 33),
            Verdict::Bad => output::coloured("error  ", 31),
        };
        let advice = finding.advice.as_ref().map(|advice| format!("\n         -> {advice}")).unwrap_or_default();
        output::text(&format!("{mark}  {}: {}{advice}\n", finding.subject, finding.found));
    }
}
