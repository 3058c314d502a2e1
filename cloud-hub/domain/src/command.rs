//! Commands to devices: their life, and how what a device says of one changes it.
//!
//! In: what is stored, what a device says, the time. Out: the next state, if there is one. A state never goes back, and
//! the last word stays. Imports nothing of the hub.

use time::{Duration, OffsetDateTime};
use wire_contract::CommandState;
use wire_contract::command::{LogLevel, Order, RebootTarget, UNLOCK_LIFETIME_MS};

use super::ids::{CommandId, DeviceId, DoorId, PersonId};

/// The life of an unlock.
pub const UNLOCK_LIFETIME: Duration = Duration::milliseconds(UNLOCK_LIFETIME_MS);
/// The life of a refresh: it does no harm when it is late, but who ordered it has gone on.
pub const REFRESH_LIFETIME: Duration = Duration::minutes(1);
/// The life of what changes the device itself; whoever ordered it watches.
pub const DEED_LIFETIME: Duration = Duration::seconds(30);
/// How long after a command's end the device's last word may usually still be on its way. Later the command counts as
/// unanswered.
pub const ANSWER_GRACE: Duration = Duration::seconds(15);

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Open a door once, for so many milliseconds or as its configuration says.
    Unlock {
        /// Which door.
        door: DoorId,
        /// For how long.
        hold_ms: Option<u32>,
    },
    /// Fetch keys and report galleries.
    Refresh,
    /// Shut a door, or all of the device, to everybody but those whom its policy lets through; or end that.
    Lockdown {
        /// Which door; all when absent.
        door: Option<DoorId>,
        /// Begin or end.
        on: bool,
    },
    /// Begin anew.
    Reboot {
        /// What.
        target: RebootTarget,
    },
    /// Write more or less to the log.
    LogLevel {
        /// How much.
        level: LogLevel,
        /// For how many seconds.
        for_s: Option<u32>,
    },
    /// Send the last lines of the log.
    CollectLogs {
        /// At most so many bytes.
        max_bytes: Option<u32>,
    },
    /// Take the next good face at a door for somebody.
    Enrol {
        /// At which door.
        door: DoorId,
        /// Whom.
        person: PersonId,
        /// For how many seconds to wait for a face.
        within_s: u32,
    },
}

/// How far a command got, as the hub knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Given; nothing was heard of it.
    Issued,
    /// The device's word.
    Said(CommandState),
}

/// A command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its id, version 7.
    pub id: CommandId,
    /// Who is to carry it out.
    pub device: DeviceId,
    /// What.
    pub kind: Kind,
    /// Who gave it, as audit entries say it.
    pub actor: String,
    /// When.
    pub issued_at: OffsetDateTime,
    /// From when on it must not be carried out.
    pub expires_at: OffsetDateTime,
    /// How far it got.
    pub progress: Progress,
    /// Why it failed or expired, a code of the register.
    pub code: Option<String>,
    /// When that was last said.
    pub changed_at: OffsetDateTime,
}

