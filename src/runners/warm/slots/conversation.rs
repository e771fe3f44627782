//! The task of one process: all that is written to it and read from it.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::super::{
    lines::NoLine,
    link::{End, StopMode, WarmLink, cut, unasked},
    protocol::{self, RunnerAnswer, RunnerMessage},
};
use crate::{decide::JobId, escape::Quoted, runners::process::LINGER};

/// An order of a slot to the process.
#[derive(Debug)]
pub(super) enum SlotOrder {
    /// Run this job in this slot.
    Job { slot: u32, job: SentJob },
    /// Tell the job in this slot to stop.
    Stop { slot: u32 },
    /// The slot waits for no answer any more. It gets no other job.
    GiveUp { slot: u32 },
    /// Kill the process now.
    Kill,
}

/// A job as the process gets it, and the channel for its end.
#[derive(Debug)]
pub(super) struct SentJob {
    pub(super) id: JobId,
    pub(super) line: Bytes,
    /// Changes with each report of progress.
    pub(super) progress: watch::Sender<()>,
    pub(super) end: oneshot::Sender<SlotEnd>,
}

/// How a job's time in its slot ended.
#[derive(Debug)]
pub(super) enum SlotEnd {
    Answered {
        answer: RunnerAnswer,
        last: bool,
        stderr_tail: Option<String>,
    },
    /// The process ended or violated the protocol.
    Lost { problem: String, end: End },
    /// The process ended before it read any part of the job. The text is how it ended.
    NotTaken(String),
}

/// The content of a slot.
#[derive(Debug)]
enum SlotState {
    Free,
    Job {
        job: SentJob,
        /// Position of the job's first byte in all that was written to the process.
        begins_at: u64,
    },
    /// A job whose result is no longer awaited.
    GivenUp(JobId),
}

/// Why a process is ended.
enum Reason {
    /// All its slots were released.
    Released,
    Killed,
    Ended,
    Closed(&'static str),
    Broke(String),
}

/// Exchanges lines with a process until it ends. `lost` is set as soon as it can take no other job.
///
/// # Cancel-safety
/// Not cancel-safe: when dropped, it kills the process's group at once.
pub(super) async fn converse(
    link: Box<WarmLink>,
    slots: u32,
    orders: mpsc::Receiver<SlotOrder>,
    lost: watch::Sender<bool>,
    time_limit: Duration,
) {
    let mut conversation = Conversation {
        places: (0..slots).map(|_| SlotState::Free).collect(),
        outgoing: VecDeque::new(),
        queued: 0,
        written: 0,
        link,
        orders,
    };
    let reason = conversation.run().await;
    lost.send_replace(true);
    let reason = conversation.last_words(reason).await;
    conversation.conclude(reason, time_limit).await;
}

struct Conversation {
    link: Box<WarmLink>,
    orders: mpsc::Receiver<SlotOrder>,
    /// By slot.
    places: Vec<SlotState>,
    /// Lines that are not yet written, and the rest of the line that is partly written.
    outgoing: VecDeque<Bytes>,
    /// Bytes that were ever put into `outgoing`.
    queued: u64,
    /// Bytes that are in the pipe or were read from it.
    written: u64,
}

impl Conversation {
    /// Reads the answers that a process wrote before it ended. They count.
    async fn last_words(&mut self, reason: Reason) -> Reason {
        if !matches!(reason, Reason::Ended | Reason::Closed(_)) {
            return reason;
        }
        while let Ok(Ok(line)) = timeout(LINGER, self.link.lines.next()).await {
            if let Err(problem) = self.hear(&line) {
                return Reason::Broke(problem);
            }
        }
        reason
    }

    async fn run(&mut self) -> Reason {
        let mut log_is_open = true;
        loop {
            let WarmLink {
                process,
                stdin,
                lines,
                stderr,
                log,
                ..
            } = &mut *self.link;
            let next = self.outgoing.front();
            let heard = async {
                // Polled in turns, so that a flood on one pipe cannot starve the other.
                tokio::select! {
                    line = lines.next() => Some(line),
                    () = log.drain(stderr), if log_is_open => None,
                }
            };
            tokio::select! {
                biased;
                () = process.exited() => return Reason::Ended,
                order = self.orders.recv() => match order {
                    Some(SlotOrder::Kill) => return Reason::Killed,
                    Some(order) => self.obey(order),
                    None => return Reason::Released,
                },
                written = async { stdin.write(next.map_or(&[][..], |line| line)).await }, if next.is_some() => match written {
                    Ok(length @ 1..) => self.wrote(length),
                    _ => return Reason::Closed("closed its standard input"),
                },
                heard = heard => match heard {
                    None => log_is_open = false,
                    Some(Ok(line)) => {
                        if let Err(problem) = self.hear(&line) {
                            return Reason::Broke(problem);
                        }
                    }
                    Some(Err(NoLine::Ended)) => return Reason::Closed("closed its standard output"),
                    Some(Err(NoLine::TooLong)) => {
                        let problem = "wrote a line of more than 16 MiB to standard output";
                        return Reason::Broke(problem.to_owned());
                    }
                },
            }
        }
    }

