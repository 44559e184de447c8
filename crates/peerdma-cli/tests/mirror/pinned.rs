//! One context that uses pinned memory and memory that faults, and a device that waits in vain for neither.

use crate::device::{Bench, Own, Stop, open};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes, ProcVa};
use peerdma_emu::device::accel::Operation;
use peerdma_emu::machine::Delivery;
use peerdma_linux::mirror::Mirror;
use peerdma_linux::pin::Pinner;
use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

fn bus(at: ProcVa) -> BusAddr {
    BusAddr::new(at.as_u64())
}

#[test]
fn an_accelerator_follows_pointers_of_this_process_and_asks_for_what_is_not_pinned() {
    let pinner = match Pinner::new() {
        Ok(pinner) => pinner,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED mirror-accelerator-pin: {error}");
            return;
        }
    };
    let pin = |at: AddrRange<ProcVa>| -> Result<_, Box<dyn Error>> { Ok(pinner.pin_foreign(at.start(), at.len())?) };
    for delivery in [Delivery::AtOnce, Delivery::Queued] {
        let bench = Bench::new(delivery, 7);
        let mirror = Mirror::of_owned_memory(bench.table(1, Arc::new(Own), 512)).unwrap();
        let rings = mirror.create_pinned(Bytes::new(0x1000), pin).unwrap();
        let pinned = mirror.create_pinned(Bytes::new(0x8000), pin).unwrap();
        let faulting = mirror.create(Bytes::new(0x8000)).unwrap();
        // A list that goes back and forth between the two, an element a page.
        let place = |number: u64| {
            let memory = if number.is_multiple_of(2) { &pinned } else { &faulting };
            ProcVa::new(memory.range().start().as_u64() + number / 2 * 0x1000 + 16 * number)
        };
        for number in 0..16_u64 {
            let memory = if number.is_multiple_of(2) { &pinned } else { &faulting };
            let next = if number == 15 { 0 } else { place(number + 1).as_u64() };
            memory.write(place(number), &[next.to_le_bytes(), (number * number).to_le_bytes()].concat()).unwrap();
        }
        let seat = bench.kernel.seat(bench.node).unwrap();
        let registers = bench.registers(&seat);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stop = Stop(&over);
            scope.spawn(|| bench.serve(&mirror, &over));
            scope.spawn(|| bench.run(&mirror, &over));
            let mut driver = open(&registers, 0, 1, Arc::new(Own), rings.range());
            assert_eq!(driver.sum(bus(place(0)), 100), Ok((0..16).map(|number| number * number).sum()));
            let counts = mirror.counts();
            assert_eq!((counts.brought, counts.requests_in_pinned), (8, 0), "eight pages fault, and eight do not");
            // Closed by its owner, it is refused, and what was pinned goes on.
            let until = Instant::now() + Duration::from_secs(60);
            faulting.protect(faulting.range(), Some(Prot::Read), until).unwrap();
            let store = |to| Operation::Store { to: bus(to), value: 9 };
            assert!(driver.run(store(place(1))).is_err());
            assert!(driver.run(store(place(2))).is_ok());
            let mut value = [0; 8];
            pinned.read(place(2), &mut value).unwrap();
            assert_eq!(u64::from_le_bytes(value), 9);
            assert_eq!(mirror.counts().requests_in_pinned, 0);
        });
    }
}
