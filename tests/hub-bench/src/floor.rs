//! Floors: the same machine with nothing of Lintel's between.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use arc_swap::ArcSwap;
use axum::Router;
use axum::routing::get;
use cloud_hub::api::listener::{ListenerOptions, serve};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A route that answers two letters, behind the hub's own listener.
pub(crate) struct BareRoute {
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    _stop: DropGuard,
}

impl BareRoute {
    pub(crate) async fn start() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut tls = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}/", listener.local_addr()?.port());
        let options = ListenerOptions {
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(5),
            max_connections: 1_000,
            max_per_address: 1_000,
            drain: Duration::ZERO,
        };
        let routes = Router::new().route("/", get(|| async { "ok" }));
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::new(ArcSwap::from_pointee(tls)), routes, options, stop.clone()));
        let root = reqwest::Certificate::from_der(made.cert.der())?;
        let client = reqwest::Client::builder().tls_certs_only([root]).build()?;
        Ok(Self { client, url, _stop: stop.drop_guard() })
    }

    pub(crate) async fn ask(client: reqwest::Client, url: String) -> Result<()> {
        let answer = client.get(url).send().await?.error_for_status()?;
        anyhow::ensure!(answer.bytes().await? == "ok", "an odd answer");
        Ok(())
    }
}
