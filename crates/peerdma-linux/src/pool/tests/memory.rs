//! What pools are made of, and how their bytes are whose.

use super::pinned;
use crate::pool::{BufferError, Options, Pages, Pool, PoolError, Stay};
use peerdma::addr::Bytes;
use peerdma::addr::Granule;
use std::io::Write;
use std::thread;

const MIB: u64 = 1 << 20;

#[test]
fn bytes_of_two_buffers_do_not_meet_and_stay_after_others_are_put_back() {
    let Some(pool) = pinned(MIB, |options| options) else { return };
    let owner = pool.owner("rx").unwrap();
    let mut buffers = Vec::new();
    for number in 0_u8..100 {
        let buffer = pool.take(Bytes::new(100 + u64::from(number)), owner).unwrap();
        buffer.write(Bytes::ZERO, &vec![number; 100 + usize::from(number)]).unwrap();
        buffers.push((number, buffer));
    }
    buffers.retain(|(number, _)| number % 3 != 0);
    for (number, buffer) in &buffers {
        let mut bytes = vec![0; 100 + usize::from(*number)];
        buffer.read(Bytes::ZERO, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| byte == number));
        assert!(buffer.write(Bytes::new(100 + u64::from(*number)), &[1]).is_err(), "past its end, though in its block");
        assert!(buffer.read(Bytes::new(u64::MAX), &mut [0, 0]).is_err());
    }
    assert_eq!(pool.report().live().len(), buffers.len());
    drop(buffers);
    assert_eq!(pool.report().free(), Bytes::new(MIB));
}

#[test]
fn a_pool_is_pinned_as_a_whole_and_lets_go_with_its_last_buffer() {
    let Some(pool) = pinned(4 * MIB, |options| options.granule(Granule::PAGE_4K)) else { return };
    let pin = pool.pin().unwrap();
    assert_eq!(pin.range(), pool.range());
    assert_eq!(pool.range().start().as_u64() % (2 * MIB), 0, "as huge pages lie");
    let Pages::Ordinary { huge } = pool.pages() else { unreachable!("no hugetlb was asked for") };
    assert!(huge.as_u64() <= 4 * MIB && huge.as_u64().is_multiple_of(2 * MIB), "whole huge pages of it: {huge}");
    let buffer = pool.take(Bytes::new(1), pool.owner("last").unwrap()).unwrap();
    drop(pool);
    buffer.write(Bytes::ZERO, &[1]).unwrap();
}

