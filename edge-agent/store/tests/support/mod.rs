//! What the fault tests share: a file system whose power can be cut, a child that works until it is killed, flipped bits.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use edge_store::{DeviceKeys, GalleryKeys, Outbox, OutboxOpened, OutboxOptions};
use gallery_log::{DigestKey, GalleryId, Kind, Log, Op, Record, RecordId, Root};
use tempfile::TempDir;

/// Set in the child: where it works.
pub(crate) const CHILD: &str = "EDGE_STORE_CHILD_DIR";

/// How often a fault is injected: `small` on each push, more by `LINTEL_FAULTS=<factor>`.
pub(crate) fn times(small: u64) -> u64 {
    let factor: u64 = std::env::var("LINTEL_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    small * factor.max(1)
}

/// A time that tests give.
pub(crate) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds)
}

/// Says that a test cannot run here; returns true so that the caller returns.
pub(crate) fn skip(test: &str, why: &str) -> bool {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    true
}

/// True (and said) when the test cannot mount file systems.
pub(crate) fn cannot_mount(test: &str) -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return skip(test, "needs root to mount a file system");
    }
    if ["mkfs.ext4", "mount", "umount"].iter().any(|tool| Command::new(tool).arg("-V").output().is_err()) {
        return skip(test, "needs mkfs.ext4, mount and umount (packages e2fsprogs and mount)");
    }
    false
}

