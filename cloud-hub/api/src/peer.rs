//! Who is at the other end of a connection: an address and, for devices, what their certificate says.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use hub_domain::ids::DeviceId;

/// The other end of a connection; an extension of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The device, if it showed a certificate that the device authority signed. Whether that certificate is still the
    /// device's present one is the registry's to say, on each request.
    pub device: Option<PeerDevice>,
}

/// What a device's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerDevice {
    /// The common name.
    pub id: DeviceId,
    /// The serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// Its end. The handshake lets a certificate in that ended lately: it may still renew itself.
    pub expires_at: OffsetDateTime,
}

impl Peer {
    /// Reads the verified chain; a certificate without a UUID as common name is no device.
    pub(super) fn of(address: SocketAddr, chain: Option<&[CertificateDer<'_>]>) -> Self {
        Self { address, device: chain.and_then(<[_]>::first).and_then(|leaf| device_of(leaf)) }
    }
}

fn device_of(leaf: &CertificateDer<'_>) -> Option<PeerDevice> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let id = Uuid::parse_str(name).ok()?;
    // The registry's spelling is the hyphenated lower-case one; another would be a second name for one device.
    (id.hyphenated().to_string() == name).then(|| PeerDevice {
        id: DeviceId(id),
        serial: certificate.tbs_certificate.serial.to_str_radix(16),
        expires_at: certificate.validity().not_after.to_datetime(),
    })
}
