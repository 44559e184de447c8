//! `peerdma buffers`: who has what, and who keeps whom waiting, in a process that runs a machine; or dma-bufs of this one.

mod machine;

use crate::args::{BuffersArguments, default_socket};
use crate::document::SCHEMA;
use crate::document::buffers::{AttachmentDocument, BufferDocument, BuffersDocument, WaitDocument};
use crate::exit::{Exit, Failure};
use crate::output::{self, printable};
use peerdma::addr::Bytes;
use peerdma_linux::control::ask;
use std::io::Write;

pub(crate) fn run(arguments: &BuffersArguments) -> Result<Exit, Failure> {
    if arguments.machine {
        return machine::run(&arguments.output);
    }
    if arguments.output.schema {
        output::schema::<BuffersDocument>()?;
        return Ok(Exit::Done);
    }
    let path = arguments.socket.clone().unwrap_or_else(default_socket);
    let answer = ask(&path, arguments.patience).map_err(|error| Failure::device("cannot ask for buffers", error))?;
    let document: BuffersDocument = serde_json::from_slice(&answer)
        .map_err(|error| Failure::input(format!("{} does not answer as peerdma does", path.display()), error))?;
    if document.schema != SCHEMA {
        let what = format!(
            "{} answers by schema {}, and this is of schema {SCHEMA}; ask with the peerdma that it was started with",
            path.display(),
            document.schema
        );
        return Err(Failure::Input { what, source: None });
    }
    let printed = if arguments.output.json { output::json(&document) } else { print(&document) };
    output::concluded(Exit::Done, printed)
}

fn print(document: &BuffersDocument) -> Result<(), Failure> {
    let (mut out, style) = (anstream::stdout().lock(), output::heading());
    writeln!(out, "{} (process {})", printable(&document.running), document.pid)?;
    if document.buffers.is_empty() {
        writeln!(out, "no buffers")?;
    }
    for buffer in &document.buffers {
        let BufferDocument { name, bytes, place, phase, disturbed_by, generation, permitted, .. } = buffer;
        let what = match disturbed_by.as_slice() {
            [] => String::new(),
            causes => format!(" for {}", printable(&causes.join(", "))),
        };
        let (bytes, place, phase) = (Bytes::new(*bytes), printable(place), printable(phase));
        writeln!(out, "\n{style}{}{style:#}: {bytes}, {} in {place}", printable(name), printable(permitted))?;
        writeln!(out, "  phase      {phase}{what}; generation {generation}")?;
        list(&mut out, "attached", buffer.attachments.iter().map(attached))?;
        let fences = buffer.fences.iter();
        list(&mut out, "fences", fences.map(|it| format!("{} {}: {}", it.timeline, it.sequence, it.usage)))?;
        list(&mut out, "waits for", buffer.waits_for.iter().map(waits))?;
    }
    Ok(())
}

/// Lines under one title; none is a line too.
fn list(out: &mut impl Write, title: &str, lines: impl Iterator<Item = String>) -> Result<(), Failure> {
    let mut title = Some(title);
    for line in lines {
        writeln!(out, "  {:<10} {}", title.take().unwrap_or_default(), printable(&line))?;
    }
    match title {
        Some(title) => Ok(writeln!(out, "  {title:<10} none")?),
        None => Ok(()),
    }
}

fn attached(it: &AttachmentDocument) -> String {
    let process = it.pid.map_or_else(String::new, |pid| format!(" in process {pid}"));
    let mappings = if it.mappings == 1 { "1 mapping".to_string() } else { format!("{} mappings", it.mappings) };
    format!(
        "{}: {}{process}, {}, {}, enforcement {}, control {}, {mappings}",
        it.attachment, it.holder, it.lifetime, it.prot, it.enforcement, it.control
    )
}

fn waits(it: &WaitDocument) -> String {
    let process = it.pid.map_or_else(String::new, |pid| format!(" in process {pid}"));
    let fences = it.fences.join(", ");
    match &it.holder {
        Some(holder) => format!("{holder}{process}, which {}", it.outstanding),
        None => format!("{}: {fences}", it.outstanding),
    }
}
