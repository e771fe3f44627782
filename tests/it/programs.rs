//! Pools of programs that consume the queue themselves, as the command line shows them.

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, poll},
    queue::Queue,
};

/// Two programs, also on an empty queue. They do not end before there is a file `go`, and write their names to `names`.
fn celery(queue: &Queue) -> String {
    format!(
        "[pools.celery]\nqueue = \"{queue}\"\npoll_interval = \"50ms\"\ndrain_after = \"never\"\n\
         policy = {{ kind = \"fixed\", workers = 2 }}\n\
         [pools.celery.runner]\nkind = \"consumer\"\n\
         command = [\"sh\", \"-c\", \"trap '' TERM; echo $0 >> names; while [ ! -e go ]; do sleep 0.05; done\", \
         \"w{{process}}-{{start}}\"]\n",
        queue = queue.name()
    )
}

/// The output of a command that must succeed.
fn out_of(daemon: &Daemon, args: &[&str]) -> String {
    let (code, out, err) = daemon.run(args);
    assert_eq!(code, Some(0), "{args:?}: {err}");
    out
}

#[test]
fn commands_about_jobs_and_dead_letters_say_that_programs_consume_by_themselves() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &celery(&queue));
    daemon.wait_for_pool("celery", |pool| {
        pool["workers"]["live"] == 2 && pool["consumes"] == true
    });
    assert_eq!(
        out_of(&daemon, &["jobs", "celery"]),
        "celery: its programs consume the queue themselves, so tidegate does not see their jobs; 2 programs are up\n"
    );
    let (code, _, err) = daemon.run(&["dead", "list", "celery"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        err.contains("the programs of pool celery consume the queue themselves"),
        "{err}"
    );
    let flushed = out_of(&daemon, &["flush", "celery"]);
    assert!(
        flushed.starts_with("celery: 2 programs told to end, to be replaced\n"),
        "{flushed}"
    );
}

#[test]
fn a_change_of_a_fixed_number_of_programs_says_what_stays_on_an_empty_queue() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &celery(&queue));
    daemon.wait_for_pool("celery", |pool| pool["workers"]["live"] == 2);
    let tried = out_of(
        &daemon,
        &["policy", "set", "celery", "workers=3", "--dry-run"],
    );
    assert!(tried.contains("new expects 3 workers"), "{tried}");
    // Nothing is set.
    assert!(!tried.contains("by hand"), "{tried}");
    let set = out_of(&daemon, &["policy", "set", "celery", "workers=3"]);
    assert!(set.contains("before: 2 workers for 0 jobs"), "{set}");
    assert!(set.contains("after: 3 workers for 0 jobs"), "{set}");
}

#[test]
fn a_removed_pool_is_shown_until_its_programs_have_ended_and_the_names_of_its_successors_differ() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &celery(&queue));
    daemon.wait_for_pool("celery", |pool| pool["workers"]["live"] == 2);
    let names = || {
        let names = std::fs::read_to_string(daemon.dir().join("names")).unwrap_or_default();
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(poll(|| (names().len() == 2).then_some(())).is_some());
    let renamed = celery(&queue).replace("pools.celery", "pools.mails");
    daemon.configure(&broker_url(), "", &renamed);
    out_of(&daemon, &["reload"]);
    let line = "celery was removed from the configuration: 2 programs still end\n";
    let status = out_of(&daemon, &["status"]);
    assert!(status.contains(line), "{status}");
    let status = out_of(&daemon, &["status", "--format", "json"]);
    let pools: serde_json::Value = serde_json::from_str(&status).unwrap();
    let of = |n: usize| (pools[n]["name"].as_str(), pools[n]["removed"].as_bool());
    assert_eq!(
        [of(0), of(1)],
        [(Some("mails"), None), (Some("celery"), Some(true))]
    );
    // Both pools have a first and a second process.
    assert!(poll(|| (names().len() == 4).then_some(())).is_some());
    let mut all = names();
    assert_eq!(all.iter().filter(|name| name.starts_with("w1-")).count(), 2);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "{all:?}");
    std::fs::write(daemon.dir().join("go"), "").unwrap();
    let gone = || {
        let status = out_of(&daemon, &["status"]);
        (!status.contains("was removed")).then_some(())
    };
    assert!(poll(gone).is_some());
}
