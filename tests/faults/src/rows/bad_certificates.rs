//! I1: certificates that nobody should believe, shown to the broker and to the hub; requests for certificates that the hub
//! should not sign, at claim and renewal; and servers' certificates that a device should not believe. Each is refused for
//! the right reason, the server's log says which, and nothing is told to the other end beyond TLS's own alert. The right
//! certificates pass beside them.

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_agent::clock::SystemClock;
use edge_agent::sync::ClaimError;
use edge_store::{Broker, Identity};
use fleet_sim::device::{Device, SPACE_ID};
use rcgen::{CertificateParams, KeyPair};
use rustls::AlertDescription as Alert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use wire_contract::{ClaimRequest, ClaimToken, DeviceId, RenewalRequest, TenantId, Topic, UpChannel, V1};

use crate::lab::{Lab, now};
use crate::line::Site;
use crate::line::forgery::{self, Authority, Forger, TLS12, TLS13};
use crate::line::knock::{Doubtful, Heard, Shown, knock};
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};

/// The row. Its count is that of the bad certificates and requests; there are more, and all are tried each time.
pub(super) static I1: Row = Row {
    id: "I1",
    title: "bad certificates at broker, hub, claim, renewal and device: refused, with the right reason",
    count: 40,
    small: 40,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto"), Need::Program("openssl", "openssl")],
    run: bad_certificates,
};

/// How long a line of the server's log may take.
const LOGGED_WITHIN: Duration = Duration::from_secs(2);
/// The broker's own words, in the hub's log. They do not always name the reason: the alert does.
const BROKER_LOGS: &str = "part_in_trouble";
/// A device that is shown a bad server tries again within this time.
const DEVICE_TRIES_FOR: Duration = Duration::from_secs(3);

/// What a server must answer.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// TLS ends with one of these alerts, and the log says this.
    Refused(&'static [Alert], &'static str),
    /// The hub knows who asks and answers with this code.
    Code(&'static str),
    /// The broker lets it in at most, and grants it nothing.
    NoRights,
    /// The hub takes it for what it is: a device, and not the one whose name is borrowed.
    Itself,
}

/// What a server did.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Refused(Option<Alert>),
    Code(String),
    NoRights,
    Accepted,
}

fn bad_certificates(lab: &mut Lab) -> Result<Verdict> {
    let tally = lab.phase("certificates", 1, |_, tally| {
        let mut site = Site::open(3)?;
        let doors = Doors::open(&site)?;
        let good = own(&site, 0)?;
        let forger =
            Forger { pki: site.hub_file("pki"), dir: site.file("forged"), device: good.1.device, own: good.0.clone() };
        tally.add("control_good_ones_pass", doors.good_one_passes(&good.0)?);
        for (name, shown) in all(&site, &forger)? {
            let (at_broker, at_hub) = wanted(name);
            doors.judge(name, At::Broker, &shown, at_broker, tally)?;
            doors.judge(name, At::Hub, &shown, at_hub, tally)?;
            tally.injected += 1;
        }
        tally.add("control_good_ones_pass", doors.good_one_passes(&good.0)?);
        tally.figure("certificates_shown", tally.injected);
        requests(&site, &doors, tally)?;
        servers(&mut site, &forger, tally)?;
        // The control: a server that asks for no certificate takes a bad one, and the judge sees it.
        let nobody = Authority::of_nobody("nobody")?.sign(&forgery::server()?)?;
        let careless = Doubtful::start(&own_server(&site)?, b"HTTP/1.1 200 OK\r\n\r\n")?;
        let heard =
            knock(careless.address(), &doors.root, &nobody, b"GET / HTTP/1.1\r\n\r\n", |heard| !heard.is_empty())?;
        tally.add("control_taken", u64::from(At::Hub.did(&heard) == Did::Accepted));
        Ok(())
    })?;
    let control = Control::of("taken_by_a_careless_server", tally.count_of("control_taken"))
        .and("good_ones_pass", tally.count_of("control_good_ones_pass"))
        .and("good_requests_pass", tally.count_of("control_good_requests_pass"));
    Ok(Verdict { tally, control })
}

