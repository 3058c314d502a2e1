//! The keys that sign access tokens: shared by all hubs in the database, sealed under the master key.
//!
//! In: the database and the master key. Out: tokens, and claims of tokens that are good. Keys of their own: whoever gets at one can
//! speak as a user for as long as it is there, but cannot make devices believe anything. What was read of them is believed for two
//! seconds, so that a rotation holds everywhere within that time; a token of a key that is not known is reason to look again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::access_token::{self, Claims, Known, LIFE, Untrue};
use super::custody::{blocking, log};
use super::{Custody, KeysError, signing};
use hub_domain::token_key::{KNOWN_BEFORE, Standing, standings};
use hub_store::audit::Action;
use hub_store::token_keys::{self, TokenKey};
use hub_store::{StoreError, routes};

/// How long keys are believed without looking.
const BELIEVED: Duration = Duration::from_secs(2);
/// How often a token of an unknown key makes the hub look again: everybody can make up such a token.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The keys as they were read.
pub struct TokenKeys {
    pair: Ed25519KeyPair,
    /// The one that signs first.
    known: Vec<Known>,
}

/// What is believed of them.
#[derive(Default)]
pub(super) struct BelievedTokenKeys {
    read: Mutex<Option<(Arc<TokenKeys>, Instant)>>,
    /// One looks, the others wait for what it finds.
    looking: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for BelievedTokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BelievedTokenKeys(***)")
    }
}

impl BelievedTokenKeys {
    fn get(&self, younger_than: Duration) -> Option<Arc<TokenKeys>> {
        let read = self.read.lock();
        read.as_ref().filter(|(_, at)| at.elapsed() < younger_than).map(|(keys, _)| Arc::clone(keys))
    }
}

/// A key without its secret half.
#[derive(Clone, Debug)]
pub struct TokenKeyView {
    /// Its id.
    pub id: Uuid,
    /// How it stands.
    pub standing: Standing,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// From when on it signs.
    pub signs_from: OffsetDateTime,
}

impl TokenKeys {
    /// A token of these claims.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        access_token::sign(&self.pair, &self.known[0], claims)
    }

    /// The claims of a token that one of these keys has signed and that is good at `now`, and which key it was.
    pub fn verify(&self, text: &str, now: OffsetDateTime) -> Result<(Claims, Uuid), Untrue> {
        access_token::verify(text, &self.known, now)
    }

    /// The public halves, that of the one that signs first.
    #[must_use]
    pub fn public(&self) -> &[Known] {
        &self.known
    }
}

impl Custody {
    /// The keys of access tokens, as they were two seconds ago at most.
    pub async fn token_keys(&self) -> Result<Arc<TokenKeys>, KeysError> {
        self.token_keys_younger_than(BELIEVED).await
    }

    async fn token_keys_younger_than(&self, age: Duration) -> Result<Arc<TokenKeys>, KeysError> {
        if let Some(keys) = self.tokens.get(age) {
            return Ok(keys);
        }
        let _looking = self.tokens.looking.lock().await;
        if let Some(keys) = self.tokens.get(age) {
            return Ok(keys);
        }
        let (begun, first) = (Instant::now(), self.tokens.read.lock().is_none());
        let keys = Arc::new(self.read_token_keys().await?);
        if first {
            // What is shared is in the database now; a file that another hub was first with is good for nothing.
            let keyring = Arc::clone(&self.keyring);
            blocking(move || keyring.forget_token_key_file()).await?;
        }
        *self.tokens.read.lock() = Some((Arc::clone(&keys), begun));
        Ok(keys)
    }

    /// The claims of a good token, and which key has signed it. A key that is not known may be one that another hub has just made.
    pub(super) async fn verified_claims(
        &self,
        text: &str,
        now: OffsetDateTime,
    ) -> Result<Result<(Claims, Uuid), Untrue>, KeysError> {
        let found = self.token_keys().await?.verify(text, now);
        if found != Err(Untrue::Header) {
            return Ok(found);
        }
        Ok(self.token_keys_younger_than(LOOK_AGAIN).await?.verify(text, now))
    }