impl Kind {
    /// The name in rows and in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unlock { .. } => "unlock",
            Self::Refresh => "refresh",
            Self::Lockdown { .. } => "lockdown",
            Self::Reboot { .. } => "reboot",
            Self::LogLevel { .. } => "log_level",
            Self::CollectLogs { .. } => "collect_logs",
            Self::Enrol { .. } => "enrol",
        }
    }

    /// The door that it is about.
    #[must_use]
    pub fn door(&self) -> Option<DoorId> {
        match self {
            Self::Unlock { door, .. } | Self::Enrol { door, .. } => Some(*door),
            Self::Lockdown { door, .. } => *door,
            _ => None,
        }
    }

    /// The same as a device reads it, with the door's id in its own configuration.
    #[must_use]
    pub fn order(&self, local_door: Option<String>) -> Order {
        let door = local_door.clone().unwrap_or_default();
        match *self {
            Self::Unlock { hold_ms, .. } => Order::Unlock { door, hold_ms },
            Self::Refresh => Order::Refresh,
            Self::Lockdown { on, .. } => Order::Lockdown { door: local_door, on },
            Self::Reboot { target } => Order::Reboot { target },
            Self::LogLevel { level, for_s } => Order::LogLevel { level, for_s },
            Self::CollectLogs { max_bytes } => Order::CollectLogs { max_bytes },
            Self::Enrol { person, within_s, .. } => {
                Order::Enrol { door, person: wire_contract::PersonId(person.0), within_s }
            }
        }
    }

    /// How long it may be carried out.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        match self {
            Self::Unlock { .. } => UNLOCK_LIFETIME,
            Self::Refresh => REFRESH_LIFETIME,
            Self::Lockdown { .. } | Self::Reboot { .. } | Self::LogLevel { .. } | Self::CollectLogs { .. } => {
                DEED_LIFETIME
            }
            Self::Enrol { within_s, .. } => Duration::seconds(i64::from(*within_s)),
        }
    }

    /// How long after its end the last word may still come: a machine takes minutes to be back, a log on a thin line one.
    #[must_use]
    pub fn grace(&self) -> Duration {
        match self {
            Self::Reboot { target: RebootTarget::Agent } => Duration::minutes(2),
            Self::Reboot { .. } => Duration::minutes(10),
            Self::CollectLogs { .. } => Duration::minutes(1),
            _ => ANSWER_GRACE,
        }
    }
}

impl Command {
    /// The state as it is told to people at `now`: a command whose device never had the last word is `unanswered`. Then it
    /// may have been carried out, and only the door's own events say.
    #[must_use]
    pub fn state_told(&self, now: OffsetDateTime) -> &'static str {
        match self.progress {
            Progress::Said(state) if state.is_last() => state.as_str(),
            _ if now >= self.expires_at + self.kind.grace() => "unanswered",
            Progress::Issued => "issued",
            Progress::Said(state) => state.as_str(),
        }
    }
}

