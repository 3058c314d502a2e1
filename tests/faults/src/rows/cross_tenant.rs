//! S1: every operation of the OpenAPI document, by every role of one tenant, about live things of another one. Nothing of the other is
//! in an answer, a header or the log; and the other's own key is answered to each of the same requests. What is for platform
//! administrators is for none of a tenant's keys, and a key of the platform opens nothing of a tenant's.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use reqwest::StatusCode;
use serde_json::json;

use crate::isolation::holdings::canary;
use crate::isolation::request::of_platform;
use crate::isolation::{Answer, Holdings, Neighbours, Operation, Request};
use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row.
pub(super) static S1: Row = Row {
    id: "S1",
    title: "every operation by every role of a tenant about another's live things: as if there were none, and not a byte of them",
    count: 100_000,
    small: 540,
    needs: &[Need::Part("postgres"), Need::Part("models"), Need::Part("demo"), Need::Program("mosquitto", "mosquitto")],
    run: intrusions,
};

const ROLES: [&str; 5] = ["owner", "administrator", "operator", "auditor", "integrator"];
/// Requests under way at once.
const AT_ONCE: usize = 8;
/// How often somebody comes back who was told to, and after which time.
const PATIENCE: usize = 100;
const COMES_BACK: Duration = Duration::from_millis(200);
/// The operation that says of each row what came of it: one that names a site which there is not is refused.
const IMPORT: &str = "import_people";
/// Operations whose success needs a device that answers.
const NO_SUCCESS_HERE: [&str; 1] = ["get_command_logs"];

fn intrusions(lab: &mut Lab) -> Result<Verdict> {
    let count = lab.count();
    let tally = lab.phase("intrusions", 1, |_, tally| {
        let neighbours = Neighbours::open()?;
        neighbours.block_on(campaign(&neighbours, count, tally))?;
        neighbours.block_on(platform(&neighbours, tally))?;
        let log = std::fs::read_to_string(neighbours.site().file("hub.log")).context("the hub's log")?;
        tally.figure("log_bytes", log.len());
        tally.require(!log.is_empty(), || String::from("the hub's log is empty: it is looked for in the wrong place"));
        tally.require(!neighbours.holdings().canaries().any(|canary| log.contains(canary)), || {
            String::from("the other tenant's texts are in the hub's log")
        });
        Ok(())
    })?;
    let control = Control::of("seen_by_owner", tally.count_of("seen_by_owner"))
        .and("succeeded_for_owner", tally.count_of("succeeded_for_owner"))
        .and("succeeded_for_platform", tally.count_of("succeeded_for_platform"));
    Ok(Verdict { tally, control })
}

async fn campaign(neighbours: &Neighbours, count: u64, tally: &mut Tally) -> Result<()> {
    let (operations, other) = (neighbours.operations().await?, neighbours.holdings());
    let intruders = intruders(neighbours).await?;
    tally.figure("operations", operations.len());
    let every = operations.len() as u64;
    let mut answers = futures::stream::iter(0..count)
        .map(|number| {
            let operation = &operations[(number % every) as usize];
            let role = (number / every) as usize % ROLES.len();
            let authorization = &intruders[role];
            async move {
                let request = other.request(operation, number)?;
                let (mut answer, mut later) = (neighbours.ask(authorization, operation, &request).await?, Vec::new());
                // The intruders are one tenant, which may have one import at a time: whoever comes second is told to come back.
                while answer.is_later() && later.len() < PATIENCE {
                    tokio::time::sleep(COMES_BACK).await;
                    later.push(std::mem::replace(
                        &mut answer,
                        neighbours.ask(authorization, operation, &request).await?,
                    ));
                }
                anyhow::Ok((operation, ROLES[role], request, answer, later))
            }
        })
        .buffer_unordered(AT_ONCE);
    while let Some(done) = answers.next().await {
        let (operation, role, request, answer, later) = done?;
        tally.injected += 1;
        tally.add("came_back", later.len() as u64);
        later.iter().for_each(|answer| keeps_quiet(operation, role, answer, other, tally));
        judge(operation, role, &request, &answer, other, tally);
    }
    drop(answers);
    // The control: whose things they are is answered to the same requests, and sees what nobody else may. What ends something
    // comes last.
    let (last, first): (Vec<_>, Vec<_>) =
        operations.iter().partition(|operation| operation.method == reqwest::Method::DELETE);
    for (number, operation) in first.into_iter().chain(last).enumerate() {
        let request = other.request(operation, count + number as u64)?;
        let answer = neighbours.ask(&neighbours.other().authorization, operation, &request).await?;
        let succeeded = answer.status.is_success();
        tally.require(succeeded || NO_SUCCESS_HERE.contains(&operation.id.as_str()), || {
            format!("{} by whose things they are: {} {}", operation.id, answer.status, answer.text)
        });
        tally.require(operation.id != IMPORT || answer.text.contains("\"created\":1"), || {
            format!("a row about a site by whose site it is: {}", answer.text)
        });
        tally.add("succeeded_for_owner", u64::from(succeeded));
        tally.add("seen_by_owner", u64::from(other.canaries().any(|canary| answer.text.contains(canary))));
    }
    Ok(())
}

