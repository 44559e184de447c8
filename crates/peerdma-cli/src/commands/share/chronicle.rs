//! What happened, as it happens: lines of text, or the events of a document.

use crate::document::share::EventDocument;
use crate::exit::Failure;
use crate::output;
use std::io::Write;
use std::time::Instant;

/// Tells what happens.
#[derive(Debug)]
pub(crate) struct Chronicle {
    begun: Instant,
    json: bool,
    events: Vec<EventDocument>,
}

impl Chronicle {
    pub(crate) fn new(json: bool) -> Self {
        Self { begun: Instant::now(), json, events: Vec::new() }
    }

    /// Prints at once, or keeps it for the document. Text may come from another process.
    pub(crate) fn tell(&mut self, what: &'static str, text: &str) -> Result<(), Failure> {
        let at_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.json {
            self.events.push(EventDocument { at_ms, what, text: text.to_string() });
            return Ok(());
        }
        let mut out = anstream::stdout().lock();
        let (seconds, millis) = (at_ms / 1000, at_ms % 1000);
        writeln!(out, "{seconds:>4}.{millis:03}  {what:<10} {}", output::printable(text))?;
        Ok(out.flush()?)
    }

    pub(crate) fn into_events(self) -> Vec<EventDocument> {
        self.events
    }
}
