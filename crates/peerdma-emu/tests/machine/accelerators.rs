//! An accelerator that works for two processes, whose pages come when they are touched.

use crate::bench::{everywhere, platform, process};
use peerdma::access::Prot;
use peerdma::addr::{BusAddr, Bytes};
use peerdma_emu::device::accel::{Driver, Error, Operation, Status};
use peerdma_emu::device::channel::Queue;
use peerdma_emu::host::{Buffer, Kernel, Pager};
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::Pasid;

/// Where a process has its memory; the same for both.
const HEAP: u64 = 0x7f00_0000_0000;
const RINGS: u64 = 0x6000_0000;
const HEAP_LEN: u64 = 0x8_0000;

/// Machines in which the second adapter is an accelerator.
fn machines() -> Vec<(&'static str, Platform)> {
    let translated = "kind = \"vtd\"\nmode = \"translated\"";
    let accel = ("model = \"nic\"", "model = \"accel\"");
    vec![
        ("vtd", platform("two-socket", &[accel])),
        ("amd", platform("two-socket", &[accel, (translated, "kind = \"amd\"\nmode = \"translated\"")])),
        ("smmu", platform("arm-slots", &[accel])),
    ]
}

/// A process that the accelerator works for.
struct Program {
    pasid: Pasid,
    heap: Buffer,
    rings: Buffer,
}

impl Program {
    fn new(kernel: &Kernel, pager: &Pager<'_>, number: u32) -> Self {
        let node = kernel.machine().named("nic0").unwrap();
        let pasid = Pasid::new(number).unwrap();
        let space = kernel.process_space(node, pasid).unwrap();
        let heap = kernel.allocate(Bytes::new(HEAP_LEN)).unwrap();
        let rings = kernel.allocate(Bytes::new(0x1000)).unwrap();
        pager.add(node, pasid, space);
        pager.promise(node, pasid, process(HEAP, HEAP_LEN), heap.range().start(), Prot::ReadWrite);
        pager.promise(node, pasid, process(RINGS, 0x1000), rings.range().start(), Prot::ReadWrite);
        Self { pasid, heap, rings }
    }

    fn queue(&self) -> Queue {
        Queue { pasid: Some(self.pasid), ..Queue::new(self.rings.shared(BusAddr::new(RINGS))) }
    }

    fn write(&self, at: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.heap.shared(BusAddr::new(HEAP)).write(Bytes::new(at), &bytes).unwrap();
    }

    fn read(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.heap.shared(BusAddr::new(HEAP)).read(Bytes::new(at), &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// A list with one element in each page of the heap.
    fn list(&self, value: u64) -> BusAddr {
        let pages = HEAP_LEN >> 12;
        for page in 0..pages {
            let next = if page + 1 == pages { 0 } else { HEAP + (page + 1) * 0x1000 };
            self.write(page << 12, &[next, value + page]);
        }
        BusAddr::new(HEAP)
    }
}

#[test]
fn two_processes_have_the_same_addresses_and_their_own_memory() {
    everywhere(&machines(), |kernel, what| {
        let seat = kernel.seat(kernel.machine().named("nic0").unwrap()).unwrap();
        let pager = Pager::new(kernel);
        let (one, two) = (Program::new(kernel, &pager, 5), Program::new(kernel, &pager, 6));
        let mmio = pager.beside(&seat);
        let mut first = Driver::open(&mmio, 0, one.queue()).unwrap();
        let mut second = Driver::open(&mmio, 1, two.queue()).unwrap();
        let pages = HEAP_LEN >> 12;
        let sum = |value: u64| (0..pages).map(|page| value + page).sum::<u64>();

        let tickets = [
            first.submit(Operation::Sum { head: one.list(10), most: 1000 }).unwrap(),
            second.submit(Operation::Sum { head: two.list(1000), most: 1000 }).unwrap(),
        ];
        assert_eq!(second.wait(tickets[1]).unwrap(), sum(1000), "{what}");
        assert_eq!(first.wait(tickets[0]).unwrap(), sum(10), "{what}");
        // Every page of both once, and the rings.
        assert_eq!(pager.brought(), 2 * (pages + 1), "{what}");

        first.run(Operation::Store { to: BusAddr::new(HEAP + 0x40), value: 77 }).unwrap();
        kernel.machine().settle(100_000);
        assert_eq!((one.read(0x40), two.read(0x40)), (77, 0), "{what}");

        // Nobody promised this page to anybody.
        let away = BusAddr::new(HEAP + HEAP_LEN);
        let fault = second.run(Operation::Sum { head: away, most: 1 }).unwrap_err();
        assert!(matches!(fault, Error::Failed { status: Status::Fault, .. }), "{what}: {fault}");
        assert_eq!(first.sum(BusAddr::new(HEAP + 0x1000), 1000).unwrap(), sum(10) - 10, "{what}");
    });
}

#[test]
fn a_page_that_is_taken_away_is_asked_for_again() {
    everywhere(&machines(), |kernel, what| {
        let node = kernel.machine().named("nic0").unwrap();
        let seat = kernel.seat(node).unwrap();
        let pager = Pager::new(kernel);
        let program = Program::new(kernel, &pager, 9);
        let mmio = pager.beside(&seat);
        let mut context = Driver::open(&mmio, 2, program.queue()).unwrap();
        let head = program.list(1);
        let sum = context.sum(head, 1000).unwrap();
        let before = pager.brought();
        pager.take_away(node, program.pasid, process(HEAP + 0x3000, 0x2000));
        assert_eq!(context.sum(head, 1000).unwrap(), sum, "{what}");
        assert_eq!(pager.brought(), before + 2, "{what}");
        let len = Bytes::new(0x1_2345);
        let (from, to) = (BusAddr::new(HEAP + 0x10), BusAddr::new(HEAP + 0x4_0333));
        context.run(Operation::Copy { from, to, len }).unwrap();
        kernel.machine().settle(100_000);
        assert_eq!(program.read(0x4_0333 + 0xff0), program.read(0x1000), "{what}");
    });
}
