//! From names in a file to a plan that can be added up.

use super::file::{MemoryEntry, PinEntry, PlanFile};
use crate::exit::Failure;
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::pin::{Backend, Need, Plan, ProcessId, Request, RingHandle, RingShape, ScopeId, Via, required_memlock};

/// Where the first memory is laid, and to multiples of what each begins: no two share a page of any size.
const APART: u64 = 1 << 40;
/// Most pins of a plan; each takes some time to add up.
const MOST: u64 = 1 << 20;

/// A plan whose names are resolved.
pub(super) struct Resolved {
    page: Granule,
    /// Names of processes; their numbers are places here.
    pub(super) processes: Vec<String>,
    scopes: Vec<(ProcessId, String)>,
    rings: Vec<(ProcessId, RingHandle, RingShape)>,
    pins: Vec<Resolute>,
}

/// One line of the plan.
struct Resolute {
    process: ProcessId,
    backend: Backend,
    scope: u32,
    range: AddrRange<ProcVa>,
    compound: Option<Granule>,
    times: u32,
}

/// Place of a name, which is added where it is new.
fn place<T: PartialEq>(names: &mut Vec<T>, name: T) -> u32 {
    let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    });
    // A file of 1 MiB has no 2^32 names.
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn backend(word: &str, at: usize) -> Result<Backend, Failure> {
    Backend::ALL.into_iter().find(|backend| backend.word() == word).ok_or_else(|| {
        let words: Vec<&str> = Backend::ALL.iter().map(|backend| backend.word()).collect();
        Failure::impossible(format!("pin {at}: nothing is called through = {word:?}; there are {}", words.join(", ")))
    })
}

fn granule(size: Bytes, whose: &str, page: Granule) -> Result<Granule, Failure> {
    Granule::new(size).filter(|granule| *granule >= page).ok_or_else(|| {
        Failure::impossible(format!("{whose}: {size} is no size of pages; give a power of two from {page} on"))
    })
}

/// Memory at an address that it has in no process: what matters is which bytes share pages.
struct Laid {
    range: AddrRange<ProcVa>,
    compound: Option<Granule>,
}

fn lay(memory: &[MemoryEntry], page: Granule) -> Result<Vec<(&str, Laid)>, Failure> {
    let mut next = APART;
    let mut laid: Vec<(&str, Laid)> = Vec::new();
    for entry in memory {
        let name = entry.name.as_str();
        if laid.iter().any(|(known, _)| *known == name) {
            return Err(Failure::impossible(format!("two memories are called {name:?}; give each a name of its own")));
        }
        let compound = entry.pages.map(|pages| granule(pages, &format!("memory {name:?}"), page)).transpose()?;
        let start = next.checked_add(entry.behind.map_or(0, |behind| behind.as_u64())).map(ProcVa::new);
        let range = start.and_then(|start| AddrRange::new(start, entry.size)).filter(|range| {
            // What follows has to begin somewhere too.
            range.last().as_u64() < u64::MAX - APART
        });
        let range = range.ok_or_else(|| {
            let size = entry.size;
            let text =
                format!("memory {name:?}: {size} is no size that memory has beside the others; give the real one");
            Failure::impossible(text)
        })?;
        next = range.last().as_u64() / APART * APART + APART;
        laid.push((name, Laid { range, compound }));
    }
    Ok(laid)
}

impl Resolved {
    /// # Errors
    /// A name that leads nowhere, or a number that cannot be, with the place.
    pub(super) fn new(file: &PlanFile) -> Result<Self, Failure> {
        let page = file.page.map(|page| granule(page, "page", Granule::PAGE_4K)).transpose()?;
        let page = page.unwrap_or(Granule::PAGE_4K);
        let memory = lay(&file.memory, page)?;
        let mut resolved =
            Self { page, processes: Vec::new(), scopes: Vec::new(), rings: Vec::new(), pins: Vec::new() };
        for ring in &file.ring {
            let process = resolved.process(&ring.process);
            let number = resolved.scope(process, &ring.name);
            let shape = RingShape::new(ring.entries);
            let shape = ring.completions.map_or(shape, |completions| shape.completions(completions));
            resolved.rings.push((process, RingHandle::planned(number), shape));
        }
        for (at, pin) in file.pin.iter().enumerate() {
            let laid = memory.iter().find(|(name, _)| *name == pin.memory).map(|(_, laid)| laid);
            let laid = laid.ok_or_else(|| {
                Failure::impossible(format!("pin {}: no memory is called {:?}; add [[memory]]", at + 1, pin.memory))
            })?;
            let one = resolved.one(pin, laid, at + 1)?;
            resolved.pins.push(one);
        }
        let count: u64 = resolved.pins.iter().map(|pin| u64::from(pin.times)).sum();
        if count > MOST {
            return Err(Failure::impossible(format!("the plan has {count} pins; {MOST} can be added up")));
        }
        Ok(resolved)
    }

    fn process(&mut self, name: &str) -> ProcessId {
        ProcessId::new(place(&mut self.processes, name.to_string()))
    }

    fn scope(&mut self, process: ProcessId, name: &str) -> u32 {
        place(&mut self.scopes, (process, name.to_string()))
    }

    fn one(&mut self, pin: &PinEntry, laid: &Laid, at: usize) -> Result<Resolute, Failure> {
        let backend = backend(&pin.through, at)?;
        let process = self.process(&pin.process);
        let offset = pin.offset.unwrap_or(Bytes::ZERO);
        let rest = Bytes::new(laid.range.len().as_u64().saturating_sub(offset.as_u64()));
        let size = pin.size.unwrap_or(rest);
        let range = laid.range.slice(offset, size).ok_or_else(|| {
            let len = laid.range.len();
            Failure::impossible(format!("pin {at}: {size} from {offset} do not lie in {:?} of {len}", pin.memory))
        })?;
        let scope = self.scope(process, pin.within.as_deref().unwrap_or(&pin.through));
        Ok(Resolute { process, backend, scope, range, compound: laid.compound, times: pin.times })
    }

    /// What the plan needs, as it is written or with everything through one backend.
    pub(super) fn need(&self, all_through: Option<Backend>) -> Result<Need, Failure> {
        let mut plan = Plan::new(self.page);
        for (process, ring, shape) in &self.rings {
            let used = |pin: &Resolute| {
                let backend = all_through.unwrap_or(pin.backend);
                backend == Backend::IoUring && pin.process == *process && RingHandle::planned(pin.scope) == *ring
            };
            // A ring without pins is one all the same, unless the plan is told without rings.
            if all_through.is_none() || self.pins.iter().any(used) {
                plan.ring(*process, *ring, *shape);
            }
        }
        for pin in &self.pins {
            let request = Request::new(via(all_through.unwrap_or(pin.backend), pin.scope), pin.range);
            let request = pin.compound.map_or(request, |compound| request.in_compound_pages(compound));
            (0..pin.times).for_each(|_| plan.pin(pin.process, request));
        }
        required_memlock(&plan).map_err(|error| Failure::impossible(error.to_string()))
    }
}

fn via(backend: Backend, number: u32) -> Via {
    let scope = ScopeId::new(number);
    match backend {
        Backend::Type1 => Via::Type1 { container: scope },
        Backend::Iommufd => Via::Iommufd { file: scope },
        Backend::IommufdProcess => Via::IommufdProcess { file: scope },
        Backend::IoUring => Via::IoUring { ring: RingHandle::planned(number) },
        Backend::Rdma => Via::Rdma,
        Backend::Udmabuf => Via::Udmabuf,
        Backend::DmaHeap => Via::DmaHeap,
        _ => Via::Mlock,
    }
}
