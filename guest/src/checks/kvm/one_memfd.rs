//! One memfd that a driver imports, a drive writes into and a virtual machine uses, all at the same time.

use super::super::bench::{PAGE, pattern};
use super::super::claim::{Claim, Stop, equal};
use super::super::importing::{is_listed, node};
use super::inner::Inner;
use super::{MEMORY, Tried, at};
use crate::drives;
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::shared::Part;
use peerdma_linux::dma_buf::{MemfdRange, Udmabuf};
use peerdma_linux::drive::Disk;
use peerdma_linux::kvm::SlotMemory;
use peerdma_linux::memory::{Backing, Pages};
use peerdma_linux::raw;
use peerdma_linux::tree::Tree;
use std::path::Path;
use std::sync::Arc;

const P: u64 = PAGE.as_u64();

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![Claim::new(
        "direct reads land in a memfd whose udmabuf virtio-gpu has imported and whose mapping is a slot, and everybody sees them",
        everywhere,
    )]
}

fn everywhere(tried: &mut Tried) -> Result<(), Stop> {
    let (Some(importer), Some(drive)) = (tried.importer, tried.drive) else {
        return Err(Stop::DoesNotApply("an importer and a drive are named with --importer and --shared".into()));
    };
    let pages = Arc::new(Pages::backed(Backing::Memfd, Bytes::new(3 * P))?);
    let file = pages.file().ok_or_else(|| Stop::broken("pages of a memfd have no file"))?;
    let udmabuf = Udmabuf::open()?.create(&[MemfdRange { file, offset: Bytes::ZERO, len: pages.len() }])?;
    let node = node(importer)?;
    super::super::answer::taken("importing", raw::prime_import(&node, &udmabuf))?;
    let vm = tried.kvm.create_vm()?;
    let whole = Part::new(Bytes::ZERO, pages.len());
    let _slot = vm.add(MEMORY, &SlotMemory::of_pages(&pages), whole, Prot::ReadWrite)?;
    let mut inner = Inner::new(&tried.kvm, &vm)?;
    let mapping = udmabuf.map()?;

    let device = Path::new("/sys/bus/pci/devices").join(drive.to_string());
    let disk = || Disk::find(&Tree::live(), drive);
    drives::wait(&device, "disk", |_| disk().is_ok_and(|disk| disk.path().exists()))?;
    let disk = disk()?.open(Prot::Read)?;
    for round in 1..=2 {
        let mut expected = pattern(round, pages.len().as_u64() as usize);
        pages.write(Bytes::ZERO, &expected)?;
        let word =
            |of: &[u8], at: usize| of[at..at + 4].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        equal("what the guest loads before", &word(&expected, 4096 + 8), &inner.loaded(at(P + 8))?)?;
        // The drive's medium is zeros, which the pattern has nowhere.
        equal("how much was read", &PAGE, &pages.read_from(PAGE, PAGE, &disk, Bytes::ZERO)?)?;
        expected[4096..8192].fill(0);
        for offset in [8, 4096 + 8, 2 * 4096 + 8] {
            equal("what the guest loads after", &word(&expected, offset), &inner.loaded(at(offset as u64))?)?;
        }
        inner.stored(at(P + 16), 0x1234_5678)?;
        expected[4096 + 16..4096 + 20].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
        let mut seen = [vec![0; expected.len()], vec![0; expected.len()]];
        let access = mapping.begin_read()?;
        access.read(Bytes::ZERO, &mut seen[0])?;
        access.end()?;
        pages.read(Bytes::ZERO, &mut seen[1])?;
        equal(
            "whether the dma-buf's mapping and the memfd's show it",
            &true,
            &seen.iter().all(|seen| *seen == expected),
        )?;
    }
    is_listed(importer, &udmabuf)
}
