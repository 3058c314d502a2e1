//! The configuration: one tree, read from defaults, files and the environment, and checked before anything starts.
//!
//! In: the compiled-in `defaults.toml`, a file, its `conf.d`, `LINTEL__…` variables. Out: [`Loaded`], or every problem
//! found with the place it was written at. Each part of the program owns the struct of its section; this module
//! composes them. Deliberately absent: any way to start with a configuration that was not read completely.

mod check;
mod layers;
mod schema;
mod show;
pub mod twin;
pub mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use edge_capture::CameraConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use layers::Origin;
use layers::{Layers, Place, SyntaxError, Value};
pub use show::Format;
pub use twin::TwinLayer;

use crate::clock::ClockConfig;
use crate::door::DoorConfig;
use crate::logging::LogConfig;
use crate::models::ModelsConfig;
use crate::stages::decide::PolicyConfig;
use crate::stages::perceive::PerceiveConfig;

/// The commented defaults that the program carries.
pub const DEFAULTS: &str = include_str!("defaults.toml");
/// The format that this program reads.
pub const SCHEMA_VERSION: u32 = 1;
/// Variables that overlay the file begin with this.
pub const ENVIRONMENT_PREFIX: &str = "LINTEL__";

const LISTS: [&str; 3] = ["camera", "door", "policy"];

/// `[agent]`: where the agent keeps its things.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Keys, gallery, outbox and identity; survives restarts.
    pub state_dir: PathBuf,
    /// Sockets.
    pub runtime_dir: PathBuf,
    /// The program, and its arguments, that reboots the machine when the hub orders it; empty: the machine is never rebooted.
    pub reboot_command: Vec<String>,
}

impl AgentConfig {
    /// Where the device's keys are.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.state_dir.join("keys")
    }

    /// Where the galleries are.
    #[must_use]
    pub fn galleries_dir(&self) -> PathBuf {
        self.state_dir.join("galleries")
    }

    /// Where the outbox is.
    #[must_use]
    pub fn outbox_dir(&self) -> PathBuf {
        self.state_dir.join("outbox")
    }
}

/// `[sync]`: the line to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// How long galleries may be used without contact with the hub; zero: for ever.
    #[serde(deserialize_with = "values::duration")]
    pub gallery_lease: std::time::Duration,
}

impl SyncConfig {
    /// The lease, if there is one.
    #[must_use]
    pub fn lease(&self) -> Option<std::time::Duration> {
        (!self.gallery_lease.is_zero()).then_some(self.gallery_lease)
    }
}

