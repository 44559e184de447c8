//! Platform files that QEMU can be: as a guest, as an emulated machine, and as they were written.
//!
//! The guest's own account of itself is held against the file, and against what a scan of the
//! emulated machine's registers finds. `engines` has both move the same bytes.

mod emulated;
mod engines;
mod outcome;
mod said;

use super::setup::{Laboratory, Setup, Which, expect_exit};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::{Job, Outcome};
use crate::vm::topology::{self, Exported, compare, emulated as twin};
use emulated::Emulated;
use peerdma::topology::{Origin, Topology};
use peerdma_emu::platform::Platform;
use peerdma_linux::capture::Capture;
use peerdma_linux::{assemble, pci_names::PciNames};

/// A machine with everything that QEMU can express, for this suite and for whoever looks for an example.
const EXPORTABLE: &str = include_str!("../topology/platform/exportable.toml");

/// Every built-in platform that exports, and one that uses all there is.
pub(super) fn tests() -> Vec<Test> {
    let built_in = Platform::built_in_names().filter_map(|(name, _)| Some((name, Platform::built_in(name)?)));
    let own = Platform::parse(EXPORTABLE, "exportable.toml").map(|platform| ("exportable.toml", platform));
    let platforms = built_in.chain(own.ok());
    let mut tests = Vec::new();
    for (name, platform) in platforms {
        // What does not export is refused by name, which unit tests hold it to.
        let Ok(exported) = topology::from_platform(&platform) else { continue };
        let name = format!("a guest made from {name} is that machine, and so is the emulated one");
        tests.push(Test::new("platforms", name, move |laboratory| booted(laboratory, &platform, &exported)));
    }
    tests.extend(engines::tests());
    tests
}

fn booted(laboratory: &Laboratory, platform: &Platform, exported: &Exported) -> Result<Done, Failure> {
    let setup = setup(exported);
    let mut job = Job::new(["peerdma", "capture", "-o", "/out/guest.peerdma"].map(Into::into).into());
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    expect_exit(&outcome, 0, "peerdma capture")?;
    let emulated = Emulated::new(platform)?;
    let same = same_machine(platform, exported, &emulated, &topology_of(&outcome)?);
    same.map(|claims| Done { pairs: 0, claims })
}

/// A guest for an export, on the stock kernel.
fn setup(exported: &Exported) -> Setup {
    let cmdline: Vec<&str> = exported.cmdline.iter().map(String::as_str).collect();
    Setup::planned(Which::Stock, &exported.cpu, exported.iommu, exported.model.clone(), &cmdline)
}

/// Holds file, emulated machine and guest against each other; how many of their functions and of
/// the verdicts of pairs are the same.
fn same_machine(
    platform: &Platform,
    exported: &Exported,
    emulated: &Emulated,
    guest: &Topology,
) -> Result<usize, Failure> {
    let differences = compare::differences(platform, exported, guest);
    let compared = twin::compare(emulated.kernel.topology(), exported, guest);
    let said: Vec<String> = differences
        .iter()
        .map(|one| format!("the guest differs from the file: {one}"))
        .chain(compared.unlike.iter().map(ToString::to_string))
        .collect();
    if said.is_empty() { Ok(compared.functions + compared.pairs) } else { Err(Failure::Found(said.join("\n  "))) }
}

/// What the guest's capture says of its devices.
fn topology_of(outcome: &Outcome) -> Result<Topology, Failure> {
    let bytes =
        outcome.files.get("guest.peerdma").ok_or_else(|| Failure::Found("the guest left no capture in /out".into()))?;
    let capture = Capture::read(bytes).map_err(|error| Failure::Found(format!("the guest's capture: {error}")))?;
    let builder = assemble::builder(&capture.snapshot, Origin::Capture, &PciNames::built_in())
        .map_err(|error| Failure::Found(format!("the guest's capture: {error}")))?;
    Ok(builder.build())
}
