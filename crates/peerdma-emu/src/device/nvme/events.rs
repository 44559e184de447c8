//! Asynchronous events (NVMe Base 2.0 §5.2): what goes wrong outside of any command.

use super::admin::Answer;
use super::identify::EVENTS;
use super::queue::BadDoorbell;
use super::status::Status;
use std::collections::VecDeque;

/// The log page of errors, which the host reads after an event here.
const ERROR_LOG: u8 = 0x01;

/// Requests for events that are held, and events that are not told yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    requests: VecDeque<u16>,
    pending: Option<BadDoorbell>,
    /// One was told, and its log page was not read since: no other is told of its kind.
    masked: bool,
}

impl Events {
    /// Holds a request.
    pub(super) fn request(&mut self, command: u16) -> Result<Answer, Status> {
        if self.requests.len() == EVENTS {
            return Err(Status::EVENT_LIMIT);
        }
        self.requests.push_back(command);
        Ok(Answer::Later)
    }

    /// Notes an event; of several that nobody asked about the first is kept.
    pub(super) fn note(&mut self, event: BadDoorbell) {
        self.pending.get_or_insert(event);
    }

    /// The host has read a log page.
    pub(super) fn was_read(&mut self, log_page: u8) {
        self.masked &= log_page != ERROR_LOG;
    }

    /// Whether there is an event to tell and a request to tell it with.
    pub(super) fn is_due(&self) -> bool {
        self.pending.is_some() && !self.masked && !self.requests.is_empty()
    }

    /// The request to complete, and dword 0 of its completion: kind, what, log page.
    pub(super) fn take(&mut self) -> Option<(u16, u32)> {
        if !self.is_due() {
            return None;
        }
        let event = self.pending.take()?;
        self.masked = true;
        // Kind 0 is error status.
        let result = (event as u32) << 8 | u32::from(ERROR_LOG) << 16;
        self.requests.pop_front().map(|command| (command, result))
    }
}
