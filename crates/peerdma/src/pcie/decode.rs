//! Everything peerdma wants from one function's configuration space.

use super::acs::{self, Acs, AcsUnread};
use super::caps::{self, ListEnd, Lookup, extended, standard};
use super::config::{ConfigSize, ConfigSpace};
use super::express::{self, Express, PortType};
use super::fact::Fact;
use super::ids::{ClassCode, PciId};
use super::virt::{self, Ats, Pasid, Pri, ResizableBar, SrIov};
use crate::addr::{AddrRange, BusAddr};
use alloc::vec::Vec;

/// Layout of the first 64 bytes (PCI 3.0 §6.1, header type register bits 6:0).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum HeaderType {
    /// Type 0: endpoints, host bridges.
    Device,
    /// Type 1: PCI-to-PCI bridges, PCIe ports.
    Bridge,
    /// Type 2: CardBus bridges.
    CardBus,
    /// Anything else.
    Other(u8),
}

/// Bus numbers of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct BridgeBuses {
    /// Bus the bridge sits on, as its register says.
    pub primary: u8,
    /// Bus right below it; 0 while unassigned.
    pub secondary: u8,
    /// Highest bus below it, inclusive.
    pub subordinate: u8,
}

/// A BAR's register, without its size (which only the kernel's `resource` tells).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarRegister {
    /// Index of its first register, 0 to 5.
    pub index: u8,
    /// Memory address, or `None` for an I/O BAR.
    pub memory: Option<BusAddr>,
    /// Prefetchable.
    pub prefetchable: bool,
    /// Takes two registers.
    pub is_64_bit: bool,
}

/// Address windows of a type 1 header, each known and `None` where it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BridgeWindows {
    /// Non-prefetchable memory.
    pub memory: Fact<Option<AddrRange<BusAddr>>>,
    /// Prefetchable memory.
    pub prefetchable: Fact<Option<AddrRange<BusAddr>>>,
}

impl BridgeWindows {
    /// Both read, and closed.
    pub const CLOSED: Self = Self { memory: Fact::Known(None), prefetchable: Fact::Known(None) };

    /// The windows that were read and are open.
    pub fn open(&self) -> impl Iterator<Item = AddrRange<BusAddr>> + use<> {
        [self.memory, self.prefetchable].into_iter().filter_map(|window| window.known().flatten())
    }

    /// Whether both were read.
    pub fn all_read(&self) -> bool {
        matches!((self.memory, self.prefetchable), (Fact::Known(_), Fact::Known(_)))
    }
}

/// Everything read from one function's configuration space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registers {
    /// Vendor and device; `None` where unread or where the function did not answer.
    pub id: Option<PciId>,
    /// Class code.
    pub class: Option<ClassCode>,
    /// Header type.
    pub header: Option<HeaderType>,
    /// Whether the device has other functions beside this one (header type register bit 7).
    pub multifunction: Option<bool>,
    /// Memory Space Enable and Bus Master Enable.
    pub command: Option<Command>,
    /// Bus numbers, of bridges.
    pub buses: Option<BridgeBuses>,
    /// Windows, of bridges.
    pub windows: BridgeWindows,
    /// BARs that hold an address or a type.
    pub bars: Vec<BarRegister>,
    /// Port type; known and `None` for functions without a PCIe capability.
    pub port_type: Fact<Option<PortType>>,
    /// PCI Express capability.
    pub express: Express,
    /// Access control services.
    pub acs: Acs,
    /// SR-IOV; known and `None` without the capability.
    pub sriov: Fact<Option<SrIov>>,
    /// ATS, likewise.
    pub ats: Fact<Option<Ats>>,
    /// PRI, likewise.
    pub pri: Fact<Option<Pri>>,
    /// PASID, likewise.
    pub pasid: Fact<Option<Pasid>>,
    /// Resizable BARs; empty also where unread.
    pub resizable: Vec<ResizableBar>,
    /// How the extended list ended.
    pub extended_end: ListEnd,
}

