//! `tidegate load`: makes a plan of the arguments, and prints the report.

use std::sync::Arc;

use super::{
    args::{
        Cli, Format,
        load::{BrokerArgs, LoadArgs},
    },
    client, loading, status, supervisor,
};
use crate::{
    load::{self, AskWorkers, LoadPlan, LoadShape, Until},
    output::{self, CommandFailure, Exit},
};
use tidegate::{
    config::{self, BrokerSettings, BrokerUrl},
    run::chain,
};

pub(super) async fn load(cli: &Cli, args: &LoadArgs) -> Result<Exit, CommandFailure> {
    let plan = LoadPlan {
        broker: args.broker.settings(cli)?,
        queue: args.queue.as_str().into(),
        until: until(args)?,
        rate: args.rate,
        shape: args.shape.clone(),
        period: args.period,
        size: args.size,
        window: args.in_flight,
        patience: args.patience,
        verify: args.verify,
        plot: args.plot.clone(),
        plot_title: args.plot_title.clone(),
    };
    let workers = match args.plot {
        Some(_) => Some(workers(cli, args).await?),
        None => None,
    };
    load::run(plan, workers, |printed| {
        if let Some(warning) = printed.warning() {
            output::warn(&warning);
        }
        match cli.format {
            Format::Human => output::write(printed.human().as_bytes()),
            Format::Json => output::json(printed.json()),
        }
    })
    .await
}

/// # Errors
/// The arguments name no end, or no rate for a shape that needs one.
fn until(args: &LoadArgs) -> Result<Until, CommandFailure> {
    let is_trace = matches!(args.shape, LoadShape::Trace(_));
    if args.rate.is_none() && !is_trace && args.shape != LoadShape::Steady {
        return Err(usage("spread a load over time without its rate")
            .hint("add --rate R: messages a second, on average"));
    }
    match (args.count, args.duration) {
        (Some(count), _) => Ok(Until::Count(count)),
        (None, Some(time)) => Ok(Until::Time(time)),
        (None, None) if is_trace => Ok(Until::End),
        (None, None) => {
            Err(usage("send a load without an end").hint("add --count N, or --duration 60s"))
        }
    }
}

fn usage(what: &'static str) -> CommandFailure {
    CommandFailure::new(Exit::Usage, anyhow::anyhow!(what))
}

impl BrokerArgs {
    /// The broker of --url, otherwise the one that `run` takes: the configuration's, or AMQP_URL if the configuration
    /// names none. Without a configuration: AMQP_URL, otherwise a broker on this machine.
    pub(super) fn settings(&self, cli: &Cli) -> Result<BrokerSettings, CommandFailure> {
        let bare = |url: &str| BrokerSettings::from(BrokerUrl::new(url));
        if let Some(url) = &self.url {
            return Ok(bare(url));
        }
        if cli.config.is_none() && config::find(None).is_err() {
            let variable = std::env::var("AMQP_URL").ok().filter(|url| !url.is_empty());
            let local = "amqp://guest:guest@localhost:5672/%2f";
            return Ok(bare(variable.as_deref().unwrap_or(local)));
        }
        let (_, loaded) = loading::load(cli)?;
        Ok(loaded.settings.broker)
    }
}

/// Asks the supervisor for the workers of the pools on the queue.
async fn workers(cli: &Cli, args: &LoadArgs) -> Result<AskWorkers, CommandFailure> {
    let supervisor = Arc::new(supervisor::find(cli, &args.socket)?);
    let queue: Arc<str> = args.queue.as_str().into();
    // Told before the load begins. The load itself needs no supervisor.
    let lack = match status::read(&supervisor).await {
        Err(error) => Some(format!("failed to {}", chain(&error))),
        Ok(pools)
            if pools
                .iter()
                .all(|pool| pool.status.queue.as_str() != &*queue) =>
        {
            Some(format!("no pool of the supervisor works on {queue}"))
        }
        Ok(_) => None,
    };
    if let Some(lack) = lack {
        output::warn(&format!("the picture will have no workers: {lack}"));
    }
    Ok(Box::new(move || {
        let (supervisor, queue) = (supervisor.clone(), queue.clone());
        Box::pin(async move {
            let pools: Vec<tidegate::api::v1::Pool> =
                client::get(&supervisor, "/api/v1/pools", "read the pools")
                    .await
                    .ok()?;
            let ours = pools.iter().map(|pool| &pool.status);
            let ours = ours.filter(|pool| pool.queue.as_str() == &*queue);
            let counts = ours.map(|pool| pool.workers.live + pool.workers.draining);
            counts.reduce(|one, other| one + other)
        })
    }))
}
