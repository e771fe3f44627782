//! Configuration: from a TOML file and the environment to checked settings, with all problems at once.
//!
//! [`find`] and [`load`] do the I/O; [`parse`] is pure. Every key is declared where it is read, by one call that has
//! its name, doc, bounds and default (`daemon`, `broker`, `pools`, `policy`, `runner`); `schema` is the machine behind
//! those calls, and [`reference()`] prints what they declare.
mod arguments;
mod broker;
mod command;
mod container;
mod daemon;
mod deadlines;
mod env_file;
mod file;
mod limits;
mod machine;
mod management;
mod parse;
mod places;
mod policy;
mod pools;
mod problem;
mod reply;
mod rights;
mod runner;
mod schema;
mod scripts;
mod settings;
mod surroundings;

#[cfg(test)]
mod tests;

pub use self::{
    arguments::{CONSUMERS_PER_CHANNEL, lowest_delivery_limit},
    container::{ContainerSettings, EngineAddress, Mount, MountSource, Pull},
    file::{Source, examine, find, load, socket_of},
    limits::{CgroupUse, Cores, Limits, Rlimits},
    parse::{Loaded, parse, reference},
    problem::{NotFound, Place, Problem, Problems},
    reply::{Answers, ReplySettings},
    settings::{
        Argument, Arguments, Binding, BreakerRules, BrokerSettings, BrokerUrl, DeadLetter, Declare,
        DrainAfter, ExecSettings, HttpSettings, LogFormat, LogSettings, PoolConfig, PoolSettings,
        RetrySettings, RunnerSettings, Settings, TlsSettings, WarmSettings,
    },
    surroundings::Surroundings,
};
pub(crate) use broker::FRAME_MAX;
