//! What is agreed upon with a tenant, changed by whoever administers the platform: tier, quotas, requests and features.
//!
//! What is left out stays as it is, and `"tier"` goes back to what the tier has.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{AdditionalProperties, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};
use wire_contract::Code;

use super::body::Fields;
use super::openapi::words;
use super::problem::ApiError;
use super::state::Api;
use hub_domain::ids::TenantId;
use hub_domain::limit::Span;
use hub_domain::tenant::{Agreement, Feature, Resource, Tier};
use hub_store::{audit, tenants};

/// The largest quota that can be written: more than there are people on earth, and a number in every language.
const MAX_QUOTA: u64 = 1_000_000_000_000;

/// What is to change.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AgreementChanges)]
pub(super) struct Changes {
    #[serde(default)]
    #[schema(value_type = Option<words::Tier>)]
    tier: Option<String>,
    /// For each resource a count, `null` for none, or `"tier"`.
    #[serde(default)]
    #[schema(schema_with = quotas_schema)]
    quotas: Option<Map<String, Value>>,
    /// `per_hour` and `per_day`: a count or `"tier"`.
    #[serde(default)]
    #[schema(schema_with = requests_schema)]
    requests: Option<Map<String, Value>>,
    /// For each feature whether it is there, or `"tier"`.
    #[serde(default)]
    #[schema(schema_with = features_schema)]
    features: Option<Map<String, Value>>,
}

/// An object of these members, each of one of these kinds or `"tier"`, or `null`.
fn members(names: impl Iterator<Item = String>, kind: ObjectBuilder) -> ObjectBuilder {
    let member: RefOr<Schema> = OneOfBuilder::new().item(kind).item(words::OfTier::schema()).into();
    let closed = AdditionalProperties::<Schema>::FreeForm(false);
    let object = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null]));
    names.fold(object.additional_properties(Some(closed)), |object, name| object.property(name, member.clone()))
}

fn quotas_schema() -> ObjectBuilder {
    let count = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Integer, Type::Null]));
    let count = count.minimum(Some(0)).maximum(Some(MAX_QUOTA));
    members(Resource::ALL.iter().map(|resource| resource.as_str().to_owned()), count)
}

fn requests_schema() -> ObjectBuilder {
    let count = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(u32::MAX));
    members([Span::Hour, Span::Day].iter().map(|span| format!("per_{}", span.as_str())), count)
}

fn features_schema() -> ObjectBuilder {
    let on = ObjectBuilder::new().schema_type(Type::Boolean);
    members(Feature::ALL.iter().map(|feature| feature.as_str().to_owned()), on)
}

