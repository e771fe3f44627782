//! A worker pool that grows and shrinks with a RabbitMQ queue.
//!
//! Give it a queue and a function. The pool reads how many messages are waiting, asks a policy how many workers they
//! need, and runs that many: hundreds during a flood, none when the queue is empty. A message is acknowledged when its
//! job is done. A job that fails is retried with backoff. After its last attempt the message is kept as a dead letter.
//!
//! ```no_run
//! use tidegate::{BoxError, Job, Outcome, Policy, Pool, Supervisor};
//!
//! async fn thumbnail(job: Job) -> Result<Outcome, BoxError> {
//!     println!("{}: {} bytes", job.id(), job.body().len());
//!     Ok(Outcome::Done)
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), BoxError> {
//!     let supervisor = Supervisor::builder()
//!         .broker("amqp://guest:guest@localhost:5672/%2f")
//!         .pool(
//!             Pool::new("thumbnails")
//!                 .policy(Policy::backlog(10).max(50))
//!                 .handler(thumbnail),
//!         )
//!         .start()
//!         .await?;
//!     supervisor.run_until_signal().await?;
//!     Ok(())
//! }
//! ```
//!
//! The program `tidegate` runs the same pools from a configuration file. It is built on this library.
//!
//! # Contents
//!
//! - [How it works](#how-it-works)
//! - [Handlers](#handlers): [JSON](#json), [state](#shared-state), [blocking code](#blocking-code), [timeouts](#timeouts)
//! - [How a job is settled](#how-a-job-is-settled), [retries](#retries), [order](#order), [replies](#replies)
//! - [Scaling](#scaling)
//! - [Shutting down](#shutting-down)
//! - [Testing](#testing)
//! - [Readiness, status and metrics](#readiness-status-and-metrics)
//! - [Tower](#tower)
//! - [Other runners, and your own](#other-runners-and-your-own)
//! - [Errors](#errors), [cancel-safety](#cancel-safety), [features](#features)
//!
//! # How it works
//!
//! A [`Supervisor`] has one task for each [`Pool`], and a pool has one task for each *worker*. A worker is an AMQP
//! consumer. It takes one message at a time, borrows a *runner*, runs the job on it, and settles the message. A runner
//! executes a job: it is a function of this program, a child process, or a container. The pool keeps its runners
//! between jobs.
//!
//! Every half second, and after each important event, a pool *reconciles*:
//!
//! 1. It collects dead runners.
//! 2. It reads the depth of the queue: the messages that are ready.
//! 3. It asks the policy how many workers the *demand* needs. Demand is the ready messages plus the messages that
//!    workers hold.
//! 4. It compares that number with the number of live workers, and makes a plan.
//! 5. It applies the plan: it starts workers, or stops waiting workers. It never stops a running job to scale down,
//!    unless the pool sets [`preempt`](Pool::preempt).
//!
//! When the queue has been empty for [`drain_after`](Pool::drain_after), the pool stops all workers except
//! [`keep_warm`](Pool::keep_warm) of them. The pool then only reads the queue's depth every half second.
//!
//! A lost connection needs no special handling. The driver connects again with backoff, and the next reconcile starts
//! the workers again. If the depth cannot be read, the pool does not assume 0: the number of workers stays the same.
//!
//! The decision is a pure function ([`decide`]), and the pool keeps a record of the last decision.
//! [`Supervisor::explain`] returns that record: the reason for the current number of workers.
//!
//! Delivery is at least once. If the connection is lost before the acknowledgement, the job runs again, so a job must
//! be idempotent. [`Job::id`] is the same for all attempts of a message that has a `message-id`.
//!
//! # Handlers
//!
//! A handler is an async function of a [`Job`]. It returns an [`Outcome`], or an error:
//!
//! | the handler returns | result |
//! | --- | --- |
//! | [`Outcome::Done`] | the message is acknowledged |
//! | [`Outcome::reply(bytes)`](Outcome::reply) | the caller is answered, and the message acknowledged |
//! | [`Outcome::retry()`](Outcome::retry) | the message comes back later, and an attempt is spent |
//! | [`Outcome::reject(reason)`](Outcome::reject) | the message is a dead letter at once |
//! | a [`JsonError`] | the message is a dead letter at once: another attempt would read the same bytes |
//! | any other `Err`, or a panic | the job failed: it is retried until its attempts are spent |
//!
//! The future runs on the worker's task. It must not block the thread: see [below](#blocking-code).
//!
//! A job gives access to its message: [`body`](Job::body), [`headers`](Job::headers), [`properties`](Job::properties),
//! and the exchange where it was [first published](Job::exchange). It also has its [`attempt`](Job::attempt), whether
//! that is the [last](Job::is_last_attempt), and whether it [should stop](Job::is_stopped).
//!
//! ## JSON
//!
//! [`Job::json`] parses the body into any type that serde can read. The type may borrow from the job. Return the error
//! with `?`. The message is then dead-lettered with the reason, without retries:
//!
//! ```
//! use std::time::Duration;
//! use serde::Deserialize;
//! use tidegate::{BoxError, Job, Outcome, Pool, Supervisor, adapters::memory::MemoryBroker, queue::QueueKind};
//!
//! #[derive(Deserialize)]
//! struct Order<'a> {
//!     customer: &'a str,
//! }
//!
//! async fn take(job: Job) -> Result<Outcome, BoxError> {
//!     let order: Order<'_> = job.json()?;
//!     println!("an order of {}", order.customer);
//!     Ok(Outcome::Done)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let broker = MemoryBroker::new();
//! broker.declare_queue("orders", QueueKind::Quorum);
//! broker.send("orders", r#"{"customer": "Ada"}"#);
//! broker.send("orders", "customer=Ada");
//!
//! let pool = Pool::new("orders").handler(take);
//! let supervisor = Supervisor::builder().driver(broker.clone()).pool(pool).start().await?;
//! # let jobs = || supervisor.pool(&"orders".into()).map(|pool| pool.jobs).unwrap_or_default();
//! # while jobs().done + jobs().dead < 2 { tokio::time::sleep(Duration::from_millis(5)).await; }
//! supervisor.drain(Duration::from_secs(30)).await?;
//!
//! let dead = broker.take("orders.dead");
//! assert_eq!(dead.len(), 1);
//! assert_eq!(&dead[0].body[..], b"customer=Ada");
//! # Ok(())
//! # }
//! ```
//!
//! ## Shared state
//!
//! [`Pool::handler_with`] gives each call a clone of a value: a connection pool, an HTTP client, an `Arc` of your own.
//!
//! ```
//! use tidegate::{BoxError, Job, Outcome, Pool};
//!
//! #[derive(Clone)]
//! struct App {
//!     // for example: database: sqlx::PgPool,
//!     greeting: std::sync::Arc<str>,
//! }
//!
//! async fn greet(app: App, job: Job) -> Result<Outcome, BoxError> {
//!     let name = std::str::from_utf8(job.body())?;
//!     Ok(Outcome::reply(format!("{}, {name}", app.greeting)))
//! }
//!
//! let app = App { greeting: "Good morning".into() };
//! let pool = Pool::new("greetings").handler_with(app, greet);
//! ```
//!
//! ## Blocking code
//!
//! Code that computes for a long time, or that waits without `await`, needs its own thread. [`Pool::blocking_handler`]
//! takes an ordinary function and calls it on tokio's blocking pool:
//!
//! ```
//! use tidegate::{BoxError, Job, Outcome, Pool};
//!
//! fn resize(job: Job) -> Result<Outcome, BoxError> {
//!     for _row in 0..1_000 {
//!         if job.is_stopped() {
//!             return Err("stopped half-way".into());
//!         }
//!         // ... a row of the picture ...
//!     }
//!     Ok(Outcome::Done)
//! }
//!
//! let pool = Pool::new("thumbnails").blocking_handler(resize);
//! ```
//!
//! A thread cannot be stopped from outside. A function that runs for a long time must check [`Job::is_stopped`]
//! regularly. A function that does not check continues after its timeout, in parallel with the next attempt of the same
//! message. [`BlockingManager`](adapters::handler::BlockingManager) describes the other consequences.
//!
//! ## Timeouts
//!
//! [`Pool::timeout`] limits each job. At the timeout the job is *stopped*: [`Job::stopped`] is ready and
//! [`Job::is_stopped`] is true. The handler then has [`kill_grace`](Pool::kill_grace), 10 s by default, to clean up and
//! return. A result that it returns in that time still counts. After that time the future is dropped, and the job has
//! failed.
//!
//! A job is stopped in the same way when a drain reaches its deadline, when the pool preempts the job, and shortly
//! before [`ack_deadline`](Pool::ack_deadline), when the broker would take the message away. In these cases no attempt
//! is spent: the message goes back to its queue.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Job, Outcome, Pool};
//!
//! let pool = Pool::new("imports").timeout(Duration::from_secs(60)).handler(|job: Job| async move {
//!     tokio::select! {
//!         () = tokio::time::sleep(Duration::from_secs(5)) => Ok(Outcome::Done), // a placeholder for the work
//!         () = job.stopped() => Err("stopped: what was written is rolled back".into()),
//!     }
//! });
//! ```
//!
//! # How a job is settled
//!
//! Every message is acknowledged, put in a retry queue, put in the dead-letter queue, or given back. No message is
//! dropped. The broker confirms a copy before its original is acknowledged.
//!
//! ## Retries
//!
//! A job that fails waits in `<queue>.retry.<ms>` and comes back: first after 1 s, then after twice as long each time,
//! up to 5 minutes. After 5 attempts the message is in `<queue>.dead`, with the reason, the last error and the time in
//! its headers. [`RetrySettings`] configures all of this:
//!
//! ```
//! use std::{sync::Arc, sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use tidegate::{Job, Outcome, Pool, RetrySettings, Supervisor, adapters::memory::MemoryBroker, queue::QueueKind};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = MemoryBroker::new();
//! broker.declare_queue("mails", QueueKind::Quorum);
//! broker.send("mails", "to: ada@example.org");
//!
//! let last = Arc::new(AtomicU32::new(0));
//! let pool = Pool::new("mails")
//!     .retry(RetrySettings {
//!         max_attempts: 3,
//!         backoff: Duration::from_millis(10),
//!         ..RetrySettings::default()
//!     })
//!     .handler({
//!         let last = last.clone();
//!         move |job: Job| {
//!             if job.is_last_attempt() {
//!                 last.store(job.attempt(), Ordering::Relaxed);
//!             }
//!             async { Err("the mail server does not answer".into()) }
//!         }
//!     });
//! let supervisor = Supervisor::builder().driver(broker.clone()).pool(pool).start().await?;
//! # while broker.ready("mails.dead") != Some(1) { tokio::time::sleep(Duration::from_millis(5)).await; }
//! supervisor.drain(Duration::from_secs(30)).await?;
//! assert_eq!(last.load(Ordering::Relaxed), 3);
//! assert_eq!(broker.ready("mails.dead"), Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! [`DeadLetter::Broker`] leaves the dead letters to your own dead-letter exchange. A *breaker* ([`BreakerRules`], in
//! [`RetrySettings::breaker`]) pauses intake while most jobs fail. An outage of another service then does not spend the
//! attempts of a whole queue.
//!
//! ## Order
//!
//! Jobs of a queue run side by side, so a later one may end first. In a pool with a [`key`](Pool::key), jobs of one key (a
//! tenant, an order) run one at a time, in the order in which their messages came: [`KeySettings::header`] says which
//! header has the key. Jobs of other keys are not held back. A retry comes behind the messages of its key that arrived
//! meanwhile, and the order holds within one daemon.
//!
//! ## Replies
//!
//! A message with a `reply_to` asks for an answer. [`Outcome::reply`] gives one. The reply is published and confirmed
//! before the message is acknowledged. If the message has no `reply_to`, it is the same as [`Outcome::Done`].
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Job, Outcome, Pool, Reply, ReplySettings, Supervisor};
//! use tidegate::{adapters::memory::MemoryBroker, queue::{Outgoing, Properties, QueueKind}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = MemoryBroker::new();
//! broker.declare_queue("squares", QueueKind::Classic);
//! broker.declare_queue("answers", QueueKind::Classic);
//! broker.send_message(Outgoing {
//!     routing_key: "squares".into(),
//!     body: "12".into(),
//!     properties: Properties {
//!         reply_to: Some("answers".into()),
//!         correlation_id: Some("question 1".into()),
//!         ..Properties::default()
//!     },
//!     ..Outgoing::default()
//! });
//!
//! let pool = Pool::new("squares")
//!     // A caller by direct reply-to is always answered; a queue must be allowed.
//!     .reply(ReplySettings { allow: vec!["answers".into()], ..ReplySettings::default() })
//!     .handler(|job: Job| async move {
//!         let number: u64 = job.json()?;
//!         let answer = (number * number).to_string();
//!         Ok(Outcome::Reply(Reply::new(answer).content_type("application/json")))
//!     });
//! let supervisor = Supervisor::builder().driver(broker.clone()).pool(pool).start().await?;
//! # while broker.ready("answers") != Some(1) { tokio::time::sleep(Duration::from_millis(5)).await; }
//! supervisor.drain(Duration::from_secs(30)).await?;
//!
//! let answer = &broker.take("answers")[0];
//! assert_eq!(&answer.body[..], b"144");
//! assert_eq!(answer.properties.correlation_id.as_deref(), Some("question 1"));
//! # Ok(())
//! # }
//! ```
//!
//! A job that finally fails is answered too, with the header `x-tidegate-outcome: failed`. [`ReplySettings`] can turn
//! replies off.
//!
//! # Scaling
//!
//! A [`Policy`] computes how many workers a demand needs. [`Scaling`] limits how fast that number may change:
//!
//! ```
//! use std::time::Duration;
//! use tidegate::{Job, Outcome, Policy, Pool, Scaling};
//!
//! let pool = Pool::new("thumbnails")
//!     // A worker for each ten jobs of demand, at least 2 while there is work, at most 50.
//!     .policy(Policy::backlog(10).min_active(2).max(50))
//!     // At most 10 more at once. Scale down only to the highest recommendation of the last minute.
//!     .scaling(Scaling { up_step: 10, down_window: Duration::from_secs(60), ..Scaling::default() })
//!     .drain_after(Duration::from_secs(30))
//!     .handler(|_: Job| async { Ok(Outcome::Done) });
//! ```
//!
//! [`Policy::fixed`] gives the same number for every demand. [`Policy::steps`] gives a number for each range of demand.
//! [`Policy::target_wait`] runs as many workers as keep the waiting time of messages under a target. It measures how
//! fast messages arrive and how long jobs run:
//!
//! ```
//! use std::time::Duration;
//! use tidegate::Policy;
//!
//! // 95 of 100 messages wait at most 30 s, with workers that are busy for 70 % of their time.
//! let policy = Policy::target_wait(Duration::from_secs(30)).utilisation(0.7).max(200);
//! assert!(policy.needs_measurements());
//! ```
//!
//! A program can also have its own policy: the pool asks a [`ScalingPolicy`] at each reconcile with all known facts. The
//! policy may keep state. Its bounds and `scaling` limit its answer.
//!
//! ```
//! use tidegate::{
//!     OwnPolicy, Pool, ScalingPolicy,
//!     decide::{Recommendation, Situation},
//! };
//!
//! /// One worker for each ten jobs, and twice as many while more arrive than are done.
//! struct Eager;
//!
//! impl ScalingPolicy for Eager {
//!     fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation {
//!         let workers = situation.inputs.demand.div_ceil(10) as u32;
//!         match situation.rates {
//!             Some(rates) if rates.arrivals > rates.done => {
//!                 Recommendation::new(workers * 2, "more arrive than are done")
//!             }
//!             _ => Recommendation::new(workers, "one worker for each 10 jobs"),
//!         }
//!     }
//!
//!     fn describe(&self) -> String {
//!         String::from("eager")
//!     }
//! }
//!
//! let pool = Pool::new("thumbnails").policy(OwnPolicy::new(Eager).max(50));
//! # assert_eq!(pool.settings().policy.max, 50);
//! ```
//!
//! A running pool can be steered: [`Supervisor::scale`] pins it to a number, [`pause`](Supervisor::pause) and
//! [`resume`](Supervisor::resume) close and open its intake, and [`steer`](Supervisor::steer) carries out any
//! [order](decide::Order). [`reconfigure`](Supervisor::reconfigure) gives the supervisor another set of pools, each
//! made by [`Pool::into_spec`]. Orders stay in force when the configuration changes.
//!
//! # Shutting down
//!
//! Most programs need only [`Supervisor::run_until_signal`]. It runs until SIGTERM or SIGINT arrives. Then workers take
//! no more messages, and running jobs are finished and settled. Each pool has its
//! [`shutdown_grace`](Pool::shutdown_grace) for this, 30 s by default. Jobs that are still running then are stopped and
//! given back. A second SIGINT stops everything at once.
//!
//! A program that ends for another reason passes its own future:
//!
//! ```
//! use tidegate::{Job, Outcome, Pool, Supervisor, adapters::memory::MemoryBroker, queue::QueueKind};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = MemoryBroker::new();
//! # broker.declare_queue("jobs", QueueKind::Classic);
//! # let pool = Pool::new("jobs").handler(|_: Job| async { Ok(Outcome::Done) });
//! # let supervisor = Supervisor::builder().driver(broker).pool(pool).start().await?;
//! let (end, ended) = tokio::sync::oneshot::channel::<()>();
//! # let _ = end.send(());
//! let report = supervisor.run_until(async { drop(ended.await) }).await?;
//! println!("finished {} jobs in {:?}", report.finished, report.took);
//! # Ok(())
//! # }
//! ```
//!
//! [`drain`](Supervisor::drain) takes its deadline as an argument. [`stop_now`](Supervisor::stop_now) has no deadline.
//! All of them return when every pool has ended and the connections are closed. `Ok` means that no running job was
//! interrupted. A [`DrainError`] says how many jobs were given back.
//!
//! **Dropping** the last clone of a [`Supervisor`] also stops everything at once, but does not wait for it.
//!
//! # Testing
//!
//! [`MemoryBroker`](adapters::memory::MemoryBroker) is a broker within the process. It behaves like RabbitMQ in
//! everything that a pool can observe: prefetch, redelivery, delivery limits, retry queues, dead letters. A test can
//! disconnect it, block it with an alarm, or make it refuse operations. It uses tokio's clock: in a test with a paused
//! clock, an hour of backoff takes no time.
//!
//! ```
//! # // This example has no test harness, so it has an attribute of its own:
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! # a_mail_is_tried_again_until_the_server_answers().await;
//! # }
//! use std::{sync::Arc, sync::atomic::{AtomicU32, Ordering}, time::Duration};
//! use tidegate::{Job, Outcome, Pool, Supervisor, adapters::memory::MemoryBroker, queue::QueueKind};
//!
//! // #[tokio::test(start_paused = true)]
//! async fn a_mail_is_tried_again_until_the_server_answers() {
//!     let broker = MemoryBroker::new();
//!     broker.declare_queue("mails", QueueKind::Quorum);
//!     broker.send("mails", "to: ada@example.org");
//!
//!     let calls = Arc::new(AtomicU32::new(0));
//!     let pool = Pool::new("mails").handler({
//!         let calls = calls.clone();
//!         move |_: Job| {
//!             let is_up = calls.fetch_add(1, Ordering::Relaxed) == 2;
//!             async move { if is_up { Ok(Outcome::Done) } else { Err("down".into()) } }
//!         }
//!     });
//!     let builder = Supervisor::builder().driver(broker.clone()).pool(pool);
//!     let supervisor = builder.start().await.unwrap();
//!
//!     // Waits for what is expected. The clock moves on by itself.
//!     let done = async {
//!         while supervisor.pool(&"mails".into()).unwrap().jobs.done == 0 {
//!             tokio::time::sleep(Duration::from_millis(10)).await;
//!         }
//!     };
//!     tokio::time::timeout(Duration::from_secs(60), done).await.unwrap();
//!     assert_eq!(calls.load(Ordering::Relaxed), 3);
//!
//!     supervisor.drain(Duration::from_secs(30)).await.unwrap();
//!     assert_eq!(broker.ready("mails"), Some(0));
//! }
//! ```
//!
//! A paused clock needs tokio's feature `test-util`. A handler alone can be tested without a broker: make a job with
//! [`Job::new`].
//!
//! # Readiness, status and metrics
//!
//! [`Supervisor::is_ready`] answers a readiness probe: the supervisor is connected, and every pool can work.
//! [`readiness`](Supervisor::readiness) gives the reasons if it is not ready. [`pools`](Supervisor::pools) gives a
//! snapshot of each pool, which serde can serialise.
//!
//! ```
//! use tidegate::{Job, Outcome, Pool, Supervisor, adapters::memory::MemoryBroker};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = MemoryBroker::new(); // and no queue
//! let pool = Pool::new("jobs").handler(|_: Job| async { Ok(Outcome::Done) });
//! let supervisor = Supervisor::builder().driver(broker).pool(pool).start().await?;
//! supervisor.reconcile(&"jobs".into()).await?;
//! assert!(!supervisor.is_ready());
//! assert_eq!(supervisor.readiness().reasons, ["pool jobs waits: no queue jobs"]);
//! assert_eq!(supervisor.pools()[0].workers.live, 0);
//! # Ok(())
//! # }
//! ```
//!
//! Metrics go to the [`metrics`](https://docs.rs/metrics) facade. Without a recorder they are discarded. Install a
//! recorder **before** the supervisor starts, because a pool creates its metric handles only once. For Prometheus that
//! is one line: `metrics_exporter_prometheus::PrometheusBuilder::new().install()?`, which serves port 9000. Then call
//! [`run::metrics::describe`], which tells the recorder what each metric means. Any other recorder works too:
//!
//! ```
//! use metrics_util::debugging::DebuggingRecorder;
//! use tidegate::{Job, Outcome, Pool, Supervisor, adapters::memory::MemoryBroker, queue::QueueKind};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let recorder = DebuggingRecorder::new();
//! let snapshotter = recorder.snapshotter();
//! # // One process may run several examples, and has one global recorder.
//! # let _recorder = metrics::set_default_local_recorder(&recorder);
//! # #[cfg(any())]
//! recorder.install()?;
//! tidegate::run::metrics::describe();
//!
//! let broker = MemoryBroker::new();
//! broker.declare_queue("jobs", QueueKind::Classic);
//! let pool = Pool::new("jobs").handler(|_: Job| async { Ok(Outcome::Done) });
//! let supervisor = Supervisor::builder().driver(broker).pool(pool).start().await?;
//!
//! let metrics = snapshotter.snapshot().into_vec();
//! let has = |name| metrics.iter().any(|(key, ..)| key.key().name() == name);
//! assert!(has("tidegate_queue_depth_messages") && has("tidegate_jobs_total"));
//! # Ok(())
//! # }
//! ```
//!
//! The log is written through [`tracing`](https://docs.rs/tracing): `info` when the number of workers changes, `debug`
//! for each job, with the spans `worker` and `job`. An [`EventSink`](run::EventSink) receives each start and end of a
//! runner.
//!
//! Each message also has spans with the names of OpenTelemetry, with the target [`run::traces::TARGET`]: `receive`,
//! `process` and `settle`. [`Builder::traces`] connects them with the trace in the message's `traceparent` header. Only
//! the program knows its tracing backend, so it gives a function:
//!
//! ```
//! use tidegate::{Supervisor, queue::TraceContext};
//!
//! let builder = Supervisor::builder().traces(|_span: &tracing::Span, parent: Option<&TraceContext>| {
//!     // Make `parent` the parent of the span in the backend, and return the context of the span.
//!     parent.cloned()
//! });
//! ```
//!
//! # Tower
//!
//! With the feature `tower`, a [`tower::Service`](https://docs.rs/tower) of [`Job`] is a handler. Its layers apply to
//! the whole pool: a rate limit, a timeout, your own tracing, or a concurrency limit across pools that share a service.
#![cfg_attr(
    feature = "tower",
    doc = r##"
