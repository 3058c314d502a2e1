//! Renewals: a device's next certificate, and the link key that comes with its first use.
//!
//! In: what was issued, what was shown. Out: rows that change together. Two steps, because an answer may be lost: the
//! certificate is *offered* with the answer and *taken up* when the device first shows it; until then the present one
//! works. Imports `store`.

use std::sync::Arc;

use gallery_log::keys::random_key;
use serde_json::json;

use super::custody::log;
use super::{Custody, KeysError};
use hub_domain::certificate::DeviceCertificate;
use hub_domain::ids::{DeviceId, TenantId};
use hub_store::audit::Action;
use hub_store::{certificates, devices};

impl Custody {
    /// Notes the certificate that a device is about to be given. False when its key is the present one's: a renewal that
    /// keeps the key renews nothing.
    pub async fn certificate_offered(
        &self,
        tenant: TenantId,
        device: DeviceId,
        certificate: DeviceCertificate,
    ) -> Result<bool, KeysError> {
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    devices::lock_for_claim(tx, device).await?;
                    if devices::get(tx, device).await?.spki_sha256.as_deref() == Some(&certificate.spki_sha256[..]) {
                        return Ok(false);
                    }
                    certificates::offered(tx, device, &certificate).await?;
                    let detail = json!({ "certificate_serial": certificate.serial });
                    log(tx, &format!("device:{device}"), Action::DeviceCertificateOffered, "device", device.0, detail)
                        .await?;
                    Ok(true)
                })
            })
            .await
    }

    /// The device showed its next certificate: it is the present one from now on, and a new link key comes with it. The
    /// link key before is accepted a while longer. False when another request of the device was first.
    pub async fn certificate_taken_up(
        &self,
        tenant: TenantId,
        device: DeviceId,
        serial: String,
    ) -> Result<bool, KeysError> {
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    if !certificates::taken_up(tx, device, &serial).await? {
                        return Ok(false);
                    }
                    let number = devices::next_link_epoch(tx, device).await?;
                    let sealed = keyring.tenant(tx).await?.seal_link(device, number, &*random_key()?)?;
                    devices::renew_link(tx, device, number, &sealed, now).await?;
                    let detail = json!({ "certificate_serial": serial, "link_epoch": number });
                    log(tx, &format!("device:{device}"), Action::DeviceCertificateRenewed, "device", device.0, detail)
                        .await?;
                    Ok(true)
                })
            })
            .await
    }
}
