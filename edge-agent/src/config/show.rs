//! The effective configuration as text, with secrets hidden.
//!
//! In: the merged tree. Out: TOML or JSON in which the password of a URL reads `***`.

use super::{Loaded, TwinLayer};

/// How `config show` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As a configuration file.
    Toml,
    /// As one JSON object.
    Json,
}

impl Loaded {
    /// The effective configuration: defaults, files and environment together, passwords replaced by `***`. What comes from
    /// the hub's twin is named at its head.
    #[must_use]
    pub fn show(&self, format: Format, twin: Option<&TwinLayer>) -> String {
        let mut table = self.effective.clone();
        table.iter_mut().for_each(|(_, value)| redact(value));
        let marks: Vec<String> = twin.iter().flat_map(|twin| twin.settings.leaves().into_keys()).collect();
        match format {
            Format::Toml => {
                let text = toml::to_string_pretty(&table).expect("a table of plain values is TOML");
                let Some(twin) = twin else { return text };
                format!("# From {}, unless the environment says otherwise: {}\n\n{text}", twin.name, marks.join(", "))
            }
            Format::Json => {
                let mut value = serde_json::to_value(&table).expect("a table of plain values is JSON");
                if let Some(twin) = twin {
                    value["twin"] = serde_json::json!({ "name": twin.name, "sets": marks });
                }
                serde_json::to_string_pretty(&value).expect("a value is JSON")
            }
        }
    }
}

fn redact(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => {
            if let Some(hidden) = without_password(text) {
                *text = hidden;
            }
        }
        toml::Value::Array(elements) => elements.iter_mut().for_each(redact),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| redact(value)),
        _ => {}
    }
}

/// A camera's URL often carries user and password; both are the camera's secret.
fn without_password(text: &str) -> Option<String> {
    let mut url = url::Url::parse(text).ok()?;
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    url.set_username("***").ok()?;
    url.set_password(Some("***")).ok()?;
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn a_cameras_password_is_hidden_and_a_path_is_left_alone() {
        let hidden = without_password("rtsp://admin:hunter2@10.0.0.7/stream").unwrap();
        assert!(!hidden.contains("hunter2") && !hidden.contains("admin"), "{hidden}");
        assert_eq!(without_password("/var/lib/clip.mp4"), None);
        assert_eq!(without_password("rtsp://10.0.0.7/stream"), None);
    }
}
