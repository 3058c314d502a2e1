//! Somebody who belongs to all of many sites: one change is in the logs of all their galleries, as if each had it alone.

use cloud_hub::domain::gallery::log_id;
use cloud_hub::store::galleries;
use gallery_log::{Digest, DigestKey, Leaf};

use super::gallery_rotations::{gallery, live};
use crate::support::{TestHub, skipped};

/// More than one statement takes.
const SITES: usize = 260;

#[tokio::test]
async fn each_of_many_galleries_has_every_change_once_and_a_root_that_follows_from_it() {
    if skipped("each_of_many_galleries_has_every_change_once_and_a_root_that_follows_from_it") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.tenant().await;
    for number in 0..SITES {
        hub.site(tenant, &format!("site {number}")).await;
    }
    let (ada, bob) = (hub.person(tenant, "ada").await, hub.person(tenant, "bob").await);
    hub.enrol(tenant, ada, 0).await;
    hub.enrol(tenant, bob, 1).await;
    let changed = hub.custody.delete_person(tenant, ada, "test").await.unwrap();
    assert_eq!(changed.len(), SITES);
    assert!(changed.iter().all(|(_, version)| *version == 6), "two people, two templates, two that went");

    let keys = hub.custody.tenant_keys(tenant).await.unwrap();
    let mut superuser = hub.superuser().await;
    for (id, _) in changed {
        let held = gallery(&hub, tenant, id).await;
        assert_eq!((held.epoch, held.version), (1, 6));
        let gdk = DigestKey::new(*keys.open_gdk(id, held.epoch, &held.gdk_sealed).unwrap());
        let entries = live(&hub, tenant, id, held.epoch).await;
        assert_eq!(entries.len(), 2, "bob and his template");
        let mut digest = Digest::new(log_id(id), held.epoch);
        for (record, body) in entries {
            digest.put(record.id, Leaf::of(&gdk, record.kind, record.id, record.rev, &body));
        }
        assert_eq!(held.root, digest.root());
        let last = hub.db.tenant(tenant, move |tx| Box::pin(galleries::root_at(tx, id, 1, 6))).await.unwrap();
        assert_eq!(last, Some(held.root), "the last of a root for each version");
        let versions: Vec<i64> = sqlx::query_scalar(
            "SELECT v.version FROM gallery_version v LEFT JOIN gallery_record r USING (tenant_id, gallery_id, epoch, version)
             WHERE v.gallery_id = $1 AND (r.version IS NOT NULL OR v.version = 0) ORDER BY v.version",
        )
        .bind(id.0)
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        assert_eq!(versions, [0, 1, 2, 3, 4, 5, 6]);
    }
}
