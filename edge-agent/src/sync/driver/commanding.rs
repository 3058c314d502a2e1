//! The driver's part of commands: the hub's time, orders to doors, and what became of them.

use face_core::door::DoorOrder;
use uuid::Uuid;
use wire_contract::command::TimeRequest;
use wire_contract::{Code, CommandDown, CommandId, CommandState, CommandUp, UpChannel};

use super::{Driver, malformed, to_json};
use crate::stages::decide::{DoorInput, OrderTold};
use crate::sync::commands::{Step, told};
use crate::sync::transport::{Connect, Parcel, Shipment};

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

    pub(super) fn on_cmd(&mut self, topic: &str, payload: &[u8]) {
        let now = self.now();
        let steps = match serde_json::from_slice(payload) {
            Ok(CommandDown::Command(command)) => {
                tracing::info!(event = "command", command = %command.id, order = ?command.order, "the hub orders");
                self.commands.take(command, now)
            }
            Ok(CommandDown::Time(answer)) => {
                // Sealed for this device under the link key: as good as signed.
                if let Some(asked) = self.commands.asked_at(answer.nonce) {
                    self.hub_said(answer.at, asked);
                }
                self.commands.on_time(answer, now)
            }
            Ok(CommandDown::Unknown) => {
                tracing::warn!(event = "command_of_unknown_type", "ignored; update the program");
                Vec::new()
            }
            Err(error) => return malformed(topic, &error),
        };
        steps.into_iter().for_each(|step| self.carry_out(step));
    }

    /// A door has answered.
    pub(super) fn on_order_told(&mut self, OrderTold { command, outcome }: OrderTold) {
        let (state, code) = told(outcome);
        self.settle(CommandId(command), state, code);
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Say(progress) => {
                tracing::info!(event = "command_progress", command = %progress.id, state = progress.state.as_str(), code = ?progress.code);
                self.say_on_cmd(&CommandUp::Progress(progress));
            }
            Step::Open { door, order } => self.hand_to_door(&door, order),
            Step::Refresh(id) => {
                self.want_link();
                self.reports.changed(self.now());
                self.settle(id, CommandState::Succeeded, None);
            }
        }
    }

    fn hand_to_door(&mut self, door: &str, order: DoorOrder) {
        let id = CommandId(order.command);
        let Some(input) = self.orders.door(door) else {
            return self.settle(id, CommandState::Failed, Some(Code::CommandUnknown));
        };
        // A door that is half a second behind is no door to wait for: whoever gave the order sees it fail.
        if input.try_send(DoorInput::Ordered(order)).is_err() {
            self.settle(id, CommandState::Failed, Some(Code::Unavailable));
        }
    }

    fn settle(&mut self, id: CommandId, state: CommandState, code: Option<Code>) {
        if let Some(step) = self.commands.settled(id, state, code) {
            self.carry_out(step);
        }
    }

    /// A word that is lost is said again when the hub sends the command again; nothing waits for it here.
    fn say_on_cmd(&mut self, word: &CommandUp) {
        let Some(ring) = &self.ring else { return };
        let topic = ring.up_topic(UpChannel::Cmd);
        let payload = ring.wrap(&topic, &to_json(word));
        self.publish(Shipment { topic, payload, retain: false, parcel: Parcel::Command });
    }
}
