//! What the hub knows of a person besides their face: the part that is sealed under their own key.
//!
//! In and out: [`Profile`] and its bytes. The bytes are versioned JSON, so that a later field needs no new seal.

use serde_json::{Value, json};

/// Name and addresses of a person. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// The integrator's own id; unique per tenant.
    pub external_id: Option<String>,
    /// The name, as people read it.
    pub name: String,
    /// An e-mail address.
    pub email: Option<String>,
    /// What doors hear of them.
    pub access: Access,
}

/// When and as whom a person may be let in. Doors get it as ids and numbers, without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The groups that they are in, sorted, each once ([`Access::new`] sees to it).
    pub groups: Vec<String>,
    /// Not before this time, in seconds since 1970.
    pub valid_from: Option<i64>,
    /// Not at or after this time.
    pub valid_until: Option<i64>,
}

impl Access {
    /// Groups in any order, and a time.
    #[must_use]
    pub fn new(mut groups: Vec<String>, valid_from: Option<i64>, valid_until: Option<i64>) -> Self {
        groups.sort_unstable();
        groups.dedup();
        Self { groups, valid_from, valid_until }
    }
}

/// Opened bytes that are no profile.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored profile is not of a version that this program knows")]
pub struct ProfileError;

impl Profile {
    /// The bytes to seal.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Access { groups, valid_from, valid_until } = &self.access;
        json!({
            "v": 1, "external_id": self.external_id, "name": self.name, "email": self.email,
            "groups": groups, "valid_from": valid_from, "valid_until": valid_until,
        })
        .to_string()
        .into_bytes()
    }

    /// Reads what [`Profile::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProfileError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| ProfileError)?;
        if value["v"] != json!(1) {
            return Err(ProfileError);
        }
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        // Profiles of before groups have none of these.
        let groups = value["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
        let groups = groups.iter().map(|group| group.as_str().map(str::to_owned)).collect::<Option<_>>();
        let access =
            Access::new(groups.ok_or(ProfileError)?, value["valid_from"].as_i64(), value["valid_until"].as_i64());
        let name = text("name").ok_or(ProfileError)?;
        Ok(Self { external_id: text("external_id"), name, email: text("email"), access })
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Profile(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_round_trips_and_does_not_print() {
        let access = Access::new(vec!["visitors".into(), "night".into(), "night".into()], Some(5), None);
        assert_eq!(access.groups, ["night", "visitors"]);
        let profile =
            Profile { external_id: Some("e-1".into()), name: "Ada \"Q\" Lovelace".into(), email: None, access };
        assert_eq!(Profile::from_bytes(&profile.to_bytes()), Ok(profile.clone()));
        assert_eq!(format!("{profile:?}"), "Profile(***)");
    }

    #[test]
    fn a_profile_of_before_groups_has_none() {
        let old = br#"{"v":1,"external_id":null,"name":"x","email":null}"#;
        assert_eq!(Profile::from_bytes(old).unwrap().access, Access::default());
    }

    #[test]
    fn other_versions_are_refused() {
        assert_eq!(Profile::from_bytes(br#"{"v":2,"name":"x"}"#), Err(ProfileError));
        assert_eq!(Profile::from_bytes(b"[]"), Err(ProfileError));
        assert_eq!(Profile::from_bytes(br#"{"v":1}"#), Err(ProfileError));
    }
}
