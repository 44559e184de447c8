//! What a watch finds, against a naive one.

use super::*;
use crate::addr::{BusAddr, Iova, PhysAddr};
use crate::dma::span::Behind;
use core::panic::Location;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

fn span(address: DeviceAddress, len: u64, prot: Prot) -> Span {
    Span { at: Bytes::ZERO, address, len: Bytes::new(len), behind: Behind::Memory, snooped: true, prot, bounced: false }
}

fn iova(at: u64) -> DeviceAddress {
    DeviceAddress::Iova(Iova::new(at))
}

#[track_caller]
fn here() -> Place {
    Location::caller()
}

#[test]
fn a_range_that_is_mapped_twice_names_both_places() {
    let watch = Watch::new(8);
    let (first, second) = (here(), here());
    watch.mapped(&span(iova(0x1000), 0x1000, Prot::Read), first);
    watch.mapped(&span(iova(0x1fff), 0x1000, Prot::Read), second);
    let found = watch.found();
    let [Misuse::MappedTwice { at, mapped_at, .. }] = found[..] else { panic!("{found:?}") };
    assert_eq!((at, mapped_at), (second, first));
    let told = found[0].to_string();
    assert!(told.contains(&first.to_string()) && told.contains(&second.to_string()), "{told}");
    assert_eq!(watch.leaks().len(), 1, "the second is not recorded");
}

#[test]
fn untranslated_ranges_may_be_mapped_twice_and_are_unmapped_as_often() {
    let watch = Watch::new(8);
    let page = span(DeviceAddress::CpuPhysical(PhysAddr::new(0x1000)), 0x1000, Prot::Read);
    watch.mapped(&page, here());
    watch.mapped(&page, here());
    watch.unmapped(&page, here());
    assert_eq!(watch.access(page.address, page.len, Prot::Read, here()), Ok(()));
    watch.unmapped(&page, here());
    assert!(watch.found().is_empty() && watch.leaks().is_empty());
    watch.unmapped(&page, here());
    assert!(matches!(watch.found()[..], [Misuse::UnmappedTwice { .. }]));
}

#[test]
fn a_number_of_one_kind_says_nothing_about_another_kind() {
    let watch = Watch::new(8);
    watch.mapped(&span(iova(0x1000), 0x1000, Prot::ReadWrite), here());
    let bus = DeviceAddress::Bus { address: BusAddr::new(0x1000), bridge: None };
    for other in [bus, DeviceAddress::CpuPhysical(PhysAddr::new(0x1000))] {
        let access = watch.access(other, Bytes::new(4), Prot::Read, here());
        assert!(matches!(access, Err(Misuse::NotMapped { below: None, .. })), "{access:?}");
    }
}

#[test]
fn use_after_unmapping_names_where_it_was_mapped_and_where_unmapped() {
    let watch = Watch::new(8);
    let page = span(iova(0x1000), 0x1000, Prot::Read);
    let (mapped, unmapped, used) = (here(), here(), here());
    watch.mapped(&page, mapped);
    watch.unmapped(&page, unmapped);
    let access = watch.access(iova(0x1800), Bytes::new(4), Prot::Read, used);
    let Err(Misuse::UsedAfterUnmap { at, mapped_at, unmapped_at, .. }) = access else { panic!("{access:?}") };
    assert_eq!((at, mapped_at, unmapped_at), (used, mapped, unmapped));
}

#[test]
fn a_device_that_writes_what_was_mapped_for_reading_is_found() {
    let watch = Watch::new(8);
    watch.mapped(&span(iova(0x1000), 0x1000, Prot::Read), here());
    watch.mapped(&span(iova(0x2000), 0x1000, Prot::Write), here());
    assert_eq!(watch.access(iova(0x1000), Bytes::new(8), Prot::Read, here()), Ok(()));
    assert_eq!(watch.access(iova(0x2000), Bytes::new(8), Prot::Write, here()), Ok(()));
    for (at, access) in [(0x1000, Prot::Write), (0x2000, Prot::Read), (0x1000, Prot::ReadWrite)] {
        let found = watch.access(iova(at), Bytes::new(8), access, here());
        assert!(matches!(found, Err(Misuse::WrongDirection { .. })), "{found:?}");
    }
}

