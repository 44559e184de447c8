//! What the blocks of a dump say about each other.

use super::block::{Block, End};
use super::details::Verbosity;

/// Signs that hold for the dump as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    /// Extended capabilities are shown with their versions: `-vv`, and privileged.
    pub(super) versioned: bool,
    /// Some function has all 4096 bytes.
    pub(super) holds_4096: bool,
    /// Blocks that have more than one line end with an empty one, as lspci writes them.
    pub(super) empty_lines: bool,
    /// Empty lines stand inside blocks, too, and so do not end any.
    loose: bool,
    /// There are blocks that are more than a line of a listing.
    pub(super) verbose: bool,
    /// Functions whose capabilities were denied to the reader.
    pub(super) denied: usize,
    /// Some function has more bytes than everybody may read.
    many_bytes: bool,
}

impl Signs {
    pub(super) fn of(blocks: &[Block<'_>]) -> Self {
        let mut signs = Self::default();
        for block in blocks {
            let (details, bytes) = (&block.details, block.hex.bytes());
            signs.versioned |= details.capabilities.versioned;
            signs.holds_4096 |= bytes.len() == 4096;
            signs.empty_lines |= block.end == End::EmptyLine && block.is_long();
            signs.loose |= block.loose;
            signs.verbose |= details.are_verbose();
            signs.denied += usize::from(details.capabilities.denied);
            // Of CardBus bridges everybody may read 128 bytes.
            let is_cardbus = bytes.get(0x0e).is_some_and(|header| header & 0x7f == 2);
            signs.many_bytes |= bytes.len() > if is_cardbus { 128 } else { 64 };
        }
        signs
    }

    /// Whether the reader could see everything; `None` where nothing tells.
    pub(super) fn privileged(self) -> Option<bool> {
        if self.versioned || self.many_bytes { Some(true) } else { (self.denied > 0).then_some(false) }
    }

    /// Whether a block was seen to its end.
    pub(super) fn saw_the_end_of(self, block: &Block<'_>) -> bool {
        match block.end {
            End::EmptyLine => !self.loose || block.followed,
            // Where other blocks end with an empty line, this one was cut before another dump.
            End::NextBlock => !self.empty_lines,
            End::Text | End::InsideHead => false,
        }
    }

    /// Whether the text of a block was seen to its end; bytes come after the text.
    pub(super) fn saw_all_text_of(self, block: &Block<'_>) -> bool {
        block.hex.is_there() || self.saw_the_end_of(block)
    }

    /// Whether a block is text of `-vv` and above, where nothing stayed unsaid for want of
    /// a switch or of privilege.
    ///
    /// A block of one line between two empty ones is one, too: `lspci -vv` adds more, but
    /// people cut away what they take to be irrelevant. A line of a listing is none.
    pub(super) fn tells_all(self, block: &Block<'_>) -> bool {
        let details = &block.details;
        let alone = || !details.any && !block.hex.is_there() && block.opens_run && block.end == End::EmptyLine;
        let registers = match details.verbosity {
            Some(verbosity) => verbosity == Verbosity::Registers,
            None => details.are_verbose() || alone(),
        };
        let denied = details.capabilities.denied || details.gone;
        self.versioned && registers && !denied && self.saw_all_text_of(block)
    }
}
