use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, client::WebPkiServerVerifier};
use uuid::Uuid;

use super::*;

const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 10:00 UTC);
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(5));

fn request() -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = named("somebody else");
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn pki() -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_make(dir.path(), NOW).unwrap();
    (dir, pki)
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn at(time: OffsetDateTime) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(time.unix_timestamp().unsigned_abs()))
}

fn store(anchors: impl IntoIterator<Item = Vec<u8>>) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    for anchor in anchors {
        store.add(CertificateDer::from(anchor)).unwrap();
    }
    Arc::new(store)
}

fn judge_client(pki: &Pki, chain_pem: &str, time: OffsetDateTime) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let anchors = store(pki.device_authorities_der());
    let verifier = WebPkiClientVerifier::builder_with_provider(anchors, provider).build().unwrap();
    let chain = certificates(chain_pem);
    verifier.verify_client_cert(&chain[0], &chain[1..], at(time)).map(drop)
}

fn accepts_client(pki: &Pki, chain_pem: &str, time: OffsetDateTime) -> bool {
    judge_client(pki, chain_pem, time).is_ok()
}

fn issue(pki: &Pki) -> IssuedDevice {
    pki.issue_device(DeviceRequest::parse(&request()).unwrap(), DEVICE, NOW).unwrap()
}

fn accepts_server(root: &[u8], chain_pem: &str, name: &str, time: OffsetDateTime) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(store([root.to_vec()]), provider).build().unwrap();
    let chain = certificates(chain_pem);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], at(time)).is_ok()
}

#[test]
fn a_device_certificate_names_the_device_and_serves_clients_only() {
    let (_dir, pki) = pki();
    let request = DeviceRequest::parse(&request()).unwrap();
    let spki = request.spki_sha256();
    let issued = pki.issue_device(request, DEVICE, NOW).unwrap();
    assert_eq!(issued.certificate.spki_sha256, spki);
    assert!(issued.certificate.expires_at <= NOW + LEAF_LIFETIME);
    let leaf = certificates(&issued.chain_pem).remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert_eq!(parsed.subject().to_string(), format!("CN={DEVICE}"), "the request's subject is ignored");
    assert_eq!(parsed.raw_serial_as_string().replace(':', ""), issued.certificate.serial);
    assert!(
        parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp()
            <= LEAF_LIFETIME.whole_seconds()
    );

    assert!(accepts_client(&pki, &issued.chain_pem, NOW));
    assert!(!accepts_client(&pki, &issued.chain_pem, NOW + Duration::days(91)));
    assert!(!accepts_server(pki.root_der(), &issued.chain_pem, "localhost", NOW));
}

#[test]
fn another_hubs_device_is_refused() {
    let (_dir, own) = pki();
    let (_other_dir, other) = pki();
    let foreign = other.issue_device(DeviceRequest::parse(&request()).unwrap(), DEVICE, NOW).unwrap();
    assert!(!accepts_client(&own, &foreign.chain_pem, NOW));
}

#[test]
fn a_server_certificate_covers_its_names_and_chains_to_the_root() {
    let (_dir, pki) = pki();
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned(), "hub.example".to_owned()];
    let server = pki.server("server", &names, NOW).unwrap();
    for name in &names {
        assert!(accepts_server(pki.root_der(), &server.chain_pem, name, NOW), "{name}");
    }
    assert!(!accepts_server(pki.root_der(), &server.chain_pem, "other.example", NOW));
    assert!(!accepts_client(&pki, &server.chain_pem, NOW), "a server cannot pose as a device");
    assert_eq!(
        certificates(&server.chain_pem).last().unwrap().as_ref(),
        pki.root_der(),
        "claiming devices get the root along"
    );
}

#[test]
fn authorities_survive_a_restart_and_the_servers_certificate_is_renewed_in_time() {
    let (dir, first) = pki();
    let names = ["localhost".to_owned()];
    let server = first.server("server", &names, NOW).unwrap();
    let again = Pki::load_or_make(dir.path(), NOW + Duration::days(1)).unwrap();
    assert_eq!(again.root_spki_sha256(), first.root_spki_sha256());
    assert_eq!(again.server("server", &names, NOW + Duration::days(1)).unwrap().chain_pem, server.chain_pem);
    let renewed = again.server("server", &names, NOW + Duration::days(50)).unwrap();
    assert_ne!(renewed.chain_pem, server.chain_pem);
    let others = ["hub.example".to_owned()];
    assert_ne!(again.server("server", &others, NOW + Duration::days(50)).unwrap().chain_pem, renewed.chain_pem);
}

#[test]
fn malformed_and_forged_requests_are_refused() {
    assert!(matches!(DeviceRequest::parse("nonsense"), Err(PkiError::Request)));
    let pem = request();
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let mut forged = block.contents.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(&forged);
    let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    assert!(matches!(DeviceRequest::parse(&forged), Err(PkiError::Request)));
}

#[test]
fn a_request_for_another_kind_of_key_is_refused() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    assert!(matches!(DeviceRequest::parse(&csr), Err(PkiError::RequestKey)));
}

#[test]
fn a_key_that_does_not_belong_to_its_certificate_is_an_error_that_says_what_to_do() {
    let (dir, _) = pki();
    std::fs::remove_file(dir.path().join("device-ca.key")).unwrap();
    let error = Pki::load_or_make(dir.path(), NOW).unwrap_err();
    assert!(error.to_string().contains("device-ca.pem"), "{error}");
}

