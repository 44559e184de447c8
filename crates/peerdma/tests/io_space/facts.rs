//! What was seen of real type1 and iommufd spaces, held against the recording space.

use crate::iova;
use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
use peerdma::dma::recording::{Call, Disturbance, FileId, FileKind, ProcessKind, Profile, RecordingSpace};
use peerdma::dma::{Errno, IoSpace, MapError, MemAttrs, Permit, Prot, Source, SourceKind, UnmapError};

const PAGE: u64 = 4096;
const VA: ProcVa = ProcVa::new(0x7f12_0000_0000);

/// A space beside sixteen pages of one kind at [`VA`].
fn beside(profile: Profile, kind: ProcessKind) -> RecordingSpace {
    let mut space = RecordingSpace::new(profile);
    space.add_process(AddrRange::new(VA, Bytes::new(16 * PAGE)).expect("sixteen pages"), kind);
    space
}

fn map_process(space: &mut RecordingSpace, at: AddrRange<Iova>, prot: Prot) -> Result<(), MapError> {
    space.map(at, &Source::Process(VA), prot, MemAttrs::empty())
}

fn map_file(space: &mut RecordingSpace, at: AddrRange<Iova>, file: FileId) -> Result<(), MapError> {
    let source = Source::File { file, offset: Bytes::ZERO };
    space.map_peer(at, &source, Prot::ReadWrite, MemAttrs::MMIO, &Permit::vouched(Prot::ReadWrite))
}

#[test]
fn type1_takes_a_bars_mapping_and_iommufd_does_not() {
    let at = iova(0x10_0000, PAGE);
    assert_eq!(map_process(&mut beside(Profile::Type1, ProcessKind::Bar), at, Prot::ReadWrite), Ok(()));
    let refused = MapError::SourceRefused { kind: SourceKind::Process, errno: Errno::EFAULT };
    assert_eq!(map_process(&mut beside(Profile::Iommufd, ProcessKind::Bar), at, Prot::ReadWrite), Err(refused));
}

#[test]
fn a_bar_that_is_called_mmio_is_refused_by_iommufd_before_the_kernel_is_asked() {
    let mut space = beside(Profile::Iommufd, ProcessKind::Bar);
    let answer = space.map(iova(0, PAGE), &Source::Process(VA), Prot::Read, MemAttrs::MMIO);
    assert_eq!(answer, Err(MapError::AttrsNotTaken { attrs: MemAttrs::MMIO, kind: SourceKind::Process }));
    let mut type1 = beside(Profile::Type1, ProcessKind::Bar);
    let (at, source, permit) = (iova(0, PAGE), Source::Process(VA), Permit::vouched(Prot::Read));
    assert_eq!(type1.map_peer(at, &source, Prot::Read, MemAttrs::MMIO, &permit), Ok(()));
}

#[test]
fn pages_of_peers_are_pinned_by_neither() {
    for profile in [Profile::Type1, Profile::Iommufd] {
        let answer = map_process(&mut beside(profile, ProcessKind::P2pmem), iova(0, PAGE), Prot::Read);
        assert_eq!(answer, Err(MapError::SourceRefused { kind: SourceKind::Process, errno: Errno::EFAULT }));
    }
}

#[test]
fn read_only_memory_is_for_reading_devices() {
    let mut space = beside(Profile::Iommufd, ProcessKind::ReadOnlyMemory);
    assert_eq!(map_process(&mut space, iova(0, PAGE), Prot::Read), Ok(()));
    for prot in [Prot::Write, Prot::ReadWrite] {
        let answer = map_process(&mut space, iova(0x10_0000, PAGE), prot);
        assert!(matches!(answer, Err(MapError::SourceRefused { .. })), "{prot}");
    }
}

