//! Requests with an `Idempotency-Key`: claimed, and their answers kept sealed. A log-in's or a key's secret may be in one.

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{Custody, KeysError};
use crate::domain::idempotency::{HELD, KEPT, Key, MAX_ANSWER, Verdict, judge};
use crate::domain::ids::TenantId;
use crate::store::idempotency::{self, Attempt, Times};

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

impl Custody {
    /// Claims a key of a caller for a request, by its digest.
    pub async fn claim_key(&self, tenant: TenantId, caller: &str, key: &Key, digest: &str) -> Result<Claim, KeysError> {
        let (keyring, now, id) = (self.keyring.clone(), self.clock.now(), self.clock.new_id());
        let (key, digest) = (key.of(caller), digest.to_owned());
        let times = Times { held_until: now + HELD, expires_at: now + KEPT };
        let claimed = self.db.tenant(tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let key = keys.blind_index("idempotency.key", &key);
                let request = keys.blind_index("idempotency.request", &digest);
                let attempt = Attempt { tenant, key, id };
                let Some(kept) = idempotency::claim(tx, attempt, &request, times).await? else {
                    return Ok(Claim::CarryOut(attempt));
                };
                Ok::<_, KeysError>(match judge(&kept, &request, now) {
                    Verdict::CarryOut => {
                        idempotency::take_over(tx, attempt, &request, times).await?;
                        Claim::CarryOut(attempt)
                    }
                    Verdict::Replay(attempt, sealed) => Claim::Replay(keys.open_answer(attempt, &sealed)?),
                    Verdict::OtherRequest => Claim::OtherRequest,
                    Verdict::UnderWay => Claim::UnderWay,
                    Verdict::AnswerGone(status) => Claim::AnswerGone(status),
                    Verdict::OutcomeUnknown => Claim::OutcomeUnknown,
                })
            })
        });
        claimed.await
    }

    /// Keeps the answer of an attempt; of one that is too long only its status.
    pub async fn keep_answer(
        &self,
        attempt: Attempt,
        status: u16,
        answer: Zeroizing<Vec<u8>>,
        about: Vec<uuid::Uuid>,
    ) -> Result<(), KeysError> {
        let keyring = self.keyring.clone();
        let kept = self.db.tenant(attempt.tenant, move |tx| {
            Box::pin(async move {
                let keys = keyring.tenant(tx).await?;
                let sealed = match answer.len() {
                    0..=MAX_ANSWER => Some(keys.seal_answer(attempt.id, &answer)?),
                    _ => None,
                };
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
