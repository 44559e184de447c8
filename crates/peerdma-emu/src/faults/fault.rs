//! The words for what can go wrong.

use std::fmt;
use std::str::FromStr;

/// Where a fault is known from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Origin {
    /// Somebody reported it, there.
    Report(&'static str),
    /// A rule makes it possible.
    Rule(&'static str),
}

impl fmt::Display for Origin {
    /// Writes the thread, or the section and what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Report(text) | Self::Rule(text)) = self;
        f.write_str(text)
    }
}

/// Declares the faults, with the word, what happens, and where it is known from.
macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $summary:literal, $origin:expr;)+) => {
        /// Something that goes wrong in the field.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        pub enum Fault {
            $($(#[$doc])* $variant,)+
        }

        impl Fault {
            /// Every fault, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that names it.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// What happens, in one line.
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)+
                }
            }

            /// Where it is known from.
            pub const fn origin(self) -> Origin {
                match self {
                    $(Self::$variant => $origin,)+
                }
            }
        }
    };
}

faults! {
    /// A root complex answers reads of one device from another with all ones, and drops writes.
    AllOnes = "all-ones",
        "a root complex answers peer reads with all ones and drops peer writes",
        Origin::Report("intel/compute-runtime#935");
    /// Writes of one device to another vanish at a port or in a root complex; nobody is told.
    DropWrites = "drop-writes",
        "peer writes through a port or root complex vanish",
        Origin::Report("vllm-project/vllm#51513");
    /// Reads of one device from another are lost, so that the requester times out. Writes arrive.
    DeadReads = "dead-reads",
        "peer reads through a port or root complex are never answered; writes arrive",
        Origin::Report("NVIDIA/open-gpu-kernel-modules#1253");
    /// Accesses to the memory behind a function's BARs meet a private copy of it.
    MirrorBar = "mirror-bar",
        "memory behind a BAR is a private mirror: it reads back and the device never sees it",
        Origin::Report("NVIDIA/nccl#2335");
    /// Request Redirect, Completion Redirect and Upstream Forwarding are set at a port, or Egress
    /// Control with its whole egress vector where it has one and the seed chooses that, by
    /// writes to its registers.
    AcsChange = "acs-change",
        "access control is switched on at a port while traffic passes it",
        Origin::Rule("PCIe 6.0 §7.7.11.3: the ACS control register may be written at any time");
    /// A device is pulled, with everything below it.
    SurpriseRemoval = "surprise-removal",
        "a device is pulled without warning",
        Origin::Rule("PCIe 6.0 §6.7.6: a device may be removed without notice");
    /// Memory Space Enable of a function is cleared.
    BarOff = "bar-off",
        "Memory Space Enable of a function is cleared: its BARs answer nothing",
        Origin::Rule("PCIe 6.0 §7.5.1.1.3: without Memory Space Enable no memory request is taken");
    /// A function is reset: its engine forgets its work, its registers are as after power-on.
    Reset = "reset",
        "a function-level reset nobody announced",
        Origin::Rule("PCIe 6.0 §6.6.2: a function-level reset ends what the function had under way");
    /// A function is put to sleep by its power management register.
    D3 = "d3",
        "a function is put into D3hot: it answers configuration requests alone",
        Origin::Rule("PCIe 6.0 §5.3.1.4.1: in D3hot only configuration requests and messages are taken");
    /// A completion comes after its requester has given up: that one sees a timeout, and the
    /// completion is an Unexpected Completion.
    LateCompletion = "late-completion",
        "a completion comes after its timeout and is unexpected",
        Origin::Rule("PCIe 6.0 §2.8 and §2.3.2: what comes after the timeout is an Unexpected Completion");
    /// An importer says that it has unmapped, and its device goes on. Strikes where somebody lends
    /// memory as buffers ([`Lender`](super::Lender)); elsewhere arming it is refused.
    LateUnmap = "late-unmap",
        "an importer unmaps after the memory was given to somebody else",
        Origin::Report("NVIDIA/gdrcopy#54");
    /// A function writes eight bytes to an address that nobody gave it.
    StrayWrite = "stray-write",
        "a device writes eight bytes where nobody sent it",
        Origin::Rule("PCIe 6.0 §7.5.1.1.3: Bus Master Enable lets a function write to any address");
    /// Invalidations of the IOMMU are believed to be done and are not.
    LostInvalidation = "lost-invalidation",
        "an IOMMU invalidation has no effect: stale translations go on",
        Origin::Rule("PCIe 6.0 §10.3: a translation may be used until its invalidation completes");
    /// One bit of the data turns over in a port's buffer, where no link check protects it; found
    /// ([`Damage::Poisoned`](super::Damage)) or not.
    BitFlip = "bit-flip",
        "one bit of a payload turns over in a port; silent, or marked as poisoned",
        Origin::Rule("PCIe 6.0 §2.7: without ECRC or poisoning nobody finds what turned inside a switch");
    /// An exporter gives memory to somebody else while it is in use. Strikes where somebody lends
    /// memory as buffers ([`Lender`](super::Lender)); elsewhere arming it is refused.
    Revoked = "revoked",
        "an exporter revokes a buffer in use",
        Origin::Report("tenstorrent/tt-kmd#251");
    /// An exporter moves bytes while they are in use, and tells nobody. Strikes where somebody lends
    /// memory as buffers ([`Lender`](super::Lender)); elsewhere arming it is refused.
    Migrated = "migrated",
        "a buffer's bytes move elsewhere while a peer writes to the old place",
        Origin::Report("ROCm/rocm-xio#181");
    /// The Max_Payload_Size of one port or function is set to 128 bytes.
    Mps = "mps",
        "Max_Payload_Size of one port is lowered to 128: longer packets are malformed there",
        Origin::Rule("PCIe 6.0 §2.2.2: a payload longer than the receiver's Max_Payload_Size is malformed");
}

