//! Tests that need the outside world.
