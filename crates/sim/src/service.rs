//! Service times: how long a job takes.

use std::time::Duration;

use rand::RngExt as _;
use rand_distr::{Distribution as _, Exp, LogNormal};

use crate::random::Stream;

/// Longest service time: a year. A heavy tail may ask for more.
const MAX_SERVICE: f64 = 366.0 * 86_400.0;

/// The distribution of the service times.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ServiceTimes {
    /// Exponential, with this mean.
    Exponential {
        /// The mean.
        mean: Duration,
    },
    /// Every job takes the same time.
    Fixed {
        /// The time.
        time: Duration,
    },
    /// Lognormal, with this mean and this standard deviation.
    LogNormal {
        /// The mean.
        mean: Duration,
        /// The standard deviation.
        deviation: Duration,
    },
    /// Drawn from times that were measured. Not empty.
    Measured(Vec<Duration>),
    /// The time of each job, in the order of their arrivals, from the first on again if there are more jobs. Not empty.
    InOrder(Vec<Duration>),
}

/// A text is not a valid service time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The parameters of a distribution are wrong.
    #[error(
        "{0:?} is not a service time: write exp:2s, fixed:2s, lognormal:2s,4s (mean and standard deviation), or a file"
    )]
    Parameters(String),
    /// A line of a file is wrong.
    #[error(
        "line {line}: {text:?} is not a number of seconds, and not a time such as 250ms, of at most a year"
    )]
    Line {
        /// The line, 1 for the first.
        line: usize,
        /// The problem.
        text: String,
    },
    /// A file has no times.
    #[error("the file has no times")]
    Empty,
}

impl ServiceTimes {
    /// Reads `exp:2s`, `fixed:2s` or `lognormal:2s,4s`. `None` if the text names no distribution, so that it may be the
    /// name of a file.
    pub fn named(text: &str) -> Option<Result<Self, ServiceError>> {
        let (kind, parameters) = text.split_once(':')?;
        let times: Option<Vec<Duration>> = parameters
            .split(',')
            .map(|time| tidegate_core::text::parse_duration(time.trim()))
            .collect();
        let wrong = || ServiceError::Parameters(text.to_owned());
        let read = match (kind, times.as_deref()) {
            ("exp", Some(&[mean])) if !mean.is_zero() => Ok(Self::Exponential { mean }),
            ("fixed", Some(&[time])) => Ok(Self::Fixed { time }),
            ("lognormal", Some(&[mean, deviation])) if !mean.is_zero() => {
                Ok(Self::LogNormal { mean, deviation })
            }
            ("exp" | "fixed" | "lognormal", _) => Err(wrong()),
            _ => return None,
        };
        Some(read)
    }

    /// Reads measured times: one a line, as seconds or as `250ms`. A head line without a number is skipped, and so is
    /// everything after the first comma of a line.
    ///
    /// # Errors
    /// A line is not a time, or the text has no line with a time.
    pub fn measured(text: &str) -> Result<Self, ServiceError> {
        let mut times = Vec::new();
        for (line, row) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let field = row.split(',').next().unwrap_or_default().trim();
            match time(field) {
                _ if row.trim().is_empty() => {}
                Some(time) => times.push(time),
                None if line == 1 => {}
                None => {
                    let text = field.to_owned();
                    return Err(ServiceError::Line { line, text });
                }
            }
        }
        match times.is_empty() {
            true => Err(ServiceError::Empty),
            false => Ok(Self::Measured(times)),
        }
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        match self {
            Self::Exponential { mean } | Self::LogNormal { mean, .. } => *mean,
            Self::Fixed { time } => *time,
            Self::Measured(times) | Self::InOrder(times) => {
                let sum: f64 = times.iter().map(Duration::as_secs_f64).sum();
                Duration::from_secs_f64(sum / times.len().max(1) as f64)
            }
        }
    }

    /// Draws from it.
    pub(crate) fn sampler(&self) -> Sampler {
        let exponential = |mean: &Duration| Exp::new(1.0 / mean.as_secs_f64()).ok();
        let log_normal = |mean: &Duration, deviation: &Duration| {
            let mean = mean.as_secs_f64();
            LogNormal::from_mean_cv(mean, deviation.as_secs_f64() / mean).ok()
        };
        let sampler = match self {
            Self::Exponential { mean } => exponential(mean).map(Sampler::Exponential),
            Self::LogNormal { mean, deviation } => {
                log_normal(mean, deviation).map(Sampler::LogNormal)
            }
            Self::Fixed { .. } => None,
            Self::Measured(times) => Some(Sampler::Measured(times.clone())),
            Self::InOrder(times) if times.is_empty() => None,
            Self::InOrder(times) => Some(Sampler::InOrder(times.clone())),
        };
        // A mean of zero has no such distribution.
        sampler.unwrap_or(Sampler::Fixed(self.mean()))
    }
}