/// Gives this thread (and its children) mounts of its own: they vanish with the process, whatever becomes of it.
pub(crate) fn own_mounts() {
    let root = CString::new("/").unwrap();
    // SAFETY: unshare takes no pointers; mount gets a valid path and null where nothing is needed.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "unshare: {}", std::io::Error::last_os_error());
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        let result = libc::mount(std::ptr::null(), root.as_ptr(), std::ptr::null(), flags, std::ptr::null());
        assert_eq!(result, 0, "mount private: {}", std::io::Error::last_os_error());
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An ext4 file system on a loop device. Call [`own_mounts`] first.
pub(crate) struct Ext4 {
    dir: TempDir,
    mounted: bool,
}

impl Ext4 {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("image")).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", dir.path().join("image").to_str().unwrap()]);
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let mut ext4 = Self { dir, mounted: false };
        ext4.mount();
        ext4
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Cuts the power: the kernel drops everything that is not on the device, the journal included, and refuses all
    /// further writes.
    pub(crate) fn cut_power(&self) {
        const EXT4_IOC_SHUTDOWN: u64 = 0x8004_587d;
        let no_log_flush: u32 = 2;
        let root = File::open(self.path()).unwrap();
        // SAFETY: the descriptor is open and the argument is a valid u32, as this ioctl wants it.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &raw const no_log_flush) };
        assert_eq!(result, 0, "shutdown ioctl: {}", std::io::Error::last_os_error());
        assert!(File::create(self.path().join("after")).is_err(), "the file system still takes writes after the cut");
    }

    /// Unmounts and mounts again, as a reboot does.
    pub(crate) fn reboot(&mut self) {
        self.unmount();
        self.mount();
    }

    fn mount(&mut self) {
        let image = self.dir.path().join("image");
        run("mount", &["-o", "loop", image.to_str().unwrap(), self.path().to_str().unwrap()]);
        self.mounted = true;
    }

    fn unmount(&mut self) {
        run("umount", &[self.path().to_str().unwrap()]);
        self.mounted = false;
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a failed test may still hold a file. The loop device goes with the mount.
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}

/// A process that works and says what it was promised, until it is killed.
pub(crate) struct Worker {
    child: Child,
    acknowledged: Arc<AtomicU64>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    /// Runs the test `name` of this test program again, as a child that finds `dir` by [`child_dir`].
    pub(crate) fn start(name: &str, dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn({
            let acknowledged = Arc::clone(&acknowledged);
            move || {
                for line in lines.map_while(Result::ok) {
                    if let Some(number) = line.strip_prefix("ack ").and_then(|number| number.parse().ok()) {
                        acknowledged.store(number, Ordering::SeqCst);
                    }
                }
            }
        });
        Self { child, acknowledged, reader: Some(reader) }
    }

    /// The newest number that the child was promised.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until at least `number` is acknowledged.
    pub(crate) fn await_acknowledged(&mut self, number: u64) {
        for _ in 0..3000 {
            if self.acknowledged() >= number {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the child ended before it was promised {number}");
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the child was promised only {} in 30 s", self.acknowledged());
    }

    /// SIGKILL; returns the newest promise, with what was still in the pipe.
    pub(crate) fn kill(&mut self) -> u64 {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.acknowledged()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child: where to work. `None` in the test itself.
pub(crate) fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// In the child: tells the parent what was promised.
pub(crate) fn acknowledge(number: u64) {
    say(&format!("ack {number}"));
}

/// In the child: a line to the parent, past the test harness's capture.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Numbers that are the same in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Flips one bit of one of the files below `dir` that `wanted` accepts; says which.
pub(crate) fn flip_a_bit(dir: &Path, random: &mut Random, wanted: impl Fn(&Path) -> bool) -> String {
    let mut files = Vec::new();
    collect(dir, &mut files);
    files.retain(|path| wanted(path) && fs::metadata(path).unwrap().len() > 0);
    files.sort();
    // Each byte is as likely as any other, in whichever file it lies.
    let total: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let mut offset = random.below(total);
    for path in files {
        let mut bytes = fs::read(&path).unwrap();
        if offset < bytes.len() as u64 {
            let bit = random.below(8);
            bytes[usize::try_from(offset).unwrap()] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            return format!("{} byte {offset} bit {bit}", path.strip_prefix(dir).unwrap().display());
        }
        offset -= bytes.len() as u64;
    }
    unreachable!("the offset is below the total")
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// Copies a directory and everything in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// The outbox below `dir`, with its keys.
pub(crate) fn open_outbox(dir: &Path) -> (Outbox, OutboxOpened) {
    let keys = DeviceKeys::open(&dir.join("keys"), None).unwrap().outbox().unwrap();
    Outbox::open(&dir.join("outbox"), &keys, OutboxOptions::default(), at(0)).unwrap()
}

/// The event that the tests record at a sequence: of varying length, so that pages fill unevenly.
pub(crate) fn event_at(sequence: u64) -> Vec<u8> {
    let length = 40 + usize::try_from(sequence * 37 % 900).unwrap();
    let mut event = format!("event {sequence} ").into_bytes();
    event.resize(length, b'.');
    event
}

/// Everything that the outbox still has, checked to be what was recorded. Fails on a hole, a change or a doubling.
pub(crate) fn check_outbox(outbox: &Outbox) -> u64 {
    let mut last = outbox.stats().unwrap().acknowledged_through;
    loop {
        let entries = outbox.pending(last, 100, 1 << 20).unwrap();
        if entries.is_empty() {
            return last;
        }
        for entry in entries {
            assert_eq!(entry.sequence, last + 1);
            assert_eq!(entry.event, event_at(entry.sequence));
            last = entry.sequence;
        }
    }
}

pub(crate) fn gallery() -> GalleryId {
    GalleryId::from_bytes([7; 16])
}

pub(crate) fn gallery_keys() -> GalleryKeys {
    GalleryKeys { epoch: 3, digest: DigestKey::new([9; 32]), credential: [4; 32].into() }
}

/// The hub's side of the tests: the same log, with the root after each version.
pub(crate) struct Hub {
    log: Log,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { log: Log::new(gallery(), gallery_keys().epoch) }
    }

    /// The next record: mostly a new entry of the size of a template, every fifth a deletion of an older one.
    pub(crate) fn next(&mut self) -> (Record, Root) {
        let version = self.log.version() + 1;
        let deletes = version.is_multiple_of(5);
        let subject = if deletes { version - 3 } else { version };
        let kind = if version.is_multiple_of(2) != deletes { Kind::Person } else { Kind::Template };
        let body = match (deletes, kind) {
            (true, _) => Vec::new(),
            (false, _) => body(version),
        };
        let record = Record {
            gallery: gallery(),
            epoch: gallery_keys().epoch,
            version,
            op: if deletes { Op::Del } else { Op::Put },
            kind: if deletes { self.log.entry(id(subject)).unwrap().kind } else { kind },
            id: id(subject),
            rev: if deletes { 2 } else { 1 },
            body,
        };
        self.log.apply(&record, &gallery_keys().digest).unwrap();
        (record, self.log.root())
    }

    /// The root after `version`.
    pub(crate) fn root_at(version: u64) -> Root {
        let mut hub = Self::new();
        let mut root = hub.log.root();
        for _ in 0..version {
            root = hub.next().1;
        }
        root
    }
}

fn id(version: u64) -> RecordId {
    RecordId::from_bytes((u128::from(version) << 64 | 0x5a).to_be_bytes())
}

fn body(version: u64) -> Vec<u8> {
    vec![u8::try_from(version % 251).unwrap(); 2100]
}
