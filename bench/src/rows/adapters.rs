//! Two adapters of an emulated machine that write to each other's memory.

use super::kept;
use crate::row::Turn;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::Bytes;
use peerdma::chunk::Chunk;
use peerdma::dma::consumer::rdma::{PageSizes, Region, RegionAddr};
use peerdma::dma::{Owner, Peers};
use peerdma_emu::device::Shared;
use peerdma_emu::device::nic::{Driver, Key, Operation, QueuePair, Queues, Rights, Source, Status, WorkRequest};
use peerdma_emu::host::{Kernel, wire_address};
use peerdma_emu::machine::{Builder, Delivery};
use peerdma_emu::platform::Platform;
use std::error::Error;
use std::sync::Arc;

/// Where each region begins, in its own addresses.
const BASE: RegionAddr = RegionAddr::new(1 << 40);
/// What large pages of the tables ask for.
const LARGE_PAGE: Bytes = Bytes::new(2 << 20);

/// One adapter with a queue pair and a region of RAM.
struct End {
    driver: Driver<'static>,
    pair: QueuePair<'static>,
    key: Key,
}

/// An adapter that writes so many bytes of RAM into RAM of the other socket, by the adapter there.
pub(super) fn write(len: usize) -> Turn {
    carry(len).unwrap_or_else(|error| unreachable!("a built-in platform has two adapters: {error}"))
}

fn carry(len: usize) -> Result<Turn, Box<dyn Error>> {
    let platform = Platform::built_in("two-socket").ok_or("no such platform")?;
    let machine = Arc::new(Builder::new(&platform).delivery(Delivery::AtOnce).build()?);
    let kernel = kept(Kernel::boot(machine, &platform));
    let (mut here, there) = (end(kernel, "nic0", len)?, end(kernel, "nic1", len)?);
    here.driver.connect(&here.pair, there.driver.port(), there.pair.number())?;
    there.driver.connect(&there.pair, here.driver.port(), here.pair.number())?;
    let local = Source { at: BASE, key: here.key, len: Bytes::new(len as u64) };
    let operation = Operation::Write { to: BASE, key: there.key, immediate: None };
    Ok(Box::new(move |turns| {
        for id in 0..turns {
            let posted = here.pair.post(&WorkRequest { id, local, operation, quiet: false });
            let completed = posted.and_then(|()| here.pair.wait());
            assert!(completed.is_ok_and(|completed| completed.status == Status::Success), "a write between adapters");
        }
    }))
}

fn end(kernel: &'static Kernel, name: &str, len: usize) -> Result<End, Box<dyn Error>> {
    let seat = kept(kernel.seat(kernel.machine().named(name).ok_or("no such function")?)?);
    let (owners, peers) = (kept(kernel.owners()), kept(Peers::of(kernel.topology())));
    let queue = kept(seat.context(owners, peers)?);
    let ram = |len: u64| -> Result<_, Box<dyn Error>> {
        let buffer = kernel.allocate_aligned(Bytes::new(len), LARGE_PAGE)?;
        let start = Bytes::new(buffer.range().start().as_u64());
        let chunk = Chunk::new(Owner::Ram, start, Bytes::new(len), MemAttrs::empty()).ok_or("no such memory")?;
        Ok((buffer, kept(queue.map_one(chunk, Prot::ReadWrite)?)))
    };
    let shared = |len: u64| -> Result<Shared, Box<dyn Error>> {
        let (buffer, mapping) = ram(len)?;
        Ok(buffer.shared(wire_address(&mapping.spans().next().ok_or("an empty mapping")?)))
    };
    let driver = Driver::new(seat, shared(0x2_0000)?);
    let domain = driver.allocate_domain()?;
    let pair = driver.create_pair(domain, Queues::new(shared(Queues::bytes(4, 4).as_u64())?))?;
    // Mapped in large pages, as long buffers are; a way is found anew for each page that the IOMMU translates.
    let (buffer, mapping) = ram((len as u64).max(LARGE_PAGE.as_u64()))?;
    // Not the kernel's one page of zeros.
    buffer
        .shared(wire_address(&mapping.spans().next().ok_or("an empty mapping")?))
        .write(Bytes::ZERO, &vec![7; len])?;
    let region = Region::new(mapping.spans(), BASE, PageSizes::ALL, Prot::ReadWrite)?;
    let key = driver.register(domain, Rights::ALL, &region)?;
    Ok(End { driver, pair, key })
}
