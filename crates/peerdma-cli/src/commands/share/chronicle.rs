//! What happened, as it happens: lines of text, or the events of a document.

use crate::document::share::EventDocument;
use crate::exit::Failure;
use crate::output;
use std::collections::VecDeque;
use std::io::Write;
use std::time::Instant;

/// Events that a document holds at most, since other processes decide how many happen.
const KEPT: usize = 10_000;

/// Tells what happens.
#[derive(Debug)]
pub(crate) struct Chronicle {
    begun: Instant,
    json: bool,
    events: VecDeque<EventDocument>,
    left_out: u64,
}

impl Chronicle {
    pub(crate) fn new(json: bool) -> Self {
        Self { begun: Instant::now(), json, events: VecDeque::new(), left_out: 0 }
    }

    /// Prints at once, or keeps it for the document. Text may come from another process.
    pub(crate) fn tell(&mut self, what: &'static str, text: &str) -> Result<(), Failure> {
        let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.json {
            if self.events.len() == KEPT {
                self.events.pop_front();
                self.left_out += 1;
            }
            self.events.push_back(EventDocument { at_ms, what, text: text.to_string() });
            return Ok(());
        }
        let mut out = anstream::stdout().lock();
        let (seconds, millis) = (at_ms / 1000, at_ms % 1000);
        writeln!(out, "{seconds:>4}.{millis:03}  {what:<10} {}", output::printable(text))?;
        Ok(out.flush()?)
    }

    /// What a document holds of it: the last events, and how many were before them.
    pub(crate) fn into_events(self) -> (Vec<EventDocument>, u64) {
        (self.events.into(), self.left_out)
    }
}
