//! The templates of a session's frames, sealed while the session is open.

use face_core::Embedding;
use face_core::embedding::TEMPLATE_BYTES;
use zeroize::Zeroizing;

use super::{Keyring, KeysError};
use hub_domain::ids::SessionId;
use hub_domain::person_key::PersonKey;
use hub_domain::session::Seen;
use hub_domain::vault::{TenantKeys, VaultError};
use hub_store::TenantTx;
use hub_store::sessions::Session;
use hub_store::sessions::frames::Frame;

/// The key that a session's frames are sealed under.
pub(super) enum Seal {
    Person(PersonKey),
    Tenant(TenantKeys),
}

impl Seal {
    pub(super) async fn of(tx: &mut TenantTx, keyring: &Keyring, session: &Session) -> Result<Self, KeysError> {
        let keys = keyring.tenant(tx).await?;
        Ok(match session.person_id {
            Some(person) => Self::Person(keyring.person(&keys, person)?),
            None => Self::Tenant(keys),
        })
    }

    pub(super) fn frame(
        &self,
        session: SessionId,
        number: usize,
        seen: &Seen,
        space_id: &str,
    ) -> Result<Frame, KeysError> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let sealed = seen.embedding.as_ref().map(|embedding| self.seal(session, number, embedding)).transpose()?;
        Ok(Frame {
            number,
            accepted: seen.accepted,
            quality: seen.quality,
            reasons: seen.reasons.iter().map(|code| code.as_str().to_owned()).collect(),
            look: seen.look,
            sealed: sealed.map(|sealed| (space_id.to_owned(), sealed)),
        })
    }

    /// The vector, and what comparisons with it are docked.
    fn seal(&self, session: SessionId, number: u32, embedding: &Embedding) -> Result<Vec<u8>, VaultError> {
        let mut body = Zeroizing::new(embedding.to_le_bytes().to_vec());
        body.extend_from_slice(&embedding.handicap().to_le_bytes());
        match self {
            Self::Person(key) => key.seal_frame(session, number, &body),
            Self::Tenant(keys) => keys.seal_frame(session, number, &body),
        }
    }

    pub(super) fn open(&self, session: SessionId, number: u32, sealed: &[u8]) -> Result<Embedding, VaultError> {
        let body = match self {
            Self::Person(key) => key.open_frame(session, number, sealed)?,
            Self::Tenant(keys) => keys.open_frame(session, number, sealed)?,
        };
        let wrong = || VaultError::Length("frame");
        let (vector, handicap) = body.split_at_checked(TEMPLATE_BYTES).ok_or_else(wrong)?;
        let handicap = f32::from_le_bytes(handicap.try_into().map_err(|_| wrong())?);
        Ok(Embedding::from_le_bytes(vector).map_err(|_| wrong())?.with_handicap(handicap))
    }
}
