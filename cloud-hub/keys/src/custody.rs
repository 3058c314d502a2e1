//! Operations in which rows and keys must change together, each with its audit entry and its event.
//!
//! The order is the point of this page. A new person's key is on the disk before any row names it (a crash leaves a
//! key without a person: harmless). A deleted person's key goes after the commit (a crash leaves a key whose erasure is
//! on the list of [`Custody::destroy_pending_keys`]); the other order could destroy a person whose deletion then fails.

use std::sync::Arc;

use gallery_log::keys::random_key;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;
use wire_contract::EventData;
use wire_contract::event::{ClaimReusedData, PersonDeletedData};
use zeroize::Zeroizing;

use super::logins::KnownLogins;
use super::passwords::Passwords;
use super::recognised::KnownKeys;
use super::tokens::BelievedTokenKeys;
use super::{Keyring, KeysError};
use hub_domain::certificate::DeviceCertificate;
use hub_domain::claim::{self, Ruling};
use hub_domain::event::NewEvent;
use hub_domain::ids::{ClaimId, DeviceId, EndpointId, EventId, GalleryId, PersonId, SiteId, TenantId};
use hub_domain::people::Profile;
use hub_domain::person_key::PersonKey;
use hub_domain::tenant::{Resource, Tier};
use hub_domain::vault::TenantKeys;
use hub_host::clock::Clock;
use hub_store::audit::Entry;
use hub_store::{
    Database, StoreError, TenantTx, audit, certificates, claims, devices, events, galleries, people, places, routes,
    tenants, webhooks,
};

/// The keyring and the database, together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Custody {
    pub(super) db: Database,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clock: Clock,
    pub(super) known: Arc<KnownKeys>,
    pub(super) logins: Arc<KnownLogins>,
    pub(super) passwords: Arc<Passwords>,
    pub(super) tokens: Arc<BelievedTokenKeys>,
}

/// A site to be made.
#[derive(Clone, Debug)]
pub struct NewSite {
    /// Its id.
    pub id: SiteId,
    /// Its name.
    pub name: String,
    /// IANA name of its time zone.
    pub time_zone: String,
}

/// A claim, as it goes into a token.
pub struct IssuedClaim {
    /// Which claim.
    pub id: ClaimId,
    /// Its secret; only its MAC is kept.
    pub secret: Zeroizing<[u8; 32]>,
    /// Beginning of its life.
    pub issued_at: OffsetDateTime,
    /// End of its life.
    pub expires_at: OffsetDateTime,
}

/// What became of a claim that a device showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// It is this device's now (or again): issue its certificate.
    Accepted(TenantId, DeviceId),
    /// No such claim, or not its secret.
    Unknown,
    /// Too late.
    Expired,
    /// Another key has it.
    Used,
}

/// The certificate that a device got for its claim.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The hardware's serial number, as it said.
    pub hardware_serial: String,
    /// The certificate.
    pub certificate: DeviceCertificate,
}

/// What a device fetches over mutual TLS.
pub struct LinkMaterial {
    /// Number of the link key.
    pub link_epoch: u32,
    /// LK.
    pub link_key: Zeroizing<[u8; 32]>,
    /// The hub's epoch.
    pub hub_epoch: u32,
    /// The galleries of the device.
    pub galleries: Vec<LinkGallery>,
}

/// A gallery's keys for a device.
pub struct LinkGallery {
    /// Which gallery.
    pub gallery: GalleryId,
    /// Its epoch.
    pub epoch: u32,
    /// GDK.
    pub gdk: Zeroizing<[u8; 32]>,
    /// CK.
    pub ck: Zeroizing<[u8; 32]>,
}

impl Custody {
    /// Puts a keyring and a database together.
    #[must_use]
    pub fn new(db: Database, keyring: Arc<Keyring>, clock: Clock) -> Self {
        let (known, logins) = (Arc::default(), Arc::default());
        Self { db, keyring, clock, known, logins, passwords: Arc::default(), tokens: Arc::default() }
    }

    /// The keyring.
    #[must_use]
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The keys of a tenant.
    pub async fn tenant_keys(&self, tenant: TenantId) -> Result<TenantKeys, KeysError> {
        let keyring = Arc::clone(&self.keyring);
        self.db.tenant(tenant, move |tx| Box::pin(async move { keyring.tenant(tx).await })).await
    }

    /// The key of a person; [`KeysError::NoPersonKey`] once it is destroyed.
    pub async fn person_key(&self, tenant: TenantId, person: PersonId) -> Result<PersonKey, KeysError> {
        self.keyring.person(&self.tenant_keys(tenant).await?, person)
    }

