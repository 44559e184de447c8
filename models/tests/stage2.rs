//! A guest's second stage against a move of the buffer behind it, all three as they are shipped.
//!
//! The mover never has the reservation. What keeps a fault from leading to where the memory was is the mapping that it
//! makes first: a move waits for it, and none is made meanwhile. A fault that crosses the notice to let go finds
//! that the slot's sequence has changed, and gives its mapping back; if it installed it, nobody would take it out again. The
//! reservation is for what the move leaves behind: a copy that still runs, whose fence the fault finds there.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::Bytes;
use peerdma::buffer::Lifetime;
use peerdma::buffer::fence::{Fence, SecondStage, Served, Timeline, Usage};
use peerdma::buffer::life::{Answers, Disturbance, Generation, Phase};
use peerdma::buffer::shared::{Attachment, Buffer, Holder, Importer, Mapped, Receipt};
use peerdma::buffer::terms::{Declaration, Methods, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Owner, Peers};
use peerdma_models::orders;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;
use std::sync::Arc;
use std::time::Duration;

/// A model has no clock; its waits end with what is waited for.
const ANY: Duration = Duration::from_secs(1);

const OLD: u64 = 0x10_0000;
const NEW: u64 = 0x20_0000;
/// Nobody finds the bytes anywhere.
const UNDER_WAY: u64 = 0;

fn ranges(at: u64) -> Chunks<Owner> {
    let chunk = Chunk::new(Owner::Ram, Bytes::new(at), Bytes::new(0x1000), MemAttrs::empty()).unwrap();
    Chunks::collect_from([chunk]).unwrap()
}

/// Where an entry leads, and what makes that good.
struct Entry {
    at: u64,
    _mapped: Mapped,
}

/// A monitor's slot for one guest.
struct Slot(SecondStage<Option<Entry>>);

impl Importer for Slot {
    fn let_go(&self, _: Disturbance, _: Receipt) {
        // Dropped without the slot's lock.
        let _taken_out = self.0.invalidate(Option::take);
    }

    fn may_map(&self, _: Generation, _: Receipt) {}
    fn gone(&self) {}
}

impl Slot {
    /// The monitor serves a fault; what is to be waited for before the next, if anything is.
    fn fault(&self, seat: &Attachment) -> Result<(), Fence> {
        let (fault, is_there) = self.0.fault(Option::is_some);
        let Some(mapped) = seat.map().ok().filter(|_| !is_there) else { return Ok(()) };
        let at = mapped.ranges().iter().next().unwrap().offset().as_u64();
        let mut mapped = Some(mapped);
        let served = fault.serve(
            seat.reservation(),
            |reservation| reservation.waits_for(Usage::Kernel).next().cloned().map_or(Ok(at), Err),
            |table, at| *table = mapped.take().map(|_mapped| Entry { at, _mapped }),
        );
        // What was not installed is given back without a lock.
        drop(mapped);
        served.map(|served| assert!(matches!(served, Served::Installed | Served::Again)))
    }

    /// The guest's processor makes an access; no entry is remembered by it past the moment at which it is taken out.
    fn access(&self, memory: &AtomicU64) {
        let (_fault, ()) = self.0.fault(|entry| {
            if let Some(entry) = entry {
                assert_eq!(memory.load(Ordering::Relaxed), entry.at, "the guest reaches where the memory is not");
            }
        });
    }
}

#[test]
fn a_fault_never_leads_to_where_the_memory_was() {
    orders::some(4000, || {
        let offer = Offer::new(ranges(OLD), Stays::UNLESS_PINNED, Place::Ram).unwrap().permitting(Methods::all());
        let (buffer, memory) = (Buffer::new("vram", offer, Answers::YES), Arc::new(AtomicU64::new(OLD)));
        let slot = Arc::new(Slot(SecondStage::new(None)));
        let tables = Declaration::of_tables("guest", Prot::ReadWrite).taking(Lifetime::Movable);
        let seat = buffer.attach(&tables, &Peers::none(), Holder::here("guest"), slot.clone()).unwrap();
        let guest = {
            let (slot, memory) = (Arc::clone(&slot), Arc::clone(&memory));
            thread::spawn(move || {
                for _ in 0..2 {
                    slot.access(&memory);
                    if let Err(fence) = slot.fault(&seat) {
                        let _ = fence.wait_at_most(ANY).unwrap();
                    }
                    slot.access(&memory);
                }
                seat
            })
        };
        let moving = buffer.begin(Disturbance::Move).unwrap().wait(ANY).unwrap();
        memory.store(UNDER_WAY, Ordering::Relaxed);
        let engine = Timeline::new("copy engine");
        let copied = {
            let mut reservation = buffer.reservation().lock();
            reservation.reserve(1).unwrap();
            let copied = engine.issue();
            reservation.add(copied.clone(), Usage::Kernel).unwrap();
            copied
        };
        moving.moved(ranges(NEW), Place::Ram, &Peers::none()).unwrap();
        // The engine copies on when the move is recorded.
        memory.store(NEW, Ordering::Relaxed);
        engine.retire_to(copied.sequence()).unwrap();
        let seat = guest.join().unwrap();
        slot.fault(&seat).unwrap();
        assert_eq!(slot.0.invalidate(|entry| entry.as_ref().map(|entry| entry.at)), Some(NEW));
        drop(slot.0.invalidate(Option::take));
        assert_eq!(buffer.phase(), Phase::Live);
    });
}
