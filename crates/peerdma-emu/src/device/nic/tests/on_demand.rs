//! Regions whose pages come when they are needed, and go again.

use super::*;
use peerdma::access::Prot;
use peerdma::dma::consumer::rdma::{PageSizes, Region};
use peerdma::dma::{Behind, Span};

/// Where the region is, in its own addresses.
pub(super) const BASE: u64 = 0x7000_0000;
const LEN: u64 = 0x80_0000;
/// Two places for what is in it, in each half of memory.
const PLACES: [u64; 2] = [0x100_0000, 0x20_0000];

/// An adapter with an on-demand region.
pub(super) struct Paged<'b> {
    pub(super) end: End<'b>,
    pub(super) faults: FaultQueue<'b>,
    pub(super) key: Key,
    /// Where what is in the region lies now.
    pub(super) place: u64,
    /// What the adapter may do with pages that it asks for.
    prot: Prot,
    served: u64,
}

impl<'b> Paged<'b> {
    fn new(bench: &'b Bench, end: End<'b>, slots_log2: u8) -> Self {
        let half = end.base - PLACES[0];
        let faults = end.driver.watch_faults(&bench.shared(half + 0x11_0000, 0x1000), slots_log2, None).unwrap();
        let whole = (RegionAddr::new(BASE), Bytes::new(LEN));
        let key = end.driver.register_on_demand(end.domain, Rights::ALL, whole, Granule::PAGE_4K).unwrap();
        Self { place: half + PLACES[0], end, faults, key, prot: Prot::ReadWrite, served: 0 }
    }

    pub(super) fn source(&self, at: u64, len: u64) -> Source {
        Source { at: RegionAddr::new(BASE + at), key: self.key, len: Bytes::new(len) }
    }

    pub(super) fn post(&mut self, id: u64, local: Source, operation: Operation) {
        self.end.post(id, local, operation);
    }

    /// Serves what there is.
    fn serve(&mut self) -> Result<bool, Error> {
        let (place, prot) = (self.place, self.prot);
        let served = self.faults.serve(&self.end.driver, |fault| pages(fault, place, prot))?;
        self.served += served;
        Ok(served > 0)
    }

    /// Waits for a completion while both sides serve their faults.
    pub(super) fn wait(&mut self, other: &mut Self) -> Result<Completed, Error> {
        self.wait_and(other, |_, _| Ok(false))
    }

    /// The same, with something else to do now and then; it says whether it did something.
    fn wait_and(
        &mut self,
        other: &mut Self,
        mut also: impl FnMut(&mut Self, &mut Self) -> Result<bool, Error>,
    ) -> Result<Completed, Error> {
        loop {
            let moves = self.end.time.pause();
            let served = self.serve()? | other.serve()? | also(self, other)?;
            match self.end.pair.poll() {
                Some(completed) => return Ok(completed),
                None if moves || served => {}
                None => return Err(Error::Stalled),
            }
        }
    }

    /// Moves what is in the region to its other place, as the owner of memory that moves does.
    fn move_out(&mut self, bench: &Bench) -> Result<(), Error> {
        let taken = self.end.driver.invalidate(self.key, RegionAddr::new(BASE), Bytes::new(LEN))?;
        self.end.driver.await_invalidation(taken)?;
        let half = self.end.base - PLACES[0];
        let next = if self.place == half + PLACES[0] { PLACES[1] } else { PLACES[0] };
        let bytes = bench.bytes(self.place, LEN as usize);
        bench.ram.write(Bytes::new(half + next), &bytes)?;
        bench.ram.write(Bytes::new(self.place), &vec![0xee; LEN as usize])?;
        self.place = half + next;
        Ok(())
    }
}

/// The pages that a fault asks for, of a region that lies at `place`.
pub(super) fn pages(fault: &PageFault, place: u64, prot: Prot) -> Answer<std::array::IntoIter<Span, 1>> {
    let at = place + (fault.at.as_u64() - BASE);
    let span = Span {
        at: Bytes::ZERO,
        address: DeviceAddress::Iova(Iova::new(at)),
        len: fault.len,
        behind: Behind::Memory,
        snooped: true,
        prot: Prot::ReadWrite,
        bounced: false,
    };
    match Region::new([span].into_iter(), fault.at, PageSizes::from_bits(1 << 12), prot) {
        Ok(region) if prot.writes() || !fault.write => Answer::Pages { region, prot },
        _ => Answer::Refuse,
    }
}

