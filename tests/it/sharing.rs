//! Daemons that share a queue.

use std::{collections::BTreeSet, fs};

use nix::sys::signal::Signal;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, poll},
    queue::Queue,
};

mod faults;
mod permissions;

#[test]
fn the_others_take_the_share_of_a_daemon_that_is_killed_and_no_job_is_lost() {
    let queue = Queue::new();
    let ran = tempfile::NamedTempFile::new().unwrap();
    let pools = format!(
        "[pools.jobs]\nqueue = \"{}\"\nshare = true\npoll_interval = \"100ms\"\n\
         policy = {{kind = \"backlog\", jobs_per_worker = 1, max = 6}}\n\
         runner.command = [\"sh\", \"-c\", 'echo $(cat) >> $0; sleep 0.3', \"{}\"]\n",
        queue.name(),
        ran.path().display()
    );
    let daemons: Vec<Daemon> = (0..3)
        .map(|_| Daemon::start(&broker_url(), &pools))
        .collect();
    for daemon in &daemons {
        daemon.wait_for_pool("jobs", |pool| {
            pool["members"]
                .as_array()
                .is_some_and(|members| members.len() == 3)
        });
    }
    for n in 0..200 {
        queue.publish(&n.to_string());
    }
    for daemon in &daemons {
        let pool = daemon.wait_for_pool("jobs", |pool| pool["workers"]["live"] == 2);
        assert_eq!(pool["expected"], 2, "{pool:#}");
    }
    daemons[0].signal(Signal::SIGKILL);
    for daemon in &daemons[1..] {
        let pool = daemon.wait_for_pool("jobs", |pool| pool["workers"]["live"] == 3);
        assert_eq!(
            pool["members"].as_array().map(Vec::len),
            Some(2),
            "{pool:#}"
        );
    }
    let seen = || -> BTreeSet<u32> {
        let text = fs::read_to_string(ran.path()).unwrap();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    poll(|| (seen().len() == 200).then_some(())).expect("every job ran");
}
