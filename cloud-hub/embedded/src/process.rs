//! Child processes that cannot outlive the hub.
//!
//! In: a [`ChildSpec`]. Out: an [`OwnedChild`] whose exit can be awaited, whose last log lines are kept for error
//! messages, and which the kernel signals when this process dies, however it dies.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked dies, and changing the user id clears it. Hence the one
//! thread below that lives as long as the process and does every fork, and hence the `pre_exec` hook, which the
//! standard library runs after it has changed the user id.
//!
//! Deliberately absent: restarting. That is a decision of the supervisor in `mod.rs`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use super::service_user::ServiceUser;

/// How many of a child's last log lines an error message may quote.
const RECENT_LINES: usize = 12;

/// What to start and as whom.
#[derive(Debug, Clone)]
pub(super) struct ChildSpec {
    /// Short name for logs and errors, such as `postgres`.
    pub name: &'static str,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The whole environment; nothing is inherited, so that a developer's `PGHOST` cannot change what happens.
    pub env: Vec<(OsString, OsString)>,
    /// The user to become, or `None` to stay oneself.
    pub user: Option<ServiceUser>,
    /// Sent by the kernel when the hub dies.
    pub death_signal: Signal,
}

/// A running child process. Dropping it does not stop it; [`OwnedChild::stop`] does, and so does the hub's death.
#[derive(Debug)]
pub(super) struct OwnedChild {
    name: &'static str,
    pid: u32,
    pidfd: OwnedFd,
    exit: watch::Receiver<Option<ExitStatus>>,
    recent: Arc<Mutex<VecDeque<String>>>,
}

type SpawnJob = Box<dyn FnOnce() + Send>;

/// The thread every child is forked from. It never ends before the process does. Its channel is a rendezvous: whoever
/// asks waits until the fork before is done.
fn spawner() -> &'static mpsc::SyncSender<SpawnJob> {
    static SPAWNER: OnceLock<mpsc::SyncSender<SpawnJob>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::sync_channel::<SpawnJob>(0);
        std::thread::Builder::new()
            .name(String::from("spawner"))
            .spawn(move || {
                for job in jobs {
                    job();
                }
            })
            .expect("the operating system refuses a thread at start: nothing can run");
        sender
    })
}

/// Starts the child from the spawner thread.
///
/// Fails with the operating system's error: a missing executable, a user that may not be taken, no memory.
pub(super) fn spawn(spec: &ChildSpec) -> io::Result<OwnedChild> {
    let mut command = command(spec);
    let (reply, answer) = mpsc::sync_channel(1);
    spawner()
        .send(Box::new(move || {
            // The receiver waits below; if it is gone the process is going down with it.
            drop(reply.send(command.spawn()));
        }))
        .expect("the spawner thread holds its receiver for the life of the process");
    let child = answer.recv().expect("the spawner answers every job")?;
    OwnedChild::watch(spec.name, child)
}

fn command(spec: &ChildSpec) -> Command {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().cloned())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group: Ctrl-C in a terminal reaches the hub alone, which then stops its parts in order.
        .process_group(0);
    if let Some(user) = &spec.user {
        command.uid(user.uid).gid(user.gid);
    }
    let death_signal = spec.death_signal.as_raw();
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: between fork and exec only async-signal-safe system calls are made: umask, prctl and getppid.
    unsafe {
        command.pre_exec(move || {
            libc::umask(0o077);
            if libc::prctl(libc::PR_SET_PDEATHSIG, death_signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The hub may have died between the fork and the line above; then no signal will ever come.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command
}

impl OwnedChild {
    fn watch(name: &'static str, mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let recent = Arc::new(Mutex::new(VecDeque::with_capacity(RECENT_LINES)));
        let readers: Vec<_> = [
            child.stdout.take().map(|pipe| follow(name, pipe, &recent)),
            child.stderr.take().map(|pipe| follow(name, pipe, &recent)),
        ]
        .into_iter()
        .flatten()
        .collect::<Result<_, _>>()?;
        let (exited, exit) = watch::channel(None);
        std::thread::Builder::new().name(format!("wait-{name}")).spawn(move || {
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0x7f00));
            for reader in readers {
                // A grandchild may hold the pipe open for a moment longer; the status does not wait for it.
                if reader.is_finished() {
                    drop(reader.join());
                }
            }
            exited.send_replace(Some(status));
        })?;
        Ok(Self { name, pid, pidfd, exit, recent })
    }

    /// The process id, for messages.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The exit status if the child has ended.
    #[must_use]
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Resolves when the child has ended.
    pub(super) async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await;
        status.ok().and_then(|status| *status).unwrap_or_else(|| ExitStatus::from_raw(0x7f00))
    }

    /// The child's last log lines, oldest first, for an error message.
    #[must_use]
    pub(super) fn recent_log(&self) -> String {
        let lines = self.recent.lock();
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    /// Sends a signal; a child that has ended already is no error.
    pub(super) fn signal(&self, signal: Signal) {
        if self.exited().is_none() {
            // A pid file descriptor cannot hit a process that took over the number.
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Asks the child to stop with `signal`, waits at most `grace`, then kills it. Returns when it has ended.
    pub(super) async fn stop(&self, signal: Signal, grace: Duration) {
        self.signal(signal);
        if tokio::time::timeout(grace, self.wait()).await.is_err() {
            tracing::warn!(part = self.name, pid = self.pid, "did not stop in time and is killed");
            self.signal(Signal::KILL);
            self.wait().await;
        }
    }
}

/// Forwards a child's lines to the log and keeps the last ones.
fn follow(
    name: &'static str,
    pipe: impl Read + Send + 'static,
    recent: &Arc<Mutex<VecDeque<String>>>,
) -> io::Result<std::thread::JoinHandle<()>> {
    let recent = Arc::clone(recent);
    std::thread::Builder::new().name(format!("log-{name}")).spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if line.is_empty() {
                continue;
            }
            if is_trouble(&line) {
                tracing::warn!(event = "part_in_trouble", part = name, "{line}");
            } else {
                tracing::debug!(part = name, "{line}");
            }
            let mut recent = recent.lock();
            if recent.len() == RECENT_LINES {
                recent.pop_front();
            }
            recent.push_back(line);
        }
    })
}

/// Whether the operator should read a child's line. Of Mosquitto's these are its errors and warnings, such as a certificate
/// that it refused; Postgres calls everything an error that a statement gets for an answer, so that only what ends a
/// session or the whole server counts there.
fn is_trouble(line: &str) -> bool {
    ["OpenSSL Error", "Error:", "Warning:", "Client <unknown> disconnected", "Client connection from"]
        .iter()
        .any(|start| line.starts_with(start))
        || ["FATAL: ", "PANIC: "].iter().any(|level| line.contains(level))
}

/// Runs a short-lived program to its end and returns its status and last lines.
pub(super) async fn run(spec: &ChildSpec) -> io::Result<(ExitStatus, String)> {
    let child = spawn(spec)?;
    let status = child.wait().await;
    // The reader threads finish right after the pipes close; the last lines are worth a short wait.
    for _ in 0..20 {
        if !child.recent.lock().is_empty() || status.success() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok((status, child.recent_log()))
}
