//! The trace of a message, from its headers to the handler, and the link that a program gives to its spans.

use std::sync::{
    Mutex, Once,
    atomic::{AtomicU64, Ordering},
};

use tidegate::{
    Pool,
    queue::{TRACEPARENT, TRACESTATE, TraceContext},
    run::traces::TARGET,
};
use tracing::{Metadata, Span, Subscriber, span};

use super::*;

const OF_MESSAGE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Takes the spans of traces, and nothing else.
struct OnlyTraces(AtomicU64);

impl Subscriber for OnlyTraces {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// For every thread: tracing remembers for all of them whether one wants a span.
fn take_spans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let spans = OnlyTraces(AtomicU64::new(1));
        tracing::subscriber::set_global_default(spans).unwrap();
    });
}

/// The traces that handlers received.
type Told = Arc<Mutex<Vec<[Option<String>; 2]>>>;

/// A pool whose jobs say what they are told, and ask for another attempt the first time.
fn pool(told: &Told) -> Pool {
    let told = told.clone();
    Pool::new(QUEUE)
        .policy(Policy::fixed(1))
        .handler(move |job: Job| {
            let texts = [job.traceparent(), job.tracestate()];
            told.lock()
                .unwrap()
                .push(texts.map(|text| text.map(str::to_owned)));
            let first = job.attempt() == 1;
            async move {
                Ok(match first {
                    true => Outcome::Retry { after: None },
                    false => Outcome::Done,
                })
            }
        })
}

async fn send(broker: &MemoryBroker, traceparent: &str) {
    let headers = [(TRACEPARENT, traceparent), (TRACESTATE, "a=b")];
    let message = Outgoing {
        routing_key: QUEUE.to_owned(),
        headers: (headers.into_iter())
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect::<Headers>(),
        ..Outgoing::default()
    };
    broker.publish(message).await.unwrap();
}

async fn until_done(supervisor: &Supervisor) {
    until(supervisor, "done", |pool| pool.jobs.done == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_gets_the_trace_of_its_message_on_every_attempt() {
    let (broker, told) = (broker(), Told::default());
    let builder = Supervisor::builder()
        .driver(broker.clone())
        .pool(pool(&told));
    let supervisor = builder.start().await.unwrap();
    send(&broker, OF_MESSAGE).await;
    until_done(&supervisor).await;
    let of_message = [Some(OF_MESSAGE.to_owned()), Some("a=b".to_owned())];
    assert_eq!(*told.lock().unwrap(), [of_message.clone(), of_message]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_does_not_get_an_invalid_trace() {
    let (broker, told) = (broker(), Told::default());
    let builder = Supervisor::builder()
        .driver(broker.clone())
        .pool(pool(&told));
    let supervisor = builder.start().await.unwrap();
    send(&broker, "00-1-2-03").await;
    until_done(&supervisor).await;
    assert_eq!(*told.lock().unwrap(), [[None, None], [None, None]]);
}

#[tokio::test(start_paused = true)]
async fn a_link_gives_each_span_its_place_and_the_job_the_one_of_its_run() {
    take_spans();
    let (broker, told) = (broker(), Told::default());
    let linked: Arc<Mutex<Vec<(&str, String)>>> = Arc::default();
    let link = {
        let linked = linked.clone();
        move |span: &Span, parent: Option<&TraceContext>| {
            let mut linked = linked.lock().unwrap();
            let name = span.metadata().unwrap().name();
            let parent = parent.map_or("none", TraceContext::span_id);
            linked.push((name, parent.to_owned()));
            let own = format!("00-{:032x}-{:016x}-01", 7, linked.len());
            TraceContext::new(&own, None)
        }
    };
    let builder = Supervisor::builder()
        .driver(broker.clone())
        .pool(pool(&told));
    let supervisor = builder.traces(link).start().await.unwrap();
    send(&broker, OF_MESSAGE).await;
    until_done(&supervisor).await;
    let of_message = "00f067aa0ba902b7";
    let expected = [
        ("receive", of_message),
        ("process", of_message),
        ("settle", "0000000000000002"),
        ("receive", of_message),
        ("process", of_message),
        ("settle", "0000000000000005"),
    ];
    let expected = expected.map(|(name, parent)| (name, parent.to_owned()));
    assert_eq!(*linked.lock().unwrap(), expected);
    let own = |n: u32| [Some(format!("00-{:032x}-{n:016x}-01", 7)), None];
    assert_eq!(*told.lock().unwrap(), [own(2), own(5)]);

    // A message without a trace begins one.
    broker.send(QUEUE, "no headers");
    until(&supervisor, "both", |pool| pool.jobs.done == 2).await;
    let linked = linked.lock().unwrap();
    let parents: Vec<_> = linked[6..9].iter().map(|(_, parent)| &**parent).collect();
    assert_eq!(parents, ["none", "0000000000000007", "0000000000000008"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_panics_costs_no_job() {
    take_spans();
    let (broker, told) = (broker(), Told::default());
    let link = |_: &Span, _: Option<&TraceContext>| -> Option<TraceContext> { panic!("no link") };
    let builder = Supervisor::builder()
        .driver(broker.clone())
        .pool(pool(&told));
    let supervisor = builder.traces(link).start().await.unwrap();
    send(&broker, OF_MESSAGE).await;
    until_done(&supervisor).await;
    let first = told.lock().unwrap()[0].clone();
    assert_eq!(first[0].as_deref(), Some(OF_MESSAGE));
}
