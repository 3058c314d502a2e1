//! Layers of configuration: a table over a table, and environment variables over both.

use toml::{Table, Value};

use super::ConfigError;

/// The prefix of every variable; the parts of the path follow, joined by two underscores.
const PREFIX: &str = "LINTEL__";

/// Lays `upper` over `lower`: tables merge, everything else replaces.
pub(super) fn merge(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// Lays variables over `table`. `schema` has every known setting with a value of its kind.
pub(super) fn apply_variables(
    table: &mut Table,
    schema: &Table,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        let unknown = || ConfigError::UnknownVariable { name: name.clone(), setting: path.join(".") };
        let kind = lookup(schema, &path).ok_or_else(unknown)?;
        let value =
            parse(kind, &text).map_err(|problem| ConfigError::InvalidVariable { name: name.clone(), problem })?;
        insert(table, &path, value);
    }
    Ok(())
}

fn lookup<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (last, folders) = path.split_last()?;
    let mut table = table;
    for folder in folders {
        table = table.get(folder)?.as_table()?;
    }
    table.get(last).filter(|value| !value.is_table())
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    let Some((last, folders)) = path.split_last() else { return };
    let mut table = table;
    for folder in folders {
        let next = table.entry(folder.clone()).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = next else { return };
        table = next;
    }
    table.insert(last.clone(), value);
}

/// Reads `text` as a value of the same kind as `kind`. Lists are separated by commas.
fn parse(kind: &Value, text: &str) -> Result<Value, String> {
    match kind {
        Value::Integer(_) => text.parse().map(Value::Integer).map_err(|_| format!("{text:?} is not a whole number")),
        Value::Float(_) => text.parse().map(Value::Float).map_err(|_| format!("{text:?} is not a number")),
        Value::Boolean(_) => {
            text.parse().map(Value::Boolean).map_err(|_| format!("{text:?} is neither true nor false"))
        }
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}
