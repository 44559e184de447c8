use super::{bar, endpoint, range, writes};
use crate::config::{
    AcsDescription, BarDescription, Buses, Description, ExpressDescription, PasidDescription, Space, Width,
};
use peerdma::addr::Bytes;
use peerdma::pcie::express::PortType;
use proptest::prelude::*;

/// What a read brings back after all ones were written, as Linux sizes a BAR.
fn sized(space: &Space, index: u8) -> u64 {
    let at = 0x10 + 4 * u16::from(index);
    let before = space.read(at, Width::Four);
    space.write(at, Width::Four, !0);
    let stuck = space.read(at, Width::Four);
    space.write(at, Width::Four, before);
    let mut mask = u64::from(stuck & !0xf);
    if stuck & 7 == 4 {
        let before = space.read(at + 4, Width::Four);
        space.write(at + 4, Width::Four, !0);
        mask |= u64::from(space.read(at + 4, Width::Four)) << 32;
        space.write(at + 4, Width::Four, before);
    }
    mask & mask.wrapping_neg()
}

#[test]
fn ones_written_to_a_bar_come_back_as_its_size_and_its_address_returns() {
    for size_log2 in 4..=31 {
        let device = endpoint(vec![bar(5, 0x8000_0000, 1 << size_log2, false)]);
        assert_eq!(sized(&device, 5), 1 << size_log2);
        assert_eq!(device.bar(5).unwrap().start().as_u64(), 0x8000_0000);
    }
    for size_log2 in 4..=63 {
        let device = endpoint(vec![bar(2, 1 << 63, 1 << size_log2, true)]);
        assert_eq!(sized(&device, 2), 1 << size_log2);
        assert_eq!(device.bar(2).unwrap().start().as_u64(), 1 << 63);
    }
    assert_eq!(sized(&endpoint(Vec::new()), 0), 0, "no BAR, no bit");
}

#[test]
fn a_bar_takes_a_new_address_without_the_bits_below_its_size() {
    let device = endpoint(vec![bar(0, 0, 1 << 20, true)]);
    assert!(device.write(0x10, Width::Four, 0x9abc_def1));
    assert!(device.write(0x14, Width::Two, 0x41));
    assert_eq!(device.bar(0), range(0x41_9ab0_0000, 0x41_9abf_ffff));
    assert_eq!(device.read(0x10, Width::Four) & 0xf, 0xc, "the type is the device's");
    assert!(!device.write(0x10, Width::Four, 0x9ab0_0000), "nothing changed");
}

#[test]
fn a_resizable_bar_takes_the_sizes_that_it_offers_and_no_others() {
    let resizable = [256 << 20, 64 << 30].map(Bytes::new).to_vec();
    let large = BarDescription { resizable, ..bar(2, 0x60_1000_0000, 256 << 20, true) };
    let device = endpoint(vec![bar(0, 0x9000_0000, 4096, false), large]);
    assert_eq!(device.read(0x100, Width::Two), 0x15);
    let control = device.read(0x108, Width::Four);
    assert_eq!((control & 7, control >> 5 & 7, control >> 8 & 0x3f), (2, 1, 8), "BAR 2, one entry, 2^28");
    assert!(!device.write(0x108, Width::Four, 10 << 8), "2^30 is not offered");
    assert!(device.write(0x108, Width::Four, 16 << 8));
    let bar = device.bar(2).unwrap();
    assert_eq!((bar.len(), bar.start().as_u64()), (Bytes::new(64 << 30), 0x60_0000_0000));
    assert_eq!(sized(&device, 2), 64 << 30);
    assert_eq!(device.read(0x104, Width::Four) >> 4, 1 << 8 | 1 << 16);
    device.reset();
    assert_eq!(device.bar(2), range(0, (256 << 20) - 1));
}

