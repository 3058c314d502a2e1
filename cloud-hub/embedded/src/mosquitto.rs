//! The hub's own Mosquitto: two or three listeners on loopback, access lines per device and consumer, and no disk.
//!
//! The device listener takes user name and client id from the client's certificate, so that nobody can take another's
//! session; the hub listener takes a password that only the hub has. The consumers' listener, where there is one, takes a
//! password, and the client id from the user name: ids are common to all listeners, and a consumer under a device's id
//! would throw the device out. Persistence is off on purpose: an outbox empties
//! on the hub's own acknowledgement, so nothing may come to depend on the broker's disk. Deliberately absent: who may
//! do what (the access lines come from outside) and certificates' contents.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, test_kill_process};
use tokio::net::TcpStream;
use wire_contract::topic::acl;

use super::error::EmbeddedError;
use super::process::ChildSpec;
use super::reload::Reloads;
use super::service_user::{self, ServiceUser};
use super::supervise::{self, Supervised};
use super::{Layout, files, leftover, parts, ports};
use hub_domain::broker_password::{self, SALT_BYTES};

/// The hub's user name on its own listener.
pub const HUB_USER: &str = "hub";
/// Mosquitto binds within milliseconds; a loaded machine gets some more.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// There is nothing to flush: persistence is off.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Starts with other ports, since one could be taken between its choice and its use.
const PORT_TRIES: u32 = 5;
/// As errors about the devices' address name its setting.
const DEVICES_AT: &str = "--mqtt-listen";
/// As errors about the consumers' address name its setting.
pub const CONSUMERS_AT: &str = "--consumer-listen";

/// What the broker shows to devices and believes of them, PEM.
#[derive(Debug, Clone)]
pub struct BrokerCertificates {
    /// Server certificate, then the issuing authority, then the root.
    pub server_chain_pem: String,
    /// The server's private key.
    pub server_key_pem: String,
    /// Whose client certificates are believed: the device authorities and the root above them.
    pub client_ca_pem: String,
    /// A revocation list of each device authority, if they are kept.
    pub client_crl_pem: Option<String>,
}

/// How to run the embedded Mosquitto.
#[derive(Debug, Clone)]
pub struct MosquittoOptions {
    /// Where things lie.
    pub layout: Layout,
    /// The executable.
    pub program: PathBuf,
    /// The user to run as, or `None` to stay oneself.
    pub user: Option<ServiceUser>,
    /// Where devices connect; loopback; port 0 takes a free one.
    pub device_listen: SocketAddr,
    /// Keys and authorities of the device listener.
    pub certificates: BrokerCertificates,
    /// The access list of the device listener, in Mosquitto's syntax.
    pub device_access: String,
    /// The consumers' listener, if there is one.
    pub consumers: Option<ConsumerListener>,
}

/// Where consumers connect, and who they may be.
#[derive(Debug, Clone)]
pub struct ConsumerListener {
    /// Loopback; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The password file.
    pub passwords: String,
    /// The access list.
    pub access: String,
}

impl MosquittoOptions {
    /// Options for a data directory, with the program that `scripts/setup` installed. Makes the directories.
    pub fn for_data_dir(
        root: &Path,
        device_listen: SocketAddr,
        certificates: BrokerCertificates,
        device_access: String,
    ) -> Result<Self, EmbeddedError> {
        let layout = Layout::new(root);
        let user = layout.prepare()?;
        Ok(Self {
            layout,
            program: parts::mosquitto(None)?,
            user,
            device_listen,
            certificates,
            device_access,
            consumers: None,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.layout.broker_dir().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), EmbeddedError> {
        files::write_file(&self.file(name), text.as_bytes(), 0o600, self.user.as_ref())
    }
}

/// How the hub itself reaches the broker: plain MQTT 5 on loopback, on a listener of its own.
#[derive(Clone)]
pub struct HubConnection {
    /// Loopback address.
    pub address: SocketAddr,
    /// [`HUB_USER`].
    pub username: String,
    /// Random, in a 0600 file.
    pub password: String,
}

impl std::fmt::Debug for HubConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HubConnection({} as {})", self.address, self.username)
    }
}