#[test]
fn a_range_with_a_hole_is_refused_and_one_of_neighbours_is_not() {
    let mut space = beside(Profile::Type1, ProcessKind::Memory);
    let next = |pages: u64| VA.checked_add(Bytes::new(pages * PAGE)).expect("far below the end");
    space.add_process(AddrRange::new(next(16), Bytes::new(PAGE)).expect("a page"), ProcessKind::Bar);
    let last = Source::Process(next(15));
    assert_eq!(space.map(iova(0, 2 * PAGE), &last, Prot::Read, MemAttrs::empty()), Ok(()));
    let answer = space.map(iova(0x10_0000, 3 * PAGE), &last, Prot::Read, MemAttrs::empty());
    assert_eq!(answer, Err(MapError::SourceRefused { kind: SourceKind::Process, errno: Errno::EFAULT }));
}

#[test]
fn a_mapping_outlives_the_process_range_it_came_from() {
    for profile in [Profile::Type1, Profile::Iommufd] {
        let mut space = beside(profile, ProcessKind::Memory);
        map_process(&mut space, iova(0, PAGE), Prot::ReadWrite).expect("memory is taken");
        space.remove_process(AddrRange::new(VA, Bytes::new(PAGE)).expect("a page"));
        assert_eq!(
            space.translate(Iova::new(8)).map(|at| at.source),
            Some(Source::Process(ProcVa::new(VA.as_u64() + 8)))
        );
        assert!(map_process(&mut space, iova(PAGE, PAGE), Prot::ReadWrite).is_err());
    }
}

#[test]
fn an_empty_unmapping_is_zero_bytes_in_type1_and_an_error_in_iommufd() {
    let at = iova(0x10_0000, PAGE);
    assert_eq!(RecordingSpace::new(Profile::Type1).unmap(at), Ok(Bytes::ZERO));
    assert_eq!(RecordingSpace::new(Profile::Iommufd).unmap(at), Err(UnmapError::NothingMapped { iova: at }));
}

#[test]
fn the_window_of_interrupts_is_no_place_for_mappings() {
    for profile in [Profile::Type1, Profile::Iommufd] {
        let mut space = beside(profile, ProcessKind::Memory);
        let at = iova(0xfee0_0000, PAGE);
        let below = iova(0, 0xfee0_0000);
        let answer = map_process(&mut space, at, Prot::Write);
        assert_eq!(answer, Err(MapError::OutsideUsable { iova: at, nearest: Some(below) }));
        assert_eq!(map_process(&mut space, iova(0xfef0_0000, PAGE), Prot::Write), Ok(()));
    }
}

#[test]
fn a_reset_kills_a_mapping_for_good_and_leaves_its_iovas_taken() {
    let mut space = RecordingSpace::new(Profile::Iommufd);
    let bar = space.add_file(FileKind::VfioDmabuf, Bytes::new(4 * PAGE));
    let (at, elsewhere) = (iova(0x10_0000, PAGE), iova(0x20_0000, PAGE));
    map_file(&mut space, at, bar).expect("an enabled device's BAR is taken");
    space.disturb(bar, Disturbance::Reset);
    assert_eq!(space.translate(at.start()), None);
    assert_eq!(map_file(&mut space, at, bar), Err(MapError::Overlap { iova: at, existing: Some(at) }));
    assert_eq!(map_file(&mut space, elsewhere, bar), Ok(()));
    assert_eq!(space.unmap(at), Ok(Bytes::new(PAGE)));
    assert_eq!(map_file(&mut space, at, bar), Ok(()));
    assert!(space.translate(at.start()).is_some());
}

#[test]
fn memory_that_is_off_is_refused_until_it_is_on_and_old_mappings_stay_dead() {
    let mut space = RecordingSpace::new(Profile::Iommufd);
    let bar = space.add_file(FileKind::VfioDmabuf, Bytes::new(4 * PAGE));
    let (at, elsewhere) = (iova(0x10_0000, PAGE), iova(0x20_0000, PAGE));
    map_file(&mut space, at, bar).expect("an enabled device's BAR is taken");
    space.disturb(bar, Disturbance::MemoryOff);
    assert_eq!(map_file(&mut space, elsewhere, bar), Err(MapError::SourceRevoked { errno: Errno::ENODEV }));
    space.disturb(bar, Disturbance::Reset);
    assert!(map_file(&mut space, elsewhere, bar).is_err(), "a reset does not set the memory bit");
    space.disturb(bar, Disturbance::MemoryOn);
    assert_eq!(space.translate(at.start()), None);
    assert_eq!(map_file(&mut space, elsewhere, bar), Ok(()));
}

