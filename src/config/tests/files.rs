//! The I/O of the configuration, with real files.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::given;
use crate::config::{Source, examine, file::find_among, load};

fn write(directory: &tempfile::TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_named_file_wins_over_the_standard_places() {
    let directory = tempfile::tempdir().unwrap();
    let there = write(&directory, "there.toml", "");
    let absent = directory.path().join("absent.toml");
    let found = |explicit: Option<&str>, variable: Option<&str>| {
        let source = find_among(
            explicit.map(Path::new),
            variable.map(Into::into),
            &[&absent, &there],
        );
        source.unwrap().file().to_owned()
    };
    assert_eq!(found(Some("a"), Some("b")), Path::new("a"));
    assert_eq!(found(None, Some("b")), Path::new("b"));
    assert_eq!(found(None, Some("")), there);
    assert_eq!(found(None, None), there);
}

#[test]
fn without_a_file_the_error_names_the_paths_that_were_tried() {
    let candidates = ["/nowhere/a.toml", "/nowhere/b.toml"].map(Path::new);
    let error = find_among(None, None, &candidates).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to find a configuration file: none of /nowhere/a.toml, /nowhere/b.toml exists"
    );
}

#[test]
fn a_file_is_loaded_with_the_files_that_it_names() {
    let directory = tempfile::tempdir().unwrap();
    let url = write(&directory, "url", "amqp://user:secret@host/%2f\n");
    let text = format!(
        "broker.url_file = {:?}\npools.a.runner.command = [\"true\"]\n",
        url
    );
    let file = write(&directory, "tidegate.toml", text);
    let loaded = load(&Source::from(file)).unwrap();
    assert_eq!(
        loaded.settings.broker.url.expose(),
        "amqp://user:secret@host/%2f"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let directory = tempfile::tempdir().unwrap();
    let binary = write(&directory, "binary", b"a\xff");
    let shown = |path: &Path| {
        let problems = load(&Source::from(path.to_owned())).unwrap_err();
        problems
            .to_string()
            .replace(&directory.path().display().to_string(), "")
    };
    assert_eq!(
        shown(&directory.path().join("absent")),
        "/absent: found no such file, name a configuration file that can be read\n1 problem"
    );
    assert_eq!(
        shown(&binary),
        "/binary: found a byte that is not UTF-8 at offset 1, write the file as UTF-8\n1 problem"
    );
    assert_eq!(
        shown(directory.path()),
        ": found a directory, name a configuration file that can be read\n1 problem"
    );
}

#[test]
fn missing_programs_and_directories_are_found_before_a_job_needs_them() {
    let directory = tempfile::tempdir().unwrap();
    let plain = write(&directory, "plain", "");
    let program = write(&directory, "program", "");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let here = directory.path().display();
    let text = format!(
        r#"
pools.in_path.runner.command = ["sh"]
pools.absent.runner.command = ["tidegate-no-such-program"]
pools.slash.runner.command = ["/nowhere/program"]
pools.plain.runner.command = ["{plain}"]
pools.directory.runner.command = ["{here}"]
pools.relative.runner = {{ command = ["./program"], working_dir = "{here}" }}
pools.own_path.runner = {{ command = ["program"], env.PATH = "{here}" }}
pools.plain_in_path.runner = {{ command = ["plain"], env.PATH = "{here}" }}
pools.one_word.runner.command = ["sh -c true"]
pools.nowhere.runner = {{ command = ["sh"], working_dir = "/nowhere" }}
pools.no_engine.runner = {{ kind = "container", image = "a", engine = "unix:///nowhere" }}
pools.inside.runner = {{ kind = "container", image = "a", command = ["inside"], working_dir = "/nowhere" }}
"#,
        plain = plain.display()
    );
    let problems = given(&text).loaded().inspect_machine().to_string();
    insta::assert_snapshot!(problems.replace(&here.to_string(), "HERE"));
}

#[test]
fn paths_that_the_daemon_cannot_use_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    write(&directory, "file", "");
    let inspect = |keys: &str| {
        let text = format!("{keys}\npools.a.runner.command = [\"sh\"]\n")
            .replace("HERE", &here.to_string());
        let given = given(&text).file("/token", "t0ken");
        let problems = given.loaded().inspect_places();
        problems.to_string().replace(&here.to_string(), "HERE")
    };
    let good = "events_file = \"HERE/file\"\n\
                http = { state_dir = \"HERE/a/b\", socket = \"HERE/c/s\", listen = \"127.0.0.1:0\" }";
    assert_eq!(inspect(good), "0 problems");
    assert_eq!(
        inspect(&good.replace("HERE/file", "HERE/new")),
        "0 problems"
    );
    let bad = "events_file = \"HERE/nowhere/events\"\n\
               http = { state_dir = \"HERE/file/b\", socket = \"HERE/file/s\", listen = \"192.0.2.1:0\", \
               token_file = \"/token\" }";
    insta::assert_snapshot!(inspect(bad));
    assert!(!directory.path().join("a").exists(), "nothing is made");
}

