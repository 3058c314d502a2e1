//! How this device gets its identity: `edge-agent claim`.
//!
//! In: a claim token and a serial number. Out: a [`Claimed`], which [`Claimed::commit`] writes. The order is protocol.md's:
//! a new P-256 key; the hub's chain is checked against the root that the token names, over TLS 1.3, before the secret is
//! sent; the answer is checked against that root and our key; the link is fetched over mutual TLS with the new
//! certificate; only then anything on this device is replaced, the identity as a whole.
//!
//! A re-claim keeps the device id but nothing else: galleries, link keys, the old stream and the floor of the clock go.
//! Deliberately absent: how the token gets here, and the running agent (it must be stopped meanwhile).

use std::path::Path;
use std::time::{Duration, SystemTime};

use edge_store::{
    Broker, ClockStore, DeviceKeys, FileError, GalleryError, GalleryStore, HubKey, Identity, IdentityError, KeysError,
    Outbox, OutboxError, OutboxOptions,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use uuid::Uuid;
use wire_contract::claim::{ClaimAnswer, ClaimRequest, ClaimRequestError, SignedTimeError, TokenError};
use wire_contract::succession::trusted;
use wire_contract::{ClaimToken, Hash32, LinkAnswer, Timestamp, V1};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::https::{HttpsError, Hub};
use super::link;
use super::tls::{self, Now, PinError, TlsError};
use crate::clock::Clock;

/// How long each of the two calls may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a call that nobody answered is made in all: an operator stands beside it and waits.
const ATTEMPTS: u32 = 3;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);

