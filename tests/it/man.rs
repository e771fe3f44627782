//! The manual pages that packages install.

use std::fs;

use tempfile::TempDir;

use crate::support::daemon::tidegate;

#[test]
fn there_is_a_manual_page_for_each_command_and_one_for_the_file() {
    let dir = TempDir::new().unwrap();
    let pages = dir.path().join("share/man");
    let ran = tidegate(dir.path())
        .arg("man")
        .arg(&pages)
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let read = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    let program = read("tidegate.1");
    for part in [
        ".SH EXAMPLES",
        "75 drain deadline passed",
        "tidegate\\-run(1)",
    ] {
        assert!(program.contains(part), "{part} in {program}");
    }
    // A hidden command is not for people.
    assert!(!program.contains("tidegate\\-man"), "{program}");
    assert!(!pages.join("tidegate-man.1").exists());
    assert!(read("tidegate-dead-list.1").contains("\\-\\-reason"));
    assert!(read("tidegate.toml.5").contains("[broker]"));
}
