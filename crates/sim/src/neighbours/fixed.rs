//! A fixed pool: the same number of workers all the time, for any depth of the queue.

use std::time::Duration;

use tidegate_core::decide::Moment;

use crate::{scaler::Scaler, world::World};

/// A fixed pool ignores the queue.
const LOOK: Duration = Duration::from_secs(3600);

pub(super) struct Fixed {
    workers: u32,
    next: Moment,
}

impl Fixed {
    pub(super) fn new(workers: u32) -> Self {
        Self {
            workers,
            next: Moment::ZERO,
        }
    }
}

impl Scaler for Fixed {
    fn next(&self) -> Moment {
        self.next
    }

    fn act(&mut self, world: &mut World<'_>) {
        self.next = world.now() + LOOK;
        world.resize(self.workers, false);
    }
}
