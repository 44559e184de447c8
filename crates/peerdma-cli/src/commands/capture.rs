//! `peerdma capture`: one file that every other command reads.

use crate::args::CaptureArguments;
use crate::document::{CaptureDocument, SCHEMA};
use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::{input, output};
use peerdma_linux::capture::Capture;
use peerdma_linux::{publish, sysfs};
use std::io::Write;
use std::path::Path;

pub(crate) fn run(arguments: &CaptureArguments) -> Result<Exit, Failure> {
    if arguments.schema {
        output::schema::<CaptureDocument>()?;
        return Ok(Exit::Done);
    }
    let path = arguments
        .output
        .as_ref()
        .ok_or_else(|| Failure::usage("capture needs a file: -o FILE, or -o - for standard output"))?;
    let to_stdout = path == Path::new("-");
    if to_stdout && arguments.json {
        return Err(Failure::usage("--json and the capture itself cannot both go to standard output; give -o FILE"));
    }
    let progress = Progress::start("reading config space");
    let snapshot = sysfs::read(&input::tree(arguments.from.as_deref(), arguments.sysfs_root.as_deref())?);
    drop(progress);
    if snapshot.functions.is_empty() {
        let what = "there is no PCI function to capture: sys/bus/pci/devices is empty or not readable".into();
        return Err(Failure::Input { what, source: None });
    }
    let functions = snapshot.functions.len();
    let privileged = snapshot.machine.privileged;
    let bytes = Capture::new(snapshot, arguments.keep_serials).to_bytes()?;
    if to_stdout {
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()?;
    } else {
        publish::publish(path, &bytes, arguments.force).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::usage(format!("{} exists; give --force to replace it", path.display()))
            }
            _ => Failure::Write { path: path.clone(), source },
        })?;
    }
    let document = CaptureDocument {
        schema: SCHEMA,
        file: path.display().to_string(),
        bytes: bytes.len(),
        functions,
        privileged,
        redacted: !arguments.keep_serials,
    };
    if arguments.json {
        output::json(&document)?;
    } else {
        report(&document)?;
    }
    Ok(Exit::Done)
}

/// On standard error, since standard output may be the capture.
fn report(document: &CaptureDocument) -> Result<(), Failure> {
    let mut err = anstream::stderr().lock();
    let serials = if document.redacted { "without serial numbers" } else { "with serial numbers" };
    writeln!(
        err,
        "captured {} functions, {serials}, in {} bytes: {}",
        document.functions, document.bytes, document.file
    )?;
    if document.privileged == Some(false) {
        let warning = output::warning();
        writeln!(
            err,
            "{warning}only 64 bytes of each config space were readable{warning:#}: ACS stays unknown; for all of it: sudo peerdma capture"
        )?;
    }
    Ok(())
}
