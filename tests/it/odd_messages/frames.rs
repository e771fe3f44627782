//! Content headers of about a frame's size. They must fit one frame.

use tidegate::queue::header_size;

use super::*;

/// Size of type, channel, size, class, weight, body size and end byte, in bytes.
const AROUND: usize = 7 + 12 + 1;
const FRAME_MAX: usize = 131_072;

/// A message whose content header's frame has exactly this size.
fn of_frame(bytes: usize) -> List {
    let list = |padding: usize| List::default().text_header(b"h", &vec![b'x'; padding]);
    let least = AROUND + list(0).bytes().len();
    list(bytes - least)
}

fn frame_of(job: &Job) -> usize {
    AROUND + header_size(&job.message().properties, job.headers())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_any_size_around_a_frame_is_retried_and_settled() {
    for length in [0, 240] {
        let mut rig = Rig::new("quorum", length, fail_odd_ones_once).await;
        // One by one near the largest copy and the largest message that fit, and in steps between.
        let fits = first_that_is_cut(&rig.queue);
        let sizes: Vec<usize> = (fits - 24..fits + 24)
            .chain((fits + 24..FRAME_MAX - 12).step_by(397))
            .chain(FRAME_MAX - 12..=FRAME_MAX)
            .collect();
        let mut cut = 0;
        for size in &sizes {
            rig.publish(of_frame(*size), b"odd");
            let first = rig.job().await;
            assert_eq!((first.attempt(), frame_of(&first)), (1, *size));
            let second = rig.job().await;
            assert_eq!(second.attempt(), 2, "{size}");
            // With the headers that the broker added. It does not check their size.
            assert!(frame_of(&second) <= FRAME_MAX, "{size}");
            assert!(second.headers().contains_key("x-death"));
            cut += usize::from(!second.headers().contains_key("h"));
        }
        assert!(cut > 0 && cut < sizes.len(), "{cut} of {}", sizes.len());
        rig.until("done", |pool| pool.jobs.done == sizes.len() as u64)
            .await;
        rig.end().await;
    }
}

/// The smallest frame of a message whose copy loses its header.
fn first_that_is_cut(queue: &str) -> usize {
    use tidegate::{
        decide::QueueName,
        queue::{Headers, Message},
        runner::{Failure, FailureKind},
        settle::{Copies, History},
    };
    let copies = Copies {
        pool: PoolName::from("test"),
        queue: QueueName::from(queue),
        host: String::new(),
        job: Some("0".repeat(20).as_str().into()),
        header_limit: FRAME_MAX - AROUND,
    };
    let is_cut = |size: usize| {
        // Flags, the table's length, the name, and the text's tag and length.
        let padding = size - AROUND - (2 + 4 + 2 + 5);
        let value = HeaderValue::from("x".repeat(padding));
        let message = Message {
            routing_key: queue.to_owned(),
            headers: Headers::from([("h".to_owned(), value)]),
            ..Message::default()
        };
        let level = Duration::from_millis(200);
        let failure = Failure {
            kind: FailureKind::Error,
            message: "no".to_owned(),
            stderr_tail: None,
        };
        let next = History {
            attempt: 2,
            ..History::default()
        };
        let copy = copies.retry(
            &message,
            next,
            level,
            level,
            Some(&failure),
            jiff::Timestamp::now(),
        );
        !copy.headers.contains_key("h")
    };
    (FRAME_MAX - 6_000..FRAME_MAX)
        .find(|size| is_cut(*size))
        .expect("the largest does not fit")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_headers_that_fill_a_frame_are_retried_and_settled() {
    let mut rig = Rig::new("quorum", 240, fail_odd_ones_once).await;
    let mut list = List::default();
    let value = [b'v'; 54];
    for number in 0..2_000 {
        list = list.text_header(format!("h{number:04}").as_bytes(), &value);
    }
    let room = FRAME_MAX - AROUND - list.clone().bytes().len() - (1 + 1 + 5);
    list = list.text_header(b"p", &vec![b'p'; room]);
    assert_eq!(list.clone().bytes().len() + AROUND, FRAME_MAX);
    rig.publish(list, b"odd");
    assert_eq!(rig.job().await.headers().len(), 2_001);
    let second = rig.job().await;
    assert!(frame_of(&second) <= FRAME_MAX);
    assert!(second.headers().len() > 1_900);
    rig.until("done", |pool| pool.jobs.done == 1).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_a_copy_dropped_are_listed_at_every_attempt_and_in_the_dead_letter() {
    let mut rig = Rig::new("quorum", 0, |_| Err("no".into())).await;
    rig.publish(of_frame(FRAME_MAX), b"odd");
    rig.job().await;
    let second = rig.job().await;
    let named = HeaderValue::List(vec!["h".into()]);
    assert_eq!(second.headers()["x-tidegate-dropped-headers"], named);
    rig.until("dead", |pool| pool.jobs.dead == 1).await;
    let dead = format!("{}.dead", rig.queue);
    let letter = rig.raw.take(dead.as_bytes()).expect("a letter");
    assert!(letter.frame < 10_000);
    let name = b"x-tidegate-dropped-headersA\0\0\0\x06S\0\0\0\x01h";
    assert!(letter.list.windows(name.len()).any(|bytes| bytes == name));
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frame_sizes_in_the_url_are_bounded() {
    use tidegate::{adapters::amqp::AmqpDriver, queue::QueueDriver};

    use crate::support::broker::settings;

    for asked in ["4294967295", "0", "8192"] {
        let url = format!("{}?frame_max={asked}", broker_url());
        let driver = AmqpDriver::connect_lazily(&settings(&url)).expect("a good url");
        driver
            .until_connected(TIMEOUT)
            .await
            .unwrap_or_else(|error| panic!("{asked}: {error:?}"));
        let limit = match asked {
            "8192" => 8192,
            _ => FRAME_MAX,
        };
        assert_eq!(driver.header_limit(), limit - AROUND, "{asked}");
        driver.close().await;
    }
}
