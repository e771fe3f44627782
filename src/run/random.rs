//! The random numbers of a supervisor, from one source, so that a test can repeat a run.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

/// A source of random numbers. Not for secrets: with a seed it repeats.
#[derive(Debug)]
pub(crate) struct Random(Mutex<StdRng>);

impl Random {
    /// A source that gives the same numbers for the same seed. Without one, it is seeded by the system.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(match seed {
            Some(seed) => StdRng::seed_from_u64(seed),
            None => rand::make_rng(),
        }))
    }

    pub(crate) fn number(&self) -> u64 {
        self.source().next_u64()
    }

    /// From 0, without 1.
    pub(crate) fn fraction(&self) -> f64 {
        self.source().random()
    }

    /// From `low` to 1.
    pub(crate) fn fraction_from(&self, low: f64) -> f64 {
        self.source().random_range(low..=1.0)
    }

    fn source(&self) -> MutexGuard<'_, StdRng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_no_seed_does_not() {
        let numbers = |seed| {
            let random = Random::new(seed);
            (0..4).map(|_| random.number()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(Some(7)), numbers(Some(7)));
        assert_ne!(numbers(Some(7)), numbers(Some(8)));
        assert_ne!(numbers(None), numbers(None));
    }
}
