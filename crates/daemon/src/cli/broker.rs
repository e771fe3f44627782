//! Checks the broker for a configuration: the second half of `tidegate check --broker`.
//!
//! Changes nothing: it consumes and publishes nothing, and only declares queues again that exist. So it can be run
//! against a busy broker. Facts that only a change or the management API could show are reported as not seen.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;

use super::{
    declared::of_declaration,
    finding::{Finding, Severity},
    management::{self, Permissions, QueueDetails, Taker},
};
use crate::{
    management::{Management, ManagementError},
    output::{CommandFailure, Exit},
};
use tidegate::{
    adapters::amqp::{AmqpDriver, QueueFacts, bulk::BulkPublisher},
    builder::{broker_driver, reach},
    config::{BrokerSettings, BrokerUrl, DeadLetter, Declare, PoolSettings, Settings},
    decide::PoolName,
    queue::{QueueDriver, QueueError, QueueErrorKind},
    settle::dead_queue,
    text::{counted, duration, escaped_chain},
};

/// Longest time for the connection and the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The findings.
#[derive(Debug, Serialize)]
pub(super) struct BrokerReport {
    url: String,
    product: Option<String>,
    version: Option<String>,
    pub(super) findings: Vec<Finding>,
    /// Pools whose queues the management API has described.
    #[serde(skip)]
    pub(super) shown: Vec<PoolName>,
}

impl BrokerReport {
    pub(super) fn count(&self, severity: Severity) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.severity == severity)
            .count()
    }

    pub(super) fn summary(&self) -> String {
        let product = self.product.as_deref().unwrap_or("a broker");
        let version = self.version.as_deref().unwrap_or("of unknown version");
        format!("{}: {product} {version}", self.url)
    }
}

/// A pool that is checked.
#[derive(Debug, Clone, Copy)]
struct CheckedPool<'s> {
    pool: &'s PoolSettings,
    taker: Taker,
}

/// Checks the broker.
///
/// # Errors
/// The broker is not reachable, or refuses the login.
pub(super) async fn look(settings: &Settings) -> Result<BrokerReport, CommandFailure> {
    let driver = connect(&settings.broker).await?;
    let facts = driver.facts().await.unwrap_or_default();
    let pools: Vec<CheckedPool<'_>> = settings
        .pools
        .iter()
        .map(|config| CheckedPool {
            pool: &config.pool,
            taker: match config.runner.consumes() {
                true => Taker::Programs,
                false => Taker::Workers,
            },
        })
        .collect();
    let mut findings = of_nodes(&settings.broker).await;
    for CheckedPool { pool, .. } in &pools {
        findings.push(of_queue(driver.as_ref(), pool).await);
        findings.extend(of_declaration(driver.as_ref(), pool).await);
    }
    let (seen, shown) = match &settings.management {
        Some(management) => managed(management, &settings.broker, &pools, &mut findings).await,
        None => (Visibility::Amqp, Vec::new()),
    };
    // The management API has already given more details about the pools in `shown`.
    let others = pools
        .iter()
        .filter(|checked| !shown.contains(&checked.pool.name));
    for CheckedPool { pool, taker } in others {
        if let Ok(facts) = driver.queue_facts(&pool.queue).await {
            findings.extend(of_facts(&facts, pool));
        }
        if *taker == Taker::Workers && pool.retry.dead_letter == DeadLetter::Queue {
            let dead = dead_queue(&pool.queue);
            let losses = driver.losses(&dead).await;
            let found = management::of_dead_queue(&dead, &losses);
            findings
                .extend(found.map(|(severity, what)| Finding::of_pool(severity, &pool.name, what)));
        }
    }
    findings.extend(unseen(&pools, seen));
    driver.close().await;
    Ok(BrokerReport {
        url: settings.broker.to_string(),
        product: facts.product,
        version: facts.version,
        findings,
        shown,
    })
}

