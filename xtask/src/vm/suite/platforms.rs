//! Platform files that QEMU can be: the guest's own account of itself against the file.

use super::setup::{Laboratory, Setup, Which, expect_exit};
use super::{Done, Test};
use crate::failure::Failure;
use crate::vm::guest::{Job, Outcome};
use crate::vm::topology::{self, Exported, compare};
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
        tests.push(Test::new("platforms", format!("a guest made from {name} is that machine"), move |laboratory| {
            same_machine(laboratory, &platform, &exported)
        }));
    }
    tests
}

fn same_machine(laboratory: &Laboratory, platform: &Platform, exported: &Exported) -> Result<Done, Failure> {
    let cmdline: Vec<&str> = exported.cmdline.iter().map(String::as_str).collect();
    let setup = Setup::planned(Which::Stock, &exported.cpu, exported.iommu, exported.model.clone(), &cmdline);
    let mut job = Job::new(["peerdma", "capture", "-o", "/out/guest.peerdma"].map(Into::into).into());
    let outcome = laboratory.boot_job(&setup, &mut job)?;
    expect_exit(&outcome, 0, "peerdma capture")?;
    let guest = topology_of(&outcome)?;
    let differences = compare::differences(platform, exported, &guest);
    if differences.is_empty() {
        return Ok(Done { pairs: 0, claims: exported.twins.len() });
    }
    let said: Vec<String> = differences.iter().map(ToString::to_string).collect();
    Err(Failure::Found(format!("the guest differs from the file:\n  {}", said.join("\n  "))))
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
