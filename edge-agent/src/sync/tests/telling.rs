//! A clock that nothing vouches for: the time comes first, from the hub.

use super::*;
use crate::clock::{ClockConfig, SystemClock, TimeService};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_clock_nobody_vouches_for_learns_the_time_before_anything_else() {
    let then = time::macros::datetime!(2036-06-15 12:00 UTC);
    let pki = Pki::new();
    let served = pki.served(|params| {
        (params.not_before, params.not_after) = (then - time::Duration::DAY, then + time::Duration::DAY);
    });
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let seen = Arc::clone(&lines);
    let https = HttpsHub::showing(&pki, served, move |asked| {
        seen.lock().push(asked.line.split(['?', ' ']).take(2).collect::<Vec<_>>().join(" "));
        if asked.line.starts_with("POST /v1/time ") {
            return (200, asked.hub_time(then.into()));
        }
        (200, serde_json::to_value(link_answer_for(asked.nonce(), 1, &[(GALLERY, 1)])).unwrap())
    })
    .await;
    let device = Device::of(&pki, &https.url, 1);
    let (_recorded, watching) = watch::channel(0);
    let (status, shown) = watch::channel(SyncStatus::default());
    let (recorder, _happenings) = Recorder::channel();
    let clock: SharedClock =
        Arc::new(SystemClock::resumed(ClockConfig { time_service: TimeService::Ignored }, 0, None));
    let stop = CancellationToken::new();
    let sync = tokio::spawn(run(inputs(&device, Arc::clone(&clock), watching, recorder), status, stop.clone()));
    eventually("the link is fetched", || shown.borrow().link_epoch == Some(1)).await;
    assert_eq!(lines.lock()[..2], ["POST /v1/time", "GET /v1/device/link"]);
    // The link's own time, ten years back, is below what is now known to be past.
    assert!(clock.wall().trusted().is_some_and(|utc| utc >= then));
    stop.cancel();
    tokio::time::timeout(PATIENCE, sync).await.expect("it stops").unwrap();
}
