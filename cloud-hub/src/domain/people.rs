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
}

/// Opened bytes that are no profile.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored profile is not of a version that this program knows")]
pub struct ProfileError;

impl Profile {
    /// The bytes to seal.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        json!({ "v": 1, "external_id": self.external_id, "name": self.name, "email": self.email })
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
        Ok(Self { external_id: text("external_id"), name: text("name").ok_or(ProfileError)?, email: text("email") })
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
        let profile = Profile { external_id: Some("e-1".into()), name: "Ada \"Q\" Lovelace".into(), email: None };
        assert_eq!(Profile::from_bytes(&profile.to_bytes()), Ok(profile.clone()));
        assert_eq!(format!("{profile:?}"), "Profile(***)");
    }

    #[test]
    fn other_versions_are_refused() {
        assert_eq!(Profile::from_bytes(br#"{"v":2,"name":"x"}"#), Err(ProfileError));
        assert_eq!(Profile::from_bytes(b"[]"), Err(ProfileError));
        assert_eq!(Profile::from_bytes(br#"{"v":1}"#), Err(ProfileError));
    }
}
