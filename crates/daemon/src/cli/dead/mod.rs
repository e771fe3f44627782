//! `tidegate dead`: works on the dead letters of a pool, directly at the broker.
//!
//! Needs no supervisor, and also works while one runs. [`settle`](tidegate::settle) owns the meaning of a letter and
//! the new message that it becomes.

mod show;
mod terminal;
mod whole;

use std::sync::Arc;

use anyhow::anyhow;
use serde::Serialize;

use self::terminal::{ProgressLine, can_ask, confirmed, on_interrupt, say};
use super::{
    args::{
        Cli, Format,
        dead::{ChoiceArgs, DeadArgs, DeadCommand, DeadLetterPlaceArgs, ListArgs, ShowArgs},
    },
    broker, loading,
};
use crate::{
    dead::{self, DeadLetterQueue, LetterLimit, Walked, Wanted},
    output::{self, CommandFailure, Exit},
};
use tidegate::{
    config::{PoolSettings, Settings},
    decide::{PoolName, QueueName},
    queue::{QueueDriver, QueueError, QueueErrorKind},
    settle::{Copies, Letter},
    text::{counted, form_for},
};

pub(super) async fn dead(cli: &Cli, args: &DeadArgs) -> Result<Exit, CommandFailure> {
    let settings = loading::load(cli)?.1.settings;
    let place = match &args.command {
        DeadCommand::List(list) => &list.place,
        DeadCommand::Show(show) => &show.place,
        DeadCommand::Retry(choice) => &choice.place,
        DeadCommand::Purge(purge) => &purge.choice.place,
    };
    let place = PoolDeadLetters::find(&settings, place)?;
    let driver = broker::connect(&settings.broker).await?;
    let done = place.work(cli.format, args, driver.clone()).await;
    driver.close().await;
    done
}

/// The queue with the dead letters of a pool.
struct PoolDeadLetters<'a> {
    pool: &'a PoolSettings,
    queue: QueueName,
    /// Whether the user named the queue, so that a missing one is an error.
    is_named: bool,
    /// Whether the pool's programs consume the queue themselves, so that it dead-letters nothing.
    consumes: bool,
}

impl<'a> PoolDeadLetters<'a> {
    fn find(settings: &'a Settings, args: &DeadLetterPlaceArgs) -> Result<Self, CommandFailure> {
        let pools = || settings.pools.iter().map(|config| &config.pool);
        let mut configs = settings.pools.iter();
        let Some(config) = configs.find(|config| config.pool.name.as_str() == args.pool) else {
            let names: Vec<&str> = pools().map(|pool| pool.name.as_str()).collect();
            let hint = match names.is_empty() {
                true => "no pools are configured".to_owned(),
                false => format!("the configuration has {}", names.join(", ")),
            };
            let error = anyhow!("find the pool {:?}", args.pool);
            return Err(CommandFailure::new(Exit::Usage, error).hint(hint));
        };
        let pool = &config.pool;
        let named = args.queue.as_deref().map(QueueName::from);
        let queue = match named.or_else(|| dead::queue_of(pool)) {
            Some(queue) => queue,
            None => {
                let error = anyhow!(
                    "find the dead letters of pool {}: with dead_letter = \"broker\" they are where \
                     the broker's policy for the queue {} sends them",
                    pool.name,
                    pool.queue
                );
                return Err(
                    CommandFailure::new(Exit::Usage, error).hint("name that queue: --queue NAME")
                );
            }
        };
        if let Some(owner) = pools().find(|pool| dead::is_used_by(&queue, pool)) {
            let error = anyhow!(
                "take {queue} for a queue of dead letters: pool {} works on it",
                owner.name
            );
            return Err(CommandFailure::new(Exit::Usage, error));
        }
        Ok(Self {
            pool,
            queue,
            is_named: args.queue.is_some(),
            consumes: config.runner.consumes(),
        })
    }

