//! Who may read the feed at the broker: its password file and its access list, from the registry, and the end of a session
//! that lost its right.

use std::fmt::Write as _;

use wire_contract::topic::acl;

use super::{Broker, HomeSettings, access};
use crate::domain::broker_password;
use crate::domain::ids::ConsumerId;
use crate::store::devices::DeviceState;
use crate::store::{Database, StoreError, TenantTx, consumers, devices, routes};

/// What the consumers' listener reads. Both are whole files.
#[derive(Clone, Debug)]
pub struct ConsumerFiles {
    /// A line for each consumer: its user name and the hash of its password.
    pub passwords: String,
    /// What each may read. A consumer that is not in it may do nothing.
    pub access: String,
}

/// Both files, for all consumers that were not removed. One transaction for each tenant that has any.
pub async fn consumer_files(db: &Database, home: &HomeSettings) -> Result<ConsumerFiles, StoreError> {
    let mut passwords = String::new();
    let mut access = String::from("# Written by cloud-hub from its registry; replaced whole at each change.\n");
    for tenant in routes::tenants_with_consumers(db).await? {
        let (found, claimed) = db.tenant(tenant, |tx| Box::pin(read(tx))).await?;
        let spelled = wire_contract::TenantId(tenant.0);
        for consumer in found {
            let user = consumer.id.user_name();
            passwords.push_str(&broker_password::line(&user, &consumer.password_hash));
            let lines = if consumer.home_assistant && home.tenants.contains(&tenant) {
                acl::home_assistant(&user, spelled, &claimed, home.unlock.contains(&tenant))
            } else {
                acl::consumer(&user, spelled)
            };
            write!(access, "\n{lines}").expect("writing to a string cannot fail");
        }
    }
    Ok(ConsumerFiles { passwords, access })
}

/// A tenant's consumers and claimed devices.
async fn read(tx: &mut TenantTx) -> Result<(Vec<consumers::Consumer>, Vec<wire_contract::DeviceId>), StoreError> {
    let consumers = consumers::list(tx).await?;
    if !consumers.iter().any(|consumer| consumer.home_assistant) {
        return Ok((consumers, Vec::new()));
    }
    let claimed = devices::list(tx).await?.into_iter().filter(|device| device.state == DeviceState::Claimed);
    let claimed = claimed.map(|device| wire_contract::DeviceId(device.id.0)).collect();
    Ok((consumers, claimed))
}

/// Ends the session of a consumer that was removed, by taking over its client id on the hub's own listener. The broker ends
/// the connection itself when it reads its files; this also throws away what its session had queued.
pub async fn end_consumer(broker: &Broker, consumer: ConsumerId) {
    access::take_over(broker, &consumer.user_name()).await;
}
