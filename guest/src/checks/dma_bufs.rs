//! What dma-bufs of every maker do, through the library's types and, where they would refuse first, without them.

mod bridged;
mod exported;
mod inputs;
mod listed;

use super::asked::Asked;
use super::bench::{PAGE, used};
use super::claim::{Claim, Stop, equal};
use super::worker::Worker;
use peerdma::addr::Bytes;
use peerdma::pcie::PciAddr;
use peerdma_linux::dma_buf::{Access, DmaBuf, FenceStatus, Fences, FencesError, Heap, MemfdRange, Udmabuf};
use peerdma_linux::memory::{Backing, Pages};
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{Command, Nodes, VfioDevice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
/// More than any claim takes of a heap.
const LIMIT: Bytes = Bytes::new(1 << 20);

/// The two allocators, and a device that exports.
struct Tried {
    udmabuf: Udmabuf,
    heap: Heap,
    device: VfioDevice,
    _space: Type1Space,
}

pub(super) fn run(asked: &Asked, worker: &mut Worker<'_>) {
    let target = asked.target;
    let mut claims = own();
    claims.extend(bridged::claims());
    claims.extend(exported::claims());
    claims.extend(inputs::claims());
    claims.extend(listed::claims());
    worker.claims(move || set_up(target), |tried| Ok(tried.device.set_command(Command::MEMORY)?), claims);
}

fn set_up(target: Option<PciAddr>) -> Result<Tried, Stop> {
    let target = target.ok_or_else(|| Stop::broken("name a target with --target"))?;
    let space = Type1Space::open(&Nodes::live(), &[target])?;
    let device = space.device(target)?;
    Ok(Tried { udmabuf: Udmabuf::open()?, heap: Heap::open("system")?, device, _space: space })
}

impl Tried {
    fn exported(&self) -> Result<DmaBuf, Stop> {
        Ok(DmaBuf::from_fd(self.device.export(used()?)?.try_clone()?)?)
    }

    fn udmabuf(&self, pages: &Pages) -> Result<DmaBuf, Stop> {
        let range = MemfdRange { file: file_of(pages)?, offset: Bytes::ZERO, len: pages.len() };
        Ok(self.udmabuf.create(&[range])?)
    }
}

/// Pages of a memfd that keeps its length.
fn sealed(pages: u64) -> Result<Pages, Stop> {
    Ok(Pages::backed(Backing::Memfd, Bytes::new(pages * PAGE.as_u64()))?)
}

fn file_of(pages: &Pages) -> Result<BorrowedFd<'_>, Stop> {
    pages.file().ok_or_else(|| Stop::broken("pages of a memfd have no file"))
}

fn own() -> Vec<Claim<Tried>> {
    vec![
        Claim::new("a udmabuf says who exported it and how long it is, and takes a name of 31 bytes", described),
        Claim::new("two descriptors of one dma-buf have one identity, and two dma-bufs have two", identity),
        Claim::new(
            "what the CPU writes to a udmabuf between begin and end is in its memfds, in the order of the ranges",
            written,
        ),
        Claim::new("a heap gives whole pages, and two mappings of them show the same", heap),
        Claim::new("fences of a dma-buf that no device uses have retired, can be merged, and put back", fences),
        Claim::new("a dma-buf that no device uses is ready for reading and for writing", ready),
    ]
}

fn described(tried: &mut Tried) -> Result<(), Stop> {
    let pages = sealed(2)?;
    let dma_buf = tried.udmabuf(&pages)?;
    equal("its exporter and size", &("udmabuf", pages.len()), &(dma_buf.exporter(), dma_buf.size()))?;
    equal("its name at first", &None, &dma_buf.read_name()?)?;
    let name = "a name of thirty-one bytes: end";
    dma_buf.set_name(name)?;
    equal("its name then", &Some(name.to_string()), &dma_buf.read_name()?)?;
    dma_buf.set_name("ring")?;
    equal("its name at last", &Some("ring".to_string()), &dma_buf.read_name()?)
}

fn identity(tried: &mut Tried) -> Result<(), Stop> {
    let pages = sealed(1)?;
    let (one, other) = (tried.udmabuf(&pages)?, tried.udmabuf(&pages)?);
    equal("whether a copy is the same", &true, &(one.try_clone()?.id() == one.id()))?;
    let sent = DmaBuf::from_fd(one.as_fd().try_clone_to_owned()?)?;
    equal("whether a descriptor that was sent is the same", &true, &(sent.id() == one.id()))?;
    equal("whether another dma-buf of one memfd is the same", &false, &(one.id() == other.id()))
}

fn written(tried: &mut Tried) -> Result<(), Stop> {
    let (first, second) = (sealed(2)?, sealed(1)?);
    let page = PAGE;
    let ranges = [
        MemfdRange { file: file_of(&second)?, offset: Bytes::ZERO, len: page },
        MemfdRange { file: file_of(&first)?, offset: page, len: page },
    ];
    let dma_buf = tried.udmabuf.create(&ranges)?;
    let mapping = dma_buf.map()?;
    let access = mapping.begin_read_write()?;
    access.write(Bytes::new(8), b"second")?;
    access.write(Bytes::new(page.as_u64() + 8), b"first.")?;
    access.end()?;
    let mut seen = ([0; 6], [0; 6]);
    second.read(Bytes::new(8), &mut seen.0)?;
    first.read(Bytes::new(page.as_u64() + 8), &mut seen.1)?;
    equal("what the memfds hold", &(*b"second", *b"first."), &seen)
}

fn heap(tried: &mut Tried) -> Result<(), Stop> {
    let dma_buf = tried.heap.allocate(Bytes::new(100), LIMIT)?;
    equal("its length", &PAGE, &dma_buf.size())?;
    let (one, other) = (dma_buf.map()?, dma_buf.map()?);
    let access = one.begin_write()?;
    access.write(Bytes::new(4092), b"last")?;
    access.end()?;
    let mut seen = [0; 4];
    other.begin_read()?.read(Bytes::new(4092), &mut seen)?;
    equal("what the other mapping shows", b"last", &seen)?;
    equal("whether its heap is among the names", &true, &Heap::names().contains(&"system".to_string()))
}

fn fences(tried: &mut Tried) -> Result<(), Stop> {
    let (one, other) = (tried.udmabuf(&sealed(1)?)?, tried.exported()?);
    let reading = one.export_fences(Access::Read)?;
    let both = reading.merge(&other.export_fences(Access::ReadWrite)?, "both")?;
    equal("whether they have retired", &(FenceStatus::Retired, true), &(both.status()?.0, both.wait(NOW)?))?;
    one.import_fences(Access::Write, &both)?;
    equal("whether anybody waits for them", &true, &one.is_ready(Access::Write, NOW)?)?;
    // A file of fences is told from other files.
    let none = Fences::from_fd(one.as_fd().try_clone_to_owned()?);
    equal("a dma-buf as fences", &Some(FencesError::NotFences), &none.err())
}

fn ready(tried: &mut Tried) -> Result<(), Stop> {
    for dma_buf in [tried.udmabuf(&sealed(1)?)?, tried.heap.allocate(PAGE, LIMIT)?, tried.exported()?] {
        for access in [Access::Read, Access::Write] {
            equal(dma_buf.exporter(), &true, &dma_buf.is_ready(access, NOW)?)?;
        }
    }
    Ok(())
}