/// A running Mosquitto that accepts connections on all its listeners.
#[derive(Debug)]
pub struct EmbeddedMosquitto {
    options: MosquittoOptions,
    hub: HubConnection,
    process: Supervised,
}

impl EmbeddedMosquitto {
    /// Writes the configuration and starts the broker; about 0.1 s.
    ///
    /// Fails with the busy port and its owner, the missing program, or Mosquitto's own last words.
    pub async fn start(mut options: MosquittoOptions) -> Result<Self, EmbeddedError> {
        super::check_loopback(options.device_listen, DEVICES_AT)?;
        if let Some(consumers) = &options.consumers {
            super::check_loopback(consumers.listen, CONSUMERS_AT)?;
        }
        stop_leftover(&options).await?;
        let any_port = options.device_listen.port() == 0;
        let any_consumer_port = options.consumers.as_ref().is_some_and(|consumers| consumers.listen.port() == 0);
        let password = files::secret(&options.layout.secrets_dir().join("mqtt-hub.password"))?;
        let mut tries = 0;
        loop {
            tries += 1;
            if any_port {
                options.device_listen.set_port(free_port()?);
            }
            ports::check_free(options.device_listen, DEVICES_AT)?;
            if let Some(consumers) = &mut options.consumers {
                if any_consumer_port {
                    consumers.listen.set_port(free_port()?);
                }
                ports::check_free(consumers.listen, CONSUMERS_AT)?;
            }
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            let hub = HubConnection { address, username: String::from(HUB_USER), password: password.clone() };
            match Self::launch(options.clone(), hub).await {
                // Somebody took a port between its choice and its use.
                Err(EmbeddedError::NotReady { .. }) if tries < PORT_TRIES => {}
                outcome => return outcome,
            }
        }
    }

    async fn launch(options: MosquittoOptions, hub: HubConnection) -> Result<Self, EmbeddedError> {
        write_files(&options, &hub)?;
        let process = supervise::start(&broker(&options), Signal::TERM, STOP_GRACE)?;
        let broker = Self { options, hub, process };
        match broker.wait_ready().await {
            Ok(()) => Ok(broker),
            Err(error) => {
                broker.stop().await;
                Err(error)
            }
        }
    }

    /// Where devices connect.
    #[must_use]
    pub fn device_address(&self) -> SocketAddr {
        self.options.device_listen
    }

    /// Where consumers connect, if they may.
    #[must_use]
    pub fn consumer_address(&self) -> Option<SocketAddr> {
        self.options.consumers.as_ref().map(|consumers| consumers.listen)
    }

    /// How the hub connects.
    #[must_use]
    pub fn hub(&self) -> &HubConnection {
        &self.hub
    }

