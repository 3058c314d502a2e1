//! C1: the wall clock jumps, while the device runs and while it is off, with the hub and without it. Nobody is let in whose
//! time is over or has not come, nobody is kept out whose time it is, TLS goes on being verified, and events keep their order.
//!
//! The device is a process of its own under libfaketime, whose time this row sets through a file; its monotonic clock is the
//! machine's. It is the agent's clock, sync, door, record thread and outbox against a real hub over mutual TLS; faces are
//! given ([`crate::work::door`]), and so is the gallery with people of limited validity, for the hub limits nobody in time yet.
//! The machine does not really boot: the mark that the clock leaves is written anew under another boot's name, which is all
//! that a boot changes of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_agent::clock::SystemClock;
use edge_store::{ClockMark, ClockStore, DeviceKeys, ProvenTime};
use serde_json::Value;
use uuid::Uuid;

use crate::lab::{Lab, now};
use crate::line::forgery::Authority;
use crate::line::knock::Doubtful;
use crate::line::{Fault, Proxy, Site, forgery};
use crate::outcome::{Control, Tally, Verdict};
use crate::row::{Need, Row};
use crate::work::limits::{self, Visitor};

/// The row. Its count is that of the jumps.
pub(super) static C1: Row = Row {
    id: "C1",
    title: "wall clock jumps, running and at boot: no wrong grant, nobody shut out, TLS verified, order kept",
    count: 100,
    small: 5,
    needs: &[Need::Part("postgres"), Need::Program("mosquitto", "mosquitto"), Need::Program("faketime", "faketime")],
    run: jumps,
};

const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;
/// How soon the clock must be trusted again once the hub can be reached: a device asks after ten seconds at the latest.
const TRUSTED_WITHIN: Duration = Duration::from_secs(15);
/// And how soon its line must be up.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The clock of the worker reads its file anew each time; this is for the machine.
const NEAR_S: i64 = 5;

/// Where the wall clock jumps to.
#[derive(Clone, Copy, Debug)]
enum Jump {
    By(i64),
    To1970,
}

/// Short counts begin with what differs most.
const JUMPS: [Jump; 7] = [
    Jump::By(-10 * YEAR),
    Jump::By(DAY),
    Jump::To1970,
    Jump::By(10 * YEAR),
    Jump::By(-DAY),
    // A leap second, inserted and left out.
    Jump::By(-1),
    Jump::By(1),
];

/// When it jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// At a boot, and the hub cannot be reached at first.
    BootCutOff,
    /// While the device runs.
    Live,
    /// At a boot.
    Boot,
    /// While the device runs, cut off from the hub.
    LiveCutOff,
    /// While the program is started anew within one boot.
    Restart,
}

const MOMENTS: [Moment; 5] = [Moment::BootCutOff, Moment::Live, Moment::Boot, Moment::LiveCutOff, Moment::Restart];

fn jumps(lab: &mut Lab) -> Result<Verdict> {
    let (count, program) = (lab.count(), lab.program("clock-worker"));
    let mut scene = None;
    let jumped = lab.phase("jumps", count, |number, tally| {
        let scene = match &mut scene {
            Some(scene) => scene,
            None => scene.insert(Scene::open(&program)?),
        };
        let index = usize::try_from(number)?;
        // Seven and five have no common divisor: every jump meets every moment.
        scene.jump(JUMPS[index % JUMPS.len()], MOMENTS[index % MOMENTS.len()], tally)
    })?;
    let mut scene = match scene {
        Some(scene) => scene,
        None => Scene::open(&program)?,
    };
    let ended = lab.phase("end", 1, |_, tally| scene.end(tally))?;
    let impostors = lab.phase("impostors", 1, |_, tally| scene.impostors(tally))?;
    let control = lab.phase("control", 1, |_, tally| scene.believing(tally))?;
    let mut tally = jumped;
    tally.merge(ended);
    tally.merge(impostors);
    let control = Control::of("wrong_grants", control.count_of("wrong_grants"))
        .and("shut_out", control.count_of("shut_out"))
        .and("no_line", control.count_of("no_line"));
    Ok(Verdict { tally, control })
}

