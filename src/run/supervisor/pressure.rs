//! Watches the pressure of the host, which stops growth.

use std::time::Duration;

use tokio::{sync::watch, time};
use tracing::{info, warn};

use crate::{config::SupervisorSettings, run::PressureSource};

/// Time between two readings. The kernel renews its averages every two seconds.
const READ_EVERY: Duration = Duration::from_secs(2);

/// Reads the pressure while a limit is set, and reports why no pool may grow.
pub(super) async fn watch_pressure(
    mut limits: watch::Receiver<SupervisorSettings>,
    source: PressureSource,
    reason: watch::Sender<Option<String>>,
) {
    let mut unreadable = false;
    loop {
        let SupervisorSettings {
            max_memory_pressure: memory,
            max_cpu_pressure: cpu,
            ..
        } = *limits.borrow_and_update();
        if memory.is_none() && cpu.is_none() {
            reason.send_replace(None);
            if limits.changed().await.is_err() {
                return;
            }
            continue;
        }
        let read = [("memory", memory), ("cpu", cpu)].map(|(resource, limit)| {
            let limit = limit?;
            Some(
                source
                    .read(resource)
                    .map(|percent| (resource, limit, percent)),
            )
        });
        let mut why = None;
        let mut failed = false;
        for read in read.into_iter().flatten() {
            match read {
                Ok((resource, limit, percent)) if percent > f64::from(limit) => {
                    why = Some(format!(
                        "{resource} pressure is {percent:.0} %, the limit is {limit} %"
                    ));
                }
                Ok(_) => {}
                Err(error) => {
                    if !unreadable && !failed {
                        warn!(error = %error, "the host's pressure cannot be read: it does not limit growth");
                    }
                    failed = true;
                }
            }
        }
        unreadable = failed;
        let changed = reason.send_if_modified(|before| {
            let changed = before.is_some() != why.is_some();
            before.clone_from(&why);
            changed
        });
        match (changed, &why) {
            (true, Some(why)) => warn!(reason = why, "pools do not grow"),
            (true, None) => info!("pools may grow again"),
            (false, _) => {}
        }
        tokio::select! {
            biased;
            () = time::sleep(READ_EVERY) => {}
            Ok(()) = limits.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicI64, Ordering},
        },
    };

    use tokio::time::timeout;

    use super::*;

    /// A memory pressure that a test sets. Below zero it cannot be read. The processor has none.
    fn watched(
        percent: &Arc<AtomicI64>,
    ) -> (
        watch::Sender<SupervisorSettings>,
        watch::Receiver<Option<String>>,
    ) {
        let percent = Arc::clone(percent);
        let source = PressureSource::new(move |resource| {
            let percent = percent.load(Ordering::Relaxed);
            match resource {
                "memory" if percent < 0 => Err(io::ErrorKind::NotFound.into()),
                "memory" => Ok(percent as f64),
                _ => Ok(0.0),
            }
        });
        let limits = watch::Sender::new(SupervisorSettings {
            max_memory_pressure: Some(10),
            max_cpu_pressure: Some(80),
            ..SupervisorSettings::default()
        });
        let reason = watch::Sender::new(None);
        let told = reason.subscribe();
        tokio::spawn(watch_pressure(limits.subscribe(), source, reason));
        (limits, told)
    }

    async fn told(reason: &mut watch::Receiver<Option<String>>, is_high: bool) -> Option<String> {
        let wait = reason.wait_for(|reason| reason.is_some() == is_high);
        let seen = timeout(READ_EVERY * 2, wait).await;
        seen.expect("it is told within two readings")
            .expect("the task runs")
            .clone()
    }

    /// Nothing is told for a minute.
    async fn stays(reason: &watch::Receiver<Option<String>>, is_high: bool) {
        let mut reason = reason.clone();
        let wait = reason.wait_for(|reason| reason.is_some() != is_high);
        assert!(timeout(Duration::from_secs(60), wait).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn growth_stops_while_the_pressure_is_above_its_limit() {
        let percent = Arc::new(AtomicI64::new(10));
        let (_limits, mut reason) = watched(&percent);
        stays(&reason, false).await;
        percent.store(11, Ordering::Relaxed);
        let why = told(&mut reason, true).await;
        assert_eq!(
            why.as_deref(),
            Some("memory pressure is 11 %, the limit is 10 %")
        );
        stays(&reason, true).await;
        percent.store(3, Ordering::Relaxed);
        assert_eq!(told(&mut reason, false).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pressure_that_cannot_be_read_does_not_limit_growth() {
        let percent = Arc::new(AtomicI64::new(50));
        let (_limits, mut reason) = watched(&percent);
        told(&mut reason, true).await;
        percent.store(-1, Ordering::Relaxed);
        told(&mut reason, false).await;
        stays(&reason, false).await;
        percent.store(50, Ordering::Relaxed);
        told(&mut reason, true).await;
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_holds_at_once_and_none_lifts_the_stop() {
        let percent = Arc::new(AtomicI64::new(50));
        let (limits, mut reason) = watched(&percent);
        told(&mut reason, true).await;
        let limit = |percent| SupervisorSettings {
            max_memory_pressure: percent,
            ..SupervisorSettings::default()
        };
        for (set, is_high) in [(Some(60), false), (Some(40), true), (None, false)] {
            limits.send_replace(limit(set));
            told(&mut reason, is_high).await;
        }
        stays(&reason, false).await;
        limits.send_replace(limit(Some(40)));
        told(&mut reason, true).await;
    }
}