/// The nodes of a cluster that do not answer. The others are enough until one of them is lost.
async fn of_nodes(broker: &BrokerSettings) -> Vec<Finding> {
    if broker.others.is_empty() {
        return Vec::new();
    }
    let of_node = async |url: &BrokerUrl| {
        let node = BrokerSettings {
            url: url.clone(),
            others: Vec::new(),
            tls: broker.tls.clone(),
        };
        match BulkPublisher::connect(&node, "check").await {
            Ok(connection) => {
                connection.close().await;
                None
            }
            Err(error) => Some(Finding {
                severity: Severity::Warning,
                pool: None,
                what: format!("the node {url} cannot be used: {}", escaped_chain(&error)),
            }),
        }
    };
    // At once, so that several silent nodes cost one time limit.
    let nodes = std::iter::once(&broker.url).chain(&broker.others);
    let found = join_all(nodes.map(of_node)).await;
    found.into_iter().flatten().collect()
}

/// Connects, for a command that needs the broker.
///
/// # Errors
/// The broker is not reachable, or refuses the login.
pub(super) async fn connect(broker: &BrokerSettings) -> Result<Arc<AmqpDriver>, CommandFailure> {
    let driver = broker_driver(broker)
        .map_err(|error| CommandFailure::new(Exit::BadConfiguration, error).hint("see [broker]"))?;
    if let Err(error) = reach(&driver, CONNECT_TIMEOUT).await {
        driver.close().await;
        let error = anyhow::Error::new(error).context(format!("reach the broker {broker}"));
        return Err(CommandFailure::new(Exit::Unavailable, error)
            .hint("is it running, and are user, password and vhost in broker.url right?"));
    }
    Ok(driver)
}

/// The source of the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visibility {
    /// AMQP only.
    Amqp,
    /// The management API.
    Managed {
        /// Whether it also showed the user's permissions.
        permissions: bool,
    },
}