/// A measured time. The sum of all times must stay a duration, so none is longer than [`MAX_SERVICE`].
fn time(text: &str) -> Option<Duration> {
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => tidegate_core::text::parse_duration(text),
    };
    time.filter(|time| time.as_secs_f64() <= MAX_SERVICE)
}

/// The distribution of service times.
#[derive(Debug, Clone)]
pub(crate) enum Sampler {
    Exponential(Exp<f64>),
    Fixed(Duration),
    LogNormal(LogNormal<f64>),
    Measured(Vec<Duration>),
    InOrder(Vec<Duration>),
}

impl Sampler {
    /// The time of the job with this number.
    pub(crate) fn draw(&self, job: u64, stream: &mut Stream) -> Duration {
        let seconds = match self {
            Self::Fixed(time) => return *time,
            Self::InOrder(times) => return times[(job % times.len() as u64) as usize],
            Self::Measured(times) => return times[stream.random_range(0..times.len())],
            Self::Exponential(exponential) => exponential.sample(stream),
            Self::LogNormal(log_normal) => log_normal.sample(stream),
        };
        Duration::from_secs_f64(seconds.min(MAX_SERVICE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn moments(service: &ServiceTimes) -> (f64, f64) {
        let sampler = service.sampler();
        let draws: Vec<f64> = (0..200_000)
            .map(|job| {
                sampler
                    .draw(job, &mut random::of_attempt(1, job, 1))
                    .as_secs_f64()
            })
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let squares = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>();
        (mean, (squares / draws.len() as f64).sqrt())
    }

    #[test]
    fn draws_have_the_requested_mean_and_deviation() {
        for (text, mean, deviation, off) in [
            ("exp:2s", 2.0, 2.0, 0.02),
            ("fixed:2s", 2.0, 0.0, 1e-9),
            ("lognormal:2s,1s", 2.0, 1.0, 0.02),
        ] {
            let service = ServiceTimes::named(text).expect("named").expect("valid");
            let (found, spread) = moments(&service);
            assert!((found - mean).abs() <= mean * off, "{text}: {found}");
            assert!(
                (spread - deviation).abs() <= deviation.mul_add(off, 1e-9),
                "{text}: {spread}"
            );
        }
    }

    #[test]
    fn measured_times_are_seconds_or_have_a_unit() {
        let service = ServiceTimes::measured("service_s,job\n0.5,a\n\n250ms,b\n").expect("times");
        let times = [500, 250].map(Duration::from_millis);
        assert_eq!(service, ServiceTimes::Measured(times.to_vec()));
        assert_eq!(service.mean(), Duration::from_millis(375));
        assert_eq!(
            ServiceTimes::measured("seconds\n"),
            Err(ServiceError::Empty)
        );
        let wrong = ServiceTimes::measured("1\nsoon\n").expect_err("a word");
        assert!(wrong.to_string().contains("line 2"), "{wrong}");
        for wrong in [
            "1\n1e19\n",
            "1\n1e300\n",
            "1\n-1\n",
            "1\nNaN\n",
            "1\n999y\n",
        ] {
            let error = ServiceTimes::measured(wrong).expect_err(wrong);
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }

    #[test]
    fn times_in_order_are_those_of_the_jobs() {
        let times = [1, 5, 2].map(Duration::from_secs).to_vec();
        let sampler = ServiceTimes::InOrder(times.clone()).sampler();
        let draw = |job| sampler.draw(job, &mut random::of_attempt(7, job, 1));
        let drawn: Vec<Duration> = (0..4).map(draw).collect();
        assert_eq!(drawn, [times[0], times[1], times[2], times[0]]);
    }

    #[test]
    fn a_name_that_is_not_a_distribution_may_be_a_file() {
        for file in ["times.csv", "gamma:2s", "C:\\times.csv"] {
            assert_eq!(ServiceTimes::named(file), None, "{file}");
        }
        for wrong in ["exp:soon", "exp:0s", "exp:1s,2s", "lognormal:2s", "fixed:"] {
            assert!(
                ServiceTimes::named(wrong).is_some_and(|read| read.is_err()),
                "{wrong}"
            );
        }
    }
}