#[test]
fn a_closed_devices_dmabuf_never_comes_back() {
    let mut space = RecordingSpace::new(Profile::Iommufd);
    let bar = space.add_file(FileKind::VfioDmabuf, Bytes::new(4 * PAGE));
    let other = space.add_file(FileKind::VfioDmabuf, Bytes::new(4 * PAGE));
    map_file(&mut space, iova(0x10_0000, PAGE), other).expect("another device's BAR is taken");
    space.disturb(bar, Disturbance::Close);
    for then in [Disturbance::MemoryOn, Disturbance::Reset] {
        space.disturb(bar, then);
        assert_eq!(map_file(&mut space, iova(0, PAGE), bar), Err(MapError::SourceRevoked { errno: Errno::ENODEV }));
    }
    assert!(space.translate(Iova::new(0x10_0000)).is_some(), "another device was closed");
}

#[test]
fn iommufd_takes_memfds_and_vfios_dmabufs_of_one_range_only() {
    let mut space = RecordingSpace::new(Profile::Iommufd);
    let memfd = space.add_file(FileKind::Memfd, Bytes::new(PAGE));
    let udmabuf = space.add_file(FileKind::OtherDmabuf, Bytes::new(PAGE));
    assert_eq!(map_file(&mut space, iova(0, PAGE), memfd), Ok(()));
    let refused = MapError::SourceRefused { kind: SourceKind::File, errno: Errno::EOPNOTSUPP };
    assert_eq!(map_file(&mut space, iova(PAGE, PAGE), udmabuf), Err(refused));
    space.disturb(memfd, Disturbance::Close);
    assert!(space.translate(Iova::new(0)).is_some(), "memory belongs to no device");
}

#[test]
fn every_call_is_recorded_with_its_answer() {
    let mut space = beside(Profile::Type1, ProcessKind::Memory);
    let at = iova(0, PAGE);
    map_process(&mut space, at, Prot::Read).expect("memory is taken");
    let again = map_process(&mut space, at, Prot::Read);
    space.unmap(at).expect("it was mapped");
    let map = |answer| Call::Map {
        iova: at,
        source: Source::Process(VA),
        prot: Prot::Read,
        attrs: MemAttrs::empty(),
        answer,
    };
    let expected = vec![map(Ok(())), map(again), Call::Unmap { iova: at, answer: Ok(Bytes::new(PAGE)) }];
    assert_eq!(space.take_calls(), expected);
    assert!(space.calls().is_empty());
}

#[test]
fn device_memory_is_mapped_with_a_permit_alone_and_for_no_more_than_it_says() {
    for (profile, kind) in [(Profile::Type1, SourceKind::Process), (Profile::Iommufd, SourceKind::File)] {
        let mut space = beside(profile, ProcessKind::Bar);
        let file = space.add_file(FileKind::VfioDmabuf, Bytes::new(PAGE));
        let source = match kind {
            SourceKind::File => Source::File { file, offset: Bytes::ZERO },
            _ => Source::Process(VA),
        };
        let at = iova(0x10_0000, PAGE);
        for unasked in [IoSpace::map, IoSpace::link] {
            let answer = unasked(&mut space, at, &source, Prot::Read, MemAttrs::MMIO);
            assert_eq!(answer, Err(MapError::Unasked { iova: at }), "{profile:?}");
        }
        let (asked, permit) = (Prot::ReadWrite, Permit::vouched(Prot::Read));
        let answer = space.map_peer(at, &source, asked, MemAttrs::MMIO, &permit);
        assert_eq!(answer, Err(MapError::BeyondPermit { iova: at, asked, permitted: Prot::Read }));
        assert!(space.mapped().is_empty(), "nothing was mapped on the way");
        assert_eq!(space.map_peer(at, &source, Prot::Read, MemAttrs::MMIO, &permit), Ok(()));
    }
}
