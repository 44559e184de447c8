//! What one boot left: ACS control words, IOMMU groups, the kernel's decisions.
//!
//! Words come from a capture by root. Groups come from the kernel's own listing and not
//! from the capture, so that no reading of ours stands between the kernel and the judge.

use crate::failure::Failure;
use crate::vm::guest::Outcome;
use crate::vm::pairs::KernelAnswers;
use peerdma::pcie::PciAddr;
use peerdma::topology::Origin;
use peerdma_linux::assemble;
use peerdma_linux::capture::Capture;
use peerdma_linux::pci_names::PciNames;
use std::collections::{BTreeMap, BTreeSet};

/// Control words of the functions that have ACS.
pub(super) type Words = BTreeMap<PciAddr, u16>;

/// Groups by their members; the kernel's numbers mean nothing from boot to boot.
pub(super) type Groups = BTreeSet<BTreeSet<PciAddr>>;

/// One state of a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) words: Words,
    pub(super) groups: Groups,
    pub(super) kernel: KernelAnswers,
}

impl Seen {
    /// Reads `STATE.root.peerdma`, `STATE.groups` and `STATE.kernel`.
    pub(super) fn read(outcome: &Outcome, state: &str) -> Result<Self, Failure> {
        let text = |name: &str| -> Result<String, Failure> {
            Ok(String::from_utf8_lossy(file(outcome, &format!("{state}.{name}"))?).into_owned())
        };
        let kernel = KernelAnswers::read(&text("kernel")?).map_err(|error| Failure::Stopped(error.to_string()))?;
        Ok(Self { words: words(outcome, state)?, groups: groups(&text("groups")?)?, kernel })
    }
}

/// A file that the guest has to have left.
pub(super) fn file<'o>(outcome: &'o Outcome, name: &str) -> Result<&'o [u8], Failure> {
    outcome.files.get(name).map(Vec::as_slice).ok_or_else(|| {
        let said = String::from_utf8_lossy(&outcome.stderr).trim().to_string();
        Failure::Stopped(format!("the guest did not leave {name}; what it said: {said:?}"))
    })
}

fn words(outcome: &Outcome, state: &str) -> Result<Words, Failure> {
    let unread = |error: &dyn std::fmt::Display| Failure::Stopped(format!("{state}.root.peerdma: {error}"));
    let bytes = file(outcome, &format!("{state}.root.peerdma"))?;
    let capture = Capture::read(bytes).map_err(|error| unread(&error))?;
    let topology = assemble::builder(&capture.snapshot, Origin::Capture, &PciNames::built_in())
        .map_err(|error| unread(&error))?
        .build();
    let word = |function: &peerdma::topology::Function| {
        let registers = function.info().registers.acs.registers()?;
        // No guest has a port on which Linux reads another word than the hardware obeys.
        Some((function.address(), registers.control_read_by_linux.bits()))
    };
    Ok(topology.functions().filter_map(|(_, function)| word(function)).collect())
}

/// Reads what `ls -d /sys/kernel/iommu_groups/*/devices/*` lists.
fn groups(listing: &str) -> Result<Groups, Failure> {
    let mut members: BTreeMap<&str, BTreeSet<PciAddr>> = BTreeMap::new();
    for line in listing.lines() {
        let parts = line.strip_prefix("/sys/kernel/iommu_groups/").and_then(|rest| rest.split_once("/devices/"));
        let member = parts.and_then(|(group, address)| Some((group, address.parse().ok()?)));
        let (group, address) =
            member.ok_or_else(|| Failure::Stopped(format!("`{line}` is no member of an IOMMU group")))?;
        members.entry(group).or_default().insert(address);
    }
    Ok(members.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_their_members_whatever_their_numbers() {
        let listing = |first: u8, second: u8| {
            format!(
                "/sys/kernel/iommu_groups/{first}/devices/0000:01:00.0\n\
                 /sys/kernel/iommu_groups/{second}/devices/0000:00:04.0\n\
                 /sys/kernel/iommu_groups/{first}/devices/0000:01:00.1\n"
            )
        };
        let read = groups(&listing(2, 12)).unwrap();
        assert_eq!(read, groups(&listing(7, 1)).unwrap());
        assert_eq!(read.iter().map(BTreeSet::len).collect::<Vec<_>>(), [1, 2]);
        assert_ne!(read, groups(&listing(3, 3)).unwrap());
        assert!(groups("/sys/kernel/iommu_groups/3/type\n").is_err());
        assert_eq!(groups("").unwrap(), Groups::new());
    }
}
