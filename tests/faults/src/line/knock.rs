//! One TLS connection, made and ended by hand: what a certificate gets to see, to the last byte. And the other way round: a
//! server with any certificate, that tells whether somebody trusted it.
//!
//! In: an address and a TLS configuration, whatever is wrong with it. Out: the alert that was sent, and every byte beyond.
//! Deliberately absent: MQTT and HTTP, beyond bytes that are said and heard.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use rustls::{SupportedProtocolVersion, crypto};

/// Either end answers in milliseconds, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer that is looked at.
const MOST: usize = 64 * 1024;

/// What somebody shows.
#[derive(Clone)]
pub struct Shown {
    /// Leaf first; nothing shows no certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8. It need not be the leaf's.
    pub key: Vec<u8>,
    /// The versions of TLS that it speaks.
    pub versions: &'static [&'static SupportedProtocolVersion],
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The alert that ended the connection, if one did.
    pub alert: Option<AlertDescription>,
    /// Everything that was said inside TLS.
    pub plain: Vec<u8>,
    /// How the connection ended otherwise.
    pub error: Option<String>,
    /// This end's port, as the server's log names it.
    pub port: u16,
}

/// Shows a certificate to a server, says something, and listens until `enough` or the end.
pub fn knock(
    address: SocketAddr,
    root: &CertificateDer<'static>,
    shown: &Shown,
    said: &[u8],
    enough: impl Fn(&[u8]) -> bool,
) -> Result<Heard> {
    let tls = client(root, shown)?;
    let stream = TcpStream::connect(address).context("no server")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut heard = Heard { port: stream.local_addr()?.port(), ..Heard::default() };
    let name = ServerName::IpAddress(address.ip().into());
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(tls), name)?, stream);
    let mut talk = || -> std::io::Result<()> {
        stream.write_all(said)?;
        stream.flush()?;
        let mut piece = [0; 4096];
        while heard.plain.len() < MOST && !enough(&heard.plain) {
            match stream.read(&mut piece)? {
                0 => break,
                read => heard.plain.extend_from_slice(&piece[..read]),
            }
        }
        Ok(())
    };
    if let Err(error) = talk() {
        // A server that resets the connection right behind its alert may have it read only now.
        let late = stream.read(&mut [0; 16]).err().and_then(|error| alert_of(&error));
        heard.alert = alert_of(&error).or(late);
        heard.error = Some(error.to_string());
    }
    Ok(heard)
}

fn alert_of(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

fn client(root: &CertificateDer<'static>, shown: &Shown) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_protocol_versions(shown.versions)?
        .with_root_certificates(roots);
    if shown.chain.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(shown)?))))
}

/// Chain and key as they are: that they fit is not checked.
fn certified(shown: &Shown) -> Result<CertifiedKey> {
    let key = PrivateKeyDer::Pkcs8(shown.key.clone().into());
    Ok(CertifiedKey::new(shown.chain.clone(), crypto::ring::sign::any_supported_type(&key)?))
}

/// A server that asks nobody for a certificate. It answers each request with `answer`, and counts who spoke to it.
pub struct Doubtful {
    address: SocketAddr,
    spoken: Arc<AtomicU64>,
    met: Arc<AtomicU64>,
}

impl Doubtful {
    /// Serves on loopback until the program ends, with this certificate.
    pub fn start(shown: &Shown, answer: &'static [u8]) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_protocol_versions(shown.versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified(shown)?)));
        let (config, spoken, met) = (Arc::new(config), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (Arc::clone(&spoken), Arc::clone(&met));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counts.1.fetch_add(1, Ordering::SeqCst);
                let _timeout = stream.set_read_timeout(Some(PATIENCE));
                let Ok(tls) = ServerConnection::new(Arc::clone(&config)) else { return };
                let mut stream = StreamOwned::new(tls, stream);
                if stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                    counts.0.fetch_add(1, Ordering::SeqCst);
                    let _gone = stream.write_all(answer);
                    stream.conn.send_close_notify();
                    let _gone = stream.flush();
                }
            }
        });
        Ok(Self { address, spoken, met })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connected, and how many of them trusted it with a first byte.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.met.load(Ordering::SeqCst), self.spoken.load(Ordering::SeqCst))
    }
}
