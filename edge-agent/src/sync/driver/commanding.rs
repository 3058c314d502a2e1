//! The driver's part of commands: the hub's time, orders to doors and to the agent itself, and what became of them.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::time::Duration;

use face_core::MonoTime;
use face_core::door::DoorOrder;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;
use wire_contract::command::TimeRequest;
use wire_contract::enrol::Template;
use wire_contract::{
    Code, CommandDown, CommandId, CommandState, CommandUp, EnrolRequest, Order, PersonId, RebootTarget, Score,
    UpChannel, V1,
};

use super::{Driver, FetchError, blocking, hub_of, malformed, to_json};
use crate::lockdown::LockdownError;
use crate::logging::chain;
use crate::stages::decide::{DoorInput, EnrolOrder, OrderTold, TakenFace, Told};
use crate::stages::record::Happening;
use crate::sync::CommandLine;
use crate::sync::commands::{Deed, Step, told};
use crate::sync::journal::Journal;
use crate::sync::transport::{Connect, Parcel, Shipment};

/// Between `executing` and the end of the agent: the word is on its way to the hub by then.
const BEFORE_LEAVING: Duration = Duration::from_millis(750);

/// What is under way for operators.
pub(super) struct Commanding {
    journal: Journal,
    /// For whom a door waits, by the command.
    enrolling: HashMap<Uuid, PersonId>,
    /// What is being sent to the hub.
    pub(super) errands: JoinSet<Errand>,
    /// Until when the log is written as an order says.
    log_until: Option<MonoTime>,
    leaving: Option<Leaving>,
    /// The journal is of this run: it is the next one that tells of it.
    goes: bool,
}

struct Leaving {
    at: MonoTime,
    command: CommandId,
    target: RebootTarget,
}

/// Something that was sent to the hub for a command.
type Errand = (CommandId, Result<(), FetchError>);

impl Commanding {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            journal: Journal::new(state_dir),
            enrolling: HashMap::new(),
            errands: JoinSet::new(),
            log_until: None,
            leaving: None,
            goes: false,
        }
    }
}

type Settled = (CommandState, Option<Code>);

const DONE: Settled = (CommandState::Succeeded, None);

const fn failed(code: Code) -> Settled {
    (CommandState::Failed, Some(code))
}

impl<C: Connect> Driver<C> {
    pub(super) fn ask_the_time(&mut self) {
        let request = self.commands.connected(Uuid::new_v4(), self.now());
        self.say_on_cmd(&CommandUp::Time(request));
    }

    pub(super) fn ask_the_time_again(&mut self) {
        if self.status.borrow().connected
            && let Some(request) = self.commands.due(Uuid::new_v4(), self.now())
        {
            self.say_on_cmd(&CommandUp::Time(TimeRequest { ..request }));
        }
    }

    /// The first word on a new connection is that the reboot is over.
    pub(super) async fn tell_of_a_reboot(&mut self) {
        if self.commanding.goes {
            return;
        }
        let journal = self.commanding.journal.clone();
        let Some((command, order)) = blocking(move || journal.left()).await else { return };
        let steps = self.commands.returned(command, order, self.now());
        self.carry_out(steps).await;
        let journal = self.commanding.journal.clone();
        blocking(move || journal.end()).await;
    }

    pub(super) async fn on_cmd(&mut self, topic: &str, payload: &[u8]) {
        let now = self.now();
        let steps = match serde_json::from_slice(payload) {
            Ok(CommandDown::Command(command)) => {
                tracing::info!(event = "command", command = %command.id, order = ?command.order, "the hub orders");
                self.show(command.id, Some(command.order.kind()), "received", None);
                self.commands.take(command, now)
            }
            Ok(CommandDown::Time(answer)) => {
                let (asked, at) = (self.commands.asked_at(answer.nonce), answer.at);
                let steps = self.commands.on_time(answer, now);
                // Sealed for this device under the link key: as good as signed.
                if let Some(asked) = asked {
                    self.hub_said(at, asked);
                    self.in_contact(at);
                }
                steps
            }
            Ok(CommandDown::Unknown) => {
                tracing::warn!(event = "command_of_unknown_type", "ignored; update the program");
                Vec::new()
            }
            Err(error) => return malformed(topic, &error),
        };
        self.carry_out(steps).await;
    }

    /// A door has answered.
    pub(super) async fn on_order_told(&mut self, OrderTold { command, outcome }: OrderTold) {
        let id = CommandId(command);
        let settled = match outcome {
            Told::Opened(outcome) => told(outcome),
            Told::NobodyCame => {
                self.commanding.enrolling.remove(&command);
                failed(Code::NoFace)
            }
            Told::Taken(face) => {
                // Without a person the command was settled meanwhile.
                if let Some(person) = self.commanding.enrolling.remove(&command) {
                    self.ask_to_enrol(id, person, &face);
                }
                return;
            }
        };
        self.settle(id, settled).await;
    }

