//! A supervisor that works until it is told to end, and then drains.
//!
//! Listens to the signals of the process. It decides only when a drain begins and when it is cut short.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    task::{Context, Poll},
};

use tokio::signal::unix::{self, SignalKind};
use tracing::info;

use super::{DrainError, DrainReport, RunError, Supervisor};

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndSignal {
    Terminate,
    Interrupt,
}

impl EndSignal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }
}

impl Supervisor {
    /// Works until the process gets SIGTERM or SIGINT, and then drains every pool: no worker takes another message,
    /// running jobs are finished and settled, each pool within its own `shutdown_grace`. Jobs that still run after that
    /// are stopped and given back. A second SIGINT stops everything at once. The log says which signal came, and how
    /// many jobs still ran.
    ///
    /// ```no_run
    /// use tidegate::{Job, Outcome, Pool, Supervisor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let supervisor = Supervisor::builder()
    ///     .broker("amqp://guest:guest@localhost:5672/%2f")
    ///     .pool(Pool::new("thumbnails").handler(|_: Job| async { Ok(Outcome::Done) }))
    ///     .start().await?;
    /// let report = supervisor.run_until_signal().await?;
    /// println!("finished {} jobs in {:?}", report.finished, report.took);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The process cannot listen to signals, or jobs were given back: see [`RunError`].
    ///
    /// # Caveats
    /// Before the call, these signals end the process. From the call on they no longer do: tokio keeps its handlers for the
    /// life of the process.
    ///
    /// # Cancel-safety
    /// Cancel-safe until a signal comes: the supervisor works on. If the future is dropped later, the drain continues,
    /// and the second SIGINT does nothing.
    pub async fn run_until_signal(&self) -> Result<DrainReport, RunError> {
        let mut signals = Signals::listen().map_err(RunError::Signals)?;
        Ok(self.drain_on_signal(|cx| signals.poll_next(cx)).await?)
    }

    /// Works until `end` is ready, and then drains as [`shutdown`](Self::shutdown) does: for programs that already know
    /// when to end, such as one that drains a web server by the same signal.
    ///
    /// # Errors
    /// As for [`shutdown`](Self::shutdown).
    ///
    /// # Cancel-safety
    /// Cancel-safe until `end` is ready: the supervisor works on. If the future is dropped later, the drain continues.
    pub async fn run_until(
        &self,
        end: impl Future<Output = ()>,
    ) -> Result<DrainReport, DrainError> {
        end.await;
        self.shutdown().await
    }