    /// The broker's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child().pid()
    }

    /// A handle that replaces the device access list while the broker runs.
    #[must_use]
    pub fn access(&self) -> AccessFile {
        AccessFile {
            path: self.options.file("devices.acl"),
            consumers: self.options.consumers.is_some().then(|| ConsumerPaths {
                passwords: self.options.file("consumers.passwd"),
                access: self.options.file("consumers.acl"),
            }),
            certificates: Some((self.options.file("server.pem"), self.options.file("server.key"))),
            authorities: Some(self.options.file("clients.pem")),
            owner: self.options.user.clone(),
            reloads: Reloads::new(Some(self.options.file("mosquitto.pid")), Some(self.options.file("mosquitto.conf"))),
            crl: self.options.certificates.client_crl_pem.as_ref().map(|_| self.options.file("clients.crl")),
        }
    }

    /// Stops the broker and returns when it has ended.
    pub async fn stop(self) {
        self.process.stop().await;
    }

    async fn wait_ready(&self) -> Result<(), EmbeddedError> {
        let child = self.process.child();
        let attempts = async {
            let consumers = self.consumer_address();
            for address in [self.options.device_listen, self.hub.address].into_iter().chain(consumers) {
                while TcpStream::connect(address).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        let why = tokio::select! {
            () = attempts => return Ok(()),
            status = child.wait() => format!("it ended with {status}"),
            () = tokio::time::sleep(READY_WITHIN) => format!("no answer within {} s", READY_WITHIN.as_secs()),
        };
        Err(EmbeddedError::NotReady { part: "mosquitto", why, log: child.recent_log() })
    }
}

/// The files of a running Mosquitto that change: replaced whole, then a reload.
#[derive(Debug, Clone)]
pub struct AccessFile {
    path: PathBuf,
    /// Chain and key of the device listener, where the hub writes them.
    certificates: Option<(PathBuf, PathBuf)>,
    /// Whose client certificates are believed, where the hub writes it.
    authorities: Option<PathBuf>,
    owner: Option<ServiceUser>,
    reloads: Reloads,
    /// The revocation list of device certificates, where the hub writes it.
    crl: Option<PathBuf>,
    /// The consumers' files, where there is a listener for them.
    consumers: Option<ConsumerPaths>,
}

/// Where the files of the consumers' listener lie.
#[derive(Debug, Clone)]
pub struct ConsumerPaths {
    /// The password file.
    pub passwords: PathBuf,
    /// The access list.
    pub access: PathBuf,
}

impl AccessFile {
    /// The access list and the revocation list of a broker that is not the hub's own, and where its process id stands.
    #[must_use]
    pub fn external(path: &Path, crl: Option<&Path>, pid_file: Option<&Path>) -> Self {
        Self {
            path: path.to_path_buf(),
            certificates: None,
            authorities: None,
            owner: files::keeper(path),
            reloads: Reloads::new(pid_file.map(Path::to_path_buf), None),
            crl: crl.map(Path::to_path_buf),
            consumers: None,
        }
    }

    /// The same, with files for consumers.
    #[must_use]
    pub fn with_consumers(self, consumers: Option<ConsumerPaths>) -> Self {
        Self { consumers, ..self }
    }

    /// Replaces the consumers' files and makes the broker read them: it ends the sessions of those that are gone or have
    /// another password (2.0.11, by test). Nothing to do where consumers have no listener.
    pub fn replace_consumers(&self, passwords: &str, access: &str) -> Result<(), EmbeddedError> {
        let Some(paths) = &self.consumers else { return Ok(()) };
        files::write_file(&paths.access, access.as_bytes(), 0o600, self.owner.as_ref())?;
        files::write_file(&paths.passwords, passwords.as_bytes(), 0o600, self.owner.as_ref())?;
        self.reloads.ask();
        Ok(())
    }

    /// The revocation list as it lies there; `None` if there is none.
    #[must_use]
    pub fn revocations(&self) -> Option<String> {
        self.crl.as_deref().and_then(|path| std::fs::read_to_string(path).ok())
    }

    /// Replaces both lists and makes the broker read them: Mosquitto reads `crlfile` at SIGHUP too (2.0.11, measured),
    /// and of the lists that it then has OpenSSL takes the newest. A list is written only where one is kept.
    pub fn replace_with_revocations(&self, access: &str, crl_pem: &str) -> Result<(), EmbeddedError> {
        if let Some(crl) = &self.crl {
            files::write_file(crl, crl_pem.as_bytes(), 0o600, self.owner.as_ref())?;
        }
        self.replace(access)
    }

    /// Replaces the list and makes the broker read it. Live sessions keep running, under the new rules.
    pub fn replace(&self, access: &str) -> Result<(), EmbeddedError> {
        files::write_file(&self.path, access.as_bytes(), 0o600, self.owner.as_ref())?;
        self.reloads.ask();
        Ok(())
    }

    /// Replaces the device listener's certificate if it is another one, and makes the broker read it. Nothing to do for
    /// a broker whose certificates are somebody else's.
    pub fn replace_certificate(&self, chain_pem: &str, key_pem: &str) -> Result<(), EmbeddedError> {
        let Some((chain, key)) = &self.certificates else { return Ok(()) };
        if std::fs::read_to_string(chain).is_ok_and(|present| present == chain_pem) {
            return Ok(());
        }
        // The key first: it is the same at each renewal, so no moment has a chain without its key.
        files::write_file(key, key_pem.as_bytes(), 0o600, self.owner.as_ref())?;
        files::write_file(chain, chain_pem.as_bytes(), 0o600, self.owner.as_ref())?;
        self.reloads.ask();
        Ok(())
    }

    /// Replaces the authorities whose client certificates are believed, if they are others, and makes the broker read them: Mosquitto
    /// reads `cafile` at SIGHUP too and forgets what it had (Debian's 2.0.11, by test). Live sessions go on. Nothing to do for a broker
    /// whose certificates are somebody else's.
    pub fn replace_authorities(&self, client_ca_pem: &str) -> Result<(), EmbeddedError> {
        let Some(path) = &self.authorities else { return Ok(()) };
        if std::fs::read_to_string(path).is_ok_and(|present| present == client_ca_pem) {
            return Ok(());
        }
        files::write_file(path, client_ca_pem.as_bytes(), 0o600, self.owner.as_ref())?;
        self.reloads.ask();
        Ok(())
    }
}

fn free_port() -> Result<u16, EmbeddedError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ports::pick_loopback_port().map_err(|source| EmbeddedError::CannotListen {
        address: any,
        setting: DEVICES_AT,
        source,
    })
}

