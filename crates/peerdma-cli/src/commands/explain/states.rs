//! The life of a shared buffer, and of memory that becomes a confidential guest's.

use crate::args::OutputArguments;
use crate::document::explain::StatesDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use peerdma::buffer::confidential::{Action, Answer, Row, Stage, TABLE};
use peerdma::buffer::life::{DISTURBANCES, Phase, TRANSITIONS};
use std::io::Write;

pub(super) fn explain(arguments: &OutputArguments) -> Result<Exit, Failure> {
    let printed = match (arguments.schema, arguments.json) {
        (true, _) => output::schema::<StatesDocument>(),
        (_, true) => output::json(&StatesDocument::new()),
        _ => print(),
    };
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
    writeln!(out, "\n{heading}private memory{heading:#}, which becomes a confidential guest's and comes back")?;
    for row in TABLE {
        writeln!(out, "  {:<15} while {}{}", row.event.word(), words(row.stages), condition(row))?;
        match row.answer {
            Answer::Goes(stage, actions) => writeln!(out, "  {:<17} becomes {stage}: {}", "", done(actions))?,
            Answer::Stays(actions) => writeln!(out, "  {:<17} {}", "", done(actions))?,
            Answer::Refused(why) => writeln!(out, "  {:<17} refused, {why}: {}", "", why.sentence())?,
        }
    }
    Ok(())
}

fn words(stages: &[Stage]) -> String {
    stages.iter().map(|stage| stage.word()).collect::<Vec<_>>().join(", ")
}

fn condition(row: &Row) -> String {
    let mut text = String::new();
    if let Some(started) = row.started {
        text += if started { ", once the guest has started" } else { ", before the guest starts" };
    }
    if let Some(viommu) = row.viommu {
        text += if viommu { ", with its IOMMU" } else { ", without its IOMMU" };
    }
    text
}

fn done(actions: &[Action]) -> String {
    match actions {
        [] => "nothing to do".to_string(),
        some => some.iter().map(|action| action.word()).collect::<Vec<_>>().join(", "),
    }
}