#[test]
fn each_revocation_list_is_newer_than_the_one_before_and_names_the_serials() {
    let (_dir, pki) = pki();
    let issued = pki.issue_device(DeviceRequest::parse(&request()).unwrap(), DEVICE, NOW).unwrap();
    let first = pki.client_crl([], None, NOW).unwrap();
    // Within the same second.
    let second = pki.client_crl([(issued.certificate.serial.as_str(), NOW)], Some(&first), NOW).unwrap();
    let third = pki.client_crl([(issued.certificate.serial.as_str(), NOW)], Some(&second), NOW).unwrap();
    let (positions, serials): (Vec<_>, Vec<_>) = [&first, &second, &third]
        .map(|pem| {
            let (_, parsed) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            let (_, list) = x509_parser::parse_x509_crl(&parsed.contents).unwrap();
            let authorities = pki.device_authorities_der();
            let device_authority = x509_parser::parse_x509_certificate(&authorities[0]).unwrap().1;
            assert_eq!(list.issuer(), device_authority.subject());
            let serials: Vec<String> =
                list.iter_revoked_certificates().map(|entry| entry.user_certificate.to_str_radix(16)).collect();
            (crl_positions(pem)[0], serials)
        })
        .into_iter()
        .unzip();
    assert!(positions.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{positions:?}");
    assert!(positions[2].0 < NOW, "a list that begins in the future would lock every device out");
    assert_eq!(serials, [vec![], vec![issued.certificate.serial.clone()], vec![issued.certificate.serial]]);
    // Damage to the file that lies there is no reason to write none.
    assert!(pki.client_crl([], Some("rubbish"), NOW).is_ok());
}

#[test]
fn devices_of_either_authority_are_believed_until_the_one_before_is_retired() {
    let (dir, pki) = pki();
    let names = ["localhost".to_owned()];
    let (early, shown) = (issue(&pki), pki.server("https", &names, NOW).unwrap().chain_pem);
    assert_eq!(early.certificate.issuer, pki.device_issuer());
    assert_eq!((pki.next_device_issuer(), pki.device_issuer_before()), (None, None));
    pki.switch().unwrap();
    assert_eq!(pki.device_issuer(), early.certificate.issuer, "there is no other one");

    pki.prepare_next(NOW).unwrap();
    let next = pki.next_device_issuer().unwrap();
    assert_eq!(issue(&pki).certificate.issuer, early.certificate.issuer, "believed, and not issuing yet");
    assert_eq!(pki.server("https", &names, NOW).unwrap().chain_pem, shown);
    assert_eq!(pki.device_authorities_der().len(), 2);
    pki.switch().unwrap();
    for pki in [&pki, &Pki::load_or_make(dir.path(), NOW).unwrap()] {
        let late = issue(pki);
        assert_eq!((late.certificate.issuer, pki.device_issuer_before()), (next, Some(early.certificate.issuer)));
        assert!(accepts_client(pki, &early.chain_pem, NOW) && accepts_client(pki, &late.chain_pem, NOW));
        // As of one authority: it may renew itself a while, which is asked of this very error.
        let ended = judge_client(pki, &early.chain_pem, NOW + Duration::days(100)).unwrap_err();
        assert!(
            matches!(
                ended,
                rustls::Error::InvalidCertificate(
                    rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. }
                )
            ),
            "{ended:?}"
        );
        // Another chain at once, which whoever knows the root alone believes.
        let server = pki.server("https", &names, NOW).unwrap();
        assert_ne!(server.chain_pem, shown);
        assert!(accepts_server(pki.root_der(), &server.chain_pem, "localhost", NOW));
        assert!(!accepts_client(pki, &server.chain_pem, NOW), "a server cannot pose as a device");
    }
    let late = issue(&pki);
    assert!(pki.client_ca_pem().matches("BEGIN").count() == 3);
    pki.retire_before().unwrap();
    for pki in [&pki, &Pki::load_or_make(dir.path(), NOW).unwrap()] {
        assert!(!accepts_client(pki, &early.chain_pem, NOW) && accepts_client(pki, &late.chain_pem, NOW));
        assert_eq!((pki.device_issuer_before(), pki.client_ca_pem().matches("BEGIN").count()), (None, 2));
    }
}

#[test]
fn each_authority_that_is_believed_has_a_revocation_list_of_its_own() {
    let (_dir, pki) = pki();
    let early = issue(&pki);
    let revoked = || [(early.certificate.serial.as_str(), NOW)];
    let mut previous = pki.client_crl(revoked(), None, NOW).unwrap();
    type Step = fn(&Pki);
    let steps: [(Step, usize); 3] = [
        (|pki| pki.prepare_next(NOW).unwrap(), 2),
        (|pki| pki.switch().unwrap(), 2),
        (|pki| pki.retire_before().unwrap(), 1),
    ];
    for (step, wanted) in steps {
        step(&pki);
        let lists = pki.client_crl(revoked(), Some(&previous), NOW).unwrap();
        let blocks: Vec<_> =
            x509_parser::pem::Pem::iter_from_buffer(lists.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(blocks.len(), wanted);
        let authorities = pki.device_authorities_der();
        for (block, authority) in blocks.iter().zip(&authorities) {
            let (_, list) = x509_parser::parse_x509_crl(&block.contents).unwrap();
            let authority = x509_parser::parse_x509_certificate(authority).unwrap().1;
            assert_eq!(list.issuer(), authority.subject());
            list.verify_signature(authority.public_key()).unwrap();
            let serials: Vec<String> =
                list.iter_revoked_certificates().map(|entry| entry.user_certificate.to_str_radix(16)).collect();
            assert_eq!(serials, [early.certificate.serial.as_str()], "whoever issued it");
        }
        let newest = crl_positions(&previous).into_iter().max().unwrap();
        assert!(crl_positions(&lists).iter().all(|position| position.0 > newest.0 && position.1 > newest.1));
        previous = lists;
    }
}