fn broker(options: &MosquittoOptions) -> ChildSpec {
    ChildSpec {
        name: "mosquitto",
        program: options.program.clone(),
        args: vec![OsString::from("-c"), options.file("mosquitto.conf").into()],
        env: vec![
            (OsString::from("PATH"), OsString::from("/usr/bin:/bin")),
            (OsString::from("OPENSSL_CONF"), options.file("openssl.cnf").into()),
        ],
        user: options.user.clone(),
        death_signal: Signal::TERM,
    }
}

fn write_files(options: &MosquittoOptions, hub: &HubConnection) -> Result<(), EmbeddedError> {
    if let Some(user) = &options.user {
        service_user::check_traversable(&options.layout.broker_dir(), user)?;
    }
    let certificates = &options.certificates;
    options.write("server.pem", &certificates.server_chain_pem)?;
    options.write("server.key", &certificates.server_key_pem)?;
    options.write("clients.pem", &certificates.client_ca_pem)?;
    if let Some(crl) = &certificates.client_crl_pem {
        options.write("clients.crl", crl)?;
    }
    options.write("devices.acl", &options.device_access)?;
    options.write("hub.acl", &acl::hub(HUB_USER))?;
    options.write("hub.passwd", &hub_password_line(&hub.password)?)?;
    if let Some(consumers) = &options.consumers {
        options.write("consumers.passwd", &consumers.passwords)?;
        options.write("consumers.acl", &consumers.access)?;
    }
    options.write("openssl.cnf", OPENSSL_CONF)?;
    options.write("mosquitto.conf", &configuration(options, hub))
}

/// Mosquitto 2.0.11 cannot switch TLS session tickets off itself, and a resumed session skips the revocation list.
const OPENSSL_CONF: &str = "\
openssl_conf = lintel
[lintel]
ssl_conf = lintel_ssl
[lintel_ssl]
system_default = lintel_tls
[lintel_tls]
MinProtocol = TLSv1.3
NumTickets = 0
";

