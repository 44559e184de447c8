//! What the tests of this folder share: machines, ways to run them, memory with its mappings.

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Granule, Iova, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::consumer::rdma::RegionAddr;
use peerdma::dma::engine::{Context, Mapping};
use peerdma::dma::{DeviceAddress, Owner, Peers};
use peerdma::iova::Allocator;
use peerdma_emu::device::Shared;
use peerdma_emu::device::nic::{
    Domain, Driver, Key, Operation, QueuePair, Queues, Rights, Source, Status, WorkRequest,
};
use peerdma_emu::host::{Buffer, Kernel, Seat, Space, wire_address};
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

/// Lets `body` use each of these machines in every way, with words for what fails.
pub(crate) fn everywhere(platforms: &[(&'static str, Platform)], body: impl Fn(&Kernel, &str)) {
    for (kind, platform) in platforms {
        for way in WAYS {
            run(platform, way, |builder| builder, |kernel| body(kernel, &format!("{kind} {way:?}")));
        }
    }
}

/// Lets `body` have seats at functions of these names, and a queue of each.
pub(crate) fn seated<const N: usize, T>(
    kernel: &Kernel,
    names: [&str; N],
    body: impl FnOnce(&[Seat<'_>; N], &[Queue<'_>; N]) -> T,
) -> T {
    let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
    let seats = names.map(|name| kernel.seat(kernel.machine().named(name).unwrap()).unwrap());
    let queues = seats.each_ref().map(|seat| seat.context(&owners, &peers).unwrap());
    body(&seats, &queues)
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

/// An adapter with a domain, a queue pair and a buffer of [`LEN`](Adapter::LEN) bytes.
pub(crate) struct Adapter<'c, 'a, 's> {
    pub(crate) driver: Driver<'s>,
    pub(crate) domain: Domain,
    pub(crate) pair: QueuePair<'s>,
    pub(crate) buffer: Ram<'c, 'a>,
    pub(crate) key: Key,
    pub(crate) base: RegionAddr,
    _held: [Ram<'c, 'a>; 2],
}

impl<'c, 'a, 's> Adapter<'c, 'a, 's> {
    /// Bytes of its buffer.
    pub(crate) const LEN: usize = 0x14_0000;

    /// Two of them, connected with each other.
    pub(crate) fn both(kernel: &Kernel, seats: &'s [Seat<'_>; 2], queues: &'c [Queue<'a>; 2]) -> [Self; 2] {
        let [one, other] = [0, 1].map(|n| Self::new(kernel, &seats[n], &queues[n]));
        Adapter::connect(&one, &other);
        [one, other]
    }

    /// Connects two, of one machine or of two.
    pub(crate) fn connect(one: &Self, other: &Adapter<'_, '_, '_>) {
        one.driver.connect(&one.pair, other.driver.port(), other.pair.number()).unwrap();
        other.driver.connect(&other.pair, one.driver.port(), one.pair.number()).unwrap();
    }

    pub(crate) fn new(kernel: &Kernel, seat: &'s Seat<'_>, queue: &'c Queue<'a>) -> Self {
        let lists = ram(kernel, queue, 0x2_0000);
        let rings = ram(kernel, queue, Queues::bytes(4, 4).as_u64());
        let buffer = ram(kernel, queue, Self::LEN as u64);
        let driver = Driver::new(seat, lists.shared.clone());
        let domain = driver.allocate_domain().unwrap();
        let pair = driver.create_pair(domain, Queues::new(rings.shared.clone())).unwrap();
        let base = RegionAddr::new(0x7000_0000);
        let pages = (buffer.shared.device().as_u64()..).step_by(0x1000).take(Self::LEN >> 12);
        let pages = pages.map(|at| DeviceAddress::Bus { address: BusAddr::new(at), bridge: None });
        let whole = (base, Bytes::new(Self::LEN as u64));
        let key = driver.register_pages(domain, Rights::ALL, whole, Granule::PAGE_4K, pages).unwrap();
        Self { driver, domain, pair, buffer, key, base, _held: [lists, rings] }
    }

    /// A part of its buffer.
    pub(crate) fn source(&self, at: u64, len: u64) -> Source {
        Source { at: RegionAddr::new(self.base.as_u64() + at), key: self.key, len: Bytes::new(len) }
    }

    /// Posts a send.
    pub(crate) fn post(&mut self, id: u64, local: Source, operation: Operation) {
        self.pair.post(&WorkRequest { id, local, operation, quiet: false }).unwrap();
    }

    /// Posts a send, and says what became of it.
    pub(crate) fn run(&mut self, id: u64, local: Source, operation: Operation) -> Status {
        self.post(id, local, operation);
        let completed = self.pair.wait().unwrap();
        assert_eq!(completed.id, id);
        completed.status
    }
}
