//! A database restored from a backup is noticed, by a dump and by a copy of its folder alike, and devices are told by epochs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cloud_hub::domain::ids::TenantId;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::embedded::{Layout, parts};
use cloud_hub::keys::{Custody, Keyring, KeysError};
use cloud_hub::store::galleries;

use crate::support::{TestHub, skipped};

async fn gallery(hub: &TestHub, tenant: TenantId) -> galleries::Gallery {
    hub.db
        .tenant(tenant, |tx| {
            Box::pin(async move {
                let id = galleries::of_sites(tx, None).await?[0];
                galleries::get(tx, id).await
            })
        })
        .await
        .unwrap()
}

/// A hub's keys after a restart. The key store is one process's: the one before must be gone.
fn keys_again(hub: &TestHub, copy: &str) -> Custody {
    let (from, to) = (hub.dir.path().join("keys"), hub.dir.path().join(copy));
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    Custody::new(hub.db.clone(), Arc::new(Keyring::open(&to).unwrap()), hub.clock.clone())
}

#[tokio::test]
async fn a_database_restored_from_a_dump_is_noticed_at_the_next_start_and_epochs_rise_each_time() {
    if skipped("a_database_restored_from_a_dump_is_noticed_at_the_next_start_and_epochs_rise_each_time") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    let tenant = place.tenant;
    assert_eq!(hub.custody.notice_restore().await.unwrap(), None, "the first start");
    let ada = hub.person(tenant, "ada").await;
    hub.enrol(tenant, ada, 1).await;
    let dump = hub.dir.path().join("backup.sql");
    run(&hub, "pg_dump", &["--clean", "--if-exists", "-f"], &dump);

    // After the backup: the mark grows, somebody comes and somebody is deleted.
    hub.custody.beat().await.unwrap();
    let late = hub.person(tenant, "late").await;
    hub.custody.delete_person(tenant, ada, "test").await.unwrap();
    let before = gallery(&hub, tenant).await;
    assert_eq!(keys_again(&hub, "same").notice_restore().await.unwrap(), None, "a mere restart");

    run(&hub, "psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f"], &dump);
    let restarted = keys_again(&hub, "restored");
    let raised = restarted.notice_restore().await.unwrap().expect("it is noticed");
    assert_eq!((raised.hub_epoch, raised.gallery_epoch, raised.galleries), (2, 2, 1));
    assert_eq!(restarted.keyring().hub_epoch(), 2);
    let held = gallery(&hub, tenant).await;
    assert_eq!((held.epoch, held.compacted_to), (2, held.version), "every device takes a snapshot");
    assert!(held.version < before.version, "the backup lacks what came after it");
    let link = restarted.link(tenant, place.device).await.unwrap();
    assert_eq!((link.hub_epoch, link.galleries[0].epoch), (2, 2));
    assert_eq!(*link.galleries[0].gdk, *place.link.galleries[0].gdk);
    assert!(link.link_epoch > place.link.link_epoch + 100, "higher than any that the device may have had since");
    // Her key went with her deletion, which no backup of the database undoes; nor does one bring back who came after it.
    assert!(matches!(restarted.person_key(tenant, ada).await, Err(KeysError::NoPersonKey(_))));
    assert!(hub.db.tenant(tenant, move |tx| Box::pin(cloud_hub::store::people::get(tx, late))).await.is_err());
    assert_eq!(restarted.notice_restore().await.unwrap(), None, "once");

    // The same backup a second time: higher again, for devices have seen epoch 2.
    run(&hub, "psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f"], &dump);
    let raised = restarted.notice_restore().await.unwrap().expect("it is noticed again");
    assert_eq!((raised.hub_epoch, raised.gallery_epoch), (3, 3));
}

#[tokio::test]
async fn a_folder_of_the_database_put_back_is_noticed() {
    if skipped("a_folder_of_the_database_put_back_is_noticed") {
        return;
    }
    let hub = TestHub::start().await;
    let place = hub.place().await;
    hub.custody.notice_restore().await.unwrap();
    let TestHub { dir, postgres, db, custody, links, clock } = hub;
    let data = Layout::new(dir.path()).postgres_dir();
    let backup = dir.path().join("postgres-backup");
    let start = || async { EmbeddedPostgres::start(PostgresOptions::for_data_dir(dir.path()).unwrap()).await.unwrap() };
    postgres.stop().await;
    copy(&data, &backup);
    let postgres = start().await;
    custody.beat().await.unwrap();
    postgres.stop().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let postgres = start().await;
    let raised = custody.notice_restore().await.unwrap().expect("it is noticed");
    assert_eq!((raised.hub_epoch, raised.gallery_epoch), (2, 2));
    let hub = TestHub { dir, postgres, db, custody, links, clock };
    assert_eq!(gallery(&hub, place.tenant).await.epoch, 2);
}

#[tokio::test]
async fn a_backup_from_before_other_gallery_keys_is_raised_above_their_epoch_by_every_hub() {
    if skipped("a_backup_from_before_other_gallery_keys_is_raised_above_their_epoch_by_every_hub") {
        return;
    }
    let hub = TestHub::start().await;
    let tenant = hub.place().await.tenant;
    hub.custody.notice_restore().await.unwrap();
    let dump = hub.dir.path().join("backup.sql");
    run(&hub, "pg_dump", &["--clean", "--if-exists", "-f"], &dump);
    hub.custody.beat().await.unwrap();
    let other = keys_again(&hub, "other");
    for epoch in [2, 3] {
        hub.custody.rotate_gallery_keys(tenant, "test").await.unwrap();
        assert_eq!(gallery(&hub, tenant).await.epoch, epoch);
    }
    // A hub that did nothing of it has its next mark.
    other.beat().await.unwrap();

    for one in [keys_again(&hub, "the-one-that-did-it"), other] {
        run(&hub, "psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f"], &dump);
        assert_eq!(gallery(&hub, tenant).await.epoch, 1, "the backup knows nothing of it");
        let raised = one.notice_restore().await.unwrap().expect("it is noticed");
        assert_eq!((raised.gallery_epoch, gallery(&hub, tenant).await.epoch), (4, 4));
    }
}

/// Keeps owners and modes: Postgres refuses a folder that others may read.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn run(hub: &TestHub, program: &str, arguments: &[&str], file: &Path) {
    let program = parts::postgres_bin(None).unwrap().join(program);
    let done =
        Command::new(&program).args(["-d", &hub.postgres.superuser_url()]).args(arguments).arg(file).output().unwrap();
    assert!(done.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&done.stderr));
}
