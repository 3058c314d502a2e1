//! What the API asks of the broker: access lines from the registry, and the end of a device's session.

use futures::future::BoxFuture;
use wire_contract::topic::acl;

use crate::api::{BrokerControl, BrokerError};
use crate::domain::ids::DeviceId;
use crate::embedded::mosquitto::AccessFile;
use crate::store::{Database, StoreError, routes};

/// The broker beside this hub.
pub(super) struct Broker {
    pub(super) db: Database,
    pub(super) access: Option<AccessFile>,
    /// One writer at a time: of two claims at once the later list must be the one that stays.
    pub(super) writing: tokio::sync::Mutex<()>,
}

/// The access lines of every device in the registry.
pub(super) async fn access_lines(db: &Database) -> Result<String, StoreError> {
    let devices = routes::devices(db).await?;
    let line = |(tenant, device): (crate::domain::ids::TenantId, DeviceId)| {
        acl::device(wire_contract::TenantId(tenant.0), wire_contract::DeviceId(device.0))
    };
    Ok(devices.into_iter().map(line).collect())
}

impl Broker {
    async fn write(&self) -> Result<(), BrokerError> {
        let Some(file) = &self.access else { return Ok(()) };
        let _one_at_a_time = self.writing.lock().await;
        // Read inside the lock: the list must not be older than the one it replaces.
        let lines = access_lines(&self.db).await.map_err(|error| BrokerError(Box::new(error)))?;
        let file = file.clone();
        let replaced = tokio::task::spawn_blocking(move || file.replace(&lines)).await;
        replaced.map_err(|error| BrokerError(Box::new(error)))?.map_err(|error| BrokerError(Box::new(error)))
    }
}

impl BrokerControl for Broker {
    fn refresh(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.write())
    }

    fn end_session(&self, _device: DeviceId) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
