//! The server's own certificates: what they are made out to, their renewal, and whose clients are believed beside them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::tls;
use crate::api::BrokerControl;
use crate::api::listener::TlsConfig;
use crate::clock::Clock;
use crate::config::Config;
use crate::embedded::mosquitto::AccessFile;
use crate::pki::Pki;

/// The listener's certificate is looked at this often; it is renewed at half its life of 90 days.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(6 * 3600);
/// So soon are authorities believed that were copied here from another hub.
const AUTHORITY_CHECK: Duration = Duration::from_secs(2);

/// What the listener and the embedded broker show, and whom they believe.
pub(super) struct Certificates {
    pub(super) tls: TlsConfig,
    pub(super) pki: Arc<Pki>,
    pub(super) names: Vec<String>,
    pub(super) broker: Option<AccessFile>,
    pub(super) clock: Clock,
    /// One at a time: what was made later must be what stays.
    pub(super) making: Mutex<()>,
}

impl Certificates {
    /// Makes certificates anew where it is time or another authority issues them, and believes those authorities that are there.
    pub(super) fn renew(&self) -> Result<()> {
        let _alone = self.making.lock();
        self.tls.store(server_tls(&self.pki, &self.names, &self.clock)?);
        if let Some(broker) = &self.broker {
            broker.replace_authorities(&self.pki.client_ca_pem())?;
            let identity = self.pki.server("broker", &self.names, self.clock.now())?;
            broker.replace_certificate(&identity.chain_pem, &identity.key_pem)?;
        }
        Ok(())
    }
}

/// Keeps certificates in time, and finds authorities that somebody has copied here.
pub(super) struct Renewal {
    pub(super) certificates: Arc<Certificates>,
    /// Writes the lists of the broker when others are believed.
    pub(super) broker: Arc<dyn BrokerControl>,
}

impl Renewal {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AUTHORITY_CHECK) => {}
            }
            let done = match self.certificates.pki.look_again() {
                Ok(true) => self.broker.refresh_authorities().await.map_err(anyhow::Error::new),
                Ok(false) if renewed.elapsed() < CERTIFICATE_CHECK => continue,
                Ok(false) => self.certificates.renew(),
                Err(error) => Err(error.into()),
            };
            renewed = Instant::now();
            if let Err(error) = done {
                let error = format!("{error:#}");
                tracing::error!(event = "certificate_not_renewed", %error, "a certificate cannot be renewed");
            }
        }
    }
}

pub(super) fn server_tls(pki: &Pki, names: &[String], clock: &Clock) -> Result<Arc<ServerConfig>> {
    tls::server_config(&pki.server("https", names, clock.now())?, pki)
}

/// What clients and devices are told; with port 0 the port that was given.
pub(super) fn public_url(config: &Config, listen: SocketAddr) -> Result<Url> {
    if config.server.public_url.is_empty() {
        return Ok(Url::parse(&format!("https://{listen}"))?);
    }
    Ok(config.public_url()?)
}

/// Names and addresses in the certificates: what devices and clients may call the hub.
pub(super) fn server_names(config: &Config, public_url: &Url, listen: SocketAddr) -> Vec<String> {
    let mut names = Vec::new();
    let unspecified = |ip: IpAddr| ip.is_unspecified();
    let consumers = config.embedded.consumer_listen.0.map(|address| address.ip());
    let addresses = [listen.ip(), config.embedded.mqtt_listen.ip()].into_iter().chain(consumers);
    let addresses = addresses.filter(|ip| !unspecified(*ip));
    let public = public_url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned());
    let broker =
        config.broker.device_address.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']).to_owned());
    for name in
        public.into_iter().chain(broker).chain(addresses.map(|ip| ip.to_string())).chain(config.server.names.clone())
    {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
