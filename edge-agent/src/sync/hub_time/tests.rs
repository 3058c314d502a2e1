//! A hub whose certificates are of another time than this machine's clock shows: what the one question overlooks, and what
//! it does not.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use time::OffsetDateTime;
use time::macros::datetime;

use super::*;
use crate::clock::{ClockConfig, SystemClock, TimeService};
use crate::sync::testkit::{Asked, HttpsHub, NONCE, Pki, link_answer_for, successions};
use crate::sync::tls::Now;

/// Ten years after this machine's clock.
const THEN: OffsetDateTime = datetime!(2036-06-15 12:00 UTC);
const LIMIT: Duration = Duration::from_secs(5);

fn unvouched() -> SharedClock {
    Arc::new(SystemClock::resumed(ClockConfig { time_service: TimeService::Ignored }, 0, None))
}

fn good_in_2036(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (datetime!(2036-05-01 0:00 UTC), datetime!(2036-07-30 0:00 UTC));
}

/// What becomes of the question when the hub shows such a certificate and tells this time.
async fn learned(change: impl FnOnce(&mut CertificateParams), told: OffsetDateTime) -> Result<SharedClock, TellError> {
    let pki = Pki::new();
    let served = pki.served(change);
    let hub = HttpsHub::showing(&pki, served, move |asked: Asked| (200, asked.hub_time(told.into()))).await;
    let clock = unvouched();
    learn(&pki.identity(&hub.url, 1), &clock, LIMIT).await?;
    Ok(clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_ten_years_away_is_believed_about_the_time_and_then_about_the_rest() {
    let pki = Pki::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_there = Arc::clone(&seen);
    let hub = HttpsHub::showing(&pki, pki.served(good_in_2036), move |asked: Asked| {
        seen_there.lock().push((asked.line.clone(), asked.with_certificate));
        if asked.line.starts_with("POST /v1/time ") {
            return (200, asked.hub_time(THEN.into()));
        }
        (200, serde_json::to_value(link_answer_for(asked.nonce(), 1, &[])).unwrap())
    })
    .await;
    let (identity, clock) = (pki.identity(&hub.url, 1), unvouched());
    let link = || async {
        let config = tls::mutual(&identity, Now::Of(Arc::clone(&clock))).unwrap();
        Hub::new(config, hub.url.parse().unwrap(), LIMIT).unwrap().link(NONCE).await
    };
    assert!(
        matches!(link().await, Err(HttpsError::NoAnswer { .. })),
        "every other call holds the dates against the clock"
    );
    assert!(seen.lock().is_empty(), "and says nothing to such a hub");

    learn(&identity, &clock, LIMIT).await.unwrap();
    let trusted = clock.wall().trusted().expect("the hub has told the time");
    assert!((trusted - THEN).unsigned_abs() < Duration::from_secs(30));
    assert!(link().await.is_ok(), "the dates hold at the time that was learned");
    let lines = seen.lock().clone();
    assert_eq!(lines[0], ("POST /v1/time HTTP/1.1".to_owned(), false), "whoever asks shows no certificate");
    assert!(lines[1].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ended_while_this_clock_was_ahead_is_good_when_the_answer_says_so() {
    let ended = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (datetime!(2026-11-23 0:00 UTC), datetime!(2026-11-25 0:00 UTC));
    };
    let told = datetime!(2026-11-24 0:00 UTC);
    assert!(learned(ended, told).await.unwrap().wall().trusted().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_dates_is_overlooked() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Change); 5] = [
        ("another name", |params| params.subject_alt_names = vec![SanType::DnsName("hub.example".try_into().unwrap())]),
        ("a device's certificate", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ("an authority's certificate", |params| {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        }),
        ("ended before what is known to be past", |params| {
            (params.not_before, params.not_after) = (datetime!(2020-01-01 0:00 UTC), datetime!(2020-03-31 0:00 UTC));
        }),
        ("good at no time", |params| {
            (params.not_before, params.not_after) = (datetime!(2036-07-01 0:00 UTC), datetime!(2036-06-01 0:00 UTC));
        }),
    ];
    for (name, change) in cases {
        let refused = learned(change, THEN).await;
        assert!(matches!(refused, Err(TellError::Hub(HttpsError::NoAnswer { .. }))), "{name}: {:?}", refused.err());
    }
    let (ours, theirs) = (Pki::new(), Pki::new());
    let asked = |_: Asked| -> (u16, serde_json::Value) { panic!("another root was asked") };
    let hub = HttpsHub::showing(&theirs, theirs.served(|_| {}), asked).await;
    let refused = learn(&ours.identity(&hub.url, 1), &unvouched(), LIMIT).await;
    assert!(matches!(refused, Err(TellError::Hub(HttpsError::NoAnswer { .. }))), "another root: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_which_the_certificate_is_not_good_or_that_lies_below_the_floor_is_not_taken() {
    for told in [THEN - time::Duration::days(60), THEN + time::Duration::days(60)] {
        assert!(matches!(learned(good_in_2036, told).await, Err(TellError::Dates(DatesError::NotThen { .. }))));
    }
    let below = learned(|_| {}, datetime!(2026-10-01 0:00 UTC)).await;
    assert!(matches!(below, Err(TellError::Refused(TimeRefused::BelowFloor { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_an_older_question_or_under_another_key_is_not_taken() {
    let pki = Pki::new();
    let first = Arc::new(Mutex::new(None));
    let replayed = Arc::clone(&first);
    let hub = HttpsHub::start(&pki, true, move |asked: Asked| {
        let answer = asked.hub_time(THEN.into());
        (200, replayed.lock().get_or_insert(answer).clone())
    })
    .await;
    let (identity, clock) = (pki.identity(&hub.url, 1), unvouched());
    learn(&identity, &clock, LIMIT).await.unwrap();
    let replay = learn(&identity, &clock, LIMIT).await;
    assert!(matches!(replay, Err(TellError::Answer(HubTimeError::OtherNonce))), "{replay:?}");

    let mut other = identity.clone();
    other.hub_keys[0].key_id = uuid::Uuid::from_u128(9).to_string();
    *first.lock() = None;
    let refused = learn(&other, &unvouched(), LIMIT).await;
    assert!(matches!(refused, Err(TellError::Answer(HubTimeError::UnknownKey { .. }))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_under_a_later_key_is_taken_if_the_pinned_one_leads_to_it() {
    let pki = Pki::new();
    let told = Arc::new(Mutex::new(successions(3)));
    let says = Arc::clone(&told);
    let hub = HttpsHub::start(&pki, true, move |asked: Asked| {
        let said = says.lock().clone();
        (200, asked.hub_time_by(3, THEN.into(), said))
    })
    .await;
    let identity = pki.identity(&hub.url, 1);
    assert_eq!(learn(&identity, &unvouched(), LIMIT).await.unwrap(), successions(3), "to be kept");
    for broken in [Vec::new(), successions(2), successions(3).split_off(1)] {
        *told.lock() = broken;
        let refused = learn(&identity, &unvouched(), LIMIT).await;
        assert!(matches!(refused, Err(TellError::Answer(HubTimeError::UnknownKey { .. }))), "{refused:?}");
    }
}
