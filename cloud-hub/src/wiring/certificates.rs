//! The server's own certificates: what they are made out to, and their renewal.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::tls;
use crate::api::listener::TlsConfig;
use crate::clock::Clock;
use crate::config::Config;
use crate::embedded::mosquitto::AccessFile;
use crate::pki::Pki;

/// The listener's certificate is looked at this often; it is renewed at half its life of 90 days.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(6 * 3600);

/// Renews the certificates of the listener and of the embedded broker.
pub(super) struct Renewal {
    pub(super) tls: TlsConfig,
    pub(super) pki: Arc<Pki>,
    pub(super) names: Vec<String>,
    pub(super) broker: Option<AccessFile>,
}

impl Renewal {
    pub(super) async fn run(self, clock: Clock, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CERTIFICATE_CHECK) => {}
            }
            if let Err(error) = self.renew(&clock) {
                let error = format!("{error:#}");
                tracing::error!(event = "certificate_not_renewed", %error, "a certificate cannot be renewed");
            }
        }
    }

    fn renew(&self, clock: &Clock) -> Result<()> {
        self.tls.store(server_tls(&self.pki, &self.names, clock)?);
        if let Some(broker) = &self.broker {
            let identity = self.pki.server("broker", &self.names, clock.now())?;
            broker.replace_certificate(&identity.chain_pem, &identity.key_pem)?;
        }
        Ok(())
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
