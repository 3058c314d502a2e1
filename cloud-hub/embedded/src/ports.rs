//! Whether a port is free, and whose it is when it is not.
//!
//! A child that fails to bind says so in its own words, late; this says it before anything starts, with the process
//! to ask about it.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::EmbeddedError;

/// Fails with [`EmbeddedError::PortBusy`] when something listens at `address` already.
///
/// `setting` names the option to change. Port 0 is always free.
pub fn check_free(address: SocketAddr, setting: &'static str) -> Result<(), EmbeddedError> {
    bind_free(address, setting).map(drop)
}

/// Binds `address`, naming the present owner if the port is taken.
pub fn bind_free(address: SocketAddr, setting: &'static str) -> Result<TcpListener, EmbeddedError> {
    TcpListener::bind(address).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            EmbeddedError::PortBusy { address, owner: owner_of(address.port()), setting }
        } else {
            EmbeddedError::CannotListen { address, setting, source }
        }
    })
}

/// Ports to choose from: above the registered services' usual ones and below the range (from 32768) that the kernel
/// gives to outgoing connections, which would take a chosen port away before its listener is there.
const CHOICE: std::ops::Range<u16> = 20_000..32_000;

/// Finds a loopback port that is free now.
///
/// The port is released again before the child takes it; a thief in between makes the child fail at once and
/// visibly, and the start is tried again with another port.
pub fn pick_loopback_port() -> io::Result<u16> {
    let free = |_| {
        let port = rand::random_range(CHOICE);
        TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    };
    (0..100).find_map(free).ok_or_else(|| io::Error::other("no free port between 20000 and 32000"))
}

/// Who listens on a TCP port: `"mosquitto" (process 4711)`, or how to find out when `/proc` does not tell.
fn owner_of(port: u16) -> String {
    let sockets = listening_inodes(port);
    find_process(&sockets).unwrap_or_else(|| format!("another process (see: ss -ltnp 'sport = :{port}')"))
}

/// Inode numbers of the listening sockets on `port`, from the kernel's tables (proc(5), `/proc/net/tcp`).
fn listening_inodes(port: u16) -> HashSet<String> {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .skip(1)
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
                    (local == port && *fields.get(3)? == LISTEN).then(|| fields.get(9).map(|i| (*i).to_owned()))?
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn find_process(inodes: &HashSet<String>) -> Option<String> {
    let wanted: HashSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = std::fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| wanted.contains(link.to_string_lossy().as_ref())));
        holds.then(|| format!("{:?} (process {pid})", command_name(&entry.path())))
    })
}

fn command_name(process: &Path) -> String {
    std::fs::read_to_string(process.join("comm"))
        .map_or_else(|_| String::from("unknown"), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named_with_its_owner() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let message = check_free(address, "--listen").unwrap_err().to_string();
        assert!(message.contains(&address.to_string()), "{message}");
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(message.contains("--listen"), "{message}");
        drop(taken);
        assert!(check_free(address, "--listen").is_ok());
    }
}