impl Fault {
    /// Whether it takes buffers with a lifetime of their own to have it; see the variants.
    pub const fn needs_lifetimes(self) -> bool {
        self.wrong().is_some()
    }

    /// Whether it acts on requests for as long as it is armed, and not once on the machine.
    pub const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::AllOnes
                | Self::DropWrites
                | Self::DeadReads
                | Self::MirrorBar
                | Self::LateCompletion
                | Self::LostInvalidation
                | Self::BitFlip
        )
    }
}

impl fmt::Display for Fault {
    /// Writes the word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no fault is called {word:?}; there are {known}", known = known())]
pub struct UnknownFault {
    /// The word.
    pub word: String,
}

fn known() -> String {
    let words: Vec<&str> = Fault::ALL.iter().map(|fault| fault.word()).collect();
    words.join(", ")
}

impl FromStr for Fault {
    type Err = UnknownFault;

    /// The fault of exactly this word.
    ///
    /// # Errors
    /// [`UnknownFault`], which lists all words.
    fn from_str(word: &str) -> Result<Self, UnknownFault> {
        let found = Self::ALL.iter().copied().find(|fault| fault.word() == word);
        found.ok_or_else(|| UnknownFault { word: word.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_no_other_does() {
        for &fault in Fault::ALL {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        let error = "ALL-ONES".parse::<Fault>().unwrap_err();
        assert!(error.to_string().starts_with("no fault is called \"ALL-ONES\"; there are all-ones, drop-writes"));
    }

    /// The rows between the head of the table in the documentation and the next empty line.
    #[test]
    fn the_table_in_the_documentation_is_this_data() {
        let table: Vec<String> = Fault::ALL
            .iter()
            .map(|fault| format!("| `{fault}` | {} | {} |", fault.summary(), fault.origin()))
            .collect();
        let document = include_str!("../../../../docs/faults.md");
        let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows, table, "docs/faults.md should hold:\n{}", table.join("\n"));
    }
}
