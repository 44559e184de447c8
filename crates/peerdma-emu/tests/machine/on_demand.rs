//! Adapters whose memory moves: regions on demand in machines with IOMMUs, in RAM and in a peer.

use crate::bench::{
    Adapter, Mapped, Queue, Ram, WAYS, bar_chunk, pattern, ram, ram_chunk, run, seated, servers, window,
};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, Granule};
use peerdma::chunk::Chunk;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};
use peerdma::dma::{Owner, Span};
use peerdma_emu::device::nic::{
    Answer, Completed, Driver, Error, FaultQueue, Key, Network, Nic, Operation, PageFault, Queues, Rights, Source,
    Status, WorkRequest,
};
use peerdma_emu::host::{Buffer, Kernel};
use peerdma_emu::memory::{Memory, Striped};
use peerdma_emu::platform::Platform;
use std::cell::Cell;
use std::sync::Arc;

/// Where regions are, in their own addresses, and how long.
const BASE: u64 = 0x7000_0000_0000;
const LEN: u64 = 0x2_0000;

/// Runs on each of these machines, with adapters whose messages carry 16 KiB each.
fn in_parts(platforms: &[(&'static str, Platform)], body: impl Fn(&Kernel, &str)) {
    for (kind, platform) in platforms {
        for way in WAYS {
            let network = Network::new();
            let nic =
                |port| Box::new(Nic::new(&network, port, Arc::new(Striped::new(Bytes::new(0x1_0000))), 4).unwrap());
            run(
                platform,
                way,
                |builder| builder.device("nic0", nic(1)).device("nic1", nic(2)),
                |kernel| body(kernel, &format!("{kind} {way:?}")),
            );
        }
    }
}

/// Where the bytes of a buffer can lie.
enum Place<'k> {
    Ram(Buffer),
    /// In VRAM behind a BAR, from an offset on.
    Vram {
        kernel: &'k Kernel,
        at: u64,
    },
}

impl Place<'_> {
    fn chunk(&self) -> Chunk<Owner> {
        match self {
            Self::Ram(buffer) => ram_chunk(buffer),
            Self::Vram { kernel, at } => bar_chunk(kernel, "gpu1", 2, *at, LEN),
        }
    }

    fn read(&self) -> Vec<u8> {
        match self {
            Self::Ram(buffer) => {
                let (memory, at) = buffer.memory();
                let mut bytes = vec![0; LEN as usize];
                memory.read(at, &mut bytes).unwrap();
                bytes
            }
            Self::Vram { kernel, at } => window(kernel, "gpu1", 2).bytes(*at, LEN as usize),
        }
    }

    fn write(&self, bytes: &[u8]) {
        match self {
            Self::Ram(buffer) => {
                let (memory, at) = buffer.memory();
                memory.write(at, bytes).unwrap();
            }
            Self::Vram { kernel, at } => {
                let window = window(kernel, "gpu1", 2);
                window.write(Bytes::new(*at), bytes).unwrap();
                // What the processor wrote is there once it has read back; an adapter may come by another way.
                window.bytes(*at, 1);
            }
        }
    }
}

/// A buffer that its owner moves, with the region of an adapter in front of it.
struct Movable<'k, 'c, 'a, 's> {
    kernel: &'k Kernel,
    queue: &'c Queue<'a>,
    faults: FaultQueue<'s>,
    key: Key,
    place: Place<'k>,
    mapping: Mapped<'c, 'a>,
    served: u64,
    moved: u64,
    /// Where it may lie in VRAM.
    vram: u64,
    _events: Ram<'c, 'a>,
}

impl<'k, 'c, 'a, 's> Movable<'k, 'c, 'a, 's> {
    fn new(kernel: &'k Kernel, queue: &'c Queue<'a>, adapter: &Adapter<'c, 'a, 's>) -> Self {
        let events = ram(kernel, queue, 0x1000);
        let faults = adapter.driver.watch_faults(&events.shared, 3, None).unwrap();
        let whole = (RegionAddr::new(BASE), Bytes::new(LEN));
        let key = adapter.driver.register_on_demand(adapter.domain, Rights::ALL, whole, Granule::PAGE_4K).unwrap();
        let place = Place::Ram(kernel.allocate(Bytes::new(LEN)).unwrap());
        let mapping = queue.map_one(place.chunk(), Prot::ReadWrite).unwrap();
        // Each has a place of its own.
        let vram = 0x40_0000 + u64::from(adapter.driver.port()) * 0x10_0000;
        Self { kernel, queue, faults, key, place, mapping, served: 0, moved: 0, vram, _events: events }
    }

    fn source(&self, at: u64, len: u64) -> Source {
        Source { at: RegionAddr::new(BASE + at), key: self.key, len: Bytes::new(len) }
    }

