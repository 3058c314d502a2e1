//! MQTT topics: the only place where topic strings, filters and broker access lines are made or taken apart.
//!
//! ```text
//! lintel/v1/{tenant}/{device}/up/{channel}     written by that device alone
//! lintel/v1/{tenant}/{device}/down/{channel}   read by that device alone
//! lintel/v1/{tenant}/_feed/{class}             committed events, for consumers
//! ```
//!
//! In: ids. Out: strings, or a [`Topic`] back from a string. Ids appear in one spelling (lower case, hyphens), since
//! brokers compare text: a topic in another spelling is refused, not corrected.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{DeviceId, TenantId};

const ROOT: &str = "lintel/v1";
const FEED: &str = "_feed";

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word in topics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The value with this word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a device may publish.
    UpChannel {
        /// Online or offline; QoS 1, retained, also the last will. [`crate::Status`].
        Status = "status",
        /// Batches of events; QoS 1. [`crate::Batch`].
        Evt = "evt",
        /// Metrics and sensors; QoS 0, no HMAC, may be lost.
        Tele = "tele",
        /// Reported configuration; QoS 1, retained.
        Twin = "twin",
        /// State of the galleries; QoS 1. [`crate::GalleryUp`].
        Gallery = "gallery",
        /// Progress of commands; QoS 1.
        Cmd = "cmd",
        /// SDP and ICE answers; QoS 1.
        Rtc = "rtc",
    }
}

words! {
    /// What a device may read. Every payload is sealed under its K_down.
    DownChannel {
        /// Desired configuration; QoS 1, retained.
        Twin = "twin",
        /// Log records and orders to rebuild; QoS 1. [`crate::GalleryDown`].
        Gallery = "gallery",
        /// Commands; QoS 1, with expiry.
        Cmd = "cmd",
        /// What the hub has committed; QoS 1, not retained. [`crate::EvtAck`].
        Evtack = "evtack",
        /// SDP and ICE offers; QoS 1.
        Rtc = "rtc",
    }
}

words! {
    /// The class of an event: the second word of its type, and the feed topic it appears on.
    EventClass {
        /// Someone was let in or refused.
        Access = "access",
        /// A face came or went.
        Face = "face",
        /// A door was opened, closed, held or forced.
        Door = "door",
        /// A liveness check of its own.
        Liveness = "liveness",
        /// Someone opened the housing or covered the camera.
        Tamper = "tamper",
        /// A camera stalled or came back.
        Camera = "camera",
        /// Someone was enrolled.
        Enrolment = "enrolment",
        /// A person's record changed or was deleted.
        Person = "person",
        /// The agent or the hub speaks of itself.
        System = "system",
    }
}

impl DownChannel {
    /// Whether the broker keeps the last message for whoever subscribes later.
    pub const fn retained(self) -> bool {
        matches!(self, Self::Twin)
    }
}

impl UpChannel {
    /// Whether the broker keeps the last message for subscribers that come later.
    pub const fn retained(self) -> bool {
        matches!(self, Self::Status | Self::Twin)
    }

    /// Whether payloads carry an HMAC ([`crate::envelope`]).
    pub const fn authenticated(self) -> bool {
        !matches!(self, Self::Tele)
    }

    /// Whether hub replicas divide it by a shared subscription; retained messages are not sent on those.
    pub const fn shared(self) -> bool {
        matches!(self, Self::Evt | Self::Cmd | Self::Gallery | Self::Tele)
    }
}

/// A topic of ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// From a device to the hub.
    Up {
        /// The device's tenant, as the topic claims; the broker's access lines make it true.
        tenant: TenantId,
        /// The device.
        device: DeviceId,
        /// What it is about.
        channel: UpChannel,
    },
    /// From the hub to a device.
    Down {
        /// The device's tenant.
        tenant: TenantId,
        /// The device.
        device: DeviceId,
        /// What it is about.
        channel: DownChannel,
    },
    /// From the hub to consumers.
    Feed {
        /// The tenant whose events they are.
        tenant: TenantId,
        /// The class of the events.
        class: EventClass,
    },
}

