//! Catching panics of code of users: runner managers, runners, event sinks and queue drivers.
//!
//! A worker or a pool calls such code through this module. A panic is then a result ([`Panicked`]) and does not end the
//! task. A panic in a destructor is caught too. The caller decides what a panic means.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tracing::warn;

use super::metrics;
pub(crate) use super::metrics::PanicSite;
use crate::{
    decide::PoolName,
    runner::{Retirement, Runner},
};

/// Code of a user has panicked. Displays the panic message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panicked(String);

impl Panicked {
    pub(crate) fn new(panic: &(dyn Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| String::from("a panic without a message")))
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Calls code of a user. After a panic, the object that it was called on must not be used any more.
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| Panicked::new(&*panic))
}

/// Calls asynchronous code of a user.
pub(crate) fn catch_future<'a, T>(code: impl FnOnce() -> BoxFuture<'a, T>) -> Contained<'a, T> {
    match catch(code) {
        Ok(future) => Contained(ContainedState::Runs(Some(future))),
        Err(panicked) => Contained(ContainedState::Panicked(Some(panicked))),
    }
}

/// A future of a user's code. It is as cancel-safe as that code.
#[must_use = "futures do nothing unless they are polled"]
pub(crate) struct Contained<'a, T>(ContainedState<'a, T>);

enum ContainedState<'a, T> {
    Runs(Option<BoxFuture<'a, T>>),
    Panicked(Option<Panicked>),
}

impl<T> Future for Contained<'_, T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const DONE: &str = "a contained future is not polled after its end";
        match &mut self.0 {
            ContainedState::Panicked(panicked) => Poll::Ready(Err(panicked.take().expect(DONE))),
            ContainedState::Runs(future) => {
                let running = future.as_mut().expect(DONE);
                let polled = match catch(|| running.as_mut().poll(cx)) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(output)) => Ok(output),
                    Err(panicked) => Err(panicked),
                };
                let ended = catch(|| drop(future.take()));
                Poll::Ready(polled.and_then(|output| ended.map(|()| output)))
            }
        }
    }
}

impl<T> Drop for Contained<'_, T> {
    fn drop(&mut self) {
        if let ContainedState::Runs(future) = &mut self.0 {
            // The caller no longer waits, so the result is not needed.
            let _ = catch(|| drop(future.take()));
        }
    }
}

/// A runner, whose code may be a user's.
pub(crate) struct ContainedRunner(Option<Box<dyn Runner>>);

impl ContainedRunner {
    pub(crate) fn new(runner: Box<dyn Runner>) -> Self {
        Self(Some(runner))
    }

    /// Whether it is still good for a job.
    pub(crate) fn is_alive(&mut self) -> Result<bool, Panicked> {
        let runner = self.get();
        catch(|| runner.is_alive())
    }

    /// Why it should be replaced.
    pub(crate) fn retires(&mut self) -> Result<Option<Retirement>, Panicked> {
        let runner = self.get();
        catch(|| runner.retires())
    }

    pub(crate) fn get(&mut self) -> &mut dyn Runner {
        &mut **self.0.as_mut().expect("only its end takes the runner")
    }

    pub(crate) fn into_inner(mut self) -> Box<dyn Runner> {
        self.0.take().expect("only its end takes the runner")
    }
}

impl Drop for ContainedRunner {
    fn drop(&mut self) {
        // The runner was no longer needed.
        let _ = catch(|| drop(self.0.take()));
    }
}

/// The panics of one pool's runners and their manager. Written by the pool and its workers, read for the status.
#[derive(Debug)]
pub(crate) struct Panics {
    pool: PoolName,
    /// The last panic at each place, until a call succeeds there.
    last: Mutex<BTreeMap<PanicSite, Panicked>>,
}

impl Panics {
    pub(crate) fn new(pool: PoolName) -> Self {
        Self {
            pool,
            last: Mutex::default(),
        }
    }

    /// Counts a panic, and logs it unless the last one at this place was the same.
    pub(crate) fn record(&self, place: PanicSite, panicked: &Panicked) {
        metrics::runner_panicked(&self.pool, place.as_str());
        let before = self.last().insert(place, panicked.clone());
        if before.as_ref() != Some(panicked) {
            warn!(
                pool = %self.pool,
                place = place.as_str(),
                error = ?panicked.0,
                "code of a runner or its manager panicked"
            );
        }
    }

    /// The result of code that was called at a place, or `default` if it panicked.
    pub(crate) fn value_or<T>(
        &self,
        place: PanicSite,
        answer: Result<T, Panicked>,
        default: T,
    ) -> T {
        answer.unwrap_or_else(|panicked| {
            self.record(place, &panicked);
            default
        })
    }

    /// A call at this place succeeded.
    pub(crate) fn clear(&self, place: PanicSite) {
        self.last().remove(&place);
    }

    /// The steps that a reconcile lacks because its cleanup panics.
    pub(crate) fn cause(&self) -> Option<String> {
        let panicked = self.last().get(&PanicSite::Cleanup).cloned()?;
        Some(format!(
            "the runner manager panicked while it cleaned up: {panicked}"
        ))
    }

    fn last(&self) -> std::sync::MutexGuard<'_, BTreeMap<PanicSite, Panicked>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_wherever_it_occurs() {
        let said = |text: &str| Err::<(), _>(Panicked(text.to_owned()));
        assert_eq!(catch(|| panic!("called")), said("called"));
        let (one, two) = (1, 2);
        assert_eq!(catch(|| panic!("{one} and {two}")), said("1 and 2"));
        let unnamed = catch(|| std::panic::panic_any(7));
        assert_eq!(unnamed, said("a panic without a message"));

        assert_eq!(catch_future(|| panic!("made")).await, said("made"));
        assert_eq!(
            catch_future(|| async { panic!("polled") }.boxed()).await,
            said("polled")
        );
        let ends_badly = |guard: PanicsOnDrop| {
            std::future::poll_fn(move |_| {
                let _ = &guard;
                Poll::Ready(())
            })
            .boxed()
        };
        assert_eq!(
            catch_future(|| ends_badly(PanicsOnDrop)).await,
            said("dropped")
        );
        assert_eq!(catch_future(|| async { 7 }.boxed()).await, Ok(7));
    }

    #[test]
    fn a_panic_in_drop_is_contained() {
        let never = PanicsOnDrop;
        let future = catch_future(|| {
            async move {
                let _never = never;
                std::future::pending::<()>().await;
            }
            .boxed()
        });
        drop(future);
    }
}
