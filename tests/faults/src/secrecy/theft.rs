//! Everything that a thief of the database has, but no key from outside it: files and write-ahead log of Postgres, dumps of it, what
//! the broker keeps, and the hub's log. A base backup is not taken: the hub's own Postgres lets nobody replicate, and one would be the
//! same files without the searchable vectors. In none of it may a vector be anybody's who is enrolled.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cloud_hub::domain::ids::TenantId;
use cloud_hub::keys::Keyring;
use cloud_hub::store::Database;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Executor as _};
use uuid::Uuid;
use vector_scan::Form;

use super::Scan;
use crate::isolation::Neighbours;
use crate::lab::now;
use crate::line::people::Somebody;
use crate::outcome::Tally;
use crate::rig::process::run;

/// Takes it all and looks for the people who are enrolled: in every form if there is time, or in the one alone that Postgres has.
pub fn steal(neighbours: &Neighbours, people: &[Somebody], is_long: bool, tally: &mut Tally) -> Result<()> {
    let (site, url) = (neighbours.site(), neighbours.site().hub()?.ready().postgres.clone());
    let stolen = site.file("stolen");
    std::fs::create_dir_all(&stolen)?;
    site.block_on(async { site.database().await?.execute("CHECKPOINT").await.map(drop).map_err(anyhow::Error::from) })?;
    let tool = |name: &str| Command::new(site.places().parts.join("postgres/bin").join(name));
    run(tool("pg_dump").args(["--dbname", &url, "--file"]).arg(stolen.join("dump.sql")))?;
    run(tool("pg_dump")
        .args(["--dbname", &url, "--format=directory", "--compress=none", "--file"])
        .arg(stolen.join("dump")))?;
    let embeddings: Vec<Vec<f32>> = people.iter().map(|somebody| somebody.probe.embedding.clone()).collect();
    let mut scan = Scan::of(&embeddings);
    if !is_long {
        scan = scan.as_stored();
    }
    let data = site.hub_file("postgres");
    let places = [data.clone(), site.hub_file("broker"), site.hub_file("audit"), stolen];
    let (mut seen, begun) = (Vec::new(), now());
    for place in places.iter().filter(|place| place.is_dir()) {
        let before = scan.bytes;
        scan.look(place)?;
        seen.push(format!("{} {}", last(place), (scan.bytes - before) >> 10));
    }
    scan.look(&site.file("hub.log"))?;
    ensure!(scan.bytes > 10 << 20, "only {} bytes were looked at", scan.bytes);
    tally.injected += people.len() as u64;
    tally.figure("people_looked_for", people.len());
    tally.figure("scanned_mib", scan.bytes >> 20);
    tally.figure("scanned_kib_of", seen.join(", "));
    let seconds = begun.elapsed().as_secs_f64();
    tally.figure("scan_seconds", (seconds * 10.0).round() / 10.0);
    tally.figure("scanned_mib_a_second", ((scan.bytes >> 20) as f64 / seconds).round());
    tally.figure("windows_compared", scan.seen.windows);
    let likest = Form::ALL.map(|form| format!("{} {}", form.name(), thousandths(scan.seen.likest(form))));
    tally.figure("likest_thousandths_of", likest.join(", "));
    tally.figure("faces_found", scan.found.len());
    for found in &scan.found {
        tally.breach(format!("{} has a face as {}: {:.3}", found.file.display(), found.form.name(), found.cosine));
    }
    with_key(neighbours, &url, &embeddings, &data, tally)?;
    planted(neighbours, &embeddings, &data, tally)
}

/// The control: with the keys from outside the database, the same faces are in the same files.
fn with_key(neighbours: &Neighbours, url: &str, embeddings: &[Vec<f32>], data: &Path, tally: &mut Tally) -> Result<()> {
    let site = neighbours.site();
    let (from, to) = (site.hub_file("keys"), site.file("stolen-keys"));
    std::fs::create_dir_all(&to)?;
    for name in ["master.key", "pepper.key"] {
        std::fs::copy(from.join(name), to.join(name)).with_context(|| name.to_owned())?;
    }
    let keyring = std::sync::Arc::new(Keyring::open(&to)?);
    let tenant: Uuid = site.tenant().id.parse()?;
    let rotated: Vec<Vec<f32>> = site.block_on(async {
        let space: String = sqlx::query_scalar("SELECT space_id FROM template_vector WHERE tenant_id = $1 LIMIT 1")
            .bind(tenant)
            .fetch_one(&mut site.database().await?)
            .await
            .context("no searchable vector")?;
        let db = Database::new(url.parse::<PgConnectOptions>()?, 1);
        let rotations =
            db.tenant(TenantId(tenant), move |tx| Box::pin(async move { keyring.rotations(tx, &space).await }));
        let rotations = rotations.await?;
        let rotate = |embedding: &Vec<f32>| -> Result<Vec<f32>> {
            let embedding: Box<[f32; 512]> =
                embedding.clone().into_boxed_slice().try_into().ok().context("512 components")?;
            Ok(rotations.writing().rotation.apply(&embedding).to_vec())
        };
        embeddings.iter().map(rotate).collect::<Result<_>>()
    })?;
    let mut scan = Scan::of(&rotated).as_stored();
    scan.look(data)?;
    tally.figure("likest_with_key_thousandths", thousandths(scan.likest()));
    tally.add("control_found_with_key", scan.found.len() as u64);
    Ok(())
}

/// Rows of the control.
const PLANTED: usize = 8;

/// The control: a template that somebody did store as it is, is found.
fn planted(neighbours: &Neighbours, embeddings: &[Vec<f32>], data: &Path, tally: &mut Tally) -> Result<()> {
    let site = neighbours.site();
    let list: Vec<String> = embeddings[0].iter().map(f32::to_string).collect();
    site.block_on(async {
        let mut database = site.database().await?;
        database.execute("CREATE TABLE planted (vector vector(512))").await?;
        // A page of the write-ahead log has a head, which may stand in the middle of one of them, but not of all.
        for _ in 0..PLANTED {
            database.execute(AssertSqlSafe(format!("INSERT INTO planted VALUES ('[{}]')", list.join(",")))).await?;
        }
        database.execute("CHECKPOINT").await?;
        anyhow::Ok(())
    })?;
    let mut scan = Scan::of(&embeddings[..1]).as_stored();
    scan.look(data)?;
    let files: Vec<&PathBuf> = scan.found.iter().map(|found| &found.file).collect();
    let in_wal = files.iter().any(|file| file.components().any(|part| part.as_os_str() == "pg_wal"));
    tally.add("control_planted", files.len() as u64);
    tally.require(in_wal, || format!("a planted template was not found in the write-ahead log: {files:?}"));
    Ok(())
}

fn last(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[expect(clippy::cast_possible_truncation, reason = "a cosine")]
fn thousandths(cosine: f32) -> i64 {
    (cosine * 1_000.0).round() as i64
}
