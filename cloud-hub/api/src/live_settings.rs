//! Settings that are changed while the hubs run: what holds, what held, and another version, which every hub takes within seconds. One
//! implementation for both doors to it, the control socket (`control::settings`) and the network (`admin::settings`).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, Schema};
use wire_contract::{Code, Problem, Timestamp};

use super::body::{Checks, Fields};
use super::openapi::{texts, wire, words};
use super::problem::ApiError;
use super::state::Api;
use hub_domain::settings::{Changes, NAMES, Range, Wrong, laid_over};
use hub_store::settings::{self, Version};

/// Characters of a comment.
pub(super) const MAX_COMMENT: usize = 200;

/// What is to hold otherwise.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HubSettingsChange)]
pub(super) struct Wanted {
    /// Settings by name; `null` gives one back to each hub's file. What is not named stays as it is.
    #[schema(schema_with = changes_schema)]
    changes: Changes,
    /// Why.
    #[serde(default)]
    #[schema(value_type = Option<texts::Comment>)]
    comment: Option<String>,
    /// Whether only to say what would hold.
    #[serde(default)]
    dry_run: Option<bool>,
}

impl Fields for Wanted {
    const KNOWN: &'static [&'static str] = &["changes", "comment", "dry_run"];
    const REQUIRED: &'static [&'static str] = &["changes"];
}

/// Each setting with what it may be.
fn changes_schema() -> ObjectBuilder {
    let of = |kind: Type| ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]));
    let closed = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    NAMES.iter().fold(closed, |object, name| match Range::of(name) {
        Some(Range::Whole(least, most)) => {
            object.property(*name, of(Type::Integer).minimum(Some(least)).maximum(Some(most)))
        }
        Some(Range::UpTo(most)) => object.property(*name, of(Type::Number).minimum(Some(0)).maximum(Some(most))),
        None => object,
    })
}

/// What holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HubSettings)]
pub(super) struct SettingsView {
    /// The version that was made last; 0 if there was none.
    version: i32,
    settings: Vec<SettingView>,
}

/// A setting with its value, and where that is from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HubSetting)]
struct SettingView {
    name: &'static str,
    #[schema(value_type = f64)]
    value: Value,
    #[schema(value_type = words::SettingSource)]
    from: &'static str,
    /// What the file of the hub that answers says.
    #[schema(value_type = f64)]
    file: Value,
}

/// A version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HubSettingsVersion)]
pub(super) struct VersionView {
    pub(super) version: i32,
    /// All that lay over the files, by the name of the setting.
    #[schema(value_type = Object)]
    changes: Changes,
    /// Who made it: `operator` on the machine, or `platform:` and the id of a key.
    actor: String,
    comment: String,
    #[schema(value_type = wire::Timestamp)]
    created_at: Timestamp,
}

impl From<Version> for VersionView {
    fn from(version: Version) -> Self {
        let Version { version, changes, actor, comment, created_at } = version;
        Self { version, changes, actor, comment, created_at: created_at.into() }
    }
}

/// What holds now.
pub(super) async fn show(api: &Api) -> Result<SettingsView, ApiError> {
    take(api, settings::newest(&api.db).await?);
    let (version, changes) = api.in_force.version();
    told(api, version, &changes)
}

fn told(api: &Api, version: i32, changes: &Changes) -> Result<SettingsView, ApiError> {
    let live = api.in_force.file().with(changes).map_err(|wrong| refused(&wrong))?;
    let settings = live.values().into_iter().zip(api.in_force.file().values());
    let settings = settings.map(|((name, value), (_, file))| {
        let from = if changes.contains_key(name) { "version" } else { "file" };
        SettingView { name, value, from, file }
    });
    Ok(SettingsView { version, settings: settings.collect() })
}

/// The newest versions before this one, or of all, newest first.
pub(super) async fn history(api: &Api, before: Option<i32>, at_most: u32) -> Result<Vec<VersionView>, ApiError> {
    Ok(settings::history(&api.db, before, at_most).await?.into_iter().map(VersionView::from).collect())
}

/// Makes a version with these changes laid over what holds, or says what would hold.
pub(super) async fn change(api: &Api, wanted: Wanted, actor: &str) -> Result<SettingsView, ApiError> {
    let newest = settings::newest(&api.db).await?;
    let (version, before) = newest.map_or_else(|| (0, Changes::new()), |newest| (newest.version, newest.changes));
    // Whatever is taken back must have a name that is known too, or one that a newer program has set.
    let known = |name: &str, value: &Value| NAMES.contains(&name) || (value.is_null() && before.contains_key(name));
    let unknown = wanted.changes.iter().filter(|(name, value)| !known(name, value));
    let unknown: Changes = unknown.map(|(name, _)| (name.clone(), Value::Null)).collect();
    api.in_force.file().with(&unknown).map_err(|wrong| refused(&wrong))?;
    let comment = checked(wanted.comment)?;
    let changes = laid_over(before, wanted.changes);
    if wanted.dry_run.unwrap_or_default() {
        return told(api, version + 1, &changes);
    }
    add(api, version + 1, changes, comment, actor).await
}

/// Makes a version of what held in another one; 0 is the file alone.
pub(super) async fn restore(
    api: &Api,
    wanted: i32,
    comment: Option<String>,
    actor: &str,
) -> Result<SettingsView, ApiError> {
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
    let comment = checked(comment.or_else(|| Some(format!("as in version {wanted}"))))?;
    add(api, newest + 1, changes, comment, actor).await
}

fn checked(comment: Option<String>) -> Result<String, ApiError> {
    let comment = comment.unwrap_or_default();
    if !comment.is_empty() {
        Checks::default().text("/comment", &comment, MAX_COMMENT).done()?;
    }
    Ok(comment)
}

/// Adds a version that can be taken, and takes it.
async fn add(
    api: &Api,
    version: i32,
    changes: Changes,
    comment: String,
    actor: &str,
) -> Result<SettingsView, ApiError> {
    api.in_force.file().with(&changes).map_err(|wrong| refused(&wrong))?;
    let new = Version { version, changes, actor: actor.to_owned(), comment, created_at: api.clock.now() };
    if !settings::add(&api.db, &new).await? {
        let detail = "somebody else has changed the settings meanwhile: look at them and do it again";
        return Err(ApiError::because(Code::Conflict, detail));
    }
    tracing::info!(event = "settings_changed", version, actor, "another version of the settings was made");
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
