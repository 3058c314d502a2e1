//! Another signing key where several hubs share it: each goes over when it has the file, and devices believe either meanwhile.

use std::sync::Arc;

use cloud_hub::keys::{Custody, Keyring, KeysError};
use serde_json::Value;
use uuid::Uuid;
use wire_contract::succession::trusted;

use crate::support::{TestHub, skipped};

#[tokio::test]
async fn hubs_that_share_the_signing_key_go_over_one_after_the_other() {
    if skipped("hubs_that_share_the_signing_key_go_over_one_after_the_other") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    let shared = hub.dir.path().join("shared-persons");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("person-keys.v1"), "").unwrap();
    let dirs = ["one", "two"].map(|name| hub.dir.path().join(name));
    let open = |dir: &std::path::Path| {
        let keyring = Arc::new(Keyring::open_with(dir, Some(&shared)).unwrap());
        Custody::new(hub.db.clone(), keyring, hub.clock.clone())
    };
    drop(open(&dirs[0]));
    std::fs::create_dir(&dirs[1]).unwrap();
    for entry in std::fs::read_dir(&dirs[0]).unwrap().flatten() {
        std::fs::copy(entry.path(), dirs[1].join(entry.file_name())).unwrap();
    }
    let hubs = [open(&dirs[0]), open(&dirs[1])];
    let signer = |at: usize| hubs[at].keyring().signing();
    let first = signer(0).public();
    assert_eq!(signer(1).public(), first);

    assert!(matches!(hubs[0].rotate_signing_key(true).await, Err(KeysError::NoNextSigningKey)));
    hubs[0].rotate_signing_key(false).await.unwrap();
    hubs[0].rotate_signing_key(false).await.unwrap();
    assert_eq!(signer(0).public(), first, "the first half changes nothing");
    assert!(matches!(hubs[1].rotate_signing_key(true).await, Err(KeysError::NoNextSigningKey)), "not copied yet");
    std::fs::copy(dirs[0].join("signing-next.p8"), dirs[1].join("signing-next.p8")).unwrap();

    hubs[0].rotate_signing_key(true).await.unwrap();
    let second = signer(0).public();
    assert!(second != first && signer(1).public() == first);
    // Whoever is claimed at the one believes the other, and whoever was claimed at the other is led to the one.
    assert_eq!(signer(0).valid(), [second.clone(), first.clone()]);
    assert!(trusted(&signer(1).valid(), signer(0).successions()).contains(&second));
    hubs[1].rotate_signing_key(true).await.unwrap();
    assert_eq!(signer(1).public(), second);
    assert!(trusted(std::slice::from_ref(&first), signer(1).successions()).contains(&second));
    for (hub, dir) in hubs.iter().zip(&dirs) {
        assert_eq!(hub.signing_keys_before(), [first.key_id]);
        hub.retire_signing_keys().await.unwrap();
        assert!(matches!(hub.retire_signing_keys().await, Err(KeysError::NoSigningKeyBefore)));
        assert_eq!(hub.keyring().signing().valid(), std::slice::from_ref(&second));
        assert!(!dir.join("signing-next.p8").exists() && !dir.join("signing-previous.p8").exists());
    }
    let entries: Vec<(Uuid, Value)> =
        sqlx::query_as("SELECT tenant_id, detail FROM audit_entry WHERE action = 'hub.signing_key' ORDER BY at, id")
            .fetch_all(&mut hub.superuser().await)
            .await
            .unwrap();
    assert_eq!(entries.len(), 4, "of each hub that it goes over, and that it retires the key before");
    assert!(entries.iter().all(|(of, detail)| *of == tenant.0 && detail["key"] == second.key_id.to_string()));
}
