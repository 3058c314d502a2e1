//! The cloud hub as an operator runs it: `serve --embedded`, its command line, its REST API.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Places, Process, process};

/// What the hub prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Base URL of the REST API.
    pub https: String,
    /// `host:port` of the device listener of the broker.
    pub mqtt: String,
    /// `host:port` of the listener for consumers, where there is one.
    pub mqtt_consumers: Option<String>,
    /// Connection URL of the embedded Postgres, for looking at rows; empty where it is somebody else's.
    #[serde(deserialize_with = "or_empty")]
    pub postgres: String,
    /// The root certificate that signs the API's certificate.
    pub root_certificate: PathBuf,
}

/// A hub with its own Postgres and Mosquitto in a data directory.
pub struct Hub {
    process: Process,
    ready: Ready,
    data_dir: PathBuf,
    program: PathBuf,
}

/// A tenant and the key of its first API user.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The tenant's id.
    pub id: String,
    /// Value of the `Authorization` header.
    pub authorization: String,
}

impl Hub {
    /// Starts `cloud-hub serve --embedded` and waits for the line that says it is ready.
    pub async fn start(places: &Places, data_dir: &Path, https_port: u16, mqtt_port: u16) -> Result<Self> {
        Self::start_with(places, data_dir, https_port, mqtt_port, &[]).await
    }

    /// The same with further options of `serve`.
    pub async fn start_with(
        places: &Places,
        data_dir: &Path,
        https_port: u16,
        mqtt_port: u16,
        options: &[&str],
    ) -> Result<Self> {
        Self::start_configured(places, data_dir, (https_port, mqtt_port), options, &[]).await
    }

    /// The same with settings (`LINTEL__SECTION__KEY`) that lie over the configuration; the ports are the API's and the broker's.
    pub async fn start_configured(
        places: &Places,
        data_dir: &Path,
        (https_port, mqtt_port): (u16, u16),
        options: &[&str],
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mqtt = format!("127.0.0.1:{mqtt_port}");
        let options = [&["--embedded", "--mqtt-listen", &mqtt], options].concat();
        Self::launch(places, data_dir, https_port, &options, settings).await
    }

    /// Starts `cloud-hub serve` on a Postgres and a broker of others, which `settings` name.
    pub async fn start_beside(
        places: &Places,
        data_dir: &Path,
        https_port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        Self::launch(places, data_dir, https_port, &[], settings).await
    }

