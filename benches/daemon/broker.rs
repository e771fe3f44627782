//! The queues of a measurement, and messages for them.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};

/// Queues with names that no other run has.
pub(crate) struct Queues {
    connection: Connection,
    channel: Channel,
    names: Vec<String>,
}

impl Queues {
    pub(crate) async fn new(url: &str, count: usize) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("the broker answers");
        let channel = connection.create_channel().await.expect("a channel");
        let pid = std::process::id();
        let names: Vec<_> = (0..count)
            .map(|n| format!("tidegate-bench-{pid}-{n}"))
            .collect();
        let queues = Self {
            connection,
            channel,
            names,
        };
        for name in &queues.names {
            let options = QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            queues.declare(name, options).await;
        }
        queues
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Reads the depth of a queue, as a pool does.
    pub(crate) async fn look(&self, name: &str) {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        self.declare(name, options).await;
    }

    async fn declare(&self, name: &str, options: QueueDeclareOptions) {
        let declare = self
            .channel
            .queue_declare(name.into(), options, FieldTable::default());
        declare.await.expect("a queue");
    }

    /// Publishes jobs to the first queue.
    pub(crate) async fn publish(&self, jobs: u64) {
        for n in 0..jobs {
            let body = n.to_string();
            let publish = self.channel.basic_publish(
                "".into(),
                self.names[0].as_str().into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                BasicProperties::default(),
            );
            publish.await.expect("published");
        }
    }

    pub(crate) async fn delete(self) {
        for name in &self.names {
            for suffix in ["", ".dead"] {
                let queue = format!("{name}{suffix}");
                let options = QueueDeleteOptions::default();
                let delete = self.channel.queue_delete(queue.as_str().into(), options);
                delete.await.expect("the queue is deleted");
            }
        }
        self.connection
            .close(200, "done".into())
            .await
            .expect("closed");
    }
}