/// Every bad certificate, by what is wrong with it.
fn all(site: &Site, forger: &Forger) -> Result<Vec<(&'static str, Shown)>> {
    let mut all =
        [forger.of_others()?, forger.spoilt_ones()?, forger.mishandled()?, forger.weak_ones()?, forger.names()?]
            .concat();
    all.push(("none", Shown { chain: Vec::new(), ..forger.own.clone() }));
    // Two that were good: of a device that is revoked, and of one whose place other hardware has.
    let (revoked, identity) = own(site, 1)?;
    site.block_on(site.revoke(identity.device))?;
    all.push(("revoked", revoked));
    let (replaced, identity) = own(site, 2)?;
    site.block_on(site.claim_again(identity.device, &site.file("successor")))?;
    all.push(("replaced", replaced));
    let foreign = Device::open(site.neighbour(1)?.1.first().context("a neighbour")?, SPACE_ID, None)?.identity;
    all.push(("another tenant's", shown_of(&foreign)?));
    Ok(all)
}

/// What broker and hub must do with each. The two TLS libraries name the same reason by different alerts. The broker's knows
/// neither devices nor the hub's registry: what it lets in under no device's name has no right there.
fn wanted(name: &str) -> (Want, Want) {
    let both = |broker, hub, reason| (Want::Refused(broker, BROKER_LOGS), Want::Refused(hub, reason));
    match name {
        "foreign authority of the same name"
        | "foreign authority and its root, of the same names"
        | "foreign authority, the right one shown beside it" => {
            both(&[Alert::UnknownCA], &[Alert::DecryptError, Alert::UnknownCA], "BadSignature")
        }
        "signed by itself" | "signed by the root" => both(&[Alert::UnknownCA], &[Alert::UnknownCA], "UnknownIssuer"),
        "signed by a device" => both(&[Alert::UnknownCA], &[Alert::CertificateUnknown], "EndEntityUsedAsCa"),
        "ends before it begins" => both(&[Alert::CertificateExpired], &[Alert::CertificateExpired], "Expired"),
        "expired 40 days ago" | "expired 31 days ago" => {
            both(&[Alert::CertificateExpired], &[Alert::CertificateExpired], "certificate expired")
        }
        "begins tomorrow" | "begins in ten years" => {
            both(&[Alert::BadCertificate], &[Alert::CertificateExpired], "certificate not valid yet")
        }
        "an unknown critical extension" => {
            both(&[Alert::CertificateUnknown], &[Alert::CertificateUnknown], "UnsupportedCriticalExtension")
        }
        "an authority's" | "the authority before the leaf" => {
            both(&[Alert::UnsupportedCertificate], &[Alert::CertificateUnknown], "CaUsedAsEndEntity")
        }
        // The hub's TLS trusts the device authority and whatever it signs; its registry knows no such certificate.
        "an authority below the device authority, and its leaf" => {
            (Want::Refused(&[Alert::UnknownCA], BROKER_LOGS), Want::Code("device_revoked"))
        }
        "a chain of twenty" => both(&[Alert::UnknownCA], &[Alert::CertificateUnknown], "MaximumPathDepthExceeded"),
        "with another's key" | "a bit of its signature flipped" | "a bit of its name flipped" => {
            both(&[Alert::DecryptError], &[Alert::DecryptError], "BadSignature")
        }
        "cut off in the middle" | "bytes behind its end" | "not a certificate at all" => {
            both(&[Alert::DecodeError], &[Alert::BadCertificate], "BadEncoding")
        }
        "TLS 1.2" => both(&[Alert::ProtocolVersion], &[Alert::ProtocolVersion], "Tls12NotOffered"),
        "signed with SHA-1" => both(&[Alert::BadCertificate], &[Alert::DecryptError], "UnsupportedSignatureAlgorithm"),
        "RSA of 1024 bits" => {
            both(&[Alert::BadCertificate], &[Alert::DecryptError], "UnsupportedSignatureAlgorithmForPublicKey")
        }
        "revoked" | "replaced" => {
            (Want::Refused(&[Alert::CertificateRevoked], BROKER_LOGS), Want::Code("device_revoked"))
        }
        "none" => (Want::Refused(&[Alert::CertificateRequired], BROKER_LOGS), Want::Code("unauthorized")),
        "an unknown device" => (Want::NoRights, Want::Code("device_revoked")),
        // It is somebody, and the hub answers it as itself; of the other tenant's it gets nothing.
        "another tenant's" => (Want::NoRights, Want::Itself),
        _ if name.starts_with("named") || name == "without a name" => (Want::NoRights, Want::Code("unauthorized")),
        _ => both(&[Alert::UnsupportedCertificate], &[Alert::UnsupportedCertificate], "extended key usage"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Broker,
    Hub,
}

impl At {
    fn did(self, heard: &Heard) -> Did {
        match (self, heard.plain.as_slice()) {
            (_, []) => Did::Refused(heard.alert),
            (Self::Broker, plain) => match packets(plain).as_slice() {
                // Let in, and the publish was taken or not.
                [(0x20, 0), (0x40, 0), ..] => Did::Accepted,
                [(0x20, 0), (0x40, 0x87), ..] | [(0x20, 0x80..), ..] => Did::NoRights,
                [(0x20, 0)] => Did::NoRights,
                other => Did::Code(format!("{other:?}")),
            },
            (Self::Hub, plain) => {
                let text = String::from_utf8_lossy(plain);
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                let problem: Value = serde_json::from_str(body).unwrap_or_default();
                match problem["code"].as_str() {
                    Some(code) => Did::Code(code.to_owned()),
                    None => Did::Accepted,
                }
            }
        }
    }
}

/// Kind and reason of each acknowledgement in the broker's bytes; a short one means success.
fn packets(mut bytes: &[u8]) -> Vec<(u8, u8)> {
    let mut packets = Vec::new();
    while let [kind, length, rest @ ..] = bytes {
        let (body, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        let reason = if *kind == 0x20 { body.get(1) } else { body.get(2) };
        packets.push((*kind, reason.copied().unwrap_or(0)));
        bytes = rest;
    }
    packets
}

/// Where certificates are shown.
struct Doors {
    broker: SocketAddr,
    hub: SocketAddr,
    root: CertificateDer<'static>,
    connect: Vec<u8>,
    log: std::path::PathBuf,
}

impl Doors {
    fn open(site: &Site) -> Result<Self> {
        let ready = site.hub()?.ready();
        let root = std::fs::read(&ready.root_certificate)?;
        let (_, identity) = own(site, 0)?;
        Ok(Self {
            broker: ready.mqtt.parse()?,
            hub: ready.https.trim_start_matches("https://").parse()?,
            root: CertificateDer::from_pem_slice(&root).map_err(|error| anyhow::anyhow!("the root: {error}"))?,
            connect: connect_and_publish(&identity),
            log: site.file("hub.log"),
        })
    }

    fn knock(&self, at: At, shown: &Shown) -> Result<Heard> {
        let said = request("GET", wire_contract::paths::DEVICE_LINK, "");
        match at {
            At::Broker => knock(self.broker, &self.root, shown, &self.connect, |heard| packets(heard).len() >= 2),
            At::Hub => knock(self.hub, &self.root, shown, &said, |_| false),
        }
    }

    fn good_one_passes(&self, own: &Shown) -> Result<u64> {
        for at in [At::Broker, At::Hub] {
            let heard = self.knock(at, own)?;
            ensure!(at.did(&heard) == Did::Accepted, "a good certificate at the {at:?}: {heard:?}");
        }
        Ok(2)
    }

    fn judge(&self, name: &str, at: At, shown: &Shown, want: Want, tally: &mut Tally) -> Result<()> {
        let before = std::fs::metadata(&self.log)?.len();
        let heard = self.knock(at, shown)?;
        let did = at.did(&heard);
        let right = match (want, &did) {
            (Want::Refused(alerts, log), Did::Refused(Some(alert))) => {
                let logged = self.logged(before, log)?;
                tally.require(logged, || format!("{name} at the {at:?}: the log does not say `{log}`"));
                alerts.contains(alert)
            }
            (Want::Itself, Did::Accepted) => true,
            (Want::Code(code), Did::Code(found)) => code == found,
            (Want::NoRights, Did::NoRights) | (Want::NoRights, Did::Refused(_)) => true,
            _ => false,
        };
        tally.add(&format!("{at:?}_refused_or_without_rights").to_lowercase(), u64::from(did != Did::Accepted));
        tally.require(right, || format!("{name} at the {at:?}: {want:?} was wanted, {did:?} came ({:?})", heard.error));
        Ok(())
    }

    /// Whether the log has said so since it had this length.
    fn logged(&self, before: u64, what: &str) -> Result<bool> {
        let begun = now();
        loop {
            let log = std::fs::read(&self.log)?;
            let since = log.get(usize::try_from(before)?..).unwrap_or_default();
            if String::from_utf8_lossy(since).contains(what) {
                return Ok(true);
            }
            if begun.elapsed() > LOGGED_WITHIN {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// MQTT 5: a connection, and a publish on the event topic of a device.
fn connect_and_publish(identity: &Identity) -> Vec<u8> {
    let (tenant, device) = (TenantId(identity.tenant), DeviceId(identity.device));
    let topic = Topic::Up { tenant, device, channel: UpChannel::Evt }.to_string();
    let text = |text: &str| [&(u16::try_from(text.len()).unwrap_or(0)).to_be_bytes(), text.as_bytes()].concat();
    let packet = |kind: u8, body: Vec<u8>| [&[kind], length(body.len()).as_slice(), &body].concat();
    let connect = [text("MQTT"), vec![5, 2, 0, 30, 0], text(&identity.device.to_string())].concat();
    let publish = [text(&topic), vec![0, 1, 0], b"nobody's".to_vec()].concat();
    [packet(0x10, connect), packet(0x32, publish)].concat()
}

/// A length as MQTT writes it: seven bits a byte.
fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let (low, rest) = ((length % 128) as u8, length / 128);
        bytes.push(if rest > 0 { low | 128 } else { low });
        if rest == 0 {
            return bytes;
        }
        length = rest;
    }
}

fn own(site: &Site, index: usize) -> Result<(Shown, Identity)> {
    let identity = Identity::load(&site.device_dir(index))?.context("a claimed device")?;
    Ok((shown_of(&identity)?, identity))
}

fn shown_of(identity: &Identity) -> Result<Shown> {
    let key = KeyPair::from_pem(&identity.key_pem)?.serialize_der();
    Ok(Shown { chain: identity.chain(), key, versions: TLS13 })
}

/// The hub's own server certificate, for a server of the lab's.
fn own_server(site: &Site) -> Result<Shown> {
    let service = Authority::of_hub(&site.hub_file("pki"), "service-ca")?;
    let mut shown = service.sign(&forgery::server()?)?;
    shown.chain.push(Authority::of_hub(&site.hub_file("pki"), "root")?.der().clone());
    Ok(shown)
}

/// Requests that the hub must not sign, with a good token and under a good certificate; then good ones.
fn requests(site: &Site, doors: &Doors, tally: &mut Tally) -> Result<()> {
    let made = site.block_on(site.hub()?.create_device(site.tenant(), site.id(), "bad requests", 1))?;
    let token = ClaimToken::from_str(&made)?;
    let (own, identity) = own(site, 0)?;
    let nobody = Shown { chain: Vec::new(), ..own.clone() };
    let claim = |csr: String| {
        let request =
            ClaimRequest { v: V1, claim_id: token.claim_id, secret: token.secret.clone(), serial: "x".to_owned(), csr };
        serde_json::to_string(&request)
    };
    let ask = |shown: &Shown, path: &str, body: String| -> Result<Did> {
        let heard = knock(doors.hub, &doors.root, shown, &request("POST", path, &body), |_| false)?;
        Ok(At::Hub.did(&heard))
    };
    let good = CertificateParams::default().serialize_request(&KeyPair::generate()?)?.pem()?;
    for (name, csr) in bad_requests(&good, &identity.chain_pem)? {
        let claimed = ask(&nobody, wire_contract::paths::CLAIMS, claim(csr.clone())?)?;
        let renewed = ask(
            &own,
            wire_contract::paths::DEVICE_RENEWAL,
            serde_json::to_string(&RenewalRequest { v: V1, csr, nonce: None })?,
        )?;
        for (at, did) in [("claim", claimed), ("renewal", renewed)] {
            let refused = matches!(&did, Did::Code(code) if ["csr_invalid", "invalid_field", "validation_failed", "payload_too_large"].contains(&code.as_str()));
            tally.require(refused, || format!("{name} at the {at}: {did:?}"));
        }
        tally.injected += 1;
        tally.add("requests_tried", 1);
    }
    let own_key = KeyPair::try_from(own.key.as_slice())?;
    let same_key = CertificateParams::default().serialize_request(&own_key)?.pem()?;
    let renewed = ask(
        &own,
        wire_contract::paths::DEVICE_RENEWAL,
        serde_json::to_string(&RenewalRequest { v: V1, csr: same_key, nonce: None })?,
    )?;
    tally.require(renewed == Did::Code("csr_invalid".to_owned()), || {
        format!("a renewal that keeps its key: {renewed:?}")
    });
    let claimed = ask(&nobody, wire_contract::paths::CLAIMS, claim(good.clone())?)?;
    let renewed = ask(
        &own,
        wire_contract::paths::DEVICE_RENEWAL,
        serde_json::to_string(&RenewalRequest { v: V1, csr: good, nonce: None })?,
    )?;
    let pass = [&claimed, &renewed].into_iter().filter(|did| **did == Did::Accepted).count() as u64;
    tally.require(pass == 2, || format!("good requests: {claimed:?} and {renewed:?}"));
    tally.add("control_good_requests_pass", pass);
    Ok(())
}

fn bad_requests(good: &str, certificate: &str) -> Result<Vec<(&'static str, String)>> {
    let of = |algorithm| -> Result<String> {
        Ok(CertificateParams::default().serialize_request(&KeyPair::generate_for(algorithm)?)?.pem()?)
    };
    let der = good.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
    // A bit inside the signature, which stands at the end; Base64's last group may be padding.
    let at = der.len() - 8;
    let flipped = format!("{}{}{}", &der[..at], if &der[at..=at] == "A" { "B" } else { "A" }, &der[at + 1..]);
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    Ok(vec![
        ("nothing", String::new()),
        ("no request", "lintel".to_owned()),
        ("a certificate", certificate.to_owned()),
        ("half a request", pem(&der[..der.len() / 2])),
        ("a request that its key did not sign", pem(&flipped)),
        ("a request for P-384", of(&rcgen::PKCS_ECDSA_P384_SHA384)?),
        ("a request for Ed25519", of(&rcgen::PKCS_ED25519)?),
        ("a request of 64 KiB", pem(&"A".repeat(64 * 1024))),
    ])
}

/// Servers that a device must not believe, at its claim and afterwards: nobody hears a byte from it.
fn servers(site: &mut Site, forger: &Forger, tally: &mut Tally) -> Result<()> {
    let made = site.block_on(site.hub()?.create_device(site.tenant(), site.id(), "shown bad servers", 1))?;
    let token = ClaimToken::from_str(&made)?;
    let dir = site.device_dir(0);
    for (name, shown) in bad_servers(forger)? {
        let server = Doubtful::start(&shown, b"")?;
        let token = ClaimToken { hub_url: format!("https://{}", server.address()).parse()?, ..token.clone() };
        let claimed = site.block_on(edge_agent::sync::claim(&token, "x", &SystemClock::default()));
        let told = match claimed {
            Ok(_) => "it claimed".to_owned(),
            Err(error @ (ClaimError::OtherHub(_) | ClaimError::Hub(_))) => chain(&error),
            Err(error) => format!("another reason: {}", chain(&error)),
        };
        tally.require(is_about_certificates(&told), || format!("a server with {name}, at a claim: {told}"));
        if name != "no root in its chain" {
            let told = as_the_broker(site, &dir, &server)?;
            tally.require(is_about_certificates(&told), || format!("a broker with {name}: {told}"));
        }
        let (met, spoken) = server.counts();
        tally.require(met > 0 && spoken == 0, || format!("a server with {name}: {met} connections, {spoken} spoke"));
        tally.injected += 1;
        tally.add("servers_tried", 1);
    }
    // The control: the same server with a right certificate is spoken to.
    let server = Doubtful::start(&own_server(site)?, b"")?;
    as_the_broker(site, &dir, &server)?;
    tally.add("control_good_ones_pass", u64::from(server.counts().1 > 0));
    tally.require(server.counts().1 > 0, || "a server with a right certificate was not spoken to".to_owned());
    Ok(())
}

/// Runs the device's own sync against a broker there until it says what is wrong.
fn as_the_broker(site: &Site, dir: &std::path::Path, server: &Doubtful) -> Result<String> {
    let through = Broker { host: server.address().ip().to_string(), port: server.address().port() };
    let begun = now();
    // The run before may still be closing its stores.
    let device = loop {
        match Device::open(dir, SPACE_ID, Some(&through)) {
            Err(_) if begun.elapsed() < DEVICE_TRIES_FOR => std::thread::sleep(Duration::from_millis(50)),
            opened => break opened?,
        }
    };
    site.block_on(async {
        let stop = CancellationToken::new();
        let mut running = device.start(stop.clone());
        let told =
            tokio::time::timeout(DEVICE_TRIES_FOR, running.status.wait_for(|status| status.last_error.is_some()));
        let told = told.await.ok().and_then(Result::ok).and_then(|status| status.last_error.clone());
        stop.cancel();
        let _ended = running.task.await;
        Ok(told.unwrap_or_else(|| "it said nothing".to_owned()))
    })
}

fn is_about_certificates(told: &str) -> bool {
    ["invalid peer certificate", "root", "certificate", "ProtocolVersion", "HandshakeFailure"]
        .iter()
        .any(|word| told.contains(word))
}

fn chain(error: &dyn std::error::Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn bad_servers(forger: &Forger) -> Result<Vec<(&'static str, Shown)>> {
    let pki = |name| Authority::of_hub(&forger.pki, name);
    let (root, service) = (pki("root")?, pki("service-ca")?);
    let day = time::Duration::days(1);
    let with_root = |mut shown: Shown| {
        shown.chain.push(root.der().clone());
        shown
    };
    let spoilt = |spoil: &dyn Fn(&mut CertificateParams)| -> Result<Shown> {
        let mut params = forgery::server()?;
        spoil(&mut params);
        Ok(with_root(service.sign(&params)?))
    };
    let foreign = Authority::of_nobody("Lintel root")?;
    let below_foreign = Authority::below(&foreign, "Lintel service authority")?;
    let mut foreign_chain = below_foreign.sign(&forgery::server()?)?;
    foreign_chain.chain.push(foreign.der().clone());
    let mut borrowed = below_foreign.sign(&forgery::server()?)?;
    borrowed.chain = vec![borrowed.chain[0].clone(), service.der().clone(), root.der().clone()];
    Ok(vec![
        ("a foreign root of the same name", foreign_chain),
        ("a foreign leaf before the right chain", borrowed),
        ("an expired certificate", spoilt(&|params| params.not_after -= day * 31)?),
        ("a certificate that begins tomorrow", spoilt(&|params| params.not_before += day)?),
        (
            "another server's name",
            spoilt(&|params| {
                params.subject_alt_names = vec![rcgen::SanType::IpAddress([192, 0, 2, 1].into())];
            })?,
        ),
        ("no name", spoilt(&|params| params.subject_alt_names = Vec::new())?),
        (
            "a certificate for clients",
            spoilt(&|params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            })?,
        ),
        ("a device's certificate", with_root(forger.own.clone())),
        ("a leaf of the device authority", with_root(pki("device-ca")?.sign(&forgery::server()?)?)),
        ("no root in its chain", service.sign(&forgery::server()?)?),
        ("TLS 1.2 alone", Shown { versions: TLS12, ..spoilt(&|_| {})? }),
    ])
}