```
use std::time::Duration;
use tidegate::{BoxError, Job, Outcome, Pool};
use tower::{ServiceBuilder, service_fn};

async fn call_the_api(_job: Job) -> Result<Outcome, BoxError> {
    Ok(Outcome::Done)
}

# #[tokio::main(flavor = "current_thread")]
# async fn main() {
let service = ServiceBuilder::new()
    .buffer(100) // a rate limit cannot be cloned, and its buffer can
    .rate_limit(50, Duration::from_secs(1))
    .timeout(Duration::from_secs(10))
    .service(service_fn(call_the_api));
let pool = Pool::new("requests").service(service);
# }
```
"##
)]
//!
//! # Other runners, and your own
//!
//! A pool can run its jobs on something other than a function:
//!
//! - [`Pool::exec`]: a child process for each job. The body is its standard input, and its exit code is the outcome.
//! - [`Pool::warm`]: long-lived child processes that receive one job after another.
//! - [`Pool::consumer`]: programs that consume the queue themselves. The pool decides how many there are.
//! - `Pool::container`, with the feature `container`: a container for each job, through the API of Docker or Podman.
//!
//! For anything else, implement two traits. A [`RunnerManager`] creates runners, and a [`Runner`] runs one job at a
//! time. The pool decides how many runners there are, keeps them between jobs, and ends them when the queue is empty:
//!
//! ```
//! use async_trait::async_trait;
//! use tidegate::{
//!     Job, Pool, Runner, RunnerManager,
//!     runner::{CreateRunner, JobControl, JobEnd, RunReport, StartError},
//! };
//!
//! /// Sessions with a machine that does the work.
//! #[derive(Debug)]
//! struct Sessions;
//!
//! struct Session;
//!
//! #[async_trait]
//! impl RunnerManager for Sessions {
//!     fn kind(&self) -> &'static str {
//!         "session"
//!     }
//!
//!     async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
//!         // Connect here. An error gives the message back, and the pool backs off.
//!         Ok(Box::new(Session))
//!     }
//! }
//!
//! #[async_trait]
//! impl Runner for Session {
//!     async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
//!         control.started.notify();
//!         let work = async { job.body().len() }; // a placeholder for the work
//!         let end = tokio::select! {
//!             _ = work => JobEnd::Done { reply: None },
//!             () = control.stop.cancelled() => JobEnd::Stopped,
//!             () = control.kill.cancelled() => JobEnd::Stopped,
//!         };
//!         RunReport { end, reusable: true }
//!     }
//!
//!     async fn stop(self: Box<Self>) {
//!         // Say goodbye, within a bound.
//!     }
//! }
//!
//! let pool = Pool::new("calculations").runners(Sessions);
//! ```
//!
//! `examples/custom_runner.rs` is a complete program. [`runner`] says what the pool guarantees and what it expects. To
//! use a broker other than RabbitMQ, implement [`QueueDriver`](queue::QueueDriver).
//!
//! # Errors
//!
//! Each error of the library is a complete sentence. Its cause is its `source`. [`LaunchError`] and [`SupervisorError`]
//! are mistakes of the program: invalid settings, two pools on one queue, an unknown pool name. They are checked before
//! anything runs or changes.
//!
//! An unreachable broker is not an error: pools wait for it, and [`readiness`](Supervisor::readiness) reports it. A
//! problem of a pool is a [state](run::PoolState) with a cause, in [`PoolStatus`], and one line in the log. A problem
//! of a job is a failure of that job.
//!
//! # Cancel-safety
//!
//! Each async function says whether its future may be dropped. In general:
//!
//! - The calls that ask a pool for something ([`reconcile`](Supervisor::reconcile), [`scale`](Supervisor::scale),
//!   [`flush`](Supervisor::flush)) may be dropped: the pool still carries out the request.
//! - [`drain`](Supervisor::drain), [`shutdown`](Supervisor::shutdown) and [`stop_now`](Supervisor::stop_now) may be
//!   dropped: the shutdown continues, and another call waits for it.
//! - [`reconfigure`](Supervisor::reconfigure) must not be dropped: some pools could keep their old settings. If it was
//!   dropped, call it again.
//! - A handler's future is dropped at the end of its grace and when the supervisor is dropped. Its message is then not
//!   acknowledged.
//!
//! # Features
//!
//! No feature is on by default. Without features, the library contains no command line and no HTTP server.
//!
//! | feature | adds |
//! | --- | --- |
//! | `container` | `Pool::container`: a container for each job, through the API of Docker or Podman |
//! | `tower` | `Pool::service`: a tower service as a handler |
//!
//! The library needs Linux and tokio, with either of its runtimes.

pub mod adapters;
pub mod api;
#[doc(hidden)]
pub mod builder;
pub mod config;
pub mod host;
pub mod queue;
pub mod run;
pub mod runner;
pub mod runners;

#[doc(hidden)]
pub use tidegate_core::escape;
#[doc(hidden)]
pub use tidegate_core::text;
#[doc(hidden)]
pub use tidegate_core::trace;
pub use tidegate_core::{decide, settle};

pub use self::{
    builder::{Builder, LaunchError, Pool},
    config::{
        Answers, Argument, Cores, DeadLetter, Declare, ExecSettings, KeySettings, Limits,
        ReplySettings, RetrySettings, Rlimits, TlsSettings,
    },
    decide::{BreakerRules, OwnPolicy, Policy, Scaling, ScalingPolicy},
    run::{
        DrainError, DrainReport, FlushMode, PoolStatus, Readiness, RunError, StopReport,
        Supervisor, SupervisorError,
    },
    runner::{BoxError, Job, JsonError, Outcome, Reply, Runner, RunnerManager},
    runners::{ConsumerSettings, WarmSettings},
};
