//! Never late, never twice: as stories, and for any order of what comes over the line.

use proptest::prelude::*;

use super::*;

/// The hub's clock and the agent's monotonic one at the beginning of every story.
const HUB: i64 = 1_795_343_851_000;
const MONO: u64 = 500_000;

fn mono(ms: i64) -> MonoTime {
    MonoTime::from_millis(MONO.checked_add_signed(ms).unwrap())
}

fn hub(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(HUB + ms)
}

fn unlock(id: u128, issued: i64, expires: i64) -> Command {
    let order = Order::Unlock { door: "main".into(), hold_ms: None };
    let id = CommandId(Uuid::from_u128(id));
    Command { v: V1, id, order, issued_at: hub(issued), expires_at: hub(expires) }
}

/// A run that began at 0 and knows the hub's time: asked at 100 ms, answered at 130 ms, stamped at 115 ms.
fn anchored() -> Commands {
    let mut commands = Commands::new(mono(0));
    let nonce = Uuid::from_u128(7);
    commands.connected(nonce, mono(100));
    assert!(commands.on_time(TimeAnswer { v: V1, nonce, at: hub(115) }, mono(130)).is_empty());
    commands
}

fn states(steps: &[Step]) -> Vec<(CommandState, Option<Code>)> {
    let said = |step: &Step| match step {
        Step::Say(progress) => Some((progress.state, progress.code)),
        _ => None,
    };
    steps.iter().filter_map(said).collect()
}

fn opens(steps: &[Step]) -> Option<DoorOrder> {
    steps.iter().find_map(|step| match step {
        Step::Open { door, order } if door == "main" => Some(*order),
        _ => None,
    })
}

const EXPIRED: [(CommandState, Option<Code>); 1] = [(CommandState::Expired, Some(Code::CommandExpired))];

#[test]
fn a_command_in_time_goes_to_its_door_with_what_is_left_of_its_life() {
    let steps = anchored().take(unlock(1, 1_000, 11_000), mono(2_000));
    assert_eq!(states(&steps), [(CommandState::Accepted, None), (CommandState::Executing, None)]);
    // The hub's clock shows 2,000 ms or up to 15 ms more.
    let order = opens(&steps).unwrap();
    assert_eq!((order.not_after, order.hold), (mono(10_985), None));
}

#[test]
fn a_second_delivery_is_answered_and_not_executed() {
    let mut commands = anchored();
    let id = CommandId(Uuid::from_u128(1));
    commands.take(unlock(1, 1_000, 11_000), mono(2_000));
    assert_eq!(states(&commands.take(unlock(1, 1_000, 11_000), mono(2_100))), [(CommandState::Executing, None)]);
    assert_eq!(states(&commands.settled(id, CommandState::Succeeded, None)), [(CommandState::Succeeded, None)]);
    let again = commands.take(unlock(1, 1_000, 11_000), mono(2_200));
    assert_eq!((states(&again), opens(&again)), (vec![(CommandState::Succeeded, None)], None));
    assert!(commands.settled(id, CommandState::Failed, None).is_empty(), "the last word is the last");
}

#[test]
fn what_comes_late_or_from_before_this_run_is_refused() {
    let mut commands = anchored();
    assert_eq!(states(&commands.take(unlock(1, 1_000, 11_000), mono(11_000))), EXPIRED);
    assert_eq!(states(&commands.take(unlock(2, -100, 9_900), mono(200))), EXPIRED, "given before this run began");
    let failed = [(CommandState::Failed, Some(Code::InvalidField))];
    assert_eq!(states(&commands.take(unlock(3, 100, 60_100), mono(200))), failed, "an unlock lives ten seconds");
    let unknown = Command { order: Order::Unknown, ..unlock(4, 100, 5_000) };
    assert_eq!(states(&commands.take(unknown, mono(200))), [(CommandState::Failed, Some(Code::CommandUnknown))]);
}

#[test]
fn without_the_hubs_time_of_this_connection_a_command_waits() {
    let mut commands = anchored();
    let request = commands.connected(Uuid::from_u128(8), mono(3_000));
    assert!(commands.take(unlock(1, 3_100, 13_100), mono(3_200)).is_empty());
    let old = TimeAnswer { v: V1, nonce: Uuid::from_u128(7), at: hub(0) };
    assert!(commands.on_time(old, mono(3_300)).is_empty(), "an answer to another question");
    let steps = commands.on_time(TimeAnswer { v: V1, nonce: request.nonce, at: hub(3_350) }, mono(3_400));
    assert!(opens(&steps).is_some());
    // The answer is long in coming: the life of a command goes on meanwhile.
    let request = commands.connected(Uuid::from_u128(9), mono(20_000));
    assert!(commands.take(unlock(2, 20_000, 30_000), mono(20_100)).is_empty());
    let late = commands.on_time(TimeAnswer { v: V1, nonce: request.nonce, at: hub(30_500) }, mono(30_500));
    assert_eq!(states(&late), EXPIRED);
}

#[test]
fn a_question_is_asked_again_until_it_is_answered_and_hourly_afterwards() {
    let mut commands = Commands::new(mono(0));
    commands.connected(Uuid::from_u128(1), mono(0));
    assert!(commands.due(Uuid::from_u128(2), mono(4_999)).is_none());
    let request = commands.due(Uuid::from_u128(2), mono(5_000)).unwrap();
    commands.on_time(TimeAnswer { v: V1, nonce: request.nonce, at: hub(5_000) }, mono(5_010));
    assert!(commands.due(Uuid::from_u128(3), mono(3_604_999)).is_none());
    assert!(commands.due(Uuid::from_u128(3), mono(3_605_000)).is_some());
}

