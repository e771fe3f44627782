//! The inputs of the simulator: traces, service times and pools, read from files.

use std::path::Path;

use anyhow::anyhow;

use super::{
    args::{Cli, simulate::TrafficArgs},
    loading,
};
use crate::{
    files::{self, LARGEST_TRACE, Links},
    output::{CommandFailure, Exit},
};
use tidegate::{
    config::{PoolSettings, Settings, Source},
    decide::{Orders, Rules},
    trace::Trace,
};
use tidegate_sim::{PoolModel, ServiceError, ServiceTimes, Workload};

/// The maximum number of jobs in a trace. More would take hours.
const MOST_JOBS: f64 = 1e9;

impl TrafficArgs {
    /// The workload.
    ///
    /// # Errors
    /// A file cannot be read, or says something else.
    pub(super) fn workload(&self) -> Result<Workload, CommandFailure> {
        let trace = self.read_trace()?;
        Ok(Workload {
            trace,
            service: service(&self.service)?,
            start_up: self.start_up,
            failures: self.failures,
            target: self.target,
            seed: self.seed,
        })
    }

    fn read_trace(&self) -> Result<Trace, CommandFailure> {
        let file = self.trace.display();
        let trace = Trace::parse(&read(&self.trace)?)
            .map_err(|error| usage(anyhow::Error::new(error).context(format!("use {file}"))))?;
        match trace.arrivals() {
            jobs if jobs > MOST_JOBS => {
                Err(usage(anyhow!("use {file}: it has {jobs:.0} arrivals"))
                    .hint("a trace may have 1,000,000,000 arrivals"))
            }
            _ => Ok(trace),
        }
    }
}

fn service(text: &str) -> Result<ServiceTimes, CommandFailure> {
    let wrong = |error: ServiceError| {
        usage(anyhow::Error::new(error).context(format!("use the service time {text}")))
    };
    match ServiceTimes::named(text) {
        Some(named) => named.map_err(wrong),
        None if !Path::new(text).exists() => {
            let time = match tidegate::text::parse_duration(text) {
                Some(_) => text,
                None => "2s",
            };
            let hint = format!(
                "write exp:{time} (exponential), fixed:{time}, lognormal:2s,4s (mean and standard deviation), or a file \
                 of measured times"
            );
            let error = anyhow!(
                "use the service time {text}: it has no known form, and there is no such file"
            );
            Err(usage(error).hint(hint))
        }
        None => ServiceTimes::measured(&read(Path::new(text))?).map_err(wrong),
    }
}

fn read(file: &Path) -> Result<String, CommandFailure> {
    files::read_text(file, Links::Follow, LARGEST_TRACE).map_err(|error| {
        usage(anyhow::Error::new(error).context(format!("read {}", file.display())))
    })
}

pub(super) fn usage(error: anyhow::Error) -> CommandFailure {
    CommandFailure::new(Exit::Usage, error)
}

/// A pool of a configuration.
pub(super) struct FoundPool {
    pub(super) settings: PoolSettings,
    /// `[supervisor] max_workers`.
    pub(super) max_workers: Option<u32>,
}

/// The pool that `text` names: `FILE`, with one pool, or `FILE#POOL`. Without a text, the pool of the configuration.
///
/// # Errors
/// The configuration is invalid, or has no such pool, or several.
pub(super) fn pool(cli: &Cli, text: Option<&str>) -> Result<FoundPool, CommandFailure> {
    let Some(text) = text else {
        let (source, loaded) = loading::load(cli)?;
        return chosen(&source, loaded.settings, None);
    };
    let (file, name) = match text.rsplit_once('#') {
        // A file may have such a sign in its name.
        Some((file, pool)) if !Path::new(text).exists() => (file, Some(pool)),
        _ => (text, None),
    };
    let source = Source::from(Path::new(file).to_owned());
    let loaded =
        tidegate::config::load(&source).map_err(|problems| loading::refused(&source, &problems))?;
    chosen(&source, loaded.settings, name)
}

fn chosen(
    source: &Source,
    settings: Settings,
    name: Option<&str>,
) -> Result<FoundPool, CommandFailure> {
    let file = source.file().display().to_string();
    let Settings {
        pools, supervisor, ..
    } = settings;
    let names: Vec<String> = pools
        .iter()
        .map(|pool| pool.pool.name.to_string())
        .collect();
    let mut found = pools
        .into_iter()
        .map(|pool| pool.pool)
        .filter(|pool| name.is_none_or(|name| pool.name.as_str() == name));
    match (found.next(), found.next()) {
        (Some(settings), None) => Ok(FoundPool {
            settings,
            max_workers: supervisor.max_workers,
        }),
        (None, _) => {
            Err(usage(anyhow!("find the pool in {file}"))
                .hint(format!("it has: {}", names.join(", "))))
        }
        (Some(_), Some(_)) => Err(
            usage(anyhow!("choose a pool of {file}: it has several")).hint(format!(
                "write {file}#POOL, with one of {}",
                names.join(", ")
            )),
        ),
    }
}

/// A pool as the simulator takes it.
pub(super) fn model(name: String, pool: &FoundPool) -> PoolModel {
    let settings = &pool.settings;
    PoolModel {
        name,
        rules: Rules::from(settings),
        poll_interval: settings.poll_interval,
        prefetch: settings.prefetch,
        retry: settings.retry.clone(),
        orders: Orders::default(),
        max_workers: pool.max_workers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_time_without_its_form_gets_a_hint_with_all_forms() {
        for (text, first) in [
            ("2s", "write exp:2s"),
            ("5m", "write exp:5m"),
            ("soon", "write exp:2s"),
        ] {
            let failure = service(text).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            let hint = format!("{failure:?}");
            assert!(
                hint.contains(first) && hint.contains("lognormal:2s,4s"),
                "{hint}"
            );
        }
    }
}
