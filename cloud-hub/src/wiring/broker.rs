//! What the API asks of the broker: access lines and revocations from the registry, and the end of a device's session.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::api::{BrokerControl, BrokerError};
use crate::clock::Clock;
use crate::domain::ids::DeviceId;
use crate::embedded::mosquitto::AccessFile;
use crate::pki::Pki;
use crate::publish;
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
    /// One writer at a time: of two claims at once the later list must be the one that stays.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl Broker {
    async fn write(&self) -> Result<(), BrokerError> {
        let Some(file) = &self.access else { return Ok(()) };
        let _one_at_a_time = self.writing.lock().await;
        // Read inside the lock: the lists must not be older than those they replace.
        let lines = publish::access_lines(&self.db).await.map_err(|error| BrokerError(Box::new(error)))?;
        let previous = file.revocations();
        let revoked = publish::revocation_list(&self.db, &self.pki, previous.as_deref(), self.clock.now()).await;
        let revoked = revoked.map_err(|error| BrokerError(Box::new(error)))?;
        let file = file.clone();
        let replaced = tokio::task::spawn_blocking(move || file.replace_with_revocations(&lines, &revoked)).await;
        replaced.map_err(|error| BrokerError(Box::new(error)))?.map_err(|error| BrokerError(Box::new(error)))
    }
}

impl BrokerControl for Broker {
    fn refresh(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.write())
    }

    fn end_session(&self, device: DeviceId) -> BoxFuture<'_, ()> {
        Box::pin(publish::end_session(&self.connection, device))
    }
}