/// The two enables of the command register that decide about peer traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// BARs and windows respond.
    pub memory: bool,
    /// The function may originate requests; a bridge may forward them up.
    pub bus_master: bool,
}

impl Registers {
    /// Reads what `config` holds; what it does not hold stays unknown.
    pub fn decode(config: &impl ConfigSpace) -> Self {
        let Some(vendor) = config.word(0) else { return Self::unread() };
        // A function that is gone or powered off answers all ones everywhere. A virtual
        // function does so for its IDs alone, which its physical one tells (PCIe 6.0 §9.3.4.1).
        if vendor == 0xffff && config.dword(0x08).is_none_or(|word| word == u32::MAX) {
            return Self::unread();
        }
        let device = config.word(2).filter(|_| vendor != 0xffff);
        let id = device.map(|device| PciId { vendor, device });
        let class = config.dword(0x08).map(|word| ClassCode::new(word >> 8));
        let header = config.byte(0x0e).map(|byte| match byte & 0x7f {
            0 => HeaderType::Device,
            1 => HeaderType::Bridge,
            2 => HeaderType::CardBus,
            other => HeaderType::Other(other),
        });
        let standard = caps::standard_list(config);
        let (port_type, express) = match standard.find(standard::EXPRESS) {
            Lookup::At(offset) => {
                let (port_type, express) = express::decode(config, offset);
                (port_type.map(Some).into(), express)
            }
            Lookup::Absent => (Fact::Known(None), Express::default()),
            Lookup::Cut(_) => (Fact::Unknown, Express::default()),
        };
        let acs = acs::decode(config, class, acs::linux_reads_wrong_word(id, port_type));
        let list = caps::extended_list(config);
        // Without ACS by proof there is no extended space, so none of these exist either.
        let no_space = matches!(acs, Acs::Absent(_)) && matches!(list.end(), ListEnd::Cut(_));
        let find = |id| match list.find(id) {
            Lookup::Cut(_) if no_space => Lookup::Absent,
            found => found,
        };
        Self {
            id,
            class,
            header,
            multifunction: config.byte(0x0e).map(|byte| byte & 0x80 != 0),
            command: config.word(0x04).map(|word| Command { memory: word & 2 != 0, bus_master: word & 4 != 0 }),
            buses: bridge_buses(config, header),
            windows: bridge_windows(config, header),
            bars: bars(config, header),
            port_type,
            express,
            acs,
            sriov: capability(find(extended::SRIOV), |at| SrIov::decode(config, at)),
            ats: capability(find(extended::ATS), |at| Some(Ats { enabled: config.word(at + 6)? & 0x8000 != 0 })),
            pri: capability(find(extended::PRI), |at| Some(Pri { enabled: config.word(at + 4)? & 1 != 0 })),
            pasid: capability(find(extended::PASID), |at| {
                Some(Pasid { enabled: config.word(at + 6)? & 1 != 0, width: (config.word(at + 4)? >> 8 & 0x1f) as u8 })
            }),
            resizable: match find(extended::RESIZABLE_BAR) {
                Lookup::At(offset) => virt::resizable_bars(config, offset),
                _ => Vec::new(),
            },
            extended_end: list.end(),
        }
    }

    /// Nothing read.
    pub fn unread() -> Self {
        Self {
            id: None,
            class: None,
            header: None,
            multifunction: None,
            command: None,
            buses: None,
            windows: BridgeWindows::default(),
            bars: Vec::new(),
            port_type: Fact::Unknown,
            express: Express::default(),
            acs: Acs::Unknown(AcsUnread::NeverSeen),
            sriov: Fact::Unknown,
            ats: Fact::Unknown,
            pri: Fact::Unknown,
            pasid: Fact::Unknown,
            resizable: Vec::new(),
            extended_end: ListEnd::Cut(0),
        }
    }
}