#[test]
fn an_access_past_the_end_names_the_mapping_that_was_overrun() {
    let watch = Watch::new(8);
    let mapped = here();
    watch.mapped(&span(iova(0x1000), 0x1000, Prot::Read), mapped);
    // Its neighbour is another mapping, which the device was not told of as one with the first.
    watch.mapped(&span(iova(0x2000), 0x1000, Prot::Read), here());
    let across = watch.access(iova(0x1ff8), Bytes::new(16), Prot::Read, here());
    assert!(matches!(across, Err(Misuse::Outside { mapped_at, .. }) if mapped_at == mapped), "{across:?}");
    let beyond = watch.access(iova(0x3000), Bytes::new(1), Prot::Read, here());
    assert!(matches!(beyond, Err(Misuse::NotMapped { below: Some(_), .. })), "{beyond:?}");
    assert!(beyond.is_err_and(|misuse| misuse.to_string().contains("iova 0x2000")));
}

#[test]
fn parts_are_unmapped_one_by_one_and_what_is_left_stays() {
    let watch = Watch::new(8);
    watch.mapped(&span(iova(0x1000), 0x3000, Prot::Read), here());
    watch.unmapped(&span(iova(0x2000), 0x1000, Prot::Read), here());
    assert_eq!(watch.access(iova(0x1fff), Bytes::new(1), Prot::Read, here()), Ok(()));
    assert_eq!(watch.access(iova(0x3000), Bytes::new(1), Prot::Read, here()), Ok(()));
    let hole = watch.access(iova(0x2000), Bytes::new(1), Prot::Read, here());
    assert!(matches!(hole, Err(Misuse::UsedAfterUnmap { .. })), "{hole:?}");
    watch.unmapped(&span(iova(0x1000), 0x3000, Prot::Read), here());
    assert!(matches!(watch.found()[1], Misuse::Outside { .. }), "not all of it is mapped");
    assert_eq!(watch.leaks().len(), 2);
}

#[test]
fn what_is_still_mapped_is_told_when_the_watch_goes() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&told);
    let watch = Watch::new(0).telling(move |misuse| ear.lock().unwrap().push(misuse.clone()));
    let mapped = here();
    watch.mapped(&span(iova(0x1000), 0x1000, Prot::Write), mapped);
    assert!(watch.access(iova(0), Bytes::new(1), Prot::Read, here()).is_err());
    assert!(watch.found().is_empty(), "keeps nothing");
    drop(watch);
    let told = told.lock().unwrap();
    assert!(matches!(told[0], Misuse::NotMapped { .. }));
    assert!(matches!(told[1], Misuse::Leaked { mapped_at, .. } if mapped_at == mapped));
}

#[test]
fn memory_for_what_was_unmapped_is_bounded_and_the_youngest_are_kept() {
    let watch = Watch::new(2);
    for at in 1..=3 {
        let page = span(iova(at << 12), 0x1000, Prot::Read);
        watch.mapped(&page, here());
        watch.unmapped(&page, here());
    }
    let kinds = [1, 2, 3].map(|at: u64| watch.access(iova(at << 12), Bytes::new(1), Prot::Read, here()));
    assert!(matches!(kinds[0], Err(Misuse::NotMapped { .. })), "{:?}", kinds[0]);
    for kept in &kinds[1..] {
        assert!(matches!(kept, Err(Misuse::UsedAfterUnmap { .. })), "{kept:?}");
    }
}

#[test]
fn ranges_of_no_bytes_and_ranges_to_the_end_of_the_space_are_no_trouble() {
    let watch = Watch::new(4);
    watch.mapped(&span(iova(5), 0, Prot::Read), here());
    watch.unmapped(&span(iova(5), 0, Prot::Read), here());
    assert_eq!(watch.access(iova(5), Bytes::ZERO, Prot::Read, here()), Ok(()));
    let last = span(iova(u64::MAX), 1, Prot::Read);
    watch.mapped(&last, here());
    assert_eq!(watch.access(last.address, Bytes::new(1), Prot::Read, here()), Ok(()));
    watch.unmapped(&span(iova(0), u64::MAX, Prot::Read), here());
    watch.unmapped(&last, here());
    assert_eq!(watch.found().len(), 1, "{:?}", watch.found());
    assert!(watch.leaks().is_empty());
}

/// Which kind of misuse it is; places are compared elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fine,
    MappedTwice,
    UnmappedTwice,
    UsedAfterUnmap,
    WrongDirection,
    Outside,
    NotMapped,
}

