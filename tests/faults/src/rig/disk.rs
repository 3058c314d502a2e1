//! Disks of our own: an ext4 whose power can be cut, and a small one that fills up. All in mounts that nobody else sees.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::rig::process::run;

/// Gives this thread (and its children) mounts of its own: they vanish with the process, whatever becomes of it.
pub fn own_mounts() -> Result<()> {
    let root = CString::new("/")?;
    // SAFETY: unshare takes no pointers.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    ensure!(done == 0, "unshare: {}", std::io::Error::last_os_error());
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: a valid path, and null where this call needs nothing.
    let done = unsafe { libc::mount(std::ptr::null(), root.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    ensure!(done == 0, "mount private: {}", std::io::Error::last_os_error());
    Ok(())
}

/// An ext4 file system on a loop device. Call [`own_mounts`] first.
pub struct Ext4 {
    dir: TempDir,
    mounted: bool,
}

impl Ext4 {
    /// A fresh, empty, mounted file system.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("image");
        File::create(&image)?.set_len(64 << 20)?;
        run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        fs::create_dir(dir.path().join("mnt"))?;
        let mut ext4 = Self { dir, mounted: false };
        ext4.mount()?;
        Ok(ext4)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Cuts the power: the kernel drops everything that is not on the device, the journal included, and refuses all
    /// further writes. True when it really does.
    pub fn cut_power(&self) -> Result<bool> {
        const EXT4_IOC_SHUTDOWN: u64 = 0x8004_587d;
        let no_log_flush: u32 = 2;
        let root = File::open(self.path())?;
        // SAFETY: the descriptor is open and the argument is a valid u32, as this ioctl wants it.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &raw const no_log_flush) };
        ensure!(done == 0, "shutdown ioctl: {}", std::io::Error::last_os_error());
        Ok(File::create(self.path().join("after")).is_err())
    }

    /// Unmounts and mounts again, as a reboot does.
    pub fn reboot(&mut self) -> Result<()> {
        run(Command::new("umount").arg(self.path()))?;
        self.mounted = false;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.dir.path().join("image")).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a failed round may still hold a file. The loop device goes with the mount.
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}

/// A small disk in memory. Call [`own_mounts`] first.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// A disk of `kib` KiB.
    pub fn new(kib: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let size = format!("size={kib}k");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(dir.path()))?;
        Ok(Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Mounts it anew with other options: `size=4096k`, `ro`, `rw`.
    pub fn remount(&self, options: &str) -> Result<()> {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.path()))
    }

    /// Takes all its room but `left` bytes with a file, as a log that grew does.
    pub fn fill_but(&self, left: u64) -> Result<()> {
        use std::io::Write as _;
        let mut filler = File::create(self.path().join("filler"))?;
        let block = [0xAA; 4096];
        while filler.write_all(&block).is_ok() {}
        let length = filler.metadata()?.len();
        ensure!(length >= left, "the disk had only {length} bytes of room");
        Ok(filler.set_len(length - left)?)
    }

    /// Gives the room back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.path().join("filler")).context("the filler is gone")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
