//! Chunks as they are typed.

use super::{ChunkArgument, InboundArgument, Place, StateArgument, Stated};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use proptest::prelude::*;

fn read(text: &str) -> Option<(Place, Option<Prot>)> {
    text.parse().ok().map(|ChunkArgument { place, prot, .. }| (place, prot))
}

fn range(start: u64, len: u64) -> AddrRange<PhysAddr> {
    AddrRange::new(PhysAddr::new(start), Bytes::new(len)).unwrap()
}

#[test]
fn memory_devices_and_bars_are_told_apart_by_their_prefix() {
    assert_eq!(read("ram:0x100000000+2M"), Some((Place::Ram(range(1 << 32, 2 << 20)), None)));
    assert_eq!(read("ram:4096+1:ro"), Some((Place::Ram(range(4096, 1)), Some(Prot::Read))));
    assert_eq!(read("private:0x0+4KiB:rw"), Some((Place::Private(range(0, 4096)), Some(Prot::ReadWrite))));
    let device = Place::Device { name: "accel-0".into(), range: range(0x9000_0000, 1 << 20) };
    assert_eq!(read("device:accel-0@0x90000000+1M"), Some((device, None)));
    let bar = "0000:41:00.0/bar1+0x1000,4KiB";
    assert_eq!(read(&format!("{bar}:wo")), Some((Place::Function(bar.into()), Some(Prot::Write))));
    assert_eq!(read("nic0"), Some((Place::Function("nic0".into()), None)));
}

#[test]
fn what_is_empty_or_runs_past_the_end_is_no_chunk() {
    for wrong in [
        "",
        ":ro",
        "ram:",
        "ram:0x1000",
        "ram:0x1000+0",
        "ram:0x1000+",
        "ram:+4K",
        "ram:0xffffffffffffffff+1",
        "ram:0xffffffffffffffff+2",
        "ram:-1+4K",
        "private:4K",
        "device:accel+4K",
        "device:@0x1000+4K",
        "device:a b@0x1000+4K",
    ] {
        assert_eq!(read(wrong), None, "{wrong:?}");
    }
}

#[test]
fn stated_routes_and_inbound_windows_have_both_sides() {
    let state = |text: &str| text.parse::<StateArgument>().ok().map(|state| state.reach);
    assert_eq!(state("accel=bus:0x9000"), Some(Stated::Bus(BusAddr::new(0x9000))));
    assert_eq!((state("a=iova"), state("a=physical")), (Some(Stated::Iova), Some(Stated::Physical)));
    for wrong in ["", "a", "=iova", "a=bus:", "a=bus", "a=cpu", "a=bus:0x"] {
        assert_eq!(state(wrong), None, "{wrong:?}");
    }
    let window: InboundArgument = "0x80000000=0x0+1G".parse().unwrap();
    assert_eq!((window.0.cpu().start(), window.0.bus().start()), (PhysAddr::new(0x8000_0000), BusAddr::new(0)));
    for wrong in ["", "0x0+1G", "0x0=0x0", "0x0=0x0+0", "0x0=0xfffffffffffff000+8K", "1g=0+4K"] {
        assert!(wrong.parse::<InboundArgument>().is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_chunk_or_refused(text in "\\PC{0,40}") {
        let _ = read(&text);
        let _ = (text.parse::<InboundArgument>(), text.parse::<StateArgument>());
    }

    #[test]
    fn almost_chunks_never_panic_and_what_is_read_ends_below_2_to_the_64(
        text in "(ram:|private:|device:[a-z@]{0,3}@?|[0-9a-f]{1,2}:)?(0x)?[0-9a-fA-F]{0,17}[+,/=]?(0x)?[0-9]{0,20}[KMGTiB]{0,3}(:ro|:wo|:rw|:r)?"
    ) {
        if let Some((Place::Ram(range) | Place::Private(range) | Place::Device { range, .. }, _)) = read(&text) {
            prop_assert!(range.start().checked_add(range.len()).is_some());
        }
    }
}
