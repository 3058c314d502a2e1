//! What was agreed upon with a tenant: its tier, and where it differs from it in quotas, allowance and features.
//!
//! In: a tier and the differences. Out: quotas, whether one more is within them, and which features there are. Deliberately
//! absent: counting (`store::tenants`), and how requests are limited (`domain::limit`).

use std::fmt;
use std::str::FromStr;

use super::limit::Allowance;
use super::permission::Permission;

/// What was agreed upon with the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A shop with a few doors.
    Basic,
    /// A company with several sites.
    Professional,
    /// No quotas but those that are set by hand. Who runs a hub for themselves has this one.
    Enterprise,
}

impl Tier {
    /// All there are, the smallest first.
    pub const ALL: &[Self] = &[Self::Basic, Self::Professional, Self::Enterprise];

    /// As documents and the command line name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Professional => "professional",
            Self::Enterprise => "enterprise",
        }
    }

    fn quota(self, resource: Resource) -> Option<u64> {
        match (self, resource) {
            (Self::Basic, Resource::People) => Some(500),
            (Self::Basic, Resource::Templates) => Some(2_500),
            (Self::Basic, Resource::Devices) => Some(10),
            (Self::Basic, Resource::Sessions) => Some(20),
            (Self::Professional, Resource::People) => Some(10_000),
            (Self::Professional, Resource::Templates) => Some(50_000),
            (Self::Professional, Resource::Devices) => Some(200),
            (Self::Professional, Resource::Sessions) => Some(200),
            // Events are kept for good: whoever agrees upon a bound has reckoned how long it lasts.
            (Self::Enterprise, _) | (_, Resource::Storage) => None,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no tier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no tier: basic, professional or enterprise")]
pub struct UnknownTier(String);

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(word: &str) -> Result<Self, UnknownTier> {
        let found = Self::ALL.iter().copied().find(|tier| tier.as_str() == word);
        found.ok_or_else(|| UnknownTier(word.chars().take(40).collect()))
    }
}

/// What there is a quota of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// People who are not deleted.
    People,
    /// Their templates, of every embedding space.
    Templates,
    /// Devices that are not revoked.
    Devices,
    /// Sessions that are open at the same time.
    Sessions,
    /// Bytes of what is kept: the events of the feed, and what is sealed of people.
    Storage,
}

impl Resource {
    /// All there are.
    pub const ALL: &[Self] = &[Self::People, Self::Templates, Self::Devices, Self::Sessions, Self::Storage];

    /// As documents name it, in the plural.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Templates => "templates",
            Self::Devices => "devices",
            Self::Sessions => "sessions",
            Self::Storage => "storage",
        }
    }

    /// What is counted of it, as refusals say it.
    #[must_use]
    pub const fn counted(self) -> &'static str {
        match self {
            Self::Storage => "bytes of storage",
            _ => self.as_str(),
        }
    }
}

/// Where a tenant differs from its tier: for each resource nothing, another quota, or none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides([Option<Option<u64>>; Resource::ALL.len()]);

impl Overrides {
    /// What is said of a resource; the outer `None`: nothing, the tier's holds.
    #[must_use]
    pub fn of(&self, resource: Resource) -> Option<Option<u64>> {
        self.0[resource as usize]
    }

    /// The same with this one said otherwise.
    #[must_use]
    pub fn with(mut self, resource: Resource, quota: Option<Option<u64>>) -> Self {
        self.0[resource as usize] = quota;
        self
    }
}

/// Something that a tenant may be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Calls to an address of the tenant's.
    Webhooks,
    /// Programs that read the feed at the broker.
    Consumers,
    /// Photographs and templates compared over the API.
    Recognition,
}

impl Feature {
    /// All there are.
    pub const ALL: &[Self] = &[Self::Webhooks, Self::Consumers, Self::Recognition];

