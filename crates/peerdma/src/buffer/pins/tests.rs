//! The ledger against a list, and what is protected from whom.

use super::*;
use crate::addr::Bytes;
#[cfg(feature = "std")]
use crate::buffer::fence::{Failure, Reservation, Timeline, Usage};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const REGIONS: u32 = 2;
const TENANTS: u32 = 3;
const CAPACITY: u64 = 100;

fn region(number: u32) -> RegionId {
    RegionId::new(number % REGIONS)
}

fn tenant(number: u32) -> TenantId {
    TenantId::new(number % TENANTS)
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new();
    (0..REGIONS).for_each(|number| ledger.describe_region(region(number), "vram", Bytes::new(CAPACITY)));
    for (number, name) in (0..TENANTS).zip(["trainer", "nic", "viewer"]) {
        ledger.describe_tenant(tenant(number), name);
    }
    ledger
}

fn limits(min: u64, low: u64, max: Option<u64>) -> Limits {
    Limits { min: Bytes::new(min), low: Bytes::new(low), max: max.map(Bytes::new) }
}

#[derive(Clone, Debug)]
enum Step {
    Limit(u32, u32, Option<u64>),
    Charge(u32, u32, u64),
    Uncharge(usize),
    Pin(usize, u32),
    Unpin(usize, bool),
    Leave(usize),
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (any::<u32>(), any::<u32>(), proptest::option::of(0_u64..120)).prop_map(|(r, t, max)| Step::Limit(r, t, max)),
        4 => (any::<u32>(), any::<u32>(), 0_u64..50).prop_map(|(r, t, len)| Step::Charge(r, t, len)),
        2 => any::<usize>().prop_map(Step::Uncharge),
        4 => (any::<usize>(), any::<u32>()).prop_map(|(charge, t)| Step::Pin(charge, t)),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(pin, used)| Step::Unpin(pin, used)),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A charge as a list has it.
struct Known {
    handle: Charge,
    region: RegionId,
    tenant: TenantId,
    len: u64,
    /// One entry for each pin.
    pins: Vec<TenantId>,
}

/// Bytes that a tenant uses, counted from the list.
fn used(list: &[Known], at: RegionId, by: TenantId) -> u64 {
    let uses = |known: &&Known| known.region == at && (known.tenant == by || known.pins.contains(&by));
    list.iter().filter(uses).map(|known| known.len).sum()
}