/// A hub, a device and the two ways between them.
struct Scene {
    worker: Option<Worker>,
    broker: Proxy,
    https: Proxy,
    time: PathBuf,
    limits: PathBuf,
    program: PathBuf,
    site: Site,
}

impl Scene {
    fn open(program: &Path) -> Result<Self> {
        let site = Site::open(1)?;
        let hub: SocketAddr = site.hub()?.ready().https.trim_start_matches("https://").trim_end_matches('/').parse()?;
        let broker: SocketAddr = site.hub()?.ready().mqtt.parse()?;
        let (broker, https) =
            site.block_on(async { anyhow::Ok((Proxy::start(broker).await?, Proxy::start(hub).await?)) })?;
        let (time, limits) = (site.file("faketime"), site.file("limits"));
        limits::make(&limits, SystemClock::utc().unix_timestamp())?;
        let mut scene = Self { worker: None, broker, https, time, limits, program: program.to_path_buf(), site };
        scene.set(0)?;
        scene.start(false, scene.https.port())?;
        scene.until_trusted()?.context("the first start did not learn the time")?;
        Ok(scene)
    }

    /// One jump, what must hold at once, what must hold soon, and back to the true time.
    fn jump(&mut self, jump: Jump, moment: Moment, tally: &mut Tally) -> Result<()> {
        let cut_off = matches!(moment, Moment::BootCutOff | Moment::LiveCutOff);
        if cut_off {
            self.reach(false);
        }
        let stopped = matches!(moment, Moment::Boot | Moment::BootCutOff | Moment::Restart);
        if stopped {
            self.stop()?;
        }
        if matches!(moment, Moment::Boot | Moment::BootCutOff) {
            forget_the_boot(&self.site.device_dir(0))?;
        }
        let by = match jump {
            Jump::By(seconds) => seconds,
            Jump::To1970 => 1000 - SystemClock::utc().unix_timestamp(),
        };
        self.set(by)?;
        if stopped {
            self.start(false, self.https.port())?;
        }
        let what = format!("{jump:?} {moment:?}");
        let clock = self.ask("clock")?;
        let off = clock["shown"].as_i64().context("no time")? - SystemClock::utc().unix_timestamp();
        tally.injected += u64::from((off - by).abs() <= NEAR_S);
        tally.add(&format!("moment_{moment:?}"), 1);
        if moment == Moment::BootCutOff {
            tally.require(clock["trusted"] == false, || format!("{what}: the clock is believed without a reason"));
            self.visits(&what, false, tally)?;
        }
        if !matches!(moment, Moment::Boot | Moment::BootCutOff) {
            tally.require(clock["trusted"] == true, || format!("{what}: a jump has shaken a time that was proven"));
            self.visits(&what, true, tally)?;
        }
        if cut_off {
            self.reach(true);
        }
        match self.until_trusted()? {
            Some(took) => {
                tally.raise("trusted_after_ms_longest", u64::try_from(took.as_millis())?);
                self.visits(&what, true, tally)?;
            }
            None => tally.breach(format!("{what}: the clock is still not trusted, {}", self.ask("line")?)),
        }
        let up = self.until(CONNECTED_WITHIN, "line", |line| line["connected"] == true)?;
        tally.require(up.is_some(), || format!("{what}: no line to the hub"));
        self.set(0)
    }

    /// Everybody comes to the door; nobody may be let in who may not, and nobody be shut out who may. Without a trusted
    /// time those with limits are shut out.
    fn visits(&mut self, what: &str, trusted: bool, tally: &mut Tally) -> Result<()> {
        for visitor in Visitor::ALL {
            let opened = self.opens(visitor)?;
            let may = visitor.may_come_in() && (trusted || visitor == Visitor::Unlimited);
            tally.add("visits", 1);
            tally.add("wrong_grants", u64::from(opened && !may));
            tally.require(opened == may, || format!("{what}: {visitor:?} came and the door opened: {opened}"));
        }
        Ok(())
    }

