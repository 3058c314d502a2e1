//! Sessions that are opened at one hub, shown frames at both in turn, and completed at the other; whose attempts count together; and
//! whose time runs out once.

use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use system_tests::launcher::Tenant;

use super::{Pair, Which, other, read, text};
use crate::lab::now;
use crate::outcome::Tally;

/// The shortest that a tenant may choose.
const EXPIRE_AFTER_S: u64 = 30;
/// Sessions whose time runs out.
const EXPIRING: usize = 24;
/// The job looks every two seconds.
const NOTED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Somebody before a camera.
struct Kiosk<'a> {
    pair: &'a Pair,
    id: String,
    token: String,
}

/// Sessions of every kind, across both hubs. Returns how often the checker sees an end that was written down twice.
pub async fn measure(pair: &Pair, rounds: u64, tally: &mut Tally) -> Result<u64> {
    let (tenant, waiting) = (pair.hub(0)?.create_tenant("sessions")?, pair.hub(1)?.create_tenant("waiting")?);
    let expiring = expiring(pair, &waiting).await?;
    let begun = now();
    let person = enrolled(pair, &tenant, tally).await?;
    for round in 0..rounds {
        let at = usize::try_from(round % 2)?;
        verified(pair, &tenant, &person, at, tally).await?;
        attempts(pair, &tenant, &person, at, tally).await?;
        together(pair, &tenant, &person, at, tally).await?;
        tally.add("session_rounds", 1);
    }
    tokio::time::sleep_until((begun + Duration::from_secs(EXPIRE_AFTER_S)).into()).await;
    expired(pair, &waiting, &expiring, tally).await
}

/// An enrolment that is opened at one hub, and completed at the other; the person.
async fn enrolled(pair: &Pair, tenant: &Tenant, tally: &mut Tally) -> Result<String> {
    let body = json!({ "external_id": "o", "name": "Somebody" });
    let person = text(&pair.post(0, tenant, "/v1/people", &body).await?, "/id")?;
    let kiosk = Kiosk::open(pair, tenant, 0, "enrolment", &json!({ "person_id": person })).await?;
    for (which, picture) in [(0, "obama.jpg"), (1, "obama2.jpg"), (0, "obama3.jpg")] {
        kiosk.show(which, picture).await?;
    }
    let done = kiosk.complete(1).await?;
    ensure!(done["session"]["state"] == "completed", "an enrolment across both hubs: {done}");
    let shown = pair.get(0, tenant, &format!("/v1/people/{person}")).await?;
    tally.require(shown["templates"][0]["id"] == done["session"]["template_id"], || format!("no template: {shown}"));
    Ok(person)
}

/// Opened at one, shown frames at both, completed at the other.
async fn verified(pair: &Pair, tenant: &Tenant, person: &str, at: Which, tally: &mut Tally) -> Result<()> {
    let wanted = json!({ "kind": "verification", "person_id": person, "require_liveness": false });
    let kiosk = Kiosk::open(pair, tenant, at, "authentication", &wanted).await?;
    for (which, picture) in [(at, "obama2.jpg"), (other(at), "obama3.jpg"), (at, "obama.jpg")] {
        kiosk.show(which, picture).await?;
    }
    let state = kiosk.state(other(at)).await?;
    let frames = state["frames"].as_array().map_or(0, Vec::len);
    tally.require(frames == 3, || format!("{frames} of 3 frames are there: {state}"));
    let done = kiosk.complete(other(at)).await?;
    let matched = done["session"]["state"] == "completed" && done["session"]["result"]["matched"] == json!(true);
    tally.require(matched, || format!("not verified across both hubs: {done}"));
    Ok(())
}

/// Somebody else has as many attempts as the session has, at both hubs together.
async fn attempts(pair: &Pair, tenant: &Tenant, person: &str, at: Which, tally: &mut Tally) -> Result<()> {
    let wanted = json!({ "kind": "verification", "person_id": person, "require_liveness": false, "max_attempts": 2 });
    let kiosk = Kiosk::open(pair, tenant, at, "authentication", &wanted).await?;
    for (which, attempt, state) in [(at, 1, "processing"), (other(at), 2, "failed")] {
        kiosk.show(which, "biden.jpg").await?;
        let refused = kiosk.complete(which).await?;
        let session = &refused["session"];
        tally.require(session["attempts"] == json!(attempt) && session["state"] == state, || {
            format!("attempt {attempt} at hub {which}: {refused}")
        });
    }
    let (status, _) = kiosk.ask(at, Method::GET, "", None).await?;
    tally.require(status == StatusCode::UNAUTHORIZED, || format!("its token is good after the last attempt: {status}"));
    Ok(())
}