impl Kind {
    fn of(misuse: Option<&Misuse>) -> Self {
        match misuse {
            None => Self::Fine,
            Some(Misuse::MappedTwice { .. }) => Self::MappedTwice,
            Some(Misuse::UnmappedTwice { .. }) => Self::UnmappedTwice,
            Some(Misuse::UsedAfterUnmap { .. }) => Self::UsedAfterUnmap,
            Some(Misuse::WrongDirection { .. }) => Self::WrongDirection,
            Some(Misuse::Outside { .. }) => Self::Outside,
            Some(Misuse::NotMapped { .. }) => Self::NotMapped,
            Some(Misuse::Leaked { .. }) => panic!("not before the end"),
        }
    }
}

/// A naive watch over 64 bytes of each kind: a mapping is a set of bytes.
#[derive(Default)]
struct Naive {
    /// Kind of address, bytes, protection; the oldest first. A hole makes two.
    live: Vec<(u8, u64, Prot)>,
    gone: Vec<(u8, u64)>,
}

impl Naive {
    fn map(&mut self, kind: u8, bytes: u64, prot: Prot) -> Kind {
        if kind == 0 && self.live.iter().any(|(of, set, _)| (*of, *set & bytes != 0) == (kind, true)) {
            return Kind::MappedTwice;
        }
        self.live.push((kind, bytes, prot));
        Kind::Fine
    }

    fn missing(&self, kind: u8, bytes: u64, gone: Kind) -> Kind {
        let touched = |of: &u8, set: &u64| *of == kind && set & bytes != 0;
        if self.live.iter().any(|(of, set, _)| touched(of, set)) {
            return Kind::Outside;
        }
        if self.gone.iter().any(|(of, set)| touched(of, set)) { gone } else { Kind::NotMapped }
    }

    fn unmap(&mut self, kind: u8, bytes: u64) -> Kind {
        let holds = |(of, set, _): &(u8, u64, Prot)| *of == kind && set & bytes == bytes;
        let exact = self.live.iter().position(|live| holds(live) && live.1 == bytes);
        let Some(at) = exact.or_else(|| self.live.iter().position(holds)) else {
            return self.missing(kind, bytes, Kind::UnmappedTwice);
        };
        let (_, set, prot) = self.live.remove(at);
        let below = set & (bytes & bytes.wrapping_neg()).wrapping_sub(1);
        let parts = [set & !bytes & !below, below];
        for part in parts.into_iter().filter(|part| *part != 0) {
            self.live.insert(at, (kind, part, prot));
        }
        self.gone.push((kind, bytes));
        Kind::Fine
    }

    fn access(&self, kind: u8, bytes: u64, access: Prot) -> Kind {
        let holding: Vec<_> = self.live.iter().filter(|(of, set, _)| *of == kind && set & bytes == bytes).collect();
        let permits = |prot: Prot| match access {
            Prot::Read => prot != Prot::Write,
            Prot::Write => prot != Prot::Read,
            Prot::ReadWrite => prot == Prot::ReadWrite,
        };
        match (holding.iter().any(|(.., prot)| permits(*prot)), holding.is_empty()) {
            (true, _) => Kind::Fine,
            (false, false) => Kind::WrongDirection,
            (false, true) => self.missing(kind, bytes, Kind::UsedAfterUnmap),
        }
    }
}

fn prot() -> impl Strategy<Value = Prot> {
    prop_oneof![Just(Prot::Read), Just(Prot::Write), Just(Prot::ReadWrite)]
}

proptest! {
    #[test]
    fn a_watch_agrees_with_a_naive_one(
        steps in vec((0_u8..3, 0_u8..2, 0_u64..64, 1_u64..20, prot()), 1..120),
    ) {
        let watch = Watch::new(1000);
        let mut naive = Naive::default();
        for (verb, kind, start, len, prot) in steps {
            let len = len.min(64 - start);
            let bytes = (u64::MAX >> (64 - len)) << start;
            let address = match kind {
                0 => iova(0x1000 + start),
                _ => DeviceAddress::CpuPhysical(PhysAddr::new(0x1000 + start)),
            };
            let before = watch.found().len();
            let expected = match verb {
                0 => {
                    watch.mapped(&span(address, len, prot), here());
                    naive.map(kind, bytes, prot)
                }
                1 => {
                    watch.unmapped(&span(address, len, prot), here());
                    naive.unmap(kind, bytes)
                }
                _ => {
                    let found = watch.access(address, Bytes::new(len), prot, here());
                    prop_assert_eq!(found.err(), watch.found().get(before).cloned());
                    naive.access(kind, bytes, prot)
                }
            };
            prop_assert_eq!(Kind::of(watch.found().get(before)), expected);
        }
        prop_assert_eq!(watch.leaks().len(), naive.live.len());
    }
}