    /// As documents name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhooks => "webhooks",
            Self::Consumers => "consumers",
            Self::Recognition => "recognition",
        }
    }

    /// The feature that a permission is of, if it is of one that can be switched off. What is there can be looked at and taken
    /// down without it.
    #[must_use]
    pub const fn of(permission: Permission) -> Option<Self> {
        match permission {
            Permission::WebhooksWrite => Some(Self::Webhooks),
            Permission::ConsumersWrite => Some(Self::Consumers),
            Permission::RecognitionUse | Permission::RecognitionEmbed => Some(Self::Recognition),
            _ => None,
        }
    }

    fn of_tier(self, tier: Tier) -> bool {
        match self {
            Self::Webhooks => true,
            Self::Consumers | Self::Recognition => tier != Tier::Basic,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a tenant's features differ from its tier's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches([Option<bool>; Feature::ALL.len()]);

impl Switches {
    /// What is said of a feature; `None`: nothing, the tier's holds.
    #[must_use]
    pub fn of(&self, feature: Feature) -> Option<bool> {
        self.0[feature as usize]
    }

    /// The same with this one said otherwise.
    #[must_use]
    pub fn with(mut self, feature: Feature, on: Option<bool>) -> Self {
        self.0[feature as usize] = on;
        self
    }
}

/// What was agreed upon with a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// What holds where nothing else is said.
    pub tier: Tier,
    /// Other quotas.
    pub quotas: Overrides,
    /// Another allowance of requests.
    pub allowance: Allowance,
    /// Other features.
    pub features: Switches,
}

impl Agreement {
    /// A tier as it is.
    #[must_use]
    pub fn of(tier: Tier) -> Self {
        Self { tier, quotas: Overrides::default(), allowance: Allowance::default(), features: Switches::default() }
    }

    /// How many of a resource there may be; `None`: as many as the tenant likes.
    #[must_use]
    pub fn quota(&self, resource: Resource) -> Option<u64> {
        quota(self.tier, &self.quotas, resource)
    }

    /// Whether the tenant has a feature.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.of(feature).unwrap_or_else(|| feature.of_tier(self.tier))
    }
}

/// How many of a resource a tenant may have; `None`: as many as it likes.
#[must_use]
fn quota(tier: Tier, overrides: &Overrides, resource: Resource) -> Option<u64> {
    overrides.of(resource).unwrap_or_else(|| tier.quota(resource))
}

/// Whether one more is within `quota` where there are `present` already. A quota that was lowered below what is there takes
/// nothing away.
#[must_use]
pub fn admits_one_more(quota: Option<u64>, present: u64) -> bool {
    quota.is_none_or(|quota| present < quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_tier_has_no_smaller_quota() {
        for resource in Resource::ALL {
            for pair in Tier::ALL.windows(2) {
                let of = |tier| quota(tier, &Overrides::default(), *resource).unwrap_or(u64::MAX);
                assert!(of(pair[0]) <= of(pair[1]), "{resource:?} of {pair:?}");
            }
        }
    }

    #[test]
    fn what_is_said_of_the_tenant_wins_over_its_tier() {
        let own = Overrides::default().with(Resource::People, Some(Some(3))).with(Resource::Devices, Some(None));
        assert_eq!(quota(Tier::Basic, &own, Resource::People), Some(3));
        assert_eq!(quota(Tier::Basic, &own, Resource::Devices), None);
        assert_eq!(quota(Tier::Basic, &own, Resource::Templates), Some(2_500));
        assert_eq!(quota(Tier::Basic, &own.with(Resource::People, None), Resource::People), Some(500));
        assert_eq!(quota(Tier::Enterprise, &own, Resource::People), Some(3));
    }

    #[test]
    fn the_last_one_fits_and_the_next_does_not() {
        assert!(admits_one_more(Some(3), 2) && !admits_one_more(Some(3), 3) && !admits_one_more(Some(3), 9));
        assert!(!admits_one_more(Some(0), 0) && admits_one_more(None, u64::MAX));
    }

    #[test]
    fn features_are_the_tiers_unless_something_is_said() {
        let basic = Agreement::of(Tier::Basic);
        assert!(basic.has(Feature::Webhooks) && !basic.has(Feature::Recognition));
        let told = basic.features.with(Feature::Recognition, Some(true)).with(Feature::Webhooks, Some(false));
        let told = Agreement { features: told, ..basic };
        assert!(!told.has(Feature::Webhooks) && told.has(Feature::Recognition) && !told.has(Feature::Consumers));
        assert!(Feature::ALL.iter().all(|feature| Agreement::of(Tier::Enterprise).has(*feature)));
    }

    #[test]
    fn what_only_reads_needs_no_feature() {
        for permission in Permission::ALL.iter().filter(|permission| permission.as_str().ends_with(":read")) {
            assert_eq!(Feature::of(*permission), None, "{permission}");
        }
    }

    #[test]
    fn what_can_be_switched_off_is_needed_to_use_it() {
        for (permission, feature) in [
            (Permission::WebhooksWrite, Feature::Webhooks),
            (Permission::ConsumersWrite, Feature::Consumers),
            (Permission::RecognitionUse, Feature::Recognition),
            (Permission::RecognitionEmbed, Feature::Recognition),
        ] {
            assert_eq!(Feature::of(permission), Some(feature));
        }
    }

    #[test]
    fn tiers_read_back() {
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().parse(), Ok(*tier));
        }
        assert!("gold".parse::<Tier>().unwrap_err().to_string().contains("`gold`"));
    }
}