    async fn read_token_keys(&self) -> Result<TokenKeys, KeysError> {
        let mut rows = token_keys::all(&self.db).await?;
        if rows.is_empty() {
            rows = self.begin_token_keys().await?;
        }
        let standing = standings_of(&rows, self.clock.now());
        let over: Vec<Uuid> = of(&rows, &standing, |standing| standing == Standing::Over).map(|row| row.id).collect();
        if !over.is_empty() {
            // No token of them is good any more: from now on nobody can make one either.
            token_keys::remove(&self.db, &over).await?;
            tracing::info!(
                event = "token_keys_dropped",
                count = over.len(),
                "keys of access tokens that are over were destroyed"
            );
        }
        let open = |row: &TokenKey| {
            let pkcs8 = self.keyring.open_token_key(row.id, &row.sealed)?;
            Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| KeysError::TokenKey(row.id))
        };
        let signs = of(&rows, &standing, |standing| standing == Standing::Signs).next();
        let signs = signs.ok_or(StoreError::Unreadable { what: "token_key", reason: "there is none" })?;
        let pair = open(signs)?;
        let mut known = vec![self::known(&pair)];
        for row in of(&rows, &standing, |standing| !matches!(standing, Standing::Signs | Standing::Over)) {
            known.push(self::known(&open(row)?));
        }
        Ok(TokenKeys { pair, known })
    }

    /// The first key: that of a file, from before keys were shared, or a new one.
    async fn begin_token_keys(&self) -> Result<Vec<TokenKey>, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        let before = blocking(move || keyring.token_key_file()).await?;
        let key = match before {
            Some(pkcs8) => self.new_token_key(&pkcs8, self.clock.now())?,
            None => self.new_token_key(&generate()?, self.clock.now())?,
        };
        token_keys::begin(&self.db, &key).await?;
        // Read back: another hub may have been first.
        Ok(token_keys::all(&self.db).await?)
    }

    fn new_token_key(&self, pkcs8: &[u8], signs_from: OffsetDateTime) -> Result<TokenKey, KeysError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| KeysError::Crashed)?;
        let id = signing::id_of(pair.public_key().as_ref());
        let sealed = self.keyring.seal_token_key(id, pkcs8)?;
        Ok(TokenKey { id, sealed, created_at: self.clock.now(), signs_from })
    }

    /// Makes another key, which signs once every hub knows it; the one before verifies until its last token is over. With
    /// `revoke_old` it signs at once, and no token of another key is good any more: here at once, on other hubs within seconds.
    pub async fn rotate_token_keys(&self, revoke_old: bool, actor: &str) -> Result<Vec<TokenKeyView>, KeysError> {
        let now = self.clock.now();
        let key = self.new_token_key(&generate()?, if revoke_old { now } else { now + KNOWN_BEFORE })?;
        token_keys::add(&self.db, &key, revoke_old).await?;
        *self.tokens.read.lock() = None;
        tracing::info!(event = "token_key_rotated", key = %key.id, revoke_old, "there is another key of access tokens");
        for tenant in routes::tenants(&self.db).await? {
            let (id, actor) = (key.id, actor.to_owned());
            let noted = self.db.tenant(tenant, move |tx| {
                Box::pin(async move {
                    let detail = json!({ "key": id, "revoke_old": revoke_old });
                    log(tx, &actor, Action::HubTokenKey, "tenant", tenant.0, detail).await
                })
            });
            // The key is there already: one tenant's trouble, such as its deletion, is no reason to say that it is not.
            if let Err(error) = noted.await {
                tracing::error!(event = "token_key_not_noted", client_id = %tenant, %error, "a rotation is missing in a tenant's audit");
            }
        }
        self.token_key_views().await
    }

    /// The keys without their secret halves, in the order in which they sign.
    pub async fn token_key_views(&self) -> Result<Vec<TokenKeyView>, KeysError> {
        // Makes the first one, if nobody has logged in yet.
        self.token_keys().await?;
        let rows = token_keys::all(&self.db).await?;
        let standing = standings_of(&rows, self.clock.now());
        let view = |(row, standing): (TokenKey, Standing)| {
            let TokenKey { id, created_at, signs_from, .. } = row;
            TokenKeyView { id, standing, created_at, signs_from }
        };
        Ok(rows.into_iter().zip(standing).map(view).collect())
    }
}

fn standings_of(rows: &[TokenKey], now: OffsetDateTime) -> Vec<Standing> {
    let sign_from: Vec<OffsetDateTime> = rows.iter().map(|row| row.signs_from).collect();
    standings(&sign_from, LIFE, now)
}

fn of<'a>(
    rows: &'a [TokenKey],
    standings: &'a [Standing],
    wanted: impl Fn(Standing) -> bool + 'a,
) -> impl Iterator<Item = &'a TokenKey> {
    rows.iter().zip(standings).filter(move |(_, standing)| wanted(**standing)).map(|(row, _)| row)
}

fn generate() -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| gallery_log::keys::NoRandomness)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn known(pair: &Ed25519KeyPair) -> Known {
    let public = pair.public_key().as_ref();
    Known::new(signing::id_of(public), public)
}
