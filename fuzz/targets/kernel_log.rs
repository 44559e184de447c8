//! Kernel logs, and what the addresses in them are on a described machine.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma::route::checkup::fault;
use peerdma::topology::Topology;
use peerdma_emu::platform::Platform;
use peerdma_fuzz::readers;
use peerdma_linux::kernel_log::{Event, MAX_EVENTS, MAX_TEXT};
use std::sync::LazyLock;

static MACHINE: LazyLock<Option<Topology>> =
    LazyLock::new(|| Platform::built_in("two-socket").map(|platform| platform.topology()));

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    let log = readers::kernel_log(data);
    assert!(log.events.len() <= MAX_EVENTS, "a log does not grow without bound");
    for event in &log.events {
        check(event);
    }
});

/// What holds of every event.
fn check(event: &Event) {
    assert!(!event.text.chars().any(char::is_control), "a terminal may print it");
    // What is replaced grows to three bytes at most.
    assert!(event.text.len() <= 3 * MAX_TEXT, "a line is kept so far and no further");
    let (Some(machine), Some(address)) = (&*MACHINE, event.address) else { return };
    let device = event.device.and_then(|device| machine.at(device));
    let meaning = fault::meaning(machine, device, address);
    assert_eq!(meaning.owner.is_some(), meaning.bar.is_some(), "an owner owns a BAR");
    assert!(!meaning.words.is_empty());
}
