//! From lines to blocks, one per description of a function.
//!
//! `lspci -v` and `lspci -x` end every block with an empty line, a plain listing
//! ends none. Whether a block was seen to its end decides what its silence proves,
//! so each block remembers what came after it.

use super::Notes;
use super::details::Details;
use super::head::Head;
use super::hex::HexDump;

/// One description of one function.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) line: usize,
    pub(super) head: Head<'a>,
    pub(super) details: Details<'a>,
    pub(super) hex: HexDump,
    pub(super) end: End,
    /// Blocks with the same number have no empty line between them.
    pub(super) run: usize,
    /// The block is the first of its run.
    pub(super) opens_run: bool,
    /// Another block follows.
    pub(super) followed: bool,
    /// Details came after an empty line that should have been the end of the block.
    pub(super) loose: bool,
    /// Width of the indentation of its first detail.
    indentation: Option<usize>,
}

/// What came after a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// An empty line, as `lspci` ends a block with details.
    EmptyLine,
    /// The next block.
    NextBlock,
    /// Nothing: the text ends inside the block, or right behind it.
    Text,
    /// Nothing, and the text ends inside the opening line.
    InsideHead,
}

impl<'a> Block<'a> {
    fn new(line: usize, head: Head<'a>, run: usize, opens_run: bool) -> Self {
        Self {
            line,
            head,
            details: Details::default(),
            hex: HexDump::default(),
            end: End::Text,
            run,
            opens_run,
            followed: false,
            loose: false,
            indentation: None,
        }
    }

    /// Whether it is one of the forms that `lspci` ends with an empty line.
    pub(super) fn is_long(&self) -> bool {
        self.details.are_verbose() || !self.hex.bytes().is_empty()
    }

    /// Takes an indented line.
    fn detail(&mut self, line: &'a str) {
        // Before the first registers some versions write an empty line themselves.
        self.loose |= self.end == End::EmptyLine && self.details.verbosity.is_some();
        let (width, rest) = indentation(line);
        // Tabs may have become blanks of any number, so depth is told by comparison.
        let outer = width <= *self.indentation.get_or_insert(width);
        if outer {
            self.details.outer(rest);
        } else {
            self.details.inner(rest);
        }
        self.end = End::Text;
    }
}

/// More than any machine has functions; each block takes some hundred bytes of memory
/// where its line may take a dozen.
const MOST_BLOCKS: usize = 1 << 17;

/// Splits a text into blocks. Lines in no known form are passed over: prompts,
/// headings, messages of `lspci` itself.
pub(super) fn split<'a>(text: &'a str, notes: &mut Notes) -> Vec<Block<'a>> {
    let mut blocks: Vec<Block<'a>> = Vec::new();
    let mut run = 0;
    let mut opens_run = true;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let Some(line) = line.strip_suffix('\n') else {
            // The rest of the line is missing, so what is there may be half a number.
            if let Some(head) = Head::address_only(line) {
                open(&mut blocks, Block { end: End::InsideHead, ..Block::new(index + 1, head, run, opens_run) });
            }
            break;
        };
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.as_bytes().first() {
            Some(b' ' | b'\t') if !line.trim_ascii().is_empty() => {
                if let Some(block) = blocks.last_mut() {
                    block.detail(line);
                }
            }
            None | Some(b' ' | b'\t') => {
                if let Some(block) = blocks.last_mut() {
                    block.end = End::EmptyLine;
                }
                run += 1;
                opens_run = true;
            }
            Some(byte) if byte.is_ascii_hexdigit() => {
                let was_broken = blocks.last().is_some_and(|block| block.hex.is_broken());
                if let Some(block) = blocks.last_mut()
                    && block.hex.line(line)
                {
                    block.end = End::Text;
                    if block.hex.is_broken() && !was_broken {
                        let (at, len) = (index + 1, block.hex.bytes().len());
                        notes.push(|| {
                            format!("line {at}: the dump does not go on at {len:#x} there; what follows is not used")
                        });
                    }
                } else if let Some(head) = Head::read(line) {
                    if blocks.len() == MOST_BLOCKS {
                        let at = index + 1;
                        notes.push(|| format!("line {at}: no machine has so many functions; the rest is not read"));
                        break;
                    }
                    open(&mut blocks, Block::new(index + 1, head, run, opens_run));
                    opens_run = false;
                }
            }
            Some(_) => {}
        }
    }
    blocks
}

fn open<'a>(blocks: &mut Vec<Block<'a>>, block: Block<'a>) {
    if let Some(last) = blocks.last_mut() {
        last.followed = true;
        if last.end == End::Text {
            last.end = End::NextBlock;
        }
    }
    blocks.push(block);
}

/// Width of the leading white space in columns, and the text after it.
fn indentation(line: &str) -> (usize, &str) {
    let mut width = 0;
    let mut bytes = 0;
    for byte in line.bytes() {
        match byte {
            b' ' => width += 1,
            b'\t' => width = (width | 7) + 1,
            _ => break,
        }
        bytes += 1;
    }
    (width, &line[bytes..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> Vec<(usize, End)> {
        split(text, &mut Notes::default()).iter().map(|block| (block.line, block.end)).collect()
    }

    #[test]
    fn a_block_knows_what_came_after_it() {
        let text =
            "$ lspci -v\n00:00.0 a: b\n\tFlags: fast devsel\n\n00:01.0 a: b\n\tFlags: x\n00:02.0 a: b\n\tFlags: x\n";
        assert_eq!(ends(text), [(2, End::EmptyLine), (5, End::NextBlock), (7, End::Text)]);
        assert_eq!(ends("00:00.0 a: b\r\n\tFlags: x\r\n\r\n"), [(1, End::EmptyLine)]);
        assert_eq!(ends("00:00.0 a: b\n\n00:01.0 a"), [(1, End::EmptyLine), (3, End::InsideHead)]);
        assert_eq!(ends("00:00.0 a: b\n\n00:01.0"), [(1, End::EmptyLine)]);
    }

    #[test]
    fn an_empty_line_between_details_does_not_end_a_block() {
        let text = "00:00.0 a: b\n\tDeviceName: x\n\n\tFlags: fast devsel\n";
        assert_eq!(ends(text), [(1, End::Text)]);
    }

    #[test]
    fn depth_is_told_from_blanks_as_well_as_from_tabs() {
        for indent in ["\t", "        ", "    ", " "] {
            let text = format!(
                "00:00.0 a: b\n{indent}Capabilities: [40] Power Management version 3\n{indent}{indent}Status: Cap- x\n\
                 {indent}Status: Cap+ 66MHz-\n\n"
            );
            let blocks = split(&text, &mut Notes::default());
            assert_eq!(blocks[0].details.capability_bit, Some(true), "{indent:?}");
        }
    }
}
