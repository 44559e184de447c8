//! The readers that the targets feed, from bytes to a tree.
//!
//! Here and not in the targets so that a test can see that every seed is still read:
//! a seed that its reader turns away at the door leads a fuzzer nowhere.

use peerdma::access::{Access, Prot};
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::mirror::{Brought, Fault, Finished, Keeping, MirrorState, Token, Wanted};
use peerdma::pcie::PciAddr;
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::pcie::decode::Registers;
use peerdma::topology::{Builder, FunctionInfo, Origin, Position, Topology};
use peerdma_emu::platform::Platform;
use peerdma_linux::capture::Capture;
use peerdma_linux::kernel_log::{self, Log};
use peerdma_linux::pci_names::PciNames;
use peerdma_linux::tree::Tree;
use peerdma_linux::uffd::{MESSAGE_LEN, Message};
use peerdma_linux::{assemble, lspci, sysfs};
use std::sync::LazyLock;

static NAMES: LazyLock<PciNames> = LazyLock::new(PciNames::built_in);

/// What the target `config_space` is given.
#[derive(Clone, Copy, Debug)]
pub struct ConfigInput<'a> {
    /// What is known about the size of the space.
    pub size: ConfigSize,
    /// Where to cut, 64 to 4096.
    pub cut: usize,
    /// The space from offset 0 on.
    pub config: &'a [u8],
}

impl<'a> ConfigInput<'a> {
    /// One byte for the size, two for the cut, then the space.
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let [size, cut_low, cut_high, config @ ..] = data else { return None };
        let size = match size % 4 {
            0 => ConfigSize::Unknown,
            1 => ConfigSize::Copied256,
            2 => ConfigSize::Kernel(256),
            _ => ConfigSize::Kernel(4096),
        };
        Some(Self { size, cut: usize::from(u16::from_le_bytes([*cut_low, *cut_high])).clamp(64, 4096), config })
    }

    /// Functions with these registers, right and as out of an archive, where a bridge
    /// with them would have them.
    pub fn topology(&self) -> Topology {
        let whole = Registers::decode(&ConfigBytes::new(self.config.to_vec(), self.size));
        let unpadded = ConfigBytes::from_copied_file(self.config.to_vec());
        let copied = Registers::decode(&ConfigBytes::new(unpadded.bytes().to_vec(), self.size));
        let mut builder = Builder::new();
        for (address, registers) in
            [("00:00.0", &whole), ("00:01.0", &copied), ("01:00.0", &whole), ("02:00.0", &copied)]
        {
            let Ok(address) = address.parse::<PciAddr>() else { continue };
            let mut function = FunctionInfo::new(address, Position::ByBusNumber);
            function.registers = registers.clone();
            builder.function(function);
        }
        builder.build()
    }
}

/// Text or a hex dump of `lspci`.
pub fn lspci_text(data: &[u8]) -> Option<Topology> {
    lspci::read(&String::from_utf8_lossy(data), &NAMES).ok().map(|dump| dump.builder.build())
}

/// A capture, and its tree.
pub fn capture(data: &[u8]) -> Option<(Capture, Topology)> {
    let capture = Capture::read(data).ok()?;
    let builder = assemble::builder(&capture.snapshot, Origin::Capture, &NAMES).ok()?;
    Some((capture, builder.build()))
}

/// A platform file.
pub fn platform_file(data: &[u8]) -> Option<Topology> {
    Platform::parse(&String::from_utf8_lossy(data), "fuzz.toml").ok().map(|platform| platform.topology())
}

/// An archive of a copied sysfs tree.
pub fn archive(data: &[u8]) -> Option<Topology> {
    let tree = Tree::from_archive(data).ok()?;
    assemble::builder(&sysfs::read(&tree), Origin::Sysfs, &NAMES).ok().map(Builder::build)
}

/// A kernel log, which tells of a machine and yields none.
pub fn kernel_log(data: &[u8]) -> Log {
    kernel_log::parse(&String::from_utf8_lossy(data))
}

