//! What a runner reports, and what a job's output is for, as data. The seam itself is the library's `runner`.

mod output;
mod report;

pub use self::{
    output::OutputUse,
    report::{Failure, FailureKind, JobEnd, Outcome, Reply, RunReport, StartError},
};
