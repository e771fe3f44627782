//! Messages that ask for a reply.

use tidegate::{
    Answers, Reply, ReplySettings,
    config::DeadLetter,
    queue::{Outgoing, Properties},
    run::ReplyTotals,
};

use super::*;

/// The direct reply-to address of a caller. In the in-memory broker it is a queue.
const CALLER: &str = "amq.rabbitmq.reply-to.caller.key";

fn asking(reply_to: &str, body: &'static str) -> Outgoing {
    Outgoing {
        routing_key: QUEUE.to_owned(),
        properties: Properties {
            reply_to: Some(reply_to.to_owned()),
            correlation_id: Some("c-1".to_owned()),
            ..Properties::default()
        },
        body: body.into(),
        ..Outgoing::default()
    }
}

/// A broker on which a caller waits for replies.
fn asked() -> MemoryBroker {
    let broker = broker();
    broker.declare_queue(CALLER, QueueKind::Classic);
    broker
}

/// Replies to "echo", fails at "fail" and rejects "reject". Other jobs are done without a reply.
async fn echo(job: Job) -> Result<Outcome, BoxError> {
    match &job.body()[..] {
        b"echo" => Ok(Outcome::Reply(
            Reply::new(job.body().clone()).content_type("text/plain"),
        )),
        b"fail" => Err("no".into()),
        b"reject" => Ok(Outcome::reject("never")),
        _ => Ok(Outcome::Done),
    }
}

fn two_attempts(reply: ReplySettings) -> PoolSettings {
    PoolSettings {
        retry: RetrySettings {
            max_attempts: 2,
            ..RetrySettings::default()
        },
        reply,
        ..settings(Policy::fixed(1))
    }
}

fn allowing(queue: &str) -> ReplySettings {
    ReplySettings {
        allow: vec![queue.to_owned()],
        ..ReplySettings::default()
    }
}

