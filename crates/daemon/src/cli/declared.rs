//! Checks whether a queue exists with the declaration that its pool uses.

use super::finding::{Finding, Severity};
use tidegate::{
    config::PoolSettings,
    queue::{QueueDriver, QueueErrorKind, QueueSpec},
    run::{chain, queue_spec},
};

/// Declares an existing queue again, which changes nothing, and reports the broker's error. Makes no bindings.
pub(super) async fn of_declaration(
    driver: &dyn QueueDriver,
    pool: &PoolSettings,
) -> Option<Finding> {
    let spec = queue_spec(pool)?;
    // If the queue does not exist, declaring would create it.
    driver.probe(&pool.queue).await.ok()?;
    let spec = QueueSpec {
        bindings: Vec::new(),
        ..spec
    };
    let error = driver.declare(&spec).await.err()?;
    let what = match error.kind {
        QueueErrorKind::Mismatch => format!(
            "queue {} exists with other arguments than the pool declares, and is not changed: write its own kind and \
             arguments in the pool, or declare = \"no\", or delete the queue: {}",
            pool.queue,
            chain(&error)
        ),
        _ => chain(&error),
    };
    Some(Finding::of_pool(Severity::Error, &pool.name, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::{adapters::memory::MemoryBroker, config::Declare, queue::QueueKind};

    #[tokio::test]
    async fn an_existing_queue_with_other_arguments_is_an_error() {
        let broker = MemoryBroker::new();
        let mut pool = PoolSettings::new("jobs");
        for declare in [Declare::No, Declare::Classic, Declare::Quorum] {
            pool.declare = declare;
            assert_eq!(of_declaration(&broker, &pool).await, None, "{declare:?}");
        }
        assert_eq!(broker.ready("jobs"), None, "it must not be made");
        broker.declare_queue("jobs", QueueKind::Quorum);
        assert_eq!(of_declaration(&broker, &pool).await, None);
        pool.arguments
            .insert("x-delivery-limit".to_owned(), 5.into());
        let found = of_declaration(&broker, &pool).await.unwrap();
        assert_eq!(found.severity, Severity::Error);
        assert!(found.to_string().contains("other arguments"), "{found}");
    }
}
