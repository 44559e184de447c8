//! PT3 to PT6 and PT8: the whole engine, from reserving IOVAs to giving them back.

use super::lists;
use crate::limits::bump::Bump;
use crate::limits::known_table::KnownTables;
use crate::peers::vm_alloc::VmAllocator;
use crate::peers::{Allocates, multiarch};
use crate::row::{Gate, Pair, Row, Side, Turn};
use std::hint::black_box;

/// Pages of a cycle.
const PAGES: u64 = lists::PAGES;

/// Pages of 64 KiB.
const SMALL: u64 = 16;

/// A peer of two crates.
const TWO_CRATES: &str = "vm-allocator + multiarch";

/// The rows of this file.
pub fn rows() -> Vec<Row> {
    vec![scattered(), uniform_and_mixed(), one_range(), small_loop(), one_domain()]
}

fn scattered() -> Row {
    Row {
        sides: vec![
            Side::new("link", || ours::links(&lists::single_pages())).units(PAGES).turns(200, 40),
            Side::new("link_many", || ours::many(&lists::single_pages())).units(PAGES).turns(200, 40),
            Side::new(TWO_CRATES, || two_crates(lists::single_pages())).units(PAGES).turns(100, 20).reference(234.0),
            Side::new("L", || known(lists::single_pages())).units(PAGES).turns(1_000, 100).reference(21.5),
        ],
        gates: vec![
            Gate::Instructions { of: "link", most: 140.0 },
            Gate::Instructions { of: "link_many", most: 90.0 },
            Gate::Ratio { of: "link", to: "L", most: 5.5 },
            Gate::Ratio { of: "link_many", to: "L", most: 4.0 },
            Gate::Ratio { of: "link", to: TWO_CRATES, most: 0.55 },
            Gate::Ratio { of: "link_many", to: TWO_CRATES, most: 0.42 },
        ],
        ..Row::new("PT3", "two-step 1 MiB of 256 scattered pages", "page")
    }
}

fn uniform_and_mixed() -> Row {
    Row {
        sides: vec![
            Side::new("uniform", || ours::many(&lists::uniform())).units(PAGES).turns(1_000, 100),
            Side::new("mixed", || ours::many(&lists::mixed())).units(PAGES).turns(1_000, 100),
            Side::new("two crates, uniform", || two_crates(lists::uniform()))
                .units(PAGES)
                .turns(100, 20)
                .reference(181.0),
            Side::new("two crates, mixed", || two_crates(lists::mixed())).units(PAGES).turns(100, 20).reference(176.0),
            Side::new("L uniform", || known(lists::uniform())).units(PAGES).turns(2_000, 100).reference(13.0),
            Side::new("L mixed", || known(lists::mixed())).units(PAGES).turns(2_000, 100).reference(13.0),
        ],
        gates: vec![
            Gate::Instructions { of: "uniform", most: 26.0 },
            Gate::Instructions { of: "mixed", most: 26.0 },
            Gate::Ratio { of: "uniform", to: "L uniform", most: 2.2 },
            Gate::Ratio { of: "mixed", to: "L mixed", most: 2.2 },
            Gate::Ratio { of: "mixed", to: "uniform", most: 1.3 },
        ],
        ..Row::new("PT4", "two-step 1 MiB of 16 x 64 KiB, and of 14 ranges of 4 to 512 KiB", "page")
    }
}

fn one_range() -> Row {
    Row {
        sides: vec![
            Side::new("two-step", || ours::links(&lists::whole())).units(PAGES).turns(1_000, 100),
            Side::new("one call", || ours::one_call(&lists::whole())).units(PAGES).turns(1_000, 100),
            Side::new(TWO_CRATES, || two_crates(lists::whole())).units(PAGES).turns(100, 20).reference(170.0),
            Side::new("L", || known(lists::whole())).units(PAGES).turns(2_000, 100).reference(12.5),
        ],
        gates: vec![
            Gate::Instructions { of: "two-step", most: 20.0 },
            Gate::Ratio { of: "two-step", to: "L", most: 1.8 },
            Gate::Equal { of: "two-step", to: "one call", within: 0.10 },
        ],
        ..Row::new("PT5", "two-step one range of 1 MiB", "page")
    }
}

fn small_loop() -> Row {
    Row {
        sides: vec![
            Side::new("peerdma", || ours::in_place(&lists::scattered(&[SMALL]))).turns(10_000, 1_000),
            Side::new("with its IOVAs", || ours::one_call(&lists::scattered(&[SMALL]))).turns(10_000, 1_000),
            Side::new("page_table_multiarch", multiarch_small).turns(1_000, 200).reference(2_981.0),
            Side::new("L", known_small).turns(20_000, 1_000).reference(171.0),
        ],
        gates: vec![
            Gate::Short { of: "peerdma", most: 480.0, held: 1250.0 },
            Gate::Ratio { of: "peerdma", to: "L", most: 3.6 },
        ],
        ..Row::new("PT6", "map and unmap 64 KiB", "op")
    }
}