/// Frames that are shown to both hubs at the same moment: each is taken or refused, and what is taken is there.
async fn together(pair: &Pair, tenant: &Tenant, person: &str, at: Which, tally: &mut Tally) -> Result<()> {
    let wanted = json!({ "kind": "verification", "person_id": person, "require_liveness": false });
    let kiosk = Kiosk::open(pair, tenant, at, "authentication", &wanted).await?;
    let images = json!({ "images": [STANDARD.encode(pair.picture("obama.jpg")?)] });
    let shown = (0..4).map(|number| kiosk.ask(number % 2, Method::POST, "/frames", Some(&images)));
    let mut taken = 0;
    for answer in join_all(shown).await {
        let (status, answer) = answer?;
        taken += usize::from(status == StatusCode::OK);
        tally.require(status == StatusCode::OK || status == StatusCode::CONFLICT, || format!("{status} {answer}"));
    }
    let state = kiosk.state(other(at)).await?;
    let frames = state["frames"].as_array().map_or(0, Vec::len);
    tally.require(frames == taken && taken > 0, || format!("{taken} frames were taken, and {frames} are there"));
    // And of two who complete it at once one decides.
    let done = join_all([0, 1].map(|which| kiosk.ask(which, Method::POST, "/complete", None))).await;
    let mut decided = 0;
    for answer in done {
        decided += usize::from(answer?.0 == StatusCode::OK);
    }
    tally.require(decided == 1, || format!("a session was decided {decided} times"));
    Ok(())
}

/// Sessions that nobody completes, opened at both.
async fn expiring(pair: &Pair, tenant: &Tenant) -> Result<Vec<String>> {
    let short = json!({ "authentication_s": EXPIRE_AFTER_S, "enrolment_s": 60 });
    pair.done(0, tenant, (Method::PUT, "/v1/tenant/sessions"), Some(&short)).await?;
    let mut ids = Vec::new();
    for number in 0..EXPIRING {
        let wanted = json!({ "kind": "identification", "require_liveness": false });
        ids.push(Kiosk::open(pair, tenant, number % 2, "authentication", &wanted).await?.id);
    }
    Ok(ids)
}

/// Each has ended once, by the job of one hub or the other.
async fn expired(pair: &Pair, tenant: &Tenant, ids: &[String], tally: &mut Tally) -> Result<u64> {
    let mut database = pair.database().await?;
    let ends = "SELECT count(*), count(DISTINCT object_id) FROM audit_entry
                WHERE action = 'session.end' AND tenant_id = $1::uuid AND detail->>'state' = 'expired'";
    let (begun, all) = (now(), i64::try_from(ids.len())?);
    let mut found: (i64, i64) = (0, 0);
    while found.1 < all && begun.elapsed() < NOTED_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
        found = sqlx::query_as(ends).bind(&tenant.id).fetch_one(&mut database).await?;
    }
    // Once more, for whoever comes late.
    tokio::time::sleep(Duration::from_secs(3)).await;
    found = sqlx::query_as(ends).bind(&tenant.id).fetch_one(&mut database).await?;
    let once = |(entries, sessions): (i64, i64)| entries == all && sessions == all;
    tally.require(once(found), || format!("{} ends of {} sessions are in the audit, of {all}", found.0, found.1));
    tally.figure("sessions_expired", found.1);
    for which in [0, 1] {
        let state = pair.get(which, tenant, &format!("/v1/sessions/{}", ids[which])).await?;
        tally.require(state["session"]["state"] == "expired", || format!("at hub {which}: {state}"));
    }
    // The control: one end more.
    Ok(u64::from(!once((found.0 + 1, found.1))))
}

impl<'a> Kiosk<'a> {
    async fn open(pair: &'a Pair, tenant: &Tenant, at: Which, what: &str, wanted: &Value) -> Result<Self> {
        let opened = pair.post(at, tenant, &format!("/v1/sessions/{what}"), wanted).await?;
        Ok(Self { pair, id: text(&opened, "/session/id")?, token: text(&opened, "/token")? })
    }

    async fn ask(&self, at: Which, method: Method, rest: &str, body: Option<&Value>) -> Result<(StatusCode, Value)> {
        let url = format!("{}/v1/sessions/{}{rest}", self.pair.url(at), self.id);
        let mut sent = self.pair.client(at).request(method, url).header("x-session-token", &self.token);
        if let Some(body) = body {
            sent = sent.json(body);
        }
        read(sent).await
    }

    async fn must(&self, at: Which, method: Method, rest: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.ask(at, method, rest, body).await?;
        ensure!(status == StatusCode::OK, "{rest} of a session at hub {at}: {status} {answer}");
        Ok(answer)
    }

    async fn show(&self, at: Which, picture: &str) -> Result<Value> {
        let images = json!({ "images": [STANDARD.encode(self.pair.picture(picture)?)] });
        self.must(at, Method::POST, "/frames", Some(&images)).await
    }

    async fn state(&self, at: Which) -> Result<Value> {
        self.must(at, Method::GET, "", None).await
    }

    async fn complete(&self, at: Which) -> Result<Value> {
        self.must(at, Method::POST, "/complete", None).await
    }
}