/// Why a claim failed. Nothing on this device was changed, unless it says that writing failed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The token's time is over.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The serial number is empty or too long.
    #[error(transparent)]
    Request(#[from] ClaimRequestError),
    /// Another hub answered, or somebody in between.
    #[error("the hub is not the one that made the token; nothing was sent")]
    OtherHub(#[source] PinError),
    /// A key or a request could not be made.
    #[error("no key could be made for this device")]
    Key(#[source] rcgen::Error),
    /// The hub did not answer, or refused.
    #[error(transparent)]
    Hub(#[from] HttpsError),
    /// The answer does not hold together.
    #[error("the hub's answer is not acceptable: {problem}")]
    Answer {
        /// What is wrong with it.
        problem: AnswerProblem,
    },
    /// The hub's time is not the hub's.
    #[error("the hub's signed time is not acceptable")]
    Time(#[from] SignedTimeError),
    /// The new certificate makes no TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What can be wrong with the hub's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerProblem {
    /// The root is another one than the token names, or than the one pinned at the claim.
    #[error("its root is not the one that this device trusts")]
    OtherRoot,
    /// No certificate in it, or none that can be read.
    #[error("its certificate cannot be read")]
    Unreadable,
    /// The certificate is for another key.
    #[error("its certificate is for another key")]
    OtherKey,
    /// The certificate, or the answer, is for another device.
    #[error("it is for another device")]
    OtherDevice,
    /// The chain does not lead to the root.
    #[error("its certificate chain does not lead to the root")]
    BrokenChain,
    /// There is no signing key in it, or one of a wrong length.
    #[error("its list of signing keys is not usable")]
    SigningKeys,
}

/// Why a claim's result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The identity.
    #[error("the identity was not written")]
    Identity(#[from] IdentityError),
    /// Keys.
    #[error("the keys were not written")]
    Keys(#[from] KeysError),
    /// What was known of the time.
    #[error("what was known of the time could not be forgotten")]
    Clock(#[from] FileError),
    /// An old gallery.
    #[error("an old gallery could not be destroyed")]
    Gallery(#[from] GalleryError),
    /// The outbox.
    #[error("a new stream could not be begun; is the agent still running?")]
    Outbox(#[from] OutboxError),
}

/// What a claim gave, not yet written.
#[derive(Debug)]
pub struct Claimed {
    /// The new identity.
    pub identity: Identity,
    /// The first link.
    pub link: LinkAnswer,
}

/// Claims an identity. Nothing is written; call [`Claimed::commit`] with the result.
///
/// # Errors
/// See [`ClaimError`]. The same token may be tried again until its time is over, but only with the same key, which
/// lives as long as this call: a claim that failed after the hub had bound the token needs a new one.
pub async fn claim(token: &ClaimToken, serial: &str, clock: &dyn Clock) -> Result<Claimed, ClaimError> {
    let made = Timestamp::from_unix_ms(token.iat.saturating_mul(1000));
    // A clock that nothing vouches for says neither that the token has ended nor that the hub's certificate has: the token
    // says what time it is at least, and the hub whether it still counts.
    let now = clock.wall().trusted().map_or(made, |utc| Timestamp::from(utc).max(made));
    token.check_time(now)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(ClaimError::Key)?;
    let request = ClaimRequest {
        v: V1,
        claim_id: token.claim_id,
        secret: token.secret.clone(),
        serial: serial.to_owned(),
        csr: request_pem(&key, serial).map_err(ClaimError::Key)?,
    };
    request.check()?;
    let (config, pin) = tls::pinned(token.root_spki_sha256, token.iat, Now::At(now.to_offset_date_time()));
    let hub = Hub::new(config, token.hub_url.clone(), CALL_TIMEOUT)?;
    let answer =
        patiently(|| hub.claim(&request), || pin.problem().is_none()).await.map_err(|error| match pin.problem() {
            Some(problem) => ClaimError::OtherHub(problem),
            None => ClaimError::Hub(error),
        })?;
    let identity = identity_of(&answer, token, &key)?;
    let told = Now::At(answer.server_time.at.to_offset_date_time());
    let hub = Hub::new(tls::mutual(&identity, told)?, answer.hub_url, CALL_TIMEOUT)?;
    let nonce = Uuid::new_v4();
    let link = patiently(|| hub.link(nonce), || true).await?;
    link.server_time.verify(&trusted(&answer.hub_keys, &link.successions), nonce)?;
    Ok(Claimed { identity, link })
}

/// Tries again what nobody answered, while it is `worth` it: the hub may have bound the token to our key already, and only
/// this run has the key.
async fn patiently<T, F: Future<Output = Result<T, HttpsError>>>(
    call: impl Fn() -> F,
    worth: impl Fn() -> bool,
) -> Result<T, HttpsError> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match call().await {
            Err(error) if error.is_unreachable() && left > 0 && worth() => tokio::time::sleep(ATTEMPT_PAUSE).await,
            done => return done,
        }
    }
}

pub(super) fn request_pem(key: &KeyPair, serial: &str) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // The hub ignores it; it helps whoever looks at a captured request.
    params.distinguished_name.push(DnType::CommonName, serial);
    params.serialize_request(key)?.pem()
}

/// Checks that the answer is for this token and key, and makes an identity of it.
fn identity_of(answer: &ClaimAnswer, token: &ClaimToken, key: &KeyPair) -> Result<Identity, ClaimError> {
    let problem = |problem| ClaimError::Answer { problem };
    check_certificates(answer, Some(token.root_spki_sha256), key)?;
    let mut hub_keys = Vec::new();
    for hub_key in &answer.hub_keys {
        let public_key = hub_key.public_key.0.as_slice().try_into().map_err(|_| problem(AnswerProblem::SigningKeys))?;
        hub_keys.push(HubKey { key_id: hub_key.key_id.to_string(), public_key });
    }
    if hub_keys.is_empty() {
        return Err(problem(AnswerProblem::SigningKeys));
    }
    let time = answer.server_time.verify(&answer.hub_keys, token.claim_id.0)?;
    Ok(Identity {
        tenant: answer.tenant.0,
        device: answer.device.0,
        hub_url: answer.hub_url.to_string(),
        broker: Broker { host: answer.broker.host.clone(), port: answer.broker.port },
        hub_keys,
        signed_time: time.unix_seconds(),
        key_pem: Zeroizing::new(key.serialize_pem()),
        chain_pem: answer.certificate_chain.clone(),
        root_pem: answer.root.clone(),
    })
}

/// Checks that the answer's certificate is for our key and the device it names, under the root whose key has this hash.
pub(super) fn check_certificates(
    answer: &ClaimAnswer,
    root_spki_sha256: Option<Hash32>,
    key: &KeyPair,
) -> Result<(), ClaimError> {
    certificates_hold(answer, root_spki_sha256, key).map_err(|problem| ClaimError::Answer { problem })
}

/// Checks that the answer is for this device of this tenant.
pub(super) fn check_owner(answer: &ClaimAnswer, tenant: Uuid, device: Uuid) -> Result<(), ClaimError> {
    if (answer.tenant.0, answer.device.0) == (tenant, device) {
        return Ok(());
    }
    Err(ClaimError::Answer { problem: AnswerProblem::OtherDevice })
}

fn certificates_hold(
    answer: &ClaimAnswer,
    root_spki_sha256: Option<Hash32>,
    key: &KeyPair,
) -> Result<(), AnswerProblem> {
    let root = certificates(&answer.root)?;
    let [root] = root.as_slice() else { return Err(AnswerProblem::OtherRoot) };
    if root_spki_sha256.is_none() || tls::spki_sha256(root) != root_spki_sha256 {
        return Err(AnswerProblem::OtherRoot);
    }
    let chain = certificates(&answer.certificate_chain)?;
    let parsed: Vec<X509Certificate<'_>> = chain.iter().chain([root]).map(parse).collect::<Result<_, _>>()?;
    let leaf = parsed.first().ok_or(AnswerProblem::Unreadable)?;
    if leaf.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(key) {
        return Err(AnswerProblem::OtherKey);
    }
    let name = leaf.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if name != Some(answer.device.to_string().as_str()) {
        return Err(AnswerProblem::OtherDevice);
    }
    for pair in parsed.windows(2) {
        pair[0].verify_signature(Some(pair[1].public_key())).map_err(|_| AnswerProblem::BrokenChain)?;
    }
    Ok(())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, AnswerProblem> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| AnswerProblem::Unreadable)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, AnswerProblem> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|_| AnswerProblem::Unreadable)
}

impl Claimed {
    /// Replaces this device's identity, keys, galleries and stream by those of the claim. Blocking; the agent must not
    /// be running.
    ///
    /// A power cut in the middle leaves the old identity without link keys, or the new one without them: the agent
    /// fetches them at its start in both cases.
    ///
    /// # Errors
    /// When a file cannot be written, or the agent holds a store.
    pub fn commit(
        &self,
        state_dir: &Path,
        galleries_dir: &Path,
        outbox_dir: &Path,
        keys: &DeviceKeys,
        now: SystemTime,
    ) -> Result<(), CommitError> {
        for gallery in keys.galleries()? {
            GalleryStore::destroy_unopened(&galleries_dir.join(gallery.to_string()), keys, gallery)?;
        }
        keys.forget_link_and_galleries()?;
        ClockStore::forget(state_dir)?;
        renew_stream(outbox_dir, keys, now)?;
        self.identity.store(state_dir)?;
        link::store(&self.link, keys)?;
        Ok(())
    }
}

/// Begins a new stream when the outbox was ever used.
fn renew_stream(outbox_dir: &Path, keys: &DeviceKeys, now: SystemTime) -> Result<(), CommitError> {
    if !outbox_dir.exists() {
        return Ok(());
    }
    let (outbox, _) = Outbox::open(outbox_dir, &keys.outbox()?, OutboxOptions::default(), now)?;
    if outbox.stats()?.last_sequence > 0 {
        let aside = outbox.begin_new_stream(now)?;
        let kept_as = aside.as_ref().map(|path| path.display().to_string());
        tracing::info!(event = "stream_renewed", kept_as, "a new identity begins a new stream");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
