//! One guest: what it brought back, held against the kernel.
//!
//! Before anything is compared, the files have to be what they are named for: captures by
//! root and by a user, registers that took what was written to them, virtual functions
//! where there were to be some. A guest that quietly did less would compare well.

use super::compare::{Comparison, Seen, compare};
use super::kernel::{Answers, MapType};
use super::ours::{self, Scope};
use super::plan::GuestPlan;
use crate::failure::Failure;
use crate::vm::guest::Outcome;
use peerdma::pcie::PciAddr;
use peerdma::topology::{Origin, Topology};
use peerdma_linux::assemble;
use peerdma_linux::capture::Capture;
use peerdma_linux::pci_names::PciNames;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Most mismatches shown per guest; one cause shows in many pairs.
const SHOWN: usize = 12;
/// Bits of the ACS control word that QEMU's ports implement: all but EC, and its root
/// ports' registers are the only ones written.
const IMPLEMENTED: u16 = 0x5f;

/// What one guest contributed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) functions: usize,
    pub(crate) rounds: usize,
    /// Ordered pairs of type 0 functions decided from root's captures, over all rounds.
    pub(crate) compared: usize,
    /// The same by the kernel's answer.
    pub(crate) kinds: BTreeMap<MapType, usize>,
    /// Ordered pairs with a bridge in them, over all rounds.
    pub(crate) with_bridges: usize,
    /// Of the same pairs as `compared`, those on which a user's captures claim something.
    pub(crate) claimed_by_user: usize,
    /// In words, at most [`SHOWN`], and a word on how many more.
    pub(crate) mismatches: Vec<String>,
}

impl Row {
    /// Refuses a row with mismatches, showing them, and one whose guest was not what it
    /// was planned to be.
    ///
    /// # Errors
    ///
    /// Either of these, with what to look at.
    pub(crate) fn judge(&self, plan: &GuestPlan) -> Result<(), Failure> {
        if !self.mismatches.is_empty() {
            return Err(Failure::Found(format!(
                "answers differ from the kernel's:\n  {}",
                self.mismatches.join("\n  ")
            )));
        }
        match plan.occur.iter().find(|kind| !self.kinds.contains_key(kind)) {
            None => Ok(()),
            Some(kind) => Err(Failure::Found(format!(
                "the kernel answered {kind} for no pair of guest {}, which is there to show it",
                self.name
            ))),
        }
    }

    /// The row in words, for who watches.
    pub(crate) fn words(&self) -> String {
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!(
            "{} functions, {} states of ACS, {} pairs of devices equal to the kernel's ({}) and {} with bridges; \
             a user claims {} and none wrongly",
            self.functions,
            self.rounds,
            self.compared,
            kinds.join(", "),
            self.with_bridges,
            self.claimed_by_user
        )
    }
}

/// Compares everything that a guest brought back.
///
/// `peerdma` is the program on the host, `folder` an existing place for its inputs.
///
/// # Errors
///
/// A guest that did not do what it was to do, or a program that failed. Mismatches are no
/// error here: they are in the row.
pub(crate) fn check(plan: &GuestPlan, outcome: &Outcome, peerdma: &Path, folder: &Path) -> Result<Row, Failure> {
    let guest = Guest { plan, outcome, folder };
    if outcome.exit != 0 {
        let said = String::from_utf8_lossy(&outcome.stderr);
        return Err(guest.stopped(&format!("its program ended with {}: {}", outcome.exit, said.trim())));
    }
    let mut row = Row { name: plan.name.clone(), rounds: plan.rounds(), ..Row::default() };
    let mut more = 0;
    for round in 0..plan.rounds() {
        let kernel = guest.kernel(round)?;
        row.functions = kernel.functions.len();
        if round == 0 {
            guest.expect_after_boot()?;
            guest.expect_virtual_functions(&kernel)?;
        } else {
            guest.expect_written(round)?;
        }
        for seen in [Seen::ByRoot, Seen::ByUser] {
            let capture = guest.capture(round, seen)?;
            let mut compared = |scope| -> Result<Comparison, Failure> {
                let ours = ours::decide(peerdma, &capture, scope, kernel.addresses(false))?;
                let found = compare(&kernel, &ours, scope, seen);
                let where_from = format!("{} round {round}, {seen}", plan.name);
                let words = found.mismatches.iter().map(|mismatch| format!("{where_from}: {mismatch}"));
                let room = SHOWN.saturating_sub(row.mismatches.len());
                row.mismatches.extend(words.take(room));
                more += found.mismatches.len().saturating_sub(room);
                Ok(found)
            };
            let devices = compared(Scope::Devices)?;
            let everything = compared(Scope::Everything)?;
            match seen {
                Seen::ByRoot => {
                    row.compared += devices.compared;
                    row.with_bridges += everything.compared.saturating_sub(devices.compared);
                    for (kind, count) in devices.kinds {
                        *row.kinds.entry(kind).or_default() += count;
                    }
                }
                Seen::ByUser => row.claimed_by_user += devices.compared.saturating_sub(devices.unknown),
            }
        }
    }
    if more > 0 {
        row.mismatches.push(format!("{}: and {more} more", plan.name));
    }
    Ok(row)
}

