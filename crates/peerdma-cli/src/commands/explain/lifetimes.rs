//! The table of lifetimes, and the rules of attaching.

use crate::args::OutputArguments;
use crate::document::explain::LifetimesDocument;
use crate::exit::{Exit, Failure};
use crate::output;
use anstyle::{AnsiColor, Style};
use peerdma::buffer::Lifetime;
use peerdma::buffer::terms::{self, Answer, RULES, Stays};
use std::io::Write;

pub(super) fn explain(arguments: &OutputArguments) -> Result<Exit, Failure> {
    let printed = match (arguments.schema, arguments.json) {
        (true, _) => output::schema::<LifetimesDocument>(),
        (_, true) => output::json(&LifetimesDocument::new()),
        _ => print(),
    };
    output::concluded(Exit::Done, printed)
}

fn print() -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    writeln!(
        out,
        "For how long a mapping stays good: what the memory does, and the least that an importer can live with"
    )?;
    write!(out, "{heading}{:<44}{heading:#}", "memory")?;
    for takes in Lifetime::ALL {
        write!(out, " {heading}{:<22}{heading:#}", takes.word())?;
    }
    writeln!(out)?;
    for stays in Stays::ALL {
        write!(out, "{:<44}", stays.to_string())?;
        for takes in Lifetime::ALL {
            let answer = terms::lifetime(stays, takes);
            let style = style(answer);
            write!(out, " {style}{:<22}{style:#}", answer.to_string())?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{heading}rules, in the order in which they are asked{heading:#}")?;
    for about in RULES {
        writeln!(out, "  {:<20} {}", about.word, about.sentence)?;
        writeln!(out, "  {:<20}   {}", "", about.fix)?;
    }
    Ok(())
}

fn style(answer: Answer) -> Style {
    match answer {
        Answer::Gives(_) => AnsiColor::Green.on_default(),
        Answer::GivesWithPin(_) => AnsiColor::Cyan.on_default(),
        Answer::Refuses(_) => AnsiColor::Red.on_default(),
    }
}
