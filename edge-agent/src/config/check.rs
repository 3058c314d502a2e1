//! What the sections must agree on: ids are unique, and what one names exists in the other.
//!
//! In: a [`Config`] in final types. Out: the list of problems, empty when there are none. Touches the disk only to see
//! that the file of a file camera is there.

use std::collections::HashSet;
use std::time::Duration;

use edge_capture::Source;

use super::values::check_id;
use super::{Config, ConfigError};
use crate::stages::decide::LivenessRule;

/// Everything that does not fit together.
pub(super) fn problems(config: &Config) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    ids("camera", config.cameras.iter().map(|camera| camera.id.as_str()), &mut problems);
    ids("door", config.doors.iter().map(|door| door.id.as_str()), &mut problems);
    ids("policy", config.policies.iter().map(|policy| policy.id.as_str()), &mut problems);
    for camera in &config.cameras {
        if let Source::File { path, .. } = &camera.source
            && let Err(error) = std::fs::metadata(path)
        {
            let message = format!("file {}: {error}; put a clip there or correct `path`", path.display());
            problems.push(inconsistent(&format!("camera {}", camera.id), message));
        }
    }
    for door in &config.doors {
        let subject = format!("door {}", door.id);
        if !config.cameras.iter().any(|camera| camera.id == door.camera) {
            let known = names(config.cameras.iter().map(|camera| camera.id.as_str()));
            problems.push(inconsistent(&subject, format!("camera {:?} does not exist; there is {known}", door.camera)));
        }
        if config.policy(&door.policy).is_none() {
            let known = names(config.policies.iter().map(|policy| policy.id.as_str()));
            problems.push(inconsistent(&subject, format!("policy {:?} does not exist; there is {known}", door.policy)));
        }
    }
    problems.extend(ranges(config));
    problems
}

/// The shortest lease that a network's ordinary outages do not end.
const SHORT_LEASE: Duration = Duration::from_secs(3600);

/// What is allowed, and what whoever wrote it should know of it.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    match config.sync.lease() {
        None => warnings.push(
            "sync.gallery_lease is 0: a device that is stolen, or cut off from its hub, lets the people of its last gallery in \
             for ever; write \"30d\" unless that is meant"
                .to_owned(),
        ),
        Some(lease) if lease < SHORT_LEASE => warnings.push(format!(
            "sync.gallery_lease is {lease:?}: a shorter outage of the network than an hour closes every door; write \"30d\" unless that is meant"
        )),
        Some(_) => {}
    }
    warnings
}

/// The longest freshness budget: that of the best shot, which is what a frame is fresh for.
const MAX_FRESHNESS: Duration = Duration::from_secs(3);
/// The longest that one grant may hold a door open; a door that stands open for longer is not one for face recognition.
const MAX_HOLD: Duration = Duration::from_secs(600);

/// Numbers that are of the right kind but can only be a mistake.
fn ranges(config: &Config) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    for door in config.doors.iter().filter(|door| door.hold.is_zero() || door.hold > MAX_HOLD) {
        let message = format!("hold = {:?} must be above 0 and at most {}s", door.hold, MAX_HOLD.as_secs());
        problems.push(inconsistent(&format!("door {}", door.id), message));
    }
    for policy in config.policies.iter().filter(|policy| policy.freshness.is_zero() || policy.freshness > MAX_FRESHNESS)
    {
        let found = policy.freshness;
        let message = format!("freshness = {found:?} must be above 0 and at most {}s", MAX_FRESHNESS.as_secs());
        problems.push(inconsistent(&format!("policy {}", policy.id), message));
    }
    for policy in &config.policies {
        if policy.liveness == LivenessRule::Off && !policy.liveness_requires.is_empty() {
            let message = "liveness is off, and liveness_requires asks for more: choose a level, or empty the list";
            problems.push(inconsistent(&format!("policy {}", policy.id), message.to_owned()));
        }
        if policy.liveness == LivenessRule::Off && policy.challenge_uncertain {
            let message = "liveness is off, and challenge_uncertain asks by it: choose a level, or set it to false";
            problems.push(inconsistent(&format!("policy {}", policy.id), message.to_owned()));
        }
    }
    if config.models.sessions == 0 || config.models.intra_threads == 0 {
        problems.push(inconsistent("models", "sessions and intra_threads must be at least 1".to_owned()));
    }
    if config.models.providers.is_empty() {
        problems.push(inconsistent("models", "providers is empty; \"cpu\" is always there".to_owned()));
    }
    problems
}

fn inconsistent(subject: &str, message: String) -> ConfigError {
    ConfigError::Inconsistent { subject: subject.to_owned(), message }
}

fn names<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let ids: Vec<_> = ids.collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

fn ids<'a>(kind: &str, ids: impl Iterator<Item = &'a str>, problems: &mut Vec<ConfigError>) {
    let mut seen = HashSet::new();
    for id in ids {
        let subject = format!("{kind} {id}");
        if let Err(error) = check_id(id) {
            problems.push(inconsistent(&subject, error.to_string()));
        }
        if !seen.insert(id) {
            problems.push(inconsistent(&subject, "this id is used twice; give each its own".to_owned()));
        }
    }
}