pub(super) fn paged<'b>(bench: &'b Bench, sides: &'b [Side<'b>; 2], slots_log2: u8) -> [Paged<'b>; 2] {
    connected(bench, sides, Rights::ALL).map(|end| Paged::new(bench, end, slots_log2))
}

#[test]
fn pages_come_when_they_are_needed_on_both_sides_and_each_run_once() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = paged(&bench, &sides, 4);
    let len = 0x30_0000 + 77;
    let data = bench.fill(a.place + 3, len, 5);
    let to = RegionAddr::new(BASE + 0x1001);
    a.post(9, a.source(3, len as u64), Operation::Write { to, key: b.key, immediate: None });
    assert_eq!(a.wait(&mut b), Ok(done(9, len as u64)));
    assert!(bench.bytes(b.place + 0x1001, len) == data);
    // A fault for what each slot of 1 MiB needs; the bytes behind the last whole one lie in pages that are there.
    assert_eq!((a.served, b.served), (3, 3));
    let (from, key) = (to, b.key);
    a.post(10, a.source(0x40_0000, len as u64), Operation::Read { from, key });
    assert_eq!(a.wait(&mut b), Ok(done(10, len as u64)));
    assert!(bench.bytes(a.place + 0x40_0000, len) == data);
    assert_eq!((a.served, b.served), (7, 3));
}

#[test]
fn a_send_takes_its_receive_once_although_the_pages_of_that_come_later() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = paged(&bench, &sides, 4);
    let len = 0x28_0000;
    let data = bench.fill(a.end.base, len, 7);
    for id in [1, 2] {
        b.end.pair.post_receive(id, b.source(0x10_0000, len as u64)).unwrap();
    }
    a.post(9, a.end.source(0, len as u64), Operation::Send { immediate: Some(6) });
    assert_eq!(a.wait(&mut b), Ok(done(9, len as u64)));
    let received = b.end.pair.wait().unwrap();
    assert_eq!((received.id, received.len, received.immediate), (1, Bytes::new(len as u64), Some(6)));
    assert_eq!(b.end.pair.poll(), None);
    assert!(bench.bytes(b.place + 0x10_0000, len) == data);
}

#[test]
fn an_atomic_is_done_once_whichever_page_is_missing() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = paged(&bench, &sides, 4);
    bench.ram.write(Bytes::new(b.place + 8), &40_u64.to_le_bytes()).unwrap();
    let at = RegionAddr::new(BASE + 8);
    a.post(1, a.source(0xffc, 8), Operation::FetchAdd { at, key: b.key, value: 2 });
    assert_eq!(a.wait(&mut b), Ok(done(1, 8)));
    let number = |at| u64::from_le_bytes(bench.bytes(at, 8).try_into().unwrap());
    assert_eq!((number(a.place + 0xffc), number(b.place + 8)), (40, 42));
    assert_eq!((a.served, b.served), (1, 1));
}

#[test]
fn a_fault_that_is_refused_ends_the_work_that_needs_the_page() {
    /// What a send and, if there is one, its receive end with where one side serves no page.
    fn refused(local: bool, operation: impl FnOnce(&Paged<'_>) -> Operation) -> (Status, Option<Status>) {
        let bench = Bench::new();
        let sides = bench.sides();
        let [mut a, mut b] = paged(&bench, &sides, 4);
        b.end.pair.post_receive(5, b.source(0, 0x1000)).unwrap();
        let operation = operation(&b);
        a.post(1, a.source(0, 8), operation);
        let refuse = |paged: &mut Paged<'_>| {
            let nobody = |_: &PageFault| Answer::<std::iter::Empty<Span>>::Refuse;
            paged.faults.serve(&paged.end.driver, nobody).map(|served| served > 0)
        };
        loop {
            let moves = a.end.time.pause();
            let served = match local {
                true => refuse(&mut a).unwrap() | b.serve().unwrap(),
                false => refuse(&mut b).unwrap() | a.serve().unwrap(),
            };
            if let Some(completed) = a.end.pair.poll() {
                return (completed.status, b.end.pair.poll().map(|received| received.status));
            }
            assert!(moves || served);
        }
    }
    let to = RegionAddr::new(BASE);
    let write = |b: &Paged<'_>| Operation::Write { to, key: b.key, immediate: None };
    let read = |b: &Paged<'_>| Operation::Read { from: to, key: b.key };
    let add = |b: &Paged<'_>| Operation::FetchAdd { at: to, key: b.key, value: 1 };
    let send = |_: &Paged<'_>| Operation::Send { immediate: None };
    assert_eq!(refused(true, write), (Status::LocalProtection, None));
    assert_eq!(refused(true, read), (Status::LocalProtection, None));
    assert_eq!(refused(true, add), (Status::LocalProtection, None));
    assert_eq!(refused(true, send), (Status::LocalProtection, None));
    // The other side comes into error, and flushes the receive that is posted there.
    assert_eq!(refused(false, write).0, Status::RemoteAccess);
    assert_eq!(refused(false, read).0, Status::RemoteAccess);
    assert_eq!(refused(false, add).0, Status::RemoteAccess);
    assert_eq!(refused(false, send), (Status::RemoteOperation, Some(Status::LocalProtection)));
}

