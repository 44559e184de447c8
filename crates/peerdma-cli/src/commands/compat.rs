//! `peerdma compat`: what comes of an exporter and an importer of device memory.

use crate::args::CompatArguments;
use crate::document::compat::CompatDocument;
use crate::exit::{Exit, Failure};
use crate::input;
use crate::output;
use anstyle::{AnsiColor, Style};
use peerdma::pcie::Fact;
use peerdma::route::compat::{self, Class, Exporter, Importer, Lifetime, Memory, Outcome};
use peerdma::topology::KernelVersion;
use std::io::Write;

pub(crate) fn run(arguments: &CompatArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<CompatDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let exporter = arguments.exporter.as_deref().map(exporter_named).transpose()?;
    let importer = arguments.importer.as_deref().map(importer_named).transpose()?;
    let kernel = match arguments.input.kernel {
        Some(version) => Some(version),
        None => input::load(&arguments.input)?.topology.machine().kernel,
    };
    let exit = match (exporter, importer) {
        (Some(exporter), Some(importer)) => match compat::outcome(kernel, exporter, importer) {
            Fact::Known(Outcome::Works { .. }) => Exit::Done,
            Fact::Known(Outcome::Refused { .. }) => Exit::Refused,
            Fact::Unknown => Exit::Unknown,
        },
        _ => Exit::Done,
    };
    let exporters = exporter.map_or_else(|| Exporter::ALL.to_vec(), |one| vec![one]);
    let importers = importer.map_or_else(|| Importer::ALL.to_vec(), |one| vec![one]);
    let printed = if arguments.output.json {
        output::json(&CompatDocument::new(kernel, &exporters, &importers))
    } else {
        print(kernel, &exporters, &importers)
    };
    output::concluded(exit, printed)
}

fn exporter_named(name: &str) -> Result<Exporter, Failure> {
    Exporter::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Exporter::ALL.iter().map(|one| one.name()).collect();
        Failure::usage(format!("no exporter is called {name:?}; there are {}", names.join(", ")))
    })
}

fn importer_named(name: &str) -> Result<Importer, Failure> {
    Importer::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Importer::ALL.iter().map(|one| one.name()).collect();
        Failure::usage(format!("no importer is called {name:?}; there are {}", names.join(", ")))
    })
}

fn print(kernel: Option<KernelVersion>, exporters: &[Exporter], importers: &[Importer]) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let heading = output::heading();
    let (major, minor) = compat::SERIES;
    if !compat::holds_for(kernel) {
        let kernel = kernel.map_or_else(String::new, |kernel| kernel.to_string());
        writeln!(
            out,
            "unknown for Linux {kernel}: the table was read in Linux {major}.{minor}, and drivers change from release to release"
        )?;
        writeln!(out, "--kernel {major}.{minor} shows what it says")?;
        return Ok(());
    }
    match kernel {
        Some(kernel) => writeln!(out, "Linux {kernel}, by the table of {major}.{minor}")?,
        None => writeln!(out, "Linux {major}.{minor} taken; the input names no kernel, --kernel does")?,
    }
    if let (&[exporter], &[importer]) = (exporters, importers) {
        return print_pair(&mut out, kernel, exporter, importer);
    }
    if exporters.len() > 1 {
        writeln!(out, "{heading}exporters{heading:#}")?;
        for exporter in exporters {
            writeln!(out, "  {:<18} {}", exporter.name(), exporter.what())?;
        }
    }
    if importers.len() > 1 {
        writeln!(out, "{heading}importers{heading:#}")?;
        for importer in importers {
            writeln!(out, "  {:<18} {:<26} {}", importer.name(), class(importer.class()), importer.what())?;
        }
    }
    for &exporter in exporters {
        writeln!(out, "{heading}{} to{heading:#}", exporter.name())?;
        for &importer in importers {
            let outcome = compat::outcome(kernel, exporter, importer);
            let style = style(outcome);
            let words = match outcome {
                Fact::Unknown => "nobody has read this pair".to_string(),
                Fact::Known(Outcome::Refused { error, why }) => format!("{error}: {why}"),
                Fact::Known(Outcome::Works { memory, lifetime, .. }) => {
                    format!("{}, {}", place(memory), duration(lifetime))
                }
            };
            writeln!(out, "  {:<18} {style}{:<8}{style:#} {words}", importer.name(), word(outcome))?;
        }
    }
    Ok(())
}

fn print_pair(
    out: &mut impl Write,
    kernel: Option<KernelVersion>,
    exporter: Exporter,
    importer: Importer,
) -> Result<(), Failure> {
    let outcome = compat::outcome(kernel, exporter, importer);
    let (heading, style) = (output::heading(), style(outcome));
    writeln!(out, "{heading}{} to {}{heading:#}", exporter.name(), importer.name())?;
    writeln!(out, "  exporter   {}", exporter.what())?;
    writeln!(out, "  importer   {}: {}", importer.what(), class(importer.class()))?;
    match outcome {
        Fact::Unknown => writeln!(out, "  outcome    {style}unknown{style:#}: nobody has read this pair")?,
        Fact::Known(Outcome::Refused { error, why }) => {
            writeln!(out, "  outcome    {style}refused{style:#} with {error}: {why}")?;
        }
        Fact::Known(Outcome::Works { memory, lifetime, note }) => {
            writeln!(out, "  outcome    {style}works{style:#}")?;
            writeln!(out, "  memory     {}", place(memory))?;
            writeln!(out, "  holds      {}", duration(lifetime))?;
            writeln!(out, "  note       {note}")?;
        }
    }
    Ok(())
}

fn style(outcome: Fact<Outcome>) -> Style {
    match outcome {
        Fact::Known(Outcome::Works { memory: Memory::MovedToSystem, .. }) => AnsiColor::Cyan.on_default(),
        Fact::Known(Outcome::Works { .. }) => AnsiColor::Green.on_default(),
        Fact::Known(Outcome::Refused { .. }) => AnsiColor::Red.on_default(),
        Fact::Unknown => AnsiColor::Yellow.on_default(),
    }
}

const fn word(outcome: Fact<Outcome>) -> &'static str {
    match outcome {
        Fact::Known(Outcome::Works { .. }) => "works",
        Fact::Known(Outcome::Refused { .. }) => "refused",
        Fact::Unknown => "unknown",
    }
}

const fn class(class: Class) -> &'static str {
    match class {
        Class::Static => "static, no peer memory",
        Class::Pinned => "pinned, cannot let go",
        Class::PinnedRevocable => "pinned, lets go once",
        Class::Movable => "movable",
        Class::MovableInSystemMemory => "movable, no peer memory",
    }
}

const fn place(memory: Memory) -> &'static str {
    match memory {
        Memory::Device => "in the device",
        Memory::DeviceIfAllTakeIt => "in the device if every importer takes it, else moved to system memory",
        Memory::System => "in system memory",
        Memory::MovedToSystem => "moved to system memory without a word",
    }
}

const fn duration(lifetime: Lifetime) -> &'static str {
    match lifetime {
        Lifetime::Pinned => "as long as the importer wants",
        Lifetime::UntilRevoked => "until revoked, then mapped again",
        Lifetime::UntilRevokedForGood => "until revoked, and not beyond",
        Lifetime::UntilMoved => "until moved, then mapped again",
    }
}
