//! NVMe drives between RAM, media and peers.

use crate::bench::{Queue, Ram, WAYS, Way, bar_chunk, pattern, platform, ram, ranges, run, servers, window};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::dma::Peers;
use peerdma_emu::device::Shared;
use peerdma_emu::device::nvme::{BlockSize, Driver, DriverError, Form, Media, QueueMemory};
use peerdma_emu::host::{Kernel, Seat};
use peerdma_emu::machine::Builder;
use peerdma_emu::memory::{Memory, Striped};
use peerdma_emu::platform::Platform;
use std::sync::Arc;

/// Memory that a drive and its driver share.
struct Desk<'c, 'a> {
    admin: [Ram<'c, 'a>; 2],
    io: [Ram<'c, 'a>; 2],
    scratch: Ram<'c, 'a>,
}

impl<'c, 'a> Desk<'c, 'a> {
    fn new(kernel: &Kernel, queue: &'c Queue<'a>) -> Self {
        let of = |len| ram(kernel, queue, len);
        Self { admin: [of(0x1000), of(0x1000)], io: [of(0x1000), of(0x1000)], scratch: of(0x4000) }
    }

    fn admin(&self) -> QueueMemory {
        let [submission, completion] = &self.admin;
        QueueMemory { submission: submission.shared.clone(), completion: completion.shared.clone() }
    }

    fn io(&self) -> QueueMemory {
        let [submission, completion] = &self.io;
        QueueMemory { submission: submission.shared.clone(), completion: completion.shared.clone() }
    }

    fn bring_up<'s>(&self, seat: &'s Seat<'_>) -> Driver<'s> {
        Driver::bring_up(seat, self.admin(), self.scratch.shared.clone()).unwrap()
    }
}

fn medium() -> Arc<Striped> {
    Arc::new(Striped::new(Bytes::new(64 << 20)))
}

fn with_medium<'p>(builder: Builder<'p>, name: &str, medium: &Arc<Striped>) -> Builder<'p> {
    builder.media(name, Media::new(medium.clone(), BlockSize::Short))
}

fn medium_bytes(medium: &Striped, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    medium.read(Bytes::new(at), &mut bytes).unwrap();
    bytes
}

/// RAM to the medium and back, by both forms of data pointers, several commands long.
fn there_and_back(platform: &Platform, way: Way, name: &str) {
    let medium = medium();
    run(
        platform,
        way,
        |builder| with_medium(builder, name, &medium),
        |kernel| {
            let seat = kernel.seat(kernel.machine().named(name).unwrap()).unwrap();
            let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
            let context = seat.context(&owners, &peers).unwrap();
            let desk = Desk::new(kernel, &context);
            let mut drive = desk.bring_up(&seat);
            let queue = drive.create_io_queue(desk.io(), None).unwrap();
            // In steps, longer than the longest command.
            let len = if way == Way::AtOnce { drive.longest().as_u64() + 0x1_0000 } else { 0x5_1000 };
            let (from, to) = (ram(kernel, &context, len), ram(kernel, &context, len));
            for (form, seed) in [(Form::Prps, 7), (Form::Sgl, 8)] {
                let bytes = pattern(seed, len as usize);
                from.fill(&bytes);
                drive.write(queue, 16, &[from.range()], form).unwrap();
                assert!(medium_bytes(&medium, 16 << 9, len as usize) == bytes, "{form:?}");
                drive.read(queue, 16, &[to.range()], form).unwrap();
                // Posted data is before its completion, so that nothing else has to be waited for.
                assert!(to.bytes(len as usize) == bytes, "{form:?}");
            }
            drive.compare(queue, 16, &[to.range()], Form::Prps).unwrap();
            drive.flush(queue).unwrap();
            drive.shut_down().unwrap();
        },
    );
}

#[test]
fn a_drive_reads_and_writes_ram_under_every_kind_of_address_space() {
    for (_, platform) in servers() {
        for way in WAYS {
            there_and_back(&platform, way, "nvme0");
        }
    }
}

#[test]
fn a_drive_in_an_arm_slot_reads_and_writes_ram() {
    let platform = Platform::built_in("arm-slots").unwrap();
    WAYS.into_iter().for_each(|way| there_and_back(&platform, way, "nvme0"));
}

#[test]
fn a_drive_behind_a_window_reads_and_writes_ram() {
    let words = "kind = \"window\"\nmode = \"translated\"";
    let platform = platform("two-socket", &[("kind = \"vtd\"\nmode = \"translated\"", words)]);
    WAYS.into_iter().for_each(|way| there_and_back(&platform, way, "nvme4"));
}

