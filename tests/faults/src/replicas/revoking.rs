//! S3: whatever lets somebody in is used at both hubs until it is taken away at one; from then on both are asked over and over.
//!
//! In: the hubs, and how often. Out: how long each was accepted still, where it was taken away and at the other one. Promised: at the other
//! one within [`BOUND`], where it was taken away not once more, and nowhere again after the first refusal.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use reqwest::{Method, StatusCode};
use system_tests::bench::percentile;

use super::credential::{Credential, Kind, Maker, Shown};
use super::{BOTH, Pair, Which, milliseconds, other};
use crate::lab::now;
use crate::outcome::Tally;

/// From the operator's request on.
pub const BOUND: Duration = Duration::from_secs(5);
/// Between two questions at one hub.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// It was used at both for so long before.
const USED_FOR: Duration = Duration::from_millis(400);
/// After the first refusal it is asked for so long whether it is accepted again: longer than a hub believes anything.
const WATCHED_ON: Duration = Duration::from_millis(2_600);
/// What is accepted for longer than this is not waited for.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(8);
/// Under way at once.
const AT_ONCE: usize = 8;
/// Devices that are revoked at each hub at the same moment, and a number that none of the others has.
const AT_EACH: u64 = 3;
const FIRST_OF_THESE: u64 = 1_000_000;
/// The lists of the broker are written right behind the answer.
const LISTED_WITHIN: Duration = Duration::from_secs(2);

/// How a hub is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replica {
    Real,
    /// The broken variant: what was accepted once is believed for so long.
    Believing(Duration),
}

/// What one hub did with one of them.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// When it was refused first.
    refused: Option<Instant>,
    /// When the last question was sent that was accepted.
    accepted: Option<Instant>,
    /// Accepted after it had been refused.
    again: u64,
}

/// What came of one of them.
#[derive(Clone, Copy, Debug)]
struct Seen {
    kind: Kind,
    /// From the request to the first refusal, here and at the other one; none if it never was.
    here: Option<Duration>,
    elsewhere: Option<Duration>,
    /// Accepted at the hub that had answered that it is taken away.
    after_answer: bool,
    too_early: bool,
    again: u64,
    /// From the request to the end of the last stream that it had open.
    streams_ended: Option<Option<Duration>>,
}

/// Takes away `count` of all kinds, at one hub and the other in turn.
pub async fn campaign(pair: &Pair, count: u64, tally: &mut Tally) -> Result<()> {
    let maker = Maker::new(pair).await?;
    let mut under_way = futures::stream::iter(0..count)
        .map(|number| {
            let kind = Kind::ALL[usize::try_from(number).unwrap_or(0) % Kind::ALL.len()];
            take(&maker, kind, number, Replica::Real)
        })
        .buffer_unordered(AT_ONCE);
    let (mut elsewhere, mut here) = (Vec::new(), Vec::new());
    while let Some(seen) = under_way.next().await {
        let seen = seen?;
        tally.injected += 1;
        judge(&seen, tally);
        here.extend(seen.here.map(|took| took.as_secs_f64()));
        let streams = seen.streams_ended.flatten();
        if let Some(last) = seen.elsewhere.max(streams) {
            elsewhere.push(last.as_secs_f64());
            tally.raise(&format!("{:?}_ms_longest", seen.kind).to_lowercase(), milliseconds(last));
        }
    }
    for (name, values) in [("elsewhere", &elsewhere), ("here", &here)] {
        for share in [50, 95, 100] {
            let value = percentile(values, share).context("nothing was refused")?;
            tally.figure(&format!("{name}_ms_p{share}"), milliseconds(Duration::from_secs_f64(value)));
        }
    }
    drop(under_way);
    both_at_once(&maker, count.div_ceil(10), tally).await
}

/// The control: another hub that believes what it knows for a minute. How often the checker finds that it was late.
pub async fn believing(pair: &Pair) -> Result<u64> {
    let maker = Maker::new(pair).await?;
    let mut late = 0;
    for (number, kind) in [Kind::Key, Kind::LoggedOut].into_iter().enumerate() {
        let seen = take(&maker, kind, number as u64, Replica::Believing(Duration::from_secs(60))).await?;
        let mut tally = Tally::default();
        judge(&seen, &mut tally);
        late += u64::from(tally.breaches > 0);
    }
    Ok(late)
}

fn judge(seen: &Seen, tally: &mut Tally) {
    let Seen { kind, here, elsewhere, after_answer, too_early, again, streams_ended } = *seen;
    tally.require(elsewhere.is_some_and(|took| took <= BOUND), || format!("{kind:?}: at the other hub {elsewhere:?}"));
    tally.require(here.is_some() && !after_answer, || {
        format!("{kind:?}: accepted where it was taken away, after the answer ({here:?})")
    });
    tally.require(!too_early, || format!("{kind:?}: refused before it ended"));
    tally.require(again == 0, || format!("{kind:?}: accepted {again} times after it was refused"));
    if let Some(ended) = streams_ended {
        tally.require(ended.is_some_and(|took| took <= BOUND), || format!("{kind:?}: its streams ended {ended:?}"));
    }
}

