//! Scenarios of pools on the in-memory queue with a paused clock. They take hardly any real time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod breaker;
mod copies;
mod deadline;
mod delayed;
mod ends;
mod faults;
mod foresee;
mod frozen;
mod gauges;
mod giving_back;
mod hooked;
mod keys;
mod orders;
mod panics;
mod policies;
mod preparing;
mod pressure;
mod programs;
mod queues;
mod reload;
mod replies;
mod results;
mod retries;
mod scaling;
mod sharing;
mod starting;
mod stopped_by_hand;
mod stuck;
mod support;
mod traces;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tidegate::{
    adapters::{handler::HandlerManager, memory::MemoryBroker},
    config::{DeadLetter, Declare, DrainAfter, PoolSettings, RetrySettings},
    decide::{EventKind, Policy, PoolName, Rule},
    queue::{
        ConsumeRequest, HeaderValue, Headers, Message, Outgoing, Properties, QueueDriver,
        QueueKind, QueueSpec,
    },
    run::{
        DrainError, Event, EventSink, FlushMode, PoolSpec, PoolState, PoolStatus, Supervisor,
        SupervisorError,
    },
    runner::{
        BoxError, CreateRunner, Job, JobControl, JobEnd, Outcome, RunReport, Runner, RunnerManager,
        StartError,
    },
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};

use self::{faults::Broken, support::*};