#[test]
fn a_page_to_read_only_is_asked_for_again_to_write() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = paged(&bench, &sides, 4);
    b.prot = Prot::Read;
    let at = RegionAddr::new(BASE);
    a.post(1, a.source(0, 8), Operation::Read { from: at, key: b.key });
    assert_eq!(a.wait(&mut b), Ok(done(1, 8)));
    b.prot = Prot::ReadWrite;
    let data = bench.fill(a.place, 8, 3);
    a.post(2, a.source(0, 8), Operation::Write { to: at, key: b.key, immediate: None });
    assert_eq!(a.wait(&mut b), Ok(done(2, 8)));
    assert_eq!((b.served, bench.bytes(b.place, 8)), (2, data.clone()));
    // Not for the other way round.
    a.post(3, a.source(0, 8), Operation::Read { from: at, key: b.key });
    assert_eq!((a.wait(&mut b), b.served), (Ok(done(3, 8)), 2));
}

/// Every few steps everything moves, on both sides, with what has arrived so far.
#[test]
fn what_is_moved_in_the_middle_of_a_transfer_arrives_whole() {
    for (every, read) in [(1, false), (3, false), (7, true), (2, true)] {
        let bench = Bench::new();
        let sides = bench.sides();
        let [mut a, mut b] = paged(&bench, &sides, 4);
        let len = 0x60_0000 + 5;
        let (from, to) = if read { (b.place, 0) } else { (a.place, 1) };
        let data = bench.fill(from, len, 5);
        let at = RegionAddr::new(BASE);
        let operation = match read {
            true => Operation::Read { from: at, key: b.key },
            false => Operation::Write { to: at, key: b.key, immediate: None },
        };
        a.post(1, a.source(0, len as u64), operation);
        let (mut turns, mut moved) = (0, 0);
        let completed = a.wait_and(&mut b, |a, b| {
            turns += 1;
            if turns % every != 0 || moved == 8 {
                return Ok(false);
            }
            moved += 1;
            if moved % 2 == 0 { a.move_out(&bench) } else { b.move_out(&bench) }.map(|()| true)
        });
        assert_eq!(completed, Ok(done(1, len as u64)), "{every} {read}");
        assert!(moved >= 2, "{moved}");
        let place = [a.place, b.place][to];
        assert!(bench.bytes(place, len) == data, "{every} {read}");
    }
}

