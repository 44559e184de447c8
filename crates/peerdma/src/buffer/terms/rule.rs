//! Rules by name, in the order in which they are asked.

use core::fmt;

/// A rule that an exporter and an importer have to keep for an attachment to come about.
///
/// The order is that of asking: what the two say of themselves, then where the memory lies, then
/// whether each range can be reached, then in which form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The importer reaches memory in a way that the exporter does not permit.
    MethodNotOffered,
    /// The importer wants to read or write, and the exporter does not permit it.
    ProtNotOffered,
    /// The importer wants full control of memory that is only to be used.
    FullNotOffered,
    /// Another attachment has full control.
    FullHeld,
    /// The importer's letting go is enforced less than the exporter accepts.
    Unenforced,
    /// The memory may be taken away, and the importer cannot let go.
    Revoked,
    /// The memory moves and cannot be pinned, and the importer does not follow.
    Moved,
    /// The importer wants the memory where the exporter does not put it.
    PlaceNotOffered,
    /// The memory would have to be moved, and pins hold it.
    HeldInPlace,
    /// The memory is a device's, and its exporter offers none to other devices.
    PeerNotOffered,
    /// The memory is a device's, and the importer takes none.
    PeerNotTaken,
    /// A guest's private memory does not appear in a process.
    PrivateToCpu,
    /// A guest's private memory is no part of another's tables.
    PrivateToOthers,
    /// A rule of confidential computing stands between device and memory.
    Confidential,
    /// A range ends after its owner does.
    Outside,
    /// The device does not reach the memory.
    Route,
    /// Reads or writes do not arrive.
    Direction,
    /// Device memory would have to be copied, or memory for a device that takes no copies.
    Copies,
    /// The device cannot form the addresses.
    Width,
    /// The memory lies in more pieces than the importer takes.
    Pieces,
    /// A range begins or ends between the importer's units.
    Alignment,
    /// The list of segments cannot hold the buffer.
    Segments,
}

/// What is to be known of one rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AboutRule {
    /// Which one.
    pub rule: Rule,
    /// The word used in text and JSON.
    pub word: &'static str,
    /// What it says, in one sentence.
    pub sentence: &'static str,
    /// What to do where it is broken.
    pub fix: &'static str,
}

