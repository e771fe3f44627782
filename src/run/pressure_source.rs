//! Where the host's pressure is read: from the kernel, or from a test.

use std::{fmt, io, sync::Arc};

use crate::host::pressure;

/// Reads the percentage of the last 10 seconds in which a task waited for a resource: `memory` or `cpu`.
#[derive(Clone)]
pub struct PressureSource(Arc<ReadPressure>);

type ReadPressure = dyn Fn(&str) -> io::Result<f64> + Send + Sync;

impl PressureSource {
    /// A source with your own function, for tests.
    pub fn new(read: impl Fn(&str) -> io::Result<f64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(super) fn read(&self, resource: &str) -> io::Result<f64> {
        (self.0)(resource)
    }
}

/// The kernel's pressure stall information.
impl Default for PressureSource {
    fn default() -> Self {
        Self::new(pressure::some_avg10)
    }
}

impl fmt::Debug for PressureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PressureSource")
    }
}