    fn opens(&mut self, visitor: Visitor) -> Result<bool> {
        let name = serde_json::to_value(visitor)?;
        self.ask(name.as_str().context("a visitor has a name")?)?["opened"].as_bool().context("no answer")
    }

    /// Everything is at the hub, in order, without a hole.
    fn end(&mut self, tally: &mut Tally) -> Result<()> {
        let drained = self.until(PATIENCE, "line", |line| line["pending"] == 0)?;
        tally.require(drained.is_some(), || "events are left at the device".to_owned());
        let recorded = self.ask("line")?["recorded"].as_i64().context("no number")?;
        self.stop()?;
        let (events, disordered, backwards) = self.site.block_on(async {
            let mut tables = self.site.database().await?;
            let row: (i64, i64, i64) = sqlx::query_as(ORDER).fetch_one(&mut tables).await?;
            anyhow::Ok(row)
        })?;
        tally.acked += u64::try_from(recorded)?;
        tally.lost += u64::try_from((recorded - events).max(0))?;
        tally.duplicated += u64::try_from((events - recorded).max(0))?;
        tally.require(disordered == 0, || format!("{disordered} events are not behind the one before"));
        // By the wall clock they are not in order, which is why the order is not the wall clock's.
        tally.figure("events_that_go_back_in_time", backwards);
        Ok(())
    }

    /// A boot with a clock that is ten years ahead, and at the hub's address somebody else: nothing is believed.
    fn impostors(&mut self, tally: &mut Tally) -> Result<()> {
        self.stop()?;
        self.reach(true);
        let pki = self.site.hub_file("pki");
        let hub = forgery::server()?;
        let (devices, service) = (Authority::of_hub(&pki, "device-ca")?, Authority::of_hub(&pki, "service-ca")?);
        let mut elsewhere = forgery::server()?;
        elsewhere.subject_alt_names = vec![rcgen::SanType::IpAddress([192, 0, 2, 1].into())];
        let mut elsewhere = service.sign(&elsewhere)?;
        elsewhere.chain.push(Authority::of_hub(&pki, "root")?.der().clone());
        let shown = [
            ("nobody's authority", Authority::of_nobody("Lintel root")?.sign(&hub)?),
            ("an authority for devices", devices.sign(&hub)?),
            ("another server's name", elsewhere),
        ];
        for (name, shown) in shown {
            let impostor = Doubtful::start(&shown, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
            forget_the_boot(&self.site.device_dir(0))?;
            self.set(10 * YEAR)?;
            self.broker.inject(Fault::Refused);
            self.start(false, impostor.address().port())?;
            let begun = now();
            while impostor.counts().0 < 2 && begun.elapsed() < PATIENCE {
                std::thread::sleep(LOOK_EVERY);
            }
            let (met, trusted) = impostor.counts();
            ensure!(met > 0, "{name}: the device did not ask");
            tally.add("impostors_met", met);
            tally.require(trusted == 0, || format!("{name}: the device said something to it"));
            let clock = self.ask("clock")?;
            tally.require(clock["trusted"] == false, || format!("{name}: its time is believed"));
            self.visits(name, false, tally)?;
            self.stop()?;
        }
        self.broker.heal();
        Ok(())
    }

    /// The broken variant: a device that believes its clock.
    fn believing(&mut self, tally: &mut Tally) -> Result<()> {
        self.stop()?;
        self.reach(true);
        self.set(0)?;
        self.start(true, self.https.port())?;
        for jump in [-DAY, DAY] {
            self.set(jump)?;
            for visitor in Visitor::ALL {
                let opened = self.opens(visitor)?;
                tally.add("wrong_grants", u64::from(opened && !visitor.may_come_in()));
                tally.add("shut_out", u64::from(!opened && visitor.may_come_in()));
            }
        }
        self.stop()?;
        self.set(10 * YEAR)?;
        self.start(true, self.https.port())?;
        let up = self.until(Duration::from_secs(5), "line", |line| line["connected"] == true)?;
        tally.add("no_line", u64::from(up.is_none()));
        self.stop()
    }

    // ---- the worker and its world

    /// The wall clock of the worker is this far from the true time from now on.
    fn set(&self, by: i64) -> Result<()> {
        let fresh = self.time.with_extension("new");
        fs::write(&fresh, format!("{by:+}\n"))?;
        Ok(fs::rename(&fresh, &self.time)?)
    }

    fn reach(&self, can: bool) {
        for way in [&self.broker, &self.https] {
            if can {
                way.heal();
            } else {
                way.inject(Fault::Refused);
            }
        }
    }

    fn start(&mut self, believing: bool, https: u16) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .arg(self.site.device_dir(0))
            .arg(&self.limits)
            .args(["--broker", &self.broker.port().to_string(), "--https", &https.to_string()])
            .args(believing.then_some("--believing"))
            .env("LD_PRELOAD", faketime()?)
            .env("FAKETIME_TIMESTAMP_FILE", &self.time)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .env("LC_ALL", "C");
        self.worker = Some(Worker::start(command)?);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        match self.worker.take() {
            Some(worker) => worker.stop(),
            None => Ok(()),
        }
    }

