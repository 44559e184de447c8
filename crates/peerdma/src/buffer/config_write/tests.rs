//! Writes told apart by name, and against a function that is written to.

use super::*;
use crate::pcie::config::{ConfigBytes, ConfigSize};
use alloc::vec;
use proptest::prelude::*;

mod reference;
use reference::Function;

fn changes(function: &Function, offset: u16, bytes: &[u8]) -> Vec<Change> {
    ConfigWrite::new(offset, bytes)
        .map(|write| write.classify(&function.target(&function.config())))
        .unwrap_or_default()
}

/// A function with memory decoding on, in D0, with a 64-bit BAR of 1 MiB at 0x60_0000_0000.
fn gpu() -> Function {
    let mut function = Function::plain();
    function.decoding = true;
    function.bars[0] = Some((0x60_0000_0000, 20, true));
    function
}

#[test]
fn a_byte_at_the_command_register_turns_decoding_off_and_its_neighbour_does_not() {
    let function = gpu();
    assert_eq!(changes(&function, 0x04, &[0x04]), [Change::DecodeOff]);
    assert_eq!(changes(&function, 0x04, &[0x04, 0x04, 0, 0]), [Change::DecodeOff]);
    assert_eq!(changes(&function, 0x03, &[0, 0]), [Change::DecodeOff], "straddling");
    assert_eq!(changes(&function, 0x04, &[0x02, 0]), [], "bus mastering alone goes");
    assert_eq!(changes(&function, 0x05, &[0, 0, 0]), []);
}

#[test]
fn of_a_virtual_function_the_command_register_says_nothing() {
    let function = Function { is_virtual: true, ..gpu() };
    assert_eq!(changes(&function, 0x04, &[0x00]), []);
    let config = function.config();
    assert_eq!(function.target(&config).answers(), Some(Answers::YES));
}

#[test]
fn leaving_d0_and_coming_back_are_told_from_staying() {
    let mut function = gpu();
    let control = function.power_at + 4;
    assert_eq!(changes(&function, control, &[0x03]), [Change::PowerDown]);
    assert_eq!(changes(&function, control, &[0x00, 0x80]), [], "the event's status alone is cleared");
    assert_eq!(changes(&function, control, &[0x01]), [], "a state that the function does not have is not entered");
    function.has_d1 = true;
    assert_eq!(changes(&function, control, &[0x01]), [Change::PowerDown]);
    function.power = 3;
    assert_eq!(changes(&function, control, &[0x08]), [Change::PowerUp]);
    let config = function.config();
    assert_eq!(function.target(&config).answers(), Some(Answers { decoding: true, powered: false }));
}

#[test]
fn a_function_that_cannot_reset_itself_is_not_reset() {
    let mut function = gpu();
    let control = function.express_at + 8;
    assert_eq!(changes(&function, control, &[0x00, 0x80]), []);
    function.can_reset = true;
    assert_eq!(changes(&function, control, &[0x00, 0x80]), [Change::FunctionReset]);
    assert_eq!(changes(&function, control + 1, &[0x80]), [Change::FunctionReset]);
    assert_eq!(changes(&function, control, &[0xff]), []);
    let advanced = function.advanced_at + 4;
    assert_eq!(changes(&function, advanced, &[0x01]), []);
    function.can_reset_advanced = true;
    assert_eq!(changes(&function, advanced, &[0x01]), [Change::FunctionReset]);
}

/// As Linux sizes: decoding off, all ones, the address back, decoding on.
#[test]
fn asking_for_a_size_moves_nothing_and_writing_another_address_does() {
    let mut function = gpu();
    let moved =
        |from, to| Change::BarMove { register: Register::Bar(0), from: BusAddr::new(from), to: BusAddr::new(to) };
    let upper = 0x14;
    assert_eq!(changes(&function, upper, &[0x61, 0, 0, 0]), [moved(0x60_0000_0000, 0x61_0000_0000)]);
    assert_eq!(changes(&function, 0x10, &[0x0c, 0, 0x01]), [], "below its size there are no bits");
    assert_eq!(changes(&function, 0x10, &[0xff; 4]), [moved(0x60_0000_0000, 0x60_fff0_0000)], "decoding is on");
    function.decoding = false;
    assert_eq!(changes(&function, 0x10, &[0xff; 4]), []);
    assert_eq!(changes(&function, upper, &[0xff; 4]), []);
    assert_eq!(changes(&function, upper, &[0x60, 0, 0, 0]), []);
    assert_eq!(changes(&function, 0x18, &[0xff; 4]), [], "a BAR that is not there");
}

#[test]
fn a_bar_lies_where_its_registers_say_and_where_they_are_not_read_nobody_knows() {
    let mut function = gpu();
    function.bars[1] = Some((0xe000_0000, 14, false));
    let (config, at) = (function.config(), |address| Some(BusAddr::new(address)));
    let target = function.target(&config);
    assert_eq!((target.address(0), target.address(2)), (at(0x60_0000_0000), at(0xe000_0000)));
    assert_eq!([1, 3, 4, 6, 255].map(|bar| target.address(bar)), [None; 5], "an upper half, and none");
    let unsized_one = Target { bars: [None; 6], ..target };
    assert_eq!(unsized_one.address(0), None, "some of its lowest bits may not be there");
    let cut = ConfigBytes::new(config.bytes()[..0x14].to_vec(), ConfigSize::Unknown);
    assert_eq!(function.target(&cut).address(0), None);
}