fn command(id: u128, order: Order) -> Command {
    Command { order, ..unlock(id, 1_000, 31_000) }
}

#[test]
fn every_kind_is_begun_with_its_bounds_and_put_on_record_when_it_ends() {
    let mut commands = anchored();
    let lockdown = Order::Lockdown { door: Some("main".into()), on: true };
    let person = PersonId(Uuid::from_u128(3));
    let orders = [
        (Order::Refresh, Some(Deed::Refresh)),
        (lockdown.clone(), Some(Deed::Lockdown { door: Some("main".into()), on: true })),
        (Order::Reboot { target: RebootTarget::Agent }, Some(Deed::Reboot { target: RebootTarget::Agent })),
        (
            Order::LogLevel { level: LogLevel::Debug, for_s: Some(60) },
            Some(Deed::LogLevel { level: LogLevel::Debug, lasting: Some(Duration::from_secs(60)) }),
        ),
        (Order::CollectLogs { max_bytes: None }, Some(Deed::CollectLogs { max_bytes: MAX_LOG_BYTES })),
        (Order::Reboot { target: RebootTarget::Unknown }, None),
        (Order::LogLevel { level: LogLevel::Unknown, for_s: None }, None),
        (Order::LogLevel { level: LogLevel::Info, for_s: Some(86_401) }, None),
        (Order::CollectLogs { max_bytes: Some(0) }, None),
        (Order::Enrol { door: "main".into(), person, within_s: 121 }, None),
    ];
    for (n, (order, deed)) in (10..).zip(orders) {
        let steps = commands.take(command(n, order.clone()), mono(2_000));
        match deed {
            Some(deed) => assert_eq!(steps.last(), Some(&Step::Do(CommandId(Uuid::from_u128(n)), deed)), "{order:?}"),
            None => assert_eq!(states(&steps), [(CommandState::Failed, Some(Code::InvalidField))], "{order:?}"),
        }
    }
    let id = CommandId(Uuid::from_u128(11));
    let steps = commands.settled(id, CommandState::Succeeded, None);
    let record = Step::Record { command: id, order: lockdown, state: CommandState::Succeeded, code: None };
    assert_eq!(steps[1..], [record]);
    let enrol = Order::Enrol { door: "main".into(), person, within_s: 20 };
    let steps = commands.take(command(40, enrol), mono(2_000));
    let wanted = EnrolOrder { command: Uuid::from_u128(40), not_after: mono(22_000) };
    assert_eq!(steps.last(), Some(&Step::Enrol { door: "main".into(), person, order: wanted }));
}

#[test]
fn a_reboot_has_its_last_word_in_the_next_run_and_is_not_done_again() {
    let mut commands = Commands::new(mono(0));
    let order = Order::Reboot { target: RebootTarget::Agent };
    let steps = commands.returned(CommandId(Uuid::from_u128(1)), order.clone(), mono(10));
    assert_eq!(states(&steps), [(CommandState::Succeeded, None)]);
    let nonce = Uuid::from_u128(7);
    commands.connected(nonce, mono(100));
    commands.on_time(TimeAnswer { v: V1, nonce, at: hub(115) }, mono(130));
    let again = commands.take(Command { issued_at: hub(-5_000), ..command(1, order) }, mono(200));
    assert_eq!((states(&again), again.len()), (vec![(CommandState::Succeeded, None)], 1));
}

#[derive(Debug, Clone)]
enum Happens {
    Comes { id: u128, issued: i64, life: i64 },
    Connects,
    Answers { delay: i64 },
}

fn happens() -> impl Strategy<Value = (i64, Happens)> {
    let what = prop_oneof![
        4 => (1_u128..6, -20_000_i64..20_000, 1_i64..10_000)
            .prop_map(|(id, issued, life)| Happens::Comes { id, issued, life }),
        1 => Just(Happens::Connects),
        2 => (0_i64..3_000).prop_map(|delay| Happens::Answers { delay }),
    ];
    (0_i64..4_000, what)
}

proptest! {
    /// The two clocks run alike; the hub's answer was stamped at some time between question and arrival.
    #[test]
    fn no_command_opens_twice_or_after_its_life_or_from_before_the_run(line in proptest::collection::vec(happens(), 1..60)) {
        let (mut now, mut nonce) = (0_i64, 0_u128);
        let mut commands = Commands::new(mono(0));
        let mut asked: Option<(TimeRequest, i64)> = None;
        let mut lives: HashMap<u128, Command> = HashMap::new();
        let mut opened: Vec<u128> = Vec::new();
        for (gap, what) in line {
            now += gap;
            let steps = match what {
                Happens::Comes { id, issued, life } => {
                    // One id is one command, however often it comes.
                    let command = lives.entry(id).or_insert_with(|| unlock(id, now + issued, now + issued + life)).clone();
                    commands.take(command, mono(now))
                }
                Happens::Connects => {
                    nonce += 1;
                    asked = Some((commands.connected(Uuid::from_u128(nonce), mono(now)), now));
                    Vec::new()
                }
                Happens::Answers { delay } => match asked.take() {
                    Some((request, at)) => {
                        let stamped = (at + delay).min(now);
                        commands.on_time(TimeAnswer { v: V1, nonce: request.nonce, at: hub(stamped) }, mono(now))
                    }
                    None => Vec::new(),
                },
            };
            for step in &steps {
                if let Step::Open { order, .. } = step {
                    let id = order.command.as_u128();
                    let command = &lives[&id];
                    prop_assert!(!opened.contains(&id), "{id} was opened twice");
                    prop_assert!(hub(now) < command.expires_at && command.issued_at >= hub(0));
                    prop_assert!(order.not_after <= mono(command.expires_at.unix_ms() - HUB));
                    opened.push(id);
                }
            }
        }
    }
}
