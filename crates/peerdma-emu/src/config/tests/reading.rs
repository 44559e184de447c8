use super::{bar, endpoint, range};
use crate::config::{AcsDescription, BarHit, Buses, Description, Header, Space, Width};
use peerdma::addr::{BusAddr, Bytes};
use peerdma::pcie::express::PortType;

#[test]
fn a_read_past_the_end_or_across_a_double_word_brings_all_ones() {
    let conventional = Space::new(&Description::default());
    assert_eq!((conventional.size(), conventional.read(0x100, Width::Two)), (256, 0xffff));
    assert_eq!(conventional.read(0xfc, Width::Four), 0);
    let express = endpoint(Vec::new());
    assert_eq!((express.size(), express.read(0xffc, Width::Four)), (4096, 0));
    assert_eq!(express.read(0x1000, Width::Four), 0xffff_ffff);
    assert_eq!((express.read(3, Width::Two), express.read(2, Width::Four)), (0xffff, 0xffff_ffff));
    assert!(!express.write(5, Width::Two, 0xffff) && !express.write(0x1004, Width::One, 1));
}

#[test]
fn a_bridge_claims_both_windows_and_vga_where_it_is_enabled() {
    let port = Space::new(&Description {
        memory_window: range(0x9000_0000, 0x90ff_ffff),
        prefetchable_window: range(0x41_0000_0000, 0x41_0fff_ffff),
        ..Description::express(PortType::DownstreamPort)
    });
    assert_eq!(port.header(), Header::Bridge);
    for (address, claimed) in [
        (0x8fff_ffff, false),
        (0x9000_0000, true),
        (0x90ff_ffff, true),
        (0x9100_0000, false),
        (0x1_9000_0000, false),
        (0x41_0000_0000, true),
        (0x41_0fff_ffff, true),
        (0x41_1000_0000, false),
        (0xa_0000, false),
    ] {
        assert_eq!(port.window_claims(BusAddr::new(address)), claimed, "{address:#x}");
    }
    assert!(port.write(0x3e, Width::Two, 1 << 3));
    assert!(port.window_claims(BusAddr::new(0xa_0000)) && port.window_claims(BusAddr::new(0xb_ffff)));
    assert!(!port.window_claims(BusAddr::new(0xc_0000)));
    let windows: Vec<_> = port.windows().map(|window| window.to_string()).collect();
    assert_eq!(windows, ["0x90000000-0x90ffffff", "0x4100000000-0x410fffffff", "0xa0000-0xbffff"]);
}

#[test]
fn a_window_whose_base_is_above_its_limit_is_closed_and_a_device_has_none() {
    let port = Space::new(&Description::express(PortType::RootPort));
    assert_eq!(port.windows().count(), 0);
    assert!(port.write(0x20, Width::Four, 0));
    assert!(port.window_claims(BusAddr::new(0xf_ffff)), "base 0 and limit 0 are the first MiB");
    let device = endpoint(vec![bar(4, 0x9000_0000, 4096, false)]);
    assert!(!device.window_claims(BusAddr::new(0x9000_0000)));
}

#[test]
fn a_window_over_all_addresses_claims_them_all() {
    let port = Space::new(&Description {
        prefetchable_window: range(0, u64::MAX - 1),
        ..Description::express(PortType::RootPort)
    });
    assert!(port.window_claims(BusAddr::new(u64::MAX)) && port.window_claims(BusAddr::new(0)));
    assert_eq!(port.windows().next().unwrap().len(), Bytes::new(u64::MAX));
}