#[test]
fn acs_bits_without_capability_stay_clear() {
    let port = |capability: u16| {
        let acs = Some(AcsDescription { capability, control: 0xffff, ..AcsDescription::default() });
        Space::new(&Description { acs, ..Description::express(PortType::DownstreamPort) })
    };
    for capability in 0..=0xff_u16 {
        let port = port(capability);
        let possible = capability & 0x7f | if capability & 0x80 != 0 { 0x1f80 } else { 0 };
        assert_eq!(port.acs().unwrap().control, possible, "as described");
        port.write(0x106, Width::Two, 0);
        assert_eq!(port.acs().unwrap().control, 0);
        assert_eq!(port.write(0x106, Width::Two, 0xffff), possible != 0);
        assert_eq!(port.acs().unwrap().control, possible, "as written");
        assert_eq!(port.acs().unwrap().capability, capability);
    }
}

#[test]
fn an_egress_vector_can_be_written_up_to_its_size() {
    let acs = Some(AcsDescription { capability: 0x2120, ..AcsDescription::default() });
    let port = Space::new(&Description { acs, ..Description::express(PortType::RootPort) });
    assert!(port.write(0x10c, Width::Four, !0));
    assert!(port.egress_bit(32) && !port.egress_bit(31) && !port.egress_bit(33));
    assert!(!port.write(0x110, Width::Four, !0), "nothing lies behind it");
}

#[test]
fn payloads_past_what_is_supported_are_not_taken() {
    let device = endpoint(Vec::new());
    let at = express_at(&device) + 8;
    assert_eq!(device.max_payload(), Some(Bytes::new(128)));
    assert!(device.write(at, Width::Two, 2 << 5 | 5 << 12));
    assert_eq!((device.max_payload(), device.max_read_request()), (Some(Bytes::new(512)), Some(Bytes::new(4096))));
    assert!(!device.relaxed_ordering() && !device.no_snoop());
    assert!(device.write(at, Width::Two, 3 << 5 | 6 << 12 | 1 << 4 | 1 << 11));
    assert_eq!((device.max_payload(), device.max_read_request()), (Some(Bytes::new(512)), Some(Bytes::new(4096))));
    assert!(device.relaxed_ordering() && device.no_snoop(), "the other fields were taken");
    let conventional = Space::new(&Description::default());
    assert_eq!((conventional.max_payload(), conventional.max_read_request()), (None, None));
}

fn express_at(space: &Space) -> u16 {
    (0x40..0x100).step_by(4).find(|&at| space.read(at, Width::Two) & 0xff == 0x10).unwrap()
}

#[test]
fn a_function_that_sleeps_neither_takes_nor_sends_requests() {
    let device = endpoint(Vec::new());
    assert!(device.memory_enabled() && device.bus_master());
    assert_eq!(device.read(0x40, Width::One), 1);
    assert!(device.write(0x44, Width::Two, 3));
    assert!(!device.is_awake() && !device.memory_enabled() && !device.bus_master());
    assert!(!device.write(0x44, Width::Two, 1), "there is no D1");
    assert!(device.write(0x44, Width::Two, 0));
    assert!(device.memory_enabled() && device.bus_master());
    assert!(device.write(0x04, Width::Two, 4));
    assert!(!device.memory_enabled() && device.bus_master());
}

#[test]
fn translation_pages_and_pasids_are_switched_one_by_one() {
    let device = Space::new(&Description {
        ats: Some(true),
        pri: Some(false),
        pasid: Some(PasidDescription { enabled: true, width: 16 }),
        ..Description::express(PortType::Endpoint)
    });
    assert_eq!((device.ats_enabled(), device.pri_enabled(), device.pasid_width()), (true, false, Some(16)));
    let (ats, pri, pasid) = (0x100, 0x108, 0x118);
    assert_eq!([ats, pri, pasid].map(|at| device.read(at, Width::Two)), [0xf, 0x13, 0x1b]);
    assert!(device.write(ats + 6, Width::Two, 0) && !device.ats_enabled());
    assert_eq!(device.read(pri + 6, Width::Two) >> 8 & 1, 1, "stopped");
    assert!(device.write(pri + 4, Width::Two, 1) && device.pri_enabled());
    assert_eq!(device.read(pri + 6, Width::Two) >> 8 & 1, 0);
    assert!(device.write(pasid + 6, Width::Two, 0));
    assert_eq!(device.pasid_width(), None);
}

