//! What a machine does with memory that others must not read.

use super::Interface;
use crate::addr::PhysAddr;

/// The bit of an address that says whether the bytes are private or shared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct AliasBit(u8);

impl AliasBit {
    /// Bit 0 to 63; `None` outside.
    pub const fn new(bit: u8) -> Option<Self> {
        if bit < 64 { Some(Self(bit)) } else { None }
    }

    /// Its number.
    pub const fn bit(self) -> u8 {
        self.0
    }

    const fn mask(self) -> u64 {
        1 << self.0
    }
}

/// Whether this machine is a confidential guest, and of which kind.
///
/// The kinds differ in how an address says private or shared (Linux 7.2 `dma_addr_encrypted`,
/// `dma_addr_unencrypted`) and agree in that devices see shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
#[non_exhaustive]
pub enum Guest {
    /// It is none.
    #[default]
    None,
    /// It is none, but encrypts its memory (AMD SME). The bit (the C-bit) says private.
    EncryptingHost(AliasBit),
    /// AMD SEV, SEV-ES or SEV-SNP. The C-bit says private.
    Sev(AliasBit),
    /// Intel TDX. Addresses of devices carry no bit.
    Tdx,
    /// An Arm CCA realm. The top bit of its physical addresses says shared (`PROT_NS_SHARED`).
    Realm(AliasBit),
    /// s390 protected virtualisation. Addresses carry no bit.
    ProtectedVirt,
    /// A POWER secure virtual machine. Addresses carry no bit.
    Svm,
}

impl Guest {
    /// Whether it is a confidential guest.
    pub const fn is_confidential(self) -> bool {
        !matches!(self, Self::None | Self::EncryptingHost(_))
    }

    /// The number that a device is given for `memory` if it is private to this machine.
    ///
    /// `memory` carries no bit.
    pub const fn private_address(self, memory: PhysAddr) -> PhysAddr {
        match self {
            Self::EncryptingHost(bit) | Self::Sev(bit) => PhysAddr::new(memory.as_u64() | bit.mask()),
            Self::None | Self::Tdx | Self::Realm(_) | Self::ProtectedVirt | Self::Svm => memory,
        }
    }

    /// The number that a device is given for `memory` if it is shared with devices and host.
    ///
    /// `memory` carries no bit.
    pub const fn shared_address(self, memory: PhysAddr) -> PhysAddr {
        match self {
            Self::Realm(bit) => PhysAddr::new(memory.as_u64() | bit.mask()),
            Self::None | Self::EncryptingHost(_) | Self::Sev(_) | Self::Tdx | Self::ProtectedVirt | Self::Svm => memory,
        }
    }

    /// Whether a device whose highest address is `highest`, inclusive, needs shared memory.
    ///
    /// Linux 7.2 `force_dma_unencrypted`: every device of a guest; on a host that encrypts, those
    /// that cannot form an address with the bit. An interface in RUN sees private memory, which
    /// Linux 7.2 does not know: there is no such exception in it.
    pub const fn needs_shared(self, initiator: Interface, highest: PhysAddr) -> bool {
        match self {
            Self::None => false,
            Self::EncryptingHost(bit) => highest.as_u64() < bit.mask(),
            Self::Sev(_) | Self::Tdx | Self::Realm(_) | Self::ProtectedVirt | Self::Svm => {
                !matches!(initiator, Interface::Run)
            }
        }
    }

    /// Whether memory is copied for the device whatever its address: its pages are private, and
    /// sharing each for one transfer would cost more than the copy.
    ///
    /// A host that encrypts does not copy by force; what lies above a device's mask is copied as
    /// anywhere.
    pub const fn bounces(self, initiator: Interface) -> bool {
        self.is_confidential() && !matches!(initiator, Interface::Run)
    }

    /// Whether Linux 7.2 would, as a guest: for every device, whatever its interface's state.
    pub const fn linux_bounces(self) -> bool {
        self.is_confidential()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: PhysAddr = PhysAddr::new(0x8000_0000);
    const ALIAS: PhysAddr = PhysAddr::new(0x8_0000_8000_0000);

    fn kinds() -> Vec<(Guest, PhysAddr, PhysAddr)> {
        let bit = AliasBit::new(51).unwrap();
        // Guest, private, shared.
        vec![
            (Guest::None, RAM, RAM),
            (Guest::EncryptingHost(bit), ALIAS, RAM),
            (Guest::Sev(bit), ALIAS, RAM),
            (Guest::Tdx, RAM, RAM),
            (Guest::Realm(bit), RAM, ALIAS),
            (Guest::ProtectedVirt, RAM, RAM),
            (Guest::Svm, RAM, RAM),
        ]
    }

    #[test]
    fn the_bit_says_private_on_amd_and_shared_on_arm() {
        for (guest, private, shared) in kinds() {
            assert_eq!((guest.private_address(RAM), guest.shared_address(RAM)), (private, shared), "{guest:?}");
        }
        assert_eq!(AliasBit::new(64), None);
    }

    #[test]
    fn guests_copy_for_every_device_that_they_have_not_accepted() {
        for (guest, ..) in kinds() {
            let confidential = !matches!(guest, Guest::None | Guest::EncryptingHost(_));
            for state in Interface::ALL {
                assert_eq!(guest.bounces(state), confidential && state != Interface::Run, "{guest:?} {state}");
            }
            assert_eq!(guest.linux_bounces(), confidential);
        }
    }

    #[test]
    fn a_host_that_encrypts_shares_memory_with_devices_that_cannot_form_the_bit() {
        let host = Guest::EncryptingHost(AliasBit::new(47).unwrap());
        let by_bits = |bits: u32| host.needs_shared(Interface::Plain, PhysAddr::new(u64::MAX >> (64 - bits)));
        assert!(by_bits(32) && by_bits(47));
        assert!(!by_bits(48) && !by_bits(64));
    }
}
