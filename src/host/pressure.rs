//! Pressure stall information: the share of time that was lost to waiting for memory or for a processor.
//!
//! See <https://docs.kernel.org/accounting/psi.html>. The numbers are those of the cgroup of this process, if there are any:
//! in a container they are about its own limits. Otherwise they are those of the host.

use std::{fs, io, path::PathBuf};

/// The percentage of the last 10 seconds in which at least one task waited for the resource: `memory` or `cpu`.
///
/// # Errors
/// The kernel has no such information, or it may not be read.
pub(crate) fn some_avg10(resource: &str) -> io::Result<f64> {
    let own = own_cgroup().map(|folder| folder.join(format!("{resource}.pressure")));
    let text = match own.map(fs::read_to_string) {
        Some(Ok(text)) => text,
        _ => fs::read_to_string(format!("/proc/pressure/{resource}"))?,
    };
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no line `some avg10=`"))
}

fn own_cgroup() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // The root cgroup has the host's numbers, in `/proc/pressure`.
    (!path.is_empty()).then(|| PathBuf::from("/sys/fs/cgroup").join(path))
}

/// The number of a line such as `some avg10=1.23 avg60=0.50 avg300=0.10 total=12345`.
fn parse(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let avg10 = some
        .split(' ')
        .find_map(|field| field.strip_prefix("avg10="))?;
    avg10.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_of_the_kernel() {
        let text = "some avg10=12.34 avg60=5.00 avg300=1.00 total=99\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(parse(text), Some(12.34));
        assert_eq!(parse("full avg10=1.00"), None);
        assert_eq!(parse(""), None);
    }
}
