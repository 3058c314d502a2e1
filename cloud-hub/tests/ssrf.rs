//! The guard of webhook deliveries: hostile addresses by name and by number, judged by a canary that nobody may reach.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock to wait for others"
)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_hub::domain::trace::Trace;
use cloud_hub::notify::client::{Attempt, Lookup, Message, WebhookClient};
use cloud_hub::outbound::address::{AddressError, AddressPolicy};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

/// URLs that must be refused before anything is sent, whatever they resolve to. `{port}` is the canary's.
const HOSTILE_URLS: &[&str] = &[
    "http://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.255.255.254/",
    "https://0.0.0.0/",
    "https://0/",
    "https://0.1.2.3/",
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://100.64.0.1/",
    "https://100.127.255.255/",
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://169.254.1.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.0.0.1/",
    "https://192.0.0.170/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://192.168.0.1/",
    "https://198.18.0.1/",
    "https://198.19.255.255/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://224.0.0.1/",
    "https://239.255.255.255/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]:{port}/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::]:{port}/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2001::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[100::1]/",
    "https://user@receiver.example/",
    "https://user:password@receiver.example/",
    "https://receiver.example@127.0.0.1/",
    "http://receiver.example/",
    "ftp://receiver.example/",
    "gopher://127.0.0.1:{port}/_x",
    "file:///etc/passwd",
    "unix:///run/control.sock",
    "https://receiver.example:22/",
    "https://receiver.example:25/",
    "https://receiver.example:80/",
    "https://receiver.example:5432/",
    "https://receiver.example:6379/",
    "https://8.8.8.8:22/",
    "http://8.8.8.8/",
];

/// What names may resolve to that must be refused at the connection.
const HOSTILE_ANSWERS: &[&[&str]] = &[
    &["127.0.0.1"],
    &["127.0.0.2"],
    &["0.0.0.0"],
    &["::1"],
    &["::"],
    &["::ffff:127.0.0.1"],
    &["::ffff:10.0.0.1"],
    &["169.254.169.254"],
    &["10.0.0.1"],
    &["100.64.0.1"],
    &["192.168.1.1"],
    &["fe80::1"],
    &["fd00:ec2::254"],
    &["64:ff9b::7f00:1"],
    &["2002:7f00:1::1"],
    // A public address beside a private one: round robin would sooner or later take the private one.
    &["8.8.8.8", "127.0.0.1"],
    &["127.0.0.1", "8.8.8.8"],
    &[],
];

/// Answers from a list; each name may change its answer at each question, as a rebinding attacker's server does.
#[derive(Default)]
struct Script {
    answers: HashMap<String, Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Script {
    fn name(mut self, name: &str, answers: &[&[&str]]) -> Self {
        let parse = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        self.answers.insert(name.to_owned(), answers.iter().map(parse).collect());
        self
    }
}

impl Lookup for Script {
    fn lookup(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        let answers = self.answers.get(&name);
        let answer = answers.and_then(|list| list.get(turn).or(list.last())).cloned().unwrap_or_default();
        Box::pin(async move { Ok(answer) })
    }
}

/// A listener that counts connections and answers each with `answer`.
struct Canary {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

async fn canary(answer: &'static [u8]) -> Canary {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer).await;
                // Hold the connection open: a receiver that never ends must not hold a worker.
                tokio::time::sleep(Duration::from_secs(60)).await;
            });
        }
    });
    Canary { address, connections }
}

fn client(policy: AddressPolicy, script: Script, timeout: Duration) -> WebhookClient {
    let _ = rustls::crypto::ring::default_provider().install_default();
    WebhookClient::new(policy, &(Arc::new(script) as Arc<dyn Lookup>), timeout).unwrap()
}

async fn attempt(client: &WebhookClient, url: &str) -> Attempt {
    let trace = Trace::begin([7; 24]);
    let message = Message { id: "0", timestamp: 1, trace: &trace, body: Bytes::from_static(b"{}") };
    client.send(&Url::parse(url).unwrap(), b"secret", &message).await
}

fn loopback_allowed() -> AddressPolicy {
    AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()])
}