    /// Something was sent, or could not be.
    pub(super) async fn on_errand(&mut self, done: Result<Errand, JoinError>) {
        let Ok((command, sent)) = done else { return };
        let settled = match sent {
            Ok(()) => DONE,
            Err(error) => {
                tracing::warn!(event = "errand_failed", %command, error = chain(&error), "what a command asked for was not taken by the hub");
                failed(error.code().unwrap_or(Code::Unavailable))
            }
        };
        self.settle(command, settled).await;
    }

    /// What an order has put off until now.
    pub(super) async fn orders_that_are_due(&mut self) {
        let now = self.now();
        if self.commanding.log_until.is_some_and(|until| until <= now) {
            self.commanding.log_until = None;
            self.orders.hands.log.end_order();
            tracing::info!(event = "log_level_ended", "the log is written as configured again");
        }
        if let Some(leaving) = self.commanding.leaving.take_if(|leaving| leaving.at <= now) {
            self.leave(leaving).await;
        }
    }

    async fn carry_out(&mut self, steps: Vec<Step>) {
        let mut queue = VecDeque::from(steps);
        while let Some(step) = queue.pop_front() {
            let settled = match step {
                Step::Say(progress) => {
                    tracing::info!(event = "command_progress", command = %progress.id, state = progress.state.as_str(), code = ?progress.code);
                    self.show(progress.id, None, progress.state.as_str(), progress.code);
                    self.say_on_cmd(&CommandUp::Progress(progress));
                    None
                }
                Step::Record { command, order, state, code } => {
                    self.put_on_record(Happening::CommandSettled { command, order, state, code, at: self.now() });
                    None
                }
                Step::Open { door, order } => self.hand_to_door(&door, order),
                Step::Enrol { door, person, order } => self.wait_for_face(&door, person, order),
                Step::Do(id, deed) => self.act(id, deed).await.map(|settled| (id, settled)),
            };
            if let Some((id, (state, code))) = settled {
                queue.extend(self.commands.settled(id, state, code));
            }
        }
    }

    async fn settle(&mut self, id: CommandId, (state, code): Settled) {
        let steps = self.commands.settled(id, state, code);
        self.carry_out(steps).await;
    }

    fn hand_to_door(&self, door: &str, order: DoorOrder) -> Option<(CommandId, Settled)> {
        self.tell_door(door, DoorInput::Ordered(order)).err().map(|code| (CommandId(order.command), failed(code)))
    }

    fn wait_for_face(&mut self, door: &str, person: PersonId, order: EnrolOrder) -> Option<(CommandId, Settled)> {
        match self.tell_door(door, DoorInput::Enrol(order)) {
            Ok(()) => {
                self.commanding.enrolling.insert(order.command, person);
                None
            }
            Err(code) => Some((CommandId(order.command), failed(code))),
        }
    }

    fn tell_door(&self, door: &str, input: DoorInput) -> Result<(), Code> {
        let inputs = self.orders.door(door).ok_or(Code::CommandUnknown)?;
        // A door that is half a second behind is no door to wait for: whoever gave the order sees it fail.
        inputs.try_send(input).map_err(|_| Code::Unavailable)
    }

    /// Does what is no door's to do. None when the last word comes later.
    async fn act(&mut self, id: CommandId, deed: Deed) -> Option<Settled> {
        match deed {
            Deed::Refresh => {
                self.want_link();
                self.reports.changed(self.now());
                Some(DONE)
            }
            Deed::Lockdown { door, on } => Some(self.lock_down(door, on).await),
            Deed::LogLevel { level, lasting } => {
                let told = self.orders.hands.log.order(level);
                self.commanding.log_until = lasting.map(|lasting| self.now() + lasting);
                Some(if told { DONE } else { failed(Code::NotConfigured) })
            }
            Deed::CollectLogs { max_bytes } => {
                let bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
                let lines = self.orders.hands.log.ring().newest(bytes);
                let hub = hub_of(&self.identity, &self.sync.clock, self.sync.timing.connect_timeout);
                self.commanding.errands.spawn(async move {
                    let sent: Result<(), FetchError> = async { Ok(hub?.put_logs(id, lines).await?) }.await;
                    (id, sent)
                });
                None
            }
            Deed::Reboot { target } => self.prepare_to_leave(id, target).await,
        }
    }

