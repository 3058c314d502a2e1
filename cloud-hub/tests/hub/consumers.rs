//! Consumers of the feed at the embedded Mosquitto: how they get in, what they hear, and how they are thrown out.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::devices::code;
use super::process::{Hub, Tenant, command, data_dir, output, serve, skipped};

/// A removed consumer's session must have ended by then; the broker may need a second telling, two seconds later.
const ENDED_WITHIN: Duration = Duration::from_secs(5);

fn start(data_dir: &Path) -> Hub {
    let mut command = serve(data_dir);
    command.args(["--consumer-listen", "127.0.0.1:0"]);
    Hub::from_command(command, data_dir)
}

/// A consumer's live session. Dropping it closes the socket.
struct Session {
    client: AsyncClient,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
    lost: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// Logs in once; `Err` is the broker's refusal. The session is remembered while it is away.
    async fn try_open(hub: &Hub, user: &str, password: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&hub.root()).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (host, port) = hub.ready["mqtt_consumers"].as_str().unwrap().rsplit_once(':').unwrap();
        let mut options = MqttOptions::new("any", host, port.parse().unwrap());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_credentials(user, password).set_clean_start(false).set_keep_alive(Duration::from_secs(30));
        options.set_session_expiry_interval(Some(3600));
        let (client, mut events) = AsyncClient::new(options, 16);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => break,
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let (heard, lost) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Option<String>>>::default());
        let memory = (Arc::clone(&heard), Arc::clone(&lost));
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let said = serde_json::from_slice(&publish.payload).unwrap_or(Value::Null);
                        memory.0.lock().push((String::from_utf8_lossy(&publish.topic).into_owned(), said));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        *memory.1.lock() = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Ok(Self { client, heard, lost, task })
    }

    /// Logs in; the broker may not have read its files yet.
    async fn open(hub: &Hub, made: &Value) -> Self {
        let begun = Instant::now();
        loop {
            match Self::try_open(hub, text(made, "username"), text(made, "password")).await {
                Ok(session) => return session,
                Err(error) => assert!(begun.elapsed() < ENDED_WITHIN, "not let in: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn subscribe(&self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    }

    /// Waits for the event that tells of this person's deletion; returns its topic.
    async fn hears_of(&self, person: &str) -> String {
        let begun = Instant::now();
        loop {
            let told = |(_, event): &&(String, Value)| event.to_string().contains(person);
            if let Some((topic, _)) = self.heard.lock().iter().find(told) {
                return topic.clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "nothing of {person}: {:?}", self.lost.lock());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn is_ended(&self) -> Duration {
        let begun = Instant::now();
        while self.lost.lock().is_none() {
            assert!(begun.elapsed() < ENDED_WITHIN, "the session goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

async fn consumer(hub: &Hub, tenant: &Tenant, name: &str) -> Value {
    hub.made(tenant, "/v1/consumers", json!({ "name": name })).await
}

/// Something for the feed: a person comes and goes.
async fn happening(hub: &Hub, tenant: &Tenant, external_id: &str) -> String {
    let person = hub.person(tenant, external_id).await;
    let (status, _) = hub.call(tenant, Method::DELETE, &format!("/v1/people/{person}"), None).await;
    assert!(status.is_success());
    person
}

/// The lines of the guide that a reader types to get in, in their order.
fn guide() -> Vec<String> {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/mqtt.md")).unwrap();
    let (_, rest) = guide.split_once("### The embedded broker").unwrap();
    let section = rest.split("\n### ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

fn shell(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output().unwrap()
}

/// The guide's own commands, in its own order, with this hub's names for its placeholders.
#[tokio::test]
async fn the_guides_commands_make_a_consumer_that_reads_the_feed_and_end_it() {
    if skipped("the_guides_commands_make_a_consumer_that_reads_the_feed_and_end_it") {
        return;
    }
    let lines = guide();
    let [started, created, listed, read, rotated, deleted] = &lines[..] else { panic!("six commands: {lines:#?}") };
    let dir = data_dir();
    let dir_text = dir.path().display().to_string();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_cloud-hub"));
    let started = started.replace("./hub", &dir_text).replace(":8884", ":0");
    serve.args(started.strip_prefix("cloud-hub ").unwrap().split(' '));
    serve.args(["--listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0"]);
    let mut hub = Hub::from_command(serve, dir.path());
    let tenant = hub.tenant("Acme");
    let fill = |line: &str| {
        let line = line.replace("cloud-hub ", concat!(env!("CARGO_BIN_EXE_cloud-hub"), " "));
        line.replace("./hub", &dir_text).replace("TENANT", &tenant.id)
    };
    let ran = |line: &str, more: &str| {
        let output = shell(&format!("{line} {more}"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {out}{err}");
        out.into_owned()
    };

    let made: Value = serde_json::from_str(&ran(&fill(created), "-o json")).unwrap();
    let (user, password) = (text(&made, "username").to_owned(), text(&made, "password").to_owned());
    assert_eq!(user, format!("consumer-{}", text(&made, "id")));
    let table = ran(&fill(listed), "");
    assert!(table.contains(&user) && !table.contains(&password), "{table}");

    let (_, port) = hub.ready["mqtt_consumers"].as_str().unwrap().rsplit_once(':').unwrap();
    let typed = fill(&read.replace("8884", port)).replace("PASSWORD", &password).replace("USER", &user);
    assert_eq!(typed, text(&made, "command"), "the guide shows the line that the command prints");
    // A first visit makes the session; what happens meanwhile waits in it, for the line as it is printed.
    let first = shell(&format!("{typed} -E"));
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let person = happening(&hub, &tenant, "somebody").await;
    let heard = ran(&typed, "-C 1 -W 30");
    let event: Value = serde_json::from_str(heard.trim()).unwrap();
    assert_eq!(event["type"], "lintel.person.deleted.v1", "{event}");
    assert!(event.to_string().contains(&person), "{event}");

    let again: Value =
        serde_json::from_str(&ran(&fill(rotated).replace("CONSUMER", text(&made, "id")), "-o json")).unwrap();
    assert_eq!(text(&again, "username"), user);
    let session = Session::open(&hub, &again).await;
    assert!(Session::try_open(&hub, &user, &password).await.is_err(), "the password before is good for nothing");
    assert_eq!(ran(&fill(deleted).replace("CONSUMER", text(&made, "id")), ""), "done\n");
    session.is_ended().await;
    assert!(!ran(&fill(listed), "").contains(&user));

    let mut rows = hub.superuser().await;
    let audited: Vec<String> =
        sqlx::query_scalar("SELECT action FROM audit_entry WHERE object_kind = 'consumer' ORDER BY at, id")
            .fetch_all(&mut rows)
            .await
            .unwrap();
    assert_eq!(audited, ["consumer.create", "consumer.rotate", "consumer.delete"]);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM consumer WHERE password_hash IS NOT NULL")
        .fetch_one(&mut rows)
        .await
        .unwrap();
    assert_eq!(left, 0, "a removed consumer leaves no hash");
    assert!(!std::fs::read_to_string(dir.path().join("hub.log")).unwrap().contains(&password));
    hub.child.kill().unwrap();
}

#[tokio::test]
async fn a_removed_consumer_is_out_at_once_and_after_every_restart_and_the_other_goes_on() {
    if skipped("a_removed_consumer_is_out_at_once_and_after_every_restart_and_the_other_goes_on") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let tenant = hub.tenant("Acme");
    let (removed, stays, changes) = (
        consumer(&hub, &tenant, "removed").await,
        consumer(&hub, &tenant, "stays").await,
        consumer(&hub, &tenant, "changes").await,
    );
    let (leaving, staying, changing) =
        (Session::open(&hub, &removed).await, Session::open(&hub, &stays).await, Session::open(&hub, &changes).await);
    for session in [&leaving, &staying, &changing] {
        session.subscribe(text(&removed, "topic")).await;
    }
    let person = happening(&hub, &tenant, "first").await;
    for session in [&leaving, &staying, &changing] {
        let topic = session.hears_of(&person).await;
        assert_eq!(topic, format!("lintel/v1/{}/_feed/person", tenant.id));
    }

    // Another password ends the session under the one before.
    let path = format!("/v1/consumers/{}/password", text(&changes, "id"));
    let (status, changed) = hub.call(&tenant, Method::POST, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    changing.is_ended().await;
    // A removal ends the session, the right to come back, and what was kept for it.
    let path = format!("/v1/consumers/{}", text(&removed, "id"));
    let (status, _) = hub.call(&tenant, Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    leaving.is_ended().await;
    let person = happening(&hub, &tenant, "second").await;
    staying.hears_of(&person).await;
    let renewed = Session::open(&hub, &changed).await;
    renewed.subscribe(text(&changed, "topic")).await;
    let person = happening(&hub, &tenant, "after").await;
    renewed.hears_of(&person).await;
    let refused = async |hub: &Hub, made: &Value| {
        let error = Session::try_open(hub, text(made, "username"), text(made, "password")).await.err();
        assert!(error.is_some_and(|error| error.contains("NotAuthorized")), "{made}");
    };
    refused(&hub, &removed).await;
    refused(&hub, &changes).await;
    assert_eq!(code(&hub.call(&tenant, Method::DELETE, &path, None).await), (404, "not_found"), "once is enough");

    // The broker is killed, and the hub starts it again with the files as they lie there.
    let pid = std::fs::read_to_string(dir.path().join("broker/mosquitto.pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    staying.is_ended().await;
    let back = Session::open(&hub, &stays).await;
    back.subscribe(text(&stays, "topic")).await;
    refused(&hub, &removed).await;
    refused(&hub, &changes).await;
    let person = happening(&hub, &tenant, "third").await;
    back.hears_of(&person).await;

    // The hub writes them anew from its registry.
    assert!(hub.stop().success());
    let hub = start(dir.path());
    let back = Session::open(&hub, &stays).await;
    back.subscribe(text(&stays, "topic")).await;
    refused(&hub, &removed).await;
    refused(&hub, &changes).await;
    Session::open(&hub, &changed).await;
    let person = happening(&hub, &tenant, "fourth").await;
    back.hears_of(&person).await;
}

#[tokio::test]
async fn a_consumer_is_its_tenants_own_and_needs_a_listener_and_a_name() {
    if skipped("a_consumer_is_its_tenants_own_and_needs_a_listener_and_a_name") {
        return;
    }
    let dir = data_dir();
    let hub = start(dir.path());
    let (tenant, other) = (hub.tenant("Acme"), hub.tenant("Umbrella"));
    let made = consumer(&hub, &tenant, "time sheet").await;
    assert!(made.get("command").is_none() && made.get("ca_file").is_none(), "paths of this machine stay on it");
    assert_eq!(text(&made, "ca_pem").as_bytes(), hub.root());
    let path = format!("/v1/consumers/{}", text(&made, "id"));
    assert_eq!(code(&hub.call(&other, Method::DELETE, &path, None).await), (404, "not_found"));
    let password = format!("{path}/password");
    assert_eq!(code(&hub.call(&other, Method::POST, &password, None).await), (404, "not_found"));
    assert_eq!(hub.get(&other, "/v1/consumers").await["data"], json!([]));
    let listed = hub.get(&tenant, "/v1/consumers").await;
    assert_eq!(listed["data"][0]["name"], "time sheet");
    assert!(!listed.to_string().contains(text(&made, "password")), "shown once");
    let wrong = hub.call(&tenant, Method::POST, "/v1/consumers", Some(json!({ "name": " " }))).await;
    assert_eq!(code(&wrong), (422, "invalid_field"));
    let session = Session::open(&hub, &made).await;
    drop(session);

    // Without a listener no credential is made that nobody could use, and those of before wait for one.
    assert!(hub.stop().success());
    let hub = Hub::start(dir.path());
    assert_eq!(hub.ready["mqtt_consumers"], Value::Null);
    let refused = hub.call(&tenant, Method::POST, "/v1/consumers", Some(json!({ "name": "late" }))).await;
    assert_eq!(code(&refused), (409, "conflict"));
    assert!(text(&refused.1, "detail").contains("embedded.consumer_listen"), "{}", refused.1);
    let mut asked = command(dir.path());
    asked.args(["consumers", "create", "--tenant", &tenant.id]);
    let asked = output(asked);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("embedded.consumer_listen"), "{asked:?}");
    assert_eq!(hub.get(&tenant, "/v1/consumers").await["data"][0]["name"], "time sheet");
}
