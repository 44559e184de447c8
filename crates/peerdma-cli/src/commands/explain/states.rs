//! `peerdma explain states`: the life of a shared buffer.

use crate::args::OutputArguments;
use crate::document::explain::StatesDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use peerdma::buffer::life::{DISTURBANCES, Phase, TRANSITIONS};
use std::io::Write;

pub(super) fn run(arguments: &OutputArguments) -> Result<Exit, Failure> {
    if arguments.schema {
        output::schema::<StatesDocument>()?;
        return Ok(Exit::Done);
    }
    let printed = if arguments.json { output::json(&StatesDocument::new()) } else { print() };
    output::concluded(Exit::Done, printed)
}

fn print() -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    writeln!(out, "{heading}phases{heading:#} of a shared buffer")?;
    for phase in Phase::ALL {
        let quiet = if phase.is_quiet() { "; quiet" } else { "" };
        writeln!(out, "  {:<13} {}{quiet}", phase.word(), phase.meaning())?;
    }
    writeln!(out, "\n{heading}disturbances{heading:#}: how long, what pinned mappings do to it, what memory held is")?;
    for about in &DISTURBANCES {
        let (duration, pinned, contents) = (about.duration.word(), about.pinned.word(), about.contents.word());
        let revocable = if about.spares_revocable { "; refused for revocable mappings too" } else { "" };
        writeln!(out, "  {:<15} {duration:<6} {pinned:<8} {contents:<5} {}{revocable}", about.word, about.what)?;
    }
    writeln!(out, "\n{heading}transitions{heading:#}; what is not here is refused")?;
    for row in TRANSITIONS {
        let (from, to) = (row.from.word(), row.to.word());
        let arrow = if row.is_change() { format!("{from} -> {to}") } else { format!("{from} stays") };
        writeln!(out, "  {arrow:<25} on {}", row.triggers())?;
        writeln!(out, "  {:<28} {}", "", row.why)?;
    }
    Ok(())
}
