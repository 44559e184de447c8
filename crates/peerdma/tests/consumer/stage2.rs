//! Runs of pages for a guest, page by page against where the owners' bytes are.

use peerdma::access::MemAttrs;
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::consumer::stage2::{Access, Guest, GuestFrame, GuestRun, Stage2, Stage2Error};
use peerdma::dma::{Behind, Owner, OwnerId, Owners, ResolveError, Source};
use proptest::collection::vec;
use proptest::prelude::*;

const MEMFD: Owner = Owner::Memfd(OwnerId::new(1));
const DEVICE: Owner = Owner::Device(OwnerId::new(2));
const PRIVATE: Owner = Owner::Private(OwnerId::new(3));
const GUEST: GuestFrame = GuestFrame::new(0x1_0000);

/// A memfd of 16 pages in pieces of 1, 3, 4 and 8 pages (the middle two continue each other), and a device of four
/// pages.
fn owners() -> Owners<u8> {
    let mut owners = Owners::new();
    for (owner, offset, pages, at) in [
        (MEMFD, 0, 1, 0x900),
        (MEMFD, 1, 3, 0x500),
        (MEMFD, 4, 4, 0x503),
        (MEMFD, 8, 8, 0x100),
        (DEVICE, 0, 4, 0xf000),
        (PRIVATE, 0, 4, 0x700),
    ] {
        let source = Source::Physical(PhysAddr::new(at << 12));
        owners.add(owner, Bytes::new(offset << 12), Bytes::new(pages << 12), source);
    }
    owners
}

/// Where page `page` of an owner is, by hand.
fn pfn(owner: Owner, page: u64) -> u64 {
    match (owner, page) {
        (MEMFD, 0) => 0x900,
        (MEMFD, 1..8) => 0x500 + page - 1,
        (MEMFD, _) => 0x100 + page - 8,
        (DEVICE, _) => 0xf000 + page,
        (PRIVATE, _) => 0x700 + page,
        _ => page,
    }
}

fn list(parts: &[(Owner, u64, u64)]) -> Chunks<Owner> {
    let chunk = |(owner, page, pages): &(Owner, u64, u64)| {
        Chunk::new(*owner, Bytes::new(page << 12), Bytes::new(pages << 12), MemAttrs::empty()).unwrap()
    };
    Chunks::collect_from(parts.iter().map(chunk)).unwrap()
}

fn runs(list: &Chunks<Owner>, whose: Guest) -> Result<Vec<GuestRun>, Stage2Error> {
    Ok(Stage2::new(list.view(), &owners(), GUEST, Access::ReadWrite, whose)?.collect())
}

fn part() -> impl Strategy<Value = (Owner, u64, u64)> {
    prop_oneof![
        (0..16_u64, 1..16_u64).prop_map(|(page, pages)| (MEMFD, page, pages.min(16 - page))),
        (0..4_u64, 1..4_u64).prop_map(|(page, pages)| (DEVICE, page, pages.min(4 - page))),
        (0..4_u64, 1..4_u64).prop_map(|(page, pages)| (PRIVATE, page, pages.min(4 - page))),
        (0x500..0x510_u64, 1..4_u64).prop_map(|(page, pages)| (Owner::Ram, page, pages)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_guest_sees_each_page_of_the_list_in_its_place(parts in vec(part(), 1..8)) {
        let runs = runs(&list(&parts), Guest::Confidential(OwnerId::new(3))).unwrap();
        let expected: Vec<_> = parts
            .iter()
            .flat_map(|(owner, page, pages)| (*page..page + pages).map(move |page| (*owner, pfn(*owner, page))))
            .enumerate()
            .map(|(index, (owner, pfn))| (GUEST.number() + index as u64, pfn, owner == DEVICE, owner == PRIVATE))
            .collect();
        let seen: Vec<_> = runs
            .iter()
            .flat_map(|run| {
                let sort = (run.behind == Behind::Mmio, run.private);
                (0..run.pages()).map(move |page| (run.guest.number() + page, run.first_pfn() + page, sort.0, sort.1))
            })
            .collect();
        prop_assert_eq!(seen, expected);
        // Runs are as long as they can be.
        for pair in runs.windows(2) {
            let touch = pair[0].host.start().checked_add(pair[0].host.len()) == Some(pair[1].host.start());
            prop_assert!(!touch || pair[0].behind != pair[1].behind || pair[0].private != pair[1].private);
        }
    }
}

#[test]
fn private_memory_is_for_the_guest_that_it_belongs_to() {
    let list = list(&[(MEMFD, 0, 1), (PRIVATE, 0, 1)]);
    let foreign = Err(Stage2Error::ForeignPrivate { owner: PRIVATE });
    assert_eq!(runs(&list, Guest::Plain), foreign);
    assert_eq!(runs(&list, Guest::Confidential(OwnerId::new(4))), foreign);
    assert!(runs(&list, Guest::Confidential(OwnerId::new(3))).unwrap()[1].private);
}

#[test]
fn an_owner_without_a_physical_address_has_no_place_in_a_guest() {
    let process = list(&[(MEMFD, 0, 2), (Owner::Process, 7, 1)]);
    match runs(&process, Guest::Plain) {
        Err(Stage2Error::NoPhysical { at, error: ResolveError::NoSuchForm { owner: Owner::Process, .. } }) => {
            assert_eq!(at, Bytes::new(0x2000));
        }
        other => panic!("{other:?}"),
    }
    let beyond = list(&[(MEMFD, 15, 2)]);
    let error = ResolveError::Outside { owner: MEMFD, offset: Bytes::new(0x1_0000) };
    assert_eq!(runs(&beyond, Guest::Plain), Err(Stage2Error::NoPhysical { at: Bytes::new(0x1000), error }));
}

#[test]
fn a_guest_gets_whole_pages_and_attributes_that_its_tables_can_say() {
    let one = |offset, len, attrs| {
        let chunk = Chunk::new(Owner::Ram, Bytes::new(offset), Bytes::new(len), attrs).unwrap();
        runs(&Chunks::collect_from([chunk]).unwrap(), Guest::Plain)
    };
    assert!(matches!(one(0x800, 0x1000, MemAttrs::empty()), Err(Stage2Error::NotWholePages { .. })));
    assert!(matches!(one(0x1000, 0x800, MemAttrs::empty()), Err(Stage2Error::NotWholePages { .. })));
    let attrs = MemAttrs::PRIVILEGED;
    let refused = Err(Stage2Error::AttrsNotTaken { owner: Owner::Ram, attrs });
    assert_eq!(one(0x1000, 0x1000, attrs | MemAttrs::NO_EXECUTE), refused);
    let run = one(0x1000, 0x1000, MemAttrs::NO_EXECUTE | MemAttrs::MMIO).unwrap()[0];
    assert_eq!((run.attrs, run.behind), (MemAttrs::NO_EXECUTE, Behind::Mmio));
    assert_eq!(runs(&Chunks::new(), Guest::Plain), Err(Stage2Error::Empty));
    let list = list(&[(MEMFD, 0, 2)]);
    let top = GuestFrame::new(u64::MAX >> 12);
    let owners = owners();
    let wraps = Stage2::new(list.view(), &owners, top, Access::ReadOnly, Guest::Plain);
    assert!(matches!(wraps, Err(Stage2Error::Wraps { .. })));
}