/// Whether a copy of 256 bytes proves that the space ends there: others beside it hold 4096.
pub fn size_of_copy(len: usize, others_hold_4096: bool) -> ConfigSize {
    if len == 256 && others_hold_4096 { ConfigSize::Copied256 } else { ConfigSize::Unknown }
}

fn capability<T>(found: Lookup, read: impl FnOnce(u16) -> Option<T>) -> Fact<Option<T>> {
    match found {
        Lookup::At(offset) => read(offset).map(Some).into(),
        Lookup::Absent => Fact::Known(None),
        Lookup::Cut(_) => Fact::Unknown,
    }
}

fn bridge_buses(config: &impl ConfigSpace, header: Option<HeaderType>) -> Option<BridgeBuses> {
    matches!(header, Some(HeaderType::Bridge | HeaderType::CardBus)).then_some(())?;
    Some(BridgeBuses { primary: config.byte(0x18)?, secondary: config.byte(0x19)?, subordinate: config.byte(0x1a)? })
}

/// Type 1 windows (PCIe 6.0 §7.5.1.3.8 and .9): 1 MiB granules, limit's low 20 bits read as ones.
fn bridge_windows(config: &impl ConfigSpace, header: Option<HeaderType>) -> BridgeWindows {
    if header != Some(HeaderType::Bridge) {
        return BridgeWindows::default();
    }
    let window = |base: u64, limit: u64| AddrRange::from_inclusive(BusAddr::new(base), BusAddr::new(limit | 0xf_ffff));
    let low = |at: u16| config.word(at).map(|word| u64::from(word & 0xfff0) << 16);
    let memory = (|| Some(window(low(0x20)?, low(0x22)?)))();
    let prefetchable = (|| {
        let is_64_bit = config.word(0x24)? & 0xf == 1;
        let high = |at: u16| if is_64_bit { config.dword(at).map(|word| u64::from(word) << 32) } else { Some(0) };
        Some(window(low(0x24)? | high(0x28)?, low(0x26)? | high(0x2c)?))
    })();
    BridgeWindows { memory: memory.into(), prefetchable: prefetchable.into() }
}

