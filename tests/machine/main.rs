//! Tests that need more from the machine than a broker: a container engine, root, cgroups, interpreters.
//!
//! They have a harness of their own, because libtest cannot ignore a test at run time. Here a test whose needs are
//! missing is reported as `ignored`, with the reason. A test is added by a line in its module's `trials!`. `#[test]`
//! has no effect here.
#![allow(clippy::unwrap_used, reason = "a test that cannot continue ends there")]

/// Registers a module's tests with their needs: `plain` tests, and `tasks`, which are async.
macro_rules! trials {
    ($($kind:ident($need:expr): [$($test:ident),* $(,)?]),* $(,)?) => {
        pub(crate) fn trials(all: &mut crate::harness::Trials) {
            $($(all.$kind(module_path!(), stringify!($test), $need, $test);)*)*
        }
    };
}

mod harness;
mod needs;
#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod alerts;
mod channel_limits;
mod consumers;
mod container_runner;
mod exec_limits;
mod full_disk;
mod grafana;
mod ignored;
mod limits;
mod man_pages;
mod orphans;
mod runner_conformance;
mod shims;
mod socket;
mod warm_slots;
mod with_broker;

fn main() -> std::process::ExitCode {
    let mut all = harness::Trials::default();
    alerts::trials(&mut all);
    channel_limits::trials(&mut all);
    consumers::trials(&mut all);
    consumers::frameworks::trials(&mut all);
    container_runner::trials(&mut all);
    exec_limits::trials(&mut all);
    full_disk::trials(&mut all);
    grafana::trials(&mut all);
    ignored::trials(&mut all);
    limits::trials(&mut all);
    man_pages::trials(&mut all);
    orphans::trials(&mut all);
    orphans::in_cgroups::trials(&mut all);
    runner_conformance::trials(&mut all);
    shims::trials(&mut all);
    socket::trials(&mut all);
    warm_slots::trials(&mut all);
    with_broker::trials(&mut all);
    all.run()
}
