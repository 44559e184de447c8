//! Which initiator may reach which memory of a confidential guest.
//!
//! A confidential guest's private memory must be out of reach of everybody whom the guest has not
//! accepted. A device comes in by its interface: locked, then measured, then started by the guest
//! (PCIe 6.0 chapter 11, TDISP). From then on its requests carry the T bit, on a stream that is
//! protected up to the root complex (IDE, §6.33), and the platform's own tables say what they may
//! reach. A request without T reaches what is shared and nothing else.
//!
//! The rules are a table ([`TABLE`]) of who, what, by which way, and one answer; each combination
//! stands in exactly one row. The table asks before anything is mapped, because Linux 7.2 does not:
//! a bus address is handed out without any look at either interface, no kernel driver brings one
//! to RUN, and the hardware's own refusal is a lost write.
//!
//! What a guest does with devices that it has not accepted is [`Guest`]: it gives them shared
//! memory, at an address that says so, and copies ([`Guest::bounces`]).
//!
//! ```
//! use peerdma::dma::confidential::{Case, Interface, MemoryKind, Rule, Way, check};
//!
//! let nic = Case { initiator: Interface::Plain, memory: MemoryKind::PrivateRam, way: Way::Iommu, same_guest: true };
//! assert_eq!(check(&nic), Err(Rule::PrivateRam));
//! assert_eq!(check(&Case { memory: MemoryKind::SharedRam, ..nic }), Ok(()));
//! assert_eq!(check(&Case { initiator: Interface::Run, ..nic }), Ok(()));
//! ```
//!
//! Not here: bringing an interface to RUN, and whether the route exists at all
//! ([`route`](crate::route)).

mod guest;
mod rule;
mod table;

pub use guest::{AliasBit, Guest};
pub use rule::Rule;
pub use table::{Row, TABLE};

/// State of a device interface towards a confidential guest (PCIe 6.0 §11.2, TDISP).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Interface {
    /// Not assigned to a confidential guest, or not able to be.
    #[default]
    Plain,
    /// CONFIG_UNLOCKED: assigned, not yet locked.
    Unlocked,
    /// CONFIG_LOCKED: locked, not yet started.
    Locked,
    /// RUN: accepted by its guest.
    Run,
    /// ERROR: something changed under the lock.
    Error,
}

impl Interface {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Unlocked, Self::Locked, Self::Run, Self::Error];

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Unlocked => "unlocked",
            Self::Locked => "locked",
            Self::Run => "run",
            Self::Error => "error",
        }
    }
}

impl core::fmt::Display for Interface {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.word())
    }
}

/// A kind of memory, with the state of the interface that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum MemoryKind {
    /// RAM of the host, of a guest that is not confidential, or that a confidential guest shares.
    SharedRam,
    /// RAM that a confidential guest keeps to itself.
    PrivateRam,
    /// A device's memory, which is its guest's alone from when the interface is locked.
    Mmio(Interface),
    /// A range that a device reports as open to all whatever its interface's state is
    /// (`IS_NON_TEE_MEM` of the interface report), such as a doorbell for the host.
    OpenMmio(Interface),
}

impl MemoryKind {
    /// All kinds with all states.
    pub const ALL: [Self; 12] = [
        Self::SharedRam,
        Self::PrivateRam,
        Self::Mmio(Interface::Plain),
        Self::Mmio(Interface::Unlocked),
        Self::Mmio(Interface::Locked),
        Self::Mmio(Interface::Run),
        Self::Mmio(Interface::Error),
        Self::OpenMmio(Interface::Plain),
        Self::OpenMmio(Interface::Unlocked),
        Self::OpenMmio(Interface::Locked),
        Self::OpenMmio(Interface::Run),
        Self::OpenMmio(Interface::Error),
    ];
}

/// By which way a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Way {
    /// With a bus address, across a switch.
    Bus,
    /// With a bus address, on a stream between the two interfaces that the guest has bound
    /// (`BIND_P2P_STREAM_REQUEST`).
    BoundStream,
    /// To the root complex, with an address that nothing translates where it is mapped. In a
    /// guest this is the usual way; the host's tables stand behind it.
    HostBridge,
    /// To the root complex, with an IOVA.
    Iommu,
}

impl Way {
    /// All ways.
    pub const ALL: [Self; 4] = [Self::Bus, Self::BoundStream, Self::HostBridge, Self::Iommu];
}

/// One question: may this initiator reach this memory by this way?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Case {
    /// State of the initiator's interface.
    pub initiator: Interface,
    /// What it is to reach.
    pub memory: MemoryKind,
    /// By which way.
    pub way: Way,
    /// Whether initiator and memory belong to the same guest. Counts only where both are private.
    pub same_guest: bool,
}