    async fn work(
        &self,
        format: Format,
        args: &DeadArgs,
        driver: Arc<dyn QueueDriver>,
    ) -> Result<Exit, CommandFailure> {
        let letters = match driver.probe(&self.queue).await {
            Ok(depth) => depth.ready,
            // The pool creates the queue for its first dead letter.
            Err(error) if error.kind == QueueErrorKind::NotFound && !self.is_named => 0,
            Err(error) => return Err(failure(error, "look for dead letters")),
        };
        let dead_letters = DeadLetterQueue {
            driver,
            queue: self.queue.clone(),
            letters,
        };
        match &args.command {
            DeadCommand::List(args) => self.list(format, args, &dead_letters).await,
            DeadCommand::Show(args) => self.show(format, args, &dead_letters).await,
            DeadCommand::Retry(args) => self.retry(format, args, &dead_letters).await,
            DeadCommand::Purge(args) => {
                self.purge(format, &args.choice, args.yes, &dead_letters)
                    .await
            }
        }
    }

    async fn list(
        &self,
        format: Format,
        args: &ListArgs,
        dead_letters: &DeadLetterQueue,
    ) -> Result<Exit, CommandFailure> {
        let wanted = Wanted {
            ids: Vec::new(),
            reason: args.reason.clone(),
            limit: args.limit,
        };
        let (letters, walked) = match dead_letters.letters {
            0 => (Vec::new(), Walked::default()),
            _ => {
                let read = dead_letters.read(&wanted).await;
                read.map_err(|error| failure(error, "list dead letters"))?
            }
        };
        match format {
            Format::Json => output::json(&letters)?,
            Format::Human if letters.is_empty() => {}
            Format::Human => output::write(show::table(&letters).as_bytes())?,
        }
        say(&listed(
            &self.queue,
            dead_letters.letters,
            &letters,
            &walked,
            &wanted,
        ));
        if self.consumes && !self.is_named {
            say(&of_programs(&self.pool.name));
        }
        Ok(Exit::Ok)
    }

    async fn show(
        &self,
        format: Format,
        args: &ShowArgs,
        dead_letters: &DeadLetterQueue,
    ) -> Result<Exit, CommandFailure> {
        let wanted = Wanted {
            ids: args.ids.clone(),
            reason: None,
            limit: LetterLimit::All,
        };
        let mut written = Ok(());
        let walked = match dead_letters.letters {
            0 => nothing(&wanted),
            _ => {
                let shown = dead_letters.visit(&wanted, |letter, message| {
                    if written.is_ok() {
                        written = match format {
                            Format::Json => output::json(&whole::Whole::new(letter, message)),
                            Format::Human => output::write(whole::text(letter, message).as_bytes()),
                        };
                    }
                });
                let shown = shown.await;
                shown.map_err(|error| failure(error, "look at dead letters"))?
            }
        };
        written?;
        if !walked.missing.is_empty() {
            return Err(self.missing(&walked.missing));
        }
        Ok(Exit::Ok)
    }

    /// The failure that no letter with these ids was found.
    fn missing(&self, ids: &[String]) -> CommandFailure {
        let them = match ids {
            [_] => "a dead letter with the id",
            _ => "dead letters with the ids",
        };
        let error = anyhow!("find {them} {} in {}", ids.join(", "), self.queue);
        let hint = format!(
            "`tidegate dead list {} --limit all` shows every id, and with --format json those that are cut for the table; \
             an id is taken whole",
            self.pool.name
        );
        CommandFailure::new(Exit::Unexpected, error).hint(hint)
    }