#[test]
fn a_bridge_resets_the_bus_below_it_until_it_no_longer_does() {
    let mut bridge = Function { is_bridge: true, ..Function::plain() };
    assert_eq!(changes(&bridge, 0x3c, &[0, 0, 0x40, 0]), [Change::HotReset]);
    bridge.bus_reset = true;
    assert_eq!(changes(&bridge, 0x3e, &[0]), [Change::HotResetOver]);
    assert_eq!(changes(&gpu(), 0x3e, &[0x40]), [], "a device has something else there");
    assert_eq!((Change::HotReset.begins(), Change::HotReset.ends()), (Some(Disturbance::HotReset), None));
    assert_eq!(Change::HotResetOver.ends(), Some(Disturbance::HotReset));
}

#[test]
fn what_was_not_read_is_unknown_and_says_what_it_could_be() {
    let mut bytes = gpu().config().bytes().to_vec();
    bytes.truncate(64);
    let config = ConfigBytes::new(bytes, ConfigSize::Unknown);
    let target = Target::physical(&config);
    let of = |offset, bytes: &[u8]| ConfigWrite::new(offset, bytes).unwrap().classify(&target);
    let unknown = [Change::Unknown(Unread::Power), Change::Unknown(Unread::FunctionReset)];
    assert_eq!(of(0x80, &[0]), unknown);
    assert_eq!(of(0x14, &[1]), [Change::Unknown(Unread::Address(Register::Bar(0)))], "no size was told");
    assert_eq!(target.answers(), None);
    assert_eq!(unknown[0].begins(), Some(Disturbance::PowerDown));
    let nothing = ConfigBytes::new(vec![], ConfigSize::Unknown);
    let write = ConfigWrite::new(0x04, &[2]).unwrap();
    assert_eq!(write.classify(&Target::physical(&nothing)), [Change::Unknown(Unread::Decoding)]);
}

#[test]
fn a_write_has_one_to_four_bytes_inside_configuration_space() {
    assert!(ConfigWrite::new(0xffc, &[0; 4]).is_ok());
    for (offset, length) in [(0, 0), (0, 5), (0xffd, 4), (0xffff, 1)] {
        assert_eq!(ConfigWrite::new(offset, &vec![0; length]), Err(NotAWrite { offset, length }));
    }
}

fn written() -> impl Strategy<Value = (u16, Vec<u8>)> {
    // Half of them where something is.
    let offset =
        prop_oneof![0u16..0x40, 0x40u16..0x100, prop::sample::select(vec![0x04, 0x10, 0x14, 0x30, 0x38, 0x3e])];
    let byte = prop_oneof![any::<u8>(), Just(0xff), Just(0), Just(0x80)];
    let bytes = prop_oneof![prop::collection::vec(byte, 1..=4), (1usize..=4).prop_map(|length| vec![0xff; length])];
    (offset, bytes)
}

proptest! {
    /// A function is written to, and what differs afterwards is what was foretold.
    #[test]
    fn what_is_foretold_is_what_the_function_does(function: Function, (offset, bytes) in written()) {
        prop_assert_eq!(changes(&function, offset, &bytes), function.after(offset, &bytes));
    }

    /// With fewer bytes at hand less is known, and nothing else is claimed.
    #[test]
    fn what_is_told_of_a_cut_copy_is_true_of_the_whole(
        function: Function, (offset, bytes) in written(), cut in 0usize..256,
    ) {
        let config = function.config();
        let part = ConfigBytes::new(config.bytes()[..cut].to_vec(), ConfigSize::Unknown);
        let write = ConfigWrite::new(offset, &bytes).unwrap();
        let whole = write.classify(&function.target(&config));
        let told = write.classify(&function.target(&part));
        let is_unknown = |change: &&Change| matches!(change, Change::Unknown(_));
        for change in told.iter().filter(|change| !is_unknown(change)) {
            prop_assert!(whole.contains(change), "{:?} {:?}", told, whole);
        }
        prop_assert!(told == whole || told.iter().any(|change| is_unknown(&change)), "{:?} {:?}", told, whole);
    }

    /// Whatever a device shows in its registers.
    #[test]
    fn no_registers_make_it_panic(
        config in prop::collection::vec(any::<u8>(), 0..300), (offset, bytes) in (0u16..0x1100, prop::collection::vec(any::<u8>(), 0..6)),
    ) {
        let config = ConfigBytes::new(config, ConfigSize::Unknown);
        if let Ok(write) = ConfigWrite::new(offset, &bytes) {
            let _ = write.classify(&Target::physical(&config));
            let _ = write.classify(&Target::virtual_function(&config));
        }
    }
}