/// Whether a device's word moves a command on: later states follow earlier ones, and nothing follows the last.
#[must_use]
pub fn advances(progress: Progress, said: CommandState) -> bool {
    match progress {
        Progress::Issued => true,
        Progress::Said(state) => !state.is_last() && said > state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CommandState; 5] = [
        CommandState::Accepted,
        CommandState::Executing,
        CommandState::Succeeded,
        CommandState::Failed,
        CommandState::Expired,
    ];

    #[test]
    fn a_state_never_goes_back_and_the_last_word_stays() {
        for said in ALL {
            assert!(advances(Progress::Issued, said));
            for state in ALL {
                let moves = advances(Progress::Said(state), said);
                assert!(!(moves && state.is_last()), "{state:?} was the last word");
                assert!(!(moves && said <= state), "{said:?} after {state:?}");
            }
        }
        assert!(advances(Progress::Said(CommandState::Accepted), CommandState::Executing));
        assert!(advances(Progress::Said(CommandState::Executing), CommandState::Failed));
    }

    #[test]
    fn a_command_without_a_last_word_is_unanswered_and_one_with_it_keeps_it() {
        let issued_at = OffsetDateTime::UNIX_EPOCH;
        let mut command = Command {
            id: CommandId(uuid::Uuid::nil()),
            device: DeviceId(uuid::Uuid::nil()),
            kind: Kind::Refresh,
            actor: "operator".into(),
            issued_at,
            expires_at: issued_at + REFRESH_LIFETIME,
            progress: Progress::Issued,
            code: None,
            changed_at: issued_at,
        };
        let late = command.expires_at + ANSWER_GRACE;
        assert_eq!((command.state_told(issued_at), command.state_told(late)), ("issued", "unanswered"));
        command.progress = Progress::Said(CommandState::Executing);
        assert_eq!((command.state_told(issued_at), command.state_told(late)), ("executing", "unanswered"));
        command.progress = Progress::Said(CommandState::Succeeded);
        assert_eq!(command.state_told(late), "succeeded");
    }

    const DOOR: DoorId = DoorId(uuid::Uuid::from_u128(1));
    const PERSON: PersonId = PersonId(uuid::Uuid::from_u128(2));

    /// Each kind, with how long it may be carried out and how long its last word may be on its way, in seconds.
    fn kinds() -> [(Kind, i64, i64); 9] {
        [
            (Kind::Unlock { door: DOOR, hold_ms: Some(3_000) }, 10, 15),
            (Kind::Refresh, 60, 15),
            (Kind::Lockdown { door: None, on: true }, 30, 15),
            (Kind::Lockdown { door: Some(DOOR), on: false }, 30, 15),
            (Kind::Reboot { target: RebootTarget::Agent }, 30, 120),
            (Kind::Reboot { target: RebootTarget::Machine }, 30, 600),
            (Kind::LogLevel { level: LogLevel::Debug, for_s: Some(60) }, 30, 15),
            (Kind::CollectLogs { max_bytes: Some(4_096) }, 30, 60),
            (Kind::Enrol { door: DOOR, person: PERSON, within_s: 45 }, 45, 15),
        ]
    }

    #[test]
    fn an_order_says_to_the_device_what_was_given_under_the_same_name() {
        for (kind, ..) in kinds() {
            let order = kind.order(Some("front".into()));
            assert_eq!(order.kind(), kind.name());
            assert!(order.in_bounds(), "{order:?}");
            let expected = match kind {
                Kind::Unlock { .. } => Order::Unlock { door: "front".into(), hold_ms: Some(3_000) },
                Kind::Refresh => Order::Refresh,
                Kind::Lockdown { on, .. } => Order::Lockdown { door: Some("front".into()), on },
                Kind::Reboot { target } => Order::Reboot { target },
                Kind::LogLevel { .. } => Order::LogLevel { level: LogLevel::Debug, for_s: Some(60) },
                Kind::CollectLogs { .. } => Order::CollectLogs { max_bytes: Some(4_096) },
                Kind::Enrol { .. } => {
                    Order::Enrol { door: "front".into(), person: wire_contract::PersonId(PERSON.0), within_s: 45 }
                }
            };
            assert_eq!(order, expected);
        }
        let everywhere = Kind::Lockdown { door: None, on: true }.order(None);
        assert_eq!(everywhere, Order::Lockdown { door: None, on: true }, "all doors are not a door without a name");
    }

    #[test]
    fn an_unlock_dies_soonest_and_a_machine_may_be_away_for_minutes() {
        for (kind, lifetime, grace) in kinds() {
            assert_eq!((kind.lifetime().whole_seconds(), kind.grace().whole_seconds()), (lifetime, grace), "{kind:?}");
        }
    }

    #[test]
    fn what_is_about_a_door_names_it() {
        let named: Vec<&str> =
            kinds().iter().filter(|(kind, ..)| kind.door() == Some(DOOR)).map(|(kind, ..)| kind.name()).collect();
        assert_eq!(named, ["unlock", "lockdown", "enrol"]);
        assert_eq!(Kind::Lockdown { door: None, on: true }.door(), None);
    }

    #[test]
    fn a_command_is_unanswered_from_the_end_of_its_grace_and_not_a_moment_before() {
        for (kind, lifetime, grace) in kinds() {
            let issued_at = OffsetDateTime::UNIX_EPOCH;
            let command = Command {
                id: CommandId(uuid::Uuid::nil()),
                device: DeviceId(uuid::Uuid::nil()),
                kind,
                actor: "operator".into(),
                issued_at,
                expires_at: issued_at + kind.lifetime(),
                progress: Progress::Said(CommandState::Accepted),
                code: None,
                changed_at: issued_at,
            };
            let end = issued_at + Duration::seconds(lifetime + grace);
            assert_eq!(command.state_told(end - Duration::milliseconds(1)), "accepted", "{kind:?}");
            assert_eq!(command.state_told(end), "unanswered", "{kind:?}");
        }
    }
}