    fn obey(&mut self, order: SlotOrder) {
        match order {
            SlotOrder::Job { slot, job } => {
                let line = job.line.clone();
                *self.place(slot) = SlotState::Job {
                    begins_at: self.queued,
                    job,
                };
                self.send(line);
            }
            SlotOrder::Stop { slot } => {
                if let SlotState::Job { job, .. } = self.place(slot) {
                    let line = protocol::stop_line(&job.id, slot);
                    self.send(line.into());
                }
            }
            SlotOrder::GiveUp { slot } => {
                let place = self.place(slot);
                if let SlotState::Job { job, .. } = place {
                    *place = SlotState::GivenUp(job.id.clone());
                }
            }
            SlotOrder::Kill => {}
        }
    }

    fn place(&mut self, slot: u32) -> &mut SlotState {
        &mut self.places[slot as usize]
    }

    fn send(&mut self, line: Bytes) {
        self.queued += line.len() as u64;
        self.outgoing.push_back(line);
    }

    fn wrote(&mut self, length: usize) {
        self.written += length as u64;
        if let Some(line) = self.outgoing.front_mut() {
            let _ = line.split_to(length);
            if line.is_empty() {
                self.outgoing.pop_front();
            }
        }
    }

    /// Handles a line of the process. The error says how the line violates the protocol.
    fn hear(&mut self, line: &[u8]) -> Result<(), String> {
        let (id, slot, message) = match protocol::parse(line)? {
            RunnerMessage::Ready { .. } => return Err(unasked(line)),
            RunnerMessage::Progress { id, slot, progress } => {
                tracing::debug!(%progress, "job makes progress");
                (id, slot, None)
            }
            RunnerMessage::RunnerAnswer {
                id,
                slot,
                answer,
                last,
            } => (id, slot, Some((answer, last))),
        };
        let Some(slot) = slot else {
            let shown = Quoted(cut(&id));
            return Err(format!("answered the job {shown} without its slot"));
        };
        let found = self.places.get_mut(slot as usize);
        let place = match found {
            Some(SlotState::Job { job, .. }) if job.id.as_str() == id => found,
            Some(SlotState::GivenUp(given_up)) if given_up.as_str() == id => {
                // Too late. The slot is not used again: only its process knows whether the job's work has ended.
                return Ok(());
            }
            _ => None,
        };
        let Some(place) = place else {
            return Err(format!(
                "answered the job {} in slot {slot}, which is not running there",
                Quoted(cut(&id))
            ));
        };
        let Some((answer, last)) = message else {
            if let SlotState::Job { job, .. } = place {
                job.progress.send_replace(());
            }
            return Ok(());
        };
        let SlotState::Job { job, begins_at } = std::mem::replace(place, SlotState::Free) else {
            return Ok(());
        };
        if self.written < begins_at + job.line.len() as u64 {
            return Err(format!(
                "answered the job {} before it had read it",
                Quoted(cut(&id))
            ));
        }
        self.link.lines.shrink();
        // The log lines before the answer are already in the pipe.
        self.link.log.drain_now(&self.link.stderr);
        let stderr_tail = self.link.log.turn();
        // The slot may have given up meanwhile.
        let _ = job.end.send(SlotEnd::Answered {
            answer,
            last,
            stderr_tail,
        });
        Ok(())
    }

    /// Ends the process, and reports this to its jobs.
    async fn conclude(self, reason: Reason, time_limit: Duration) {
        let is_deaf = |place: &SlotState| matches!(place, SlotState::GivenUp(_));
        let how = match &reason {
            // A job that ignored the order to stop does not end when its input is closed either.
            Reason::Released if self.places.iter().any(is_deaf) => StopMode::Forced,
            Reason::Released => StopMode::Polite(time_limit),
            Reason::Killed | Reason::Broke(_) => StopMode::Forced,
            Reason::Ended | Reason::Closed(_) => StopMode::Expected,
        };
        let end = self.link.end(how).await;
        let problem = match reason {
            Reason::Broke(problem) => problem,
            Reason::Closed(pipe) => format!("{} without an answer", end.in_words(pipe)),
            Reason::Ended | Reason::Released => {
                format!("{} without an answer", end.in_words("ended"))
            }
            Reason::Killed => "was killed".to_owned(),
        };
        let read = self.written.saturating_sub(end.unread);
        for place in self.places {
            if let SlotState::Job { job, begins_at } = place {
                let told = match begins_at >= read {
                    true => SlotEnd::NotTaken(end.in_words("closed its standard input or output")),
                    false => SlotEnd::Lost {
                        problem: problem.clone(),
                        end: end.clone(),
                    },
                };
                let _ = job.end.send(told);
            }
        }
    }
}