fn replies(done: u64, failed: u64, refused: u64, undeliverable: u64) -> ReplyTotals {
    ReplyTotals {
        done,
        failed,
        refused,
        undeliverable,
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_published_before_its_message_is_acknowledged() {
    let broker = asked();
    let supervisor = start(
        &broker,
        two_attempts(ReplySettings::default()),
        HandlerManager::new(echo),
    );
    broker.send_message(asking(CALLER, "echo"));
    broker.set_blocked(true);
    until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked
    })
    .await;
    throughout(&supervisor, Duration::from_secs(60), "held", |pool| {
        pool.jobs == Default::default() && pool.replies == replies(0, 0, 0, 0)
    })
    .await;
    assert_eq!(broker.ready(CALLER), Some(0));
    broker.set_blocked(false);
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert_eq!(status(&supervisor).replies, replies(1, 0, 0, 0));
    let answers = broker.take(CALLER);
    assert_eq!(answers.len(), 1);
    assert_eq!(&answers[0].body[..], b"echo");
    assert_eq!(text(&answers[0].headers, "x-tidegate-outcome"), "done");
    let properties = &answers[0].properties;
    assert_eq!(properties.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(properties.reply_to, None);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_reply_is_held_is_given_back_at_its_deadline_or_when_the_pool_stops() {
    for stop in [false, true] {
        let broker = asked();
        let settings = PoolSettings {
            ack_deadline: Duration::from_secs(100),
            ..two_attempts(ReplySettings::default())
        };
        let supervisor = start(&broker, settings, HandlerManager::new(echo));
        broker.send_message(asking(CALLER, "echo"));
        broker.set_blocked(true);
        until(&supervisor, "blocked", |pool| {
            pool.state == PoolState::Blocked
        })
        .await;
        if stop {
            let end = supervisor.drain(Duration::from_secs(10)).await;
            assert!(matches!(
                end,
                Err(DrainError::DeadlinePassed { given_back: 1, .. })
            ));
        } else {
            throughout(&supervisor, Duration::from_secs(90), "held", |pool| {
                pool.jobs.requeued == 0
            })
            .await;
            until(&supervisor, "given back", |pool| pool.jobs.requeued == 1).await;
            broker.set_blocked(false);
            until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
            assert_eq!(broker.take(CALLER).len(), 1);
            continue;
        }
        assert_eq!(
            (broker.ready(QUEUE), broker.ready(CALLER)),
            (Some(1), Some(0))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_failure_is_answered_once_and_its_retries_are_not() {
    let broker = asked();
    let supervisor = start(
        &broker,
        two_attempts(ReplySettings::default()),
        HandlerManager::new(echo),
    );
    broker.send_message(asking(CALLER, "fail"));
    until(&supervisor, "retried", |pool| pool.jobs.retried == 1).await;
    assert_eq!(broker.ready(CALLER), Some(0));
    until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    let answers = broker.take(CALLER);
    assert_eq!(answers.len(), 1);
    let answer = &answers[0];
    assert_eq!(answer.body.len(), 0);
    assert_eq!(answer.properties.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(text(&answer.headers, "x-tidegate-outcome"), "failed");
    assert_eq!(text(&answer.headers, "x-tidegate-reason"), "attempts");
    assert_eq!(text(&answer.headers, "x-tidegate-error"), "no");
    assert_eq!(status(&supervisor).replies, replies(0, 1, 0, 0));
    assert_eq!(broker.take("jobs.dead").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_job_is_answered_whichever_way_its_message_is_dead_lettered() {
    for dead_letter in [DeadLetter::Queue, DeadLetter::Broker] {
        let broker = asked();
        let mut settings = two_attempts(ReplySettings::default());
        settings.retry.dead_letter = dead_letter;
        let supervisor = start(&broker, settings, HandlerManager::new(echo));
        broker.send_message(asking(CALLER, "reject"));
        until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
        let answers = broker.take(CALLER);
        assert_eq!(text(&answers[0].headers, "x-tidegate-reason"), "rejected");
        assert_eq!(text(&answers[0].headers, "x-tidegate-error"), "never");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_answered_too() {
    let broker = asked();
    let mut message = asking(CALLER, "echo");
    message
        .headers
        .insert("x-tidegate-give-backs".to_owned(), HeaderValue::I64(20));
    broker.send_message(message);
    // Delivered once more, and its consumer lost.
    lose(&broker, 1).await;
    let supervisor = start(
        &broker,
        two_attempts(ReplySettings::default()),
        HandlerManager::new(echo),
    );
    until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    let answers = broker.take(CALLER);
    assert_eq!(text(&answers[0].headers, "x-tidegate-reason"), "crash-loop");
}

#[tokio::test(start_paused = true)]
async fn a_job_without_a_reply_sends_an_empty_one_if_the_pool_always_replies() {
    for (answers, expected) in [
        (Answers::Given, 0),
        (Answers::Always, 1),
        (Answers::Never, 0),
    ] {
        let broker = asked();
        let reply = ReplySettings {
            answers,
            ..ReplySettings::default()
        };
        let supervisor = start(&broker, two_attempts(reply), HandlerManager::new(echo));
        broker.send_message(asking(CALLER, "nothing"));
        until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
        assert_eq!(broker.take(CALLER).len(), expected, "{answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_cannot_be_delivered_is_counted_and_its_job_is_done() {
    let broker = broker();
    let supervisor = start(
        &broker,
        two_attempts(allowing("replies")),
        HandlerManager::new(echo),
    );
    broker.send_message(asking("replies", "echo"));
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert_eq!(status(&supervisor).replies, replies(0, 0, 0, 1));
    // The broker does not report that a caller has gone.
    broker.send_message(asking(CALLER, "echo"));
    until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
    assert_eq!(status(&supervisor).replies, replies(1, 0, 0, 1));
    // The longest possible address. The settings do not allow it.
    let longest: &'static str = "x".repeat(255).leak();
    broker.send_message(asking(longest, "echo"));
    until(&supervisor, "done", |pool| pool.jobs.done == 3).await;
    assert_eq!(status(&supervisor).replies, replies(1, 0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reply_never_goes_to_a_queue_that_is_not_allowed_or_belongs_to_our_pools() {
    let broker = broker();
    let elsewhere = ["elsewhere", "other.dead", "other.retry.1000", "other.more"];
    for queue in elsewhere.into_iter().chain(["jobs.dead", "other"]) {
        broker.declare_queue(queue, QueueKind::Classic);
    }
    let other = PoolSpec {
        settings: PoolSettings::new("other"),
        runners: Arc::new(HandlerManager::new(echo)),
    };
    let jobs = |reply| PoolSpec {
        settings: two_attempts(reply),
        runners: Arc::new(HandlerManager::new(echo)),
    };
    let pools = vec![jobs(allowing("other*")), other.clone()];
    let supervisor = Supervisor::start(Arc::new(broker.clone()), pools, None).unwrap();
    let mut sent = 0;
    let mut ask = async |queue: &str| {
        broker.send_message(asking(queue, "echo"));
        sent += 1;
        until(&supervisor, "done", |pool| pool.jobs.done == sent).await;
    };
    for queue in [
        "elsewhere",
        "jobs",
        "jobs.dead",
        "other",
        "other.dead",
        "other.retry.1000",
    ] {
        ask(queue).await;
        assert_eq!(broker.ready(queue), Some(0), "{queue}");
    }
    ask("other.more").await;
    assert_eq!(broker.ready("other.more"), Some(1));
    assert_eq!(status(&supervisor).replies, replies(1, 0, 6, 0));

    // A pool that a reload adds owns its queue from then on.
    broker.declare_queue("late", QueueKind::Classic);
    let mut late = other.clone();
    late.settings.name = "late".into();
    late.settings.queue = "late".into();
    let pools = vec![jobs(allowing("*")), late];
    supervisor.reconfigure(pools).await.unwrap();
    ask("late").await;
    assert_eq!(broker.ready("late"), Some(0));
    // A pool that is being removed still owns its queue.
    ask("other").await;
    assert_eq!(broker.ready("other"), Some(0));
    assert_eq!(status(&supervisor).replies, replies(1, 0, 8, 0));
}
