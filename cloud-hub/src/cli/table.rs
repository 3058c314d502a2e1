//! Answers as tables for a terminal. Scripts use `-o json`.

use serde_json::Value;

/// A heading and the JSON pointer of its value.
pub(super) type Column = (&'static str, &'static str);

pub(super) const NEW_TENANT: &[Column] = &[
    ("TENANT", "/tenant/id"),
    ("NAME", "/tenant/name"),
    ("API KEY", "/api_key/id"),
    ("SECRET (shown once)", "/api_key/secret"),
];
pub(super) const TENANTS: &[Column] = &[
    ("TENANT", "/id"),
    ("NAME", "/name"),
    ("TIER", "/tier"),
    ("STATE", "/state"),
    ("PEOPLE", "/usage/people/used"),
    ("OF", "/usage/people/quota"),
    ("TEMPLATES", "/usage/templates/used"),
    ("OF", "/usage/templates/quota"),
    ("DEVICES", "/usage/devices/used"),
    ("OF", "/usage/devices/quota"),
    ("CREATED", "/created_at"),
    ("ROWS LEFT", "/rows_left"),
    ("WAITS FOR", "/waits_for"),
    ("ERASED", "/receipt/finished_at"),
];
pub(super) const DELETION: &[Column] = &[("TABLE", "/table"), ("ROWS", "/rows")];
pub(super) const NEW_API_KEY: &[Column] = &[("API KEY", "/id"), ("SECRET (shown once)", "/secret")];
pub(super) const ROTATED_API_KEY: &[Column] =
    &[("API KEY", "/id"), ("SECRET (shown once)", "/secret"), ("THE OLD ONE ENDS", "/old_ends_at")];
pub(super) const API_KEYS: &[Column] = &[
    ("API KEY", "/id"),
    ("NAME", "/name"),
    ("ROLE", "/role"),
    ("PERMISSIONS", "/permissions"),
    ("CREATED", "/created_at"),
    ("LAST USED", "/last_used_at"),
    ("EXPIRES", "/expires_at"),
    ("REVOKED", "/revoked_at"),
    ("REPLACED BY", "/replaced_by"),
];
pub(super) const NEW_ADMIN: &[Column] =
    &[("KEY", "/id"), ("SECRET (shown once)", "/secret"), ("ROLE", "/role"), ("EXPIRES", "/expires_at")];
pub(super) const ADMINS: &[Column] = &[
    ("KEY", "/id"),
    ("NAME", "/name"),
    ("ROLE", "/role"),
    ("CREATED", "/created_at"),
    ("LAST USED", "/last_used_at"),
    ("EXPIRES", "/expires_at"),
    ("REVOKED", "/revoked_at"),
];
pub(super) const NEW_USER: &[Column] =
    &[("USER", "/id"), ("INVITATION (shown once)", "/invitation"), ("UNTIL", "/invited_until")];
pub(super) const USERS: &[Column] = &[
    ("USER", "/id"),
    ("LOGIN", "/login"),
    ("ROLE", "/role"),
    ("STATE", "/state"),
    ("PASSWORD", "/has_password"),
    ("TOTP", "/totp"),
    ("INVITED UNTIL", "/invited_until"),
    ("CREATED", "/created_at"),
    ("LAST LOG-IN", "/last_login_at"),
];
pub(super) const KEYS: &[Column] = &[
    ("KEY", "/key"),
    ("WHAT", "/what"),
    ("STATE", "/state"),
    ("MADE", "/made_at"),
    ("AGE (DAYS)", "/age_days"),
    ("LEFT", "/left"),
    ("SIGNS FROM", "/signs_from"),
    ("VERIFIES UNTIL", "/verifies_until"),
];
pub(super) const PEPPER: &[Column] =
    &[("API KEYS WITHOUT USE", "/api_keys"), ("RECOVERY CODES", "/recovery_codes"), ("FORGOTTEN", "/forgotten")];
