//! All processes of a pool, and their free slots.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    super::{WarmSettings, link::WarmLink, wear::ProcessUsage},
    conversation::{SlotOrder, converse},
};
use crate::runner::{Retirement, StartError};

/// Time beyond `kill_grace` that the end of a process may take.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Gives out the slots of processes.
#[derive(Debug, Default)]
pub(in crate::runners::warm) struct Processes {
    state: Mutex<ProcessList>,
}

#[derive(Debug, Default)]
struct ProcessList {
    running: Vec<Weak<SharedProcess>>,
    starting: Vec<Arc<Starting>>,
    /// How many jobs the last process took at a time. `None` before the first.
    known: Option<u32>,
}

/// A process that is being started. Its first slot is for its starter; the others may be reserved.
#[derive(Debug)]
struct Starting {
    unreserved: Mutex<u32>,
    /// `None` until it has started, or failed with this text.
    result: watch::Sender<Option<Result<(), String>>>,
}

/// A process with slots. When its last slot is dropped, its task ends it.
#[derive(Debug)]
pub(super) struct SharedProcess {
    id: i32,
    orders: mpsc::Sender<SlotOrder>,
    /// Whether it can take no other job because it has ended or is about to.
    lost: watch::Receiver<bool>,
    /// Whether it gets no other job, but continues with those that it has.
    closed: AtomicBool,
    usage: Mutex<ProcessUsage>,
    free: Mutex<Vec<u32>>,
    /// Jobs that run.
    busy: AtomicU32,
}

/// A slot of a process. **On drop** it is free again.
#[derive(Debug)]
pub(super) struct HeldSlot {
    pub(super) process: Arc<SharedProcess>,
    pub(super) slot: u32,
    /// Another job may still be in it.
    pub(super) given_up: bool,
}

/// The result of a request for a slot.
pub(in crate::runners::warm) enum Taken {
    Slot(GivenSlot),
    /// The process takes one job at a time: it uses version 1 of the protocol.
    Single(Box<WarmLink>),
}

/// A slot for [`WarmSlot`](super::WarmSlot).
pub(in crate::runners::warm) struct GivenSlot(pub(super) HeldSlot);

impl Processes {
    /// Takes a free slot. If no slot is free, this awaits `start`, which starts a process. If a process is being started
    /// already and has a slot left, this waits for that process instead.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a process that was being started ends.
    pub(in crate::runners::warm) async fn take(
        &self,
        settings: &WarmSettings,
        start: impl Future<Output = Result<Box<WarmLink>, StartError>>,
    ) -> Result<Taken, StartError> {
        loop {
            let found = self.find(settings.concurrency);
            match found {
                SlotSearch::Slot(held) => return Ok(Taken::Slot(GivenSlot(held))),
                SlotSearch::Starting(starting) => {
                    let mut result = starting.result.subscribe();
                    // The sender is in `starting`, so the wait cannot fail.
                    let Ok(result) = result.wait_for(Option::is_some).await else {
                        continue;
                    };
                    if let Some(Err(what)) = &*result {
                        return Err(StartError {
                            what: what.clone(),
                            source: None,
                        });
                    }
                }
                SlotSearch::Nothing(starting) => {
                    // If this future is dropped, the waiting tasks search again.
                    let promise = Promise {
                        processes: self,
                        starting,
                        result: Ok(()),
                    };
                    return self.start(settings, start, promise).await;
                }
            }
        }
    }

    async fn start(
        &self,
        settings: &WarmSettings,
        start: impl Future<Output = Result<Box<WarmLink>, StartError>>,
        mut promise: Promise<'_>,
    ) -> Result<Taken, StartError> {
        let link = match start.await {
            Ok(link) => link,
            Err(error) => {
                promise.result = Err(error.what.clone());
                return Err(error);
            }
        };
        self.state().known = Some(link.slots.unwrap_or(1));
        let Some(slots) = link.slots else {
            return Ok(Taken::Single(link));
        };
        let process = SharedProcess::new(link, slots, settings);
        let held = process.held();
        self.state().running.push(Arc::downgrade(&process));
        match held {
            Some(held) => Ok(Taken::Slot(GivenSlot(held))),
            // At least one slot is free at the start.
            None => Err(StartError {
                what: "start a process: it takes no job".to_owned(),
                source: None,
            }),
        }
    }

