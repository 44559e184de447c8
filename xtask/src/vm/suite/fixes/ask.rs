//! What `peerdma` foretells from a guest's capture, on this machine.

use super::document::{self, Port, Route, Whatif};
use crate::failure::Failure;
use crate::vm::process::bound;
use std::path::Path;
use std::process::Stdio;

/// Initiator and target, as both are asked for.
pub(super) type Asked<'a> = (&'a str, &'a str);

/// What is imagined.
pub(super) enum Change<'a> {
    /// A boot with this command line.
    Boot(&'a str),
    /// These ports written at run time.
    Ports(&'a [Port]),
}

/// Asks about a pair after a change.
pub(super) fn whatif(peerdma: &Path, capture: &Path, pair: Asked<'_>, change: &Change<'_>) -> Result<Whatif, Failure> {
    let mut arguments = vec!["whatif".into(), pair.0.into(), pair.1.into(), "--json".into()];
    match change {
        Change::Boot(line) => arguments.extend(["--cmdline".into(), (*line).to_string()]),
        Change::Ports(ports) => {
            for port in *ports {
                for (option, bits) in [("--clear", &port.clear), ("--set", &port.set)] {
                    if !bits.is_empty() {
                        arguments.extend([option.into(), format!("acs:{}/{}", port.bdf, bits.join(","))]);
                    }
                }
            }
        }
    }
    document::read("whatif", &output(peerdma, &arguments, capture)?)
}

/// Asks about a pair as it is.
pub(super) fn route(peerdma: &Path, capture: &Path, pair: Asked<'_>) -> Result<Route, Failure> {
    let arguments = ["route", pair.0, pair.1, "--json"].map(Into::into);
    document::read("route", &output(peerdma, &arguments, capture)?)
}

/// Whatever the verdict is that the exit code tells, there is a document; without one the
/// command failed.
fn output(peerdma: &Path, arguments: &[String], capture: &Path) -> Result<Vec<u8>, Failure> {
    let mut command = bound(&peerdma.to_string_lossy());
    let output = command
        .args(arguments)
        .arg("--from")
        .arg(capture)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Stopped(format!("cannot run {}: {error}", peerdma.display())))?;
    if output.stdout.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Failure::Stopped(format!("peerdma {} said nothing but: {said}", arguments.join(" "))));
    }
    Ok(output.stdout)
}