impl Fields for Changes {
    const KNOWN: &'static [&'static str] = &["tier", "quotas", "requests", "features"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// Reads a tier's name.
pub(super) fn tier(word: &str) -> Result<Tier, ApiError> {
    word.parse().map_err(|error| ApiError::field("/tier", Code::InvalidField, format!("{error}")))
}

/// Changes what was agreed upon. Of two operators at once the second changes what the first has left.
pub(super) async fn change(api: &Api, tenant: TenantId, changes: &Changes, actor: String) -> Result<(), ApiError> {
    let tier = changes.tier.as_deref().map(tier).transpose()?;
    // Read once before anything is asked, so that the transaction cannot fail by what was sent.
    applied(Agreement::of(Tier::Basic), tier, changes)?;
    let changes = changes.clone();
    api.db
        .tenant(tenant, move |tx| {
            Box::pin(async move {
                let present = tenants::lock(tx).await?.agreement;
                let next = applied(present, tier, &changes)?;
                tenants::agree(tx, &next).await?;
                let entry = audit::Entry {
                    actor: &actor,
                    action: audit::Action::TenantAgree,
                    object_kind: "tenant",
                    object_id: Some(tenant.0),
                    detail: json!({
                        "tier": next.tier.as_str(),
                        "was": present.tier.as_str(),
                        "quotas": changes.quotas.unwrap_or_default(),
                        "requests": changes.requests.unwrap_or_default(),
                        "features": changes.features.unwrap_or_default(),
                    }),
                };
                Ok::<_, ApiError>(audit::write(tx, entry).await?)
            })
        })
        .await?;
    api.custody.forget_keys(tenant);
    Ok(())
}

fn applied(mut agreed: Agreement, tier: Option<Tier>, changes: &Changes) -> Result<Agreement, ApiError> {
    let invalid =
        |part: &str, name: &str, message: &str| ApiError::field(format!("/{part}/{name}"), Code::InvalidField, message);
    agreed.tier = tier.unwrap_or(agreed.tier);
    for (name, quota) in changes.quotas.iter().flatten() {
        let invalid = |message| invalid("quotas", name, message);
        let resource = Resource::ALL.iter().find(|resource| resource.as_str() == name);
        let resource = *resource.ok_or_else(|| invalid("there is no quota of this: people, templates or devices"))?;
        let quota = match quota {
            Value::Null => Some(None),
            Value::String(word) if word == "tier" => None,
            count => {
                let count = count.as_u64().filter(|count| *count <= MAX_QUOTA);
                Some(Some(count.ok_or_else(|| invalid("must be a count up to 10^12, null or \"tier\""))?))
            }
        };
        agreed.quotas = agreed.quotas.with(resource, quota);
    }
    for (name, count) in changes.requests.iter().flatten() {
        let invalid = |message| invalid("requests", name, message);
        let count = match count {
            Value::String(word) if word == "tier" => None,
            count => {
                let count = count.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
                Some(count.ok_or_else(|| invalid("must be a count from 1 to 4294967295, or \"tier\""))?)
            }
        };
        match name.as_str() {
            "per_hour" => agreed.allowance.per_hour = count,
            "per_day" => agreed.allowance.per_day = count,
            _ => return Err(invalid("there is no such limit: per_hour or per_day")),
        }
    }
    for (name, on) in changes.features.iter().flatten() {
        let invalid = |message| invalid("features", name, message);
        let feature = Feature::ALL.iter().find(|feature| feature.as_str() == name);
        let feature =
            *feature.ok_or_else(|| invalid("there is no such feature: webhooks, consumers or recognition"))?;
        let on = match on {
            Value::Bool(on) => Some(*on),
            Value::String(word) if word == "tier" => None,
            _ => return Err(invalid("must be true, false or \"tier\"")),
        };
        agreed.features = agreed.features.with(feature, on);
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(value: Value) -> Changes {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_left_out_stays_and_tier_goes_back() {
        let first = changes(json!({
            "quotas": { "people": 3, "devices": null },
            "requests": { "per_hour": 60 },
            "features": { "recognition": true },
        }));
        let agreed = applied(Agreement::of(Tier::Basic), None, &first).unwrap();
        assert_eq!((agreed.quota(Resource::People), agreed.quota(Resource::Devices)), (Some(3), None));
        assert_eq!(agreed.allowance.of(agreed.tier, Span::Hour), Some(60));
        assert!(agreed.has(Feature::Recognition));
        let second = changes(json!({ "requests": { "per_hour": "tier" }, "features": { "recognition": "tier" } }));
        let agreed = applied(agreed, Some(Tier::Professional), &second).unwrap();
        assert_eq!((agreed.quota(Resource::People), agreed.quota(Resource::Devices)), (Some(3), None));
        assert_eq!(agreed.allowance.of(agreed.tier, Span::Hour), Some(100_000));
        assert!(agreed.has(Feature::Recognition), "the tier has it");
    }

    #[test]
    fn what_makes_no_sense_is_told_by_its_place() {
        for (wrong, pointer) in [
            (json!({ "quotas": { "cats": 3 } }), "/quotas/cats"),
            (json!({ "quotas": { "people": -1 } }), "/quotas/people"),
            (json!({ "quotas": { "people": MAX_QUOTA + 1 } }), "/quotas/people"),
            (json!({ "requests": { "per_week": 3 } }), "/requests/per_week"),
            (json!({ "requests": { "per_hour": 0 } }), "/requests/per_hour"),
            (json!({ "requests": { "per_hour": null } }), "/requests/per_hour"),
            (json!({ "features": { "magic": true } }), "/features/magic"),
            (json!({ "features": { "webhooks": 1 } }), "/features/webhooks"),
        ] {
            let error = applied(Agreement::of(Tier::Basic), None, &changes(wrong)).unwrap_err();
            assert!(format!("{error:?}").contains(pointer), "{pointer}: {error:?}");
        }
    }
}
