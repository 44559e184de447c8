//! What the kernel has charged by now, as far as it was told here.
//!
//! No limits, no owners: those are the ledger's. A plan keeps books as well, one for each process.

use super::backend::Counted;
use super::counter::Counter;
use super::coverage::{Coverage, Left};
use super::request::{Request, Via, bytes_of};
use crate::addr::{Bytes, Granule};
use alloc::collections::BTreeMap;

/// What one request costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Cost {
    /// What the kernel adds to the counters of the backend's rule.
    pub charged: Bytes,
    /// What is kept in its place by it: its whole pages, or whole compound pages.
    pub size: Bytes,
}

/// A request that stands in the books.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) request: Request,
    pub(super) size: Bytes,
    /// Who paid for what it was charged.
    who: u64,
    charged: Bytes,
}

/// A sum by counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sums([u64; Counter::ALL.len()]);

impl Sums {
    fn of(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    fn add(&mut self, counter: Option<Counter>, bytes: Bytes) {
        if let Some(counter) = counter {
            self.0[counter as usize] += bytes.as_u64();
        }
    }

    fn take(&mut self, counter: Option<Counter>, bytes: Bytes) {
        if let Some(counter) = counter {
            self.0[counter as usize] -= bytes.as_u64();
        }
    }
}

/// The books of one process.
#[derive(Clone, Debug)]
pub(super) struct Books {
    page: Granule,
    charged: Sums,
    held: Sums,
    /// What is counted once within its scope, in units of each size.
    scopes: BTreeMap<(Via, Granule), Coverage>,
    next: u64,
}

impl Books {
    pub(super) fn new(page: Granule) -> Self {
        Self { page, charged: Sums::default(), held: Sums::default(), scopes: BTreeMap::new(), next: 0 }
    }

    pub(super) fn page(&self) -> Granule {
        self.page
    }

    /// What the kernel has charged.
    pub(super) fn charged(&self, counter: Counter) -> Bytes {
        Bytes::new(self.charged.of(counter))
    }

    /// What it would have charged if everything that is held were paid for.
    pub(super) fn held(&self, counter: Counter) -> Bytes {
        Bytes::new(self.held.of(counter))
    }

    /// In which units the request is counted, and whether once.
    fn counted(&self, request: &Request) -> (Granule, bool) {
        match (request.via().backend().rule().counted, request.compound(self.page)) {
            (Counted::Never | Counted::EachCall, _) | (Counted::CompoundOncePerScope, None) => (self.page, false),
            (Counted::OncePerScope, _) => (self.page, true),
            (Counted::CompoundOncePerScope, Some(compound)) => (compound, true),
        }
    }

    /// What the request would cost now; `None` past what 64 bits hold.
    pub(super) fn cost(&self, request: &Request) -> Option<Cost> {
        let (of, once) = self.counted(request);
        let units = request.units(of);
        let fresh = match self.scopes.get(&(request.via(), of)) {
            Some(scope) if once => scope.fresh(units),
            _ => units.count(),
        };
        let charged = match request.via().backend().rule().counted {
            Counted::Never => Bytes::ZERO,
            _ => bytes_of(fresh, of)?,
        };
        Some(Cost { charged, size: bytes_of(units.count(), of)? })
    }

    /// Enters a request; `None`, with nothing changed, past what 64 bits hold.
    pub(super) fn enter(&mut self, request: Request) -> Option<Entry> {
        let (Cost { charged, size }, (of, once)) = (self.cost(&request)?, self.counted(&request));
        self.room(charged)?;
        let who = self.next;
        self.next += 1;
        if once {
            self.scopes.entry((request.via(), of)).or_default().cover(request.units(of), who)?;
        }
        self.raise(&request, charged);
        Some(Entry { request, size, who, charged })
    }

    /// Strikes an entry out again.
    pub(super) fn strike(&mut self, entry: Entry) {
        let (rule, (of, once)) = (entry.request.via().backend().rule(), self.counted(&entry.request));
        let (mut returned, mut freed) = (entry.charged, entry.charged);
        if once && let Some(scope) = self.scopes.get_mut(&(entry.request.via(), of)) {
            let Left { paid, free } = scope.uncover(entry.request.units(of), entry.who);
            if scope.is_empty() {
                self.scopes.remove(&(entry.request.via(), of));
            }
            // They were counted on the way in, so that they fit.
            let bytes = |units| bytes_of(units, of).unwrap_or_default();
            freed = bytes(free);
            // Linux gives back with the slot what the slot was charged (`io_unaccount_mem` by `io_buffer_unmap`); where
            // pages are counted once, the last to go gives them back.
            returned = if rule.counted == Counted::CompoundOncePerScope { bytes(paid) } else { freed };
        }
        for counter in [rule.counter, rule.also] {
            self.charged.take(counter, returned);
            self.held.take(counter, freed);
        }
    }

    /// Charges what is no memory of the process's own, a ring's.
    pub(super) fn charge_ring(&mut self, bytes: Bytes) -> Option<()> {
        self.room(bytes)?;
        self.charged.add(Some(Counter::UserLocked), bytes);
        self.held.add(Some(Counter::UserLocked), bytes);
        Some(())
    }

    /// Gives it back.
    pub(super) fn release_ring(&mut self, bytes: Bytes) {
        self.charged.take(Some(Counter::UserLocked), bytes);
        self.held.take(Some(Counter::UserLocked), bytes);
    }

    fn raise(&mut self, request: &Request, charged: Bytes) {
        let rule = request.via().backend().rule();
        for counter in [rule.counter, rule.also] {
            self.charged.add(counter, charged);
            self.held.add(counter, charged);
        }
    }

    /// Whether every sum has room for so much more; what is held is never less than what is charged.
    fn room(&self, bytes: Bytes) -> Option<()> {
        self.held.0.iter().all(|sum| sum.checked_add(bytes.as_u64()).is_some()).then_some(())
    }
}