/// The string is no topic of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a Lintel topic: {problem}")]
pub struct TopicError {
    /// The topic, cut to 200 characters.
    pub found: String,
    /// What is wrong with it.
    pub problem: TopicProblem,
}

/// What can be wrong with a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicProblem {
    /// Another beginning, or another number of levels.
    Shape,
    /// Not a UUID in lower case with hyphens.
    Id,
    /// A channel or class that this program does not know.
    Word,
}

impl fmt::Display for TopicProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape => "it has other levels",
            Self::Id => "an id is not a lower-case UUID",
            Self::Word => "its last level is not known",
        })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { tenant, device, channel } => write!(f, "{ROOT}/{tenant}/{device}/up/{channel}"),
            Self::Down { tenant, device, channel } => write!(f, "{ROOT}/{tenant}/{device}/down/{channel}"),
            Self::Feed { tenant, class } => write!(f, "{ROOT}/{tenant}/{FEED}/{class}"),
        }
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| TopicError { found: text.chars().take(200).collect(), problem })
    }
}

fn parse(text: &str) -> Result<Topic, TopicProblem> {
    // Seven pieces are enough to see that there are too many.
    let levels: Vec<&str> = text.splitn(7, '/').collect();
    match levels[..] {
        ["lintel", "v1", tenant, FEED, class] => Ok(Topic::Feed {
            tenant: TenantId(parse_id(tenant)?),
            class: EventClass::from_word(class).ok_or(TopicProblem::Word)?,
        }),
        ["lintel", "v1", tenant, device, "up", channel] => Ok(Topic::Up {
            tenant: TenantId(parse_id(tenant)?),
            device: DeviceId(parse_id(device)?),
            channel: UpChannel::from_word(channel).ok_or(TopicProblem::Word)?,
        }),
        ["lintel", "v1", tenant, device, "down", channel] => Ok(Topic::Down {
            tenant: TenantId(parse_id(tenant)?),
            device: DeviceId(parse_id(device)?),
            channel: DownChannel::from_word(channel).ok_or(TopicProblem::Word)?,
        }),
        _ => Err(TopicProblem::Shape),
    }
}

fn parse_id(text: &str) -> Result<Uuid, TopicProblem> {
    let id = Uuid::try_parse(text).map_err(|_| TopicProblem::Id)?;
    // `try_parse` also takes upper case, braces and URNs; a broker would take those for other topics.
    if id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text { Ok(id) } else { Err(TopicProblem::Id) }
}

/// The filter with which a device subscribes to everything that is for it.
pub fn device_filter(tenant: TenantId, device: DeviceId) -> String {
    format!("{ROOT}/{tenant}/{device}/down/+")
}

/// The filters with which one hub replica subscribes to all devices: shared where replicas divide the work, plain where
/// each needs every message (retained ones are not sent on shared subscriptions).
///
/// `share` names the group. It is one word that all replicas know and no device may know: a broker that checks no right when
/// somebody subscribes (Mosquitto) gives each message to one member of the group, and drops it when that one may not read it.
pub fn hub_filters(share: &str) -> Vec<String> {
    UpChannel::ALL
        .iter()
        .map(|channel| {
            let share = if channel.shared() { format!("$share/{share}/") } else { String::new() };
            format!("{share}{ROOT}/+/+/up/{channel}")
        })
        .collect()
}

/// The filter with which a consumer reads one class of a tenant's feed, or all of it.
pub fn feed_filter(tenant: TenantId, class: Option<EventClass>) -> String {
    match class {
        Some(class) => format!("{ROOT}/{tenant}/{FEED}/{class}"),
        None => format!("{ROOT}/{tenant}/{FEED}/+"),
    }
}

/// Access lines in Mosquitto's `acl_file` form. Each function returns whole lines with a line feed at the end.
pub mod acl {
    use super::{DeviceId, FEED, ROOT, TenantId};

    /// The lines of one device, whose user name is its id: it may write `up` and read `down`, nothing else.
    pub fn device(tenant: TenantId, device: DeviceId) -> String {
        let base = format!("{ROOT}/{tenant}/{device}");
        format!("user {device}\ntopic write {base}/up/#\ntopic read {base}/down/#\n")
    }

