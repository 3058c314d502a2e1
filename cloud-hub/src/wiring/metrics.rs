//! Where Prometheus finds the metrics: a listener of its own, plain http, off unless an address says where.
//!
//! What is counted where it happens is there at once; what is a state (connections, queues, caches, totals) is looked at when
//! somebody scrapes, and what the database must be asked for within a time limit. Deliberately absent: log-ins and TLS. The
//! numbers are of all tenants together and name none of them; whoever reaches the address may read them.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::api::Api;
use crate::api::health::Phase;
use crate::audit::Trouble;
use crate::config::Config;
use crate::embedded::ports;
use crate::metrics::{Exporter, broker, database, hub, security, webhooks};
use crate::store::StoreError;
use crate::store::routes::{self, Job};

/// The text format that Prometheus has read since its version 0.0.4.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Scrapes at once; more wait. Two Prometheus servers may watch one hub.
const AT_ONCE: usize = 2;
/// A database that does not say so much in this time is as good as away; a scrape has ten seconds.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// An address that was bound, and what collects.
pub(super) struct Endpoint {
    listener: TcpListener,
    exporter: Exporter,
}

/// What is looked at when somebody scrapes.
pub(super) struct Sources {
    pub(super) api: Arc<Api>,
    pub(super) connected: watch::Receiver<bool>,
    pub(super) audit: watch::Receiver<Trouble>,
}

impl Endpoint {
    /// Binds the address and collects from now on; nothing, if there is no address.
    pub(super) fn open(config: &Config) -> Result<Option<Self>> {
        let Some(address) = config.metrics.listen.0 else { return Ok(None) };
        let listener = ports::bind_free(address, "metrics.listen")?;
        listener.set_nonblocking(true)?;
        if !address.ip().is_loopback() {
            tracing::warn!(event = "metrics_in_the_open", %address, "whoever reaches [metrics] listen may read the metrics");
        }
        Ok(Some(Self { listener, exporter: Exporter::install().context("metrics.listen")? }))
    }

    /// Where they are, with the port that was given if any would do.
    pub(super) fn url(&self) -> String {
        self.listener.local_addr().map(|address| format!("http://{address}/metrics")).unwrap_or_default()
    }

    /// Answers scrapes until `stop`.
    pub(super) fn serve(
        self,
        sources: Sources,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send + 'static> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let (exporter, tidied) = (self.exporter.clone(), self.exporter);
        let routes = Router::new()
            .route("/metrics", get(scrape))
            .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
            .with_state(Arc::new((exporter, sources)));
        Ok(async move {
            let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
            tokio::select! {
                served = serving => {
                    if let Err(error) = served {
                        tracing::error!(event = "metrics_not_served", %error, "metrics cannot be scraped");
                    }
                }
                () = tidy(tidied, stop) => {}
            }
        })
    }
}

async fn tidy(exporter: Exporter, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(Exporter::UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => exporter.tidy(),
        }
    }
}

async fn scrape(State(state): State<Arc<(Exporter, Sources)>>) -> impl IntoResponse {
    let (exporter, sources) = &*state;
    sources.look().await;
    ([(header::CONTENT_TYPE, FORMAT)], exporter.render())
}

impl Sources {
    /// Looks at everything that is a state.
    async fn look(&self) {
        let api = &self.api;
        hub::ready(api.life.phase() == Phase::Ready);
        broker::connected(*self.connected.borrow());
        let Trouble { sealing, heads } = *self.audit.borrow();
        security::audit_trouble(sealing, heads);
        api.db.measure();
        api.limiter.measure();
        api.enroller.measure();
        api.comparisons.measure();
        api.galleries.measure();
        let answered = tokio::time::timeout(ASK_WITHIN, self.ask_the_database()).await;
        database::up(matches!(answered, Ok(Ok(()))));
    }

    async fn ask_the_database(&self) -> Result<(), StoreError> {
        let db = &self.api.db;
        let (tenants, devices, api_keys) = routes::totals(db).await?;
        security::totals(tenants, devices, api_keys);
        security::unsealed(routes::unsealed(db).await?);
        let due = routes::next_due(db, Job::Webhook).await?;
        let age = due.and_then(|due| Duration::try_from(self.api.clock.now() - due).ok());
        webhooks::queue_age(age.unwrap_or_default());
        Ok(())
    }
}