/// A guest's files with their names.
struct Guest<'g> {
    plan: &'g GuestPlan,
    outcome: &'g Outcome,
    folder: &'g Path,
}

/// A line of `N.acs.json`.
#[derive(Deserialize)]
struct Written {
    function: String,
    wrote: u16,
    reads: u16,
}

impl Guest<'_> {
    fn stopped(&self, what: &str) -> Failure {
        let plan = self.plan;
        Failure::Stopped(format!("guest {} ({}, IOMMU {}): {what}", plan.name, plan.cpu, plan.iommu.name()))
    }

    fn file(&self, name: &str) -> Result<&[u8], Failure> {
        let file = self.outcome.files.get(name).map(Vec::as_slice);
        file.ok_or_else(|| self.stopped(&format!("it did not leave {name}; what it said: {:?}", self.said())))
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.outcome.stderr).trim().to_string()
    }

    fn kernel(&self, round: usize) -> Result<Answers, Failure> {
        let text = String::from_utf8_lossy(self.file(&format!("{round}.kernel"))?).into_owned();
        Answers::read(&text).map_err(|unreadable| self.stopped(&unreadable.to_string()))
    }

    /// Writes a capture where the program can read it, after a look at who took it.
    fn capture(&self, round: usize, seen: Seen) -> Result<std::path::PathBuf, Failure> {
        let (word, privileged) = match seen {
            Seen::ByRoot => ("root", true),
            Seen::ByUser => ("user", false),
        };
        let name = format!("{round}.{word}.peerdma");
        let bytes = self.file(&name)?;
        let capture = Capture::read(bytes).map_err(|error| self.stopped(&format!("{name}: {error}")))?;
        if capture.snapshot.machine.privileged != Some(privileged) {
            return Err(self.stopped(&format!("{name} was not taken by {word}")));
        }
        let path = self.folder.join(format!("{}.{name}", self.plan.name));
        fs::write(&path, bytes).map_err(|error| Failure::io("write", &path, &error))?;
        Ok(path)
    }

    fn expect_virtual_functions(&self, kernel: &Answers) -> Result<(), Failure> {
        let there = kernel.functions.values().filter(|function| function.is_virtual).count();
        match (self.plan.virtual_functions, there) {
            (Some(_), 0) => Err(self.stopped("there is no virtual function, but it was to make some")),
            _ => Ok(()),
        }
    }

    fn expect_written(&self, round: usize) -> Result<(), Failure> {
        let name = format!("{round}.acs.json");
        let written: Vec<Written> =
            serde_json::from_slice(self.file(&name)?).map_err(|error| self.stopped(&format!("{name}: {error}")))?;
        if written.is_empty() {
            return Err(self.stopped("no function has ACS, so no round differs from the first"));
        }
        match written.iter().find(|written| written.reads != written.wrote & IMPLEMENTED) {
            None => Ok(()),
            Some(Written { function, wrote, reads }) => {
                Err(self.stopped(&format!("{function} was told ACS control {wrote:#06x} and reads {reads:#06x}")))
            }
        }
    }

    fn expect_after_boot(&self) -> Result<(), Failure> {
        if self.plan.after_boot.is_empty() {
            return Ok(());
        }
        let topology = self.topology()?;
        for &(address, expected) in self.plan.after_boot {
            let parsed: Option<PciAddr> = address.parse().ok();
            let function = parsed.and_then(|address| topology.at(address)).map(|id| topology.function(id));
            let acs = function.and_then(|function| function.info().registers.acs.registers());
            let control = acs.map(|acs| acs.control_read_by_linux.bits());
            if control != Some(expected) {
                let reads = control.map_or("nothing".into(), |control| format!("{control:#06x}"));
                return Err(self.stopped(&format!(
                    "after the boot {address} was to have ACS control {expected:#06x} and has {reads}"
                )));
            }
        }
        Ok(())
    }

    fn topology(&self) -> Result<Topology, Failure> {
        let name = "0.root.peerdma";
        let capture = Capture::read(self.file(name)?).map_err(|error| self.stopped(&format!("{name}: {error}")))?;
        let builder = assemble::builder(&capture.snapshot, Origin::Sysfs, &PciNames::system())
            .map_err(|error| self.stopped(&format!("{name}: {error}")))?;
        Ok(builder.build())
    }
}
