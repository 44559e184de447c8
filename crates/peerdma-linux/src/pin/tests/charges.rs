//! What the kernel counts, by `VmPin` of a process that does nothing else.

use super::child::{Memlock, Other, User, hear, is_limited, say};
use super::*;
use crate::memory::{Backing, Pages, huge_page_size, transparent_huge_page_size};
use crate::mlock::{LockError, Locked};
use crate::pin::{Standing, Unknown};
use crate::sys::disturb::Disturbed;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What this process has pinned, as the kernel counts it.
fn counted() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    kib.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// How much more `job` has pinned while what it answers lives.
fn more<T>(job: impl FnOnce() -> T) -> (u64, T) {
    let before = counted();
    let made = job();
    (counted() - before, made)
}

/// Whether huge pages lie behind all of a range.
fn is_huge(memory: &Pages) -> bool {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let head = format!("{:x}-", memory.address().as_u64());
    let area = smaps.split(&head).nth(1).unwrap_or_default();
    let line = area.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap_or_default();
    line.trim().strip_suffix(" kB").is_some_and(|kib| kib.trim().parse() == Ok(memory.len().as_u64() / 1024))
}

pub(super) fn play(role: &str, words: &[&str]) {
    match role {
        "charges" => charges(words[0]),
        "clone" => {
            let pinner = Pinner::with(Options::default().ring(Ring::Descriptor)).unwrap();
            let (pin_charge, pin) = more(|| pinner.pin(Arc::new(Pages::zeroed(pages(5)).unwrap())).unwrap());
            let (clone_charge, held) = more(|| pinner.clone_pins().unwrap());
            drop((pin, pinner));
            std::thread::sleep(Duration::from_millis(300));
            let after_source = counted();
            drop(held);
            let end = Instant::now() + Duration::from_secs(20);
            while counted() > 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            say(&format!("{:?}", [pin_charge, clone_charge, after_source, counted()].map(|bytes| bytes / page())));
        }
        "locks" => {
            is_limited();
            let pages_of = |count| Arc::new(Pages::zeroed(pages(count)).unwrap());
            let locked = Locked::new(pages_of(16)).unwrap();
            let refused = Locked::new(pages_of(1)).unwrap_err();
            assert!(matches!(refused, LockError::Limit { .. }), "{refused:?}");
            // Pins have a limit of their own, as high.
            let pin = Pinner::new().unwrap().pin(pages_of(14)).unwrap();
            drop((locked, pin));
            say(&refused.to_string());
        }
        "sees-no-frames" => {
            is_limited();
            let pinner = Pinner::new().unwrap();
            let mut memory = Disturbed::anonymous(pages(2), true);
            let pin = pinner.pin_foreign(memory.range().start(), pages(2)).unwrap();
            assert_eq!(pin.standing(), Standing::CannotTell { why: Unknown::Hidden });
            assert_eq!(pin.probe().unwrap(), Standing::Live);
            memory.discard(memory.range());
            assert_eq!(pin.standing(), Standing::CannotTell { why: Unknown::Hidden });
            assert!(matches!(pin.probe().unwrap(), Standing::Stale { .. }));
            memory.move_away();
            assert_eq!(pin.standing(), Standing::CannotTell { why: Unknown::Unmapped });
            assert!(matches!(pin.probe().unwrap(), Standing::Stale { .. }));
            say("told");
            hear();
        }
        _ => (),
    }
}