    fn ask(&mut self, word: &str) -> Result<Value> {
        self.worker.as_mut().context("the worker is not running")?.ask(word)
    }

    fn until_trusted(&mut self) -> Result<Option<Duration>> {
        self.until(TRUSTED_WITHIN, "clock", |clock| clock["trusted"] == true)
    }

    fn until(&mut self, limit: Duration, word: &str, so: impl Fn(&Value) -> bool) -> Result<Option<Duration>> {
        let begun = now();
        while begun.elapsed() < limit {
            if so(&self.ask(word)?) {
                return Ok(Some(begun.elapsed()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(None)
    }
}

/// Events of the device at the hub, steps in their order that are not by one, and steps back in time.
const ORDER: &str = "
    SELECT count(*), count(*) FILTER (WHERE step <> 1), count(*) FILTER (WHERE earlier) FROM (
        SELECT sequence - lag(sequence, 1, 0::bigint) OVER (PARTITION BY stream ORDER BY position) AS step,
               occurred_at < lag(occurred_at) OVER (PARTITION BY stream ORDER BY sequence) AS earlier
        FROM event WHERE device_id IS NOT NULL) steps";

/// What a boot does to what was known of the time: the proof is another boot's.
fn forget_the_boot(dir: &Path) -> Result<()> {
    let keys = DeviceKeys::open(&dir.join("keys"), None)?;
    let (mut store, doubt) = ClockStore::open(dir, &keys)?;
    ensure!(doubt.is_none(), "the device's mark of the time is damaged");
    let mark = store.last().context("the device has left no mark of the time")?;
    let proven = mark.proven.map(|proven| ProvenTime { boot: Uuid::nil(), ..proven });
    Ok(store.advance(ClockMark { proven, ..mark })?)
}

fn faketime() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path().join("faketime")));
    let mut found: BTreeMap<u8, PathBuf> = BTreeMap::new();
    for folder in folders {
        for (rank, name) in (0..).zip(["libfaketimeMT.so.1", "libfaketime.so.1"]) {
            if folder.join(name).exists() {
                found.entry(rank).or_insert(folder.join(name));
            }
        }
    }
    found.into_values().next().context("libfaketime is not below /usr/lib (package faketime)")
}

/// The process under another's time.
struct Worker {
    child: Child,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let (words, answers) = (child.stdin.take(), child.stdout.take());
        let mut worker = Self {
            child,
            words: words.context("its input is a pipe")?,
            answers: BufReader::new(answers.context("its output is a pipe")?),
        };
        worker.hear().context("the worker did not start")?;
        Ok(worker)
    }

    fn ask(&mut self, word: &str) -> Result<Value> {
        writeln!(self.words, "{word}")?;
        self.hear().with_context(|| format!("asked for `{word}`"))
    }

    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line)?;
        ensure!(read > 0, "the worker has ended: {:?}", self.child.try_wait()?);
        Ok(serde_json::from_str(&line)?)
    }

    fn stop(mut self) -> Result<()> {
        self.ask("stop")?;
        let ended = self.child.wait()?;
        ensure!(ended.success(), "the worker ended with {ended}");
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended in order; then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