#[test]
fn secrets_that_everybody_may_read_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display().to_string();
    let token = write(&directory, "token", "t0ken");
    let url = write(&directory, "url", "amqp://a:s3cret@host");
    let shown = |keys: &str, mode: u32| {
        let text = format!("{keys}\npools.a.runner.command = [\"sh\"]\n").replace("HERE", &here);
        let file = write(&directory, "tidegate.toml", text);
        for path in [&file, &token, &url] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let suspicions = load(&Source::from(file)).unwrap().suspicions();
        suspicions.to_string().replace(&here, "HERE")
    };
    let both = "http.token_file = \"HERE/token\"\nbroker.url_file = \"HERE/url\"";
    assert_eq!(shown(both, 0o640), "0 problems");
    insta::assert_snapshot!(shown(both, 0o644));
}

#[test]
fn a_missing_script_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display().to_string();
    write(&directory, "thumb.py", "");
    let text = format!(
        "[pools.there.runner]\ncommand = [\"python3\", \"thumb.py\"]\nworking_dir = \"{here}\"\n\
         [pools.absent.runner]\ncommand = [\"python3\", \"thumb.py\"]\n\
         [pools.warm.runner]\nkind = \"warm\"\ncommand = [\"env\", \"node\", \"/nowhere/worker.js\"]\n\
         [pools.inside.runner]\nkind = \"container\"\nimage = \"a\"\ncommand = [\"python3\", \"thumb.py\"]\n"
    );
    let suspicions = given(&text).loaded().suspicions().to_string();
    insta::assert_snapshot!(suspicions);
}

#[test]
fn problems_of_the_machine_are_reported_beside_those_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"
[pools.a]
prefetch = 0
[pools.a.runner]
command = ["tidegate-no-such-program"]
env_file = "/nowhere/a.env"
user = "tidegate-no-such-user"
[pools.b.runner]
command = ["./relative"]
working_dir = "relative"
user = ["root"]
[pools.c.runner]
kind = "exce"
working_dir = "/nowhere"
[pools.d.runner]
env_file = "/nowhere/d.env"
working_dir = "/nowhere"
"#;
    let shown = |text: &str| {
        let file = write(&directory, "tidegate.toml", text);
        let examined = examine(&Source::from(file));
        let here = directory.path().display().to_string();
        let problems = examined.problems.to_string().replace(&here, "");
        (examined.loaded.is_some(), problems)
    };
    let (is_good, problems) = shown(text);
    assert!(!is_good);
    insta::assert_snapshot!(problems);
    // A warning about the machine is not hidden by a problem of another key, or of the same one.
    let text =
        "[pools.a]\nprefetch = 0\nrunner.command = [\"/nowhere/python3\", \"/nowhere/a.py\"]\n";
    let file = write(&directory, "tidegate.toml", text);
    let examined = examine(&Source::from(file));
    assert_eq!(examined.problems.len(), 2, "{}", examined.problems);
    let warnings = examined.warnings.to_string();
    assert!(
        warnings.contains("found \"/nowhere/a.py\", which does not exist"),
        "{warnings}"
    );
    // Nothing is wrong with the configuration itself.
    let (is_good, problems) = shown("pools.a.runner.command = [\"tidegate-no-such-program\"]\n");
    assert!(is_good, "{problems}");
    assert!(problems.ends_with("\n1 problem"), "{problems}");
    // The text cannot be parsed.
    let (is_good, problems) = shown("pools.a.runner.command = ");
    assert!(!is_good);
    assert!(problems.ends_with("\n1 problem"), "{problems}");
}