fn one_domain() -> Row {
    Row {
        sides: vec![
            Side::new("link", || ours::links(&lists::single_pages())).units(PAGES).turns(100, 0),
            Side::new("link_many", || ours::many(&lists::single_pages())).units(PAGES).turns(100, 0),
        ],
        pairs: vec![Pair { name: "link", start: ours::shared, timed: 1_000, wanted: 1.85, stalls: false }],
        gates: vec![Gate::NoAllocation { of: "link" }, Gate::NoAllocation { of: "link_many" }],
        ..Row::new("PT8", "256 scattered pages, queues on one domain", "page")
    }
}

/// Stores into a table that is known, IOVAs counted up.
fn known(ranges: Vec<(u64, u64)>) -> Turn {
    let known = KnownTables::new(1);
    let pages: u64 = ranges.iter().map(|&(_, pages)| pages).sum();
    let mut iovas = Bump::new(0, u64::MAX);
    Box::new(move |turns| {
        for _ in 0..turns {
            let first = iovas.take(pages).unwrap_or(0);
            black_box(&known).map(first, black_box(&ranges));
            black_box(&known).unmap(first, pages);
        }
    })
}

/// The same of one range, at IOVAs that stay.
fn known_small() -> Turn {
    let (known, ranges) = (KnownTables::new(1), lists::scattered(&[SMALL]));
    Box::new(move |turns| {
        for _ in 0..turns {
            black_box(&known).map(0, black_box(&ranges));
            black_box(&known).unmap_first(black_box(SMALL));
        }
    })
}

/// IOVAs from one crate, tables from another.
fn two_crates(ranges: Vec<(u64, u64)>) -> Turn {
    let (mut iovas, mut table) = (VmAllocator::new(1, (1 << 36) - 1), multiarch::table());
    let pages: u64 = ranges.iter().map(|&(_, pages)| pages).sum();
    Box::new(move |turns| {
        let mut well = true;
        for _ in 0..turns {
            let Some(start) = iovas.take(pages) else { unreachable!("nothing else is taken") };
            let (mut at, mut cursor) = (start << 12, table.cursor());
            for &(target, pages) in black_box(&ranges) {
                well &= multiarch::map(&mut cursor, at, target, pages << 12, true);
                at += pages << 12;
            }
            well &= multiarch::unmap(&mut cursor, start << 12, pages << 12);
            iovas.give(start, pages);
        }
        assert!(well, "the peer maps and unmaps");
    })
}

fn multiarch_small() -> Turn {
    let mut table = multiarch::table();
    let target = lists::scattered(&[SMALL])[0].0;
    Box::new(move |turns| {
        let mut well = true;
        for _ in 0..turns {
            well &= multiarch::map(&mut table.cursor(), 1 << 32, black_box(target), SMALL << 12, true);
            well &= multiarch::unmap(&mut table.cursor(), 1 << 32, SMALL << 12);
        }
        assert!(well, "the peer maps and unmaps");
    })
}

