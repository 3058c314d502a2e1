//! Requests with an `Idempotency-Key`: claimed, and their answers kept sealed. A log-in's or a key's secret may be in one, and what
//! is known of a person: an answer about somebody is sealed under their key first, so that it goes with it wherever a copy of it lies.

use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Custody, Keyring, KeysError};
use hub_domain::idempotency::{HELD, KEPT, Key, MAX_ANSWER, Verdict, judge};
use hub_domain::ids::{PersonId, TenantId};
use hub_domain::index_key::field;
use hub_domain::vault::{TenantKeys, VaultError};
use hub_store::idempotency::{self, Attempt, RequestMarks, Times};

/// What is to be done about a request with a key.
pub enum Claim {
    /// Carry it out as this attempt.
    CarryOut(Attempt),
    /// Give this answer again.
    Replay(Zeroizing<Vec<u8>>),
    /// The key was used for something else.
    OtherRequest,
    /// It is being carried out.
    UnderWay,
    /// It was carried out; its answer is not kept.
    AnswerGone(u16),
    /// It may have been carried out.
    OutcomeUnknown,
}

/// In front of an answer.
const NOBODYS: u8 = 0;
/// In front of the id of a person and of what is sealed under their key.
const PERSONS: u8 = 1;

/// Seals an answer under the keys of all whom it is about, one in the other, and under the tenant's. `None` if one of them has no
/// key: what is about them is not kept.
fn closed(
    keyring: &Keyring,
    keys: &TenantKeys,
    attempt: Uuid,
    about: impl Iterator<Item = PersonId>,
    answer: &[u8],
) -> Result<Option<Vec<u8>>, KeysError> {
    let mut inside = Zeroizing::new([&[NOBODYS], answer].concat());
    for person in about {
        let key = match keyring.person(keys, person) {
            Ok(key) => key,
            Err(KeysError::NoPersonKey(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let sealed = key.seal_answer(attempt, &inside)?;
        inside = Zeroizing::new([&[PERSONS], person.0.as_bytes().as_slice(), &sealed].concat());
    }
    Ok(Some(keys.seal_answer(attempt, &inside)?))
}

/// Opens what [`closed`] has sealed.
fn opened(keyring: &Keyring, keys: &TenantKeys, attempt: Uuid, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let mut inside = keys.open_answer(attempt, sealed)?;
    loop {
        let (mark, rest) = inside.split_first().ok_or(VaultError::Length("kept answer"))?;
        if *mark == NOBODYS {
            return Ok(Zeroizing::new(rest.to_vec()));
        }
        let (person, sealed) = rest.split_first_chunk().ok_or(VaultError::Length("kept answer"))?;
        inside = keyring.person(keys, PersonId(Uuid::from_bytes(*person)))?.open_answer(attempt, sealed)?;
    }
}

impl Custody {
    /// Claims a key of a caller for a request, by its digest.
    pub async fn claim_key(&self, tenant: TenantId, caller: &str, key: &Key, digest: &str) -> Result<Claim, KeysError> {
        let (keyring, now, id) = (self.keyring.clone(), self.clock.now(), self.clock.new_id());
        let (key, digest) = (key.of(caller), digest.to_owned());
        let times = Times { held_until: now + HELD, expires_at: now + KEPT };
        let claimed = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let requests = keys.marks(field::REQUEST, &digest);
                let marks: Vec<RequestMarks> = keys
                    .marks(field::REQUEST_KEY, &key)
                    .all()
                    .iter()
                    .zip(requests.all())
                    .map(|(key, request)| RequestMarks { version: key.version, key: key.value, request: request.value })
                    .collect();
                let (place, kept) = idempotency::claim(tx, (&marks, keys.alone()), id, times).await?;
                let RequestMarks { key, request, .. } = marks[place];
                let attempt = Attempt { tenant, key, id };
                let Some(kept) = kept else { return Ok(Claim::CarryOut(attempt)) };
                Ok::<_, KeysError>(match judge(&kept, &request, now) {
                    Verdict::CarryOut => {
                        idempotency::take_over(tx, attempt, &request, times).await?;
                        Claim::CarryOut(attempt)
                    }
                    Verdict::Replay(attempt, sealed) => match opened(&keyring, &keys, attempt, &sealed) {
                        Ok(answer) => Claim::Replay(answer),
                        // Whoever it is about was deleted: the row is of a backup from before.
                        Err(KeysError::NoPersonKey(_)) => Claim::AnswerGone(kept.status.unwrap_or_default()),
                        Err(error) => return Err(error),
                    },
                    Verdict::OtherRequest => Claim::OtherRequest,
                    Verdict::UnderWay => Claim::UnderWay,
                    Verdict::AnswerGone(status) => Claim::AnswerGone(status),
                    Verdict::OutcomeUnknown => Claim::OutcomeUnknown,
                })
            })
        });
        claimed.await
    }

    /// Keeps the answer of an attempt; only its status if it is too long, about more than can be told or about somebody who is not there
    /// any more.
    pub async fn keep_answer(
        &self,
        attempt: Attempt,
        status: u16,
        answer: Zeroizing<Vec<u8>>,
        about: Option<Vec<Uuid>>,
    ) -> Result<(), KeysError> {
        let keyring = self.keyring.clone();
        let kept = self.db.tenant(attempt.tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let mut sealed = None;
                if let Some(about) = about.as_ref().filter(|_| answer.len() <= MAX_ANSWER) {
                    let people = idempotency::people_among(tx, about).await?;
                    if people.iter().all(|(_, is_there)| *is_there) {
                        let whose = people.into_iter().map(|(person, _)| person);
                        sealed = closed(&keyring, &keys, attempt.id, whose, &answer)?;
                    }
                }
                let about = about.unwrap_or_default();
                Ok::<_, KeysError>(idempotency::finish(tx, attempt, status, sealed.as_deref(), &about).await?)
            })
        });
        kept.await
    }

    /// Lets go of the key of an attempt that has no outcome; whether it may have changed something.
    pub async fn release_key(&self, attempt: Attempt) -> Result<bool, KeysError> {
        let now: OffsetDateTime = self.clock.now();
        let released = self.db.tenant(attempt.tenant, move |tx| Box::pin(idempotency::release(tx, attempt, now)));
        Ok(released.await?)
    }
}
