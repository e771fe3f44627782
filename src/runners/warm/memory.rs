//! Reads how much memory a process uses.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Resident bytes of a process. `None` if the system does not report them.
pub(super) fn resident_bytes(process: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    Some(pages * page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_how_large_this_process_is() {
        let process = std::process::id().cast_signed();
        let bytes = resident_bytes(process).expect("a proc file system");
        assert!((100_000..100_000_000_000).contains(&bytes), "{bytes}");
        assert_eq!(resident_bytes(-1), None);
    }
}
