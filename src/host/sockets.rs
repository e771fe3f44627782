//! The TCP connections of process groups: the address of their own end of each.
//!
//! Reads `/proc` only. Processes of other users show nothing, unless we are root.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

/// A connection that is open, in the kernel's tables.
const ESTABLISHED: &str = "01";

/// The own addresses of the connections of each of these process groups. A group without any has no entry.
pub(crate) fn of_groups(groups: &[i32]) -> BTreeMap<i32, Vec<SocketAddr>> {
    let mut found: BTreeMap<i32, Vec<SocketAddr>> = BTreeMap::new();
    // The tables of each network namespace are read once.
    let mut tables: HashMap<Vec<u8>, HashMap<u64, SocketAddr>> = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    for process in processes.flatten() {
        let folder = process.path();
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let Some(group) = group_of(&stat).filter(|group| groups.contains(group)) else {
            continue;
        };
        let Ok(namespace) = fs::read_link(folder.join("ns/net")) else {
            continue;
        };
        let table = tables
            .entry(namespace.as_os_str().as_bytes().to_owned())
            .or_insert_with(|| connections(&folder));
        let inodes = inodes(&folder);
        let own = inodes.iter().filter_map(|inode| table.get(inode).copied());
        found.entry(group).or_default().extend(own);
    }
    found
}

/// The process group in a process's `stat`: the third field after its name, which may contain anything.
fn group_of(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// The sockets that a process has open.
fn inodes(process: &Path) -> Vec<u64> {
    let files = fs::read_dir(process.join("fd"));
    let links = files.into_iter().flatten().flatten();
    let links = links.filter_map(|file| fs::read_link(file.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// The open connections of a process's network namespace: the own address of each, by the socket's inode.
fn connections(process: &Path) -> HashMap<u64, SocketAddr> {
    let read = |name| fs::read_to_string(process.join(name)).unwrap_or_default();
    let (four, six) = (read("net/tcp"), read("net/tcp6"));
    four.lines()
        .chain(six.lines())
        .filter_map(connection)
        .collect()
}

/// A line of the kernel's table of connections.
fn connection(line: &str) -> Option<(u64, SocketAddr)> {
    let mut fields = line.split_ascii_whitespace();
    let own = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == ESTABLISHED).then_some(())?;
    let (host, port) = own.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((inode, SocketAddr::new(address(host)?, port)))
}

/// An address in hexadecimal: words of four bytes, each in the machine's own order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut bytes = [0; 16];
    for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(at)?);
    }
    Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn finds_the_connections_of_its_own_group() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                continue; // A machine may have no IPv6.
            };
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let group = nix::unistd::getpgrp().as_raw();
            let found = of_groups(&[group]);
            let own = stream.local_addr().unwrap();
            assert!(found[&group].contains(&own), "{own} {found:?}");
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_kernels_lines() {
        let line = "   1: 0100007F:B5B4 0100007F:1628 01 00000000:00000000 00:00000000 00000000  0  0 4711 1 0";
        let own: SocketAddr = "127.0.0.1:46516".parse().unwrap();
        assert_eq!(connection(line), Some((4711, own)));
        assert_eq!(
            connection(&line.replace(" 01 ", " 0A ")),
            None,
            "it listens"
        );
        assert_eq!(connection("  sl  local_address rem_address   st"), None);
        let mapped = address("0000000000000000FFFF00000100007F");
        assert_eq!(mapped, Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(
            address("00000000000000000000000001000000"),
            Some(Ipv6Addr::LOCALHOST.into())
        );
        assert_eq!(address("nothing"), None);
        assert_eq!(group_of("7 (a) b) S 1 42 42 0"), Some(42));
    }
}