/// One row for each rule, in the order in which they are asked.
pub const RULES: [AboutRule; 22] = [
    AboutRule {
        rule: Rule::MethodNotOffered,
        word: "method_not_offered",
        sentence: "memory is reached only in the ways that its exporter permits: by a device, by a CPU, by page frames",
        fix: "attach without the way that is missing, or have the exporter permit it",
    },
    AboutRule {
        rule: Rule::ProtNotOffered,
        word: "prot_not_offered",
        sentence: "nobody writes memory that is offered for reading, or the reverse",
        fix: "map it for what is offered",
    },
    AboutRule {
        rule: Rule::FullNotOffered,
        word: "full_not_offered",
        sentence: "cache attributes, keys and ownership change only where the exporter hands the buffer over in full",
        fix: "attach to use it, or have the exporter offer it in full",
    },
    AboutRule {
        rule: Rule::FullHeld,
        word: "full_held",
        sentence: "one attachment at a time has a buffer in full",
        fix: "attach to use it, or wait until the holder detaches",
    },
    AboutRule {
        rule: Rule::Unenforced,
        word: "unenforced",
        sentence: "an exporter may ask that the kernel, or at least the importer's word, stands for its letting go",
        fix: "import through a path that the kernel revokes (iommufd, a KVM slot over a VFIO mapping), or have the floor lowered",
    },
    AboutRule {
        rule: Rule::Revoked,
        word: "revoked",
        sentence: "memory that may be taken away goes only to importers that let go when they are told",
        fix: "declare that revocation is taken, and unmap when told; or ask for memory that is never taken away",
    },
    AboutRule {
        rule: Rule::Moved,
        word: "moved",
        sentence: "memory that moves and cannot be pinned goes only to importers that map anew after a move",
        fix: "declare that moves are taken, and map anew when told; or ask for memory that can be pinned",
    },
    AboutRule {
        rule: Rule::PlaceNotOffered,
        word: "place_not_offered",
        sentence: "memory lies only where its exporter puts it",
        fix: "attach without asking for a place, or ask for one that is offered",
    },
    AboutRule {
        rule: Rule::HeldInPlace,
        word: "held_in_place",
        sentence: "memory is not moved from under a pin, whoever asks",
        fix: "attach where the memory lies, or wait until those who pin it detach",
    },
    AboutRule {
        rule: Rule::PeerNotOffered,
        word: "peer_not_offered",
        sentence: "device memory goes to other devices only if its exporter permits it",
        fix: "have the exporter permit peers, or ask for a place in ram where one is offered",
    },
    AboutRule {
        rule: Rule::PeerNotTaken,
        word: "peer_not_taken",
        sentence: "device memory goes only to devices whose driver takes it",
        fix: "declare that peer memory is taken, or ask for a place in ram where one is offered; nothing is moved unasked",
    },
    AboutRule {
        rule: Rule::PrivateToCpu,
        word: "private_to_cpu",
        sentence: "no process maps memory that a confidential guest keeps to itself",
        fix: "attach by page frames for the guest itself, or have the guest share the memory",
    },
    AboutRule {
        rule: Rule::PrivateToOthers,
        word: "private_to_others",
        sentence: "page frames of a confidential guest's memory go into tables of that guest alone",
        fix: "attach for the guest whose memory it is, or have the guest share the memory",
    },
    AboutRule {
        rule: Rule::Confidential,
        word: "confidential",
        sentence: "a device reaches private memory only as its guest's, accepted and on a protected way",
        fix: "see the rule that is named; `dma::confidential` has the table",
    },
    AboutRule {
        rule: Rule::Outside,
        word: "outside",
        sentence: "every range of a buffer lies inside its owner",
        fix: "export the owner's own length",
    },
    AboutRule {
        rule: Rule::Route,
        word: "route",
        sentence: "the device reaches every range, by a route that hardware and kernel permit",
        fix: "see the chain of reasons; `peerdma fix` looks for ports to change",
    },
    AboutRule {
        rule: Rule::Direction,
        word: "direction",
        sentence: "whatever is asked for, reads or writes, arrives at every range",
        fix: "map it for the direction that arrives",
    },
    AboutRule {
        rule: Rule::Copies,
        word: "copies",
        sentence: "device memory is never copied, nor is memory for a device that asked for no copies",
        fix: "have the guest accept the device's interface, or drop forced bouncing",
    },
    AboutRule {
        rule: Rule::Width,
        word: "width",
        sentence: "the device forms the last address of every range, and numbers enough for all of them",
        fix: "place the memory below the device's mask, or let an IOMMU translate for it",
    },
    AboutRule {
        rule: Rule::Pieces,
        word: "pieces",
        sentence: "an importer that takes one piece gets one",
        fix: "export one range, or let an IOMMU put whole pages together",
    },
    AboutRule {
        rule: Rule::Alignment,
        word: "alignment",
        sentence: "every range begins and ends at a multiple of what the importer asks for",
        fix: "export ranges of whole units",
    },
    AboutRule {
        rule: Rule::Segments,
        word: "segments",
        sentence: "the device's list of segments holds the whole buffer, each within its limits",
        fix: "attach to a part of the buffer, or use a device with a longer list",
    },
];

impl Rule {
    /// Its row.
    pub const fn about(self) -> &'static AboutRule {
        &RULES[self as usize]
    }

    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        self.about().word
    }

    /// What it says, in one sentence.
    pub const fn sentence(self) -> &'static str {
        self.about().sentence
    }

    /// What to do where it is broken.
    pub const fn fix(self) -> &'static str {
        self.about().fix
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_own_row_in_the_order_of_asking() {
        for (index, about) in RULES.iter().enumerate() {
            assert_eq!(about.rule as usize, index);
            assert_eq!(RULES.iter().filter(|other| other.word == about.word).count(), 1, "{}", about.word);
        }
    }
}
