//! A bare MQTT client with a device's certificate, or with the password of the hub or a consumer: tries what it may not, and hears
//! what it should not. Deliberately absent: everything that Lintel is; it speaks MQTT and remembers.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_store::Identity;
use fleet_sim::trusting::mutual_tls;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, PubAckReason};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;

use crate::lab::now;

/// The broker answers in milliseconds; a loaded machine gets more.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Requests that wait for the socket.
const REQUESTS: usize = 256;

/// What has come in so far.
#[derive(Debug, Default)]
struct Memory {
    connected: bool,
    lost: Option<String>,
    accepted: u64,
    refused: u64,
    subscribed: u64,
    heard: Vec<(String, Vec<u8>)>,
}

/// A connection. Dropping it closes the socket without a goodbye, so that its will is spoken.
pub struct Probe {
    client: AsyncClient,
    memory: Arc<Mutex<Memory>>,
    task: JoinHandle<()>,
}

impl Probe {
    /// Connects with a device's certificate under any client id, with a will if one is given.
    pub async fn device(identity: &Identity, client_id: &str, will: Option<(String, Vec<u8>)>) -> Result<Self> {
        let mut options = MqttOptions::new(client_id, identity.broker.host.clone(), identity.broker.port);
        let tls = TlsConfiguration::Rustls(Arc::new(mutual_tls(identity)?));
        options.set_transport(Transport::tls_with_config(tls));
        if let Some((topic, payload)) = will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false, None));
        }
        Self::open(options).await
    }

    /// Connects to the hub's own listener.
    pub async fn hub(port: u16, password: &str) -> Result<Self> {
        let mut options = MqttOptions::new(format!("probe-{}", uuid::Uuid::new_v4()), "127.0.0.1", port);
        options.set_credentials("hub", password);
        Self::open(options).await
    }

    /// Connects to the consumers' listener, whose certificate this authority has signed, with a will if one is given.
    pub async fn consumer(
        at: (String, u16),
        root_pem: &[u8],
        (user, password): (&str, &str),
        will: Option<(String, Vec<u8>)>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root_pem)?)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut options = MqttOptions::new(user, at.0, at.1);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_credentials(user, password);
        if let Some((topic, payload)) = will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false, None));
        }
        Self::open(options).await
    }

    async fn open(mut options: MqttOptions) -> Result<Self> {
        options.set_clean_start(true).set_keep_alive(Duration::from_secs(30)).set_outgoing_inflight_upper_limit(100);
        let (client, socket) = AsyncClient::new(options, REQUESTS);
        let memory = Arc::new(Mutex::new(Memory::default()));
        let task = tokio::spawn(listen(socket, Arc::clone(&memory)));
        let probe = Self { client, memory, task };
        probe.until("a greeting", |memory| memory.connected || memory.lost.is_some()).await?;
        let lost = probe.memory().lost.clone();
        ensure!(lost.is_none(), "not let in: {}", lost.unwrap_or_default());
        Ok(probe)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no holder of this lock panics")
    }

    async fn until(&self, what: &str, so: impl Fn(&Memory) -> bool) -> Result<()> {
        let begun = now();
        while !so(&self.memory()) {
            ensure!(begun.elapsed() < PATIENCE, "{what} never came");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Asks for topics; the broker's answer is waited for, whatever it is.
    pub async fn subscribe(&self, filters: &[String]) -> Result<()> {
        let before = self.memory().subscribed;
        for filter in filters {
            self.client.subscribe(filter.clone(), QoS::AtLeastOnce).await.context("the connection is gone")?;
        }
        let expected = before + filters.len() as u64;
        self.until("an answer to subscriptions", |memory| memory.subscribed >= expected || memory.lost.is_some()).await
    }

    /// Publishes on each topic; returns how many the broker took.
    pub async fn publish(&self, topics: &[String], payload: &[u8], retain: bool) -> Result<u64> {
        let (accepted, answered) = {
            let memory = self.memory();
            (memory.accepted, memory.accepted + memory.refused)
        };
        for topic in topics {
            let publish = self.client.publish(topic.clone(), QoS::AtLeastOnce, retain, payload.to_vec());
            publish.await.context("the connection is gone")?;
        }
        let expected = answered + topics.len() as u64;
        self.until("answers to publishes", |memory| {
            memory.accepted + memory.refused >= expected || memory.lost.is_some()
        })
        .await?;
        ensure!(self.alive(), "the connection ended");
        Ok(self.memory().accepted - accepted)
    }

    /// Whether the connection that was opened still stands.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.memory().lost.is_none()
    }

    /// How many messages with this payload were heard on topics that fit.
    #[must_use]
    pub fn heard(&self, payload: &[u8], fits: impl Fn(&str) -> bool) -> u64 {
        self.memory().heard.iter().filter(|(topic, said)| said == payload && fits(topic)).count() as u64
    }

    /// Waits until as many messages with this payload were heard.
    pub async fn hears(&self, payload: &[u8], times: u64) -> bool {
        let so = |memory: &Memory| memory.heard.iter().filter(|(_, said)| said == payload).count() as u64 >= times;
        self.until("a message", so).await.is_ok()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(mut socket: EventLoop, memory: Arc<Mutex<Memory>>) {
    loop {
        let polled = socket.poll().await;
        let mut memory = memory.lock().expect("no holder of this lock panics");
        match polled {
            Ok(Event::Incoming(Packet::ConnAck(_))) => memory.connected = true,
            Ok(Event::Incoming(Packet::SubAck(_))) => memory.subscribed += 1,
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let taken = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                if taken { memory.accepted += 1 } else { memory.refused += 1 }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                memory.heard.push((topic, publish.payload.to_vec()));
            }
            Ok(_) => {}
            Err(error) => {
                memory.lost = Some(error.to_string());
                return;
            }
        }
    }
}
