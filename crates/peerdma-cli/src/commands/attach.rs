//! `peerdma attach`: an importer that shows what it is told and what it finds.

use super::share::chronicle::Chronicle;
use super::share::pieces;
use crate::args::AttachArguments;
use crate::document::share::{AttachDocument, TermsDocument};
use crate::exit::{Exit, Failure};
use crate::output;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::terms::Place;
use peerdma::buffer::wire::{Declare, Heard};
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::pattern::Pattern;
use peerdma_linux::share::{AttachError, Ended, Importer, MapError, Mapped};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long at most until a signal is noticed.
const SLICE: Duration = Duration::from_millis(50);

/// Bytes that tell patterns apart; there are more in any page.
const FIRST_LOOK: usize = 64;

/// Patterns that memory is held against, the latest first. A generation is the exporter's word, and any number may be
/// said; who has missed more of them than this in one mapping is not told which it was.
const PATTERNS: usize = 4096;

pub(crate) fn run(arguments: &AttachArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<AttachDocument>()?;
        return Ok(Exit::Done);
    }
    let Some(socket) = &arguments.socket else {
        return Err(Failure::usage("attach needs where, such as peerdma attach /tmp/frames"));
    };
    let mut document = AttachDocument::new(socket);
    let mut chronicle = Chronicle::new(arguments.output.json);
    let outcome = attach(arguments, socket, &mut document, &mut chronicle);
    (document.events, document.events_left_out) = chronicle.into_events();
    let printed = if arguments.output.json { output::json(&document) } else { Ok(()) };
    output::concluded(outcome?, printed)
}

fn attach(
    arguments: &AttachArguments,
    socket: &Path,
    document: &mut AttachDocument,
    chronicle: &mut Chronicle,
) -> Result<Exit, Failure> {
    let prot = if arguments.write { Prot::ReadWrite } else { Prot::Read };
    let mut declare = Declare::of_process("peerdma attach", prot);
    (declare.takes, declare.enforcement) = (arguments.takes.into(), arguments.enforcement.into());
    let importer = match Importer::attach(socket, declare, Instant::now() + arguments.patience) {
        Ok(importer) => importer,
        Err(AttachError::Refused { rule, why }) => {
            chronicle.tell("refused", &format!("({rule}) {why}"))?;
            (document.rule, document.refused) = (Some(rule), Some(why));
            return Ok(Exit::Refused);
        }
        Err(error) => return Err(Failure::device("cannot attach", error)),
    };
    let (offer, terms) = (importer.offer(), importer.terms());
    let text = format!(
        "{}, {} ({}) in {}, which {}, floor {}",
        offer.name, offer.size, offer.prot, offer.place, offer.stays, offer.floor
    );
    chronicle.tell("offered", &text)?;
    let text = format!(
        "{}: {}, {} by {}, enforcement {}, control {}",
        terms.attachment, terms.lifetime, terms.prot, terms.methods, terms.enforcement, terms.control
    );
    chronicle.tell("attached", &text)?;
    document.terms = Some(TermsDocument {
        name: offer.name.to_string(),
        attachment: terms.attachment.number(),
        bytes: terms.size.as_u64(),
        lifetime: terms.lifetime.word(),
        prot: terms.prot.to_string(),
        enforcement: terms.enforcement.word(),
        control: terms.control.word(),
        place: terms.place.to_string(),
    });
    Follower { arguments, importer, chronicle, mapped: None, foreign: false }.run()
}

struct Follower<'a> {
    arguments: &'a AttachArguments,
    importer: Importer,
    chronicle: &'a mut Chronicle,
    mapped: Option<Mapped>,
    /// Whether memory held something else than a pattern at any time.
    foreign: bool,
}

