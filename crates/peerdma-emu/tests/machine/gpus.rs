//! GPUs: copies both ways, and memory that moves out and back.

use crate::bench::{WAYS, pattern, ram, run, servers, window};
use peerdma::addr::Bytes;
use peerdma::dma::Peers;
use peerdma_emu::device::channel::Queue;
use peerdma_emu::device::gpu::{Driver, Error, PIECE, Place, Status};
use peerdma_emu::memory::Memory;
use peerdma_emu::platform::Platform;

#[test]
fn a_gpu_copies_both_ways_and_brings_back_what_moved_out() {
    const LEN: usize = 0x5_0000;
    let mut platforms = servers();
    platforms.push(("smmu", Platform::built_in("arm-slots").unwrap()));
    for (kind, platform) in platforms {
        for way in WAYS {
            run(
                &platform,
                way,
                |builder| builder,
                |kernel| {
                    let seat = kernel.seat(kernel.machine().named("gpu0").unwrap()).unwrap();
                    let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
                    let context = seat.context(&owners, &peers).unwrap();
                    let rings = ram(kernel, &context, 0x1000);
                    let (source, target) = (ram(kernel, &context, LEN as u64), ram(kernel, &context, LEN as u64));
                    let mut gpu = Driver::open(&seat, 3, Queue::new(rings.shared.clone())).unwrap();
                    let bytes = pattern(5, LEN);
                    source.fill(&bytes);
                    let (vram, len) = (Place::Vram(Bytes::new(PIECE.as_u64() * 3)), Bytes::new(LEN as u64));
                    gpu.copy(Place::Bus(source.shared.device()), vram, len).unwrap();
                    let shown = window(kernel, "gpu0", 2);
                    let at = PIECE.as_u64() * 3;
                    assert!(shown.bytes(at, LEN) == bytes, "{kind} {way:?}");

                    // What moved out is where it was sent, and not in VRAM for the engine.
                    let (whole, start) = (Bytes::new(PIECE.as_u64() * 5), Bytes::new(at));
                    assert_eq!(whole, len);
                    gpu.evict(start, target.shared.device(), whole).unwrap();
                    assert!(target.bytes(LEN) == bytes, "{kind} {way:?}");
                    let moved = gpu.copy(vram, Place::Vram(Bytes::ZERO), PIECE).unwrap_err();
                    assert!(matches!(moved, Error::Failed { status: Status::Moved, .. }), "{moved}");

                    // Whoever writes through the BAR meanwhile writes what is left behind.
                    shown.write(start, &[0xee; 64]).unwrap();
                    target.fill(&pattern(6, LEN));
                    gpu.restore(start, whole).unwrap();
                    assert!(shown.bytes(at, LEN) == pattern(6, LEN), "{kind} {way:?}");
                    gpu.copy(vram, Place::Bus(source.shared.device()), len).unwrap();
                    assert!(source.bytes(LEN) == pattern(6, LEN), "{kind} {way:?}");
                },
            );
        }
    }
}
