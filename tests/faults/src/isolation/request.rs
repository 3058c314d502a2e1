//! How each operation asks about the things of a tenant.
//!
//! The operations are those of the hub's own document. One that has no request here is an error: whoever adds a route says how it would be
//! used against another tenant.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::Holdings;
use super::holdings::canary;

/// An operation that takes a key.
#[derive(Clone, Debug)]
pub struct Operation {
    /// As the document names it.
    pub id: String,
    /// Its method.
    pub method: Method,
    path: String,
}

/// A request about the things of a tenant.
pub struct Request {
    /// With ids in it.
    pub path: String,
    /// What is sent.
    pub body: Body,
    /// Whether it names a thing of the tenant, so that it must be answered as if there were none.
    pub names_a_thing: bool,
}

/// What is sent.
pub enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Value),
    /// A form with a photograph.
    Photograph(Vec<u8>),
    /// A table of people.
    Table(String),
}

impl Operation {
    /// Those of tenants.
    pub(super) fn all(document: &Value) -> Result<Vec<Self>> {
        Self::of_scheme(document, "ApiKey")
    }

    /// Those of platform administrators.
    pub(super) fn of_platform(document: &Value) -> Result<Vec<Self>> {
        Self::of_scheme(document, "PlatformKey")
    }

    fn of_scheme(document: &Value, scheme: &str) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().context("no paths in the document")? {
            for (method, operation) in item.as_object().context("no operations of a path")? {
                let security = operation["security"].as_array().context("no security of an operation")?;
                if !security.iter().any(|one| one.get(scheme).is_some()) {
                    continue;
                }
                let id = operation["operationId"].as_str().context("no id of an operation")?.to_owned();
                let method = method.to_ascii_uppercase().parse()?;
                all.push(Self { id, method, path: path.clone() });
            }
        }
        Ok(all)
    }
}

impl Holdings {
    /// How this operation asks about these things; `number` makes names different that must be.
    pub fn request(&self, operation: &Operation, number: u64) -> Result<Request> {
        let fresh = format!("fresh {number}");
        // Not the picture behind the template, which anybody who has it can make a template of.
        let photograph = || json!({ "image": STANDARD.encode(&self.other_photograph) });
        let (ids, body, in_body): (&[&str], Body, bool) = match operation.id.as_str() {
            "list_api_keys"
            | "list_audit_entries"
            | "export_audit"
            | "list_consumers"
            | "list_devices"
            | "list_doors"
            | "list_events"
            | "stream_events"
            | "list_people"
            | "list_roles"
            | "list_sites"
            | "list_users"
            | "list_webhooks"
            | "get_tenant"
            | "get_login_policy"
            | "get_recognition_policy"
            | "get_session_settings"
            | "list_sessions" => (&[], Body::None, false),
            "create_api_key" | "create_consumer" => (&[], Body::Json(json!({ "name": fresh })), false),
            "create_user" => {
                let user = json!({ "login": format!("fresh-{number}@example.org"), "role": "auditor" });
                (&[], Body::Json(user), false)
            }
            "put_login_policy" => (&[], Body::Json(json!({ "require_totp": false })), false),
            "create_role" => {
                let role = json!({ "name": format!("fresh-{number}"), "permissions": ["events:read"] });
                (&[], Body::Json(role), false)
            }
            "get_role" => (&[&self.role], Body::None, true),
            "change_role" => (&[&self.role], Body::Json(json!({ "description": canary("changed role") })), true),
            "delete_role" => (&[&self.spare_role], Body::None, true),
            "take_totp_off_user" => (&[&self.totp_user], Body::None, true),
            "get_user" | "invite_user" => (&[&self.user], Body::None, true),
            "change_user" => (&[&self.user], Body::Json(json!({ "role": "auditor" })), true),
            "delete_user" => (&[&self.spare_user], Body::None, true),
            "create_site" => (&[], Body::Json(json!({ "name": fresh, "time_zone": "UTC" })), false),
            "create_webhook" => (&[], Body::Json(json!({ "url": "http://127.0.0.1:9/" })), false),
            "put_recognition_policy" => (&[], Body::Json(json!({ "far": "1e-4" })), false),
            "put_session_settings" => (&[], Body::Json(json!({ "authentication_s": 120, "enrolment_s": 900 })), false),
            "open_enrolment_session" => (&[], Body::Json(json!({ "person_id": self.person })), true),
            "open_authentication_session" => {
                (&[], Body::Json(json!({ "kind": "verification", "person_id": self.person })), true)
            }
            "get_session" => (&[&self.session], Body::None, true),
            "add_session_frames" => {
                (&[&self.session], Body::Json(json!({ "images": [STANDARD.encode(&self.photograph)] })), true)
            }
            "complete_session" => (&[&self.ready_session], Body::None, true),
            "cancel_session" => (&[&self.spare_session], Body::None, true),
            "detect_faces" | "quality_of_face" | "liveness_of_face" | "embed_faces" => {
                (&[], Body::Json(photograph()), false)
            }
            "compare_faces" => {
                let both = json!({ "template": self.template, "other_template": self.template });
                (&[], Body::Json(both), false)
            }
            "identify_faces" => (&[], Body::Json(json!({ "template": self.template, "candidates": 100 })), false),
            "search_faces" => {
                let narrowed = json!({ "template": self.template, "person_ids": [self.person] });
                (&[], Body::Json(narrowed), false)
            }
            "verify_person" => (&[], Body::Json(json!({ "template": self.template, "person_id": self.person })), true),
            "create_device" => (&[], Body::Json(json!({ "name": fresh, "site_id": self.site, "doors": [] })), true),
            "create_door" => (&[], Body::Json(json!({ "name": fresh, "site_id": self.site })), true),
            "create_person" => {
                let person = json!({ "external_id": fresh, "name": fresh, "site_ids": [self.site] });
                (&[], Body::Json(person), true)
            }
            // The file is taken, and its row refused: it names a site of the other tenant.
            "import_people" => {
                let table = format!("external_id,name,site_ids\n{fresh},{fresh},{}\n", self.site);
                (&[], Body::Table(table), false)
            }
            "get_api_key" => (&[&self.key], Body::None, true),
            "rotate_api_key" => (&[&self.key], Body::Json(json!({})), true),
            "revoke_api_key" => (&[&self.spare_key], Body::None, true),
            "get_command" | "get_command_logs" => (&[&self.command], Body::None, true),
            "rotate_consumer_password" => (&[&self.consumer], Body::None, true),
            "delete_consumer" => (&[&self.spare_consumer], Body::None, true),
            "get_device" | "list_device_commands" | "get_twin" | "list_twin_versions" => {
                (&[&self.device], Body::None, true)
            }
            "create_device_command" => (&[&self.device], Body::Json(json!({ "kind": "refresh" })), true),
            "put_twin" => (&[&self.device], Body::Json(json!({})), true),
            "create_claim_token" | "revoke_device" => (&[&self.spare_device], Body::None, true),
            "create_door_command" => (&[&self.door], Body::Json(json!({ "kind": "unlock" })), true),
            "unlock_door" => (&[&self.door], Body::Json(json!({})), true),
            "get_site" => (&[&self.site], Body::None, true),
            "get_person" | "list_negative_anchors" => (&[&self.person], Body::None, true),
            "update_person" => (&[&self.person], Body::Json(json!({ "name": canary("changed name") })), true),
            "delete_person" => (&[&self.spare_person], Body::None, true),
            "create_enrolment" => (&[&self.person], Body::Photograph(self.photograph.clone()), true),
            "create_negative_anchor" => (&[&self.person], Body::Photograph(self.other_photograph.clone()), true),
            "delete_negative_anchor" => (&[&self.person, &self.spare_anchor], Body::None, true),
            "delete_webhook" => (&[&self.spare_webhook], Body::None, true),
            new => bail!("how does {new} ask about another tenant? tests/faults/src/isolation/request.rs does not say"),
        };
        Ok(Request { path: filled(&operation.path, ids)?, body, names_a_thing: in_body })
    }
}

