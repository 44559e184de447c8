//! What the tests of this folder share: machines, ways to run them, memory with its mappings.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::Owner;
use peerdma::dma::engine::{Context, Mapping};
use peerdma::iova::Allocator;
use peerdma_emu::device::Shared;
use peerdma_emu::host::{Buffer, Kernel, Space, wire_address};
use peerdma_emu::machine::{Builder, Delivery, Machine};
use peerdma_emu::memory::{Memory, Outside};
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::Atomic;
use std::cell::RefCell;
use std::sync::Arc;

/// A queue of a function, as a seat makes it.
pub(crate) type Queue<'a> = Context<'a, Space, RefCell<Allocator>>;
/// A mapping of it.
pub(crate) type Mapped<'c, 'a> = Mapping<'c, 'a, Space, RefCell<Allocator>>;

/// How a machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// In steps that a seed chooses, with writes that wait in queues.
    Queued(u64),
    /// In steps, with writes that arrive at once.
    AtOnce,
    /// Each device in a thread.
    Threads,
}

pub(crate) const WAYS: [Way; 4] = [Way::Queued(1), Way::Queued(99), Way::AtOnce, Way::Threads];

/// Builds a machine, and lets `body` use it in a way.
pub(crate) fn run<T>(
    platform: &Platform,
    way: Way,
    change: impl FnOnce(Builder<'_>) -> Builder<'_>,
    body: impl FnOnce(&Kernel) -> T,
) -> T {
    let builder = match way {
        Way::Queued(seed) => Builder::new(platform).seed(seed),
        Way::AtOnce | Way::Threads => Builder::new(platform).delivery(Delivery::AtOnce),
    };
    let machine = Arc::new(change(builder).build().unwrap());
    let kernel = Kernel::boot(machine.clone(), platform);
    match way {
        Way::Threads => machine.with_threads(|| body(&kernel)),
        Way::Queued(_) | Way::AtOnce => body(&kernel),
    }
}

/// A built-in platform with other words in its file.
pub(crate) fn platform(name: &str, changes: &[(&str, &str)]) -> Platform {
    let mut text = Platform::built_in_text(name).unwrap().to_string();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} says {from}");
        text = text.replace(from, to);
    }
    Platform::parse(&text, name).unwrap()
}

/// The server with each kind of address space that requests can meet.
pub(crate) fn servers() -> Vec<(&'static str, Platform)> {
    let translated = "kind = \"vtd\"\nmode = \"translated\"";
    let with = |words| platform("two-socket", &[(translated, words)]);
    vec![
        ("vtd", Platform::built_in("two-socket").unwrap()),
        ("amd", with("kind = \"amd\"\nmode = \"translated\"")),
        ("identity", with("kind = \"vtd\"\nmode = \"identity\"")),
        ("none", with("kind = \"none\"\nmode = \"none\"")),
    ]
}

/// RAM with the address that a function has for it, for as long as it is mapped.
pub(crate) struct Ram<'c, 'a> {
    pub(crate) shared: Shared,
    _mapping: Mapped<'c, 'a>,
}

impl Ram<'_, '_> {
    /// All of it, as the function addresses it.
    pub(crate) fn range(&self) -> AddrRange<BusAddr> {
        AddrRange::new(self.shared.device(), self.shared.len()).unwrap()
    }

    pub(crate) fn fill(&self, pattern: &[u8]) {
        self.shared.write(Bytes::ZERO, pattern).unwrap();
    }

    pub(crate) fn bytes(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.shared.read(Bytes::ZERO, &mut bytes).unwrap();
        bytes
    }
}

/// The chunk that stands for a buffer.
pub(crate) fn ram_chunk(buffer: &Buffer) -> Chunk<Owner> {
    let range = buffer.range();
    Chunk::new(Owner::Ram, Bytes::new(range.start().as_u64()), range.len(), MemAttrs::empty()).unwrap()
}

/// RAM of so many bytes, mapped for a queue.
pub(crate) fn ram<'c, 'a>(kernel: &Kernel, queue: &'c Queue<'a>, len: u64) -> Ram<'c, 'a> {
    let buffer = kernel.allocate(Bytes::new(len)).unwrap();
    let mapping = queue.map_one(ram_chunk(&buffer), Prot::ReadWrite).unwrap();
    assert_eq!(mapping.spans().count(), 1);
    let at = wire_address(&mapping.spans().next().unwrap());
    Ram { shared: buffer.shared(at), _mapping: mapping }
}

/// The chunk that stands for a part of a function's BAR.
pub(crate) fn bar_chunk(kernel: &Kernel, name: &str, bar: u8, at: u64, len: u64) -> Chunk<Owner> {
    let function = kernel.function(kernel.machine().named(name).unwrap()).unwrap();
    Chunk::new(Owner::Bar { function, bar }, Bytes::new(at), Bytes::new(len), MemAttrs::MMIO).unwrap()
}

/// The ranges that a mapping shows its function.
pub(crate) fn ranges(mapping: &Mapped<'_, '_>) -> Vec<AddrRange<BusAddr>> {
    mapping.spans().map(|span| AddrRange::new(wire_address(&span), span.len).unwrap()).collect()
}

/// A BAR as the CPU sees it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    machine: Arc<Machine>,
    at: PhysAddr,
    len: Bytes,
}

/// The BAR of a function through the CPU's loads and stores.
pub(crate) fn window(kernel: &Kernel, name: &str, bar: u8) -> Window {
    let function = kernel.function(kernel.machine().named(name).unwrap()).unwrap();
    let info = kernel.topology().function(function).info();
    let bar = info.bars.iter().find(|other| other.index == bar).unwrap();
    Window { machine: kernel.machine().clone(), at: bar.cpu.unwrap().start(), len: bar.size.unwrap() }
}

impl Window {
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(Bytes::new(at), &mut bytes).unwrap();
        bytes
    }
}

impl Memory for Window {
    fn len(&self) -> Bytes {
        self.len
    }

    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        self.machine.cpu().load(self.at.checked_add(at).unwrap(), into);
        Ok(())
    }

    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        self.machine.cpu().store(self.at.checked_add(at).unwrap(), from);
        Ok(())
    }

    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        Err(Outside { at, len: atomic.len(), size: self.len })
    }
}

/// Bytes that follow from a seed, none of them like its neighbours.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).rotate_right(13) as u8 ^ seed).collect()
}

/// A range of a process.
pub(crate) fn process(start: u64, len: u64) -> AddrRange<Iova> {
    AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
}
