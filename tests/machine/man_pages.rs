//! The manual pages, as `man` reads them.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{needs::Need, support::daemon::tidegate};

trials! {
    plain(Need::Program("groff")): [
        groff_finds_nothing_wrong_with_the_manual_pages,
    ],
}

fn groff_finds_nothing_wrong_with_the_manual_pages() {
    let dir = TempDir::new().unwrap();
    let ran = tidegate(dir.path()).args(["man", "."]).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let mut pages = 0;
    for page in fs::read_dir(dir.path()).unwrap() {
        let page = page.unwrap().path();
        let read = Command::new("groff")
            .args(["-man", "-Tutf8", "-wall", "-Kutf8"])
            .arg(&page)
            .output()
            .unwrap();
        let warnings = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success(), "{page:?}: {warnings}");
        assert_eq!(warnings, "", "{page:?}");
        pages += 1;
    }
    assert!(pages > 20, "{pages} pages");
}