#[test]
fn an_address_in_a_bar_knows_how_far_it_is_from_both_ends() {
    let device = endpoint(vec![bar(0, 0x9000_0000, 0x1000, false), bar(2, 0x60_0000_0000, 1 << 32, true)]);
    let hit = |index, offset, left| Some(BarHit { index, offset: Bytes::new(offset), left: Bytes::new(left) });
    assert_eq!(device.bar_hit(BusAddr::new(0x9000_0ffc)), hit(0, 0xffc, 4));
    assert_eq!(device.bar_hit(BusAddr::new(0x9000_1000)), None);
    assert_eq!(device.bar_hit(BusAddr::new(0x60_ffff_ffff)), hit(2, 0xffff_ffff, 1));
    assert_eq!(device.bar(2), range(0x60_0000_0000, 0x60_ffff_ffff));
    assert_eq!((device.bar(1), device.bar(3), device.bar(9)), (None, None, None));
    assert_eq!(device.bar_indices().collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn a_bar_at_the_end_of_the_address_space_is_all_there() {
    let device = endpoint(vec![bar(0, 1 << 63, 1 << 63, true)]);
    let hit = device.bar_hit(BusAddr::new(u64::MAX)).unwrap();
    assert_eq!((hit.offset, hit.left), (Bytes::new((1 << 63) - 1), Bytes::new(1)));
    assert_eq!(device.bar(0).unwrap().last(), BusAddr::new(u64::MAX));
}

#[test]
fn bars_that_do_not_fit_the_header_are_left_out_and_odd_sizes_rounded_up() {
    let crowded = vec![bar(0, 0, 4096, true), bar(1, 0, 4096, false), bar(5, 0, 4096, true), bar(255, 0, 1, true)];
    assert_eq!(endpoint(crowded).bar_indices().collect::<Vec<_>>(), [0]);
    let port = Description { bars: vec![bar(2, 0, 16, false)], ..Description::express(PortType::UpstreamPort) };
    assert_eq!(Space::new(&port).bar_indices().count(), 0);
    let odd = endpoint(vec![bar(0, 0x9000_0000, 5000, false), bar(1, 0, 0, false), bar(2, 0, 1 << 40, false)]);
    let sizes: Vec<u64> = odd.bar_indices().map(|index| odd.bar(index).unwrap().len().as_u64()).collect();
    assert_eq!(sizes, [8192, 16, 1 << 31]);
}

#[test]
fn buses_are_unassigned_until_the_secondary_one_is_not_0() {
    let port = Space::new(&Description {
        buses: Some(Buses { primary: 3, secondary: 4, subordinate: 8 }),
        ..Description::express(PortType::DownstreamPort)
    });
    assert_eq!(port.buses_below(), Some((4, 8)));
    assert!(port.write(0x19, Width::One, 0));
    assert_eq!(port.buses_below(), None);
    assert_eq!(endpoint(vec![bar(2, 0x1234_5670, 16, false)]).buses_below(), None, "a device has a BAR there");
}

#[test]
fn acs_of_double_words_is_read_where_it_lies() {
    let described = |double_words| AcsDescription { capability: 0x5f, control: 0x1d, egress: Vec::new(), double_words };
    for (double_words, at_6) in [(false, 0x1d), (true, 0)] {
        let acs = Some(described(double_words));
        let port = Space::new(&Description { acs, ..Description::express(PortType::RootPort) });
        let read = port.acs().unwrap();
        assert_eq!((read.capability, read.control), (0x5f, 0x1d));
        assert_eq!(port.read(0x100, Width::Two), 0x0d);
        assert_eq!(port.read(0x106, Width::Two), at_6, "what Linux reads as control");
    }
}

#[test]
fn an_egress_vector_ends_at_its_size() {
    let vector = |capability: u16| {
        let egress = vec![!0; 9];
        let acs = Some(AcsDescription { capability, control: 0x20, egress, double_words: false });
        Space::new(&Description { acs, ..Description::express(PortType::DownstreamPort) })
    };
    let of_5 = vector(0x0520);
    assert!(of_5.egress_bit(0) && of_5.egress_bit(4) && !of_5.egress_bit(5) && !of_5.egress_bit(255));
    assert!(vector(0x0020).egress_bit(255), "a size of 0 stands for 256");
    assert!(!vector(0x0500).has_egress_vector() && !vector(0x0500).egress_bit(0));
}

#[test]
fn messages_are_sent_once_they_are_enabled_and_as_many_as_software_granted() {
    let device = Space::new(&Description { message_interrupts: 5, ..Description::express(PortType::Endpoint) });
    let at = (0x40..0x100).step_by(4).find(|&at| device.read(at, Width::One) == 5).unwrap();
    assert_eq!(device.read(at + 2, Width::Two) >> 1 & 7, 3, "5 messages ask for 8");
    device.write(at + 4, Width::Four, 0xfee0_1003);
    device.write(at + 12, Width::Two, 0x4321);
    assert_eq!(device.message(0), None);
    assert!(!device.write(at + 2, Width::Two, 1 | 2 << 4), "a message is no route");
    assert_eq!(device.message(0), Some((BusAddr::new(0xfee0_1000), 0x4320)));
    assert_eq!(device.message(3), Some((BusAddr::new(0xfee0_1000), 0x4323)));
    assert_eq!(device.message(4), None);
    device.write(at + 2, Width::Two, 1 | 7 << 4);
    assert!(device.message(7).is_some() && device.message(8).is_none(), "no more than it asked for");
    assert_eq!(endpoint(Vec::new()).message(0), None);
}
