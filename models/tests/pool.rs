//! Threads take and put back blocks of one pool, through caches of their own and past them.

#![cfg(peerdma_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of models")]

use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::pool::{Area, Block, Cache, Full};
use peerdma_models::orders;
use shuttle::sync::Mutex;
use shuttle::thread;
use std::sync::Arc;

const PAGE: Bytes = Bytes::new(0x1000);

/// An area of four pages.
fn area() -> Arc<Area> {
    let range = AddrRange::new(ProcVa::new(0x10_0000), Bytes::new(0x4000)).unwrap();
    Arc::new(Area::new(range, Granule::PAGE_4K).unwrap())
}

/// Whose each page is, kept beside the pool by those who have them.
#[derive(Default)]
struct Ledger(Mutex<Vec<ProcVa>>);

impl Ledger {
    fn has(&self, block: &Block) {
        let mut pages = self.0.lock().unwrap();
        assert!(!pages.contains(&block.address()), "somebody has {} already", block.address());
        pages.push(block.address());
    }

    fn lets_go(&self, block: &Block) {
        self.0.lock().unwrap().retain(|page| *page != block.address());
    }
}

#[test]
fn a_block_is_one_threads_at_a_time_whoever_puts_it_back() {
    orders::some(2000, || {
        let (area, ledger) = (area(), Arc::new(Ledger::default()));
        let owner = area.owner("rx").unwrap();
        let handed: Arc<Mutex<Vec<Block>>> = Arc::default();
        let threads = (0..3).map(|_| {
            let (area, ledger, handed) = (Arc::clone(&area), Arc::clone(&ledger), Arc::clone(&handed));
            thread::spawn(move || {
                let mut cache = Cache::new(area);
                let take = |cache: &mut Cache| -> Result<Block, Full> {
                    let block = cache.take(PAGE, owner)?;
                    ledger.has(&block);
                    Ok(block)
                };
                // One that another thread puts back, and one of its own.
                let first = take(&mut cache).unwrap();
                handed.lock().unwrap().push(first);
                let other = handed.lock().unwrap().pop().unwrap();
                ledger.lets_go(&other);
                cache.put(other).unwrap();
                let second = take(&mut cache).unwrap();
                ledger.lets_go(&second);
                cache.area().put(second).unwrap();
            })
        });
        let threads: Vec<_> = threads.collect();
        // A report takes no lock, and tells nobody's block twice.
        let report = area.report();
        assert!(report.live().len() <= 4);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let report = area.report();
        assert!(report.live().is_empty());
        assert_eq!(report.free(), Bytes::new(0x4000), "what caches kept is back");
    });
}

/// The moment between the lock and the tag, and the other way round.
#[test]
fn a_report_of_threads_that_rest_is_exact() {
    orders::some(2000, || {
        let area = area();
        let owners = ["rx", "tx"].map(|name| area.owner(name).unwrap());
        let threads = owners.map(|owner| {
            let area = Arc::clone(&area);
            thread::spawn(move || {
                let mut cache = Cache::new(Arc::clone(&area));
                let lost = cache.take(PAGE, owner).unwrap();
                let kept = cache.take(PAGE, owner).unwrap();
                cache.put(kept).unwrap();
                lost
            })
        });
        let lost = threads.map(|thread| thread.join().unwrap());
        let report = area.report();
        let mut told: Vec<ProcVa> = report.live().iter().map(|live| live.range.start()).collect();
        let mut so: Vec<ProcVa> = lost.iter().map(Block::address).collect();
        told.sort();
        so.sort();
        assert_eq!(told, so);
        assert_eq!(report.shares().len(), 2);
        assert_eq!(report.cached(), Bytes::ZERO);
    });
}
