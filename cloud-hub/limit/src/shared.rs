//! Buckets that replicas share, in Valkey or Redis: one script a request, by the store's own clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, IntoConnectionInfo as _, Script};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Asked, Bucket};
use hub_domain::limit::{Micros, Standing, ask};

/// A request waits for the counters no longer than this.
const WITHIN: Duration = Duration::from_millis(100);
/// For a connection to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// After a failure nobody waits again for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// In: the names of the buckets, and for each microseconds of an interval and a burst. Reads when each will be worked off, and
/// puts each forward by an interval if all have room. Out: the time, and what was there. The same arithmetic as
/// `domain::limit::ask`, which makes the answer of it.
const TAKE: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local found, after, room = {}, {}, true
for i, name in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local whole = interval * burst
  local there = tonumber(redis.call('GET', name)) or now
  found[i] = string.format('%.0f', there)
  after[i] = math.min(math.max(there, now), now + whole) + interval
  room = room and after[i] <= now + whole
end
if room then
  for i, name in ipairs(KEYS) do
    redis.call('SET', name, string.format('%.0f', after[i]), 'PX', math.ceil((after[i] - now) / 1000))
  end
end
return { string.format('%.0f', now), unpack(found) }
";

/// The store's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{problem}; write it as redis://:password@host:6379/0, or rediss:// for TLS")]
pub struct SharedError {
    problem: String,
}

/// A connection to the store, which comes back by itself.
pub struct Shared {
    connection: ConnectionManager,
    take: Script,
    began: Instant,
    /// Microseconds since `began` until which it is not asked, since it failed; 0: it answers.
    paused: AtomicU64,
}

impl Shared {
    /// The store at `url`. It need not be there yet.
    pub fn new(url: &str) -> Result<Self, SharedError> {
        let wrong = |error: redis::RedisError| SharedError { problem: error.to_string() };
        let client = Client::open(url.into_connection_info().map_err(wrong)?).map_err(wrong)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(WITHIN))
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        Ok(Self { connection, take: Script::new(TAKE), began: Instant::now(), paused: AtomicU64::new(0) })
    }

    /// Takes one request out of every bucket or out of none; `None` if the store does not answer.
    pub(super) async fn take(&self, owner: Uuid, asked: &[Asked]) -> Option<Vec<Standing>> {
        let now = self.elapsed();
        if self.paused.load(Ordering::Relaxed) > now {
            return None;
        }
        match tokio::time::timeout(WITHIN, self.ask_store(owner, asked)).await {
            Ok(Ok(Some(standings))) => {
                if self.paused.swap(0, Ordering::Relaxed) > 0 {
                    tracing::info!(event = "shared_limits_back", "the shared limits answer again");
                }
                Some(standings)
            }
            failed => {
                let pause = u64::try_from(PAUSE.as_micros()).unwrap_or(u64::MAX);
                if self.paused.swap(now + pause, Ordering::Relaxed) == 0 {
                    let cause = match failed {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(_)) => String::from("it answers something else than was asked"),
                        _ => format!("no answer within {} ms", WITHIN.as_millis()),
                    };
                    tracing::warn!(
                        event = "shared_limits_away",
                        cause,
                        "the shared limits do not answer; this hub limits by itself"
                    );
                }
                None
            }
        }
    }

    /// Whether it answered when it was last asked.
    pub(super) fn answers(&self) -> bool {
        self.paused.load(Ordering::Relaxed) == 0
    }

    async fn ask_store(&self, owner: Uuid, asked: &[Asked]) -> redis::RedisResult<Option<Vec<Standing>>> {
        let mut call = self.take.prepare_invoke();
        for Asked { bucket, rate } in asked {
            call.key(name(owner, *bucket)).arg(rate.interval).arg(rate.burst);
        }
        let told: Vec<Micros> = call.invoke_async(&mut self.connection.clone()).await?;
        Ok(standings(asked, &told))
    }

    fn elapsed(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// What the buckets say, of the store's time and what it had of each; `None` if that is not one of each bucket: an
/// answer that cannot be read is no room.
fn standings(asked: &[Asked], told: &[Micros]) -> Option<Vec<Standing>> {
    let (now, found) = told.split_first()?;
    let all = asked.iter().zip(found).map(|(asked, until)| ask(Some(*until), *now, asked.rate).0);
    (found.len() == asked.len()).then(|| all.collect())
}

/// All buckets of an owner lie on one node of a cluster: the braces say which part of the name decides.
fn name(owner: Uuid, bucket: Bucket) -> String {
    match bucket {
        Bucket::Key(key) => format!("lintel:limit:{{{owner}}}:key:{key}"),
        Bucket::Caller(caller) => format!("lintel:limit:{{{owner}}}:caller:{caller}"),
        bucket => format!("lintel:limit:{{{owner}}}:{}", bucket.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_domain::ids::ApiKeyId;
    use hub_domain::limit::{Class, Span};

    #[test]
    fn every_bucket_has_a_name_of_its_own() {
        let owner = Uuid::from_u128(1);
        let mut names: Vec<String> = Class::ALL.iter().map(|class| name(owner, Bucket::Class(*class))).collect();
        names.extend([Span::Hour, Span::Day].map(|span| name(owner, Bucket::Span(span))));
        names.extend([2, 3].map(|key| name(owner, Bucket::Key(ApiKeyId(Uuid::from_u128(key))))));
        names.extend([2, 3].map(|caller| name(owner, Bucket::Caller(Uuid::from_u128(caller)))));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| name.contains("{00000000-0000-0000-0000-000000000001}")));
    }

    #[test]
    fn an_answer_that_is_not_one_of_each_bucket_is_none() {
        let asked = [Span::Hour, Span::Day].map(|span| Asked { bucket: Bucket::Span(span), rate: span.rate(100) });
        assert_eq!(standings(&asked, &[5, 5, 5]).map(|standings| standings.iter().all(|one| one.admits)), Some(true));
        for wrong in [&[][..], &[5], &[5, 5], &[5, 5, 5, 5]] {
            assert_eq!(standings(&asked, wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_told_how_it_is_written() {
        let error = Shared::new("http://somewhere").err().unwrap().to_string();
        assert!(error.contains("redis://"), "{error}");
    }
}