    async fn retry(
        &self,
        format: Format,
        args: &ChoiceArgs,
        dead_letters: &DeadLetterQueue,
    ) -> Result<Exit, CommandFailure> {
        let wanted = wanted(args);
        let copies = Copies {
            pool: self.pool.name.clone(),
            queue: self.pool.queue.clone(),
            host: String::new(),
            job: None,
            header_limit: dead_letters.driver.header_limit(),
        };
        let mut progress = ProgressLine::new("put back", dead_letters.letters);
        let walked = match dead_letters.letters {
            0 => nothing(&wanted),
            _ => {
                let at = |done| progress.at(done);
                let stop = on_interrupt();
                let walked = dead_letters.put_back(&wanted, &copies, &stop, at).await;
                walked.map_err(|error| failure(error, "put dead letters back"))?
            }
        };
        progress.clear();
        let what = Done {
            verb: "put back",
            operation: "put all of them back",
            into: Some(&self.pool.queue),
        };
        self.report(format, what, dead_letters, walked)
    }

    async fn purge(
        &self,
        format: Format,
        args: &ChoiceArgs,
        is_sure: bool,
        dead_letters: &DeadLetterQueue,
    ) -> Result<Exit, CommandFailure> {
        let wanted = wanted(args);
        let asks = wanted.is_everything() && !is_sure && dead_letters.letters > 0;
        if asks && !can_ask() {
            let letters = letters(dead_letters.letters);
            let error = anyhow!(
                "delete {letters} of {} permanently: there is no terminal for a confirmation",
                self.queue
            );
            let hint = "--yes deletes all of them; ids, --reason or --limit choose some";
            return Err(CommandFailure::new(Exit::Usage, error).hint(hint));
        }
        if asks {
            let count = letters(dead_letters.letters);
            if !confirmed(&format!("delete {count} of {} for good?", self.queue))? {
                say("nothing was deleted");
                return Ok(Exit::Ok);
            }
        }
        let mut progress = ProgressLine::new("deleted", dead_letters.letters);
        let walked = match dead_letters.letters {
            0 => nothing(&wanted),
            _ => {
                let at = |done| progress.at(done);
                let walked = dead_letters.delete(&wanted, &on_interrupt(), at).await;
                walked.map_err(|error| failure(error, "delete dead letters"))?
            }
        };
        progress.clear();
        let what = Done {
            verb: "deleted",
            operation: "delete all of them",
            into: None,
        };
        self.report(format, what, dead_letters, walked)
    }

    /// Reports what was done, and what was not.
    fn report(
        &self,
        format: Format,
        what: Done<'_>,
        dead_letters: &DeadLetterQueue,
        walked: Walked,
    ) -> Result<Exit, CommandFailure> {
        if format == Format::Json {
            output::json(&DeadReport {
                queue: &self.queue,
                into: what.into,
                letters: dead_letters.letters,
                done: walked.done,
                twice: walked.twice,
                missing: &walked.missing,
            })?;
        }
        say(&summary(&self.queue, &what, dead_letters.letters, &walked));
        for (letter, error) in &walked.stay_because {
            let id = letter.id.as_deref().unwrap_or("one without an id");
            say(&format!("  {id} stays: {error}"));
        }
        if let Some(error) = walked.problem {
            return Err(failure(error, what.operation));
        }
        let failed = |error| Err(CommandFailure::new(Exit::Unexpected, error));
        if walked.stopped {
            return failed(anyhow!("{}: interrupted", what.operation));
        }
        if walked.stay > 0 {
            let stay = walked.stay;
            return failed(anyhow!(
                "{}: {} {}",
                what.operation,
                letters(stay),
                form_for(stay, "stays", "stay")
            ));
        }
        if !walked.missing.is_empty() {
            return Err(self.missing(&walked.missing));
        }
        Ok(Exit::Ok)
    }
}

fn wanted(args: &ChoiceArgs) -> Wanted {
    Wanted {
        ids: args.ids.clone(),
        reason: args.reason.clone(),
        limit: args.limit.unwrap_or(LetterLimit::All),
    }
}

/// The result for an empty queue.
fn nothing(wanted: &Wanted) -> Walked {
    Walked {
        missing: wanted.ids.clone(),
        ..Walked::default()
    }
}

/// The texts for a command.
struct Done<'a> {
    verb: &'static str,
    /// Is read after "failed to".
    operation: &'static str,
    into: Option<&'a QueueName>,
}