fn told(operation: &Operation, role: &str, answer: &Answer) -> String {
    let text: String = answer.text.chars().take(400).collect();
    format!("{} ({role}): {} {text}", operation.id, answer.status)
}

/// Nothing of the other is in an answer, whatever it says.
fn keeps_quiet(operation: &Operation, role: &str, answer: &Answer, other: &Holdings, tally: &mut Tally) {
    let seen = other.canaries().any(|canary| answer.text.contains(canary) || answer.headers.contains(canary));
    // A refusal names the path that was asked for, an answer has no reason to.
    let seen = seen || (answer.status.is_success() && other.ids().iter().any(|id| answer.text.contains(id)));
    tally.add("leaks", u64::from(seen));
    tally.require(!seen, || format!("leaks: {}", told(operation, role, answer)));
}

fn judge(operation: &Operation, role: &str, request: &Request, answer: &Answer, other: &Holdings, tally: &mut Tally) {
    let told = || told(operation, role, answer);
    keeps_quiet(operation, role, answer, other, tally);
    tally.require(!answer.status.is_server_error(), || format!("a fault of the hub: {}", told()));
    tally.add(if answer.status.is_success() { "answered" } else { "refused" }, 1);
    tally.require(
        !(operation.id == IMPORT && answer.status.is_success()) || answer.text.contains("\"refused\":1"),
        || format!("a row is not refused: {}", told()),
    );
    if request.names_a_thing {
        // Who may not do it at all is told so before anything is looked up.
        let may_not = answer.status == StatusCode::FORBIDDEN && role != "owner";
        tally.require(answer.status == StatusCode::NOT_FOUND || may_not, || {
            format!("not as if there were none: {}", told())
        });
    }
}

/// Operations of the platform by keys of tenants, and the other way round; then, as the control, each by whom it is for.
async fn platform(neighbours: &Neighbours, tally: &mut Tally) -> Result<()> {
    let (hub, other) = (neighbours.site().hub()?, neighbours.holdings());
    // Each refusal counts against the address, and there are more here than one may have.
    hub.command(&["config", "set", "limits.refused_keys_per_minute=1000000"])?;
    let made = hub.command(&["admins", "create", "S1", "--role", "administrator"])?;
    let text = |name: &str| made[name].as_str().with_context(|| format!("{name} in {made}"));
    let admin = format!("PlatformKey {}:{}", text("id")?, text("secret")?);
    let unknown =
        |answer: &Answer| answer.status == StatusCode::UNAUTHORIZED && answer.text.contains("\"unauthorized\"");
    let mut keys = intruders(neighbours).await?;
    // Not even whose tenant it is about.
    keys.push(neighbours.other().authorization.clone());
    let operations = neighbours.operations_of_platform().await?;
    tally.figure("operations_of_platform", operations.len());
    for operation in &operations {
        let request = of_platform(operation, &neighbours.other().id, &canary("tenant"), 0)?;
        for key in &keys {
            tally.injected += 1;
            let answer = neighbours.ask(key, operation, &request).await?;
            tally.require(unknown(&answer), || {
                format!("{} by a tenant's key: {} {}", operation.id, answer.status, answer.text)
            });
        }
    }
    for (number, operation) in neighbours.operations().await?.iter().enumerate() {
        tally.injected += 1;
        let answer = neighbours.ask(&admin, operation, &other.request(operation, number as u64)?).await?;
        tally.require(unknown(&answer), || {
            format!("{} by a platform key: {} {}", operation.id, answer.status, answer.text)
        });
    }
    let ended = hub.create_tenant("ended")?;
    hub.command(&["tenants", "suspend", &ended.id])?;
    // Its end comes last, and it must be suspended then.
    let mut order: Vec<&Operation> = operations.iter().collect();
    order.sort_by_key(|operation| {
        ["admin_resume_tenant", "admin_suspend_tenant", "admin_delete_tenant"]
            .iter()
            .position(|last| *last == operation.id)
    });
    for operation in order {
        let answer = neighbours.ask(&admin, operation, &of_platform(operation, &ended.id, "ended", 1)?).await?;
        tally.require(answer.status.is_success(), || format!("{}: {} {}", operation.id, answer.status, answer.text));
        tally.add("succeeded_for_platform", u64::from(answer.status.is_success()));
        // The name is the platform's to know; nothing else of a tenant is.
        let text = answer.text.replace(&canary("tenant"), "");
        tally.require(!other.canaries().any(|canary| text.contains(canary)), || {
            format!("{} shows what a tenant has", operation.id)
        });
    }
    Ok(())
}

/// A key of each role of the tenant that asks.
async fn intruders(neighbours: &Neighbours) -> Result<Vec<String>> {
    let site = neighbours.site();
    let mut keys = Vec::new();
    for role in ROLES {
        let made = site.hub()?.post(site.tenant(), "/v1/api-keys", json!({ "name": role, "role": role })).await?;
        let text = |name: &str| made[name].as_str().with_context(|| format!("{name} in {made}"));
        keys.push(format!("ApiKey {}:{}", text("id")?, text("secret")?));
    }
    Ok(keys)
}
