//! Notices on their way to an importer in another process.

use crate::bell::Bell;
use peerdma::buffer::life::{Disturbance, Generation, Notice, NoticeId};
use peerdma::buffer::shared::{Importer, Receipt};
use peerdma::buffer::wire::UNANSWERED_MAX;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One notice, with the receipt that its answer is exchanged for.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) notice: Notice,
    /// `None` for what nobody answers.
    pub(super) receipt: Option<Receipt>,
}

impl Letter {
    /// Which notice it is; one that nobody answers has the number after the last.
    pub(super) fn id(&self, last: NoticeId) -> NoticeId {
        self.receipt.as_ref().map_or(NoticeId::new(last.number().saturating_add(1)), Receipt::id)
    }
}

/// The buffer's end of an importer in another process: takes notices, and leaves them to the exporter's thread.
#[derive(Debug)]
pub(super) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    bell: Arc<Bell>,
}

impl Mailbox {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self { letters: Mutex::default(), bell }
    }

    fn letters(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        // What a thread that panicked left is a whole letter or none.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> VecDeque<Letter> {
        std::mem::take(&mut *self.letters())
    }

    fn post(&self, letter: Letter) {
        let late = {
            let mut letters = self.letters();
            letters.push_back(letter);
            // An author who disturbs again and again while nobody serves must not fill memory.
            if letters.len() > UNANSWERED_MAX { letters.pop_front() } else { None }
        };
        // Its receipt speaks to the buffer, which may write to this mailbox: not under its lock. It says nothing of the
        // last notice, as a later one has been posted.
        drop(late);
        self.bell.ring();
    }
}

impl Importer for Mailbox {
    fn let_go(&self, cause: Disturbance, receipt: Receipt) {
        self.post(Letter { notice: Notice::LetGo { cause }, receipt: Some(receipt) });
    }

    fn may_map(&self, generation: Generation, receipt: Receipt) {
        self.post(Letter { notice: Notice::MayMap { generation }, receipt: Some(receipt) });
    }

    fn gone(&self) {
        self.post(Letter { notice: Notice::Gone, receipt: None });
    }
}