/// Whether the table permits it.
///
/// Permission says that no rule of confidential computing stands against it, not that a request
/// arrives. Ask again when a state changes: locking takes a device's memory away from everybody
/// outside its guest, and what was mapped before has to be revoked first.
///
/// # Errors
/// The [`Rule`] that stands against it.
pub fn check(case: &Case) -> Result<(), Rule> {
    // Each combination stands in one row; a table that left one out must not permit it.
    TABLE.iter().find(|row| row.holds(case)).map_or(Err(Rule::NotListed), |row| row.answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_case() -> impl Iterator<Item = Case> {
        let of = |initiator| MemoryKind::ALL.into_iter().map(move |memory| (initiator, memory));
        Interface::ALL.into_iter().flat_map(of).flat_map(|(initiator, memory)| {
            Way::ALL
                .into_iter()
                .flat_map(move |way| [false, true].map(|same_guest| Case { initiator, memory, way, same_guest }))
        })
    }

    #[test]
    fn every_combination_stands_in_exactly_one_row() {
        assert_eq!(every_case().count(), 5 * 12 * 4 * 2);
        for case in every_case() {
            assert_eq!(TABLE.iter().filter(|row| row.holds(&case)).count(), 1, "{case:?}");
        }
    }

    #[test]
    fn every_row_answers_something() {
        for row in TABLE {
            assert!(every_case().any(|case| row.holds(&case)), "{row:?}");
        }
    }

    #[test]
    fn private_memory_is_reached_only_by_an_interface_in_run_of_the_same_guest_on_a_protected_way() {
        for case in every_case().filter(|case| check(case).is_ok()) {
            let private =
                matches!(case.memory, MemoryKind::PrivateRam | MemoryKind::Mmio(Interface::Run | Interface::Locked));
            if private {
                assert!(case.initiator == Interface::Run && case.same_guest && case.way != Way::Bus, "{case:?}");
            }
        }
    }

    #[test]
    fn an_interface_that_is_locked_or_broken_reaches_nothing_and_a_broken_one_is_not_reached() {
        for case in every_case() {
            let broken =
                matches!(case.memory, MemoryKind::Mmio(Interface::Error) | MemoryKind::OpenMmio(Interface::Error));
            if matches!(case.initiator, Interface::Locked | Interface::Error) || broken {
                assert!(check(&case).is_err(), "{case:?}");
            }
        }
    }

    #[test]
    fn outside_confidential_guests_everything_stays_as_it_was() {
        for way in Way::ALL {
            for same_guest in [false, true] {
                let plain =
                    Case { initiator: Interface::Plain, memory: MemoryKind::Mmio(Interface::Plain), way, same_guest };
                assert_eq!(check(&plain), Ok(()));
                if matches!(way, Way::HostBridge | Way::Iommu) {
                    assert_eq!(check(&Case { memory: MemoryKind::SharedRam, ..plain }), Ok(()));
                }
            }
        }
    }

    #[test]
    fn two_accepted_interfaces_of_one_guest_need_a_bound_stream() {
        let pair = Case {
            initiator: Interface::Run,
            memory: MemoryKind::Mmio(Interface::Run),
            way: Way::Bus,
            same_guest: true,
        };
        assert_eq!(check(&pair), Err(Rule::NoPeerStream));
        let bound = Case { way: Way::BoundStream, ..pair };
        assert_eq!(check(&bound), Ok(()));
        assert_eq!(check(&Case { same_guest: false, ..bound }), Err(Rule::AnotherGuest));
        assert_eq!(check(&Case { initiator: Interface::Plain, ..bound }), Err(Rule::PrivateMmio));
        assert_eq!(check(&Case { memory: MemoryKind::Mmio(Interface::Locked), ..bound }), Err(Rule::TargetNotStarted));
        assert_eq!(check(&Case { way: Way::Iommu, ..pair }), Err(Rule::PrivateMmioUp));
    }

    #[test]
    fn what_a_device_reports_as_open_is_reached_without_t_in_every_state_but_error() {
        for state in [Interface::Unlocked, Interface::Locked, Interface::Run] {
            let open = Case {
                initiator: Interface::Plain,
                memory: MemoryKind::OpenMmio(state),
                way: Way::Bus,
                same_guest: false,
            };
            assert_eq!(check(&open), Ok(()), "{state}");
            assert_eq!(check(&Case { initiator: Interface::Run, ..open }), Err(Rule::TrustedAcross));
        }
    }

    #[test]
    fn every_rule_that_the_table_names_has_a_code_of_its_own() {
        let mut codes: Vec<_> = Rule::ALL.iter().map(|rule| rule.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Rule::ALL.len());
        for rule in Rule::ALL.into_iter().filter(|rule| *rule != Rule::NotListed) {
            assert!(TABLE.iter().any(|row| row.answer == Err(rule)), "{rule:?}");
        }
    }
}