pub(super) const AUTHORITIES: &[Column] = &[("DEVICES TO CLAIM AGAIN", "/devices"), ("RETIRED", "/retired")];
pub(super) const PEOPLE: &[Column] = &[
    ("PERSON", "/id"),
    ("EXTERNAL ID", "/external_id"),
    ("NAME", "/name"),
    ("E-MAIL", "/email"),
    ("GROUPS", "/groups"),
    ("FROM", "/valid_from"),
    ("UNTIL", "/valid_until"),
    ("CREATED", "/created_at"),
];
pub(super) const SESSIONS: &[Column] = &[
    ("SESSION", "/id"),
    ("KIND", "/kind"),
    ("STATE", "/state"),
    ("PERSON", "/person_id"),
    ("ATTEMPTS", "/attempts"),
    ("OF", "/max_attempts"),
    ("MATCHED", "/result/matched"),
    ("SCORE", "/result/score"),
    ("WHY NOT", "/why/code"),
    ("OPENED", "/created_at"),
    ("UNTIL", "/expires_at"),
    ("ENDED", "/ended_at"),
];
pub(super) const SETTINGS: &[Column] =
    &[("SETTING", "/name"), ("VALUE", "/value"), ("FROM", "/from"), ("FILE", "/file")];
pub(super) const VERSIONS: &[Column] = &[
    ("VERSION", "/version"),
    ("CHANGES TO THE FILE", "/changes"),
    ("BY", "/actor"),
    ("COMMENT", "/comment"),
    ("AT", "/created_at"),
];
pub(super) const SESSION: &[Column] = &[
    ("SESSION", "/session/id"),
    ("KIND", "/session/kind"),
    ("STATE", "/session/state"),
    ("PERSON", "/session/person_id"),
    ("ATTEMPTS", "/session/attempts"),
    ("OF", "/session/max_attempts"),
    ("ASKED", "/challenge/movement"),
    ("MATCHED", "/session/result/matched"),
    ("SCORE", "/session/result/score"),
    ("WHY NOT", "/session/why/code"),
    ("UNTIL", "/session/expires_at"),
    ("ENDED", "/session/ended_at"),
];
pub(super) const PERSON: &[Column] = &[
    ("PERSON", "/id"),
    ("EXTERNAL ID", "/external_id"),
    ("NAME", "/name"),
    ("E-MAIL", "/email"),
    ("GROUPS", "/groups"),
    ("FROM", "/valid_from"),
    ("UNTIL", "/valid_until"),
    ("REVISION", "/revision"),
    ("TEMPLATES", "/templates"),
];
pub(super) const REFUSED: &[Column] =
    &[("LINE", "/line"), ("EXTERNAL ID", "/external_id"), ("WHAT", "/what"), ("CODE", "/code"), ("WHY", "/why")];
pub(super) const IMPORTED: &[Column] = &[
    ("ROWS", "/rows"),
    ("CREATED", "/created"),
    ("UPDATED", "/updated"),
    ("UNCHANGED", "/unchanged"),
    ("SKIPPED", "/skipped"),
    ("REFUSED", "/refused"),
    ("ENROLLED", "/enrolled"),
    ("ENROLLED BEFORE", "/enrolled_before"),
    ("PHOTOGRAPHS REFUSED", "/photographs_refused"),
];
pub(super) const NEW_CONSUMER: &[Column] =
    &[("CONSUMER", "/id"), ("NAME", "/name"), ("USER", "/username"), ("PASSWORD (shown once)", "/password")];
pub(super) const CONSUMERS: &[Column] = &[
    ("CONSUMER", "/id"),
    ("NAME", "/name"),
    ("USER", "/username"),
    ("CREATED", "/created_at"),
    ("ROTATED", "/rotated_at"),
];
pub(super) const COMPONENTS: &[Column] = &[("COMPONENT", "/name"), ("STATUS", "/status"), ("DETAIL", "/detail")];
pub(super) const AUDIT: &[Column] = &[
    ("PLACE", "/position"),
    ("AT", "/at"),
    ("WHO", "/actor"),
    ("ACTION", "/action"),
    ("KIND", "/object_kind"),
    ("OBJECT", "/object_id"),
    ("DETAIL", "/detail"),
];
pub(super) const LOGS: &[Column] = &[
    ("GALLERY", "/gallery"),
    ("SITE", "/site_id"),
    ("EPOCH", "/epoch"),
    ("VERSION", "/version"),
    ("COMPACTED TO", "/compacted_to"),
    ("LIVE", "/live"),
    ("RECORDS", "/records"),
    ("BURIED", "/buried"),
    ("SNAPSHOTS", "/snapshots"),
];
pub(super) const COMPACTED: &[Column] = &[
    ("GALLERY", "/gallery"),
    ("VERSION", "/version"),
    ("COMPACTED TO", "/compacted_to"),
    ("REMOVED", "/removed"),
    ("RECORDS", "/records"),
    ("BURIED", "/buried"),
];
pub(super) const COMMANDS: &[Column] = &[
    ("COMMAND", "/id"),
    ("KIND", "/kind"),
    ("DEVICE", "/device_id"),
    ("DOOR", "/door_id"),
    ("ARGUMENTS", "/args"),
    ("STATE", "/state"),
    ("CODE", "/code"),
    ("BY", "/actor"),
    ("GIVEN", "/issued_at"),
    ("CHANGED", "/changed_at"),
];
pub(super) const TWIN: &[Column] = &[
    ("DEVICE", "/device_id"),
    ("STANDING", "/standing"),
    ("SINCE", "/since"),
    ("DESIRED", "/desired/version"),
    ("SETTINGS", "/desired/settings"),
    ("APPLIED", "/reported/applied/version"),
    ("WAITS FOR A START", "/reported/restart_needed"),
    ("CODE", "/reported/code"),
    ("REASON", "/reported/reason"),
];
pub(super) const DIFFERENCE: &[Column] = &[("SETTING", "/path"), ("DESIRED", "/desired"), ("REPORTED", "/reported")];
pub(super) const NEW_ANCHOR: &[Column] =
    &[("ANCHOR", "/id"), ("PERSON", "/person"), ("LIKENESS", "/score"), ("QUALITY", "/quality")];
