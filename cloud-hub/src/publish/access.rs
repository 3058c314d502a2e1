//! Who may do what at the broker: its access lines from the registry, and the end of a session that lost its right.

use std::fmt::Write as _;
use std::time::Duration;

use rumqttc::v5::Event;
use rumqttc::v5::mqttbytes::v5::Packet;
use time::OffsetDateTime;
use wire_contract::topic::acl;

use super::connection::{Broker, KEEP_ALIVE};
use crate::domain::ids::DeviceId;
use crate::pki::{Pki, PkiError};
use crate::store::{Database, StoreError, routes};

/// A take-over that takes longer is given up; the removed access lines refuse the session's messages anyway.
const TAKE_OVER_WITHIN: Duration = Duration::from_secs(5);

/// The whole access file of the device listener: two lines for each device that is claimed and not revoked. A device
/// that is not in it may do nothing.
pub async fn access_lines(db: &Database) -> Result<String, StoreError> {
    let mut lines = String::from("# Written by cloud-hub from its registry; replaced whole at each change.\n");
    for (tenant, device) in routes::devices(db).await? {
        let device = acl::device(wire_contract::TenantId(tenant.0), wire_contract::DeviceId(device.0));
        write!(lines, "\n{device}").expect("writing to a string cannot fail");
    }
    Ok(lines)
}

/// The list of revoked certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RevocationsError {
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The whole revocation list of the device listener, PEM: access lines go by the device's name, which an old certificate
/// has too. `previous` is the list that the broker read last.
pub async fn revocation_list(
    db: &Database,
    pki: &Pki,
    previous: Option<&str>,
    now: OffsetDateTime,
) -> Result<String, RevocationsError> {
    let revoked = routes::revoked_certificates(db, now).await?;
    let revoked = revoked.iter().map(|certificate| (certificate.serial.as_str(), certificate.revoked_at));
    Ok(pki.client_crl(revoked, previous, now)?)
}

/// Ends a device's live session by taking over its client id on the hub's own listener. A reload of the access lines
/// alone refuses messages but leaves the connection.
pub async fn end_session(broker: &Broker, device: DeviceId) {
    let (client, mut events) = broker.client(&device.to_string(), KEEP_ALIVE);
    let take_over = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    if client.try_disconnect().is_err() {
                        return true;
                    }
                }
                Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return true,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%device, %error, "could not take over a device's session");
                    return false;
                }
            }
        }
    };
    match tokio::time::timeout(TAKE_OVER_WITHIN, take_over).await {
        Ok(true) => tracing::info!(%device, "ended the device's session"),
        Ok(false) => {}
        Err(_) => tracing::warn!(%device, "could not take over a device's session in time"),
    }
}
