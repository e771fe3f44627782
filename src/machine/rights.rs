//! What this process may do that not every process may.

use std::fs;

use nix::unistd::Uid;

/// A capability (capabilities(7)), by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// To become another group.
    SetGroup = 6,
    /// To become another user.
    SetUser = 7,
    /// To lower a niceness.
    Nice = 23,
    /// To raise limits.
    Resources = 24,
}

/// Whether this process has a right. Root in a container may have none.
pub(crate) fn has(right: Right) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).map_or_else(
        || Uid::effective().is_root(),
        |rights| rights & (1 << right as u32) != 0,
    )
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
}