/// Messages of userfaultfd, and a mirror that hears them; how many of them meant something to it.
///
/// Between messages the device asks for pages. Whatever comes, the table holds nothing that is not registered, and nobody
/// waits once everything is over.
pub fn uffd_messages(data: &[u8]) -> usize {
    const PAGE: u64 = 4096;
    let Some(page) = Granule::new(Bytes::new(PAGE)) else { return 0 };
    let mut mirror = MirrorState::new(page);
    for (number, keeping) in [(2, Keeping::Faulting), (12, Keeping::Pinned), (22, Keeping::Faulting)] {
        if let Some(at) = AddrRange::new(ProcVa::new(number * PAGE), Bytes::new(8 * PAGE)) {
            let registered = mirror.register(at, Prot::ReadWrite, keeping);
            assert!(registered.is_ok(), "nothing is registered there");
        }
    }
    let mut meant = 0;
    for (token, bytes) in data.chunks(MESSAGE_LEN).enumerate() {
        let Ok(message) = Message::parse(bytes) else { continue };
        let at = match message {
            Message::Fault { at, .. } => at,
            _ => ProcVa::new(u64::from(bytes[1]) * PAGE / 4),
        };
        let wanted = Wanted { at, access: if bytes[2] & 1 == 0 { Access::Read } else { Access::Write } };
        let asked = mirror.fault(wanted, Token(token as u64));
        let Some(event) = message.event() else {
            if let Fault::Bring(ticket) = asked {
                let _ = mirror.finish(ticket, Brought::Page(Prot::ReadWrite));
            }
            continue;
        };
        meant += 1;
        let begun = mirror.begin(&event);
        let meanwhile = mirror.fault(wanted, Token(token as u64));
        if let Fault::Bring(ticket) = asked {
            let finished = mirror.finish(ticket, Brought::Page(Prot::ReadWrite));
            let parked = meanwhile == Fault::Parked;
            assert!(!parked || matches!(finished, Finished::Again(_)), "a page that is being taken is not installed");
        }
        let ended = mirror.end(begun);
        assert_eq!(ended.parked.len(), usize::from(meanwhile == Fault::Parked), "whoever waited is given back");
    }
    meant
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{page_tables, sharing};
    use peerdma::buffer::wire::Message;
    use std::fs;

    #[test]
    fn every_seed_is_read_by_the_reader_that_it_is_meant_for() {
        type Reader = fn(&[u8]) -> Option<Topology>;
        let readers: [(&str, Reader); 5] = [
            ("config_space", |data| ConfigInput::read(data).map(|input| input.topology())),
            ("lspci_text", lspci_text),
            ("capture", |data| capture(data).map(|(_, topology)| topology)),
            ("platform_file", platform_file),
            ("archive", archive),
        ];
        for (target, read) in readers {
            for seed in fs::read_dir(format!("seeds/{target}")).unwrap() {
                let path = seed.unwrap().path();
                let functions = read(&fs::read(&path).unwrap()).map(|topology| topology.functions().len());
                assert!(functions.is_some_and(|functions| functions > 0), "{}: {functions:?}", path.display());
            }
        }
    }

    #[test]
    fn every_seed_of_page_tables_operates_or_leads_somewhere() {
        for seed in fs::read_dir("seeds/iopt").unwrap() {
            let path = seed.unwrap().path();
            let data = fs::read(&path).unwrap();
            let (first, rest) = data.split_first().unwrap();
            let done = if first % 2 == 0 { page_tables::operate(rest) } else { page_tables::walk(rest) };
            assert!(done > 0, "{}", path.display());
        }
    }

    #[test]
    fn every_seed_of_a_message_is_one_and_every_session_gets_somewhere() {
        for seed in fs::read_dir("seeds/buffer_message").unwrap() {
            let path = seed.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(sharing::message(&bytes).is_some(), "{}: {:?}", path.display(), Message::decode(&bytes));
        }
        for seed in fs::read_dir("seeds/buffer_session").unwrap() {
            let path = seed.unwrap().path();
            let said = sharing::session(&fs::read(&path).unwrap());
            assert!(said > 1, "{}: the peer got no further than {said}", path.display());
        }
    }

    #[test]
    fn every_seed_of_userfaultfd_is_heard_whole() {
        for seed in fs::read_dir("seeds/uffd_message").unwrap() {
            let path = seed.unwrap().path();
            assert!(uffd_messages(&fs::read(&path).unwrap()) > 1, "{}", path.display());
        }
    }

    #[test]
    fn every_seed_of_a_log_tells_something() {
        for seed in fs::read_dir("seeds/kernel_log").unwrap() {
            let path = seed.unwrap().path();
            assert!(!kernel_log(&fs::read(&path).unwrap()).events.is_empty(), "{}", path.display());
        }
    }
}
