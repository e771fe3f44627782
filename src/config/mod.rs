//! Configuration: from a TOML file and the environment to checked settings, with all problems at once.
//!
//! [`find`] and [`load`] do the I/O; [`parse`] is pure. Every key is declared where it is read, by one call with its
//! name, doc, bounds and default (`daemon`, `broker`, `pools`, `policy`). `schema` implements those calls, and
//! [`reference()`] prints what they declare. The keys of a pool's `runner` table are declared in
//! [`runners`](crate::runners), by the kinds of runner.
mod arguments;
mod broker;
mod by_hand;
mod consuming;
mod daemon;
mod deadlines;
mod file;
pub(crate) mod inputs;
mod machine;
mod management;
mod order_keys;
mod origin;
mod otlp;
mod parse;
mod places;
mod policy;
mod pools;
pub(crate) mod problem;
mod reply;
mod schedule;
pub(crate) mod schema;
pub(crate) mod settings;
mod supervisor;
mod surroundings;
mod url;
mod url_key;
mod whole;

#[cfg(test)]
mod tests;

pub(crate) use self::settings::FRAME_MAX;
pub use self::{
    arguments::lowest_delivery_limit,
    by_hand::{ChangedPolicy, PolicyEdit, PolicyKey, change_policy, policy_keys, policy_toml},
    file::{Examined, Source, examine, find, load, socket_of},
    origin::{Origin, Origins},
    otlp::{OtlpHeaders, OtlpSettings},
    parse::{Loaded, described, parse, reference, variable_of},
    problem::{NotFound, Place, Problem, Problems},
    reply::{Answers, ReplySettings},
    schema::{Described, DescribedKey, Shape, Written},
    settings::{
        Argument, Arguments, Binding, BreakerRules, BrokerSettings, CONSUMERS_PER_CHANNEL,
        DeadLetter, Declare, DrainAfter, HttpSettings, KeySettings, KeySource, LogFormat,
        LogSettings, PoolSettings, RetrySettings, SupervisorSettings, TlsSettings,
    },
    surroundings::Surroundings,
    url::BrokerUrl,
    whole::{PoolConfig, Settings},
};
pub use crate::{
    host::limits::{CgroupUse, Cores, Limits, Rlimits},
    runners::{ExecSettings, RunnerSettings},
};
#[cfg(test)]
pub(crate) use parse::parse_with;
