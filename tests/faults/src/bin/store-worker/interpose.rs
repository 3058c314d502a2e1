//! The C functions by which this process changes files, defined here in front of the C library's.
//!
//! std, redb and sled call `pwrite64`, `fdatasync`, `rename` … by their C names, and the linker takes those of the program
//! itself first. So every change of the state directory passes through here, from whatever thread: counted in one
//! order, recorded, or made to go wrong as the [`Plan`] says. The real work is done by the system call itself.
//!
//! Deliberately absent: what is called without the C library (rustix' `flock`, `statvfs`), which changes no file.

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_uint, c_void};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result};
use fault_lab::rig::plan::Plan;
use fault_lab::rig::record::Op;

static ARMED: OnceLock<Armed> = OnceLock::new();
static CALLS: AtomicU64 = AtomicU64::new(0);
static SYNCS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

struct Armed {
    root: PathBuf,
    plan: Plan,
    recording: Option<Mutex<File>>,
}

/// What is to become of a call.
enum Fate {
    /// It is made as it was meant.
    Made,
    /// It is made, or half of it, and nothing comes after it.
    Last,
    /// It says EIO.
    Refused,
}

/// From now on calls below `root` are counted and the plan is carried out.
pub(crate) fn arm(root: &Path, plan: Plan) -> Result<()> {
    let recording = match &plan {
        Plan::Record(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Some(Mutex::new(file.with_context(|| format!("recording {}", path.display()))?))
        }
        _ => None,
    };
    let root = root.canonicalize().with_context(|| format!("state directory {}", root.display()))?;
    let _first = ARMED.set(Armed { root, plan, recording });
    Ok(())
}

/// How many calls have changed the state directory.
pub(crate) fn calls() -> u64 {
    CALLS.load(Ordering::SeqCst)
}

/// How many of them were fsyncs.
pub(crate) fn syncs() -> u64 {
    SYNCS.load(Ordering::SeqCst)
}

/// How many of them were refused.
pub(crate) fn refusals() -> u64 {
    REFUSED.load(Ordering::SeqCst)
}

/// Notes in the recording what the worker was promised.
pub(crate) fn mark(lane: usize, through: u64) {
    if let Some(armed) = ARMED.get() {
        armed.record(|| Op::Promise { lane, through });
    }
}

impl Armed {
    /// Writes a record. The lock makes the recording's order that of the calls.
    fn record(&self, op: impl FnOnce() -> Op) {
        if let Some(recording) = &self.recording {
            let mut file = recording.lock().unwrap_or_else(PoisonError::into_inner);
            let written = file.write_all(&op().encode());
            assert!(written.is_ok(), "the recording cannot be written: {written:?}");
        }
    }

    fn fate(&self, syncs: bool) -> Fate {
        let number = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        let sync = if syncs { SYNCS.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
        match self.plan {
            Plan::KillBefore(at) if at == number => die(),
            Plan::KillWithin(at) if at == number => Fate::Last,
            Plan::FailSync(at) if at == sync => {
                REFUSED.fetch_add(1, Ordering::SeqCst);
                Fate::Refused
            }
            _ => Fate::Made,
        }
    }
}

/// The plan and the path, when the path is below the state directory.
fn below(path: Option<PathBuf>) -> Option<(&'static Armed, PathBuf)> {
    let armed = ARMED.get()?;
    path.filter(|path| path.starts_with(&armed.root)).map(|path| (armed, path))
}

fn path_of(descriptor: c_int) -> Option<PathBuf> {
    ARMED.get()?;
    std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()
}

/// # Safety
/// `name` is a C string.
unsafe fn path_at(directory: c_int, name: *const c_char) -> Option<PathBuf> {
    ARMED.get()?;
    // SAFETY: by this function's own condition.
    let name = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    match directory {
        _ if name.is_absolute() => Some(name.to_path_buf()),
        libc::AT_FDCWD => std::env::current_dir().ok().map(|dir| dir.join(name)),
        other => path_of(other).map(|dir| dir.join(name)),
    }
}

fn die() -> ! {
    // SAFETY: kill takes no pointers, and this process may end itself.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("SIGKILL cannot be ignored")
}

fn refused() -> c_long {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = libc::EIO };
    -1
}

/// Counts a call, makes it unless the plan says otherwise, and records it when it has succeeded.
fn pass(at: Option<PathBuf>, op: impl FnOnce(PathBuf) -> Op, syncs: bool, make: impl Fn() -> c_long) -> c_long {
    let Some((armed, path)) = below(at) else { return make() };
    match armed.fate(syncs) {
        Fate::Refused => refused(),
        Fate::Last => {
            make();
            die()
        }
        Fate::Made => {
            let done = make();
            if done >= 0 {
                armed.record(|| op(path));
            }
            done
        }
    }
}