    /// The lines of the hub itself.
    ///
    /// `user` must be one word; the hub's configuration makes it, not a tenant.
    pub fn hub(user: &str) -> String {
        format!(
            "user {user}\ntopic read {ROOT}/+/+/up/#\ntopic write {ROOT}/+/+/down/#\ntopic write {ROOT}/+/{FEED}/#\n"
        )
    }

    /// The lines of a consumer that may read one tenant's feed.
    ///
    /// `user` must be one word; the hub makes it, not a tenant.
    pub fn consumer(user: &str, tenant: TenantId) -> String {
        format!("user {user}\ntopic read {ROOT}/{tenant}/{FEED}/#\n")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_topic() -> impl Strategy<Value = Topic> {
        let ids = (any::<u128>(), any::<u128>())
            .prop_map(|(t, d)| (TenantId(Uuid::from_u128(t)), DeviceId(Uuid::from_u128(d))));
        (ids, 0..3, any::<prop::sample::Index>()).prop_map(|((tenant, device), kind, index)| match kind {
            0 => Topic::Up { tenant, device, channel: *index.get(UpChannel::ALL) },
            1 => Topic::Down { tenant, device, channel: *index.get(DownChannel::ALL) },
            _ => Topic::Feed { tenant, class: *index.get(EventClass::ALL) },
        })
    }

    proptest! {
        #[test]
        fn topics_survive_the_round_trip(topic in any_topic()) {
            prop_assert_eq!(topic.to_string().parse::<Topic>().unwrap(), topic);
        }

        #[test]
        fn a_parsed_topic_is_spelt_the_same(text in "(lintel|Lintel)/v1/[0-9a-fA-F-]{36}/([0-9a-f-]{36}|_feed)/(up|down)?/?[a-z]{3,7}") {
            if let Ok(topic) = text.parse::<Topic>() {
                prop_assert_eq!(topic.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,300}") {
            let _ = text.parse::<Topic>();
        }
    }

    const T: &str = "018f3c1e-0000-7000-8000-000000000001";
    const D: &str = "018f3c1e-0000-7000-8000-000000000002";

    #[test]
    fn other_topics_are_refused_with_the_reason() {
        for (text, problem) in [
            (format!("lintel/v2/{T}/{D}/up/evt"), TopicProblem::Shape),
            (format!("lintel/v1/{T}/{D}/up/evt/x"), TopicProblem::Shape),
            (format!("lintel/v1/{T}/{D}/sideways/evt"), TopicProblem::Shape),
            (format!("lintel/v1/{T}/{D}/up"), TopicProblem::Shape),
            (format!("lintel/v1/{}/{D}/up/evt", T.to_uppercase()), TopicProblem::Id),
            (format!("lintel/v1/{{{T}}}/{D}/up/evt"), TopicProblem::Id),
            (format!("lintel/v1/+/{D}/up/evt"), TopicProblem::Id),
            (format!("lintel/v1/{T}/{D}/up/evtack"), TopicProblem::Word),
            (format!("lintel/v1/{T}/{D}/down/evt"), TopicProblem::Word),
            (format!("lintel/v1/{T}/_feed/all"), TopicProblem::Word),
        ] {
            assert_eq!(text.parse::<Topic>().unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn access_lines_are_two_for_a_device() {
        let (tenant, device) = (T.parse().unwrap(), D.parse().unwrap());
        assert_eq!(
            acl::device(tenant, device),
            format!("user {D}\ntopic write lintel/v1/{T}/{D}/up/#\ntopic read lintel/v1/{T}/{D}/down/#\n")
        );
        assert_eq!(acl::consumer("c1", tenant), format!("user c1\ntopic read lintel/v1/{T}/_feed/#\n"));
    }

    #[test]
    fn retained_channels_are_not_shared() {
        for channel in UpChannel::ALL {
            assert!(!(channel.retained() && channel.shared()), "{channel}");
        }
        let filters = hub_filters("hub-1");
        assert!(filters.contains(&"$share/hub-1/lintel/v1/+/+/up/evt".to_owned()));
        assert!(filters.contains(&"lintel/v1/+/+/up/status".to_owned()));
    }
}
