//! The limit that is needed for what is going to be pinned, before any of it is.

use super::backend::Backend;
use super::books::Books;
use super::counter::Counter;
use super::error::ChargeError;
use super::handle::RingHandle;
use super::request::{Request, Via};
use super::ring::RingShape;
use crate::addr::{Bytes, Granule};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

/// Number of a process in a plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ProcessId(u32);

impl ProcessId {
    /// The process of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.0)
    }
}

/// What the processes of one user are going to pin at the same time.
#[derive(Clone, Debug)]
pub struct Plan {
    page: Granule,
    rings: BTreeMap<(ProcessId, RingHandle), RingShape>,
    requests: Vec<(ProcessId, Request)>,
}

impl Plan {
    /// Nothing yet, on a machine of such pages.
    pub fn new(page: Granule) -> Self {
        Self { page, rings: BTreeMap::new(), requests: Vec::new() }
    }

    /// Plans a ring, numbered by [`RingHandle::planned`]. One that requests name and nobody plans has one entry.
    pub fn ring(&mut self, process: ProcessId, ring: RingHandle, shape: RingShape) {
        self.rings.insert((process, ring), shape);
    }

    /// Plans a pin. The same again is another pin.
    pub fn pin(&mut self, process: ProcessId, request: Request) {
        if let Via::IoUring { ring } = request.via() {
            self.rings.entry((process, ring)).or_insert(RingShape::new(1));
        }
        self.requests.push((process, request));
    }
}

/// What a counter comes to under a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CounterNeed {
    /// Which.
    pub counter: Counter,
    /// Whose; `None` for a counter that all processes of the user share.
    pub process: Option<ProcessId>,
    /// What it comes to.
    pub need: Bytes,
    /// Whether anything in the plan holds it against the limit. What only raises a counter needs no limit for it.
    pub limited: bool,
}

/// What a plan needs.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Need {
    /// What each backend adds to its counter, rings of its own included; in the order of [`Backend::ALL`], and only those in the plan.
    pub backends: Vec<(Backend, Bytes)>,
    /// What each counter comes to.
    pub counters: Vec<CounterNeed>,
    /// The least `RLIMIT_MEMLOCK` with which nothing of it is refused: the most that any counter that is held against it
    /// comes to. Counters have the whole limit each, so this is no sum of all.
    pub limit: Bytes,
}

/// Why a plan cannot be added up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// More than 64 bits.
    #[error("the plan comes to more than 2^64 bytes with pin {index}; plan less")]
    Overflow {
        /// Which of the pins, from 0.
        index: usize,
    },
    /// A ring that cannot be.
    #[error("{process}: {source}")]
    Ring {
        /// Whose.
        process: ProcessId,
        /// Why.
        source: ChargeError,
    },
}

/// What limit a plan needs, by every backend's own rule.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
/// use peerdma::pin::{Plan, ProcessId, Request, ScopeId, Via, required_memlock};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A guest's memory of 8 GiB, mapped into three containers: charged three times to one counter.
/// let guest = AddrRange::new(ProcVa::new(0x7f00_0000_0000), Bytes::new(8 << 30)).unwrap();
/// let mut plan = Plan::new(Granule::PAGE_4K);
/// for container in 0..3 {
///     plan.pin(ProcessId::new(0), Request::new(Via::Type1 { container: ScopeId::new(container) }, guest));
/// }
/// assert_eq!(required_memlock(&plan)?.limit, Bytes::new(24 << 30));
///
/// // In one iommufd later mappings copy the first, and it is charged once.
/// let mut plan = Plan::new(Granule::PAGE_4K);
/// for _ in 0..3 {
///     plan.pin(ProcessId::new(0), Request::new(Via::Iommufd { file: ScopeId::new(0) }, guest));
/// }
/// assert_eq!(required_memlock(&plan)?.limit, Bytes::new(8 << 30));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`PlanError`], with what to plan otherwise.
pub fn required_memlock(plan: &Plan) -> Result<Need, PlanError> {
    let mut books: BTreeMap<ProcessId, Books> = BTreeMap::new();
    let mut backends: BTreeMap<Backend, u64> = BTreeMap::new();
    let mut add = |backend, bytes: Bytes| {
        let sum = backends.entry(backend).or_insert(0);
        *sum = sum.saturating_add(bytes.as_u64());
    };
    let new = || Books::new(plan.page);
    for ((process, _), shape) in &plan.rings {
        let charge = shape.charge(plan.page).ok_or_else(|| {
            let source = ChargeError::RingShape { entries: shape.entries() };
            PlanError::Ring { process: *process, source }
        })?;
        // So many rings that their sum overflows would not fit the plan itself.
        let _ = books.entry(*process).or_insert_with(new).charge_ring(charge);
        add(Backend::IoUring, charge);
    }
    for (index, (process, request)) in plan.requests.iter().enumerate() {
        let books = books.entry(*process).or_insert_with(new);
        let cost = books.cost(request).ok_or(PlanError::Overflow { index })?;
        books.enter(*request).ok_or(PlanError::Overflow { index })?;
        add(request.via().backend(), cost.charged);
    }
    let mut counters = Vec::new();
    for (process, books) in &books {
        for counter in [Counter::MmLocked, Counter::MmPinned] {
            let limited = plan.limits(counter, Some(*process));
            counters.push(CounterNeed { counter, process: Some(*process), need: books.charged(counter), limited });
        }
    }
    let user =
        books.values().try_fold(0_u64, |sum, books| sum.checked_add(books.charged(Counter::UserLocked).as_u64()));
    let user = Bytes::new(user.ok_or(PlanError::Overflow { index: plan.requests.len().saturating_sub(1) })?);
    let limited = plan.limits(Counter::UserLocked, None);
    counters.push(CounterNeed { counter: Counter::UserLocked, process: None, need: user, limited });
    counters.retain(|counter| counter.need > Bytes::ZERO);
    let limit = counters.iter().filter(|counter| counter.limited).map(|counter| counter.need).max().unwrap_or_default();
    let backends = backends.into_iter().map(|(backend, sum)| (backend, Bytes::new(sum))).collect();
    Ok(Need { backends, counters, limit })
}

impl Plan {
    /// Whether something in it holds the counter against the limit.
    fn limits(&self, counter: Counter, process: Option<ProcessId>) -> bool {
        let ours = |it: &ProcessId| process.is_none_or(|process| process == *it);
        let rings = counter == Counter::UserLocked && self.rings.keys().any(|(it, _)| ours(it));
        let holds = |request: &Request| request.via().backend().rule().counter == Some(counter);
        rings || self.requests.iter().any(|(it, request)| ours(it) && holds(request))
    }
}
