//! The books against the kernel's own ways of counting, page by page and slot by slot.

use super::*;
use crate::pin::{Backend, Counter, PinHandle};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Base pages to here, in compound pages of `COMPOUND` from here on.
const EDGE: u64 = 24;
const PAGES: u64 = 56;
const COMPOUND: u64 = 4;

/// One pin, as the kernel remembers it.
struct Slot {
    via: Via,
    /// By number.
    pages: Vec<u64>,
    /// `imu->acct_pages`, where it is remembered.
    acct_pages: u64,
}

/// Counts the slow way.
#[derive(Default)]
struct Oracle {
    slots: BTreeMap<PinHandle, Slot>,
}

fn head(page: u64) -> Option<u64> {
    (page >= EDGE).then_some(page / COMPOUND)
}

impl Oracle {
    /// `io_buffer_account_pin`, line by line.
    fn account(&self, via: Via, pages: &[u64]) -> u64 {
        let (mut acct_pages, mut last) = (0, None);
        for (at, page) in pages.iter().enumerate() {
            let Some(hpage) = head(*page) else {
                acct_pages += 1;
                continue;
            };
            if last == Some(hpage) {
                continue;
            }
            last = Some(hpage);
            let on_the_ring = self.slots.values().filter(|slot| slot.via == via);
            let already = pages[..at].iter().chain(on_the_ring.flat_map(|slot| &slot.pages));
            if !already.into_iter().any(|page| head(*page) == Some(hpage)) {
                acct_pages += COMPOUND;
            }
        }
        acct_pages
    }

    fn pin(&mut self, handle: PinHandle, via: Via, pages: Vec<u64>) {
        let acct_pages = match via.backend() {
            Backend::IoUring => self.account(via, &pages),
            _ => pages.len() as u64,
        };
        self.slots.insert(handle, Slot { via, pages, acct_pages });
    }

    fn sum(&self, backend: Backend) -> u64 {
        let slots = self.slots.values().filter(|slot| slot.via.backend() == backend);
        match backend {
            Backend::Mlock | Backend::Iommufd | Backend::IommufdProcess => {
                let pages: BTreeSet<_> =
                    slots.flat_map(|slot| slot.pages.iter().map(|page| (slot.via, *page))).collect();
                pages.len() as u64
            }
            Backend::Udmabuf | Backend::DmaHeap => 0,
            _ => slots.map(|slot| slot.acct_pages).sum(),
        }
    }

    /// In pages: mm->locked_vm, user->locked_vm, mm->pinned_vm.
    fn charged(&self) -> [u64; 3] {
        let sum = |backend| self.sum(backend);
        let process = sum(Backend::IommufdProcess);
        let user = sum(Backend::Iommufd) + sum(Backend::IoUring);
        [sum(Backend::Mlock) + sum(Backend::Type1) + process, user, user + process + sum(Backend::Rdma)]
    }

    /// What rings hold, each compound page whole and once, each base page each time.
    fn held_by_rings(&self) -> u64 {
        let slots = || self.slots.values().filter(|slot| slot.via.backend() == Backend::IoUring);
        let heads: BTreeSet<_> =
            slots().flat_map(|slot| slot.pages.iter().filter_map(|page| Some((slot.via, head(*page)?)))).collect();
        let base = slots().flat_map(|slot| &slot.pages).filter(|page| head(**page).is_none()).count() as u64;
        heads.len() as u64 * COMPOUND + base
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pin { via: usize, start: u64, len: u64, within: u64 },
    Release { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let pin = (0..10_usize, 0..PAGES, 1..12_u64, 0..PAGE).prop_map(|(via, start, len, within)| Step::Pin {
        via,
        start,
        len,
        within,
    });
    prop_oneof![3 => pin, 2 => any::<usize>().prop_map(|nth| Step::Release { nth })]
}

proptest! {
    #[test]
    fn the_books_stand_where_the_kernel_s_counters_would(steps in prop::collection::vec(step(), 1..120)) {
        let mut ledger = ledger(None);
        let rings = [ring(&mut ledger), ring(&mut ledger)];
        let own = ledger.reading(Counter::UserLocked).charged.as_u64() / PAGE;
        let vias = [
            Via::Mlock,
            Via::Type1 { container: scope(0) },
            Via::Type1 { container: scope(1) },
            Via::Iommufd { file: scope(0) },
            Via::Iommufd { file: scope(1) },
            Via::IommufdProcess { file: scope(0) },
            Via::IoUring { ring: rings[0] },
            Via::IoUring { ring: rings[1] },
            Via::Rdma,
            Via::Udmabuf,
        ];
        let mut oracle = Oracle::default();
        let mut live: Vec<PinHandle> = Vec::new();
        for step in steps {
            match step {
                Step::Pin { via, start, len, within } => {
                    // Each pin lies in memory of one kind.
                    let end = if start < EDGE { (start + len).min(EDGE) } else { (start + len).min(PAGES) };
                    let from = start * PAGE + within;
                    let request = Request::new(vias[via], bytes(from, end * PAGE - from));
                    let compound = Granule::new(Bytes::new(COMPOUND * PAGE)).unwrap();
                    let request = if start < EDGE { request } else { request.in_compound_pages(compound) };
                    let before = Counter::ALL.map(|counter| ledger.reading(counter).charged.as_u64());
                    let cost = ledger.check(NIC, &request).unwrap();
                    let handle = ledger.charge(NIC, request).unwrap();
                    for (before, counter) in before.into_iter().zip(Counter::ALL) {
                        let rule = vias[via].backend().rule();
                        let concerned = rule.counter == Some(counter) || rule.also == Some(counter);
                        let added = if concerned { cost.charged.as_u64() } else { 0 };
                        prop_assert_eq!(ledger.reading(counter).charged.as_u64(), before + added);
                    }
                    oracle.pin(handle, vias[via], (start..end).collect());
                    live.push(handle);
                }
                Step::Release { .. } if live.is_empty() => {}
                Step::Release { nth } => {
                    let handle = live.swap_remove(nth % live.len());
                    ledger.release(handle).unwrap();
                    prop_assert!(ledger.release(handle).is_err());
                    oracle.slots.remove(&handle);
                }
            }
            let charged = Counter::ALL.map(|counter| ledger.reading(counter).charged.as_u64() / PAGE);
            let [locked, user, pinned] = oracle.charged();
            prop_assert_eq!(charged, [locked, user + own, pinned]);
            let reading = ledger.reading(Counter::UserLocked);
            let held = oracle.sum(Backend::Iommufd) + oracle.held_by_rings() + own;
            prop_assert_eq!(reading.held.as_u64() / PAGE, held);
            prop_assert!(reading.charged <= reading.held);
        }
        for handle in live {
            ledger.release(handle).unwrap();
        }
        for counter in Counter::ALL {
            let reading = ledger.reading(counter);
            prop_assert!(reading.is_exact());
            prop_assert_eq!(reading.held.as_u64() / PAGE, if counter == Counter::UserLocked { own } else { 0 });
        }
    }
}