#[test]
fn a_drive_reads_into_a_gpu_and_writes_out_of_it() {
    const LEN: u64 = 0x1_4000;
    for (kind, platform) in servers() {
        for (drive, gpu) in [("nvme0", "gpu0"), ("nvme0", "gpu1")] {
            for way in WAYS {
                let medium = medium();
                let bytes = pattern(3, LEN as usize);
                medium.write(Bytes::new(0x2000), &bytes).unwrap();
                run(
                    &platform,
                    way,
                    |builder| with_medium(builder, drive, &medium),
                    |kernel| {
                        let seat = kernel.seat(kernel.machine().named(drive).unwrap()).unwrap();
                        let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
                        let context = seat.context(&owners, &peers).unwrap();
                        let desk = Desk::new(kernel, &context);
                        let mut drive = desk.bring_up(&seat);
                        let queue = drive.create_io_queue(desk.io(), Some(1)).unwrap();
                        let chunk = bar_chunk(kernel, gpu, 2, 0x30_0000, LEN);
                        let mapping = context.map_p2p(chunk, Prot::ReadWrite).unwrap();
                        drive.read(queue, 16, &ranges(&mapping), Form::Prps).unwrap();
                        // The completion went another way than the data.
                        kernel.machine().settle(1_000_000);
                        let found = window(kernel, gpu, 2).bytes(0x30_0000, LEN as usize);
                        assert!(found == bytes, "{kind} {way:?} {gpu}");
                        drive.write(queue, 0x8000, &ranges(&mapping), Form::Sgl).unwrap();
                        assert!(medium_bytes(&medium, 0x8000 << 9, LEN as usize) == bytes, "{kind} {way:?} {gpu}");
                        assert!(!kernel.machine().take_interrupts().is_empty(), "{kind} {way:?}");
                    },
                );
            }
        }
    }
}

#[test]
fn queues_and_lists_lie_in_the_drives_own_memory() {
    for (kind, platform) in servers() {
        for way in WAYS {
            let medium = medium();
            run(
                &platform,
                way,
                |builder| with_medium(builder, "nvme0", &medium),
                |kernel| {
                    let node = kernel.machine().named("nvme0").unwrap();
                    let seat = kernel.seat(node).unwrap();
                    let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
                    let context = seat.context(&owners, &peers).unwrap();
                    // An address that nothing of the machine has, so that nothing of it is shadowed.
                    let base = BusAddr::new(0x7f_0000_0000_0000);
                    let (bar, offset, len) = Driver::enable_cmb(&seat, base).unwrap();
                    assert_eq!((bar, offset, len), (2, Bytes::ZERO, Bytes::new(256 << 20)));
                    let buffer: Arc<dyn Memory> = Arc::new(window(kernel, "nvme0", bar));
                    let part = |at: u64, len: u64| {
                        let device = BusAddr::new(base.as_u64() + at);
                        Shared::new(buffer.clone(), Bytes::new(at), Bytes::new(len), device).unwrap()
                    };
                    let queues =
                        |at| QueueMemory { submission: part(at, 0x1000), completion: part(at + 0x1000, 0x1000) };
                    let mut drive = Driver::bring_up(&seat, queues(0), part(0x10_0000, 0x4000)).unwrap();
                    let queue = drive.create_io_queue(queues(0x4000), None).unwrap();
                    let data = ram(kernel, &context, 0x1_8000);
                    let bytes = pattern(9, 0x1_8000);
                    data.fill(&bytes);
                    for form in [Form::Prps, Form::Sgl] {
                        drive.write(queue, 4, &[data.range()], form).unwrap();
                        assert!(medium_bytes(&medium, 4 << 9, 0x1_8000) == bytes, "{kind} {way:?}");
                    }
                    // Data in the buffer, and no further than its end.
                    let inside = AddrRange::new(BusAddr::new(base.as_u64() + 0x20_0000), Bytes::new(0x1_8000)).unwrap();
                    drive.read(queue, 4, &[inside], Form::Prps).unwrap();
                    assert!(window(kernel, "nvme0", 2).bytes(0x20_0000, 0x1_8000) == bytes, "{kind} {way:?}");
                    let end = BusAddr::new(base.as_u64() + len.as_u64() - 0x1000);
                    let over = AddrRange::new(end, Bytes::new(0x2000)).unwrap();
                    let error = drive.read(queue, 4, &[over], Form::Sgl).unwrap_err();
                    assert!(matches!(error, DriverError::Status { .. }), "{error}");
                },
            );
        }
    }
}

#[test]
fn data_at_an_address_that_is_not_mapped_is_a_status_and_no_more() {
    for way in WAYS {
        run(
            &Platform::built_in("two-socket").unwrap(),
            way,
            |builder| builder,
            |kernel| {
                let seat = kernel.seat(kernel.machine().named("nvme2").unwrap()).unwrap();
                let (owners, peers) = (kernel.owners(), Peers::of(kernel.topology()));
                let context = seat.context(&owners, &peers).unwrap();
                let desk = Desk::new(kernel, &context);
                let mut drive = desk.bring_up(&seat);
                let queue = drive.create_io_queue(desk.io(), None).unwrap();
                let nowhere = AddrRange::new(BusAddr::new(0x50_0000_0000), Bytes::new(0x2000)).unwrap();
                let error = drive.write(queue, 0, &[nowhere], Form::Prps).unwrap_err();
                assert!(matches!(error, DriverError::Status { .. }), "{error}");
                drive.flush(queue).unwrap();
            },
        );
    }
}

/// A driver that waits for what never comes gets told, whichever way the machine runs.
#[test]
fn a_drive_that_cannot_reach_its_queues_is_fatal_and_its_driver_ends() {
    for way in WAYS {
        run(
            &Platform::built_in("two-socket").unwrap(),
            way,
            |builder| builder,
            |kernel| {
                let seat = kernel.seat(kernel.machine().named("nvme0").unwrap()).unwrap();
                let memory = |at| kernel.allocate(Bytes::new(0x2000)).unwrap().shared(BusAddr::new(at));
                let admin = QueueMemory { submission: memory(0x10_0000), completion: memory(0x20_0000) };
                let error = Driver::bring_up(&seat, admin, memory(0x30_0000)).err();
                assert_eq!(error, Some(DriverError::Fatal), "{way:?}");
                while kernel.machine().pause() {}
            },
        );
    }
}