/// Ours.
mod ours {
    use super::lists;
    use crate::row::{SharedTurn, Turn};
    use crate::rows::kept;
    use peerdma::access::{MemAttrs, Prot};
    use peerdma::addr::{Bytes, Granule, PhysAddr};
    use peerdma::chunk::{Chunk, Chunks};
    use peerdma::dma::spaces::{SoftIommu, SoftSpace};
    use peerdma::dma::{Context, Initiator, Owner, Owners, Peers, Reservation, Staged};
    use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage};
    use peerdma::iova::{Allocator, Depot};
    use peerdma::topology::IommuMode;
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::hint::black_box;
    use std::sync::Mutex;

    type Domain = SoftIommu<VtdSecondStage, FrameArena>;
    type Space = SoftSpace<'static, VtdSecondStage, FrameArena>;
    type Queue<D> = Context<'static, Space, D>;

    fn domain() -> &'static Domain {
        let format = VtdSecondStage::new(VtdOptions::default());
        let arena = FrameArena::new(PhysAddr::new(1 << 30), 4096);
        match format.ok().and_then(|format| SoftIommu::new(format, arena).ok()) {
            Some(domain) => kept(domain),
            None => unreachable!("an arena has a frame for the root"),
        }
    }

    fn iovas(domain: &Domain) -> Allocator {
        match Allocator::new(Granule::PAGE_4K, &domain.abilities().usable) {
            Ok(iovas) => iovas,
            Err(error) => unreachable!("a domain has usable IOVAs: {error}"),
        }
    }

    fn queue<D: Depot>(domain: &'static Domain, depot: &'static D, owners: &'static Owners<Infallible>) -> Queue<D> {
        let nic = Initiator::new("nic", IommuMode::Translated).with_mask_bits(48);
        match Context::new(nic, domain.attach(), owners, kept(Peers::none()), depot) {
            Ok(queue) => queue,
            Err(error) => unreachable!("nothing unusual is asked for: {error}"),
        }
    }

    fn alone() -> &'static Queue<RefCell<Allocator>> {
        let domain = domain();
        kept(queue(domain, kept(RefCell::new(iovas(domain))), kept(Owners::new())))
    }

    fn chunks(ranges: &[(u64, u64)]) -> Vec<Chunk<Owner>> {
        let chunk = |&(target, pages): &(u64, u64)| {
            Chunk::new(Owner::Ram, Bytes::new(target), Bytes::new(pages << lists::SHIFT), MemAttrs::empty())
        };
        ranges.iter().filter_map(chunk).collect()
    }

    fn bytes(chunks: &[Chunk<Owner>]) -> Bytes {
        Bytes::new(chunks.iter().map(|chunk| chunk.len().as_u64()).sum())
    }

    /// Reserves, links, syncs, unlinks and releases; false if anything of it is refused.
    #[inline(always)]
    fn cycle<D: Depot>(
        queue: &Queue<D>,
        len: Bytes,
        link: impl FnOnce(&mut Staged<'_, 'static, Space, D>) -> bool,
    ) -> bool {
        let Ok(reserved) = queue.reserve(len) else { return false };
        let mut staged = reserved.stage();
        if !link(&mut staged) {
            return false;
        }
        let Ok(mapping) = staged.sync() else { return false };
        black_box(&mapping);
        match mapping.unlink() {
            Ok(reserved) => {
                reserved.release();
                true
            }
            Err(_) => false,
        }
    }

    #[inline(always)]
    fn link_each<D: Depot>(staged: &mut Staged<'_, 'static, Space, D>, chunks: &[Chunk<Owner>]) -> bool {
        chunks.iter().all(|&chunk| staged.link(chunk, Prot::ReadWrite).is_ok())
    }

    /// One range after the other.
    pub(super) fn links(ranges: &[(u64, u64)]) -> Turn {
        let (queue, chunks) = (alone(), chunks(ranges));
        let len = bytes(&chunks);
        Box::new(move |turns| {
            let cycle = || cycle(queue, len, |staged| link_each(staged, black_box(&chunks)));
            assert!((0..turns).fold(true, |well, _| cycle() && well), "all is mapped and unmapped");
        })
    }

    /// A list at once.
    pub(super) fn many(ranges: &[(u64, u64)]) -> Turn {
        let (queue, chunks) = (alone(), chunks(ranges));
        let len = bytes(&chunks);
        let Ok(list) = Chunks::collect_from(chunks) else { unreachable!("1 MiB is not too long") };
        Box::new(move |turns| {
            let link =
                || cycle(queue, len, |staged| staged.link_many(black_box(&list).view(), Prot::ReadWrite).is_ok());
            assert!((0..turns).fold(true, |well, _| link() && well), "all is mapped and unmapped");
        })
    }

    /// The one call that maps one range.
    pub(super) fn one_call(ranges: &[(u64, u64)]) -> Turn {
        let (queue, chunks) = (alone(), chunks(ranges));
        let map = move |chunk: Chunk<Owner>| {
            let unlinked = queue.map_one(chunk, Prot::ReadWrite).ok().and_then(|mapping| {
                black_box(&mapping);
                mapping.unlink().ok()
            });
            unlinked.map(Reservation::release).is_some()
        };
        Box::new(move |turns| {
            let all = || black_box(&chunks).iter().all(|&chunk| map(chunk));
            assert!((0..turns).fold(true, |well, _| all() && well), "all is mapped and unmapped");
        })
    }

    /// Maps and unmaps in IOVAs that stay reserved.
    pub(super) fn in_place(ranges: &[(u64, u64)]) -> Turn {
        let (queue, chunks) = (alone(), chunks(ranges));
        let len = bytes(&chunks);
        Box::new(move |turns| {
            let mut reserved = queue.reserve(len).ok();
            for _ in 0..turns {
                reserved = reserved.and_then(|reserved| {
                    let mut staged = reserved.stage();
                    let linked = link_each(&mut staged, black_box(&chunks));
                    staged.sync().ok().filter(|_| linked)?.unlink().ok()
                });
            }
            assert!(reserved.is_some(), "all is mapped and unmapped");
        })
    }

    /// Two queues on one domain, each in a thread with IOVAs of its own.
    pub(super) fn shared() -> [SharedTurn; 2] {
        let domain = domain();
        let depot: &'static Mutex<Allocator> = kept(Mutex::new(iovas(domain)));
        let thread = || -> SharedTurn {
            let chunks = chunks(&lists::single_pages());
            let len = bytes(&chunks);
            Box::new(move |turns| {
                let queue = queue(domain, depot, kept(Owners::new()));
                let link = || cycle(&queue, len, |staged| link_each(staged, black_box(&chunks)));
                assert!((0..turns).fold(true, |well, _| link() && well), "all is mapped and unmapped");
            })
        };
        [thread(), thread()]
    }
}