pub(super) const ANCHORS: &[Column] = &[
    ("ANCHOR", "/id"),
    ("SPACE", "/space_id"),
    ("MODEL", "/model_version"),
    ("QUALITY", "/quality"),
    ("CREATED", "/created_at"),
];
/// One line a gallery; a device without one still has a line.
pub(super) const DEVICES: &[Column] = &[
    ("DEVICE", "/id"),
    ("NAME", "/name"),
    ("STATE", "/state"),
    ("ONLINE", "/online"),
    ("LAST SEEN", "/last_seen_at"),
    ("LEASE UNTIL", "/lease_until"),
    ("GALLERY", "/gallery/gallery"),
    ("VERSION", "/gallery/version"),
    ("HUB", "/gallery/hub_version"),
    ("ROOT", "/gallery/root"),
    ("STANDING", "/gallery/standing"),
    ("SINCE", "/gallery/since"),
    ("TOOK MS", "/gallery/propagation_ms"),
    ("SNAPSHOT", "/gallery/snapshot/text"),
    ("REPORTED", "/gallery/reported_at"),
];

/// Hashes are cut to this many digits: enough to compare by eye.
const SHORT_HASH: usize = 12;

/// Renders the entries of the member `list` (the answer itself if that is empty).
pub(super) fn render(answer: &Value, list: &str, columns: &[Column]) -> String {
    if answer.is_null() {
        return String::from("done\n");
    }
    let entries: Vec<Value> = match answer[list].as_array() {
        Some(entries) => entries.iter().flat_map(flatten).collect(),
        None => vec![answer.clone()],
    };
    let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()];
    rows.extend(entries.iter().map(|entry| columns.iter().map(|(_, pointer)| cell(entry, pointer)).collect()));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text: String = rows.iter().map(line).collect();
    if let Some(command) = answer["command"].as_str() {
        text.push_str(&format!("\nIt reads the feed with:\n  {command}\n"));
    }
    text
}

/// One entry for each of its galleries.
fn flatten(entry: &Value) -> Vec<Value> {
    match entry["galleries"].as_array() {
        Some(galleries) if !galleries.is_empty() => galleries
            .iter()
            .map(|gallery| {
                let mut row = entry.clone();
                row["gallery"] = gallery.clone();
                row
            })
            .collect(),
        _ => vec![entry.clone()],
    }
}

fn cell(entry: &Value, pointer: &str) -> String {
    match entry.pointer(pointer) {
        None | Some(Value::Null) => String::from("-"),
        Some(Value::Bool(yes)) => String::from(if *yes { "yes" } else { "no" }),
        Some(Value::String(text)) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            text[..SHORT_HASH].to_owned()
        }
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(words)) if words.iter().all(Value::is_string) => {
            words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn devices_have_a_line_for_each_gallery() {
        let answer = json!({ "devices": [
            { "id": "d1", "name": "door", "online": true, "galleries": [
                { "gallery": "g1", "version": 3, "standing": "equal", "root": "ab".repeat(32), "propagation_ms": 41 },
                { "gallery": "g2", "version": 1, "standing": "behind" } ] },
            { "id": "d2", "name": "new", "online": false, "galleries": [] },
        ]});
        let text = render(&answer, "devices", DEVICES);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.contains("abababababab ") && text.contains("behind") && text.contains("41") && text.contains("d2"),
            "{text}"
        );
    }
}
