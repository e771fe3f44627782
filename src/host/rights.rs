//! Rights of this process that not every process has.

use std::fs;

use nix::unistd::{Gid, Uid};

/// A capability (capabilities(7)), by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To change the group.
    SetGroup = 6,
    /// To change the user.
    SetUser = 7,
    /// To lower a niceness.
    Nice = 23,
    /// To raise limits.
    Resources = 24,
}

/// Whether this process has a right. Root in a container may have no rights. Root of a user namespace has no rights
/// over the machine itself.
pub fn has(right: Right) -> bool {
    let is_over_the_machine = matches!(right, Right::Nice | Right::Resources);
    if is_over_the_machine && !is_of_the_machine(&map("uid_map")) {
        return false;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).map_or_else(
        || Uid::effective().is_root(),
        |rights| rights & (1 << right as u32) != 0,
    )
}

/// Whether a process of ours can have this user and group. In a user namespace (a rootless container) only ids that are
/// mapped into it exist.
pub fn can_be(uid: Uid, gid: Gid) -> bool {
    let maps = |file: &str, id| is_mapped(&map(file), id);
    maps("uid_map", uid.as_raw()) && maps("gid_map", gid.as_raw()) && map("setgroups") != "deny"
}

/// The content of a file that describes our user namespace. Empty if the kernel has no user namespaces.
fn map(file: &str) -> String {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    text.trim().to_owned()
}

/// The ranges of a map, each as its first id inside, its first id outside, and its length.
fn ranges(map: &str) -> impl Iterator<Item = [u32; 3]> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some([next()?, next()?, next()?])
    })
}

fn is_of_the_machine(map: &str) -> bool {
    map.is_empty() || ranges(map).any(|range| range == [0, 0, u32::MAX])
}

fn is_mapped(map: &str, id: u32) -> bool {
    let holds = |[inside, _, count]: [u32; 3]| id.checked_sub(inside).is_some_and(|n| n < count);
    map.is_empty() || ranges(map).any(holds)
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rights_as_the_kernel_writes_them() {
        let status = "Name:\tcat\nCapPrm:\t0\nCapEff:\t00000000000000c0\nCapBnd:\tff\n";
        assert_eq!(effective(status), Some(0b1100_0000));
        assert_eq!(effective("Name:\tcat\n"), None);
    }

    #[test]
    fn distinguishes_the_users_of_a_namespace_from_those_of_the_machine() {
        let machine = "         0          0 4294967295";
        assert!(is_of_the_machine(machine));
        assert!(is_mapped(machine, 4_294_967_294));
        // The map of a rootless container.
        let rootless = "         0       1000          1\n         1     100000      65536";
        assert!(!is_of_the_machine(rootless));
        assert!(is_mapped(rootless, 0));
        assert!(is_mapped(rootless, 65536));
        assert!(!is_mapped(rootless, 65537));
        // The map of `unshare --map-root-user`.
        assert!(!is_mapped("0 0 1", 1));
        // A kernel without user namespaces.
        assert!(is_of_the_machine("") && is_mapped("", 1));
    }
}