/// The whole configuration. Limits: a batch of events is at most 64 KiB, an envelope and topic stay below 1 KiB more. Both
/// ends announce that they take longer packets than this broker does: one that is longer than its receiver takes stays
/// "under way" for ever (2.0.11), and twenty of them silence the receiver;
/// a queue of 20,000 messages holds what a fleet of 5,000 says when it connects at once, and of what overflows only batches are
/// sent again soon. Its 256 MiB hold a full batch of 4,000 devices, which send no second one before the hub has answered.
///
/// Whatever belongs to a listener must stand below its `listener` line: with settings per listener, one that stands
/// above makes Mosquitto open a third listener, port 1883 on every interface.
fn configuration(options: &MosquittoOptions, hub: &HubConnection) -> String {
    let broker_dir = options.layout.broker_dir();
    let dir = broker_dir.display();
    let (device_port, device_ip) = (options.device_listen.port(), options.device_listen.ip());
    let (hub_port, hub_ip) = (hub.address.port(), hub.address.ip());
    let crl = options
        .certificates
        .client_crl_pem
        .as_ref()
        .map_or_else(String::new, |_| format!("crlfile {dir}/clients.crl\n"));
    let consumers = options.consumers.as_ref();
    let consumers = consumers.map_or_else(String::new, |consumers| consumer_listener(&broker_dir, consumers.listen));
    format!(
        "# Written by cloud-hub at each start; changes are lost.
per_listener_settings true
persistence false
pid_file {dir}/mosquitto.pid
log_dest stderr
log_type error
log_type warning
log_type notice
log_timestamp false
connection_messages true
set_tcp_nodelay true
max_packet_size 81920
max_inflight_messages 20
max_queued_messages 20000
max_queued_bytes 268435456
max_keepalive 300
persistent_client_expiration 1d

listener {device_port} {device_ip}
allow_anonymous false
allow_zero_length_clientid false
require_certificate true
use_identity_as_username true
use_username_as_clientid true
cafile {dir}/clients.pem
certfile {dir}/server.pem
keyfile {dir}/server.key
{crl}tls_version tlsv1.3
acl_file {dir}/devices.acl

listener {hub_port} {hub_ip}
allow_anonymous false
allow_zero_length_clientid false
password_file {dir}/hub.passwd
acl_file {dir}/hub.acl
{consumers}"
    )
}

/// The hub's own line of the password file.
fn hub_password_line(password: &str) -> Result<String, EmbeddedError> {
    let mut salt = [0_u8; SALT_BYTES];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut salt).map_err(|_| EmbeddedError::Io {
        action: "make the salt for",
        path: PathBuf::from("hub.passwd"),
        source: std::io::Error::other("the system's random source does not answer"),
    })?;
    Ok(broker_password::line(HUB_USER, &broker_password::hash(password, &salt)))
}

/// The third listener. It takes any client id, or none, and gives each its user name instead.
fn consumer_listener(dir: &Path, listen: SocketAddr) -> String {
    let (port, ip, dir) = (listen.port(), listen.ip(), dir.display());
    format!(
        "
listener {port} {ip}
allow_anonymous false
use_username_as_clientid true
certfile {dir}/server.pem
keyfile {dir}/server.key
tls_version tlsv1.3
password_file {dir}/consumers.passwd
acl_file {dir}/consumers.acl
"
    )
}

/// Whether a broker of a previous life still runs on this data directory.
#[must_use]
pub fn leftover_runs(layout: &Layout) -> bool {
    let dir = layout.broker_dir();
    leftover::pid_in(&dir.join("mosquitto.pid")).is_some_and(|pid| {
        test_kill_process(pid).is_ok() && leftover::was_started_with(pid, &dir.join("mosquitto.conf"))
    })
}

async fn stop_leftover(options: &MosquittoOptions) -> Result<(), EmbeddedError> {
    let Some(pid) = leftover::pid_in(&options.file("mosquitto.pid")) else { return Ok(()) };
    if !leftover_runs(&options.layout) {
        return Ok(());
    }
    leftover::stop("mosquitto", pid, &[Signal::TERM, Signal::KILL]).await
}