/// Asks the management API. Also returns the pools whose queues it described.
async fn managed(
    management: &BrokerUrl,
    broker: &BrokerSettings,
    pools: &[CheckedPool<'_>],
    findings: &mut Vec<Finding>,
) -> (Visibility, Vec<PoolName>) {
    let asked = async {
        let api = Management::new(management, &broker.url, broker.tls.ca.as_deref())?;
        let (mut found, mut shown) = (Vec::new(), Vec::new());
        for CheckedPool { pool, taker } in pools {
            // A missing queue was reported earlier.
            let details = match api.queue::<QueueDetails>(&pool.queue).await {
                Ok(Some(details)) => details,
                Ok(None) => continue,
                // This error concerns only this queue, for example arguments that are nested too deep to be read.
                Err(error @ ManagementError::Answer(_)) => {
                    found.push(Finding {
                        severity: Severity::Warning,
                        pool: Some(pool.name.clone()),
                        what: format!(
                            "the management API's answer about the queue {} cannot be read: failed to {}",
                            pool.queue,
                            escaped_chain(&error)
                        ),
                    });
                    continue;
                }
                Err(error) => return Err(error),
            };
            shown.push(pool.name.clone());
            let mut of_pool = management::of_queue(pool, *taker, &details);
            if *taker == Taker::Workers && pool.retry.dead_letter == DeadLetter::Queue {
                let dead = dead_queue(&pool.queue);
                // A missing queue is created by the pool, without such arguments.
                if let Ok(Some(details)) = api.queue::<QueueDetails>(&dead).await {
                    of_pool.extend(management::of_dead_queue(&dead, &details.losses()));
                }
            }
            found.extend(of_pool.into_iter().map(|(severity, what)| Finding {
                severity,
                pool: Some(pool.name.clone()),
                what,
            }));
        }
        let permissions = api.permissions::<Permissions>().await?;
        let seen = Visibility::Managed {
            permissions: permissions.is_some(),
        };
        // Programs have a user of their own.
        let is_ours = |_: &Permissions| pools.iter().any(|pool| pool.taker == Taker::Workers);
        found.extend(permissions.filter(is_ours).map(|permissions| {
            let (severity, what) = management::of_permissions(&permissions);
            Finding {
                severity,
                pool: None,
                what,
            }
        }));
        Ok::<_, ManagementError>((found, seen, shown))
    };
    match asked.await {
        Ok((found, seen, shown)) => {
            findings.extend(found);
            (seen, shown)
        }
        Err(error) => {
            findings.push(Finding {
                severity: Severity::Error,
                pool: None,
                what: format!(
                    "failed to ask the management API at {management}: failed to {}",
                    escaped_chain(&error)
                ),
            });
            (Visibility::Amqp, Vec::new())
        }
    }
}

async fn of_queue(driver: &dyn QueueDriver, pool: &PoolSettings) -> Finding {
    let queue = &pool.queue;
    let (severity, what) = match driver.probe(queue).await {
        Ok(depth) => (
            Severity::Ok,
            format!(
                "queue {queue} is there, with {} ready and {}",
                counted(depth.ready, "message"),
                counted(depth.consumers, "consumer")
            ),
        ),
        Err(error) => of_error(&error, pool),
    };
    Finding {
        severity,
        pool: Some(pool.name.clone()),
        what,
    }
}

/// What a queue's type and arguments mean for its pool, as far as AMQP shows them.
fn of_facts(facts: &QueueFacts, pool: &PoolSettings) -> Vec<Finding> {
    let queue = &pool.queue;
    let mut found = Vec::new();
    let mut say = |severity, what: String| {
        found.push(Finding {
            severity,
            pool: Some(pool.name.clone()),
            what,
        });
    };
    if let Some(kind) = &facts.kind {
        let (severity, what) = management::of_kind(queue, kind);
        say(severity, what);
    }
    let several = pool.policy.max > 1 && pool.key.is_none();
    if facts.has_single_active_consumer() && several {
        let (severity, what) = management::of_single_active_consumer(queue);
        say(severity, what);
    }
    found
}

fn of_error(error: &QueueError, pool: &PoolSettings) -> (Severity, String) {
    let queue = &pool.queue;
    match (error.kind, pool.declare) {
        (QueueErrorKind::NotFound, Declare::No) => (
            Severity::Warning,
            format!(
                "queue {queue} does not exist: the pool will wait until another program declares it; or set `declare`"
            ),
        ),
        (QueueErrorKind::NotFound, Declare::Classic | Declare::Quorum) => (
            Severity::Ok,
            format!("queue {queue} does not exist yet: the pool will declare it"),
        ),
        (QueueErrorKind::AccessRefused, _) => (
            Severity::Error,
            format!("this user may not look at queue {queue}: grant the user permissions"),
        ),
        (QueueErrorKind::Conflict, _) => (
            Severity::Error,
            format!("queue {queue} is held exclusively by another connection"),
        ),
        _ => (
            Severity::Error,
            format!("failed to look at queue {queue}: {}", escaped_chain(error)),
        ),
    }
}

/// The facts that AMQP does not show, so that the user does not take silence for success.
fn unseen(pools: &[CheckedPool<'_>], seen: Visibility) -> Vec<Finding> {
    let finding = |what| Finding {
        severity: Severity::Unseen,
        pool: None,
        what,
    };
    let of_workers = pools
        .iter()
        .filter(|checked| checked.taker == Taker::Workers);
    let of_workers: Vec<&PoolSettings> = of_workers.map(|checked| checked.pool).collect();
    let longest = of_workers.iter().map(|pool| pool.ack_deadline).max();
    let Some(longest) = longest else {
        // Deadlines, returns and permissions are those of the programs.
        let vanishing = "queue arguments and policies: auto-delete and x-expires, by which a queue vanishes with a drained \
                         pool. Write broker.management_url to check them";
        let is_unseen = seen == Visibility::Amqp && !pools.is_empty();
        return Vec::from_iter(is_unseen.then(|| finding(vanishing.to_owned())));
    };
    let longest = duration(longest);
    let mut unseen = vec![format!(
        "the node's consumer timeout (30m by default; closes the channel of a longer job): it must be at least \
         the longest ack_deadline, {longest}. On the broker's machine, `rabbitmqctl environment` shows consumer_timeout"
    )];
    if seen == Visibility::Amqp {
        unseen.push(
            "queue arguments and policies: consumer timeouts; delivery limits; auto-delete and x-expires, by which a \
             queue vanishes with a drained pool. Write \
             broker.management_url to check them"
                .to_owned(),
        );
        unseen.push(
            "delivery limits: how often a quorum queue hands a message out before it drops or dead-letters it (20 times on \
             RabbitMQ 4.0 to 4.2 by default, and each death of the daemon counts as one). Write \
             broker.management_url to check them"
                .to_owned(),
        );
    }
    if seen != (Visibility::Managed { permissions: true }) {
        unseen.push(
            "permissions to consume, and to declare and publish to .retry and .dead queues: only a management \
             user with the tag administrator can see them in advance"
                .to_owned(),
        );
    }
    let by_broker = of_workers.iter().filter(|_| seen == Visibility::Amqp);
    let by_broker = by_broker.filter(|pool| pool.retry.dead_letter == DeadLetter::Broker);
    unseen.extend(by_broker.map(|pool| {
        format!(
            "dead-letter exchange of queue {}: without one, dead_letter = \"broker\" drops dead letters",
            pool.queue
        )
    }));
    unseen.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::{adapters::memory::MemoryBroker, queue::QueueKind};

    #[tokio::test]
    async fn reports_for_each_queue_whether_it_exists() {
        let broker = MemoryBroker::new();
        broker.declare_queue("there", QueueKind::Classic);
        broker.send("there", "a job");
        let there = of_queue(&broker, &PoolSettings::new("there")).await;
        assert_eq!(there.severity, Severity::Ok);
        assert!(there.what.contains("1 message ready"), "{}", there.what);

        let mut missing = PoolSettings::new("missing");
        let waits = of_queue(&broker, &missing).await;
        assert_eq!(waits.severity, Severity::Warning);
        assert!(waits.what.contains("will wait"), "{}", waits.what);

        missing.declare = Declare::Quorum;
        let declares = of_queue(&broker, &missing).await;
        assert_eq!(declares.severity, Severity::Ok);
        assert!(
            declares.what.contains("will declare it"),
            "{}",
            declares.what
        );
    }

    #[test]
    fn a_refusal_is_an_error() {
        let refused = QueueError::new(QueueErrorKind::AccessRefused, "probe");
        let (severity, what) = of_error(&refused, &PoolSettings::new("a"));
        assert_eq!(severity, Severity::Error);
        assert!(what.contains("permissions"), "{what}");
    }

    #[test]
    fn names_what_could_not_be_checked() {
        let mut pool = PoolSettings::new("a");
        let unseen =
            |pool: &PoolSettings, taker, seen| unseen(&[CheckedPool { pool, taker }], seen);
        let usual = unseen(&pool, Taker::Workers, Visibility::Amqp).len();
        pool.retry.dead_letter = DeadLetter::Broker;
        let by_amqp = unseen(&pool, Taker::Workers, Visibility::Amqp);
        assert_eq!(by_amqp.len(), usual + 1);
        assert!(by_amqp[0].what.contains("consumer timeout"));
        assert!(by_amqp[1].what.contains("broker.management_url"));
        assert!(by_amqp[2].what.contains("delivery limits"));
        for (permissions, left) in [(false, 2), (true, 1)] {
            let seen = Visibility::Managed { permissions };
            assert_eq!(unseen(&pool, Taker::Workers, seen).len(), left);
            assert!(unseen(&pool, Taker::Programs, seen).is_empty());
        }
        let [of_programs] = &unseen(&pool, Taker::Programs, Visibility::Amqp)[..] else {
            panic!("more than the queue's own end");
        };
        assert!(of_programs.what.contains("x-expires") && !of_programs.what.contains("delivery"));
    }
}
