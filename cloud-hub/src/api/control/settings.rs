//! Settings that are changed while the hubs run: what holds, what held, and another version, which every hub takes within seconds.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use wire_contract::{Code, Problem, Timestamp};

use super::{Answer, OPERATOR, ok};
use crate::api::body::{Checks, Fields, Json};
use crate::api::problem::ApiError;
use crate::api::state::Api;
use crate::domain::settings::{Changes, NAMES, Wrong, laid_over};
use crate::store::settings::{self, Version};

/// Versions in one answer.
const MOST: u32 = 200;
/// Characters of a comment.
const MAX_COMMENT: usize = 200;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/settings", get(show).post(change))
        .route("/settings/history", get(history))
        .route("/settings/{version}/restore", post(restore))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    changes: Changes,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

impl Fields for Wanted {
    const KNOWN: &'static [&'static str] = &["changes", "comment", "dry_run"];
    const REQUIRED: &'static [&'static str] = &["changes"];
}

#[derive(Debug, Deserialize)]
struct Restored {
    #[serde(default)]
    comment: Option<String>,
}

impl Fields for Restored {
    const KNOWN: &'static [&'static str] = &["comment"];
    const REQUIRED: &'static [&'static str] = &[];
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HowMany {
    #[serde(default)]
    limit: Option<u32>,
}

async fn show(State(api): State<Arc<Api>>) -> Answer {
    take(&api, settings::newest(&api.db).await?);
    let (version, changes) = api.in_force.version();
    told(&api, version, &changes)
}

/// Each setting with its value, and where it is from.
fn told(api: &Api, version: i32, changes: &Changes) -> Answer {
    let live = api.in_force.file().with(changes).map_err(|wrong| refused(&wrong))?;
    let file = api.in_force.file().values();
    let rows: Vec<Value> = live
        .values()
        .into_iter()
        .zip(file)
        .map(|((name, value), (_, of_file))| {
            let from = if changes.contains_key(name) { "version" } else { "file" };
            json!({ "name": name, "value": value, "from": from, "file": of_file })
        })
        .collect();
    ok(json!({ "version": version, "settings": rows }))
}

async fn history(State(api): State<Arc<Api>>, Query(query): Query<HowMany>) -> Answer {
    let limit = query.limit.unwrap_or(50).clamp(1, MOST);
    let view = |version: Version| {
        json!({
            "version": version.version,
            "changes": version.changes,
            "actor": version.actor,
            "comment": version.comment,
            "created_at": Timestamp::from(version.created_at),
        })
    };
    let versions: Vec<Value> = settings::history(&api.db, limit).await?.into_iter().map(view).collect();
    ok(json!({ "versions": versions }))
}

async fn change(State(api): State<Arc<Api>>, Json(wanted): Json<Wanted>) -> Answer {
    let newest = settings::newest(&api.db).await?;
    let (version, before) = newest.map_or_else(|| (0, Changes::new()), |newest| (newest.version, newest.changes));
    // Whatever is taken back must have a name that is known too, or one that a newer program has set.
    let known = |name: &str, value: &Value| NAMES.contains(&name) || (value.is_null() && before.contains_key(name));
    let unknown = wanted.changes.iter().filter(|(name, value)| !known(name, value));
    let unknown: Changes = unknown.map(|(name, _)| (name.clone(), Value::Null)).collect();
    api.in_force.file().with(&unknown).map_err(|wrong| refused(&wrong))?;
    let changes = laid_over(before, wanted.changes);
    if wanted.dry_run {
        return told(&api, version + 1, &changes);
    }
    add(&api, version + 1, changes, wanted.comment).await
}

async fn restore(State(api): State<Arc<Api>>, Path(wanted): Path<i32>, Json(restored): Json<Restored>) -> Answer {
    let newest = settings::newest(&api.db).await?.map_or(0, |newest| newest.version);
    let changes = match wanted {
        0 => Changes::new(),
        wanted => match settings::get(&api.db, wanted).await? {
            Some(version) => version.changes,
            None => {
                let detail = format!("there is no version {wanted}; `cloud-hub config history` has them");
                return Err(ApiError::because(Code::NotFound, detail));
            }
        },
    };
    let comment = restored.comment.or_else(|| Some(format!("as in version {wanted}")));
    add(&api, newest + 1, changes, comment).await
}

/// Adds a version that can be taken, and takes it.
async fn add(api: &Api, version: i32, changes: Changes, comment: Option<String>) -> Answer {
    api.in_force.file().with(&changes).map_err(|wrong| refused(&wrong))?;
    let comment = comment.unwrap_or_default();
    if !comment.is_empty() {
        Checks::default().text("/comment", &comment, MAX_COMMENT).done()?;
    }
    let (actor, created_at) = (String::from(OPERATOR), api.clock.now());
    let new = Version { version, changes, actor, comment, created_at };
    if !settings::add(&api.db, &new).await? {
        let detail = "somebody else has changed the settings meanwhile: look at them and do it again";
        return Err(ApiError::because(Code::Conflict, detail));
    }
    tracing::info!(event = "settings_changed", version, actor = OPERATOR, "another version of the settings was made");
    let changes = new.changes.clone();
    take(api, Some(new));
    told(api, version, &changes)
}

/// This hub need not wait until it looks; one that cannot be taken is left to whoever follows them, who tells of it.
fn take(api: &Api, version: Option<Version>) {
    if let Some(version) = version
        && api.in_force.file().with(&version.changes).is_ok()
    {
        let _taken = api.in_force.take(version.version, &version.changes);
    }
}

fn refused(wrong: &[Wrong]) -> ApiError {
    let problem = Problem::of(Code::InvalidField);
    let told = wrong.iter().map(|wrong| format!("{} {}", wrong.name, wrong.reason)).collect::<Vec<_>>().join("; ");
    wrong
        .iter()
        .fold(problem.detail(told), |problem, wrong| {
            problem.field(format!("/changes/{}", wrong.name), Code::InvalidField, wrong.reason.clone())
        })
        .into()
}
