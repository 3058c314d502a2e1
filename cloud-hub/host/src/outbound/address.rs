//! Which addresses a delivery may reach: public ones by https, and networks that the operator names.
//!
//! In: a URL, and what its name resolved to. Out: permission or a reason. Pure. The rule is asked twice: when an
//! endpoint is registered (a kind word early) and for every connection with the addresses that it will use (the guard:
//! a name may point elsewhere by then).

use std::net::IpAddr;

use url::{Host, Url};

use super::network::{Network, is_public, unmap};

/// Ports below 1024 that a delivery may reach on public hosts: https alone.
const LOW_PORTS: [u16; 1] = [443];
/// Ports from 1024 up where no receiver listens but a database, queue or control plane may.
const SERVICE_PORTS: [u16; 24] = [
    1433, 1521, 1883, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 5432, 5671, 5672, 5900, 5984, 6379, 6443, 8883,
    9042, 9092, 9200, 11211, 27017,
];

/// Why an address may not be called. Says nothing of what lies there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither https nor http.
    #[error("the scheme must be https")]
    Scheme,
    /// No host.
    #[error("the URL has no host")]
    NoHost,
    /// User or password in the URL.
    #[error("the URL must not hold a user name or password")]
    Credentials,
    /// Plain http to a host outside the allowed networks.
    #[error("plain http is allowed only into networks of webhooks.allow_networks")]
    PlainHttp,
    /// A port that is not for receivers.
    #[error("port {0} is not allowed for webhooks")]
    Port(u16),
    /// Not a public address, and not in an allowed network.
    #[error(
        "the address is not public: choose a public https address, or ask the operator to set webhooks.allow_networks"
    )]
    NotPublic,
    /// The name resolves to nothing.
    #[error("the host name does not resolve")]
    Unresolved,
}

/// The operator's rule.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allow: Vec<Network>,
}

impl AddressPolicy {
    /// Public addresses by https, and besides whatever lies in `allow`, by plain http too.
    #[must_use]
    pub fn new(allow: Vec<Network>) -> Self {
        Self { allow }
    }

    /// Checks what the URL alone tells: scheme, credentials, port, and the host if it is an address.
    ///
    /// Plain http to a *name* passes here when some network is allowed, on any port; its addresses decide at each
    /// connection, and plain http to a public one is refused then.
    pub fn check_url(&self, url: &Url) -> Result<(), AddressError> {
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(AddressError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Credentials);
        }
        let port = url.port_or_known_default().ok_or(AddressError::Scheme)?;
        match url.host().ok_or(AddressError::NoHost)? {
            Host::Ipv4(address) => self.check(IpAddr::V4(address), port, plain),
            Host::Ipv6(address) => self.check(IpAddr::V6(address), port, plain),
            Host::Domain(_) if plain && self.allow.is_empty() => Err(AddressError::PlainHttp),
            Host::Domain(_) if plain => Ok(()),
            Host::Domain(_) => check_port(port),
        }
    }

    /// Checks everything a name resolved to. One address that may not be reached refuses them all: a name that
    /// points to a public and a private host is not a receiver's.
    ///
    /// The port was checked with the URL.
    pub fn check_resolved(&self, addresses: &[IpAddr], plain: bool) -> Result<(), AddressError> {
        if addresses.is_empty() {
            return Err(AddressError::Unresolved);
        }
        addresses.iter().try_for_each(|address| self.check(*address, 443, plain))
    }

    fn check(&self, address: IpAddr, port: u16, plain: bool) -> Result<(), AddressError> {
        let address = unmap(address);
        if self.allow.iter().any(|network| network.contains(address)) {
            return Ok(());
        }
        if !is_public(address) {
            return Err(AddressError::NotPublic);
        }
        if plain {
            return Err(AddressError::PlainHttp);
        }
        check_port(port)
    }
}

fn check_port(port: u16) -> Result<(), AddressError> {
    let allowed = if port < 1024 { LOW_PORTS.contains(&port) } else { !SERVICE_PORTS.contains(&port) };
    if allowed { Ok(()) } else { Err(AddressError::Port(port)) }
}
