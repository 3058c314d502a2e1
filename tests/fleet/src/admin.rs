//! Making devices through the hub's API and claiming them, as an operator and an installer do.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::device;

/// Claims on their way: one waits for its disk while others wait for the hub.
const CLAIMS_AT_ONCE: usize = 8;

/// Access to a hub's API.
pub struct Admin {
    client: reqwest::Client,
    url: String,
    authorization: String,
}

impl Admin {
    /// Trusts the hub's root alone. `authorization` is the header's value: `ApiKey id:secret`.
    pub fn new(url: &str, root_certificate: &Path, authorization: &str) -> Result<Self> {
        let pem = std::fs::read(root_certificate)
            .with_context(|| format!("root certificate {}", root_certificate.display()))?;
        let client = reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem)?]).build()?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), authorization: authorization.trim().to_owned() })
    }

    /// Makes a device at a site; returns its claim token.
    pub async fn create_device(&self, site: &str, name: &str) -> Result<String> {
        let body = json!({"name": name, "site_id": site, "doors": [{"local_id": "main", "name": "Main door"}]});
        let request = self.client.post(format!("{}/v1/devices", self.url)).json(&body);
        let answer = request.header("authorization", &self.authorization).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the hub did not make device {name}: {status} {text}");
        let made: Value = serde_json::from_str(&text)?;
        let token = made.pointer("/claim/token").and_then(Value::as_str);
        Ok(token.with_context(|| format!("no claim token in {made}"))?.to_owned())
    }

    /// Makes and claims devices until `dir` holds `n` of them, a few side by side. `tell` hears how many there are.
    pub async fn populate(&self, dir: &Path, site: &str, n: usize, tell: impl Fn(usize)) -> Result<()> {
        let missing = (0..n).filter(|index| !dir.join(folder_name(*index)).join("identity").exists());
        let missing: Vec<usize> = missing.collect();
        let mut there = n - missing.len();
        let mut claims = futures::stream::iter(missing)
            .map(|index| async move {
                let name = format!("simulated {index}");
                let token = self.create_device(site, &name).await?;
                device::claim(&dir.join(folder_name(index)), &token, &name).await
            })
            .buffer_unordered(CLAIMS_AT_ONCE);
        while let Some(claimed) = claims.next().await {
            claimed?;
            there += 1;
            tell(there);
        }
        Ok(())
    }
}

/// The folder of a device below the fleet's.
#[must_use]
pub fn folder_name(index: usize) -> String {
    format!("device-{index:05}")
}
