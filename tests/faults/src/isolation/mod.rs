//! Two tenants of one hub: one that asks, and one that has something of everything, with texts in it that nobody else may see.
//!
//! [`holdings`] makes what the other one has, [`request`] says how each operation of the OpenAPI document asks about it.

pub mod holdings;
pub mod request;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use reqwest::StatusCode;
use serde_json::Value;
use system_tests::launcher::Tenant;

use crate::line::Site;
pub use holdings::Holdings;
pub use request::{Body, Operation, Request};

/// As much of a stream is read as comes in this time.
const STREAM_FOR: Duration = Duration::from_millis(150);

/// The hub and both tenants.
pub struct Neighbours {
    site: Site,
    other: Tenant,
    holdings: Arc<Holdings>,
    client: reqwest::Client,
}

/// Somebody who asks a tenant's own hub about what the tenant has, and stays while the hub is killed and started again.
#[derive(Clone)]
pub struct Asker {
    client: reqwest::Client,
    https: String,
    authorization: String,
    holdings: Arc<Holdings>,
}

/// What came back.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: String,
    /// The body, or what came of a stream.
    pub text: String,
}

impl Answer {
    /// Whether whoever asked is told to come back.
    #[must_use]
    pub fn is_later(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE && self.headers.contains("\"retry-after\"")
    }
}

impl Neighbours {
    /// Starts a hub with two tenants, one of which has everything.
    pub fn open() -> Result<Self> {
        let site = Site::open_with(1, &["--consumer-listen", "127.0.0.1:0"])?;
        let other = site.hub()?.create_tenant(&holdings::canary("tenant"))?;
        let holdings = Arc::new(Holdings::make(&site, &other)?);
        let client = site.hub()?.client()?;
        Ok(Self { site, other, holdings, client })
    }

    /// Runs what is asynchronous.
    pub fn block_on<T>(&self, what: impl Future<Output = T>) -> T {
        self.site.block_on(what)
    }

    /// Who asks.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The same, to kill its hub and start it again.
    pub fn site_mut(&mut self) -> &mut Site {
        &mut self.site
    }

    /// Who is asked about.
    #[must_use]
    pub fn other(&self) -> &Tenant {
        &self.other
    }

    /// What they have.
    #[must_use]
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Every operation that takes an API key, as the hub's own document has it.
    pub async fn operations(&self) -> Result<Vec<Operation>> {
        Operation::all(&self.document().await?)
    }

    /// Every operation of platform administrators.
    pub async fn operations_of_platform(&self) -> Result<Vec<Operation>> {
        Operation::of_platform(&self.document().await?)
    }

    async fn document(&self) -> Result<Value> {
        let url = format!("{}/v1/openapi.json", self.site.hub()?.ready().https);
        Ok(self.client.get(url).send().await?.json().await?)
    }

    /// Asks with a key.
    pub async fn ask(&self, authorization: &str, operation: &Operation, request: &Request) -> Result<Answer> {
        self.ask_by(&self.client, authorization, operation, request).await
    }

    /// The same by another client.
    pub async fn ask_by(
        &self,
        client: &reqwest::Client,
        authorization: &str,
        operation: &Operation,
        request: &Request,
    ) -> Result<Answer> {
        send(client, &self.site.hub()?.ready().https, authorization, operation, request).await
    }

    /// Somebody who asks as the tenant that has everything.
    pub fn asker(&self) -> Result<Asker> {
        let https = self.site.hub()?.ready().https.clone();
        let (client, holdings) = (self.client.clone(), Arc::clone(&self.holdings));
        Ok(Asker { client, https, authorization: self.other.authorization.clone(), holdings })
    }
}

impl Asker {
    /// Asks; `number` makes names different that must be.
    pub async fn ask(&self, operation: &Operation, number: u64) -> Result<Answer> {
        let request = self.holdings.request(operation, number)?;
        send(&self.client, &self.https, &self.authorization, operation, &request).await
    }

    /// Reads what is there.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.https);
        let answer = self.client.get(url).header("authorization", &self.authorization).send().await?;
        let (status, headers) = (answer.status(), format!("{:?}", answer.headers()));
        Ok(Answer { status, headers, text: answer.text().await? })
    }
}

async fn send(
    client: &reqwest::Client,
    https: &str,
    authorization: &str,
    operation: &Operation,
    request: &Request,
) -> Result<Answer> {
    let url = format!("{https}{}", request.path);
    let mut sent = client.request(operation.method.clone(), url).header("authorization", authorization);
    sent = match &request.body {
        Body::None => sent,
        Body::Json(body) => sent.json(body),
        Body::Table(table) => sent.header("content-type", "text/csv").body(table.clone()),
        Body::Photograph(bytes) => {
            let part = reqwest::multipart::Part::bytes(bytes.clone()).file_name("photograph");
            sent.multipart(reqwest::multipart::Form::new().part("photo", part))
        }
    };
    if ["put_twin", "update_person"].contains(&operation.id.as_str()) {
        sent = sent.header("if-match", "*");
    }
    let answer = sent.send().await.with_context(|| operation.id.clone())?;
    let (status, headers) = (answer.status(), format!("{:?}", answer.headers()));
    let text = if operation.id == "stream_events" { beginning(answer).await } else { answer.text().await? };
    Ok(Answer { status, headers, text })
}

/// The beginning of an answer that has no end.
async fn beginning(answer: reqwest::Response) -> String {
    let (mut chunks, mut text) = (answer.bytes_stream(), String::new());
    let read = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    // That the time is over is how a stream is read.
    let _ = tokio::time::timeout(STREAM_FOR, read).await;
    text
}