    async fn lock_down(&self, door: Option<String>, on: bool) -> Settled {
        let Some(lockdowns) = self.orders.hands.lockdowns.clone() else { return failed(Code::NotConfigured) };
        match blocking(move || lockdowns.set(door.as_deref(), on)).await {
            Ok(()) => DONE,
            Err(LockdownError::NoSuchDoor { .. }) => failed(Code::CommandUnknown),
            Err(error @ LockdownError::File(_)) => {
                tracing::error!(
                    event = "lockdown_not_written",
                    alarm = true,
                    on,
                    error = chain(&error),
                    "doors are rather shut than open"
                );
                failed(Code::Unavailable)
            }
        }
    }

    /// Writes down that the next run is the answer, then waits a moment so that `executing` is heard.
    async fn prepare_to_leave(&mut self, command: CommandId, target: RebootTarget) -> Option<Settled> {
        let hands = &self.orders.hands;
        let possible = match target {
            RebootTarget::Agent => hands.restart.is_some(),
            RebootTarget::Machine => !hands.reboot_command.is_empty(),
            RebootTarget::Unknown => false,
        };
        if !possible {
            return Some(failed(Code::NotConfigured));
        }
        let journal = self.commanding.journal.clone();
        let written = blocking(move || journal.begin(command, &Order::Reboot { target })).await;
        if let Err(error) = written {
            tracing::error!(event = "reboot_not_written_down", %command, error = chain(&error), "a reboot that nobody would tell of is not begun");
            return Some(failed(Code::Unavailable));
        }
        self.commanding.goes = true;
        self.commanding.leaving = Some(Leaving { at: self.now() + BEFORE_LEAVING, command, target });
        None
    }

    async fn leave(&mut self, leaving: Leaving) {
        tracing::warn!(event = "leaving", command = %leaving.command, target_ = leaving.target.as_str(), "an operator has ordered it");
        let hands = &self.orders.hands;
        let left = match leaving.target {
            // Full means that somebody asked already.
            RebootTarget::Agent => match &hands.restart {
                None => false,
                Some(restart) => {
                    let _already_asked = restart.try_send(());
                    true
                }
            },
            _ => {
                let command = hands.reboot_command.clone();
                blocking(move || reboot_machine(&command)).await
            }
        };
        if !left {
            self.commanding.goes = false;
            let journal = self.commanding.journal.clone();
            blocking(move || journal.end()).await;
            self.settle(leaving.command, failed(Code::Unavailable)).await;
        }
    }

    fn ask_to_enrol(&mut self, command: CommandId, person: PersonId, face: &TakenFace) {
        let about = &self.sync.about;
        // As of a photograph: what doors dock the template by, where the pack has a scale for it.
        let clarity = about.space.as_ref().map(|space| space.quality(face.embedding.handicap(), face.quality));
        let quality = clarity.unwrap_or(face.quality);
        let request = EnrolRequest {
            v: V1,
            command,
            person,
            space_id: about.space.as_ref().map(|space| space.id.clone()).unwrap_or_default(),
            pack: about.pack.clone().unwrap_or_default(),
            quality: Score::from(quality),
            template: Template::of(face.embedding.as_slice()),
        };
        let hub = hub_of(&self.identity, &self.sync.clock, self.sync.timing.connect_timeout);
        self.commanding.errands.spawn(async move {
            let sent: Result<(), FetchError> = async { Ok(hub?.enrol(&request).await.map(drop)?) }.await;
            (command, sent)
        });
    }

    fn show(&self, id: CommandId, kind: Option<&'static str>, state: &'static str, code: Option<Code>) {
        let at = self.wall();
        self.status.send_modify(|status| status.show_command(CommandLine { id, kind, state, code, at }));
    }

    /// A word that is lost is said again when the hub sends the command again; nothing waits for it here.
    fn say_on_cmd(&mut self, word: &CommandUp) {
        let Some(ring) = &self.ring else { return };
        let topic = ring.up_topic(UpChannel::Cmd);
        let payload = ring.wrap(&topic, &to_json(word));
        self.publish(Shipment { topic, payload, retain: false, parcel: Parcel::Command });
    }
}

/// Asks the machine to reboot; false when it does not take the command. It goes down a moment later, and ends the agent.
fn reboot_machine(command: &[String]) -> bool {
    let Some((program, arguments)) = command.split_first() else { return false };
    let done = Program::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match done {
        Ok(status) if status.success() => true,
        Ok(status) => {
            tracing::error!(event = "machine_not_rebooted", %status, "see [agent] reboot_command");
            false
        }
        Err(error) => {
            tracing::error!(event = "machine_not_rebooted", %error, "see [agent] reboot_command");
            false
        }
    }
}