#[test]
fn a_queue_pair_that_waits_for_a_page_holds_up_no_other() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = paged(&bench, &sides, 4);
    let rings = |half: u64| Queues::new(bench.shared(half + 0x12_0000, 0x2000));
    let mut others = [
        a.end.driver.create_pair(a.end.domain, rings(0)).unwrap(),
        b.end.driver.create_pair(b.end.domain, rings(0x200_0000)).unwrap(),
    ];
    a.end.driver.connect(&others[0], 2, others[1].number()).unwrap();
    b.end.driver.connect(&others[1], 1, others[0].number()).unwrap();
    let data = bench.fill(a.end.base + 0x40_0000, 0x30_0000, 5);
    // Longer than all slots of the sender's staging memory together, and nobody serves its pages yet.
    let to = RegionAddr::new(BASE);
    a.post(1, a.end.source(0x40_0000, 0x60_0000), Operation::Write { to, key: b.key, immediate: None });
    assert_eq!(a.end.pair.wait(), Err(Error::Stalled));
    let local = a.end.source(0x40_0000, 0x30_0000);
    let operation = Operation::Write { to: b.end.at(0x90_0000), key: b.end.key, immediate: None };
    others[0].post(&WorkRequest { id: 2, local, operation, quiet: false }).unwrap();
    assert_eq!(others[0].wait(), Ok(done(2, 0x30_0000)));
    assert!(bench.bytes(b.end.base + 0x90_0000, 0x30_0000) == data);
    // Its own other side goes on too.
    let back = Operation::Write { to: a.end.at(0), key: a.end.key, immediate: None };
    b.end.post(3, b.end.source(0x90_0000, 0x30_0000), back);
    assert_eq!(b.end.pair.wait(), Ok(done(3, 0x30_0000)));
    assert_eq!(a.wait(&mut b), Ok(done(1, 0x60_0000)));
    assert!(bench.bytes(b.place, 0x30_0000) == data);
}

#[test]
fn faults_beyond_the_slots_for_events_wait_for_one() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, mut b] = paged(&bench, &sides, 0);
    // Both sides of one queue pair need pages of the same adapter, which may ask for one at a time.
    a.post(1, a.source(0, 8), Operation::Write { to: b.end.at(0), key: b.end.key, immediate: None });
    b.post(2, b.end.source(8, 8), Operation::Write { to: RegionAddr::new(BASE + 0x5000), key: a.key, immediate: None });
    let data = bench.fill(b.end.base + 8, 8, 5);
    assert_eq!(b.end.pair.wait(), Err(Error::Stalled));
    let first = a.faults.poll().unwrap();
    assert_eq!((a.faults.poll(), first.key), (None, a.key));
    a.end.driver.resume(&first, true).unwrap();
    assert_eq!(a.end.driver.resume(&first, true), Err(Error::Refused(Refused::Invalid)));
    assert_eq!(a.wait(&mut b), Ok(done(1, 8)));
    assert_eq!(b.wait(&mut a), Ok(done(2, 8)));
    assert_eq!(bench.bytes(a.place + 0x5000, 8), data);
}

#[test]
fn pages_that_are_promised_and_never_written_end_the_work() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, _b] = paged(&bench, &sides, 4);
    a.post(1, a.source(0, 8), Operation::Send { immediate: None });
    let Paged { end, faults, .. } = &mut a;
    let completed = end.pair.wait_beside(|| {
        let fault = faults.poll();
        fault.map_or(Ok(false), |fault| end.driver.resume(&fault, true).map(|()| true))
    });
    assert_eq!(completed.unwrap().status, Status::LocalProtection);
}

#[test]
fn work_does_not_wait_for_pages_of_a_region_that_is_gone() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = paged(&bench, &sides, 4);
    a.post(1, a.end.source(0, 8), Operation::Write { to: RegionAddr::new(BASE), key: b.key, immediate: None });
    assert_eq!(a.end.pair.wait(), Err(Error::Stalled));
    b.end.driver.deregister(b.key).unwrap();
    assert_eq!(a.end.pair.wait().unwrap().status, Status::RemoteAccess);
    // Whoever reads of the fault now resumes what nobody waits for, and its slot is free again.
    let mut b = b;
    assert_eq!(b.serve(), Ok(true));
    assert!(b.end.driver.watch_faults(&bench.shared(0x212_0000, 0x1000), 2, None).is_ok());
}

#[test]
fn a_region_without_somebody_to_ask_is_refused_and_pinned_pages_stay() {
    let bench = Bench::new();
    let sides = bench.sides();
    let [mut a, b] = connected(&bench, &sides, Rights::ALL);
    let invalid = Error::Refused(Refused::Invalid);
    let whole = (RegionAddr::new(BASE), Bytes::new(LEN));
    let on_demand = a.driver.register_on_demand(a.domain, Rights::ALL, whole, Granule::PAGE_4K);
    assert_eq!(on_demand, Err(invalid));
    assert_eq!(a.driver.invalidate(a.key, a.at(0), Bytes::new(0x1000)), Err(invalid));
    a.post(1, a.source(0, 8), Operation::Write { to: b.at(0), key: b.key, immediate: None });
    assert_eq!(a.pair.wait(), Ok(done(1, 8)));
}
