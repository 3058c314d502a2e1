//! How the product reads each sealed column. A column that has no reader here is an error: whoever adds one says how it is read.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Result, bail};
use cloud_hub::clock::Clock;
use cloud_hub::domain::idempotency::Key;
use cloud_hub::domain::ids::TenantId;
use cloud_hub::keys::{Claim, Confirmed, Custody, Keyring, KeysError, Opener, Snapshots};
use cloud_hub::store::{galleries, people};
use face_core::Space;

use super::sealed::{Owner, SPACE, Sealed};

/// What was read, or why it was refused.
pub type Read = Result<Vec<String>, String>;

impl Sealed {
    /// Reads a column of a tenant as the product does: what is in it in the clear, or the error that is told.
    pub async fn read(&mut self, column: &str, tenant: Option<TenantId>) -> Result<Read> {
        let Some(tenant) = tenant else { return Ok(told(self.token_keys().await)) };
        if column == "webhook_endpoint.secret_sealed" {
            let webhooks = self.webhooks(tenant).await?;
            // What is wrong with one of the tenant's keys is told here too, when it is just read anew.
            let keys = match self.custody.tenant_keys(tenant).await {
                Ok(keys) => keys,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let open = |(id, sealed): &(_, Vec<u8>)| Ok(hex::encode(*keys.open_webhook_secret(*id, sealed)?));
            return Ok(told(webhooks.iter().map(open).collect()));
        }
        let owner = self.owners.iter().find(|owner| owner.tenant == tenant);
        let Some(owner) = owner else { bail!("tenant {tenant} is not of this lab") };
        Ok(told(match column {
            "anchor.sealed" | "template.sealed" => self.vectors(owner).await,
            "app_user.login_sealed" => self.logins(owner).await,
            "device_link.sealed" | "gallery.ck_sealed" | "gallery.gdk_sealed" => self.links(owner).await,
            "idempotency_key.answer_sealed" => self.answers(owner).await,
            "gallery_record.sealed" => self.records(owner).await,
            "gallery_snapshot.key_sealed" => self.snapshots(owner).await,
            "person.profile_sealed" => self.profiles(owner).await,
            "session_frame.sealed" => self.frames(owner).await,
            "tenant_secret.sealed" => self.tenants_secrets(owner).await,
            "user_totp.secret_sealed" => self.second_factors(owner).await,
            other => bail!("{other} is a sealed column without a reader in the lab"),
        }))
    }

    async fn vectors(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let space = Space::plain(SPACE);
        let found = self.custody.unsealed(owner.tenant, &space, HashSet::new(), HashSet::new()).await?;
        let told = |rows: Vec<_>| -> Vec<String> {
            rows.into_iter()
                .map(|(id, (person, embedding)): (_, (_, face_core::Embedding))| {
                    format!("{id:?} {person:?} {}", hex::encode(embedding.to_le_bytes()))
                })
                .collect()
        };
        Ok([told(found.templates.new), told(found.anchors.new)].concat())
    }

    async fn logins(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        Ok(self
            .custody
            .users(owner.tenant)
            .await?
            .into_iter()
            .map(|user| format!("{} {}", user.id, user.login))
            .collect())
    }

    async fn links(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let mut read = Vec::new();
        for device in &owner.devices {
            let link = self.custody.link(owner.tenant, *device).await?;
            read.push(hex::encode(*link.link_key));
            read.extend(link.galleries.iter().flat_map(|held| [hex::encode(*held.gdk), hex::encode(*held.ck)]));
        }
        Ok(read)
    }

    async fn records(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let keys = self.custody.tenant_keys(owner.tenant).await?;
        let mut opener = Opener::new(self.custody.keyring(), &keys);
        let mut read = Vec::new();
        for gallery in owner.galleries.clone() {
            let records = self.db.tenant(owner.tenant, move |tx| {
                Box::pin(async move {
                    let epoch = galleries::get(tx, gallery).await?.epoch;
                    Ok::<_, KeysError>(galleries::records(tx, gallery, epoch, 0, 1_000).await?)
                })
            });
            for record in records.await? {
                read.push(format!("{:?} {}", record.id, hex::encode(opener.body(&record)?)));
            }
        }
        Ok(read)
    }

    async fn snapshots(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let snapshots = Snapshots::new(self.custody.clone());
        let mut read = Vec::new();
        for (device, id) in &owner.snapshots {
            let answer = snapshots.manifest(owner.tenant, *device, *id).await?;
            read.push(answer.map(|answer| hex::encode(answer.key.expose())).unwrap_or_default());
        }
        Ok(read)
    }

    async fn profiles(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let mut read = Vec::new();
        for id in owner.people.clone() {
            let person = self.db.tenant(owner.tenant, move |tx| {
                Box::pin(async move { Ok::<_, KeysError>(people::get(tx, id).await?) })
            });
            let (person, key) = (person.await?, self.custody.person_key(owner.tenant, id).await?);
            read.push(key.open_profile(person.revision, &person.profile_sealed)?.name.clone());
        }
        Ok(read)
    }

    async fn answers(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let mut read = Vec::new();
        for number in 0..2 {
            let text = format!("{}-{number}", owner.name);
            let Ok(key) = Key::parse([text.as_bytes()].into_iter()) else { continue };
            if let Claim::Replay(answer) = self.custody.claim_key(owner.tenant, "lab", &key, &text).await? {
                read.push(String::from_utf8_lossy(&answer).into_owned());
            }
        }
        Ok(read)
    }

    async fn frames(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let mut read = Vec::new();
        for session in &owner.sessions {
            let (_, frames) = self.custody.session_templates(owner.tenant, *session, SPACE).await?;
            read.extend(frames.iter().map(|frame| hex::encode(frame.embedding.to_le_bytes())));
        }
        Ok(read)
    }

    /// A code that is wrong: to know that, the secret is opened. It is never told.
    async fn second_factors(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let mut read = Vec::new();
        for user in &owner.users {
            let is_wrong = matches!(self.custody.confirm_totp(*user, "000000").await?, Confirmed::Wrong);
            read.push(format!("wrong: {is_wrong}"));
        }
        Ok(read)
    }

    /// By a hub that has just started: the others remember keys.
    async fn fresh(&self) -> Result<Custody, KeysError> {
        let (from, to) = (self.dir.path().join("keys"), self.dir.path().join("keys-of-another"));
        let copied = || -> std::io::Result<()> {
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(&from)? {
                let path = entry?.path();
                if path.extension().is_none_or(|extension| extension != "redb") && path.is_file() {
                    std::fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
                }
            }
            Ok(())
        };
        copied().map_err(|_| KeysError::Crashed)?;
        Ok(Custody::new(self.db.clone(), Arc::new(Keyring::open(&to)?), Clock::system()))
    }

    async fn tenants_secrets(&self, owner: &Owner) -> Result<Vec<String>, KeysError> {
        let fresh = self.fresh().await?;
        let keys = fresh.tenant_keys(owner.tenant).await?;
        let keyring = Arc::clone(fresh.keyring());
        let rotations =
            self.db.tenant(owner.tenant, move |tx| Box::pin(async move { keyring.rotations(tx, SPACE).await }));
        let mut axis = [0.0; 512];
        axis[0] = 1.0;
        let rotated = rotations.await?.writing().rotation.apply(&axis);
        let rotated: Vec<u8> = rotated.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut read = vec![keys.group("lab").to_string(), hex::encode(rotated)];
        read.extend(keys.marks("lab", "value").values().iter().map(hex::encode));
        Ok(read)
    }

    async fn token_keys(&self) -> Result<Vec<String>, KeysError> {
        let keys = self.fresh().await?.token_keys().await?;
        Ok(keys.public().iter().map(|key| hex::encode(&key.public)).collect())
    }
}

fn told(read: Result<Vec<String>, KeysError>) -> Read {
    read.map_err(|error| error.to_string()).map(|mut values| {
        values.sort();
        values
    })
}
