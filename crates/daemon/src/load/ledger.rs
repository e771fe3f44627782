//! The ledger: which messages were answered, how often, and so which were lost.
//! Pure. It uses one byte for each message, so that the messages of a day fit into memory.

/// The state of each message, by its number.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<MessageState>,
    answered: u64,
    repeated: u64,
    failed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageState {
    /// It was sent, and its answer is awaited.
    Open,
    /// The broker did not accept it, so no answer comes.
    Void,
    /// It was answered.
    Answered,
}

/// How the ledger counts an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Entered {
    /// The first answer to this message.
    First,
    /// One more answer to this message.
    Again,
    /// An answer to no message of this load.
    Stray,
}

impl Ledger {
    /// Records the next message. Its number is the count of messages before it.
    pub(super) fn send(&mut self) {
        self.entries.push(MessageState::Open);
    }

    /// Records that the broker did not accept a message.
    pub(super) fn void(&mut self, number: u64) {
        if let Some(entry) = self.entry(number)
            && *entry == MessageState::Open
        {
            *entry = MessageState::Void;
        }
    }

    /// Records an answer of a job that was done or finally failed.
    pub(super) fn answer(&mut self, number: u64, is_failure: bool) -> Entered {
        let Some(entry) = self.entry(number) else {
            return Entered::Stray;
        };
        let entered = match entry {
            MessageState::Answered => Entered::Again,
            // The broker may have accepted a message although its confirm is missing.
            MessageState::Open | MessageState::Void => Entered::First,
        };
        *entry = MessageState::Answered;
        match entered {
            Entered::First => {
                self.answered += 1;
                self.failed += u64::from(is_failure);
            }
            _ => self.repeated += 1,
        }
        entered
    }

    /// Messages that were answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// The answered messages whose job finally failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Answers beyond the first of their message.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Messages that the broker accepted, as far as is known, and that were not answered.
    pub(super) fn open(&self) -> u64 {
        let open = |entry: &&MessageState| **entry == MessageState::Open;
        self.entries.iter().filter(open).count() as u64
    }

    fn entry(&mut self, number: u64) -> Option<&mut MessageState> {
        self.entries.get_mut(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(messages: u64) -> Ledger {
        let mut ledger = Ledger::default();
        (0..messages).for_each(|_| ledger.send());
        ledger
    }

    #[test]
    fn a_message_is_lost_until_it_is_answered() {
        let mut ledger = of(3);
        assert_eq!(ledger.open(), 3);
        assert_eq!(ledger.answer(1, false), Entered::First);
        assert_eq!(ledger.answer(0, true), Entered::First);
        assert_eq!((ledger.answered(), ledger.failed()), (2, 1));
        assert_eq!((ledger.open(), ledger.repeated()), (1, 0));
    }

    #[test]
    fn a_second_answer_does_not_count_for_another_message() {
        let mut ledger = of(2);
        assert_eq!(ledger.answer(0, false), Entered::First);
        assert_eq!(ledger.answer(0, true), Entered::Again);
        assert_eq!(ledger.answer(0, false), Entered::Again);
        assert_eq!((ledger.answered(), ledger.failed()), (1, 0));
        assert_eq!((ledger.open(), ledger.repeated()), (1, 2));
    }

    #[test]
    fn a_publish_that_the_broker_did_not_accept_is_not_lost() {
        let mut ledger = of(2);
        ledger.void(1);
        assert_eq!(ledger.open(), 1);
        // The broker accepted it, and only the confirm was lost.
        assert_eq!(ledger.answer(1, false), Entered::First);
        ledger.void(1);
        assert_eq!((ledger.answered(), ledger.open()), (1, 1));
    }

    #[test]
    fn an_answer_to_no_message_is_not_counted() {
        let mut ledger = of(1);
        for stray in [1, u64::MAX] {
            assert_eq!(ledger.answer(stray, false), Entered::Stray);
            ledger.void(stray);
        }
        assert_eq!((ledger.answered(), ledger.repeated()), (0, 0));
        assert_eq!(ledger.open(), 1);
    }
}
