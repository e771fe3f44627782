//! Watches the pressure of the host, which stops growth.

use std::time::Duration;

use tokio::{sync::watch, time};
use tracing::{info, warn};

use crate::{config::SupervisorSettings, host::pressure};

/// Time between two readings. The kernel renews its averages every two seconds.
const READ_EVERY: Duration = Duration::from_secs(2);

/// Reads the pressure while a limit is set, and reports why no pool may grow.
pub(super) async fn watch_pressure(
    mut limits: watch::Receiver<SupervisorSettings>,
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
            Some(pressure::some_avg10(resource).map(|percent| (resource, limit, percent)))
        });
        let mut why = None;
        for read in read.into_iter().flatten() {
            match read {
                Ok((resource, limit, percent)) if percent > f64::from(limit) => {
                    why = Some(format!(
                        "{resource} pressure is {percent:.0} %, the limit is {limit} %"
                    ));
                }
                Ok(_) => {}
                Err(error) if !unreadable => {
                    unreadable = true;
                    warn!(error = %error, "the host's pressure cannot be read: it does not limit growth");
                }
                Err(_) => {}
            }
        }
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
