//! What the API asks of the broker: access lines from the registry, and the end of a device's session.

use futures::future::BoxFuture;

use crate::api::{BrokerControl, BrokerError};
use crate::domain::ids::DeviceId;
use crate::embedded::mosquitto::AccessFile;
use crate::publish;
use crate::store::Database;

/// The broker beside this hub.
pub(super) struct Broker {
    pub(super) db: Database,
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
        // Read inside the lock: the list must not be older than the one it replaces.
        let lines = publish::access_lines(&self.db).await.map_err(|error| BrokerError(Box::new(error)))?;
        let file = file.clone();
        let replaced = tokio::task::spawn_blocking(move || file.replace(&lines)).await;
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