fn charges(of: &str) {
    let (size, backing) = match of {
        "pool" => huge_page_size().map_or((0, Backing::Shared), |size| (size.as_u64(), Backing::Huge(size))),
        _ => (transparent_huge_page_size().as_u64(), Backing::Transparent),
    };
    let Ok(memory) = Pages::backed(backing, Bytes::new(2 * size)).map(Arc::new) else { return say("no huge pages") };
    (0..2).for_each(|number| memory.write(Bytes::new(number * size), &[1]).unwrap());
    if of == "transparent" && !is_huge(&memory) {
        return say("no huge pages");
    }
    let pinner = Pinner::new().unwrap();
    let slice = |at: u64| pinner.pin_part(Arc::clone(&memory), Bytes::new(at), pages(1)).unwrap();
    let (first, payer) = more(|| slice(0));
    let (second, other) = more(|| slice(page()));
    let (elsewhere, _apart) = more(|| {
        let apart = Pinner::new().unwrap();
        let pin = apart.pin_part(Arc::clone(&memory), Bytes::ZERO, pages(1)).unwrap();
        (apart, pin)
    });
    let before = counted();
    drop(payer);
    let returned = before - counted();
    let told = [first, second, elsewhere, returned].map(|bytes| bytes as f64 / size as f64);
    say(&format!("{told:?}"));
    drop(other);
}

/// In huge pages: a slice, another slice on the same ring, one on another ring, and what comes back with the first.
const EXPECTED: &str = "[1.0, 0.0, 1.0, 1.0]";

#[test]
fn a_slice_of_a_huge_page_is_charged_whole_once_a_ring_and_the_slot_that_paid_takes_the_charge_along() {
    if !may_pin_much("pins-large") {
        return;
    }
    let _more = settings::MoreHugePages::of(3);
    for of in ["pool", "transparent"] {
        let other = Other::start(&format!("charges {of}"), None, Memlock::AsItIs);
        match other.says().as_str() {
            "no huge pages" if of == "pool" => skip("hugetlb-charges", settings::REASON),
            "no huge pages" => skip("pins-charges-transparent", "the kernel gave no huge pages"),
            told => assert_eq!(told, EXPECTED, "{of}"),
        }
    }
}

#[test]
fn a_copy_of_a_table_is_charged_nothing_and_keeps_the_charge_of_its_source() {
    // What is pinned, what the copy adds, what is there after the source has gone, and after the copy has.
    assert_eq!(Other::start("clone", None, Memlock::AsItIs).says(), "[5, 0, 5, 0]");
}

#[test]
fn locks_and_pins_have_limits_of_their_own() {
    let Some(user) = User::unused("pins-locks") else { return };
    let text = Other::start("locks", Some(user), Memlock::Of(pages(16))).says();
    assert!(
        text.ends_with(
            "4 KiB go over what this process has left of RLIMIT_MEMLOCK 64 KiB; raise the limit, or lock less"
        ),
        "{text}"
    );
}

#[test]
fn a_process_without_privilege_says_that_it_cannot_tell_and_probes() {
    let Some(user) = User::unused("pins-standing") else { return };
    assert_eq!(Other::start("sees-no-frames", Some(user), Memlock::Of(pages(64))).says(), "told");
}

#[test]
fn a_ring_takes_as_many_slots_as_the_kernel_has_and_then_there_is_another() {
    if !may_pin_much("pins-large") {
        return;
    }
    let pinner = Pinner::new().unwrap();
    let memory = Arc::new(Pages::zeroed(pages(1)).unwrap());
    let one = || pinner.pin(Arc::clone(&memory)).unwrap();
    let mut pins: Vec<_> = (0..super::super::MOST_SLOTS).map(|_| one()).collect();
    assert_eq!(pinner.rings(), 1);
    pins.push(one());
    assert_eq!(pinner.rings(), 2);
}

#[test]
fn what_devices_still_use_when_the_last_handle_goes_stays_pinned_for_good() {
    let pinner = Pinner::with(Options::default().ring(Ring::Descriptor)).unwrap();
    let memory = Arc::new(Pages::zeroed(pages(1)).unwrap());
    let pin = pinner.pin(memory).unwrap();
    let line = format!(": {:#x}/{}", pin.range().start().as_u64(), page());
    let nic = peerdma::buffer::fence::Timeline::new("nic queue 0");
    pin.used_until(nic.issue());
    drop((pin, pinner));
    let rings = std::fs::read_dir("/proc/self/fdinfo").unwrap().filter_map(Result::ok);
    let mut infos = rings.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    assert!(infos.any(|info| info.contains(&line)), "the ring is there, and the slot is filled");
}
