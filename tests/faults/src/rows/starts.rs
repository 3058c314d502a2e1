//! D8: the agent starts with damaged stores, and there is no hub. What its door does is decided within two seconds.
//!
//! The real program with a claimed device's state of 10,000 people, one part of which is damaged. It must come up, its relay
//! in its fail state, its galleries empty and told as doubtful on the log, the old store key destroyed; the hub's
//! address is one where nobody answers. The control is the same start undamaged, which the same checks must refuse.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::each_call::memory_dir;
use crate::lab::{Lab, now};
use crate::outcome::{Control, Tally, Verdict};
use crate::rig::damage::{copy_dir, files_below};
use crate::rig::random::Random;
use crate::row::{Need, Row, part};
use crate::work::state;

/// The row.
pub(super) static D8: Row = Row {
    id: "D8",
    title: "a start with damaged stores and no hub: decided within 2 s, nobody let in",
    count: 40,
    small: 4,
    needs: &[Need::Part("onnxruntime/libonnxruntime.so"), Need::Part("models/faceplugin")],
    run: starts,
};

const PEOPLE: u64 = 10_000;
const DECIDED_WITHIN_MS: u64 = 2000;
/// One that is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(10);
const CONTROL_STARTS: u64 = 2;
/// The parts that are damaged in turn; each makes the gallery one that nobody may believe.
const TARGETS: [&str; 4] = ["/db", "galleries/*/watermark", "keys/store-", "keys/watermark"];

fn starts(lab: &mut Lab) -> Result<Verdict> {
    let program = lab.program("edge-agent");
    ensure!(program.is_file(), "{} is missing: run `cargo build --release --workspace --bins`", program.display());
    let original = memory_dir()?;
    state::make_crowd(original.path(), PEOPLE)?;
    let tally = lab.phase("starts", lab.count(), |round, tally| {
        let site = Site::copied(original.path(), &program)?;
        let what = site.damage(round)?;
        let told = tally.told.len();
        site.start(tally)?;
        for breach in &mut tally.told[told..] {
            *breach += &format!(" (damaged: {what})");
        }
        tally.injected += 1;
        Ok(())
    })?;
    let control =
        lab.phase("control", CONTROL_STARTS, |_, tally| Site::copied(original.path(), &program)?.start(tally))?;
    Ok(Verdict { tally, control: Control::of("refused_undamaged", control.breaches) })
}

/// A state directory, a configuration, and where the agent's log goes.
struct Site {
    dir: TempDir,
    program: PathBuf,
}

/// A started agent; dropping it ends it.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    fn copied(original: &Path, program: &Path) -> Result<Self> {
        let dir = memory_dir()?;
        copy_dir(original, &dir.path().join("state"))?;
        fs::create_dir(dir.path().join("run"))?;
        let site = Self { dir, program: program.to_path_buf() };
        fs::write(site.config(), site.config_text()?)?;
        Ok(site)
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("edge-agent.toml")
    }

    fn config_text(&self) -> Result<String> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the lab's place")?;
        Ok(format!(
            "schema_version = 1\n[agent]\nstate_dir = \"{state}\"\nruntime_dir = \"{run}\"\n\
             [log]\ntarget = \"stderr\"\n\
             [models]\nmanifest = \"{manifest}\"\nweights = \"{weights}\"\nonnxruntime = \"{runtime}\"\n\
             [[camera]]\nid = \"front\"\nsource = \"test\"\npattern = \"smpte\"\n\
             [[door]]\nid = \"main\"\ncamera = \"front\"\nactuator = \"simulated\"\n",
            state = self.dir.path().join("state").display(),
            run = self.dir.path().join("run").display(),
            manifest = repository.join("models/faceplugin/manifest.toml").display(),
            weights = part("models/faceplugin").display(),
            runtime = part("onnxruntime/libonnxruntime.so").display(),
        ))
    }

    /// Damages one part: its bytes are zero from somewhere on.
    fn damage(&self, round: u64) -> Result<String> {
        let state = self.dir.path().join("state");
        let target = TARGETS[usize::try_from(round % TARGETS.len() as u64)?];
        let (before, behind) = target.split_once('*').unwrap_or(("", target));
        let path = files_below(&state)?
            .into_iter()
            .find(|path| {
                let below = path.strip_prefix(&state).unwrap_or(path).to_string_lossy().into_owned();
                below.starts_with(before) && below.contains(behind)
            })
            .with_context(|| format!("there is no {target}"))?;
        let mut bytes = fs::read(&path)?;
        // Small files wholly, so that no slot of a watermark is left; of a long one all behind a place in its first half.
        let half = bytes.len() as u64 / 2;
        let from = if half < 8192 { 0 } else { usize::try_from(Random::new(round).below(half))? };
        bytes[from..].fill(0);
        fs::write(&path, bytes)?;
        Ok(format!("{} from byte {from}", path.strip_prefix(&state)?.display()))
    }

    /// Starts the agent, waits until it answers, and judges what it does.
    fn start(&self, tally: &mut Tally) -> Result<()> {
        let log = self.dir.path().join("log");
        let keys_before = state::store_keys(&self.dir.path().join("state"))?;
        let begun = now();
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config()).arg("run").env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut agent = Agent(command.spawn().context("the agent cannot be started")?);
        let door = self.dir.path().join("run/door-main.sock");
        let answer = loop {
            if let Some(status) = agent.0.try_wait()? {
                tally.breach(format!("the agent ended ({status}): {}", tail(&log)));
                return Ok(());
            }
            if door.exists()
                && let Some(answer) = self.ask()
            {
                break answer;
            }
            if now().duration_since(begun) > PATIENCE {
                tally.breach(format!("the agent did not answer in {PATIENCE:?}: {}", tail(&log)));
                return Ok(());
            }
            std::thread::sleep(ASK_EVERY);
        };
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tally.raise("slowest_start_ms", took);
        tally.require(took <= DECIDED_WITHIN_MS, || format!("the start took {took} ms"));
        let known = answer.to_string();
        tally.require(!known.contains(&PEOPLE.to_string()), || format!("the gallery is still believed: {known}"));
        let told = fs::read_to_string(&log)?;
        tally.require(told.contains("gallery_doubtful"), || format!("no alarm on the log: {}", tail(&log)));
        let relay = relay_state(&door)?;
        tally.require(relay.contains("locked") && !relay.contains("unlocked"), || format!("the relay says {relay}"));
        let left = state::store_keys(&self.dir.path().join("state"))?;
        tally.require(keys_before.iter().all(|key| !left.contains(key)), || "the old store key is there".to_owned());
        Ok(())
    }

    /// What `edge-agent gallery status` says; none while the agent does not answer.
    fn ask(&self) -> Option<Value> {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config()).args(["gallery", "status", "-o", "json"]).stdin(Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        serde_json::from_slice(&output.stdout).ok()
    }
}

/// The first line of the simulated door's socket.
fn relay_state(door: &Path) -> Result<String> {
    use std::io::{BufRead as _, BufReader};
    let socket = std::os::unix::net::UnixStream::connect(door)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
}
