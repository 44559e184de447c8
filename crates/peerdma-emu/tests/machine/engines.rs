//! A DMA engine in the place of another device.

use crate::bench::{WAYS, ram_chunk, ranges, run};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::chunk::Chunks;
use peerdma::dma::Peers;
use peerdma_emu::device::dma::{Addresses, DmaEngine, Driver, Options};
use peerdma_emu::host::Buffer;
use peerdma_emu::machine::Builder;
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::Operand;

fn engine(builder: Builder<'_>) -> Builder<'_> {
    builder.device("nic0", Box::new(DmaEngine::new()))
}

fn bytes(buffer: &Buffer, at: u64, len: usize) -> Vec<u8> {
    let (memory, start) = buffer.memory();
    let mut bytes = vec![0; len];
    memory.read(Bytes::new(start.as_u64() + at), &mut bytes).unwrap();
    bytes
}

/// Two pages follow each other for the engine and nowhere else. What is translated for the first
/// holds for the first alone.
#[test]
fn a_doorbell_across_two_pages_rings_both_and_nothing_behind_the_first() {
    let platform = Platform::built_in("two-socket").unwrap();
    for way in WAYS {
        run(&platform, way, engine, |kernel| {
            let seat = kernel.seat(kernel.machine().named("nic0").unwrap()).unwrap();
            let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
            let context = seat.context(&owners, &peers).unwrap();
            let [first, behind, second] = [(); 3].map(|()| kernel.allocate(Bytes::new(0x1000)).unwrap());
            let list = Chunks::collect_from([ram_chunk(&first), ram_chunk(&second)]).unwrap();
            let mapping = context.map(list.view(), Prot::ReadWrite).unwrap();
            let at = ranges(&mapping)[0].start();
            for addresses in [Addresses::Untranslated, Addresses::TranslateFirst] {
                let driver = Driver::new(&seat).with(Options { addresses, ..Options::default() });
                let bell = at.checked_add(Bytes::new(0xffc)).unwrap();
                driver.ring(bell, Operand::Double(0x1122_3344_5566_7788)).unwrap();
                kernel.machine().settle(10_000);
                assert_eq!(bytes(&first, 0xffc, 4), [0x88, 0x77, 0x66, 0x55], "{way:?} {addresses:?}");
                assert_eq!(bytes(&second, 0, 4), [0x44, 0x33, 0x22, 0x11], "{way:?} {addresses:?}");
                assert_eq!(bytes(&behind, 0, 8), [0; 8], "{way:?} {addresses:?}");
                driver.fill(at, Bytes::new(0x2000), 0).unwrap();
            }
        });
    }
}

/// Who waits for a job reads how it ended, and not how it stood before it ended.
#[test]
fn jobs_that_follow_each_other_end_each_with_its_own_status() {
    let platform = Platform::built_in("two-socket").unwrap();
    for way in WAYS {
        run(&platform, way, engine, |kernel| {
            let seat = kernel.seat(kernel.machine().named("nic0").unwrap()).unwrap();
            let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
            let context = seat.context(&owners, &peers).unwrap();
            let buffer = kernel.allocate(Bytes::new(0x1000)).unwrap();
            let mapping = context.map_one(ram_chunk(&buffer), Prot::ReadWrite).unwrap();
            let (at, driver) = (ranges(&mapping)[0].start(), Driver::new(&seat));
            for count in 0..300 {
                assert_eq!(driver.fetch_add(at, Operand::Double(1)), Ok(count), "{way:?}");
            }
            assert_eq!(bytes(&buffer, 0, 8), 300_u64.to_le_bytes(), "{way:?}");
        });
    }
}