proptest! {
    #[test]
    fn a_ledger_answers_as_a_list_of_charges_and_pins_would(steps in steps()) {
        let mut ledger = ledger();
        let mut list: Vec<Known> = Vec::new();
        let mut maxima = std::collections::BTreeMap::new();
        // Each pin with the index of nothing: charges come and go, so a pin knows its tenant and its charge's number.
        let mut pins: Vec<(PinHandle, u64, TenantId)> = Vec::new();
        let mut left: Vec<(u64, TenantId)> = Vec::new();
        let users = Arc::new(AtomicUsize::new(1));
        for step in steps {
            match step {
                Step::Limit(at, by, max) => {
                    ledger.limit(region(at), tenant(by), limits(0, 0, max)).unwrap();
                    maxima.insert((region(at), tenant(by)), max);
                }
                Step::Charge(at, by, len) => {
                    let (at, by) = (region(at), tenant(by));
                    let max = maxima.get(&(at, by)).copied().flatten().unwrap_or(u64::MAX);
                    let resident: u64 = list.iter().filter(|known| known.region == at).map(|known| known.len).sum();
                    let (over, full) = (used(&list, at, by) + len > max, resident + len > CAPACITY);
                    match ledger.charge(at, by, Bytes::new(len)) {
                        Ok(handle) => {
                            prop_assert!(!over && !full && len > 0);
                            list.push(Known { handle, region: at, tenant: by, len, pins: vec![] });
                        }
                        Err(ChargeError::Empty) => prop_assert_eq!(len, 0),
                        Err(ChargeError::OverMax { .. }) => prop_assert!(over),
                        Err(ChargeError::Full { .. }) => prop_assert!(full && !over),
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
                Step::Uncharge(index) if !list.is_empty() => {
                    let known = list.swap_remove(index % list.len());
                    match ledger.uncharge(known.handle) {
                        Ok(()) => prop_assert!(known.pins.is_empty()),
                        Err(UnchargeError::Pinned { charge, .. }) => {
                            prop_assert!(!known.pins.is_empty());
                            list.push(Known { handle: charge, ..known });
                        }
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
                Step::Pin(index, by) if !list.is_empty() => {
                    let (at, by) = (index % list.len(), tenant(by));
                    let already = list[at].tenant == by || list[at].pins.contains(&by);
                    let max = maxima.get(&(list[at].region, by)).copied().flatten().unwrap_or(u64::MAX);
                    let over = !already && used(&list, list[at].region, by) + list[at].len > max;
                    match ledger.pin(&list[at].handle, by) {
                        Ok(pin) => {
                            prop_assert!(!over);
                            list[at].pins.push(by);
                            pins.push((pin, list[at].handle.number, by));
                        }
                        Err(error) => prop_assert!(over, "{}", error),
                    }
                }
                Step::Unpin(index, in_use) if !pins.is_empty() => {
                    let (pin, charge, by) = pins.swap_remove(index % pins.len());
                    match ledger.unpin(pin, &|| usize::from(in_use)) {
                        Ok(()) => {
                            prop_assert!(!in_use);
                            forget(&mut list, charge, by);
                        }
                        Err(UnpinError::StillUsed { pin, outstanding, .. }) => {
                            prop_assert!(in_use && outstanding == 1);
                            pins.push((pin, charge, by));
                        }
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
                Step::Leave(index) if !pins.is_empty() => {
                    let (pin, charge, by) = pins.swap_remove(index % pins.len());
                    let users = users.clone();
                    ledger.unpin_when_unused(pin, Box::new(move || users.load(Ordering::Relaxed))).unwrap();
                    left.push((charge, by));
                }
                Step::Settle => {
                    prop_assert_eq!(ledger.settle(), left.len(), "all of them are used");
                    users.store(0, Ordering::Relaxed);
                    prop_assert_eq!(ledger.settle(), 0);
                    left.drain(..).for_each(|(charge, by)| forget(&mut list, charge, by));
                    users.store(1, Ordering::Relaxed);
                }
                _ => {}
            }
            for at in (0..REGIONS).map(region) {
                for share in ledger.shares(at) {
                    let own = || list.iter().filter(|known| known.region == at && known.tenant == share.tenant);
                    let resident: u64 = own().map(|known| known.len).sum();
                    let held: u64 = own().filter(|known| !known.pins.is_empty()).map(|known| known.len).sum();
                    prop_assert_eq!((share.resident.as_u64(), share.held.as_u64()), (resident, held));
                    prop_assert_eq!(ledger.used(at, share.tenant).as_u64(), used(&list, at, share.tenant));
                }
            }
        }
    }

    #[test]
    fn nothing_protected_or_pinned_is_ever_reclaimed(
        shares in proptest::collection::vec((0_u64..50, 0_u64..50, 0_u64..60, 0_u64..60), 0..5), within in 0_u32..5,
    ) {
        let shares: Vec<Share> = (0..).zip(shares).map(|(number, (held, loose, min, low))| Share {
            tenant: TenantId::new(number),
            resident: Bytes::new(held + loose),
            held: Bytes::new(held),
            limits: limits(min, low, None),
        }).collect();
        let anywhere = reclaimable(&shares, Room::Anywhere);
        prop_assert!(anywhere.is_sorted_by_key(|evictable| evictable.pass));
        for share in &shares {
            let of = |pass: Pass| anywhere.iter().filter(move |evictable| {
                evictable.tenant == share.tenant && evictable.pass <= pass
            }).map(|evictable| evictable.bytes.as_u64()).sum::<u64>();
            let (resident, held) = (share.resident.as_u64(), share.held.as_u64());
            let (min, low) = (share.limits.min.as_u64(), share.limits.low.max(share.limits.min).as_u64());
            for (pass, kept) in [(Pass::AboveLow, low), (Pass::AboveMin, min)] {
                // Down to what is kept for him, or to what pins hold, whichever is more, and exactly to that.
                prop_assert_eq!(resident - of(pass), resident.min(kept.max(held)), "{:?}", share);
            }
        }
        let own = reclaimable(&shares, Room::Within(TenantId::new(within)));
        let loose = shares.iter().find(|share| share.tenant.number() == within)
            .map_or(0, |share| share.resident.as_u64() - share.held.as_u64());
        prop_assert_eq!(own.iter().map(|evictable| evictable.bytes.as_u64()).sum::<u64>(), loose);
    }
}

fn forget(list: &mut [Known], charge: u64, by: TenantId) {
    for known in list.iter_mut().filter(|known| known.handle.number == charge) {
        if let Some(at) = known.pins.iter().position(|holder| *holder == by) {
            known.pins.swap_remove(at);
        }
    }
}

#[test]
fn a_full_region_says_who_has_how_much_and_from_whom_some_could_be_had() {
    let (vram, trainer, nic, viewer) = (region(0), tenant(0), tenant(1), tenant(2));
    let mut ledger = ledger();
    ledger.limit(vram, trainer, limits(30, 40, None)).unwrap();
    let training = ledger.charge(vram, trainer, Bytes::new(60)).unwrap();
    let shown = ledger.charge(vram, viewer, Bytes::new(20)).unwrap();
    let pin = ledger.pin(&shown, nic).unwrap();
    let full = ledger.charge(vram, nic, Bytes::new(21)).unwrap_err();
    let text = full.to_string();
    assert!(
        text.starts_with("nic cannot keep 21 bytes in vram: 80 bytes of 100 bytes are in use, 0 bytes of them"),
        "{text}"
    );
    assert!(text.contains("others: trainer 60 bytes, viewer 20 bytes; move out"), "{text}");
    let ChargeError::Full { shortage, .. } = full else { panic!("{full:?}") };
    let expected = [(trainer, 20, Pass::AboveLow), (trainer, 10, Pass::AboveMin)];
    let expected = expected.map(|(tenant, bytes, pass)| Evictable { tenant, bytes: Bytes::new(bytes), pass });
    assert_eq!(shortage.reclaimable, expected, "what a pin holds is not among it");

    let Err(UnchargeError::Pinned { charge, holders, .. }) = ledger.uncharge(shown) else { panic!("unpinned") };
    assert_eq!(holders, ["nic"]);
    ledger.unpin(pin, &|| 0_usize).unwrap();
    ledger.uncharge(charge).unwrap();
    ledger.uncharge(training).unwrap();
}

/// A process without memory of its own could otherwise hold all of a device's.
#[test]
fn who_pins_others_memory_uses_it() {
    let (vram, trainer, nic) = (region(0), tenant(0), tenant(1));
    let mut ledger = ledger();
    ledger.limit(vram, nic, limits(0, 0, Some(50))).unwrap();
    let first = ledger.charge(vram, trainer, Bytes::new(40)).unwrap();
    let second = ledger.charge(vram, trainer, Bytes::new(20)).unwrap();
    let pins = [ledger.pin(&first, nic).unwrap(), ledger.pin(&first, nic).unwrap()];
    assert_eq!(ledger.used(vram, nic), Bytes::new(40), "the same memory twice is no more memory");
    assert!(matches!(ledger.pin(&second, nic), Err(ChargeError::OverMax { .. })));
    let [one, other] = pins;
    ledger.unpin(one, &|| 0_usize).unwrap();
    assert_eq!(ledger.pinned(vram, nic), Bytes::new(40), "each pin is let go by itself");
    ledger.unpin(other, &|| 0_usize).unwrap();
    let third = ledger.pin(&second, nic).unwrap();
    assert_eq!(ledger.pinned(vram, nic), Bytes::new(20));
    ledger.unpin(third, &|| 0_usize).unwrap();
}

#[test]
fn memory_is_not_unpinned_under_a_device_that_uses_it() {
    let mut ledger = ledger();
    let charge = ledger.charge(region(0), tenant(0), Bytes::new(1)).unwrap();
    let pin = ledger.pin(&charge, tenant(1)).unwrap();
    let refused = ledger.unpin(pin, &|| 3_usize).unwrap_err();
    assert_eq!(refused.to_string(), "3 fences still use memory that nic pins in vram; unpin it once they have retired");
    let UnpinError::StillUsed { pin, .. } = refused else { panic!("{refused}") };
    let users = Arc::new(AtomicUsize::new(3));
    let watched = users.clone();
    ledger.unpin_when_unused(pin, Box::new(move || watched.load(Ordering::Relaxed))).unwrap();
    for outstanding in [3, 1] {
        users.store(outstanding, Ordering::Relaxed);
        assert_eq!((ledger.settle(), ledger.pinned(region(0), tenant(1))), (1, Bytes::new(1)));
    }
    users.store(0, Ordering::Relaxed);
    assert_eq!((ledger.settle(), ledger.pinned(region(0), tenant(1))), (0, Bytes::ZERO));
    ledger.uncharge(charge).unwrap();
}

/// By the fences of a reservation themselves: a queue of the pinned buffer, which fails, is dropped, and is written off.
///
/// Without `std` fences do not leave their thread, and a ledger takes only what does.
#[cfg(feature = "std")]
#[test]
fn a_pin_stays_until_the_fences_of_its_buffer_have_retired() {
    let mut ledger = ledger();
    let charge = ledger.charge(region(0), tenant(0), Bytes::new(1)).unwrap();
    let (reads, writes) = (Timeline::new("nic queue 0"), Timeline::new("copy engine"));
    let mut reservation = Reservation::new();
    reservation.reserve(3).unwrap();
    let (read, abandoned) = (reads.issue(), writes.issue());
    reservation.add(read.clone(), Usage::Bookkeeping).unwrap();
    reservation.add(abandoned.clone(), Usage::Write).unwrap();
    let pin = ledger.pin(&charge, tenant(1)).unwrap();
    let users = reservation.users();
    let Err(UnpinError::StillUsed { pin, outstanding: 2, .. }) = ledger.unpin(pin, &users) else { panic!("unpinned") };
    // What begins after it was let go is not its holder's.
    reservation.add(reads.issue(), Usage::Read).unwrap();
    ledger.unpin_when_unused(pin, Box::new(users)).unwrap();
    reads.fail(read.sequence(), Failure::Fault).unwrap();
    drop(writes);
    assert_eq!((ledger.settle(), ledger.pinned(region(0), tenant(1))), (1, Bytes::new(1)), "nobody said it is done");
    ledger.uncharge_when_unpinned(charge).unwrap();
    assert_eq!(ledger.used(region(0), tenant(0)), Bytes::new(1), "given back when nobody pins it");
    assert!(abandoned.write_off(Failure::Fault));
    assert_eq!((ledger.settle(), ledger.pinned(region(0), tenant(1))), (0, Bytes::ZERO));
    assert_eq!(ledger.used(region(0), tenant(0)), Bytes::ZERO);
}

#[test]
fn a_handle_of_another_ledger_releases_nothing() {
    let (mut one, mut other) = (ledger(), ledger());
    let charge = one.charge(region(0), tenant(0), Bytes::new(1)).unwrap();
    let theirs = other.charge(region(0), tenant(0), Bytes::new(1)).unwrap();
    let pin = one.pin(&charge, tenant(0)).unwrap();
    let theirs_pinned = other.pin(&theirs, tenant(0)).unwrap();
    assert_eq!(other.pin(&charge, tenant(0)).err(), Some(ChargeError::AnotherLedger));
    let Err(UnpinError::AnotherLedger { pin }) = other.unpin(pin, &|| 0_usize) else { panic!("taken") };
    let Err(UnchargeError::AnotherLedger { charge }) = other.uncharge(charge) else { panic!("taken") };
    one.unpin(pin, &|| 0_usize).unwrap();
    one.uncharge(charge).unwrap();
    other.unpin(theirs_pinned, &|| 0_usize).unwrap();
    other.uncharge(theirs).unwrap();
}

#[test]
fn what_is_not_described_is_not_charged() {
    let mut ledger = ledger();
    let (nowhere, nobody) = (RegionId::new(9), TenantId::new(9));
    assert_eq!(ledger.charge(nowhere, tenant(0), Bytes::new(1)).err(), Some(ChargeError::NoRegion { region: nowhere }));
    assert_eq!(ledger.charge(region(0), nobody, Bytes::new(1)).err(), Some(ChargeError::NoTenant { tenant: nobody }));
    assert_eq!(ledger.limit(nowhere, tenant(0), Limits::NONE), Err(ChargeError::NoRegion { region: nowhere }));
    assert_eq!(ledger.limit(region(0), nobody, Limits::NONE), Err(ChargeError::NoTenant { tenant: nobody }));
    let charge = ledger.charge(region(0), tenant(0), Bytes::new(1)).unwrap();
    assert_eq!(ledger.pin(&charge, nobody).err(), Some(ChargeError::NoTenant { tenant: nobody }));
    assert!(ledger.charge(region(0), tenant(0), Bytes::new(u64::MAX)).is_err(), "and nothing wraps");
    ledger.uncharge(charge).unwrap();
}
