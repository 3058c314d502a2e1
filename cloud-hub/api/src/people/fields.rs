//! What may be said of a person, checked once for whoever says it: a request, the command line, a line of an import.

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use uuid::Uuid;
use wire_contract::Timestamp;

use super::{MAX_EMAIL, MAX_SITES};
use crate::body::{Checks, Fields};
use crate::openapi::texts;
use crate::problem::ApiError;
use crate::sites::MAX_NAME;
use hub_domain::ids::SiteId;
use hub_domain::people::{Access, Profile};

/// Groups of one person.
const MAX_GROUPS: usize = 32;

/// A person to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPerson {
    /// Their number in the caller's own system; one person has it.
    #[schema(value_type = texts::Name)]
    external_id: String,
    #[schema(value_type = texts::Name)]
    name: String,
    #[serde(default)]
    #[schema(value_type = Option<texts::Email>)]
    email: Option<String>,
    /// Where they are known; at every site without it.
    #[serde(default)]
    #[schema(max_items = 1_000)]
    site_ids: Option<Vec<Uuid>>,
    /// The groups that they are in, for rules at doors.
    #[serde(default)]
    #[schema(value_type = Vec<texts::Name>, max_items = 32, required = false)]
    groups: Vec<String>,
    /// Doors let them in from then on.
    #[serde(default)]
    #[schema(value_type = Option<texts::Moment>)]
    valid_from: Option<Timestamp>,
    /// Doors do not let them in from then on.
    #[serde(default)]
    #[schema(value_type = Option<texts::Moment>)]
    valid_until: Option<Timestamp>,
}

impl Fields for NewPerson {
    const KNOWN: &'static [&'static str] =
        &["external_id", "name", "email", "site_ids", "groups", "valid_from", "valid_until"];
    const REQUIRED: &'static [&'static str] = &["external_id", "name"];
}

impl NewPerson {
    /// What is known of them, and where; every mistake at once.
    pub(crate) fn checked(self) -> Result<(Profile, Option<Vec<SiteId>>), ApiError> {
        let mut checks = Checks::default();
        check_groups(&mut checks, &self.groups);
        checks
            .text("/external_id", &self.external_id, MAX_NAME)
            .text("/name", &self.name, MAX_NAME)
            .that(self.email.as_deref().is_none_or(is_email), "/email", "is no mail address")
            .that(self.site_ids.as_ref().is_none_or(|ids| ids.len() <= MAX_SITES), "/site_ids", "holds too many sites")
            .done()?;
        let access = Access::new(self.groups, self.valid_from.map(seconds), self.valid_until.map(seconds));
        let profile = Profile { external_id: Some(self.external_id), name: self.name, email: self.email, access };
        let mut sites: Option<Vec<SiteId>> = self.site_ids.map(|ids| ids.into_iter().map(SiteId).collect());
        if let Some(sites) = &mut sites {
            sites.sort_unstable();
            sites.dedup();
        }
        Ok((profile, sites))
    }
}

/// What is to be otherwise: what is not named stays, and `null` takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersonChanges {
    #[serde(default, deserialize_with = "there")]
    #[schema(value_type = texts::Name, required = false)]
    external_id: Option<String>,
    #[serde(default, deserialize_with = "there")]
    #[schema(value_type = texts::Name, required = false)]
    name: Option<String>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<texts::Email>)]
    email: Option<Option<String>>,
    /// All of them: they take the place of those before.
    #[serde(default, deserialize_with = "there")]
    #[schema(value_type = Vec<texts::Name>, max_items = 32, required = false)]
    groups: Option<Vec<String>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<texts::Moment>)]
    valid_from: Option<Option<Timestamp>>,
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<texts::Moment>)]
    valid_until: Option<Option<Timestamp>>,
}

impl Fields for PersonChanges {
    const KNOWN: &'static [&'static str] = &["external_id", "name", "email", "groups", "valid_from", "valid_until"];
    const REQUIRED: &'static [&'static str] = &[];
}

/// A field that is there, and not `null`.
fn there<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// A field that is there, be it `null`.
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

impl PersonChanges {
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let mut checks = Checks::default();
        if let Some(external_id) = &self.external_id {
            checks.text("/external_id", external_id, MAX_NAME);
        }
        if let Some(name) = &self.name {
            checks.text("/name", name, MAX_NAME);
        }
        let email = self.email.iter().flatten().all(|email| is_email(email));
        checks.that(email, "/email", "is no mail address");
        check_groups(&mut checks, self.groups.as_deref().unwrap_or_default());
        checks.done()
    }

    /// The profile with them.
    pub(crate) fn apply(self, mut profile: Profile) -> Profile {
        let second = |at: Option<Timestamp>| at.map(seconds);
        profile.external_id = self.external_id.or(profile.external_id);
        profile.name = self.name.unwrap_or(profile.name);
        profile.email = self.email.unwrap_or(profile.email);
        let before = profile.access;
        profile.access = Access::new(
            self.groups.unwrap_or(before.groups),
            self.valid_from.map_or(before.valid_from, second),
            self.valid_until.map_or(before.valid_until, second),
        );
        profile
    }
}

fn check_groups(checks: &mut Checks, groups: &[String]) {
    checks.that(groups.len() <= MAX_GROUPS, "/groups", "holds more than 32 groups");
    for (number, group) in groups.iter().enumerate() {
        checks.text(&format!("/groups/{number}"), group, MAX_NAME);
    }
}

/// Doors count in whole seconds.
fn seconds(at: Timestamp) -> i64 {
    at.unix_seconds()
}

fn is_email(text: &str) -> bool {
    text.chars().count() <= MAX_EMAIL
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_email;

    #[test]
    fn mail_addresses_have_a_form() {
        assert!(is_email("ada@example.org"));
        for wrong in ["", "ada", "@example.org", "ada@", "a b@example.org", "a\n@b"] {
            assert!(!is_email(wrong), "{wrong:?}");
        }
    }
}
