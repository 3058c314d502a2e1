//! The HTTPS calls of a device: the claim, the link, the renewal, the question for the time, snapshots, and what commands ask it
//! to send. TLS 1.3, no redirects, no proxy, bounded answers.
//!
//! In: a rustls configuration and the hub's address. Out: a typed answer, or an error that carries the hub's own code.

use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;
use wire_contract::claim::{ClaimAnswer, ClaimRequest};
use wire_contract::snapshot::SnapshotAnswer;
use wire_contract::{
    Code, CommandId, EnrolAnswer, EnrolRequest, HubTime, HubTimeRequest, LinkAnswer, Problem, RenewalRequest, paths,
};

/// Longest answer, in bytes: a link with a thousand galleries has about 200 KiB.
const MAX_ANSWER: usize = 1024 * 1024;
/// The hub cuts a gallery when its manifest is asked for: 100,000 people take it some ten seconds.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(120);
/// A content takes as long as its line makes it; whoever reads it notices silence.
const CONTENT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Why a call to the hub has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The client could not be made.
    #[error("the HTTPS client cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The address and the path make no URL.
    #[error("hub address {hub} is not usable")]
    Address {
        /// The address.
        hub: Url,
        /// Why.
        #[source]
        source: url::ParseError,
    },
    /// No connection, no TLS, or no complete answer.
    #[error("the hub at {url} did not answer; check the network, the address and that it is running")]
    NoAnswer {
        /// What was called.
        url: Url,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The hub refused.
    #[error("the hub refused ({status} {code}): {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code, of the register.
        code: Code,
        /// What the hub says.
        text: String,
    },
    /// The answer is too long.
    #[error("the answer of {url} is longer than {MAX_ANSWER} bytes")]
    TooLong {
        /// What was called.
        url: Url,
    },
    /// The content does not begin where it was asked for.
    #[error("the answer of {url} does not begin at byte {from}")]
    OtherRange {
        /// What was called.
        url: Url,
        /// Where it should begin.
        from: u64,
    },
    /// The answer is not what this program knows.
    #[error("the answer of {url} cannot be read; update the program, or the hub")]
    Malformed {
        /// What was called.
        url: Url,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl HttpsError {
    /// Whether nobody answered: trying again later may help, another token or setting will not.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// Makes the calls under one TLS configuration.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    client: Client,
    base: Url,
}

impl Hub {
    pub(super) fn new(tls: ClientConfig, base: Url, timeout: Duration) -> Result<Self, HttpsError> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(timeout)
            .build()
            .map_err(HttpsError::Client)?;
        Ok(Self { client, base })
    }

    /// `POST /v1/claims`.
    pub(super) async fn claim(&self, request: &ClaimRequest) -> Result<ClaimAnswer, HttpsError> {
        let url = self.url(paths::CLAIMS)?;
        let call = self.client.post(url.clone()).json(request);
        answer(call.send().await, url).await
    }

    /// `POST /v1/time`.
    pub(super) async fn time(&self, request: &HubTimeRequest) -> Result<HubTime, HttpsError> {
        let url = self.url(paths::TIME)?;
        let call = self.client.post(url.clone()).json(request);
        answer(call.send().await, url).await
    }

    /// `GET /v1/device/link`; the time in the answer is signed for `nonce`.
    pub(super) async fn link(&self, nonce: Uuid) -> Result<LinkAnswer, HttpsError> {
        let mut url = self.url(paths::DEVICE_LINK)?;
        url.query_pairs_mut().append_pair(paths::NONCE, &nonce.to_string());
        answer(self.client.get(url.clone()).send().await, url).await
    }

    /// `POST /v1/device/renewal`.
    pub(super) async fn renew(&self, request: &RenewalRequest) -> Result<ClaimAnswer, HttpsError> {
        let url = self.url(paths::DEVICE_RENEWAL)?;
        let call = self.client.post(url.clone()).json(request);
        answer(call.send().await, url).await
    }

    /// `GET /v1/device/snapshots/{id}/manifest`.
    pub(super) async fn snapshot_manifest(&self, id: Uuid) -> Result<SnapshotAnswer, HttpsError> {
        let url = self.url(&format!("{}/{id}/manifest", paths::DEVICE_SNAPSHOTS))?;
        answer(self.client.get(url.clone()).timeout(MANIFEST_TIMEOUT).send().await, url).await
    }

    /// `GET /v1/device/snapshots/{id}` from this byte on.
    pub(super) async fn snapshot_content(&self, id: Uuid, from: u64) -> Result<Content, HttpsError> {
        let url = self.url(&format!("{}/{id}", paths::DEVICE_SNAPSHOTS))?;
        let call = self.client.get(url.clone()).header(RANGE, format!("bytes={from}-")).timeout(CONTENT_TIMEOUT);
        let response = call.send().await.map_err(|source| HttpsError::NoAnswer { url: url.clone(), source })?;
        let status = response.status();
        if !status.is_success() {
            let body = body(response, &url).await?;
            return Err(refusal(status.as_u16(), &body));
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        if !range.is_some_and(|range| range.starts_with(&format!("bytes {from}-"))) {
            return Err(HttpsError::OtherRange { url, from });
        }
        Ok(Content { response, url })
    }

    /// `PUT /v1/device/logs/{command}`.
    pub(super) async fn put_logs(&self, command: CommandId, lines: String) -> Result<(), HttpsError> {
        let url = self.url(&format!("{}/{command}", paths::DEVICE_LOGS))?;
        let call = self.client.put(url.clone()).header("content-type", "application/x-ndjson").body(lines);
        let response = call.send().await.map_err(|source| HttpsError::NoAnswer { url: url.clone(), source })?;
        let status = response.status();
        let body = body(response, &url).await?;
        if status.is_success() { Ok(()) } else { Err(refusal(status.as_u16(), &body)) }
    }

    /// `POST /v1/device/enrolments`.
    pub(super) async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolAnswer, HttpsError> {
        let url = self.url(paths::DEVICE_ENROLMENTS)?;
        let call = self.client.post(url.clone()).json(request);
        answer(call.send().await, url).await
    }

    fn url(&self, path: &str) -> Result<Url, HttpsError> {
        self.base.join(path).map_err(|source| HttpsError::Address { hub: self.base.clone(), source })
    }
}

/// A content as it comes.
pub(super) struct Content {
    response: Response,
    url: Url,
}

impl Content {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>, HttpsError> {
        self.response.chunk().await.map_err(|source| HttpsError::NoAnswer { url: self.url.clone(), source })
    }
}

async fn answer<T: DeserializeOwned>(response: Result<Response, reqwest::Error>, url: Url) -> Result<T, HttpsError> {
    let response = response.map_err(|source| HttpsError::NoAnswer { url: url.clone(), source })?;
    let status = response.status();
    let body = body(response, &url).await?;
    if !status.is_success() {
        return Err(refusal(status.as_u16(), &body));
    }
    serde_json::from_slice(&body).map_err(|source| HttpsError::Malformed { url, source })
}

async fn body(mut response: Response, url: &Url) -> Result<Vec<u8>, HttpsError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|source| HttpsError::NoAnswer { url: url.clone(), source })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(HttpsError::TooLong { url: url.clone() });
        }
        body.extend_from_slice(&chunk);
    }
}

fn refusal(status: u16, body: &[u8]) -> HttpsError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let text = problem.detail.unwrap_or(problem.title);
            HttpsError::Refused { status, code: problem.code, text }
        }
        Err(_) => HttpsError::Refused { status, code: Code::Unlisted, text: "without saying why".to_owned() },
    }
}
