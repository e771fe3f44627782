//! Neighbours: other autoscalers, as reference models.
//!
//! Each module has the formula of one autoscaler and its source, and tests it on worked examples of that source. In all
//! of them a worker takes its first job after the start-up time.

mod fixed;
mod horizon;
mod judoscale;
mod keda;
mod knative;

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use crate::scaler::Scaler;

/// Another autoscaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Neighbour {
    /// The same number of workers all the time.
    Fixed(u32),
    /// KEDA's RabbitMQ scaler with Kubernetes' horizontal pod autoscaler, with this number of messages for each pod.
    Keda(NonZeroU32),
    /// Laravel Horizon's automatic balancing.
    Horizon,
    /// Knative's pod autoscaler, with this number of jobs for each pod.
    Knative(NonZeroU32),
    /// Judoscale's range of queue times, with this upper end.
    Judoscale(Duration),
}

/// A text names no neighbour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write fixed:WORKERS, keda:JOBS, horizon, knative:JOBS or judoscale:TIME")]
pub struct NeighbourError;

impl Neighbour {
    /// The model, with this many workers at most. A fixed number is not limited.
    pub(crate) fn scaler(self, max: u32) -> Box<dyn Scaler> {
        match self {
            Self::Fixed(workers) => Box::new(fixed::Fixed::new(workers)),
            Self::Keda(jobs) => Box::new(keda::Keda::new(jobs, max)),
            Self::Horizon => Box::new(horizon::Horizon::new(max)),
            Self::Knative(jobs) => Box::new(knative::Knative::new(jobs, max)),
            Self::Judoscale(target) => Box::new(judoscale::Judoscale::new(target, max)),
        }
    }
}

impl FromStr for Neighbour {
    type Err = NeighbourError;

    fn from_str(text: &str) -> Result<Self, NeighbourError> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let jobs = || value.and_then(|value| value.parse().ok());
        let neighbour = match (name, value) {
            ("horizon", None) => Some(Self::Horizon),
            ("fixed", Some(value)) => value.parse().ok().map(Self::Fixed),
            ("keda", _) => jobs().map(Self::Keda),
            ("knative", _) => jobs().map(Self::Knative),
            ("judoscale", Some(value)) => tidegate_core::text::parse_duration(value)
                .filter(|target| !target.is_zero())
                .map(Self::Judoscale),
            _ => None,
        };
        neighbour.ok_or(NeighbourError)
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(workers) => write!(f, "fixed:{workers}"),
            Self::Keda(jobs) => write!(f, "keda:{jobs}"),
            Self::Horizon => f.write_str("horizon"),
            Self::Knative(jobs) => write!(f, "knative:{jobs}"),
            Self::Judoscale(target) => {
                write!(f, "judoscale:{}", tidegate_core::text::duration(*target))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in [
            "fixed:3",
            "keda:10",
            "horizon",
            "knative:2",
            "judoscale:30s",
        ] {
            let neighbour: Neighbour = name.parse().expect(name);
            assert_eq!(neighbour.to_string(), name);
        }
        for wrong in [
            "",
            "fixed",
            "keda:0",
            "keda:x",
            "horizon:1",
            "judoscale:0s",
            "celery:1",
        ] {
            assert!(wrong.parse::<Neighbour>().is_err(), "{wrong}");
        }
    }
}
