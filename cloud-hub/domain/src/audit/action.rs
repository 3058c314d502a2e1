//! What the audit knows of: one word for each thing that is done or looked at.
//!
//! The guide (docs/guides/audit.md) has the same table, and a test holds the two against each other and against the sources.

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident, $word:literal;)+) => {
        /// Something that is audited.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $variant,)+
        }

        impl Action {
            /// All there are, in the order of the guide.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// `object.verb`, as entries have it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// How the sources name it.
            #[cfg(test)]
            const fn variant(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }
    };
}

actions! {
    /// A tenant was made.
    TenantCreate, "tenant.create";
    /// Tier, quotas, requests or features of a tenant were agreed upon anew.
    TenantAgree, "tenant.agree";
    /// A tenant is not served any more.
    TenantSuspend, "tenant.suspend";
    /// A tenant is served again.
    TenantResume, "tenant.resume";
    /// The deletion of a tenant began: its keys and everybody's of it are gone.
    TenantDelete, "tenant.delete";
    /// How sure recognition must be was said anew.
    TenantRecognition, "tenant.recognition";
    /// Whether users must have a second factor was said anew.
    TenantLogin, "tenant.login";
    /// How long sessions stay open was said anew.
    TenantSessions, "tenant.sessions";
    /// An API key was made.
    ApiKeyCreate, "api_key.create";
    /// An API key was replaced.
    ApiKeyRotate, "api_key.rotate";
    /// An API key was ended.
    ApiKeyRevoke, "api_key.revoke";
    /// A user was made.
    UserCreate, "user.create";
    /// A user got another role, or was disabled, or let in again.
    UserChange, "user.change";
    /// A user was invited to choose a password; the one before ended.
    UserInvite, "user.invite";
    /// A user chose a password.
    UserPassword, "user.password";
    /// A user set up a second factor.
    UserTotpOn, "user.totp_on";
    /// A second factor was taken off a user, by themselves or by others.
    UserTotpOff, "user.totp_off";
    /// A user was deleted.
    UserDelete, "user.delete";
    /// A user logged in.
    UserLogin, "user.login";
    /// A user logged out.
    UserLogout, "user.logout";
    /// A log-in was ended, since a refresh token of it was shown twice.
    UserTokenReused, "user.token_reused";
    /// A role was made.
    RoleCreate, "role.create";
    /// What a role is called or allows was changed, for everybody who has it.
    RoleChange, "role.change";
    /// A role that nobody had was deleted.
    RoleDelete, "role.delete";
    /// A site was made.
    SiteCreate, "site.create";
    /// A door was made.
    DoorCreate, "door.create";
    /// A person was made.
    PersonCreate, "person.create";
    /// What is known of a person was changed.
    PersonUpdate, "person.update";
    /// Somebody looked at a person and at which templates they have.
    PersonRead, "person.read";
    /// Somebody looked at a list of people.
    PersonList, "person.list";
    /// An import of people began.
    PersonImport, "person.import";
    /// An import of people ended.
    PersonImported, "person.imported";
    /// A person was deleted.
    PersonDelete, "person.delete";
    /// The key of a deleted person was destroyed: nothing of them can be read any more.
    PersonErase, "person.erase";
    /// A person got a template.
    TemplateCreate, "template.create";
    /// A face was compared with the templates of a tenant, in search of a duplicate.
    TemplateCompare, "template.compare";
    /// Photographs were looked at and refused.
    TemplateRefuse, "template.refuse";
    /// Searchable vectors were made anew from the sealed templates.
    TemplateReindex, "template.reindex";
    /// Faces were looked for on a photograph.
    RecognitionDetect, "recognition.detect";
    /// The quality of a face was measured.
    RecognitionQuality, "recognition.quality";
    /// Whether a photograph is plainly an attack was looked at.
    RecognitionLiveness, "recognition.liveness";
    /// A photograph's template was given out.
    RecognitionEmbed, "recognition.embed";
    /// Two faces were compared.
    RecognitionCompare, "recognition.compare";
    /// A face was compared with one person.
    RecognitionVerify, "recognition.verify";
    /// A face was looked for among all people.
    RecognitionIdentify, "recognition.identify";
    /// The people nearest to a face were asked for.
    RecognitionSearch, "recognition.search";
    /// A session was opened.
    SessionCreate, "session.create";
    /// Frames of a session were looked at.
    SessionFrames, "session.frames";
    /// An attempt of a session was judged.
    SessionAttempt, "session.attempt";
    /// A session ended: completed, failed, cancelled or expired.
    SessionEnd, "session.end";
    /// A person got a negative anchor.
    AnchorCreate, "anchor.create";
    /// Somebody looked at a person's negative anchors.
    AnchorRead, "anchor.read";
    /// A negative anchor was taken back.
    AnchorDelete, "anchor.delete";
    /// Templates or anchors were put together for doors.
    GallerySend, "gallery.send";
    /// Buckets of a gallery were put together for a door that differed.
    GalleryHeal, "gallery.heal";
    /// The log of a gallery was compacted by hand.
    GalleryCompact, "gallery.compact";
    /// A device was given the manifest of a snapshot and the key of its content.
    SnapshotRead, "snapshot.read";
    /// A device began, or went on, to fetch the content of a snapshot.
    SnapshotFetch, "snapshot.fetch";
    /// A device was made.
    DeviceCreate, "device.create";
    /// A device redeemed its claim.
    DeviceClaim, "device.claim";
    /// A device was offered its next certificate.
    DeviceCertificateOffered, "device.certificate_offered";
    /// A device used its next certificate.
    DeviceCertificateRenewed, "device.certificate_renewed";
    /// A device was revoked.
    DeviceRevoke, "device.revoke";
    /// A claim token was made.
    ClaimIssue, "claim.issue";
    /// A claim token was shown with another key than the one that has it.
    ClaimReused, "claim.reused";
    /// A device is wished to be set up otherwise.
    TwinSet, "twin.set";
    /// A command was given.
    CommandGive, "command.give";
    /// A command had its last word.
    CommandSettled, "command.settled";
    /// A device sent its log.
    CommandLog, "command.log";
    /// Events of a device were stored.
    EventsCommit, "events.commit";
    /// Two devices spoke as one.
    StreamConflict, "stream.conflict";
    /// A caller behaves as an intruder would.
    IntrusionSignal, "intrusion.signal";
    /// The database was found to be older than it was: devices send again what it lacks.
    HubRestored, "hub.restored";
    /// Another key signs access tokens.
    HubTokenKey, "hub.token_key";
    /// The tenant's key was sealed under another master key.
    HubMasterKey, "hub.master_key";
    /// Another key of the tenant is to take the place of the one that it has.
    TenantKeyRotate, "tenant.key_rotate";
    /// Everything of the tenant is under its new key; the one before is gone.
    TenantKeyRetire, "tenant.key_retire";
    /// Another index key of the tenant is to take the place of the one that it has.
    TenantIndexKeyRotate, "tenant.index_key_rotate";
    /// Everything of the tenant is found under its new index key; the one before is gone.
    TenantIndexKeyRetire, "tenant.index_key_retire";
    /// Searchable vectors of the tenant are to be rotated by other seeds.
    TenantSeedRotate, "tenant.seed_rotate";
    /// All vectors of a space are rotated by its new seed; the one before is gone.
    TenantSeedRetire, "tenant.seed_retire";
    /// Other keys of the tenant's people are to take the places of those that they have.
    TenantPersonKeysRotate, "tenant.person_keys_rotate";
    /// What stays of the tenant's people is under their new keys.
    TenantPersonKeysDone, "tenant.person_keys_done";
    /// A gallery has other digest and credential keys, and with them a higher epoch.
    GalleryKeyRotate, "gallery.key_rotate";
    /// Another pepper makes the MACs of secrets.
    HubPepper, "hub.pepper";
    /// Another key of the hub signs for devices, or they are told no longer to believe the ones before.
    HubSigningKey, "hub.signing_key";
    /// Others issue the certificates of devices and hub, or those before are believed no more.
    HubAuthorities, "hub.authorities";
    /// A webhook was made.
    WebhookCreate, "webhook.create";
    /// A webhook was deleted.
    WebhookDelete, "webhook.delete";
    /// A consumer of events was made.
    ConsumerCreate, "consumer.create";
    /// A consumer got another password.
    ConsumerRotate, "consumer.rotate";
    /// A consumer was removed.
    ConsumerDelete, "consumer.delete";
    /// Somebody looked at the audit.
    AuditRead, "audit.read";
    /// Somebody took a copy of the audit.
    AuditExport, "audit.export";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_guide_has_the_actions_that_the_program_has() {
        let guide = include_str!("../../../../docs/guides/audit.md");
        let rows = guide.lines().filter_map(|row| row.strip_prefix("| `"));
        let told: Vec<&str> = rows.filter_map(|row| row.split_once('`').map(|(word, _)| word)).collect();
        let known: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(told, known);
    }

    #[test]
    fn every_action_is_written_somewhere() {
        let hub = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut sources = String::new();
        // The program's, and those of the crates that it is put together of; no tests beside them.
        read(&hub.join("src"), &mut sources);
        for part in std::fs::read_dir(&hub).unwrap().flatten().filter(|entry| entry.path().join("Cargo.toml").is_file())
        {
            read(&part.path().join("src"), &mut sources);
        }
        for action in Action::ALL {
            let named = format!("Action::{}", action.variant());
            let written = sources.match_indices(&named).any(|(at, _)| {
                // Not the beginning of a longer name.
                !sources[at + named.len()..].starts_with(|next: char| next.is_ascii_alphanumeric())
            });
            assert!(written, "nothing writes {}", action.as_str());
        }
    }

    fn read(dir: &Path, into: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                read(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
}
