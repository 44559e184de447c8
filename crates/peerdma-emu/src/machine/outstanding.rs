//! Page requests that a function has sent, and responses that have come for it.
//!
//! A function may send as many page requests as software allocated to it, and no more before
//! responses come (PCIe 6.0 §10.5.2.4); so no more responses wait than that. A response that
//! nobody waits for is dropped, as a function drops one for a group that it did not name (§10.4.2.1).

use super::Machine;
use super::function::locked;
use crate::config::Detected;
use crate::device::PageResponse;
use crate::fabric::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// The page requests of one function.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many requests of each group have no response yet; none is zero.
    unanswered: BTreeMap<u16, u64>,
    /// Responses that the engine has not seen, and its requests that it does not know to be answered.
    responses: VecDeque<(u16, PageResponse)>,
    /// Requests that hold a credit: those without a response, and those whose response was not seen.
    held: u64,
    unexpected: u64,
}

impl Outstanding {
    /// Counts a request of a group, of which there may be `most` at a time; whether it may be sent.
    pub(super) fn ask(&self, group: u16, most: u64) -> bool {
        let mut state = locked(&self.state);
        if state.held >= most {
            return false;
        }
        state.held += 1;
        *state.unanswered.entry(group).or_default() += 1;
        true
    }

    /// Takes a response; `false` for a group that nobody waits for.
    pub(super) fn respond(&self, group: u16, response: PageResponse) -> bool {
        let mut state = locked(&self.state);
        let Some(waiting) = state.unanswered.get_mut(&group) else {
            state.unexpected += 1;
            return false;
        };
        *waiting -= 1;
        if *waiting == 0 {
            state.unanswered.remove(&group);
        }
        state.responses.push_back((group, response));
        true
    }

    /// The earliest response that the engine has not seen.
    pub(super) fn next(&self) -> Option<(u16, PageResponse)> {
        let mut state = locked(&self.state);
        let response = state.responses.pop_front()?;
        state.held -= 1;
        Some(response)
    }

    /// Whether there is one.
    pub(super) fn any(&self) -> bool {
        !locked(&self.state).responses.is_empty()
    }

    /// How many responses came for nothing that was asked.
    pub(super) fn unexpected(&self) -> u64 {
        locked(&self.state).unexpected
    }

    /// Forgets what was asked; answers to it are unexpected from here on.
    pub(super) fn forget(&self) {
        let mut state = locked(&self.state);
        state.unanswered.clear();
        state.responses.clear();
        state.held = 0;
    }
}

impl Machine {
    /// Gives a function the response that has come for it.
    pub(super) fn responded(&self, node: NodeId, group: u16, response: PageResponse) {
        let function = self.function(node);
        if function.pages.respond(group, response) {
            function.wake();
        } else {
            self.fabric.tree().config(node).note(Detected::UnexpectedPageResponse);
        }
    }

    /// How many page responses came for a function that it did not wait for.
    pub fn unexpected_page_responses(&self, node: NodeId) -> u64 {
        self.function(node).pages.unexpected()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_responses_wait_than_there_were_requests_and_no_more_requests_go_than_were_allocated() {
        let pages = Outstanding::default();
        assert!(pages.ask(1, 2) && pages.ask(2, 2));
        assert!(!pages.ask(3, 2), "both credits are out");
        assert!(pages.respond(2, PageResponse::Success));
        for _ in 0..1000 {
            assert!(!pages.respond(2, PageResponse::Success), "it was answered");
            assert!(!pages.respond(7, PageResponse::Invalid), "nobody asked");
        }
        assert_eq!(pages.unexpected(), 2000);
        assert!(!pages.ask(3, 2), "its engine has not looked yet");
        assert_eq!((pages.next(), pages.next()), (Some((2, PageResponse::Success)), None));
        assert!(pages.ask(3, 2));
    }

    #[test]
    fn a_response_to_what_was_asked_before_a_reset_is_unexpected() {
        let pages = Outstanding::default();
        assert!(pages.ask(1, 8));
        pages.forget();
        assert!(!pages.respond(1, PageResponse::Success) && !pages.any());
    }
}
