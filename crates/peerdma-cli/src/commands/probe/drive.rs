//! A drive in the kernel's hands, by direct I/O with memory that the target's driver offers.
//!
//! The kernel asks its rules for each request, so a pair that they refuse is put to it all the same: it moves nothing
//! then, and is a witness of the rules.

use super::trial::{Absent, Row, Stage, Trial, permitted};
use super::{Question, not_asked};
use crate::commands::emulated::Way;
use crate::exit::chain;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::route::Permission;
use peerdma_linux::drive::witness::{Answer, Witness, WitnessError};
use peerdma_linux::drive::{Disk, Drive};
use peerdma_linux::engine::Kind;
use peerdma_linux::interrupt::Interrupts;
use peerdma_linux::p2pmem::P2pMemory;
use peerdma_linux::tree::Tree;
use std::error::Error;
use std::path::Path;

const ENGINE: &str = Kind::Drive.word();

pub(super) fn probe(question: &Question<'_>, trial: &mut Trial) {
    let opened = || -> Result<(Disk, Drive, P2pMemory), Box<dyn Error>> {
        let disk = Disk::find(&Tree::live(), question.from)?;
        let drive = disk.open(Prot::Read)?;
        let pool = Path::new("/sys/bus/pci/devices").join(question.to.to_string()).join("p2pmem/allocate");
        Ok((disk, drive, P2pMemory::allocate(&pool, Witness::MEMORY)?))
    };
    let (disk, drive, mut memory) = match opened() {
        Ok(opened) => opened,
        Err(error) => {
            trial.absent.push(Absent { engine: ENGINE, needs: vec![chain(&*error)] });
            return;
        }
    };
    // What the disk held is put back before a signal ends the process.
    let interrupts = Interrupts::watch();
    for &way in question.ways {
        if interrupts.as_ref().is_some_and(Interrupts::came) {
            trial.failures.push("interrupted; nothing is said about the rest".into());
            return;
        }
        // That the hardware loses it the kernel does not know.
        let lost = question.by_linux == Permission::Permitted && permitted(question.pair, way) == Permission::Refused;
        let row = if lost && !question.force {
            Row::unmoved(ENGINE, way, question.pair, not_asked(Permission::Refused))
        } else if way == Way::Push {
            writes(question, &drive, &mut memory, trial)
        } else {
            reads(question, &disk, &mut memory, trial)
        };
        trial.rows.push(row.against(question.by_linux));
    }
}

fn writes(question: &Question<'_>, drive: &Drive, memory: &mut P2pMemory, trial: &mut Trial) -> Row {
    let answer = Witness::new(drive, memory, question.seed).and_then(|mut witness| witness.writes());
    row(question, Way::Push, drive, answer, trial)
}

fn reads(question: &Question<'_>, disk: &Disk, memory: &mut P2pMemory, trial: &mut Trial) -> Row {
    let unasked = |why: String| Row::unmoved(ENGINE, Way::Pull, question.pair, Stage::Unknown(why));
    if !question.write {
        let path = disk.path();
        let what = format!(
            "not asked for: the drive would write a page of {}; --write lets it, and puts back what stood there",
            path.display()
        );
        return unasked(what);
    }
    let drive = match disk.open(Prot::ReadWrite) {
        Ok(drive) => drive,
        Err(error) => return unasked(chain(&error)),
    };
    let reading = Witness::new(&drive, memory, question.seed).and_then(|mut witness| witness.reads());
    if reading.as_ref().is_ok_and(|reading| !reading.restored) {
        trial.failures.push(format!("a page of {} does not hold again what it held before", drive.path().display()));
    }
    row(question, Way::Pull, &drive, reading.map(|reading| reading.answer), trial)
}

fn row(
    question: &Question<'_>,
    way: Way,
    drive: &Drive,
    answer: Result<Answer, WitnessError>,
    trial: &mut Trial,
) -> Row {
    let (pair, path) = (question.pair, drive.path().display());
    let taken = || format!("the kernel took direct I/O between {path} and memory of {}", question.to);
    match answer {
        Ok(Answer::Refused { errno }) => {
            let why = format!(
                "the kernel refuses direct I/O between {path} and memory of {} with {errno}, and its log says why",
                question.to
            );
            Row::unmoved(ENGINE, way, pair, Stage::No(why))
        }
        Ok(Answer::Moved(delivery)) => {
            let page = Bytes::new(4096);
            Row::moved(ENGINE, way, pair, format!("{}, {page}", taken()), delivery)
        }
        Ok(Answer::Failed { errno }) => {
            let verified = Stage::No(format!("the drive failed with {errno}"));
            Row { verified, ..Row::unmoved(ENGINE, way, pair, Stage::Yes(taken())) }
        }
        Ok(_) => Row::unmoved(ENGINE, way, pair, Stage::Unknown("an answer of another kind".into())),
        Err(error) => {
            trial.failures.push(format!("cannot verify {path}: {}", chain(&error)));
            Row::unmoved(ENGINE, way, pair, Stage::Unknown(chain(&error)))
        }
    }
}
