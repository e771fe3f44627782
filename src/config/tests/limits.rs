//! Limits of processes, and variables from files.

use std::time::Duration;

use super::{Given, given};
use crate::config::{CgroupUse, Cores, ExecSettings};

fn runner(keys: &str) -> Given {
    given(&format!("[pools.a.runner]\ncommand = [\"true\"]\n{keys}"))
}

fn exec(given: &Given) -> ExecSettings {
    let settings = given.loaded().settings;
    settings.pools[0].runner.process().unwrap().clone()
}

#[test]
fn every_limit_reaches_its_setting_of_either_kind() {
    for kind in ["exec", "warm"] {
        let keys = format!(
            r#"kind = "{kind}"
user = "thumbnails"
group = "44"
nice = -5
memory_max = "1GiB"
cpu_max = 1.5
pids_max = 64
cgroup = "always"
rlimits = {{ open_files = 1024, address_space = "4GiB", cpu_time = "10m", core = "none" }}
"#
        );
        let limits = exec(&runner(&keys)).limits;
        assert_eq!(limits.user.as_deref(), Some("thumbnails"));
        assert_eq!(limits.group.as_deref(), Some("44"));
        assert_eq!(limits.nice, Some(-5));
        assert_eq!(limits.memory_max, Some(1 << 30));
        assert_eq!(limits.cpu_max, Some(Cores::from_thousandths(1500)));
        assert_eq!(limits.pids_max, Some(64));
        assert_eq!(limits.cgroup, CgroupUse::Always);
        assert_eq!(limits.rlimits.open_files, Some(1024));
        assert_eq!(limits.rlimits.address_space, Some(4 << 30));
        assert_eq!(limits.rlimits.cpu_time, Some(Duration::from_secs(600)));
        assert_eq!(limits.rlimits.core, Some(0));
    }
    assert_eq!(exec(&runner("")).limits, Default::default());
    assert_eq!(
        exec(&runner("cpu_max = 2")).limits.cpu_max,
        Some(Cores::from_thousandths(2000))
    );
}

#[test]
fn a_limit_out_of_bounds_is_refused_at_its_own_place() {
    let table = [
        ("user = 1000", "found 1000, write a name or an id in quotes"),
        (
            "user = \"a b\"",
            "found \"a b\", write a name or an id, in quotes",
        ),
        ("nice = 20", "found 20, write a whole number from -20 to 19"),
        (
            "cpu_max = 0",
            "found 0, write a number of processors from 0.01 to 10000, such as 0.5 or 2",
        ),
        (
            "cpu_max = nan",
            "found nan, write a number of processors from 0.01 to 10000, such as 0.5 or 2",
        ),
        (
            "cpu_max = \"2\"",
            "found \"2\", write a number of processors from 0.01 to 10000, such as 0.5 or 2",
        ),
        (
            "memory_max = 256",
            "found 256, write a size such as \"512KiB\", \"256MiB\" or \"2GiB\"",
        ),
        (
            "rlimits.cpu_time = \"1500ms\"",
            "found \"1500ms\", write whole seconds",
        ),
        (
            "rlimits.open_files = 3",
            "found 3, write a whole number from 16 to 2147483584",
        ),
        (
            "memory_max = \"1MiB\"\ncgroup = \"never\"",
            "found \"1MiB\", remove it, or cgroup = \"never\": this limit needs a cgroup",
        ),
    ];
    for (keys, expected) in table {
        let lines = runner(keys).lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].ends_with(expected), "{} / {expected}", lines[0]);
        assert!(lines[0].starts_with("tidegate.toml:3:"), "{}", lines[0]);
    }
}

#[test]
fn variables_come_from_a_file_and_those_of_the_pool_win() {
    let text = "# passwords\nA=from the file\n\nB=b=b\nB=twice\n";
    let given = runner("env_file = \"/env\"\nenv.A = \"from the pool\"\n").file("/env", text);
    let env = exec(&given).env;
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(env, [("A", "from the pool"), ("B", "twice")]);
    assert!(!format!("{:?}", exec(&given)).contains("twice"));
}

#[test]
fn a_bad_file_of_variables_is_named_with_its_lines_and_none_of_its_text() {
    let text = "A=1\nexport B=hunter2\n\n  hunter2\nC='hunter2'\n";
    let lines = runner("env_file = \"/env\"").file("/env", text).lines();
    let expected = [
        "/env:2:1: pools.a.runner.env_file: found something before = that is not a variable's name, write NAME=value, \
         with letters, digits and _ in the name, and no `export`",
        "/env:4:3: pools.a.runner.env_file: found a line without =, write NAME=value, in one line",
        "/env:5:3: pools.a.runner.env_file: found a value in quotes, write it without quotes, or into `env`: some \
        readers make the quotes a part of the value",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        runner("env_file = \"/absent\"").lines(),
        [
            "tidegate.toml:3:12: pools.a.runner.env_file: found \"/absent\" (no such file), write the path of a file that \
          can be read"
        ]
    );
}
