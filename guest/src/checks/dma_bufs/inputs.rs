//! Claims about what allocators refuse: the library by name, and the kernel, asked without it, by an errno that names nothing.

use super::super::answer::refused;
use super::super::bench::PAGE;
use super::super::claim::{Claim, Stop};
use super::super::type1::open;
use super::{LIMIT, Tried, file_of, sealed};
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use peerdma_linux::dma_buf::{DmaBuf, HeapError, MemfdRange, NameError, NotADmaBuf, UdmabufError};
use peerdma_linux::raw;
use rustix::fs::{SealFlags, fcntl_add_seals};
use std::fs::File;

/// A range of a memfd that cannot be: its words, seals beside F_SEAL_SHRINK or none at all, offset, length, and whether the error is the one.
type Row = (&'static str, Option<SealFlags>, u64, u64, fn(&UdmabufError) -> bool);

const ROWS: [Row; 6] = [
    ("that can shrink", None, 0, 4096, |error| matches!(error, UdmabufError::Shrinks { range: 0 })),
    ("that is sealed against writing", Some(SealFlags::WRITE), 0, 4096, |error| {
        matches!(error, UdmabufError::Sealed { range: 0 })
    }),
    ("from an unaligned offset", Some(SealFlags::empty()), 0x800, 4096, |error| {
        matches!(error, UdmabufError::NotPages { .. })
    }),
    ("of an unaligned length", Some(SealFlags::empty()), 0, 0x800, |error| {
        matches!(error, UdmabufError::NotPages { .. })
    }),
    ("of no bytes", Some(SealFlags::empty()), 0, 0, |error| matches!(error, UdmabufError::NotPages { .. })),
    ("past its end", Some(SealFlags::empty()), 4096, 4096, |error| matches!(error, UdmabufError::Outside { .. })),
];

pub(super) fn claims() -> Vec<Claim<Tried>> {
    let row = |(words, seals, offset, len, is): Row| {
        let sentence = format!("a udmabuf of a memfd {words} is refused by name, and by the kernel with EINVAL");
        Claim::new(sentence, move |tried: &mut Tried| udmabuf(tried, seals, (Bytes::new(offset), Bytes::new(len)), is))
    };
    let mut claims: Vec<Claim<Tried>> = ROWS.into_iter().map(row).collect();
    claims.push(Claim::new(
        "a udmabuf of more ranges, or more bytes, than the kernel takes is refused by name",
        too_much,
    ));
    claims.push(Claim::new(
        "a heap is never asked for nothing, for more than permitted, or for more than there is",
        heap,
    ));
    claims.push(Claim::new("descriptors of something else are refused by what they are of", strangers));
    claims.push(Claim::new("names that are too long, or look like more than a name, are refused", names));
    claims
}

fn udmabuf(
    tried: &Tried,
    seals: Option<SealFlags>,
    (offset, len): (Bytes, Bytes),
    is: fn(&UdmabufError) -> bool,
) -> Result<(), Stop> {
    // A writable mapping would stand against F_SEAL_WRITE, so that there is none.
    let file = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, PAGE.as_u64())?;
    if let Some(seals) = seals {
        fcntl_add_seals(&file, seals | SealFlags::SHRINK)?;
    }
    refused("asking the kernel", Errno::EINVAL, raw::udmabuf(open("/dev/udmabuf")?, &file, offset, len))?;
    let range = MemfdRange { file: std::os::fd::AsFd::as_fd(&file), offset, len };
    match tried.udmabuf.create(&[range]) {
        Err(error) if is(&error) => Ok(()),
        other => Err(Stop::broken(format!("expected another refusal, seen {other:?}"))),
    }
}

fn too_much(tried: &mut Tried) -> Result<(), Stop> {
    let pages = sealed(1)?;
    let range = MemfdRange { file: file_of(&pages)?, offset: Bytes::ZERO, len: PAGE };
    let many = vec![range; 1025];
    match tried.udmabuf.create(&many) {
        Err(UdmabufError::TooMany { count: 1025, most: 1024 }) => {}
        other => return Err(Stop::broken(format!("1025 ranges: {other:?}"))),
    }
    // The kernel's own limit: 64 MiB at first, more than a machine has in 7.3. So nothing of it is there or mapped.
    let limit = std::fs::read_to_string("/sys/module/udmabuf/parameters/size_limit_mb")?;
    let most = Bytes::new(limit.trim().parse::<u64>()? << 20);
    let len = Bytes::new(most.as_u64() + PAGE.as_u64());
    let file = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, len.as_u64())?;
    fcntl_add_seals(&file, SealFlags::SHRINK)?;
    match tried.udmabuf.create(&[MemfdRange { file: std::os::fd::AsFd::as_fd(&file), offset: Bytes::ZERO, len }]) {
        Err(UdmabufError::TooLong { most: told, .. }) if told == most => Ok(()),
        other => Err(Stop::broken(format!("more than {most}: {other:?}"))),
    }
}

fn heap(tried: &mut Tried) -> Result<(), Stop> {
    let ask = |len, limit| tried.heap.allocate(len, limit).err();
    let huge = Bytes::new(1 << 50);
    let seen = [ask(Bytes::ZERO, LIMIT), ask(huge, LIMIT), ask(huge, huge)];
    match &seen {
        [Some(HeapError::Empty), Some(HeapError::OverLimit { .. }), Some(HeapError::Unavailable { .. })] => {}
        other => return Err(Stop::broken(format!("expected other refusals, seen {other:?}"))),
    }
    refused("asking the kernel for nothing", Errno::EINVAL, raw::heap(open("/dev/dma_heap/system")?, Bytes::ZERO))
}

fn strangers(_: &mut Tried) -> Result<(), Stop> {
    let pages = sealed(1)?;
    let others = [
        File::open("/dev/null")?.into(),
        file_of(&pages)?.try_clone_to_owned()?,
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?,
        open("/dev/udmabuf")?,
    ];
    for other in others {
        match DmaBuf::from_fd(other) {
            Err(NotADmaBuf::Other { .. }) => {}
            taken => return Err(Stop::broken(format!("a descriptor of something else: {taken:?}"))),
        }
    }
    Ok(())
}

fn names(tried: &mut Tried) -> Result<(), Stop> {
    let dma_buf = tried.udmabuf(&sealed(1)?)?;
    for name in ["a name of 32 bytes is one too long", "a\nname: b", "a\0b"] {
        match dma_buf.set_name(name) {
            Err(NameError::Unfit { .. }) => {}
            other => return Err(Stop::broken(format!("naming it {name:?}: {other:?}"))),
        }
    }
    Ok(())
}