/// The whole configuration, in final types and cross-checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[agent]`
    pub agent: AgentConfig,
    /// `[clock]`
    pub clock: ClockConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[models]`
    pub models: ModelsConfig,
    /// `[perceive]`
    pub perceive: PerceiveConfig,
    /// `[sync]`
    pub sync: SyncConfig,
    /// `[[camera]]`, ids unique.
    pub cameras: Vec<CameraConfig>,
    /// `[[door]]`, ids unique, each with an existing camera and policy.
    pub doors: Vec<DoorConfig>,
    /// `[[policy]]`, ids unique; `default` is always there.
    pub policies: Vec<PolicyConfig>,
}

impl Config {
    /// What is allowed and should be known.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        check::warnings(self)
    }

    /// The policy of this id. Every door's policy exists in a configuration that was loaded.
    #[must_use]
    pub fn policy(&self, id: &str) -> Option<&PolicyConfig> {
        self.policies.iter().find(|policy| policy.id == id)
    }
}

/// A configuration that was read, with the tree it came from for `config show`.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    effective: toml::Table,
}

/// One thing that is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Text that is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// The parser's words.
        message: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key {key}{}", suggestion(nearest.as_deref(), valid))]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key with its section, such as `door[main].hodl`.
        key: String,
        /// The valid key that was probably meant.
        nearest: Option<String>,
        /// All valid keys there.
        valid: Vec<String>,
    },
    /// A value of the wrong kind, or a key that is missing.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// Where.
        origin: Origin,
        /// The key or section.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// Values that do not fit together.
    #[error("{subject}: {message}")]
    Inconsistent {
        /// The element, such as `door main`.
        subject: String,
        /// What is wrong and what to do.
        message: String,
    },
}

fn suggestion(nearest: Option<&str>, valid: &[String]) -> String {
    nearest.map_or_else(|| format!("; valid here: {}", valid.join(", ")), |key| format!("; did you mean {key}?"))
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// Where the configuration comes from, so that it can be read again with other settings of the hub.
#[derive(Debug, Clone)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: BTreeMap<String, String>,
}

impl Sources {
    /// The main file (none: defaults and environment alone) and the environment.
    #[must_use]
    pub fn new(file: Option<PathBuf>, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let environment = environment.into_iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
        Self { file, environment }
    }

    /// Reads and checks it, with what the hub wants laid over the files.
    ///
    /// # Errors
    /// As [`load`], and a door or policy of the twin that the device does not have.
    pub fn load(&self, twin: Option<&TwinLayer>) -> Result<Loaded, ConfigErrors> {
        let plain = self.read(None)?;
        match twin {
            None => Ok(plain),
            Some(twin) => {
                twin.fits(&plain.config)?;
                self.read(Some(twin))
            }
        }
    }

    fn read(&self, twin: Option<&TwinLayer>) -> Result<Loaded, ConfigErrors> {
        let twin = twin.map(|twin| (twin.name.clone(), twin.text()));
        read(self.file.as_deref(), &self.environment, twin.as_ref())
    }
}

/// Reads and checks the configuration. `file` is the main file (none: defaults and environment alone).
///
/// # Errors
/// Every unknown key at once; else every bad value at once; else every inconsistency at once.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigErrors> {
    Sources::new(file.map(Path::to_owned), environment).load(None)
}

fn read(
    file: Option<&Path>,
    variables: &BTreeMap<String, String>,
    twin: Option<&(String, String)>,
) -> Result<Loaded, ConfigErrors> {
    let texts = file.map(read_files).transpose()?.unwrap_or_default();
    let mut layers = Layers::default();
    layers.add_file("built-in defaults", DEFAULTS).expect("the compiled-in defaults are TOML; a test reads them");
    let _ = layers.take("schema_version");
    let templates = LISTS.map(|list| layers.take(list).expect("the defaults hold a pattern for each list"));
    for (name, text) in &texts {
        layers.add_file(name, text).map_err(syntax)?;
    }
    if let Some((name, text)) = twin {
        layers.add_file(name, text).map_err(syntax)?;
    }
    for (variable, text) in variables {
        layers.add_environment(variable, &place(variable)?, text);
    }
    let main_file = texts.first().map(|(name, _)| name.clone()).unwrap_or_default();
    Reader { layers: &layers, templates, main_file, errors: Vec::new() }.read()
}

fn syntax(error: SyntaxError) -> ConfigErrors {
    ConfigErrors::from(ConfigError::Syntax { origin: error.origin, message: error.message })
}

fn read_files(main: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map(|text| (path.display().to_string(), text))
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
    };
    let mut texts = vec![read(main)?];
    let folder = main.parent().unwrap_or(Path::new(".")).join("conf.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(texts),
        Err(source) => return Err(ConfigError::Unreadable { path: folder, source }),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ConfigError::Unreadable { path: folder, source })?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    for path in paths {
        texts.push(read(&path)?);
    }
    Ok(texts)
}

/// `LINTEL__LOG__LEVEL` sets `log.level`; `LINTEL__DOOR__NORTH_GATE__HOLD` sets `hold` of the door `north-gate`.
fn place(variable: &str) -> Result<Place, ConfigError> {
    let rest = &variable[ENVIRONMENT_PREFIX.len()..];
    let parts: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    match parts.as_slice() {
        [section] if !section.is_empty() => Ok(Place::Whole { section: section.clone() }),
        [section, key] => Ok(Place::Key { section: section.clone(), key: key.clone() }),
        [section, id, key] if LISTS.contains(&section.as_str()) => {
            Ok(Place::Element { section: section.clone(), id: id.replace('_', "-"), key: key.clone() })
        }
        _ => Err(ConfigError::UnknownKey {
            origin: Origin::Environment { variable: variable.to_owned() },
            key: parts.join("."),
            nearest: None,
            valid: vec!["LINTEL__SECTION__KEY".to_owned(), "LINTEL__CAMERA|DOOR|POLICY__ID__KEY".to_owned()],
        }),
    }
}

struct Reader<'l, 't> {
    layers: &'l Layers<'t>,
    templates: [Value<'t>; 3],
    main_file: String,
    errors: Vec<ConfigError>,
}

impl<'t> Reader<'_, 't> {
    fn read(mut self) -> Result<Loaded, ConfigErrors> {
        self.check_top_keys();
        let effective = self.effective();
        let agent = self.section::<AgentConfig>(&effective, "agent");
        let clock = self.section::<ClockConfig>(&effective, "clock");
        let log = self.section::<LogConfig>(&effective, "log");
        let models = self.section::<ModelsConfig>(&effective, "models");
        let perceive = self.section::<PerceiveConfig>(&effective, "perceive");
        let sync = self.section::<SyncConfig>(&effective, "sync");
        let cameras = self.list::<CameraConfig>(&effective, "camera");
        let doors = self.list::<DoorConfig>(&effective, "door");
        let policies = self.list::<PolicyConfig>(&effective, "policy");
        let (Some(agent), Some(clock), Some(log), Some(models), Some(perceive), Some(sync), true) =
            (agent, clock, log, models, perceive, sync, self.errors.is_empty())
        else {
            return Err(ConfigErrors(self.errors));
        };
        let config = Config { agent, clock, log, models, perceive, sync, cameras, doors, policies };
        let problems = check::problems(&config);
        if !problems.is_empty() {
            return Err(ConfigErrors(problems));
        }
        let effective = toml::Table::deserialize(toml::de::Deserializer::from(Spanned::new(0..0, effective)))
            .expect("a tree of TOML values is a table");
        Ok(Loaded { config, effective })
    }

    /// The merged tree with every list's elements filled up from their pattern, and the policy `default` present.
    fn effective(&mut self) -> DeTable<'t> {
        let mut tree = self.layers.merged().clone();
        for (name, template) in LISTS.into_iter().zip(self.templates.clone()) {
            let template = template.get_ref().as_table().expect("a pattern is a table").clone();
            let span = 0..0;
            let list = tree
                .remove(name)
                .unwrap_or_else(|| Spanned::new(span.clone(), DeValue::Array([].into_iter().collect())));
            let list_span = list.span();
            let DeValue::Array(elements) = list.into_inner() else {
                let message = format!("write [[{name}]] with double brackets, once for each {name}");
                self.value_error(&list_span, name, message);
                continue;
            };
            let mut filled = Vec::new();
            for element in elements {
                let span = element.span();
                let DeValue::Table(own) = element.into_inner() else {
                    self.value_error(&span, name, format!("each [[{name}]] is a table"));
                    continue;
                };
                let mut whole = template.clone();
                layers::merge_table(&mut whole, own);
                filled.push(Spanned::new(span, DeValue::Table(whole)));
            }
            if name == "policy" && !filled.iter().any(|element| layers::id_of(element) == Some("default")) {
                let mut default = template;
                default.insert(
                    Spanned::new(span.clone(), "id".into()),
                    Spanned::new(span, DeValue::String("default".into())),
                );
                filled.push(Spanned::new(0..0, DeValue::Table(default)));
            }
            tree.insert(
                Spanned::new(0..0, name.into()),
                Spanned::new(list_span, DeValue::Array(filled.into_iter().collect())),
            );
        }
        tree
    }

    fn check_top_keys(&mut self) {
        let valid =
            ["schema_version", "agent", "clock", "log", "models", "perceive", "sync", "camera", "door", "policy"];
        let unknown: Vec<_> = self
            .layers
            .merged()
            .iter()
            .filter(|(key, _)| !valid.contains(&key.get_ref().as_ref()))
            .map(|(key, _)| (key.span(), key.get_ref().to_string()))
            .collect();
        for (span, key) in unknown {
            self.unknown_key(&span, None, &key, &valid);
        }
        self.check_version();
    }

    /// A file names the version that it was written for; without a file there is nothing to name.
    fn check_version(&mut self) {
        let message = format!("this edge-agent reads version {SCHEMA_VERSION}");
        match self.layers.merged().get("schema_version") {
            Some(version) => {
                let written = version.get_ref().as_integer().map(toml::de::DeInteger::as_str);
                if written != Some(SCHEMA_VERSION.to_string().as_str()) {
                    let message = format!("{message}; convert the file or install the matching edge-agent");
                    self.value_error(&version.span(), "schema_version", message);
                }
            }
            None if !self.main_file.is_empty() => {
                let message = format!("is missing: {message}, write schema_version = {SCHEMA_VERSION} at the top");
                let origin = Origin::File { name: self.main_file.clone(), line: 1 };
                self.errors.push(ConfigError::Value { origin, key: "schema_version".to_owned(), message });
            }
            None => {}
        }
    }

    fn section<T: DeserializeOwned>(&mut self, tree: &DeTable<'t>, name: &str) -> Option<T> {
        let value = tree.get(name)?;
        let Some(table) = value.get_ref().as_table() else {
            self.value_error(&value.span(), name, format!("is a section: write [{name}]"));
            return None;
        };
        self.table(table, &value.span(), name)
    }

    fn list<T: DeserializeOwned>(&mut self, tree: &DeTable<'t>, name: &str) -> Vec<T> {
        let Some(elements) = tree.get(name).and_then(|list| list.get_ref().as_array()) else { return Vec::new() };
        elements
            .iter()
            .filter_map(|element| {
                let table = element.get_ref().as_table()?;
                let label = format!("{name}[{}]", layers::id_of(element).unwrap_or("?"));
                self.table(table, &element.span(), &label)
            })
            .collect()
    }

    fn table<T: DeserializeOwned>(
        &mut self,
        table: &DeTable<'t>,
        span: &std::ops::Range<usize>,
        label: &str,
    ) -> Option<T> {
        let valid = schema::fields_of::<T>();
        if !valid.is_empty() {
            let before = self.errors.len();
            for (key, _) in table.iter().filter(|(key, _)| !valid.contains(&key.get_ref().as_ref())) {
                self.unknown_key(&key.span(), Some(label), key.get_ref(), valid);
            }
            if self.errors.len() > before {
                return None;
            }
        }
        match T::deserialize(toml::de::Deserializer::from(Spanned::new(span.clone(), table.clone()))) {
            Ok(part) => Some(part),
            Err(error) => {
                let at = error.span().unwrap_or_else(|| span.clone());
                let key = table.iter().find(|(_, value)| value.span() == at).map(|(key, _)| key.get_ref());
                let key = key.map_or_else(|| label.to_owned(), |key| format!("{label}.{key}"));
                self.value_error(&at, &key, error.message().to_owned());
                None
            }
        }
    }

    fn unknown_key(&mut self, span: &std::ops::Range<usize>, section: Option<&str>, key: &str, valid: &[&str]) {
        self.errors.push(ConfigError::UnknownKey {
            origin: self.origin(span),
            key: section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}")),
            nearest: schema::nearest(key, valid).map(str::to_owned),
            valid: valid.iter().map(|key| (*key).to_owned()).collect(),
        });
    }

    fn value_error(&mut self, span: &std::ops::Range<usize>, key: &str, message: String) {
        let origin = self.origin(span);
        self.errors.push(ConfigError::Value { origin, key: key.to_owned(), message });
    }

    fn origin(&self, span: &std::ops::Range<usize>) -> Origin {
        self.layers.origin(span).expect("the defaults cover every span that no other text does")
    }
}

#[cfg(test)]
mod tests;