fn bars(config: &impl ConfigSpace, header: Option<HeaderType>) -> Vec<BarRegister> {
    let count = match header {
        Some(HeaderType::Device) => 6,
        Some(HeaderType::Bridge) => 2,
        _ => 0,
    };
    let mut bars = Vec::new();
    let mut index = 0;
    while index < count {
        let at = 0x10 + 4 * u16::from(index);
        let Some(low) = config.dword(at) else { break };
        let is_64_bit = low & 0x7 == 0x4 && index + 1 < count;
        if low & 1 == 1 {
            bars.push(BarRegister { index, memory: None, prefetchable: false, is_64_bit: false });
        } else if low != 0 {
            let Some(high) = (if is_64_bit { config.dword(at + 4) } else { Some(0) }) else { break };
            let address = u64::from(high) << 32 | u64::from(low & !0xf);
            bars.push(BarRegister {
                index,
                memory: Some(BusAddr::new(address)),
                prefetchable: low & 8 != 0,
                is_64_bit,
            });
        }
        index += if is_64_bit { 2 } else { 1 };
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::super::config::ConfigBytes;
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn a_function_that_answers_all_ones_tells_nothing() {
        let gone = Registers::decode(&ConfigBytes::new(vec![0xff; 4096], ConfigSize::Kernel(4096)));
        assert_eq!(gone, Registers::unread());
    }

    #[test]
    fn a_virtual_function_hides_its_ids_and_nothing_else() {
        let mut bytes = vec![0u8; 4096];
        bytes[0..4].fill(0xff);
        bytes[0x0b] = 0x02;
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40] = 0x10;
        let registers = Registers::decode(&ConfigBytes::new(bytes, ConfigSize::Unknown));
        assert_eq!(registers.id, None);
        assert_eq!(registers.class, Some(ClassCode::new(0x020000)));
        assert_eq!(registers.acs.redirects_as_linux_reads(), Fact::Known(false));
    }

    #[test]
    fn the_bit_above_the_header_type_tells_of_other_functions() {
        let mut bytes = vec![0u8; 64];
        bytes[0x0e] = 0x81;
        let read = Registers::decode(&ConfigBytes::new(bytes.clone(), ConfigSize::Unknown));
        assert_eq!((read.header, read.multifunction), (Some(HeaderType::Bridge), Some(true)));
        bytes[0x0e] = 0x01;
        assert_eq!(Registers::decode(&ConfigBytes::new(bytes, ConfigSize::Unknown)).multifunction, Some(false));
        assert_eq!(Registers::unread().multifunction, None);
    }

    #[test]
    fn a_prefetchable_window_takes_its_upper_halves_only_when_it_says_64_bit() {
        let mut bytes = vec![0u8; 64];
        bytes[0] = 0x86;
        bytes[0x0e] = 1;
        bytes[0x20..0x24].copy_from_slice(&[0xf0, 0xff, 0x00, 0x00]);
        bytes[0x24..0x28].copy_from_slice(&[0x01, 0x00, 0xf1, 0x0f]);
        bytes[0x28] = 0x40;
        bytes[0x2c] = 0x40;
        let windows = Registers::decode(&ConfigBytes::new(bytes.clone(), ConfigSize::Unknown)).windows;
        assert_eq!(windows.memory, Fact::Known(None), "base above limit is a closed window");
        let prefetchable = windows.prefetchable.known().unwrap().unwrap();
        assert_eq!((prefetchable.start().as_u64(), prefetchable.last().as_u64()), (0x40_0000_0000, 0x40_0fff_ffff));
        bytes[0x24] = 0;
        bytes[0x26] = 0xf0;
        let windows = Registers::decode(&ConfigBytes::new(bytes, ConfigSize::Unknown)).windows;
        assert_eq!(windows.prefetchable.known().unwrap().unwrap().start().as_u64(), 0);
        assert!(!Registers::unread().windows.all_read(), "a window that was not read is not closed");
    }

    #[test]
    fn a_64_bit_bar_takes_two_registers() {
        let mut bytes = vec![0u8; 64];
        bytes[0] = 0x86;
        bytes[0x10..0x18].copy_from_slice(&0x0000_0060_0000_000c_u64.to_le_bytes());
        bytes[0x18] = 0x01;
        let bars = Registers::decode(&ConfigBytes::new(bytes, ConfigSize::Unknown)).bars;
        assert_eq!(bars.len(), 2);
        assert_eq!(bars[0].memory, Some(BusAddr::new(0x60_0000_0000)));
        assert!(bars[0].prefetchable);
        assert_eq!((bars[1].index, bars[1].memory), (2, None));
    }

    #[test]
    fn a_64_bit_bar_whose_upper_half_was_not_read_has_no_address() {
        let mut bytes = vec![0u8; 0x14];
        bytes[0] = 0x86;
        bytes[0x10] = 0x0c;
        bytes[0x13] = 0x80;
        assert!(Registers::decode(&ConfigBytes::new(bytes, ConfigSize::Unknown)).bars.is_empty());
    }

    proptest! {
        /// A truncated copy never turns an answer of the whole into another answer.
        #[test]
        fn truncation_only_loses_knowledge(mut bytes in prop::collection::vec(any::<u8>(), 4096), cut in 64usize..4096) {
            bytes[0x0e] &= 0x81;
            bytes[0x06] |= 0x10;
            let whole = Registers::decode(&ConfigBytes::new(bytes.clone(), ConfigSize::Unknown));
            bytes.truncate(cut);
            let part = Registers::decode(&ConfigBytes::new(bytes, ConfigSize::Unknown));
            if let Fact::Known(redirects) = part.acs.redirects_as_linux_reads() {
                prop_assert_eq!(whole.acs.redirects_as_linux_reads(), Fact::Known(redirects));
            }
            if let Fact::Known(kind) = part.port_type {
                prop_assert_eq!(whole.port_type, Fact::Known(kind));
            }
        }
    }
}
