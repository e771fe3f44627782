//! Access to the log for tests.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, Once},
};

/// See [`Logged::capture`].
static EVERYWHERE: Once = Once::new();

/// The JSON log of the current thread.
#[derive(Clone, Default)]
pub(crate) struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// Captures the log of this thread until the guard is dropped. Each test has a single-threaded runtime.
    pub(crate) fn capture(&self) -> tracing::subscriber::DefaultGuard {
        // With a single subscriber, tracing asks only the current thread's one whether it wants a new callsite, and
        // stores the answer for all threads. A test thread without a subscriber would silence the log of this thread.
        // So a global subscriber that takes everything is installed for every thread.
        EVERYWHERE.call_once(|| {
            let everything = tracing_subscriber::registry();
            tracing::subscriber::set_global_default(everything).expect("the first one");
        });
        let logged = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(move || logged.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        let text = self.0.lock().expect("a log");
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect()
    }

    pub(crate) fn lines(&self, stream: &str) -> Vec<String> {
        let events = self.events().into_iter();
        let ours = events.filter(|event| event["fields"]["stream"] == stream);
        ours.filter_map(|event| Some(event["fields"]["line"].as_str()?.to_owned()))
            .collect()
    }

    pub(crate) fn dropped(&self) -> Vec<usize> {
        let events = self.events().into_iter();
        let ours = events.filter(|event| event["fields"]["message"] == "job output dropped");
        ours.filter_map(|event| event["fields"]["bytes"].as_u64()?.try_into().ok())
            .collect()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
