//! An operator's order on its way from the line to a door, and the door's answer on its way back.

use face_core::door::{DoorOrder, OrderOutcome};
use wire_contract::command::{TimeAnswer, TimeRequest};
use wire_contract::{
    Code, Command, CommandDown, CommandId, CommandProgress, CommandState, CommandUp, Order, Timestamp,
};

use super::*;
use crate::stages::decide::{DoorInput, OrderTold};

/// A rig whose agent has the door `main`, which the test plays.
fn rig() -> (Rig, mpsc::Sender<DoorInput>, mpsc::Receiver<DoorInput>, mpsc::Sender<OrderTold>) {
    let (door, inputs) = mpsc::channel(8);
    let (tell, told) = mpsc::channel(8);
    let orders = Orders::new(HashMap::from([("main".to_owned(), door.downgrade())]), told);
    (Rig::start_with(Device::new().linked(), orders), door, inputs, tell)
}

impl Far {
    /// The next word on `up/cmd`.
    pub(super) async fn word(&mut self) -> CommandUp {
        let shipment = self.shipment(Parcel::Command).await;
        serde_json::from_slice(&verified(&shipment.topic, &shipment.payload)).unwrap()
    }

    async fn progress(&mut self) -> (CommandState, Option<Code>) {
        let CommandUp::Progress(CommandProgress { state, code, .. }) = self.word().await else { panic!("no progress") };
        (state, code)
    }

    async fn order(&self, id: u128, door: &str, issued_at: i64, life: i64) {
        let order = Order::Unlock { door: door.into(), hold_ms: Some(2_000) };
        let issued_at = Timestamp::from_unix_ms(testkit::now().unix_ms() + issued_at);
        let expires_at = Timestamp::from_unix_ms(issued_at.unix_ms() + life);
        let command = Command { v: V1, id: CommandId(Uuid::from_u128(id)), order, issued_at, expires_at };
        self.send(DownChannel::Cmd, &CommandDown::Command(command)).await;
    }

    async fn send(&self, channel: DownChannel, message: &impl serde::Serialize) {
        let (topic, payload) = sealed(channel, message);
        self.events.send(LineEvent::Message { topic, payload }).await.unwrap();
    }
}

#[tokio::test]
async fn an_order_reaches_its_door_once_and_the_hub_hears_what_became_of_it() {
    let (mut rig, _door, mut inputs, tell) = rig();
    let mut far = rig.line().await;
    // It came before the hub's time was known, and waits for it.
    far.order(1, "main", 6_000, 10_000).await;
    let CommandUp::Time(TimeRequest { nonce, .. }) = far.word().await else { panic!("the time is asked first") };
    let at = Timestamp::from_unix_ms(testkit::now().unix_ms() + 6_000);
    far.send(DownChannel::Cmd, &CommandDown::Time(TimeAnswer { v: V1, nonce, at })).await;
    assert_eq!(far.progress().await, (CommandState::Accepted, None));
    assert_eq!(far.progress().await, (CommandState::Executing, None));
    let Some(DoorInput::Ordered(DoorOrder { command, hold, .. })) = inputs.recv().await else { panic!("no order") };
    assert_eq!((command, hold), (Uuid::from_u128(1), Some(Duration::from_secs(2))));
    far.order(1, "main", 6_000, 10_000).await;
    assert_eq!(far.progress().await, (CommandState::Executing, None), "the second delivery is answered");
    tell.send(OrderTold { command, outcome: OrderOutcome::Done }).await.unwrap();
    assert_eq!(far.progress().await, (CommandState::Succeeded, None));
    far.order(2, "cellar", 6_000, 10_000).await;
    assert_eq!(far.progress().await, (CommandState::Accepted, None));
    assert_eq!(far.progress().await, (CommandState::Executing, None));
    assert_eq!(far.progress().await, (CommandState::Failed, Some(Code::CommandUnknown)));
    rig.clock.forward(Duration::from_secs(11));
    far.order(1, "main", 6_000, 10_000).await;
    assert_eq!(far.progress().await, (CommandState::Succeeded, None), "nor is one that comes after its life");
    assert!(inputs.try_recv().is_err(), "an order is carried out once");
}

#[tokio::test]
async fn an_order_from_before_this_run_or_forged_reaches_no_door() {
    let (mut rig, _door, mut inputs, _tell) = rig();
    let mut far = rig.line().await;
    let CommandUp::Time(TimeRequest { nonce, .. }) = far.word().await else { panic!("the time is asked first") };
    let at = testkit::now();
    far.send(DownChannel::Cmd, &CommandDown::Time(TimeAnswer { v: V1, nonce, at })).await;
    far.order(1, "main", -5_000, 10_000).await;
    assert_eq!(far.progress().await, (CommandState::Expired, Some(Code::CommandExpired)));
    // Sealed for another channel, as a broker might move it.
    let order = Order::Unlock { door: "main".into(), hold_ms: None };
    let expires_at = Timestamp::from_unix_ms(at.unix_ms() + 9_000);
    let command = Command { v: V1, id: CommandId(Uuid::from_u128(3)), order, issued_at: at, expires_at };
    let (_, payload) = sealed(DownChannel::Gallery, &CommandDown::Command(command));
    far.events.send(LineEvent::Message { topic: down(DownChannel::Cmd), payload }).await.unwrap();
    far.order(4, "main", 100, 60_000).await;
    assert_eq!(far.progress().await, (CommandState::Failed, Some(Code::InvalidField)), "an unlock lives ten seconds");
    assert!(inputs.try_recv().is_err());
}
