//! `tidegate publish`: one message from a file or standard input, which the broker has when this ends.

use std::{
    io::{self, IsTerminal, Read},
    path::Path,
};

use anyhow::Context;
use serde::Serialize;

use super::args::{Cli, Format, publish::PublishArgs};
use crate::{
    load::{
        publisher::{Ids, Outlet, message},
        unreachable,
    },
    output::{self, CommandFailure, Exit},
};
use tidegate::{
    adapters::amqp::bulk::BulkPublisher,
    decide::QueueName,
    escape::Escaped,
    queue::{HeaderValue, QueueErrorKind},
    text::counted,
};

/// Largest message that any broker takes.
const MAX_BODY: u64 = 128 << 20;

/// Messages in flight.
const WINDOW: usize = 1000;

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Published<'a> {
    queue: &'a str,
    published: u64,
    /// Of the first message.
    message_id: &'a str,
    bytes: usize,
}

pub(super) async fn publish(cli: &Cli, args: &PublishArgs) -> Result<Exit, CommandFailure> {
    let settings = args.broker.settings(cli)?;
    let body = bytes::Bytes::from(body(&args.file)?);
    let publisher = BulkPublisher::connect(&settings, "publish")
        .await
        .map_err(|error| unreachable(&settings, error))?;
    let queue = QueueName::from(args.queue.as_str());
    let ids = Ids::new();
    let id = |number| match &args.message_id {
        Some(id) => id.clone(),
        None => ids.id(number),
    };
    let messages = (0..args.count).map(|number| {
        let mut message = message(&queue, id(number), body.clone());
        message.properties.content_type = args.content_type.clone();
        for (name, value) in &args.header {
            let value = HeaderValue::from(value.as_str());
            message.headers.insert(name.clone(), value);
        }
        message
    });
    let outlet = Outlet::Broker(Box::new(publisher));
    let sent = outlet.send_all(messages, WINDOW).await;
    outlet.close().await;
    sent.map_err(|error| {
        let hint = match error.kind {
            QueueErrorKind::Unroutable => {
                Some("there is no queue of this name; a pool declares its own with `declare`")
            }
            QueueErrorKind::TooLarge => Some("the broker takes no message that large"),
            _ => None,
        };
        let error = anyhow::Error::new(error).context(format!("publish to {}", args.queue));
        let failure = CommandFailure::new(Exit::Unexpected, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    let first = id(0);
    let published = Published {
        queue: &args.queue,
        published: args.count,
        message_id: &first,
        bytes: body.len(),
    };
    match cli.format {
        Format::Json => output::json(&published)?,
        Format::Human => {
            let what = match args.count {
                1 => format!("message {first}"),
                count => format!("{} from {first} on", counted(count, "message")),
            };
            let size = counted(body.len(), "byte");
            let text = format!("published {what} to {}, {size}\n", args.queue);
            output::write(Escaped(text.trim_end()).to_string().as_bytes())?;
            output::write(b"\n")?;
        }
    }
    Ok(Exit::Ok)
}

fn body(file: &Path) -> Result<Vec<u8>, CommandFailure> {
    let mut body = Vec::new();
    let read = if file == Path::new("-") {
        if io::stdin().is_terminal() {
            output::warn("reading the message from this terminal; Ctrl-D ends it");
        }
        io::stdin()
            .lock()
            .take(MAX_BODY + 1)
            .read_to_end(&mut body)
            .context("read the message from standard input")
    } else {
        std::fs::File::open(file)
            .and_then(|open| open.take(MAX_BODY + 1).read_to_end(&mut body))
            .with_context(|| format!("read the message from {}", file.display()))
    };
    read.map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
    if body.len() as u64 > MAX_BODY {
        let error = anyhow::anyhow!("read the message: it is longer than 128 MiB");
        return Err(
            CommandFailure::new(Exit::Unexpected, error).hint("no broker takes one that long")
        );
    }
    Ok(body)
}