#[test]
fn a_bridge_holds_what_is_below_it_in_reset_while_the_bit_is_set() {
    let port = Space::new(&Description::express(PortType::DownstreamPort));
    assert!(!port.holds_below_in_reset());
    assert!(port.write(0x3e, Width::Two, 1 << 6) && port.holds_below_in_reset());
    assert!(!port.write(0x3c, Width::One, 0x0b), "the interrupt line is a note");
    assert_eq!(port.read(0x3c, Width::One), 0x0b);
}

#[test]
fn a_reset_takes_addresses_and_enables_and_leaves_what_the_function_is() {
    let description = Description {
        buses: Some(Buses { primary: 1, secondary: 2, subordinate: 3 }),
        memory_window: range(0x9000_0000, 0x90ff_ffff),
        bars: vec![bar(0, 0x9100_0000, 4096, true)],
        acs: Some(AcsDescription { capability: 0x5f, control: 0x1d, ..AcsDescription::default() }),
        express: Some(ExpressDescription {
            max_payload: Bytes::new(256),
            port_number: 7,
            ..ExpressDescription::reset(PortType::UpstreamPort)
        }),
        pri: Some(true),
        ..Description::express(PortType::UpstreamPort)
    };
    let port = Space::new(&description);
    port.reset();
    assert!(!port.memory_enabled() && !port.bus_master() && !port.pri_enabled());
    assert_eq!((port.buses_below(), port.acs().unwrap().control), (None, 0));
    assert_eq!((port.max_payload(), port.max_read_request()), (Some(Bytes::new(128)), Some(Bytes::new(512))));
    assert_eq!(port.bar(0), range(0, 4095));
    assert_eq!((port.port_number(), port.port_type()), (7, Some(PortType::UpstreamPort)));
    assert_eq!((sized(&port, 0), port.acs().unwrap().capability), (4096, 0x5f));
}

proptest! {
    /// What a function is does not change, whatever a program writes.
    #[test]
    fn writes_reach_what_is_writable_and_nothing_else(writes in writes()) {
        let description = Description {
            bars: vec![bar(0, 0x9000_0000, 4096, false), bar(2, 0, 1 << 30, true)],
            acs: Some(AcsDescription { capability: 0x0c6c, ..AcsDescription::default() }),
            message_interrupts: 4,
            ats: Some(false),
            pri: Some(false),
            pasid: Some(PasidDescription { enabled: false, width: 20 }),
            ..Description::express(PortType::Endpoint)
        };
        let (space, fresh) = (Space::new(&description), Space::new(&description));
        // Bits that change when ones and zeros are written to everything; found from outside.
        let all: Vec<u16> = (0..4096).step_by(4).collect();
        let (ones, zeros) = (Space::new(&description), Space::new(&description));
        for &offset in &all {
            ones.write(offset, Width::Four, !0);
            zeros.write(offset, Width::Four, 0);
        }
        for (offset, width, value) in writes {
            let before = space.read(offset & !3, Width::Four);
            let changed = space.write(offset, width, value);
            prop_assert!(!changed || space.read(offset & !3, Width::Four) != before);
        }
        for &offset in &all {
            let [now, fresh, ones, zeros] =
                [&space, &fresh, &ones, &zeros].map(|space| space.read(offset, Width::Four));
            // Payload fields and the power state refuse some values, so ones do not find them.
            let fields = match offset {
                0x44 => 3,
                0x50 => 0x70e0,
                _ => 0,
            };
            let movable = (ones ^ fresh) | (zeros ^ fresh) | fields;
            prop_assert_eq!((now ^ fresh) & !movable, 0, "at {:#x}", offset);
        }
        let written = [0x00, 0x08, 0x34, 0x40, 0x48].map(|offset| space.read(offset, Width::Four));
        prop_assert_eq!(written, [0x00, 0x08, 0x34, 0x40, 0x48].map(|offset| fresh.read(offset, Width::Four)));
    }
}