    /// Serves the faults that there are from where the bytes lie now.
    fn serve(&mut self, driver: &Driver<'_>) -> Result<bool, Error> {
        let served = self.faults.serve(driver, |fault| answer(fault, &self.mapping))?;
        self.served += served;
        Ok(served > 0)
    }

    /// Moves the bytes, and leaves others where they were, which nobody may see.
    fn move_to(&mut self, driver: &Driver<'_>, place: Place<'k>) {
        let taken = driver.invalidate(self.key, RegionAddr::new(BASE), Bytes::new(LEN)).unwrap();
        driver.await_invalidation(taken).unwrap();
        let mapping = self.queue.map_one(place.chunk(), Prot::ReadWrite).unwrap();
        drop(std::mem::replace(&mut self.mapping, mapping));
        place.write(&self.place.read());
        self.place.write(&vec![0xee; LEN as usize]);
        self.place = place;
        self.moved += 1;
    }

    /// To VRAM and back to RAM by turns.
    fn move_on(&mut self, driver: &Driver<'_>) {
        let place = match self.place {
            Place::Ram(_) => Place::Vram { kernel: self.kernel, at: self.vram },
            Place::Vram { .. } => Place::Ram(self.kernel.allocate(Bytes::new(LEN)).unwrap()),
        };
        self.move_to(driver, place);
    }
}

/// The part of a mapping that a fault asks for; the mapping is one span.
fn answer(fault: &PageFault, mapping: &Mapped<'_, '_>) -> Answer<std::array::IntoIter<Span, 1>> {
    let mut spans = mapping.spans();
    let (Some(span), None) = (spans.next(), spans.next()) else { return Answer::Refuse };
    let skipped = Bytes::new(fault.at.as_u64() - BASE);
    let Some(address) = span.address.checked_add(skipped) else { return Answer::Refuse };
    let span = Span { at: Bytes::ZERO, address, len: fault.len, ..span };
    let prot = Prot::ReadWrite;
    match Region::new([span].into_iter(), fault.at, PageSizes::from_bits(1 << 12), prot) {
        Ok(region) => Answer::Pages { region, prot },
        Err(_) => Answer::Refuse,
    }
}

