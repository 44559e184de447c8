//! Random requests: the recording space answers what the paged model answers.

use crate::iova;
use crate::paged::{BASE, LENGTH, PAGE, Paged};
use core::mem::discriminant;
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr, ProcVa};
use peerdma::dma::recording::{FileKind, ProcessKind, Profile, RecordingSpace};
use peerdma::dma::{IoSpace, MapError, MemAttrs, Permit, Prot, Source};
use proptest::prelude::*;

/// Sixteen pages below the hole of the profiles, so that some requests run into it.
const START: u64 = 0xfedf_0000;

#[derive(Clone, Copy, Debug)]
enum From {
    Process,
    File,
    Physical,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Map { at: AddrRange<Iova>, from: From, offset: u64, prot: Prot, attrs: MemAttrs },
    Unmap(AddrRange<Iova>),
}

/// Mostly whole pages, sometimes half a page off in start or length.
fn ranges() -> impl Strategy<Value = AddrRange<Iova>> {
    (0_u64..20, 1_u64..6, 0_u8..20).prop_map(|(page, pages, odd)| {
        let start = START + page * PAGE + if odd == 0 { PAGE / 2 } else { 0 };
        iova(start, pages * PAGE - if odd == 1 { PAGE / 2 } else { 0 })
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let from = prop_oneof![6 => Just(From::Process), 6 => Just(From::File), 1 => Just(From::Physical)];
    let prot = prop_oneof![Just(Prot::Read), Just(Prot::Write), Just(Prot::ReadWrite)];
    let attrs = prop_oneof![
        8 => Just(MemAttrs::empty()),
        2 => Just(MemAttrs::MMIO),
        1 => Just(MemAttrs::PRIVILEGED),
    ];
    // Up to two pages past the end of the memory and the file.
    let offset = (0_u64..LENGTH / PAGE + 2, 0_u8..20).prop_map(|(page, odd)| page * PAGE + u64::from(odd == 0) * 512);
    prop_oneof![
        3 => (ranges(), from, offset, prot, attrs)
            .prop_map(|(at, from, offset, prot, attrs)| Request::Map { at, from, offset, prot, attrs }),
        2 => ranges().prop_map(Request::Unmap),
    ]
}

fn source<F>(from: From, file: F, offset: u64) -> Source<F> {
    match from {
        From::Process => Source::Process(ProcVa::new(BASE + offset)),
        From::Physical => Source::Physical(PhysAddr::new(BASE + offset)),
        From::File => Source::File { file, offset: Bytes::new(offset) },
    }
}

/// The same answer, apart from which usable range is called the nearest.
fn same(one: &Result<(), MapError>, other: &Result<(), MapError>) -> bool {
    match (one, other) {
        (Err(one @ MapError::OutsideUsable { .. }), Err(other)) => discriminant(one) == discriminant(other),
        _ => one == other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_recording_space_answers_as_a_table_of_pages(
        type1 in any::<bool>(),
        limit in 3_u32..12,
        requests in proptest::collection::vec(requests(), 1..60),
    ) {
        let profile = if type1 { Profile::Type1 } else { Profile::Iommufd };
        let mut space = RecordingSpace::new(profile).with_max_mappings(limit);
        let memory = AddrRange::new(ProcVa::new(BASE), Bytes::new(LENGTH)).unwrap();
        space.add_process(memory, ProcessKind::Memory);
        let file = space.add_file(FileKind::Memfd, Bytes::new(LENGTH));
        let mut model = Paged::new(space.abilities().clone());
        for (n, request) in requests.iter().enumerate() {
            match *request {
                Request::Map { at, from, offset, prot, attrs } => {
                    let source_here = source(from, file, offset);
                    let answer = space.map_peer(at, &source_here, prot, attrs, &Permit::vouched(prot));
                    let expected = model.map(at, &source(from, 1, offset), prot, attrs);
                    prop_assert!(same(&answer, &expected), "{request:?}: {answer:?} {expected:?}");
                }
                Request::Unmap(at) => prop_assert_eq!(space.unmap(at), model.unmap(at), "{:?}", request),
            }
            prop_assert_eq!(space.calls().len(), n + 1);
            for page in 0..26 {
                let at = Iova::new(START + page * PAGE);
                let reached = space.translate(at).map(|reached| {
                    let plain = match reached.source {
                        Source::File { offset, .. } => Source::File { file: 1, offset },
                        Source::Process(at) => Source::Process(at),
                        Source::Physical(at) => Source::Physical(at),
                    };
                    (plain, reached.prot)
                });
                prop_assert_eq!(reached, model.translate(at));
            }
        }
    }
}
