//! A `store-worker` that works on the stores until it is killed, and its ledger.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::lab::now;
use crate::rig::cgroup::MemoryGroup;
use crate::rig::ledger::Ledger;
use crate::rig::plan::Plan;

/// A worker that takes longer than this to be promised anything hangs.
const FIRST_PROMISE: Duration = Duration::from_secs(30);

/// A running worker. Dropping it kills it.
pub struct Worker {
    child: Child,
}

/// What a worker is to do, and where.
#[derive(Clone, Debug)]
pub struct Task {
    /// The program `store-worker`.
    pub program: PathBuf,
    /// Its job.
    pub job: &'static str,
    /// The state directory that it works in.
    pub dir: PathBuf,
    /// Where its ledger lies.
    pub ledger: PathBuf,
    /// The round, which goes into what it writes.
    pub round: u64,
}

impl Task {
    /// The command that does it, with something that goes wrong in it.
    #[must_use]
    pub fn command(&self, plan: &Plan) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.job).arg(&self.dir).arg(&self.ledger).arg(self.round.to_string());
        if *plan != Plan::Nothing {
            command.arg(plan.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Worker {
    /// Starts the task.
    pub fn start(task: &Task) -> Result<Self> {
        Self::start_with(task, &Plan::Nothing)
    }

    /// Starts the task with something that goes wrong in it.
    pub fn start_with(task: &Task, plan: &Plan) -> Result<Self> {
        Self::spawn(task, task.command(plan))
    }

    /// Starts the task within a control group.
    pub fn start_in(task: &Task, group: &MemoryGroup) -> Result<Self> {
        Self::spawn(task, group.entered_by(&task.command(&Plan::Nothing)))
    }

    fn spawn(task: &Task, mut command: Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {}", task.program.display()))?;
        Ok(Self { child })
    }

    /// Waits for the worker's end. True when SIGKILL ended it.
    pub fn was_killed(mut self) -> Result<bool> {
        use std::os::unix::process::ExitStatusExt as _;
        Ok(self.child.wait()?.signal() == Some(libc::SIGKILL))
    }

    /// Waits until the ledger says that at least `number` things were promised.
    pub fn await_promises(&mut self, ledger: &Ledger, number: u64) -> Result<()> {
        let begun = now();
        while ledger.copy().all_acked() < number {
            if let Some(status) = self.child.try_wait()? {
                bail!("the worker ended ({status}) before it was promised {number}");
            }
            if now().duration_since(begun) > FIRST_PROMISE {
                bail!("the worker was promised only {} in {FIRST_PROMISE:?}", ledger.copy().all_acked());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGKILL. True when it was this that ended the worker.
    pub fn kill(mut self) -> Result<bool> {
        self.child.kill()?;
        self.was_killed()
    }

    /// Waits for the worker's own end.
    pub fn end(mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended long ago; then both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
