//! The interface between a contender and the simulated world.

use tidegate_core::decide::Moment;

use crate::world::World;

/// Starts and stops workers.
pub(crate) trait Scaler {
    /// When it acts next. It increases with each action.
    fn next(&self) -> Moment;

    /// Looks at the world and changes its workers.
    fn act(&mut self, world: &mut World<'_>);
}