/// # Safety
/// As `pwrite64` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(file: c_int, bytes: *const c_void, length: usize, offset: i64) -> isize {
    let make = |length: usize| {
        // SAFETY: the caller's own arguments, or a part of them.
        unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes, length, offset) }
    };
    let Some((armed, path)) = below(path_of(file)) else { return isize::try_from(make(length)).unwrap_or(-1) };
    if let Fate::Last = armed.fate(false) {
        make(length / 2);
        die();
    }
    let done = isize::try_from(make(length)).unwrap_or(-1);
    if let Ok(written @ 1..) = usize::try_from(done) {
        // SAFETY: so many bytes of the caller's were just read by the kernel.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), written) }.to_vec();
        armed.record(|| Op::Write { path, offset: u64::try_from(offset).unwrap_or(0), bytes });
    }
    done
}

/// # Safety
/// As `write` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(file: c_int, bytes: *const c_void, length: usize) -> isize {
    let make = |length: usize| {
        // SAFETY: the caller's own arguments, or a part of them.
        unsafe { libc::syscall(libc::SYS_write, file, bytes, length) }
    };
    let Some((armed, path)) = below(path_of(file)) else { return isize::try_from(make(length)).unwrap_or(-1) };
    if let Fate::Last = armed.fate(false) {
        make(length / 2);
        die();
    }
    let done = isize::try_from(make(length)).unwrap_or(-1);
    if let Ok(written @ 1..) = usize::try_from(done) {
        // SAFETY: lseek takes no pointers. Where the kernel stands now is behind what it just wrote.
        let end = unsafe { libc::lseek(file, 0, libc::SEEK_CUR) };
        // SAFETY: so many bytes of the caller's were just read by the kernel.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), written) }.to_vec();
        armed.record(|| Op::Write { path, offset: u64::try_from(end).unwrap_or(0) - written as u64, bytes });
    }
    done
}

#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    // SAFETY: no pointers.
    narrow(pass(path_of(file), Op::Sync, true, || unsafe { libc::syscall(libc::SYS_fsync, file) }))
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    // SAFETY: no pointers.
    narrow(pass(path_of(file), Op::Sync, true, || unsafe { libc::syscall(libc::SYS_fdatasync, file) }))
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(file: c_int, length: i64) -> c_int {
    let op = |path| Op::SetLen(path, u64::try_from(length).unwrap_or(0));
    // SAFETY: no pointers.
    narrow(pass(path_of(file), op, false, || unsafe { libc::syscall(libc::SYS_ftruncate, file, length) }))
}

/// # Safety
/// As `open64` of the C library; `mode` is only looked at with `O_CREAT`.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { openat64(libc::AT_FDCWD, path, flags, mode) }
}

/// # Safety
/// As `openat64` of the C library; `mode` is only looked at with `O_CREAT`.
#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's own arguments.
    let make = || unsafe { libc::syscall(libc::SYS_openat, directory, path, flags, mode) };
    // SAFETY: the caller's path is a C string.
    let at = unsafe { path_at(directory, path) };
    let changes =
        flags & libc::O_TRUNC != 0 || (flags & libc::O_CREAT != 0 && at.as_ref().is_some_and(|at| !at.exists()));
    narrow(if changes { pass(at, Op::Create, false, make) } else { make() })
}

/// # Safety
/// As `rename` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's paths are C strings.
    let (at, target) = unsafe { (path_at(libc::AT_FDCWD, from), path_at(libc::AT_FDCWD, to)) };
    let op = |path| Op::Rename(path, target.unwrap_or_default());
    // SAFETY: the caller's own arguments.
    let make = || unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) };
    narrow(pass(at, op, false, make))
}

/// # Safety
/// As `unlink` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

/// # Safety
/// As `rmdir` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { unlinkat(libc::AT_FDCWD, path, libc::AT_REMOVEDIR) }
}

/// # Safety
/// As `unlinkat` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's path is a C string.
    let at = unsafe { path_at(directory, path) };
    // SAFETY: the caller's own arguments.
    narrow(pass(at, Op::Remove, false, || unsafe { libc::syscall(libc::SYS_unlinkat, directory, path, flags) }))
}

/// # Safety
/// As `mkdir` of the C library.
#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    // SAFETY: the caller's path is a C string.
    let at = unsafe { path_at(libc::AT_FDCWD, path) };
    // SAFETY: the caller's own arguments.
    let make = || unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) };
    narrow(pass(at, Op::MakeDir, false, make))
}

/// Of these calls none gives back more than an `int`.
fn narrow(done: c_long) -> c_int {
    c_int::try_from(done).unwrap_or(-1)
}
