//! `peerdma lint-cmdline`: what is wrong with a kernel command line.

use crate::args::{InputArguments, LintCmdlineArguments};
use crate::document::lint_cmdline::LintDocument;
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use peerdma::route::lint::{Finding, Severity, lint};
use peerdma::topology::{Builder, Topology};
use std::io::{Read, Write};

/// Longest line read from standard input; kernels take 4096 bytes.
const MAX_LINE: u64 = 1 << 20;

pub(crate) fn run(arguments: &LintCmdlineArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<LintDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let given = arguments.line.as_deref().map(given_line).transpose()?;
    let as_text = given.is_some() && names_no_input(&arguments.input);
    let loaded = if as_text { None } else { Some(input::load(&arguments.input)?) };
    let line = given.or_else(|| loaded.as_ref()?.topology.machine().command_line.clone());
    let nowhere;
    let topology = match &loaded {
        Some(loaded) => &loaded.topology,
        None => {
            nowhere = stated_machine(&arguments.input);
            &nowhere
        }
    };
    let findings = line.as_deref().map(|line| lint(line, Some(topology))).unwrap_or_default();
    let exit = match &line {
        None => Exit::Unknown,
        Some(_) if findings.iter().any(|finding| finding.severity() == Severity::Finding) => Exit::Refused,
        Some(_) => Exit::Done,
    };
    let printed = if arguments.output.json {
        output::json(&LintDocument::new(loaded.as_ref(), line.as_deref(), &findings))
    } else {
        print(loaded.as_ref(), line.as_deref(), &findings)
    };
    output::concluded(exit, printed)
}

fn names_no_input(input: &InputArguments) -> bool {
    input.from.is_none() && input.sysfs_root.is_none() && input.platform.is_none()
}

/// The line of the argument, or of standard input.
fn given_line(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_string());
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_LINE).read_to_end(&mut bytes);
    read.map_err(|source| Failure::Read { path: "-".into(), source })?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_string())
}

/// A machine of which only what the options state is known.
fn stated_machine(input: &InputArguments) -> Topology {
    let mut builder = Builder::new();
    builder.machine().cpu.clone_from(&input.cpu);
    builder.machine().kernel = input.kernel;
    builder.build()
}

fn print(loaded: Option<&Loaded>, line: Option<&str>, findings: &[Finding]) -> Result<(), Failure> {
    output::notes(loaded.map(|loaded| loaded.notes.as_slice()).unwrap_or_default())?;
    let mut out = anstream::stdout().lock();
    if line.is_none() {
        writeln!(out, "the input tells no command line; give it as LINE, or copy proc/cmdline beside sys")?;
        return Ok(());
    }
    for finding in findings {
        let (severity, style) = match finding.severity() {
            Severity::Finding => ("FINDING", output::warning()),
            Severity::Advice => ("ADVICE", output::heading()),
        };
        writeln!(out, "{style}{severity}{style:#}\t{}\t{}", finding.code, output::printable(&finding.argument))?;
        writeln!(out, "\t{}", output::printable(&finding.what))?;
        if let Some(fix) = &finding.fix {
            writeln!(out, "\tinstead: {}", output::printable(fix))?;
        }
    }
    if findings.is_empty() {
        writeln!(out, "nothing to find fault with")?;
    }
    if loaded.is_none() {
        output::notes(&["checked as text alone; --sysfs-root / holds it against this machine".into()])?;
    }
    Ok(())
}