    /// Makes a tenant with its keys.
    pub async fn create_tenant(&self, name: &str, tier: Tier, actor: &str) -> Result<TenantId, KeysError> {
        let (keyring, name, actor) = (Arc::clone(&self.keyring), name.to_owned(), actor.to_owned());
        let tenant = TenantId(self.clock.new_id());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    tenants::create(tx, &name, tier).await?;
                    keyring.make_tenant(tx).await?;
                    log(tx, &actor, audit::Action::TenantCreate, "tenant", tenant.0, json!({ "tier": tier.as_str() }))
                        .await?;
                    Ok::<_, KeysError>(tenant)
                })
            })
            .await
    }

    /// Makes a site with its gallery. Whoever belongs to all sites joins this one too.
    pub async fn create_site(&self, tenant: TenantId, site: NewSite, actor: &str) -> Result<places::Site, KeysError> {
        let (keyring, actor) = (Arc::clone(&self.keyring), actor.to_owned());
        let gallery = GalleryId(Uuid::new_v4());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let keys = keyring.tenant(tx).await?;
                    places::lock_sites(tx).await?;
                    places::create_site(tx, site.id, &site.name, &site.time_zone).await?;
                    let gdk = keys.seal_gdk(gallery, 1, &*random_key()?)?;
                    let ck = keys.seal_ck(gallery, 1, &*random_key()?)?;
                    galleries::create(tx, gallery, site.id, 1, &gdk, &ck).await?;
                    let mut members = Vec::new();
                    for person in people::lock_of_all_sites(tx).await? {
                        match keyring.person(&keys, person) {
                            Ok(key) => members.push(key),
                            // Nothing of them can be opened; they must not keep the tenant from its site.
                            Err(KeysError::NoPersonKey(person)) => told_missing(tenant, person),
                            Err(error) => return Err(error),
                        }
                    }
                    people::join_new_gallery(tx, &keys, gallery, &members).await?;
                    log(tx, &actor, audit::Action::SiteCreate, "site", site.id.0, json!({ "gallery": gallery.0 }))
                        .await?;
                    Ok::<_, KeysError>(places::site(tx, site.id).await?)
                })
            })
            .await
    }

    /// Makes a person with a key of their own, in the galleries of these sites (of all if `None`).
    pub async fn create_person(
        &self,
        tenant: TenantId,
        id: PersonId,
        profile: Profile,
        sites: Option<Vec<SiteId>>,
        actor: &str,
    ) -> Result<people::Person, KeysError> {
        let keys = self.tenant_keys(tenant).await?;
        let (keyring, wrapping) = (Arc::clone(&self.keyring), keys.clone());
        let key = blocking(move || keyring.make_person(&wrapping, id)).await?;
        let actor = actor.to_owned();
        let made = self
            .db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    tenants::admit(tx, Resource::People).await?;
                    let members = people::create(tx, &keys, &key, &profile, sites.as_deref()).await?;
                    log(tx, &actor, audit::Action::PersonCreate, "person", id.0, json!({ "galleries": members.len() }))
                        .await?;
                    Ok::<_, KeysError>(people::get(tx, id).await?)
                })
            })
            .await;
        if let Err(KeysError::Store(
            StoreError::Clash(_)
            | StoreError::NotFound { .. }
            | StoreError::Deleted { .. }
            | StoreError::QuotaReached { .. },
        )) = made
        {
            // Certainly not committed: the key belongs to nobody.
            let keyring = Arc::clone(&self.keyring);
            blocking(move || keyring.destroy_person(tenant, id)).await?;
        }
        made
    }

    /// Deletes a person: from every gallery in one transaction that tells the doors at its commit, then their key.
    /// Returns the galleries' new versions.
    pub async fn delete_person(
        &self,
        tenant: TenantId,
        id: PersonId,
        actor: &str,
    ) -> Result<Vec<(GalleryId, u64)>, KeysError> {
        let (keyring, actor, now) = (Arc::clone(&self.keyring), actor.to_owned(), self.clock.now());
        let event = NewEvent::from_hub(
            EventId(self.clock.new_id()),
            Some(id.to_string()),
            now,
            &EventData::PersonDeleted(PersonDeletedData { person: wire_contract::PersonId(id.0) }),
        );
        let changed = self
            .db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let keys = keyring.tenant(tx).await?;
                    let changed = people::delete(tx, &keys, id, now).await?;
                    log(tx, &actor, audit::Action::PersonDelete, "person", id.0, json!({ "galleries": changed.len() }))
                        .await?;
                    events::append(tx, &[event], now).await?;
                    Ok::<_, KeysError>(changed)
                })
            })
            .await?;
        self.destroy_key(tenant, id).await?;
        Ok(changed)
    }

    /// Destroys the keys of people whose deletion is committed: what a crash between the two left over.
    /// Returns how many.
    pub async fn destroy_pending_keys(&self, tenant: TenantId) -> Result<usize, KeysError> {
        let pending = self.db.tenant(tenant, |tx| Box::pin(people::with_key_to_destroy(tx))).await?;
        for person in &pending {
            self.destroy_key(tenant, *person).await?;
        }
        Ok(pending.len())
    }

    async fn destroy_key(&self, tenant: TenantId, id: PersonId) -> Result<(), KeysError> {
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        blocking(move || keyring.destroy_person(tenant, id)).await?;
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    people::key_destroyed(tx, id, now).await?;
                    log(tx, "hub", audit::Action::PersonErase, "person", id.0, json!({})).await
                })
            })
            .await
    }

    /// Notes that the key store has no key for a person, who counts as erased from now on for those who send records.
    /// Nothing is deleted: the operator may restore the key store, or delete the person.
    pub async fn key_missing(&self, tenant: TenantId, id: PersonId) -> Result<(), KeysError> {
        if self.db.tenant(tenant, move |tx| Box::pin(people::key_missing(tx, id))).await? {
            told_missing(tenant, id);
        }
        Ok(())
    }

    /// Takes back what [`Custody::key_missing`] noted where the key is there again. Returns how many.
    pub async fn find_missing_keys(&self, tenant: TenantId) -> Result<usize, KeysError> {
        let missing = self.db.tenant(tenant, |tx| Box::pin(people::with_missing_key(tx))).await?;
        if missing.is_empty() {
            return Ok(0);
        }
        let (keys, mut found, mut still) = (self.tenant_keys(tenant).await?, 0, 0_usize);
        for person in missing {
            match self.keyring.person(&keys, person) {
                Err(KeysError::NoPersonKey(_)) => still += 1,
                key => {
                    key?;
                    self.db.tenant(tenant, move |tx| Box::pin(people::key_found(tx, person))).await?;
                    found += 1;
                }
            }
        }
        if still > 0 {
            tracing::warn!(event = "person_keys_missing", client_id = %tenant, count = still, "people without a key count as erased: restore the key store, or delete them");
        }
        Ok(found)
    }

    /// Makes a webhook endpoint and its signing secret, which is in the answer and otherwise only sealed.
    pub async fn create_webhook(
        &self,
        tenant: TenantId,
        id: EndpointId,
        url: &str,
        classes: Option<Vec<String>>,
        actor: &str,
    ) -> Result<Zeroizing<[u8; 32]>, KeysError> {
        let (keyring, url, actor) = (Arc::clone(&self.keyring), url.to_owned(), actor.to_owned());
        let secret = random_key()?;
        let kept = secret.clone();
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let sealed = keyring.tenant(tx).await?.seal_webhook_secret(id, &kept)?;
                    webhooks::create(tx, id, &url, classes.as_deref(), &sealed).await?;
                    log(tx, &actor, audit::Action::WebhookCreate, "webhook", id.0, json!({})).await
                })
            })
            .await?;
        Ok(secret)
    }

    /// Makes a claim for a device that is not revoked.
    pub async fn issue_claim(&self, tenant: TenantId, device: DeviceId, actor: &str) -> Result<IssuedClaim, KeysError> {
        let issued_at = self.clock.now();
        let claim = IssuedClaim {
            id: ClaimId(self.clock.new_id()),
            secret: random_key()?,
            issued_at,
            expires_at: issued_at + claim::LIFETIME,
        };
        let (id, mac, expires_at) = (claim.id, self.keyring.claim_mac(claim.id, &claim.secret), claim.expires_at);
        let actor = actor.to_owned();
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    devices::lock_for_claim(tx, device).await?;
                    // One living token a device: whoever finds an older one finds nothing.
                    claims::expire_others(tx, device, issued_at).await?;
                    claims::create(tx, id, device, &mac, expires_at).await?;
                    log(tx, &actor, audit::Action::ClaimIssue, "device", device.0, json!({ "claim": id.0 })).await
                })
            })
            .await?;
        Ok(claim)
    }

    /// Rules on a claim that a device shows with its public key, and binds it to the first such key.
    pub async fn redeem_claim(
        &self,
        id: ClaimId,
        secret: &[u8; 32],
        spki_sha256: [u8; 32],
    ) -> Result<Redeemed, KeysError> {
        let Some(tenant) = routes::tenant_of_claim(&self.db, id).await? else { return Ok(Redeemed::Unknown) };
        let (keyring, secret, now) = (Arc::clone(&self.keyring), Zeroizing::new(*secret), self.clock.now());
        let alarm_id = EventId(self.clock.new_id());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let Some((device, claim)) = claims::get(tx, id).await? else { return Ok(Redeemed::Unknown) };
                    let matches = keyring.is_claim(id, &secret, &claim.secret_mac);
                    let ruling = match claim::rule(&claim, matches, &spki_sha256, now) {
                        // Of two keys that both found it free, one is told here that it came second.
                        Ruling::Bind if !claims::bind(tx, id, &spki_sha256, now).await? => Ruling::Used,
                        ruling => ruling,
                    };
                    match ruling {
                        Ruling::Bind | Ruling::Retry => return Ok(Redeemed::Accepted(tenant, device)),
                        Ruling::Unknown => return Ok(Redeemed::Unknown),
                        Ruling::Expired => return Ok(Redeemed::Expired),
                        Ruling::Used => {}
                    }
                    log(tx, "device", audit::Action::ClaimReused, "device", device.0, json!({ "claim": id.0 })).await?;
                    let data = EventData::ClaimReused(ClaimReusedData {
                        alarm: true,
                        claim: wire_contract::ClaimId(id.0),
                        device: wire_contract::DeviceId(device.0),
                    });
                    let alarm = NewEvent::from_hub(alarm_id, Some(device.to_string()), now, &data);
                    events::append(tx, &[alarm], now).await?;
                    Ok::<_, KeysError>(Redeemed::Used)
                })
            })
            .await
    }

    /// Notes a device's first certificate after a claim: from here on topics, HTTPS and the broker know it. It gets a
    /// new link key and the old ones end at once, unless it only repeats the claim that it has.
    pub async fn device_claimed(&self, tenant: TenantId, device: DeviceId, claimed: Claimed) -> Result<(), KeysError> {
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    devices::lock_for_claim(tx, device).await?;
                    let before = devices::get(tx, device).await?;
                    let Claimed { hardware_serial, certificate } = claimed;
                    certificates::claimed(tx, device, &hardware_serial, &certificate).await?;
                    let repeated =
                        before.spki_sha256.as_deref() == Some(&certificate.spki_sha256[..]) && before.link_epoch > 0;
                    if !repeated {
                        let number = devices::next_link_epoch(tx, device).await?;
                        let sealed = keyring.tenant(tx).await?.seal_link(device, number, &*random_key()?)?;
                        devices::replace_link(tx, device, number, &sealed, now).await?;
                    }
                    let detail = json!({ "certificate_serial": certificate.serial, "repeated": repeated });
                    log(tx, &format!("device:{device}"), audit::Action::DeviceClaim, "device", device.0, detail).await
                })
            })
            .await
    }

    /// The present link key of a device and the keys of its galleries. Asking again gives the same.
    pub async fn link(&self, tenant: TenantId, device: DeviceId) -> Result<LinkMaterial, KeysError> {
        let (keyring, now) = (Arc::clone(&self.keyring), self.clock.now());
        self.db
            .tenant(tenant, move |tx| {
                Box::pin(async move {
                    let keys = keyring.tenant(tx).await?;
                    let links = devices::links(tx, device, now).await?;
                    let link =
                        links.first().ok_or(StoreError::NotFound { what: "link key of device", id: device.0 })?;
                    let mut held = Vec::new();
                    for gallery in devices::galleries(tx, device).await? {
                        let gallery = galleries::get(tx, gallery.gallery).await?;
                        held.push(LinkGallery {
                            gallery: gallery.id,
                            epoch: gallery.epoch,
                            gdk: keys.open_gdk(gallery.id, gallery.epoch, &gallery.gdk_sealed)?,
                            ck: keys.open_ck(gallery.id, gallery.epoch, &gallery.ck_sealed)?,
                        });
                    }
                    Ok::<_, KeysError>(LinkMaterial {
                        link_epoch: link.epoch,
                        link_key: keys.open_link(device, link.epoch, &link.sealed)?,
                        hub_epoch: keyring.hub_epoch(),
                        galleries: held,
                    })
                })
            })
            .await
    }
}

fn told_missing(tenant: TenantId, person: PersonId) {
    tracing::error!(
        event = "person_key_missing", client_id = %tenant, %person, alarm = true,
        "the key store has no key for this person, who counts as erased: restore the key store, or delete the person"
    );
}

pub(super) async fn log(
    tx: &mut TenantTx,
    actor: &str,
    action: audit::Action,
    object_kind: &'static str,
    object: Uuid,
    detail: serde_json::Value,
) -> Result<(), KeysError> {
    Ok(audit::write(tx, Entry { actor, action, object_kind, object_id: Some(object), detail }).await?)
}

/// Runs what waits for the disk away from the async workers.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeysError> + Send + 'static,
) -> Result<T, KeysError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Aborted)?
}