/// How a platform administrator would use this operation: of a tenant of that id and name, which is theirs to end.
pub fn of_platform(operation: &Operation, tenant: &str, name: &str, number: u64) -> Result<Request> {
    let (ids, query, body): (&[&str], String, Body) = match operation.id.as_str() {
        "admin_list_tenants" | "admin_list_search_paths" | "admin_get_settings" | "admin_list_settings_versions" => {
            (&[], String::new(), Body::None)
        }
        "admin_create_tenant" => (&[], String::new(), Body::Json(json!({ "name": format!("fresh {number}") }))),
        "admin_put_settings" => (&[], String::new(), Body::Json(json!({ "changes": {}, "dry_run": true }))),
        "admin_get_tenant" | "admin_suspend_tenant" | "admin_resume_tenant" => (&[tenant], String::new(), Body::None),
        "admin_change_tenant" => (&[tenant], String::new(), Body::Json(json!({ "tier": "enterprise" }))),
        "admin_delete_tenant" => (&[tenant], format!("?confirm={name}"), Body::None),
        new => bail!("how is {new} used? tests/faults/src/isolation/request.rs does not say"),
    };
    Ok(Request { path: filled(&operation.path, ids)? + &query, body, names_a_thing: false })
}

/// The path with ids in the places of its parameters, one after the other.
fn filled(path: &str, ids: &[&str]) -> Result<String> {
    let mut ids = ids.iter();
    let parts: Vec<&str> = path
        .split('/')
        .map(|part| if part.starts_with('{') { ids.next().copied().context("too few ids") } else { Ok(part) })
        .collect::<Result<_>>()
        .with_context(|| path.to_owned())?;
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::filled;

    #[test]
    fn ids_take_the_places_of_parameters() {
        assert_eq!(
            filled("/v1/people/{id}/negative-anchors/{anchor}", &["a", "b"]).unwrap(),
            "/v1/people/a/negative-anchors/b"
        );
        assert_eq!(filled("/v1/people", &[]).unwrap(), "/v1/people");
        assert!(filled("/v1/people/{id}", &[]).is_err());
    }
}
