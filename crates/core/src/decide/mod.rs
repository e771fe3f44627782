//! Decide: how many workers there should be, why, and how to reach that number.
//!
//! Everything here is a pure function of its arguments: `now` and an [`Observation`] go in, a [`Plan`] and its
//! [`Decision`] come out. This module uses no tokio, no client library and no clock. So the same code decides, answers
//! `explain`, can replay a recorded trace, and is tested without a runtime.

mod breaker;
mod budget;
mod census;
mod deadline;
mod fault_pause;
mod inputs;
mod intake;
mod measure;
mod model;
mod names;
mod observe;
mod openings;
mod orders;
mod own_policy;
mod plan;
mod policy;
mod programs;
mod reconcile;
mod record;
mod scaling_policy;
mod schedule;
mod share;
mod stabiliser;
mod state;
mod steering;
mod stuck;
mod taken_ahead;
mod target_wait;

pub use self::{
    breaker::{Breaker, BreakerRules, BreakerSignal, BreakerState},
    budget::{Allowance, PoolNeed, allowances, divide_workers},
    census::{Census, CensusWorker, Counts, Phase},
    deadline::{DeliveryDeadlines, margin},
    fault_pause::{absent_pause, fault_pause},
    inputs::Inputs,
    intake::{FaultKind, IntakeState, JobEnded},
    measure::{
        Arrivals, FAST, Measured, Meter, Rates, SERVICE_CONSTANT, SLOW, Spread, Timings,
        WAIT_CONSTANT,
    },
    model::{JobId, Moment, PoolName, QueueName, RunnerId, WorkerId},
    names::{NAME_BYTES, NAME_BYTES_BEYOND_ASCII, may_break_error_texts, name_room},
    observe::{DrainAfter, Intake, Observation, Probe, Reading},
    openings::{ConsumerRefusal, Openings, RefusalKind},
    orders::{
        By, ByHand, Changed, Closed, Configured, Expired, Order, OrderRefused, Orders, SetPolicy,
        Shrinking,
    },
    own_policy::{OwnPolicy, PolicyChoice},
    plan::{Bounds, Plan, PlanSummary, plan},
    policy::{DEFAULT_MAX, Policy, PolicyKind, Step},
    programs::{HeldBy, ProgramStop, Replacements, STEADY_AFTER, assumed_held},
    reconcile::{EventKind, ReconcileResult, Reconciler, Reconciliation, Rules},
    record::{Decision, Rule, Term, TermName},
    scaling_policy::{Recommendation, ScalingPolicy, Situation},
    schedule::{
        Cron, CronParseError, NextOpening, OpenEntry, Schedule, ScheduleEntry, ScheduleState,
        ScheduledBounds,
    },
    share::{
        BEAT, Beat, FORGET_AFTER, Group, Heard, MAX_MEMBERS, Member, MemberId, MemberNumbers,
        Members, share_exchange, split,
    },
    stabiliser::Scaling,
    state::{Link, PoolState, StateScene, pool_state},
    steering::{SteeringAct, SteeringOutcome},
    stuck::{Depth, STUCK_AFTER, StuckInputs, StuckWatch},
    taken_ahead::TakenAhead,
    target_wait::{TargetWait, Utilisation},
};