#[tokio::test]
async fn hostile_addresses_are_refused_and_never_dialled() {
    let canary = canary(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let port = canary.address.port();
    let mut cases = 0;
    for url in HOSTILE_URLS {
        let url = url.replace("{port}", &port.to_string());
        let public = Script::default().name("receiver.example", &[&["93.184.216.34"]]);
        let outcome = attempt(&client(AddressPolicy::default(), public, Duration::from_secs(2)), &url).await;
        assert!(matches!(outcome, Attempt::Refused(_)), "{url}: {outcome:?}");
        cases += 1;
    }
    for answer in HOSTILE_ANSWERS {
        let script = Script::default().name("receiver.example", &[answer]);
        let client = client(AddressPolicy::default(), script, Duration::from_secs(2));
        let outcome = attempt(&client, &format!("https://receiver.example:{port}/")).await;
        assert!(matches!(outcome, Attempt::Refused(_)), "{answer:?}: {outcome:?}");
        cases += 1;
    }
    assert!(cases >= 60, "{cases} cases");
    assert_eq!(canary.connections.load(Ordering::SeqCst), 0, "the canary was dialled");
}

#[tokio::test]
async fn the_canary_would_have_been_reached() {
    // The control of the test above: the same canary by the same ways, once the operator allows its network.
    let canary = canary(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let script = Script::default().name("receiver.example", &[&["127.0.0.1"]]);
    let client = client(loopback_allowed(), script, Duration::from_secs(2));
    for host in ["127.0.0.1", "receiver.example", "127.1", "2130706433"] {
        let outcome = attempt(&client, &format!("http://{host}:{}/", canary.address.port())).await;
        assert_eq!(outcome, Attempt::Answered { status: 200, retry_after: None }, "{host}");
    }
    assert_eq!(canary.connections.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_name_that_changes_its_answer_is_refused_at_the_connection() {
    let canary = canary(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    // First a host in the allowed network, then, for the very next question, one that is not.
    let script = Script::default().name("rebind.example", &[&["127.0.0.1"], &["10.0.0.1"]]);
    let client = client(loopback_allowed(), script, Duration::from_secs(2));
    let url = format!("http://rebind.example:{}/", canary.address.port());
    assert!(matches!(attempt(&client, &url).await, Attempt::Answered { status: 200, .. }));
    assert_eq!(attempt(&client, &url).await, Attempt::Refused(AddressError::NotPublic));
    assert_eq!(canary.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_allowed_network_allows_nothing_beside_it() {
    let script = Script::default().name("inside.example", &[&["10.0.0.1"]]).name("public.example", &[&["8.8.8.8"]]);
    let client = client(loopback_allowed(), script, Duration::from_secs(2));
    assert_eq!(attempt(&client, "http://inside.example/").await, Attempt::Refused(AddressError::NotPublic));
    assert_eq!(attempt(&client, "http://192.168.0.1/").await, Attempt::Refused(AddressError::NotPublic));
    let public = Script::default().name("public.example", &[&["8.8.8.8"]]);
    let client = self::client(loopback_allowed(), public, Duration::from_secs(2));
    assert_eq!(attempt(&client, "http://public.example/").await, Attempt::Refused(AddressError::PlainHttp));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = canary(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let location = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{}/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        target.address.port()
    );
    let redirecting = canary(Box::leak(location.into_boxed_str()).as_bytes()).await;
    let client = client(loopback_allowed(), Script::default(), Duration::from_secs(2));
    let outcome = attempt(&client, &format!("http://127.0.0.1:{}/", redirecting.address.port())).await;
    assert_eq!(outcome, Attempt::Answered { status: 302, retry_after: None });
    assert_eq!(target.connections.load(Ordering::SeqCst), 0, "the redirect was followed");
}

#[tokio::test]
async fn a_slow_or_endless_receiver_is_cut_off() {
    let silent = canary(b"").await;
    let client = client(loopback_allowed(), Script::default(), Duration::from_millis(300));
    let begun = Instant::now();
    let outcome = attempt(&client, &format!("http://127.0.0.1:{}/", silent.address.port())).await;
    assert_eq!(outcome, Attempt::TimedOut);
    let endless = canary(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\nx").await;
    let outcome = attempt(&client, &format!("http://127.0.0.1:{}/", endless.address.port())).await;
    assert_eq!(outcome, Attempt::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn retry_after_is_read() {
    let busy =
        canary(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 120\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
    let client = client(loopback_allowed(), Script::default(), Duration::from_secs(2));
    let outcome = attempt(&client, &format!("http://127.0.0.1:{}/", busy.address.port())).await;
    assert_eq!(outcome, Attempt::Answered { status: 429, retry_after: Some(120) });
}
