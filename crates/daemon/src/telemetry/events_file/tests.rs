//! Tests of the events file: on disk, on a full disk, and in a pipe whose reader is slow.

use serde_json::Value;

use super::*;

fn event(job: u32) -> Event {
    Event::RunnerStart {
        pool: "thumbnails".into(),
        job_id: job.to_string().as_str().into(),
        idle: Duration::from_millis(250),
        queue_duration: None,
    }
}

fn reconciled(pool: &str, numbers: [u32; 4]) -> Event {
    let [
        crashed_runners,
        idle_runners,
        active_runners,
        expected_workers,
    ] = numbers;
    Event::Reconciliation {
        pool: pool.into(),
        crashed_runners,
        idle_runners,
        active_runners,
        expected_workers,
        duration: Duration::from_micros(20),
    }
}

fn shared() -> SharedCounts {
    SharedCounts {
        dropped: AtomicU64::new(0),
        reopens: AtomicU64::new(0),
        total: Counter::noop(),
    }
}

/// A FIFO without a reader.
fn fifo(dir: &Path) -> PathBuf {
    let path = dir.join("events");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn writes_one_object_a_line_with_time_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let (events, writer) = EventsFile::open(&path).unwrap();
    events.emit(event(1));
    events.emit(event(2));
    writer.close();

    let lines = lines(&path);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["event"], "runner_start");
    assert_eq!(lines[0]["pool"], "thumbnails");
    assert_eq!(lines[0]["idle"], 0.25);
    assert_eq!(lines[1]["job_id"], "2");
    let stamp = lines[0]["timestamp"].as_str().unwrap();
    stamp.parse::<Timestamp>().unwrap();
}

#[test]
fn appends_to_an_existing_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    for job in 0..2 {
        let (events, writer) = EventsFile::open(&path).unwrap();
        events.emit(event(job));
        writer.close();
    }
    assert_eq!(lines(&path).len(), 2);
}

#[test]
fn continues_in_a_new_file_after_the_old_one_was_moved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let old = dir.path().join("events.jsonl.1");
    let (events, writer) = EventsFile::open(&path).unwrap();
    events.emit(event(1));
    std::fs::rename(&path, &old).unwrap();
    events.reopen();
    events.emit(event(2));
    writer.close();
    assert_eq!(lines(&old)[0]["job_id"], "1");
    assert_eq!(lines(&path)[0]["job_id"], "2");
    assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
}

#[test]
fn survives_a_full_disk() {
    let (events, writer) = EventsFile::open(Path::new("/dev/full")).unwrap();
    events.emit(event(1));
    events.emit(event(2));
    // Ends although nothing could be written.
    writer.close();
}

#[test]
fn drops_and_counts_instead_of_blocking_a_worker() {
    let (messages, _receiver) = sync_channel(1);
    let shared = Arc::new(shared());
    let events = EventsFile {
        messages,
        shared: shared.clone(),
    };
    for job in 0..3 {
        events.emit(event(job));
    }
    assert_eq!(shared.dropped.load(Ordering::Relaxed), 2);
}

#[test]
fn only_reconciles_that_changed_something_are_written() {
    let mut output = EventsOutput::new(Path::new("unused"), Arc::new(shared()));
    for (pool, numbers, is_news, why) in [
        ("a", [0, 0, 0, 0], true, "the first"),
        ("a", [0, 0, 0, 0], false, "the same"),
        ("b", [0, 0, 0, 0], true, "the first of another pool"),
        ("a", [0, 1, 0, 0], true, "an idle runner"),
        ("a", [0, 0, 1, 0], true, "an active one"),
        ("a", [0, 0, 1, 1], true, "an expected worker"),
        ("b", [0, 0, 0, 0], false, "the other pool is as it was"),
        ("a", [1, 0, 1, 1], true, "one died"),
        ("a", [1, 0, 1, 1], true, "another one died"),
        ("a", [0, 0, 1, 1], false, "none died, which is as usual"),
    ] {
        assert_eq!(output.is_news(&reconciled(pool, numbers)), is_news, "{why}");
    }
}

#[test]
fn a_new_events_file_begins_with_the_numbers_of_each_pool() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let (events, writer) = EventsFile::open(&path).unwrap();
    events.emit(reconciled("a", [0, 1, 2, 3]));
    events.emit(reconciled("a", [0, 1, 2, 3]));
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    events.reopen();
    events.emit(reconciled("a", [0, 1, 2, 3]));
    writer.close();
    assert_eq!(lines(&dir.path().join("old")).len(), 1);
    assert_eq!(lines(&path)[0]["expected_workers"], 3);
}

#[test]
fn a_fifo_without_a_reader_delays_neither_the_start_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    let (events, writer) = EventsFile::open(&path).unwrap();
    events.emit(event(1));
    writer.close();
}

#[test]
fn a_fifo_with_a_stalled_reader_does_not_delay_the_end_and_can_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    // The reader exists but never reads.
    let reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let (events, writer) = EventsFile::open(&path).unwrap();
    for job in 0..1000 {
        events.emit(event(job));
    }
    // More than a pipe holds, so the writer waits. A new file is begun nevertheless.
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    events.reopen();
    let until = Instant::now() + Duration::from_secs(60);
    let mut job = 1000;
    while !path.exists() || lines(&path).is_empty() {
        assert!(Instant::now() < until, "no new file was begun");
        events.emit(event(job));
        job += 1;
        thread::sleep(Duration::from_millis(10));
    }
    writer.close();
    drop(reader);

    let dir = tempfile::tempdir().unwrap();
    let path = fifo(dir.path());
    let _reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let (events, writer) = EventsFile::open(&path).unwrap();
    for job in 0..20_000 {
        events.emit(event(job));
    }
    writer.close();
}

#[test]
fn names_the_file_that_cannot_be_opened() {
    let error = EventsFile::open(Path::new("/nowhere/events.jsonl")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "open the events file /nowhere/events.jsonl"
    );
}
