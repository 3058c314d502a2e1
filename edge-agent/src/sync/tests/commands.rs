//! An operator's order on its way from the line to a door, and the door's answer on its way back.

use face_core::door::{DoorOrder, OrderOutcome};
use wire_contract::command::{TimeAnswer, TimeRequest};
use wire_contract::{
    Code, Command, CommandDown, CommandId, CommandProgress, CommandState, CommandUp, LogLevel, Order, PersonId,
    RebootTarget, Timestamp, TwinDown, TwinSettings, TwinState, TwinUp, TwinVersion,
};

use super::*;
use crate::lockdown::Lockdowns;
use crate::stages::decide::{DoorInput, EnrolOrder, OrderTold, TakenFace, Told};
use crate::stages::record::{Happening, Message};
use crate::twin::{Configure, Desired, Refusal, TwinDesk, TwinStore};

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

    /// Answers the question for the time, and gives an order that lives half a minute.
    async fn anchored(&mut self) {
        let CommandUp::Time(TimeRequest { nonce, .. }) = self.word().await else { panic!("the time is asked first") };
        self.send(DownChannel::Cmd, &CommandDown::Time(TimeAnswer { v: V1, nonce, at: testkit::now() })).await;
    }

    async fn command(&self, id: u128, order: Order) {
        let issued_at = Timestamp::from_unix_ms(testkit::now().unix_ms() + 100);
        let expires_at = Timestamp::from_unix_ms(issued_at.unix_ms() + 30_000);
        let command = Command { v: V1, id: CommandId(Uuid::from_u128(id)), order, issued_at, expires_at };
        self.send(DownChannel::Cmd, &CommandDown::Command(command)).await;
    }

    async fn begun(&mut self) {
        assert_eq!(self.progress().await, (CommandState::Accepted, None));
        assert_eq!(self.progress().await, (CommandState::Executing, None));
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
    tell.send(OrderTold { command, outcome: Told::Opened(OrderOutcome::Done) }).await.unwrap();
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

/// The last word on a command that goes on record.
async fn recorded(rig: &mut Rig) -> (Order, CommandState) {
    let next = async {
        loop {
            let message = rig.happenings.recv().await.expect("the recorder lives");
            if let Message::Happened(Happening::CommandSettled { order, state, .. }) = message {
                return (order, state);
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("it goes on record")
}

#[tokio::test]
async fn a_lock_down_is_told_to_the_doors_kept_and_put_on_record() {
    let (door, _inputs) = mpsc::channel(8);
    let device = Device::new().linked();
    let dir = device.dir.path().to_owned();
    let lockdowns = Arc::new(Lockdowns::open(&dir, ["main".to_owned()]));
    let orders = Orders::new(HashMap::from([("main".to_owned(), door.downgrade())]), mpsc::channel(8).1)
        .with(Hands { lockdowns: Some(Arc::clone(&lockdowns)), ..Hands::none() });
    let mut rig = Rig::start_with(device, orders);
    let mut far = rig.line().await;
    far.anchored().await;
    let order = Order::Lockdown { door: Some("main".into()), on: true };
    far.command(1, order.clone()).await;
    far.begun().await;
    assert_eq!(far.progress().await, (CommandState::Succeeded, None));
    assert_eq!(recorded(&mut rig).await, (order, CommandState::Succeeded));
    assert!(*lockdowns.of("main").unwrap().borrow());
    assert_eq!(Lockdowns::open(&dir, ["main".to_owned()]).active(), ["main"], "it outlives a restart");
    far.command(2, Order::Lockdown { door: Some("cellar".into()), on: true }).await;
    far.begun().await;
    assert_eq!(far.progress().await, (CommandState::Failed, Some(Code::CommandUnknown)));
    for (id, order) in [
        (3, Order::Reboot { target: RebootTarget::Machine }),
        (4, Order::Reboot { target: RebootTarget::Agent }),
        (5, Order::LogLevel { level: LogLevel::Debug, for_s: None }),
    ] {
        far.command(id, order).await;
        far.begun().await;
        assert_eq!(far.progress().await, (CommandState::Failed, Some(Code::NotConfigured)));
    }
}

#[tokio::test]
async fn a_reboot_says_executing_before_and_succeeded_once_it_is_back() {
    let device = Device::new().linked();
    let (restart, mut restarts) = mpsc::channel(1);
    let orders = Orders::none().with(Hands { restart: Some(restart), ..Hands::none() });
    let mut rig = Rig::start_with(device, orders);
    let mut far = rig.line().await;
    far.anchored().await;
    let order = Order::Reboot { target: RebootTarget::Agent };
    far.command(1, order.clone()).await;
    far.begun().await;
    assert!(restarts.try_recv().is_err(), "the word is on its way first");
    // The driver notes when to leave after it has said so: time goes on until it does.
    let left = async {
        loop {
            rig.clock.forward(Duration::from_secs(1));
            if let Ok(left) = tokio::time::timeout(Duration::from_millis(100), restarts.recv()).await {
                break left;
            }
        }
    };
    tokio::time::timeout(PATIENCE, left).await.unwrap().unwrap();
    rig.stop.cancel();
    rig.task.await.unwrap();

    let mut rig = Rig::start(rig.device);
    let mut far = rig.line().await;
    let CommandUp::Time(TimeRequest { nonce, .. }) = far.word().await else { panic!("the time is asked first") };
    assert_eq!(far.progress().await, (CommandState::Succeeded, None));
    assert_eq!(recorded(&mut rig).await, (order.clone(), CommandState::Succeeded));
    let at = Timestamp::from_unix_ms(testkit::now().unix_ms() + 3_000);
    far.send(DownChannel::Cmd, &CommandDown::Time(TimeAnswer { v: V1, nonce, at })).await;
    // Delivered again by somebody: it is answered, and nothing is rebooted.
    far.command(1, order).await;
    assert_eq!(far.progress().await, (CommandState::Succeeded, None));
    rig.stop.cancel();
    rig.task.await.unwrap();
    let mut rig = Rig::start(rig.device);
    let mut far = rig.line().await;
    far.anchored().await;
    far.command(2, Order::Refresh).await;
    assert_eq!(far.progress().await, (CommandState::Accepted, None), "it was told once");
}

#[tokio::test]
async fn a_face_that_nobody_shows_in_time_ends_an_enrolment_and_one_that_comes_goes_to_the_hub() {
    let (mut rig, _door, mut inputs, tell) = rig();
    let mut far = rig.line().await;
    far.anchored().await;
    let person = PersonId(Uuid::from_u128(5));
    far.command(1, Order::Enrol { door: "main".into(), person, within_s: 20 }).await;
    far.begun().await;
    let Some(DoorInput::Enrol(EnrolOrder { command, .. })) = inputs.recv().await else { panic!("no order") };
    tell.send(OrderTold { command, outcome: Told::NobodyCame }).await.unwrap();
    assert_eq!(far.progress().await, (CommandState::Failed, Some(Code::NoFace)));
    far.command(2, Order::Enrol { door: "main".into(), person, within_s: 20 }).await;
    far.begun().await;
    let Some(DoorInput::Enrol(EnrolOrder { command, .. })) = inputs.recv().await else { panic!("no order") };
    let mut raw = [0.0; 512];
    raw[0] = 1.0;
    let face = TakenFace { embedding: face_core::Embedding::from_raw(raw).unwrap(), quality: 0.8 };
    tell.send(OrderTold { command, outcome: Told::Taken(Box::new(face)) }).await.unwrap();
    // The hub of this device is nowhere: the enrolment fails, and is told.
    assert_eq!(far.progress().await, (CommandState::Failed, Some(Code::Unavailable)));
}

/// Takes every setting, and says which were put to use.
#[derive(Clone, Default)]
struct Taker(Arc<Mutex<Vec<u64>>>);

impl Configure for Taker {
    fn check(&self, _: &Desired) -> Result<(), Refusal> {
        Ok(())
    }

    fn apply(&mut self, desired: &Desired) -> Vec<String> {
        self.0.lock().push(desired.version.version);
        Vec::new()
    }

    fn in_effect(&self) -> TwinSettings {
        TwinSettings::default()
    }
}

#[tokio::test]
async fn a_desired_state_is_taken_reported_and_not_taken_back_by_an_older_one() {
    let device = Device::new().linked();
    let taker = Taker::default();
    let store = TwinStore::open(device.dir.path(), DEVICE);
    let desk = TwinDesk::new(store, Box::new(taker.clone()), None);
    let mut rig = Rig::start_with(device, Orders::none().with_twin(desk));
    let mut far = rig.line().await;
    let wish = |version, ms| {
        let settings = serde_json::json!({ "door": { "main": { "hold_ms": ms } } });
        let hash = TwinSettings::parse(&settings).unwrap().hash();
        TwinDown { v: V1, desired: TwinVersion { epoch: 1, version }, hash, settings }
    };
    let report = async |far: &mut Far| {
        let shipment = far.shipment(Parcel::Twin).await;
        assert!(shipment.retain);
        let said: TwinUp = serde_json::from_slice(&verified(&shipment.topic, &shipment.payload)).unwrap();
        (said.state, said.applied.map(|applied| applied.version))
    };
    assert_eq!(report(&mut far).await, (TwinState::None, None));
    far.send(DownChannel::Twin, &wish(2, 900)).await;
    assert_eq!(report(&mut far).await, (TwinState::Applied, Some(2)));
    far.send(DownChannel::Twin, &wish(1, 100)).await;
    assert_eq!(report(&mut far).await, (TwinState::Applied, Some(2)));
    // Sealed for another channel, as a broker might move it.
    let (_, payload) = sealed(DownChannel::Cmd, &wish(3, 100));
    far.events.send(LineEvent::Message { topic: down(DownChannel::Twin), payload }).await.unwrap();
    far.send(DownChannel::Twin, &wish(4, 700)).await;
    assert_eq!(report(&mut far).await, (TwinState::Applied, Some(4)));
    assert_eq!(*taker.0.lock(), [2, 4]);
    assert_eq!(rig.status.borrow().twin, Some(TwinVersion { epoch: 1, version: 4 }));
}