    async fn launch(
        places: &Places,
        data_dir: &Path,
        https_port: u16,
        options: &[&str],
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let config = data_dir.with_extension("toml");
        std::fs::write(&config, hub_config(places))?;
        let program = places.programs.join("cloud-hub");
        let mut command = Command::new(&program);
        command
            .arg("--config")
            .arg(&config)
            .args(["serve", "--data-dir"])
            .arg(data_dir)
            .args(["--listen", &format!("127.0.0.1:{https_port}")])
            .args(options)
            .env("LINTEL_PARTS", &places.parts)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped());
        let mut process = Process::spawn("cloud-hub", command, &data_dir.with_extension("log"))?;
        let stdout = process.take_stdout().context("the hub's standard output")?;
        let line = tokio::time::timeout(Duration::from_secs(60), first_json_line(stdout)).await;
        let ready = match line {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => {
                process.check_alive()?;
                bail!("{error}; the hub's log ends:\n{}", process.log_tail());
            }
            Err(_) => bail!("the hub was not ready within 60 s; its log ends:\n{}", process.log_tail()),
        };
        Ok(Self { process, ready, data_dir: data_dir.to_path_buf(), program })
    }

    /// What it printed when it was ready.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The process, to measure, stop or kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs a subcommand against this hub and parses its JSON.
    pub fn command(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(&self.data_dir).args(arguments).args(["-o", "json"]);
        let text = process::output(command)?;
        serde_json::from_str(&text).with_context(|| format!("cloud-hub {arguments:?} did not print JSON: {text}"))
    }

    /// Makes a tenant with an API key.
    pub fn create_tenant(&self, name: &str) -> Result<Tenant> {
        let made = self.command(&["tenants", "create", name])?;
        let text = |pointer: &str| -> Result<String> {
            Ok(made
                .pointer(pointer)
                .and_then(Value::as_str)
                .with_context(|| format!("{pointer} in {made}"))?
                .to_owned())
        };
        Ok(Tenant {
            id: text("/tenant/id")?,
            authorization: format!("ApiKey {}:{}", text("/api_key/id")?, text("/api_key/secret")?),
        })
    }

    /// An HTTP client that trusts this hub's root alone.
    pub fn client(&self) -> Result<reqwest::Client> {
        let pem = std::fs::read(&self.ready.root_certificate)
            .with_context(|| format!("root certificate {}", self.ready.root_certificate.display()))?;
        Ok(reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem)?])
            .timeout(Duration::from_secs(60))
            .build()?)
    }

    /// Sends a JSON request as the tenant; any status but 2xx is an error with the problem's text.
    pub async fn call(
        &self,
        tenant: &Tenant,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let mut request = self
            .client()?
            .request(method.clone(), format!("{}{path}", self.ready.https))
            .header("authorization", &tenant.authorization);
        if let Some(body) = body {
            request = request.json(&body);
        }
        read_answer(&format!("{method} {path}"), request.send().await?).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, tenant: &Tenant, path: &str, body: Value) -> Result<Value> {
        self.call(tenant, reqwest::Method::POST, path, Some(body)).await
    }

    /// `GET`.
    pub async fn get(&self, tenant: &Tenant, path: &str) -> Result<Value> {
        self.call(tenant, reqwest::Method::GET, path, None).await
    }

    /// Makes a site; its gallery comes with it. Returns the site's id.
    pub async fn create_site(&self, tenant: &Tenant, name: &str) -> Result<String> {
        let site = self.post(tenant, "/v1/sites", json!({"name": name, "time_zone": "Asia/Jakarta"})).await?;
        Ok(site["id"].as_str().with_context(|| format!("no id in {site}"))?.to_owned())
    }

    /// Makes a device with so many doors, `main` first. Returns the token with which an agent claims it.
    pub async fn create_device(&self, tenant: &Tenant, site: &str, name: &str, n_doors: usize) -> Result<String> {
        let doors = (0..n_doors).map(super::door_name);
        let doors: Vec<Value> =
            doors.map(|door| json!({"local_id": door, "name": format!("Entrance {door}")})).collect();
        let device = self.post(tenant, "/v1/devices", json!({"name": name, "site_id": site, "doors": doors})).await?;
        let token = device.pointer("/claim/token").and_then(Value::as_str);
        Ok(token.with_context(|| format!("no claim token in {device}"))?.to_owned())
    }

    /// Makes a person and enrols them from photographs (JPEG or PNG bytes). Returns the person's id.
    pub async fn enrol(
        &self,
        tenant: &Tenant,
        external_id: &str,
        name: &str,
        photographs: Vec<Vec<u8>>,
    ) -> Result<String> {
        let person = self.post(tenant, "/v1/people", json!({"external_id": external_id, "name": name})).await?;
        let id = person["id"].as_str().with_context(|| format!("no id in {person}"))?.to_owned();
        let mut form = reqwest::multipart::Form::new();
        for (index, bytes) in photographs.into_iter().enumerate() {
            let part = reqwest::multipart::Part::bytes(bytes).file_name(format!("photo-{index}"));
            form = form.part("photo", part);
        }
        let path = format!("/v1/people/{id}/enrolments");
        let answer = self
            .client()?
            .post(format!("{}{path}", self.ready.https))
            .header("authorization", &tenant.authorization)
            .multipart(form)
            .send()
            .await?;
        read_answer(&format!("POST {path} for {external_id}"), answer).await?;
        Ok(id)
    }
}

fn or_empty<'de, D: serde::Deserializer<'de>>(given: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(given)?.unwrap_or_default())
}

async fn read_answer(what: &str, answer: reqwest::Response) -> Result<Value> {
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("{what}: {status}: {text}");
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("{what} did not answer with JSON: {text}"))
}

async fn first_json_line(stdout: std::process::ChildStdout) -> Result<Ready> {
    tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the hub's first line is not its ready line: {line:?}"))
    })
    .await?
}

/// The configuration of a hub on one machine. Webhooks may reach loopback because the receiver of the demo and of the
/// tests stands there; it says so here and nowhere else.
fn hub_config(places: &Places) -> String {
    format!(
        r#"schema_version = 1

[models]
manifest = "{manifest}"
weights = "{weights}"
onnxruntime = "{onnxruntime}"

[webhooks]
# The receiver stands on this machine: a public https address is the rule elsewhere.
allow_networks = ["127.0.0.0/8"]

[intrusion]
# Laboratories ask as intruders do, by the thousand; the signals have tests of their own (cloud-hub/tests/hub/intrusion.rs).
refused = 0
networks = 0
probes = 0
people = 0
"#,
        manifest = places.repository.join("models/faceplugin/manifest.toml").display(),
        weights = places.parts.join("models/faceplugin").display(),
        onnxruntime = places.parts.join("onnxruntime/libonnxruntime.so").display(),
    )
}
