//! What the API asks of the broker: access lines, revocations and consumers from the registry, and the end of a session.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::certificates::Certificates;
use crate::api::{BrokerControl, BrokerError};
use crate::clock::Clock;
use crate::domain::ids::{ConsumerId, DeviceId};
use crate::embedded::mosquitto::AccessFile;
use crate::pki::Pki;
use crate::publish::{self, HomeSettings};
use crate::store::Database;

/// The broker beside this hub.
pub(super) struct Broker {
    pub(super) db: Database,
    /// Signs the revocation list.
    pub(super) pki: Arc<Pki>,
    pub(super) clock: Clock,
    /// How the hub connects; a session is ended by taking over its client id there.
    pub(super) connection: publish::Broker,
    /// The access list, if the hub writes it.
    pub(super) access: Option<AccessFile>,
    /// What listener and broker show, and whom they believe.
    pub(super) certificates: Arc<Certificates>,
    /// Whose devices Home Assistants hear of: each claim and revocation changes what such a consumer may read.
    pub(super) home: HomeSettings,
    /// One writer of this hub at a time: of two claims at once the later list must be the one that stays. Among hubs that is
    /// [`Database::lists_turn`]'s; those who wait here take up no connection.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl Broker {
    async fn write(&self) -> Result<(), BrokerError> {
        let Some(file) = &self.access else { return Ok(()) };
        let _one_at_a_time = self.writing.lock().await;
        let _turn = self.db.lists_turn().await.map_err(|error| BrokerError(Box::new(error)))?;
        // Read inside the lock: the lists must not be older than those they replace.
        let lines = publish::access_lines(&self.db).await.map_err(|error| BrokerError(Box::new(error)))?;
        let previous = file.revocations();
        let revoked = publish::revocation_list(&self.db, &self.pki, previous.as_deref(), self.clock.now()).await;
        let revoked = revoked.map_err(|error| BrokerError(Box::new(error)))?;
        let file = file.clone();
        let replaced = tokio::task::spawn_blocking(move || file.replace_with_revocations(&lines, &revoked)).await;
        replaced.map_err(|error| BrokerError(Box::new(error)))?.map_err(|error| BrokerError(Box::new(error)))
    }

    async fn write_consumers(&self) -> Result<(), BrokerError> {
        let Some(file) = self.access.clone() else { return Ok(()) };
        let _one_at_a_time = self.writing.lock().await;
        let _turn = self.db.lists_turn().await.map_err(|error| BrokerError(Box::new(error)))?;
        let made = publish::consumer_files(&self.db, &self.home).await.map_err(|error| BrokerError(Box::new(error)))?;
        let replaced = tokio::task::spawn_blocking(move || file.replace_consumers(&made.passwords, &made.access)).await;
        replaced.map_err(|error| BrokerError(Box::new(error)))?.map_err(|error| BrokerError(Box::new(error)))
    }
}

impl BrokerControl for Broker {
    fn refresh(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async {
            self.write().await?;
            if self.home.tenants.is_empty() { Ok(()) } else { self.write_consumers().await }
        })
    }

    fn refresh_authorities(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async {
            let certificates = Arc::clone(&self.certificates);
            let renewed = tokio::task::spawn_blocking(move || certificates.renew()).await;
            renewed.map_err(|error| BrokerError(Box::new(error)))?.map_err(|error| BrokerError(error.into()))?;
            self.write().await
        })
    }

    fn refresh_consumers(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.write_consumers())
    }

    fn end_consumer(&self, consumer: ConsumerId) -> BoxFuture<'_, ()> {
        Box::pin(publish::end_consumer(&self.connection, consumer))
    }

    fn end_session(&self, device: DeviceId) -> BoxFuture<'_, ()> {
        Box::pin(publish::end_session(&self.connection, device))
    }
}
