use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;
use crate::clock::{Clock, SystemClock};

fn order() -> Order {
    let clock = SystemClock::default();
    Order { at: clock.now(), utc: clock.wall().utc, decision: Some(uuid::Uuid::nil()) }
}

fn door(dir: &Path, fail: FailMode) -> (SimulatedDoor, Watch) {
    SimulatedDoor::open(dir, "main", fail, Arc::new(SystemClock::default())).unwrap()
}

async fn lines(dir: &Path) -> tokio::io::Lines<BufReader<UnixStream>> {
    BufReader::new(UnixStream::connect(door_socket(dir, "main")).await.unwrap()).lines()
}

async fn next(lines: &mut tokio::io::Lines<BufReader<UnixStream>>) -> serde_json::Value {
    serde_json::from_str(&lines.next_line().await.unwrap().expect("the door closed the socket")).unwrap()
}

#[tokio::test]
async fn every_watcher_sees_the_state_and_then_each_edge_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut relay, watch) = door(dir.path(), FailMode::Secure);
    tokio::spawn(watch.serve(CancellationToken::new()));
    let (mut early, mut second) = (lines(dir.path()).await, lines(dir.path()).await);
    for watcher in [&mut early, &mut second] {
        let first = next(watcher).await;
        assert_eq!((first["schema"].as_u64(), first["state"].as_str()), (Some(1), Some("locked")));
        assert_eq!(first["door"], "main");
    }
    relay.unlock(order()).unwrap();
    relay.unlock(order()).unwrap();
    relay.lock(order()).unwrap();
    let mut late = lines(dir.path()).await;
    assert_eq!(next(&mut late).await["state"], "locked");
    for watcher in [&mut early, &mut second] {
        let unlock = next(watcher).await;
        assert_eq!(unlock["edge"], "unlock");
        assert_eq!(unlock["decision"], uuid::Uuid::nil().to_string());
        assert!(unlock["at"].as_str().unwrap().ends_with('Z') && unlock["monoms"].is_u64());
        assert_eq!(next(watcher).await["edge"], "lock", "the repeated unlock is no edge");
    }
}

#[tokio::test]
async fn dropping_the_relay_takes_its_fail_state() {
    for (fail, expected) in [(FailMode::Secure, "lock"), (FailMode::Safe, "unlock")] {
        let dir = tempfile::tempdir().unwrap();
        let (mut relay, watch) = door(dir.path(), fail);
        tokio::spawn(watch.serve(CancellationToken::new()));
        let mut watcher = lines(dir.path()).await;
        next(&mut watcher).await;
        if fail == FailMode::Secure {
            relay.unlock(order()).unwrap();
            assert_eq!(next(&mut watcher).await["edge"], "unlock");
        }
        drop(relay);
        assert_eq!(next(&mut watcher).await["edge"], expected);
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_dropped_and_the_door_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (mut relay, watch) = door(dir.path(), FailMode::Secure);
    tokio::spawn(watch.serve(CancellationToken::new()));
    let slow = UnixStream::connect(door_socket(dir.path(), "main")).await.unwrap();
    let mut good = lines(dir.path()).await;
    next(&mut good).await;
    // Far more edges than the socket buffer and the broadcast hold together. The good watcher reads as they come.
    for _ in 0..5_000 {
        relay.unlock(order()).unwrap();
        relay.lock(order()).unwrap();
        next(&mut good).await;
        next(&mut good).await;
    }
    let mut slow = BufReader::new(slow).lines();
    let mut seen = 0;
    while let Ok(Some(_)) = slow.next_line().await {
        seen += 1;
    }
    assert!(seen < 10_000, "the slow watcher saw all {seen} lines: nothing bounded it");
}

#[tokio::test]
async fn what_a_watcher_writes_moves_nothing() {
    use tokio::io::AsyncWriteExt;
    let dir = tempfile::tempdir().unwrap();
    let (relay, watch) = door(dir.path(), FailMode::Secure);
    tokio::spawn(watch.serve(CancellationToken::new()));
    let mut stream = UnixStream::connect(door_socket(dir.path(), "main")).await.unwrap();
    stream.write_all(b"{\"edge\":\"unlock\"}\n").await.unwrap();
    let mut watcher = lines(dir.path()).await;
    next(&mut watcher).await;
    assert_eq!(relay.state(), RelayState::Locked);
}