/// Posts a send, and waits while both sides serve their faults and something `also` happens.
fn carry<'k, 'c, 'a, 's>(
    here: (&mut Adapter<'c, 'a, 's>, &mut Movable<'k, 'c, 'a, 's>),
    there: (&Adapter<'c, 'a, 's>, &mut Movable<'k, 'c, 'a, 's>),
    (local, operation): (Source, Operation),
    mut also: impl FnMut(&mut dyn FnMut(usize)),
) -> Completed {
    here.0.post(77, local, operation);
    let (Adapter { pair, driver, .. }, own, other) = (here.0, here.1, there);
    let waited = pair.wait_beside(|| {
        let served = own.serve(driver)? | other.1.serve(&other.0.driver)?;
        let mut moved = false;
        also(&mut |which| {
            moved = true;
            if which == 0 { own.move_on(driver) } else { other.1.move_on(&other.0.driver) }
        });
        Ok(served || moved)
    });
    waited.unwrap()
}

#[test]
fn bytes_arrive_from_and_in_memory_that_comes_when_it_is_touched() {
    in_parts(&servers(), |kernel, what| {
        seated(kernel, ["nic0", "nic1"], |seats, queues| {
            let [mut here, there] = Adapter::both(kernel, seats, queues);
            let mut own = Movable::new(kernel, &queues[0], &here);
            let mut other = Movable::new(kernel, &queues[1], &there);
            let bytes = pattern(1, LEN as usize);
            own.place.write(&bytes);
            let to = RegionAddr::new(BASE + 0x123);
            let write = (own.source(0, 0x1_8000), Operation::Write { to, key: other.key, immediate: None });
            let done = carry((&mut here, &mut own), (&there, &mut other), write, |_| {});
            assert_eq!((done.status, done.failure), (Status::Success, None), "{what}");
            kernel.machine().settle(1_000_000);
            assert!(other.place.read()[0x123..][..0x1_8000] == bytes[..0x1_8000], "{what}");
            assert!(own.served > 0 && other.served > 0, "{what}");
            // Nothing is asked for twice that nobody took away.
            let served = (own.served, other.served);
            let read = (own.source(0, 0x1_0000), Operation::Read { from: to, key: other.key });
            let done = carry((&mut here, &mut own), (&there, &mut other), read, |_| {});
            assert_eq!(done.status, Status::Success, "{what}");
            kernel.machine().settle(1_000_000);
            assert!(own.place.read()[..0x1_0000] == bytes[..0x1_0000], "{what}");
            assert_eq!((own.served, other.served), served, "{what}");
        });
    });
}

/// Between RAM and VRAM of a GPU, with other bytes left behind: what is read or written late shows.
#[test]
fn memory_that_moves_in_the_middle_of_a_transfer_is_found_again_on_both_sides() {
    // Adapters in threads of their own may be done before anything is moved, so that all runs are counted together.
    let moved = Cell::new(0);
    in_parts(&servers(), |kernel, what| {
        seated(kernel, ["nic0", "nic1"], |seats, queues| {
            let [mut here, there] = Adapter::both(kernel, seats, queues);
            let mut own = Movable::new(kernel, &queues[0], &here);
            let mut other = Movable::new(kernel, &queues[1], &there);
            let bytes = pattern(3, LEN as usize);
            for (round, (mine, every)) in [(0, 5), (1, 9), (1, 2)].into_iter().enumerate() {
                let (from, key) = (RegionAddr::new(BASE), other.key);
                let to = from;
                let (place, operation) = match round {
                    0 | 2 => (&own.place, Operation::Write { to, key, immediate: None }),
                    _ => (&other.place, Operation::Read { from, key }),
                };
                place.write(&bytes);
                let (mut turns, mut moves) = (0, 0);
                let posted = (own.source(0, LEN), operation);
                let done = carry((&mut here, &mut own), (&there, &mut other), posted, |move_on| {
                    turns += 1;
                    if turns % every == 0 && moves < 4 {
                        moves += 1;
                        move_on((mine + moves) % 2);
                    }
                });
                assert_eq!((done.status, done.failure), (Status::Success, None), "{what} {round}");
                kernel.machine().settle(1_000_000);
                let arrived = if round == 1 { &own.place } else { &other.place };
                assert!(arrived.read() == bytes, "{what} {round}");
            }
            moved.set(moved.get() + own.moved + other.moved);
        });
    });
    assert!(moved.get() > 0);
}

#[test]
fn a_page_that_the_driver_refuses_fails_the_work_where_it_is_missing() {
    in_parts(&servers()[..1], |kernel, what| {
        for local in [true, false] {
            seated(kernel, ["nic0", "nic1"], |seats, queues| {
                let [mut here, there] = Adapter::both(kernel, seats, queues);
                let mut own = Movable::new(kernel, &queues[0], &here);
                let mut other = Movable::new(kernel, &queues[1], &there);
                let to = RegionAddr::new(BASE);
                here.post(1, own.source(0, 0x1000), Operation::Write { to, key: other.key, immediate: None });
                let nobody = |_: &PageFault| Answer::<std::iter::Empty<Span>>::Refuse;
                let Adapter { pair, driver, .. } = &mut here;
                let done = pair.wait_beside(|| match local {
                    true => Ok(own.faults.serve(driver, nobody)? > 0),
                    false => Ok(own.serve(driver)? | (other.faults.serve(&there.driver, nobody)? > 0)),
                });
                let status = if local { Status::LocalProtection } else { Status::RemoteAccess };
                assert_eq!(done.unwrap().status, status, "{what}");
            });
        }
    });
}

#[test]
fn a_queue_pair_waits_for_its_page_and_another_of_the_same_adapters_goes_on() {
    in_parts(&servers()[..1], |kernel, what| {
        seated(kernel, ["nic0", "nic1"], |seats, queues| {
            let [mut here, there] = Adapter::both(kernel, seats, queues);
            let mut own = Movable::new(kernel, &queues[0], &here);
            let mut other = Movable::new(kernel, &queues[1], &there);
            let rings = [0, 1].map(|n| ram(kernel, &queues[n], Queues::bytes(4, 4).as_u64()));
            let mut second = here.driver.create_pair(here.domain, Queues::new(rings[0].shared.clone())).unwrap();
            let third = there.driver.create_pair(there.domain, Queues::new(rings[1].shared.clone())).unwrap();
            here.driver.connect(&second, there.driver.port(), third.number()).unwrap();
            there.driver.connect(&third, here.driver.port(), second.number()).unwrap();

            let bytes = pattern(5, LEN as usize);
            here.buffer.fill(&bytes);
            let (to, key) = (RegionAddr::new(BASE), other.key);
            here.post(1, here.source(0, LEN), Operation::Write { to, key, immediate: None });
            assert_eq!(here.pair.wait(), Err(Error::Stalled), "{what}");
            let write = Operation::Write { to: there.base, key: there.key, immediate: None };
            let work = WorkRequest { id: 2, local: here.source(0, LEN), operation: write, quiet: false };
            second.post(&work).unwrap();
            assert_eq!(second.wait().unwrap().status, Status::Success, "{what}");
            kernel.machine().settle(1_000_000);
            assert!(there.buffer.bytes(LEN as usize) == bytes, "{what}");

            let Adapter { pair, driver, .. } = &mut here;
            let done = pair.wait_beside(|| Ok(own.serve(driver)? | other.serve(&there.driver)?));
            assert_eq!(done.unwrap().status, Status::Success, "{what}");
            kernel.machine().settle(1_000_000);
            assert!(other.place.read() == bytes, "{what}");
        });
    });
}
