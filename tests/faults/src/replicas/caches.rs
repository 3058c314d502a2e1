//! What a hub keeps in memory is as the database has it, whoever changed it: galleries and thresholds at the next request, what a tenant
//! and its keys may do within [`BELIEVED`].

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use system_tests::launcher::Tenant;

use super::{BOTH, Pair, Which, milliseconds, other, text};
use crate::lab::now;
use crate::outcome::Tally;

/// As docs/guides/replicas.md promises, and a little for the way.
const BELIEVED: Duration = Duration::from_millis(2_500);
const GIVEN_UP_AFTER: Duration = Duration::from_secs(8);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The tenant, and probes of two people who come and go.
struct Gallery<'a> {
    pair: &'a Pair,
    tenant: Tenant,
    photographs: [Vec<u8>; 2],
    probes: [Value; 2],
    /// Rates to choose from, the strictest first.
    rates: Vec<String>,
}

/// Goes through `rounds` changes of every kind, made at one hub and the other in turn. Returns how often the checker sees an answer that is
/// older than the change.
pub async fn measure(pair: &Pair, rounds: u64, tally: &mut Tally) -> Result<u64> {
    let gallery = Gallery::new(pair).await?;
    let mut old_seen = 0;
    for round in 0..rounds {
        let at = usize::try_from(round % 2)?;
        old_seen += gallery.round(round, at, tally).await?;
        tally.add("cache_rounds", 1);
    }
    gallery.suspended(tally).await?;
    Ok(old_seen)
}

impl<'a> Gallery<'a> {
    async fn new(pair: &'a Pair) -> Result<Self> {
        let tenant = pair.hub(0)?.create_tenant("galleries")?;
        let photographs = [pair.picture("obama.jpg")?, pair.picture("biden.jpg")?];
        let mut probes = Vec::new();
        for photograph in &photographs {
            let body = json!({ "image": STANDARD.encode(photograph) });
            let made = pair.post(0, &tenant, "/v1/recognition/embed", &body).await?;
            probes.push(json!({ "template": { "space_id": made["space_id"], "vector": made["vector"] } }));
        }
        let policy = pair.get(0, &tenant, "/v1/tenant/recognition").await?;
        let choices = policy["choices"].as_array().context("no rates to choose from")?;
        let mut rates: Vec<String> = choices.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        rates.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        ensure!(rates.len() > 1, "there is nothing to choose from: {policy}");
        let probes = probes.try_into().ok().context("two probes")?;
        let gallery = Self { pair, tenant, photographs, probes, rates };
        // Somebody who stays: galleries are warm on both, and never empty.
        gallery.enrol(0, 1, "stays").await?;
        for which in BOTH {
            gallery.identified(which, 1).await?;
        }
        Ok(gallery)
    }

    /// Each change at one hub, and then the next request at the other.
    async fn round(&self, round: u64, at: Which, tally: &mut Tally) -> Result<u64> {
        let elsewhere = other(at);
        let person = self.enrol(at, 0, &format!("comes-{round}")).await?;
        let found = self.identified(elsewhere, 0).await?;
        let known = found["person_id"] == json!(person) && found["compared"] == json!(2);
        tally.require(known, || format!("enrolled at hub {at}, not known: {found}"));
        // Who is found is shown with the name of now.
        let (path, name) = (format!("/v1/people/{person}"), format!("renamed {round}"));
        let url = format!("{}{path}", self.pair.url(at));
        let sent = self.pair.client(at).patch(url).header("authorization", &self.tenant.authorization);
        let sent = sent.header("if-match", "*").json(&json!({ "name": name }));
        sent.send().await?.error_for_status().context("a new name")?;
        let shown = self.pair.get(elsewhere, &self.tenant, &path).await?;
        tally.require(shown["name"] == json!(name), || format!("renamed at hub {at}, and shown as {shown}"));
        // Another rate: the thresholds are others at once.
        let wanted = &self.rates[usize::try_from(round)? % self.rates.len()];
        let body = json!({ "far": wanted });
        self.pair.done(at, &self.tenant, (Method::PUT, "/v1/tenant/recognition"), Some(&body)).await?;
        let before = self.identified(elsewhere, 0).await?;
        tally.require(before["far"] == json!(wanted), || format!("{wanted} since a moment ago at hub {at}: {before}"));
        // Whoever is deleted at one is known at none.
        self.pair.done(at, &self.tenant, (Method::DELETE, &path), None).await?;
        let mut old_seen = 0;
        for which in [elsewhere, at] {
            let found = self.identified(which, 0).await?;
            tally.require(is_gone(&found, &person), || {
                format!("deleted at hub {at}, and known at hub {which}: {found}")
            });
            // The control: the answer of a moment ago, as a hub would give it whose gallery is old.
            old_seen += u64::from(!is_gone(&before, &person));
        }
        Ok(old_seen)
    }

    /// A tenant that is suspended at one hub is refused at both, and served again.
    async fn suspended(&self, tally: &mut Tally) -> Result<()> {
        for at in BOTH {
            for (order, wanted) in [("suspend", StatusCode::FORBIDDEN), ("resume", StatusCode::OK)] {
                for which in BOTH {
                    // Known to both, as it was.
                    self.status(which).await?;
                }
                self.pair.hub(at)?.command(&["tenants", order, &self.tenant.id])?;
                let begun = now();
                for which in [at, other(at)] {
                    while self.status(which).await? != wanted && begun.elapsed() < GIVEN_UP_AFTER {
                        tokio::time::sleep(ASK_EVERY).await;
                    }
                    let took = begun.elapsed();
                    tally.raise(&format!("{order}_ms_longest"), milliseconds(took));
                    tally.require(took <= BELIEVED, || format!("{order} at hub {at}, at hub {which} after {took:?}"));
                }
            }
        }
        Ok(())
    }

    async fn status(&self, which: Which) -> Result<StatusCode> {
        Ok(self.pair.ask(which, &self.tenant, (Method::GET, "/v1/sites"), None).await?.0)
    }

    async fn identified(&self, which: Which, probe: usize) -> Result<Value> {
        self.pair.post(which, &self.tenant, "/v1/recognition/identify", &self.probes[probe]).await
    }

    async fn enrol(&self, at: Which, photograph: usize, external_id: &str) -> Result<String> {
        let body = json!({ "external_id": external_id, "name": external_id });
        let person = text(&self.pair.post(at, &self.tenant, "/v1/people", &body).await?, "/id")?;
        let part = reqwest::multipart::Part::bytes(self.photographs[photograph].clone()).file_name("photograph");
        let url = format!("{}/v1/people/{person}/enrolments", self.pair.url(at));
        let sent = self.pair.client(at).post(url).header("authorization", &self.tenant.authorization);
        let (status, answer) = super::read(sent.multipart(reqwest::multipart::Form::new().part("photo", part))).await?;
        ensure!(status.is_success(), "an enrolment: {status} {answer}");
        Ok(person)
    }
}

/// Whether an answer knows nothing of them.
fn is_gone(answer: &Value, person: &str) -> bool {
    !answer.to_string().contains(person)
}

fn rate(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}
