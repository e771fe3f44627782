//! Opening the one consumer of a pool with keys. A task of its own (`pump`) then fills the pool's table of keys.

mod pump;

use std::sync::Arc;

use super::{
    keyed::{KeyedConsumer, KeyedOpening, OpeningPhase},
    shared::PoolShared,
    worker_state::WorkerState,
};
use crate::{
    config::PoolSettings,
    queue::{ConsumeRequest, Consumer, QueueError},
};

/// Opens a worker's consumer. In a pool with keys it is a part of the pool's one consumer.
///
/// # Cancel-safety
/// Cancel-safe: a consumer that was being opened is cancelled.
pub(super) async fn consume(
    shared: &Arc<PoolShared>,
    worker: &Arc<WorkerState>,
    settings: &Arc<PoolSettings>,
    request: ConsumeRequest,
) -> Result<Box<dyn Consumer>, QueueError> {
    let Some(keys) = &settings.key else {
        return shared.broker.driver.consume(request).await;
    };
    let intake = &shared.keyed;
    let _turn = intake.turn.lock().await;
    if let Some(current) = intake.current() {
        if current.serves(settings)
            && let Some(part) = KeyedConsumer::join(intake, &current, worker)
        {
            return Ok(Box::new(part));
        }
        intake.release(&current);
        current.until(OpeningPhase::Cleared).await;
    }
    let window = keys.window_for(settings.policy.max);
    let request = ConsumeRequest {
        prefetch: window,
        ..request
    };
    let consumer = shared.broker.driver.consume(request).await?;
    let opening = Arc::new(KeyedOpening::new(settings.clone(), window));
    let part = KeyedConsumer::begin(intake, keys, &opening, worker);
    tokio::spawn(pump::run(shared.clone(), opening, consumer));
    Ok(Box::new(part))
}
