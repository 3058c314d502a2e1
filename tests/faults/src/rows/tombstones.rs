//! M5: enrolments and deletions race across a partition (see [`crate::race`]): both ends become equal, and nobody who was
//! deleted comes back, from the edge, a replay, an older copy, a snapshot under way, or a log whose tombstones are gone.
//!
//! The whole hub but its broker is real, Postgres included; so are the edge's store, galleries and receiver. Their files
//! stand in memory where there is room: no power is cut here, and ten thousand interleavings sync a hundred thousand times.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use tokio::runtime::Runtime;

use crate::lab::Lab;
use crate::outcome::{Control, Tally, Verdict};
use crate::race::hub::Hub;
use crate::race::{Kind, Match, Score};
use crate::row::{Need, Row};

/// The row. Its count is that of the interleavings.
pub(super) static M5: Row = Row {
    id: "M5",
    title: "enrolments and deletions race across a partition: all converge, the tombstone wins",
    count: 10_000,
    small: 40,
    needs: &[Need::Part("postgres")],
    run: interleavings,
};

/// Interleavings of one edge and one gallery. Longer, and every one would drag the tombstones of hundreds along; shorter, and
/// making tenants would be most of the time.
const OF_ONE_EDGE: u64 = 50;
/// Interleavings that each wrong edge is given: it must be caught at least once.
const CONTROLS: u64 = 30;

fn interleavings(lab: &mut Lab) -> Result<Verdict> {
    let runtime = Runtime::new()?;
    let dir = memory_dir()?;
    let mut hub = runtime.block_on(Hub::start(dir.path()))?;
    let (count, first) = (lab.count(), lab.first_seed());
    let tally = lab.phase("interleavings", count.div_ceil(OF_ONE_EDGE), |round, tally| {
        let begin = first + round * OF_ONE_EDGE;
        let many = OF_ONE_EDGE.min(count - round * OF_ONE_EDGE);
        let score = runtime.block_on(play(&mut hub, Kind::Real, begin, many))?;
        note(tally, &score);
        tally.require(is_clean(&score), || format!("an edge's interleavings from seed {begin} on: {score:?}"));
        Ok(())
    })?;
    let mut caught = |kind| {
        let score = runtime.block_on(play(&mut hub, kind, first, CONTROLS))?;
        anyhow::Ok(score.risen)
    };
    let control =
        Control::of("no_version_rule", caught(Kind::NoVersionRule)?).and("no_tombstones", caught(Kind::NoTombstones)?);
    let mut tally = tally;
    // A race that no late message was part of shows nothing.
    let late = tally.count_of("late_upserts");
    tally.require(late * 4 >= count, || format!("only {late} upserts came after their tombstone"));
    for (name, least) in
        [("snapshots_applied", count / 20), ("downloads_cut", count / 400), ("records_compacted", count / 4)]
    {
        let found = tally.count_of(name);
        tally.require(found >= least, || format!("only {found} {name}"));
    }
    Ok(Verdict { tally, control })
}

async fn play(hub: &mut Hub, kind: Kind, first: u64, many: u64) -> Result<Score> {
    let dir = memory_dir()?;
    let mut game = Match::begin(hub, kind, dir.path()).await?;
    for seed in first..first + many {
        game.play(seed).await?;
    }
    game.end().await
}

fn is_clean(score: &Score) -> bool {
    score.missing + score.risen + score.apart + score.hub_wrong == 0
}

fn note(tally: &mut Tally, score: &Score) {
    tally.injected += score.raced;
    tally.acked += score.committed;
    tally.lost += score.missing;
    tally.duplicated += score.risen;
    for (name, more) in [
        ("late_upserts", score.late_upserts),
        ("tried_to_bring_back", score.tried),
        ("older_copies", score.older_copies),
        ("messages_lost", score.lost),
        ("messages_doubled", score.doubled),
        ("messages_held", score.held),
        ("not_converged", score.apart),
        ("snapshots_offered", score.offers),
        ("snapshots_applied", score.applied),
        ("downloads_cut", score.cut),
        ("downloads_resumed", score.resumed),
        ("snapshots_gone", score.gone),
        ("records_compacted", score.compacted),
    ] {
        tally.add(name, more);
    }
}

/// A folder in memory, which Postgres' own user may enter.
fn memory_dir() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    let dir = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir_in("/tmp") }?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
    Ok(dir)
}
