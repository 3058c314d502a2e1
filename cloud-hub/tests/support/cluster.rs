//! Data directories for hubs, with a Postgres cluster in them already: a first start takes seconds, and few tests are about it.
//!
//! The cluster is made as a hub makes its own, with the schema of these sources, once; whoever needs one gets a copy.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloud_hub::embedded::parts;
use cloud_hub::embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use cloud_hub::store::{MIGRATIONS, migrate};
use ring::digest::{Context, SHA256};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

/// Where there is memory for folders, and how many bytes of it must be free: a cluster that is used has some forty million.
const MEMORY: (&str, u64) = ("/dev/shm", 4 << 30);

/// What a hub finds in its data directory after a first start that ended before it had keys: its cluster, and the passwords of that.
const PARTS: [&str; 2] = ["postgres", "secrets"];

/// True, with a line on stderr, when Postgres or Mosquitto is not installed here.
#[allow(clippy::print_stderr, reason = "the list of skipped tests is read from stderr")]
pub(crate) fn skipped(test: &str) -> bool {
    let missing = parts::postgres_bin(None).map(drop).and_then(|()| parts::mosquitto(None).map(drop)).err();
    if let Some(why) = &missing {
        eprintln!("SKIPPED {test}: {why}");
    }
    missing.is_some()
}

/// A data directory that the service user can reach, with a database of today's schema in it; an empty one where there is no Postgres.
pub(crate) fn data_dir() -> TempDir {
    let dir = empty_data_dir();
    if let Ok(bin) = parts::postgres_bin(None) {
        let (made, _held) = made(&bin);
        for part in PARTS {
            copy(&made.join(part), dir.path());
        }
    }
    dir
}

/// As [`data_dir`], for a first start. In memory where there is enough: a cluster has a thousand files, and a disk's file system without
/// a journal looks longer for the place of each, the more were deleted in the last minutes.
pub(crate) fn empty_data_dir() -> TempDir {
    let room = rustix::fs::statvfs(MEMORY.0).map_or(0, |memory| memory.f_bavail * memory.f_frsize);
    let within = if room >= MEMORY.1 { MEMORY.0 } else { "/tmp" };
    let dir = tempfile::Builder::new().prefix("hub-").tempdir_in(within).unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
    dir
}

/// The cluster to copy, made if there is none of these sources, and what keeps others from taking it away meanwhile.
fn made(bin: &Path) -> (PathBuf, File) {
    let all = parts::parts_dir().with_file_name("test-clusters");
    std::fs::create_dir_all(&all).unwrap();
    let lock = File::options().create(true).append(true).open(all.join("lock")).unwrap();
    let made = all.join(name(bin));
    loop {
        lock.lock_shared().unwrap();
        if made.is_dir() {
            return (made, lock);
        }
        lock.unlock().unwrap();
        lock.lock().unwrap();
        if !made.is_dir() {
            for older in std::fs::read_dir(&all).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
                std::fs::remove_dir_all(older.path()).unwrap();
            }
            make(&made);
        }
        lock.unlock().unwrap();
    }
}

/// Told by all that goes into it: the migrations, how a cluster is set up and copied, and whose programs make it. As they were when
/// this was built, whatever the sources say by now.
fn name(bin: &Path) -> String {
    let mut of = Context::new(&SHA256);
    of.update(bin.canonicalize().unwrap().as_os_str().as_encoded_bytes());
    for migration in MIGRATIONS.iter() {
        of.update(&migration.checksum);
    }
    of.update(include_bytes!("../../embedded/src/postgres.rs"));
    of.update(include_bytes!("cluster.rs"));
    hex::encode(&of.finish().as_ref()[..8])
}

fn make(at: &Path) {
    let dir = empty_data_dir();
    let options = PostgresOptions::for_data_dir(dir.path()).unwrap();
    // A thread of its own: the caller may be within a runtime.
    let thread = std::thread::spawn(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let postgres = EmbeddedPostgres::start(options).await.unwrap();
            migrate(&postgres.owner()).await.unwrap();
            // What is written to the log from here on is all that a copy needs of it.
            let mut superuser = PgConnection::connect_with(&postgres.superuser()).await.unwrap();
            superuser.execute("SELECT pg_switch_wal()").await.unwrap();
            superuser.execute("CHECKPOINT").await.unwrap();
            drop(superuser);
            postgres.stop().await;
        });
    });
    thread.join().unwrap();
    // Segments behind the present one are old ones that wait to be written again, 16 MiB each.
    let log = dir.path().join("postgres/data/pg_wal");
    let mut segments: Vec<_> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.is_file());
    segments.sort();
    for segment in &segments[1..] {
        std::fs::remove_file(segment).unwrap();
    }
    let unfinished = at.with_extension("new");
    std::fs::create_dir(&unfinished).unwrap();
    for part in PARTS {
        copy(&dir.path().join(part), &unfinished);
    }
    std::fs::rename(&unfinished, at).unwrap();
}

/// With owners and modes, for Postgres refuses files of others, and without writing the zeros that much of a cluster is.
fn copy(from: &Path, into: &Path) {
    let status = Command::new("cp").args(["--archive", "--sparse=always"]).args([from, into]).status().unwrap();
    assert!(status.success(), "cannot copy {} into {}", from.display(), into.display());
}