/// One of them, from its making to its end.
async fn take(maker: &Maker<'_>, kind: Kind, number: u64, replica: Replica) -> Result<Seen> {
    // Each kind is taken away at both hubs, and made at both.
    let at = usize::try_from(number / Kind::ALL.len() as u64 + number).unwrap_or(0) % 2;
    let made_at = usize::try_from(number / (2 * Kind::ALL.len() as u64)).unwrap_or(0) % 2;
    let credential = maker.make(kind, number, made_at).await?;
    let (begun, pair) = (OnceLock::new(), maker.pair);
    let streams = if kind == Kind::Streaming { Some(streams(pair, &credential).await?) } else { None };
    let taking = async {
        tokio::time::sleep(USED_FOR).await;
        let asked = now();
        maker.take_away(&credential, at).await?;
        let answered = now();
        begun.set(asked + kind.goes_on_for()).ok().context("it was taken away before")?;
        anyhow::Ok(answered)
    };
    let elsewhere = watch(pair, &credential, other(at), replica, &begun);
    let (here, elsewhere, answered) =
        tokio::try_join!(watch(pair, &credential, at, Replica::Real, &begun), elsewhere, taking)?;
    let begun = *begun.get().context("it was not taken away")?;
    let since = |watched: Watched| watched.refused.map(|at| at.saturating_duration_since(begun));
    let good_until = answered.max(begun);
    let streams_ended = match streams {
        Some(streams) => Some(ended(streams, begun).await?),
        None => None,
    };
    Ok(Seen {
        kind,
        here: since(here),
        elsewhere: since(elsewhere),
        // The hub's clock and the moment of the request are not one: a rotated key ends a little after `begun`.
        after_answer: kind != Kind::Rotated && here.accepted.is_some_and(|sent| sent > good_until),
        too_early: [here, elsewhere].iter().any(|watched| watched.refused.is_some_and(|at| at < begun)),
        again: here.again + elsewhere.again,
        streams_ended,
    })
}

/// Asks one hub over and over: until it has refused it for a while, or has not for long.
async fn watch(
    pair: &Pair,
    credential: &Credential,
    at: Which,
    replica: Replica,
    begun: &OnceLock<Instant>,
) -> Result<Watched> {
    let (mut watched, mut believed_until) = (Watched::default(), None);
    loop {
        let sent = now();
        let shown = match believed_until {
            Some(until) if sent < until => Shown::Accepted,
            _ => credential.show(pair, at).await?,
        };
        match (shown, watched.refused) {
            (Shown::Refused, None) => watched.refused = Some(now()),
            // Neither let in nor shut out; whoever is never told is never refused.
            (Shown::Refused, Some(_)) | (Shown::Untold, _) => {}
            (Shown::Accepted, refused) => {
                watched.accepted = Some(sent);
                watched.again += u64::from(refused.is_some());
                if let (Replica::Believing(time), None) = (replica, believed_until) {
                    believed_until = Some(sent + time);
                }
            }
        }
        let over = |since: Option<Instant>, after: Duration| since.is_some_and(|since| since.elapsed() > after);
        if over(watched.refused, WATCHED_ON) || over(begun.get().copied(), GIVEN_UP_AFTER) {
            return Ok(watched);
        }
        tokio::time::sleep_until((sent + ASK_EVERY).into()).await;
    }
}

/// An open stream of events at each hub; tells when it ends.
type Streams = Vec<tokio::task::JoinHandle<Instant>>;

async fn streams(pair: &Pair, credential: &Credential) -> Result<Streams> {
    let mut open = Vec::new();
    for which in BOTH {
        let sent = credential.request(pair, which, Method::GET, "/v1/events/stream").timeout(Duration::from_secs(600));
        let answer = sent.send().await?;
        ensure!(answer.status() == StatusCode::OK, "a stream was refused: {}", answer.status());
        open.push(tokio::spawn(async move {
            let mut bytes = answer.bytes_stream();
            while let Some(Ok(_)) = bytes.next().await {}
            now()
        }));
    }
    Ok(open)
}

/// When the last of them ended, counted from `begun`; none if one did not.
async fn ended(streams: Streams, begun: Instant) -> Result<Option<Duration>> {
    let mut last = Duration::ZERO;
    for mut stream in streams {
        let Ok(ended) = tokio::time::timeout_at((begun + GIVEN_UP_AFTER).into(), &mut stream).await else {
            stream.abort();
            return Ok(None);
        };
        last = last.max(ended?.saturating_duration_since(begun));
    }
    Ok(Some(last))
}

/// Devices are revoked at the same moment at both hubs: both write the broker's lists, and neither may take back what the other has
/// written.
async fn both_at_once(maker: &Maker<'_>, rounds: u64, tally: &mut Tally) -> Result<()> {
    for round in 0..rounds {
        let numbers = (0..AT_EACH * 2).map(|number| FIRST_OF_THESE + round * AT_EACH * 2 + number);
        let made = numbers.map(|number| maker.make(Kind::Device, number, hub_of(number)));
        let devices = try_join_all(made).await?;
        // That they are there is what taking them off proves.
        let missing = still_listed(maker, &devices, false)?;
        tally.require(missing.is_empty(), || format!("claimed at once, and not on the broker's list: {missing:?}"));
        let taken = devices.iter().enumerate().map(|(number, device)| maker.take_away(device, number % 2));
        try_join_all(taken).await?;
        let begun = now();
        while !still_listed(maker, &devices, true)?.is_empty() && begun.elapsed() < LISTED_WITHIN {
            tokio::time::sleep(ASK_EVERY).await;
        }
        let listed = still_listed(maker, &devices, true)?;
        tally.add("revoked_at_once", devices.len() as u64);
        tally.require(listed.is_empty(), || format!("revoked at once, and on the broker's list still: {listed:?}"));
        tally.raise("off_the_list_ms_longest", milliseconds(begun.elapsed()));
    }
    Ok(())
}

fn hub_of(number: u64) -> Which {
    usize::from(number % 2 == 1)
}

/// Which of them the broker's list names, or does not.
fn still_listed(maker: &Maker<'_>, devices: &[Credential], named: bool) -> Result<Vec<String>> {
    let list = maker.pair.broker_file("devices.acl")?;
    let ids = devices.iter().map(|device| device.subject().to_owned());
    Ok(ids.filter(|id| list.contains(id) == named).collect())
}
