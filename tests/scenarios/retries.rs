//! What happens to failed jobs: retries, dead letters, and copies that must wait.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_retried_with_backoff_and_then_dead_lettered_with_the_reason() {
    let broker = broker();
    let attempts = Arc::new(AtomicU32::new(0));
    let handler = {
        let attempts = attempts.clone();
        move |job: Job| {
            let n = attempts.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                assert_eq!(job.attempt(), n);
                Err::<Outcome, BoxError>("the disk is full".into())
            }
        }
    };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    let begun = Instant::now();
    broker.send_message(Outgoing {
        routing_key: QUEUE.to_owned(),
        properties: Properties {
            message_id: Some(String::from("m-1")),
            ..Properties::default()
        },
        ..Outgoing::default()
    });
    let after = until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    assert_eq!(
        (after.jobs.retried, attempts.load(Ordering::Relaxed)),
        (4, 5)
    );
    // 1 + 2 + 4 + 8 seconds, each shortened by at most a quarter.
    assert!(
        begun.elapsed() >= Duration::from_millis(11_250),
        "{:?}",
        begun.elapsed()
    );
    let letters: Vec<Message> = broker.take("jobs.dead");
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert_eq!(letter.properties.message_id.as_deref(), Some("m-1"));
    assert_eq!(letter.properties.expiration, None);
    assert_eq!(text(&letter.headers, "x-tidegate-reason"), "attempts");
    assert_eq!(
        text(&letter.headers, "x-tidegate-error"),
        "the disk is full"
    );
    assert_eq!(letter.headers["x-tidegate-attempts"], HeaderValue::I64(5));
    assert_eq!(
        text(&letter.headers, "x-tidegate-original-routing-key"),
        QUEUE
    );
}

#[tokio::test(start_paused = true)]
async fn rejected_messages_go_where_the_arguments_of_a_declared_queue_say() {
    for declare in [Declare::Classic, Declare::Quorum] {
        let broker = MemoryBroker::new();
        let handler = |_: Job| async { Err::<Outcome, _>(BoxError::from("no such picture")) };
        let arguments = [
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", "jobs.dead"),
        ];
        let arguments = arguments.map(|(name, value)| (name.to_owned(), value.into()));
        let settings = PoolSettings {
            declare,
            arguments: arguments.into(),
            retry: RetrySettings {
                max_attempts: 1,
                dead_letter: DeadLetter::Broker,
                ..RetrySettings::default()
            },
            ..settings(Policy::fixed(1))
        };
        let supervisor = start(&broker, settings, HandlerManager::new(handler));
        until(&supervisor, "declared", |_| broker.ready(QUEUE).is_some()).await;
        broker.send(QUEUE, "bad");
        until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
        assert_eq!(broker.ready("jobs.dead"), Some(1), "{declare:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_published_closes_intake_and_keeps_the_delivery() {
    let broker = broker();
    let handler = |job: Job| async move {
        if job.body() == "bad" {
            Ok(Outcome::reject("never"))
        } else {
            Ok(Outcome::Done)
        }
    };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(3)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "good");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    broker.set_blocked(true);
    broker.send(QUEUE, "bad");
    let blocked = until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked && pool.workers.live == 1
    })
    .await;
    assert!(blocked.cause.unwrap().contains("blocks publishers"));
    assert!(!supervisor.readiness().is_ready());
    broker.send(QUEUE, "good");
    throughout(&supervisor, Duration::from_secs(60), "blocked", |pool| {
        pool.jobs.done == 1 && pool.jobs.dead == 0 && pool.state == PoolState::Blocked
    })
    .await;
    assert_eq!(broker.ready(QUEUE), Some(1));
    broker.set_blocked(false);
    let after = until(&supervisor, "done", |pool| {
        pool.jobs.done == 2 && pool.jobs.dead == 1
    })
    .await;
    assert_eq!(after.jobs.requeued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_held_delivery_is_given_back_at_the_ack_deadline() {
    let broker = broker();
    let handler = |_: Job| async { Ok(Outcome::reject("never")) };
    let settings = PoolSettings {
        ack_deadline: Duration::from_secs(30),
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    broker.set_blocked(true);
    broker.send(QUEUE, "bad");
    let begun = Instant::now();
    until(&supervisor, "given back", |pool| pool.jobs.requeued == 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn all_attempts_of_a_message_without_an_id_have_one_job_id() {
    let broker = broker();
    let (say, mut ids) = mpsc::unbounded_channel();
    let handler = move |job: Job| {
        say.send(job.id().clone()).ok();
        async { Err("no".into()) }
    };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    let first = ids.recv().await.unwrap();
    for _ in 1..5 {
        assert_eq!(ids.recv().await.unwrap(), first);
    }
}
