//! Where spans may be sent: anywhere by https, and by plain http only within networks of the operator's own.
//!
//! In: the URL of a receiver, and what its name resolved to. Out: permission or a reason. Pure. A webhook's address is a tenant's, and
//! must not reach what the tenant cannot; a receiver of spans is the operator's, and may be anywhere that nobody listens on the way to.

use std::net::IpAddr;

use url::{Host, Url};

use super::network::is_private;

/// Why spans are not sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// Neither https nor http.
    #[error("must be a URL of https or http, such as http://127.0.0.1:4318/v1/traces")]
    Scheme,
    /// User or password in the URL, which is shown.
    #[error("must not hold a user name or password: what a receiver asks for goes into OTEL_EXPORTER_OTLP_HEADERS")]
    Credentials,
    /// Plain http to an address that may be on the Internet.
    #[error(
        "plain http reaches loopback and private addresses only: use https, or a collector on a network of your own"
    )]
    PlainHttp,
    /// The name resolves to nothing.
    #[error("the host name does not resolve")]
    Unresolved,
}

/// Checks what the URL alone tells: scheme, credentials, and the host if it is an address. Those of a name decide at each connection.
pub fn check_url(url: &Url) -> Result<(), CollectorError> {
    if !["https", "http"].contains(&url.scheme()) {
        return Err(CollectorError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CollectorError::Credentials);
    }
    match url.host() {
        None => Err(CollectorError::Scheme),
        Some(Host::Ipv4(address)) if is_plain(url) => check_plain(&[IpAddr::V4(address)]),
        Some(Host::Ipv6(address)) if is_plain(url) => check_plain(&[IpAddr::V6(address)]),
        Some(_) => Ok(()),
    }
}

/// Whether what is sent there can be read on the way.
#[must_use]
pub fn is_plain(url: &Url) -> bool {
    url.scheme() == "http"
}

/// Checks everything that a name resolved to, for plain http. One address of others refuses them all.
pub fn check_plain(addresses: &[IpAddr]) -> Result<(), CollectorError> {
    if addresses.is_empty() {
        return Err(CollectorError::Unresolved);
    }
    if addresses.iter().all(|address| is_private(*address)) { Ok(()) } else { Err(CollectorError::PlainHttp) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<(), CollectorError> {
        check_url(&Url::parse(url).unwrap())
    }

    #[test]
    fn https_goes_anywhere_and_plain_http_to_ones_own() {
        for fine in [
            "https://collector.example/v1/traces",
            "https://1.1.1.1/v1/traces",
            "http://127.0.0.1:4318/v1/traces",
            "http://[::1]:4318/",
            "http://10.1.2.3:4318/",
            "http://172.31.0.1/",
            "http://192.168.0.9/",
            "http://[fd00::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://collector:4318/v1/traces",
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for public in [
            "http://1.1.1.1:4318/",
            "http://[2606:4700:4700::1111]/",
            "http://[::ffff:1.1.1.1]/",
            // Not public, and not surely the operator's: a carrier's, a tunnel's to anywhere, everybody's.
            "http://100.64.0.1/",
            "http://[64:ff9b::101:101]/",
            "http://224.0.0.1/",
            "http://0.0.0.0/",
        ] {
            assert_eq!(check(public), Err(CollectorError::PlainHttp), "{public}");
        }
    }

    #[test]
    fn a_url_is_of_http_and_holds_no_secret() {
        assert_eq!(check("grpc://127.0.0.1:4317"), Err(CollectorError::Scheme));
        assert_eq!(check("localhost:4318"), Err(CollectorError::Scheme));
        assert_eq!(check("https://user@collector.example/"), Err(CollectorError::Credentials));
        assert_eq!(check("http://:secret@127.0.0.1/"), Err(CollectorError::Credentials));
    }

    #[test]
    fn a_name_is_worth_what_all_its_addresses_are() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(check_plain(&addresses(&["127.0.0.1", "::1", "10.0.0.1"])), Ok(()));
        assert_eq!(check_plain(&addresses(&["10.0.0.1", "1.1.1.1"])), Err(CollectorError::PlainHttp));
        assert_eq!(check_plain(&[]), Err(CollectorError::Unresolved));
    }
}