#[test]
fn threads_take_and_put_back_through_caches_of_their_own() {
    let Some(pool) = pinned(4 * MIB, |options| options) else { return };
    let threads = (0_u8..4).map(|number| {
        let pool = pool.clone();
        thread::spawn(move || {
            let owner = pool.owner(&format!("thread {number}")).unwrap();
            let mut cache = pool.cache();
            for round in 0..2000_u64 {
                let buffers: Vec<_> =
                    (0..4).map(|nth| cache.take(Bytes::new(64 + (round * 37 + nth) % 4000), owner).unwrap()).collect();
                for buffer in &buffers {
                    buffer.write(Bytes::ZERO, &[number; 64]).unwrap();
                }
                for buffer in buffers {
                    let mut bytes = [0; 64];
                    buffer.read(Bytes::ZERO, &mut bytes).unwrap();
                    assert_eq!(bytes, [number; 64]);
                    cache.put(buffer);
                }
            }
            assert_ne!(cache.held(), Bytes::ZERO);
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let report = pool.report();
    assert!(report.live().is_empty(), "{report}");
    assert_eq!(report.free(), Bytes::new(4 * MIB));
}

#[test]
fn a_buffer_of_another_pool_goes_back_to_its_own() {
    let (Some(one), Some(other)) = (pinned(MIB, |options| options), pinned(MIB, |options| options)) else { return };
    let buffer = one.take(Bytes::new(64), one.owner("rx").unwrap()).unwrap();
    let mut cache = other.cache();
    cache.put(buffer);
    assert_eq!(cache.held(), Bytes::ZERO);
    assert!(one.report().live().is_empty());
}

/// A kernel without pages put aside says "no memory", or lets the first access end the process.
#[test]
fn hugetlb_pages_that_are_not_there_are_refused_with_how_many_are() {
    let too_many = Pool::new(Bytes::new(1 << 46), Options::new(Stay::Hugetlb));
    match too_many.unwrap_err() {
        PoolError::TooFewHugePages { needed, free, .. } => assert!(needed > free),
        PoolError::NoHugetlb => {}
        other => unreachable!("{other}"),
    }
}

#[test]
fn sizes_that_no_process_has_are_refused() {
    let Some(pool) = pinned(1, |options| options) else { return };
    assert_eq!(pool.range().len(), crate::memory::page_size());
    for size in [0, u64::MAX, 1 << 63] {
        let made = Pool::new(Bytes::new(size), Options::new(Stay::Hugetlb));
        assert!(matches!(made, Err(PoolError::Size { .. } | PoolError::NoHugetlb)), "{made:?}");
    }
}

#[test]
fn pages_of_the_hugetlb_pool_need_no_pin() {
    let pool = match Pool::new(Bytes::new(1), Options::new(Stay::Hugetlb)) {
        Ok(pool) => pool,
        Err(error @ (PoolError::TooFewHugePages { .. } | PoolError::NoHugetlb)) => {
            let _ = std::io::stderr().write_all(format!("SKIPPED hugetlb-pool: {error}\n").as_bytes());
            return;
        }
        Err(error) => unreachable!("{error}"),
    };
    let Pages::Hugetlb { each } = pool.pages() else { unreachable!("hugetlb was asked for") };
    assert_eq!(pool.range().len(), each, "a page at least");
    assert!(pool.pin().is_none());
    let buffer = pool.take(Bytes::new(3), pool.owner("rx").unwrap()).unwrap();
    buffer.write(Bytes::ZERO, b"abc").unwrap();
}

/// The kernel copies pinned pages at a fork, all of them, where it is not told to leave them out.
#[test]
fn children_have_nothing_at_a_pools_addresses() {
    let Some(pool) = pinned(MIB, |options| options) else { return };
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    // The kernel may have merged it with a neighbour, another pool's.
    let at = pool.range().start().as_u64();
    let holds = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let hex = |word| u64::from_str_radix(word, 16).ok();
        Some((hex(start)?..hex(end)?).contains(&at))
    };
    let mut mapping = smaps.lines().skip_while(|line| holds(line) != Some(true));
    let flags = mapping.find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.split_whitespace().any(|flag| flag == "dc"), "{flags}");
}

/// What a child maps where its parent's pool is stays the child's when the pool is dropped there.
#[test]
fn a_child_has_no_access_to_a_pool_and_dropping_it_there_unmaps_nothing_of_the_childs() {
    use crate::sys::region::Region;
    let Some(pool) = pinned(MIB, |options| options) else { return };
    let (range, buffer) = (pool.range(), pool.take(Bytes::new(8), pool.owner("rx").unwrap()).unwrap());
    let mut handles = Some((pool, buffer));
    let answer = crate::sys::disturb::in_a_forked_child(std::time::Duration::from_secs(30), || {
        let Ok(own) = Region::map(Some(range.start()), range.len()) else { return 1 };
        let Ok(()) = own.write(range.start(), &[7; 8]) else { return 2 };
        let Some((pool, buffer)) = handles.take() else { return 3 };
        let refused = [buffer.read(Bytes::ZERO, &mut [0; 8]), buffer.write(Bytes::ZERO, &[1; 8])];
        if refused != [Err(BufferError::Forked); 2] {
            return 4;
        }
        drop((buffer, pool));
        let mut bytes = [0; 8];
        u8::from(own.read(range.start(), &mut bytes).is_err() || bytes != [7; 8])
    });
    assert_eq!(answer, Some(0));
    let (_pool, buffer) = handles.unwrap();
    buffer.write(Bytes::ZERO, &[1; 8]).unwrap();
}
