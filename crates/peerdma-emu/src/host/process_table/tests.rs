//! Claims about a process's table, on a machine with an accelerator.

use super::*;
use crate::machine::Builder;
use crate::memory::Gone;
use crate::platform::Platform;
use crate::wire::Requester;
use peerdma::addr::BusAddr;
use std::sync::Mutex;

const MACHINE: &str = include_str!("../../scenario/accelerator.toml");

/// Two pages of bytes, wherever they are read.
#[derive(Debug)]
struct Bytes8k(Mutex<Vec<u8>>);

impl ProcessMemory for Bytes8k {
    fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Gone> {
        let from = at.as_u64() as usize % 0x2000;
        into.copy_from_slice(&self.0.lock().unwrap()[from..from + into.len()]);
        Ok(())
    }

    fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone> {
        let to = at.as_u64() as usize % 0x2000;
        self.0.lock().unwrap()[to..to + from.len()].copy_from_slice(from);
        Ok(())
    }
}

struct Bench {
    kernel: Kernel,
    ram: LentRam,
    node: NodeId,
}

impl Bench {
    fn new() -> Self {
        let platform = Platform::parse(MACHINE, "accelerator.toml").unwrap();
        let ram = LentRam::default();
        let builder = Builder::new(&platform).ram_behind(|range, memory| ram.behind(range, memory));
        let machine = builder.build().unwrap();
        let node = machine.named("accel0").unwrap();
        Self { kernel: Kernel::boot(Arc::new(machine), &platform), ram, node }
    }

    fn table(&self, pages: u32) -> Result<ProcessTable, ProcessTableError> {
        let process = Arc::new(Bytes8k(Mutex::new(vec![7; 0x2000])));
        ProcessTable::new(&self.kernel, self.node, Pasid::new(1).unwrap(), self.ram.clone(), process, pages)
    }

    /// Where the IOMMU leads the accelerator.
    fn leads(&self, at: u64, access: Access) -> Option<PhysAddr> {
        let machine = self.kernel.machine();
        let id = machine.fabric().tree().node(self.node).address;
        let requester = Requester { pasid: Pasid::new(1), ..Requester::plain(id) };
        let iommu = machine.fabric().root().iommu().unwrap();
        iommu.translate(&requester, BusAddr::new(at), access).ok().map(|output| output.to)
    }
}

fn range(at: u64, pages: u64) -> AddrRange<ProcVa> {
    AddrRange::new(ProcVa::new(at), Bytes::new(pages * PAGE)).unwrap()
}

/// A server took frames for each client that came, until the machine had none.
#[test]
fn frames_go_back_to_the_kernel_with_the_process_and_serve_the_next() {
    let bench = Bench::new();
    let pages = (600 << 20) / PAGE as u32;
    let mut ended = Vec::new();
    let mut first = None;
    for round in 0..8 {
        let mut table = bench.table(pages).unwrap();
        assert!(table.map(range(0x7000_0000, 2), Prot::Read));
        let frame = bench.leads(0x7000_0000, Access::Read).unwrap();
        assert_eq!(*first.get_or_insert(frame), frame, "round {round}: the same RAM each time");
        table.unbind();
        assert_eq!((bench.leads(0x7000_0000, Access::Read), table.mapped()), (None, 0));
        assert!(!table.map(range(0x7000_0000, 1), Prot::Read), "its frames are others' now");
        // Whether or not the table is dropped; unbound twice, they do not go back twice.
        if round % 2 == 0 {
            ended.push(table);
        }
    }
    drop(ended);
    let (one, other) = (bench.kernel.allocate(Bytes::new(900 << 20)), bench.kernel.allocate(Bytes::new(900 << 20)));
    let (one, other) = (one.unwrap().range(), other.unwrap().range());
    assert!(one.last() < other.start() || other.last() < one.start());
}

#[test]
fn a_table_that_is_full_maps_nothing_of_what_does_not_fit_and_goes_on_afterwards() {
    let bench = Bench::new();
    let mut table = bench.table(4).unwrap();
    assert!(table.map(range(0x1_0000, 3), Prot::ReadWrite));
    assert!(!table.map(range(0x2_0000, 2), Prot::ReadWrite), "one frame is left");
    assert_eq!((table.mapped(), bench.leads(0x2_0000, Access::Read)), (3, None));
    assert!(table.map(range(0x2_0000, 1), Prot::ReadWrite));
    table.unmap(range(0x1_0000, 3));
    assert_eq!((table.mapped(), bench.leads(0x1_0000, Access::Read)), (1, None));
    assert!(table.map(range(0x3_0000, 3), Prot::ReadWrite), "frames come back with what stood for them");
}

#[test]
fn a_page_that_is_mapped_again_keeps_its_frame_and_permits_what_was_said_last() {
    let bench = Bench::new();
    let mut table = bench.table(1).unwrap();
    let at = range(0x1_0000, 1);
    assert!(table.map(at, Prot::Read));
    let frame = bench.leads(0x1_0000, Access::Read);
    assert!(frame.is_some() && bench.leads(0x1_0000, Access::Write).is_none());
    assert!(table.map(at, Prot::ReadWrite), "without a second frame, of which there is none");
    assert_eq!([Access::Read, Access::Write].map(|access| bench.leads(0x1_0000, access)), [frame; 2]);
    assert!(table.map(at, Prot::Read));
    assert_eq!((bench.leads(0x1_0000, Access::Write), table.mapped()), (None, 1));
}

#[test]
fn a_group_is_answered_once_when_all_of_it_are_with_the_worst_of_them() {
    use Answer::{Failure, Invalid, Success};
    let all = |answers: &[Answer]| {
        let mut group = Group { waiting: answers.len() as u32, complete: true, worst: None };
        let said: Vec<_> = answers.iter().map(|answer| group.answered(*answer)).collect();
        let (last, before) = said.split_last().unwrap();
        assert!(before.iter().all(Option::is_none), "{answers:?}");
        last.unwrap()
    };
    assert_eq!(all(&[Success]), PageResponse::Success);
    assert_eq!(all(&[Success, Success]), PageResponse::Success);
    assert_eq!(all(&[Invalid, Success]), PageResponse::Invalid);
    assert_eq!(all(&[Failure, Invalid, Success]), PageResponse::Failure);
    assert_eq!(all(&[Invalid, Failure, Invalid]), PageResponse::Failure);
    // Its last request is on its way.
    let mut group = Group { waiting: 1, complete: false, worst: None };
    assert_eq!(group.answered(Invalid), None);
    (group.waiting, group.complete) = (1, true);
    assert_eq!(group.answered(Success), Some(PageResponse::Invalid));
}