    async fn drain_on_signal(
        &self,
        mut poll_signal: impl FnMut(&mut Context<'_>) -> Poll<EndSignal>,
    ) -> Result<DrainReport, DrainError> {
        let mut signal = poll_fn(&mut poll_signal).await;
        let running: u32 = self.pools().iter().map(|pool| pool.runners.busy).sum();
        info!(
            signal = signal.as_str(),
            running, "told to end: draining every pool"
        );
        let mut interrupts = 0;
        let mut drain = pin!(self.shutdown());
        loop {
            // One INT after a TERM does not stop jobs either.
            interrupts += u32::from(signal == EndSignal::Interrupt);
            if interrupts == 2 {
                info!("interrupted again: stopping every job at once");
                self.stop_now().await;
            }
            tokio::select! {
                biased;
                drained = &mut drain => return drained,
                next = poll_fn(&mut poll_signal) => signal = next,
            }
        }
    }
}

struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<EndSignal> {
        if self.interrupt.poll_recv(cx).is_ready() {
            return Poll::Ready(EndSignal::Interrupt);
        }
        self.terminate.poll_recv(cx).map(|_| EndSignal::Terminate)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures_util::FutureExt as _;
    use tokio::{
        sync::{mpsc, oneshot},
        time::{self, Instant},
    };

    use super::*;
    use crate::{
        adapters::memory::MemoryBroker,
        builder::Pool,
        queue::QueueKind,
        run::PoolState,
        runner::{Job, Outcome},
    };

    const GRACE: Duration = Duration::from_secs(30);

    /// A supervisor with one running job that takes this long, and the broker.
    async fn at_work(takes: Duration) -> (Supervisor, MemoryBroker) {
        let broker = MemoryBroker::new();
        broker.declare_queue("jobs", QueueKind::Classic);
        broker.send("jobs", "x");
        let begun = Arc::new(tokio::sync::Notify::new());
        let pool = Pool::new("jobs")
            .shutdown_grace(GRACE)
            .kill_grace(Duration::ZERO)
            .handler({
                let begun = begun.clone();
                move |_: Job| {
                    begun.notify_one();
                    async move {
                        time::sleep(takes).await;
                        Ok(Outcome::Done)
                    }
                }
            });
        let builder = Supervisor::builder().driver(broker.clone()).pool(pool);
        let supervisor = builder.start().await.unwrap();
        begun.notified().await;
        (supervisor, broker)
    }

    /// How a supervisor that gets these signals ends, and how long after the first.
    async fn end_of(
        supervisor: &Supervisor,
        signals: &[EndSignal],
    ) -> (Result<DrainReport, DrainError>, Duration) {
        let (send, mut inbox) = mpsc::channel(8);
        for signal in signals {
            send.send(*signal).await.unwrap();
        }
        let began = Instant::now();
        let ended = supervisor
            .drain_on_signal(|cx| match inbox.poll_recv(cx) {
                Poll::Ready(Some(signal)) => Poll::Ready(signal),
                _ => Poll::Pending,
            })
            .await;
        (ended, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn one_signal_of_either_kind_drains() {
        use EndSignal::{Interrupt, Terminate};
        for signals in [
            &[Terminate][..],
            &[Interrupt],
            &[Terminate, Terminate],
            &[Terminate, Interrupt],
            &[Interrupt, Terminate],
        ] {
            let (supervisor, broker) = at_work(GRACE / 2).await;
            let (ended, took) = end_of(&supervisor, signals).await;
            let report = ended.expect("a clean end");
            assert_eq!((report.finished, report.took), (1, took), "{signals:?}");
            assert!(took >= GRACE / 3, "{took:?}");
            assert_eq!(broker.ready("jobs"), Some(0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_interrupt_stops_what_runs_and_gives_it_back() {
        use EndSignal::{Interrupt, Terminate};
        for signals in [
            &[Interrupt, Interrupt][..],
            &[Interrupt, Terminate, Interrupt],
        ] {
            let (supervisor, broker) = at_work(GRACE / 2).await;
            let (ended, took) = end_of(&supervisor, signals).await;
            let error = ended.expect_err("a job was running");
            assert!(
                matches!(error, DrainError::CutShort { given_back: 1 }),
                "{error}"
            );
            assert!(took < Duration::from_secs(1), "{took:?}");
            assert_eq!(broker.ready("jobs"), Some(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_outlives_the_grace_is_given_back() {
        let (supervisor, broker) = at_work(GRACE * 2).await;
        let (ended, _) = end_of(&supervisor, &[EndSignal::Terminate]).await;
        assert_eq!(ended.expect_err("a job was running").given_back(), 1);
        assert_eq!(broker.ready("jobs"), Some(1));
    }

    /// Uses the signals of this process, which no other test here listens to.
    #[tokio::test]
    async fn hears_the_signals_of_the_process() {
        use nix::{
            sys::signal::{
                Signal::{SIGINT, SIGTERM},
                kill,
            },
            unistd::Pid,
        };

        let (supervisor, _broker) = at_work(Duration::from_millis(20)).await;
        let mut running = pin!(supervisor.run_until_signal());
        assert!(running.as_mut().now_or_never().is_none(), "it listens");
        kill(Pid::this(), SIGTERM).unwrap();
        assert_eq!(running.await.expect("a clean end").finished, 1);

        let (supervisor, broker) = at_work(GRACE).await;
        let mut running = pin!(supervisor.run_until_signal());
        assert!(running.as_mut().now_or_never().is_none(), "it listens");
        kill(Pid::this(), SIGINT).unwrap();
        let drains = async {
            while supervisor.pools()[0].state != PoolState::Draining {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            ended = &mut running => panic!("{ended:?}"),
            () = drains => {}
        }
        kill(Pid::this(), SIGINT).unwrap();
        let error = running.await.expect_err("a job was running");
        let is_cut = matches!(
            error,
            RunError::Drain(DrainError::CutShort { given_back: 1 })
        );
        assert!(is_cut, "{error}");
        assert_eq!(broker.ready("jobs"), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn works_until_a_future_of_the_programs_own_is_ready() {
        let (supervisor, broker) = at_work(GRACE / 2).await;
        let (end, ended) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let end = async { drop(ended.await) };
            supervisor.run_until(end).await
        });
        broker.send("jobs", "y");
        time::sleep(GRACE).await;
        assert!(!running.is_finished());
        end.send(()).unwrap();
        running.await.unwrap().expect("a clean end");
        assert_eq!(broker.ready("jobs"), Some(0));
    }
}