    fn find(&self, concurrency: u32) -> SlotSearch {
        let mut state = self.state();
        state.running.retain(|process| process.strong_count() > 0);
        // The fullest first, so that processes become empty and end when the pool shrinks.
        let mut running: Vec<_> = state.running.iter().filter_map(Weak::upgrade).collect();
        running.sort_by_key(|process| process.free().len());
        if let Some(held) = running.iter().find_map(SharedProcess::held) {
            return SlotSearch::Slot(held);
        }
        let promised = state.starting.iter().find(|starting| {
            let mut unreserved = starting.unreserved();
            let is_free = *unreserved > 0;
            *unreserved = unreserved.saturating_sub(1);
            is_free
        });
        if let Some(starting) = promised {
            return SlotSearch::Starting(Arc::clone(starting));
        }
        let starting = Arc::new(Starting {
            unreserved: Mutex::new(state.known.unwrap_or(concurrency).min(concurrency) - 1),
            result: watch::Sender::new(None),
        });
        state.starting.push(Arc::clone(&starting));
        SlotSearch::Nothing(starting)
    }

    fn state(&self) -> MutexGuard<'_, ProcessList> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum SlotSearch {
    Slot(HeldSlot),
    /// A slot of this process is reserved.
    Starting(Arc<Starting>),
    /// The caller must start this process.
    Nothing(Arc<Starting>),
}

impl Starting {
    fn unreserved(&self) -> MutexGuard<'_, u32> {
        self.unreserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports the end of a process's start to the waiting tasks. **On drop.**
struct Promise<'p> {
    processes: &'p Processes,
    starting: Arc<Starting>,
    result: Result<(), String>,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let starting = &self.starting;
        let mut state = self.processes.state();
        state.starting.retain(|other| !Arc::ptr_eq(other, starting));
        drop(state);
        let result = std::mem::replace(&mut self.result, Ok(()));
        starting.result.send_replace(Some(result));
    }
}

impl SharedProcess {
    /// Takes over a process that is ready, and starts the task that exchanges lines with it.
    fn new(link: Box<WarmLink>, slots: u32, settings: &WarmSettings) -> Arc<Self> {
        // A slot has at most four orders on their way: the stop of a job that has just ended, the next job, its stop, and
        // that the slot gave up. Each of them can be a kill too.
        let capacity = slots as usize * 5;
        let (orders, received) = mpsc::channel(capacity);
        let (lost, is_lost) = watch::channel(false);
        let process = Arc::new(Self {
            id: link.process.id(),
            orders,
            lost: is_lost,
            closed: AtomicBool::new(false),
            usage: Mutex::new(ProcessUsage::new(settings, rand::random())),
            free: Mutex::new((0..slots).rev().collect()),
            busy: AtomicU32::new(0),
        });
        let time_limit = settings.process.kill_grace;
        tokio::spawn(converse(link, slots, received, lost, time_limit));
        process
    }

    /// Takes a free slot, if there is one and the process takes jobs.
    fn held(self: &Arc<Self>) -> Option<HeldSlot> {
        if self.is_lost() || self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let slot = self.free().pop()?;
        Some(HeldSlot {
            process: Arc::clone(self),
            slot,
            given_up: false,
        })
    }

    pub(super) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Gives the process no other job.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// A job begins.
    pub(super) fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// A job's time in its slot is over.
    pub(super) fn end(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// A job has ended, and its answer said whether the process asks to end.
    pub(super) fn worked(&self, last: bool) {
        self.usage().worked(last);
    }

    /// The reason to replace the process, if there is one.
    pub(super) fn retires(&self, settings: &WarmSettings) -> Option<Retirement> {
        let retirement = {
            let mut usage = self.usage();
            if self.busy.load(Ordering::Relaxed) > 0 {
                usage.touch();
            }
            usage.retires(settings, self.id)
        };
        if retirement.is_some() {
            self.close();
        }
        retirement
    }

    /// Sends an order. It is dropped if the process has ended: its jobs get the end of the process instead.
    pub(super) fn order(&self, order: SlotOrder) {
        if let Err(error) = self.orders.try_send(order) {
            debug_assert!(
                matches!(error, mpsc::error::TrySendError::Closed(_)),
                "a slot has few orders"
            );
        }
    }

    /// Waits until the task has ended the process, at most `time_limit` and a little longer.
    pub(super) async fn ended(mut lost: watch::Receiver<bool>, time_limit: Duration) {
        // The task drops its sender after the process has ended.
        let gone = async { while lost.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(time_limit.saturating_add(LAST_WAIT), gone).await;
    }

    pub(super) fn lost(&self) -> watch::Receiver<bool> {
        self.lost.clone()
    }

    fn usage(&self) -> MutexGuard<'_, ProcessUsage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        if self.given_up {
            return;
        }
        self.process.free().push(self.slot);
    }
}
