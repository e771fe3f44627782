//! Reports of runners, and the use of a job's output, as data. The trait for a runner is in the library's `runner`
//! module.

mod output;
mod report;

pub use self::{
    output::OutputUse,
    report::{Failure, FailureKind, JobEnd, Outcome, Reply, RunReport, StartError},
};