/// The result, for a program.
#[derive(Serialize)]
struct DeadReport<'a> {
    queue: &'a QueueName,
    #[serde(skip_serializing_if = "Option::is_none")]
    into: Option<&'a QueueName>,
    letters: u64,
    done: u64,
    twice: u64,
    missing: &'a [String],
}

fn letters(count: u64) -> String {
    counted(count, "dead letter")
}

fn listed(
    queue: &QueueName,
    there: u64,
    shown: &[Letter],
    walked: &Walked,
    wanted: &Wanted,
) -> String {
    let count = shown.len() as u64;
    let unseen = there.saturating_sub(walked.looked);
    let reason = match &wanted.reason {
        Some(reason) => format!(" for {reason:?}"),
        None => String::new(),
    };
    let mut text = match (there, count) {
        (0, _) => return format!("no dead letters in {queue}"),
        (1, 0) => format!("the dead letter in {queue} did not die{reason}"),
        (_, 0) => format!("none of the {} in {queue} died{reason}", letters(there)),
        (there, count) if there == count => format!("{} in {queue}, oldest first", letters(there)),
        (there, count) => format!(
            "{count} of {} in {queue}{reason}, oldest first",
            letters(there)
        ),
    };
    let is_full = matches!(wanted.limit, LetterLimit::Count(limit) if limit.get() <= count);
    if unseen > 0 && is_full {
        let more = match wanted.reason {
            Some(_) => format!("; {unseen} were not looked at (--limit N, --limit all)"),
            None => format!("; {unseen} more (--limit N, --limit all)"),
        };
        text.push_str(&more);
    }
    text.push_str(&of_renewed(walked));
    text
}

/// The text about a pool that dead-letters nothing.
fn of_programs(pool: &PoolName) -> String {
    format!(
        "the programs of pool {pool} consume the queue themselves, so tidegate dead-letters none of their messages; \
         --queue NAME names the queue of their own dead letters"
    )
}

/// The text about letters that moved to the end of the queue.
fn of_renewed(walked: &Walked) -> String {
    match walked.renewed {
        0 => String::new(),
        renewed => format!(
            "\n{} went to the end of the queue: a quorum queue drops what was looked at and given back too often",
            letters(renewed)
        ),
    }
}

fn summary(queue: &QueueName, what: &Done<'_>, there: u64, walked: &Walked) -> String {
    if there == 0 {
        return format!("no dead letters in {queue}");
    }
    let into = match what.into {
        Some(into) => format!(" into {into}"),
        None => String::new(),
    };
    let (verb, done) = (what.verb, walked.done);
    let mut text = match done == there {
        true => format!("{verb} {} of {queue}{into}", letters(there)),
        false => format!("{verb} {done} of {} of {queue}{into}", letters(there)),
    };
    if walked.twice > 0 {
        text.push_str(&format!(
            "; {} of them may be in both queues, because the broker did not hear that they left",
            walked.twice
        ));
    }
    text.push_str(&of_renewed(walked));
    text
}

/// The failure for an error of the broker. `operation` is read after "failed to".
fn failure(error: QueueError, operation: &'static str) -> CommandFailure {
    use QueueErrorKind as K;
    let exit = match error.kind {
        K::Disconnected | K::Timeout | K::Blocked => Exit::Unavailable,
        _ => Exit::Unexpected,
    };
    let hint = match error.kind {
        K::Unroutable => {
            Some("the pool's queue does not exist; the letters that were not put back stay")
        }
        K::Refused => {
            Some("the queue is full, or its node is down; the letters that were not put back stay")
        }
        K::Blocked => Some("the broker has a memory or disk alarm; try again when it is over"),
        K::AccessRefused => Some(
            "this needs read permission on the dead letters, and write permission on the default exchange",
        ),
        K::NotFound => Some("see --queue"),
        _ => None,
    };
    let failure = CommandFailure::new(exit, anyhow::Error::new(error).context(operation));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