impl Follower<'_> {
    fn run(mut self) -> Result<Exit, Failure> {
        let interrupts = Interrupts::watch();
        let end = self.arguments.lasts.map(|lasts| Instant::now() + lasts);
        self.map()?;
        let done = self.arguments.once && self.mapped.is_some();
        let mut gone = false;
        while !done && !interrupts.as_ref().is_some_and(Interrupts::came) && end.is_none_or(|end| Instant::now() < end)
        {
            let slice = Instant::now() + SLICE;
            match self.importer.next(end.map_or(slice, |end| end.min(slice))) {
                Ok(Some(Heard::Gone)) => {
                    gone = true;
                    self.chronicle.tell("gone", "the exporter has given the memory up")?;
                }
                Ok(Some(heard)) => self.follow(&heard)?,
                Ok(None) => {}
                // Its word was that the memory is gone; then so may it be.
                Err(Ended::HungUp | Ended::Goodbye { .. }) if gone => return self.conclude(),
                Err(error) => return self.lost(error),
            }
            if self.arguments.once && self.mapped.is_some() {
                break;
            }
        }
        if let Some(mapped) = self.mapped.take() {
            self.importer.unmap(mapped).map_err(|error| Failure::device("cannot let go", error))?;
        }
        let patience = Instant::now() + self.arguments.patience;
        let foreign = self.foreign;
        self.importer.detach(patience).map_err(|error| Failure::device("cannot detach", error))?;
        self.chronicle.tell("detached", "nothing is mapped")?;
        verdict(foreign)
    }

    fn conclude(self) -> Result<Exit, Failure> {
        self.chronicle.tell("detached", "the exporter is done")?;
        verdict(self.foreign)
    }

    /// The exporter is gone without a word, or worse.
    fn lost(mut self, error: Ended) -> Result<Exit, Failure> {
        // A device that its exporter closed no longer answers, and whoever touches its memory is ended.
        let in_ram = self.importer.place() == Place::Ram;
        if let Some(mapped) = self.mapped.take().filter(|_| in_ram) {
            let found = self.compare(&mapped);
            self.chronicle.tell("kept", &format!("the memory is still mapped here and holds {found}"))?;
        }
        Err(Failure::device("the attachment is over", error))
    }

    fn follow(&mut self, heard: &Heard) -> Result<(), Failure> {
        let failed = |error: Ended| Failure::device("cannot answer the exporter", error);
        match heard {
            Heard::LetGo { cause, .. } if self.arguments.keep => {
                self.chronicle.tell("let-go", &format!("{cause}; kept, as --keep says"))
            }
            Heard::LetGo { notice, cause, deadline_ms } => {
                let hint = match deadline_ms {
                    0 => String::new(),
                    ms => format!(", who waits {ms} ms"),
                };
                self.chronicle.tell("let-go", &format!("{cause}{hint}"))?;
                self.importer.note(*notice).map_err(failed)?;
                if let Some(mapped) = self.mapped.take() {
                    self.importer.unmap(mapped).map_err(failed)?;
                    self.chronicle.tell("unmapped", "nothing is mapped")?;
                }
                Ok(())
            }
            Heard::MayMap { notice, generation } => {
                self.chronicle.tell("may-map", &format!("generation {}", generation.number()))?;
                self.importer.note(*notice).map_err(failed)?;
                match self.mapped {
                    // What was kept is what it was.
                    Some(_) => Ok(()),
                    None => self.map(),
                }
            }
            Heard::Moved { place, .. } => self.chronicle.tell("moved", &format!("its bytes lie in {place} now")),
            _ => Ok(()),
        }
    }

    fn map(&mut self) -> Result<(), Failure> {
        if !self.importer.may_map() {
            return self.chronicle.tell("waiting", "the memory is out of reach; mapped as soon as it may be");
        }
        let mapped = match self.importer.map(Instant::now() + self.arguments.patience) {
            Ok(mapped) => mapped,
            // A notice has crossed the request, and the next one will say when to come again.
            Err(MapError::Denied { phase, why }) => {
                return self.chronicle.tell("denied", &format!("the buffer is {phase}: {why}"));
            }
            Err(error) => return Err(Failure::device("cannot map the memory", error)),
        };
        let (len, generation) = (mapped.len(), mapped.generation().number());
        if self.is_left_alone() {
            let text = format!("{len}, generation {generation}; not looked at, as it is a device's: --look does");
            self.chronicle.tell("mapped", &text)?;
        } else {
            let found = self.compare(&mapped);
            self.foreign |= found.run.is_none();
            self.chronicle.tell("mapped", &format!("{len}, generation {generation}; it holds {found}"))?;
        }
        if self.arguments.write {
            turn_over(&mapped)?;
            turn_over(&mapped)?;
            self.chronicle.tell("wrote", "every bit, turned over twice")?;
        }
        self.mapped = Some(mapped);
        Ok(())
    }

    /// Whether it is memory whose bytes nobody asked for, and reading may do something.
    fn is_left_alone(&self) -> bool {
        self.importer.place() != Place::Ram && !self.arguments.look
    }

    fn compare(&self, mapped: &Mapped) -> Found {
        let len = mapped.len();
        let holds = |run: u64, at: Bytes, len: usize| {
            let mut found = vec![0; len];
            mapped.read(at, &mut found).is_ok() && found == Pattern::new(self.arguments.seed, run).bytes(at, len)
        };
        // It is filled anew with a revocation and not with a move, and either is a generation. The first bytes tell
        // which pattern it can be, so that few are made whole.
        let may_be = |run: &u64| holds(*run, Bytes::ZERO, FIRST_LOOK);
        let whole = |run: &u64| pieces(len).all(|(at, len)| holds(*run, at, len));
        Found { run: (0..=mapped.generation().number()).rev().take(PATTERNS).filter(may_be).find(whole) }
    }
}

/// What memory holds.
struct Found {
    run: Option<u64>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.run {
            Some(run) => write!(f, "pattern {run}, every byte compared"),
            None => f.write_str(
                "none of its exporter's last 4096 patterns; is the seed the same, and does nobody else write?",
            ),
        }
    }
}

fn verdict(foreign: bool) -> Result<Exit, Failure> {
    match foreign {
        false => Ok(Exit::Done),
        true => {
            let what = "the memory held something else than its exporter's pattern".to_string();
            Err(Failure::Device { what, source: None })
        }
    }
}

/// Writes the opposite of what is there.
fn turn_over(mapped: &Mapped) -> Result<(), Failure> {
    for (at, len) in pieces(mapped.len()) {
        let mut bytes = vec![0; len];
        let read = mapped.read(at, &mut bytes).map_err(|error| Failure::device("cannot read the memory", error));
        read?;
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        mapped
            .write(Bytes::new(at.as_u64()), &bytes)
            .map_err(|error| Failure::device("cannot write the memory", error))?;
    }
    Ok(())
}
